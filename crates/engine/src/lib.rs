//! Inkling's engine: text -> ids -> logits -> token -> text -> score.
//!
//! It is pure: no I/O, no clock, no threads of its own and no JavaScript. A host lends what it needs: bytes, time
//! and a `kernels::Pool` of threads. Modules, in the order in which data flows:
//!
//! - [`checkpoint`]: bytes become named tensors, quantised while they stream in;
//! - [`tokenizer`]: text becomes ids, and ids become text again;
//! - [`model`]: ids become logits; one architecture a file, built from [`layers`], which run on [`kernels`];
//! - [`logits`]: a model's logits, with maxima that say where the highest are;
//! - [`sampler`]: logits become a token;
//! - [`generate`]: the only generation loop;
//! - [`classify`]: text becomes a label and a score;
//! - [`graph`]: what a graph file says, and the only graph runner;
//! - [`protocol`]: the types that cross a wire.
//!
//! Without the feature `models` only [`protocol`] and [`graph`] (without its node) are compiled: enough for a client.

#[cfg(feature = "models")]
pub mod checkpoint;
#[cfg(feature = "models")]
pub mod classify;
pub mod error;
#[cfg(feature = "models")]
pub mod generate;
pub mod graph;
#[cfg(feature = "models")]
pub mod layers;
#[cfg(feature = "models")]
pub mod logits;
#[cfg(feature = "models")]
pub mod model;
pub mod protocol;
#[cfg(feature = "models")]
pub mod sampler;
#[cfg(feature = "models")]
pub mod tokenizer;

pub use error::{Error, Result};
#[cfg(feature = "models")]
pub use inkling_kernels as kernels;
