//! Scaled dot-product attention over [`Lanes`].
//!
//! What differs from [`scalar::attend`](crate::scalar::attend):
//!
//! 1. It folds the dot products of four positions together, since folding one takes as long as multiplying it.
//! 2. Four queries of a prompt share each key and each value that is loaded. The rows of one head lie so far apart that they
//!    fall into a quarter of the nearest cache's sets, so they come from the next one every time; and four sums that
//!    do not wait for each other hide how long an addition takes.
//! 3. Many queries share copies of the keys and values, 64 positions at a time, which stay in the nearest cache, whatever
//!    the distance of the rows. The keys lie there transposed, 16 positions side by side: a register holds the sums of
//!    one virtual lane for 16 keys, so that folding is 15 additions for 16 scores, without a shuffle. The scores come as
//!    they are stored, and four rows of them take turns in the softmax, whose operations wait for each other. On an
//!    Emerald Rapids server BERT's attention of 128 queries takes 25 % less time with AVX-512 and 30 % less with AVX2,
//!    that of 64 queries after 960 positions 40 % less. Blocks of 32 or 128 positions made no difference; with AVX2's
//!    16 registers two queries at a time are faster than one or four.

use super::{Lanes, exp_minus_max, padded, weight};
use crate::attention::{AttentionShape, COPIED, MANY, TOGETHER, share_copies};
use crate::math;
use crate::scalar::LANES;
use std::array::from_fn;

/// A query, ready to be multiplied with keys. A trait and no closure, since a closure that is called from several places
/// is compiled apart, without the features that the calling function enables.
trait Query<F> {
    /// The products with the first elements of `keys` in 16 lanes, not yet folded.
    fn dot(&self, keys: &[f32]) -> F;
    /// Elements of the query.
    fn size(&self) -> usize;
}

/// A query of any size.
impl<F: Lanes> Query<F> for [f32] {
    #[inline(always)]
    fn dot(&self, keys: &[f32]) -> F {
        let (qs, q_rest) = self.as_chunks::<LANES>();
        let (keys, key_rest) = keys[..self.len()].as_chunks::<LANES>();
        let mut lanes = F::splat(0.0);
        for (q, key) in qs.iter().zip(keys) {
            lanes = lanes.add(F::load(q).mul(F::load(key)));
        }
        if !q_rest.is_empty() {
            lanes = lanes.add(padded::<F>(q_rest, 0.0).mul(padded(key_rest, 0.0)));
        }
        lanes
    }

    #[inline(always)]
    fn size(&self) -> usize {
        self.len()
    }
}

/// A query of `16 * N` elements in registers.
///
/// The sum starts with the first product instead of adding it to 0; that changes the sign of a zero at most, which a
/// softmax does not see.
impl<F: Lanes, const N: usize> Query<F> for [F; N] {
    #[inline(always)]
    fn dot(&self, keys: &[f32]) -> F {
        let keys: &[[f32; LANES]; N] =
            keys.as_chunks().0.first_chunk().expect("a key has the size of a head");
        let mut lanes = self[0].mul(F::load(&keys[0]));
        for i in 1..N {
            lanes = lanes.add(self[i].mul(F::load(&keys[i])));
        }
        lanes
    }

    #[inline(always)]
    fn size(&self) -> usize {
        N * LANES
    }
}

/// The first `16 * N` elements in registers.
#[inline(always)]
fn registers<F: Lanes, const N: usize>(x: &[f32]) -> [F; N] {
    let mut registers = [F::splat(0.0); N];
    for (register, x) in registers.iter_mut().zip(x.as_chunks().0) {
        *register = F::load(x);
    }
    registers
}

/// How many positions ahead of their use keys and values of a single query are asked for. They come from memory, since all
/// weights were read after they were last, and a row of all heads lies between two positions, so that the processor does
/// not see what comes. On an Emerald Rapids server GPT-2 continues 5 % faster after 64 tokens and 9 % after 512; 8 and 32
/// positions were slower.
const AHEAD: usize = 16;

/// Asks for the `n` elements of `x` from `at` on, which may lie beyond its end.
#[inline(always)]
fn fetch<F: Lanes>(x: &[f32], at: usize, n: usize) {
    for i in (0..n).step_by(LANES) {
        F::fetch(x.as_ptr().wrapping_add(at + i));
    }
}

/// The scores of all positions.
#[inline(always)]
fn score<F: Lanes, Q: Query<F> + ?Sized>(q: &Q, keys: &[f32], stride: usize, scores: &mut [f32], scale: f32) {
    let (fours, rest) = scores.as_chunks_mut::<4>();
    let first = 4 * fours.len();
    for (i, scores) in fours.iter_mut().enumerate() {
        let keys = &keys[4 * i * stride..];
        for position in 0..4 {
            fetch::<F>(keys, (AHEAD + position) * stride, q.size());
        }
        let products =
            [q.dot(keys), q.dot(&keys[stride..]), q.dot(&keys[2 * stride..]), q.dot(&keys[3 * stride..])];
        for (score, sum) in scores.iter_mut().zip(F::fold4(products)) {
            *score = sum * scale;
        }
    }
    for (i, score) in rest.iter_mut().enumerate() {
        *score = q.dot(&keys[(first + i) * stride..]).fold() * scale;
    }
}

/// `out = sum over positions of score * value` for `16 * N` columns of the values, kept in registers.
#[inline(always)]
fn weigh_values<F: Lanes, const N: usize>(
    scores: &[f32],
    values: &[f32],
    stride: usize,
    inverse: f32,
    out: &mut [f32],
) {
    let mut sums = [F::splat(0.0); N];
    for (position, score) in scores.iter().enumerate() {
        fetch::<F>(values, (position + AHEAD) * stride, N * LANES);
        let (values, _) = values[position * stride..][..N * LANES].as_chunks::<LANES>();
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum = sum.add(F::splat(*score).mul(F::load(value)));
        }
    }
    let (outs, _) = out.as_chunks_mut::<LANES>();
    for (sum, out) in sums.iter().zip(outs) {
        sum.mul(F::splat(inverse)).store(out);
    }
}

/// The scores of four queries over the positions that all of them see.
#[inline(always)]
fn score_four<F: Lanes, const N: usize>(
    qs: &[&[f32]; TOGETHER],
    keys: &[f32],
    shape: &AttentionShape,
    seen: usize,
    scores: &mut [&mut [f32]; TOGETHER],
) {
    let qs: [[F; N]; TOGETHER] = [registers(qs[0]), registers(qs[1]), registers(qs[2]), registers(qs[3])];
    for position in 0..seen {
        let key = &keys[position * shape.kv_stride..][..N * LANES];
        let products = [qs[0].dot(key), qs[1].dot(key), qs[2].dot(key), qs[3].dot(key)];
        for (scores, sum) in scores.iter_mut().zip(F::fold4(products)) {
            scores[position] = sum * shape.scale;
        }
    }
}

/// Four queries of a head of `16 * N`, which share the loads of keys and values.
#[inline(always)]
fn attend_four<F: Lanes, const N: usize>(
    qs: &[&[f32]; TOGETHER],
    keys: &[f32],
    values: &[f32],
    shape: &AttentionShape,
    scores: &mut [&mut [f32]; TOGETHER],
    outs: &mut [&mut [f32]; TOGETHER],
) {
    let stride = shape.kv_stride;
    let seen = scores[0].len();
    score_four::<F, N>(qs, keys, shape, seen, scores);
    let mut inverses = [0.0; TOGETHER];
    for ((q, scores), inverse) in qs.iter().zip(scores.iter_mut()).zip(&mut inverses) {
        let rest = &mut scores[seen..];
        if !rest.is_empty() {
            score(&registers::<F, N>(q), &keys[seen * stride..], stride, rest, shape.scale);
        }
        *inverse = 1.0 / exp_minus_max::<F>(scores);
    }
    let scores = scores.each_ref().map(|scores| &**scores);
    add_values_to_four::<F, N>(scores, values, stride, true, inverses, outs);
}

/// Adds `score * value` to `16 * N` columns of `outs` from `at` on, or to 0 where they are `fresh`, and multiplies the sums
/// with `factors`, for `Q` queries: over the positions that all of them see, then over what each sees by itself.
#[inline(always)]
fn add_values<F: Lanes, const Q: usize, const N: usize>(
    scores: &[&[f32]],
    values: &[f32],
    stride: usize,
    fresh: bool,
    factors: &[f32],
    at: usize,
    outs: &mut [&mut [f32]],
) {
    let seen = scores[0].len();
    let mut sums = [[F::splat(0.0); N]; Q];
    if !fresh {
        for q in 0..Q {
            sums[q] = registers(&outs[q][at..]);
        }
    }
    for position in 0..seen {
        let (values, _) = values[position * stride + at..][..N * LANES].as_chunks::<LANES>();
        for i in 0..N {
            let value = F::load(&values[i]);
            for q in 0..Q {
                sums[q][i] = sums[q][i].add(F::splat(scores[q][position]).mul(value));
            }
        }
    }
    for q in 0..Q {
        for position in seen..scores[q].len() {
            let (values, _) = values[position * stride + at..][..N * LANES].as_chunks::<LANES>();
            for i in 0..N {
                sums[q][i] = sums[q][i].add(F::splat(scores[q][position]).mul(F::load(&values[i])));
            }
        }
        let (outs, _) = outs[q][at..].as_chunks_mut::<LANES>();
        for (sum, out) in sums[q].iter().zip(outs) {
            sum.mul(F::splat(factors[q])).store(out);
        }
    }
}

/// [`add_values`] for four queries of a head of `16 * N`.
#[inline(always)]
fn add_values_to_four<F: Lanes, const N: usize>(
    scores: [&[f32]; TOGETHER],
    values: &[f32],
    stride: usize,
    fresh: bool,
    factors: [f32; TOGETHER],
    outs: &mut [&mut [f32]; TOGETHER],
) {
    if F::REGISTERS >= 16 {
        add_values::<F, TOGETHER, N>(&scores, values, stride, fresh, &factors, 0, outs);
    } else {
        // Half the queries and 16 columns at a time fit the registers.
        for (at, half) in (0..N).flat_map(|i| [(i, 0), (i, 2)]) {
            let (scores, factors) = (&scores[half..half + 2], &factors[half..half + 2]);
            let outs = &mut outs[half..half + 2];
            add_values::<F, 2, 1>(scores, values, stride, fresh, factors, at * LANES, outs);
        }
    }
}

/// 16 keys, of which each lane holds one: a row an element.
type Keys<const N: usize> = [[[f32; LANES]; LANES]; N];

/// One virtual lane of the products of `Q` queries with 16 keys.
#[inline(always)]
fn lane_of_products<F: Lanes, const Q: usize, const N: usize>(
    qs: &[&[[f32; LANES]; N]],
    keys: &Keys<N>,
    lane: usize,
) -> [F; Q] {
    let key = F::load(&keys[0][lane]);
    let mut sums = [key; Q];
    for q in 0..Q {
        sums[q] = F::splat(qs[q][0][lane]).mul(key);
    }
    for i in 1..N {
        let key = F::load(&keys[i][lane]);
        for q in 0..Q {
            sums[q] = sums[q].add(F::splat(qs[q][i][lane]).mul(key));
        }
    }
    sums
}

#[inline(always)]
fn add_each<F: Lanes, const Q: usize>(mut x: [F; Q], y: [F; Q]) -> [F; Q] {
    for q in 0..Q {
        x[q] = x[q].add(y[q]);
    }
    x
}

/// The products of `Q` queries with 16 keys, folded as by [`scalar::fold`].
#[inline(always)]
fn products<F: Lanes, const Q: usize, const N: usize>(qs: &[&[[f32; LANES]; N]], keys: &Keys<N>) -> [F; Q] {
    let mut quarters = [[F::splat(0.0); Q]; 4];
    for (lane, quarter) in quarters.iter_mut().enumerate() {
        let a = add_each::<F, Q>(lane_of_products(qs, keys, lane), lane_of_products(qs, keys, lane + 8));
        let b = add_each(lane_of_products(qs, keys, lane + 4), lane_of_products(qs, keys, lane + 12));
        *quarter = add_each(a, b);
    }
    add_each(add_each(quarters[0], quarters[2]), add_each(quarters[1], quarters[3]))
}

/// The scores of `Q` queries with 16 keys. Those of a query begin `row` after those of the one before.
#[inline(always)]
fn score_transposed<F: Lanes, const Q: usize, const N: usize>(
    qs: &[&[[f32; LANES]; N]],
    keys: &Keys<N>,
    scale: f32,
    row: usize,
    scores: &mut [f32],
) {
    for (q, products) in products::<F, Q, N>(qs, keys).into_iter().enumerate() {
        let scores = scores[q * row..].first_chunk_mut().expect("a row is of whole blocks");
        products.mul(F::splat(scale)).store(scores);
    }
}

/// Copies the keys of at most 16 positions; where there are fewer, the last one fills the other lanes.
#[inline(always)]
fn transpose<F: Lanes, const N: usize>(keys: &[f32], stride: usize, n: usize, out: &mut Keys<N>) {
    // Loops and no closures: those of an array's `map` are not always inlined, and then lack the features.
    let mut rows: [&[[f32; 4]]; LANES] = [&[]; LANES];
    for (lane, row) in rows.iter_mut().enumerate() {
        *row = keys[lane.min(n - 1) * stride..][..N * LANES].as_chunks().0;
    }
    for (i, out) in out.as_flattened_mut().as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let mut fours = [&[0.0; 4]; LANES];
        for (four, row) in fours.iter_mut().zip(rows) {
            *four = &row[i];
        }
        for (lanes, out) in F::transpose(fours).into_iter().zip(out) {
            lanes.store(out);
        }
    }
}

/// [`exp_minus_max`] of four rows of one size, padded with minus infinity.
#[inline(always)]
pub(super) fn exp_minus_max_of_four<F: Lanes>(rows: [&mut [[f32; LANES]]; TOGETHER]) -> [f32; TOGETHER] {
    let n = rows[0].len();
    let [a, b, c, d] = rows;
    let (a, b, c, d) = (&mut a[..n], &mut b[..n], &mut c[..n], &mut d[..n]);
    let mut highest = [F::splat(f32::NEG_INFINITY); TOGETHER];
    for i in 0..n {
        for (highest, x) in highest.iter_mut().zip([&a[i], &b[i], &c[i], &d[i]]) {
            *highest = highest.max(F::load(x));
        }
    }
    let mut lanes = [[0.0; LANES]; TOGETHER];
    for (highest, lanes) in highest.into_iter().zip(&mut lanes) {
        highest.store(lanes);
    }
    let highest = lanes.map(|lanes| lanes.into_iter().fold(f32::NEG_INFINITY, math::max));
    let mut sums = [F::splat(0.0); TOGETHER];
    for i in 0..n {
        let rows = [&mut a[i], &mut b[i], &mut c[i], &mut d[i]];
        for ((x, highest), sum) in rows.into_iter().zip(highest).zip(&mut sums) {
            let y = weight(F::load(x), highest);
            y.store(x);
            *sum = sum.add(y);
        }
    }
    F::fold4(sums)
}

/// Many queries of a head of `16 * N`, which share copies of keys and values.
#[inline(always)]
fn attend_many<F: Lanes, const N: usize>(
    qs: &[[&[f32]; TOGETHER]],
    keys: &[f32],
    values: &[f32],
    shape: &AttentionShape,
    seen: &[[usize; TOGETHER]],
    scratch: &mut [f32],
    outs: &mut [[&mut [f32]; TOGETHER]],
) {
    let (stride, positions) = (shape.kv_stride, seen[seen.len() - 1][TOGETHER - 1]);
    let row = positions.next_multiple_of(LANES);
    let (scores, copies) = scratch.split_at_mut(qs.len() * TOGETHER * row);
    let blocks: &mut [Keys<N>] = copies.as_chunks_mut().0.as_chunks_mut().0.as_chunks_mut().0;
    for first in (0..positions).step_by(COPIED) {
        let copied = COPIED.min(positions - first);
        for (at, copy) in (0..copied).step_by(LANES).zip(&mut *blocks) {
            transpose::<F, N>(&keys[(first + at) * stride..], stride, copied - at, copy);
        }
        for ((qs, seen), scores) in qs.iter().zip(seen).zip(scores.chunks_exact_mut(TOGETHER * row)) {
            let qs = qs.map(|q| q.as_chunks().0.first_chunk().expect("a query has the size of a head"));
            for (at, keys) in (first..seen[TOGETHER - 1].min(first + copied)).step_by(LANES).zip(&*blocks) {
                let scores = &mut scores[at..];
                if F::REGISTERS >= 16 {
                    score_transposed::<F, TOGETHER, N>(&qs, keys, shape.scale, row, scores);
                } else {
                    score_transposed::<F, 2, N>(&qs[..2], keys, shape.scale, row, scores);
                    score_transposed::<F, 2, N>(&qs[2..], keys, shape.scale, row, &mut scores[2 * row..]);
                }
            }
        }
    }
    let mut inverses = [[0.0; TOGETHER]; MANY / TOGETHER];
    for ((seen, scores), inverses) in
        seen.iter().zip(scores.chunks_exact_mut(TOGETHER * row)).zip(&mut inverses)
    {
        let n = seen[TOGETHER - 1].next_multiple_of(LANES);
        let mut rest = scores;
        let rows: [&mut [f32]; TOGETHER] = from_fn(|q| {
            let (row, others) = std::mem::take(&mut rest).split_at_mut(row);
            rest = others;
            row[seen[q]..n].fill(f32::NEG_INFINITY);
            &mut row[..n]
        });
        let sums = exp_minus_max_of_four::<F>(rows.map(|row| row.as_chunks_mut().0));
        *inverses = sums.map(|sum| 1.0 / sum);
    }
    for first in (0..positions).step_by(COPIED) {
        let copied = COPIED.min(positions - first);
        for (position, copy) in (first..first + copied).zip(copies.chunks_exact_mut(N * LANES)) {
            for (value, copy) in values[position * stride..].as_chunks().0.iter().zip(copy.as_chunks_mut().0)
            {
                F::load(value).store(copy);
            }
        }
        let groups = seen.iter().zip(scores.chunks_exact(TOGETHER * row)).zip(&inverses).zip(outs.iter_mut());
        for (((seen, scores), inverses), outs) in groups {
            let (all, end) = (seen[TOGETHER - 1], first + copied);
            if first < all {
                let scores = from_fn(|q| {
                    let end = seen[q].min(end);
                    &scores[q * row..][first.min(end)..end]
                });
                let factors = if all <= end { *inverses } else { [1.0; TOGETHER] };
                add_values_to_four::<F, N>(scores, copies, N * LANES, first == 0, factors, outs);
            }
        }
    }
}

#[inline(always)]
pub(crate) fn attend<F: Lanes>(
    qs: &[&[f32]],
    keys: &[f32],
    values: &[f32],
    shape: &AttentionShape,
    seen: &[usize],
    scratch: &mut [f32],
    outs: &mut [&mut [f32]],
) {
    let mut done = 0;
    if share_copies(qs.len()) && matches!(shape.head_dim, 32 | 64) {
        let (fours, seen, outs) = (qs.as_chunks().0, seen.as_chunks().0, outs.as_chunks_mut().0);
        done = fours.len() * TOGETHER;
        match shape.head_dim {
            32 => attend_many::<F, 2>(fours, keys, values, shape, seen, scratch, outs),
            _ => attend_many::<F, 4>(fours, keys, values, shape, seen, scratch, outs),
        }
    }
    let (qs, outs) = (&qs[done..], &mut outs[done..]);
    let row = seen[seen.len() - 1].next_multiple_of(LANES);
    let mut rows = scratch.chunks_exact_mut(row).zip(&seen[done..]).map(|(row, seen)| &mut row[..*seen]);
    if let (Some(qs), Some(outs), 32 | 64) =
        (qs.as_array(), outs.as_mut_array(), known_size::<F>(shape.head_dim))
    {
        let scores = &mut from_fn(|_| rows.next().expect("a row a query"));
        return match shape.head_dim {
            32 => attend_four::<F, 2>(qs, keys, values, shape, scores, outs),
            _ => attend_four::<F, 4>(qs, keys, values, shape, scores, outs),
        };
    }
    for ((q, scores), out) in qs.iter().zip(rows).zip(outs) {
        attend_alone::<F>(q, keys, values, shape, scores, out);
    }
}

/// A head's size, or 0 where there is no form of its own for one. In WebAssembly, where attention in f32 is that of f32 weights
/// alone, their products take so long that no time was lost, and the page's program is 4 kB smaller.
#[inline(always)]
fn known_size<F: Lanes>(head_dim: usize) -> usize {
    if F::REGISTERS >= 8 { head_dim } else { 0 }
}

#[inline(always)]
fn attend_alone<F: Lanes>(
    q: &[f32],
    keys: &[f32],
    values: &[f32],
    shape: &AttentionShape,
    scores: &mut [f32],
    out: &mut [f32],
) {
    let (stride, n) = (shape.kv_stride, q.len());
    match known_size::<F>(n) {
        32 => score(&registers::<F, 2>(q), keys, stride, scores, shape.scale),
        64 => score(&registers::<F, 4>(q), keys, stride, scores, shape.scale),
        _ => score::<F, [f32]>(q, keys, stride, scores, shape.scale),
    }
    let inverse = 1.0 / exp_minus_max::<F>(scores);
    let mut at = 0;
    while F::KEPT >= 4 && n - at >= 4 * LANES {
        weigh_values::<F, 4>(scores, &values[at..], stride, inverse, &mut out[at..]);
        at += 4 * LANES;
    }
    while n - at >= 2 * LANES {
        weigh_values::<F, 2>(scores, &values[at..], stride, inverse, &mut out[at..]);
        at += 2 * LANES;
    }
    if n - at >= LANES {
        weigh_values::<F, 1>(scores, &values[at..], stride, inverse, &mut out[at..]);
        at += LANES;
    }
    for i in at..n {
        let sum = scores
            .iter()
            .enumerate()
            .fold(0.0, |sum, (position, score)| sum + score * values[position * stride + i]);
        out[i] = sum * inverse;
    }
}
