//! NEON, 128-bit registers, with and without the dot-product instruction.
//!
//! As in [`avx512`](super::avx512), but:
//!
//! 1. A group of a panel fills four registers, and weights stay signed: both ways to multiply take signed bytes.
//! 2. Where the processor has it, `sdot` adds the four products of each row to its 32-bit lane. It takes its second
//!    operand from a lane, so that two registers hold all 32 activations of a block.
//! 3. Elsewhere `smull` and `smlal` add the products of two groups in 16 bits (at most `2 * 127 * 127 = 32258`), and
//!    `sadalp` adds neighbours to 32-bit lanes, two a row, which are added once a block.
//! 4. 4-bit weights lie there plus 8, which signed bytes hold too; their sums start at an excess of `8 * sum(x)`, negative.

use super::Around;
use super::attention_i16::{Pairs, Row};
use super::f16::{F16_BIAS, F16_PLACES};
use super::lanes::{Lanes, twins};
use super::math::ROUND;
use super::matrix::{PANEL, PackedMatrix, Packing, Stored, Tile, TileQ4};
use super::pool::Shared;
use super::quantised::{Block, Quantised};
use super::scalar::{self, LANES};
use std::arch::aarch64::*;
use std::arch::asm;
use std::array::from_fn;
use std::ops::Range;

/// # Safety
/// Nobody else uses the columns of `out` that belong to `panels`.
#[target_feature(enable = "neon")]
pub(crate) unsafe fn matmul(
    matrix: &PackedMatrix,
    x: &Quantised,
    panels: Range<usize>,
    around: &Around<'_>,
    out: &Shared<'_, f32>,
) {
    // SAFETY: the caller's promise; no dot-product instruction.
    unsafe { matmul_with::<false>(matrix, x, panels, around, out) }
}

/// [`matmul`] with the dot-product instruction.
///
/// # Safety
/// Nobody else uses the columns of `out` that belong to `panels`.
#[target_feature(enable = "neon,dotprod")]
pub(crate) unsafe fn matmul_dot(
    matrix: &PackedMatrix,
    x: &Quantised,
    panels: Range<usize>,
    around: &Around<'_>,
    out: &Shared<'_, f32>,
) {
    // SAFETY: the caller's promise; this function enables the dot-product instruction.
    unsafe { matmul_with::<true>(matrix, x, panels, around, out) }
}

/// # Safety
/// Nobody else uses the columns of `out` that belong to `panels`; the caller enables `dotprod` if `DOT`.
#[inline(always)]
unsafe fn matmul_with<const DOT: bool>(
    matrix: &PackedMatrix,
    x: &Quantised,
    panels: Range<usize>,
    around: &Around<'_>,
    out: &Shared<'_, f32>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match matrix.packing() {
            Packing::Q8 => matmul_of::<Tile, true, DOT>(matrix, x, panels, around, out),
            Packing::Q8By(_) => matmul_of::<Tile, false, DOT>(matrix, x, panels, around, out),
            Packing::Q4 => matmul_of::<TileQ4, true, DOT>(matrix, x, panels, around, out),
        }
    }
}

/// # Safety
/// As for [`matmul_with`].
#[inline(always)]
unsafe fn matmul_of<T: Weights, const ONE: bool, const DOT: bool>(
    matrix: &PackedMatrix,
    x: &Quantised,
    panels: Range<usize>,
    around: &Around<'_>,
    out: &Shared<'_, f32>,
) {
    for panel in panels {
        for first in (0..x.rows).step_by(4) {
            // SAFETY: the caller's promise.
            unsafe {
                match x.rows - first {
                    1 => rows::<T, 1, ONE, DOT>(matrix, x, panel, first, around, out),
                    2 => rows::<T, 2, ONE, DOT>(matrix, x, panel, first, around, out),
                    3 => rows::<T, 3, ONE, DOT>(matrix, x, panel, first, around, out),
                    _ => rows::<T, 4, ONE, DOT>(matrix, x, panel, first, around, out),
                }
            }
        }
    }
}

/// The outputs of one panel for the activation rows `first..first + M`, a group. `ONE`: each tile has scales of its own.
///
/// # Safety
/// As for [`matmul_with`].
#[inline(always)]
unsafe fn rows<T: Weights, const M: usize, const ONE: bool, const DOT: bool>(
    matrix: &PackedMatrix,
    x: &Quantised,
    panel: usize,
    first: usize,
    around: &Around<'_>,
    out: &Shared<'_, f32>,
) {
    let (tiles, scales) = matrix.panel::<T>(panel);
    let (xs, _) = x.group(first, M).as_chunks::<M>();
    // SAFETY: no operation on registers touches memory; NEON is part of every aarch64.
    let mut sums = [[unsafe { vdupq_n_f32(0.0) }; 4]; M];
    let span = matrix.span::<ONE>();
    let spans = tiles.chunks_exact(span).zip(scales).zip(xs.chunks_exact(span));
    for ((tiles, scales), xs) in spans {
        for quarter in 0..4 {
            // SAFETY: the caller's promise; the loads take 4 scales of 4 * 4, and are within the arrays.
            unsafe {
                let mut dots: [int32x4_t; M] = from_fn(|m| vdupq_n_s32(T::start(&xs[0][m])));
                for (tile, x) in tiles.iter().zip(xs) {
                    if DOT {
                        add_by_sdot(tile, quarter, x, &mut dots);
                    } else {
                        add_by_smull(tile, quarter, x, &mut dots);
                    }
                }
                // As `f32_from_f16`.
                let scales = vmovl_s16(vld1_s16(scales.as_ptr().add(quarter * 4).cast()));
                let scales = vreinterpretq_u32_s32(vshlq_n_s32::<13>(scales));
                let scales = vreinterpretq_f32_u32(vandq_u32(scales, vdupq_n_u32(F16_PLACES)));
                let scales = vmulq_f32(scales, vdupq_n_f32(F16_BIAS));
                for m in 0..M {
                    let scales = vmulq_f32(scales, vdupq_n_f32(xs[0][m].scale));
                    let term = vmulq_f32(vcvtq_f32_s32(dots[m]), scales);
                    sums[m][quarter] = vaddq_f32(sums[m][quarter], term);
                }
            }
        }
    }
    for (m, sums) in sums.into_iter().enumerate() {
        let mut lanes = [0.0; PANEL];
        F32x16(sums).store(&mut lanes);
        // SAFETY: the caller gave us the panel alone.
        let (column, out) = unsafe { matrix.outputs(panel, first + m, out) };
        // SAFETY: NEON is part of every aarch64.
        unsafe { finish(&lanes, around, column, out) };
    }
}

/// Weights as signed numbers, ready for dot products.
trait Weights: Stored {
    /// What the sums of products with a span start at.
    fn start(x: &Block) -> i32;

    /// Twice 16 weights, 4 rows of 4 columns: those of the groups `2 * pair` and `2 * pair + 1`.
    fn pair(&self, pair: usize, quarter: usize) -> [int8x16_t; 2];
}

/// A quarter of a group.
#[inline(always)]
fn load(group: &[i32; PANEL], quarter: usize) -> int8x16_t {
    let rows: &[i32; 4] = group[quarter * 4..].first_chunk().expect("a quarter of a panel has 4 rows");
    // SAFETY: 16 bytes.
    unsafe { vld1q_s8(rows.as_ptr().cast()) }
}

impl Weights for Tile {
    #[inline(always)]
    fn start(_: &Block) -> i32 {
        0
    }

    #[inline(always)]
    fn pair(&self, pair: usize, quarter: usize) -> [int8x16_t; 2] {
        [load(&self.0[2 * pair], quarter), load(&self.0[2 * pair + 1], quarter)]
    }
}

impl Weights for TileQ4 {
    #[inline(always)]
    fn start(x: &Block) -> i32 {
        x.excess / 16
    }

    #[inline(always)]
    fn pair(&self, pair: usize, quarter: usize) -> [int8x16_t; 2] {
        // SAFETY: no operation on registers touches memory; NEON is part of every aarch64.
        unsafe {
            let both = vreinterpretq_u8_s8(load(&self.0[pair], quarter));
            [vandq_u8(both, vdupq_n_u8(15)), vshrq_n_u8::<4>(both)].map(|w| vreinterpretq_s8_u8(w))
        }
    }
}

/// Adds the dot products of 4 rows with each row of activations.
///
/// # Safety
/// The caller enables `dotprod`.
#[inline(always)]
unsafe fn add_by_sdot<T: Weights, const M: usize>(
    tile: &T,
    quarter: usize,
    x: &[Block; M],
    dots: &mut [int32x4_t; M],
) {
    // SAFETY: loads are of the 32 activations of a block; the instruction is enabled by the caller.
    unsafe {
        let xs: [[int8x16_t; 2]; M] =
            from_fn(|m| [vld1q_s8(x[m].q.as_ptr()), vld1q_s8(x[m].q.as_ptr().add(16))]);
        for half in 0..2 {
            let [a, b] = [tile.pair(2 * half, quarter), tile.pair(2 * half + 1, quarter)];
            let w = [a[0], a[1], b[0], b[1]];
            for m in 0..M {
                asm!(
                    "sdot {sum:v}.4s, {w0:v}.16b, {x:v}.4b[0]",
                    "sdot {sum:v}.4s, {w1:v}.16b, {x:v}.4b[1]",
                    "sdot {sum:v}.4s, {w2:v}.16b, {x:v}.4b[2]",
                    "sdot {sum:v}.4s, {w3:v}.16b, {x:v}.4b[3]",
                    sum = inout(vreg) dots[m],
                    x = in(vreg) xs[m][half],
                    w0 = in(vreg) w[0],
                    w1 = in(vreg) w[1],
                    w2 = in(vreg) w[2],
                    w3 = in(vreg) w[3],
                    options(pure, nomem, nostack, preserves_flags)
                );
            }
        }
    }
}

/// [`add_by_sdot`] for every aarch64.
#[inline(always)]
fn add_by_smull<T: Weights, const M: usize>(
    tile: &T,
    quarter: usize,
    x: &[Block; M],
    dots: &mut [int32x4_t; M],
) {
    // SAFETY: loads are of 4 of the 32 activations of a block.
    unsafe {
        let mut sums = [[vdupq_n_s32(0); 2]; M];
        for pair in 0..4 {
            let [a, b] = tile.pair(pair, quarter);
            for m in 0..M {
                let four = |i: usize| vreinterpret_s8_s32(vld1_dup_s32(x[m].q.as_ptr().add(4 * i).cast()));
                let (xa, xb) = (four(2 * pair), four(2 * pair + 1));
                let low = vmlal_s8(vmull_s8(vget_low_s8(a), xa), vget_low_s8(b), xb);
                let high = vmlal_s8(vmull_s8(vget_high_s8(a), xa), vget_high_s8(b), xb);
                sums[m] = [vpadalq_s16(sums[m][0], low), vpadalq_s16(sums[m][1], high)];
            }
        }
        for m in 0..M {
            dots[m] = vaddq_s32(dots[m], vpaddq_s32(sums[m][0], sums[m][1]));
        }
    }
}

/// [`scalar::quantise`], which compilers turn into NEON code as it is.
#[target_feature(enable = "neon")]
pub(crate) fn quantise(x: &[f32], span: usize, blocks: &mut [Block], step: usize) {
    scalar::quantise(x, span, blocks, step);
}

/// [`pack::row`](super::pack::row), likewise.
#[target_feature(enable = "neon")]
pub(crate) fn pack_row(
    weights: &[f32],
    tiles: &mut [Tile],
    scales: &mut [[u16; PANEL]],
    row: usize,
) -> Result<(), usize> {
    scalar::pack_row(weights, tiles, scales, row)
}

/// [`pack::columns`](super::pack::columns), likewise.
#[target_feature(enable = "neon")]
pub(crate) fn pack_columns(
    weights: &[f32],
    stride: usize,
    n: usize,
    tiles: &mut [Tile],
    scales: &mut [u16; PANEL],
) -> Result<(), usize> {
    scalar::pack_columns(weights, stride, n, tiles, scales)
}

/// [`pack::row_q4`](super::pack::row_q4), likewise.
#[target_feature(enable = "neon")]
pub(crate) fn pack_row_q4(
    weights: &[f32],
    tiles: &mut [TileQ4],
    scales: &mut [[u16; PANEL]],
    row: usize,
) -> Result<(), usize> {
    scalar::pack_row_q4(weights, tiles, scales, row)
}

/// [`pack::columns_q4`](super::pack::columns_q4), likewise.
#[target_feature(enable = "neon")]
pub(crate) fn pack_columns_q4(
    weights: &[f32],
    stride: usize,
    n: usize,
    tile: &mut TileQ4,
    scales: &mut [u16; PANEL],
) -> Result<(), usize> {
    scalar::pack_columns_q4(weights, stride, n, tile, scales)
}

/// 16 lanes in four registers.
#[derive(Clone, Copy)]
pub(crate) struct F32x16([float32x4_t; 4]);

// SAFETY of every block below: loads and stores touch the 16 elements of the array that is given, and NEON is part of
// every aarch64.
impl F32x16 {
    #[inline(always)]
    fn with(self, other: Self, f: impl Fn(float32x4_t, float32x4_t) -> float32x4_t) -> Self {
        let (a, b) = (self.0, other.0);
        Self([f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])])
    }
}

impl Lanes for F32x16 {
    const KEPT: usize = 4;
    const REGISTERS: usize = 8;
    type Wide = [float64x2_t; 8];
    /// Sums too: four of 32 bits in each register.
    type Integers = [int16x8_t; 4];

    #[inline(always)]
    fn wide_zero() -> Self::Wide {
        // SAFETY: see above.
        [unsafe { vdupq_n_f64(0.0) }; 8]
    }

    #[inline(always)]
    fn add_to(self, mut sums: Self::Wide) -> Self::Wide {
        for (four, sums) in self.0.into_iter().zip(sums.as_chunks_mut::<2>().0) {
            // SAFETY: see above.
            unsafe {
                sums[0] = vaddq_f64(sums[0], vcvt_f64_f32(vget_low_f32(four)));
                sums[1] = vaddq_f64(sums[1], vcvt_high_f64_f32(four));
            }
        }
        sums
    }

    #[inline(always)]
    fn wide_store(sums: Self::Wide) -> [f64; LANES] {
        let mut lanes = [0.0; LANES];
        for (lanes, sums) in lanes.as_chunks_mut::<2>().0.iter_mut().zip(sums) {
            // SAFETY: see above; the array is of 2 elements.
            unsafe { vst1q_f64(lanes.as_mut_ptr(), sums) };
        }
        lanes
    }

    #[inline(always)]
    fn splat(x: f32) -> Self {
        // SAFETY: see above.
        Self([unsafe { vdupq_n_f32(x) }; 4])
    }

    #[inline(always)]
    fn load(x: &[f32; LANES]) -> Self {
        // SAFETY: see above.
        Self(from_fn(|i| unsafe { vld1q_f32(x.as_ptr().add(4 * i)) }))
    }

    #[inline(always)]
    fn store(self, out: &mut [f32; LANES]) {
        for (i, x) in self.0.into_iter().enumerate() {
            // SAFETY: see above.
            unsafe { vst1q_f32(out.as_mut_ptr().add(4 * i), x) };
        }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        self.with(other, |a, b| unsafe { vaddq_f32(a, b) })
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: see above.
        self.with(other, |a, b| unsafe { vsubq_f32(a, b) })
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: see above.
        self.with(other, |a, b| unsafe { vmulq_f32(a, b) })
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        // SAFETY: see above.
        self.with(other, |a, b| unsafe { vdivq_f32(a, b) })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // `fmin` treats a NaN and zeros in its own way: compare and choose instead.
        // SAFETY: see above.
        self.with(other, |a, b| unsafe { vbslq_f32(vcltq_f32(a, b), a, b) })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: see above.
        self.with(other, |a, b| unsafe { vbslq_f32(vcgtq_f32(a, b), a, b) })
    }

    #[inline(always)]
    fn zero_below(self, limit: Self, value: Self) -> Self {
        // SAFETY: see above.
        Self(from_fn(|i| unsafe {
            vbslq_f32(vcltq_f32(self.0[i], limit.0[i]), vdupq_n_f32(0.0), value.0[i])
        }))
    }

    #[inline(always)]
    fn powers(self) -> (Self, Self) {
        // SAFETY: see above.
        unsafe {
            let n = self.0.map(|n| vsubq_s32(vreinterpretq_s32_f32(n), vdupq_n_s32(ROUND.to_bits() as i32)));
            let half = n.map(|n| vshrq_n_s32::<1>(n));
            let power = |n| vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(n, vdupq_n_s32(127))));
            (Self(half.map(power)), Self(from_fn(|i| power(vsubq_s32(n[i], half[i])))))
        }
    }

    #[inline(always)]
    fn load_pairs(x: &Pairs) -> Self::Integers {
        // SAFETY: see above.
        from_fn(|i| unsafe { vld1q_s16(x.as_ptr().add(4 * i).cast()) })
    }

    #[inline(always)]
    fn splat_pair(pair: i32) -> Self::Integers {
        // SAFETY: see above.
        [unsafe { vreinterpretq_s16_s32(vdupq_n_s32(pair)) }; 4]
    }

    #[inline(always)]
    fn add_products(sums: Self::Integers, x: Self::Integers, y: Self::Integers) -> Self::Integers {
        // SAFETY: see above.
        from_fn(|i| unsafe {
            let (low, high) = (vmull_s16(vget_low_s16(x[i]), vget_low_s16(y[i])), vmull_high_s16(x[i], y[i]));
            vreinterpretq_s16_s32(vaddq_s32(vreinterpretq_s32_s16(sums[i]), vpaddq_s32(low, high)))
        })
    }

    #[inline(always)]
    fn from_sums(sums: Self::Integers) -> Self {
        // SAFETY: see above.
        Self(sums.map(|sums| unsafe { vcvtq_f32_s32(vreinterpretq_s32_s16(sums)) }))
    }

    #[inline(always)]
    fn store_pairs(first: Self, second: Self, out: &mut Pairs) {
        for i in 0..4 {
            // SAFETY: see above.
            unsafe {
                let (first, second) = (vcvtnq_s32_f32(first.0[i]), vcvtnq_s32_f32(second.0[i]));
                let pairs = vsliq_n_s32::<16>(first, second);
                vst1q_s32(out.as_mut_ptr().add(4 * i).cast(), pairs);
            }
        }
    }

    #[inline(always)]
    fn store_i16(self, out: &mut Row) {
        for (i, x) in self.0.into_iter().enumerate() {
            // SAFETY: see above.
            unsafe { vst1_s16(out.as_mut_ptr().add(2 * i).cast(), vmovn_s32(vcvtnq_s32_f32(x))) };
        }
    }

    #[inline(always)]
    fn max_magnitude(self, other: Self) -> Self {
        // SAFETY: see above.
        self.with(other, |a, b| unsafe {
            let magnitude = vreinterpretq_u32_f32(vabsq_f32(b));
            vreinterpretq_f32_u32(vmaxq_u32(vreinterpretq_u32_f32(a), magnitude))
        })
    }

    #[inline(always)]
    fn butterflies(self) -> Self {
        let [a, b, c, d] = self.0;
        // SAFETY: see above.
        unsafe {
            let (a, b, c, d) = (vaddq_f32(a, b), vsubq_f32(a, b), vaddq_f32(c, d), vsubq_f32(c, d));
            Self([vaddq_f32(a, c), vaddq_f32(b, d), vsubq_f32(a, c), vsubq_f32(b, d)])
        }
    }

    #[inline(always)]
    fn fold4(values: [Self; 4]) -> [f32; 4] {
        // SAFETY: see above.
        unsafe {
            // 16 lanes to 8 to 4, each.
            let [a, b, c, d] =
                values.map(|v| vaddq_f32(vaddq_f32(v.0[0], v.0[2]), vaddq_f32(v.0[1], v.0[3])));
            // 4 to 2: [a a b b] and [c c d d].
            let halves = |x, y| {
                let (x, y) = (vreinterpretq_f64_f32(x), vreinterpretq_f64_f32(y));
                let low = vreinterpretq_f32_f64(vzip1q_f64(x, y));
                vaddq_f32(low, vreinterpretq_f32_f64(vzip2q_f64(x, y)))
            };
            // 2 to 1.
            let mut out = [0.0; 4];
            vst1q_f32(out.as_mut_ptr(), vpaddq_f32(halves(a, b), halves(c, d)));
            out
        }
    }
}

twins!(F32x16, "neon");
