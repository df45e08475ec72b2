//! Models of full size.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::plan::Plan;
use crate::workspace_root;

#[path = "../../../crates/engine/tests/support/seeded.rs"]
mod seeded;

use seeded::{Gpt2Sizes, Tensor};

pub(super) const GPT2: &str = "openai-community/gpt2";
pub(super) const DISTILGPT2: &str = "distilbert/distilgpt2";
pub(super) const BERT: &str = "textattack/bert-base-uncased-SST-2";

const ALL: [&str; 3] = [GPT2, DISTILGPT2, BERT];

/// A folder with the three models in the hub's layout: the peers', so that all run the same weights, or one with models
/// of seeded weights.
///
/// # Errors
/// If the peers lack a model, or one cannot be written.
pub(super) fn folder(plan: &Plan) -> Result<PathBuf> {
    if let Some(peers) = &plan.peers {
        let hub = peers.join("hub");
        if let Some(missing) = ALL.iter().find(|name| !hub.join(name).join("model.safetensors").is_file()) {
            bail!("expected PEERS_HOME to hold hub/{missing}/model.safetensors");
        }
        return Ok(hub);
    }
    let folder = Plan::scratch().join("models");
    let distilled = Gpt2Sizes { n_layer: 6, ..Gpt2Sizes::FULL };
    write_model(&folder.join(GPT2), "writer", &Gpt2Sizes::FULL.config_json(), &Gpt2Sizes::FULL.tensors())?;
    write_model(
        &folder.join(DISTILGPT2),
        "writer-distilled",
        &distilled.config_json(),
        &distilled.tensors(),
    )?;
    write_model(&folder.join(BERT), "critic", BERT_CONFIG, &bert())?;
    Ok(folder)
}

/// Writes a model with the tokenizer of a demo model, unless it is there.
fn write_model(folder: &Path, demo: &str, config: &str, tensors: &[Tensor]) -> Result<()> {
    let weights = folder.join("model.safetensors");
    if fs::metadata(&weights).is_ok_and(|file| file.len() == seeded::size_bytes(tensors)) {
        return Ok(());
    }
    println!("   {} is made of seeded weights", folder.display());
    fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    fs::write(folder.join("config.json"), config)?;
    let demo = workspace_root().join("models/demo").join(demo);
    for name in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
        match fs::copy(demo.join(name), folder.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            copied => drop(copied.with_context(|| format!("copying {name} of {}", demo.display()))?),
        }
    }
    let mut file = BufWriter::new(File::create(&weights).with_context(|| weights.display().to_string())?);
    seeded::write(tensors, 1, |bytes| file.write_all(bytes))
        .and_then(|()| file.flush())
        .with_context(|| format!("writing {}", weights.display()))
}

const BERT_CONFIG: &str = r#"{"model_type": "bert", "architectures": ["BertForSequenceClassification"],
"hidden_act": "gelu", "hidden_size": 768, "intermediate_size": 3072, "layer_norm_eps": 1e-12,
"max_position_embeddings": 512, "num_attention_heads": 12, "num_hidden_layers": 12, "type_vocab_size": 2,
"vocab_size": 30522, "id2label": {"0": "NEGATIVE", "1": "POSITIVE"}}"#;

/// BERT-base with a head of two labels.
fn bert() -> Vec<Tensor> {
    let (hidden, inner) = (768, 3072);
    let embedding = |name: &str, rows| {
        Tensor::new(format!("bert.embeddings.{name}_embeddings.weight"), &[rows, hidden], 0.05)
    };
    let linear = |path: &str, out: usize, input: usize| {
        [
            Tensor::new(format!("{path}.weight"), &[out, input], 0.04),
            Tensor::new(format!("{path}.bias"), &[out], 0.05),
        ]
    };
    let mut tensors = vec![embedding("word", 30_522), embedding("position", 512), embedding("token_type", 2)];
    tensors.extend(Tensor::layer_norm("bert.embeddings.LayerNorm", hidden));
    for layer in 0..12 {
        let path = |name: &str| format!("bert.encoder.layer.{layer}.{name}");
        for name in ["query", "key", "value"] {
            tensors.extend(linear(&path(&format!("attention.self.{name}")), hidden, hidden));
        }
        tensors.extend(linear(&path("attention.output.dense"), hidden, hidden));
        tensors.extend(Tensor::layer_norm(&path("attention.output.LayerNorm"), hidden));
        tensors.extend(linear(&path("intermediate.dense"), inner, hidden));
        tensors.extend(linear(&path("output.dense"), hidden, inner));
        tensors.extend(Tensor::layer_norm(&path("output.LayerNorm"), hidden));
    }
    tensors.extend(linear("bert.pooler.dense", hidden, hidden));
    tensors.extend(linear("classifier", 2, hidden));
    tensors
}
