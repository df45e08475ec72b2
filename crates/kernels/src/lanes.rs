//! The fast forms of everything that is no matrix product, written once over 16 lanes of f32.
//!
//! The plain algorithms are in [`scalar`](super::scalar). What differs:
//!
//! 1. The 16 virtual lanes of a sum become registers: one of AVX-512, two of AVX2, four of NEON and WebAssembly. Each
//!    instruction set brings a type with the few operations of [`Lanes`]; its module instantiates the functions here
//!    inside functions that enable its features, into which everything is inlined.
//! 2. A row's rest, which does not fill 16 lanes, goes through a padded copy. The padding is neutral: +0 in a sum, whose
//!    lanes start at +0 and so never hold a -0, minus infinity in a maximum.
//! 3. Attention folds the dot products of four positions together, since folding one takes as long as multiplying it.
//! 4. Four queries of a prompt share each key and each value that is loaded. The rows of one head lie so far apart that they
//!    fall into a quarter of the nearest cache's sets, so they come from the next one every time; and four sums that
//!    do not wait for each other hide how long an addition takes.
//! 5. Many queries share copies of the keys and values, 64 positions at a time, which stay in the nearest cache, whatever
//!    the distance of the rows. The keys lie there transposed, 16 positions side by side: a register holds the sums of
//!    one virtual lane for 16 keys, so that folding is 15 additions for 16 scores, without a shuffle. The scores come as
//!    they are stored, and four rows of them take turns in the softmax, whose operations wait for each other. On an
//!    Emerald Rapids server BERT's attention of 128 queries takes 25 % less time with AVX-512 and 30 % less with AVX2,
//!    that of 64 queries after 960 positions 40 % less. Blocks of 32 or 128 positions made no difference; with AVX2's
//!    16 registers two queries at a time are faster than one or four.

use super::math::{self, ERF_HIGH, ERF_P, ERF_Q, EXP, EXP_HIGH, EXP_LOW, LN2_HIGH, LN2_LOW, ROUND};
use super::math::{GELU_CUBIC, GELU_SCALE, TANH_HIGH, TANH_P, TANH_Q};
use super::scalar::{self, LANES, NEGLIGIBLE};
use super::{Activation, Around, AttentionShape, COPIED, GROUPED, MANY, TOGETHER, share_copies};
use std::array::from_fn;

/// 16 lanes of f32. Every operation is IEEE's, one rounding each.
///
/// `min` and `max` are x86's: the second operand comes out if the comparison is false.
pub(crate) trait Lanes: Copy {
    /// 16 lanes of f64.
    type Wide: Copy;

    fn wide_zero() -> Self::Wide;
    /// `sums + self`.
    fn add_to(self, sums: Self::Wide) -> Self::Wide;
    fn wide_store(sums: Self::Wide) -> [f64; LANES];

    /// How many values of this type an inner loop keeps in registers beside its operands.
    const KEPT: usize;

    /// How many values of this type the registers hold, when operands come from memory.
    const REGISTERS: usize;

    fn splat(x: f32) -> Self;
    fn load(x: &[f32; LANES]) -> Self;
    /// Asks for the cache line at `at`, which may lie anywhere; on machines that cannot be asked, nothing.
    #[inline(always)]
    fn fetch(_at: *const f32) {}
    fn store(self, out: &mut [f32; LANES]);
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    fn min(self, other: Self) -> Self;
    fn max(self, other: Self) -> Self;

    /// `value`, but 0 in the lanes where `self < limit`.
    fn zero_below(self, limit: Self, value: Self) -> Self;

    /// For `self = n + ROUND`: `2^(n >> 1)` and `2^(n - (n >> 1))`.
    fn powers(self) -> (Self, Self);

    /// The elements `i` of 16 rows as value `i`.
    #[inline(always)]
    fn transpose(rows: [&[f32; 4]; LANES]) -> [Self; 4] {
        from_fn(|i| Self::load(&rows.map(|row| row[i])))
    }

    /// The folded sums of four values: see [`scalar::fold`].
    fn fold4(values: [Self; 4]) -> [f32; 4];

    #[inline(always)]
    fn fold(self) -> f32 {
        let mut lanes = [0.0; LANES];
        self.store(&mut lanes);
        scalar::fold(lanes)
    }
}

#[inline(always)]
fn horner<F: Lanes>(coefficients: &[f32], x: F) -> F {
    let mut sum = F::splat(coefficients[coefficients.len() - 1]);
    for c in coefficients[..coefficients.len() - 1].iter().rev() {
        sum = sum.mul(x).add(F::splat(*c));
    }
    sum
}

#[inline(always)]
fn exp<F: Lanes>(x: F) -> F {
    exp_between(F::splat(EXP_HIGH).min(F::splat(EXP_LOW).max(x)))
}

/// [`exp`] of what lies between its limits.
#[inline(always)]
fn exp_between<F: Lanes>(x: F) -> F {
    let shifted = x.mul(F::splat(std::f32::consts::LOG2_E)).add(F::splat(ROUND));
    let n = shifted.sub(F::splat(ROUND));
    let r = x.sub(n.mul(F::splat(LN2_HIGH))).sub(n.mul(F::splat(LN2_LOW)));
    let y = r.mul(r).mul(horner(&EXP, r)).add(r).add(F::splat(1.0));
    let (half, rest) = shifted.powers();
    y.mul(half).mul(rest)
}

#[inline(always)]
fn odd_quotient<F: Lanes>(x: F, high: f32, p: &[f32], q: &[f32]) -> F {
    let x = F::splat(high).min(F::splat(-high).max(x));
    let z = x.mul(x);
    let y = x.mul(horner(p, z)).div(horner(q, z));
    F::splat(1.0).min(F::splat(-1.0).max(y))
}

#[inline(always)]
fn tanh<F: Lanes>(x: F) -> F {
    odd_quotient(x, TANH_HIGH, &TANH_P, &TANH_Q)
}

/// Applies `f` to every element; `plain` is its scalar twin, for the rest.
#[inline(always)]
fn for_each<F: Lanes>(x: &mut [f32], f: impl Fn(F) -> F, plain: impl Fn(f32) -> f32) {
    let (chunks, rest) = x.as_chunks_mut::<LANES>();
    for x in chunks {
        f(F::load(x)).store(x);
    }
    for x in rest {
        *x = plain(*x);
    }
}

#[inline(always)]
fn gelu_tanh_of<F: Lanes>(x: F) -> F {
    let cubic = x.mul(x).mul(x).mul(F::splat(GELU_CUBIC));
    let tanh = tanh(x.add(cubic).mul(F::splat(GELU_SCALE)));
    F::splat(0.5).mul(x).mul(F::splat(1.0).add(tanh))
}

#[inline(always)]
fn gelu_erf_of<F: Lanes>(x: F) -> F {
    let erf = odd_quotient(x.mul(F::splat(std::f32::consts::FRAC_1_SQRT_2)), ERF_HIGH, &ERF_P, &ERF_Q);
    F::splat(0.5).mul(x).mul(F::splat(1.0).add(erf))
}

#[inline(always)]
pub(crate) fn gelu_tanh<F: Lanes>(x: &mut [f32]) {
    for_each(x, gelu_tanh_of::<F>, math::gelu_tanh);
}

#[inline(always)]
pub(crate) fn gelu_erf<F: Lanes>(x: &mut [f32]) {
    for_each(x, gelu_erf_of::<F>, math::gelu_erf);
}

#[inline(always)]
pub(crate) fn tanh_all<F: Lanes>(x: &mut [f32]) {
    for_each(x, tanh::<F>, math::tanh);
}

#[inline(always)]
pub(crate) fn finish<F: Lanes>(sums: &[f32; LANES], around: &Around<'_>, column: usize, out: &mut [f32]) {
    let n = out.len();
    let mut y = F::load(sums);
    if let Some(bias) = around.bias {
        y = y.add(padded(&bias[column..column + n], 0.0));
    }
    y = match around.activation {
        Activation::None => y,
        Activation::GeluTanh => gelu_tanh_of(y),
        Activation::GeluErf => gelu_erf_of(y),
        Activation::Relu => F::splat(0.0).max(y),
        Activation::Tanh => tanh(y),
    };
    if around.add {
        y = padded::<F>(out, 0.0).add(y);
    }
    match out.as_mut_array() {
        Some(out) => y.store(out),
        None => {
            let mut lanes = [0.0; LANES];
            y.store(&mut lanes);
            out.copy_from_slice(&lanes[..n]);
        }
    }
}

/// The 16 elements from `at` on, `rest` where there are fewer.
#[inline(always)]
fn padded<F: Lanes>(x: &[f32], rest: f32) -> F {
    if let Some(x) = x.as_array() {
        return F::load(x);
    }
    let mut lanes = [rest; LANES];
    lanes[..x.len()].copy_from_slice(x);
    F::load(&lanes)
}

/// The sum of `term` over 16 elements of `x` at a time; `term(neutral)` is +0.
#[inline(always)]
fn sum<F: Lanes>(x: &[f32], neutral: f32, term: impl Fn(F) -> F) -> f32 {
    let (chunks, rest) = x.as_chunks::<LANES>();
    let mut lanes = F::splat(0.0);
    for i in 0..=chunks.len() {
        // One place that calls `term`: called from two, it might be compiled apart, without the features enabled here.
        lanes = lanes.add(term(if i < chunks.len() { F::load(&chunks[i]) } else { padded(rest, neutral) }));
    }
    lanes.fold()
}

#[inline(always)]
pub(crate) fn layer_norm<F: Lanes>(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    let n = x.len() as f32;
    let mean = sum(x, 0.0, |x: F| x) / n;
    let variance = sum(x, mean, |x: F| x.sub(F::splat(mean)).mul(x.sub(F::splat(mean)))) / n;
    let inverse = 1.0 / (variance + eps).sqrt();
    let (xs, x_rest) = x.as_chunks::<LANES>();
    let (weights, weight_rest) = weight.as_chunks::<LANES>();
    let (biases, bias_rest) = bias.as_chunks::<LANES>();
    let (outs, out_rest) = out.as_chunks_mut::<LANES>();
    for (((x, weight), bias), out) in xs.iter().zip(weights).zip(biases).zip(outs) {
        let x = F::load(x).sub(F::splat(mean)).mul(F::splat(inverse));
        x.mul(F::load(weight)).add(F::load(bias)).store(out);
    }
    for (((x, weight), bias), out) in x_rest.iter().zip(weight_rest).zip(bias_rest).zip(out_rest) {
        *out = ((x - mean) * inverse) * weight + bias;
    }
}

/// `exp(x - highest)`, 0 where it is negligible. It is not computed there, since a result below f32's normal numbers stops
/// the processor: padding in the scores of 16 queries made their attention with AVX2 40 % slower.
#[inline(always)]
fn weight<F: Lanes>(x: F, highest: f32) -> F {
    let (x, limit) = (x.sub(F::splat(highest)), F::splat(NEGLIGIBLE));
    x.zero_below(limit, exp_between(limit.max(x)))
}

#[inline(always)]
pub(crate) fn highest<F: Lanes>(x: &[f32]) -> f32 {
    let (chunks, rest) = x.as_chunks::<LANES>();
    let mut highest = F::splat(f32::NEG_INFINITY);
    for x in chunks {
        highest = highest.max(F::load(x));
    }
    let mut lanes = [0.0; LANES];
    highest.max(padded(rest, f32::NEG_INFINITY)).store(&mut lanes);
    lanes.into_iter().fold(f32::NEG_INFINITY, math::max)
}

#[inline(always)]
pub(crate) fn maxima<F: Lanes>(x: &[f32], out: &mut [f32]) {
    for (x, out) in x.chunks(GROUPED).zip(out.as_chunks_mut().0) {
        let (chunks, rest) = x.as_chunks();
        let mut highest = F::splat(f32::NEG_INFINITY);
        for x in chunks {
            highest = highest.max(F::load(x));
        }
        highest.max(padded(rest, f32::NEG_INFINITY)).store(out);
    }
}

#[inline(always)]
pub(crate) fn sum_exp<F: Lanes>(x: &[f32], highest: f32) -> f64 {
    let (chunks, rest) = x.as_chunks::<LANES>();
    let mut sums = F::wide_zero();
    for x in chunks {
        sums = exp(F::load(x).sub(F::splat(highest))).add_to(sums);
    }
    let mut lanes = F::wide_store(sums);
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane += f64::from(math::exp(x - highest));
    }
    lanes.into_iter().sum()
}

#[inline(always)]
pub(crate) fn weigh<F: Lanes>(x: &[f32], highest: f32, temperature: f32, out: &mut [f32]) {
    let (chunks, rest) = x.as_chunks::<LANES>();
    let (outs, rest_out) = out.as_chunks_mut::<LANES>();
    for (x, out) in chunks.iter().zip(outs) {
        exp(F::load(x).sub(F::splat(highest)).div(F::splat(temperature))).store(out);
    }
    for (x, out) in rest.iter().zip(rest_out) {
        *out = math::exp((x - highest) / temperature);
    }
}

#[inline(always)]
pub(crate) fn exp_minus_max<F: Lanes>(x: &mut [f32]) -> f32 {
    let highest = highest::<F>(x);

    let (chunks, rest) = x.as_chunks_mut::<LANES>();
    let mut sum = F::splat(0.0);
    for x in chunks {
        let y = weight(F::load(x), highest);
        y.store(x);
        sum = sum.add(y);
    }
    let mut lanes = [0.0; LANES];
    weight(padded::<F>(rest, 0.0), highest).store(&mut lanes);
    rest.copy_from_slice(&lanes[..rest.len()]);
    lanes[rest.len()..].fill(0.0);
    sum.add(F::load(&lanes)).fold()
}

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

/// [`weigh_values`] for `Q` queries: over the positions that all of them see, then what each sees by itself.
#[inline(always)]
fn weigh_values_together<F: Lanes, const Q: usize, const N: usize>(
    scores: &[&mut [f32]],
    values: &[f32],
    stride: usize,
    inverses: &[f32],
    at: usize,
    outs: &mut [&mut [f32]],
) {
    let seen = scores[0].len();
    let mut sums = [[F::splat(0.0); N]; Q];
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
            sum.mul(F::splat(inverses[q])).store(out);
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
    if F::REGISTERS >= 16 {
        weigh_values_together::<F, TOGETHER, N>(scores, values, stride, &inverses, 0, outs);
    } else {
        // Half the queries and 16 columns at a time fit the registers.
        for (at, half) in (0..N).flat_map(|i| [(i, 0), (i, 2)]) {
            let (scores, inverses) = (&scores[half..half + 2], &inverses[half..half + 2]);
            let outs = &mut outs[half..half + 2];
            weigh_values_together::<F, 2, 1>(scores, values, stride, inverses, at * LANES, outs);
        }
    }
}

/// Adds `score * value` to `outs` for `Q` queries, the positions of which the first has scores, and `16 * N` columns.
#[inline(always)]
fn add_values<F: Lanes, const Q: usize, const N: usize>(
    scores: [&[f32]; Q],
    values: &[f32],
    stride: usize,
    outs: [&mut [f32]; Q],
) {
    let seen = scores[0].len();
    let scores = scores.map(|scores| &scores[..seen]);
    let mut sums = [[F::splat(0.0); N]; Q];
    for q in 0..Q {
        sums[q] = registers(outs[q]);
    }
    for position in 0..seen {
        let (values, _) = values[position * stride..][..N * LANES].as_chunks::<LANES>();
        for i in 0..N {
            let value = F::load(&values[i]);
            for q in 0..Q {
                sums[q][i] = sums[q][i].add(F::splat(scores[q][position]).mul(value));
            }
        }
    }
    for (sums, out) in sums.into_iter().zip(outs) {
        for (sum, out) in sums.into_iter().zip(out.as_chunks_mut().0) {
            sum.store(out);
        }
    }
}

/// [`add_values`] for four queries of a head of `16 * N`: over the positions that all of them see, then over what each
/// sees by itself.
#[inline(always)]
fn add_values_to_four<F: Lanes, const N: usize>(
    scores: [&[f32]; TOGETHER],
    values: &[f32],
    stride: usize,
    outs: &mut [&mut [f32]; TOGETHER],
) {
    let seen = scores[0].len();
    let [a, b, c, d] = outs;
    if F::REGISTERS >= 16 {
        add_values::<F, TOGETHER, N>(scores, values, stride, [a, b, c, d]);
    } else {
        // Half the queries and 16 columns at a time fit the registers.
        for at in (0..N * LANES).step_by(LANES) {
            let values = &values[at..];
            add_values::<F, 2, 1>([scores[0], scores[1]], values, stride, [&mut a[at..], &mut b[at..]]);
            add_values::<F, 2, 1>(
                [&scores[2][..seen], scores[3]],
                values,
                stride,
                [&mut c[at..], &mut d[at..]],
            );
        }
    }
    for (scores, out) in scores.into_iter().zip(outs).skip(1) {
        if scores.len() > seen {
            add_values::<F, 1, N>([&scores[seen..]], &values[seen * stride..], stride, [out]);
        }
    }
}

#[inline(always)]
fn multiply<F: Lanes>(x: &mut [f32], factor: f32) {
    for x in x.as_chunks_mut().0 {
        F::load(x).mul(F::splat(factor)).store(x);
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
fn exp_minus_max_of_four<F: Lanes>(rows: [&mut [[f32; LANES]]; TOGETHER]) -> [f32; TOGETHER] {
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
    for (((seen, scores), outs), inverses) in
        seen.iter().zip(scores.chunks_exact_mut(TOGETHER * row)).zip(outs.iter_mut()).zip(&mut inverses)
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
        outs.iter_mut().for_each(|out| out.fill(0.0));
    }
    for first in (0..positions).step_by(COPIED) {
        let copied = COPIED.min(positions - first);
        for (position, copy) in (first..first + copied).zip(copies.chunks_exact_mut(N * LANES)) {
            for (value, copy) in values[position * stride..].as_chunks().0.iter().zip(copy.as_chunks_mut().0)
            {
                F::load(value).store(copy);
            }
        }
        for ((seen, scores), outs) in
            seen.iter().zip(scores.chunks_exact(TOGETHER * row)).zip(outs.iter_mut())
        {
            if first < seen[TOGETHER - 1] {
                let scores = from_fn(|q| {
                    let end = seen[q].min(first + copied);
                    &scores[q * row..][first.min(end)..end]
                });
                add_values_to_four::<F, N>(scores, copies, N * LANES, outs);
            }
        }
    }
    for (outs, inverses) in outs.iter_mut().zip(inverses) {
        for (out, inverse) in outs.iter_mut().zip(inverses) {
            multiply::<F>(out, inverse);
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
    if let (Some(qs), Some(outs), 32 | 64) = (qs.as_array(), outs.as_mut_array(), shape.head_dim) {
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
    match n {
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

/// Instantiates the functions of this module for one instruction set, as functions that enable its features.
macro_rules! twins {
    ($lanes:ty $(, $features:literal)?) => {
        $crate::lanes::twins! { @ $lanes, ($($features)?),
            fn gelu_tanh(x: &mut [f32]);
            fn gelu_erf(x: &mut [f32]);
            fn tanh_all(x: &mut [f32]);
            fn finish(sums: &[f32; $crate::scalar::LANES], around: &$crate::Around<'_>,
                column: usize, out: &mut [f32]);
            fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]);
            fn highest(x: &[f32]) -> f32;
            fn maxima(x: &[f32], out: &mut [f32]);
            fn sum_exp(x: &[f32], highest: f32) -> f64;
            fn weigh(x: &[f32], highest: f32, temperature: f32, out: &mut [f32]);
            fn exp_minus_max(x: &mut [f32]) -> f32;
            fn attend(qs: &[&[f32]], keys: &[f32], values: &[f32], shape: &$crate::AttentionShape,
                seen: &[usize], scratch: &mut [f32], outs: &mut [&mut [f32]]);
        }
    };
    (@ $lanes:ty, $features:tt, $(fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $out:ty)?;)*) => {
        $($crate::lanes::twins! { @@ $lanes, $features, $name, ($($arg: $type),*), ($($out)?) })*
    };
    (@@ $lanes:ty, ($($features:literal)?), $name:ident, ($($arg:ident: $type:ty),*), ($($out:ty)?)) => {
        $(#[target_feature(enable = $features)])?
        pub(crate) fn $name($($arg: $type),*) $(-> $out)? {
            $crate::lanes::$name::<$lanes>($($arg),*)
        }
    };
}
pub(crate) use twins;
