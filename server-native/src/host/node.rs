//! A node: a thread that loads its model and does the jobs of its queue.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use inkling_engine::{
    graph::{
        NodeModel,
        node::{Jobs, LoadedTask},
    },
    kernels::Pool,
    protocol::{Event, FailureKind, Job, Parameters, TextId},
};
use tokio::sync::watch;

use super::threads::Threads;
use super::{NodeState, run::RunState};
use crate::models::Progress;

/// A loaded model that does jobs: [`NodeModel`], or a stand-in for it.
pub trait Worker {
    /// Does jobs until none waits, as [`NodeModel::work`] does.
    fn work(&self, jobs: &dyn Jobs, pool: &dyn Pool);

    /// Which model it is; nothing for a stand-in.
    fn about(&self) -> Option<About> {
        None
    }
}

/// A loaded model, as a graph's description tells of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct About {
    /// What it is called where it came from.
    pub name: String,
    /// Hash of its config and weights, in hexadecimal.
    pub sha256: Option<String>,
    /// Bytes of its config and weights as they lie in their files.
    pub size_bytes: Option<u64>,
    /// Its own decoding parameters, which lie under the node's.
    pub defaults: Parameters,
}

impl Worker for NodeModel {
    fn work(&self, jobs: &dyn Jobs, pool: &dyn Pool) {
        NodeModel::work(self, jobs, pool);
    }

    fn about(&self) -> Option<About> {
        let defaults = match &self.task {
            LoadedTask::Generate(generator) => generator.defaults().clone(),
            LoadedTask::Classify(_) => Parameters::default(),
        };
        Some(About { name: self.name.clone(), sha256: self.sha256.clone(), size_bytes: None, defaults })
    }
}

/// Loads a node's model; called on the node's thread, and again after a panic.
pub type Load = Box<dyn FnMut(&mut Progress<'_>) -> Result<Box<dyn Worker>> + Send>;

/// A node as its host sees it.
pub(super) struct Node {
    pub(super) name: String,
    queue: mpsc::Sender<Assignment>,
    state: watch::Receiver<NodeState>,
    model: Arc<Mutex<Option<About>>>,
    counts: Counts,
}

/// What a node does, in numbers; a copy counts the same.
#[derive(Clone, Debug, Default)]
struct Counts {
    /// New tokens since the host began.
    tokens: Arc<AtomicU64>,
    /// Jobs in its queue.
    waiting: Arc<AtomicU64>,
    /// Jobs that it has begun.
    running: Arc<AtomicU64>,
}

/// One of a number of things, as long as it lives.
struct Counted(Arc<AtomicU64>);

impl Counted {
    fn among(count: &Arc<AtomicU64>) -> Counted {
        count.fetch_add(1, Ordering::Relaxed);
        Counted(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Node {
    /// Starts the thread of the node that is at this place among those that share `threads`; it begins with loading its
    /// model.
    pub(super) fn start(
        at: usize,
        name: String,
        load: Load,
        threads: Arc<Threads>,
        max_batch_size: usize,
    ) -> Result<Node> {
        let (queue, jobs) = mpsc::channel();
        let (state, watched) = watch::channel(loading());
        let counts = Counts::default();
        let model = Arc::new(Mutex::new(None));
        let mut thread = NodeThread {
            name: name.clone(),
            load,
            jobs,
            state,
            model: Arc::clone(&model),
            threads,
            at,
            counts: counts.clone(),
            max_batch_size,
        };
        thread::Builder::new()
            .name(name.clone())
            .spawn(move || thread.work())
            .with_context(|| format!("cannot start a thread for node `{name}`"))?;
        Ok(Node { name, queue, state: watched, model, counts })
    }

    /// How it is now.
    pub(super) fn state(&self) -> watch::Ref<'_, NodeState> {
        self.state.borrow()
    }

    /// Tells of changes of its state.
    pub(super) fn watch(&self) -> watch::Receiver<NodeState> {
        self.state.clone()
    }

    /// Its model; nothing before it was loaded.
    pub(super) fn about(&self) -> Option<About> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// New tokens since the host began.
    pub(super) fn tokens(&self) -> u64 {
        self.counts.tokens.load(Ordering::Relaxed)
    }

    /// Jobs in its queue, and jobs that it has begun.
    pub(super) fn jobs(&self) -> (u64, u64) {
        let Counts { waiting, running, .. } = &self.counts;
        (waiting.load(Ordering::Relaxed), running.load(Ordering::Relaxed))
    }

    /// Puts a job into the queue; answers with its failures where the node takes none.
    pub(super) fn hand_out(&self, job: Job, run: &Arc<RunState>) -> Vec<Event> {
        let reason = match &*self.state() {
            NodeState::Ready => None,
            NodeState::Loading { .. } => Some("its model is loading".to_string()),
            NodeState::Failed(reason) => Some(reason.clone()),
        };
        match reason {
            Some(reason) => OpenTexts::of(&job).fail(&job, FailureKind::Unavailable, &reason),
            None => {
                let counted = Counted::among(&self.counts.waiting);
                match self.queue.send(Assignment { job, run: Arc::clone(run), counted }) {
                    Ok(()) => Vec::new(),
                    Err(mpsc::SendError(Assignment { job, .. })) => {
                        OpenTexts::of(&job).fail(&job, FailureKind::Unavailable, "its thread is gone")
                    }
                }
            }
        }
    }
}

/// A job in a node's queue, and the run that it belongs to.
struct Assignment {
    job: Job,
    run: Arc<RunState>,
    /// Among those that wait, or those that run.
    counted: Counted,
}

/// The texts that a job has yet to write, or to score.
struct OpenTexts(BTreeSet<Option<TextId>>);

impl OpenTexts {
    fn of(job: &Job) -> OpenTexts {
        OpenTexts(job.texts().into_iter().collect())
    }

    fn see(&mut self, event: &Event) {
        match event {
            Event::Done { node, sequence, .. } => {
                self.0.remove(&Some(TextId { node: node.clone(), sequence: *sequence }));
            }
            Event::Score { source, .. } => {
                self.0.remove(source);
            }
            Event::Failed { text, .. } => {
                self.0.remove(text);
            }
            Event::Started { .. } | Event::Progress { .. } | Event::Token { .. } => {}
        }
    }

    /// Failures of all of them.
    fn fail(self, job: &Job, kind: FailureKind, error: &str) -> Vec<Event> {
        let failed = |text| Event::Failed { node: job.node.clone(), text, kind, error: error.into() };
        self.0.into_iter().map(failed).collect()
    }
}

struct NodeThread {
    name: String,
    load: Load,
    jobs: mpsc::Receiver<Assignment>,
    state: watch::Sender<NodeState>,
    model: Arc<Mutex<Option<About>>>,
    threads: Arc<Threads>,
    at: usize,
    counts: Counts,
    max_batch_size: usize,
}

impl NodeThread {
    /// Loads, works, and begins again after a panic, until the host is gone.
    fn work(&mut self) {
        let mut pause = Duration::from_secs(1);
        let mut loaded_before = false;
        loop {
            match self.load_model() {
                Ok(worker) => {
                    loaded_before = true;
                    pause = Duration::from_secs(1);
                    *self.model.lock().unwrap_or_else(PoisonError::into_inner) = worker.about();
                    self.state.send_replace(NodeState::Ready);
                    match self.take_jobs(&*worker) {
                        Ended::HostGone => return,
                        Ended::Panicked => {}
                    }
                }
                Err(reason) => {
                    self.state.send_replace(NodeState::Failed(reason));
                    if !loaded_before || !self.refuse_jobs_for(pause) {
                        return;
                    }
                    pause = (pause * 2).min(Duration::from_secs(30));
                }
            }
        }
    }

    fn load_model(&mut self) -> Result<Box<dyn Worker>, String> {
        let state = &self.state;
        let mut progress = |file: &str, bytes, total_bytes| {
            state.send_replace(NodeState::Loading { file: file.into(), bytes, total_bytes });
        };
        match catch_unwind(AssertUnwindSafe(|| (self.load)(&mut progress))) {
            Ok(loaded) => loaded.map_err(|error| format!("{error:#}")),
            Err(panic) => Err(format!("node `{}`: loading broke: {}", self.name, message(&*panic))),
        }
    }

    fn take_jobs(&self, worker: &dyn Worker) -> Ended {
        while let Ok(first) = self.jobs.recv() {
            let pool = self.threads.enter(self.at);
            let jobs = OpenJobs {
                node: self,
                first: Cell::new(Some(first)),
                begun: Cell::new(0),
                open: RefCell::default(),
            };
            let done = catch_unwind(AssertUnwindSafe(|| worker.work(&jobs, &pool)));
            drop(pool);
            if let Err(panic) = done {
                // First the state, so that what the failures set free finds the node as it is.
                self.state.send_replace(loading());
                jobs.fail(&format!("the node broke: {}", message(&*panic)));
                while let Ok(waiting) = self.jobs.try_recv() {
                    refuse(&waiting);
                }
                return Ended::Panicked;
            }
        }
        Ended::HostGone
    }

    /// Answers jobs that came in spite of the node's state; false if the host is gone.
    fn refuse_jobs_for(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        loop {
            match self.jobs.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(waiting) => refuse(&waiting),
                Err(mpsc::RecvTimeoutError::Timeout) => return true,
                Err(mpsc::RecvTimeoutError::Disconnected) => return false,
            }
        }
    }
}

/// The jobs that a node has begun, and its queue of others.
struct OpenJobs<'a> {
    node: &'a NodeThread,
    /// What the thread woke up for.
    first: Cell<Option<Assignment>>,
    /// How many have begun; the number of the last is what the worker calls it.
    begun: Cell<u64>,
    /// Those that have not ended.
    open: RefCell<BTreeMap<u64, (Assignment, OpenTexts)>>,
}

impl OpenJobs<'_> {
    /// Ends what has not ended with a failure of the node.
    fn fail(&self, reason: &str) {
        self.first.take().iter().for_each(refuse);
        for (Assignment { job, run, .. }, texts) in self.open.take().into_values() {
            let failures = texts.fail(&job, FailureKind::Internal, reason);
            failures.into_iter().for_each(|event| run.accept(event));
        }
    }
}

impl Jobs for OpenJobs<'_> {
    fn next(&self, texts: usize) -> Option<(u64, Job)> {
        let waiting = || self.node.jobs.try_recv().ok();
        let room = texts < self.node.max_batch_size;
        let mut assignment = self.first.take().or_else(|| room.then(waiting).flatten())?;
        assignment.counted = Counted::among(&self.node.counts.running);
        let name = self.begun.get() + 1;
        self.begun.set(name);
        let job = assignment.job.clone();
        let texts = OpenTexts::of(&job);
        self.open.borrow_mut().insert(name, (assignment, texts));
        Some((name, job))
    }

    fn stop(&self, job: u64) -> Option<FailureKind> {
        self.open.borrow().get(&job)?.0.run.stop_reason()
    }

    fn emit(&self, job: u64, event: Event) {
        if matches!(event, Event::Token { .. }) {
            self.node.counts.tokens.fetch_add(1, Ordering::Relaxed);
        }
        let mut open = self.open.borrow_mut();
        let Some((assignment, texts)) = open.get_mut(&job) else { return };
        texts.see(&event);
        let run = Arc::clone(&assignment.run);
        if texts.0.is_empty() {
            open.remove(&job);
        }
        drop(open);
        run.accept(event);
    }
}

enum Ended {
    HostGone,
    Panicked,
}

fn refuse(Assignment { job, run, .. }: &Assignment) {
    let failures = OpenTexts::of(job).fail(job, FailureKind::Unavailable, "its model is being loaded again");
    failures.into_iter().for_each(|event| run.accept(event));
}

fn loading() -> NodeState {
    NodeState::Loading { file: String::new(), bytes: 0, total_bytes: None }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no reason given".into())
}
