//! The fast forms of everything that is no matrix product, written once over 16 lanes of f32.
//!
//! The plain algorithms are in [`scalar`](super::scalar). What differs:
//!
//! 1. The 16 virtual lanes of a sum become registers: one of AVX-512, two of AVX2, four of NEON and WebAssembly. Each
//!    instruction set brings a type with the few operations of [`Lanes`]; its module instantiates the functions here
//!    inside functions that enable its features, into which everything is inlined.
//! 2. A row's rest, which does not fill 16 lanes, goes through a padded copy. The padding is neutral: +0 in a sum, whose
//!    lanes start at +0 and so never hold a -0, minus infinity in a maximum.

mod attention;
mod attention_i16;

pub(crate) use attention::attend;
pub(crate) use attention_i16::{attend_i16, pack_i16};

use super::attention_i16::{Pairs, Row};
use super::math::{self, ERF_HIGH, ERF_P, ERF_Q, EXP, EXP_HIGH, EXP_LOW, LN2_HIGH, LN2_LOW, ROUND};
use super::math::{GELU_CUBIC, GELU_SCALE, TANH_HIGH, TANH_P, TANH_Q};
use super::scalar::{self, LANES, NEGLIGIBLE, ROTATED, ROTATION};
use super::{Activation, Around, GROUPED};
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
    /// [`fetch`](Self::fetch) of what will be read soon; WebAssembly, which cannot ask, reads it.
    #[inline(always)]
    fn touch(x: &Pairs) {
        Self::fetch((&raw const *x).cast());
    }
    fn store(self, out: &mut [f32; LANES]);
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    fn min(self, other: Self) -> Self;
    fn max(self, other: Self) -> Self;

    /// Itself or what is nearest between two limits, neither 0; a NaN stays.
    #[inline(always)]
    fn clamp(self, low: f32, high: f32) -> Self {
        Self::splat(high).min(Self::splat(low).max(self))
    }

    /// `value`, but 0 in the lanes where `self < limit`.
    fn zero_below(self, limit: Self, value: Self) -> Self;

    /// For `self = n + ROUND`: `2^(n >> 1)` and `2^(n - (n >> 1))`.
    fn powers(self) -> (Self, Self);

    /// 16 lanes of i32, or of [`Pairs`].
    type Integers: Copy;

    fn load_pairs(x: &Pairs) -> Self::Integers;
    /// The pair in each lane, its first number the lower half.
    fn splat_pair(pair: i32) -> Self::Integers;
    /// `sums + x[0] * y[0] + x[1] * y[1]` in each lane, exactly; no number is -32768.
    fn add_products(sums: Self::Integers, x: Self::Integers, y: Self::Integers) -> Self::Integers;
    /// The nearest f32 of each sum.
    fn from_sums(sums: Self::Integers) -> Self;
    /// Rounds both to the nearest integers, ties to even, of magnitudes below 32768, and stores them side by side.
    fn store_pairs(first: Self, second: Self, out: &mut Pairs);
    /// Rounds likewise, and stores the integers one after the other.
    fn store_i16(self, out: &mut Row);
    /// The magnitude with the larger bits: a NaN is above infinity. `self` is a magnitude.
    fn max_magnitude(self, other: Self) -> Self;
    /// In place of each two lanes at a distance of 4 their sum and their difference, then of each two at a distance of 8.
    fn butterflies(self) -> Self;

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
    exp_between(x.clamp(EXP_LOW, EXP_HIGH))
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
    let x = x.clamp(-high, high);
    let z = x.mul(x);
    x.mul(horner(p, z)).div(horner(q, z)).clamp(-1.0, 1.0)
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

/// Sum and difference.
#[inline(always)]
fn butterfly<F: Lanes>(a: F, b: F) -> (F, F) {
    (a.add(b), a.sub(b))
}

#[inline(always)]
pub(crate) fn rotate<F: Lanes>(x: &[f32], out: &mut [f32]) {
    for (x, out) in x.as_chunks::<ROTATED>().0.iter().zip(out.as_chunks_mut::<ROTATED>().0) {
        let ((x, _), (out, _)) = (x.as_chunks::<LANES>(), out.as_chunks_mut::<LANES>());
        let mut y = [F::splat(0.0); ROTATED / LANES];
        for (y, x) in y.iter_mut().zip(x) {
            *y = F::load(x).mul(F::splat(ROTATION)).butterflies();
        }
        let [a, b, c, d, e, f, g, h] = y;
        let ((a, b), (c, d), (e, f), (g, h)) =
            (butterfly(a, b), butterfly(c, d), butterfly(e, f), butterfly(g, h));
        let ((a, c), (b, d), (e, g), (f, h)) =
            (butterfly(a, c), butterfly(b, d), butterfly(e, g), butterfly(f, h));
        let ((a, e), (b, f), (c, g), (d, h)) =
            (butterfly(a, e), butterfly(b, f), butterfly(c, g), butterfly(d, h));
        let y = [a, b, c, d, e, f, g, h];
        for (y, out) in y.into_iter().zip(out) {
            y.store(out);
        }
    }
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
    store_part(y, out);
}

/// Stores the first lanes, as many as there is room for: 16 at most.
#[inline(always)]
fn store_part<F: Lanes>(x: F, out: &mut [f32]) {
    if let Some(out) = out.as_mut_array() {
        return x.store(out);
    }
    let mut lanes = [0.0; LANES];
    x.store(&mut lanes);
    out.copy_from_slice(&lanes[..out.len()]);
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

// In WebAssembly every function has the features, and one copy makes the page smaller.
#[cfg_attr(not(target_arch = "wasm32"), inline(always))]
#[cfg_attr(target_arch = "wasm32", inline(never))]
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

/// Instantiates the functions of this module for one instruction set, as functions that enable its features.
macro_rules! twins {
    ($lanes:ty $(, $features:literal)?) => {
        $crate::lanes::twins! { @ $lanes, ($($features)?),
            fn gelu_tanh(x: &mut [f32]);
            fn gelu_erf(x: &mut [f32]);
            fn tanh_all(x: &mut [f32]);
            fn rotate(x: &[f32], out: &mut [f32]);
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
            fn pack_i16(keys: &[f32], values: &[f32], stride: usize, new: std::ops::Range<usize>,
                head: &mut $crate::attention_i16::Head<'_>);
            fn attend_i16(qs: &[&[f32]], head: &$crate::attention_i16::Head<'_>, scale: f32, seen: &[usize],
                work: &mut $crate::attention_i16::Work, outs: &mut [&mut [f32]]);
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
