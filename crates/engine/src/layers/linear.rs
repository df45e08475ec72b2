//! Matrix products with a bias and an activation.

use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::op;
use crate::{
    error::Result,
    kernels::{Activation, MatrixQ8, Pool},
};

/// A weight matrix `(out, in)`, in one of the forms that weights are kept in.
pub enum Matrix {
    /// 32-bit floats: the reference. Products are candle's.
    F32(Tensor),
    /// 8 bits a weight, packed for our kernels.
    Q8(MatrixQ8),
}

impl Matrix {
    /// A matrix `(rows, cols)` of f32, row-major.
    ///
    /// # Errors
    /// [`crate::Error::Tensor`] if `data` has another size.
    pub fn from_f32(rows: usize, cols: usize, data: Vec<f32>) -> Result<Matrix> {
        Ok(Matrix::F32(Tensor::from_vec(data, (rows, cols), &Device::Cpu)?))
    }

    /// Outputs and inputs.
    #[must_use]
    pub fn shape(&self) -> (usize, usize) {
        match self {
            Matrix::F32(tensor) => (tensor.dims()[0], tensor.dims()[1]),
            Matrix::Q8(matrix) => (matrix.rows(), matrix.cols()),
        }
    }

    /// Bytes in memory.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        match self {
            Matrix::F32(tensor) => 4 * tensor.elem_count(),
            Matrix::Q8(matrix) => matrix.size_bytes(),
        }
    }
}

impl std::fmt::Debug for Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let form = if matches!(self, Matrix::F32(_)) { "F32" } else { "Q8" };
        write!(f, "Matrix::{form}{:?}", self.shape())
    }
}

/// `activation(x . weight^T + bias)`.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Arc<Matrix>,
    bias: Option<Vec<f32>>,
    activation: Activation,
}

impl Linear {
    /// A layer with its bias, `(out)`.
    #[must_use]
    pub fn new(weight: Arc<Matrix>, bias: Option<Vec<f32>>) -> Linear {
        Linear { weight, bias, activation: Activation::None }
    }

    /// The same layer followed by `activation`.
    #[must_use]
    pub fn then(self, activation: Activation) -> Linear {
        Linear { activation, ..self }
    }

    /// `x`: `(rows, in)`; gives `(rows, out)`.
    ///
    /// # Errors
    /// [`crate::Error::Tensor`] if the shapes do not fit.
    pub fn forward(&self, x: &Tensor, pool: &dyn Pool) -> Result<Tensor> {
        let rows = x.dims2()?.0;
        match &*self.weight {
            Matrix::Q8(matrix) => Ok(op::map(x, "linear_q8", (rows, matrix.rows()), |x, out| {
                matrix.matmul_then(x, self.bias.as_deref(), self.activation, out, pool);
            })?),
            Matrix::F32(weight) => {
                let product = x.matmul(&weight.t()?)?;
                if self.bias.is_none() && self.activation == Activation::None {
                    return Ok(product);
                }
                Ok(op::map(&product, "bias_activation", product.shape().clone(), |x, out| {
                    out.copy_from_slice(x);
                    if let Some(bias) = &self.bias {
                        out.chunks_exact_mut(bias.len()).for_each(|row| crate::kernels::add(row, bias));
                    }
                    self.activation.apply(out);
                })?)
            }
        }
    }
}
