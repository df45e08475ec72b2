//! AVX2, with and without AVX-VNNI: 256-bit registers.
//!
//! As in [`avx512`](super::avx512), but:
//!
//! 1. A group of a panel fills two registers.
//! 2. Four rows of activations share the loads of weights: 8 of the 16 registers count. The f32 sums then live in the
//!    nearest cache, which costs a load and a store per 8 dot products.
//! 3. Without VNNI, `vpmaddubsw` multiplies unsigned by signed bytes and adds pairs with 16-bit saturation. Weights plus
//!    128 would saturate; so the unsigned operand is `|x|`, and the sign of `x` moves to the weights by an exclusive or
//!    ([`Form::Magnitudes`](super::quantised::Form)), so that these lie within -128..=127: a pair is at most
//!    `2 * 127 * 128 = 32512`, exact. On Zen 3, whose fourth vector unit takes an exclusive or but, by these times, neither
//!    `vpsignb` nor sums, products of many rows are 10 to 16 % faster so.
//! 4. A single row waits for memory. AMD's processors ([`Isa::fetches_streams`]) fetch streams that they see, and what is
//!    asked for ahead takes the places of that: a Zen 3 server reads 17 GB/s with one core and 14 when asked, whatever the
//!    distance, 21 as four streams. So there it goes through four panels side by side and asks for nothing. (More rows, and
//!    4-bit weights, leave time enough between loads that asking pays there too, for the first four rows, which find a panel
//!    far away: it saves 19 % of the time of four, 8 to 12 of eight, some 4 of 64.)
//! 5. 4-bit weights plus 8 are the unsigned operand as they are. A pair is at most `2 * 15 * 127`, so that the 8 of a block
//!    add up in 16 bits, and are widened once.

use super::Around;
use super::attention_i16::{Pairs, Row};
use super::avx512::AHEAD;
use super::isa::Isa;
use super::lanes::{Lanes, twins};
use super::math::ROUND;
use super::matrix::{BLOCK, PANEL, PackedMatrix, Packing, Stored, Tile, TileQ4};
use super::pack;
use super::pool::Shared;
use super::quantised::{Block, Quantised, Signs, four};
use super::scalar::LANES;
use std::arch::x86_64::*;
use std::array::from_fn;
use std::ops::Range;

/// # Safety
/// Nobody else uses the columns of `out` that belong to `panels`.
#[target_feature(enable = "avx2,f16c")]
pub(crate) unsafe fn matmul(
    matrix: &PackedMatrix,
    x: &Quantised,
    panels: Range<usize>,
    around: &Around<'_>,
    out: &Shared<'_, f32>,
) {
    // SAFETY: the caller's promise.
    unsafe { matmul_in(Isa::fetches_streams(), matrix, x, panels, around, out) }
}

/// [`matmul`], which reads `streams` for a single row, or one panel after the other.
///
/// # Safety
/// Nobody else uses the columns of `out` that belong to `panels`.
#[target_feature(enable = "avx2,f16c")]
pub(crate) unsafe fn matmul_in(
    streams: bool,
    matrix: &PackedMatrix,
    x: &Quantised,
    mut panels: Range<usize>,
    around: &Around<'_>,
    out: &Shared<'_, f32>,
) {
    // SAFETY: the caller's promise; this function enables AVX2 and F16C.
    unsafe {
        while streams && x.rows == 1 && panels.len() >= STREAMS {
            match matrix.packing() {
                Packing::Q8 => row::<true>(matrix, x, panels.start, around, out),
                Packing::Q8By(_) => row::<false>(matrix, x, panels.start, around, out),
                Packing::Q4 => break,
            }
            panels.start += STREAMS;
        }
        matmul_with::<false>(matrix, x, panels, around, out);
    }
}

/// [`matmul`] with AVX-VNNI.
///
/// # Safety
/// Nobody else uses the columns of `out` that belong to `panels`.
#[target_feature(enable = "avx2,f16c,avxvnni")]
pub(crate) unsafe fn matmul_dot(
    matrix: &PackedMatrix,
    x: &Quantised,
    panels: Range<usize>,
    around: &Around<'_>,
    out: &Shared<'_, f32>,
) {
    // SAFETY: the caller's promise; this function enables AVX2, F16C and AVX-VNNI.
    unsafe { matmul_with::<true>(matrix, x, panels, around, out) }
}

/// Weights that know their dot products with activations.
trait Weights: Stored {
    /// What the sums of products with a span start at.
    fn start(x: &Block) -> i32;

    /// Adds the dot products of 16 rows of weights with `M` of activations, whose `signs` are given where they are apart.
    /// `FETCH` asks for the weights that come `AHEAD` of these.
    ///
    /// # Safety
    /// The caller enables AVX2 and, if `VNNI`, AVX-VNNI.
    unsafe fn add_dots<const M: usize, const VNNI: bool, const FETCH: bool>(
        &self,
        x: &[Block; M],
        signs: Option<&[Signs; M]>,
        dots: &mut [[__m256i; 2]; M],
    );
}

/// The two registers of a group, after asking for those that come `AHEAD` of them if `fetch` says so.
///
/// # Safety
/// The caller enables AVX2.
#[inline(always)]
unsafe fn load(group: &[i32; PANEL], fetch: bool) -> [__m256i; 2] {
    let at = group.as_ptr().cast::<__m256i>();
    // SAFETY: a group has 64 bytes; what is asked for ahead may lie anywhere.
    unsafe {
        if fetch {
            _mm_prefetch::<_MM_HINT_T1>(at.wrapping_byte_add(AHEAD).cast());
        }
        [_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1))]
    }
}

/// The bytes of columns `4 * group..4 * group + 4`, eight times.
///
/// # Safety
/// The caller enables AVX2.
#[inline(always)]
unsafe fn spread(bytes: &[i8; BLOCK], group: usize) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe { _mm256_set1_epi32(four(bytes, group)) }
}

/// `sums` and the products of magnitudes with weights that take the sign, in fours.
///
/// # Safety
/// The caller enables AVX2.
#[inline(always)]
unsafe fn add_signed(sums: __m256i, w: __m256i, magnitude: __m256i, sign: __m256i) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        let pairs = _mm256_maddubs_epi16(magnitude, _mm256_xor_si256(w, sign));
        _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
    }
}

impl Weights for Tile {
    #[inline(always)]
    fn start(x: &Block) -> i32 {
        x.excess
    }

    #[inline(always)]
    unsafe fn add_dots<const M: usize, const VNNI: bool, const FETCH: bool>(
        &self,
        x: &[Block; M],
        signs: Option<&[Signs; M]>,
        dots: &mut [[__m256i; 2]; M],
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let flip = _mm256_set1_epi8(-128);
            let signs =
                if VNNI { &[[0; BLOCK]; M] } else { signs.expect("magnitudes have their signs apart") };
            for (i, group) in self.0.iter().enumerate() {
                let mut w = load(group, FETCH);
                if VNNI {
                    w = [_mm256_xor_si256(w[0], flip), _mm256_xor_si256(w[1], flip)];
                }
                for m in 0..M {
                    let q = spread(&x[m].q, i);
                    if VNNI {
                        dots[m][0] = _mm256_dpbusd_avx_epi32(dots[m][0], w[0], q);
                        dots[m][1] = _mm256_dpbusd_avx_epi32(dots[m][1], w[1], q);
                    } else {
                        let sign = spread(&signs[m], i);
                        dots[m][0] = add_signed(dots[m][0], w[0], q, sign);
                        dots[m][1] = add_signed(dots[m][1], w[1], q, sign);
                    }
                }
            }
        }
    }
}

impl Weights for TileQ4 {
    #[inline(always)]
    fn start(x: &Block) -> i32 {
        x.excess / 16
    }

    #[inline(always)]
    unsafe fn add_dots<const M: usize, const VNNI: bool, const FETCH: bool>(
        &self,
        x: &[Block; M],
        _: Option<&[Signs; M]>,
        dots: &mut [[__m256i; 2]; M],
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let (low, ones) = (_mm256_set1_epi8(15), _mm256_set1_epi16(1));
            let mut pairs = [[_mm256_setzero_si256(); 2]; M];
            for (pair, group) in self.0.iter().enumerate() {
                let both = load(group, FETCH);
                for i in 0..2 {
                    let w = both.map(|both| {
                        _mm256_and_si256(if i == 0 { both } else { _mm256_srli_epi16::<4>(both) }, low)
                    });
                    for m in 0..M {
                        let q = spread(&x[m].q, 2 * pair + i);
                        for half in 0..2 {
                            if VNNI {
                                dots[m][half] = _mm256_dpbusd_avx_epi32(dots[m][half], w[half], q);
                            } else {
                                pairs[m][half] =
                                    _mm256_add_epi16(pairs[m][half], _mm256_maddubs_epi16(w[half], q));
                            }
                        }
                    }
                }
            }
            if !VNNI {
                for m in 0..M {
                    for half in 0..2 {
                        dots[m][half] =
                            _mm256_add_epi32(dots[m][half], _mm256_madd_epi16(pairs[m][half], ones));
                    }
                }
            }
        }
    }
}

/// # Safety
/// Nobody else uses the columns of `out` that belong to `panels`; the caller enables AVX2, F16C and, if `VNNI`, AVX-VNNI.
#[inline(always)]
unsafe fn matmul_with<const VNNI: bool>(
    matrix: &PackedMatrix,
    x: &Quantised,
    panels: Range<usize>,
    around: &Around<'_>,
    out: &Shared<'_, f32>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match matrix.packing() {
            Packing::Q8 => matmul_of::<Tile, true, VNNI>(matrix, x, panels, around, out),
            Packing::Q8By(_) => matmul_of::<Tile, false, VNNI>(matrix, x, panels, around, out),
            Packing::Q4 => matmul_of::<TileQ4, true, VNNI>(matrix, x, panels, around, out),
        }
    }
}

/// # Safety
/// As for [`matmul_with`].
#[inline(always)]
unsafe fn matmul_of<T: Weights, const ONE: bool, const VNNI: bool>(
    matrix: &PackedMatrix,
    x: &Quantised,
    panels: Range<usize>,
    around: &Around<'_>,
    out: &Shared<'_, f32>,
) {
    for panel in panels {
        // SAFETY: the caller's promise.
        unsafe {
            if x.rows >= 4 {
                rows::<T, 4, ONE, VNNI, true>(matrix, x, panel, 0, around, out);
            }
            for first in (0..x.rows).step_by(4).skip(usize::from(x.rows >= 4)) {
                match x.rows - first {
                    1 => rows::<T, 1, ONE, VNNI, true>(matrix, x, panel, first, around, out),
                    2 => rows::<T, 2, ONE, VNNI, true>(matrix, x, panel, first, around, out),
                    3 => rows::<T, 3, ONE, VNNI, true>(matrix, x, panel, first, around, out),
                    _ => rows::<T, 4, ONE, VNNI, false>(matrix, x, panel, first, around, out),
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
unsafe fn rows<T: Weights, const M: usize, const ONE: bool, const VNNI: bool, const FETCH: bool>(
    matrix: &PackedMatrix,
    x: &Quantised,
    panel: usize,
    first: usize,
    around: &Around<'_>,
    out: &Shared<'_, f32>,
) {
    // SAFETY of the block: loads stay within a tile (8 groups of 64 bytes, 16 scales of 2 bytes); instructions are
    // enabled by the caller.
    unsafe {
        let (tiles, scales) = matrix.panel::<T>(panel);
        let (xs, _) = x.group(first, M).as_chunks::<M>();
        let mut signs = x.signs(first, M).as_chunks::<M>().0.iter();
        let mut sums = [[_mm256_setzero_ps(); 2]; M];
        let span = matrix.span::<ONE>();
        let spans = tiles.chunks_exact(span).zip(scales).zip(xs.chunks_exact(span));
        for ((tiles, scales), xs) in spans {
            let mut dots: [_; M] = from_fn(|m| [_mm256_set1_epi32(T::start(&xs[0][m])); 2]);
            for (tile, x) in tiles.iter().zip(xs) {
                tile.add_dots::<M, VNNI, FETCH>(x, signs.next(), &mut dots);
            }
            let scales = widen(scales);
            for m in 0..M {
                add_scaled(&mut sums[m], dots[m], scales, xs[0][m].scale);
            }
        }
        for (m, sums) in sums.into_iter().enumerate() {
            write(sums, matrix, panel, first + m, around, out);
        }
    }
}

/// Panels that a single row of activations goes through side by side.
const STREAMS: usize = 4;

/// The outputs of [`STREAMS`] panels from `panel` on for a single row of activations with their signs apart.
///
/// # Safety
/// As for [`matmul_with`].
#[inline(always)]
unsafe fn row<const ONE: bool>(
    matrix: &PackedMatrix,
    x: &Quantised,
    panel: usize,
    around: &Around<'_>,
    out: &Shared<'_, f32>,
) {
    // SAFETY of the block: as in `rows`.
    unsafe {
        let weights: [_; STREAMS] = from_fn(|p| matrix.panel::<Tile>(panel + p));
        let span = matrix.span::<ONE>();
        let (xs, signs) = (x.group(0, 1).chunks_exact(span), x.signs(0, 1).chunks_exact(span));
        let mut sums = [[_mm256_setzero_ps(); 2]; STREAMS];
        for (i, (xs, signs)) in xs.zip(signs).enumerate() {
            let tiles = weights.map(|(tiles, _)| &tiles[i * span..][..xs.len()]);
            let mut dots = [[_mm256_set1_epi32(xs[0].excess); 2]; STREAMS];
            for (j, (x, signs)) in xs.iter().zip(signs).enumerate() {
                for group in 0..BLOCK / 4 {
                    let (q, sign) = (spread(&x.q, group), spread(signs, group));
                    for p in 0..STREAMS {
                        let w = load(&tiles[p][j].0[group], false);
                        dots[p][0] = add_signed(dots[p][0], w[0], q, sign);
                        dots[p][1] = add_signed(dots[p][1], w[1], q, sign);
                    }
                }
            }
            for p in 0..STREAMS {
                add_scaled(&mut sums[p], dots[p], widen(&weights[p].1[i]), xs[0].scale);
            }
        }
        for (p, sums) in sums.into_iter().enumerate() {
            write(sums, matrix, panel + p, 0, around, out);
        }
    }
}

/// Finishes the sums of a panel for one row of activations, and writes them.
///
/// # Safety
/// As for [`matmul_with`].
#[inline(always)]
unsafe fn write(
    sums: [__m256; 2],
    matrix: &PackedMatrix,
    panel: usize,
    row: usize,
    around: &Around<'_>,
    out: &Shared<'_, f32>,
) {
    let mut lanes = [0.0; PANEL];
    F32x16(sums).store(&mut lanes);
    // SAFETY: the caller's promise.
    unsafe {
        let (column, out) = matrix.outputs(panel, row, out);
        finish(&lanes, around, column, out);
    }
}

/// A panel's scales.
///
/// # Safety
/// The caller enables AVX2 and F16C.
#[inline(always)]
unsafe fn widen(scales: &[u16; PANEL]) -> [__m256; 2] {
    let at = scales.as_ptr().cast::<__m128i>();
    // SAFETY: the caller's promise; there are 16 scales of 2 bytes.
    unsafe { [_mm256_cvtph_ps(_mm_loadu_si128(at)), _mm256_cvtph_ps(_mm_loadu_si128(at.add(1)))] }
}

/// Adds `dots * (weights' scales * activations' scale)`.
///
/// # Safety
/// The caller enables AVX2.
#[inline(always)]
unsafe fn add_scaled(sums: &mut [__m256; 2], dots: [__m256i; 2], scales: [__m256; 2], scale: f32) {
    for half in 0..2 {
        // SAFETY: the caller's promise.
        unsafe {
            let scales = _mm256_mul_ps(scales[half], _mm256_set1_ps(scale));
            sums[half] = _mm256_add_ps(sums[half], _mm256_mul_ps(_mm256_cvtepi32_ps(dots[half]), scales));
        }
    }
}

/// [`pack::row`], compiled for AVX2.
#[target_feature(enable = "avx2")]
pub(crate) fn pack_row(
    weights: &[f32],
    tiles: &mut [Tile],
    scales: &mut [[u16; PANEL]],
    row: usize,
) -> Result<(), usize> {
    pack::row(weights, tiles, scales, row)
}

/// [`pack::columns`], compiled for AVX2.
#[target_feature(enable = "avx2")]
pub(crate) fn pack_columns(
    weights: &[f32],
    stride: usize,
    n: usize,
    tiles: &mut [Tile],
    scales: &mut [u16; PANEL],
) -> Result<(), usize> {
    pack::columns(weights, stride, n, tiles, scales)
}

/// [`pack::row_q4`], compiled for AVX2.
#[target_feature(enable = "avx2")]
pub(crate) fn pack_row_q4(
    weights: &[f32],
    tiles: &mut [TileQ4],
    scales: &mut [[u16; PANEL]],
    row: usize,
) -> Result<(), usize> {
    pack::row_q4(weights, tiles, scales, row)
}

/// [`pack::columns_q4`], compiled for AVX2.
#[target_feature(enable = "avx2")]
pub(crate) fn pack_columns_q4(
    weights: &[f32],
    stride: usize,
    n: usize,
    tile: &mut TileQ4,
    scales: &mut [u16; PANEL],
) -> Result<(), usize> {
    pack::columns_q4(weights, stride, n, tile, scales)
}

/// Quantises a row of activations as [`scalar::quantise`](super::scalar::quantise) does.
#[target_feature(enable = "avx2")]
pub(crate) fn quantise(x: &[f32], span: usize, blocks: &mut [Block], step: usize) {
    match span {
        1 => quantise_spans::<true>(x, span, blocks, step),
        _ => quantise_spans::<false>(x, span, blocks, step),
    }
}

#[target_feature(enable = "avx2")]
fn quantise_spans<const ONE: bool>(x: &[f32], span: usize, blocks: &mut [Block], step: usize) {
    let span = if ONE { 1 } else { span };
    // SAFETY: a block is four times 8 f32.
    let parts = |x: &[f32; BLOCK]| from_fn::<_, 4, _>(|i| unsafe { _mm256_loadu_ps(x.as_ptr().add(8 * i)) });
    let (xs, _) = x.as_chunks::<BLOCK>();
    for (i, xs) in xs.chunks_exact(span).enumerate() {
        let mut highest = _mm256_setzero_si256();
        for x in xs {
            let magnitude =
                parts(x).map(|x| _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fff_ffff)));
            let pair = |i: usize| _mm256_max_epu32(magnitude[i], magnitude[i + 2]);
            highest = _mm256_max_epu32(highest, _mm256_max_epu32(pair(0), pair(1)));
        }
        let highest = _mm_max_epu32(_mm256_castsi256_si128(highest), _mm256_extracti128_si256::<1>(highest));
        let highest = _mm_max_epu32(highest, _mm_shuffle_epi32::<0b01_00_11_10>(highest));
        let highest = _mm_max_epu32(highest, _mm_shuffle_epi32::<0b10_11_00_01>(highest));
        let highest = _mm_cvtsi128_si32(highest) as u32;
        let (first, mut sums) = (i * span * step, _mm256_setzero_si256());
        for (x, block) in xs.iter().zip(blocks[first..].iter_mut().step_by(step)) {
            *block = Block::ZERO;
            let Some(inverse) = block.set_scale(highest) else { continue };
            let inverse = _mm256_set1_ps(inverse);
            let i = parts(x).map(|x| _mm256_cvtps_epi32(_mm256_mul_ps(x, inverse)));
            // Packing works within 128-bit halves; the permutation puts the groups of four bytes in order.
            let packed = _mm256_packs_epi16(_mm256_packs_epi32(i[0], i[1]), _mm256_packs_epi32(i[2], i[3]));
            let packed = _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
            // SAFETY: `q` has room for 32 bytes.
            unsafe { _mm256_storeu_si256(block.q.as_mut_ptr().cast(), packed) };
            let pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), packed);
            sums = _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
        }
        let sum = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
        let sum = _mm_add_epi32(sum, _mm_shuffle_epi32::<0b01_00_11_10>(sum));
        let sum = _mm_add_epi32(sum, _mm_shuffle_epi32::<0b10_11_00_01>(sum));
        blocks[first].excess = -128 * _mm_cvtsi128_si32(sum);
    }
}

/// Makes blocks of `n` rows, whose spans have `span` blocks, ones of [`Form::Magnitudes`](super::quantised::Form).
#[target_feature(enable = "avx2")]
pub(crate) fn set_signs_apart(blocks: &mut [Block], signs: &mut [Signs], span: usize, n: usize) {
    for (blocks, signs) in blocks.chunks_exact_mut(span * n).zip(signs.chunks_exact_mut(span * n)) {
        blocks[..n].iter_mut().for_each(|block| block.excess = 0);
        for (i, signs) in signs.iter_mut().enumerate() {
            let at = blocks[i].q.as_mut_ptr().cast::<__m256i>();
            // SAFETY: a block has 32 activations, and 32 signs.
            let negative = unsafe {
                let q = _mm256_loadu_si256(at);
                let (magnitude, sign) = (_mm256_abs_epi8(q), _mm256_cmpgt_epi8(_mm256_setzero_si256(), q));
                _mm256_storeu_si256(at, magnitude);
                _mm256_storeu_si256(signs.as_mut_ptr().cast(), sign);
                _mm256_and_si256(magnitude, sign)
            };
            // Of 8 each, as 64-bit numbers.
            let sums = _mm256_sad_epu8(negative, _mm256_setzero_si256());
            let sums = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
            blocks[i % n].excess += _mm_cvtsi128_si32(sums) + _mm_extract_epi32::<2>(sums);
        }
    }
}

/// 16 lanes in two registers.
#[derive(Clone, Copy)]
pub(crate) struct F32x16(pub(crate) [__m256; 2]);

// SAFETY of every block below: loads and stores touch the 16 elements of the array that is given; and values of this
// type are only made inside functions that enable AVX2: those of `twins`, of this module and of AVX-512's.
impl F32x16 {
    #[inline(always)]
    fn with(self, other: Self, f: impl Fn(__m256, __m256) -> __m256) -> Self {
        Self([f(self.0[0], other.0[0]), f(self.0[1], other.0[1])])
    }
}

impl Lanes for F32x16 {
    const KEPT: usize = 4;
    const REGISTERS: usize = 8;
    type Wide = [__m256d; 4];
    type Integers = [__m256i; 2];

    #[inline(always)]
    fn wide_zero() -> Self::Wide {
        // SAFETY: see above.
        [unsafe { _mm256_setzero_pd() }; 4]
    }

    #[inline(always)]
    fn add_to(self, mut sums: Self::Wide) -> Self::Wide {
        for (half, sums) in self.0.into_iter().zip(sums.as_chunks_mut::<2>().0) {
            // SAFETY: see above.
            unsafe {
                sums[0] = _mm256_add_pd(sums[0], _mm256_cvtps_pd(_mm256_castps256_ps128(half)));
                sums[1] = _mm256_add_pd(sums[1], _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(half)));
            }
        }
        sums
    }

    #[inline(always)]
    fn wide_store(sums: Self::Wide) -> [f64; LANES] {
        let mut lanes = [0.0; LANES];
        for (lanes, sums) in lanes.as_chunks_mut::<4>().0.iter_mut().zip(sums) {
            // SAFETY: see above; the array is of 4 elements.
            unsafe { _mm256_storeu_pd(lanes.as_mut_ptr(), sums) };
        }
        lanes
    }

    #[inline(always)]
    fn splat(x: f32) -> Self {
        // SAFETY: see above.
        Self([unsafe { _mm256_set1_ps(x) }; 2])
    }

    #[inline(always)]
    fn load(x: &[f32; LANES]) -> Self {
        // SAFETY: see above.
        Self(unsafe { [_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))] })
    }

    #[inline(always)]
    fn fetch(at: *const f32) {
        // SAFETY: see above; what is asked for may lie anywhere.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }

    #[inline(always)]
    fn store(self, out: &mut [f32; LANES]) {
        // SAFETY: see above.
        unsafe {
            _mm256_storeu_ps(out.as_mut_ptr(), self.0[0]);
            _mm256_storeu_ps(out.as_mut_ptr().add(8), self.0[1]);
        }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        self.with(other, |a, b| unsafe { _mm256_add_ps(a, b) })
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: see above.
        self.with(other, |a, b| unsafe { _mm256_sub_ps(a, b) })
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: see above.
        self.with(other, |a, b| unsafe { _mm256_mul_ps(a, b) })
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        // SAFETY: see above.
        self.with(other, |a, b| unsafe { _mm256_div_ps(a, b) })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: see above.
        self.with(other, |a, b| unsafe { _mm256_min_ps(a, b) })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: see above.
        self.with(other, |a, b| unsafe { _mm256_max_ps(a, b) })
    }

    #[inline(always)]
    fn zero_below(self, limit: Self, value: Self) -> Self {
        // SAFETY: see above.
        let below = self.with(limit, |a, b| unsafe { _mm256_cmp_ps::<_CMP_LT_OQ>(a, b) });
        // SAFETY: see above.
        below.with(value, |a, b| unsafe { _mm256_andnot_ps(a, b) })
    }

    #[inline(always)]
    fn powers(self) -> (Self, Self) {
        // SAFETY: see above.
        unsafe {
            let round = _mm256_set1_epi32(ROUND.to_bits() as i32);
            let n0 = _mm256_sub_epi32(_mm256_castps_si256(self.0[0]), round);
            let n1 = _mm256_sub_epi32(_mm256_castps_si256(self.0[1]), round);
            let (half0, half1) = (_mm256_srai_epi32::<1>(n0), _mm256_srai_epi32::<1>(n1));
            let (rest0, rest1) = (_mm256_sub_epi32(n0, half0), _mm256_sub_epi32(n1, half1));
            (Self([power(half0), power(half1)]), Self([power(rest0), power(rest1)]))
        }
    }

    #[inline(always)]
    fn load_pairs(x: &Pairs) -> Self::Integers {
        let at = x.as_ptr().cast::<__m256i>();
        // SAFETY: see above.
        unsafe { [_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1))] }
    }

    #[inline(always)]
    fn splat_pair(pair: i32) -> Self::Integers {
        // SAFETY: see above.
        [unsafe { _mm256_set1_epi32(pair) }; 2]
    }

    #[inline(always)]
    fn add_products(sums: Self::Integers, x: Self::Integers, y: Self::Integers) -> Self::Integers {
        // SAFETY: see above.
        from_fn(|i| unsafe { _mm256_add_epi32(sums[i], _mm256_madd_epi16(x[i], y[i])) })
    }

    #[inline(always)]
    fn from_sums(sums: Self::Integers) -> Self {
        // SAFETY: see above.
        Self(sums.map(|sums| unsafe { _mm256_cvtepi32_ps(sums) }))
    }

    #[inline(always)]
    fn store_pairs(first: Self, second: Self, out: &mut Pairs) {
        let at = out.as_mut_ptr().cast::<__m256i>();
        for half in 0..2 {
            // SAFETY: see above.
            unsafe {
                let (first, second) = (_mm256_cvtps_epi32(first.0[half]), _mm256_cvtps_epi32(second.0[half]));
                let pairs = _mm256_blend_epi16::<0b1010_1010>(first, _mm256_slli_epi32::<16>(second));
                _mm256_storeu_si256(at.add(half), pairs);
            }
        }
    }

    #[inline(always)]
    fn store_i16(self, out: &mut Row) {
        // SAFETY: see above.
        unsafe {
            let [low, high] = self.0.map(|x| _mm256_cvtps_epi32(x));
            // The halves of both come in turn.
            let integers = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(low, high));
            _mm256_storeu_si256(out.as_mut_ptr().cast(), integers);
        }
    }

    #[inline(always)]
    fn max_magnitude(self, other: Self) -> Self {
        // SAFETY: see above.
        self.with(other, |a, b| unsafe {
            let magnitude = _mm256_and_si256(_mm256_castps_si256(b), _mm256_set1_epi32(0x7fff_ffff));
            _mm256_castsi256_ps(_mm256_max_epi32(_mm256_castps_si256(a), magnitude))
        })
    }

    #[inline(always)]
    fn butterflies(self) -> Self {
        // SAFETY: see above.
        unsafe {
            let mut halves = self.0;
            for x in &mut halves {
                let (low, high) =
                    (_mm256_permute2f128_ps::<0x00>(*x, *x), _mm256_permute2f128_ps::<0x11>(*x, *x));
                *x = _mm256_blend_ps::<0b1111_0000>(_mm256_add_ps(low, high), _mm256_sub_ps(low, high));
            }
            let [low, high] = halves;
            Self([_mm256_add_ps(low, high), _mm256_sub_ps(low, high)])
        }
    }

    #[inline(always)]
    fn transpose(rows: [&[f32; 4]; LANES]) -> [Self; 4] {
        let mut out = [Self::splat(0.0); 4];
        for half in 0..2 {
            // SAFETY: see above; each load is of 4 elements.
            unsafe {
                // Rows i and i + 4 side by side; then twice 4 x 4.
                let [a, b, c, d] = from_fn(|i| {
                    let row = |at: usize| _mm_loadu_ps(rows[8 * half + i + at].as_ptr());
                    _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(row(0)), row(4))
                });
                let pair = |x, y| {
                    (_mm256_castps_pd(_mm256_unpacklo_ps(x, y)), _mm256_castps_pd(_mm256_unpackhi_ps(x, y)))
                };
                let ((ab0, ab2), (cd0, cd2)) = (pair(a, b), pair(c, d));
                out[0].0[half] = _mm256_castpd_ps(_mm256_unpacklo_pd(ab0, cd0));
                out[1].0[half] = _mm256_castpd_ps(_mm256_unpackhi_pd(ab0, cd0));
                out[2].0[half] = _mm256_castpd_ps(_mm256_unpacklo_pd(ab2, cd2));
                out[3].0[half] = _mm256_castpd_ps(_mm256_unpackhi_pd(ab2, cd2));
            }
        }
        out
    }

    #[inline(always)]
    fn fold4(values: [Self; 4]) -> [f32; 4] {
        // 16 lanes to 8, each, and 8 to 4: [a | b] and [c | d].
        let [a, b, c, d] = values;
        let (ab, cd) = (a.fold_with(b), c.fold_with(d));
        // SAFETY: see above.
        unsafe {
            // 4 to 2: [a a c c | b b d d].
            let (ab, cd) = (_mm256_castps_pd(ab), _mm256_castps_pd(cd));
            let low = _mm256_castpd_ps(_mm256_unpacklo_pd(ab, cd));
            let sums = _mm256_add_ps(low, _mm256_castpd_ps(_mm256_unpackhi_pd(ab, cd)));
            // 2 to 1: [a c . . | b d . .].
            let sums = _mm256_hadd_ps(sums, sums);
            let sums = _mm_unpacklo_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps::<1>(sums));
            let mut out = [0.0; 4];
            _mm_storeu_ps(out.as_mut_ptr(), sums);
            out
        }
    }
}

impl F32x16 {
    /// Folded to four lanes, as the lower half, and `other` as the upper.
    #[inline(always)]
    fn fold_with(self, other: Self) -> __m256 {
        // SAFETY: see above.
        unsafe {
            let (x, y) = (_mm256_add_ps(self.0[0], self.0[1]), _mm256_add_ps(other.0[0], other.0[1]));
            _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(x, y), _mm256_permute2f128_ps::<0x31>(x, y))
        }
    }
}

/// `2^n` in each lane.
///
/// # Safety
/// The caller enables AVX2.
#[inline(always)]
unsafe fn power(n: __m256i) -> __m256 {
    // SAFETY: the caller's promise.
    unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(n, _mm256_set1_epi32(127)))) }
}

twins!(F32x16, "avx2");
