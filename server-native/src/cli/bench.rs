//! `inkling bench`: how fast a model or the graph is on this machine.
//!
//! What is timed is what a user gets: the generation loop with sampling and text, the classifier on ids, the graph by
//! the host that `run` and `serve` use. Before anything is timed the results are checked, so that no figure comes from
//! work that was not done.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use clap::{ArgGroup, Args};
use inkling_engine::{
    classify::{Classifier, Encoded},
    generate::{Generator, Prompt},
    graph::{Graph, node::LoadedTask},
    kernels::{self, Isa, Pool},
    protocol::{DEFAULT_SENTENCE, Parameters, Request},
};
use serde::Serialize;

use super::{
    loss::Loss,
    options::{Weights, node_loader},
    print, print_json,
};
use crate::{
    Mistake,
    host::{Host, Limits, MAX_BATCH_SIZE, Refused},
    load::{FromFiles, Origin, load},
    models::{Located, Part, Source, locate},
    pool::{ThreadPool, cores},
};

/// Measure how fast a model, or the whole graph, runs here
///
/// A generator: tokens a second of a prompt (prefill) and of the continuation (decode). A classifier: one text. --graph:
/// the default graph, two continuations and their scores. Figures are medians over the rounds; results are checked
/// before anything is timed.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("what").required(true).args(["model", "graph"]))]
#[command(after_help = "Examples:\n  inkling bench --model ./gpt2 --dtype q8 --threads 2 --json\n  \
                        inkling bench --graph --models ./models --new-tokens 45")]
pub(super) struct Arguments {
    /// A folder or .gguf file; a demo model (writer, writer-distilled, critic); or a hub id such as
    /// openai-community/gpt2
    #[arg(long, value_name = "DIR_OR_ID")]
    model: Option<String>,
    /// The default graph instead of one model
    #[arg(long)]
    graph: bool,
    /// With --graph: where models come from, as for `run`
    #[arg(long, value_name = "demo|hub|DIR", default_value = "demo", conflicts_with = "model")]
    models: Source,
    /// With --graph: how many ask at the same time, each --rounds times, one after the other
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "model", value_parser = positive())]
    clients: u32,
    /// With --graph: texts that a model writes at the same time, as for `serve`
    #[arg(long, value_name = "N", default_value_t = MAX_BATCH_SIZE, conflicts_with = "model", value_parser = positive())]
    max_batch_size: u32,
    #[command(flatten)]
    weights: Weights,
    /// Threads for the kernels [default: one for each core]
    #[arg(long, value_name = "N", value_parser = positive())]
    threads: Option<u32>,
    /// Tokens of the prompt, or of the text that is classified
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = positive())]
    prompt_tokens: u32,
    /// Tokens that each generator adds
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = positive())]
    new_tokens: u32,
    /// Continuations of the prompt, decoded together
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive())]
    sequences: u32,
    /// With --model: instead of times, what the weights' form loses against f32 on this text: a generator reads it in
    /// windows of 128 tokens, a classifier takes each line as a text
    #[arg(long, value_name = "FILE", conflicts_with = "graph")]
    loss: Option<PathBuf>,
    /// How often each figure is taken
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = positive())]
    rounds: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn positive() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..)
}

/// What is the same in every report.
#[derive(Serialize)]
struct Common {
    model: String,
    dtype: &'static str,
    threads: usize,
    isa: String,
    rounds: usize,
    /// Most memory that the process has held so far, where the system says.
    peak_rss_bytes: Option<u64>,
}

#[derive(Serialize)]
struct GeneratorReport {
    #[serde(flatten)]
    common: Common,
    prompt_tokens: usize,
    /// Of all sequences together.
    new_tokens: usize,
    sequences: usize,
    prefill_tokens_per_s: f64,
    /// Tokens of all sequences together.
    decode_tokens_per_s: f64,
    load_ms: f64,
    load_from: &'static str,
    /// From the beginning of the load to the first new token.
    first_token_ms: f64,
}

#[derive(Serialize)]
struct ClassifierReport {
    #[serde(flatten)]
    common: Common,
    text_tokens: usize,
    classify_ms: f64,
    load_ms: f64,
    load_from: &'static str,
}

/// How long a load took, and from where it was.
#[derive(Clone, Copy)]
struct Load {
    time: Duration,
    origin: Origin,
}

impl Load {
    fn milliseconds(self) -> f64 {
        self.time.as_secs_f64() * 1000.0
    }

    fn from(self) -> &'static str {
        match self.origin {
            Origin::Files => "files",
            Origin::Cache => "cache",
        }
    }
}

#[derive(Serialize)]
struct GraphReport {
    #[serde(flatten)]
    common: Common,
    clients: usize,
    /// New tokens of each text.
    new_tokens: Vec<usize>,
    /// One request from its start to its last score.
    graph_ms: f64,
    graphs_per_s: f64,
    load_ms: f64,
}

pub(super) fn main(arguments: &Arguments) -> Result<ExitCode> {
    ensure!(
        kernels::fingerprint() == kernels::FINGERPRINT,
        "the kernels for {:?} compute other bits than they should on this machine",
        Isa::active()
    );
    match &arguments.model {
        Some(model) => bench_model(arguments, model)?,
        None => bench_graph(arguments)?,
    }
    Ok(ExitCode::SUCCESS)
}

impl Arguments {
    fn threads(&self) -> usize {
        self.threads.map_or_else(cores, |threads| threads as usize)
    }

    /// What every report begins with; called after the last round.
    fn common(&self, model: &str) -> Common {
        Common {
            model: model.into(),
            dtype: self.weights.name(),
            threads: self.threads(),
            isa: format!("{:?}", Isa::active()),
            rounds: self.rounds as usize,
            peak_rss_bytes: peak_rss_bytes(),
        }
    }

    /// `run` as often as asked for; the median of what it takes.
    fn median(&self, mut run: impl FnMut() -> Result<Duration>) -> Result<f64> {
        let times: Vec<Duration> = (0..self.rounds).map(|_| run()).collect::<Result<_>>()?;
        Ok(median(times))
    }

    /// Prints the report as asked for.
    fn print(&self, report: &impl Serialize) -> Result<()> {
        if self.json {
            return print_json(report);
        }
        let serde_json::Value::Object(fields) = serde_json::to_value(report)? else {
            unreachable!("a report is a struct")
        };
        for (name, value) in fields {
            let value = match value.as_f64().filter(|_| value.is_f64()) {
                Some(number) if number.abs() < 10.0 => format!("{number:.6}"),
                Some(number) => format!("{number:.1}"),
                None => value.to_string().trim_matches('"').to_string(),
            };
            print(&format!("{name:22} {value}\n"))?;
        }
        Ok(())
    }
}

fn loss(arguments: &Arguments, located: &Located, text: &Path) -> Result<Loss> {
    let text = fs::read_to_string(text)
        .map_err(|error| Mistake(format!("cannot read the text {}: {error}", text.display())))?;
    Loss::measure(located, arguments.weights.load_options(), &text, &ThreadPool::new(arguments.threads()))
}

/// The median, in milliseconds.
fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    let middle = times.len() / 2;
    let median = if times.len() % 2 == 1 { times[middle] } else { (times[middle - 1] + times[middle]) / 2 };
    median.as_secs_f64() * 1000.0
}

fn bench_model(arguments: &Arguments, name: &str) -> Result<()> {
    let located = locate(name, Part::Model, &mut |_, _, _| ())?;
    if let Some(text) = &arguments.loss {
        return arguments.print(&loss(arguments, &located, text)?);
    }
    let began = Instant::now();
    let (options, cache) = (arguments.weights.load_options(), arguments.weights.cache());
    let FromFiles { model, origin, .. } = load(&located, options, cache.as_ref(), &mut |_, _, _| ())?;
    let loaded = Load { time: began.elapsed(), origin };
    let pool = ThreadPool::new(arguments.threads());
    match model.task {
        LoadedTask::Generate(generator) => {
            bench_generator(arguments, &model.name, &generator, &pool, began, loaded)
        }
        LoadedTask::Classify(classifier) => {
            bench_classifier(arguments, &model.name, &classifier, &pool, loaded)
        }
    }
}

/// `n` ids below `vocab_size`, spread over the vocabulary; the first and last ids, which are often special, are left out.
fn ids(n: usize, vocab_size: usize) -> Vec<u32> {
    let spread = vocab_size.saturating_sub(1200).max(1) as u64;
    (0..n as u64).map(|i| ((1000 + i * 7919 % spread) % vocab_size as u64) as u32).collect()
}

fn bench_generator(
    arguments: &Arguments,
    name: &str,
    generator: &Generator,
    pool: &dyn Pool,
    began: Instant,
    loaded: Load,
) -> Result<()> {
    let (prompt_tokens, sequences) = (arguments.prompt_tokens as usize, arguments.sequences as usize);
    let prompt = ids(prompt_tokens, generator.model().config().vocab_size);
    // The first token may well be slower than those after it, and it is the first that a user waits for.
    let first = generate(generator, &prompt, 1, 1, Some(0), pool)?;
    let first_token = began.elapsed();
    ensure!(first.ids[0].len() == 1, "expected one new token, got {:?}", first.ids);
    check_generator(generator, &prompt, pool)?;

    let new_tokens = arguments.new_tokens as usize;
    let run = || generate(generator, &prompt, new_tokens, sequences, Some(0), pool);
    let expected = run()?.ids;
    // A text may end before its limit: what counts are the tokens that came.
    let decoded = expected.iter().map(|ids| ids.len() - 1).sum::<usize>();
    ensure!(decoded > 0 || new_tokens == 1, "the model ends its text with the first token: nothing to time");
    let mut decodes = Vec::new();
    let prefill_ms = arguments.median(|| {
        let Generated { ids, prefill, decode } = run()?;
        ensure!(ids == expected, "the same seed gave other tokens: {expected:?}, then {ids:?}");
        decodes.push(decode);
        Ok(prefill)
    })?;
    arguments.print(&GeneratorReport {
        common: arguments.common(name),
        prompt_tokens,
        new_tokens: decoded + sequences,
        sequences,
        prefill_tokens_per_s: prompt_tokens as f64 * 1000.0 / prefill_ms,
        decode_tokens_per_s: decoded as f64 * 1000.0 / median(decodes),
        load_ms: loaded.milliseconds(),
        load_from: loaded.from(),
        first_token_ms: first_token.as_secs_f64() * 1000.0,
    })
}

/// A continuation and its times: the prompt to the first token, and the tokens after it.
struct Generated {
    ids: Vec<Vec<u32>>,
    prefill: Duration,
    decode: Duration,
}

/// Continues `prompt` with draws from `seed`, or greedily without one.
fn generate(
    generator: &Generator,
    prompt: &[u32],
    new_tokens: usize,
    sequences: usize,
    seed: Option<u64>,
    pool: &dyn Pool,
) -> Result<Generated> {
    let parameters = Parameters {
        max_new_tokens: Some(new_tokens),
        num_return_sequences: Some(sequences),
        do_sample: Some(seed.is_some()),
        seed,
        ..Parameters::default()
    };
    let began = Instant::now();
    let mut decoding = generator.start(Prompt::Ids(prompt), &parameters, 0)?;
    // A long prompt takes several steps.
    while decoding.generation().sequences()[0].new_ids().is_empty() {
        decoding.step(pool)?;
    }
    let prefill = began.elapsed();
    while decoding.step(pool)?.is_some() {}
    let decode = began.elapsed() - prefill;
    let ids = decoding.generation().sequences().iter().map(|sequence| sequence.new_ids().to_vec()).collect();
    Ok(Generated { ids, prefill, decode })
}

/// Checks that the cache changes nothing: every greedy token follows from the text before it alone.
fn check_generator(generator: &Generator, prompt: &[u32], pool: &dyn Pool) -> Result<()> {
    const TOKENS: usize = 4;
    let cached = generate(generator, prompt, TOKENS, 1, None, pool)?.ids.remove(0);
    let mut text = prompt.to_vec();
    for &id in &cached {
        let uncached = generate(generator, &text, 1, 1, None, pool)?.ids.remove(0);
        ensure!(uncached == [id], "with the cache token {} is {id}, without it {uncached:?}", text.len());
        text.push(id);
    }
    Ok(())
}

fn bench_classifier(
    arguments: &Arguments,
    name: &str,
    classifier: &Classifier,
    pool: &dyn Pool,
    loaded: Load,
) -> Result<()> {
    let text_tokens = arguments.prompt_tokens as usize;
    let vocab_size = classifier.model().config().vocab_size;
    let text = Encoded { ids: ids(text_tokens, vocab_size), truncated: false };
    let other = Encoded { ids: ids(text_tokens.div_ceil(2), vocab_size), truncated: false };
    let expected = classifier.judge(std::slice::from_ref(&text), pool)?;
    let together = classifier.judge(&[other, text.clone()], pool)?;
    ensure!(
        expected[0] == together[1],
        "by itself a text gets {:?}, in a batch {:?}",
        expected[0].logits,
        together[1].logits
    );
    let classify_ms = arguments.median(|| {
        let began = Instant::now();
        let got = classifier.judge(std::slice::from_ref(&text), pool)?;
        let time = began.elapsed();
        ensure!(got == expected, "the same text got {:?}, then {:?}", expected[0].logits, got[0].logits);
        Ok(time)
    })?;
    arguments.print(&ClassifierReport {
        common: arguments.common(name),
        text_tokens,
        classify_ms,
        load_ms: loaded.milliseconds(),
        load_from: loaded.from(),
    })
}

fn bench_graph(arguments: &Arguments) -> Result<()> {
    let graph = Graph::default();
    let loader = node_loader(arguments.models.clone(), arguments.weights, &graph)?;
    let clients = arguments.clients as usize;
    let limits = Limits {
        timeout: None,
        max_concurrency: clients,
        max_batch_size: arguments.max_batch_size as usize,
        threads: arguments.threads(),
    };
    let began = Instant::now();
    let host = Host::start(graph, limits, loader)?;
    let request = Request {
        sentence: DEFAULT_SENTENCE.into(),
        parameters: Parameters {
            max_new_tokens: Some(arguments.new_tokens as usize),
            seed: Some(0),
            ..Parameters::default()
        },
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    runtime.block_on(async {
        host.ready().await?;
        let load_ms = began.elapsed().as_secs_f64() * 1000.0;
        let run = async || {
            let began = Instant::now();
            let running = host.run(request.clone()).map_err(|refused| match refused {
                Refused::Invalid(error) => anyhow::Error::new(error),
                Refused::Busy => anyhow::anyhow!("the graph is busy"),
            })?;
            let answer = running.finish().await;
            if let Some(error) = answer.rows.iter().find_map(|row| row.error.as_ref()) {
                anyhow::bail!("node `{}` failed: {}", error.node, error.message);
            }
            Ok((answer, began.elapsed()))
        };
        let expected = run().await?.0;
        let client = async || {
            let mut times = Vec::new();
            for _ in 0..arguments.rounds {
                let (answer, time) = run().await?;
                ensure!(
                    answer.pairs() == expected.pairs(),
                    "the same seed gave other rows: {:?}, then {:?}",
                    expected.pairs(),
                    answer.pairs()
                );
                times.push(time);
            }
            Ok(times)
        };
        let began = Instant::now();
        let times = futures_util::future::try_join_all((0..clients).map(|_| client())).await?.concat();
        let all = began.elapsed();
        let graphs = f64::from(arguments.rounds * arguments.clients);
        arguments.print(&GraphReport {
            common: arguments.common(&format!("graph `{}`", host.graph().name)),
            clients,
            new_tokens: expected.rows.iter().map(|row| row.new_tokens).collect(),
            graph_ms: median(times),
            graphs_per_s: graphs / all.as_secs_f64(),
            load_ms,
        })
    })
}

/// Most memory that this process has held, where the system says: Linux does, in `/proc`.
fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        let times = |ms: &[u64]| ms.iter().map(|&ms| Duration::from_millis(ms)).collect();
        assert!((median(times(&[9, 1, 5])) - 5.0).abs() < 1e-9);
        assert!((median(times(&[8, 1, 4, 6])) - 5.0).abs() < 1e-9);
    }

    #[test]
    fn ids_stay_within_any_vocabulary() {
        for vocab_size in [1, 2, 500, 1200, 4096, 50_257] {
            assert!(ids(300, vocab_size).iter().all(|&id| (id as usize) < vocab_size), "{vocab_size}");
        }
    }
}
