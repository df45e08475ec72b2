//! Activations at 8 bits, quantised once per product.

use super::isa::Isa;
use super::matrix::{BLOCK, Packing};
use super::pool::{Pool, Shared};
use super::{Norm, normalise, quantise};
use std::cell::Cell;

/// An activation block whose largest magnitude is below this counts as zeros: `127 / amax` must stay finite.
const SMALLEST: f32 = 1e-30;

/// 32 activations: `scale * q`. A span, which is one block or a few of a row, has one scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Block {
    pub(crate) q: [i8; BLOCK],
    pub(crate) scale: f32,
    /// `-128 * sum(q)` of a span, in its first block: what a dot product of these with weights plus 128 has too much,
    /// negative.
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

    /// The bytes of columns `4 * group..4 * group + 4`, the first one the lowest.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(crate) fn four(&self, group: usize) -> i32 {
        let q = &self.q[group * 4..];
        i32::from_le_bytes([q[0] as u8, q[1] as u8, q[2] as u8, q[3] as u8])
    }

    /// Sets the scale `amax / 127` of activations whose largest magnitude `amax` has the bits `highest`, and gives its
    /// inverse. Nothing where there are no numbers to store: `amax` is below [`SMALLEST`], and the scale 0, or it is
    /// infinite or NaN, and the scale is NaN, so that it shows in the output.
    #[inline(always)]
    pub(crate) fn set_scale(&mut self, highest: u32) -> Option<f32> {
        let amax = f32::from_bits(highest);
        if amax < SMALLEST {
            return None;
        }
        if highest >= f32::INFINITY.to_bits() {
            self.scale = f32::NAN;
            return None;
        }
        self.scale = amax / 127.0;
        Some(127.0 / amax)
    }
}

/// Activations in groups of rows that a kernel multiplies together: within a group, the first blocks of all its rows,
/// then the second blocks, and so on, so that one pointer walks through them.
#[derive(Default)]
pub(crate) struct Quantised {
    pub(crate) rows: usize,
    /// Rows of a group; the last one may have fewer.
    pub(crate) together: usize,
    /// Whether `q` of a block is a `u8` that is 128 too large.
    pub(crate) unsigned: bool,
    /// Blocks of a row.
    row_blocks: usize,
    blocks: Vec<Block>,
}

/// Below this many blocks the caller's thread quantises alone.
const ALONE: usize = 512;

thread_local! {
    /// A row after its norm.
    static NORMED: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    /// The scratch of the last product, taken while one runs, so that a pool may run another one on the same thread.
    static SCRATCH: Cell<Option<Box<Quantised>>> = const { Cell::new(None) };
}

/// Lends `then` the thread's scratch for a row of `n`.
pub(crate) fn with_row(n: usize, then: impl FnOnce(&mut [f32])) {
    let mut row = NORMED.take();
    row.resize(n, 0.0);
    then(&mut row);
    NORMED.set(row);
}

impl Quantised {
    /// Quantises `x`: `(rows, cols)`, after `norm` if there is one, for products with a matrix of `packing`, and hands it to
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
        scratch.unsigned = isa.takes_unsigned(packing, rows);
        scratch.fill(isa, x, rows, packing.span(), norm, pool);
        then(&scratch);
        SCRATCH.set(Some(scratch));
    }

    fn fill(
        &mut self,
        isa: Isa,
        x: &[f32],
        rows: usize,
        span: usize,
        norm: Option<Norm<'_>>,
        pool: &dyn Pool,
    ) {
        let (together, unsigned) = (isa.rows_together(), self.unsigned);
        let cols = x.len().checked_div(rows).unwrap_or(0);
        let row_blocks = cols / BLOCK;
        (self.rows, self.together, self.row_blocks) = (rows, together, row_blocks);
        self.blocks.resize(rows * row_blocks, Block::ZERO);
        let blocks = Shared::new(&mut self.blocks);
        let fill_group = |group: usize| {
            let first = group * together;
            let n = together.min(rows - first);
            // SAFETY: groups do not overlap, and each is filled once.
            let blocks = unsafe { blocks.part(first * row_blocks, n * row_blocks) };
            let x = x[first * cols..(first + n) * cols].chunks_exact(cols);
            match norm {
                None => x.enumerate().for_each(|(m, x)| quantise(isa, x, span, &mut blocks[m..], n)),
                Some(norm) => with_row(cols, |normed| {
                    for (m, x) in x.enumerate() {
                        normalise(isa, x, norm, normed);
                        quantise(isa, normed, span, &mut blocks[m..], n);
                    }
                }),
            }
            if unsigned {
                blocks.iter_mut().for_each(|block| block.q = block.q.map(|q| q ^ -128));
            }
        };
        let groups = rows.div_ceil(together);
        if groups > 1 && pool.threads() > 1 && rows * row_blocks >= ALONE {
            pool.run(groups, &fill_group);
        } else {
            (0..groups).for_each(fill_group);
        }
    }

    /// The blocks of the `n` rows of the group that starts with row `first`: `(row_blocks, n)`.
    #[inline(always)]
    pub(crate) fn group(&self, first: usize, n: usize) -> &[Block] {
        &self.blocks[first * self.row_blocks..][..n * self.row_blocks]
    }
}
