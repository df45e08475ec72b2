//! The architectures: ids in, logits out.
//!
//! - [`gpt2`]: the generator;
//! - [`bert`] and [`distilbert`]: the encoders, behind the classifiers' common face, [`Encoder`].

pub mod bert;
pub mod distilbert;
mod encoder;
pub mod gpt2;

pub use encoder::Encoder;
