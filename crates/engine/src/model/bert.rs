//! BERT with a pooler and a classification head. Source: Devlin et al. 2018; names and details as in Hugging Face's
//! `modeling_bert.py`.

use candle_core::Tensor;

use super::encoder_layer::{EncoderLayer, EncoderLayers};
use crate::{
    checkpoint::{
        config::EncoderConfig,
        weights::{Path, Place, Plan, Wanted, Weights},
    },
    error::Result,
    kernels::{self, Activation, Pool},
    layers::{Embedding, LayerNorm, Linear},
};

/// BERT for sequence classification.
#[derive(Debug)]
pub(super) struct Bert {
    embeddings: Embeddings,
    layer: EncoderLayers,
    /// `dense` and tanh, on the first token of a text.
    pooler: Linear,
    classifier: Linear,
}

#[derive(Debug)]
struct Embeddings {
    word_embeddings: Embedding,
    /// `(max_position_embeddings, hidden_size)`, with the first row of the token types added: a text by itself is
    /// all of type 0.
    position_embeddings: Vec<f32>,
    layer_norm: LayerNorm,
}

/// Linear layers that become one.
const QKV: [&str; 3] = ["query", "key", "value"];

impl Bert {
    /// The tensors that a checkpoint must hold, and how its files may spell them.
    pub(super) fn plan(config: &EncoderConfig) -> Plan {
        let EncoderConfig { hidden_size, intermediate_size, .. } = *config;
        let mut wanted = vec![
            Wanted::vocabulary("embeddings.word_embeddings.weight", config.vocab_size, hidden_size),
            Wanted::plain(
                "embeddings.position_embeddings.weight",
                &[config.max_position_embeddings, hidden_size],
            ),
            Wanted::plain("embeddings.token_type_embeddings.weight", &[config.type_vocab_size, hidden_size]),
        ];
        wanted.extend(Wanted::layer_norm("embeddings.LayerNorm", hidden_size));
        for layer in 0..config.num_hidden_layers {
            let path = |name: &str| format!("encoder.layer.{layer}.{name}");
            for name in [
                "attention.self.query",
                "attention.self.key",
                "attention.self.value",
                "attention.output.dense",
            ] {
                wanted.extend(Wanted::linear(&path(name), hidden_size, hidden_size));
            }
            wanted.extend(Wanted::layer_norm(&path("attention.output.LayerNorm"), hidden_size));
            wanted.extend(Wanted::linear(&path("intermediate.dense"), intermediate_size, hidden_size));
            wanted.extend(Wanted::linear(&path("output.dense"), hidden_size, intermediate_size));
            wanted.extend(Wanted::layer_norm(&path("output.LayerNorm"), hidden_size));
        }
        wanted.extend(Wanted::linear("pooler.dense", hidden_size, hidden_size).map(Wanted::in_head));
        wanted.extend(Wanted::linear("classifier", config.labels.len(), hidden_size).map(Wanted::in_head));
        Plan { architecture: "BERT", wanted, place, conv1d_is_transposed: false, stacked: &QKV }
    }

    /// Builds the model from a checkpoint's tensors.
    pub(super) fn new(config: &EncoderConfig, weights: &mut Weights) -> Result<Bert> {
        let mut vb = weights.pp("embeddings");
        let word_embeddings = Embedding::new(vb.pp("word_embeddings").matrix("weight")?);
        let mut position_embeddings = vb.pp("position_embeddings").plain("weight")?;
        let token_types = vb.pp("token_type_embeddings").plain("weight")?;
        let width = config.hidden_size;
        position_embeddings.chunks_exact_mut(width).for_each(|row| kernels::add(row, &token_types[..width]));
        let layer_norm = vb.pp("LayerNorm").layer_norm(config.layer_norm_eps)?;
        let embeddings = Embeddings { word_embeddings, position_embeddings, layer_norm };
        let layer = (0..config.num_hidden_layers)
            .map(|layer| encoder_layer(config, &mut weights.pp("encoder").pp("layer").pp(layer)))
            .collect::<Result<_>>()?;
        let pooler = weights.pp("pooler").pp("dense").linear()?.then(Activation::Tanh);
        Ok(Bert { embeddings, layer, pooler, classifier: weights.pp("classifier").linear()? })
    }

    pub(super) fn has_f32_products(&self) -> bool {
        self.layer.has_f32_products() || self.pooler.is_exact() || self.classifier.is_exact()
    }

    /// Logits `(texts, labels)` of texts without padding, none empty or too long.
    pub(super) fn forward(&self, texts: &[&[u32]], pool: &dyn Pool) -> Result<Tensor> {
        let lengths: Vec<usize> = texts.iter().map(|text| text.len()).collect();
        let x = self.embeddings.forward(texts, pool)?;
        let first = self.layer.first_rows(x, &lengths, pool)?;
        self.classifier.forward(&self.pooler.forward(&first, pool)?, pool)
    }
}

impl Embeddings {
    fn forward(&self, texts: &[&[u32]], pool: &dyn Pool) -> Result<Tensor> {
        let positions: Vec<usize> = texts.iter().flat_map(|text| 0..text.len()).collect();
        let x = self.word_embeddings.forward(&texts.concat(), |row, out| {
            let width = out.len();
            kernels::add(out, &self.position_embeddings[positions[row] * width..][..width]);
        })?;
        self.layer_norm.forward_in_place(&x, pool)?;
        Ok(x)
    }
}

fn encoder_layer(config: &EncoderConfig, vb: &mut Path<'_>) -> Result<EncoderLayer> {
    let eps = config.layer_norm_eps;
    let mut attention = vb.pp("attention");
    Ok(EncoderLayer {
        qkv: attention.pp("self").linears(QKV)?,
        attention_output: attention.pp("output").pp("dense").linear()?,
        attention_norm: attention.pp("output").pp("LayerNorm").layer_norm(eps)?,
        intermediate: vb.pp("intermediate").pp("dense").linear()?.then(config.activation),
        output: vb.pp("output").pp("dense").linear()?,
        output_norm: vb.pp("output").pp("LayerNorm").layer_norm(eps)?,
        heads: config.num_attention_heads,
    })
}

/// The hub's spellings: with and without `bert.`, `gamma` and `beta` for layer norms, heads of pre-training.
fn place(name: &str) -> Place {
    let name = name.strip_prefix("bert.").unwrap_or(name);
    if name.starts_with("cls.") || name == "embeddings.position_ids" {
        return Place::Ignored;
    }
    let renamed = match name.rsplit_once('.') {
        Some((path, "gamma")) => format!("{path}.weight"),
        Some((path, "beta")) => format!("{path}.bias"),
        _ => name.into(),
    };
    Place::Tensor(renamed)
}
