//! Any bytes as each of the JSON and TOML files that people hand in: an error or a value, no panic.
#![no_main]

use inkling_engine::{
    checkpoint::{
        config::{Config, generation_defaults},
        files::shards,
    },
    graph::Graph,
    tokenizer::Tokenizer,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    drop(Config::from_json(bytes));
    drop(generation_defaults(bytes));
    drop(shards(bytes));
    drop(Tokenizer::from_json(bytes));
    if let Ok(text) = std::str::from_utf8(bytes) {
        drop(Graph::parse(text));
    }
});
