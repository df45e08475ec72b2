//! A run, on the thread of the caller: a request in, jobs out, events back, and at the end the answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use inkling_engine::{
    graph::{
        Answer, Graph, Run,
        spec::{Input, Task},
    },
    protocol::{Event, FailureKind, Job, Request, TextId},
};
use serde::{Deserialize as _, Serialize};
use wasm_bindgen::prelude::*;

use crate::{
    error::{Failure, Kind, Result},
    host,
};

/// A graph that was read and checked.
#[wasm_bindgen]
#[derive(Clone, Debug)]
pub struct GraphSpec {
    graph: Arc<Graph>,
}

/// A node as JavaScript sees it.
#[derive(Serialize)]
struct NodeInfo<'a> {
    name: &'a str,
    task: Task,
    inputs: Vec<&'a str>,
    /// Name of its demo model, or its only name.
    model: &'a str,
    hub: Option<&'a str>,
}

#[wasm_bindgen]
impl GraphSpec {
    /// Reads a graph file; without one it is the built-in graph.
    ///
    /// # Errors
    /// A [`Failure`] that names the line.
    #[wasm_bindgen(constructor)]
    pub fn new(toml: Option<String>) -> Result<GraphSpec> {
        let graph = toml.as_deref().map_or_else(|| Ok(Graph::default()), Graph::parse)?;
        Ok(GraphSpec { graph: Arc::new(graph) })
    }

    /// The nodes, in the order of the file.
    #[must_use]
    pub fn nodes(&self) -> JsValue {
        let nodes = &self.graph.nodes;
        let input = |input: &Input| match input {
            Input::Sentence => inkling_engine::graph::spec::SENTENCE,
            Input::Node(index) => nodes[*index].name.as_str(),
        };
        let infos: Vec<NodeInfo<'_>> = nodes
            .iter()
            .map(|node| NodeInfo {
                name: &node.name,
                task: node.task,
                inputs: node.inputs.iter().map(input).collect(),
                model: node.model.at("demo").or(node.model.all().next()).unwrap_or_default(),
                hub: node.model.at("hub"),
            })
            .collect();
        host::to_js(&infos)
    }
}

/// One run of a graph. The caller carries its jobs to the nodes and their events back.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Course {
    run: Run,
    answer: Answer,
    /// Jobs that became ready and were not fetched yet.
    ready: Vec<u32>,
    /// Every job that was handed out, with the texts that have not ended.
    jobs: BTreeMap<u32, (Job, BTreeSet<Option<TextId>>)>,
    next_job: u32,
}

/// A job on its way to its node. The job itself travels as text, in which a seed of 64 bits keeps its value.
#[derive(Serialize)]
struct Assignment<'a> {
    id: u32,
    node: &'a str,
    job: String,
}

#[wasm_bindgen]
impl Course {
    /// Begins a run of `request`, an object as in the HTTP API. `seed` counts where the request gives none.
    ///
    /// # Errors
    /// A [`Failure`] that names the parameter that is out of range.
    #[wasm_bindgen(constructor)]
    pub fn new(spec: &GraphSpec, request: JsValue, seed: f64) -> Result<Course> {
        let mut request = read_request(request)?;
        request.parameters.seed.get_or_insert(seed as u64);
        let answer = Answer::new(&spec.graph, &request);
        let (run, jobs) = Run::start(Arc::clone(&spec.graph), &request)?;
        let mut course = Course { run, answer, ready: Vec::new(), jobs: BTreeMap::new(), next_job: 0 };
        course.add(jobs);
        Ok(course)
    }

    /// Takes the jobs that became ready: `[{id, node, job}]`.
    #[must_use]
    pub fn take_jobs(&mut self) -> JsValue {
        let assignments: Vec<Assignment<'_>> = std::mem::take(&mut self.ready)
            .into_iter()
            .map(|id| {
                let job = &self.jobs[&id].0;
                let text = serde_json::to_string(job).expect("jobs are plain data");
                Assignment { id, node: &job.node, job: text }
            })
            .collect();
        host::to_js(&assignments)
    }

    /// Takes an event of job `id`, seen `at_ms` after the run began.
    ///
    /// # Errors
    /// If it is no event.
    pub fn accept(&mut self, id: u32, event: JsValue, at_ms: f64) -> Result<()> {
        let event: Event = serde_wasm_bindgen::from_value(event)
            .map_err(|error| Failure::new(Kind::Internal, format!("A worker sent no event: {error}.")))?;
        self.take(id, &event, at_ms);
        Ok(())
    }

    /// Ends job `id` where its node cannot: the events, which the run knows already.
    ///
    /// `kind` is one of the protocol's kinds of failure.
    ///
    /// # Errors
    /// If there is no such kind.
    pub fn fail(&mut self, id: u32, kind: &str, error: &str, at_ms: f64) -> Result<JsValue> {
        let kind = failure_kind(kind)?;
        let Some((job, open)) = self.jobs.get(&id) else { return Ok(host::to_js(&[(); 0])) };
        let node = job.node.clone();
        let failed = |text: &Option<TextId>| Event::Failed {
            node: node.clone(),
            text: text.clone(),
            kind,
            error: error.into(),
        };
        let events: Vec<Event> = open.iter().map(failed).collect();
        for event in &events {
            self.take(id, event, at_ms);
        }
        Ok(host::to_js(&events))
    }

    /// From now on whole texts start nothing new.
    pub fn stop(&mut self) {
        self.run.stop();
        self.ready.clear();
    }

    /// Whether every job has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.run.is_over()
    }

    /// The answer as far as it came.
    #[must_use]
    pub fn answer(&self) -> JsValue {
        // Only a seed can be larger than what a JavaScript number holds exactly.
        let mut answer = self.answer.clone();
        let seed = std::mem::take(&mut answer.seed);
        let answer = host::to_js(&answer);
        let is_safe = seed <= js_sys::Number::MAX_SAFE_INTEGER as u64;
        let seed = if is_safe { JsValue::from(seed as f64) } else { JsValue::from(seed) };
        js_sys::Reflect::set(&answer, &"seed".into(), &seed).expect("the answer is a plain object");
        answer
    }

    fn take(&mut self, id: u32, event: &Event, at_ms: f64) {
        self.answer.push(at_ms, event);
        let ended = match event {
            Event::Done { node, sequence, .. } => {
                Some(Some(TextId { node: node.clone(), sequence: *sequence }))
            }
            Event::Score { source, .. } => Some(source.clone()),
            Event::Failed { text, .. } => Some(text.clone()),
            Event::Started { .. } | Event::Progress { .. } | Event::Token { .. } => None,
        };
        if let (Some(text), Some((_, open))) = (ended, self.jobs.get_mut(&id)) {
            open.remove(&text);
        }
        let jobs = self.run.accept(event);
        self.add(jobs);
    }

    fn add(&mut self, jobs: Vec<Job>) {
        for job in jobs {
            let open = job.texts().into_iter().collect();
            self.jobs.insert(self.next_job, (job, open));
            self.ready.push(self.next_job);
            self.next_job += 1;
        }
    }
}

/// Reads a kind of failure as the protocol spells it.
///
/// # Errors
/// If there is no such kind.
pub(crate) fn failure_kind(name: &str) -> Result<FailureKind> {
    let deserializer = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(name);
    FailureKind::deserialize(deserializer)
        .map_err(|error| Failure::new(Kind::Internal, format!("The kind of a failure is wrong: {error}.")))
}

fn read_request(request: JsValue) -> Result<Request> {
    if request.is_null() || request.is_undefined() {
        return Ok(Request::default());
    }
    let invalid = |error: &dyn std::fmt::Display| {
        Failure::new(Kind::Invalid, format!("The request is wrong: {error}."))
    };
    serde_wasm_bindgen::from_value(request).map_err(|error| invalid(&error))
}
