//! Parts of the engine for `cargo xtask test --only instructions`. How their instructions are counted is said in
//! `support/cases.rs` of the kernels' benches.

#![expect(clippy::unwrap_used, reason = "what is counted is this checkout's own")]

#[path = "../../kernels/benches/support/cases.rs"]
mod cases;
#[path = "../tests/support/seeded.rs"]
mod seeded;

use cases::{Prepare, Run};
use inkling_engine::checkpoint::{LoadOptions, Loader};
use inkling_engine::kernels::Isa;
use inkling_engine::logits::Logits;
use inkling_engine::protocol::Parameters;
use inkling_engine::sampler::{Random, Sampler};
use inkling_engine::tokenizer::Tokenizer;
use seeded::Gpt2Sizes;
use std::hint::black_box;
use std::process::ExitCode;

const CASES: [(&str, Prepare); 6] = [
    ("sampler/top_k_50/50257", || sample(Parameters::default())),
    ("sampler/top_p_0.95/50257", || {
        sample(Parameters { top_k: Some(0), top_p: Some(0.95), ..Parameters::default() })
    }),
    ("sampler/greedy/50257", || sample(Parameters { do_sample: Some(false), ..Parameters::default() })),
    ("tokenizer/byte_level_bpe", || {
        encode(include_bytes!("../../../models/demo/writer/tokenizer.json"), |tokenizer, text| {
            tokenizer.encode(text, false).unwrap().len()
        })
    }),
    ("tokenizer/word_piece", || {
        encode(include_bytes!("../../../models/demo/critic/tokenizer.json"), |tokenizer, text| {
            tokenizer.encode_for_classifier(text, 512).unwrap().0.len()
        })
    }),
    ("load/safetensors_f32_to_q8", load),
];

/// The first words of a page, so that every word is new to a tokenizer that remembers.
const PARAGRAPH: &str = "The rain had stopped before the morning came, but nobody in the long valley trusted it. \
    \"It will be back,\" said the old man at the bridge; he had counted 17 such mornings since 1890, and on each of them \
    the water rose again by night. Still, the children went out barefoot, and the baker's dog (a brown, lazy animal) \
    followed them down to the mill, where the wheel turned slowly and the swallows crossed over and over.";

/// One token after a context of 64.
fn sample(parameters: Parameters) -> Run {
    let settings = Parameters { seed: Some(7), ..parameters }.settings().unwrap();
    let (mut sampler, mut random) = (Sampler::new(&settings, 0), Random::new(1, 1));
    // A sum of uniform numbers: few logits are among the highest, as with a model.
    let logits = (0..50_257).map(|_| (0..6).map(|_| random.uniform()).sum::<f64>() as f32 * 4.0).collect();
    let mut logits = Logits::new(logits, 50_257);
    let context: Vec<u32> = (0..64).map(|i| i * 37 + 11).collect();
    Box::new(move || {
        let mut row = logits.rows_mut().next().unwrap();
        black_box(sampler.sample(&mut row, &context).unwrap());
    })
}

fn encode(json: &[u8], encode: fn(&Tokenizer, &str) -> usize) -> Run {
    let tokenizer = Tokenizer::from_json(json).unwrap();
    let mut texts = [PARAGRAPH, "Once"];
    Box::new(move || {
        texts.swap(0, 1);
        black_box(encode(&tokenizer, texts[0]));
    })
}

/// A whole small checkpoint: the header, transposed matrices and others.
fn load() -> Run {
    let sizes =
        Gpt2Sizes { vocab_size: 1000, n_positions: 32, n_embd: Gpt2Sizes::FULL.n_embd / 6, n_layer: 1 };
    let tensors = sizes.tensors();
    let mut file = Vec::with_capacity(seeded::size_bytes(&tensors) as usize);
    seeded::write(&tensors, 1, |bytes| {
        file.extend_from_slice(bytes);
        Ok::<_, std::convert::Infallible>(())
    })
    .unwrap();
    Box::new(move || {
        let mut loader = Loader::new(Some(sizes.config_json().as_bytes()), LoadOptions::default()).unwrap();
        loader.begin_file("model.safetensors", Some(file.len() as u64)).unwrap();
        file.chunks(1 << 16).for_each(|piece| loader.push(piece).unwrap());
        loader.end_file().unwrap();
        black_box(loader.finish().unwrap());
    })
}

fn main() -> ExitCode {
    cases::main(&CASES)
}
