//! The architectures: ids in, logits out.
//!
//! - [`gpt2`]: the generator;
//! - [`bert`] and [`distilbert`]: the encoders, of the same layers, behind the classifiers' common face, [`Encoder`].

pub mod bert;
pub mod distilbert;
mod encoder;
mod encoder_layer;
pub mod gpt2;

pub use encoder::Encoder;

use candle_core::Tensor;

use crate::{error::Result, layers};

/// What the parts of a layer hand on. All layers share it: memory that every layer asked for anew would be given back and
/// cleared by the system each time, which took 4 % of a prompt of 64 tokens.
struct Scratch {
    /// `(rows, 3 * width)`, in the same memory as `inner`: of a layer nobody needs both.
    qkv: Tensor,
    /// `(rows, width)`.
    mixed: Tensor,
    /// `(rows, inner width)`.
    inner: Tensor,
}

impl Scratch {
    fn new(rows: usize, width: usize, inner_width: usize) -> Result<Scratch> {
        let shared = layers::zeros(1, rows * inner_width.max(3 * width))?;
        let shared = |columns| shared.narrow(1, 0, rows * columns)?.reshape((rows, columns));
        Ok(Scratch {
            qkv: shared(3 * width)?,
            mixed: layers::zeros(rows, width)?,
            inner: shared(inner_width)?,
        })
    }
}

/// The rows `wanted` of `x`, `(rows, width)`; all of them for `None`.
///
/// A last layer is asked for a few rows only: a text's first for a classifier, its last for a generator. From its queries
/// on it is computed for these alone, as every row would be.
fn rows(x: Tensor, wanted: Option<&[u32]>) -> Result<Tensor> {
    match wanted {
        Some(wanted) => Ok(x.index_select(&Tensor::new(wanted, x.device())?, 0)?),
        None => Ok(x),
    }
}
