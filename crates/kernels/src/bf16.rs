//! The 16-bit floats in which a generator's keys and values are kept: half the memory, and half the time to read it.

/// The upper half of an f32: its sign, its exponent and 7 bits of its fraction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Bf16(pub(crate) u16);

impl From<f32> for Bf16 {
    /// The nearest one, ties to even. What is larger than all becomes infinite, and a NaN stays one.
    #[inline(always)]
    fn from(x: f32) -> Self {
        let bits = x.to_bits();
        let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
        Self(((if x.is_nan() { bits | 0x40_0000 } else { nearest }) >> 16) as u16)
    }
}

impl From<Bf16> for f32 {
    #[inline(always)]
    fn from(x: Bf16) -> Self {
        Self::from_bits(u32::from(x.0) << 16)
    }
}
