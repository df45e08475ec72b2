//! AVX-512: with VNNI for products of 8-bit numbers.
//!
//! The plain product takes a dot product of 32 signed 8-bit weights and activations per row and block. Here:
//!
//! 1. One register holds 4 columns of a panel's 16 rows, and `vpdpbusd` adds the four products of each row to its own
//!    32-bit lane, exactly. Its first operand is unsigned: weights plus 128 (one exclusive or with 0x80). The excess,
//!    `128 * sum(x)` of the block, is the same for every row: the lanes start at its negative.
//! 2. Activations come as 4-byte broadcasts inside the instruction, so 8 rows of activations share each load of weights.
//!    8 integer and 8 f32 accumulators leave enough of the 32 registers; a prompt reads the weights once per 8 rows,
//!    from the nearest cache after the first.
//! 3. Fewer rows wait for memory. The second-level cache can have more lines under way than the first, so weights are
//!    asked for there, 4 KiB ahead: 10 % faster on an Emerald Rapids server that reads 14 GB/s a core, 30 % in AVX2's
//!    kernel, whose longer code lets the processor look less far ahead by itself. Into the first level AVX-512's gained
//!    3 %, and the distance (2 to 16 KiB) made no difference. The first 8 rows of more ask for them as well (a prompt of 64
//!    is read 6 % faster); those after them find them near.
//! 4. 16 rows and more wait for the instructions themselves: 8 sums are too few to hide the five cycles that `vpdpbusd`
//!    takes, and the exclusive or takes the place of a product. So they go through two panels side by side, and there the
//!    activations are the unsigned operand: plus 128, from the start ([`Form::Unsigned`]). The excess, `128 * sum(w)`,
//!    is then one number for each row of weights and scale, counted once for all rows of activations ([`excess`]). The
//!    weights of the next two panels are asked for meanwhile, a part by each 8 rows ([`Ahead`]).
//! 5. 4-bit weights need a mask, or a shift and a mask, a register, and no exclusive or: they lie there plus 8, and the
//!    lanes start at an excess of `8 * sum(x)`, negative.

use super::Around;
use super::attention_i16::{Pairs, Row};
pub(crate) use super::avx2::{pack_columns, pack_columns_q4, pack_row, pack_row_q4};
use super::lanes::{self, Lanes, twins};
use super::math::ROUND;
use super::matrix::{BLOCK, PANEL, PackedMatrix, Packing, Stored, Tile, TileQ4};
use super::pool::Shared;
use super::quantised::{Block, Form, Quantised, four};
use super::scalar::LANES;
use std::arch::x86_64::*;
use std::array::from_fn;
use std::cell::Cell;
use std::ops::Range;

/// Rows of activations that share the loads of weights.
pub(crate) const TOGETHER: usize = 8;

/// From so many rows of activations on, panels of 8-bit weights go in pairs.
pub(crate) const MANY: usize = 16;

/// How far ahead of their use weights are asked for, in bytes.
pub(crate) const AHEAD: usize = 4096;

/// For so many tiles of a span, what is asked for ahead is asked for at once.
const AT_ONCE: usize = 4;

/// Weights as unsigned numbers, ready for dot products.
trait Weights: Stored {
    /// What a sum that starts at 0 has too much, negative.
    fn excess(x: &Block) -> i32;

    /// The pair of groups `2 * pair` and `2 * pair + 1`; `FETCH` asks for what comes `AHEAD` of it.
    ///
    /// # Safety
    /// The caller enables AVX-512 F and BW.
    unsafe fn pair<const FETCH: bool>(&self, pair: usize) -> [__m512i; 2];
}

/// A register of a tile.
///
/// # Safety
/// The caller enables AVX-512 F.
#[inline(always)]
unsafe fn load<const FETCH: bool>(group: &[i32; PANEL]) -> __m512i {
    // SAFETY: a group has 64 bytes; what is asked for ahead may lie anywhere.
    unsafe {
        if FETCH {
            _mm_prefetch::<_MM_HINT_T1>(group.as_ptr().wrapping_byte_add(AHEAD).cast());
        }
        _mm512_loadu_si512(group.as_ptr().cast())
    }
}

impl Weights for Tile {
    #[inline(always)]
    fn excess(x: &Block) -> i32 {
        x.excess
    }

    #[inline(always)]
    unsafe fn pair<const FETCH: bool>(&self, pair: usize) -> [__m512i; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let flip = _mm512_set1_epi8(-128);
            let group = |i: usize| _mm512_xor_si512(load::<FETCH>(&self.0[2 * pair + i]), flip);
            [group(0), group(1)]
        }
    }
}

impl Weights for TileQ4 {
    #[inline(always)]
    fn excess(x: &Block) -> i32 {
        x.excess / 16
    }

    #[inline(always)]
    unsafe fn pair<const FETCH: bool>(&self, pair: usize) -> [__m512i; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let (both, low) = (load::<FETCH>(&self.0[pair]), _mm512_set1_epi8(15));
            [_mm512_and_si512(both, low), _mm512_and_si512(_mm512_srli_epi16::<4>(both), low)]
        }
    }
}

/// A panel's scales.
#[target_feature(enable = "avx512f")]
#[inline]
pub(crate) fn widen(scales: &[u16; PANEL]) -> __m512 {
    // SAFETY: there are 16 scales of 2 bytes.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(scales.as_ptr().cast()) })
}

/// `sum + dots * (weights' scales * activations' scale)`.
#[target_feature(enable = "avx512f")]
#[inline]
pub(crate) fn add_scaled(sum: __m512, dots: __m512i, scales: __m512, scale: f32) -> __m512 {
    let scales = _mm512_mul_ps(scales, _mm512_set1_ps(scale));
    _mm512_add_ps(sum, _mm512_mul_ps(_mm512_cvtepi32_ps(dots), scales))
}

/// # Safety
/// Nobody else uses the columns of `out` that belong to `panels`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
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
            Packing::Q8 if x.form == Form::Unsigned => matmul_many::<true>(matrix, x, panels, around, out),
            Packing::Q8 => matmul_of::<Tile, true>(matrix, x, panels, around, out),
            Packing::Q8By(_) if x.form == Form::Unsigned => {
                matmul_many::<false>(matrix, x, panels, around, out)
            }
            Packing::Q8By(_) => matmul_of::<Tile, false>(matrix, x, panels, around, out),
            Packing::Q4 => matmul_of::<TileQ4, true>(matrix, x, panels, around, out),
        }
    }
}

/// # Safety
/// As for [`matmul`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn matmul_of<T: Weights, const ONE: bool>(
    matrix: &PackedMatrix,
    x: &Quantised,
    panels: Range<usize>,
    around: &Around<'_>,
    out: &Shared<'_, f32>,
) {
    for panel in panels {
        for first in (0..x.rows).step_by(TOGETHER) {
            // SAFETY: the caller's promise.
            unsafe {
                match x.rows - first {
                    1 => rows::<T, 1, ONE, true>(matrix, x, panel, first, around, out),
                    2 => rows::<T, 2, ONE, true>(matrix, x, panel, first, around, out),
                    3 => rows::<T, 3, ONE, true>(matrix, x, panel, first, around, out),
                    4 => rows::<T, 4, ONE, true>(matrix, x, panel, first, around, out),
                    5 => rows::<T, 5, ONE, true>(matrix, x, panel, first, around, out),
                    6 => rows::<T, 6, ONE, true>(matrix, x, panel, first, around, out),
                    7 => rows::<T, 7, ONE, true>(matrix, x, panel, first, around, out),
                    _ if first == 0 => rows::<T, 8, ONE, true>(matrix, x, panel, first, around, out),
                    _ => rows::<T, 8, ONE, false>(matrix, x, panel, first, around, out),
                }
            }
        }
    }
}

/// The outputs of one panel for the activation rows `first..first + M`, a group; `FETCH` for the first, or the only one. `ONE`:
/// each tile has scales of its own.
///
/// # Safety
/// Nobody else uses the panel's columns of `out`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
unsafe fn rows<T: Weights, const M: usize, const ONE: bool, const FETCH: bool>(
    matrix: &PackedMatrix,
    x: &Quantised,
    panel: usize,
    first: usize,
    around: &Around<'_>,
    out: &Shared<'_, f32>,
) {
    let (tiles, scales) = matrix.panel::<T>(panel);
    let (xs, _) = x.group(first, M).as_chunks::<M>();
    let mut sums = [_mm512_setzero_ps(); M];
    let span = matrix.span::<ONE>();
    let spans = tiles.chunks_exact(span).zip(scales).zip(xs.chunks_exact(span));
    for ((tiles, scales), xs) in spans {
        let mut dots: [_; M] = xs[0].map(|x| _mm512_set1_epi32(T::excess(&x)));
        for (tile, x) in tiles.iter().zip(xs) {
            for pair in 0..BLOCK / 8 {
                // SAFETY: this function enables AVX-512 F and BW.
                let w = unsafe { tile.pair::<FETCH>(pair) };
                for (i, w) in w.into_iter().enumerate() {
                    for m in 0..M {
                        let x = _mm512_set1_epi32(four(&x[m].q, 2 * pair + i));
                        dots[m] = _mm512_dpbusd_epi32(dots[m], w, x);
                    }
                }
            }
        }
        let scales = widen(scales);
        for m in 0..M {
            sums[m] = add_scaled(sums[m], dots[m], scales, xs[0][m].scale);
        }
    }
    for (m, sums) in sums.into_iter().enumerate() {
        let mut lanes = [0.0; PANEL];
        F32x16(sums).store(&mut lanes);
        // SAFETY: the caller gave us the panel alone.
        let (column, out) = unsafe { matrix.outputs(panel, first + m, out) };
        finish(&lanes, around, column, out);
    }
}

/// 8-bit weights with unsigned activations.
///
/// # Safety
/// As for [`matmul`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn matmul_many<const ONE: bool>(
    matrix: &PackedMatrix,
    x: &Quantised,
    panels: Range<usize>,
    around: &Around<'_>,
    out: &Shared<'_, f32>,
) {
    let mut excess = EXCESS.take();
    let mut panel = panels.start;
    // SAFETY: the caller's promise.
    unsafe {
        while panel + 2 <= panels.end {
            many::<2, ONE>(matrix, x, panel, &mut excess, around, out);
            panel += 2;
        }
        if panel < panels.end {
            many::<1, ONE>(matrix, x, panel, &mut excess, around, out);
        }
    }
    EXCESS.set(excess);
}

thread_local! {
    /// What the sums of a pair of panels begin with, span by span: see [`excess`].
    static EXCESS: Cell<Vec<[[i32; PANEL]; 2]>> = const { Cell::new(Vec::new()) };
}

/// The outputs of `P` panels from `panel` on, for all rows of activations.
///
/// # Safety
/// Nobody else uses the panels' columns of `out`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn many<const P: usize, const ONE: bool>(
    matrix: &PackedMatrix,
    x: &Quantised,
    panel: usize,
    starts: &mut Vec<[[i32; PANEL]; 2]>,
    around: &Around<'_>,
    out: &Shared<'_, f32>,
) {
    let weights: [_; P] = from_fn(|p| matrix.panel::<Tile>(panel + p));
    let span = matrix.packing().span();
    starts.resize(matrix.blocks() / span, [[0; PANEL]; 2]);
    for (p, (tiles, _)) in weights.iter().enumerate() {
        for (start, tiles) in starts.iter_mut().zip(tiles.chunks_exact(span)) {
            start[p] = excess(tiles);
        }
    }
    let groups = x.rows.div_ceil(TOGETHER);
    let mut ahead = Ahead::of(weights[P - 1].0, (8 * P).div_ceil(groups));
    let panels = Panels::<P> { first: panel, weights, starts };
    for first in (0..x.rows).step_by(TOGETHER) {
        let ahead = &mut ahead;
        // SAFETY: the caller's promise.
        unsafe {
            match x.rows - first {
                1 => rows_many::<1, P, ONE>(matrix, x, &panels, first, ahead, around, out),
                2 => rows_many::<2, P, ONE>(matrix, x, &panels, first, ahead, around, out),
                3 => rows_many::<3, P, ONE>(matrix, x, &panels, first, ahead, around, out),
                4 => rows_many::<4, P, ONE>(matrix, x, &panels, first, ahead, around, out),
                5 => rows_many::<5, P, ONE>(matrix, x, &panels, first, ahead, around, out),
                6 => rows_many::<6, P, ONE>(matrix, x, &panels, first, ahead, around, out),
                7 => rows_many::<7, P, ONE>(matrix, x, &panels, first, ahead, around, out),
                _ => rows_many::<8, P, ONE>(matrix, x, &panels, first, ahead, around, out),
            }
        }
    }
}

/// Panels side by side.
struct Panels<'a, const P: usize> {
    /// The number of the first one.
    first: usize,
    /// Tiles and scales.
    weights: [(&'a [Tile], &'a [[u16; PANEL]]); P],
    /// What the sums of products begin with, span by span: see [`excess`].
    starts: &'a [[[i32; PANEL]; 2]],
}

/// `-128 * sum(w)` of each row of a span: what its dot products with activations plus 128 have too much, negative.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn excess(tiles: &[Tile]) -> [i32; PANEL] {
    // Four sums, so that a product need not wait for the one before it.
    let mut sums = [_mm512_setzero_si512(); 4];
    for tile in tiles {
        for (i, group) in tile.0.iter().enumerate() {
            // SAFETY: this function enables AVX-512 F.
            let w = unsafe { load::<false>(group) };
            sums[i % 4] = _mm512_dpbusd_epi32(sums[i % 4], _mm512_set1_epi8(-128), w);
        }
    }
    let [a, b, c, d] = sums;
    let sums = _mm512_add_epi32(_mm512_add_epi32(a, b), _mm512_add_epi32(c, d));
    let mut excess = [0; PANEL];
    // SAFETY: 64 bytes.
    unsafe {
        _mm512_storeu_si512(excess.as_mut_ptr().cast(), _mm512_sub_epi32(_mm512_setzero_si512(), sums))
    };
    excess
}

/// The weights that are asked for next.
pub(crate) struct Ahead {
    at: *const u8,
    lines: usize,
}

impl Ahead {
    /// What follows `weights`, so many cache lines each time.
    pub(crate) fn of<T: Stored>(weights: &[T], lines: usize) -> Self {
        Self { at: weights.as_ptr_range().end.cast(), lines }
    }

    /// So many times what it asks for each time.
    #[inline(always)]
    pub(crate) fn fetch(&mut self, times: usize) {
        for _ in 0..self.lines * times {
            // SAFETY: every x86-64 has it; what is asked for ahead may lie anywhere.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(self.at.cast()) };
            self.at = self.at.wrapping_add(64);
        }
    }
}

/// The outputs of `P` panels for the activation rows `first..first + M`, a group.
///
/// # Safety
/// Nobody else uses the panels' columns of `out`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
unsafe fn rows_many<const M: usize, const P: usize, const ONE: bool>(
    matrix: &PackedMatrix,
    x: &Quantised,
    panels: &Panels<'_, P>,
    first: usize,
    ahead: &mut Ahead,
    around: &Around<'_>,
    out: &Shared<'_, f32>,
) {
    let (xs, _) = x.group(first, M).as_chunks::<M>();
    let weights = panels.weights;
    let mut sums = [[_mm512_setzero_ps(); P]; M];
    let span = matrix.span::<ONE>();
    for (i, (xs, starts)) in xs.chunks_exact(span).zip(panels.starts).enumerate() {
        // SAFETY: 64 bytes.
        let starts: [_; P] = from_fn(|p| unsafe { _mm512_loadu_si512(starts[p].as_ptr().cast()) });
        let mut dots = [starts; M];
        let tiles = weights.map(|(tiles, _)| &tiles[i * span..][..xs.len()]);
        for (block, x) in xs.iter().enumerate() {
            if block % AT_ONCE == 0 {
                ahead.fetch(span.min(AT_ONCE));
            }
            for group in 0..BLOCK / 4 {
                // SAFETY: this function enables AVX-512 F.
                let w: [_; P] = from_fn(|p| unsafe { load::<false>(&tiles[p][block].0[group]) });
                for m in 0..M {
                    let x = _mm512_set1_epi32(four(&x[m].q, group));
                    for p in 0..P {
                        dots[m][p] = _mm512_dpbusd_epi32(dots[m][p], x, w[p]);
                    }
                }
            }
        }
        for p in 0..P {
            let scales = widen(&weights[p].1[i]);
            for m in 0..M {
                sums[m][p] = add_scaled(sums[m][p], dots[m][p], scales, xs[0][m].scale);
            }
        }
    }
    for (m, sums) in sums.into_iter().enumerate() {
        for (p, sums) in sums.into_iter().enumerate() {
            let mut lanes = [0.0; PANEL];
            F32x16(sums).store(&mut lanes);
            // SAFETY: the caller gave us the panels alone.
            let (column, out) = unsafe { matrix.outputs(panels.first + p, first + m, out) };
            lanes::finish::<F32x16>(&lanes, around, column, out);
        }
    }
}

/// Quantises a row of activations as [`scalar::quantise`](super::scalar::quantise) does.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(crate) fn quantise(x: &[f32], span: usize, blocks: &mut [Block], step: usize) {
    quantise_flipped::<0>(x, span, blocks, step);
}

/// [`quantise`] for [`Form::Unsigned`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(crate) fn quantise_unsigned(x: &[f32], span: usize, blocks: &mut [Block], step: usize) {
    quantise_flipped::<-128>(x, span, blocks, step);
}

/// [`quantise`] to bytes with the bits `FLIPPED`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
fn quantise_flipped<const FLIPPED: i8>(x: &[f32], span: usize, blocks: &mut [Block], step: usize) {
    match span {
        1 => quantise_spans::<FLIPPED>(x, 1, blocks, step),
        _ => quantise_spans::<FLIPPED>(x, span, blocks, step),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
fn quantise_spans<const FLIPPED: i8>(x: &[f32], span: usize, blocks: &mut [Block], step: usize) {
    let (xs, _) = x.as_chunks::<BLOCK>();
    for (i, xs) in xs.chunks_exact(span).enumerate() {
        let highest = highest_magnitude(xs);
        let (first, mut sums) = (i * span * step, _mm512_setzero_si512());
        for (x, block) in xs.iter().zip(blocks[first..].iter_mut().step_by(step)) {
            *block = Block { q: [FLIPPED; BLOCK], ..Block::ZERO };
            let Some(inverse) = block.set_scale(highest) else { continue };
            let [low, high] = round::<FLIPPED>(x, inverse, &mut block.q);
            sums = _mm512_add_epi32(sums, _mm512_add_epi32(low, high));
        }
        blocks[first].excess = -128 * _mm512_reduce_add_epi32(sums);
    }
}

/// A block of activations.
#[target_feature(enable = "avx512f")]
#[inline]
fn halves(x: &[f32; BLOCK]) -> [__m512; 2] {
    // SAFETY: a block is twice 16 f32.
    unsafe { [_mm512_loadu_ps(x.as_ptr()), _mm512_loadu_ps(x.as_ptr().add(16))] }
}

/// The bits of the largest magnitude.
#[target_feature(enable = "avx512f")]
#[inline]
pub(crate) fn highest_magnitude(xs: &[[f32; BLOCK]]) -> u32 {
    let mut highest = _mm512_setzero_si512();
    for x in xs.iter().flat_map(|x| halves(x)) {
        let magnitude = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fff_ffff));
        highest = _mm512_max_epu32(highest, magnitude);
    }
    _mm512_reduce_max_epu32(highest)
}

/// Stores `x * inverse` as integers with the bits `FLIPPED`, and returns them without.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
pub(crate) fn round<const FLIPPED: i8>(x: &[f32; BLOCK], inverse: f32, q: &mut [i8; BLOCK]) -> [__m512i; 2] {
    let flipped = |x| _mm_xor_si128(_mm512_cvtepi32_epi8(x), _mm_set1_epi8(FLIPPED));
    let inverse = _mm512_set1_ps(inverse);
    let [low, high] = halves(x).map(|x| _mm512_cvtps_epi32(_mm512_mul_ps(x, inverse)));
    // SAFETY: `q` has room for twice 16 bytes.
    unsafe {
        _mm_storeu_si128(q.as_mut_ptr().cast(), flipped(low));
        _mm_storeu_si128(q.as_mut_ptr().add(16).cast(), flipped(high));
    }
    [low, high]
}

/// 16 lanes in one register.
#[derive(Clone, Copy)]
pub(crate) struct F32x16(pub(crate) __m512);

// SAFETY of every block below: a register's load and store touch the 16 elements of the array that is given; and values
// of this type are only made inside functions that enable AVX-512, since `twins` is its only user.
impl Lanes for F32x16 {
    const KEPT: usize = 4;
    const REGISTERS: usize = 32;
    type Wide = [__m512d; 2];
    type Integers = __m512i;

    #[inline(always)]
    fn wide_zero() -> Self::Wide {
        // SAFETY: see above.
        [unsafe { _mm512_setzero_pd() }; 2]
    }

    #[inline(always)]
    fn add_to(self, sums: Self::Wide) -> Self::Wide {
        // SAFETY: see above.
        unsafe {
            let high = _mm512_extractf64x4_pd::<1>(_mm512_castps_pd(self.0));
            [
                _mm512_add_pd(sums[0], _mm512_cvtps_pd(_mm512_castps512_ps256(self.0))),
                _mm512_add_pd(sums[1], _mm512_cvtps_pd(_mm256_castpd_ps(high))),
            ]
        }
    }

    #[inline(always)]
    fn wide_store(sums: Self::Wide) -> [f64; LANES] {
        let mut lanes = [0.0; LANES];
        for (lanes, sums) in lanes.as_chunks_mut::<8>().0.iter_mut().zip(sums) {
            // SAFETY: see above; the array is of 8 elements.
            unsafe { _mm512_storeu_pd(lanes.as_mut_ptr(), sums) };
        }
        lanes
    }

    #[inline(always)]
    fn splat(x: f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_set1_ps(x) })
    }

    #[inline(always)]
    fn load(x: &[f32; LANES]) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_loadu_ps(x.as_ptr()) })
    }

    #[inline(always)]
    fn fetch(at: *const f32) {
        // SAFETY: see above; what is asked for may lie anywhere.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }

    #[inline(always)]
    fn store(self, out: &mut [f32; LANES]) {
        // SAFETY: see above.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_sub_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_div_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_min_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_max_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn zero_below(self, limit: Self, value: Self) -> Self {
        // SAFETY: see above.
        unsafe {
            let below = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, limit.0);
            Self(_mm512_maskz_mov_ps(!below, value.0))
        }
    }

    #[inline(always)]
    fn powers(self) -> (Self, Self) {
        // SAFETY: see above.
        unsafe {
            let n = _mm512_sub_epi32(_mm512_castps_si512(self.0), _mm512_set1_epi32(ROUND.to_bits() as i32));
            let half = _mm512_srai_epi32::<1>(n);
            let rest = _mm512_sub_epi32(n, half);
            let bias = _mm512_set1_epi32(127);
            let half = _mm512_slli_epi32::<23>(_mm512_add_epi32(half, bias));
            let rest = _mm512_slli_epi32::<23>(_mm512_add_epi32(rest, bias));
            (Self(_mm512_castsi512_ps(half)), Self(_mm512_castsi512_ps(rest)))
        }
    }

    #[inline(always)]
    fn load_pairs(x: &Pairs) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_loadu_si512(x.as_ptr().cast()) }
    }

    #[inline(always)]
    fn splat_pair(pair: i32) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_set1_epi32(pair) }
    }

    #[inline(always)]
    fn add_products(sums: __m512i, x: __m512i, y: __m512i) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_dpwssd_epi32(sums, x, y) }
    }

    #[inline(always)]
    fn from_sums(sums: __m512i) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_cvtepi32_ps(sums) })
    }

    #[inline(always)]
    fn store_pairs(first: Self, second: Self, out: &mut Pairs) {
        // SAFETY: see above.
        unsafe {
            let (first, second) = (_mm512_cvtps_epi32(first.0), _mm512_cvtps_epi32(second.0));
            let pairs = _mm512_mask_blend_epi16(0xaaaa_aaaa, first, _mm512_slli_epi32::<16>(second));
            _mm512_storeu_si512(out.as_mut_ptr().cast(), pairs);
        }
    }

    #[inline(always)]
    fn store_i16(self, out: &mut Row) {
        // SAFETY: see above.
        unsafe {
            let integers = _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(self.0));
            _mm256_storeu_si256(out.as_mut_ptr().cast(), integers);
        }
    }

    #[inline(always)]
    fn max_magnitude(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe {
            let magnitude = _mm512_and_si512(_mm512_castps_si512(other.0), _mm512_set1_epi32(0x7fff_ffff));
            Self(_mm512_castsi512_ps(_mm512_max_epi32(_mm512_castps_si512(self.0), magnitude)))
        }
    }

    #[inline(always)]
    fn butterflies(self) -> Self {
        // SAFETY: see above.
        unsafe {
            let fours = _mm512_shuffle_f32x4::<0b10_11_00_01>(self.0, self.0);
            let x = _mm512_mask_sub_ps(_mm512_add_ps(self.0, fours), 0xf0f0, fours, self.0);
            let eights = _mm512_shuffle_f32x4::<0b01_00_11_10>(x, x);
            Self(_mm512_mask_sub_ps(_mm512_add_ps(x, eights), 0xff00, eights, x))
        }
    }

    #[inline(always)]
    fn transpose(rows: [&[f32; 4]; LANES]) -> [Self; 4] {
        // SAFETY: see above; each load is of 4 elements.
        unsafe {
            // Rows i, i + 4, i + 8 and i + 12 side by side; then four times 4 x 4.
            let [a, b, c, d] = from_fn(|i| {
                let row = |at: usize| _mm_loadu_ps(rows[i + at].as_ptr());
                let x = _mm512_castps128_ps512(row(0));
                let x = _mm512_insertf32x4::<1>(x, row(4));
                let x = _mm512_insertf32x4::<2>(x, row(8));
                _mm512_insertf32x4::<3>(x, row(12))
            });
            let pair = |x, y| (_mm512_unpacklo_ps(x, y), _mm512_unpackhi_ps(x, y));
            let ((ab0, ab2), (cd0, cd2)) = (pair(a, b), pair(c, d));
            let low =
                |x, y| Self(_mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(x), _mm512_castps_pd(y))));
            let high =
                |x, y| Self(_mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(x), _mm512_castps_pd(y))));
            [low(ab0, cd0), high(ab0, cd0), low(ab2, cd2), high(ab2, cd2)]
        }
    }

    #[inline(always)]
    fn fold4(values: [Self; 4]) -> [f32; 4] {
        let [a, b, c, d] = values;
        super::avx2::F32x16::fold4([a.halves(), b.halves(), c.halves(), d.halves()])
    }
}

impl F32x16 {
    /// The same lanes in AVX2's two registers.
    #[inline(always)]
    fn halves(self) -> super::avx2::F32x16 {
        // SAFETY: see above.
        unsafe {
            let high = _mm512_extractf64x4_pd::<1>(_mm512_castps_pd(self.0));
            super::avx2::F32x16([_mm512_castps512_ps256(self.0), _mm256_castpd_ps(high)])
        }
    }
}

twins!(F32x16, "avx512f,avx512bw,avx512vl,avx512vnni");
