//! Threads that share one piece of work at a time and hand over within a microsecond.
//!
//! A token of GPT-2 is some sixty products of 10 to 60 microseconds each, one after the other. Handing each to a sleeping
//! thread costs as much as the product gains, so a helper that has run out of work looks for more for a short while
//! before it sleeps. The threads are the host's; this is what they run, and how they are given work.
//!
//! One run is open at a time. Whoever opens it works on it too, and never waits for a helper that has not come: it
//! takes task after task until none is left, closes the run, and waits only for helpers that are inside. A run that is
//! asked for while another one is open (by another thread, or by a task) is done by its caller alone.
//!
//! Each thread has a share of a run's tasks, which are neighbours, and takes from the others' when its own is done. A
//! task's weights follow its neighbour's in memory, so each thread reads one stream to the end of its share: with tasks
//! dealt out in turns every task began another one.

use super::pool::Pool;
use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Condvar, Mutex, PoisonError};

/// How often a helper looks for work before it sleeps: some 50 to 200 microseconds, longer than what lies between the
/// products of a token, and than drawing one.
const LOOKS: usize = 4000;

/// How often the caller looks whether the helpers are done before it offers its core to others.
const PATIENCE: usize = 20_000;

/// A [`Pool`] whose helping threads the host provides: each calls [`Team::help`].
pub struct Team {
    /// Whether a run is open, or about to be.
    taken: AtomicBool,
    /// Odd while a run is open; grows by one when a run is opened or closed.
    turn: AtomicUsize,
    /// What the open run's tasks do.
    task: UnsafeCell<Option<*const (dyn Fn(usize) + Sync)>>,
    /// The open run's tasks that nobody has taken: a share for each thread.
    shares: Box<[Share]>,
    /// Helpers that may be reading `task`.
    inside: AtomicUsize,
    /// What a task panicked with on a helper.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// Helpers that sleep, or are about to.
    asleep: AtomicUsize,
    bed: Mutex<()>,
    alarm: Condvar,
    disbanded: AtomicBool,
}

/// Tasks from `next` to `end`. On cache lines of its own, since its thread writes it all the time.
#[derive(Default)]
#[repr(align(128))]
struct Share {
    next: AtomicUsize,
    end: AtomicUsize,
}

impl Share {
    /// The next task. A share that is empty is not written to: the others look into it, too.
    fn take(&self) -> Option<usize> {
        let end = self.end.load(Relaxed);
        let left = self.next.load(Relaxed) < end;
        left.then(|| self.next.fetch_add(1, Relaxed)).filter(|index| *index < end)
    }
}

// SAFETY: `task` is written only by the thread that has taken the team, while no run is open and no helper is inside,
// and read only by helpers inside of an open run; what it points to is `Sync`.
unsafe impl Sync for Team {}
// SAFETY: `task` is of no open run whenever the team can be moved, since `run` borrows it.
unsafe impl Send for Team {}

impl Team {
    /// A team of `threads` threads, of which the caller of [`Pool::run`] is one; the host starts the others.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        Self {
            taken: AtomicBool::new(false),
            turn: AtomicUsize::new(0),
            task: UnsafeCell::new(None),
            shares: (0..threads.max(1)).map(|_| Share::default()).collect(),
            inside: AtomicUsize::new(0),
            panic: Mutex::new(None),
            asleep: AtomicUsize::new(0),
            bed: Mutex::new(()),
            alarm: Condvar::new(),
            disbanded: AtomicBool::new(false),
        }
    }

    /// Helps with every run until the team is disbanded; what a helping thread does.
    pub fn help(&self) {
        self.help_while(&|| true);
    }

    /// [`Team::help`] for as long as `stay` says so. Whoever changes its answer calls [`Team::rouse`] then.
    pub fn help_while(&self, stay: &dyn Fn() -> bool) {
        let mut last = 0;
        while let Some(turn) = self.next_turn(last, stay) {
            last = turn;
            // First inside, then a look whether the run is still open. `run` closes first, then looks who is inside. All
            // four are in one order for all threads, so that a helper that reads `task` is one that `run` waits for.
            let helpers = self.inside.fetch_add(1, SeqCst);
            if self.turn.load(SeqCst) == turn {
                // SAFETY: the run is open, and `task` stays its own until this helper is not inside any more.
                let task = unsafe { (*self.task.get()).expect("an open run has a task") };
                // SAFETY: `run` borrows the task until the helpers are out.
                let task = unsafe { &*task };
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.take_tasks(task, helpers + 1))) {
                    self.shares.iter().for_each(|share| share.end.store(0, Relaxed));
                    *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
                }
            }
            self.inside.fetch_sub(1, Release);
        }
    }

    /// Lets the helpers go.
    pub fn disband(&self) {
        self.disbanded.store(true, SeqCst);
        self.rouse();
    }

    /// Has helpers that sleep look whether they shall stay. What they see has to be changed with `SeqCst`.
    pub fn rouse(&self) {
        if self.asleep.load(SeqCst) > 0 {
            drop(self.bed.lock().unwrap_or_else(PoisonError::into_inner));
            self.alarm.notify_all();
        }
    }

    /// The turn of a run that is open and is not `last`; nothing once the team is disbanded, or the helper shall not stay.
    fn next_turn(&self, last: usize, stay: &dyn Fn() -> bool) -> Option<usize> {
        let open = || Some(self.turn.load(SeqCst)).filter(|turn| *turn % 2 == 1 && *turn != last);
        loop {
            for _ in 0..LOOKS {
                if self.disbanded.load(Relaxed) || !stay() {
                    return None;
                }
                if let Some(turn) = open() {
                    return Some(turn);
                }
                std::hint::spin_loop();
            }
            let mut bed = self.bed.lock().unwrap_or_else(PoisonError::into_inner);
            // First asleep, then a last look; `run` opens first, then looks who is asleep.
            self.asleep.fetch_add(1, SeqCst);
            while open().is_none() && !self.disbanded.load(SeqCst) && stay() {
                bed = self.alarm.wait(bed).unwrap_or_else(PoisonError::into_inner);
            }
            self.asleep.fetch_sub(1, SeqCst);
        }
    }

    /// Does what is left of the share `own`, then of those behind it.
    fn take_tasks(&self, task: &(dyn Fn(usize) + Sync), own: usize) {
        let (before, from_own) = self.shares.split_at(own % self.shares.len());
        for share in from_own.iter().chain(before) {
            while let Some(index) = share.take() {
                task(index);
            }
        }
    }
}

impl Pool for Team {
    fn threads(&self) -> usize {
        self.shares.len()
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        let threads = self.threads();
        if threads == 1 || tasks <= 1 || self.taken.swap(true, Acquire) {
            return (0..tasks).for_each(task);
        }
        // SAFETY: this only forgets how long `task` lives. `Open` is dropped before this function returns, also when a
        // task panics, and its drop waits until no helper can use the pointer.
        let task_for_helpers: *const (dyn Fn(usize) + Sync) =
            unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(task) };
        // SAFETY: this thread has taken the team, no run is open, and the last run's helpers are out.
        unsafe { *self.task.get() = Some(task_for_helpers) };
        for (i, share) in self.shares.iter().enumerate() {
            share.next.store(tasks * i / threads, Relaxed);
            share.end.store(tasks * (i + 1) / threads, Relaxed);
        }
        self.turn.fetch_add(1, SeqCst);
        let open = Open(self);
        self.rouse();
        self.take_tasks(task, 0);
        drop(open);
        let panic = self.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

/// An open run; dropping it closes it.
struct Open<'a>(&'a Team);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let team = self.0;
        team.turn.fetch_add(1, SeqCst);
        let mut looks = 0;
        while team.inside.load(SeqCst) != 0 {
            looks += 1;
            if looks < PATIENCE { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
        if std::thread::panicking() {
            // The caller's own panic is the one that goes on.
            *team.panic.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        team.taken.store(false, Release);
    }
}

impl std::fmt::Debug for Team {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Team").field("threads", &self.threads()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    /// Calls `f` with a team of `threads` threads that are there.
    fn with(threads: usize, f: impl FnOnce(&Team)) {
        let team = Arc::new(Team::new(threads));
        let helpers: Vec<_> = (1..threads)
            .map(|_| {
                let team = Arc::clone(&team);
                std::thread::spawn(move || team.help())
            })
            .collect();
        f(&team);
        team.disband();
        helpers.into_iter().for_each(|helper| helper.join().unwrap());
    }

    #[track_caller]
    fn every_task_runs_once(team: &Team, tasks: usize) {
        let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
        team.run(tasks, &|task| {
            counts[task].fetch_add(1, Relaxed);
        });
        assert!(counts.iter().all(|count| count.load(Relaxed) == 1), "{counts:?}");
    }

    #[test]
    fn every_task_of_many_short_runs_runs_once() {
        for threads in [1, 2, 4] {
            with(threads, |team| (0..20_000).for_each(|run| every_task_runs_once(team, run % 9)));
        }
    }

    #[test]
    fn a_thread_takes_neighbours_as_long_as_its_share_lasts() {
        with(2, |team| {
            let (tasks, met) = (100, AtomicUsize::new(0));
            let taken = Mutex::new(Vec::new());
            team.run(tasks, &|task| {
                // Until both threads are there.
                met.fetch_add(1, SeqCst);
                while met.load(SeqCst) < 2 {
                    std::hint::spin_loop();
                }
                taken.lock().unwrap().push((std::thread::current().id(), task));
            });
            let taken = taken.into_inner().unwrap();
            let first = |of: usize| taken.iter().find(|(_, task)| *task == of).unwrap().0;
            assert_ne!(first(0), first(50), "each begins with its own share");
            for own in [0, 50] {
                let of_thread = taken.iter().filter(|(id, _)| *id == first(own)).map(|(_, task)| *task);
                let shared = of_thread.take_while(|task| (own..own + 50).contains(task)).collect::<Vec<_>>();
                assert!(shared.is_sorted() && shared[0] == own, "{shared:?}");
            }
        });
    }

    #[test]
    fn helpers_that_have_gone_to_sleep_wake_up() {
        with(2, |team| {
            for _ in 0..3 {
                std::thread::sleep(Duration::from_millis(20));
                // Two tasks that wait for each other: one thread alone would never end.
                let met = AtomicUsize::new(0);
                team.run(2, &|_| {
                    met.fetch_add(1, SeqCst);
                    while met.load(SeqCst) < 2 {
                        std::hint::spin_loop();
                    }
                });
            }
        });
    }

    #[test]
    fn runs_within_runs_and_beside_each_other_end() {
        with(3, |team| {
            std::thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| (0..300).for_each(|_| every_task_runs_once(team, 5)));
                }
            });
            let count = AtomicUsize::new(0);
            team.run(4, &|_| {
                team.run(3, &|_| {
                    count.fetch_add(1, Relaxed);
                })
            });
            assert_eq!(count.load(Relaxed), 12);
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_and_leaves_the_team_whole() {
        with(2, |team| {
            for _ in 0..50 {
                let met = AtomicUsize::new(0);
                let caller = std::thread::current().id();
                for on_caller in [true, false] {
                    let panicked = catch_unwind(AssertUnwindSafe(|| {
                        team.run(2, &|_| {
                            // Both threads are inside; one of them panics.
                            met.fetch_add(1, SeqCst);
                            while met.load(SeqCst) % 2 == 1 {
                                std::hint::spin_loop();
                            }
                            assert!((std::thread::current().id() == caller) != on_caller, "as it should");
                        });
                    }));
                    assert!(panicked.is_err());
                }
                every_task_runs_once(team, 7);
            }
        });
    }
}
