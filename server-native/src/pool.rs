//! Threads for the kernels.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
};

use inkling_engine::kernels::{Pool, Team};

/// Threads that help; whoever has them says when they shall end, and then joins them.
#[derive(Debug)]
pub(crate) struct Helpers(Vec<JoinHandle<()>>);

impl Helpers {
    /// Starts so many threads, which do `help` with their number, from 0 on.
    ///
    /// Where the system gives fewer threads, there are fewer.
    pub(crate) fn start(helpers: usize, help: impl Fn(usize) + Clone + Send + 'static) -> Helpers {
        let start = |helper| {
            let help = help.clone();
            let name = format!("kernels-{}", helper + 1);
            thread::Builder::new().name(name).spawn(move || help(helper)).ok()
        };
        Helpers((0..helpers).map_while(start).collect())
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Waits until all have ended.
    pub(crate) fn join(&mut self) {
        for helper in self.0.drain(..) {
            // A helper catches what tasks panic with, so there is nothing to be told.
            let _ = helper.join();
        }
    }
}

/// A number of threads, of which the caller's is one. Those that are idle sleep, after looking for work a moment longer.
#[derive(Debug)]
pub struct ThreadPool {
    team: Arc<Team>,
    helpers: Helpers,
}

impl ThreadPool {
    /// A pool of `threads` threads, at least 1.
    ///
    /// Where the system gives fewer threads, the others do everything.
    #[must_use]
    pub fn new(threads: usize) -> ThreadPool {
        let team = Arc::new(Team::new(threads));
        let helpers = Arc::clone(&team);
        let helpers = Helpers::start(threads.saturating_sub(1), move |_| helpers.help());
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
        self.helpers.join();
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
