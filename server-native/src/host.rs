//! The native host of a graph: a thread a node, a queue before each, and a clock.
//!
//! A node's thread loads its model, then takes jobs from its queue, one at a time. What a job says goes to its run,
//! where the engine's state machine answers with the jobs that became ready; they go to their nodes' queues at once, so
//! nothing waits for whoever reads the events. A reader that goes away stops its run before the next token.
//!
//! A job that panics fails alone: its thread says so at once, gives the model up, loads it again, and until then the
//! host is not ready.

use std::{
    any::Any,
    collections::{BTreeSet, VecDeque},
    hash::{BuildHasher, RandomState},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use inkling_engine::{
    graph::{
        Answer, Graph, NodeModel, Run,
        node::LoadedTask,
        spec::{Input, Task},
    },
    kernels::Pool,
    protocol::{Event, FailureKind, Job, Parameters, Request, Stamped, TextId},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc as channel, watch};

use crate::{models::Progress, pool::SharedPool};

/// A loaded model that does jobs: [`NodeModel`], or a stand-in for it.
pub trait Worker {
    /// Does a job, as [`NodeModel::run`] does.
    fn run(
        &self,
        job: &Job,
        pool: &dyn Pool,
        stop: &dyn Fn() -> Option<FailureKind>,
        emit: &mut dyn FnMut(Event),
    );

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
    fn run(
        &self,
        job: &Job,
        pool: &dyn Pool,
        stop: &dyn Fn() -> Option<FailureKind>,
        emit: &mut dyn FnMut(Event),
    ) {
        NodeModel::run(self, job, pool, stop, emit);
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

/// What a host allows.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest time of a run; `None` for no limit.
    pub timeout: Option<Duration>,
    /// Most runs at the same time.
    pub max_concurrency: usize,
    /// Threads for the kernels of all nodes together.
    pub threads: usize,
}

/// How a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// Its model is loading.
    Loading {
        /// The file that is being read; empty before the first.
        file: String,
        /// Bytes of it so far.
        bytes: u64,
        /// Bytes in all, where known.
        total_bytes: Option<u64>,
    },
    /// It takes jobs.
    Ready,
    /// Its model could not be loaded, for this reason.
    Failed(String),
}

/// Why a run did not begin.
#[derive(Debug)]
pub enum Refused {
    /// As many runs as are allowed are on their way.
    Busy,
    /// The request is wrong.
    Invalid(inkling_engine::Error),
}

/// A graph whose models live here.
pub struct Host {
    inner: Arc<Inner>,
}

struct Inner {
    graph: Arc<Graph>,
    nodes: Vec<Node>,
    slots: Arc<Semaphore>,
    limits: Limits,
}

struct Node {
    name: String,
    queue: mpsc::Sender<Assignment>,
    state: watch::Receiver<NodeState>,
    model: Arc<Mutex<Option<About>>>,
    /// New tokens since the host began.
    tokens: Arc<AtomicU64>,
}

struct Assignment {
    job: Job,
    run: Arc<RunState>,
}

impl Host {
    /// Starts a thread for each node of `graph`; `load` gives the loader of each.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(
        graph: Graph,
        limits: Limits,
        mut load: impl FnMut(&inkling_engine::graph::spec::Node) -> Load,
    ) -> Result<Host> {
        let pool = SharedPool::new(limits.threads);
        let mut nodes = Vec::with_capacity(graph.nodes.len());
        for node in &graph.nodes {
            let (queue, jobs) = mpsc::channel();
            let (state, watched) = watch::channel(loading());
            let tokens = Arc::new(AtomicU64::new(0));
            let model = Arc::new(Mutex::new(None));
            let mut thread = NodeThread {
                name: node.name.clone(),
                load: load(node),
                jobs,
                state,
                model: Arc::clone(&model),
                pool: Arc::clone(&pool),
                tokens: Arc::clone(&tokens),
            };
            thread::Builder::new()
                .name(node.name.clone())
                .spawn(move || thread.work())
                .with_context(|| format!("cannot start a thread for node `{}`", node.name))?;
            nodes.push(Node { name: node.name.clone(), queue, state: watched, model, tokens });
        }
        let slots = Arc::new(Semaphore::new(limits.max_concurrency));
        Ok(Host { inner: Arc::new(Inner { graph: Arc::new(graph), nodes, slots, limits }) })
    }

    /// The graph.
    #[must_use]
    pub fn graph(&self) -> &Arc<Graph> {
        &self.inner.graph
    }

    /// What the host allows.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.inner.limits
    }

    /// A graph of one of the nodes alone, on the request's sentence.
    #[must_use]
    pub fn alone(&self, node: &str) -> Option<Arc<Graph>> {
        let mut node = self.inner.graph.node(node)?.clone();
        node.inputs = vec![Input::Sentence];
        Some(Arc::new(Graph { name: node.name.clone(), nodes: vec![node] }))
    }

    /// The names of the nodes with this task, in the order of the graph.
    pub fn nodes(&self, task: Task) -> impl Iterator<Item = &str> {
        self.inner.graph.nodes.iter().filter(move |node| node.task == task).map(|node| node.name.as_str())
    }

    /// How each node is, in the order of the graph.
    pub fn states(&self) -> impl Iterator<Item = (&str, NodeState)> {
        self.inner.nodes.iter().map(|node| (node.name.as_str(), node.state.borrow().clone()))
    }

    /// The model of each node, in the order of the graph; nothing before it was loaded.
    pub fn models(&self) -> impl Iterator<Item = Option<About>> {
        self.inner.nodes.iter().map(|node| node.model.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// New tokens of each node since the host began.
    pub fn tokens(&self) -> impl Iterator<Item = (&str, u64)> {
        self.inner.nodes.iter().map(|node| (node.name.as_str(), node.tokens.load(Ordering::Relaxed)))
    }

    /// Runs on their way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.inner.limits.max_concurrency - self.inner.slots.available_permits()
    }

    /// Whether every node takes jobs.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.inner.nodes.iter().all(|node| *node.state.borrow() == NodeState::Ready)
    }

    /// Waits until every node takes jobs.
    ///
    /// # Errors
    /// The first failure to load a model.
    pub async fn ready(&self) -> Result<()> {
        self.readiness().await
    }

    /// [`Host::ready`] for someone who gives the host away.
    pub fn readiness(&self) -> impl Future<Output = Result<()>> + use<> {
        let states: Vec<_> = self.inner.nodes.iter().map(|node| node.state.clone()).collect();
        async move {
            for mut state in states {
                let ended = |state: &NodeState| !matches!(state, NodeState::Loading { .. });
                let state = state.wait_for(ended).await.context("the node's thread is gone")?;
                if let NodeState::Failed(reason) = &*state {
                    anyhow::bail!("{reason}");
                }
            }
            Ok(())
        }
    }

    /// Runs the whole graph. A seed is drawn where the request gives none.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn run(&self, request: Request) -> Result<Running, Refused> {
        self.run_graph(Arc::clone(&self.inner.graph), request)
    }

    /// Runs a graph that is made of this host's nodes.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn run_graph(&self, graph: Arc<Graph>, mut request: Request) -> Result<Running, Refused> {
        request.parameters.settings().map_err(Refused::Invalid)?;
        let slot = Arc::clone(&self.inner.slots).try_acquire_owned().map_err(|_| Refused::Busy)?;
        request.parameters.seed.get_or_insert_with(random_seed);
        let started = Instant::now();
        let answer = Answer::new(&graph, &request);
        let (run, jobs) = Run::start(graph, &request).map_err(Refused::Invalid)?;
        let (sender, events) = channel::unbounded_channel();
        let state = Arc::new(RunState {
            host: Arc::clone(&self.inner),
            started,
            deadline: self.inner.limits.timeout.map(|timeout| started + timeout),
            cancelled: AtomicBool::new(false),
            course: Mutex::new(Course { run, events: Some(sender) }),
        });
        state.begin(jobs);
        Ok(Running { state, events, answer, _slot: slot })
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("graph", &self.inner.graph.name).finish_non_exhaustive()
    }
}

/// A run on its way. Dropping it stops its jobs before their next token.
pub struct Running {
    state: Arc<RunState>,
    events: channel::UnboundedReceiver<Stamped>,
    answer: Answer,
    _slot: OwnedSemaphorePermit,
}

impl Running {
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
struct RunState {
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
    fn accept(self: &Arc<Self>, event: Event) {
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

    /// Puts a job into its node's queue; answers with its failures where the node takes none.
    fn hand_out(self: &Arc<Self>, job: Job) -> Vec<Event> {
        let node = self.host.nodes.iter().find(|node| node.name == job.node);
        let node = node.expect("a run's graph is made of the host's nodes");
        let reason = match &*node.state.borrow() {
            NodeState::Ready => None,
            NodeState::Loading { .. } => Some("its model is loading".to_string()),
            NodeState::Failed(reason) => Some(reason.clone()),
        };
        match reason {
            Some(reason) => OpenTexts::of(&job).fail(&job, FailureKind::Unavailable, &reason),
            None => {
                let assignment = Assignment { job, run: Arc::clone(self) };
                match node.queue.send(assignment) {
                    Ok(()) => Vec::new(),
                    Err(mpsc::SendError(Assignment { job, .. })) => {
                        OpenTexts::of(&job).fail(&job, FailureKind::Unavailable, "its thread is gone")
                    }
                }
            }
        }
    }

    fn stop_reason(&self) -> Option<FailureKind> {
        match () {
            () if self.cancelled.load(Ordering::Relaxed) => Some(FailureKind::Stopped),
            () if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) => {
                Some(FailureKind::Deadline)
            }
            () => None,
        }
    }
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
    pool: Arc<SharedPool>,
    tokens: Arc<AtomicU64>,
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
        while let Ok(Assignment { job, run }) = self.jobs.recv() {
            let busy = self.pool.enter();
            let mut open = OpenTexts::of(&job);
            let done = catch_unwind(AssertUnwindSafe(|| {
                worker.run(&job, &*self.pool, &|| run.stop_reason(), &mut |event| {
                    if matches!(event, Event::Token { .. }) {
                        self.tokens.fetch_add(1, Ordering::Relaxed);
                    }
                    open.see(&event);
                    run.accept(event);
                });
            }));
            drop(busy);
            if let Err(panic) = done {
                // First the state, so that what the failures set free finds the node as it is.
                self.state.send_replace(loading());
                let reason = format!("the node broke: {}", message(&*panic));
                open.fail(&job, FailureKind::Internal, &reason)
                    .into_iter()
                    .for_each(|event| run.accept(event));
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

enum Ended {
    HostGone,
    Panicked,
}

fn refuse(Assignment { job, run }: &Assignment) {
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

/// A seed that JavaScript can hold, too: 53 bits, from the system's randomness by way of the standard library's hash keys.
#[must_use]
pub fn random_seed() -> u64 {
    RandomState::new().hash_one(()) >> 11
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_seeds_differ_and_have_53_bits() {
        let seeds: BTreeSet<u64> = (0..100).map(|_| random_seed()).collect();
        assert_eq!(seeds.len(), 100);
        assert!(seeds.iter().all(|seed| *seed < 1 << 53));
    }
}
