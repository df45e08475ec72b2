//! Matrices of 8-bit and 4-bit weights, and how they lie in memory.
//!
//! A *panel* is 16 rows. It is stored block by block (32 columns), and a block's 512 weights in 8 groups of 64 bytes:
//! group `g` holds for each of the 16 rows its 4 weights of columns `4g..4g + 4`. So a register of any width holds the
//! same 4 columns of 4, 8 or 16 rows, one dot-product instruction gives each row its own 32-bit lane, and a row's sum
//! never has to be gathered from several lanes. Scales lie apart, 16 f16 for a tile or more, never negative (a negative
//! scale of a foreign file moves its sign to the weights). The last panel is filled up with rows of zeros.
//!
//! At 4 bits, two groups share 64 bytes: group `2g` has the low halves of the bytes, group `2g + 1` the high ones, so that
//! one load, a mask and a shift give two registers. Weights lie there plus 8, in 0..16, and their scales have a sign.

use super::f16::f32_from_f16;
use super::isa::Isa;
use super::pack::within;
use super::pool::{Pool, Shared};
use super::quantised::{Quantised, with_rows};
use super::scalar::{LANES, ROTATED, magnitude};
use super::storage::{Plain, Storage};
use super::{
    Around, groups, matmul, maxima_with, pack_columns, pack_columns_q4, pack_row, pack_row_q4, rotate,
};

/// Rows of a panel.
pub(crate) const PANEL: usize = 16;
/// Columns of a block, which share a scale.
pub(crate) const BLOCK: usize = 32;
/// A task has at least this many weights: below, waking a thread costs more than it brings.
const TASK: usize = 64 * 1024;

/// Blocks of groups whose outputs a task has in the nearest cache when it looks for their maxima.
const MAXIMA: usize = 4;

/// The weights of a panel's block: 8 groups of 16 rows of 4 columns, which are the bytes of an `i32`, the first column
/// the lowest. Aligned, so that no load of a register is split between two cache lines.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Tile(pub(crate) [[i32; PANEL]; BLOCK / 4]);

// SAFETY: nothing but numbers, as many bytes as the alignment asks for.
unsafe impl Plain for Tile {}

/// A [`Tile`] of 4-bit weights: 4 pairs of groups. A byte holds weight plus 8 of the first group of its pair in its lower
/// half, that of the second in its upper half.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct TileQ4(pub(crate) [[i32; PANEL]; BLOCK / 8]);

// SAFETY: as for `Tile`.
unsafe impl Plain for TileQ4 {}

impl TileQ4 {
    /// Sets the weights of a row, given plus 8.
    pub(crate) fn set_row(&mut self, row: usize, q: &[u8; BLOCK]) {
        for (pair, q) in self.0.iter_mut().zip(q.as_chunks::<8>().0) {
            let byte = |k| q[k] | q[k + 4] << 4;
            pair[row] = i32::from_le_bytes([byte(0), byte(1), byte(2), byte(3)]);
        }
    }
}

/// How a matrix keeps its weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// -8..=7 and a scale for 32 of a row, as in GGUF's Q4_0: 4.5 bits.
    Q4,
    /// -127..=127 and a scale for 32 of a row, as in GGUF's Q8_0: 8.5 bits.
    Q8,
    /// -127..=127 and a scale for so many of a row, as [`widest`](Self::widest) says: 8.02 to 8.125 bits. As many activations
    /// share a scale. Products take fewer instructions, a third fewer where one multiplies 64 numbers.
    ///
    /// Before they are rounded, each 128 weights, and activations, are rotated: multiplied with an orthogonal matrix, so that
    /// their products add up to the same. A single large activation, as trained models have them, would leave few of the 8
    /// bits to the others that share its scale; rotated, it is a part of each. Source: Ashkboos et al. 2024, "QuaRot:
    /// Outlier-Free 4-Bit Inference in Rotated LLMs".
    Q8By(usize),
}

/// How many times 128 columns may share a scale. The products of 1024 bytes add up to less than `2^24`, which f32 holds.
const SHARED: [usize; 6] = [8, 6, 4, 3, 2, 1];

impl Packing {
    /// 8 bits with a scale for as many columns as can be, `most` or fewer, or for 128, where that divides `cols`.
    #[must_use]
    pub fn widest(cols: usize, most: usize) -> Option<Self> {
        let columns = SHARED.map(|n| n * ROTATED);
        columns.into_iter().find(|n| *n <= most.max(ROTATED) && cols.is_multiple_of(*n)).map(Self::Q8By)
    }

    /// Blocks of 32 columns that share a scale.
    pub(crate) const fn span(self) -> usize {
        match self {
            Self::Q4 | Self::Q8 => 1,
            Self::Q8By(columns) => columns / BLOCK,
        }
    }

    /// Whether weights and activations are rotated.
    pub(crate) const fn is_rotated(self) -> bool {
        matches!(self, Self::Q8By(_))
    }

    /// Columns that share a scale; their number divides that of a matrix.
    #[must_use]
    pub const fn columns(self) -> usize {
        self.span() * BLOCK
    }
}

/// The tiles of a matrix.
enum Tiles {
    Q8(Storage<Tile>),
    Q4(Storage<TileQ4>),
}

/// What a kernel reads of a panel's block.
pub(crate) trait Stored: Sized {
    /// The tiles of a matrix that holds such.
    fn of(matrix: &PackedMatrix) -> &[Self];
    /// The weights of row `row` of the panel.
    fn row(&self, row: usize) -> [i8; BLOCK];
}

impl Stored for Tile {
    #[inline(always)]
    fn of(matrix: &PackedMatrix) -> &[Self] {
        match &matrix.weights {
            Tiles::Q8(tiles) => tiles,
            Tiles::Q4(_) => unreachable!("kernels: an 8-bit kernel for a 4-bit matrix"),
        }
    }

    fn row(&self, row: usize) -> [i8; BLOCK] {
        let mut weights = [0; BLOCK];
        for (weights, group) in weights.as_chunks_mut().0.iter_mut().zip(self.0) {
            *weights = group[row].to_le_bytes().map(|byte| byte as i8);
        }
        weights
    }
}

impl Stored for TileQ4 {
    #[inline(always)]
    fn of(matrix: &PackedMatrix) -> &[Self] {
        match &matrix.weights {
            Tiles::Q4(tiles) => tiles,
            Tiles::Q8(_) => unreachable!("kernels: a 4-bit kernel for an 8-bit matrix"),
        }
    }

    fn row(&self, row: usize) -> [i8; BLOCK] {
        let mut weights = [0; BLOCK];
        for (weights, pair) in weights.as_chunks_mut::<8>().0.iter_mut().zip(self.0) {
            for (k, byte) in pair[row].to_le_bytes().into_iter().enumerate() {
                (weights[k], weights[k + 4]) = ((byte & 0xf) as i8 - 8, (byte >> 4) as i8 - 8);
            }
        }
        weights
    }
}

/// A matrix `(rows, cols)` of 8-bit or 4-bit weights, with an f16 scale for 32 or more along a row: see [`Packing`].
///
/// Packed once, at load. `cols` is a multiple of [`Packing::columns`].
pub struct PackedMatrix {
    rows: usize,
    cols: usize,
    packing: Packing,
    weights: Tiles,
    scales: Storage<[u16; PANEL]>,
}

/// A [`PackedMatrix`] that is being filled while its checkpoint streams in. Rows that nobody sets are zeros.
pub struct PackedMatrixBuilder {
    matrix: PackedMatrix,
}

/// A weight that no scale can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("weights: a number in row {row}, columns {} to {}, is infinite or not a number", block * BLOCK, block * BLOCK + BLOCK - 1)]
pub struct NotFinite {
    /// The matrix row (output).
    pub row: usize,
    /// The block of 32 columns (inputs).
    pub block: usize,
}

/// Lends `then` a row of finite weights as they are where they are rotated. The error is the first block that has others.
fn rotated<T>(isa: Isa, weights: &[f32], then: impl FnOnce(&[f32]) -> Result<T, usize>) -> Result<T, usize> {
    if magnitude(weights) >= f32::INFINITY.to_bits() {
        let column = weights.iter().position(|w| !w.is_finite()).expect("the highest is one");
        return Err(column / BLOCK);
    }
    with_rows(weights.len(), |[held, row]| {
        for (held, w) in held.iter_mut().zip(weights) {
            *held = within(*w);
        }
        rotate(isa, held, row);
        then(row)
    })
}

impl PackedMatrixBuilder {
    /// Allocates the packed storage of an 8-bit matrix of zeros.
    ///
    /// # Panics
    /// If 32 does not divide `cols`.
    #[must_use]
    pub fn new(rows: usize, cols: usize) -> Self {
        Self::with_packing(Packing::Q8, rows, cols)
    }

    /// Allocates the packed storage of a matrix of zeros.
    ///
    /// # Panics
    /// If [`Packing::columns`] does not divide `cols`, or no packing has so many.
    #[must_use]
    pub fn with_packing(packing: Packing, rows: usize, cols: usize) -> Self {
        let tiles = Self::tiles(packing, rows, cols);
        let weights = match packing {
            Packing::Q8 | Packing::Q8By(_) => Tiles::Q8(Storage::zeroed(tiles)),
            // All of them -8, until they are set; their scales, which are 0, make them zeros.
            Packing::Q4 => Tiles::Q4(Storage::zeroed(tiles)),
        };
        let scales = Storage::zeroed(tiles / packing.span());
        Self { matrix: PackedMatrix { rows, cols, packing, weights, scales } }
    }

    /// So many builders of one size, whose matrices lie one behind the other: [`PackedMatrix::stack`] then copies no weights
    /// where these are many. Not in WebAssembly, whose memory has no such places.
    ///
    /// # Panics
    /// If [`Packing::columns`] does not divide `cols`, or no packing has so many.
    #[cfg(not(target_arch = "wasm32"))]
    #[must_use]
    pub fn neighbours(packing: Packing, rows: usize, cols: usize, count: usize) -> Vec<Self> {
        let tiles = Self::tiles(packing, rows, cols);
        let weights: Vec<Tiles> = match packing {
            Packing::Q8 | Packing::Q8By(_) => {
                Storage::zeroed_neighbours(tiles, count).into_iter().map(Tiles::Q8).collect()
            }
            Packing::Q4 => Storage::zeroed_neighbours(tiles, count).into_iter().map(Tiles::Q4).collect(),
        };
        let scales = Storage::zeroed_neighbours(tiles / packing.span(), count);
        let matrices = weights.into_iter().zip(scales);
        matrices
            .map(|(weights, scales)| Self { matrix: PackedMatrix { rows, cols, packing, weights, scales } })
            .collect()
    }

    /// Tiles of a matrix.
    fn tiles(packing: Packing, rows: usize, cols: usize) -> usize {
        let columns = packing.columns();
        assert!(
            !packing.is_rotated() || SHARED.iter().any(|n| n * ROTATED == columns),
            "kernels: a scale for {columns} columns; for 128, 256, 384, 512, 768 or 1024 expected"
        );
        assert!(
            cols.is_multiple_of(columns),
            "kernels: packed matrix with {cols} columns; a multiple of {columns} expected"
        );
        rows.div_ceil(PANEL) * (cols / BLOCK)
    }

    /// Quantises one row of `cols` weights.
    ///
    /// To 8 bits as GGUF's reference does: `d = amax / 127`, `q = round(w * (1 / d))` with ties away from zero, and `d` is
    /// stored as f16. To 4 bits with the scale that has the least squared error of a few that are tried, an error about a
    /// ninth below that of GGUF's Q4_0.
    ///
    /// # Errors
    /// [`NotFinite`] names the block with an infinity or a NaN.
    pub fn set_row_f32(&mut self, row: usize, weights: &[f32]) -> Result<(), NotFinite> {
        assert_eq!(weights.len(), self.matrix.cols, "kernels: weights of row {row}");
        let (at, n, packing) = (self.tile(row, 0), self.matrix.blocks(), self.matrix.packing);
        let span = packing.span();
        let scales = &mut self.matrix.scales[at / span..(at + n) / span];
        let (isa, lane) = (Isa::active(), row % PANEL);
        match &mut self.matrix.weights {
            Tiles::Q8(tiles) if packing.is_rotated() => {
                rotated(isa, weights, |weights| pack_row(isa, weights, &mut tiles[at..at + n], scales, lane))
            }
            Tiles::Q8(tiles) => pack_row(isa, weights, &mut tiles[at..at + n], scales, lane),
            Tiles::Q4(tiles) => pack_row_q4(isa, weights, &mut tiles[at..at + n], scales, lane),
        }
        .map_err(|block| NotFinite { row, block })
    }

    /// Quantises the columns number `strip` that share a scale, as many as [`Packing::columns`], of all rows: `weights` is
    /// `(columns, rows)`, so many rows of a checkpoint that stores its matrix transposed, as GPT-2's `Conv1D` does.
    ///
    /// # Errors
    /// [`NotFinite`] names the first row with an infinity or a NaN.
    pub fn set_columns_f32(&mut self, strip: usize, weights: &[f32]) -> Result<(), NotFinite> {
        let (rows, packing) = (self.matrix.rows, self.matrix.packing);
        let span = packing.span();
        assert_eq!(
            weights.len(),
            rows * packing.columns(),
            "kernels: weights of the strip of columns {strip}"
        );
        let isa = Isa::active();
        for first in (0..rows).step_by(PANEL) {
            let at = self.tile(first, strip * span);
            let (strip_of, n, scales) =
                (&weights[first..], PANEL.min(rows - first), &mut self.matrix.scales[at / span]);
            match &mut self.matrix.weights {
                Tiles::Q8(tiles) => pack_columns(isa, strip_of, rows, n, &mut tiles[at..at + span], scales),
                Tiles::Q4(tiles) => pack_columns_q4(isa, strip_of, rows, n, &mut tiles[at], scales),
            }
            .map_err(|i| {
                let mut column = weights[first + i..].iter().step_by(rows);
                let block = column.position(|w| !w.is_finite()).map_or(0, |column| column / BLOCK);
                NotFinite { row: first + i, block: strip * span + block }
            })?;
        }
        Ok(())
    }

    /// Takes over a Q8_0 or Q4_0 block with its exact bits: `scale` is an f16's.
    ///
    /// A weight of -128, which no quantiser of Q8_0 writes, becomes -127. An infinite scale or a NaN is refused.
    ///
    /// # Errors
    /// [`NotFinite`] if the scale is an infinity or a NaN.
    ///
    /// # Panics
    /// If a weight of a 4-bit matrix is not within -8..=7, or if more than these weights share a scale.
    pub fn set_block(
        &mut self,
        row: usize,
        block: usize,
        scale: u16,
        weights: &[i8; BLOCK],
    ) -> Result<(), NotFinite> {
        assert_eq!(self.matrix.packing.span(), 1, "kernels: a block of {:?}", self.matrix.packing);
        if scale & 0x7c00 == 0x7c00 {
            return Err(NotFinite { row, block });
        }
        let (at, row) = (self.tile(row, block), row % PANEL);
        match &mut self.matrix.weights {
            Tiles::Q8(tiles) => {
                let sign = if scale & 0x8000 == 0 { 1 } else { -1 };
                self.matrix.scales[at][row] = scale & 0x7fff;
                let q = weights.map(|w| (w.max(-127) * sign) as u8);
                for (group, q) in tiles[at].0.iter_mut().zip(q.as_chunks::<4>().0) {
                    group[row] = i32::from_le_bytes(*q);
                }
            }
            Tiles::Q4(tiles) => {
                assert!(weights.iter().all(|w| (-8..8).contains(w)), "kernels: 4-bit weights {weights:?}");
                self.matrix.scales[at][row] = scale;
                tiles[at].set_row(row, &weights.map(|w| (w + 8) as u8));
            }
        }
        Ok(())
    }

    /// The tiles of 8 bits or those of 4, of which one is empty, and the scales, to be filled as they lie in memory.
    pub(crate) fn parts_mut(&mut self) -> (&mut [Tile], &mut [TileQ4], &mut [[u16; PANEL]]) {
        match &mut self.matrix.weights {
            Tiles::Q8(tiles) => (tiles, &mut [], &mut self.matrix.scales),
            Tiles::Q4(tiles) => (&mut [], tiles, &mut self.matrix.scales),
        }
    }

    /// How it keeps its weights.
    #[must_use]
    pub fn packing(&self) -> Packing {
        self.matrix.packing()
    }

    /// The matrix, ready for products.
    #[must_use]
    pub fn finish(self) -> PackedMatrix {
        self.matrix
    }

    /// Where the tile of a row's block lies.
    fn tile(&self, row: usize, block: usize) -> usize {
        let PackedMatrix { rows, cols, .. } = self.matrix;
        assert!(
            row < rows && block < cols / BLOCK,
            "kernels: block {block} of row {row} in a matrix {rows} x {cols}"
        );
        (row / PANEL) * (cols / BLOCK) + block
    }
}

impl PackedMatrix {
    /// Quantises `weights` to 8 bits: `(rows, cols)`, row-major.
    ///
    /// # Errors
    /// [`NotFinite`] names the block with an infinity or a NaN.
    ///
    /// # Panics
    /// If 32 does not divide `cols`, or `weights` has another size.
    pub fn from_f32(rows: usize, cols: usize, weights: &[f32]) -> Result<Self, NotFinite> {
        Self::from_f32_as(Packing::Q8, rows, cols, weights)
    }

    /// Quantises `weights`: `(rows, cols)`, row-major.
    ///
    /// # Errors
    /// [`NotFinite`] names the block with an infinity or a NaN.
    ///
    /// # Panics
    /// If [`Packing::columns`] does not divide `cols`, or `weights` has another size.
    pub fn from_f32_as(
        packing: Packing,
        rows: usize,
        cols: usize,
        weights: &[f32],
    ) -> Result<Self, NotFinite> {
        assert_eq!(weights.len(), rows * cols, "kernels: weights of a matrix {rows} x {cols}");
        let mut builder = PackedMatrixBuilder::with_packing(packing, rows, cols);
        for (row, weights) in weights.chunks_exact(cols.max(1)).enumerate() {
            builder.set_row_f32(row, weights)?;
        }
        Ok(builder.finish())
    }

    /// The rows of all `matrices`, one matrix below the other.
    ///
    /// # Panics
    /// If there is none, if they differ in `cols` or in packing, or if 16 does not divide the rows of all but the last.
    #[must_use]
    pub fn stack(matrices: Vec<Self>) -> Self {
        let PackedMatrix { cols, packing, .. } = *matrices.first().expect("a stack has a matrix");
        let mut rows = 0;
        for matrix in &matrices {
            assert!(
                matrix.cols == cols && matrix.packing == packing && rows % PANEL == 0,
                "kernels: a matrix {} x {} in {:?} below one of {rows} x {cols} in {packing:?}",
                matrix.rows,
                matrix.cols,
                matrix.packing
            );
            rows += matrix.rows;
        }
        // A panel's tiles lie together, so whole panels follow each other.
        let (mut q8, mut q4, mut scales) = (Vec::new(), Vec::new(), Vec::with_capacity(matrices.len()));
        for matrix in matrices {
            match matrix.weights {
                Tiles::Q8(tiles) => q8.push(tiles),
                Tiles::Q4(tiles) => q4.push(tiles),
            }
            scales.push(matrix.scales);
        }
        let weights =
            if q4.is_empty() { Tiles::Q8(Storage::concat(q8)) } else { Tiles::Q4(Storage::concat(q4)) };
        Self { rows, cols, packing, weights, scales: Storage::concat(scales) }
    }

    /// How it keeps its weights.
    #[must_use]
    pub fn packing(&self) -> Packing {
        self.packing
    }

    /// Outputs of a product.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs of a product.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes of weights and scales in memory.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let weights = match &self.weights {
            Tiles::Q8(tiles) => size_of_val(&**tiles),
            Tiles::Q4(tiles) => size_of_val(&**tiles),
        };
        weights + size_of_val(&*self.scales)
    }

    /// `out[m][n] = sum over k of x[m][k] * w[n][k]`, plus `bias[n]`.
    ///
    /// `x`: `(m, cols)`, `bias`: `(rows)`, `out`: `(m, rows)`, all row-major. The activations are quantised to 8 bits
    /// with an f32 scale for as many as weights share one, and each output is summed in f32 in the order of scales.
    ///
    /// # Panics
    /// If a slice has the wrong size.
    pub fn matmul(&self, x: &[f32], bias: Option<&[f32]>, out: &mut [f32], pool: &dyn Pool) {
        self.matmul_with(x, &Around { bias, ..Around::default() }, out, pool);
    }

    /// [`matmul`](Self::matmul) with what stands around it in a model, done while rows and outputs are still in the
    /// nearest cache. The bits are those of one step after the other.
    ///
    /// `out`: `(m, rows)`; with [`Around::maxima`] `(m, groups(rows))` of them follow.
    ///
    /// # Panics
    /// If a slice has the wrong size.
    pub fn matmul_with(&self, x: &[f32], around: &Around<'_>, out: &mut [f32], pool: &dyn Pool) {
        if self.rows == 0 || self.cols == 0 {
            assert!(
                x.is_empty() && out.is_empty(),
                "kernels: product with an empty matrix {} x {}",
                self.rows,
                self.cols
            );
            return;
        }
        let m = x.len() / self.cols;
        assert_eq!(x.len(), m * self.cols, "kernels: activations, as rows of {}", self.cols);
        let outputs = self.rows + if around.maxima { groups(self.rows) } else { 0 };
        assert_eq!(out.len(), m * outputs, "kernels: outputs of {m} rows of {}", self.rows);
        if let Some(bias) = around.bias {
            assert_eq!(bias.len(), self.rows, "kernels: bias");
        }
        if let Some(norm) = around.norm {
            assert!(
                norm.weight.len() == self.cols && norm.bias.len() == self.cols,
                "kernels: a LayerNorm of {} before a product with {} columns",
                norm.weight.len(),
                self.cols
            );
        }
        self.product(Isa::active(), x, m, around, out, pool);
    }

    /// The product of sizes that are right, with `isa`.
    pub(crate) fn product(
        &self,
        isa: Isa,
        x: &[f32],
        m: usize,
        around: &Around<'_>,
        out: &mut [f32],
        pool: &dyn Pool,
    ) {
        let panels = self.rows.div_ceil(PANEL);
        let per_task = self.panels_per_task(m, pool.threads());
        // With maxima a task has whole blocks of groups, and does a few at a time.
        let per_task = if around.maxima { per_task.next_multiple_of(LANES) } else { per_task };
        let step = if around.maxima { MAXIMA * LANES } else { per_task };
        let mut run = || {
            Quantised::with(isa, x, m, self.packing, around.norm, pool, |x| {
                let out = Shared::new(out);
                pool.run(panels.div_ceil(per_task), &|task| {
                    let end = panels.min((task + 1) * per_task);
                    for first in (task * per_task..end).step_by(step) {
                        // SAFETY: tasks have disjoint ranges of panels, and so disjoint columns of `out`.
                        unsafe {
                            let own = first..end.min(first + step);
                            matmul(isa, self, x, own.clone(), around, &out);
                            if around.maxima {
                                own.step_by(LANES).for_each(|first| self.store_maxima(isa, m, first, &out));
                            }
                        }
                    }
                });
            })
        };
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        if m == 1 {
            return super::simd128::streams::timed(self.size_bytes(), run);
        }
        run();
    }

    /// Stores the maxima of the block of groups that begins with panel `first`, whose outputs are there.
    ///
    /// # Safety
    /// Nobody else uses the block's columns of `out`, nor its maxima.
    unsafe fn store_maxima(&self, isa: Isa, m: usize, first: usize, out: &Shared<'_, f32>) {
        let (column, groups) = (first * PANEL, groups(self.rows));
        let n = (LANES * PANEL).min(self.rows - column);
        for row in 0..m {
            // SAFETY: the caller's promise; a block of groups has as many maxima as panels.
            let (x, maxima) = unsafe {
                (out.part(row * self.rows + column, n), out.part(m * self.rows + row * groups + first, LANES))
            };
            maxima_with(isa, x, maxima);
        }
    }

    /// The dequantised weights of a row: `out` is `(cols)`. An embedding is looked up so.
    ///
    /// # Panics
    /// If the matrix has no such row, or `out` has the wrong size.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows, "kernels: row {row} of a matrix {} x {}", self.rows, self.cols);
        assert_eq!(out.len(), self.cols, "kernels: a row's weights");
        match self.packing {
            Packing::Q4 => self.row_of::<TileQ4>(row, out),
            Packing::Q8 => self.row_of::<Tile>(row, out),
            Packing::Q8By(_) => with_rows(self.cols, |[rotated]| {
                self.row_of::<Tile>(row, rotated);
                // Once more is back, but for rounding.
                rotate(Isa::active(), rotated, out);
            }),
        }
    }

    fn row_of<T: Stored>(&self, row: usize, out: &mut [f32]) {
        let (tiles, scales) = self.panel::<T>(row / PANEL);
        let row = row % PANEL;
        for (i, (tile, out)) in tiles.iter().zip(out.chunks_exact_mut(BLOCK)).enumerate() {
            let scale = f32_from_f16(scales[i / self.packing.span()][row]);
            for (w, out) in tile.row(row).into_iter().zip(out) {
                *out = f32::from(w) * scale;
            }
        }
    }

    /// The tiles of 8 bits or those of 4, of which one is empty, and the scales.
    pub(crate) fn parts(&self) -> (&[Tile], &[TileQ4], &[[u16; PANEL]]) {
        match &self.weights {
            Tiles::Q8(tiles) => (tiles, &[], &self.scales),
            Tiles::Q4(tiles) => (&[], tiles, &self.scales),
        }
    }

    /// Blocks of a row.
    pub(crate) fn blocks(&self) -> usize {
        self.cols / BLOCK
    }

    /// A panel's tiles that share scales, where a kernel knows whether each has its own, `ONE`.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    #[inline(always)]
    pub(crate) fn span<const ONE: bool>(&self) -> usize {
        if ONE { 1 } else { self.packing.span() }
    }

    /// The tiles of a panel, one a block, and 16 scales for each [`Packing::span`] of them.
    #[inline(always)]
    pub(crate) fn panel<T: Stored>(&self, panel: usize) -> (&[T], &[[u16; PANEL]]) {
        let n = self.blocks();
        let scales = n / self.packing.span();
        (&T::of(self)[panel * n..][..n], &self.scales[panel * scales..][..scales])
    }

    /// Where the outputs of a panel for the activation row `m` lie.
    ///
    /// # Safety
    /// Nobody else uses the columns of `out` that belong to `panel`.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "as for `Shared::part`")]
    pub(crate) unsafe fn outputs<'a>(
        &self,
        panel: usize,
        m: usize,
        out: &'a Shared<'_, f32>,
    ) -> (usize, &'a mut [f32]) {
        let column = panel * PANEL;
        let n = PANEL.min(self.rows - column);
        // SAFETY: these columns belong to `panel`.
        (column, unsafe { out.part(m * self.rows + column, n) })
    }

    /// Panels of a task: a few tasks a thread, so that a thread that the system disturbs does not hold up the rest, and more of
    /// them where each has many rows. An even number, since AVX-512 takes two panels side by side.
    fn panels_per_task(&self, m: usize, threads: usize) -> usize {
        let panels = self.rows.div_ceil(PANEL);
        if threads <= 1 {
            return panels;
        }
        let tasks = threads * if m > 8 { 32 } else { 8 };
        let least = TASK.div_ceil(PANEL * self.cols * m.max(1));
        panels.div_ceil(tasks).max(least).next_multiple_of(2)
    }
}
