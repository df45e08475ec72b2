//! Attention in 16-bit integers over [`Lanes`].
//!
//! 1. Keys lie transposed, 16 positions side by side: a lane adds up the score of one key, so that nothing is folded, and
//!    scores come as they are stored. Values lie in pairs of positions, a lane an element.
//! 2. Four queries go together through keys and values, as many of them at a time as there are registers for sums.

use super::attention::exp_minus_max_of_four;
use super::{Lanes, padded, store_part};
use crate::attention::TOGETHER;
use crate::attention_i16::{Head, Row, VALUE, Work, integers, query_limit, weight_scales};
use crate::scalar::LANES;
use std::array::from_fn;

/// The bits of the largest magnitude of the rows of `n` elements, `stride` apart.
#[inline(always)]
fn magnitude<F: Lanes>(x: &[f32], stride: usize, rows: usize, n: usize) -> u32 {
    let mut highest = F::splat(0.0);
    for row in 0..rows {
        let (chunks, rest) = x[row * stride..][..n].as_chunks::<LANES>();
        for x in chunks {
            highest = highest.max_magnitude(F::load(x));
        }
        highest = highest.max_magnitude(padded(rest, 0.0));
    }
    let mut lanes = [0.0; LANES];
    highest.store(&mut lanes);
    lanes.iter().fold(0, |highest, lane| highest.max(lane.to_bits()))
}

/// 16 elements of the row from `at` on; zeros where there are none.
#[inline(always)]
fn chunk<F: Lanes>(row: &[f32], at: usize) -> F {
    padded(&row[at.min(row.len())..row.len().min(at + LANES)], 0.0)
}

#[inline(always)]
pub(crate) fn pack_i16<F: Lanes>(keys: &[f32], values: &[f32], stride: usize, head: &mut Head) {
    let (positions, head_dim, pairs, columns) = (head.positions, head.head_dim, head.pairs(), head.columns());
    let (key_scale, inverse) =
        integers(magnitude::<F>(keys, stride, positions, head_dim), query_limit(head_dim));
    let mut rows = [[0.0; LANES]; LANES];
    for (group, out) in head.keys.chunks_exact_mut(pairs).enumerate() {
        for (column, out) in out.as_chunks_mut::<{ LANES / 2 }>().0.iter_mut().enumerate() {
            for (lane, row) in rows.iter_mut().enumerate() {
                // Zeros where there are no positions, or no elements.
                let position = group * LANES + lane;
                let key = if position < positions { &keys[position * stride..][..head_dim] } else { &[] };
                chunk::<F>(key, column * LANES).mul(F::splat(inverse)).store(row);
            }
            for (i, out) in out.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                let mut fours = [&[0.0; 4]; LANES];
                for (four, row) in fours.iter_mut().zip(&rows) {
                    *four = &row.as_chunks().0[i];
                }
                let [a, b, c, d] = F::transpose(fours);
                F::store_pairs(a, b, &mut out[0]);
                F::store_pairs(c, d, &mut out[1]);
            }
        }
    }
    let (value_scale, inverse) = integers(magnitude::<F>(values, stride, positions, head_dim), VALUE);
    for (pair, out) in head.values.chunks_exact_mut(columns).enumerate() {
        let first = &values[2 * pair * stride..][..head_dim];
        let second =
            if 2 * pair + 1 < positions { &values[(2 * pair + 1) * stride..][..head_dim] } else { &[] };
        for (column, out) in out.iter_mut().enumerate() {
            let (a, b) = (chunk::<F>(first, column * LANES), chunk::<F>(second, column * LANES));
            F::store_pairs(a.mul(F::splat(inverse)), b.mul(F::splat(inverse)), out);
        }
    }
    head.scales = [key_scale, value_scale];
}

/// The numbers as integers, after multiplication with `inverse`.
#[inline(always)]
fn store_rows<F: Lanes>(x: &[f32], inverse: f32, out: &mut [Row]) {
    for (i, out) in out.iter_mut().enumerate() {
        chunk::<F>(x, i * LANES).mul(F::splat(inverse)).store_i16(out);
    }
}

/// The scores of `Q` queries with all keys, `G` groups of these at a time. `queries` and `scores`: a row a query.
#[inline(always)]
fn score<F: Lanes, const Q: usize, const G: usize>(
    queries: &[Row],
    head: &Head,
    factors: &[f32],
    scores: &mut [[f32; LANES]],
) {
    let pairs = head.pairs();
    let queries: [&[i32]; Q] = from_fn(|q| &queries.as_flattened()[q * pairs..][..pairs]);
    let row = scores.len() / Q;
    for (at, keys) in head.keys.chunks_exact(G * pairs).enumerate() {
        let mut sums = [[F::splat_pair(0); G]; Q];
        for i in 0..pairs {
            let mut key = sums[0];
            for g in 0..G {
                key[g] = F::load_pairs(&keys[g * pairs + i]);
            }
            for q in 0..Q {
                let query = F::splat_pair(queries[q][i]);
                for g in 0..G {
                    sums[q][g] = F::add_products(sums[q][g], key[g], query);
                }
            }
        }
        for q in 0..Q {
            for g in 0..G {
                let score = F::from_sums(sums[q][g]).mul(F::splat(factors[q]));
                score.store(&mut scores[q * row + at * G + g]);
            }
        }
    }
}

/// The weighted sums of `16 * C` elements of the values from group `at` on, for `Q` queries. `weights`: a row a query.
#[inline(always)]
fn add_values<F: Lanes, const Q: usize, const C: usize>(
    weights: &[Row],
    head: &Head,
    at: usize,
    factors: &[f32],
    outs: &mut [&mut [f32]],
) {
    let (columns, n) = (head.columns(), head.positions.div_ceil(2));
    let row = weights.len() / Q;
    let weights: [&[i32]; Q] = from_fn(|q| &weights[q * row..][..row].as_flattened()[..n]);
    let mut sums = [[F::splat_pair(0); C]; Q];
    for (i, values) in head.values.chunks_exact(columns).enumerate().take(n) {
        let mut value = sums[0];
        for c in 0..C {
            value[c] = F::load_pairs(&values[at + c]);
        }
        for q in 0..Q {
            let weight = F::splat_pair(weights[q][i]);
            for c in 0..C {
                sums[q][c] = F::add_products(sums[q][c], value[c], weight);
            }
        }
    }
    for (q, out) in outs.iter_mut().enumerate() {
        for (c, sums) in sums[q].into_iter().enumerate() {
            let x = F::from_sums(sums).mul(F::splat(factors[q]));
            let first = (at + c) * LANES;
            let end = out.len().min(first + LANES);
            store_part(x, &mut out[first..end]);
        }
    }
}

#[inline(always)]
pub(crate) fn attend_i16<F: Lanes>(
    qs: &[&[f32]],
    head: &Head,
    scale: f32,
    work: &mut Work,
    outs: &mut [&mut [f32]],
) {
    let (columns, groups, positions) = (head.columns(), head.groups(), head.positions);
    let (scores, queries, weights) = work.parts(head);
    let mut factors = [0.0; TOGETHER];
    for (i, queries) in queries.chunks_exact_mut(columns).enumerate() {
        // Rows that no query has are of zeros.
        let q = qs.get(i).copied().unwrap_or_default();
        let (q_scale, inverse) = integers(magnitude::<F>(q, 0, 1, q.len()), query_limit(head.head_dim));
        store_rows::<F>(q, inverse, queries);
        factors[i] = q_scale * (head.scales[0] * scale);
    }
    if F::REGISTERS >= 16 {
        score::<F, 4, 2>(queries, head, &factors, scores);
    } else if F::REGISTERS >= 8 {
        score::<F, 4, 1>(queries, head, &factors, scores);
    } else {
        for half in 0..2 {
            let queries = &queries[2 * half * columns..][..2 * columns];
            score::<F, 2, 1>(
                queries,
                head,
                &factors[2 * half..],
                &mut scores[2 * half * groups..][..2 * groups],
            );
        }
    }

    let used = positions.div_ceil(LANES);
    let mut rest = &mut *scores;
    let rows: [&mut [[f32; LANES]]; TOGETHER] = from_fn(|_| {
        let (row, others) = std::mem::take(&mut rest).split_at_mut(groups);
        rest = others;
        let row = &mut row[..used];
        row.as_flattened_mut()[positions..].fill(f32::NEG_INFINITY);
        row
    });
    let sums = exp_minus_max_of_four::<F>(rows);
    for (q, sum) in sums.into_iter().enumerate() {
        let (inverse, factor) = weight_scales(sum, head.scales[1]);
        factors[q] = factor;
        let scores = scores[q * groups..][..used].as_flattened();
        store_rows::<F>(scores, inverse, &mut weights[q * groups..][..used]);
    }

    if F::REGISTERS >= 16 {
        let mut at = 0;
        while columns - at >= 4 {
            add_values::<F, 4, 4>(weights, head, at, &factors, outs);
            at += 4;
        }
        for at in at..columns {
            add_values::<F, 4, 1>(weights, head, at, &factors, outs);
        }
        return;
    }
    for (half, outs) in outs.chunks_mut(2).enumerate() {
        let (weights, factors) = (&weights[2 * half * groups..][..2 * groups], &factors[2 * half..]);
        let mut at = 0;
        while F::REGISTERS >= 8 && columns - at >= 2 {
            add_values::<F, 2, 2>(weights, head, at, factors, outs);
            at += 2;
        }
        for at in at..columns {
            add_values::<F, 2, 1>(weights, head, at, factors, outs);
        }
    }
}
