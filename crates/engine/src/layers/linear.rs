//! Matrix products with a bias and an activation.

use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::{LayerNorm, op};
use crate::{
    error::Result,
    kernels::{self, Activation, Around, PackedMatrix, Pool},
    logits::Logits,
};

/// A weight matrix `(out, in)`, in one of the forms that weights are kept in.
pub enum Matrix {
    /// 32-bit floats: the reference. Products are candle's.
    F32(Tensor),
    /// 8 or 4 bits a weight, packed for our kernels.
    Packed(PackedMatrix),
}

impl Matrix {
    /// A matrix `(rows, cols)` of f32, row-major.
    ///
    /// # Errors
    /// [`crate::Error::Tensor`] if `data` has another size.
    pub fn from_f32(rows: usize, cols: usize, data: Vec<f32>) -> Result<Matrix> {
        Ok(Matrix::F32(Tensor::from_vec(data, (rows, cols), &Device::Cpu)?))
    }

    /// The rows of all `matrices`, one matrix below the other; they are kept in the same form.
    ///
    /// # Errors
    /// [`crate::Error::Tensor`] if the forms or the inputs differ.
    pub fn stack(matrices: Vec<Matrix>) -> Result<Matrix> {
        let (mut f32s, mut packed) = (Vec::new(), Vec::new());
        for matrix in matrices {
            match matrix {
                Matrix::F32(tensor) => f32s.push(tensor),
                Matrix::Packed(matrix) => packed.push(matrix),
            }
        }
        match (f32s.as_slice(), packed.as_slice()) {
            (f32s, []) => Ok(Matrix::F32(Tensor::cat(f32s, 0)?)),
            ([], _) => Ok(Matrix::Packed(PackedMatrix::stack(packed))),
            _ => Err(candle_core::Error::Msg("stack: expected matrices of one form".into()).into()),
        }
    }

    /// Outputs and inputs.
    #[must_use]
    pub fn shape(&self) -> (usize, usize) {
        match self {
            Matrix::F32(tensor) => (tensor.dims()[0], tensor.dims()[1]),
            Matrix::Packed(matrix) => (matrix.rows(), matrix.cols()),
        }
    }

    /// Bytes in memory.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        match self {
            Matrix::F32(tensor) => 4 * tensor.elem_count(),
            Matrix::Packed(matrix) => matrix.size_bytes(),
        }
    }
}

impl std::fmt::Debug for Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let form = match self {
            Matrix::F32(_) => "F32",
            Matrix::Packed(matrix) => &format!("{:?}", matrix.packing()),
        };
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
        match &*self.weight {
            Matrix::Packed(matrix) => {
                let out = op::zeros(x.dims2()?.0, matrix.rows())?;
                self.forward_into(None, x, &out, pool)?;
                Ok(out)
            }
            Matrix::F32(weight) => self.product(weight, None, x, pool),
        }
    }

    /// `forward(x)`, or that of the rows of `x` after `norm`, without a trip of these through memory, into `out`:
    /// `(rows, out)`, whose elements nobody else holds.
    ///
    /// # Errors
    /// [`crate::Error::Tensor`] if the shapes do not fit.
    pub fn forward_into(
        &self,
        norm: Option<&LayerNorm>,
        x: &Tensor,
        out: &Tensor,
        pool: &dyn Pool,
    ) -> Result<()> {
        match &*self.weight {
            Matrix::Packed(matrix) => packed_into(matrix, &self.around(norm), x, out, pool)?,
            Matrix::F32(weight) => {
                op::update(out, &self.product(weight, norm, x, pool)?, "copy", <[f32]>::copy_from_slice)?;
            }
        }
        Ok(())
    }

    /// Whether it multiplies in f32, as the reference does.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        matches!(*self.weight, Matrix::F32(_))
    }

    /// Outputs.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.weight.shape().0
    }

    /// `residual += forward(x)`, in place: `residual` is `(rows, out)`, and nobody else holds it.
    ///
    /// # Errors
    /// [`crate::Error::Tensor`] if the shapes do not fit.
    pub fn forward_add(&self, x: &Tensor, residual: &Tensor, pool: &dyn Pool) -> Result<()> {
        match &*self.weight {
            Matrix::Packed(matrix) => {
                packed_into(matrix, &Around { add: true, ..self.around(None) }, x, residual, pool)?;
            }
            Matrix::F32(weight) => {
                op::update(residual, &self.product(weight, None, x, pool)?, "add", kernels::add)?;
            }
        }
        Ok(())
    }

    /// The layer on the normalised rows of `x` as a model's head, whose outputs are logits.
    ///
    /// # Errors
    /// [`crate::Error::Tensor`] if the shapes do not fit.
    pub fn logits(&self, norm: &LayerNorm, x: &Tensor, pool: &dyn Pool) -> Result<Logits> {
        match &*self.weight {
            Matrix::Packed(matrix) => {
                let around = Around { maxima: true, ..self.around(Some(norm)) };
                Logits::written(x.dims2()?.0, matrix.rows(), |out| {
                    Ok(op::read(x, "linear_packed", |x| matrix.matmul_with(x, &around, out, pool))?)
                })
            }
            Matrix::F32(weight) => {
                let product = self.product(weight, Some(norm), x, pool)?;
                Ok(Logits::new(product.flatten_all()?.to_vec1()?, product.dims2()?.1))
            }
        }
    }

    fn around<'a>(&'a self, norm: Option<&'a LayerNorm>) -> Around<'a> {
        Around {
            norm: norm.map(LayerNorm::kernel),
            bias: self.bias.as_deref(),
            activation: self.activation,
            add: false,
            maxima: false,
        }
    }

    /// The layer with weights in f32: candle's product, and what stands around it.
    fn product(
        &self,
        weight: &Tensor,
        norm: Option<&LayerNorm>,
        x: &Tensor,
        pool: &dyn Pool,
    ) -> Result<Tensor> {
        let product = match norm {
            Some(norm) => {
                let normed = x.copy()?;
                norm.forward_in_place(&normed, pool)?;
                normed.matmul(&weight.t()?)?
            }
            None => x.matmul(&weight.t()?)?,
        };
        if self.bias.is_none() && self.activation == Activation::None {
            return Ok(product);
        }
        op::update_alone(&product, "bias_activation", |out| {
            if let Some(bias) = &self.bias {
                out.chunks_exact_mut(bias.len()).for_each(|row| kernels::add(row, bias));
            }
            self.activation.apply(out);
        })?;
        Ok(product)
    }
}

fn packed_into(
    matrix: &PackedMatrix,
    around: &Around<'_>,
    x: &Tensor,
    out: &Tensor,
    pool: &dyn Pool,
) -> Result<()> {
    Ok(op::update(out, x, "linear_packed", |out, x| matrix.matmul_with(x, around, out, pool))?)
}
