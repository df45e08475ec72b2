//! The arithmetic that takes the time: products with 8-bit and 4-bit matrices, attention, LayerNorm, softmax, activations.
//!
//! [`scalar`] defines every result, to the last bit. The twins of each instruction set compute the same numbers in the
//! same order and are chosen at run time ([`Isa`]). Nothing here allocates per call, but for scratch that a thread keeps.
//!
//! A crate of its own, so that a build for the page can optimise it for speed and everything else for size.

#![expect(unsafe_code, reason = "the only home of unsafe: SIMD and disjoint parts of outputs for threads")]

mod allocator;
#[cfg(target_arch = "x86_64")]
mod amx;
mod attention;
mod attention_i16;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub mod bytes;
mod f16;
mod fingerprint;
mod isa;
#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    all(target_arch = "wasm32", target_feature = "simd128")
))]
mod lanes;
mod math;
mod matrix;
#[cfg(target_arch = "aarch64")]
mod neon;
mod pack;
mod pool;
mod quantised;
#[cfg_attr(
    not(any(not(target_feature = "simd128"), feature = "scalar", test)),
    expect(dead_code, reason = "of kernels that are not built, only what others share is used")
)]
mod scalar;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod simd128;
mod storage;
#[cfg(not(target_arch = "wasm32"))]
mod team;

pub use allocator::{give_back, keep_activations};
pub use attention::{AttentionShape, Mask, attention};
pub use attention_i16::{IntegerCache, attention_i16, cached_attention_i16};
pub use f16::{bf16_to_f32, f16_to_f32};
pub use fingerprint::{FINGERPRINT, FINGERPRINTS, fingerprint, fingerprint_of};
pub use isa::Isa;
pub use math::{erf, exp, tanh};
pub use matrix::{NotFinite, PackedMatrix, PackedMatrixBuilder, Packing};
use matrix::{PANEL, Tile, TileQ4};
use pool::Shared;
pub use pool::{Pool, SingleThread};
use quantised::{Block, Quantised};
use scalar::LANES;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub use simd128::streams::lend_clock;
use std::ops::Range;
#[cfg(not(target_arch = "wasm32"))]
pub use team::Team;

/// Calls a kernel's twin for an instruction set.
macro_rules! dispatch {
    ($isa:expr, $name:ident($($arg:expr),*)) => {
        dispatch!($isa, $name / $name($($arg),*))
    };
    ($isa:expr, $name:ident / $dot:ident($($arg:expr),*)) => {
        match $isa {
            #[cfg(any(not(target_feature = "simd128"), feature = "scalar", test))]
            $crate::Isa::Scalar => $crate::scalar::$name($($arg),*),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Isa` is only used where it is available: `Isa::active` and `Isa::available` see to it.
            $crate::Isa::Avx2 => unsafe { $crate::avx2::$name($($arg),*) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            $crate::Isa::AvxVnni => unsafe { $crate::avx2::$dot($($arg),*) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            $crate::Isa::Avx512Vnni => unsafe { $crate::avx512::$name($($arg),*) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            $crate::Isa::AmxInt8 => unsafe { $crate::amx::$name($($arg),*) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            $crate::Isa::Neon => unsafe { $crate::neon::$name($($arg),*) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            $crate::Isa::NeonDot => unsafe { $crate::neon::$dot($($arg),*) },
            #[cfg(all(
                target_arch = "wasm32",
                target_feature = "simd128",
                any(not(target_feature = "relaxed-simd"), feature = "scalar", test)
            ))]
            $crate::Isa::Simd128 => $crate::simd128::plain::$name($($arg),*),
            #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
            $crate::Isa::RelaxedSimd => $crate::simd128::signed7::$name($($arg),*),
            #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
            $crate::Isa::RelaxedSimdUnsigned => $crate::simd128::unsigned8::$name($($arg),*),
            #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
            $crate::Isa::RelaxedSimdSigned => $crate::simd128::signed8::$name($($arg),*),
        }
    };
}
use dispatch;

fn quantise(isa: Isa, x: &[f32], span: usize, blocks: &mut [Block], step: usize) {
    dispatch!(isa, quantise(x, span, blocks, step))
}

fn rotate(isa: Isa, x: &[f32], out: &mut [f32]) {
    dispatch!(isa, rotate(x, out))
}

fn pack_row(
    isa: Isa,
    weights: &[f32],
    tiles: &mut [Tile],
    scales: &mut [[u16; PANEL]],
    row: usize,
) -> Result<(), usize> {
    dispatch!(isa, pack_row(weights, tiles, scales, row))
}

fn pack_columns(
    isa: Isa,
    weights: &[f32],
    stride: usize,
    n: usize,
    tiles: &mut [Tile],
    scales: &mut [u16; PANEL],
) -> Result<(), usize> {
    dispatch!(isa, pack_columns(weights, stride, n, tiles, scales))
}

fn pack_row_q4(
    isa: Isa,
    weights: &[f32],
    tiles: &mut [TileQ4],
    scales: &mut [[u16; PANEL]],
    row: usize,
) -> Result<(), usize> {
    dispatch!(isa, pack_row_q4(weights, tiles, scales, row))
}

fn pack_columns_q4(
    isa: Isa,
    weights: &[f32],
    stride: usize,
    n: usize,
    tile: &mut TileQ4,
    scales: &mut [u16; PANEL],
) -> Result<(), usize> {
    dispatch!(isa, pack_columns_q4(weights, stride, n, tile, scales))
}

/// # Safety
/// Nobody else uses the columns of `out` that belong to `panels`.
#[cfg_attr(
    any(target_arch = "x86_64", target_arch = "aarch64"),
    expect(unused_unsafe, reason = "`dispatch` marks what its twins need itself")
)]
unsafe fn matmul(
    isa: Isa,
    matrix: &PackedMatrix,
    x: &Quantised,
    panels: Range<usize>,
    around: &Around<'_>,
    out: &Shared<'_, f32>,
) {
    // SAFETY: the caller's promise.
    unsafe { dispatch!(isa, matmul / matmul_dot(matrix, x, panels, around, out)) }
}

fn normalise(isa: Isa, x: &[f32], norm: Norm<'_>, out: &mut [f32]) {
    let Norm { weight, bias, eps } = norm;
    dispatch!(isa, layer_norm(x, weight, bias, eps, out))
}

/// What follows a matrix product, element by element.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    #[default]
    None,
    /// GPT-2's `gelu_new`: see [`gelu_tanh`].
    GeluTanh,
    /// BERT's `gelu`: see [`gelu_erf`].
    GeluErf,
    /// `max(0, x)`.
    Relu,
    /// Hyperbolic tangent, as in BERT's pooler.
    Tanh,
}

impl Activation {
    /// Applies it to every element.
    pub fn apply(self, x: &mut [f32]) {
        self.apply_with(Isa::active(), x);
    }

    fn apply_with(self, isa: Isa, x: &mut [f32]) {
        match self {
            Self::None => {}
            Self::GeluTanh => dispatch!(isa, gelu_tanh(x)),
            Self::GeluErf => dispatch!(isa, gelu_erf(x)),
            Self::Relu => relu(x),
            Self::Tanh => dispatch!(isa, tanh_all(x)),
        }
    }
}

/// A LayerNorm: see [`layer_norm`].
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// What each normalised element is multiplied with.
    pub weight: &'a [f32],
    /// What is added to it then.
    pub bias: &'a [f32],
    /// Added to the variance.
    pub eps: f32,
}

/// What stands around a matrix product in a model: `out = [out +] activation(norm(x) . w^T + bias)`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Around<'a> {
    /// Normalises each row of `x` first.
    pub norm: Option<Norm<'a>>,
    /// One number an output.
    pub bias: Option<&'a [f32]>,
    /// What follows.
    pub activation: Activation,
    /// Whether the outcome is added to what `out` holds, as to a residual stream, rather than replace it.
    pub add: bool,
    /// Whether the [`maxima`] of each row of the outcome follow it.
    pub maxima: bool,
}

/// `0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`, in place: GPT-2's `gelu_new`.
pub fn gelu_tanh(x: &mut [f32]) {
    Activation::GeluTanh.apply(x);
}

/// `0.5 x (1 + erf(x / sqrt(2)))`, in place: BERT's `gelu`.
pub fn gelu_erf(x: &mut [f32]) {
    Activation::GeluErf.apply(x);
}

/// `max(0, x)`, in place.
pub fn relu(x: &mut [f32]) {
    // As integers: a maximum of f32s, vectorised with relaxed SIMD, may lose a NaN or the sign of a zero.
    x.iter_mut().for_each(|x| *x = f32::from_bits(if 0.0 > *x { 0 } else { x.to_bits() }));
}

/// [`tanh`], in place.
pub fn tanh_all(x: &mut [f32]) {
    Activation::Tanh.apply(x);
}

/// `x += y`, element by element.
///
/// # Panics
/// If the sizes differ.
pub fn add(x: &mut [f32], y: &[f32]) {
    assert_eq!(y.len(), x.len(), "kernels: terms of a sum");
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

/// `(x - mean) / sqrt(variance + eps) * weight + bias` of every row.
///
/// `x`, `out`: rows of `weight.len()`; the variance is the biased one, as in PyTorch's `LayerNorm`.
///
/// # Panics
/// If a slice has the wrong size.
pub fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    let n = weight.len();
    assert_eq!(bias.len(), n, "kernels: bias of a LayerNorm");
    assert_eq!(out.len(), x.len(), "kernels: outputs of a LayerNorm");
    if n == 0 {
        return;
    }
    assert!(x.len().is_multiple_of(n), "kernels: {} activations, as rows of {n}", x.len());
    let isa = Isa::active();
    for (x, out) in x.chunks_exact(n).zip(out.chunks_exact_mut(n)) {
        normalise(isa, x, Norm { weight, bias, eps }, out);
    }
}

/// [`layer_norm`] of every row, in place; rows are shared among the pool's threads.
///
/// # Panics
/// If a slice has the wrong size.
pub fn layer_norm_in_place(x: &mut [f32], norm: Norm<'_>, pool: &dyn Pool) {
    /// Rows of a task.
    const ROWS: usize = 16;
    let n = norm.weight.len();
    assert_eq!(norm.bias.len(), n, "kernels: bias of a LayerNorm");
    if n == 0 {
        return;
    }
    assert!(x.len().is_multiple_of(n), "kernels: {} activations, as rows of {n}", x.len());
    let (isa, rows) = (Isa::active(), x.len() / n);
    let x = Shared::new(x);
    pool.run(rows.div_ceil(ROWS), &|task| {
        quantised::with_rows(n, |[normed]| {
            for row in task * ROWS..rows.min((task + 1) * ROWS) {
                // SAFETY: a row belongs to one task.
                let x = unsafe { x.part(row * n, n) };
                normalise(isa, x, norm, normed);
                x.copy_from_slice(normed);
            }
        });
    });
}

/// `exp(x - max(x)) / sum`, in place; 0 where `x` is more than 64 below the maximum. An empty row stays empty.
pub fn softmax(row: &mut [f32]) {
    let inverse = 1.0 / dispatch!(Isa::active(), exp_minus_max(row));
    row.iter_mut().for_each(|x| *x *= inverse);
}

/// The largest element; that of nothing is minus infinity. Where there is a NaN, anything may come out.
#[must_use]
pub fn highest(x: &[f32]) -> f32 {
    dispatch!(Isa::active(), highest(x))
}

/// Elements of a block of groups: 16 groups of 16 elements each.
const GROUPED: usize = LANES * LANES;

/// Groups of `n` elements: 16 for every 256 elements that are begun.
#[must_use]
pub const fn groups(n: usize) -> usize {
    n.div_ceil(GROUPED) * LANES
}

/// The group of element `i`: every 16th element of a block of 256 belongs to the same, so that 16 groups are compared at
/// once.
#[must_use]
pub const fn group_of(i: usize) -> usize {
    i / GROUPED * LANES + i % LANES
}

/// The elements of a group, in order; in the last block there may be fewer of them.
pub fn members(group: usize) -> impl Iterator<Item = usize> {
    let first = group / LANES * GROUPED + group % LANES;
    (first..first + GROUPED).step_by(LANES)
}

/// The largest element of each group of `x`, [`groups`]`(x.len())` of them; that of nothing is minus infinity. Where there
/// is a NaN, anything may come out for its group.
///
/// # Panics
/// If `out` has the wrong size.
pub fn maxima(x: &[f32], out: &mut [f32]) {
    assert_eq!(out.len(), groups(x.len()), "kernels: maxima of {} elements", x.len());
    maxima_with(Isa::active(), x, out);
}

fn maxima_with(isa: Isa, x: &[f32], out: &mut [f32]) {
    dispatch!(isa, maxima(x, out))
}

/// The sum of `exp(x - highest)`, in f64.
///
/// NaN exactly if an element is NaN or the difference of two infinities.
#[must_use]
pub fn sum_exp(x: &[f32], highest: f32) -> f64 {
    dispatch!(Isa::active(), sum_exp(x, highest))
}

/// `out = exp((x - highest) / temperature)`: the weights of a softmax with a temperature, of which `highest` has 1. As many
/// as there are elements in both.
pub fn weigh(x: &[f32], highest: f32, temperature: f32, out: &mut [f32]) {
    dispatch!(Isa::active(), weigh(x, highest, temperature, out))
}

#[cfg(test)]
mod tests;
