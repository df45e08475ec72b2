//! Activations at 8 bits, quantised once per product.

use super::isa::Isa;
use super::matrix::{BLOCK, Packing};
use super::pool::{Pool, Shared, SingleThread};
use super::{Norm, normalise, quantise, rotate};
#[cfg(target_arch = "x86_64")]
use super::{amx::SideBySide, avx2, avx512};
use std::array::from_fn;
use std::cell::Cell;

/// An activation block whose largest magnitude is below this counts as zeros: `limit / amax` must stay finite.
const SMALLEST: f32 = 1e-30;

/// 32 activations: `scale * q`. A span, which is one block or a few of a row, has one scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Block {
    pub(crate) q: [i8; BLOCK],
    pub(crate) scale: f32,
    /// `-128 * sum(q)` of a span, in its first block: what a dot product of these with weights plus 128 has too much,
    /// negative. Otherwise in [`Form::Magnitudes`].
    pub(crate) excess: i32,
    /// What the sums of products with a span begin with, in its first block, where `spread` needs it.
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    pub(crate) first: i32,
    /// `q` in the form that the instruction set in use loads.
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    pub(crate) spread: [u8; 2 * BLOCK],
}

impl Block {
    pub(crate) const ZERO: Self = Self {
        q: [0; BLOCK],
        scale: 0.0,
        excess: 0,
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        first: 0,
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        spread: [0; 2 * BLOCK],
    };

    /// Sets the [`scale`] of activations whose largest magnitude has the bits `highest`, and gives its inverse.
    #[inline(always)]
    pub(crate) fn set_scale(&mut self, highest: u32) -> Option<f32> {
        let (scale, inverse) = scale(highest, BYTE);
        self.scale = scale;
        inverse
    }
}

/// The bytes of columns `4 * group..4 * group + 4`, the first one the lowest.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn four(bytes: &[i8; BLOCK], group: usize) -> i32 {
    let q = &bytes[group * 4..];
    i32::from_le_bytes([q[0] as u8, q[1] as u8, q[2] as u8, q[3] as u8])
}

/// The largest of what becomes a byte.
pub(crate) const BYTE: f32 = 127.0;

/// The scale `amax / limit` of numbers whose largest magnitude `amax` has the bits `highest`, and its inverse. No inverse
/// where there are no numbers to store: `amax` is below [`SMALLEST`], and the scale 0, or it is infinite or NaN, and the
/// scale is NaN, so that it shows in the output.
#[inline(always)]
pub(crate) fn scale(highest: u32, limit: f32) -> (f32, Option<f32>) {
    let amax = f32::from_bits(highest);
    if amax < SMALLEST {
        (0.0, None)
    } else if highest >= f32::INFINITY.to_bits() {
        (f32::NAN, None)
    } else {
        (amax / limit, Some(limit / amax))
    }
}

/// Activations in groups of rows that a kernel multiplies together: within a group, the first blocks of all its rows,
/// then the second blocks, and so on, so that one pointer walks through them.
#[derive(Default)]
pub(crate) struct Quantised {
    pub(crate) rows: usize,
    /// Rows of a group; the last one may have fewer.
    pub(crate) together: usize,
    pub(crate) form: Form,
    /// Blocks of a row.
    row_blocks: usize,
    blocks: Vec<Block>,
    /// The signs of each block, where the form has them apart.
    #[cfg(target_arch = "x86_64")]
    signs: Vec<Signs>,
    /// The blocks of each group once more, where the form asks for it.
    #[cfg(target_arch = "x86_64")]
    side_by_side: Vec<SideBySide>,
}

/// Of each activation of a block: -1 if it is negative, else 0.
#[cfg(target_arch = "x86_64")]
pub(crate) type Signs = [i8; BLOCK];

/// What a kernel multiplies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Form {
    /// Blocks as they are.
    #[default]
    Signed,
    /// Blocks whose `q` is a `u8` that is 128 too large.
    #[cfg(target_arch = "x86_64")]
    Unsigned,
    /// Blocks whose `q` are magnitudes, and their signs apart. `excess` is the sum of a span's negative activations, each
    /// times -1: what the dot product of the magnitudes with `w ^ sign`, which is `w` or `-w - 1`, has too little.
    #[cfg(target_arch = "x86_64")]
    Magnitudes,
    /// Rows whose columns lie together.
    #[cfg(target_arch = "x86_64")]
    SideBySide,
}

/// Below this many blocks the caller's thread quantises alone.
const ALONE: usize = 512;

thread_local! {
    /// Rows after their norm and their rotation.
    static ROWS: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    /// The scratch of the last product, taken while one runs, so that a pool may run another one on the same thread.
    static SCRATCH: Cell<Option<Box<Quantised>>> = const { Cell::new(None) };
}

/// Lends `then` the thread's scratch for `N` rows of `n`.
pub(crate) fn with_rows<const N: usize, T>(n: usize, then: impl FnOnce([&mut [f32]; N]) -> T) -> T {
    let mut rows = ROWS.take();
    rows.resize(rows.len().max(N * n), 0.0);
    let mut rest = rows.as_mut_slice();
    let parts = from_fn(|_| rest.split_off_mut(..n).expect("there is room for all"));
    let out = then(parts);
    ROWS.set(rows);
    out
}

impl Quantised {
    /// Quantises `x`: `(rows, cols)`, after `norm` if there is one, and rotated where weights are, for products with a matrix of `packing`, and hands it to
    /// `then`.
    pub(crate) fn with(
        isa: Isa,
        x: &[f32],
        rows: usize,
        packing: Packing,
        norm: Option<Norm<'_>>,
        pool: &dyn Pool,
        then: impl FnOnce(&Self),
    ) {
        let mut scratch = SCRATCH.take().unwrap_or_default();
        scratch.form = isa.form(packing, rows);
        scratch.fill(isa, x, rows, packing, norm, pool);
        then(&scratch);
        SCRATCH.set(Some(scratch));
    }

    fn fill(
        &mut self,
        isa: Isa,
        x: &[f32],
        rows: usize,
        packing: Packing,
        norm: Option<Norm<'_>>,
        pool: &dyn Pool,
    ) {
        let span = packing.span();
        let together = isa.rows_together(self.form);
        let cols = x.len().checked_div(rows).unwrap_or(0);
        let row_blocks = cols / BLOCK;
        (self.rows, self.together, self.row_blocks) = (rows, together, row_blocks);
        let groups = rows.div_ceil(together);
        let pool = if rows * row_blocks >= ALONE { pool } else { &SingleThread };
        let rows_of = |group: usize| {
            let first = group * together;
            (first, together.min(rows - first))
        };
        #[cfg(target_arch = "x86_64")]
        if self.form == Form::SideBySide {
            self.side_by_side.resize_with(groups, SideBySide::default);
            let side_by_side = Shared::new(&mut self.side_by_side);
            return pool.run(groups, &|group| {
                let (first, n) = rows_of(group);
                // SAFETY: each group is filled once; and rows lie side by side only where AMX works.
                let group = unsafe { &mut side_by_side.part(group, 1)[0] };
                group.resize(n, row_blocks, span);
                each_row(isa, &x[first * cols..][..n * cols], cols, packing, norm, |m, x| {
                    // SAFETY: as above.
                    unsafe { group.set_row(m, x, span) };
                });
            });
        }
        // Never fewer than there were: a product with fewer activations would have the next with more write zeros first.
        let n = self.blocks.len().max(rows * row_blocks);
        self.blocks.resize(n, Block::ZERO);
        let blocks = Shared::new(&mut self.blocks);
        #[cfg(target_arch = "x86_64")]
        let signs = {
            if self.form == Form::Magnitudes {
                self.signs.resize(n, [0; BLOCK]);
            }
            Shared::new(&mut self.signs)
        };
        pool.run(groups, &|group| {
            let (first, n) = rows_of(group);
            // SAFETY: groups do not overlap, and each is filled once.
            let blocks = unsafe { blocks.part(first * row_blocks, n * row_blocks) };
            each_row(isa, &x[first * cols..][..n * cols], cols, packing, norm, |m, x| match self.form {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: this form is only used where AVX-512 is.
                Form::Unsigned => unsafe { avx512::quantise_unsigned(x, span, &mut blocks[m..], n) },
                _ => quantise(isa, x, span, &mut blocks[m..], n),
            });
            #[cfg(target_arch = "x86_64")]
            if self.form == Form::Magnitudes {
                // SAFETY: as above; and this form is only used where AVX2 is.
                unsafe {
                    let signs = signs.part(first * row_blocks, n * row_blocks);
                    avx2::set_signs_apart(blocks, signs, span, n);
                }
            }
        });
    }

    /// The groups of [`Form::SideBySide`], if that is what there is.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn side_by_side(&self) -> Option<&[SideBySide]> {
        (self.form == Form::SideBySide).then_some(&self.side_by_side)
    }

    /// The signs that belong to [`group`](Self::group); none if the form has them not apart.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(crate) fn signs(&self, first: usize, n: usize) -> &[Signs] {
        match self.form {
            Form::Magnitudes => &self.signs[first * self.row_blocks..][..n * self.row_blocks],
            _ => &[],
        }
    }

    /// The blocks of the `n` rows of the group that starts with row `first`: `(row_blocks, n)`.
    #[inline(always)]
    pub(crate) fn group(&self, first: usize, n: usize) -> &[Block] {
        &self.blocks[first * self.row_blocks..][..n * self.row_blocks]
    }
}

/// Calls `then` with each row of `x` and its number, after `norm` if there is one, rotated if weights of `packing` are.
#[inline]
fn each_row(
    isa: Isa,
    x: &[f32],
    cols: usize,
    packing: Packing,
    norm: Option<Norm<'_>>,
    mut then: impl FnMut(usize, &[f32]),
) {
    let rows = x.chunks_exact(cols).enumerate();
    if norm.is_none() && !packing.is_rotated() {
        return rows.for_each(|(m, x)| then(m, x));
    }
    with_rows(cols, |[normed, rotated]| {
        for (m, mut x) in rows {
            if let Some(norm) = norm {
                normalise(isa, x, norm, normed);
                x = normed;
            }
            if packing.is_rotated() {
                rotate(isa, x, rotated);
                x = rotated;
            }
            then(m, x);
        }
    });
}
