//! Ways to multiply 8-bit and 4-bit weights with 8-bit activations.
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
//! Activations are stored in the form that each way loads with one broadcast.

use super::super::matrix::{BLOCK, PANEL, Stored, Tile, TileQ4};
use super::super::quantised::Block;
use super::{Hidden, dots};
use std::arch::wasm32::*;
use std::array::from_fn;
use std::mem::offset_of;

/// A way to multiply weights with 8-bit activations.
pub(super) trait Dot {
    /// How the weights are stored.
    type Tile: Stored;
    /// 4 rows of 4 columns of weights, made ready once for all activations.
    type Weights: Copy;
    /// 4 activations, four times, in each form that is stored of them.
    type Forms: Registers;
    /// 4 activations, made ready once for all weights.
    type Activations: Copy;
    /// The sums of 4 rows.
    type Sums: Copy;

    /// Groups of 4 columns that a register of weights holds.
    const GROUPS: usize = 1;
    /// Where a block's activations begin, in bytes, and how many 4 of them take.
    const ACTIVATIONS: (usize, usize) = (offset_of!(Block, q), 4);
    /// Groups whose activations a register holds.
    const HELD: usize = 16 / Self::ACTIVATIONS.1;
    /// Rows of activations that are multiplied together.
    const ROWS: usize = 4;
    /// Quarters whose sums, with those of 4 rows of activations, can be held at once.
    const QUARTERS: usize = 2;

    /// A number that every product needs.
    fn constant() -> v128;
    fn start(x: &Block) -> Self::Sums;
    /// The weights of a group.
    ///
    /// # Safety
    /// `at` is a register of a tile; `group` is below `GROUPS`.
    unsafe fn weights(at: *const v128, group: usize, constant: v128) -> Self::Weights;
    /// Makes activations ready.
    fn activations(forms: Self::Forms) -> Self::Activations;
    /// Adds the products of 4 columns.
    fn add(sums: Self::Sums, w: Self::Weights, x: Self::Activations, constant: v128) -> Self::Sums;
    /// The dot products with `x`, or with a span that begins with it.
    fn finish(sums: Self::Sums, x: &Block) -> v128;

    /// A group's activations.
    ///
    /// # Safety
    /// They are at `at`, as `ACTIVATIONS` says.
    #[inline(always)]
    unsafe fn load(at: *const u8) -> Self::Activations {
        // SAFETY: the caller's promise; loads need no alignment.
        Self::activations(Self::Forms::of(|form| unsafe {
            let at = at.add(form * BLOCK);
            if Self::HELD == 4 { v128_load32_splat(at.cast()) } else { v128_load64_splat(at.cast()) }
        }))
    }

    /// The activations of `HELD` groups, as they are stored.
    ///
    /// # Safety
    /// They are at `at`.
    #[inline(always)]
    unsafe fn hold(at: *const u8) -> Self::Forms {
        // SAFETY: the caller's promise; loads need no alignment.
        Self::Forms::of(|form| unsafe { v128_load(at.add(form * BLOCK).cast()) })
    }

    /// The activations of the group `i` of those that are held.
    #[inline(always)]
    fn pick(held: Self::Forms, i: usize) -> Self::Activations {
        let pick = |held| match (Self::HELD, i) {
            (4, 0) => i32x4_shuffle::<0, 0, 0, 0>(held, held),
            (4, 1) => i32x4_shuffle::<1, 1, 1, 1>(held, held),
            (4, 2) => i32x4_shuffle::<2, 2, 2, 2>(held, held),
            (4, _) => i32x4_shuffle::<3, 3, 3, 3>(held, held),
            (_, 0) => i64x2_shuffle::<0, 0>(held, held),
            (_, _) => i64x2_shuffle::<1, 1>(held, held),
        };
        Self::activations(Self::Forms::of(|form| pick(held.form(form))))
    }
}

/// A register for each stored form of some activations.
pub(super) trait Registers: Copy {
    fn of(form: impl Fn(usize) -> v128) -> Self;
    fn form(self, form: usize) -> v128;
}

impl<const N: usize> Registers for [v128; N] {
    #[inline(always)]
    fn of(form: impl Fn(usize) -> v128) -> Self {
        from_fn(form)
    }

    #[inline(always)]
    fn form(self, form: usize) -> v128 {
        self[form]
    }
}

/// A way to multiply 8-bit weights.
pub(super) trait Dot8: Dot<Tile = Tile> {
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
                let [[[dots]]] = dots::<Self, 1, 1, 1, true>(
                    [(&raw const tile).cast()],
                    &raw const x,
                    [[[Self::start(&x)]]],
                    Hidden::new::<Self>(1),
                );
                v128_store(got.as_mut_ptr().cast(), Self::finish(dots, &x));
            }
            got == expected
        })
    }
}

/// A block's 32 numbers.
#[inline(always)]
fn load_all(q: &[i8; BLOCK]) -> [v128; 2] {
    // SAFETY: twice 16 bytes; loads need no alignment.
    from_fn(|i| unsafe { v128_load(q.as_ptr().add(16 * i).cast()) })
}

/// The sum of 32 numbers.
#[inline(always)]
pub(super) fn sum([a, b]: [v128; 2]) -> i32 {
    let pairs = i16x8_add(i16x8_extadd_pairwise_i8x16(a), i16x8_extadd_pairwise_i8x16(b));
    let four = i32x4_extadd_pairwise_i16x8(pairs);
    let two = i32x4_add(four, i32x4_shuffle::<2, 3, 2, 3>(four, four));
    i32x4_extract_lane::<0>(two) + i32x4_extract_lane::<1>(two)
}

/// `i32x4.dot_i16x8`.
#[cfg(any(not(target_feature = "relaxed-simd"), feature = "scalar", test))]
pub(super) struct Plain;

#[cfg(any(not(target_feature = "relaxed-simd"), feature = "scalar", test))]
impl Dot for Plain {
    type Tile = Tile;
    type Weights = [v128; 2];
    type Forms = [v128; 1];
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
    fn activations([x]: [v128; 1]) -> v128 {
        x
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
pub(super) struct Signed7;

#[cfg(target_feature = "relaxed-simd")]
impl Dot for Signed7 {
    type Tile = Tile;
    type Weights = v128;
    type Forms = [v128; 2];
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
    fn activations(forms: [v128; 2]) -> [v128; 2] {
        forms
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
pub(super) struct Unsigned8;

#[cfg(target_feature = "relaxed-simd")]
impl Dot for Unsigned8 {
    type Tile = Tile;
    type Weights = v128;
    type Forms = [v128; 1];
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
    fn activations([x]: [v128; 1]) -> v128 {
        x
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
pub(super) struct Signed8;

#[cfg(target_feature = "relaxed-simd")]
impl Dot for Signed8 {
    type Tile = Tile;
    type Weights = v128;
    type Forms = [v128; 1];
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
    fn activations([x]: [v128; 1]) -> v128 {
        x
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
pub(super) struct Nibbles;

/// `i32x4.dot_i16x8` of 4-bit weights.
#[cfg(not(target_feature = "relaxed-simd"))]
impl Dot for Nibbles {
    type Tile = TileQ4;
    /// The even columns of 4 rows, and the odd ones.
    type Weights = [v128; 2];
    type Forms = [v128; 1];
    type Activations = [v128; 2];
    type Sums = v128;

    const GROUPS: usize = 2;
    const QUARTERS: usize = 1;

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
    fn activations([x]: [v128; 1]) -> [v128; 2] {
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
    type Forms = [v128; 1];
    type Activations = v128;
    type Sums = v128;

    const GROUPS: usize = 2;

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
    fn activations([x]: [v128; 1]) -> v128 {
        x
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
pub(super) struct NibblePairs;

#[cfg(target_feature = "relaxed-simd")]
impl Dot for NibblePairs {
    type Tile = TileQ4;
    type Weights = v128;
    type Forms = [v128; 1];
    type Activations = v128;
    type Sums = v128;

    const GROUPS: usize = 2;

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
    fn activations([x]: [v128; 1]) -> v128 {
        x
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
