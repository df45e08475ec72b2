//! Scaled dot-product attention, over a cache for generators and over whole texts for classifiers.
//!
//! Source: Vaswani et al. 2017, 3.2.1; scores are multiplied with `scale`, `1/sqrt(head_dim)` as a rule.

use candle_core::Tensor;

use super::op;
use crate::{
    error::Result,
    kernels::{self, AttentionShape, Bf16, Element, Mask, Pool},
};

/// How an attention's heads score.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    /// Heads, side by side in a row.
    pub heads: usize,
    /// What scores are multiplied with, `1 / sqrt(head_dim)` as a rule.
    pub scale: f32,
}

/// Keys and values of one layer for one sequence, one row of the model's width a position.
///
/// Where weights are packed they are rounded to [`Bf16`]; that loses less than the products that they come from. Beside f32
/// weights they are kept as they are.
#[derive(Clone, Debug, Default)]
pub struct KeysValues {
    /// Positions that there will be at least.
    room: usize,
    /// For each position its key and its value, in one piece: large enough for the system to get it back from a long text.
    rounded: Vec<Rounded>,
    exact: Vec<f32>,
}

/// How rounded numbers are kept: at 16 bits, which takes half the memory and half the time to read it. In WebAssembly that
/// time is spent on making them 32 again, so there they stay f32; what is computed is the same.
#[cfg(not(target_arch = "wasm32"))]
type Rounded = Bf16;
#[cfg(target_arch = "wasm32")]
type Rounded = f32;

impl KeysValues {
    /// An empty cache that makes room for `positions` at once.
    #[must_use]
    pub fn with_capacity(positions: usize) -> KeysValues {
        KeysValues { room: positions, ..KeysValues::default() }
    }
}

/// Causal attention of every sequence of a batch over its own cache.
///
/// `qkv`: `(rows, 3 * width)`, a token's query, key and value side by side, as GPT-2's `c_attn` gives them.
/// `batch`: for each sequence its number of rows and its cache; the new keys and values are appended first, not rounded where
/// they shall be `exact`, so a query at position `p` sees positions `0..=p`. `out`: `(rows, width)`, whose elements nobody
/// else holds, or `(sequences, width)` where `only_last` queries are asked.
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
            let KeysValues { room, rounded, exact: unrounded } = &mut **cache;
            if exact {
                append(unrounded, *room, own, columns, exact);
                attend_last(unrounded, own, columns, heads, own_out, pool);
            } else {
                append(rounded, *room, own, columns, exact);
                attend_last(rounded, own, columns, heads, own_out, pool);
            }
        }
    })?)
}

/// Appends the keys and values of `qkv`, rows of so many `columns`, to those of which there will be `room` at least; rounded
/// unless they shall be `exact`.
fn append<E: From<f32> + From<Bf16>>(
    kept: &mut Vec<E>,
    room: usize,
    qkv: &[f32],
    columns: usize,
    exact: bool,
) {
    let width = columns / 3;
    let keep = |x: &f32| if exact { E::from(*x) } else { E::from(Bf16::from(*x)) };
    kept.reserve_exact((room * 2 * width).saturating_sub(kept.len()));
    for row in qkv.chunks_exact(columns) {
        kept.extend(row[width..].iter().map(keep));
    }
}

/// Attention of the last rows of `qkv`, as many as `out` has room for.
fn attend_last<E: Element>(
    kept: &[E],
    qkv: &[f32],
    columns: usize,
    Heads { heads, scale }: Heads,
    out: &mut [f32],
    pool: &dyn Pool,
) {
    let width = columns / 3;
    let queries = out.len() / width;
    let shape = AttentionShape {
        heads,
        head_dim: width / heads,
        queries,
        q_stride: columns,
        kv_stride: 2 * width,
        scale,
        mask: Mask::Causal { past: kept.len() / (2 * width) - queries },
    };
    kernels::attention(&qkv[qkv.len() - queries * columns..], kept, &kept[width..], &shape, out, pool);
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
