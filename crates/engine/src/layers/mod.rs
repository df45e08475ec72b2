//! What models are built from. Shapes stand in the docs; how weights are stored stays in here.
//!
//! Activations are candle tensors on the CPU, `(rows, width)`: all tokens of all sequences of a batch, one below the
//! other, without padding. Each layer runs one of our kernels through a candle custom op, so a call costs one
//! allocation; the f32 reference products are candle's own.

mod attention;
mod embedding;
mod layer_norm;
mod linear;
mod op;

pub use attention::{Heads, KeysValues, cached_attention, full_attention};
pub use embedding::Embedding;
pub use layer_norm::LayerNorm;
pub use linear::{Linear, Matrix};
pub(crate) use op::zeros;
