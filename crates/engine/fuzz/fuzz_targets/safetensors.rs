//! Any bytes as a safetensors file: an error or a model, no panic, no allocation beyond what the config asks for.
#![no_main]

use inkling_engine::checkpoint::{LoadOptions, Loader};
use libfuzzer_sys::fuzz_target;

const CONFIG: &[u8] = br#"{"model_type": "gpt2", "vocab_size": 3, "n_embd": 4, "n_layer": 1, "n_head": 1, "n_positions": 2}"#;

fuzz_target!(|data: (u16, &[u8])| {
    let (piece, bytes) = data;
    let mut loader = Loader::new(Some(CONFIG), LoadOptions::default()).expect("the config is valid");
    // A header length in front, so that the JSON is reached.
    let header = (bytes.len() as u64).min(u64::from(piece)).to_le_bytes();
    let whole = [&header, bytes].concat();
    loader.begin_file("fuzzed", Some(whole.len() as u64)).expect("the first file");
    let pushed = whole.chunks(usize::from(piece).max(1)).try_for_each(|piece| loader.push(piece));
    if pushed.and_then(|()| loader.end_file()).is_ok() {
        drop(loader.finish());
    }
});
