//! Any bytes as a GGUF file: an error or a model, no panic, no allocation beyond the bytes that came.
#![no_main]

use inkling_engine::checkpoint::{LoadOptions, Loader};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: (u16, &[u8])| {
    let (piece, bytes) = data;
    let mut loader = Loader::new(None, LoadOptions::default()).expect("no config is fine for GGUF");
    let whole = [b"GGUF\x03\0\0\0", bytes].concat();
    loader.begin_file("fuzzed", Some(whole.len() as u64)).expect("the first file");
    let pushed = whole.chunks(usize::from(piece).max(1)).try_for_each(|piece| loader.push(piece));
    if pushed.and_then(|()| loader.end_file()).is_ok() {
        drop(loader.finish());
    }
});
