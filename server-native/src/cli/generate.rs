//! `inkling generate`: one generator on one prompt.

use std::process::ExitCode;

use anyhow::Result;
use clap::{ArgGroup, Args};
use inkling_engine::{
    generate::{Generator, Prompt},
    graph::node::LoadedTask,
    kernels::Pool,
    model::gpt2::Cache,
    protocol::FinishReason,
};
use serde::Serialize;

use super::{
    options::{Decoding, Model, Weights},
    print_json,
};
use crate::{
    Mistake,
    host::random_seed,
    pool::{ThreadPool, cores},
};

/// Continue a prompt with one generator: a JSON object a continuation
///
/// {"ids": [new ids], "text": the new text, "finish_reason": "length" | "context" | "end_of_text" | "stop_string",
/// "seed": N}. A model without a tokenizer takes --ids and answers with "text": null.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("input").required(true).args(["prompt", "ids"]))]
#[command(
    after_help = "Examples:\n  inkling generate --model writer --prompt \"Once upon a time\" --seed 7\n  \
                        inkling generate --model ./gpt2 --ids 464,3290 --greedy --max-new-tokens 8 --logits --dtype f32"
)]
pub(super) struct Arguments {
    #[command(flatten)]
    model: Model,
    /// The text to continue
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// The token ids to continue
    #[arg(long, value_name = "ID,ID,...", value_delimiter = ',')]
    ids: Vec<u32>,
    /// Threads for the kernels [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    threads: Option<u32>,
    /// Add the logits after the prompt's last position: one number for each token of the vocabulary
    #[arg(long)]
    logits: bool,
    /// Print JSON, which this command always does
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    weights: Weights,
    #[command(flatten)]
    decoding: Decoding,
}

#[derive(Serialize)]
struct Continuation<'a> {
    ids: &'a [u32],
    text: Option<&'a str>,
    finish_reason: Option<FinishReason>,
    seed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    logits: Option<&'a [f32]>,
}

pub(super) fn main(arguments: Arguments) -> Result<ExitCode> {
    let mut parameters = arguments.decoding.parameters();
    parameters.settings()?;
    let model = arguments.model.load(arguments.weights)?;
    let LoadedTask::Generate(generator) = &model.task else {
        let reason = format!("model {} is a classifier: use `inkling classify`", model.name);
        return Err(Mistake(reason).into());
    };
    let pool = ThreadPool::new(arguments.threads.map_or_else(cores, |threads| threads as usize));
    let prompt = match &arguments.prompt {
        Some(text) => Prompt::Text(text),
        None => Prompt::Ids(&arguments.ids),
    };
    let seed = *parameters.seed.get_or_insert_with(random_seed);
    let mut decoding = generator.start(prompt, &parameters, 0)?;
    let logits = match arguments.logits {
        true => Some(logits_after(generator, prompt, &pool)?),
        false => None,
    };
    while decoding.step(&pool)?.is_some() {}
    for sequence in decoding.generation().sequences() {
        print_json(&Continuation {
            ids: sequence.new_ids(),
            text: generator.tokenizer().map(|_| sequence.text()),
            finish_reason: sequence.finish_reason(),
            seed,
            logits: logits.as_deref(),
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

fn logits_after(generator: &Generator, prompt: Prompt<'_>, pool: &dyn Pool) -> Result<Vec<f32>> {
    let ids = generator.prompt_ids(prompt)?;
    let mut cache = Cache::new(generator.model().config(), ids.len());
    Ok(generator.model().forward(&mut [(&ids, &mut cache)], pool)?.into_values())
}
