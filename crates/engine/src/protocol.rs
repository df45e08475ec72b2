//! The types that cross a wire: a request goes in, events come out, jobs travel to workers.
//!
//! All homes speak exactly these: the page's workers by structured clone, HTTP by JSON and server-sent
//! events, the command line by NDJSON.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The sentence that is continued when a request gives none.
pub const DEFAULT_SENTENCE: &str = "I have an idea!";

/// What a graph is asked to do.
///
/// Unknown keys are ignored, as the reference does; `original_sentence` and `sentence` mean the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Request {
    /// The text that every source node of the graph receives.
    #[serde(alias = "original_sentence")]
    pub sentence: String,
    /// Overrides for all generators of the graph.
    #[serde(flatten)]
    pub parameters: Parameters,
}

impl Default for Request {
    fn default() -> Self {
        Request { sentence: DEFAULT_SENTENCE.into(), parameters: Parameters::default() }
    }
}

/// How to decode. Every field is optional, so that layers of defaults can be laid over each other:
/// the request over the graph's node over the model's `generation_config.json` over the built-in values.
///
/// Names and meanings are those of Hugging Face's `GenerationConfig`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Parameters {
    /// Most tokens of prompt and continuation together. Built in: 128.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_length: Option<usize>,
    /// Most new tokens; where given it decides alone and `max_length` is not looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_new_tokens: Option<usize>,
    /// Draw from the distribution (true) or always take the likeliest token (false). Built in: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub do_sample: Option<bool>,
    /// Logits are divided by this before drawing; above 0, at most 100. Built in: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    /// Only the `k` likeliest tokens are drawn from; 0 means all. Built in: 50.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<usize>,
    /// Only the smallest set of likeliest tokens that holds this probability is drawn from; in (0, 1]. Built in: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f32>,
    /// Only tokens at least this fraction as likely as the likeliest are drawn from; in [0, 1]. Built in: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f32>,
    /// Logits of tokens already in the text are divided (positive) or multiplied (negative) by this; above 0. Built in: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repetition_penalty: Option<f32>,
    /// No run of this many tokens comes twice; 0 allows all. Built in: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_repeat_ngram_size: Option<usize>,
    /// Continuations of each prompt, 1 to 16. Built in: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_return_sequences: Option<usize>,
    /// Seed of the draws. The same seed gives the same text. The host chooses one where the request does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// The continuation ends before the first of these strings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<Vec<String>>,
    /// How many alternatives each token event carries, 0 to 20. Built in: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alternatives: Option<usize>,
}

/// [`Parameters`] with every default filled in and every range checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Most tokens of prompt and continuation together; `None` where `max_new_tokens` decides.
    pub max_length: Option<usize>,
    /// Most new tokens; `None` where `max_length` decides.
    pub max_new_tokens: Option<usize>,
    /// Draw, or take the likeliest.
    pub do_sample: bool,
    /// Above 0.
    pub temperature: f32,
    /// 0 means all.
    pub top_k: usize,
    /// In (0, 1].
    pub top_p: f32,
    /// In [0, 1].
    pub min_p: f32,
    /// Above 0; 1 changes nothing.
    pub repetition_penalty: f32,
    /// 0 allows all.
    pub no_repeat_ngram_size: usize,
    /// 1 to 16.
    pub num_return_sequences: usize,
    /// Seed of the draws.
    pub seed: u64,
    /// Non-empty strings.
    pub stop: Vec<String>,
    /// 0 to 20.
    pub alternatives: usize,
}

impl Parameters {
    /// The names of all parameters on the wire.
    pub const NAMES: [&str; 13] = [
        "max_length",
        "max_new_tokens",
        "do_sample",
        "temperature",
        "top_k",
        "top_p",
        "min_p",
        "repetition_penalty",
        "no_repeat_ngram_size",
        "num_return_sequences",
        "seed",
        "stop",
        "alternatives",
    ];

    /// These parameters, with `defaults` wherever they say nothing.
    ///
    /// The two limits count as one: a `max_length` here is not overruled by a `max_new_tokens` there.
    #[must_use]
    pub fn or(&self, defaults: &Parameters) -> Parameters {
        let own_limit = self.max_length.is_some() || self.max_new_tokens.is_some();
        let limits = if own_limit { self } else { defaults };
        Parameters {
            max_length: limits.max_length,
            max_new_tokens: limits.max_new_tokens,
            do_sample: self.do_sample.or(defaults.do_sample),
            temperature: self.temperature.or(defaults.temperature),
            top_k: self.top_k.or(defaults.top_k),
            top_p: self.top_p.or(defaults.top_p),
            min_p: self.min_p.or(defaults.min_p),
            repetition_penalty: self.repetition_penalty.or(defaults.repetition_penalty),
            no_repeat_ngram_size: self.no_repeat_ngram_size.or(defaults.no_repeat_ngram_size),
            num_return_sequences: self.num_return_sequences.or(defaults.num_return_sequences),
            seed: self.seed.or(defaults.seed),
            stop: self.stop.clone().or_else(|| defaults.stop.clone()),
            alternatives: self.alternatives.or(defaults.alternatives),
        }
    }

    /// Fills in the built-in defaults and checks every range.
    ///
    /// # Errors
    /// [`Error::Parameter`] naming the parameter, its range and the value.
    pub fn settings(&self) -> Result<Settings> {
        let max_length = match self.max_new_tokens {
            Some(_) => None,
            None => Some(in_range("max_length", self.max_length.unwrap_or(128), 1, 1_000_000)?),
        };
        let max_new_tokens =
            self.max_new_tokens.map(|n| in_range("max_new_tokens", n, 1, 1_000_000)).transpose()?;
        let stop = self.stop.clone().unwrap_or_default();
        check("stop", "at most 16 non-empty strings", format!("{stop:?}"), {
            stop.len() <= 16 && stop.iter().all(|s| !s.is_empty())
        })?;
        let temperature = self.temperature.unwrap_or(1.0);
        check(
            "temperature",
            "above 0 and at most 100",
            temperature,
            temperature > 0.0 && temperature <= 100.0,
        )?;
        let top_p = self.top_p.unwrap_or(1.0);
        check("top_p", "above 0 and at most 1", top_p, top_p > 0.0 && top_p <= 1.0)?;
        let min_p = self.min_p.unwrap_or(0.0);
        check("min_p", "from 0 to 1", min_p, (0.0..=1.0).contains(&min_p))?;
        let repetition_penalty = self.repetition_penalty.unwrap_or(1.0);
        check("repetition_penalty", "above 0 and at most 100", repetition_penalty, {
            repetition_penalty > 0.0 && repetition_penalty <= 100.0
        })?;
        Ok(Settings {
            max_length,
            max_new_tokens,
            do_sample: self.do_sample.unwrap_or(true),
            temperature,
            top_k: self.top_k.unwrap_or(50),
            top_p,
            min_p,
            repetition_penalty,
            no_repeat_ngram_size: self.no_repeat_ngram_size.unwrap_or(0),
            num_return_sequences: in_range(
                "num_return_sequences",
                self.num_return_sequences.unwrap_or(1),
                1,
                16,
            )?,
            seed: self.seed.unwrap_or(0),
            stop,
            alternatives: in_range("alternatives", self.alternatives.unwrap_or(0), 0, 20)?,
        })
    }
}

fn check(name: &'static str, expected: &str, got: impl ToString, holds: bool) -> Result<()> {
    if holds {
        return Ok(());
    }
    Err(Error::Parameter { name, expected: expected.into(), got: got.to_string() })
}

fn in_range(name: &'static str, value: usize, least: usize, most: usize) -> Result<usize> {
    check(name, &format!("from {least} to {most}"), value, (least..=most).contains(&value))?;
    Ok(value)
}

/// Names one text of a run: the node that wrote it and which of its continuations it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TextId {
    /// The generator.
    pub node: String,
    /// Its continuation, from 0.
    pub sequence: usize,
}

/// What one node is to do next; the graph runner makes it, a host carries it to the node's model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The node that does it.
    pub node: String,
    /// What it does.
    pub work: Work,
}

impl Job {
    /// The texts that it is to write, or the one that it is to score; `None` is the request's own sentence.
    #[must_use]
    pub fn texts(&self) -> Vec<Option<TextId>> {
        match &self.work {
            Work::Classify { source, .. } => vec![source.clone()],
            Work::Generate { parameters, first_sequence, .. } => {
                let count = parameters.num_return_sequences.unwrap_or(1);
                let id = |sequence| Some(TextId { node: self.node.clone(), sequence });
                (*first_sequence..first_sequence + count).map(id).collect()
            }
        }
    }
}

/// The two kinds of work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "snake_case")]
pub enum Work {
    /// Continue `prompt`, as sequences `first_sequence..first_sequence + num_return_sequences`.
    Generate {
        /// The text to continue.
        prompt: String,
        /// Decoding parameters: the request's over the node's.
        parameters: Parameters,
        /// Number of the first continuation.
        first_sequence: usize,
    },
    /// Score `text`.
    Classify {
        /// The whole text.
        text: String,
        /// Whose text it is; `None` for the request's own sentence.
        source: Option<TextId>,
    },
}

/// What happens in a run, in order for each node. A run's answer is a fold over its events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The node has begun a job; its model is loaded.
    Started {
        /// The node.
        node: String,
        /// Name of its model.
        model: String,
        /// Hash of the model's files, in hexadecimal, where the host computed one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model_sha256: Option<String>,
        /// Tokens in the job's input.
        input_tokens: usize,
    },
    /// The node's model is loading.
    Progress {
        /// The node.
        node: String,
        /// The file that is being read.
        file: String,
        /// Bytes read so far.
        bytes: u64,
        /// Bytes in all, where known.
        total_bytes: Option<u64>,
    },
    /// One more token of a continuation.
    Token {
        /// The node.
        node: String,
        /// Which continuation.
        sequence: usize,
        /// The token.
        #[serde(flatten)]
        token: Token,
    },
    /// A text is whole.
    Done {
        /// The node that wrote it.
        node: String,
        /// Which continuation.
        sequence: usize,
        /// The prompt.
        prompt: String,
        /// The new text, without the prompt.
        completion: String,
        /// Number of new tokens.
        new_tokens: usize,
        /// Why it ended.
        finish_reason: FinishReason,
    },
    /// A text is scored.
    Score {
        /// The classifier.
        node: String,
        /// Whose text; `None` for the request's own sentence.
        source: Option<TextId>,
        /// The result.
        #[serde(flatten)]
        score: Classification,
    },
    /// A job failed; the run's other jobs go on.
    Failed {
        /// The node.
        node: String,
        /// The text that was to be written or scored, where the failure concerns one.
        text: Option<TextId>,
        /// What kind of failure.
        kind: FailureKind,
        /// The reason, for people.
        error: String,
    },
}

impl Event {
    /// The node that the event names.
    #[must_use]
    pub fn node(&self) -> &str {
        match self {
            Event::Started { node, .. }
            | Event::Progress { node, .. }
            | Event::Token { node, .. }
            | Event::Done { node, .. }
            | Event::Score { node, .. }
            | Event::Failed { node, .. } => node,
        }
    }
}

/// An event with the time that the host saw it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stamped {
    /// Milliseconds since the run began.
    pub at_ms: f64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// A generated token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// The text that became certain with it; empty while a character is incomplete.
    pub text: String,
    /// Natural logarithm of its probability in the model's own distribution, before any warping.
    pub log_prob: f32,
    /// The likeliest tokens at this place, best first; on request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alternatives: Vec<Alternative>,
}

/// A token that could have come instead.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alternative {
    /// Its id.
    pub id: u32,
    /// Its text by itself.
    pub text: String,
    /// Natural logarithm of its probability.
    pub log_prob: f32,
}

/// Why a continuation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// `max_length` or `max_new_tokens` reached.
    Length,
    /// The model's context is full.
    Context,
    /// The model wrote its end-of-text id.
    EndOfText,
    /// A stop string came.
    StopString,
    /// The run was stopped; the text so far stands.
    Stopped,
}

/// What kind of failure ended a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The caller's mistake: another request can succeed.
    Invalid,
    /// The model or the engine failed.
    Internal,
    /// The node's model is not there: still loading, or being replaced.
    Unavailable,
    /// The run was stopped before the job was done.
    Stopped,
    /// The deadline passed.
    Deadline,
}

/// A classifier's judgement of one text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Classification {
    /// The likeliest label.
    pub label: String,
    /// Its probability.
    pub score: f32,
    /// Every label with its probability, in the model's order.
    pub scores: Vec<LabelScore>,
    /// The head's raw outputs, in the model's order.
    pub logits: Vec<f32>,
    /// Whether the text was cut to what the model takes.
    pub truncated: bool,
}

/// One label and its probability.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabelScore {
    /// The label.
    pub label: String,
    /// Its probability: of a softmax, or of its own sigmoid for a multi-label model.
    pub score: f32,
}
