//! Scaled dot-product attention, over a cache for generators and over whole texts for classifiers.
//!
//! Source: Vaswani et al. 2017, 3.2.1; scores are multiplied with `scale`, `1/sqrt(head_dim)` as a rule.

use candle_core::Tensor;

use super::op;
use crate::{
    error::Result,
    kernels::{self, AttentionShape, IntegerCache, Mask, Pool},
};

/// How an attention's heads score.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    /// Heads, side by side in a row.
    pub heads: usize,
    /// What scores are multiplied with, `1 / sqrt(head_dim)` as a rule.
    pub scale: f32,
}

/// Keys and values of one layer for one sequence.
///
/// Where weights are packed they are integers of 16 bits, which takes half the memory of f32 and half the time to read it,
/// and loses less than the products that they come from. Beside f32 weights they are kept as they are.
#[derive(Clone, Debug, Default)]
pub struct KeysValues {
    /// Positions that there will be at least.
    room: usize,
    integers: IntegerCache,
    /// For each position its key and its value, in one piece: large enough for the system to get it back from a long text.
    exact: Vec<f32>,
}

impl KeysValues {
    /// An empty cache that makes room for `positions` at once.
    #[must_use]
    pub fn with_capacity(positions: usize) -> KeysValues {
        KeysValues { room: positions, ..KeysValues::default() }
    }

    /// Appends the keys and values of `qkv`, rows of so many `columns`; then attention of its last rows, as many as `out` has
    /// room for.
    fn attend(
        &mut self,
        qkv: &[f32],
        columns: usize,
        Heads { heads, scale }: Heads,
        exact: bool,
        out: &mut [f32],
        pool: &dyn Pool,
    ) {
        let (width, rows) = (columns / 3, qkv.len() / columns);
        let (queries, head_dim) = (out.len() / width, width / heads);
        let q = &qkv[(rows - queries) * columns..];
        let shape = |kv_stride: usize, positions: usize| AttentionShape {
            heads,
            head_dim,
            queries,
            q_stride: columns,
            kv_stride,
            scale,
            mask: Mask::Causal { past: positions - queries },
        };
        if exact {
            let kept = &mut self.exact;
            kept.reserve_exact((self.room * 2 * width).saturating_sub(kept.len()));
            for row in qkv.chunks_exact(columns) {
                kept.extend(&row[width..]);
            }
            let shape = shape(2 * width, kept.len() / (2 * width));
            kernels::attention(q, kept, &kept[width..], &shape, out, pool);
        } else {
            let kept = &mut self.integers;
            kept.reserve(self.room, heads, head_dim);
            let shape = shape(columns, kept.positions() + rows);
            let (keys, values) = (&qkv[width..], &qkv[2 * width..]);
            kernels::cached_attention_i16(q, keys, values, &shape, kept, out, pool);
        }
    }
}

/// Causal attention of every sequence of a batch over its own cache.
///
/// `qkv`: `(rows, 3 * width)`, a token's query, key and value side by side, as GPT-2's `c_attn` gives them.
/// `batch`: for each sequence its number of rows and its cache; the new keys and values are appended first, in integers but
/// where they shall be `exact`, so a query at position `p` sees positions `0..=p`. `out`: `(rows, width)`, whose elements
/// nobody else holds, or `(sequences, width)` where `only_last` queries are asked.
///
/// # Errors
/// [`crate::Error::Tensor`] if the shapes do not fit.
pub fn cached_attention(
    qkv: &Tensor,
    batch: &mut [(usize, &mut KeysValues)],
    heads: Heads,
    exact: bool,
    only_last: bool,
    out: &Tensor,
    pool: &dyn Pool,
) -> Result<()> {
    let columns = qkv.dims2()?.1;
    let width = columns / 3;
    Ok(op::update(out, qkv, "cached_attention", |out, qkv| {
        let (mut qkv, mut out) = (qkv, out);
        for (rows, cache) in batch.iter_mut() {
            let queries = if only_last { 1.min(*rows) } else { *rows };
            let (own, rest) = qkv.split_at(*rows * columns);
            let (own_out, rest_out) = out.split_at_mut(queries * width);
            (qkv, out) = (rest, rest_out);
            cache.attend(own, columns, heads, exact, own_out, pool);
        }
    })?)
}

/// Attention of every text of a batch over itself, its scores multiplied with `1/sqrt(head_dim)`.
///
/// `qkv`: `(rows, 3 * width)`, a token's query, key and value side by side; `lengths`: the rows of each text; `out`:
/// `(rows, width)`, whose elements nobody else holds, or `(texts, width)` where `only_first` queries are asked. In integers, but
/// where it shall be `exact`.
///
/// # Errors
/// [`crate::Error::Tensor`] if the shapes do not fit.
pub fn full_attention(
    qkv: &Tensor,
    lengths: &[usize],
    heads: usize,
    exact: bool,
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
            let attention = if exact { kernels::attention } else { kernels::attention_i16 };
            attention(own, &own[width..], &own[2 * width..], &shape, own_out, pool);
        }
    })?)
}
