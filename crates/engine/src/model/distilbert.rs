//! DistilBERT with a classification head. Source: Sanh et al. 2019; names and details as in Hugging Face's
//! `modeling_distilbert.py`. Against BERT it has no token types and no pooler, and its head is two layers.

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

/// DistilBERT for sequence classification.
#[derive(Debug)]
pub(super) struct DistilBert {
    word_embeddings: Embedding,
    /// `(max_position_embeddings, dim)`.
    position_embeddings: Vec<f32>,
    embeddings_norm: LayerNorm,
    layer: EncoderLayers,
    /// With ReLU, on the first token of a text.
    pre_classifier: Linear,
    classifier: Linear,
}

/// Linear layers that become one.
const QKV: [&str; 3] = ["q_lin", "k_lin", "v_lin"];

impl DistilBert {
    /// The tensors that a checkpoint must hold, and how its files may spell them.
    pub(super) fn plan(config: &EncoderConfig) -> Plan {
        let EncoderConfig { hidden_size: dim, intermediate_size: hidden_dim, .. } = *config;
        let mut wanted = vec![
            Wanted::vocabulary("embeddings.word_embeddings.weight", config.vocab_size, dim),
            Wanted::plain("embeddings.position_embeddings.weight", &[config.max_position_embeddings, dim]),
        ];
        wanted.extend(Wanted::layer_norm("embeddings.LayerNorm", dim));
        for layer in 0..config.num_hidden_layers {
            let path = |name: &str| format!("transformer.layer.{layer}.{name}");
            for name in ["q_lin", "k_lin", "v_lin", "out_lin"] {
                wanted.extend(Wanted::linear(&path(&format!("attention.{name}")), dim, dim));
            }
            wanted.extend(Wanted::layer_norm(&path("sa_layer_norm"), dim));
            wanted.extend(Wanted::linear(&path("ffn.lin1"), hidden_dim, dim));
            wanted.extend(Wanted::linear(&path("ffn.lin2"), dim, hidden_dim));
            wanted.extend(Wanted::layer_norm(&path("output_layer_norm"), dim));
        }
        wanted.extend(Wanted::linear("pre_classifier", dim, dim).map(Wanted::in_head));
        wanted.extend(Wanted::linear("classifier", config.labels.len(), dim).map(Wanted::in_head));
        Plan { architecture: "DistilBERT", wanted, place, conv1d_is_transposed: false, stacked: &QKV }
    }

    /// Builds the model from a checkpoint's tensors.
    pub(super) fn new(config: &EncoderConfig, weights: &mut Weights) -> Result<DistilBert> {
        let eps = config.layer_norm_eps;
        let mut vb = weights.pp("embeddings");
        let word_embeddings = Embedding::new(vb.pp("word_embeddings").matrix("weight")?);
        let position_embeddings = vb.pp("position_embeddings").plain("weight")?;
        let embeddings_norm = vb.pp("LayerNorm").layer_norm(eps)?;
        let layer = (0..config.num_hidden_layers)
            .map(|layer| encoder_layer(config, &mut weights.pp("transformer").pp("layer").pp(layer)))
            .collect::<Result<_>>()?;
        let pre_classifier = weights.pp("pre_classifier").linear()?.then(Activation::Relu);
        let classifier = weights.pp("classifier").linear()?;
        Ok(DistilBert {
            word_embeddings,
            position_embeddings,
            embeddings_norm,
            layer,
            pre_classifier,
            classifier,
        })
    }

    pub(super) fn has_f32_products(&self) -> bool {
        self.layer.has_f32_products() || self.pre_classifier.is_exact() || self.classifier.is_exact()
    }

    /// Logits `(texts, labels)` of texts without padding, none empty or too long.
    pub(super) fn forward(&self, texts: &[&[u32]], pool: &dyn Pool) -> Result<Tensor> {
        let lengths: Vec<usize> = texts.iter().map(|text| text.len()).collect();
        let positions: Vec<usize> = texts.iter().flat_map(|text| 0..text.len()).collect();
        let x = self.word_embeddings.forward(&texts.concat(), |row, out| {
            let width = out.len();
            kernels::add(out, &self.position_embeddings[positions[row] * width..][..width]);
        })?;
        self.embeddings_norm.forward_in_place(&x, pool)?;
        let first = self.layer.first_rows(x, &lengths, pool)?;
        self.classifier.forward(&self.pre_classifier.forward(&first, pool)?, pool)
    }
}

fn encoder_layer(config: &EncoderConfig, vb: &mut Path<'_>) -> Result<EncoderLayer> {
    let eps = config.layer_norm_eps;
    Ok(EncoderLayer {
        qkv: vb.pp("attention").linears(QKV)?,
        attention_output: vb.pp("attention").pp("out_lin").linear()?,
        attention_norm: vb.pp("sa_layer_norm").layer_norm(eps)?,
        intermediate: vb.pp("ffn").pp("lin1").linear()?.then(config.activation),
        output: vb.pp("ffn").pp("lin2").linear()?,
        output_norm: vb.pp("output_layer_norm").layer_norm(eps)?,
        heads: config.num_attention_heads,
    })
}

/// The hub's spellings: with and without `distilbert.`, heads of pre-training.
fn place(name: &str) -> Place {
    let name = name.strip_prefix("distilbert.").unwrap_or(name);
    match name.starts_with("vocab_") || name == "embeddings.position_ids" {
        true => Place::Ignored,
        false => Place::Tensor(name.into()),
    }
}
