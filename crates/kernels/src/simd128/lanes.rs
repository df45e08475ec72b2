//! 16 lanes of f32 in WebAssembly's registers.

use super::super::attention_i16::{Pairs, Row};
use super::super::lanes::Lanes;
use super::super::math::ROUND;
use super::super::scalar::LANES;
use std::arch::wasm32::*;
use std::array::from_fn;

/// `pmin(a, b)` is `b < a ? b : a`: x86's minimum with the operands exchanged, one instruction there. But LLVM makes it a
/// `relaxed_min` where relaxed SIMD is allowed, which on x86 loses a NaN and on ARM orders zeros by their signs. There a
/// comparison and a selection are written out, which it leaves alone.
const RELAXED: bool = cfg!(target_feature = "relaxed-simd");

/// 16 lanes in four registers.
#[derive(Clone, Copy)]
pub(crate) struct F32x16(pub(super) [v128; 4]);

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

    /// Relaxed, as the limits are numbers and not 0: there x86 takes the second operand for a NaN in one of them, and ARM
    /// the NaN.
    #[cfg(target_feature = "relaxed-simd")]
    #[inline(always)]
    fn clamp(self, low: f32, high: f32) -> Self {
        let (low, high) = (f32x4_splat(low), f32x4_splat(high));
        Self(self.0.map(|x| f32x4_relaxed_min(high, f32x4_relaxed_max(low, x))))
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
    fn touch(x: &Pairs) {
        // SAFETY: a reference may be read.
        let _ = unsafe { (&raw const x[0][0]).read_volatile() };
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
    fn butterflies(self) -> Self {
        let [a, b, c, d] = self.0;
        let (a, b, c, d) = (f32x4_add(a, b), f32x4_sub(a, b), f32x4_add(c, d), f32x4_sub(c, d));
        Self([f32x4_add(a, c), f32x4_add(b, d), f32x4_sub(a, c), f32x4_sub(b, d)])
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
