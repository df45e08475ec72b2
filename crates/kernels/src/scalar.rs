//! The definition: what every kernel computes, in plain Rust, in the order in which it rounds.
//!
//! Each fast twin gives these bits. That is why the order is spelled out: a sum of f32 depends on it.
//!
//! - A product's sum runs over the 32 to 1024 weights that share a scale, in order: their dot product is exact in i32,
//!   becomes f32 (exactly: it is below 2^24), is multiplied by `weight scale * activation scale`, and is added.
//! - Any other sum runs over [`LANES`] virtual lanes, element `i` in lane `i % LANES`, each lane in order; then the upper
//!   half of the lanes is added to the lower half until one is left. One AVX-512 register, two of AVX2 or four of
//!   NEON and WebAssembly hold the lanes.
//! - Multiply and add round separately; division and square root are IEEE's.

use super::Around;
use super::attention_i16::{CHUNK, Head, VALUE, WEIGHT, Work, integers};
use super::f16::f32_from_f16;
use super::math::{self, exp, max};
use super::matrix::{BLOCK, PANEL, PackedMatrix, Packing, Stored, Tile, TileQ4};
pub(crate) use super::pack::{
    columns as pack_columns, columns_q4 as pack_columns_q4, row as pack_row, row_q4 as pack_row_q4,
};
use super::pool::Shared;
use super::quantised::{Block, Quantised};
use super::{Activation, AttentionShape, group_of};
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
pub(crate) fn magnitude(x: &[f32]) -> u32 {
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

/// Columns that are rotated together: see [`Packing::Q8By`].
pub(crate) const ROTATED: usize = 128;

/// `1 / sqrt(32)`: a rotation keeps lengths.
pub(crate) const ROTATION: f32 = 0.176_776_7;

/// Distances of what is added and subtracted, one after the other.
pub(crate) const ROTATION_STAGES: [usize; 5] = [4, 8, 16, 32, 64];

/// `out` takes `x` with each 128 elements rotated: of each 32 at a distance of 4 become `H x / sqrt(32)`, where `H` is the
/// Walsh-Hadamard matrix. Twice is as good as never, but for rounding.
///
/// First each is multiplied, then the sum and the difference of each two at a distance take their places.
pub(crate) fn rotate(x: &[f32], out: &mut [f32]) {
    for (x, out) in x.as_chunks().0.iter().zip(out.as_chunks_mut::<ROTATED>().0) {
        *out = x.map(|x| x * ROTATION);
        for distance in ROTATION_STAGES {
            for i in (0..ROTATED).filter(|i| i & distance == 0) {
                let (a, b) = (out[i], out[i + distance]);
                (out[i], out[i + distance]) = (a + b, a - b);
            }
        }
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
            Packing::Q8 | Packing::Q8By(_) => matmul_of::<Tile>(matrix, x, panels, around, out),
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
                            let weights = tile.row(row);
                            let product = |k| i32::from(weights[k]) * i32::from(x.q[k]);
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
pub(crate) fn attend(
    qs: &[&[f32]],
    keys: &[f32],
    values: &[f32],
    shape: &AttentionShape,
    seen: &[usize],
    scratch: &mut [f32],
    outs: &mut [&mut [f32]],
) {
    for ((q, seen), out) in qs.iter().zip(seen).zip(outs) {
        let scores = &mut scratch[..*seen];
        for (position, score) in scores.iter_mut().enumerate() {
            let key = &keys[position * shape.kv_stride..][..q.len()];
            *score = sum(q.len(), |i| q[i] * key[i]) * shape.scale;
        }
        let inverse = 1.0 / exp_minus_max(scores);
        out.fill(0.0);
        for (position, score) in scores.iter().enumerate() {
            let value = &values[position * shape.kv_stride..][..q.len()];
            for (out, value) in out.iter_mut().zip(value) {
                *out += score * value;
            }
        }
        for out in out.iter_mut() {
            *out *= inverse;
        }
    }
}

/// Keys and values of `new` positions of a head as integers, `x ~ scale * n`, `n = round(x * (limit / amax))`, ties to even,
/// where `amax` is the largest magnitude of the key, or value.
pub(crate) fn pack_i16(keys: &[f32], values: &[f32], stride: usize, new: Range<usize>, head: &mut Head<'_>) {
    let (head_dim, columns, limit) = (head.head_dim, head.columns(), head.limit);
    for (i, position) in new.enumerate() {
        let (key, value) = (&keys[i * stride..][..head_dim], &values[i * stride..][..head_dim]);
        let (group, lane) = (position / LANES, position % LANES);
        let (keys, values, scales) = head.tile_mut(group);
        let (scale, inverse) = integers(magnitude(key), limit);
        scales[0][lane] = scale;
        for (i, x) in key.iter().enumerate() {
            keys[i / 2][lane][i % 2] = rounded(x * inverse);
        }
        let (scale, inverse) = integers(magnitude(value), VALUE);
        scales[1][lane] = scale;
        for (i, x) in value.iter().enumerate() {
            values[lane / 2 * columns + i / LANES][i % LANES][lane % 2] = rounded(x * inverse);
        }
    }
}

fn rounded(x: f32) -> i16 {
    x.round_ties_even() as i16
}

/// At most [`TOGETHER`](super::attention::TOGETHER) queries of a head: `out = softmax(q . k * scale) . v` for each, over the
/// positions that it has `seen`, in integers.
///
/// A query becomes integers as keys do. Its scores are exact in i32, become f32, and are multiplied with the three scales;
/// they become the weights `exp(score - max)`. The weights times the scales of the values become integers,
/// [`CHUNK`] positions at a time, of which [`WEIGHT`] is the sum of all. Their weighted sum of values is exact in i32 again.
/// These sums, times their scales, add up in f32; the sum of the weights divides the result once, at the end.
pub(crate) fn attend_i16(
    qs: &[&[f32]],
    head: &Head<'_>,
    scale: f32,
    seen: &[usize],
    _work: &mut Work,
    outs: &mut [&mut [f32]],
) {
    let columns = head.columns();
    for ((q, &seen), out) in qs.iter().zip(seen).zip(outs) {
        let (q_scale, inverse) = integers(magnitude(q), head.limit);
        let q: Vec<i32> = q.iter().map(|x| rounded(x * inverse).into()).collect();
        let score = |position: usize| {
            let (keys, lane) = (head.keys(position / LANES), position % LANES);
            let dot = q.iter().enumerate().map(|(i, q)| q * i32::from(keys[i / 2][lane][i % 2]));
            dot.sum::<i32>() as f32 * (head.scales(position / LANES)[0][lane] * scale * q_scale)
        };
        let mut weights: Vec<f32> = (0..seen).map(score).collect();
        let inverse = 1.0 / exp_minus_max(&mut weights);
        for (position, weight) in weights.iter_mut().enumerate() {
            *weight *= head.scales(position / LANES)[1][position % LANES];
        }
        out.fill(0.0);
        let mut sums = vec![0; out.len()];
        for (first, weights) in (0..).step_by(CHUNK).zip(weights.chunks(CHUNK)) {
            let (scale, inverse) = integers(sum(weights.len(), |i| weights[i]).to_bits(), WEIGHT);
            sums.fill(0);
            for (position, weight) in (first..).zip(weights) {
                let (weight, lane) = (i32::from(rounded(weight * inverse)), position % LANES);
                let values = &head.values(position / LANES)[lane / 2 * columns..][..columns];
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum += weight * i32::from(values[i / LANES][i % LANES][lane % 2]);
                }
            }
            for (out, sum) in out.iter_mut().zip(&sums) {
                *out += *sum as f32 * scale;
            }
        }
        for out in out.iter_mut() {
            *out *= inverse;
        }
    }
}
