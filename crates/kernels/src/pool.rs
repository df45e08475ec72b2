//! Threads are lent by the host; kernels only say what may run side by side.

/// The host's threads.
pub trait Pool: Send + Sync {
    /// How many tasks run at the same time; kernels cut their work accordingly.
    fn threads(&self) -> usize;

    /// Calls `task(0)`, `task(1)`, .. `task(tasks - 1)`, each once, in any order, possibly in parallel, and returns when
    /// all are done.
    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync));
}

/// The pool of a host without threads: the caller's thread does everything, in order.
#[derive(Clone, Copy, Debug, Default)]
pub struct SingleThread;

impl Pool for SingleThread {
    fn threads(&self) -> usize {
        1
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        (0..tasks).for_each(task);
    }
}

/// A mutable slice that the tasks of one [`Pool::run`] write to in disjoint parts.
pub(crate) struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    _slice: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: a `Shared` only hands out parts through `part`, whose caller promises that they are disjoint.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), _slice: std::marker::PhantomData }
    }

    /// The part `start..start + len`.
    ///
    /// # Safety
    /// No two parts that are alive at the same time overlap.
    #[inline(always)]
    #[expect(
        clippy::mut_from_ref,
        reason = "handing disjoint parts to several threads is what this type is for"
    )]
    pub(crate) unsafe fn part(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start <= self.len && len <= self.len - start, "kernels: part {start}+{len} of {}", self.len);
        // SAFETY: in bounds by the assert above; the slice is borrowed mutably for 'a; the caller keeps parts disjoint.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}
