//! Broken, lying and hostile checkpoints: each gives an error that names the place, none a panic or a huge allocation.
//!
//! This is the short form; `fuzz/` has a target for each format, which the suite's long mode runs.

#![expect(clippy::unwrap_used, reason = "a test may panic, and its helpers with it")]

mod support;

use inkling_engine::{
    Error, Result,
    checkpoint::{Dtype, LoadOptions, Loaded},
};
use proptest::prelude::*;
use support::{cases, checkpoint};

/// The first weights file of `case`, changed.
fn spoiled(case: &str, change: impl FnOnce(&mut Vec<u8>)) -> Result<Loaded> {
    let mut files = checkpoint(case);
    change(&mut files.weights[0].1);
    files.load(Dtype::Q8)
}

/// A safetensors file of this header and data.
fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

#[track_caller]
fn check(result: Result<Loaded>, message: &str) {
    match result {
        Ok(_) => panic!("expected `{message}`, got a model"),
        Err(error) => assert!(error.to_string().contains(message), "expected `{message}`, got `{error}`"),
    }
}

#[test]
fn a_truncated_file_is_told_with_both_sizes() {
    for case in ["gpt2-gelu", "bert-two-labels", "gguf-q8_0"] {
        let whole = checkpoint(case).weights[0].1.len();
        for cut in [0, 1, 7, 8, 20, whole / 2, whole - 1] {
            let error = spoiled(case, |bytes| bytes.truncate(cut)).unwrap_err();
            assert!(
                matches!(error, Error::Truncated { .. } | Error::Format { .. }),
                "{case} cut at {cut}: {error}"
            );
        }
        check(spoiled(case, |bytes| bytes.truncate(whole - 1)), &format!("ends after {} bytes", whole - 1));
    }
}

#[test]
fn bytes_beyond_the_end_are_refused() {
    check(spoiled("gpt2-gelu", |bytes| bytes.extend([1; 9])), "9 bytes beyond the end of the last tensor");
}

#[test]
fn a_header_that_lies_about_its_length_allocates_nothing() {
    check(spoiled("gpt2-gelu", |bytes| bytes[..8].fill(0xff)), "header of 18446744073709551615 bytes");
    check(spoiled("gguf-q8_0", |bytes| bytes[8..16].fill(0xff)), "");
    check(spoiled("gguf-q8_0", |bytes| bytes[16..24].fill(0xff)), "");
}

#[test]
fn overlapping_and_overflowing_tensors_are_refused() {
    let load = |header: &str| {
        let mut files = checkpoint("gpt2-gelu");
        files.weights[0].1 = safetensors(header, &[0; 16]);
        files.load(Dtype::Q8)
    };
    let tensor =
        |shape: &str, offsets: &str| format!(r#"{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}"#);
    check(
        load(&format!(r#"{{"a":{},"b":{}}}"#, tensor("[2]", "[0,8]"), tensor("[2]", "[4,12]"))),
        "header: ",
    );
    check(load(&format!(r#"{{"a":{}}}"#, tensor("[4]", "[0,8]"))), "header: ");
    check(load(&format!(r#"{{"a":{}}}"#, tensor("[4294967296,4294967296,16]", "[0,16]"))), "header: ");
    check(load(&format!(r#"{{"a":{}}}"#, tensor("[4]", "[0,16]"))), "`a` is no tensor of a GPT-2 model");
    check(load("[1"), "header: ");
}

#[test]
fn a_nan_in_the_weights_is_named() {
    for (case, value) in
        [("gpt2-gelu", f32::NAN), ("gpt2-gelu", f32::INFINITY), ("bert-two-labels", f32::NAN)]
    {
        let result = spoiled(case, |bytes| {
            let end = bytes.len();
            bytes[end - 4..].copy_from_slice(&value.to_le_bytes());
        });
        match result {
            Err(Error::NotFinite { value: got, .. }) => assert_eq!(got.is_nan(), value.is_nan()),
            other => panic!("{case}: expected NotFinite, got {other:?}"),
        }
    }
}

#[test]
fn a_config_of_another_architecture_or_size_is_named() {
    let with_config = |case: &str, from: &str, to: &str| {
        let mut files = checkpoint(case);
        let config = String::from_utf8(files.config.unwrap()).unwrap();
        let changed = config.replace(from, to);
        assert_ne!(changed, config, "the test's replacement does nothing");
        files.config = Some(changed.into_bytes());
        files.load(Dtype::F32)
    };
    check(
        with_config("gpt2-gelu", r#""gpt2""#, r#""mamba""#),
        "architecture `mamba` is not supported; supported: GPT-2",
    );
    check(with_config("gpt2-gelu", r#""vocab_size": 97"#, r#""vocab_size": 98"#), "has shape [97, ");
    check(with_config("gpt2-gelu", r#""n_layer": 1"#, r#""n_layer": 2"#), "`h.1.");
    check(
        with_config("gpt2-bare-keys-masks", r#""n_layer": 2"#, r#""n_layer": 1"#),
        "is no tensor of a GPT-2 model",
    );
    let mut encoder = checkpoint("bert-two-labels");
    encoder.weights = checkpoint("gpt2-gelu").weights;
    check(encoder.load(Dtype::F32), "is no tensor of a BERT model");
    let mut bare = checkpoint("gpt2-gelu");
    bare.config = None;
    check(bare.load(Dtype::F32), "`model_type` should be given by a config.json");
}

#[test]
fn a_tensor_that_comes_twice_is_named_with_both_names() {
    let mut files = checkpoint("gpt2-sharded");
    let again = files.weights[0].clone();
    files.weights.push(again);
    check(files.load(Dtype::F32), "comes twice");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens to a few bytes, loading ends with a model or an error.
    #[test]
    fn flipped_bytes_never_panic(
        case in prop::sample::select(cases()),
        flips in prop::collection::vec((0usize..4000, any::<u8>()), 1..6),
        cut in prop::option::of(0usize..40_000),
        piece in 1usize..5000,
    ) {
        let mut files = checkpoint(&case);
        let bytes = &mut files.weights[0].1;
        for (at, value) in flips {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut);
        }
        drop(files.load_in_pieces(LoadOptions::default(), piece));
    }

    /// The same for configs.
    #[test]
    fn spoiled_configs_never_panic(
        case in prop::sample::select(vec!["gpt2-gelu", "bert-five-labels", "distilbert-two-labels"]),
        flips in prop::collection::vec((0usize..2000, any::<u8>()), 1..6),
    ) {
        let mut files = checkpoint(case);
        let config = files.config.as_mut().unwrap();
        for (at, value) in flips {
            let at = at % config.len();
            config[at] = value;
        }
        drop(files.load(Dtype::F32));
    }
}
