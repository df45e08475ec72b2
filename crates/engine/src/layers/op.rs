//! From candle tensors to the slices that kernels work on, and back.

use std::cell::RefCell;

use candle_core::{CpuStorage, Device, InplaceOp1, InplaceOp2, Layout, Result, Storage, Tensor};

/// Zeros, `(rows, columns)`, whose first element begins a cache line, as those of an allocator do not. Kernels write 16
/// elements at a time, and each part of a row on another thread: lines that they share would go to and fro.
pub(crate) fn zeros(rows: usize, columns: usize) -> Result<Tensor> {
    filled(rows, columns, &mut |_| {})
}

/// [`zeros`] after `fill`.
pub(super) fn filled(rows: usize, columns: usize, fill: &mut dyn FnMut(&mut [f32])) -> Result<Tensor> {
    /// Elements of a cache line.
    const LINE: usize = 16;
    let n = rows * columns;
    let mut data = vec![0.0; n + LINE];
    let first = data.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
    fill(&mut data[first..first + n]);
    Tensor::from_vec(data, n + LINE, &Device::Cpu)?.narrow(0, first, n)?.reshape((rows, columns))
}

// A kernel is a `dyn`: candle's part of an op is compiled once, and not for every layer that calls it.

/// A kernel that changes its first tensor.
struct Update<'a, F: ?Sized> {
    name: &'static str,
    kernel: RefCell<&'a mut F>,
}

/// Runs `kernel(x)` on the CPU, in place.
pub(super) fn update_alone(x: &Tensor, name: &'static str, mut kernel: impl FnMut(&mut [f32])) -> Result<()> {
    let kernel: &mut dyn FnMut(&mut [f32]) = &mut kernel;
    x.inplace_op1(&Update { name, kernel: RefCell::new(kernel) })
}

/// Runs `kernel(x, other)` on the CPU, which changes `x` in place.
pub(super) fn update(
    x: &Tensor,
    other: &Tensor,
    name: &'static str,
    mut kernel: impl FnMut(&mut [f32], &[f32]),
) -> Result<()> {
    let kernel: &mut dyn FnMut(&mut [f32], &[f32]) = &mut kernel;
    x.inplace_op2(other, &Update { name, kernel: RefCell::new(kernel) })
}

/// Lends `then` the elements of a contiguous tensor.
pub(super) fn read<R>(x: &Tensor, name: &'static str, then: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let (storage, layout) = x.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => Ok(then(slice(name, storage, layout)?)),
        _ => candle_core::bail!("{name}: expected a tensor on the CPU"),
    }
}

impl InplaceOp1 for Update<'_, dyn FnMut(&mut [f32]) + '_> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        (self.kernel.borrow_mut())(slice_mut(self.name, storage, layout)?);
        Ok(())
    }
}

impl InplaceOp2 for Update<'_, dyn FnMut(&mut [f32], &[f32]) + '_> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, s1: &mut CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<()> {
        (self.kernel.borrow_mut())(slice_mut(self.name, s1, l1)?, slice(self.name, s2, l2)?);
        Ok(())
    }
}

fn slice_mut<'a>(name: &str, storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [f32]> {
    let CpuStorage::F32(data) = storage else { candle_core::bail!("{name}: expected f32") };
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&mut data[start..end]),
        None => candle_core::bail!("{name}: expected a contiguous tensor, got {layout:?}"),
    }
}

fn slice<'a>(name: &str, storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let data = storage.as_slice::<f32>()?;
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&data[start..end]),
        None => candle_core::bail!("{name}: expected a contiguous tensor, got {layout:?}"),
    }
}
