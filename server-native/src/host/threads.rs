//! The threads of a host, shared out among the nodes that are at work.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use inkling_engine::kernels::{Pool, Team};

use crate::pool::Helpers;

/// A number of threads for the kernels of several nodes. A node that works alone has all of them; nodes that work side by
/// side have equal parts, at least one thread each, which is the node's own.
#[derive(Debug)]
pub(super) struct Threads {
    shared: Arc<Shared>,
    helpers: Helpers,
}

#[derive(Debug)]
struct Shared {
    /// One for each node, and a last one that is never given work: there helpers sleep that no node needs.
    teams: Vec<Team>,
    /// How many threads each node has, its own among them.
    shares: Vec<AtomicUsize>,
    /// Which team each helper is of; [`GONE`] if it shall end.
    places: Vec<AtomicUsize>,
    busy: Mutex<BTreeSet<usize>>,
}

const GONE: usize = usize::MAX;

impl Threads {
    /// So many threads, at least 1, for so many nodes, whose own threads count among them.
    ///
    /// Where the system gives fewer threads, the others do everything.
    pub(super) fn new(threads: usize, nodes: usize) -> Arc<Threads> {
        let shared = Arc::new(Shared {
            teams: (0..=nodes).map(|_| Team::new(threads)).collect(),
            shares: (0..nodes).map(|_| AtomicUsize::new(1)).collect(),
            places: (1..threads).map(|_| AtomicUsize::new(nodes)).collect(),
            busy: Mutex::default(),
        });
        let helping = Arc::clone(&shared);
        let helpers = Helpers::start(shared.places.len(), move |helper| helping.help(helper));
        Arc::new(Threads { shared, helpers })
    }

    /// The threads of a node that is at work until the answer is dropped.
    pub(super) fn enter(&self, node: usize) -> Share<'_> {
        self.change(|busy| busy.insert(node));
        Share { threads: self, node }
    }

    /// Changes which nodes are busy, and gives each its part of the helpers.
    fn change(&self, change: impl FnOnce(&mut BTreeSet<usize>) -> bool) {
        let mut busy = self.shared.busy.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut busy);
        self.shared.share_out(&busy, self.helpers.count());
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.places.iter().for_each(|place| place.store(GONE, SeqCst));
        self.shared.teams.iter().for_each(Team::rouse);
        self.helpers.join();
    }
}

impl Shared {
    /// What a helping thread does.
    fn help(&self, helper: usize) {
        let place = || self.places[helper].load(SeqCst);
        while let Some((here, team)) = Some(place()).and_then(|here| Some((here, self.teams.get(here)?))) {
            team.help_while(&|| place() == here);
        }
    }

    /// Gives each busy node its part of the helpers, of which there are so many.
    fn share_out(&self, busy: &BTreeSet<usize>, helpers: usize) {
        let Some(each) = (helpers + 1).checked_div(busy.len()) else { return };
        let more = (helpers + 1) % busy.len();
        let mut wanted = vec![0; self.shares.len()];
        for (at, &node) in busy.iter().enumerate() {
            let share = (each + usize::from(at < more)).max(1);
            self.shares[node].store(share, SeqCst);
            wanted[node] = share - 1;
        }
        // The others sleep.
        wanted.push(helpers - wanted.iter().sum::<usize>());
        // Who is where somebody is wanted stays there.
        let mut moving = Vec::new();
        for place in &self.places[..helpers] {
            match &mut wanted[place.load(SeqCst)] {
                0 => moving.push(place),
                here => *here -= 1,
            }
        }
        for place in moving {
            let to = wanted.iter().position(|wanted| *wanted > 0).expect("as many are wanted as there are");
            wanted[to] -= 1;
            self.teams[place.swap(to, SeqCst)].rouse();
        }
    }
}

/// The threads of a node that is at work.
#[derive(Debug)]
pub(super) struct Share<'a> {
    threads: &'a Threads,
    node: usize,
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.threads.change(|busy| busy.remove(&self.node));
    }
}

impl Pool for Share<'_> {
    fn threads(&self) -> usize {
        self.threads.shared.shares[self.node].load(SeqCst)
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        match self.threads() {
            1 => (0..tasks).for_each(task),
            _ => self.threads.shared.teams[self.node].run(tasks, task),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        thread,
        time::{Duration, Instant},
    };

    use super::*;

    #[test]
    fn nodes_at_work_have_equal_parts() {
        for (threads, nodes, expected) in [
            (1, 1, vec![1]),
            (1, 3, vec![1, 1, 1]),
            (2, 1, vec![2]),
            (2, 2, vec![1, 1]),
            (2, 3, vec![1, 1, 1]),
            (8, 1, vec![8]),
            (8, 2, vec![4, 4]),
            (8, 3, vec![3, 3, 2]),
        ] {
            let all = Threads::new(threads, 3);
            let shares: Vec<_> = (0..nodes).map(|node| all.enter(node)).collect();
            assert_eq!(
                shares.iter().map(Pool::threads).collect::<Vec<_>>(),
                expected,
                "{threads} for {nodes}"
            );
        }
    }

    #[test]
    fn what_one_leaves_the_others_get() {
        let all = Threads::new(5, 3);
        let (first, second, third) = (all.enter(0), all.enter(1), all.enter(2));
        drop(second);
        assert_eq!((first.threads(), third.threads()), (3, 2));
        drop(first);
        assert_eq!(third.threads(), 5);
    }

    /// As many tasks as the node has threads, of which each waits for the others: with fewer threads they would not end.
    #[track_caller]
    fn check_that_all_come(share: &Share<'_>) {
        let (tasks, met, began) = (share.threads(), AtomicUsize::new(0), Instant::now());
        share.run(tasks, &|_| {
            met.fetch_add(1, SeqCst);
            while met.load(SeqCst) < tasks {
                assert!(began.elapsed() < Duration::from_secs(20), "{met:?} of {tasks} threads came");
                thread::yield_now();
            }
        });
    }

    #[test]
    fn a_node_s_threads_come_to_it_wherever_they_were() {
        let all = Threads::new(6, 3);
        for _ in 0..20 {
            let first = all.enter(0);
            check_that_all_come(&first);
            let second = all.enter(1);
            thread::scope(|scope| {
                scope.spawn(|| (0..20).for_each(|_| check_that_all_come(&second)));
                (0..20).for_each(|_| check_that_all_come(&first));
            });
            drop(first);
            check_that_all_come(&second);
            // Long enough for them to sleep.
            thread::sleep(Duration::from_millis(3));
        }
    }
}
