//! The only graph runner: it hands out jobs and takes back events, and has no threads, workers or clock.
//!
//! A host starts each [`Job`] as soon as it gets it, wherever the node's model lives, and feeds every event of
//! every job to [`Run::accept`], which answers with the jobs that became ready. A text is scored the moment it is
//! whole; nothing waits for a slower generator. A failed text takes only what depends on it with it.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    error::Result,
    graph::spec::{Graph, Input, Task},
    protocol::{Event, FailureKind, Job, Parameters, Request, TextId, Work},
};

/// One run of a graph on one request.
#[derive(Debug)]
pub struct Run {
    graph: Arc<Graph>,
    parameters: Parameters,
    /// What was handed out and has not ended: texts being written and texts being scored.
    outstanding: BTreeSet<Outstanding>,
    /// How many texts each node writes.
    texts: Vec<usize>,
    stopped: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outstanding {
    Text(TextId),
    Score { node: String, source: Option<TextId> },
}

impl Run {
    /// Begins a run; the jobs are those that need the sentence only.
    ///
    /// # Errors
    /// [`crate::Error::Parameter`] if a parameter of the request is out of range.
    pub fn start(graph: Arc<Graph>, request: &Request) -> Result<(Run, Vec<Job>)> {
        request.parameters.settings()?;
        let texts = graph.text_counts(&request.parameters);
        let parameters = request.parameters.clone();
        let mut run = Run { graph, parameters, outstanding: BTreeSet::new(), texts, stopped: false };
        let jobs = run.jobs_for(Input::Sentence, 0, &request.sentence);
        Ok((run, jobs))
    }

    /// Takes an event of a job; answers with the jobs that became ready.
    pub fn accept(&mut self, event: &Event) -> Vec<Job> {
        match event {
            Event::Done { node, sequence, prompt, completion, .. } => {
                self.outstanding
                    .remove(&Outstanding::Text(TextId { node: node.clone(), sequence: *sequence }));
                match self.graph.nodes.iter().position(|other| other.name == *node) {
                    Some(index) if !self.stopped => {
                        self.jobs_for(Input::Node(index), *sequence, &format!("{prompt}{completion}"))
                    }
                    _ => Vec::new(),
                }
            }
            Event::Score { node, source, .. } => {
                self.outstanding.remove(&Outstanding::Score { node: node.clone(), source: source.clone() });
                Vec::new()
            }
            Event::Failed { node, text, .. } => {
                self.outstanding.retain(|item| match item {
                    Outstanding::Text(id) => id.node != *node || text.as_ref().is_some_and(|text| text != id),
                    Outstanding::Score { node: scorer, source } => {
                        scorer != node || (text.is_some() && text != source)
                    }
                });
                Vec::new()
            }
            Event::Started { .. } | Event::Progress { .. } | Event::Token { .. } => Vec::new(),
        }
    }

    /// Whether every job has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.outstanding.is_empty()
    }

    /// From now on finished texts start nothing new; jobs already handed out are the host's to stop.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// Ends every job that has not ended, as a host does past the deadline when a node does not answer any more.
    pub fn abandon(&mut self, kind: FailureKind, error: &str) -> Vec<Event> {
        self.stopped = true;
        let failed = |node: String, text| Event::Failed { node, text, kind, error: error.into() };
        std::mem::take(&mut self.outstanding)
            .into_iter()
            .map(|item| match item {
                Outstanding::Text(id) => failed(id.node.clone(), Some(id)),
                Outstanding::Score { node, source } => failed(node, source),
            })
            .collect()
    }

    /// The jobs that a whole text makes possible: one for each node that takes it as an input.
    fn jobs_for(&mut self, source: Input, sequence: usize, text: &str) -> Vec<Job> {
        let graph = Arc::clone(&self.graph);
        let source_id = match source {
            Input::Sentence => None,
            Input::Node(index) => Some(TextId { node: graph.nodes[index].name.clone(), sequence }),
        };
        let mut jobs = Vec::new();
        for (index, node) in graph.nodes.iter().enumerate() {
            let Some(at) = node.inputs.iter().position(|input| *input == source) else { continue };
            let work = match node.task {
                Task::Generate => {
                    let count = graph.sequences(index, &self.parameters);
                    let texts = |input: &Input| match input {
                        Input::Sentence => 1,
                        Input::Node(source) => self.texts[*source],
                    };
                    let before: usize = node.inputs[..at].iter().map(texts).sum();
                    let first_sequence = (before + sequence) * count;
                    for sequence in first_sequence..first_sequence + count {
                        self.outstanding
                            .insert(Outstanding::Text(TextId { node: node.name.clone(), sequence }));
                    }
                    let mut parameters = self.parameters.or(&node.parameters);
                    parameters.num_return_sequences = Some(count);
                    Work::Generate { prompt: text.into(), parameters, first_sequence }
                }
                Task::Classify => {
                    let (node, source) = (node.name.clone(), source_id.clone());
                    self.outstanding.insert(Outstanding::Score { node, source: source.clone() });
                    Work::Classify { text: text.into(), source }
                }
            };
            jobs.push(Job { node: node.name.clone(), work });
        }
        jobs
    }
}

#[cfg(test)]
#[cfg(feature = "toml")]
mod tests {
    use super::*;
    use crate::protocol::FinishReason;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn done(node: &str, sequence: usize) -> Event {
        Event::Done {
            node: node.into(),
            sequence,
            prompt: "p".into(),
            completion: format!(" {node}{sequence}"),
            new_tokens: 1,
            finish_reason: FinishReason::Length,
        }
    }

    fn failed(node: &str, text: Option<TextId>) -> Event {
        Event::Failed { node: node.into(), text, kind: FailureKind::Internal, error: "broke".into() }
    }

    fn text(node: &str, sequence: usize) -> TextId {
        TextId { node: node.into(), sequence }
    }

    fn start(graph: Graph, sequences: usize) -> (Run, Vec<Job>) {
        let parameters = Parameters { num_return_sequences: Some(sequences), ..Parameters::default() };
        Run::start(Arc::new(graph), &Request { sentence: "p".into(), parameters }).unwrap()
    }

    fn names(jobs: &[Job]) -> Vec<&str> {
        jobs.iter().map(|job| job.node.as_str()).collect()
    }

    #[test]
    fn both_generators_start_at_once_and_each_text_is_scored_as_it_ends() {
        let (mut run, jobs) = start(Graph::default(), 1);
        assert_eq!(names(&jobs), ["gpt2", "distilgpt2"]);
        let jobs = run.accept(&done("distilgpt2", 0));
        let work = Work::Classify { text: "p distilgpt20".into(), source: Some(text("distilgpt2", 0)) };
        assert_eq!(jobs, [Job { node: "bert".into(), work }]);
        assert!(!run.is_over());
    }

    #[test]
    fn one_failed_generator_leaves_the_other_row_whole() {
        let (mut run, _) = start(Graph::default(), 2);
        assert!(run.accept(&failed("gpt2", None)).is_empty());
        for sequence in 0..2 {
            assert_eq!(names(&run.accept(&done("distilgpt2", sequence))), ["bert"]);
        }
        run.accept(&failed("bert", Some(text("distilgpt2", 0))));
        assert!(!run.is_over());
        run.accept(&failed("bert", Some(text("distilgpt2", 1))));
        assert!(run.is_over());
    }

    #[test]
    fn chained_generators_number_their_texts_without_gaps() {
        let toml = "
            nodes = [
                { name = 'a', task = 'generate', model = 'm', inputs = ['sentence'] },
                { name = 'b', task = 'generate', model = 'm', inputs = ['a', 'sentence'] },
            ]";
        let (mut run, jobs) = start(Graph::parse(toml).unwrap(), 2);
        let first = |jobs: &[Job]| match &jobs.last().unwrap().work {
            Work::Generate { first_sequence, .. } => *first_sequence,
            Work::Classify { .. } => panic!("no classifier here"),
        };
        assert_eq!(first(&jobs), 4);
        assert_eq!(first(&run.accept(&done("a", 0))), 0);
        assert_eq!(first(&run.accept(&done("a", 1))), 2);
    }

    #[test]
    fn a_stopped_run_starts_nothing_new() {
        let (mut run, _) = start(Graph::default(), 1);
        run.stop();
        assert!(run.accept(&done("gpt2", 0)).is_empty());
        assert!(!run.is_over());
        let rest = run.abandon(FailureKind::Deadline, "too late");
        assert_eq!(rest.len(), 1);
        assert!(run.is_over());
    }
}
