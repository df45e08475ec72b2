//! The layer that BERT and DistilBERT are made of. Source: Vaswani et al. 2017, 3.1: each half is added to the residual
//! stream, and the sum normalised.

use candle_core::Tensor;

use super::rows;
use crate::{
    error::Result,
    kernels::Pool,
    layers::{LayerNorm, Linear, full_attention},
};

/// Attention over a whole text, then two linear layers with an activation between them.
#[derive(Debug)]
pub(super) struct EncoderLayer {
    /// Query, key and value in one product.
    pub(super) qkv: Linear,
    pub(super) attention_output: Linear,
    pub(super) attention_norm: LayerNorm,
    /// With the activation.
    pub(super) intermediate: Linear,
    pub(super) output: Linear,
    pub(super) output_norm: LayerNorm,
    pub(super) heads: usize,
}

impl EncoderLayer {
    /// Turns `x`, `(rows, width)`, into the `wanted` rows of the next layer's.
    fn forward(
        &self,
        x: Tensor,
        lengths: &[usize],
        wanted: Option<&[u32]>,
        pool: &dyn Pool,
    ) -> Result<Tensor> {
        let qkv = self.qkv.forward(&x, pool)?;
        let mixed = full_attention(&qkv, lengths, self.heads, pool)?;
        let [mixed, x] = rows([mixed, x], wanted)?;
        self.attention_output.forward_add(&mixed, &x, pool)?;
        self.attention_norm.forward_in_place(&x, pool)?;
        let inner = self.intermediate.forward(&x, pool)?;
        self.output.forward_add(&inner, &x, pool)?;
        self.output_norm.forward_in_place(&x, pool)?;
        Ok(x)
    }
}

/// The first row of each text after all layers: `(texts, width)` of `x`, `(rows, width)`, whose texts have these lengths.
pub(super) fn first_rows(
    layers: &[EncoderLayer],
    mut x: Tensor,
    lengths: &[usize],
    pool: &dyn Pool,
) -> Result<Tensor> {
    let starts = lengths.iter().scan(0, |next, &len| {
        let start = *next;
        *next += len as u32;
        Some(start)
    });
    let first: Vec<u32> = starts.collect();
    for (i, layer) in (1..).zip(layers) {
        let wanted = (i == layers.len()).then_some(first.as_slice());
        x = layer.forward(x, lengths, wanted, pool)?;
    }
    Ok(x)
}
