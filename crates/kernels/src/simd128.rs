//! WebAssembly's 128-bit SIMD, plain and relaxed.
//!
//! As in [`avx512`](super::avx512), but a group of a panel fills four registers, of which there are 16 on most machines,
//! whatever WebAssembly promises. How 8-bit numbers are multiplied depends on what the build and the engine have:
//!
//! 1. [`Plain`]: `i32x4.dot_i16x8` on weights and activations widened to 16 bits. A register of 8 widened weights is two
//!    rows of 4 columns, so each row's sum comes in two lanes, which are added once a block.
//! 2. Relaxed SIMD's `i32x4.relaxed_dot_i8x16_i7x16_add` multiplies 16 weights at once, but its second operand has only
//!    7 bits for sure. [`Signed7`] passes `|x|` (0..=127) there and moves the sign of `x` to the weights:
//!    `(w ^ s) - s` with `s` 0 or -1. Exact on every engine.
//! 3. What an engine does with an eighth bit is its choice, but always the same one. [`Unsigned8`] is for those that take
//!    it as a value (x86 with VNNI): weights plus 128, as in AVX-512. [`Signed8`] is for those that take it as a sign
//!    (ARM's `sdot`): weights as they are. [`Dot::works`] tries them out on extreme operands before they are used.
//!
//! 4-bit weights lie there plus 8, in 0..16, which is within 7 bits: [`NibblesRelaxed`] is exact on every engine without
//! any of this. [`Nibbles`] masks and shifts them into 16 bits, so that each row's sum comes in one lane.
//!
//! A single row of activations waits for memory, and WebAssembly cannot ask for it ahead. One stream of weights is
//! fetched ahead by the processor, but the scales, which need a new line only every second tile, are not: so all of a
//! panel's are read at once before its weights ([`touch`]). Several panels in turn were slower in Chromium on a Zen 4
//! server: the sums then live in memory.
//!
//! Activations are stored in the form that each of these loads with one broadcast.

use super::Around;
use super::lanes::{Lanes, twins};
use super::math::ROUND;
use super::matrix::{BLOCK, Bits, F16_BIAS, F16_PLACES, PANEL, PackedMatrix, Stored, Tile, TileQ4};
use super::pool::Shared;
use super::quantised::{Block, Quantised};
use super::scalar::LANES;
use std::arch::wasm32::*;
use std::array::from_fn;
use std::hint::black_box;
use std::ops::Range;

/// `pmin(a, b)` is `b < a ? b : a`: x86's minimum with the operands exchanged, one instruction there. But LLVM makes it a
/// `relaxed_min` where relaxed SIMD is allowed, which on x86 loses a NaN and on ARM orders zeros by their signs. There a
/// comparison and a selection are written out, which it leaves alone.
const RELAXED: bool = cfg!(target_feature = "relaxed-simd");

/// A way to multiply weights with 8-bit activations.
trait Dot {
    /// How the weights are stored.
    type Tile: Stored;
    /// What a register of 16 weights, 4 rows of 4 columns, becomes once for all activations.
    type Weights: Copy;
    /// The sums of 4 rows.
    type Sums: Copy;

    fn start(x: &Block) -> Self::Sums;
    /// A quarter of the groups `2 * pair` and `2 * pair + 1`.
    fn pair(tile: &Self::Tile, pair: usize, quarter: usize) -> [Self::Weights; 2];
    /// Adds the products of columns `4 * group..4 * group + 4`.
    fn add(sums: Self::Sums, w: Self::Weights, x: &Block, group: usize) -> Self::Sums;
    fn finish(sums: Self::Sums) -> v128;
}

/// A way to multiply 8-bit weights.
trait Dot8: Dot<Tile = Tile> {
    fn weights(w: v128) -> Self::Weights;
    /// Stores the activations as `add` wants them.
    fn spread(x: &mut Block);

    /// Whether this engine gives exact results, tried on operands at the ends of their ranges.
    fn works() -> bool {
        let ends = [-127, 127, -127, -127, 1, 127, -1, 0, 127, 127, 126, 127, -126, -127, 127, -1];
        (0..16).all(|shift| {
            let q = from_fn(|i| ends[(i * 5 + shift) % 16]);
            let excess = -128 * q.iter().map(|q| i32::from(*q)).sum::<i32>();
            let mut x = Block { q, excess, ..Block::ZERO };
            Self::spread(&mut x);
            let mut sums = Self::start(&x);
            let mut expected = [0; 4];
            for (group, q) in q.as_chunks::<4>().0.iter().enumerate() {
                let w: [i8; 16] = from_fn(|i| ends[(i * 3 + group + shift) % 16]);
                for (i, w) in w.iter().enumerate() {
                    expected[i / 4] += i32::from(*w) * i32::from(q[i % 4]);
                }
                let words: [i32; 4] = from_fn(|row| i32::from_le_bytes(from_fn(|k| w[4 * row + k] as u8)));
                sums = Self::add(sums, Self::weights(load(&words)), &x, group);
            }
            let mut got = [0; 4];
            // SAFETY: `got` has the 16 bytes of a register.
            unsafe { v128_store(got.as_mut_ptr().cast(), Self::finish(sums)) };
            got == expected
        })
    }
}

/// [`Dot::pair`] of 8-bit weights.
#[inline(always)]
fn pair<D: Dot8>(tile: &Tile, pair: usize, quarter: usize) -> [D::Weights; 2] {
    let weights = |i: usize| D::weights(load(&tile.0[2 * pair + i][4 * quarter..]));
    [weights(0), weights(1)]
}

/// A register of 16 weights, or of 32 in 4 bits.
#[inline(always)]
fn load(w: &[i32]) -> v128 {
    let w: &[i32; 4] = w.first_chunk().expect("a register has 4 rows");
    // SAFETY: 16 bytes.
    unsafe { v128_load(w.as_ptr().cast()) }
}

/// Four bytes from `at` on, four times.
#[inline(always)]
fn load4<T>(bytes: &[T], at: usize) -> v128 {
    const { assert!(size_of::<T>() == 1) }
    let bytes: &[T; 4] = bytes[at..].first_chunk().expect("within the activations of a block");
    // SAFETY: 4 bytes; loads need no alignment.
    unsafe { v128_load32_splat(bytes.as_ptr().cast()) }
}

/// `i32x4.dot_i16x8`.
pub(crate) struct Plain;

impl Dot for Plain {
    type Tile = Tile;
    type Weights = [v128; 2];
    type Sums = [v128; 2];

    #[inline(always)]
    fn start(_: &Block) -> [v128; 2] {
        [i32x4_splat(0); 2]
    }

    #[inline(always)]
    fn pair(tile: &Tile, i: usize, quarter: usize) -> [Self::Weights; 2] {
        pair::<Self>(tile, i, quarter)
    }

    #[inline(always)]
    fn add(sums: [v128; 2], w: [v128; 2], x: &Block, group: usize) -> [v128; 2] {
        let x: &[u8; 8] = x.spread[group * 8..].first_chunk().expect("8 groups of 4 activations");
        // SAFETY: 8 bytes; loads need no alignment.
        let x = unsafe { v128_load64_splat(x.as_ptr().cast()) };
        [i32x4_add(sums[0], i32x4_dot_i16x8(w[0], x)), i32x4_add(sums[1], i32x4_dot_i16x8(w[1], x))]
    }

    #[inline(always)]
    fn finish(sums: [v128; 2]) -> v128 {
        let even = i32x4_shuffle::<0, 2, 4, 6>(sums[0], sums[1]);
        i32x4_add(even, i32x4_shuffle::<1, 3, 5, 7>(sums[0], sums[1]))
    }
}

impl Dot8 for Plain {
    #[inline(always)]
    fn weights(w: v128) -> [v128; 2] {
        [i16x8_extend_low_i8x16(w), i16x8_extend_high_i8x16(w)]
    }

    fn spread(x: &mut Block) {
        for (to, q) in x.spread.as_chunks_mut::<2>().0.iter_mut().zip(x.q) {
            *to = i16::from(q).to_le_bytes();
        }
    }
}

/// Relaxed dot product of magnitudes with weights that take the sign.
#[cfg(target_feature = "relaxed-simd")]
pub(crate) struct Signed7;

#[cfg(target_feature = "relaxed-simd")]
impl Dot for Signed7 {
    type Tile = Tile;
    type Weights = v128;
    type Sums = v128;

    #[inline(always)]
    fn start(_: &Block) -> v128 {
        i32x4_splat(0)
    }

    #[inline(always)]
    fn pair(tile: &Tile, i: usize, quarter: usize) -> [Self::Weights; 2] {
        pair::<Self>(tile, i, quarter)
    }

    #[inline(always)]
    fn add(sums: v128, w: v128, x: &Block, group: usize) -> v128 {
        let (magnitude, sign) = (load4(&x.spread, group * 4), load4(&x.spread, BLOCK + group * 4));
        i32x4_relaxed_dot_i8x16_i7x16_add(i8x16_sub(v128_xor(w, sign), sign), magnitude, sums)
    }

    #[inline(always)]
    fn finish(sums: v128) -> v128 {
        sums
    }
}

#[cfg(target_feature = "relaxed-simd")]
impl Dot8 for Signed7 {
    #[inline(always)]
    fn weights(w: v128) -> v128 {
        w
    }

    fn spread(x: &mut Block) {
        let (magnitudes, signs) = x.spread.split_at_mut(BLOCK);
        for ((magnitude, sign), q) in magnitudes.iter_mut().zip(signs).zip(x.q) {
            (*magnitude, *sign) = (q.unsigned_abs(), (q >> 7) as u8);
        }
    }
}

/// Relaxed dot product on an engine that takes all 8 bits of the second operand as a value.
#[cfg(target_feature = "relaxed-simd")]
pub(crate) struct Unsigned8;

#[cfg(target_feature = "relaxed-simd")]
impl Dot for Unsigned8 {
    type Tile = Tile;
    type Weights = v128;
    type Sums = v128;

    #[inline(always)]
    fn start(x: &Block) -> v128 {
        i32x4_splat(x.excess)
    }

    #[inline(always)]
    fn pair(tile: &Tile, i: usize, quarter: usize) -> [Self::Weights; 2] {
        pair::<Self>(tile, i, quarter)
    }

    #[inline(always)]
    fn add(sums: v128, w: v128, x: &Block, group: usize) -> v128 {
        i32x4_relaxed_dot_i8x16_i7x16_add(load4(&x.spread, group * 4), w, sums)
    }

    #[inline(always)]
    fn finish(sums: v128) -> v128 {
        sums
    }
}

#[cfg(target_feature = "relaxed-simd")]
impl Dot8 for Unsigned8 {
    #[inline(always)]
    fn weights(w: v128) -> v128 {
        v128_xor(w, i8x16_splat(-128))
    }

    fn spread(x: &mut Block) {
        x.spread[..BLOCK].copy_from_slice(&x.q.map(|q| q as u8));
    }
}

/// Relaxed dot product on an engine that takes the second operand as signed.
#[cfg(target_feature = "relaxed-simd")]
pub(crate) struct Signed8;

#[cfg(target_feature = "relaxed-simd")]
impl Dot for Signed8 {
    type Tile = Tile;
    type Weights = v128;
    type Sums = v128;

    #[inline(always)]
    fn start(_: &Block) -> v128 {
        i32x4_splat(0)
    }

    #[inline(always)]
    fn pair(tile: &Tile, i: usize, quarter: usize) -> [Self::Weights; 2] {
        pair::<Self>(tile, i, quarter)
    }

    #[inline(always)]
    fn add(sums: v128, w: v128, x: &Block, group: usize) -> v128 {
        i32x4_relaxed_dot_i8x16_i7x16_add(load4(&x.spread, group * 4), w, sums)
    }

    #[inline(always)]
    fn finish(sums: v128) -> v128 {
        sums
    }
}

#[cfg(target_feature = "relaxed-simd")]
impl Dot8 for Signed8 {
    #[inline(always)]
    fn weights(w: v128) -> v128 {
        w
    }

    fn spread(x: &mut Block) {
        Unsigned8::spread(x);
    }
}

/// 4-bit weights by the build's best way; all of them are exact on every engine.
#[cfg(not(target_feature = "relaxed-simd"))]
type DotQ4 = Nibbles;
#[cfg(target_feature = "relaxed-simd")]
type DotQ4 = NibblesRelaxed;

/// `i32x4.dot_i16x8` of 4-bit weights.
#[cfg(not(target_feature = "relaxed-simd"))]
struct Nibbles;

#[cfg(not(target_feature = "relaxed-simd"))]
impl Dot for Nibbles {
    type Tile = TileQ4;
    /// The even columns of 4 rows, and the odd ones.
    type Weights = [v128; 2];
    type Sums = v128;

    #[inline(always)]
    fn start(x: &Block) -> v128 {
        i32x4_splat(x.excess / 16)
    }

    #[inline(always)]
    fn pair(tile: &TileQ4, pair: usize, quarter: usize) -> [[v128; 2]; 2] {
        let (both, low) = (load(&tile.0[pair][4 * quarter..]), i16x8_splat(15));
        let place = |shift| v128_and(u16x8_shr(both, shift), low);
        [[place(0), place(8)], [place(4), place(12)]]
    }

    #[inline(always)]
    fn add(sums: v128, w: [v128; 2], x: &Block, group: usize) -> v128 {
        let x = load4(&x.q, group * 4);
        let (even, odd) = (i16x8_shr(i16x8_shl(x, 8), 8), i16x8_shr(x, 8));
        i32x4_add(sums, i32x4_add(i32x4_dot_i16x8(w[0], even), i32x4_dot_i16x8(w[1], odd)))
    }

    #[inline(always)]
    fn finish(sums: v128) -> v128 {
        sums
    }
}

/// Relaxed dot product of 4-bit weights, which have the operand of 7 bits.
#[cfg(target_feature = "relaxed-simd")]
struct NibblesRelaxed;

#[cfg(target_feature = "relaxed-simd")]
impl Dot for NibblesRelaxed {
    type Tile = TileQ4;
    type Weights = v128;
    type Sums = v128;

    #[inline(always)]
    fn start(x: &Block) -> v128 {
        i32x4_splat(x.excess / 16)
    }

    #[inline(always)]
    fn pair(tile: &TileQ4, pair: usize, quarter: usize) -> [v128; 2] {
        let (both, low) = (load(&tile.0[pair][4 * quarter..]), u8x16_splat(15));
        // A shift of 16 bits, since a machine has none of 8.
        [v128_and(both, low), v128_and(u16x8_shr(both, 4), low)]
    }

    #[inline(always)]
    fn add(sums: v128, w: v128, x: &Block, group: usize) -> v128 {
        i32x4_relaxed_dot_i8x16_i7x16_add(load4(&x.q, group * 4), w, sums)
    }

    #[inline(always)]
    fn finish(sums: v128) -> v128 {
        sums
    }
}

/// # Safety
/// Nobody else uses the columns of `out` that belong to `panels`.
unsafe fn matmul_q4(
    matrix: &PackedMatrix,
    x: &Quantised,
    panels: Range<usize>,
    around: &Around<'_>,
    out: &Shared<'_, f32>,
) {
    // SAFETY: the caller's promise.
    unsafe { matmul_with::<DotQ4>(matrix, x, panels, around, out) }
}

/// # Safety
/// Nobody else uses the columns of `out` that belong to `panels`.
#[inline(always)]
unsafe fn matmul_with<D: Dot>(
    matrix: &PackedMatrix,
    x: &Quantised,
    panels: Range<usize>,
    around: &Around<'_>,
    out: &Shared<'_, f32>,
) {
    for panel in panels {
        if x.rows == 1 {
            touch(matrix.panel::<D::Tile>(panel).1);
        }
        for first in (0..x.rows).step_by(4) {
            // SAFETY: the caller's promise.
            unsafe {
                match x.rows - first {
                    1 => rows::<D, 1, 2>(matrix, x, panel, first, around, out),
                    2 => rows::<D, 2, 2>(matrix, x, panel, first, around, out),
                    3 => rows::<D, 3, 2>(matrix, x, panel, first, around, out),
                    _ => rows::<D, 4, 2>(matrix, x, panel, first, around, out),
                }
            }
        }
    }
}

/// The outputs of one panel for the activation rows `first..first + M`, a group; `Q` quarters of the panel at a time.
///
/// # Safety
/// Nobody else uses the panel's columns of `out`.
#[inline(always)]
unsafe fn rows<D: Dot, const M: usize, const Q: usize>(
    matrix: &PackedMatrix,
    x: &Quantised,
    panel: usize,
    first: usize,
    around: &Around<'_>,
    out: &Shared<'_, f32>,
) {
    let (tiles, scales) = matrix.panel::<D::Tile>(panel);
    let (xs, _) = x.group(first, M).as_chunks::<M>();
    let mut sums = [[f32x4_splat(0.0); M]; 4];
    for ((tile, scales), x) in tiles.iter().zip(scales).zip(xs) {
        for (part, sums) in sums.as_chunks_mut::<Q>().0.iter_mut().enumerate() {
            let mut starts = [D::start(&x[0]); M];
            for (start, x) in starts.iter_mut().zip(x) {
                *start = D::start(x);
            }
            let mut dots = [starts; Q];
            for pair in 0..BLOCK / 8 {
                for q in 0..Q {
                    for (i, w) in D::pair(tile, pair, part * Q + q).into_iter().enumerate() {
                        for m in 0..M {
                            dots[q][m] = D::add(dots[q][m], w, &x[m], 2 * pair + i);
                        }
                    }
                }
            }
            for q in 0..Q {
                let scales = f16x4(&scales[(part * Q + q) * 4..]);
                for m in 0..M {
                    let scales = f32x4_mul(scales, f32x4_splat(x[m].scale));
                    let dots = f32x4_convert_i32x4(D::finish(dots[q][m]));
                    sums[q][m] = f32x4_add(sums[q][m], f32x4_mul(dots, scales));
                }
            }
        }
    }
    let [a, b, c, d] = sums;
    for m in 0..M {
        let mut lanes = [0.0; PANEL];
        F32x16([a[m], b[m], c[m], d[m]]).store(&mut lanes);
        // SAFETY: the caller gave us the panel alone.
        let (column, out) = unsafe { matrix.outputs(panel, first + m, out) };
        twin::finish(&lanes, around, column, out);
    }
}

/// Reads from every cache line of a panel's scales.
#[inline(always)]
fn touch(scales: &[[u16; PANEL]]) {
    let mut all = 0;
    for scales in scales.iter().step_by(2) {
        all |= scales[0];
    }
    black_box(all);
}

/// Four f16 that are finite: see [`f32_from_f16`](super::matrix::f32_from_f16).
#[inline(always)]
fn f16x4(bits: &[u16]) -> v128 {
    let bits: &[u16; 4] = bits.first_chunk().expect("a quarter of a panel has 4 scales");
    // SAFETY: 8 bytes; loads need no alignment.
    let bits = unsafe { i32x4_load_extend_i16x4(bits.as_ptr().cast()) };
    f32x4_mul(v128_and(i32x4_shl(bits, 13), u32x4_splat(F16_PLACES)), f32x4_splat(F16_BIAS))
}

#[inline(always)]
fn quantise_with<D: Dot8>(x: &[f32], blocks: &mut [Block], step: usize) {
    super::scalar::quantise(x, blocks, step);
    for block in blocks.iter_mut().step_by(step).take(x.len() / BLOCK) {
        D::spread(block);
    }
}

/// The functions of one way to multiply.
macro_rules! way {
    ($name:ident, $dot:ty) => {
        pub(crate) mod $name {
            use super::*;

            pub(crate) fn works() -> bool {
                <$dot>::works()
            }

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
                    match matrix.bits() {
                        Bits::Eight => matmul_with::<$dot>(matrix, x, panels, around, out),
                        Bits::Four => matmul_q4(matrix, x, panels, around, out),
                    }
                }
            }

            pub(crate) fn quantise(x: &[f32], blocks: &mut [Block], step: usize) {
                quantise_with::<$dot>(x, blocks, step);
            }

            pub(crate) use super::super::scalar::{pack_columns, pack_columns_q4, pack_row, pack_row_q4};
            pub(crate) use super::twin::*;
        }
    };
}

way!(plain, Plain);
#[cfg(target_feature = "relaxed-simd")]
way!(signed7, Signed7);
#[cfg(target_feature = "relaxed-simd")]
way!(unsigned8, Unsigned8);
#[cfg(target_feature = "relaxed-simd")]
way!(signed8, Signed8);

/// 16 lanes in four registers.
#[derive(Clone, Copy)]
pub(crate) struct F32x16([v128; 4]);

impl F32x16 {
    #[inline(always)]
    fn with(self, other: Self, f: impl Fn(v128, v128) -> v128) -> Self {
        let (a, b) = (self.0, other.0);
        Self([f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])])
    }
}

impl Lanes for F32x16 {
    const KEPT: usize = 2;
    const REGISTERS: usize = 4;
    type Wide = [v128; 8];

    #[inline(always)]
    fn wide_zero() -> Self::Wide {
        [f64x2_splat(0.0); 8]
    }

    #[inline(always)]
    fn add_to(self, mut sums: Self::Wide) -> Self::Wide {
        for (four, sums) in self.0.into_iter().zip(sums.as_chunks_mut::<2>().0) {
            let high = i32x4_shuffle::<2, 3, 2, 3>(four, four);
            sums[0] = f64x2_add(sums[0], f64x2_promote_low_f32x4(four));
            sums[1] = f64x2_add(sums[1], f64x2_promote_low_f32x4(high));
        }
        sums
    }

    #[inline(always)]
    fn wide_store(sums: Self::Wide) -> [f64; LANES] {
        let mut lanes = [0.0; LANES];
        for (lanes, sums) in lanes.as_chunks_mut::<2>().0.iter_mut().zip(sums) {
            // SAFETY: the array has the 16 bytes of a register.
            unsafe { v128_store(lanes.as_mut_ptr().cast(), sums) };
        }
        lanes
    }

    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self([f32x4_splat(x); 4])
    }

    #[inline(always)]
    fn load(x: &[f32; LANES]) -> Self {
        // SAFETY: each load is of 4 of the 16 elements.
        Self(from_fn(|i| unsafe { v128_load(x.as_ptr().add(4 * i).cast()) }))
    }

    #[inline(always)]
    fn store(self, out: &mut [f32; LANES]) {
        for (i, x) in self.0.into_iter().enumerate() {
            // SAFETY: each store is of 4 of the 16 elements.
            unsafe { v128_store(out.as_mut_ptr().add(4 * i).cast(), x) };
        }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.with(other, |a, b| f32x4_add(a, b))
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.with(other, |a, b| f32x4_sub(a, b))
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.with(other, |a, b| f32x4_mul(a, b))
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self.with(other, |a, b| f32x4_div(a, b))
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        self.with(other, |a, b| if RELAXED { v128_bitselect(a, b, f32x4_lt(a, b)) } else { f32x4_pmin(b, a) })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.with(other, |a, b| if RELAXED { v128_bitselect(a, b, f32x4_gt(a, b)) } else { f32x4_pmax(b, a) })
    }

    #[inline(always)]
    fn zero_below(self, limit: Self, value: Self) -> Self {
        let below = self.with(limit, |a, b| f32x4_lt(a, b));
        value.with(below, |a, b| v128_andnot(a, b))
    }

    #[inline(always)]
    fn powers(self) -> (Self, Self) {
        let power = |n| i32x4_shl(i32x4_add(n, i32x4_splat(127)), 23);
        let n = self.0.map(|n| i32x4_sub(n, i32x4_splat(ROUND.to_bits() as i32)));
        let half = n.map(|n| i32x4_shr(n, 1));
        (Self(half.map(power)), Self(from_fn(|i| power(i32x4_sub(n[i], half[i])))))
    }

    #[inline(always)]
    fn fold4(values: [Self; 4]) -> [f32; 4] {
        // 16 lanes to 8 to 4, each.
        let [a, b, c, d] = values.map(|v| f32x4_add(f32x4_add(v.0[0], v.0[2]), f32x4_add(v.0[1], v.0[3])));
        // 4 to 2: [a a b b] and [c c d d].
        let halves = |x, y| f32x4_add(i32x4_shuffle::<0, 1, 4, 5>(x, y), i32x4_shuffle::<2, 3, 6, 7>(x, y));
        let (ab, cd) = (halves(a, b), halves(c, d));
        // 2 to 1.
        let sums = f32x4_add(i32x4_shuffle::<0, 2, 4, 6>(ab, cd), i32x4_shuffle::<1, 3, 5, 7>(ab, cd));
        let mut out = [0.0; 4];
        // SAFETY: `out` has the 16 bytes of a register.
        unsafe { v128_store(out.as_mut_ptr().cast(), sums) };
        out
    }
}

mod twin {
    super::twins!(super::F32x16);
}
