//! From candle tensors to the slices that kernels work on, and back.

use candle_core::{CpuStorage, CustomOp1, CustomOp3, Layout, Result, Shape, Tensor};

/// A kernel over one contiguous f32 tensor; the result's shape is given with it.
pub(super) struct Map<F> {
    name: &'static str,
    shape: Shape,
    kernel: F,
}

/// Runs `kernel(input, output)` on the CPU; the output has `shape` and begins as zeros.
pub(super) fn map(
    x: &Tensor,
    name: &'static str,
    shape: impl Into<Shape>,
    kernel: impl Fn(&[f32], &mut [f32]),
) -> Result<Tensor> {
    x.apply_op1_no_bwd(&Map { name, shape: shape.into(), kernel })
}

/// Runs `kernel(a, b, c, output)` on the CPU; the output has `shape` and begins as zeros.
pub(super) fn map3(
    [a, b, c]: [&Tensor; 3],
    name: &'static str,
    shape: impl Into<Shape>,
    kernel: impl Fn(&[f32], &[f32], &[f32], &mut [f32]),
) -> Result<Tensor> {
    a.apply_op3_no_bwd(b, c, &Map { name, shape: shape.into(), kernel })
}

fn slice<'a>(name: &str, storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let data = storage.as_slice::<f32>()?;
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&data[start..end]),
        None => candle_core::bail!("{name}: expected a contiguous tensor, got {layout:?}"),
    }
}

impl<F: Fn(&[f32], &mut [f32])> CustomOp1 for Map<F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut out = vec![0.0; self.shape.elem_count()];
        (self.kernel)(slice(self.name, storage, layout)?, &mut out);
        Ok((CpuStorage::F32(out), self.shape.clone()))
    }
}

impl<F: Fn(&[f32], &[f32], &[f32], &mut [f32])> CustomOp3 for Map<F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let mut out = vec![0.0; self.shape.elem_count()];
        let name = self.name;
        (self.kernel)(slice(name, s1, l1)?, slice(name, s2, l2)?, slice(name, s3, l3)?, &mut out);
        Ok((CpuStorage::F32(out), self.shape.clone()))
    }
}
