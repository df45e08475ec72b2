//! The OpenAPI description of the routes.
//!
//! The wire's types belong to the engine, which knows no HTTP; their twins here exist for their schemas only, and a test
//! holds both to the same fields.

#![expect(dead_code, reason = "the twins are never made: only their schemas are read")]

use inkling_engine::protocol::DEFAULT_SENTENCE;
use utoipa::{
    OpenApi, PartialSchema, ToSchema,
    openapi::{
        ContentBuilder, Ref, content::Content, request_body::RequestBodyBuilder, response::ResponseBuilder,
    },
};

use super::{
    problem::{Detail, Problem},
    routes,
};

/// What a graph, or one of its nodes, is asked. Everything is optional; unknown keys are ignored.
#[derive(ToSchema)]
pub(super) struct Ask {
    /// The text to continue, or to score. `original_sentence` means the same.
    #[schema(default = json!(DEFAULT_SENTENCE), example = json!(DEFAULT_SENTENCE))]
    sentence: Option<String>,
    /// Most tokens of prompt and continuation together.
    #[schema(default = 128, minimum = 1)]
    max_length: Option<usize>,
    /// Most new tokens; where given it decides alone and `max_length` is not looked at.
    #[schema(minimum = 1)]
    max_new_tokens: Option<usize>,
    /// Draw from the distribution, or always take the likeliest token.
    #[schema(default = true)]
    do_sample: Option<bool>,
    /// Logits are divided by this before drawing; above 0.
    #[schema(default = 1.0, maximum = 100)]
    temperature: Option<f32>,
    /// Only the likeliest so many tokens are drawn from; 0 means all.
    #[schema(default = 50, minimum = 0)]
    top_k: Option<usize>,
    /// Only the smallest set of likeliest tokens that holds this probability is drawn from; above 0.
    #[schema(default = 1.0, maximum = 1)]
    top_p: Option<f32>,
    /// Only tokens at least this fraction as likely as the likeliest are drawn from.
    #[schema(default = 0.0, minimum = 0, maximum = 1)]
    min_p: Option<f32>,
    /// Logits of tokens already in the text are divided (positive) or multiplied (negative) by this; above 0.
    #[schema(default = 1.0, maximum = 100)]
    repetition_penalty: Option<f32>,
    /// No run of this many tokens comes twice; 0 allows all.
    #[schema(default = 0, minimum = 0)]
    no_repeat_ngram_size: Option<usize>,
    /// Continuations of each prompt.
    #[schema(default = 1, minimum = 1, maximum = 16)]
    num_return_sequences: Option<usize>,
    /// The same seed gives the same text; drawn where it is missing.
    seed: Option<u64>,
    /// The continuation ends before the first of these.
    stop: Option<Vec<String>>,
    /// How many alternatives each token event carries.
    #[schema(default = 0, minimum = 0, maximum = 20)]
    alternatives: Option<usize>,
}

/// A text and its score.
#[derive(ToSchema)]
pub(super) struct Row {
    /// Prompt and continuation; null if its node failed.
    generated: Option<String>,
    /// Probability of the likeliest label; null if something failed.
    score: Option<f32>,
    /// What failed; absent in whole rows.
    #[schema(required = false)]
    error: String,
}

/// One continuation.
#[derive(ToSchema)]
pub(super) struct Continuation {
    /// Prompt and continuation; null if it failed.
    generated_text: Option<String>,
    /// What failed; absent where nothing did.
    #[schema(required = false)]
    error: String,
}

/// A classifier's judgement of a text.
#[derive(ToSchema)]
pub(super) struct Classification {
    /// The likeliest label.
    label: String,
    /// Its probability.
    score: f32,
    /// Every label with its probability, in the model's order.
    scores: Vec<LabelScore>,
    /// The head's raw outputs, in the model's order.
    logits: Vec<f32>,
    /// Whether the text was cut to what the model takes.
    truncated: bool,
}

/// One label and its probability.
#[derive(ToSchema)]
pub(super) struct LabelScore {
    /// The label.
    label: String,
    /// Its probability.
    score: f32,
}

/// All that came out of a run.
#[derive(ToSchema)]
pub(super) struct Answer {
    /// The graph's name.
    graph: String,
    /// The request's sentence.
    sentence: String,
    /// The seed of the draws.
    seed: u64,
    /// One row a final text, in the order of the graph's nodes.
    rows: Vec<FullRow>,
    /// One report a node, in the order of the graph.
    nodes: Vec<NodeReport>,
    /// Milliseconds until the last event.
    total_ms: f64,
}

/// One text and what the classifiers say of it.
#[derive(ToSchema)]
pub(super) struct FullRow {
    /// Who wrote it; null for the request's own sentence.
    text: Option<TextId>,
    /// Prompt and continuation; null if its node failed.
    generated: Option<String>,
    /// The first classifier's score of its likeliest label.
    score: Option<f32>,
    /// The first classifier's likeliest label.
    label: Option<String>,
    /// What each classifier says.
    judgements: Vec<Judgement>,
    /// Number of new tokens.
    new_tokens: usize,
    /// `length`, `context`, `end_of_text`, `stop_string` or `stopped`.
    finish_reason: Option<String>,
    /// What failed; absent in whole rows.
    #[schema(required = false)]
    error: RowError,
}

/// Names one text of a run.
#[derive(ToSchema)]
pub(super) struct TextId {
    /// The generator.
    node: String,
    /// Its continuation, from 0.
    sequence: usize,
}

/// A classifier's judgement of a row.
#[derive(ToSchema)]
pub(super) struct Judgement {
    /// The classifier.
    node: String,
    /// The likeliest label.
    label: String,
    /// Its probability.
    score: f32,
    /// Every label with its probability, in the model's order.
    scores: Vec<LabelScore>,
    /// The head's raw outputs, in the model's order.
    logits: Vec<f32>,
    /// Whether the text was cut to what the model takes.
    truncated: bool,
}

/// Why a row is not whole.
#[derive(ToSchema)]
pub(super) struct RowError {
    /// The node that failed.
    node: String,
    /// `invalid`, `internal`, `unavailable`, `stopped` or `deadline`.
    kind: String,
    /// The reason, for people.
    message: String,
}

/// What one node did, in milliseconds since the run began.
#[derive(ToSchema)]
pub(super) struct NodeReport {
    /// The node.
    node: String,
    /// Its model.
    model: Option<String>,
    /// Hash of the model's files, in hexadecimal.
    model_sha256: Option<String>,
    /// When its first job began.
    started_ms: Option<f64>,
    /// When its first token came.
    first_token_ms: Option<f64>,
    /// When its last event came.
    ended_ms: Option<f64>,
    /// New tokens in all its texts.
    tokens: usize,
    /// Tokens after the first, by the time from the first to the last.
    tokens_per_second: Option<f64>,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Inkling",
        description = "A graph of small language models: writers continue a sentence, a critic scores each continuation."
    ),
    paths(
        routes::generate_score,
        routes::graph,
        routes::run,
        routes::generate,
        routes::classify,
        routes::classify_generated_texts,
        routes::alive,
        routes::healthy,
        routes::ready,
        routes::metrics,
        routes::docs,
    ),
    components(schemas(Ask, Problem, Detail))
)]
struct Document;

/// What can go wrong with a request that runs models.
const PROBLEMS: [(&str, &str); 8] = [
    ("400", "The body is not what it should be; `detail` says where."),
    ("413", "The body has more than 1 MiB."),
    ("415", "The body is of a content type that is not read here."),
    ("422", "A parameter is out of its range, or the prompt leaves no room for a new token."),
    ("429", "As many runs as are allowed are on their way."),
    ("500", "A model failed, and no row is whole."),
    ("503", "A model is loading."),
    ("504", "The time for a request is over, and no row is whole."),
];

/// The description, for a graph with these nodes.
pub(super) fn document(generators: &[&str], classifiers: &[&str]) -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi();
    let names = |names: &[&str]| names.join(", ");
    let nodes = format!("Generators: {}. Classifiers: {}.", names(generators), names(classifiers));
    document.info.description = document.info.description.map(|text| format!("{text} {nodes}"));
    let reference =
        |schema| -> Content { ContentBuilder::new().schema(Some(Ref::from_schema_name(schema))).build() };
    for operation in document.paths.paths.values_mut().filter_map(|item| item.post.as_mut()) {
        let body = RequestBodyBuilder::new()
            .description(Some(
                "The sentence and parameters; in plain text, the sentence alone. Empty: the defaults.",
            ))
            .content("application/json", reference("Ask"))
            .content("application/x-www-form-urlencoded", reference("Ask"))
            .content("multipart/form-data", reference("Ask"))
            .content("text/plain", ContentBuilder::new().schema(Some(String::schema())).build());
        operation.request_body = Some(body.build().into());
        for (status, description) in PROBLEMS {
            let response = ResponseBuilder::new()
                .description(description)
                .content("application/json", reference("Problem"));
            operation.responses.responses.insert(status.into(), response.build().into());
        }
    }
    document
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use inkling_engine::{
        graph::{self, Graph},
        protocol::{self, Parameters, Request},
    };
    use serde_json::{Value, json};

    use super::*;

    fn fields(value: &Value) -> BTreeSet<&str> {
        value.as_object().unwrap().keys().map(String::as_str).collect()
    }

    #[track_caller]
    fn check(schema: &str, sample: impl serde::Serialize) {
        let document = serde_json::to_value(document(&[], &[])).unwrap();
        let properties = &document["components"]["schemas"][schema]["properties"];
        let sample = serde_json::to_value(sample).unwrap();
        assert_eq!(fields(properties), fields(&sample), "{schema}");
    }

    #[test]
    fn schemas_have_the_fields_of_the_wire() {
        let names = Parameters::NAMES.map(|name| (name.to_string(), Value::Null));
        check("Ask", Value::Object(names.into_iter().chain([("sentence".into(), Value::Null)]).collect()));
        let answer = graph::Answer::new(&Graph::default(), &Request::default());
        let mut row = serde_json::to_value(&answer.rows[0]).unwrap();
        row["error"] = json!({"node": "", "kind": "", "message": ""});
        check("RowError", &row["error"]);
        check("FullRow", &row);
        check("NodeReport", &answer.nodes[0]);
        check("Row", json!({"generated": "", "score": 0, "error": ""}));
        check("Answer", &answer);
        let classification = protocol::Classification {
            label: String::new(),
            score: 0.0,
            scores: vec![protocol::LabelScore { label: String::new(), score: 0.0 }],
            logits: Vec::new(),
            truncated: false,
        };
        check("LabelScore", &classification.scores[0]);
        check("Classification", &classification);
        check("Judgement", graph::answer::Judgement { node: String::new(), classification });
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = serde_json::to_value(document(&["a"], &["b"])).unwrap();
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#").skip(1).map(|rest| rest.split('"').next().unwrap()) {
            assert!(document.pointer(reference).is_some(), "{reference}");
        }
        assert!(document["paths"]["/generate_score"]["post"]["requestBody"].is_object());
    }
}
