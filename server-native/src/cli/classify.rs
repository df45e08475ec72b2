//! `inkling classify`: one classifier on texts.

use std::{
    io::{self, BufRead, IsTerminal},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::Args;
use inkling_engine::{graph::node::LoadedTask, protocol::Classification};
use serde::{Serialize, Serializer};

use super::{
    options::{Model, Weights},
    print_json,
};
use crate::{Mistake, pool::ThreadPool};

/// Score texts with one classifier: a JSON object a text
///
/// {"label": the likeliest, "score": its probability, "scores": {label: probability}, "logits": [...], "truncated":
/// whether the text was cut to what the model takes}. Without TEXT, each line of standard input is one.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  inkling classify --model critic \"What a good film.\" \"What a bad film.\"\n  \
                        inkling classify --model critic < reviews.txt"
)]
pub(super) struct Arguments {
    #[command(flatten)]
    model: Model,
    /// The texts
    text: Vec<String>,
    /// Print JSON, which this command always does
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    weights: Weights,
}

#[derive(Serialize)]
struct Line<'a> {
    label: &'a str,
    score: f32,
    #[serde(serialize_with = "scores")]
    scores: &'a Classification,
    logits: &'a [f32],
    truncated: bool,
}

/// The labels in the model's order.
fn scores<S: Serializer>(judgement: &Classification, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(judgement.scores.iter().map(|score| (&score.label, score.score)))
}

pub(super) fn main(arguments: Arguments) -> Result<ExitCode> {
    if arguments.text.is_empty() && io::stdin().is_terminal() {
        return Err(Mistake("give at least one text, or texts on standard input, one a line".into()).into());
    }
    let model = arguments.model.load(arguments.weights)?;
    let LoadedTask::Classify(classifier) = &model.task else {
        return Err(Mistake(format!("model {} is a generator: use `inkling generate`", model.name)).into());
    };
    let pool = ThreadPool::of_all_cores();
    let judge = |text: &str| -> Result<()> {
        let judgement = classifier.classify(&[text], &pool)?.remove(0);
        print_json(&Line {
            label: &judgement.label,
            score: judgement.score,
            scores: &judgement,
            logits: &judgement.logits,
            truncated: judgement.truncated,
        })
    };
    if arguments.text.is_empty() {
        for (number, line) in io::stdin().lock().lines().enumerate() {
            judge(&line.map_err(|error| Mistake(format!("standard input, line {}: {error}", number + 1)))?)?;
        }
    } else {
        for (number, text) in arguments.text.iter().enumerate() {
            judge(text).with_context(|| format!("text {}", number + 1))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
