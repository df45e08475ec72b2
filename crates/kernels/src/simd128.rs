//! WebAssembly's 128-bit SIMD, plain and relaxed.
//!
//! As in [`avx512`](super::avx512), but a group of a panel fills four registers, a *quarter* of 4 rows each, and there are
//! 16 registers on most machines, whatever WebAssembly promises. How 8-bit numbers are multiplied depends on what the
//! build and the engine have:
//!
//! 1. [`Plain`]: `i32x4.dot_i16x8` on weights and activations widened to 16 bits. A register of 8 widened weights is two
//!    rows of 4 columns, so each row's sum comes in two lanes, which are added once a block.
//! 2. Relaxed SIMD's dot products multiply 16 weights at once, but their second operand has only 7 bits for sure.
//!    [`Signed7`] passes `|x|` (0..=127) there and moves the sign of `x` to the weights: `w ^ s` with `s` 0 or -1, which is
//!    `w` or `-w - 1`, so the sum begins with the magnitudes of the negative activations. Exact on every engine. Of the
//!    two instructions it takes the one with sums of 16 bits: V8 makes the other of several where a processor has no such
//!    instruction, and where one has, one of the next two ways is at hand.
//! 3. What an engine does with an eighth bit is its choice, but always the same one. [`Unsigned8`] is for those that take
//!    it as a value (x86 with VNNI): weights plus 128, as in AVX-512. [`Signed8`] is for those that take it as a sign
//!    (ARM's `sdot`): weights as they are. [`Dot8::works`] tries them out on extreme operands before they are used.
//!
//! 4-bit weights lie there plus 8, in 0..16, which is within 7 bits: [`Nibbles`] is exact on every engine without any of
//! this, and [`NibblePairs`] where an engine lacks sums of 32 bits. Without relaxed SIMD they are masked and shifted into 16
//! bits, so that each row's sum comes in one lane.
//!
//! What a compiler makes of it decides the speed, and there are two of them. In straight-line code LLVM moves every
//! product of a sum behind the last operand, and V8 then keeps dozens of operands on the stack: so the groups of a tile
//! are a loop, whose sums it cannot move ([`dots`]), of a length that it does not know ([`Hidden`]). Two groups in one turn
//! are parted by an exit that nobody takes, since it moves nothing across a branch; with four V8's code was slower. Its
//! pass that makes addresses cheaper (`loop-reduce`) costs an addition for each load here, since V8 adds constants for
//! nothing; the engine's builds turn it off. V8 makes constants anew in each turn, unless they come from memory.
//!
//! What is loaded to be broadcast costs V8 two instructions, since it adds up the address first; whole registers are
//! loaded by one. So [`Signed7`], which broadcasts twice for each row, holds the sums of two rows with all quarters, and
//! the others those of four rows with some.
//!
//! A single row of activations waits for memory, and WebAssembly cannot ask for it ahead. The processor fetches streams
//! that it sees, up to the end of a page: so [`row`] goes through four panels side by side, and reads their scales, of
//! which only every second tile needs a new line, before their weights. Loads from the next page, as a request for it,
//! made it slower: what waits for them holds up everything behind.
//!
//! Activations are stored in the form that each way loads with one broadcast.

use super::Around;
use super::attention_i16::{Pairs, Row};
use super::lanes::{Lanes, twins};
use super::math::ROUND;
use super::matrix::{BLOCK, F16_BIAS, F16_PLACES, PANEL, PackedMatrix, Packing, Stored, Tile, TileQ4};
use super::pool::Shared;
use super::quantised::{Block, Quantised};
use super::scalar::LANES;
use std::arch::wasm32::*;
use std::array::from_fn;
use std::hint::black_box;
use std::mem::offset_of;
use std::ops::Range;

/// `pmin(a, b)` is `b < a ? b : a`: x86's minimum with the operands exchanged, one instruction there. But LLVM makes it a
/// `relaxed_min` where relaxed SIMD is allowed, which on x86 loses a NaN and on ARM orders zeros by their signs. There a
/// comparison and a selection are written out, which it leaves alone.
const RELAXED: bool = cfg!(target_feature = "relaxed-simd");

/// A way to multiply weights with 8-bit activations.
trait Dot {
    /// How the weights are stored.
    type Tile: Stored;
    /// 4 rows of 4 columns of weights, made ready once for all activations.
    type Weights: Copy;
    /// 4 activations, made ready once for all weights.
    type Activations: Copy;
    /// The sums of 4 rows.
    type Sums: Copy;

    /// Groups of 4 columns that a register of weights holds.
    const GROUPS: usize = 1;
    /// Where a block's activations begin, in bytes, and how many 4 of them take.
    const ACTIVATIONS: (usize, usize) = (offset_of!(Block, q), 4);
    /// Rows of activations that are multiplied together.
    const ROWS: usize = 4;
    /// Quarters whose sums, with those of 4 rows of activations, can be held at once.
    const QUARTERS: usize = 2;
    /// Copies of the loop's body in one turn.
    const UNROLLED: usize = 2;

    /// A number that every product needs.
    fn constant() -> v128;
    fn start(x: &Block) -> Self::Sums;
    /// The weights of a group.
    ///
    /// # Safety
    /// `at` is a register of a tile; `group` is below `GROUPS`.
    unsafe fn weights(at: *const v128, group: usize, constant: v128) -> Self::Weights;
    /// # Safety
    /// `at` is a group's activations, as `ACTIVATIONS` says.
    unsafe fn activations(at: *const u8) -> Self::Activations;
    /// Adds the products of 4 columns.
    fn add(sums: Self::Sums, w: Self::Weights, x: Self::Activations, constant: v128) -> Self::Sums;
    /// The dot products with `x`, or with a span that begins with it.
    fn finish(sums: Self::Sums, x: &Block) -> v128;
}

/// A way to multiply 8-bit weights.
trait Dot8: Dot<Tile = Tile> {
    /// Stores the activations as `activations` wants them, and as `first` what `start` does.
    fn spread(x: &mut Block);

    /// Whether this engine gives exact results, tried on operands at the ends of their ranges.
    fn works() -> bool {
        let ends = [-127, 127, -127, -127, 1, 127, -1, 0, 127, 127, 126, 127, -126, -127, 127, -1];
        (0..16).all(|shift| {
            let q = from_fn(|i| ends[(i * 5 + shift) % 16]);
            let excess = -128 * q.iter().map(|q| i32::from(*q)).sum::<i32>();
            let mut x = Block { q, excess, ..Block::ZERO };
            Self::spread(&mut x);
            let mut tile = Tile([[0; PANEL]; BLOCK / 4]);
            let mut expected = [0; 4];
            for (group, q) in q.as_chunks::<4>().0.iter().enumerate() {
                let w: [i8; 16] = from_fn(|i| ends[(i * 3 + group + shift) % 16]);
                for (row, w) in w.as_chunks::<4>().0.iter().enumerate() {
                    tile.0[group][row] = i32::from_le_bytes(w.map(|w| w as u8));
                    expected[row] += w.iter().zip(q).map(|(w, q)| i32::from(*w) * i32::from(*q)).sum::<i32>();
                }
            }
            let mut got = [0; 4];
            // SAFETY: the first quarter of a tile, and a block; `got` has the 16 bytes of a register.
            unsafe {
                let [[[dots]]] =
                    dots::<Self, 1, 1, 1>([(&raw const tile).cast()], &raw const x, Hidden::new::<Self>(1));
                v128_store(got.as_mut_ptr().cast(), Self::finish(dots, &x));
            }
            got == expected
        })
    }
}

/// What compilers shall not know, or they would unroll the loops that it steers.
#[derive(Clone, Copy)]
struct Hidden {
    /// Bytes of a tile.
    tile: usize,
    /// Bytes of the tiles that share their scales.
    span: usize,
    /// Bytes of a group's blocks for a tile.
    group: usize,
    /// 0.
    zero: usize,
    /// [`Dot::constant`].
    constant: v128,
    /// [`F16_PLACES`] and [`F16_BIAS`].
    f16: [v128; 2],
}

impl Hidden {
    fn new<D: Dot + ?Sized>(span: usize) -> Self {
        black_box(Self {
            tile: size_of::<D::Tile>(),
            span: size_of::<D::Tile>() * span,
            group: size_of::<Block>(),
            zero: 0,
            constant: D::constant(),
            f16: [u32x4_splat(F16_PLACES), f32x4_splat(F16_BIAS)],
        })
    }
}

/// The dot products of `Q` quarters of each of `P` spans of tiles, the first ones at `quarters`, with each of `M` spans of
/// activations.
///
/// # Safety
/// Each of `quarters` lies in the first `D::Tile` of a span, which has `Q` quarters from there on; at `x` there are `M`
/// blocks for each tile, `hidden.group` bytes after those for the tile before.
#[inline(always)]
unsafe fn dots<D: Dot + ?Sized, const P: usize, const Q: usize, const M: usize>(
    quarters: [*const v128; P],
    x: *const Block,
    hidden: Hidden,
) -> [[[D::Sums; M]; Q]; P] {
    let (first, step) = D::ACTIVATIONS;
    // Other numbers of rows are what is left over.
    let copies = if P > 1 || M == D::ROWS { D::UNROLLED } else { 1 };
    // SAFETY: the caller's promises, and as many activations as a tile has columns.
    unsafe {
        let mut dots = [[from_fn(|m| D::start(&*x.add(m))); Q]; P];
        let (mut at, mut x) = (quarters, x.cast::<u8>().add(first));
        let (mut end, last) = (at[0].byte_add(hidden.tile), at[0].byte_add(hidden.span));
        loop {
            while at[0] != end {
                for copy in 0..copies {
                    if copy > 0 && hidden.zero != 0 {
                        break;
                    }
                    for group in 0..D::GROUPS {
                        for (at, dots) in at.iter().zip(&mut dots) {
                            let w: [_; Q] =
                                from_fn(|q| D::weights(at.add(4 * copy + q), group, hidden.constant));
                            for m in 0..M {
                                let group = copy * D::GROUPS + group;
                                let x = D::activations(x.add(m * size_of::<Block>() + group * step));
                                for (w, dots) in w.iter().zip(&mut *dots) {
                                    dots[m] = D::add(dots[m], *w, x, hidden.constant);
                                }
                            }
                        }
                    }
                }
                for at in &mut at {
                    *at = at.add(4 * copies);
                }
                x = x.add(step * D::GROUPS * copies);
            }
            if end == last {
                break;
            }
            end = end.byte_add(hidden.tile);
            // From behind a block's activations to those of the next one.
            x = x.add(hidden.group - BLOCK / 4 * step);
        }
        dots
    }
}

/// Four bytes from `at` on, four times.
///
/// # Safety
/// There are 4 bytes.
#[inline(always)]
unsafe fn load4(at: *const u8) -> v128 {
    // SAFETY: the caller's promise; loads need no alignment.
    unsafe { v128_load32_splat(at.cast()) }
}

/// `i32x4.dot_i16x8`.
#[cfg(any(not(target_feature = "relaxed-simd"), feature = "scalar", test))]
pub(crate) struct Plain;

#[cfg(any(not(target_feature = "relaxed-simd"), feature = "scalar", test))]
impl Dot for Plain {
    type Tile = Tile;
    type Weights = [v128; 2];
    type Activations = v128;
    type Sums = [v128; 2];

    const ACTIVATIONS: (usize, usize) = (offset_of!(Block, spread), 8);
    const QUARTERS: usize = 1;

    fn constant() -> v128 {
        i32x4_splat(0)
    }

    #[inline(always)]
    fn start(_: &Block) -> [v128; 2] {
        [i32x4_splat(0); 2]
    }

    #[inline(always)]
    unsafe fn weights(at: *const v128, _: usize, _: v128) -> [v128; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let at = at.cast::<i8>();
            [i16x8_load_extend_i8x8(at), i16x8_load_extend_i8x8(at.add(8))]
        }
    }

    #[inline(always)]
    unsafe fn activations(at: *const u8) -> v128 {
        // SAFETY: the caller's promise.
        unsafe { v128_load64_splat(at.cast()) }
    }

    #[inline(always)]
    fn add(sums: [v128; 2], w: [v128; 2], x: v128, _: v128) -> [v128; 2] {
        [i32x4_add(sums[0], i32x4_dot_i16x8(w[0], x)), i32x4_add(sums[1], i32x4_dot_i16x8(w[1], x))]
    }

    #[inline(always)]
    fn finish(sums: [v128; 2], _: &Block) -> v128 {
        let even = i32x4_shuffle::<0, 2, 4, 6>(sums[0], sums[1]);
        i32x4_add(even, i32x4_shuffle::<1, 3, 5, 7>(sums[0], sums[1]))
    }
}

#[cfg(any(not(target_feature = "relaxed-simd"), feature = "scalar", test))]
impl Dot8 for Plain {
    fn spread(x: &mut Block) {
        let [a, b] = load_all(&x.q);
        let wide = [
            i16x8_extend_low_i8x16(a),
            i16x8_extend_high_i8x16(a),
            i16x8_extend_low_i8x16(b),
            i16x8_extend_high_i8x16(b),
        ];
        for (to, wide) in x.spread.as_chunks_mut::<16>().0.iter_mut().zip(wide) {
            // SAFETY: 16 bytes; stores need no alignment.
            unsafe { v128_store(to.as_mut_ptr().cast(), wide) };
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
    type Activations = [v128; 2];
    type Sums = v128;

    const ACTIVATIONS: (usize, usize) = (offset_of!(Block, spread), 4);

    const ROWS: usize = 2;

    fn constant() -> v128 {
        i16x8_splat(1)
    }

    #[inline(always)]
    fn start(x: &Block) -> v128 {
        i32x4_splat(x.first)
    }

    #[inline(always)]
    unsafe fn weights(at: *const v128, _: usize, _: v128) -> v128 {
        // SAFETY: the caller's promise.
        unsafe { v128_load(at) }
    }

    #[inline(always)]
    unsafe fn activations(at: *const u8) -> [v128; 2] {
        // SAFETY: the caller's promise.
        unsafe { [load4(at), load4(at.add(BLOCK))] }
    }

    #[inline(always)]
    fn add(sums: v128, w: v128, [magnitude, sign]: [v128; 2], ones: v128) -> v128 {
        let pairs = i16x8_relaxed_dot_i8x16_i7x16(v128_xor(w, sign), magnitude);
        i32x4_add(sums, i32x4_dot_i16x8(pairs, ones))
    }

    #[inline(always)]
    fn finish(sums: v128, _: &Block) -> v128 {
        sums
    }
}

#[cfg(target_feature = "relaxed-simd")]
impl Dot8 for Signed7 {
    fn spread(x: &mut Block) {
        let q = load_all(&x.q);
        let forms = q.map(|q| i8x16_abs(q)).into_iter().chain(q.map(|q| i8x16_shr(q, 7)));
        for (to, form) in x.spread.as_chunks_mut::<16>().0.iter_mut().zip(forms) {
            // SAFETY: 16 bytes; stores need no alignment.
            unsafe { v128_store(to.as_mut_ptr().cast(), form) };
        }
        x.first = sum(q.map(|q| i8x16_abs(i8x16_min(q, i8x16_splat(0)))));
    }
}

/// Relaxed dot product on an engine that takes all 8 bits of the second operand as a value.
#[cfg(target_feature = "relaxed-simd")]
pub(crate) struct Unsigned8;

#[cfg(target_feature = "relaxed-simd")]
impl Dot for Unsigned8 {
    type Tile = Tile;
    type Weights = v128;
    type Activations = v128;
    type Sums = v128;

    fn constant() -> v128 {
        i8x16_splat(-128)
    }

    #[inline(always)]
    fn start(x: &Block) -> v128 {
        i32x4_splat(x.excess)
    }

    #[inline(always)]
    unsafe fn weights(at: *const v128, _: usize, flip: v128) -> v128 {
        // SAFETY: the caller's promise.
        v128_xor(unsafe { v128_load(at) }, flip)
    }

    #[inline(always)]
    unsafe fn activations(at: *const u8) -> v128 {
        // SAFETY: the caller's promise.
        unsafe { load4(at) }
    }

    #[inline(always)]
    fn add(sums: v128, w: v128, x: v128, _: v128) -> v128 {
        i32x4_relaxed_dot_i8x16_i7x16_add(x, w, sums)
    }

    #[inline(always)]
    fn finish(sums: v128, _: &Block) -> v128 {
        sums
    }
}

#[cfg(target_feature = "relaxed-simd")]
impl Dot8 for Unsigned8 {
    fn spread(_: &mut Block) {}
}

/// Relaxed dot product on an engine that takes the second operand as signed.
#[cfg(target_feature = "relaxed-simd")]
pub(crate) struct Signed8;

#[cfg(target_feature = "relaxed-simd")]
impl Dot for Signed8 {
    type Tile = Tile;
    type Weights = v128;
    type Activations = v128;
    type Sums = v128;

    fn constant() -> v128 {
        i32x4_splat(0)
    }

    #[inline(always)]
    fn start(_: &Block) -> v128 {
        i32x4_splat(0)
    }

    #[inline(always)]
    unsafe fn weights(at: *const v128, _: usize, _: v128) -> v128 {
        // SAFETY: the caller's promise.
        unsafe { v128_load(at) }
    }

    #[inline(always)]
    unsafe fn activations(at: *const u8) -> v128 {
        // SAFETY: the caller's promise.
        unsafe { Unsigned8::activations(at) }
    }

    #[inline(always)]
    fn add(sums: v128, w: v128, x: v128, constant: v128) -> v128 {
        Unsigned8::add(sums, w, x, constant)
    }

    #[inline(always)]
    fn finish(sums: v128, _: &Block) -> v128 {
        sums
    }
}

#[cfg(target_feature = "relaxed-simd")]
impl Dot8 for Signed8 {
    fn spread(_: &mut Block) {}
}

/// 4-bit weights by the build's best way; all of them are exact on every engine.
struct Nibbles;

/// `i32x4.dot_i16x8` of 4-bit weights.
#[cfg(not(target_feature = "relaxed-simd"))]
impl Dot for Nibbles {
    type Tile = TileQ4;
    /// The even columns of 4 rows, and the odd ones.
    type Weights = [v128; 2];
    type Activations = [v128; 2];
    type Sums = v128;

    const GROUPS: usize = 2;
    const QUARTERS: usize = 1;
    const UNROLLED: usize = 1;

    fn constant() -> v128 {
        i16x8_splat(15)
    }

    #[inline(always)]
    fn start(x: &Block) -> v128 {
        i32x4_splat(x.excess / 16)
    }

    #[inline(always)]
    unsafe fn weights(at: *const v128, group: usize, low: v128) -> [v128; 2] {
        // SAFETY: the caller's promise.
        let both = unsafe { v128_load(at) };
        let shift = 4 * group as u32;
        [v128_and(u16x8_shr(both, shift), low), v128_and(u16x8_shr(both, shift + 8), low)]
    }

    #[inline(always)]
    unsafe fn activations(at: *const u8) -> [v128; 2] {
        // SAFETY: the caller's promise.
        let x = unsafe { load4(at) };
        [i16x8_shr(i16x8_shl(x, 8), 8), i16x8_shr(x, 8)]
    }

    #[inline(always)]
    fn add(sums: v128, w: [v128; 2], x: [v128; 2], _: v128) -> v128 {
        i32x4_add(sums, i32x4_add(i32x4_dot_i16x8(w[0], x[0]), i32x4_dot_i16x8(w[1], x[1])))
    }

    #[inline(always)]
    fn finish(sums: v128, _: &Block) -> v128 {
        sums
    }
}

/// Relaxed dot product of 4-bit weights, which have the operand of 7 bits.
#[cfg(target_feature = "relaxed-simd")]
impl Dot for Nibbles {
    type Tile = TileQ4;
    type Weights = v128;
    type Activations = v128;
    type Sums = v128;

    const GROUPS: usize = 2;
    const UNROLLED: usize = 1;

    fn constant() -> v128 {
        u8x16_splat(15)
    }

    #[inline(always)]
    fn start(x: &Block) -> v128 {
        i32x4_splat(x.excess / 16)
    }

    #[inline(always)]
    unsafe fn weights(at: *const v128, group: usize, low: v128) -> v128 {
        // SAFETY: the caller's promise.
        let both = unsafe { v128_load(at) };
        // A shift of 16 bits, since a machine has none of 8.
        v128_and(if group == 0 { both } else { u16x8_shr(both, 4) }, low)
    }

    #[inline(always)]
    unsafe fn activations(at: *const u8) -> v128 {
        // SAFETY: the caller's promise.
        unsafe { Unsigned8::activations(at) }
    }

    #[inline(always)]
    fn add(sums: v128, w: v128, x: v128, constant: v128) -> v128 {
        Unsigned8::add(sums, w, x, constant)
    }

    #[inline(always)]
    fn finish(sums: v128, _: &Block) -> v128 {
        sums
    }
}

/// Relaxed dot product of 4-bit weights with sums of 16 bits, for engines that make the one with sums of 32 of several. A
/// pair is at most `2 * 15 * 127`, so that the 8 of a block add up in 16 bits, and are widened once.
#[cfg(target_feature = "relaxed-simd")]
struct NibblePairs;

#[cfg(target_feature = "relaxed-simd")]
impl Dot for NibblePairs {
    type Tile = TileQ4;
    type Weights = v128;
    type Activations = v128;
    type Sums = v128;

    const GROUPS: usize = 2;
    const UNROLLED: usize = 1;

    fn constant() -> v128 {
        Nibbles::constant()
    }

    #[inline(always)]
    fn start(_: &Block) -> v128 {
        i16x8_splat(0)
    }

    #[inline(always)]
    unsafe fn weights(at: *const v128, group: usize, low: v128) -> v128 {
        // SAFETY: the caller's promise.
        unsafe { Nibbles::weights(at, group, low) }
    }

    #[inline(always)]
    unsafe fn activations(at: *const u8) -> v128 {
        // SAFETY: the caller's promise.
        unsafe { Nibbles::activations(at) }
    }

    #[inline(always)]
    fn add(sums: v128, w: v128, x: v128, _: v128) -> v128 {
        i16x8_add(sums, i16x8_relaxed_dot_i8x16_i7x16(x, w))
    }

    #[inline(always)]
    fn finish(sums: v128, x: &Block) -> v128 {
        i32x4_add(i32x4_extadd_pairwise_i16x8(sums), i32x4_splat(x.excess / 16))
    }
}

/// [`matmul_with`] in a function of its own, since ways share it.
///
/// # Safety
/// Nobody else uses the columns of `out` that belong to `panels`.
unsafe fn matmul_q4<D: Dot<Tile = TileQ4>>(
    matrix: &PackedMatrix,
    x: &Quantised,
    panels: Range<usize>,
    around: &Around<'_>,
    out: &Shared<'_, f32>,
) {
    // SAFETY: the caller's promise.
    unsafe { matmul_with::<D>(matrix, x, panels, around, out) }
}

/// A single row of activations goes through so many pairs of panels side by side.
const PAIRS: usize = 2;

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
    let hidden = Hidden::new::<D>(matrix.packing().span());
    let mut panel = panels.start;
    // SAFETY: the caller's promise.
    unsafe {
        if x.rows == 1 {
            while panel + 2 * PAIRS <= panels.end {
                row::<D, PAIRS, 2>(matrix, x, panel, around, out, hidden);
                panel += 2 * PAIRS;
            }
        }
        for panel in panel..panels.end {
            for first in (0..x.rows).step_by(4) {
                let group = first..x.rows.min(first + 4);
                let mut rows = group.clone();
                if rows.len() == 4 && D::ROWS == 4 {
                    panel_of::<D, 4>(matrix, x, panel, &group, rows, around, out, hidden);
                    continue;
                }
                if rows.len() > 1 {
                    let pairs = rows.start..rows.end - rows.len() % 2;
                    rows.start = pairs.end;
                    panel_of::<D, 2>(matrix, x, panel, &group, pairs, around, out, hidden);
                }
                if !rows.is_empty() {
                    panel_of::<D, 1>(matrix, x, panel, &group, rows, around, out, hidden);
                }
            }
        }
    }
}

/// The outputs of the panels from `first` on for a single row of activations: `N` times `P` panels. Of `P` panels each
/// group of columns is multiplied before the next, of the others each block.
///
/// # Safety
/// Nobody else uses the panels' columns of `out`.
#[inline(always)]
unsafe fn row<D: Dot, const N: usize, const P: usize>(
    matrix: &PackedMatrix,
    x: &Quantised,
    first: usize,
    around: &Around<'_>,
    out: &Shared<'_, f32>,
    hidden: Hidden,
) {
    let panels: [[_; P]; N] = from_fn(|n| from_fn(|p| matrix.panel::<D::Tile>(first + n * P + p)));
    for (_, scales) in panels.as_flattened() {
        touch(scales);
    }
    let span = matrix.packing().span();
    let mut sums = [[[f32x4_splat(0.0); 4]; P]; N];
    for (i, x) in x.group(0, 1).chunks_exact(span).enumerate() {
        for (panels, sums) in panels.iter().zip(&mut sums) {
            let tiles = panels.map(|(tiles, _)| tiles[i * span..][..span].as_ptr().cast());
            // SAFETY: whole spans of tiles, and one of activations.
            let dots = unsafe { dots::<D, P, 4, 1>(tiles, x.as_ptr(), hidden) };
            for (((_, scales), sums), dots) in panels.iter().zip(sums).zip(dots) {
                for ((sum, [dots]), scales) in sums.iter_mut().zip(dots).zip(scales[i].as_chunks::<4>().0) {
                    *sum = add_scaled(*sum, D::finish(dots, &x[0]), f16x4(scales, hidden.f16), x[0].scale);
                }
            }
        }
    }
    for (panel, sums) in (first..).zip(sums.as_flattened()) {
        // SAFETY: the caller gave us the panels alone.
        let (column, out) = unsafe { matrix.outputs(panel, 0, out) };
        finish(*sums, around, column, out);
    }
}

/// The outputs of one panel for `rows` of a group of activations, `M` at a time.
///
/// # Safety
/// Nobody else uses the panel's columns of `out`; `M` divides the number of rows, of which the group has 4 at most.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "what a product needs, and which part of it")]
unsafe fn panel_of<D: Dot, const M: usize>(
    matrix: &PackedMatrix,
    x: &Quantised,
    panel: usize,
    group: &Range<usize>,
    rows: Range<usize>,
    around: &Around<'_>,
    out: &Shared<'_, f32>,
    hidden: Hidden,
) {
    let (tiles, scales) = matrix.panel::<D::Tile>(panel);
    let span = matrix.packing().span();
    let hidden = Hidden { group: size_of::<Block>() * group.len(), ..hidden };
    let xs = x.group(group.start, group.len()).chunks_exact(group.len() * span);
    let mut sums = [[[f32x4_splat(0.0); M]; 4]; 2];
    let sums = &mut sums[..rows.len() / M];
    for ((tiles, scales), xs) in tiles.chunks_exact(span).zip(scales).zip(xs) {
        let mut x = xs[rows.start - group.start..].as_ptr();
        for sums in &mut *sums {
            // SAFETY: a whole span of tiles, and spans of `M` rows of activations.
            unsafe {
                match D::QUARTERS * 4 / M {
                    1 => add_dots::<D, M, 1>(tiles, scales, x, sums, hidden),
                    2 => add_dots::<D, M, 2>(tiles, scales, x, sums, hidden),
                    _ => add_dots::<D, M, 4>(tiles, scales, x, sums, hidden),
                }
                x = x.add(M);
            }
        }
    }
    for (m, row) in rows.enumerate() {
        // SAFETY: the caller gave us the panel alone.
        let (column, out) = unsafe { matrix.outputs(panel, row, out) };
        finish(sums[m / M].map(|rows| rows[m % M]), around, column, out);
    }
}

/// Adds the products of a span of tiles with `M` of activations to the sums, `Q` quarters at a time.
///
/// # Safety
/// `Q` divides 4; there are a span of tiles and `M` spans of activations, `hidden.group` bytes from block to block.
#[inline(always)]
unsafe fn add_dots<D: Dot, const M: usize, const Q: usize>(
    tiles: &[D::Tile],
    scales: &[u16; PANEL],
    mut x: *const Block,
    sums: &mut [[v128; M]; 4],
    hidden: Hidden,
) {
    let tile = tiles.as_ptr().cast::<v128>();
    let mut first = 0;
    while first < 4 {
        // SAFETY: the caller's promises; `first` is below 4; and `x` is where it was.
        unsafe {
            let [dots] = dots::<D, 1, Q, M>([tile.add(first)], x, hidden);
            for (q, dots) in (first..).zip(dots) {
                let scales = f16x4(scales.as_chunks::<4>().0.get_unchecked(q), hidden.f16);
                for (m, (sum, dots)) in sums.get_unchecked_mut(q).iter_mut().zip(dots).enumerate() {
                    let x = &*x.add(m);
                    *sum = add_scaled(*sum, D::finish(dots, x), scales, x.scale);
                }
            }
            if Q == 4 {
                return;
            }
            // Else the activations of all groups would be loaded before the loop, and kept on the stack.
            x = x.add(hidden.zero);
            first += hidden.zero + Q;
        }
    }
}

/// `sums + dots * (weights' scales * activations' scale)`.
#[inline(always)]
fn add_scaled(sums: v128, dots: v128, scales: v128, scale: f32) -> v128 {
    let scales = f32x4_mul(scales, f32x4_splat(scale));
    f32x4_add(sums, f32x4_mul(f32x4_convert_i32x4(dots), scales))
}

#[inline(always)]
fn finish(sums: [v128; 4], around: &Around<'_>, column: usize, out: &mut [f32]) {
    let mut lanes = [0.0; PANEL];
    F32x16(sums).store(&mut lanes);
    twin::finish(&lanes, around, column, out);
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
fn f16x4(bits: &[u16; 4], [places, bias]: [v128; 2]) -> v128 {
    // SAFETY: 8 bytes; loads need no alignment.
    let bits = unsafe { i32x4_load_extend_i16x4(bits.as_ptr().cast()) };
    f32x4_mul(v128_and(i32x4_shl(bits, 13), places), bias)
}

/// A block's 32 numbers.
#[inline(always)]
fn load_all(q: &[i8; BLOCK]) -> [v128; 2] {
    // SAFETY: twice 16 bytes; loads need no alignment.
    from_fn(|i| unsafe { v128_load(q.as_ptr().add(16 * i).cast()) })
}

/// The sum of 32 numbers.
#[inline(always)]
fn sum([a, b]: [v128; 2]) -> i32 {
    let pairs = i16x8_add(i16x8_extadd_pairwise_i8x16(a), i16x8_extadd_pairwise_i8x16(b));
    let four = i32x4_extadd_pairwise_i16x8(pairs);
    let two = i32x4_add(four, i32x4_shuffle::<2, 3, 2, 3>(four, four));
    i32x4_extract_lane::<0>(two) + i32x4_extract_lane::<1>(two)
}

/// [`scalar::quantise`](super::scalar::quantise), and what `D` wants of it.
#[inline(always)]
fn quantise_with<D: Dot8>(x: &[f32], span: usize, blocks: &mut [Block], step: usize) {
    // SAFETY: each load is of 4 of the 32 elements.
    let parts =
        |x: &[f32; BLOCK]| from_fn::<v128, 8, _>(|i| unsafe { v128_load(x.as_ptr().add(4 * i).cast()) });
    let (xs, _) = x.as_chunks::<BLOCK>();
    for (i, xs) in xs.chunks_exact(span).enumerate() {
        let magnitudes = xs.iter().flat_map(parts).map(|x| v128_and(x, i32x4_splat(0x7fff_ffff)));
        let highest = magnitudes.fold(i32x4_splat(0), |a, b| i32x4_max(a, b));
        let highest = i32x4_max(highest, i32x4_shuffle::<2, 3, 2, 3>(highest, highest));
        let highest = i32x4_extract_lane::<0>(highest).max(i32x4_extract_lane::<1>(highest));
        let at = i * span * step;
        let (mut excess, mut first) = (0, 0);
        for (x, block) in xs.iter().zip(blocks[at..].iter_mut().step_by(step)) {
            *block = Block::ZERO;
            let Some(inverse) = block.set_scale(highest.cast_unsigned()) else { continue };
            // Adding it rounds to the nearest integer, ties to even, and leaves that in the lowest bits.
            let integer = 12_582_912.0_f32;
            let q = parts(x).map(|x| {
                let rounded = f32x4_add(f32x4_mul(x, f32x4_splat(inverse)), f32x4_splat(integer));
                i32x4_sub(rounded, i32x4_splat(integer.to_bits().cast_signed()))
            });
            let narrow = |i: usize| {
                let half = |i: usize| i16x8_narrow_i32x4(q[i], q[i + 1]);
                i8x16_narrow_i16x8(half(i), half(i + 2))
            };
            let q = [narrow(0), narrow(4)];
            for (to, q) in block.q.as_chunks_mut::<16>().0.iter_mut().zip(q) {
                // SAFETY: 16 bytes; stores need no alignment.
                unsafe { v128_store(to.as_mut_ptr().cast(), q) };
            }
            D::spread(block);
            excess -= 128 * sum(q);
            first += block.first;
        }
        (blocks[at].excess, blocks[at].first) = (excess, first);
    }
}

/// The functions of one way to multiply.
macro_rules! way {
    ($name:ident, $dot:ty, $nibbles:ty) => {
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
                    match matrix.packing() {
                        Packing::Q8 | Packing::Q8By128 => matmul_with::<$dot>(matrix, x, panels, around, out),
                        Packing::Q4 => matmul_q4::<$nibbles>(matrix, x, panels, around, out),
                    }
                }
            }

            pub(crate) fn quantise(x: &[f32], span: usize, blocks: &mut [Block], step: usize) {
                quantise_with::<$dot>(x, span, blocks, step);
            }

            pub(crate) use super::super::scalar::{pack_columns, pack_columns_q4, pack_row, pack_row_q4};
            pub(crate) use super::twin::*;
        }
    };
}

#[cfg(any(not(target_feature = "relaxed-simd"), feature = "scalar", test))]
way!(plain, Plain, Nibbles);
#[cfg(target_feature = "relaxed-simd")]
way!(signed7, Signed7, NibblePairs);
#[cfg(target_feature = "relaxed-simd")]
way!(unsigned8, Unsigned8, Nibbles);
#[cfg(target_feature = "relaxed-simd")]
way!(signed8, Signed8, Nibbles);

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
    type Integers = [v128; 4];

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
    fn load_pairs(x: &Pairs) -> Self::Integers {
        // SAFETY: each load is of 4 of the 16 pairs.
        from_fn(|i| unsafe { v128_load(x.as_ptr().add(4 * i).cast()) })
    }

    #[inline(always)]
    fn splat_pair(pair: i32) -> Self::Integers {
        [i32x4_splat(pair); 4]
    }

    #[inline(always)]
    fn add_products(sums: Self::Integers, x: Self::Integers, y: Self::Integers) -> Self::Integers {
        from_fn(|i| i32x4_add(sums[i], i32x4_dot_i16x8(x[i], y[i])))
    }

    #[inline(always)]
    fn from_sums(sums: Self::Integers) -> Self {
        Self(sums.map(|sums| f32x4_convert_i32x4(sums)))
    }

    #[inline(always)]
    fn store_pairs(first: Self, second: Self, out: &mut Pairs) {
        for i in 0..4 {
            let (first, second) = (rounded(first.0[i]), rounded(second.0[i]));
            let pairs = v128_bitselect(i32x4_shl(second, 16), first, i32x4_splat(-65536));
            // SAFETY: each store is of 4 of the 16 pairs.
            unsafe { v128_store(out.as_mut_ptr().add(4 * i).cast(), pairs) };
        }
    }

    #[inline(always)]
    fn store_i16(self, out: &mut Row) {
        let [a, b, c, d] = self.0.map(|x| rounded(x));
        let halves = |x, y| i16x8_shuffle::<0, 2, 4, 6, 8, 10, 12, 14>(x, y);
        for (i, integers) in [halves(a, b), halves(c, d)].into_iter().enumerate() {
            // SAFETY: each store is of 4 of the 8 pairs.
            unsafe { v128_store(out.as_mut_ptr().add(4 * i).cast(), integers) };
        }
    }

    #[inline(always)]
    fn max_magnitude(self, other: Self) -> Self {
        self.with(other, |a, b| i32x4_max(a, f32x4_abs(b)))
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

/// The nearest integers, ties to even, in the lower half of each lane.
#[inline(always)]
fn rounded(x: v128) -> v128 {
    const { assert!(ROUND.to_bits() & 0xffff == 0) };
    f32x4_add(x, f32x4_splat(ROUND))
}

mod twin {
    super::twins!(super::F32x16);
}
