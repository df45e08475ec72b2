//! Threads for the kernels.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use inkling_engine::kernels::Pool;

/// A number of threads, of which the caller's is one; idle ones sleep.
#[derive(Debug)]
pub struct ThreadPool {
    /// The other threads; none if the caller's is the only one.
    others: Option<rayon::ThreadPool>,
}

impl ThreadPool {
    /// A pool of `threads` threads, at least 1.
    ///
    /// Where the system gives no more threads, the caller's does everything.
    #[must_use]
    pub fn new(threads: usize) -> ThreadPool {
        let build =
            |others| rayon::ThreadPoolBuilder::new().num_threads(others).thread_name(name).build().ok();
        ThreadPool { others: if threads > 1 { build(threads - 1) } else { None } }
    }

    /// A pool of as many threads as this process may run at the same time.
    #[must_use]
    pub fn of_all_cores() -> ThreadPool {
        ThreadPool::new(cores())
    }
}

/// Threads that can run at the same time here.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn name(index: usize) -> String {
    format!("kernels-{}", index + 1)
}

impl Pool for ThreadPool {
    fn threads(&self) -> usize {
        1 + self.others.as_ref().map_or(0, rayon::ThreadPool::current_num_threads)
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        let Some(others) = self.others.as_ref().filter(|_| tasks > 1) else {
            return (0..tasks).for_each(task);
        };
        let next = AtomicUsize::new(0);
        let work = || {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= tasks {
                    return;
                }
                task(index);
            }
        };
        others.in_place_scope(|scope| {
            for _ in 0..others.current_num_threads().min(tasks - 1) {
                scope.spawn(|_| work());
            }
            work();
        });
    }
}

/// One [`ThreadPool`] for several nodes: a node that works alone has all of it, nodes that work side by side have one
/// thread each, since each then has a core to itself.
#[derive(Debug)]
pub(crate) struct SharedPool {
    all: ThreadPool,
    /// Nodes at work.
    busy: AtomicUsize,
}

impl SharedPool {
    pub(crate) fn new(threads: usize) -> Arc<SharedPool> {
        Arc::new(SharedPool { all: ThreadPool::new(threads), busy: AtomicUsize::new(0) })
    }

    /// Says that a node is at work until the answer is dropped.
    pub(crate) fn enter(&self) -> impl Drop {
        struct Busy<'a>(&'a AtomicUsize);
        impl Drop for Busy<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.busy.fetch_add(1, Ordering::Relaxed);
        Busy(&self.busy)
    }
}

impl Pool for SharedPool {
    fn threads(&self) -> usize {
        if self.busy.load(Ordering::Relaxed) > 1 { 1 } else { self.all.threads() }
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        self.all.run(tasks, task);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_on_any_number_of_threads() {
        for threads in [1, 2, 5] {
            let pool = ThreadPool::new(threads);
            assert_eq!(pool.threads(), threads);
            for tasks in [0, 1, 2, 33] {
                let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(tasks, &|task| {
                    counts[task].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1), "{threads} {tasks}");
            }
        }
    }

    #[test]
    fn a_node_alone_has_all_threads_and_two_have_one_each() {
        let pool = SharedPool::new(2);
        let _first = pool.enter();
        assert_eq!(pool.threads(), 2);
        let second = pool.enter();
        assert_eq!(pool.threads(), 1);
        drop(second);
        assert_eq!(pool.threads(), 2);
    }
}
