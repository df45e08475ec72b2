//! Threads for the kernels.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
};

use inkling_engine::kernels::{Pool, Team};

/// A number of threads, of which the caller's is one. Those that are idle sleep, after looking for work a moment longer.
#[derive(Debug)]
pub struct ThreadPool {
    team: Arc<Team>,
    helpers: Vec<JoinHandle<()>>,
}

impl ThreadPool {
    /// A pool of `threads` threads, at least 1.
    ///
    /// Where the system gives fewer threads, the others do everything.
    #[must_use]
    pub fn new(threads: usize) -> ThreadPool {
        let team = Arc::new(Team::new(threads));
        let start = |index| {
            let team = Arc::clone(&team);
            thread::Builder::new().name(format!("kernels-{index}")).spawn(move || team.help()).ok()
        };
        let helpers = (1..threads).map_while(start).collect();
        ThreadPool { team, helpers }
    }

    /// A pool of as many threads as this process may run at the same time.
    #[must_use]
    pub fn of_all_cores() -> ThreadPool {
        ThreadPool::new(cores())
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.team.disband();
        for helper in self.helpers.drain(..) {
            // A helper catches what tasks panic with, so there is nothing to be told.
            let _ = helper.join();
        }
    }
}

/// Threads that can run at the same time here.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

impl Pool for ThreadPool {
    fn threads(&self) -> usize {
        self.team.threads()
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        self.team.run(tasks, task);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

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
}
