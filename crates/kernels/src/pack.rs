//! Weights become 8-bit or 4-bit numbers with scales, in plain Rust that compilers turn into vector code.
//!
//! GGUF's reference quantises a block so: `d = amax / 127`, `q = round(w * (1 / d))` with ties away from zero, and `d` is
//! stored as f16. Here it runs over whole rows, or over the 16 rows of a panel at once where the checkpoint stores the
//! matrix transposed, so that both read memory in order. On x86-64 it is inlined, to be compiled once more for AVX2;
//! elsewhere every instruction set shares one copy.
//!
//! At 4 bits a scale matters more. GGUF's reference for Q4_0 takes `d = m / -8`, where `m` is the weight of the largest
//! magnitude. Here `m / -7` to `m / -8.75` in steps of a quarter are tried as well: each rounds the weights, the best scale
//! for these is their quotient of least squares, and the one with the least error is kept. On GPT-2's matrices the
//! squared error is a ninth below Q4_0's; twice as many steps, or another round with the found scale, gain a thousandth.

use super::f16::{f16_from_f32, f32_from_f16};
use super::matrix::{BLOCK, PANEL, Tile, TileQ4};
use super::scalar::{ROTATED, ROTATION, ROTATION_STAGES};
use std::array::from_fn;
use std::cell::Cell;
use std::slice::{from_mut, from_ref};

/// The largest f32 below one half: adding it and cutting the fraction off rounds to the nearest integer, ties away from
/// zero, also where adding one half itself would be rounded up (`0.49999997`).
const HALF: f32 = 0.499_999_97;

/// The magnitude's bits of a number; they compare as integers, in which order does not matter.
#[inline(always)]
fn magnitude(x: f32) -> u32 {
    x.to_bits() & 0x7fff_ffff
}

/// A finite weight whose rotation is finite. What no scale of f16 can hold is made smaller anyway.
#[inline(always)]
pub(crate) fn within(w: f32) -> f32 {
    const LARGEST: f32 = 1e30;
    let w = if w > LARGEST { LARGEST } else { w };
    if w < -LARGEST { -LARGEST } else { w }
}

/// A block's scale as f16 and the inverse of the scale, from the largest magnitude; nothing if that is infinite or not a
/// number. A scale that f16 holds as 0 makes a block of zeros.
#[inline(always)]
fn scale(highest: u32) -> Option<(u16, f32)> {
    let scale = f32::from_bits(highest) / 127.0;
    let stored = f16_from_f32(scale);
    let inverse = if stored == 0 { 0.0 } else { 1.0 / scale };
    (highest < f32::INFINITY.to_bits()).then_some((stored, inverse))
}

/// The quantised weight of a finite `w`.
#[inline(always)]
fn round(w: f32, inverse: f32) -> i32 {
    let x = w * inverse;
    let x = x + HALF.copysign(x);
    let x = if x > 127.0 { 127.0 } else { x };
    let x = if x < -127.0 { -127.0 } else { x };
    // SAFETY: `w` and `inverse` (at most 2^25: see `scale`) are finite, so `x` is a number, and it lies within -127..=127.
    // The checked conversion would not become vector code.
    unsafe { x.to_int_unchecked() }
}

/// Writes a row's quantised weights into the lane `row` of a panel's tiles, as many as there are for a scale with one. The
/// error is the first block with a weight that is infinite or not a number.
#[cfg_attr(target_arch = "x86_64", inline(always))]
#[cfg_attr(not(target_arch = "x86_64"), inline(never))]
pub(crate) fn row(
    weights: &[f32],
    tiles: &mut [Tile],
    scales: &mut [[u16; PANEL]],
    row: usize,
) -> Result<(), usize> {
    let (blocks, _) = weights.as_chunks::<BLOCK>();
    if tiles.len() == scales.len() {
        for (i, ((block, tile), scales)) in blocks.iter().zip(tiles).zip(scales).enumerate() {
            scales[row] = span(from_ref(block), from_mut(tile), row).map_err(|_| i)?;
        }
        return Ok(());
    }
    let n = tiles.len() / scales.len();
    for (i, (blocks, scales)) in blocks.chunks_exact(n).zip(scales).enumerate() {
        scales[row] = span(blocks, &mut tiles[i * n..][..n], row).map_err(|block| i * n + block)?;
    }
    Ok(())
}

/// Writes a row's quantised weights into the lane `row` of tiles that share a scale, and gives that. The error is the first
/// block with a weight that is infinite or not a number.
#[inline(always)]
fn span(blocks: &[[f32; BLOCK]], tiles: &mut [Tile], row: usize) -> Result<u16, usize> {
    let mut all = 0;
    for weights in blocks {
        all = weights.iter().fold(0, |highest, w| magnitude(*w).max(highest)).max(all);
    }
    let Some((scale, inverse)) = scale(all) else {
        let at = blocks.iter().position(|weights| weights.iter().any(|w| !w.is_finite()));
        return Err(at.unwrap_or(0));
    };
    for (weights, tile) in blocks.iter().zip(tiles) {
        let q = weights.map(|w| round(w, inverse) as u8);
        for (group, q) in tile.0.iter_mut().zip(q.as_chunks::<4>().0) {
            group[row] = i32::from_le_bytes(*q);
        }
    }
    Ok(scale)
}

/// 32 rows, `stride` apart, of `n` columns, and zeros to 16.
#[cfg_attr(target_arch = "x86_64", inline(always))]
#[cfg_attr(not(target_arch = "x86_64"), inline(never))]
fn gather(weights: &[f32], stride: usize, n: usize) -> [[f32; PANEL]; BLOCK] {
    if n == PANEL {
        from_fn(|k| *weights[k * stride..].first_chunk().expect("n columns in each of the 32 rows"))
    } else {
        from_fn(|k| from_fn(|row| if row < n { weights[k * stride + row] } else { 0.0 }))
    }
}

/// Quantises the tiles, as many as share a scale, of up to 16 rows of a transposed matrix: `weights` are 32 rows for each,
/// `stride` apart, of which it takes the first `n` columns. More than one are rotated. The error is the column that has no
/// scale.
#[cfg_attr(target_arch = "x86_64", inline(always))]
#[cfg_attr(not(target_arch = "x86_64"), inline(never))]
pub(crate) fn columns(
    weights: &[f32],
    stride: usize,
    n: usize,
    tiles: &mut [Tile],
    scales: &mut [u16; PANEL],
) -> Result<(), usize> {
    if let [tile] = tiles {
        let columns = gather(weights, stride, n);
        let inverses = scales_of(highest(&columns), scales)?;
        fill(tile, &columns, &inverses);
        return Ok(());
    }
    let mut blocks = BLOCKS.take();
    blocks.resize(tiles.len(), [[0.0; PANEL]; BLOCK]);
    let done = rotated_columns(weights, stride, n, tiles, scales, &mut blocks);
    BLOCKS.set(blocks);
    done
}

thread_local! {
    /// The columns of tiles that share scales, rotated.
    static BLOCKS: Cell<Vec<[[f32; PANEL]; BLOCK]>> = const { Cell::new(Vec::new()) };
}

/// [`columns`] that are rotated, in `blocks`, one for each tile.
#[inline(always)]
fn rotated_columns(
    weights: &[f32],
    stride: usize,
    n: usize,
    tiles: &mut [Tile],
    scales: &mut [u16; PANEL],
    blocks: &mut [[[f32; PANEL]; BLOCK]],
) -> Result<(), usize> {
    let mut all = [0; PANEL];
    let mut weights = weights.chunks(BLOCK * stride);
    // What is rotated together stays in the nearest cache until then.
    for blocks in blocks.chunks_exact_mut(ROTATED / BLOCK) {
        for (columns, weights) in blocks.iter_mut().zip(&mut weights) {
            *columns = gather(weights, stride, n);
        }
        let columns = blocks.as_flattened_mut();
        if let Some(row) = highest(columns).iter().position(|bits| *bits >= f32::INFINITY.to_bits()) {
            return Err(row);
        }
        rotate_columns(columns);
        for (all, highest) in all.iter_mut().zip(highest(columns)) {
            *all = highest.max(*all);
        }
    }
    let inverses = scales_of(all, scales)?;
    for (tile, columns) in tiles.iter_mut().zip(blocks) {
        fill(tile, columns, &inverses);
    }
    Ok(())
}

/// The magnitude's bits of the largest weight of each of 16 rows.
#[inline(always)]
fn highest(columns: &[[f32; PANEL]]) -> [u32; PANEL] {
    let mut highest = [0; PANEL];
    for column in columns {
        for (highest, w) in highest.iter_mut().zip(column) {
            *highest = magnitude(*w).max(*highest);
        }
    }
    highest
}

/// [`rotate`](super::scalar::rotate) of 16 rows, whose columns lie one after the other.
#[inline(always)]
fn rotate_columns(columns: &mut [[f32; PANEL]]) {
    for w in columns.as_flattened_mut() {
        *w = within(*w) * ROTATION;
    }
    for distance in ROTATION_STAGES {
        for columns in columns.chunks_exact_mut(2 * distance) {
            let (low, high) = columns.split_at_mut(distance);
            for (a, b) in low.as_flattened_mut().iter_mut().zip(high.as_flattened_mut()) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
    }
}

/// Sets the scales of 16 rows and gives their inverses. The error is the row that has none.
#[inline(always)]
fn scales_of(highest: [u32; PANEL], scales: &mut [u16; PANEL]) -> Result<[f32; PANEL], usize> {
    let mut inverses = [0.0; PANEL];
    for row in 0..PANEL {
        (scales[row], inverses[row]) = scale(highest[row]).ok_or(row)?;
    }
    Ok(inverses)
}

/// Quantises the columns of a tile.
#[cfg_attr(target_arch = "x86_64", inline(always))]
#[cfg_attr(not(target_arch = "x86_64"), inline(never))]
fn fill(tile: &mut Tile, columns: &[[f32; PANEL]; BLOCK], inverses: &[f32; PANEL]) {
    for (group, columns) in tile.0.iter_mut().zip(columns.as_chunks::<4>().0) {
        for (row, four) in group.iter_mut().enumerate() {
            let q = |k: usize| round(columns[k][row], inverses[row]) & 0xff;
            *four = q(0) | q(1) << 8 | q(2) << 16 | q(3) << 24;
        }
    }
}

/// What the weight of the largest magnitude of a block is tried to become, negative.
const STEPS: [f32; 8] = [8.0, 7.0, 7.25, 7.5, 7.75, 8.25, 8.5, 8.75];

/// Adding it and taking it off again rounds to the nearest integer, ties to even.
const TO_INTEGER: f32 = 12_582_912.0;

/// The 4-bit weight, an integer, nearest to `x`.
#[inline(always)]
fn round_q4(x: f32) -> f32 {
    let x = (x + TO_INTEGER) - TO_INTEGER;
    let x = if x > 7.0 { 7.0 } else { x };
    if x < -8.0 { -8.0 } else { x }
}

/// Quantises a block to 4 bits: its scale as f16, and the weights plus 8. Nothing if a weight is infinite or not a number.
#[inline(always)]
fn block_q4(weights: &[f32; BLOCK]) -> Option<(u16, [u8; BLOCK])> {
    let highest = weights.iter().fold(0, |highest, w| magnitude(*w).max(highest));
    if highest >= f32::INFINITY.to_bits() {
        return None;
    }
    // Below that, f16 holds every scale that is tried as 0.
    let largest = f32::from_bits(highest);
    if largest < 1.0 / (1 << 23) as f32 {
        return Some((0, [8; BLOCK]));
    }
    let positive = weights.iter().fold(false, |positive, w| positive | (w.to_bits() == highest));
    let largest = if positive { largest } else { -largest };
    let inverse = 1.0 / largest;
    // A lane a step: the sums of each run over the block in order.
    let (mut products, mut squares) = ([0.0; STEPS.len()], [0.0; STEPS.len()]);
    for w in weights {
        let x = w * inverse;
        for ((step, product), square) in STEPS.iter().zip(&mut products).zip(&mut squares) {
            let q = round_q4(x * -step);
            *product += x * q;
            *square += q * q;
        }
    }
    let (mut best, mut scale) = (0.0, 0.0);
    for (product, square) in products.into_iter().zip(squares) {
        // The squared error is the block's own square less this.
        let explained = product * product / square;
        if explained > best {
            (best, scale) = (explained, product / square);
        }
    }
    let scale = scale * largest;
    let stored = f16_from_f32(scale.abs()) | if scale < 0.0 { 0x8000 } else { 0 };
    let inverse = if stored & 0x7fff == 0 { 0.0 } else { 1.0 / f32_from_f16(stored) };
    // SAFETY: `round_q4` gives -8 to 7, or NaN of NaN; and the product of two finite numbers is none.
    Some((stored, weights.map(|w| unsafe { (round_q4(w * inverse) + 8.0).to_int_unchecked() })))
}

/// [`row`] for 4 bits.
#[cfg_attr(target_arch = "x86_64", inline(always))]
#[cfg_attr(not(target_arch = "x86_64"), inline(never))]
pub(crate) fn row_q4(
    weights: &[f32],
    tiles: &mut [TileQ4],
    scales: &mut [[u16; PANEL]],
    row: usize,
) -> Result<(), usize> {
    let (blocks, _) = weights.as_chunks::<BLOCK>();
    for (i, ((weights, tile), scales)) in blocks.iter().zip(tiles).zip(scales).enumerate() {
        let (scale, q) = block_q4(weights).ok_or(i)?;
        scales[row] = scale;
        tile.set_row(row, &q);
    }
    Ok(())
}

/// [`columns`] for 4 bits.
#[cfg_attr(target_arch = "x86_64", inline(always))]
#[cfg_attr(not(target_arch = "x86_64"), inline(never))]
pub(crate) fn columns_q4(
    weights: &[f32],
    stride: usize,
    n: usize,
    tile: &mut TileQ4,
    scales: &mut [u16; PANEL],
) -> Result<(), usize> {
    let columns = gather(weights, stride, n);
    let rows: [[f32; BLOCK]; PANEL] = from_fn(|row| columns.map(|column| column[row]));
    for (row, weights) in rows.iter().enumerate().take(n) {
        let (scale, q) = block_q4(weights).ok_or(row)?;
        scales[row] = scale;
        tile.set_row(row, &q);
    }
    Ok(())
}
