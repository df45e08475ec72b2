//! The answer of a run: a fold over its events.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    graph::spec::{Graph, Input, Task},
    protocol::{Classification, Event, FailureKind, FinishReason, Request, TextId},
};

/// All that came out of a run. [`Answer::pairs`] is its short form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The graph's name.
    pub graph: String,
    /// The request's sentence.
    pub sentence: String,
    /// The seed of the draws.
    pub seed: u64,
    /// One row a final text, in the order of the graph's nodes.
    pub rows: Vec<Row>,
    /// One report a node, in the order of the graph.
    pub nodes: Vec<NodeReport>,
    /// Milliseconds until the last event.
    pub total_ms: f64,
    /// For each node the nodes whose texts it needs, directly or by way of others.
    #[serde(skip)]
    needs: BTreeMap<String, BTreeSet<String>>,
}

/// One text and what the classifiers say of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Who wrote it; `None` for the request's own sentence.
    pub text: Option<TextId>,
    /// Prompt and continuation; `None` if its node failed.
    pub generated: Option<String>,
    /// The first classifier's score of its likeliest label.
    pub score: Option<f32>,
    /// The first classifier's likeliest label.
    pub label: Option<String>,
    /// What each classifier says.
    pub judgements: Vec<Judgement>,
    /// Number of new tokens.
    pub new_tokens: usize,
    /// Why the text ended.
    pub finish_reason: Option<FinishReason>,
    /// What failed, if something did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<RowError>,
}

/// A classifier's judgement of a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// The classifier.
    pub node: String,
    /// What it says.
    #[serde(flatten)]
    pub classification: Classification,
}

/// Why a row is not whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RowError {
    /// The node that failed.
    pub node: String,
    /// What kind of failure.
    pub kind: FailureKind,
    /// The reason, for people.
    pub message: String,
}

/// What one node did, in milliseconds since the run began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeReport {
    /// The node.
    pub node: String,
    /// Its model.
    pub model: Option<String>,
    /// Hash of the model's files.
    pub model_sha256: Option<String>,
    /// When its first job began.
    pub started_ms: Option<f64>,
    /// When its first token came.
    pub first_token_ms: Option<f64>,
    /// When its last event came.
    pub ended_ms: Option<f64>,
    /// New tokens in all its texts.
    pub tokens: usize,
    /// Tokens after the first, by the time from the first to the last.
    pub tokens_per_second: Option<f64>,
}

/// The ancestor's row: two keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// Prompt and continuation; null if its node failed.
    pub generated: Option<String>,
    /// Score of the likeliest label; null if something failed.
    pub score: Option<f32>,
    /// What failed; absent in whole rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Answer {
    /// The empty answer of a run that begins.
    #[must_use]
    pub fn new(graph: &Graph, request: &Request) -> Answer {
        let mut answer = Answer {
            graph: graph.name.clone(),
            sentence: request.sentence.clone(),
            seed: request.parameters.seed.unwrap_or(0),
            rows: Vec::new(),
            nodes: Vec::new(),
            total_ms: 0.0,
            needs: needs(graph),
        };
        let texts = graph.text_counts(&request.parameters);
        for (index, node) in graph.nodes.iter().enumerate() {
            answer.nodes.push(NodeReport { node: node.name.clone(), ..NodeReport::default() });
            let consumers = || graph.nodes.iter().filter(|other| other.inputs.contains(&Input::Node(index)));
            // A text is final if a classifier looks at it, or if nobody does anything with it.
            let is_final =
                consumers().any(|other| other.task == Task::Classify) || consumers().next().is_none();
            if node.task == Task::Generate && is_final {
                let id = |sequence| TextId { node: node.name.clone(), sequence };
                answer.rows.extend((0..texts[index]).map(|sequence| Row::new(Some(id(sequence)))));
            }
        }
        let judges_sentence = |task, input: &Input| task == Task::Classify && *input == Input::Sentence;
        if graph.nodes.iter().any(|node| node.inputs.iter().any(|input| judges_sentence(node.task, input))) {
            let row = Row { generated: Some(request.sentence.clone()), ..Row::new(None) };
            answer.rows.push(row);
        }
        answer
    }

    /// Takes the next event, seen `at_ms` after the run began.
    pub fn push(&mut self, at_ms: f64, event: &Event) {
        self.total_ms = self.total_ms.max(at_ms);
        if let Some(report) = self.nodes.iter_mut().find(|report| report.node == event.node()) {
            report.push(at_ms, event);
        }
        match event {
            Event::Done { node, sequence, prompt, completion, new_tokens, finish_reason } => {
                if let Some(row) = self.row(Some(&TextId { node: node.clone(), sequence: *sequence })) {
                    row.generated = Some(format!("{prompt}{completion}"));
                    row.new_tokens = *new_tokens;
                    row.finish_reason = Some(*finish_reason);
                    row.error = None; // another text of a node that it needs had failed
                }
            }
            Event::Score { node, source, score } => {
                if let Some(row) = self.row(source.as_ref()) {
                    if row.judgements.is_empty() {
                        row.score = Some(score.score);
                        row.label = Some(score.label.clone());
                    }
                    row.judgements.push(Judgement { node: node.clone(), classification: score.clone() });
                }
            }
            Event::Failed { node, text, kind, error } => {
                let failure = RowError { node: node.clone(), kind: *kind, message: error.clone() };
                let needs = &self.needs;
                let is_hit = |row: &&mut Row| match (&row.text, text) {
                    (Some(own), _) if needs.get(&own.node).is_some_and(|needed| needed.contains(node)) => {
                        row.generated.is_none()
                    }
                    (own, Some(text)) => own.as_ref() == Some(text),
                    (own, None) => own.as_ref().is_none_or(|own| own.node == *node),
                };
                self.rows.iter_mut().filter(is_hit).for_each(|row| row.error = Some(failure.clone()));
            }
            Event::Started { .. } | Event::Progress { .. } | Event::Token { .. } => {}
        }
    }

    /// The ancestor's answer: `[{"generated", "score"}, ...]`.
    #[must_use]
    pub fn pairs(&self) -> Vec<Pair> {
        let message = |error: &RowError| format!("{}: {}", error.node, error.message);
        let pair = |row: &Row| Pair {
            generated: row.generated.clone(),
            score: row.score,
            error: row.error.as_ref().map(message),
        };
        self.rows.iter().map(pair).collect()
    }

    fn row(&mut self, text: Option<&TextId>) -> Option<&mut Row> {
        self.rows.iter_mut().find(|row| row.text.as_ref() == text)
    }
}

impl Row {
    fn new(text: Option<TextId>) -> Row {
        Row {
            text,
            generated: None,
            score: None,
            label: None,
            judgements: Vec::new(),
            new_tokens: 0,
            finish_reason: None,
            error: None,
        }
    }
}

impl NodeReport {
    fn push(&mut self, at_ms: f64, event: &Event) {
        match event {
            Event::Started { model, model_sha256, .. } => {
                self.model = Some(model.clone());
                self.model_sha256.clone_from(model_sha256);
                self.started_ms.get_or_insert(at_ms);
            }
            Event::Token { .. } => {
                self.tokens += 1;
                let first = *self.first_token_ms.get_or_insert(at_ms);
                if at_ms > first {
                    self.tokens_per_second = Some((self.tokens - 1) as f64 * 1000.0 / (at_ms - first));
                }
            }
            Event::Progress { .. } => return,
            Event::Done { .. } | Event::Score { .. } | Event::Failed { .. } => {}
        }
        self.ended_ms = Some(at_ms);
    }
}

fn needs(graph: &Graph) -> BTreeMap<String, BTreeSet<String>> {
    fn collect(graph: &Graph, node: usize, found: &mut BTreeSet<String>) {
        for input in &graph.nodes[node].inputs {
            if let Input::Node(source) = input
                && found.insert(graph.nodes[*source].name.clone())
            {
                collect(graph, *source, found);
            }
        }
    }
    let of = |node: usize| {
        let mut found = BTreeSet::new();
        collect(graph, node, &mut found);
        (graph.nodes[node].name.clone(), found)
    };
    (0..graph.nodes.len()).map(of).collect()
}

#[cfg(test)]
#[cfg(feature = "toml")]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn text(node: &str) -> TextId {
        TextId { node: node.into(), sequence: 0 }
    }

    fn done(node: &str) -> Event {
        let (prompt, completion) = ("I have an idea!".into(), " Good.".into());
        let finish_reason = FinishReason::Length;
        Event::Done { node: node.into(), sequence: 0, prompt, completion, new_tokens: 2, finish_reason }
    }

    fn score(source: &str, score: f32) -> Event {
        let score = Classification {
            label: "POSITIVE".into(),
            score,
            scores: Vec::new(),
            logits: Vec::new(),
            truncated: false,
        };
        Event::Score { node: "bert".into(), source: Some(text(source)), score }
    }

    #[test]
    fn rows_stand_in_the_order_of_the_graph_whoever_ends_first() {
        let mut answer = Answer::new(&Graph::default(), &Request::default());
        for event in [done("distilgpt2"), score("distilgpt2", 0.25), done("gpt2"), score("gpt2", 0.75)] {
            answer.push(1.0, &event);
        }
        let json = serde_json::to_string(&answer.pairs()).unwrap();
        let row = |score: f32| format!(r#"{{"generated":"I have an idea! Good.","score":{score}}}"#);
        assert_eq!(json, format!("[{},{}]", row(0.75), row(0.25)));
    }

    #[test]
    fn a_failed_classifier_keeps_the_texts() {
        let mut answer = Answer::new(&Graph::default(), &Request::default());
        answer.push(1.0, &done("gpt2"));
        let (kind, error) = (FailureKind::Internal, "broke".to_string());
        answer.push(2.0, &Event::Failed { node: "bert".into(), text: Some(text("gpt2")), kind, error });
        let [first, second] = answer.pairs().try_into().unwrap();
        assert_eq!(first.generated.as_deref(), Some("I have an idea! Good."));
        assert_eq!((first.score, first.error.as_deref()), (None, Some("bert: broke")));
        assert_eq!((second.generated, second.error), (None, None));
    }

    #[test]
    fn a_text_whose_source_failed_says_so() {
        let toml = "
            nodes = [
                { name = 'a', task = 'generate', model = 'm', inputs = ['sentence'] },
                { name = 'b', task = 'generate', model = 'm', inputs = ['a'] },
            ]";
        let mut answer = Answer::new(&Graph::parse(toml).unwrap(), &Request::default());
        let (kind, error) = (FailureKind::Invalid, "too long".to_string());
        answer.push(1.0, &Event::Failed { node: "a".into(), text: Some(text("a")), kind, error });
        assert_eq!(answer.pairs()[0].error.as_deref(), Some("a: too long"));
    }

    #[test]
    fn speed_counts_the_tokens_after_the_first() {
        let mut answer = Answer::new(&Graph::default(), &Request::default());
        let token =
            crate::protocol::Token { id: 1, text: "x".into(), log_prob: 0.0, alternatives: Vec::new() };
        for at in [100.0, 110.0, 120.0] {
            answer.push(at, &Event::Token { node: "gpt2".into(), sequence: 0, token: token.clone() });
        }
        assert_eq!(answer.nodes[0].tokens_per_second, Some(100.0));
    }
}
