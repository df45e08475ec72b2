//! Checkpoints: bytes become named tensors, quantised while they stream in.
//!
//! A host finds the files ([`files`] says which it needs) and pushes their bytes, in pieces of any size, into a
//! [`Loader`]. Each file's header is read by [`safetensors`] or [`gguf`]; its tensors go through [`reader`] into
//! [`weights`], which knows from [`config`] and the architecture what to expect, and keeps only the final form. The
//! whole f32 file is never held: at most one strip of 32 rows of one matrix waits to be quantised.

pub mod config;
pub mod files;
mod gguf;
pub mod hub;
mod loader;
pub mod packed;
mod reader;
mod safetensors;
pub mod weights;

pub use loader::{LoadOptions, Loaded, Loader, memory_bytes};
pub use weights::Dtype;

/// Bytes as hexadecimal digits, as hashes are told and compared.
#[must_use]
pub fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes any text");
        text
    })
}
