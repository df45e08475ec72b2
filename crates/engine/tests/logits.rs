//! Logits of whole models have the same bits everywhere: natively with every instruction set that the machine has, and
//! in wasm with plain and with relaxed SIMD. One hash each, which every target must find.
//!
//! With `INKLING_LONG` set when this is compiled the seeded GPT-2 has its full size, which takes a minute; without it,
//! two of its twelve blocks and a part of its vocabulary.

#![expect(clippy::unwrap_used, reason = "a test may panic, and its helpers with it")]

#[path = "support/seeded.rs"]
mod seeded;

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use std::sync::{Mutex, PoisonError};

use inkling_engine::checkpoint::{Dtype, LoadOptions, Loaded, Loader};
use inkling_engine::kernels::{Isa, SingleThread};
use inkling_engine::model::gpt2::{Cache, Gpt2};
use inkling_engine::sampler::argmax;
use seeded::Gpt2Sizes;

/// FNV-1a over the bits of numbers.
fn hash(numbers: &[f32]) -> u64 {
    numbers
        .iter()
        .flat_map(|x| x.to_bits().to_le_bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Held by a test that forces instruction sets, since that is for its whole process.
static FORCING: Mutex<()> = Mutex::new(());

/// Loads and runs with each instruction set in turn; `logits` must have the hash `expected` every time.
#[track_caller]
fn check(expected: u64, logits: impl Fn() -> Vec<f32>) {
    let _forcing = FORCING.lock().unwrap_or_else(PoisonError::into_inner);
    for isa in Isa::available() {
        Isa::force(Some(isa));
        let logits = logits();
        assert!(logits.iter().all(|logit| logit.is_finite()), "{isa:?}");
        assert_eq!(hash(&logits), expected, "got {:#x} with {isa:?}", hash(&logits));
    }
    Isa::force(None);
}

/// `(positions, vocab_size)`: those of `prompt` in one step, and of the likeliest tokens after it one by one.
fn logits_of(model: &Gpt2, prompt: &[u32]) -> Vec<f32> {
    const NEW_TOKENS: usize = 4;
    let mut cache = Cache::new(model.config(), prompt.len() + NEW_TOKENS);
    let mut next = model.forward_all(prompt, &mut cache, &SingleThread).unwrap();
    let mut logits = next.values().to_vec();
    for _ in 0..NEW_TOKENS {
        let id = argmax(&next.rows_mut().last().unwrap());
        next = model.forward(&mut [(&[id], &mut cache)], &SingleThread).unwrap();
        logits.extend(next.values());
    }
    logits
}

fn load(config: &[u8], name: &str, weights: &[u8], dtype: Dtype) -> Loaded {
    let options = LoadOptions { dtype, ..LoadOptions::default() };
    let mut loader = Loader::new(Some(config), options).unwrap();
    loader.begin_file(name, Some(weights.len() as u64)).unwrap();
    loader.push(weights).unwrap();
    loader.end_file().unwrap();
    loader.finish().unwrap()
}

#[track_caller]
fn check_writer(expected: u64, dtype: Dtype, config: &[u8], weights: &[u8]) {
    let prompt: Vec<u32> = (0..19).map(|i| 3 + i * 211).collect();
    check(expected, || match load(config, "model.gguf", weights, dtype) {
        Loaded::Gpt2(model) => logits_of(&model, &prompt),
        Loaded::Encoder(_) => panic!("expected a generator"),
    });
}

#[test]
fn the_demo_writer_has_the_same_logits_everywhere() {
    check_writer(
        0x9fd5_778e_dfca_54ba,
        Dtype::Q8,
        include_bytes!("../../../models/demo/writer/config.json"),
        include_bytes!("../../../models/demo/writer/model.gguf"),
    );
}

#[test]
fn the_demo_writer_in_4_bits_has_the_same_logits_everywhere() {
    check_writer(
        0x4c42_452a_6dae_f847,
        Dtype::Q4,
        include_bytes!("../../../models/demo/writer/config.json"),
        include_bytes!("../../../models/demo/writer/model.gguf"),
    );
}

#[test]
fn the_distilled_demo_writer_has_the_same_logits_everywhere() {
    check_writer(
        0xdc6c_7920_b94a_eb70,
        Dtype::Q8,
        include_bytes!("../../../models/demo/writer-distilled/config.json"),
        include_bytes!("../../../models/demo/writer-distilled/model.gguf"),
    );
}

#[test]
fn the_demo_critic_has_the_same_logits_everywhere() {
    let config = include_bytes!("../../../models/demo/critic/config.json");
    let weights = include_bytes!("../../../models/demo/critic/model.safetensors");
    let texts: Vec<Vec<u32>> = (1..9).map(|n| (0..n * 7).map(|i| 5 + i * 37).collect()).collect();
    let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
    check(0x46a1_9049_8d8d_0283, || match load(config, "model.safetensors", weights, Dtype::Q8) {
        Loaded::Encoder(model) => model.forward(&texts, &SingleThread).unwrap(),
        Loaded::Gpt2(_) => panic!("expected a classifier"),
    });
}

#[test]
fn a_seeded_gpt2_has_the_same_logits_everywhere() {
    let short = Gpt2Sizes { vocab_size: 2057, n_positions: 64, n_layer: 2, ..Gpt2Sizes::FULL };
    let (sizes, expected) = match option_env!("INKLING_LONG") {
        None => (short, 0x32e0_9cfe_560a_8e07),
        Some(_) => (Gpt2Sizes::FULL, 0xd80c_11d8_5802_4ab0),
    };
    let prompt: Vec<u32> = (0..13).map(|i| (i * 37 + 11) % sizes.vocab_size as u32).collect();
    check(expected, || {
        let tensors = sizes.tensors();
        let mut loader = Loader::new(Some(sizes.config_json().as_bytes()), LoadOptions::default()).unwrap();
        loader.begin_file("model.safetensors", Some(seeded::size_bytes(&tensors))).unwrap();
        seeded::write(&tensors, 1, |bytes| loader.push(bytes)).unwrap();
        loader.end_file().unwrap();
        match loader.finish().unwrap() {
            Loaded::Gpt2(model) => logits_of(&model, &prompt),
            Loaded::Encoder(_) => panic!("expected a generator"),
        }
    });
}
