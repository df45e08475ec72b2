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

use std::sync::{Mutex, PoisonError};

use candle_core::Tensor;

use crate::{error::Result, layers};

/// What the parts of a layer hand on. All layers share it: memory that every layer asked for anew would be given back and
/// cleared by the system each time, which took 4 % of a prompt of 64 tokens.
struct Scratch<'a> {
    /// `(rows, 3 * width)`, in the same memory as `inner`: of a layer nobody needs both.
    qkv: Tensor,
    /// `(rows, width)`.
    mixed: Tensor,
    /// `(rows, inner width)`.
    inner: Tensor,
    /// The memory of `qkv` and `inner`, `(1, elements)`, and where it goes.
    shared: Tensor,
    kept: &'a KeptScratch,
}

/// The larger part of a [`Scratch`] between two runs of a model, for the same reason: without it a text of 128 tokens takes
/// BERT 3 % longer.
#[derive(Debug, Default)]
struct KeptScratch(Mutex<Option<Tensor>>);

impl KeptScratch {
    /// Elements; what more takes is given back. 340 tokens of BERT base.
    const MOST: usize = 1 << 20;
}

impl<'a> Scratch<'a> {
    fn new(rows: usize, width: usize, inner_width: usize, kept: &'a KeptScratch) -> Result<Scratch<'a>> {
        let elements = rows * inner_width.max(3 * width);
        let shared = kept.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let shared = match shared.filter(|shared| shared.elem_count() >= elements) {
            Some(shared) => shared,
            None => layers::zeros(1, elements)?,
        };
        let part = |columns| shared.narrow(1, 0, rows * columns)?.reshape((rows, columns));
        let (qkv, inner) = (part(3 * width)?, part(inner_width)?);
        Ok(Scratch { qkv, mixed: layers::zeros(rows, width)?, inner, shared, kept })
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        if self.shared.elem_count() <= KeptScratch::MOST {
            *self.kept.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.shared.clone());
        }
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
