//! Weights as the bytes that they are in memory, so that a packed model is kept and read back by plain copies.
//!
//! Their order is that of a little-endian machine, which every target of ours is.

use super::matrix::{PackedMatrix, PackedMatrixBuilder};
use super::storage::Plain;

const _: () =
    assert!(cfg!(target_endian = "little"), "packed models are written and read in little-endian order");

fn view<T: Plain>(values: &[T]) -> &[u8] {
    // SAFETY: the memory of the slice, which is initialised and has no padding (`Plain`).
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

fn view_mut<T: Plain>(values: &mut [T]) -> &mut [u8] {
    // SAFETY: as above; whatever is written is a value of `T` (`Plain`).
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
}

/// The bytes of `values`.
pub fn of_f32(values: &[f32]) -> &[u8] {
    view(values)
}

/// The bytes of `values`, to be filled.
pub fn of_f32_mut(values: &mut [f32]) -> &mut [u8] {
    view_mut(values)
}

/// The numbers that `bytes` are, where their place in memory allows it.
#[must_use]
pub fn as_f32(bytes: &[u8]) -> Option<&[f32]> {
    // SAFETY: any four bytes are a value of `f32` (`Plain`).
    let (before, values, after) = unsafe { bytes.align_to::<f32>() };
    (before.is_empty() && after.is_empty()).then_some(values)
}

impl PackedMatrix {
    /// The bytes of weights and of scales, in the order of memory.
    #[must_use]
    pub fn as_bytes(&self) -> [&[u8]; 2] {
        let (q8, q4, scales) = self.parts();
        [if q4.is_empty() { view(q8) } else { view(q4) }, view(scales)]
    }
}

impl PackedMatrixBuilder {
    /// The bytes of weights and of scales, to be filled with what [`PackedMatrix::as_bytes`] gave for the same sizes and bits.
    pub fn as_bytes_mut(&mut self) -> [&mut [u8]; 2] {
        let (q8, q4, scales) = self.parts_mut();
        [if q4.is_empty() { view_mut(q8) } else { view_mut(q4) }, view_mut(scales)]
    }
}
