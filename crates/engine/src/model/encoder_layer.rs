//! The layer that BERT and DistilBERT are made of. Source: Vaswani et al. 2017, 3.1: each half is added to the residual
//! stream, and the sum normalised.

use candle_core::Tensor;

use super::{KeptScratch, Scratch, rows};
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
    /// Turns `x`, `(rows, width)`, into the next layer's, or into the `wanted` rows of that, the first of each text.
    fn forward(
        &self,
        x: Tensor,
        lengths: &[usize],
        wanted: Option<&[u32]>,
        scratch: &Scratch<'_>,
        pool: &dyn Pool,
    ) -> Result<Tensor> {
        let Scratch { qkv, mixed, inner, .. } = scratch;
        self.qkv.forward_into(None, &x, qkv, pool)?;
        let x = rows(x, wanted)?;
        let mixed = mixed.narrow(0, 0, x.dims2()?.0)?;
        full_attention(qkv, lengths, self.heads, self.qkv.is_exact(), wanted.is_some(), &mixed, pool)?;
        self.attention_output.forward_add(&mixed, &x, pool)?;
        self.attention_norm.forward_in_place(&x, pool)?;
        let inner = inner.narrow(0, 0, x.dims2()?.0)?;
        self.intermediate.forward_into(None, &x, &inner, pool)?;
        self.output.forward_add(&inner, &x, pool)?;
        self.output_norm.forward_in_place(&x, pool)?;
        Ok(x)
    }
}

/// All layers of a model.
#[derive(Debug)]
pub(super) struct EncoderLayers {
    layers: Vec<EncoderLayer>,
    scratch: KeptScratch,
}

impl FromIterator<EncoderLayer> for EncoderLayers {
    fn from_iter<I: IntoIterator<Item = EncoderLayer>>(layers: I) -> EncoderLayers {
        EncoderLayers { layers: layers.into_iter().collect(), scratch: KeptScratch::default() }
    }
}

impl EncoderLayers {
    pub(super) fn has_f32_products(&self) -> bool {
        let linears = |layer: &EncoderLayer| {
            let EncoderLayer { qkv, attention_output, intermediate, output, .. } = layer;
            [qkv, attention_output, intermediate, output].into_iter().any(Linear::is_exact)
        };
        self.layers.iter().any(linears)
    }

    /// The first row of each text after all layers: `(texts, width)` of `x`, `(rows, width)`, whose texts have these lengths.
    pub(super) fn first_rows(&self, mut x: Tensor, lengths: &[usize], pool: &dyn Pool) -> Result<Tensor> {
        let starts = lengths.iter().scan(0, |next, &len| {
            let start = *next;
            *next += len as u32;
            Some(start)
        });
        let first: Vec<u32> = starts.collect();
        let Some((last, others)) = self.layers.split_last() else { return rows(x, Some(&first)) };
        let (rows, width) = x.dims2()?;
        let scratch = Scratch::new(rows, width, last.intermediate.outputs(), &self.scratch)?;
        for layer in others {
            x = layer.forward(x, lengths, None, &scratch, pool)?;
        }
        last.forward(x, lengths, Some(&first), &scratch, pool)
    }
}
