//! `exp`, `tanh` and `erf` of our own: the same bits on every target, which no platform's libm promises.
//!
//! Each is a polynomial or a quotient of two, evaluated by Horner's rule with a separate multiply and add: a fused one
//! rounds once instead of twice, and WebAssembly has none for sure. Coefficients are least-squares fits in 50 digits,
//! reweighted until the largest relative error no longer falls. The vector twins in [`super::lanes`] do the same
//! operations in the same order; so `min` and `max` here are x86's, where the second operand wins against a NaN.

/// `if a < b { a } else { b }`: x86's `minps`; a NaN in `b` stays.
pub(crate) fn min(a: f32, b: f32) -> f32 {
    if opaque(a < b) { a } else { b }
}

/// `if a > b { a } else { b }`: x86's `maxps`; a NaN in `b` stays.
pub(crate) fn max(a: f32, b: f32) -> f32 {
    if opaque(a > b) { a } else { b }
}

/// The same, and compilers do not see through it where they might make a loop of minima relaxed ones, which lose a NaN.
fn opaque(condition: bool) -> bool {
    if cfg!(target_feature = "relaxed-simd") { std::hint::black_box(condition) } else { condition }
}

/// Adding and taking away 1.5 * 2^23 rounds to the nearest integer, ties to even, on every target.
pub(crate) const ROUND: f32 = 12_582_912.0;
pub(crate) const EXP_LOW: f32 = -104.0;
pub(crate) const EXP_HIGH: f32 = 89.0;
/// ln 2 in two parts, the first of so few bits that its product with an exponent is exact.
pub(crate) const LN2_HIGH: f32 = 0.693_145_75;
pub(crate) const LN2_LOW: f32 = 1.428_606_8e-6;
/// `exp(r) = 1 + r + r^2 * sum(EXP[i] * r^i)` for `|r| <= ln(2) / 2`, relative error 8.4e-9.
pub(crate) const EXP: [f32; 5] = [0.5, 0.166_665_73, 0.041_666_55, 0.008_363_774, 0.001_392_692_7];

/// `e^x`, at most 1 unit in the last place off; 0 below -104, infinite above 89.
#[must_use]
pub fn exp(x: f32) -> f32 {
    let x = min(EXP_HIGH, max(EXP_LOW, x));
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let p = horner(&EXP, r);
    let y = ((r * r) * p + r) + 1.0;
    // 2^n in two factors, so that a result that is subnormal or infinite comes out rounded once.
    let n = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let half = n >> 1;
    (y * exponent(half)) * exponent(n - half)
}

/// `2^n` for `-126 <= n <= 127`; other numbers come here from a NaN only.
fn exponent(n: i32) -> f32 {
    f32::from_bits(((n.wrapping_add(127)) << 23) as u32)
}

/// `tanh` is 1 in f32 from here on.
pub(crate) const TANH_HIGH: f32 = 9.045;
/// `tanh(x) = x * TANH_P(x^2) / TANH_Q(x^2)` for `|x| <= 9.02` (and 1 once rounded a little further), relative error 2.1e-8.
pub(crate) const TANH_P: [f32; 5] =
    [0.999_999_979, 0.133_797_35, 3.494_053_8e-3, 2.058_377_5e-5, 1.331_943_7e-8];
pub(crate) const TANH_Q: [f32; 5] = [1.0, 0.467_130_5, 0.025_871_148, 3.283_123_4e-4, 7.762_177_5e-7];

/// Hyperbolic tangent, at most 5.5 units in the last place off, never beyond -1 or 1.
#[must_use]
pub fn tanh(x: f32) -> f32 {
    odd_quotient(x, TANH_HIGH, &TANH_P, &TANH_Q)
}

/// `erf` is 1 in f32 from here on.
pub(crate) const ERF_HIGH: f32 = 3.949;
/// `erf(x) = x * ERF_P(x^2) / ERF_Q(x^2)` for `|x| <= 3.93`, relative error 1.9e-8.
pub(crate) const ERF_P: [f32; 6] = [
    std::f32::consts::FRAC_2_SQRT_PI,
    0.190_780_5,
    0.052_789_84,
    3.779_463_7e-3,
    2.848_048_5e-4,
    2.041_991e-6,
];
pub(crate) const ERF_Q: [f32; 6] =
    [1.0, 0.502_407_55, 0.114_256_14, 0.014_997_149, 1.165_176_4e-3, 3.800_408_5e-5];

/// Error function, at most 6.5 units in the last place off, never beyond -1 or 1.
#[must_use]
pub fn erf(x: f32) -> f32 {
    odd_quotient(x, ERF_HIGH, &ERF_P, &ERF_Q)
}

fn odd_quotient(x: f32, high: f32, p: &[f32], q: &[f32]) -> f32 {
    let x = min(high, max(-high, x));
    let z = x * x;
    let y = (x * horner(p, z)) / horner(q, z);
    min(1.0, max(-1.0, y))
}

fn horner(coefficients: &[f32], x: f32) -> f32 {
    let (last, rest) = coefficients.split_last().expect("a polynomial has a coefficient");
    rest.iter().rev().fold(*last, |sum, c| sum * x + c)
}

pub(crate) const GELU_CUBIC: f32 = 0.044_715;
/// `sqrt(2 / pi)`.
pub(crate) const GELU_SCALE: f32 = 0.797_884_6;

/// `0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`: GPT-2's `gelu_new`.
pub(crate) fn gelu_tanh(x: f32) -> f32 {
    let cubic = ((x * x) * x) * GELU_CUBIC;
    (0.5 * x) * (1.0 + tanh((x + cubic) * GELU_SCALE))
}

/// `0.5 x (1 + erf(x / sqrt(2)))`: BERT's `gelu`.
pub(crate) fn gelu_erf(x: f32) -> f32 {
    (0.5 * x) * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}
