//! Numbers of 16 bits: f16, as scales are kept and as checkpoints may be, and bf16.

/// The f16 nearest to a finite `x >= 0`, as bits, ties to even; what is too large becomes the largest f16.
#[inline(always)]
pub(crate) fn f16_from_f32(x: f32) -> u16 {
    let bits = x.to_bits();
    if x >= 65_520.0 {
        0x7bff
    } else if x < 6.103_515_6e-5 {
        // Subnormal f16: multiples of 2^-24.
        (x * 16_777_216.0).round_ties_even() as u16
    } else {
        let even = (bits >> 13) & 1;
        ((bits + 0xfff + even) >> 13).wrapping_sub(112 << 10) as u16
    }
}

/// The value of a finite f16: its bits moved into f32's places, and the exponent's bias corrected by an exact
/// multiplication, which is right for subnormal numbers too.
pub(crate) fn f32_from_f16(bits: u16) -> f32 {
    // The sign, extended, fills the places above the exponent too; it stays in the highest.
    f32::from_bits((i32::from(bits as i16) << 13) as u32 & F16_PLACES) * F16_BIAS
}

/// Where f32 keeps sign, exponent and fraction of an f16.
pub(crate) const F16_PLACES: u32 = 0x8fff_ffff;

/// 2^(127 - 15).
pub(crate) const F16_BIAS: f32 = f32::from_bits((127 + 112) << 23);

/// The values of f16 numbers, little-endian; infinities, and what is not a number, stay that.
#[must_use]
pub fn f16_to_f32(numbers: &[[u8; 2]]) -> Vec<f32> {
    let widen = |&bytes| {
        let bits = u16::from_le_bytes(bytes);
        // They have the highest exponent, in f32 as in f16. Without a branch, so that it becomes vector code.
        let exponent = if bits & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
        f32::from_bits(f32_from_f16(bits).to_bits() | exponent)
    };
    numbers.iter().map(widen).collect()
}

/// The values of bf16 numbers, little-endian: the upper half of an f32.
#[must_use]
pub fn bf16_to_f32(numbers: &[[u8; 2]]) -> Vec<f32> {
    numbers.iter().map(|&bytes| f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)).collect()
}
