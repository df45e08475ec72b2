//! Scaled dot-product attention, over a cache for generators and over whole texts for classifiers.
//!
//! Source: Vaswani et al. 2017, 3.2.1; scores are multiplied with `scale`, `1/sqrt(head_dim)` as a rule.

use candle_core::Tensor;

use super::op;
use crate::{
    error::Result,
    kernels::{self, AttentionShape, Mask, Pool},
};

/// Keys and values of one layer for one sequence, one row of the model's width a position.
#[derive(Clone, Debug, Default)]
pub struct KeysValues {
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl KeysValues {
    /// An empty cache with room for `positions` rows of `width`.
    #[must_use]
    pub fn with_capacity(positions: usize, width: usize) -> KeysValues {
        KeysValues {
            keys: Vec::with_capacity(positions * width),
            values: Vec::with_capacity(positions * width),
        }
    }
}

/// Causal attention of every sequence of a batch over its own cache.
///
/// `qkv`: `(rows, 3 * width)`, a token's query, key and value side by side, as GPT-2's `c_attn` gives them.
/// `batch`: for each sequence its number of rows and its cache; the new keys and values are appended first, so a
/// query at position `p` sees positions `0..=p`. `out`: `(rows, width)`, whose elements nobody else holds, or `(sequences,
/// width)` where `only_last` queries are asked.
///
/// # Errors
/// [`crate::Error::Tensor`] if the shapes do not fit.
pub fn cached_attention(
    qkv: &Tensor,
    batch: &mut [(usize, &mut KeysValues)],
    heads: usize,
    scale: f32,
    only_last: bool,
    out: &Tensor,
    pool: &dyn Pool,
) -> Result<()> {
    let columns = qkv.dims2()?.1;
    let width = columns / 3;
    Ok(op::update(out, qkv, "cached_attention", |out, qkv| {
        let (mut qkv, mut out) = (qkv, out);
        for (queries, cache) in batch.iter_mut() {
            let (own, rest) = qkv.split_at(*queries * columns);
            let skipped = if only_last { queries.saturating_sub(1) } else { 0 };
            let queries = *queries - skipped;
            let (own_out, rest_out) = out.split_at_mut(queries * width);
            (qkv, out) = (rest, rest_out);
            let past = cache.keys.len() / width + skipped;
            for row in own.chunks_exact(columns) {
                cache.keys.extend_from_slice(&row[width..2 * width]);
                cache.values.extend_from_slice(&row[2 * width..]);
            }
            let own = &own[skipped * columns..];
            let shape = AttentionShape {
                heads,
                head_dim: width / heads,
                queries,
                q_stride: columns,
                kv_stride: width,
                scale,
                mask: Mask::Causal { past },
            };
            kernels::attention(own, &cache.keys, &cache.values, &shape, own_out, pool);
        }
    })?)
}

/// Attention of every text of a batch over itself, its scores multiplied with `1/sqrt(head_dim)`.
///
/// `qkv`: `(rows, 3 * width)`, a token's query, key and value side by side; `lengths`: the rows of each text; `out`:
/// `(rows, width)`, whose elements nobody else holds, or `(texts, width)` where `only_first` queries are asked.
///
/// # Errors
/// [`crate::Error::Tensor`] if the shapes do not fit.
pub fn full_attention(
    qkv: &Tensor,
    lengths: &[usize],
    heads: usize,
    only_first: bool,
    out: &Tensor,
    pool: &dyn Pool,
) -> Result<()> {
    let columns = qkv.dims2()?.1;
    let width = columns / 3;
    let head_dim = width / heads;
    Ok(op::update(out, qkv, "full_attention", |out, qkv| {
        let (mut qkv, mut out) = (qkv, out);
        for &len in lengths {
            let (own, rest) = qkv.split_at(len * columns);
            let queries = if only_first { len.min(1) } else { len };
            let (own_out, rest_out) = out.split_at_mut(queries * width);
            (qkv, out) = (rest, rest_out);
            let shape = AttentionShape {
                heads,
                head_dim,
                queries,
                q_stride: columns,
                kv_stride: columns,
                scale: 1.0 / (head_dim as f32).sqrt(),
                mask: Mask::Full { len },
            };
            kernels::attention(own, &own[width..], &own[2 * width..], &shape, own_out, pool);
        }
    })?)
}
