//! A run on its way: its state machine, its deadline, and the way of its events to whoever reads them.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use inkling_engine::{
    graph::{Answer, Graph, Run},
    protocol::{Event, FailureKind, Job, Request, Stamped},
};
use tokio::sync::{OwnedSemaphorePermit, mpsc as channel};

use super::{Inner, Refused};

/// A run on its way. Dropping it stops its jobs before their next token.
pub struct Running {
    state: Arc<RunState>,
    events: channel::UnboundedReceiver<Stamped>,
    answer: Answer,
    _slot: OwnedSemaphorePermit,
}

impl Running {
    /// Begins a run of `graph`, which is made of the host's nodes; `slot` is its place among those allowed.
    pub(super) fn start(
        host: &Arc<Inner>,
        graph: Arc<Graph>,
        request: &Request,
        slot: OwnedSemaphorePermit,
    ) -> Result<Running, Refused> {
        let started = Instant::now();
        let answer = Answer::new(&graph, request);
        let (run, jobs) = Run::start(graph, request).map_err(Refused::Invalid)?;
        let (sender, events) = channel::unbounded_channel();
        let state = Arc::new(RunState {
            host: Arc::clone(host),
            started,
            deadline: host.limits.timeout.map(|timeout| started + timeout),
            cancelled: AtomicBool::new(false),
            course: Mutex::new(Course { run, events: Some(sender) }),
        });
        state.begin(jobs);
        Ok(Running { state, events, answer, _slot: slot })
    }

    /// The next event; `None` when the run is over. Past the deadline every text that has not ended fails.
    pub async fn next(&mut self) -> Option<Stamped> {
        let event = match self.state.deadline {
            None => self.events.recv().await,
            Some(deadline) => match tokio::time::timeout_at(deadline.into(), self.events.recv()).await {
                Ok(event) => event,
                Err(_) => {
                    self.state.abandon();
                    self.events.recv().await
                }
            },
        };
        if let Some(Stamped { at_ms, event }) = &event {
            self.answer.push(*at_ms, event);
        }
        event
    }

    /// The answer as far as it came.
    #[must_use]
    pub fn answer(&self) -> &Answer {
        &self.answer
    }

    /// Waits for the end.
    pub async fn finish(mut self) -> Answer {
        while self.next().await.is_some() {}
        self.answer.clone()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.state.cancelled.store(true, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("answer", &self.answer).finish_non_exhaustive()
    }
}

/// What the threads of a run's nodes share.
pub(super) struct RunState {
    host: Arc<Inner>,
    started: Instant,
    deadline: Option<Instant>,
    cancelled: AtomicBool,
    course: Mutex<Course>,
}

struct Course {
    run: Run,
    /// `None` once the run is over.
    events: Option<channel::UnboundedSender<Stamped>>,
}

impl RunState {
    fn course(&self) -> MutexGuard<'_, Course> {
        // Nothing panics while it holds the lock; if something did, the run could still be ended.
        self.course.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(self: &Arc<Self>, jobs: Vec<Job>) {
        let mut course = self.course();
        let failures = jobs.into_iter().flat_map(|job| self.hand_out(job)).collect();
        self.take(&mut course, failures);
    }

    /// Takes an event of one of the run's jobs, and hands out what became ready.
    pub(super) fn accept(self: &Arc<Self>, event: Event) {
        self.take(&mut self.course(), VecDeque::from([event]));
    }

    fn abandon(self: &Arc<Self>) {
        let mut course = self.course();
        let failures =
            course.run.abandon(FailureKind::Deadline, "the deadline passed before the job was done");
        self.take(&mut course, failures.into());
    }

    fn take(self: &Arc<Self>, course: &mut Course, mut events: VecDeque<Event>) {
        while let (Some(event), Some(sender)) = (events.pop_front(), &course.events) {
            let jobs = course.run.accept(&event);
            let at_ms = self.started.elapsed().as_secs_f64() * 1000.0;
            // Nobody listens to a cancelled run any more.
            let _ = sender.send(Stamped { at_ms, event });
            events.extend(jobs.into_iter().flat_map(|job| self.hand_out(job)));
        }
        if course.run.is_over() {
            course.events = None;
        }
    }

    /// Gives a job to its node; answers with its failures where the node takes none.
    fn hand_out(self: &Arc<Self>, job: Job) -> Vec<Event> {
        let node = self.host.nodes.iter().find(|node| node.name == job.node);
        node.expect("a run's graph is made of the host's nodes").hand_out(job, self)
    }

    /// Why the run's jobs shall end before their time, if they shall.
    pub(super) fn stop_reason(&self) -> Option<FailureKind> {
        match () {
            () if self.cancelled.load(Ordering::Relaxed) => Some(FailureKind::Stopped),
            () if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) => {
                Some(FailureKind::Deadline)
            }
            () => None,
        }
    }
}
