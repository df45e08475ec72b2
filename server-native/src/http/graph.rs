//! The graph that is served, as data: what a page needs to know before it asks.

use inkling_engine::{
    graph::spec::{Input, SENTENCE, Task},
    protocol::{Parameters, Settings},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::openapi;
use crate::host::{About, Host, NodeState};

/// A graph and the models that it runs on.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct GraphInfo {
    /// Its name; it is also called `default`.
    name: String,
    /// Its nodes, in the order of the answer's rows.
    nodes: Vec<NodeInfo>,
}

/// One node of a graph.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NodeInfo {
    /// Its name.
    name: String,
    /// `generate` or `classify`.
    #[schema(value_type = String)]
    task: Task,
    /// Where its texts come from: `sentence`, or names of generators.
    inputs: Vec<String>,
    /// `loading`, `ready` or `failed`.
    state: &'static str,
    /// Its model; null until it is loaded.
    model: Option<ModelInfo>,
    /// What holds where a request says nothing; null for classifiers, which take no parameters.
    #[schema(value_type = Option<openapi::Ask>)]
    parameters: Option<Parameters>,
}

/// A loaded model.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModelInfo {
    /// What it is called where it came from.
    name: String,
    /// Hash of its config and weights, in hexadecimal.
    sha256: Option<String>,
    /// Bytes of its config and weights as they lie in their files.
    size_bytes: Option<u64>,
}

impl GraphInfo {
    /// What `host` serves now.
    pub(super) fn of(host: &Host) -> GraphInfo {
        let graph = host.graph();
        let input = |input: &Input| match input {
            Input::Sentence => SENTENCE.to_owned(),
            Input::Node(source) => graph.nodes[*source].name.clone(),
        };
        let nodes =
            graph.nodes.iter().zip(host.states()).zip(host.models()).map(|((node, (_, state)), model)| {
                let defaults = model.as_ref().map(|model| model.defaults.clone()).unwrap_or_default();
                let settings = node.parameters.or(&defaults).settings().ok();
                NodeInfo {
                    name: node.name.clone(),
                    task: node.task,
                    inputs: node.inputs.iter().map(input).collect(),
                    state: match state {
                        NodeState::Loading { .. } => "loading",
                        NodeState::Ready => "ready",
                        NodeState::Failed(_) => "failed",
                    },
                    model: model.map(|About { name, sha256, size_bytes, .. }| ModelInfo {
                        name,
                        sha256,
                        size_bytes,
                    }),
                    parameters: settings.filter(|_| node.task == Task::Generate).map(parameters),
                }
            });
        GraphInfo { name: graph.name.clone(), nodes: nodes.collect() }
    }
}

/// Settings as a request would spell them. Without seed: where none is given, each run draws one.
fn parameters(settings: Settings) -> Parameters {
    Parameters {
        max_length: settings.max_length,
        max_new_tokens: settings.max_new_tokens,
        do_sample: Some(settings.do_sample),
        temperature: Some(settings.temperature),
        top_k: Some(settings.top_k),
        top_p: Some(settings.top_p),
        min_p: Some(settings.min_p),
        repetition_penalty: Some(settings.repetition_penalty),
        no_repeat_ngram_size: Some(settings.no_repeat_ngram_size),
        num_return_sequences: Some(settings.num_return_sequences),
        seed: None,
        stop: Some(settings.stop).filter(|stop| !stop.is_empty()),
        alternatives: None,
    }
}
