//! The definition: what every kernel computes, in plain Rust, in the order in which it rounds.
//!
//! Each fast twin gives these bits. That is why the order is spelled out: a sum of f32 depends on it.
//!
//! - A product's sum runs over the 32 or 128 weights that share a scale, in order: their dot product is exact in i32,
//!   becomes f32 (exactly: it is below 2^24), is multiplied by `weight scale * activation scale`, and is added.
//! - Any other sum runs over [`LANES`] virtual lanes, element `i` in lane `i % LANES`, each lane in order; then the upper
//!   half of the lanes is added to the lower half until one is left. One AVX-512 register, two of AVX2 or four of
//!   NEON and WebAssembly hold the lanes.
//! - Multiply and add round separately; division and square root are IEEE's.

use super::Around;
use super::attention_i16::{Head, Pairs, VALUE, Work, integers, query_limit, weight_scales};
use super::math::{self, exp, max};
use super::matrix::{BLOCK, PANEL, PackedMatrix, Packing, Stored, Tile, TileQ4, f32_from_f16};
pub(crate) use super::pack::{
    columns as pack_columns, columns_q4 as pack_columns_q4, row as pack_row, row_q4 as pack_row_q4,
};
use super::pool::Shared;
use super::quantised::{Block, Quantised};
use super::{Activation, AttentionShape, Bf16, group_of};
use std::ops::Range;

/// Virtual lanes of every sum that is no matrix product.
pub(crate) const LANES: usize = 16;

/// A position whose score is this far below the highest gets no weight in a softmax: `exp(-64)` is lost in an f32 sum
/// that holds a 1, and smaller numbers soon are subnormal, which makes processors a hundred times slower.
pub(crate) const NEGLIGIBLE: f32 = -64.0;

/// Adds the upper half of the lanes to the lower half, until one is left.
pub(crate) fn fold(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
    }
    lanes[0]
}

/// The sum of `term(i)` for `i` in `0..n`, over the virtual lanes.
fn sum(n: usize, term: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    for i in 0..n {
        lanes[i % LANES] += term(i);
    }
    fold(lanes)
}

/// The bits of the largest magnitude; they compare as integers, in which order does not matter, and a NaN is above infinity.
fn magnitude(x: &[f32]) -> u32 {
    x.iter().fold(0, |highest, x| highest.max(x.to_bits() & 0x7fff_ffff))
}

/// Quantises a row of activations to 8 bits: `x ~ scale * q`, `q = round(x * (127 / amax))`, ties to even, where `amax` is
/// the largest magnitude of a span, so many blocks with one scale. A NaN or an infinity makes that NaN, so that it shows in
/// the output. The blocks lie `step` apart.
pub(crate) fn quantise(x: &[f32], span: usize, blocks: &mut [Block], step: usize) {
    let (xs, _) = x.as_chunks::<BLOCK>();
    for (i, xs) in xs.chunks_exact(span).enumerate() {
        let highest = magnitude(xs.as_flattened());
        let (first, mut sum) = (i * span * step, 0);
        for (x, block) in xs.iter().zip(blocks[first..].iter_mut().step_by(step)) {
            *block = Block::ZERO;
            if let Some(inverse) = block.set_scale(highest) {
                block.q = x.map(|x| (x * inverse).round_ties_even() as i8);
                sum += block.q.iter().map(|q| i32::from(*q)).sum::<i32>();
            }
        }
        blocks[first].excess = -128 * sum;
    }
}

/// [`math::gelu_tanh`] of every element.
pub(crate) fn gelu_tanh(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = math::gelu_tanh(*x));
}

/// [`math::gelu_erf`] of every element.
pub(crate) fn gelu_erf(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = math::gelu_erf(*x));
}

/// [`math::tanh`] of every element.
pub(crate) fn tanh_all(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = math::tanh(*x));
}

/// The products of all activation rows with the matrix rows of `panels`, written into `out`: `(x.rows, matrix.rows)`.
///
/// # Safety
/// Nobody else uses the columns of `out` that belong to `panels`.
pub(crate) unsafe fn matmul(
    matrix: &PackedMatrix,
    x: &Quantised,
    panels: Range<usize>,
    around: &Around<'_>,
    out: &Shared<'_, f32>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match matrix.packing() {
            Packing::Q8 | Packing::Q8By128 => matmul_of::<Tile>(matrix, x, panels, around, out),
            Packing::Q4 => matmul_of::<TileQ4>(matrix, x, panels, around, out),
        }
    }
}

/// # Safety
/// As for [`matmul`].
unsafe fn matmul_of<T: Stored>(
    matrix: &PackedMatrix,
    x: &Quantised,
    panels: Range<usize>,
    around: &Around<'_>,
    out: &Shared<'_, f32>,
) {
    let span = matrix.packing().span();
    for panel in panels {
        let (tiles, scales) = matrix.panel::<T>(panel);
        for first in (0..x.rows).step_by(x.together) {
            let n = x.together.min(x.rows - first);
            let blocks = x.group(first, n);
            for m in 0..n {
                let mut sums = [0.0_f32; PANEL];
                for ((tiles, scales), xs) in tiles.chunks(span).zip(scales).zip(blocks.chunks(span * n)) {
                    for (row, sum) in sums.iter_mut().enumerate() {
                        let mut dot = 0;
                        for (tile, x) in tiles.iter().zip(xs[m..].iter().step_by(n)) {
                            let product = |k| i32::from(tile.weight(row, k)) * i32::from(x.q[k]);
                            dot += (0..BLOCK).map(product).sum::<i32>();
                        }
                        *sum += dot as f32 * (f32_from_f16(scales[row]) * xs[m].scale);
                    }
                }
                // SAFETY: the caller gave us the panel alone.
                let (column, out) = unsafe { matrix.outputs(panel, first + m, out) };
                finish(&sums, around, column, out);
            }
        }
    }
}

/// What follows a product: `out` takes the outputs of a panel whose first column is `column`.
pub(crate) fn finish(sums: &[f32; LANES], around: &Around<'_>, column: usize, out: &mut [f32]) {
    for (i, out) in out.iter_mut().enumerate() {
        let y = around.bias.map_or(sums[i], |bias| sums[i] + bias[column + i]);
        let y = match around.activation {
            Activation::None => y,
            Activation::GeluTanh => math::gelu_tanh(y),
            Activation::GeluErf => math::gelu_erf(y),
            Activation::Relu => max(0.0, y),
            Activation::Tanh => math::tanh(y),
        };
        *out = if around.add { *out + y } else { y };
    }
}

/// `(x - mean) / sqrt(variance + eps) * weight + bias` of one row.
pub(crate) fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    let n = x.len() as f32;
    let mean = sum(x.len(), |i| x[i]) / n;
    let variance = sum(x.len(), |i| (x[i] - mean) * (x[i] - mean)) / n;
    let inverse = 1.0 / (variance + eps).sqrt();
    for i in 0..x.len() {
        out[i] = ((x[i] - mean) * inverse) * weight[i] + bias[i];
    }
}

/// The largest element; that of nothing is minus infinity.
pub(crate) fn highest(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for (i, x) in x.iter().enumerate() {
        lanes[i % LANES] = max(lanes[i % LANES], *x);
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, max)
}

/// The largest element of each group.
pub(crate) fn maxima(x: &[f32], out: &mut [f32]) {
    out.fill(f32::NEG_INFINITY);
    for (i, x) in x.iter().enumerate() {
        let highest = &mut out[group_of(i)];
        *highest = max(*highest, *x);
    }
}

/// The sum of `exp(x - highest)`: each term in f32, the sums of the virtual lanes in f64, and these in order.
pub(crate) fn sum_exp(x: &[f32], highest: f32) -> f64 {
    let mut lanes = [0.0; LANES];
    for (i, x) in x.iter().enumerate() {
        lanes[i % LANES] += f64::from(exp(x - highest));
    }
    lanes.into_iter().sum()
}

/// `out = exp((x - highest) / temperature)`.
pub(crate) fn weigh(x: &[f32], highest: f32, temperature: f32, out: &mut [f32]) {
    for (x, out) in x.iter().zip(out) {
        *out = exp((x - highest) / temperature);
    }
}

/// `x` becomes `exp(x - max(x))`, or 0 where that is below `exp(NEGLIGIBLE)`; returns the sum.
pub(crate) fn exp_minus_max(x: &mut [f32]) -> f32 {
    let highest = highest(x);
    for x in x.iter_mut() {
        let below = *x - highest;
        *x = if below < NEGLIGIBLE { 0.0 } else { exp(below) };
    }
    sum(x.len(), |i| x[i])
}

/// Queries of one head: `out = softmax(q . k * scale) . v` for each, over the positions that it has `seen`, not fewer than
/// those before it. `scratch` has the size that [`scratch_size`](super::scratch_size) says.
///
/// The weights of the values are `exp(score - max)`; their sum divides the result once, at the end.
fn attend_of<E: Copy + Into<f32>>(
    qs: &[&[f32]],
    keys: &[E],
    values: &[E],
    shape: &AttentionShape,
    seen: &[usize],
    scratch: &mut [f32],
    outs: &mut [&mut [f32]],
) {
    for ((q, seen), out) in qs.iter().zip(seen).zip(outs) {
        let scores = &mut scratch[..*seen];
        for (position, score) in scores.iter_mut().enumerate() {
            let key = &keys[position * shape.kv_stride..][..q.len()];
            *score = sum(q.len(), |i| q[i] * key[i].into()) * shape.scale;
        }
        let inverse = 1.0 / exp_minus_max(scores);
        out.fill(0.0);
        for (position, score) in scores.iter().enumerate() {
            let value = &values[position * shape.kv_stride..][..q.len()];
            for (out, value) in out.iter_mut().zip(value) {
                *out += score * (*value).into();
            }
        }
        for out in out.iter_mut() {
            *out *= inverse;
        }
    }
}

pub(crate) fn attend(
    qs: &[&[f32]],
    keys: &[f32],
    values: &[f32],
    shape: &AttentionShape,
    seen: &[usize],
    scratch: &mut [f32],
    outs: &mut [&mut [f32]],
) {
    attend_of(qs, keys, values, shape, seen, scratch, outs);
}

pub(crate) fn attend_bf16(
    qs: &[&[f32]],
    keys: &[Bf16],
    values: &[Bf16],
    shape: &AttentionShape,
    seen: &[usize],
    scratch: &mut [f32],
    outs: &mut [&mut [f32]],
) {
    attend_of(qs, keys, values, shape, seen, scratch, outs);
}

/// The keys and values of a head as integers: `x ~ scale * n`, `n = round(x * (limit / amax))`, ties to even, where `amax` is
/// the largest magnitude of all keys, or values, of the text.
pub(crate) fn pack_i16(keys: &[f32], values: &[f32], stride: usize, head: &mut Head) {
    let (positions, head_dim, pairs, columns) = (head.positions, head.head_dim, head.pairs(), head.columns());
    let rows = |x: &[f32], limit: f32| {
        let rows: Vec<&[f32]> = (0..positions).map(|position| &x[position * stride..][..head_dim]).collect();
        let (scale, inverse) = integers(rows.iter().copied().map(magnitude).fold(0, u32::max), limit);
        let rows = rows.into_iter().map(|row| row.iter().map(|x| rounded(x * inverse)).collect());
        (scale, rows.collect::<Vec<Vec<i16>>>())
    };
    let (key_scale, keys) = rows(keys, query_limit(head_dim));
    let (value_scale, values) = rows(values, VALUE);
    head.scales = [key_scale, value_scale];
    head.keys.fill(Pairs::ZERO);
    head.values.fill(Pairs::ZERO);
    for position in 0..positions {
        for i in 0..head_dim {
            head.keys[position / LANES * pairs + i / 2].0[position % LANES][i % 2] = keys[position][i];
            head.values[position / 2 * columns + i / LANES].0[i % LANES][position % 2] = values[position][i];
        }
    }
}

fn rounded(x: f32) -> i16 {
    x.round_ties_even() as i16
}

/// At most [`TOGETHER`](super::attention::TOGETHER) queries of a head: `out = softmax(q . k * scale) . v` for each, in integers.
///
/// A query becomes integers as keys do, with a scale of its own. Its scores are exact in i32, become f32, and are
/// multiplied with the three scales; their weights `exp(score - max)` are divided by their sum and become integers of which
/// 1 is [`WEIGHT`](super::attention_i16::WEIGHT). The weighted sum of values is exact in i32 again.
pub(crate) fn attend_i16(qs: &[&[f32]], head: &Head, scale: f32, _work: &mut Work, outs: &mut [&mut [f32]]) {
    let (pairs, columns) = (head.pairs(), head.columns());
    for (q, out) in qs.iter().zip(outs) {
        let (q_scale, inverse) = integers(magnitude(q), query_limit(head.head_dim));
        let mut integers = vec![[0_i16; 2]; pairs];
        integers.as_flattened_mut().iter_mut().zip(*q).for_each(|(n, x)| *n = rounded(x * inverse));
        let factor = q_scale * (head.scales[0] * scale);
        let score = |position: usize| {
            let keys = &head.keys[position / LANES * pairs..][..pairs];
            let dot = keys.iter().zip(&integers).map(|(keys, [a, b])| {
                let [x, y] = keys.0[position % LANES];
                i32::from(*a) * i32::from(x) + i32::from(*b) * i32::from(y)
            });
            dot.sum::<i32>() as f32 * factor
        };
        let mut weights: Vec<f32> = (0..head.positions).map(score).collect();
        let (inverse, factor) = weight_scales(exp_minus_max(&mut weights), head.scales[1]);
        let mut sums = vec![[0_i32; LANES]; columns];
        for (weights, values) in weights.chunks(2).zip(head.values.chunks_exact(columns)) {
            let weight = |i: usize| weights.get(i).map_or(0, |weight| i32::from(rounded(weight * inverse)));
            let (a, b) = (weight(0), weight(1));
            for (sum, [x, y]) in
                sums.iter_mut().zip(values).flat_map(|(sums, values)| sums.iter_mut().zip(values.0))
            {
                *sum += a * i32::from(x) + b * i32::from(y);
            }
        }
        for (out, sum) in out.iter_mut().zip(sums.as_flattened()) {
            *out = *sum as f32 * factor;
        }
    }
}
