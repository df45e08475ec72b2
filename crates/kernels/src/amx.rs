//! AMX: products of many rows with tiles of 8-bit numbers. Everything else is AVX-512's.
//!
//! `tdpbssd` multiplies 16 rows of up to 64 signed bytes with as many columns of 16 rows, exactly, and adds the 256 sums
//! to a tile of 32-bit numbers: what AVX-512 does in 256 `vpdpbusd`, two at a time.
//!
//! 1. A panel's tile, two of them where more columns share a scale, is the right operand as it lies in memory. The left one
//!    are rows of activations side by side, [`Rows`], which are laid out so once for a product; both are signed, so that
//!    no sum has an excess. Missing rows of the last 16 are zeros.
//! 2. The sums of a span go through memory, 1 KiB, since there is no way from a tile to a register. There they are scaled
//!    and added as everywhere, 16 rows in 16 registers, one span late: meanwhile the products of the next one are under
//!    way.
//! 3. 4-bit weights become a panel of signed bytes first, once for all rows.
//! 4. What follows the sums is compiled into the loop over rows, and the lines of outputs are asked for before the products
//!    begin: calls and stores to 16 distant rows took as long as the products.
//!
//! On an Emerald Rapids server a product of 64 rows with a matrix of 3072 x 768 takes 0.31 ms where AVX-512 takes 0.58, if
//! 128 columns share a scale; if 32 do, 0.71 instead of 0.80. Tiles alone are five times as fast; the way through memory and
//! the scales take the rest.
//!
//! Linux grants a process the state of its tiles, 8 KiB a thread, when it asks ([`works`]). A thread has it only within
//! [`matmul`].

use super::Around;
use super::avx512::{Ahead, F32x16, add_scaled, highest_magnitude, round, widen};
pub(crate) use super::avx512::{
    attend, attend_i16, exp_minus_max, gelu_erf, gelu_tanh, highest, layer_norm, maxima, pack_columns,
    pack_columns_q4, pack_i16, pack_row, pack_row_q4, quantise, rotate, sum_exp, tanh_all, weigh,
};
use super::lanes::{self, Lanes};
use super::matrix::{BLOCK, PANEL, PackedMatrix, Packing, Tile, TileQ4};
use super::pool::Shared;
use super::quantised::{BYTE, Quantised, scale};
use std::arch::asm;
use std::arch::x86_64::*;
use std::cell::Cell;
use std::ops::Range;

/// Rows of activations that are multiplied together.
pub(crate) const TOGETHER: usize = 16;

/// Whether a product with so many rows of activations takes less time through tiles, which have 16 rows in any case. By
/// products of 64 rows these take as long as AVX-512 takes for 14 where 32 columns share a scale, for 8 where 128 do.
pub(crate) fn pays(packing: Packing, rows: usize) -> bool {
    match packing.span() {
        1 => 7 * rows.next_multiple_of(TOGETHER) <= 8 * rows,
        _ => rows > 8,
    }
}

/// From a row of a tile in memory to the next, in bytes.
const ROW: usize = 64;

/// 64 columns of 16 rows of activations.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Rows([[i8; ROW]; TOGETHER]);

/// Up to 16 rows of quantised activations, filled up with rows of zeros.
#[derive(Default)]
pub(crate) struct SideBySide {
    /// 64 columns after the other.
    rows: Vec<Rows>,
    /// A scale for each row, span after span.
    scales: Vec<[f32; TOGETHER]>,
}

impl SideBySide {
    /// Makes room for `n` rows of so many blocks, to be [set](Self::set_row); the others are zeros.
    pub(crate) fn resize(&mut self, n: usize, row_blocks: usize, span: usize) {
        self.rows.resize(row_blocks.div_ceil(2), Rows([[0; ROW]; TOGETHER]));
        self.scales.resize(row_blocks / span, [0.0; TOGETHER]);
        self.rows.iter_mut().for_each(|rows| rows.0[n..].fill([0; ROW]));
        self.scales.iter_mut().for_each(|scales| scales[n..].fill(0.0));
    }

    /// Quantises row `m` as [`scalar::quantise`](super::scalar::quantise) does.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    pub(crate) fn set_row(&mut self, m: usize, x: &[f32], span: usize) {
        let (xs, _) = x.as_chunks::<BLOCK>();
        for (i, (xs, scales)) in xs.chunks_exact(span).zip(&mut self.scales).enumerate() {
            let (scale, inverse) = scale(highest_magnitude(xs), BYTE);
            scales[m] = scale;
            for (block, x) in (i * span..).zip(xs) {
                let q = &mut self.rows[block / 2].0[m].as_chunks_mut::<BLOCK>().0[block % 2];
                match inverse {
                    Some(inverse) => _ = round::<0>(x, inverse, q),
                    None => *q = [0; BLOCK],
                }
            }
        }
    }
}

/// The sums of a span: what `tilestored` writes, for 16 rows of activations 16 of weights.
#[repr(C, align(64))]
struct Dots([[i32; PANEL]; TOGETHER]);

/// The first operand of `ldtilecfg`: how many rows and bytes of a row each tile has.
///
/// Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, 18.2.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// The tile of sums.
const SUMS: usize = 0;
/// Tiles of activations.
const ACTIVATIONS: [usize; 2] = [1, 3];
/// Tiles of weights.
const WEIGHTS: [usize; 2] = [2, 4];

impl Config {
    /// For sums of `columns` products each.
    const fn new(columns: usize) -> Self {
        let mut config =
            Self { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        (config.rows[SUMS], config.row_bytes[SUMS]) = (TOGETHER as u8, 4 * PANEL as u16);
        let mut i = 0;
        while i < 2 {
            (config.rows[ACTIVATIONS[i]], config.row_bytes[ACTIVATIONS[i]]) =
                (TOGETHER as u8, columns as u16);
            (config.rows[WEIGHTS[i]], config.row_bytes[WEIGHTS[i]]) = (columns as u8 / 4, 4 * PANEL as u16);
            i += 1;
        }
        config
    }
}

const NARROW: Config = Config::new(BLOCK);
const WHOLE: Config = Config::new(2 * BLOCK);

/// Whether this processor has tiles of 8-bit numbers, and the system lets this process use them.
pub(crate) fn works() -> bool {
    /// Bits of EDX.
    const TILE: u32 = 1 << 24;
    const INT8: u32 = 1 << 25;
    let features = if __cpuid(0).eax >= 7 { __cpuid_count(7, 0).edx } else { 0 };
    features & TILE != 0 && features & INT8 != 0 && granted()
}

#[cfg(target_os = "linux")]
fn granted() -> bool {
    /// From Linux's `asm/prctl.h`.
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    /// The number of the tiles among the states that a processor saves.
    const TILES: libc::c_long = 18;
    // SAFETY: it takes two numbers, and touches no memory of this process.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILES) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn granted() -> bool {
    false
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
    let Some(groups) = x.side_by_side() else {
        // SAFETY: the caller's promise.
        return unsafe { super::avx512::matmul(matrix, x, panels, around, out) };
    };
    let config = if matrix.packing().span() == 1 { &NARROW } else { &WHOLE };
    let product = Product { matrix, rows: x.rows, groups, around, out };
    // SAFETY: this instruction set is only used where its tiles are granted; the caller's promise.
    unsafe {
        let _tiles = Tiles::configure(config);
        match matrix.packing() {
            Packing::Q8 => panels.for_each(|panel| product.of_panel::<true>(panel)),
            Packing::Q8By(_) => panels.for_each(|panel| product.of_panel::<false>(panel)),
            Packing::Q4 => product.of_panels_q4(panels),
        }
    }
}

/// The tiles of this thread, from their configuration until they are given up.
struct Tiles;

impl Tiles {
    /// # Safety
    /// [`works`].
    unsafe fn configure(config: &Config) -> Self {
        // SAFETY: it reads 64 bytes, which describe tiles that a processor has; the compiler uses none of them.
        unsafe { asm!("ldtilecfg [{}]", in(reg) config, options(nostack, readonly, preserves_flags)) };
        Self
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: whoever made a `Tiles` has them.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
    }
}

/// What the panels of a product have in common.
struct Product<'a> {
    matrix: &'a PackedMatrix,
    rows: usize,
    groups: &'a [SideBySide],
    around: &'a Around<'a>,
    out: &'a Shared<'a, f32>,
}

thread_local! {
    /// A panel of 4-bit weights as signed bytes.
    static UNPACKED: Cell<Vec<Tile>> = const { Cell::new(Vec::new()) };
}

impl Product<'_> {
    /// # Safety
    /// Nobody else uses the panel's columns of the outputs, and the tiles are configured for spans of a panel's tile if `ONE`,
    /// else of more.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn of_panel<const ONE: bool>(&self, panel: usize) {
        let (tiles, scales) = self.matrix.panel::<Tile>(panel);
        // SAFETY: the caller's promise.
        unsafe {
            self.of_tiles::<ONE>(
                panel,
                tiles,
                scales,
                Ahead::of(tiles, self.share(8 * self.matrix.span::<ONE>())),
            )
        };
    }

    /// # Safety
    /// As for [`of_panel`](Self::of_panel) with `ONE`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn of_panels_q4(&self, panels: Range<usize>) {
        let mut unpacked = UNPACKED.take();
        unpacked.resize(self.matrix.blocks(), Tile([[0; PANEL]; BLOCK / 4]));
        for panel in panels {
            let (tiles, scales) = self.matrix.panel::<TileQ4>(panel);
            tiles.iter().zip(&mut unpacked).for_each(|(packed, tile)| unpack(packed, tile));
            // SAFETY: the caller's promise.
            unsafe { self.of_tiles::<true>(panel, &unpacked, scales, Ahead::of(tiles, self.share(4))) };
        }
        UNPACKED.set(unpacked);
    }

    /// How many cache lines of the next panel to ask for with each of a panel's spans, of which each has so many.
    fn share(&self, lines: usize) -> usize {
        lines.div_ceil(self.groups.len())
    }

    /// The outputs of a panel of these tiles.
    ///
    /// # Safety
    /// As for [`of_panel`](Self::of_panel).
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn of_tiles<const ONE: bool>(
        &self,
        panel: usize,
        tiles: &[Tile],
        scales: &[[u16; PANEL]],
        mut ahead: Ahead,
    ) {
        let span = self.matrix.span::<ONE>();
        let mut dots = [const { Dots([[0; PANEL]; TOGETHER]) }; 2];
        for (group, first) in self.groups.iter().zip((0..self.rows).step_by(TOGETHER)) {
            let n = TOGETHER.min(self.rows - first);
            // SAFETY: the caller gave us the panel alone.
            let outputs = |m: usize| unsafe { self.matrix.outputs(panel, first + m, self.out) };
            for m in 0..n {
                let out = outputs(m).1.as_ptr();
                // SAFETY: every processor with AMX has it; it writes nothing.
                unsafe { asm!("prefetchw [{}]", in(reg) out, options(nostack, preserves_flags)) };
            }
            let mut sums = [_mm512_setzero_ps(); TOGETHER];
            for i in 0..=scales.len() {
                if i < scales.len() {
                    ahead.fetch(1);
                    let rows = &group.rows[i * span / 2..][..span.div_ceil(2)];
                    let tiles = &tiles[i * span..][..span];
                    // SAFETY: the caller's promise; as many columns of activations as of weights.
                    unsafe { products::<ONE>(rows, i * span % 2 * BLOCK, tiles, &mut dots[i % 2]) };
                }
                if i > 0 {
                    let (dots, w) = (&dots[(i - 1) % 2].0, widen(&scales[i - 1]));
                    for ((sums, dots), scale) in sums.iter_mut().zip(dots).zip(group.scales[i - 1]) {
                        // SAFETY: 64 bytes.
                        let dots = unsafe { _mm512_loadu_si512(dots.as_ptr().cast()) };
                        *sums = add_scaled(*sums, dots, w, scale);
                    }
                }
            }
            for (m, sums) in sums.into_iter().enumerate().take(n) {
                let mut lanes = [0.0; PANEL];
                F32x16(sums).store(&mut lanes);
                let (column, out) = outputs(m);
                lanes::finish::<F32x16>(&lanes, self.around, column, out);
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn unpack(packed: &TileQ4, tile: &mut Tile) {
    let (low, eight) = (_mm512_set1_epi8(15), _mm512_set1_epi8(8));
    for (pair, groups) in packed.0.iter().zip(tile.0.as_chunks_mut::<2>().0) {
        // SAFETY: 64 bytes.
        let both = unsafe { _mm512_loadu_si512(pair.as_ptr().cast()) };
        for (group, half) in groups.iter_mut().zip([both, _mm512_srli_epi16::<4>(both)]) {
            let signed = _mm512_sub_epi8(_mm512_and_si512(half, low), eight);
            // SAFETY: 64 bytes.
            unsafe { _mm512_storeu_si512(group.as_mut_ptr().cast(), signed) };
        }
    }
}

/// The sums of a span's products: of 16 rows of activations, from a column of the first 64 on, with a panel's 16 rows of
/// weights.
///
/// # Safety
/// The tiles are configured for `ONE`, and the activations are there: of a panel's tile, or of a multiple of four.
#[inline(always)]
unsafe fn products<const ONE: bool>(rows: &[Rows], column: usize, weights: &[Tile], dots: &mut Dots) {
    // SAFETY: the tiles that are loaded and stored are as large as the configuration says: `rows` and `weights` hold them,
    // and `dots` has room. The compiler keeps nothing in these registers.
    unsafe {
        let x = rows.as_ptr().cast::<i8>().add(column);
        if ONE {
            asm!(
                "tilezero tmm0",
                "tileloadd tmm1, [{x} + {row}*1]",
                "tileloadd tmm2, [{weights} + {row}*1]",
                "tdpbssd tmm0, tmm1, tmm2",
                "tilestored [{dots} + {row}*1], tmm0",
                x = in(reg) x,
                weights = in(reg) weights.as_ptr(),
                dots = in(reg) dots,
                row = in(reg) ROW,
                out("tmm0") _, out("tmm1") _, out("tmm2") _,
                options(nostack, preserves_flags),
            );
        } else {
            asm!(
                "tilezero tmm0",
                "2:",
                "tileloadd tmm1, [{x} + {row}*1]",
                "tileloadd tmm2, [{weights} + {row}*1]",
                "tdpbssd tmm0, tmm1, tmm2",
                "tileloadd tmm3, [{x} + {row}*1 + 1024]",
                "tileloadd tmm4, [{weights} + {row}*1 + 1024]",
                "tdpbssd tmm0, tmm3, tmm4",
                "add {x}, 2048",
                "add {weights}, 2048",
                "cmp {weights}, {end}",
                "jb 2b",
                "tilestored [{dots} + {row}*1], tmm0",
                x = inout(reg) x => _,
                weights = inout(reg) weights.as_ptr() => _,
                end = in(reg) weights.as_ptr_range().end,
                dots = in(reg) dots,
                row = in(reg) ROW,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _,
                options(nostack),
            );
        }
    }
}
