//! Layer normalisation.

use candle_core::Tensor;

use super::op;
use crate::{
    error::Result,
    kernels::{self, Norm, Pool},
};

/// `(x - mean) / sqrt(variance + eps) * weight + bias` over each row.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    eps: f32,
}

impl LayerNorm {
    /// `weight` and `bias`: `(width)`.
    #[must_use]
    pub fn new(weight: Vec<f32>, bias: Vec<f32>, eps: f32) -> LayerNorm {
        LayerNorm { weight, bias, eps }
    }

    /// The same for kernels.
    pub(super) fn kernel(&self) -> Norm<'_> {
        Norm { weight: &self.weight, bias: &self.bias, eps: self.eps }
    }

    /// Normalises the rows of `x` in place: `(rows, width)`, and nobody else holds it.
    ///
    /// # Errors
    /// [`crate::Error::Tensor`] if `x` is not contiguous.
    pub fn forward_in_place(&self, x: &Tensor, pool: &dyn Pool) -> Result<()> {
        Ok(op::update_alone(x, "layer_norm", |x| kernels::layer_norm_in_place(x, self.kernel(), pool))?)
    }
}
