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

use super::math::{self, ERF_HIGH, ERF_P, ERF_Q, EXP, EXP_HIGH, EXP_LOW, LN2_HIGH, LN2_LOW, ROUND};
use super::math::{GELU_CUBIC, GELU_SCALE, TANH_HIGH, TANH_P, TANH_Q};
use super::scalar::{self, LANES, NEGLIGIBLE};
use super::{Activation, Around, AttentionShape, GROUPED, TOGETHER};

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
    let x = F::splat(EXP_HIGH).min(F::splat(EXP_LOW).max(x));
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

/// `exp(x - highest)`, 0 where it is negligible.
#[inline(always)]
fn weight<F: Lanes>(x: F, highest: f32) -> F {
    let x = x.sub(F::splat(highest));
    x.zero_below(F::splat(NEGLIGIBLE), exp(x))
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

#[inline(always)]
pub(crate) fn attend<F: Lanes>(
    qs: &[&[f32]],
    keys: &[f32],
    values: &[f32],
    shape: &AttentionShape,
    scores: &mut [&mut [f32]],
    outs: &mut [&mut [f32]],
) {
    if let (Some(qs), Some(scores), Some(outs)) =
        (qs.as_array::<TOGETHER>(), scores.as_mut_array(), outs.as_mut_array())
    {
        match shape.head_dim {
            32 => return attend_four::<F, 2>(qs, keys, values, shape, scores, outs),
            64 => return attend_four::<F, 4>(qs, keys, values, shape, scores, outs),
            _ => {}
        }
    }
    for ((q, scores), out) in qs.iter().zip(scores).zip(outs) {
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
                scores: &mut [&mut [f32]], outs: &mut [&mut [f32]]);
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
