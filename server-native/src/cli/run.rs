//! `inkling run`: the graph on one sentence.

use std::{
    io::{self, IsTerminal, Read},
    process::ExitCode,
};

use anyhow::Result;
use clap::Args;
use inkling_engine::{
    graph::answer::{Answer, Row},
    protocol::{DEFAULT_SENTENCE, Event, FailureKind, Request, TextId},
};

use super::{
    complain,
    options::{Decoding, GraphAndModels},
    print, print_json,
};
use crate::{
    Mistake,
    host::{Host, Limits, MAX_BATCH_SIZE, Refused, Running},
    pool::cores,
};

/// Run the graph on a sentence: its continuations, each with its score
///
/// In a terminal the texts appear while they are written. Otherwise each row is printed when it is whole.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  inkling run \"I have an idea!\"\n  inkling run \"I have an idea!\" --json --seed 7\n  \
                        inkling run \"I have an idea!\" --models hub --events | head"
)]
pub(super) struct Arguments {
    /// The sentence; `-` reads it from standard input
    #[arg(default_value = DEFAULT_SENTENCE)]
    text: String,
    /// Print the rows as JSON, [{"generated", "score"}, ...], as the server does
    #[arg(long)]
    json: bool,
    /// With --json: the full answer, with labels, all scores, timings, seed and model hashes
    #[arg(long, requires = "json")]
    full: bool,
    /// Print what happens as it happens, a JSON object a line
    #[arg(long, conflicts_with = "json")]
    events: bool,
    #[command(flatten)]
    graph: GraphAndModels,
    #[command(flatten)]
    decoding: Decoding,
}

pub(super) fn main(arguments: Arguments) -> Result<ExitCode> {
    let graph = arguments.graph.graph()?;
    let loader = arguments.graph.loader(&graph)?;
    let request =
        Request { sentence: sentence(&arguments.text)?, parameters: arguments.decoding.parameters() };
    request.parameters.settings()?;
    let limits = Limits {
        timeout: None,
        max_concurrency: 1,
        max_batch_size: MAX_BATCH_SIZE as usize,
        threads: cores(),
    };
    let host = Host::start(graph, limits, loader)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    runtime.block_on(async {
        host.ready().await?;
        let running = host.run(request).map_err(|refused| match refused {
            Refused::Invalid(error) => anyhow::Error::new(error),
            Refused::Busy => anyhow::anyhow!("the graph is busy"),
        })?;
        let answer = if arguments.events {
            print_events(running).await?
        } else if arguments.json {
            let answer = running.finish().await;
            if arguments.full {
                print_json(&answer)?
            } else {
                print_json(&answer.pairs())?
            }
            answer
        } else if io::stdout().is_terminal() {
            Stage::default().play(running).await?
        } else {
            print_rows(running).await?
        };
        Ok(outcome(&answer))
    })
}

fn sentence(text: &str) -> Result<String> {
    if text != "-" {
        return Ok(text.into());
    }
    let mut bytes = Vec::new();
    io::stdin().lock().read_to_end(&mut bytes)?;
    let text = String::from_utf8(bytes).map_err(|error| {
        Mistake(format!("standard input is not UTF-8: see byte {}", error.utf8_error().valid_up_to()))
    })?;
    Ok(text.trim_end_matches(['\r', '\n']).into())
}

/// Names every failure on standard error; the status says whose they are.
fn outcome(answer: &Answer) -> ExitCode {
    let errors: Vec<_> = answer.rows.iter().filter_map(|row| row.error.as_ref()).collect();
    for error in &errors {
        complain(&format!("{}: {}", error.node, error.message));
    }
    match errors.as_slice() {
        [] => ExitCode::SUCCESS,
        errors if errors.iter().all(|error| error.kind == FailureKind::Invalid) => ExitCode::from(2),
        _ => ExitCode::from(1),
    }
}

async fn print_events(mut running: Running) -> Result<Answer> {
    while let Some(event) = running.next().await {
        print_json(&event)?;
    }
    Ok(running.answer().clone())
}

/// Prints each row when nothing more can come to it.
async fn print_rows(mut running: Running) -> Result<Answer> {
    let mut printed = Vec::new();
    while let Some(stamped) = running.next().await {
        if let Event::Score { source, .. } | Event::Failed { text: source, .. } = stamped.event {
            let row = running.answer().rows.iter().find(|row| row.text == source);
            if let Some(row) = row.filter(|row| !printed.contains(&row.text)) {
                print(&plain(row))?;
                printed.push(row.text.clone());
            }
        }
    }
    // Rows that no classifier looks at.
    for row in running.answer().rows.iter().filter(|row| !printed.contains(&row.text)) {
        print(&plain(row))?;
    }
    Ok(running.answer().clone())
}

fn plain(row: &Row) -> String {
    let text = row.generated.as_deref().unwrap_or_default();
    format!("{} · {}\n{text}\n\n", heading(row.text.as_ref()), verdict(row))
}

fn heading(text: Option<&TextId>) -> String {
    match text {
        None => "sentence".into(),
        Some(TextId { node, sequence: 0 }) => node.clone(),
        Some(TextId { node, sequence }) => format!("{node} #{}", sequence + 1),
    }
}

fn verdict(row: &Row) -> String {
    match (&row.label, row.score, &row.error) {
        (Some(label), Some(score), _) => format!("{label} {score:.4}"),
        (.., Some(error)) => format!("failed: {}", error.message),
        _ => "not scored".into(),
    }
}

/// A terminal: one text after the other, each while it is written; what the others write meanwhile waits.
#[derive(Default)]
struct Stage {
    /// The text that is on, and how many of its bytes are printed.
    on: Option<(TextId, usize)>,
    /// Texts that are printed with their verdict.
    over: Vec<TextId>,
    /// What each text says so far.
    texts: std::collections::BTreeMap<TextId, String>,
}

impl Stage {
    async fn play(mut self, mut running: Running) -> Result<Answer> {
        while let Some(stamped) = running.next().await {
            match &stamped.event {
                Event::Token { node, sequence, token } => {
                    let id = TextId { node: node.clone(), sequence: *sequence };
                    self.texts.entry(id).or_default().push_str(&token.text);
                }
                Event::Done { node, sequence, completion, .. } => {
                    let id = TextId { node: node.clone(), sequence: *sequence };
                    self.texts.insert(id, completion.clone());
                }
                _ => {}
            }
            self.show(running.answer(), false)?;
        }
        self.show(running.answer(), true)?;
        let (seed, time) = (running.answer().seed, running.answer().total_ms / 1000.0);
        print(&dim(&format!("seed {seed}, {time:.2} s\n")))?;
        Ok(running.answer().clone())
    }

    fn show(&mut self, answer: &Answer, at_end: bool) -> Result<()> {
        for row in &answer.rows {
            let Some(id) = &row.text else {
                if at_end {
                    print(&format!("{}\n{}\n\n", bold(&heading(None)), dim(&verdict(row))))?;
                }
                continue;
            };
            if self.over.contains(id) || self.on.as_ref().is_some_and(|(on, _)| on != id) {
                continue;
            }
            let text = self.texts.get(id).map(String::as_str).unwrap_or_default();
            let is_over = row.error.is_some() || row.score.is_some() || at_end;
            if text.is_empty() && !is_over {
                continue;
            }
            let printed = match &self.on {
                Some((_, printed)) => *printed,
                None => {
                    print(&format!("{}\n{}", bold(&heading(Some(id))), dim(&visible(&answer.sentence))))?;
                    0
                }
            };
            print(&visible(&text[printed.min(text.len())..]))?;
            self.on = Some((id.clone(), text.len()));
            if is_over {
                let speed = answer.nodes.iter().find(|report| report.node == id.node);
                let speed = speed.and_then(|report| report.tokens_per_second);
                let speed = speed.map(|speed| format!(", {speed:.0} tokens/s")).unwrap_or_default();
                print(&format!(
                    "\n{}\n\n",
                    dim(&format!("{}, {} tokens{speed}", verdict(row), row.new_tokens))
                ))?;
                self.over.push(id.clone());
                self.on = None;
            }
        }
        Ok(())
    }
}

/// The text without what would command the terminal.
fn visible(text: &str) -> String {
    let harmless = |c: char| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c };
    text.chars().map(harmless).collect()
}

fn bold(text: &str) -> String {
    format!("\x1b[1m{text}\x1b[0m")
}

fn dim(text: &str) -> String {
    format!("\x1b[2m{text}\x1b[0m")
}
