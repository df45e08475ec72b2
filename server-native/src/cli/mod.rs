//! The program `inkling`: one module a command.
//!
//! Results go to standard output, everything else to standard error. It ends with 0 when all went well, 1 when something
//! failed, 2 when the caller can put it right. A reader that closes standard output ends it quietly.

mod bars;
mod bench;
mod cache;
mod classify;
mod generate;
mod loss;
mod options;
mod run;
mod serve;
mod tokenize;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::Result;
use clap::{Parser, Subcommand};
use serde::Serialize;

use crate::Mistake;

/// Runs a graph of small language models: writers continue a sentence, a critic scores each continuation.
#[derive(Parser, Debug)]
#[command(name = "inkling", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Run(run::Arguments),
    Generate(generate::Arguments),
    Classify(classify::Arguments),
    Tokenize(tokenize::Arguments),
    Serve(serve::Arguments),
    Bench(bench::Arguments),
    Cache(cache::Arguments),
}

/// Reads the command line, does what it says, and gives the status to end with.
#[must_use]
pub fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|panic| {
        let reason = panic.payload_as_str().unwrap_or("no reason given");
        let place = panic.location().map(|place| format!(" at {place}")).unwrap_or_default();
        complain(&format!("internal error{place}: {reason}"));
    }));
    let arguments = Arguments::parse();
    inkling_engine::kernels::keep_activations();
    let ended = match arguments.command {
        Command::Run(arguments) => run::main(arguments),
        Command::Generate(arguments) => generate::main(arguments),
        Command::Classify(arguments) => classify::main(arguments),
        Command::Tokenize(arguments) => tokenize::main(&arguments),
        Command::Serve(arguments) => serve::main(arguments),
        Command::Bench(arguments) => bench::main(&arguments),
        Command::Cache(arguments) => cache::main(&arguments),
    };
    match ended {
        Ok(code) => code,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::from(if is_mistake(&error) { 2 } else { 1 })
        }
    }
}

/// One line on standard error.
fn complain(sentence: &str) {
    // Where standard error is closed, nobody is there to be told.
    let _ = writeln!(io::stderr(), "inkling: {}", sentence.replace('\n', " "));
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let kind =
        |cause: &(dyn std::error::Error + 'static)| cause.downcast_ref::<io::Error>().map(io::Error::kind);
    error.chain().any(|cause| kind(cause) == Some(io::ErrorKind::BrokenPipe))
}

fn is_mistake(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<Mistake>()
            || cause
                .downcast_ref::<inkling_engine::Error>()
                .is_some_and(inkling_engine::Error::is_callers_mistake)
    })
}

/// Writes a value as one line of JSON, at once.
fn print_json(value: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_string(value)?;
    line.push('\n');
    print(&line)
}

/// Writes text, at once.
fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn mistakes_are_told_from_failures() {
        assert!(is_mistake(&anyhow::Error::new(Mistake("x".into())).context("y")));
        assert!(is_mistake(&anyhow::Error::new(inkling_engine::Error::EmptyPrompt)));
        assert!(!is_mistake(&anyhow::anyhow!("x")));
        assert!(is_closed_pipe(&anyhow::Error::new(io::Error::from(io::ErrorKind::BrokenPipe))));
    }
}
