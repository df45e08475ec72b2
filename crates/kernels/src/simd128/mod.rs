//! WebAssembly's 128-bit SIMD, plain and relaxed.
//!
//! As in [`avx512`](super::avx512), but a group of a panel fills four registers, a *quarter* of 4 rows each, and there are
//! 16 registers on most machines, whatever WebAssembly promises. How 8-bit numbers are multiplied depends on what
//! the build and the engine have: [`dot`] has the ways. Vectors of f32 are in [`lanes`].
//!
//! What a compiler makes of it decides the speed, and there are two of them. In straight-line code LLVM moves every
//! product of a sum behind the last operand, and V8 then keeps dozens of operands on the stack. It moves nothing across a
//! branch: so the groups of a tile are parted by exits that nobody takes ([`dots`]), each with a condition of its own,
//! since of equal ones it keeps the first. It does not know the number that they compare ([`Hidden`]). Its pass that makes
//! addresses cheaper (`loop-reduce`) costs an addition for each load here, since V8 adds constants for nothing; the engine's
//! builds turn it off. V8 makes constants anew in each turn of a loop, unless they come from memory.
//!
//! What is loaded to be broadcast costs V8 two instructions, since it adds up the address first; whole registers are
//! loaded by one. So a single row's activations are loaded several groups at once and picked from registers. For several
//! rows there are no registers left: [`Signed7`], which broadcasts twice for each row, holds the sums of two rows with all
//! quarters, and the others those of four rows with some. The scales of a panel are converted once for all rows.
//!
//! A single row of activations waits for memory, and WebAssembly cannot ask for it ahead. The processor fetches streams
//! that it sees, up to the end of a page, and has as many loads under way as it finds among the next few hundred
//! instructions: so [`Product::row`] may go through four panels side by side, group by group. It multiplies half of each line first,
//! which asks for the lines with half of the instructions, and leaves registers for four panels' sums; the other half is
//! at hand then. Where one stream is read fastest it takes panel after panel, whole lines at once: [`streams`] finds out. The
//! panels' scales, of which only every second tile needs a new line, are read before the weights (a single panel takes a
//! third more without). Loads from what comes next, as a request for it, made it slower, be it a page of weights or the next
//! panels' scales: what waits for them holds up everything behind.

mod dot;
mod lanes;
pub(crate) mod streams;

use super::f16::{F16_BIAS, F16_PLACES};
use super::lanes::{Lanes, twins};
use super::matrix::{BLOCK, PANEL, PackedMatrix, Packing, TileQ4};
use super::pool::Shared;
use super::quantised::{Block, Quantised};
use super::{Activation, Around};
use dot::*;
use lanes::F32x16;
use std::arch::wasm32::*;
use std::array::from_fn;
use std::hint::black_box;
use std::ops::Range;

/// What compilers shall not know, or they would unroll the loops and leave out the exits that it steers.
#[derive(Clone, Copy)]
struct Hidden {
    /// Bytes of a tile.
    tile: usize,
    /// Bytes of the tiles that are gone through at once: those that share their scales, or a part of them.
    span: usize,
    /// Bytes of a group's blocks for a tile.
    group: usize,
    /// 0: the exits that nobody takes compare it with other numbers.
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

/// Adds the dot products of `Q` quarters of each of `P` spans of tiles, the first ones at `quarters`, with each of `M` spans of
/// activations to `dots`. `ONE`: a span is one tile, which saves a loop.
///
/// # Safety
/// Each of `quarters` lies in the first `D::Tile` of a span, which has `Q` quarters from there on; at `x` there are `M`
/// blocks for each tile, `hidden.group` bytes after those for the tile before.
#[inline(always)]
unsafe fn dots<D: Dot + ?Sized, const P: usize, const Q: usize, const M: usize, const ONE: bool>(
    quarters: [*const v128; P],
    x: *const Block,
    mut dots: [[[D::Sums; M]; Q]; P],
    hidden: Hidden,
) -> [[[D::Sums; M]; Q]; P] {
    let (first, step) = D::ACTIVATIONS;
    // Other numbers of rows are what is left over.
    let copies = if M == 1 || M == D::ROWS { size_of::<D::Tile>() / 64 } else { 1 };
    // SAFETY: the caller's promises, and as many activations as a tile has columns.
    unsafe {
        let (mut at, mut x) = (quarters, x.cast::<u8>().add(first));
        let (mut end, last) = (at[0].byte_add(hidden.tile), at[0].byte_add(hidden.span));
        let mut held = D::hold(x);
        loop {
            'tile: loop {
                macro_rules! copies {
                    ($($copy:literal)*) => {$(
                        if $copy < copies {
                            if $copy > 0 && hidden.zero == $copy {
                                break 'tile;
                            }
                            add_groups::<D, P, Q, M>($copy, at, x, &mut held, &mut dots, hidden.constant);
                        }
                    )*};
                }
                copies!(0 1 2 3 4 5 6 7);
                for at in &mut at {
                    *at = at.add(4 * copies);
                }
                x = x.add(step * D::GROUPS * copies);
                if copies > 1 || at[0] == end {
                    break;
                }
            }
            if ONE || end == last {
                break;
            }
            end = end.byte_add(hidden.tile);
            // From behind a block's activations to those of the next one.
            x = x.add(hidden.group - BLOCK / 4 * step);
        }
        dots
    }
}

/// Adds the products of the groups in the registers with the number `copy` from `at` and `x` on. `held` is what a single row
/// keeps from copy to copy.
///
/// # Safety
/// As for [`dots`].
#[inline(always)]
unsafe fn add_groups<D: Dot + ?Sized, const P: usize, const Q: usize, const M: usize>(
    copy: usize,
    at: [*const v128; P],
    x: *const u8,
    held: &mut D::Forms,
    dots: &mut [[[D::Sums; M]; Q]; P],
    constant: v128,
) {
    // SAFETY: the caller's promises.
    unsafe {
        for group in 0..D::GROUPS {
            let number = copy * D::GROUPS + group;
            let x = x.add(number * D::ACTIVATIONS.1);
            for (at, dots) in at.iter().zip(&mut *dots) {
                let w: [_; Q] = from_fn(|q| D::weights(at.add(4 * copy + q), group, constant));
                for m in 0..M {
                    let x = if M > 1 {
                        D::load(x.add(m * size_of::<Block>()))
                    } else {
                        if number % D::HELD == 0 {
                            *held = D::hold(x);
                        }
                        D::pick(*held, number % D::HELD)
                    };
                    for (w, dots) in w.iter().zip(&mut *dots) {
                        dots[m] = D::add(dots[m], *w, x, constant);
                    }
                }
            }
        }
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

/// A single row of activations goes through so many panels side by side where several streams are read fastest.
const PANELS: usize = 4;
/// So many quarters of each of them are multiplied at once: half of a cache line.
const QUARTERS: usize = 2;
/// So many tiles of each of them, at most, until their second halves are multiplied, whatever share a scale. By trying on
/// Zen 4: with 4, 2 % fewer tokens/s, with 1, 4 % fewer, and with 8, 10 %.
const TILES: usize = 2;

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
    let product = Product { matrix, x, around, out, hidden: Hidden::new::<D>(matrix.packing().span()) };
    let mut panel = panels.start;
    // SAFETY: the caller's promise.
    unsafe {
        if x.rows == 1 {
            if streams::several() {
                let whole = panel + (panels.end - panel) / PANELS * PANELS;
                product.row::<D, PANELS, QUARTERS>(panel..whole, 0, &(0..1));
                panel = whole;
            }
            product.row::<D, 1, 4>(panel..panels.end, 0, &(0..1));
            panel = panels.end;
        }
        let mut scales = Vec::new();
        for panel in panel..panels.end {
            widen(matrix.panel::<D::Tile>(panel).1, product.hidden.f16, &mut scales);
            for first in (0..x.rows).step_by(4) {
                let group = first..x.rows.min(first + 4);
                let mut rows = group.clone();
                if rows.len() == 4 && D::ROWS == 4 {
                    product.rows::<D, 4>(panel, &scales, rows, &group);
                    continue;
                }
                if rows.len() > 1 {
                    let pairs = rows.start..rows.end - rows.len() % 2;
                    rows.start = pairs.end;
                    product.rows::<D, 2>(panel, &scales, pairs, &group);
                }
                if !rows.is_empty() {
                    product.row::<D, 1, 4>(panel..panel + 1, rows.start, &group);
                }
            }
        }
    }
}

/// A product with a matrix, and what goes on around it.
struct Product<'a> {
    matrix: &'a PackedMatrix,
    x: &'a Quantised,
    around: &'a Around<'a>,
    out: &'a Shared<'a, f32>,
    hidden: Hidden,
}

impl Product<'_> {
    /// The outputs of `panels`, `P` side by side, for one row of a group of activations, `Q` quarters at a time.
    ///
    /// # Safety
    /// Nobody else uses the panels' columns of `out`; `P` divides their number; the group has the row, and 4 at most.
    #[inline(always)]
    unsafe fn row<D: Dot, const P: usize, const Q: usize>(
        &self,
        panels: Range<usize>,
        row: usize,
        group: &Range<usize>,
    ) {
        // 4-bit weights have scales for each tile, so that there is no code for others. Beside the products of several panels
        // a loop is nothing, so that there is no code without.
        let one = size_of::<D::Tile>() == size_of::<TileQ4>() || self.matrix.packing().span() == 1;
        // SAFETY: the caller's promise.
        unsafe {
            if P == 1 && one {
                self.row_in_spans::<D, P, Q, true>(panels, row, group);
            } else {
                self.row_in_spans::<D, P, Q, false>(panels, row, group);
            }
        }
    }

    /// [`row`](Self::row), with `ONE` as in [`dots`].
    ///
    /// # Safety
    /// As there.
    #[inline(never)]
    unsafe fn row_in_spans<D: Dot, const P: usize, const Q: usize, const ONE: bool>(
        &self,
        panels: Range<usize>,
        row: usize,
        group: &Range<usize>,
    ) {
        if panels.is_empty() {
            return;
        }
        let span = self.matrix.packing().span();
        let at_once = if P == 1 { span } else { span.min(TILES) };
        let hidden = Hidden {
            group: size_of::<Block>() * group.len(),
            span: self.hidden.tile * at_once,
            ..self.hidden
        };
        let xs = self.x.group(group.start, group.len())[row - group.start..].as_ptr();
        // Panels follow each other: what is looked up once for all of them need not be for each, while no load is under way.
        let each: [_; P] = from_fn(|p| self.matrix.panel::<D::Tile>(panels.start + p));
        let (all_tiles, all_scales) = (each[0].0.len(), each[0].1.len());
        let mut tiles = each.map(|(tiles, _)| tiles.as_ptr());
        let mut scales = each.map(|(_, scales)| scales.as_ptr());
        for first in panels.step_by(P) {
            for scales in scales {
                // SAFETY: so many scales of a panel.
                touch(unsafe { std::slice::from_raw_parts(scales, all_scales) });
            }
            // SAFETY: one behind the panel's last.
            let end = unsafe { scales[0].add(all_scales) };
            let mut x = xs;
            let mut sums = [[f32x4_splat(0.0); 4]; P];
            while scales[0] != end {
                // SAFETY: for each span's scales there are a span of tiles in each panel, and one of activations.
                unsafe {
                    let block = &*x;
                    let mut dots = [[D::start(block); 4]; P];
                    for _ in (0..span).step_by(at_once) {
                        dots = add_quarters::<D, P, Q, ONE>(tiles.map(|tile| tile.cast()), x, dots, hidden);
                        tiles = tiles.map(|tiles| tiles.byte_add(hidden.span));
                        x = x.add(at_once * group.len());
                    }
                    for p in 0..P {
                        for q in 0..4 {
                            let scales = f16x4(&*scales[p].cast::<[u16; 4]>().add(q), hidden.f16);
                            sums[p][q] =
                                add_scaled(sums[p][q], D::finish(dots[p][q], block), scales, block.scale);
                        }
                    }
                    scales = scales.map(|scales| scales.add(1));
                }
            }
            // Past the other panels.
            tiles = tiles.map(|tiles| tiles.wrapping_add((P - 1) * all_tiles));
            scales = scales.map(|scales| scales.wrapping_add((P - 1) * all_scales));
            for (panel, sums) in (first..).zip(sums) {
                // SAFETY: the caller gave us the panels alone.
                let (column, out) = unsafe { self.matrix.outputs(panel, row, self.out) };
                finish(sums, self.around, column, out);
            }
        }
    }

    /// The outputs of one panel, which has the scales `scales`, for `rows` of a group of activations, `M` at a time.
    ///
    /// # Safety
    /// Nobody else uses the panel's columns of `out`; `M` divides the number of rows, of which the group has 4 at most.
    #[inline(always)]
    unsafe fn rows<D: Dot, const M: usize>(
        &self,
        panel: usize,
        scales: &[[f32; PANEL]],
        rows: Range<usize>,
        group: &Range<usize>,
    ) {
        let (tiles, _) = self.matrix.panel::<D::Tile>(panel);
        let span = self.matrix.packing().span();
        let hidden = Hidden { group: size_of::<Block>() * group.len(), ..self.hidden };
        let xs = self.x.group(group.start, group.len()).chunks_exact(group.len() * span);
        let mut sums = [[[f32x4_splat(0.0); M]; 4]; 2];
        let sums = &mut sums[..rows.len() / M];
        for ((tiles, scales), xs) in tiles.chunks_exact(span).zip(scales).zip(xs) {
            let mut x = xs[rows.start - group.start..].as_ptr();
            let tiles = tiles.as_ptr().cast();
            for sums in &mut *sums {
                // SAFETY: a whole span of tiles, spans of `M` rows of activations, and 16 scales.
                unsafe {
                    match D::QUARTERS * 4 / M {
                        1 => add_spans::<D, M, 1>(tiles, scales, x, sums, hidden),
                        2 => add_spans::<D, M, 2>(tiles, scales, x, sums, hidden),
                        _ => add_spans::<D, M, 4>(tiles, scales, x, sums, hidden),
                    }
                    x = x.add(M);
                }
            }
        }
        for (m, row) in rows.enumerate() {
            // SAFETY: the caller gave us the panel alone.
            let (column, out) = unsafe { self.matrix.outputs(panel, row, self.out) };
            finish(sums[m / M].map(|rows| rows[m % M]), self.around, column, out);
        }
    }
}

/// [`dots`] of all quarters for a single row of activations, `Q` of them at a time.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn add_quarters<D: Dot, const P: usize, const Q: usize, const ONE: bool>(
    tiles: [*const v128; P],
    mut x: *const Block,
    mut all: [[D::Sums; 4]; P],
    hidden: Hidden,
) -> [[D::Sums; 4]; P] {
    let mut first = 0;
    while first < 4 {
        // SAFETY: the caller's promises; `Q` divides 4, and `first` is below; and `x` is where it was.
        unsafe {
            let start = from_fn(|p| from_fn(|q| [*all[p].get_unchecked(first + q)]));
            let dots = dots::<D, P, Q, 1, ONE>(tiles.map(|tile| tile.add(first)), x, start, hidden);
            for p in 0..P {
                for q in 0..Q {
                    [*all[p].get_unchecked_mut(first + q)] = dots[p][q];
                }
            }
            if Q == 4 {
                return all;
            }
            // Else the activations of all groups would be loaded before the loop, and kept on the stack.
            x = x.add(hidden.zero);
            first += hidden.zero + Q;
        }
    }
    all
}

/// Adds the products of a span of tiles with `M` spans of activations to the sums, `Q` quarters at a time.
///
/// # Safety
/// `Q` divides 4; there are a whole span of tiles and `M` spans of activations, `hidden.group` bytes from block to block.
#[inline(always)]
unsafe fn add_spans<D: Dot, const M: usize, const Q: usize>(
    tiles: *const v128,
    scales: &[f32; PANEL],
    mut x: *const Block,
    sums: &mut [[v128; M]; 4],
    hidden: Hidden,
) {
    let mut first = 0;
    while first < 4 {
        // SAFETY: the caller's promises; `first` is below 4; and `x` is where it was.
        unsafe {
            let start = [[from_fn(|m| D::start(&*x.add(m))); Q]];
            let [dots] = dots::<D, 1, Q, M, false>([tiles.add(first)], x, start, hidden);
            for (q, dots) in (first..).zip(dots) {
                let scales = v128_load(scales.as_ptr().cast::<v128>().add(q));
                for (m, (sum, dots)) in sums.get_unchecked_mut(q).iter_mut().zip(dots).enumerate() {
                    let x = &*x.add(m);
                    *sum = add_scaled(*sum, D::finish(dots, x), scales, x.scale);
                }
            }
            if Q == 4 {
                return;
            }
            // As in `add_quarters`.
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

/// What follows a product: a call only where an activation does.
#[inline(always)]
fn finish(sums: [v128; 4], around: &Around<'_>, column: usize, out: &mut [f32]) {
    if let (Activation::None, Some(out)) = (around.activation, out.as_mut_array()) {
        let mut y = F32x16(sums);
        if let Some(bias) = around.bias {
            y = y.add(F32x16::load(bias[column..].first_chunk().expect("a bias for each output")));
        }
        if around.add {
            y = F32x16::load(out).add(y);
        }
        return y.store(out);
    }
    let mut lanes = [0.0; PANEL];
    F32x16(sums).store(&mut lanes);
    twin::finish(&lanes, around, column, out);
}

/// A panel's scales in f32.
#[inline(always)]
fn widen(scales: &[[u16; PANEL]], f16: [v128; 2], wide: &mut Vec<[f32; PANEL]>) {
    wide.resize(scales.len(), [0.0; PANEL]);
    for (wide, scales) in wide.iter_mut().zip(scales) {
        for (wide, scales) in wide.as_chunks_mut::<4>().0.iter_mut().zip(scales.as_chunks::<4>().0) {
            // SAFETY: 16 bytes; stores need no alignment.
            unsafe { v128_store(wide.as_mut_ptr().cast(), f16x4(scales, f16)) };
        }
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

/// Four f16 that are finite: see [`f32_from_f16`](super::f16::f32_from_f16).
#[inline(always)]
fn f16x4(bits: &[u16; 4], [places, bias]: [v128; 2]) -> v128 {
    // SAFETY: 8 bytes; loads need no alignment.
    let bits = unsafe { i32x4_load_extend_i16x4(bits.as_ptr().cast()) };
    f32x4_mul(v128_and(i32x4_shl(bits, 13), places), bias)
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
                        Packing::Q8 | Packing::Q8By(_) => matmul_with::<$dot>(matrix, x, panels, around, out),
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

mod twin {
    super::twins!(super::F32x16);
}
