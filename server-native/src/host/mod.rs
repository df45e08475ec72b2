//! The native host of a graph: a thread a node, a queue before each, and a clock.
//!
//! A node's thread loads its model, then does the jobs of its queue. Those that wait join those that run, whoever asked for
//! them: a run of the model is for all of them, and a text comes out as it would alone. What a job says goes to its run,
//! where the engine's state machine answers with the jobs that became ready; they go to their nodes' queues at once, so
//! nothing waits for whoever reads the events. A reader that goes away stops its run before the next token.
//!
//! A panic fails the jobs that the node has begun, and no other node's: its thread says so at once, gives the model up,
//! loads it again, and until then the host is not ready.

mod node;
mod run;
mod threads;

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use inkling_engine::{
    graph::{
        Graph,
        spec::{self, Input, Task},
    },
    protocol::Request,
};
use tokio::sync::Semaphore;

use node::Node;
pub use node::{About, Load, Worker};
pub use run::Running;
use threads::Threads;

/// A good [`Limits::max_batch_size`]: more texts at once hardly raise the rate, and each is written more slowly.
pub const MAX_BATCH_SIZE: u32 = 8;

/// What a host allows.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest time of a run; `None` for no limit.
    pub timeout: Option<Duration>,
    /// Most runs at the same time.
    pub max_concurrency: usize,
    /// Texts that a node writes at the same time, beyond which it begins no other job: a run of the model is for all of
    /// them.
    pub max_batch_size: usize,
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

impl Host {
    /// Starts a thread for each node of `graph`; `load` gives the loader of each.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(graph: Graph, limits: Limits, mut load: impl FnMut(&spec::Node) -> Load) -> Result<Host> {
        let threads = Threads::new(limits.threads, graph.nodes.len());
        let start = |(at, node): (usize, &spec::Node)| {
            Node::start(at, node.name.clone(), load(node), Arc::clone(&threads), limits.max_batch_size)
        };
        let nodes = graph.nodes.iter().enumerate().map(start).collect::<Result<_>>()?;
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
        self.inner.nodes.iter().map(|node| (node.name.as_str(), node.state().clone()))
    }

    /// The model of each node, in the order of the graph; nothing before it was loaded.
    pub fn models(&self) -> impl Iterator<Item = Option<About>> {
        self.inner.nodes.iter().map(Node::about)
    }

    /// New tokens of each node since the host began.
    pub fn tokens(&self) -> impl Iterator<Item = (&str, u64)> {
        self.inner.nodes.iter().map(|node| (node.name.as_str(), node.tokens()))
    }

    /// Jobs in each node's queue, and jobs that it has begun.
    pub fn jobs(&self) -> impl Iterator<Item = (&str, (u64, u64))> {
        self.inner.nodes.iter().map(|node| (node.name.as_str(), node.jobs()))
    }

    /// Runs on their way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.inner.limits.max_concurrency - self.inner.slots.available_permits()
    }

    /// Whether every node takes jobs.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.inner.nodes.iter().all(|node| *node.state() == NodeState::Ready)
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
        let states: Vec<_> = self.inner.nodes.iter().map(Node::watch).collect();
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
        Running::start(&self.inner, graph, &request, slot)
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("graph", &self.inner.graph.name).finish_non_exhaustive()
    }
}

/// A seed that JavaScript can hold, too: 53 bits, from the system's randomness by way of the standard library's hash keys.
#[must_use]
pub fn random_seed() -> u64 {
    RandomState::new().hash_one(()) >> 11
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn random_seeds_differ_and_have_53_bits() {
        let seeds: BTreeSet<u64> = (0..100).map(|_| random_seed()).collect();
        assert_eq!(seeds.len(), 100);
        assert!(seeds.iter().all(|seed| *seed < 1 << 53));
    }
}
