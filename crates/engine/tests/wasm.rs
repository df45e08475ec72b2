//! The same bits in both homes: one body of tests for the native suite and, through wasm-bindgen, for Node.
//!
//! What may differ between instruction sets are numbers that go through the platform's own functions or are summed in
//! another order. Each test here pins such numbers to one hash, which every target must find.

#![expect(clippy::unwrap_used, reason = "a test may panic, and its helpers with it")]

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use std::sync::Arc;

use candle_core::quantized::{GgmlDType, QMatMul, QTensor};
use candle_core::{Device, Module, Tensor};
use inkling_engine::checkpoint::{LoadOptions, Loader};
use inkling_engine::graph::node::LoadedTask;
use inkling_engine::graph::{Answer, Graph, NodeModel, Run};
use inkling_engine::kernels::{
    FINGERPRINT, FINGERPRINTS, Isa, SingleThread, erf, exp, fingerprint, fingerprint_of, tanh,
};
use inkling_engine::logits::Logits;
use inkling_engine::protocol::{Parameters, Request};
use inkling_engine::sampler::{Random, Sampler};
use inkling_engine::tokenizer::Tokenizer;

/// FNV-1a over the bytes of numbers.
fn hash(numbers: impl IntoIterator<Item = u64>) -> u64 {
    numbers
        .into_iter()
        .flat_map(u64::to_le_bytes)
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// From -20 to 20 in steps that no power of two divides.
fn arguments() -> impl Iterator<Item = f32> {
    (-2000..=2000).map(|i| i as f32 * 0.01)
}

#[track_caller]
fn check_function(f: impl Fn(f32) -> f32, expected: u64) {
    let found = hash(arguments().map(|x| u64::from(f(x).to_bits())));
    assert_eq!(found, expected, "expected {expected:#x}, got {found:#x}");
}

#[test]
fn kernels_have_the_same_bits_everywhere() {
    for isa in Isa::available() {
        Isa::force(Some(isa));
        assert_eq!(fingerprint(), FINGERPRINT, "got {:#x} with {isa:?}", fingerprint());
        for (packing, expected) in FINGERPRINTS {
            let found = fingerprint_of(packing);
            assert_eq!(found, expected, "{packing:?}: got {found:#x} with {isa:?}");
        }
    }
    Isa::force(None);
}

#[test]
fn exp_has_the_same_bits_everywhere() {
    check_function(exp, 0xedbe_a40a_5809_f70b);
}

#[test]
fn tanh_has_the_same_bits_everywhere() {
    check_function(tanh, 0x4287_413d_ec71_23a9);
}

#[test]
fn erf_has_the_same_bits_everywhere() {
    check_function(erf, 0xaff1_5658_fa58_6eb9);
}

#[test]
fn a_seed_draws_the_same_numbers_everywhere() {
    let mut random = Random::new(42, 0);
    let found = hash((0..1000).map(|_| random.uniform().to_bits()));
    assert_eq!(found, 0x9320_38a7_f087_5e14, "got {found:#x}");
}

#[test]
fn a_seed_samples_the_same_tokens_everywhere() {
    let settings = Parameters { seed: Some(7), ..Parameters::default() }.settings().unwrap();
    let mut sampler = Sampler::new(&settings, 0);
    let mut random = Random::new(1, 1);
    let mut context = Vec::new();
    for _ in 0..64 {
        let logits = (0..512).map(|_| (random.uniform() * 8.0) as f32).collect();
        let mut logits = Logits::new(logits, 512);
        context.push(sampler.sample(&mut logits.rows_mut().next().unwrap(), &context).unwrap().id);
    }
    let found = hash(context.iter().map(|&id| u64::from(id)));
    assert_eq!(found, 0x1575_d65d_fc21_b5e6, "got {found:#x} from {context:?}");
}

/// candle itself, whose quantised kernels are others on each instruction set: close, not equal.
#[test]
fn candles_quantised_product_is_close_to_its_exact_one() {
    // Without asking, candle takes an instruction that old processors lack. The engine only dequantises with it.
    #[cfg(target_arch = "aarch64")]
    if !std::arch::is_aarch64_feature_detected!("dotprod") {
        return;
    }
    let wave = |n: usize, step: f32| (0..n).map(|i| (i as f32 * step).sin()).collect::<Vec<f32>>();
    let weights = Tensor::from_vec(wave(64 * 256, 0.37), (64, 256), &Device::Cpu).unwrap();
    let x = Tensor::from_vec(wave(2 * 256, 0.11), (2, 256), &Device::Cpu).unwrap();
    let exact = x.matmul(&weights.t().unwrap()).unwrap();
    let quantised = QMatMul::from_qtensor(QTensor::quantize(&weights, GgmlDType::Q8_0).unwrap()).unwrap();
    let found = quantised.forward(&x).unwrap();
    let error = (found - exact).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    // 256 products of numbers up to 1, each off by at most 2 * 1/254.
    assert!(error < 0.25, "largest error {error}");
}

/// The graph's three demo models on one request, driven as a host without threads does it.
fn demo_answer(seed: u64) -> Answer {
    let model = |name: &str, config: &[u8], weights_name: &str, weights: &[u8], tokenizer: &[u8]| {
        let mut loader = Loader::new(Some(config), LoadOptions::default()).unwrap();
        loader.begin_file(weights_name, Some(weights.len() as u64)).unwrap();
        loader.push(weights).unwrap();
        loader.end_file().unwrap();
        let tokenizer = Tokenizer::from_json(tokenizer).unwrap();
        let task = LoadedTask::new(loader.finish().unwrap(), Some(tokenizer), None).unwrap();
        NodeModel { name: name.into(), sha256: None, task }
    };
    macro_rules! demo {
        ($name:literal, $weights:literal) => {
            model(
                $name,
                include_bytes!(concat!("../../../models/demo/", $name, "/config.json")),
                $weights,
                include_bytes!(concat!("../../../models/demo/", $name, "/", $weights)),
                include_bytes!(concat!("../../../models/demo/", $name, "/tokenizer.json")),
            )
        };
    }
    let models = [
        ("gpt2", demo!("writer", "model.gguf")),
        ("distilgpt2", demo!("writer-distilled", "model.gguf")),
        ("bert", demo!("critic", "model.safetensors")),
    ];
    let parameters = Parameters { seed: Some(seed), max_length: Some(40), ..Parameters::default() };
    let request = Request { parameters, ..Request::default() };
    let graph = Arc::new(Graph::default());
    let mut answer = Answer::new(&graph, &request);
    let (mut run, mut jobs) = Run::start(graph, &request).unwrap();
    while let Some(job) = jobs.pop() {
        let (_, model) = models.iter().find(|(node, _)| *node == job.node).unwrap();
        let mut running = model.start(job);
        while running.step(&SingleThread, &mut |event| {
            answer.push(0.0, &event);
            jobs.extend(run.accept(&event));
        }) {}
    }
    assert!(run.is_over());
    answer
}

/// "Same seed, same text" between the homes: sampled texts and the bits of their scores.
#[test]
fn the_demo_graph_gives_the_same_answer_everywhere() {
    let answer = demo_answer(7);
    let texts: String = answer.rows.iter().filter_map(|row| row.generated.clone()).collect();
    let scores = answer.rows.iter().map(|row| u64::from(row.score.unwrap().to_bits()));
    let found = hash(texts.bytes().map(u64::from).chain(scores));
    assert_eq!(found, 0xdd8b_8437_6cb0_3745, "got {found:#x} for {texts:?}");
}
