//! Small models for the tests, made here: random weights, real tokenizers, every file as the hub has it.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// A folder of models for the default graph: `gpt2`, `distilgpt2`, and the critic by its demo name.
pub(crate) fn models() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_gpt2(&folder.path().join("gpt2"), 1);
    write_gpt2(&folder.path().join("distilgpt2"), 2);
    write_bert(&folder.path().join("critic"), 3);
    folder
}

/// Context of the small generators, in tokens.
pub(crate) const CONTEXT: usize = 160;

/// Context of the small classifier, in tokens.
pub(crate) const CLASSIFIER_CONTEXT: usize = 64;

fn tokenizers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/engine/tests/data/tokenizers")
}

pub(crate) fn write_gpt2(folder: &Path, seed: u64) {
    write_gpt2_of(folder, seed, 32, 1);
}

/// A generator whose matrices have `12 * width * width * layers` weights, most of which repeat.
pub(crate) fn write_gpt2_of(folder: &Path, seed: u64, width: usize, layers: usize) {
    let vocab = 311;
    let mut weights = Weights::new(seed);
    weights.add("wte.weight", &[vocab, width], 1.0);
    weights.add("wpe.weight", &[CONTEXT, width], 1.0);
    for layer in (0..layers).map(|layer| format!("h.{layer}")) {
        weights.layer_norm(&format!("{layer}.ln_1"), width);
        weights.linear(&format!("{layer}.attn.c_attn"), &[width, 3 * width], 3 * width);
        weights.linear(&format!("{layer}.attn.c_proj"), &[width, width], width);
        weights.layer_norm(&format!("{layer}.ln_2"), width);
        weights.linear(&format!("{layer}.mlp.c_fc"), &[width, 4 * width], 4 * width);
        weights.linear(&format!("{layer}.mlp.c_proj"), &[4 * width, width], width);
    }
    weights.layer_norm("ln_f", width);
    let config = json!({
        "model_type": "gpt2", "vocab_size": vocab, "n_positions": CONTEXT, "n_embd": width,
        "n_layer": layers, "n_head": 2,
    });
    write(folder, &config, weights, "gpt2-tiny");
}

pub(crate) fn write_bert(folder: &Path, seed: u64) {
    let (vocab, width) = (143, 32);
    let mut weights = Weights::new(seed);
    weights.add("bert.embeddings.word_embeddings.weight", &[vocab, width], 1.0);
    weights.add("bert.embeddings.position_embeddings.weight", &[CLASSIFIER_CONTEXT, width], 1.0);
    weights.add("bert.embeddings.token_type_embeddings.weight", &[2, width], 1.0);
    weights.layer_norm("bert.embeddings.LayerNorm", width);
    let layer = "bert.encoder.layer.0";
    for part in ["query", "key", "value"] {
        weights.linear(&format!("{layer}.attention.self.{part}"), &[width, width], width);
    }
    weights.linear(&format!("{layer}.attention.output.dense"), &[width, width], width);
    weights.layer_norm(&format!("{layer}.attention.output.LayerNorm"), width);
    weights.linear(&format!("{layer}.intermediate.dense"), &[2 * width, width], 2 * width);
    weights.linear(&format!("{layer}.output.dense"), &[width, 2 * width], width);
    weights.layer_norm(&format!("{layer}.output.LayerNorm"), width);
    weights.linear("bert.pooler.dense", &[width, width], width);
    weights.linear("classifier", &[2, width], 2);
    let config = json!({
        "model_type": "bert", "vocab_size": vocab, "hidden_size": width, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": 2 * width, "max_position_embeddings": CLASSIFIER_CONTEXT,
        "id2label": {"0": "NEGATIVE", "1": "POSITIVE"},
    });
    write(folder, &config, weights, "bert-tiny");
}

fn write(folder: &Path, config: &Value, weights: Weights, tokenizer: &str) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    fs::write(folder.join("model.safetensors"), weights.into_bytes()).unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(tokenizers().join(tokenizer).join(file), folder.join(file)).unwrap();
    }
}

/// A safetensors file in the making.
struct Weights {
    state: u64,
    header: Map<String, Value>,
    data: Vec<u8>,
}

impl Weights {
    fn new(seed: u64) -> Weights {
        Weights { state: seed, header: Map::new(), data: Vec::new() }
    }

    /// Knuth's MMIX generator: any will do.
    fn next(&mut self) -> f32 {
        self.state = self.state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    fn add(&mut self, name: &str, shape: &[usize], spread: f32) {
        let count = shape.iter().product::<usize>();
        // Enough of them that no two rows are the same; drawing millions takes longer than most tests.
        let drawn: Vec<f32> = (0..count.min(100_003)).map(|_| self.next() * spread).collect();
        self.push(name, shape, drawn.iter().copied().cycle().take(count).collect());
    }

    fn push(&mut self, name: &str, shape: &[usize], values: Vec<f32>) {
        let start = self.data.len();
        self.data.extend(values.into_iter().flat_map(f32::to_le_bytes));
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [start, self.data.len()]});
        self.header.insert(name.into(), entry);
    }

    fn linear(&mut self, name: &str, shape: &[usize], out: usize) {
        self.add(&format!("{name}.weight"), shape, 0.3);
        self.add(&format!("{name}.bias"), &[out], 0.1);
    }

    fn layer_norm(&mut self, name: &str, width: usize) {
        self.push(&format!("{name}.weight"), &[width], vec![1.0; width]);
        self.add(&format!("{name}.bias"), &[width], 0.1);
    }

    fn into_bytes(self) -> Vec<u8> {
        let header = Value::Object(self.header).to_string();
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(self.data);
        bytes
    }
}
