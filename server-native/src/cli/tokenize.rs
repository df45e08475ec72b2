//! `inkling tokenize`: texts to ids, and back.

use std::{
    io::{self, BufRead},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::Args;

use super::{bars::Bars, options::Model, print_json};
use crate::{
    Mistake,
    load::load_tokenizer,
    models::{Part, locate},
};

/// Turn texts into token ids, or ids into texts, one a line
///
/// Reads JSON strings from standard input, one a line, and writes arrays of ids; with --decode the other way round. Needs
/// only the tokenizer's files.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  echo '\"I have an idea!\"' | inkling tokenize --model writer\n  \
                        echo '[40, 423]' | inkling tokenize --model ./gpt2 --decode")]
pub(super) struct Arguments {
    #[command(flatten)]
    model: Model,
    /// Turn ids into texts
    #[arg(long)]
    decode: bool,
    /// Without the special tokens that the model wants around a text; with --decode, leave special tokens out
    #[arg(long)]
    no_special: bool,
    /// Print JSON, which this command always does
    #[arg(long)]
    json: bool,
}

pub(super) fn main(arguments: &Arguments) -> Result<ExitCode> {
    let bars = Bars::new();
    let located =
        locate(&arguments.model.model, Part::Tokenizer, &mut bars.fetching(&arguments.model.model))?;
    let tokenizer = load_tokenizer(&located)?;
    for (number, line) in io::stdin().lock().lines().enumerate() {
        let place = || format!("standard input, line {}", number + 1);
        let line = line.map_err(|error| Mistake(format!("{}: {error}", place())))?;
        if line.trim().is_empty() {
            continue;
        }
        let wrong = |expected: &str, error| Mistake(format!("{}: expected {expected}: {error}", place()));
        if arguments.decode {
            let ids: Vec<u32> =
                serde_json::from_str(&line).map_err(|error| wrong("a JSON array of token ids", error))?;
            print_json(&tokenizer.decode(&ids, arguments.no_special).with_context(place)?)?;
        } else {
            let text: String = serde_json::from_str(&line).map_err(|error| wrong("a JSON string", error))?;
            print_json(&tokenizer.encode(&text, !arguments.no_special).with_context(place)?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
