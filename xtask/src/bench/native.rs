//! Models and the graph by the binary `inkling`, as a user runs it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::checkpoints::{BERT, DISTILGPT2, GPT2};
use super::plan::Plan;
use super::record::Figure;
use crate::process::{self, output_of, run};
use crate::workspace_root;

/// README's first example.
const DEMO_RUN: [&str; 7] = ["run", "I have an idea!", "--seed", "2", "--max-length", "48", "--json"];

/// Clients of the graph that are served at the same time.
pub(super) const CLIENTS: [usize; 3] = [1, 4, 8];

/// New tokens of each text of the graph: as many as the peers write.
const NEW_TOKENS: u64 = 45;

/// The prompt of the peers' scripts.
fn prompt() -> String {
    (0..64).map(|i| ((i * 37 + 11) % 50_000).to_string()).collect::<Vec<_>>().join(",")
}

/// The binary, built as it is shipped, and the models that it runs.
pub(super) struct Inkling {
    program: PathBuf,
    models: PathBuf,
}

/// Threads of a native figure: all cores.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

impl Inkling {
    /// Builds it.
    ///
    /// # Errors
    /// If it does not compile.
    pub(super) fn build(models: &Path) -> Result<Inkling> {
        run(process::cargo("build").args([
            "--release",
            "--package",
            "inkling-server",
            "--bin",
            "inkling",
            "--quiet",
        ]))?;
        let target = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| workspace_root().join("target"), PathBuf::from);
        let program = target.join("release").join(format!("inkling{}", std::env::consts::EXE_SUFFIX));
        Ok(Inkling { program, models: models.to_path_buf() })
    }

    /// Checks results; the answer says what.
    ///
    /// # Errors
    /// If one is not as it should be.
    pub(super) fn check(&self, _: &Plan) -> Result<Vec<String>> {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let readme = words(&std::fs::read_to_string(workspace_root().join("README.md"))?);
        let rows = self.json(&DEMO_RUN)?;
        for row in rows.as_array().into_iter().flatten() {
            let text = row["generated"].as_str().unwrap_or_default();
            ensure!(
                !text.is_empty() && readme.contains(&words(text)),
                "expected the texts of the demo graph that README.md shows, got {row}"
            );
        }
        let one = self.greedy(1)?;
        let all = self.greedy(cores())?;
        ensure!(one == all, "expected the same greedy ids on any number of threads, got {one:?} and {all:?}");
        let checks = vec![
            "the demo graph writes the texts that README.md shows".to_owned(),
            format!("GPT-2 at 8 bits continues with the same ids on 1 and {} threads: {one:?}", cores()),
        ];
        checks.iter().for_each(|check| println!("   checked: {check}"));
        Ok(checks)
    }

    /// The first greedy ids after the prompt of the peers' scripts.
    pub(super) fn greedy(&self, threads: usize) -> Result<Vec<u64>> {
        let (model, threads) = (self.model(GPT2), threads.to_string());
        let ids = prompt();
        let args = ["generate", "--model", &model, "--ids", &ids, "--greedy", "--max-new-tokens", "12"];
        let answer = self.json(&[args.as_slice(), &["--threads", &threads]].concat())?;
        let ids = answer["ids"].as_array().context("expected ids from `inkling generate`")?;
        ids.iter().map(|id| id.as_u64().context("an id is a number")).collect()
    }

    /// What the part `models` says.
    pub(super) fn models(&self, plan: &Plan) -> Result<Vec<Figure>> {
        let mut figures = Vec::new();
        let mut threads = vec![1, cores()];
        threads.dedup();
        for (name, title, model) in [("gpt2", "GPT-2", GPT2), ("distilgpt2", "DistilGPT-2", DISTILGPT2)] {
            for &threads in &threads {
                let bench = self.generator(plan, model, threads, true)?;
                let id = format!("models/{name}/{threads}");
                let of = format!("{title}, {threads} thread{}", if threads == 1 { "" } else { "s" });
                figures.push(bench.figure(format!("{id}/prefill"), format!("{of}: prompt of 64"), PREFILL));
                figures.push(bench.figure(
                    format!("{id}/decode"),
                    format!("{of}: continuation of 128"),
                    DECODE,
                ));
                if threads == cores() {
                    let id = format!("models/{name}/files");
                    let what = |what: &str| format!("{title} from safetensors: {what}");
                    figures.push(bench.figure(format!("{id}/load"), what("load"), LOAD));
                    figures.push(bench.figure(
                        format!("{id}/first_token"),
                        what("to the first token"),
                        FIRST_TOKEN,
                    ));
                    figures.push(bench.figure(format!("{id}/memory"), what("memory at its peak"), MEMORY));
                }
            }
            // The first load makes the packed copy.
            self.generator(plan, model, cores(), false)?;
            let bench = self.generator(plan, model, cores(), false)?;
            ensure!(
                bench.reports.iter().all(|report| report["load_from"] == "cache"),
                "expected {title} to be loaded from its packed copy: {:?}",
                bench.reports
            );
            let id = format!("models/{name}/cache");
            let what = |what: &str| format!("{title} from its packed copy: {what}");
            figures.push(bench.figure(format!("{id}/load"), what("load"), LOAD));
            figures.push(bench.figure(format!("{id}/first_token"), what("to the first token"), FIRST_TOKEN));
            figures.push(bench.figure(format!("{id}/memory"), what("memory at its peak"), MEMORY));
        }
        for &threads in &threads {
            let what =
                format!("BERT-base, {threads} thread{}: 128 tokens", if threads == 1 { "" } else { "s" });
            let bench = self.classifier(plan, threads)?;
            figures.push(bench.figure(format!("models/bert/{threads}/classify"), what, CLASSIFY));
        }
        Ok(figures)
    }

    /// A generator's figures.
    pub(super) fn generator(
        &self,
        plan: &Plan,
        model: &str,
        threads: usize,
        no_cache: bool,
    ) -> Result<Reports> {
        let (model, threads, rounds) = (self.model(model), threads.to_string(), plan.rounds().to_string());
        let args = ["bench", "--model", &model, "--threads", &threads, "--rounds", &rounds];
        let no_cache: &[&str] = if no_cache { &["--no-cache"] } else { &[] };
        self.reports(plan.runs(), &[args.as_slice(), no_cache, &["--json"]].concat())
    }

    /// BERT's figures.
    pub(super) fn classifier(&self, plan: &Plan, threads: usize) -> Result<Reports> {
        let (model, threads, rounds) =
            (self.model(BERT), threads.to_string(), (4 * plan.rounds()).to_string());
        let args = ["bench", "--model", &model, "--threads", &threads, "--prompt-tokens", "128"];
        self.reports(plan.runs(), &[args.as_slice(), &["--rounds", &rounds, "--no-cache", "--json"]].concat())
    }

    /// What the part `graph` says.
    pub(super) fn graph(&self, plan: &Plan) -> Result<Vec<Figure>> {
        let mut figures = Vec::new();
        for clients in CLIENTS {
            let bench = self.graph_of(plan, clients)?;
            let of = format!("{clients} client{}", if clients == 1 { "" } else { "s" });
            let id = format!("graph/{clients}");
            figures.push(bench.figure(format!("{id}/latency"), format!("{of}: a graph"), GRAPH));
            figures.push(bench.figure(format!("{id}/rate"), format!("{of}: graphs"), GRAPHS));
            let memory = format!("{of}: memory of the three models at its peak");
            figures.push(bench.figure(format!("{id}/memory"), memory, MEMORY));
        }
        Ok(figures)
    }

    /// The graph's figures with so many clients.
    pub(super) fn graph_of(&self, plan: &Plan, clients: usize) -> Result<Reports> {
        let (models, new_tokens) = (self.models.to_string_lossy(), NEW_TOKENS.to_string());
        let (clients, rounds) = (clients.to_string(), plan.rounds().to_string());
        let args =
            ["bench", "--graph", "--models", &models, "--new-tokens", &new_tokens, "--clients", &clients];
        let reports =
            self.reports(plan.runs(), &[args.as_slice(), &["--rounds", &rounds, "--json"]].concat())?;
        for report in &reports.reports {
            let new_tokens = report["new_tokens"].as_array().context("a graph's report has new tokens")?;
            ensure!(
                new_tokens.iter().all(|tokens| tokens.as_u64() == Some(NEW_TOKENS)),
                "expected {NEW_TOKENS} new tokens of each text, got {new_tokens:?}"
            );
        }
        Ok(reports)
    }

    /// The instruction set of the kernels.
    pub(super) fn isa(&self) -> Result<String> {
        let args = ["bench", "--model", "writer", "--rounds", "1", "--new-tokens", "2", "--json"];
        let report = self.json(&args)?;
        report["isa"].as_str().map(str::to_owned).context("a report names the instruction set")
    }

    fn model(&self, name: &str) -> String {
        self.models.join(name).to_string_lossy().into_owned()
    }

    fn reports(&self, runs: usize, args: &[&str]) -> Result<Reports> {
        let reports = (0..runs).map(|_| self.json(args)).collect::<Result<_>>()?;
        Ok(Reports { command: self.shown(args), reports })
    }

    /// Runs it; the answer is the JSON that it prints.
    fn json(&self, args: &[&str]) -> Result<Value> {
        let mut command = Command::new(&self.program);
        // Packed copies of its own, so that nobody's are touched.
        command.args(args).env("INKLING_CACHE_DIR", Plan::scratch().join("cache"));
        process::announce(&command);
        let output = output_of(&mut command)?;
        serde_json::from_str(&output).with_context(|| format!("expected JSON from `inkling`, got {output}"))
    }

    /// The command as one could type it.
    fn shown(&self, args: &[&str]) -> String {
        let line = format!("inkling {}", args.join(" "));
        line.replace(&*self.models.to_string_lossy(), "MODELS")
    }
}

/// A field of a report: its name, what it is multiplied with for the unit, and the unit.
type Field = (&'static str, f64, &'static str);

pub(super) const PREFILL: Field = ("prefill_tokens_per_s", 1.0, "tokens/s");
pub(super) const DECODE: Field = ("decode_tokens_per_s", 1.0, "tokens/s");
const LOAD: Field = ("load_ms", 1.0, "ms");
const FIRST_TOKEN: Field = ("first_token_ms", 1.0, "ms");
const MEMORY: Field = ("peak_rss_bytes", 1e-6, "MB");
pub(super) const CLASSIFY: Field = ("classify_ms", 1.0, "ms");
pub(super) const GRAPH: Field = ("graph_ms", 1.0, "ms");
pub(super) const GRAPHS: Field = ("graphs_per_s", 1.0, "graphs/s");

/// Reports of the same command.
pub(super) struct Reports {
    command: String,
    reports: Vec<Value>,
}

impl Reports {
    /// A field of all of them.
    pub(super) fn figure(&self, id: String, what: String, (field, factor, unit): Field) -> Figure {
        let values = self.reports.iter().filter_map(|report| report[field].as_f64());
        Figure::new(id, what, unit, &self.command).with(values.map(|value| value * factor))
    }

    /// These and later ones of the same command.
    pub(super) fn and(mut self, later: Reports) -> Reports {
        self.reports.extend(later.reports);
        self
    }
}
