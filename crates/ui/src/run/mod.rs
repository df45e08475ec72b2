//! The state of a run: a pure fold over the protocol's events, the same for events of this page's engine and of a server.
//!
//! - [`text`]: one continuation, its tokens and what the critics say of it;
//! - [`node`]: what one node of the graph is doing;
//! - [`rank`]: which text comes first;
//! - [`layout`]: where the nodes of a graph stand in the ribbon.

pub(crate) mod layout;
pub(crate) mod node;
pub(crate) mod rank;
pub(crate) mod text;

use std::sync::Arc;

use inkling_engine::{
    graph::{
        Answer, Graph,
        spec::{Input, Task},
    },
    protocol::{Event, FailureKind, Request, Stamped, TextId},
};

use crate::models::Dtype;

pub(crate) use node::{Activity, NodeState};
pub(crate) use text::{Mark, TextState};

/// Texts of one writer that the page would draw, whatever a server sends.
const MOST_TEXTS: usize = 256;

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing was asked yet.
    Idle,
    /// Events are coming.
    Running,
    /// Stop was pressed: the page shows it at once, the engine still has to say so.
    Stopping,
    /// The last event came.
    Ended,
}

/// A run as the page shows it.
#[derive(Clone, Debug)]
pub(crate) struct RunState {
    /// What ran.
    pub(crate) graph: Arc<Graph>,
    /// What was asked.
    pub(crate) request: Request,
    /// How weights are kept for it; `None` where a server runs it.
    pub(crate) dtype: Option<Dtype>,
    /// Where it stands.
    pub(crate) phase: Phase,
    /// Whether the visitor stopped it.
    pub(crate) stopped: bool,
    /// The whole answer so far, as the engine folds it.
    pub(crate) answer: Answer,
    /// Every text of the run, in the order of the graph.
    pub(crate) texts: Vec<TextState>,
    /// One a node, in the order of the graph.
    pub(crate) nodes: Vec<NodeState>,
    /// Why the whole run came to nothing, for people.
    pub(crate) error: Option<String>,
}

impl RunState {
    /// Nothing asked yet: the graph at rest.
    pub(crate) fn idle(graph: Arc<Graph>) -> RunState {
        let mut run = RunState::begin(graph, Request::default());
        run.phase = Phase::Idle;
        run.texts.clear();
        run
    }

    /// A run that begins. Every text that it is going to write is there from the start, empty.
    pub(crate) fn begin(graph: Arc<Graph>, request: Request) -> RunState {
        let counts = graph.text_counts(&request.parameters);
        let mut texts = Vec::new();
        for (node, count) in graph.nodes.iter().zip(&counts) {
            if node.task == Task::Generate {
                // What a writer continues is known before it says so only where it is the sentence.
                let prompt = (node.inputs == [Input::Sentence]).then(|| request.sentence.clone());
                let id = |sequence| TextId { node: node.name.clone(), sequence };
                texts.extend((0..*count).map(|sequence| TextState::new(id(sequence), prompt.clone())));
            }
        }
        let nodes =
            graph.nodes.iter().zip(&counts).map(|(node, count)| NodeState::new(node.task, *count)).collect();
        let answer = Answer::new(&graph, &request);
        RunState {
            graph,
            request,
            dtype: None,
            phase: Phase::Running,
            stopped: false,
            answer,
            texts,
            nodes,
            error: None,
        }
    }

    /// Takes the next event. After Stop only what ends a text is taken, so that nothing moves any more.
    pub(crate) fn accept(&mut self, stamped: &Stamped) {
        let Stamped { at_ms, event } = stamped;
        if self.phase == Phase::Stopping && matches!(event, Event::Token { .. } | Event::Progress { .. }) {
            return;
        }
        self.answer.push(*at_ms, event);
        let Some(index) = self.graph.nodes.iter().position(|node| node.name == event.node()) else { return };
        self.nodes[index].accept(*at_ms, event);
        match event {
            Event::Token { node, sequence, token } => {
                if let Some(text) = self.text_mut(node, *sequence) {
                    text.push(*at_ms, token.clone());
                }
            }
            Event::Done { node, sequence, prompt, completion, finish_reason, .. } => {
                if let Some(text) = self.text_mut(node, *sequence) {
                    text.end(*at_ms, prompt, completion, *finish_reason);
                }
            }
            Event::Score { node, source: Some(source), score } => {
                if let Some(text) = self.text_mut(&source.node, source.sequence) {
                    text.judge(*at_ms, node, score.clone());
                }
            }
            Event::Failed { node, text, kind, error } => self.fail(node, text.as_ref(), *kind, error),
            Event::Started { .. } | Event::Progress { .. } | Event::Score { source: None, .. } => {}
        }
    }

    /// The visitor pressed Stop: every text and node that is not done shows it at once.
    pub(crate) fn stop(&mut self) {
        if self.phase == Phase::Running {
            self.phase = Phase::Stopping;
            self.stopped = true;
            self.nodes.iter_mut().for_each(NodeState::stop);
            self.texts.iter_mut().for_each(TextState::stop);
        }
    }

    /// The last event came, or none will.
    pub(crate) fn end(&mut self) {
        self.phase = Phase::Ended;
        if self.stopped {
            self.nodes.iter_mut().for_each(NodeState::stop);
            self.texts.iter_mut().for_each(TextState::stop);
        }
        self.nodes.iter_mut().for_each(NodeState::end);
        // A text that waited for a writer that failed never began: its row says why.
        for text in &mut self.texts {
            let row = self.answer.rows.iter().find(|row| row.text.as_ref() == Some(&text.id));
            let error = row.and_then(|row| row.error.as_ref());
            text.fail_if_open(
                &error.map_or("it never began".into(), |error| format!("{}: {}", error.node, error.message)),
            );
        }
    }

    /// Nothing more can come, for the reason given: it was never begun, or the connection broke.
    pub(crate) fn break_off(&mut self, error: &str) {
        self.error = Some(error.to_owned());
        for node in &mut self.nodes {
            node.fail_if_open(error);
        }
        for text in &mut self.texts {
            text.fail_if_open(error);
        }
        self.phase = Phase::Ended;
    }

    /// Whether events may still come.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Stopping)
    }

    /// A node's part in the run; `None` if the run was of another graph, or comes from the history.
    pub(crate) fn node(&self, name: &str) -> Option<&NodeState> {
        let index = self.graph.nodes.iter().position(|node| node.name == name)?;
        self.nodes.get(index)
    }

    /// A writer's text. One that was not expected, because a server's graph says more than the page knows, is added.
    fn text_mut(&mut self, node: &str, sequence: usize) -> Option<&mut TextState> {
        let is_it = |text: &TextState| text.id.node == node && text.id.sequence == sequence;
        if let Some(index) = self.texts.iter().position(is_it) {
            return self.texts.get_mut(index);
        }
        let writer = self.graph.nodes.iter().position(|other| other.name == node)?;
        if self.graph.nodes[writer].task != Task::Generate || sequence >= MOST_TEXTS {
            return None;
        }
        let id = TextId { node: node.to_owned(), sequence };
        self.nodes[writer].expected = self.nodes[writer].expected.max(sequence + 1);
        self.texts.push(TextState::new(id, None));
        self.texts.last_mut()
    }

    fn fail(&mut self, node: &str, text: Option<&TextId>, kind: FailureKind, error: &str) {
        let is_writer = self.graph.node(node).is_some_and(|node| node.task == Task::Generate);
        for state in &mut self.texts {
            let is_hit = match text {
                Some(id) => state.id == *id,
                // A node that fails as a whole takes its own texts, or the scores that it owed.
                None => state.id.node == node || !is_writer,
            };
            if is_hit {
                if is_writer {
                    state.fail(kind, error);
                } else {
                    state.stay_unjudged(node, kind, error);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use inkling_engine::protocol::{Classification, FinishReason, LabelScore, Parameters, Token};

    use super::*;

    fn id(node: &str, sequence: usize) -> TextId {
        TextId { node: node.into(), sequence }
    }

    #[track_caller]
    fn written(run: &RunState, node: &str, sequence: usize) -> String {
        run.texts.iter().find(|text| text.id == id(node, sequence)).unwrap().written()
    }

    fn begin(sequences: usize) -> RunState {
        let parameters = Parameters { num_return_sequences: Some(sequences), ..Parameters::default() };
        RunState::begin(Arc::new(Graph::default()), Request { sentence: "Hi".into(), parameters })
    }

    fn accept(run: &mut RunState, at_ms: f64, event: Event) {
        run.accept(&Stamped { at_ms, event });
    }

    fn token(node: &str, sequence: usize, text: &str) -> Event {
        let token = Token { id: 7, text: text.into(), log_prob: -0.5, alternatives: Vec::new() };
        Event::Token { node: node.into(), sequence, token }
    }

    fn done(node: &str, sequence: usize, completion: &str, finish_reason: FinishReason) -> Event {
        Event::Done {
            node: node.into(),
            sequence,
            prompt: "Hi".into(),
            completion: completion.into(),
            new_tokens: 1,
            finish_reason,
        }
    }

    fn score(source: TextId, positive: f32) -> Event {
        let label = |label: &str, score| LabelScore { label: label.into(), score };
        let scores = vec![label("NEGATIVE", 1.0 - positive), label("POSITIVE", positive)];
        let best = scores.iter().max_by(|a, b| a.score.total_cmp(&b.score)).unwrap().clone();
        let score = Classification {
            label: best.label,
            score: best.score,
            scores,
            logits: vec![0.0, 0.0],
            truncated: false,
        };
        Event::Score { node: "bert".into(), source: Some(source), score }
    }

    #[test]
    fn every_text_is_there_from_the_start() {
        let run = begin(3);
        assert_eq!(run.texts.len(), 6);
        assert_eq!(run.texts[4].id, id("distilgpt2", 1));
        assert_eq!(run.texts[4].prompt.as_deref(), Some("Hi"));
        assert_eq!(run.nodes.iter().map(|node| node.expected).collect::<Vec<_>>(), [3, 3, 6]);
    }

    #[test]
    fn tokens_append_to_their_own_text() {
        let mut run = begin(2);
        accept(&mut run, 1.0, token("gpt2", 1, " a"));
        accept(&mut run, 2.0, token("distilgpt2", 0, " b"));
        accept(&mut run, 3.0, token("gpt2", 1, " c"));
        assert_eq!(written(&run, "gpt2", 1), " a c");
        assert_eq!(written(&run, "distilgpt2", 0), " b");
        assert_eq!(written(&run, "gpt2", 0), "");
        assert_eq!(run.nodes[0].tokens, 2);
    }

    #[test]
    fn a_whole_run_is_done_and_judged() {
        let mut run = begin(1);
        for node in ["gpt2", "distilgpt2"] {
            accept(&mut run, 1.0, token(node, 0, " x"));
            accept(&mut run, 2.0, done(node, 0, " x", FinishReason::Length));
            accept(&mut run, 3.0, score(id(node, 0), 0.75));
        }
        run.end();
        assert!(!run.is_open());
        assert!(run.nodes.iter().all(|node| node.activity == Activity::Done));
        assert_eq!(run.texts[0].judgements[0].classification.score, 0.75);
        assert_eq!(run.answer.rows[1].generated.as_deref(), Some("Hi x"));
    }

    #[test]
    fn stop_shows_at_once_and_keeps_the_text() {
        let mut run = begin(1);
        accept(&mut run, 1.0, token("gpt2", 0, " kept"));
        run.stop();
        assert!(run.nodes.iter().all(|node| node.activity == Activity::Stopped));
        assert_eq!(run.texts[0].mark(), Mark::Stopped);
        accept(&mut run, 2.0, token("gpt2", 0, " late"));
        assert_eq!(run.texts[0].written(), " kept");
        accept(&mut run, 3.0, done("gpt2", 0, " kept", FinishReason::Stopped));
        run.end();
        assert_eq!(run.texts[0].written(), " kept");
        assert_eq!(run.texts[0].mark(), Mark::Stopped);
    }

    #[test]
    fn one_failed_writer_leaves_the_other_text_whole() {
        let mut run = begin(1);
        let error = "the model is gone".to_string();
        accept(&mut run, 1.0, {
            Event::Failed { node: "gpt2".into(), text: None, kind: FailureKind::Internal, error }
        });
        accept(&mut run, 1.0, done("distilgpt2", 0, " fine", FinishReason::Length));
        accept(&mut run, 2.0, score(id("distilgpt2", 0), 0.25));
        run.end();
        assert_eq!(run.texts[0].mark(), Mark::Failed);
        assert_eq!(run.texts[0].error.as_deref(), Some("the model is gone"));
        assert_eq!(run.texts[1].mark(), Mark::Done);
        assert_eq!(run.nodes[0].activity, Activity::Failed("the model is gone".into()));
    }

    #[test]
    fn a_failed_critic_keeps_the_texts() {
        let mut run = begin(1);
        accept(&mut run, 1.0, done("gpt2", 0, " fine", FinishReason::Length));
        let (kind, error) = (FailureKind::Internal, "broke".to_string());
        accept(&mut run, 2.0, {
            Event::Failed { node: "bert".into(), text: Some(id("gpt2", 0)), kind, error }
        });
        assert_eq!(run.texts[0].mark(), Mark::Done);
        assert_eq!(run.texts[0].unjudged, Some(("bert".into(), "broke".into())));
        assert_eq!(run.texts[0].written(), " fine");
    }

    #[test]
    fn a_text_that_was_not_expected_is_shown() {
        let mut run = begin(1);
        accept(&mut run, 1.0, token("gpt2", 2, " more"));
        assert_eq!(written(&run, "gpt2", 2), " more");
        accept(&mut run, 1.0, token("bert", 0, "never"));
        assert_eq!(run.texts.len(), 3);
    }

    #[test]
    fn a_broken_connection_ends_what_was_open_and_keeps_what_was_done() {
        let mut run = begin(1);
        accept(&mut run, 1.0, done("gpt2", 0, " fine", FinishReason::Length));
        run.break_off("the server is gone");
        assert_eq!(run.texts[0].mark(), Mark::Done);
        assert_eq!(run.texts[1].mark(), Mark::Failed);
        assert!(!run.is_open());
    }
}
