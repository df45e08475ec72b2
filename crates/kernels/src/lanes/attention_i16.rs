//! Attention in 16-bit integers over [`Lanes`].
//!
//! 1. Keys lie transposed, 16 positions side by side: a lane adds up the score of one key, so that nothing is folded, and
//!    scores come as they are stored. Values lie in pairs of positions, a lane an element.
//! 2. Four queries go together through keys and values, as many of them at a time as there are registers for sums.
//! 3. A single one, a generator's, waits for memory, since all weights were read after the cache was last. It asks for keys
//!    ahead, and for the values that it will need; WebAssembly reads a number of each line instead.

use super::attention::exp_minus_max_of_four;
use super::{Lanes, exp_minus_max, padded, store_part};
use crate::attention::TOGETHER;
use crate::attention_i16::{CHUNK, Head, Pairs, Parts, Row, VALUE, WEIGHT, Work, groups, integers};
use crate::scalar::LANES;
use std::array::from_fn;
use std::ops::Range;

/// The largest magnitudes of some elements, a lane for each 16th.
#[inline(always)]
fn magnitudes<F: Lanes>(x: &[f32]) -> F {
    let (chunks, rest) = x.as_chunks();
    let mut highest = F::splat(0.0);
    for x in chunks {
        highest = highest.max_magnitude(F::load(x));
    }
    if rest.is_empty() { highest } else { highest.max_magnitude(padded(rest, 0.0)) }
}

/// The bits of the largest magnitude.
#[inline(always)]
fn magnitude<F: Lanes>(x: &[f32]) -> u32 {
    let mut lanes = [0.0; LANES];
    magnitudes::<F>(x).store(&mut lanes);
    lanes.iter().fold(0, |highest, lane| highest.max(lane.to_bits()))
}

/// 16 elements of the row from `at` on; zeros where there are none.
#[inline(always)]
fn chunk<F: Lanes>(row: &[f32], at: usize) -> F {
    padded(&row[at.min(row.len())..row.len().min(at + LANES)], 0.0)
}

/// The elements `4 * i..4 * i + 4` of 16 rows, a lane a row.
#[inline(always)]
fn transposed<F: Lanes>(rows: &[[f32; LANES]; LANES], i: usize) -> [F; 4] {
    let mut fours = [&[0.0; 4]; LANES];
    for (four, row) in fours.iter_mut().zip(rows) {
        *four = &row.as_chunks().0[i];
    }
    F::transpose(fours)
}

#[inline(always)]
pub(crate) fn pack_i16<F: Lanes>(
    keys: &[f32],
    values: &[f32],
    stride: usize,
    new: Range<usize>,
    head: &mut Head<'_>,
) {
    let mut position = new.start;
    while position < new.end {
        let at = (position - new.start) * stride;
        let (keys, values) = (&keys[at..], &values[at..]);
        // One by one takes WebAssembly no longer than it can measure, and less of the page.
        if F::REGISTERS >= 8 && position.is_multiple_of(LANES) && new.end - position >= LANES {
            pack_group::<F>(keys, values, stride, position / LANES, head);
            position += LANES;
        } else {
            pack_position::<F>(keys, values, position, head);
            position += 1;
        }
    }
}

/// A whole group of positions.
#[inline(always)]
fn pack_group<F: Lanes>(keys: &[f32], values: &[f32], stride: usize, group: usize, head: &mut Head<'_>) {
    let (head_dim, columns, limit) = (head.head_dim, head.columns(), head.limit);
    let (packed_keys, packed_values, scales) = head.tile_mut(group);
    let mut rows = [[0.0; LANES]; LANES];
    let inverses = group_scales::<F>(keys, stride, head_dim, limit, &mut scales[0]);
    for (column, out) in packed_keys.as_chunks_mut::<{ LANES / 2 }>().0.iter_mut().enumerate() {
        for lane in 0..LANES {
            let key = chunk::<F>(&keys[lane * stride..][..head_dim], column * LANES);
            key.mul(F::splat(inverses[lane])).store(&mut rows[lane]);
        }
        for (i, out) in out.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let [a, b, c, d] = transposed::<F>(&rows, i);
            F::store_pairs(a, b, &mut out[0]);
            F::store_pairs(c, d, &mut out[1]);
        }
    }
    let inverses = group_scales::<F>(values, stride, head_dim, VALUE, &mut scales[1]);
    for (pair, out) in packed_values.chunks_exact_mut(columns).enumerate() {
        for (column, out) in out.iter_mut().enumerate() {
            let mut both = [F::splat(0.0); 2];
            for (i, value) in both.iter_mut().enumerate() {
                let lane = 2 * pair + i;
                *value = chunk::<F>(&values[lane * stride..][..head_dim], column * LANES)
                    .mul(F::splat(inverses[lane]));
            }
            F::store_pairs(both[0], both[1], out);
        }
    }
}

/// The scales of 16 rows, and their inverses.
#[inline(always)]
fn group_scales<F: Lanes>(
    x: &[f32],
    stride: usize,
    n: usize,
    limit: f32,
    scales: &mut [f32; LANES],
) -> [f32; LANES] {
    let mut rows = [[0.0; LANES]; LANES];
    for (lane, row) in rows.iter_mut().enumerate() {
        magnitudes::<F>(&x[lane * stride..][..n]).store(row);
    }
    let mut highest = F::splat(0.0);
    for i in 0..LANES / 4 {
        for x in transposed::<F>(&rows, i) {
            highest = highest.max_magnitude(x);
        }
    }
    let mut inverses = [0.0; LANES];
    highest.store(&mut inverses);
    for (inverse, scale) in inverses.iter_mut().zip(scales) {
        (*scale, *inverse) = integers(inverse.to_bits(), limit);
    }
    inverses
}

/// A position of a group that is not whole yet.
#[inline(always)]
fn pack_position<F: Lanes>(keys: &[f32], values: &[f32], position: usize, head: &mut Head<'_>) {
    let (head_dim, columns, limit) = (head.head_dim, head.columns(), head.limit);
    let lane = position % LANES;
    let (packed_keys, packed_values, scales) = head.tile_mut(position / LANES);
    let mut row: Row = [0; LANES / 2];
    let key = &keys[..head_dim];
    let (scale, inverse) = integers(magnitude::<F>(key), limit);
    scales[0][lane] = scale;
    for (column, out) in packed_keys.as_chunks_mut::<{ LANES / 2 }>().0.iter_mut().enumerate() {
        chunk::<F>(key, column * LANES).mul(F::splat(inverse)).store_i16(&mut row);
        for (out, pair) in out.iter_mut().zip(row) {
            out[lane] = halves(pair);
        }
    }
    let value = &values[..head_dim];
    let (scale, inverse) = integers(magnitude::<F>(value), VALUE);
    scales[1][lane] = scale;
    for (column, out) in packed_values[lane / 2 * columns..][..columns].iter_mut().enumerate() {
        chunk::<F>(value, column * LANES).mul(F::splat(inverse)).store_i16(&mut row);
        for (out, pair) in out.as_chunks_mut::<2>().0.iter_mut().zip(row) {
            let [first, second] = halves(pair);
            out[0][lane % 2] = first;
            out[1][lane % 2] = second;
        }
    }
}

#[inline(always)]
fn halves(pair: i32) -> [i16; 2] {
    [pair as i16, (pair >> 16) as i16]
}

/// The numbers as integers, after multiplication with `inverse`.
#[inline(always)]
fn store_rows<F: Lanes>(x: &[f32], inverse: f32, out: &mut [Row]) {
    let (chunks, rest) = x.as_chunks();
    for (x, out) in chunks.iter().zip(&mut *out) {
        F::load(x).mul(F::splat(inverse)).store_i16(out);
    }
    if chunks.len() < out.len() {
        padded::<F>(rest, 0.0).mul(F::splat(inverse)).store_i16(&mut out[chunks.len()]);
    }
}

/// The scores of `Q` queries with all keys, `G` groups of these at a time. `queries` and `scores`: a row a query.
#[inline(always)]
fn score<F: Lanes, const Q: usize, const G: usize>(
    queries: &[Row],
    head: &Head<'_>,
    scale: f32,
    q_scales: &[f32],
    scores: &mut [[f32; LANES]],
) {
    let pairs = head.pairs();
    let queries: [&[i32]; Q] = from_fn(|q| &queries.as_flattened()[q * pairs..][..pairs]);
    let row = scores.len() / Q;
    for at in (0..row).step_by(G) {
        let mut keys: [&[Pairs]; G] = [&[]; G];
        let (mut ahead, mut values) = (keys, keys);
        for g in 0..G {
            keys[g] = head.keys(at + g);
            if Q == 1 {
                ahead[g] = head.keys((at + G + g).min(row - 1));
                values[g] = head.values(at + g);
            }
        }
        let mut sums = [[F::splat_pair(0); G]; Q];
        for i in 0..pairs {
            let mut key = sums[0];
            for g in 0..G {
                if Q == 1 {
                    F::touch(&ahead[g][i]);
                    F::touch(&values[g][i]);
                }
                key[g] = F::load_pairs(&keys[g][i]);
            }
            for q in 0..Q {
                let query = F::splat_pair(queries[q][i]);
                for g in 0..G {
                    sums[q][g] = F::add_products(sums[q][g], key[g], query);
                }
            }
        }
        for g in 0..G {
            let scales = F::load(&head.scales(at + g)[0]).mul(F::splat(scale));
            for q in 0..Q {
                let score = F::from_sums(sums[q][g]).mul(scales.mul(F::splat(q_scales[q])));
                score.store(&mut scores[q * row + at + g]);
            }
        }
    }
}

/// The weighted sums of `16 * C` elements of the values from column `at` on, for `Q` queries. `weights`: a row a query.
#[inline(always)]
fn add_values<F: Lanes, const Q: usize, const C: usize>(
    weights: &[Row],
    head: &Head<'_>,
    at: usize,
    factors: &[[f32; TOGETHER]],
    inverses: &[f32; TOGETHER],
    first: usize,
    outs: &mut [&mut [f32]],
) {
    let (columns, row) = (head.columns(), weights.len() / Q);
    let mut all = [[F::splat(0.0); C]; Q];
    for (chunk, factors) in factors.iter().enumerate() {
        let mut sums = [[F::splat_pair(0); C]; Q];
        for group in (chunk * (CHUNK / LANES)..row).take(CHUNK / LANES) {
            let mut own = [&weights[0]; Q];
            for q in 0..Q {
                own[q] = &weights[q * row + group];
            }
            // A loop of a length that compilers do not know: in straight-line code LLVM makes two instructions of a product.
            for (i, values) in head.values(group).chunks_exact(columns).enumerate() {
                let mut value = sums[0];
                for c in 0..C {
                    value[c] = F::load_pairs(&values[at + c]);
                }
                for q in 0..Q {
                    let weight = F::splat_pair(own[q][i % own[q].len()]);
                    for c in 0..C {
                        sums[q][c] = F::add_products(sums[q][c], value[c], weight);
                    }
                }
            }
        }
        for q in 0..Q {
            for c in 0..C {
                all[q][c] = all[q][c].add(F::from_sums(sums[q][c]).mul(F::splat(factors[first + q])));
            }
        }
    }
    for (q, out) in outs.iter_mut().enumerate() {
        for (c, sum) in all[q].into_iter().enumerate() {
            let first_element = (at + c) * LANES;
            let end = out.len().min(first_element + LANES);
            store_part(sum.mul(F::splat(inverses[first + q])), &mut out[first_element..end]);
        }
    }
}

/// [`add_values`] of all columns, `C` at a time.
#[inline(always)]
fn add_all_values<F: Lanes, const Q: usize, const C: usize>(
    weights: &[Row],
    head: &Head<'_>,
    factors: &[[f32; TOGETHER]],
    inverses: &[f32; TOGETHER],
    first: usize,
    outs: &mut [&mut [f32]],
) {
    let (columns, mut at) = (head.columns(), 0);
    while columns - at >= C {
        add_values::<F, Q, C>(weights, head, at, factors, inverses, first, outs);
        at += C;
    }
    if C > 1 {
        for at in at..columns {
            add_values::<F, Q, 1>(weights, head, at, factors, inverses, first, outs);
        }
    }
}

/// The weights of `Q` queries, times the scales of the values, become integers, a chunk of positions at a time. `weights`: a row
/// a query, as long as those of `out` or longer; `factors`: what to multiply the sums of integer products with.
#[inline(always)]
fn store_weights<F: Lanes, const Q: usize>(
    weights: &mut [[f32; LANES]],
    head: &Head<'_>,
    seen: &[usize; TOGETHER],
    factors: &mut [[f32; TOGETHER]],
    out: &mut [Row],
) {
    let (row, used) = (weights.len() / Q, out.len() / Q);
    for (chunk, factors) in factors.iter_mut().enumerate() {
        let groups = chunk * (CHUNK / LANES)..used.min((chunk + 1) * (CHUNK / LANES));
        let mut sums = [F::splat(0.0); TOGETHER];
        for group in groups.clone() {
            let scales = F::load(&head.scales(group)[1]);
            for q in 0..Q {
                let weights = &mut weights[q * row + group];
                F::load(weights).mul(scales).store(weights);
                // A position that the query does not see may be of any numbers.
                if seen[q] < (group + 1) * LANES {
                    weights[seen[q].saturating_sub(group * LANES)..].fill(0.0);
                }
                sums[q] = sums[q].add(F::load(weights));
            }
        }
        let sums = if Q == 1 { [sums[0].fold(), 0.0, 0.0, 0.0] } else { F::fold4(sums) };
        for q in 0..Q {
            let inverse;
            (factors[q], inverse) = integers(sums[q].to_bits(), WEIGHT);
            for group in groups.clone() {
                F::load(&weights[q * row + group])
                    .mul(F::splat(inverse))
                    .store_i16(&mut out[q * used + group]);
            }
        }
    }
}

#[inline(always)]
pub(crate) fn attend_i16<F: Lanes>(
    qs: &[&[f32]],
    head: &Head<'_>,
    scale: f32,
    seen: &[usize],
    work: &mut Work,
    outs: &mut [&mut [f32]],
) {
    if qs.len() == 1 {
        attend_together::<F, 1>(qs, head, scale, seen, work, outs);
    } else if F::REGISTERS >= 8 {
        attend_together::<F, TOGETHER>(qs, head, scale, seen, work, outs);
    } else {
        for ((qs, seen), outs) in qs.chunks(2).zip(seen.chunks(2)).zip(outs.chunks_mut(2)) {
            attend_together::<F, 2>(qs, head, scale, seen, work, outs);
        }
    }
}

/// Attention of `Q` queries, or fewer.
#[inline(always)]
fn attend_together<F: Lanes, const Q: usize>(
    qs: &[&[f32]],
    head: &Head<'_>,
    scale: f32,
    seen: &[usize],
    work: &mut Work,
    outs: &mut [&mut [f32]],
) {
    let (columns, positions) = (head.columns(), seen[seen.len() - 1]);
    let (groups, used) = (groups(positions), positions.div_ceil(LANES));
    let Parts { scores, queries, weights, factors } = work.parts(Q, groups, columns);
    let (mut q_scales, mut inverses) = ([0.0; TOGETHER], [0.0; TOGETHER]);
    for (i, queries) in queries.chunks_exact_mut(columns).enumerate() {
        // Where there are fewer queries, the others are of zeros.
        let Some(q) = qs.get(i) else {
            queries.fill([0; LANES / 2]);
            continue;
        };
        let inverse;
        (q_scales[i], inverse) = integers(magnitude::<F>(q), head.limit);
        store_rows::<F>(q, inverse, queries);
    }
    if Q == 1 || F::REGISTERS >= 16 {
        score::<F, Q, 2>(queries, head, scale, &q_scales, scores);
    } else {
        score::<F, Q, 1>(queries, head, scale, &q_scales, scores);
    }

    // Queries that are none see what the last one does.
    let seen: [usize; TOGETHER] = from_fn(|q| seen.get(q).copied().unwrap_or(positions));
    for (scores, seen) in scores.chunks_exact_mut(groups).zip(seen) {
        scores[..used].as_flattened_mut()[seen..].fill(f32::NEG_INFINITY);
    }
    if Q < TOGETHER {
        for (inverse, scores) in inverses.iter_mut().zip(scores.chunks_exact_mut(groups)) {
            *inverse = 1.0 / exp_minus_max::<F>(scores[..used].as_flattened_mut());
        }
    } else {
        let mut rest = &mut *scores;
        let rows: [&mut [[f32; LANES]]; TOGETHER] = from_fn(|_| {
            let (row, others) = std::mem::take(&mut rest).split_at_mut(groups);
            rest = others;
            &mut row[..used]
        });
        for (inverse, sum) in inverses.iter_mut().zip(exp_minus_max_of_four::<F>(rows)) {
            *inverse = 1.0 / sum;
        }
    }
    let weights = &mut weights[..Q * used];
    store_weights::<F, Q>(scores, head, &seen, factors, weights);

    if F::REGISTERS >= 16 || F::REGISTERS >= 8 && Q == 1 {
        add_all_values::<F, Q, 4>(weights, head, factors, &inverses, 0, outs);
    } else if F::REGISTERS >= 8 {
        for (half, outs) in outs.chunks_mut(2).enumerate() {
            let weights = &weights[2 * half * used..][..2 * used];
            add_all_values::<F, 2, 2>(weights, head, factors, &inverses, 2 * half, outs);
        }
    } else {
        add_all_values::<F, Q, 1>(weights, head, factors, &inverses, 0, outs);
    }
}
