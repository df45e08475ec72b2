//! The engine in headless Chromium, as the page runs it: a worker a model, one thread each.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::plan::Plan;
use super::record::Figure;
use crate::process::{self, output_of};
use crate::{engine, tools, workspace_root};

const DRIVER: &str = "crates/web/js/bench/drive.mjs";

/// What the part `page` says.
///
/// # Errors
/// If the engine does not build, or the browser fails.
pub(super) fn run(plan: &Plan, models: &Path) -> Result<Vec<Figure>> {
    let chromium = Chromium::new(models)?;
    let mut figures = chromium.decode(plan, plan.runs(), "page")?;
    figures.extend(chromium.kept(plan, "page")?);
    figures.extend(chromium.graph(plan, plan.runs(), "page")?);
    Ok(figures)
}

/// The browser, with the engine and the models that it is given.
pub(super) struct Chromium {
    engine: PathBuf,
    models: PathBuf,
}

impl Chromium {
    pub(super) fn new(models: &Path) -> Result<Chromium> {
        tools::chromium()?;
        Ok(Chromium { engine: engine::build(engine::Profile::Page)?, models: models.to_path_buf() })
    }

    /// GPT-2 in one worker.
    pub(super) fn decode(&self, plan: &Plan, runs: usize, id: &str) -> Result<Vec<Figure>> {
        let (answers, command) = self.answers("decode", plan, runs)?;
        let isa = answers.first().and_then(|answer| answer["isa"].as_str()).unwrap_or_default().to_owned();
        let figure = |name: &str, what: &str, unit: &str, field: &str, factor: f64| {
            let values = answers.iter().filter_map(|answer| answer[field].as_f64());
            Figure::new(
                format!("{id}/{name}"),
                format!("Inkling, GPT-2 in one worker: {what}"),
                unit,
                &command,
            )
            .with(values.map(|value| value * factor))
            .note(isa.clone())
        };
        Ok(vec![
            figure("prefill", "prompt of 64", "tokens/s", "prefill_tokens_per_s", 1.0),
            figure("decode", "continuation of 96", "tokens/s", "decode_tokens_per_s", 1.0),
            figure("load", "load of f32 safetensors over loopback", "ms", "load_ms", 1.0),
            figure("memory", "memory of its worker", "MB", "memory_bytes", 1e-6),
        ])
    }

    /// GPT-2 in one worker, from what an earlier visit has kept.
    fn kept(&self, plan: &Plan, id: &str) -> Result<Vec<Figure>> {
        let (answers, command) = self.answers("kept", plan, 1)?;
        let values = answers.iter().filter_map(|answer| answer["load_ms"].as_array()).flatten();
        let what = "Inkling, GPT-2 in one worker: load of what the browser has kept";
        Ok(vec![
            Figure::new(format!("{id}/kept"), what, "ms", &command).with(values.filter_map(Value::as_f64)),
        ])
    }

    /// The default graph, a worker a model.
    pub(super) fn graph(&self, plan: &Plan, runs: usize, id: &str) -> Result<Vec<Figure>> {
        let (answers, command) = self.answers("graph", plan, runs)?;
        let values = answers.iter().filter_map(|answer| answer["total_ms"].as_f64());
        let what = "Inkling, the graph, three workers: 45 new tokens each, two scores";
        Ok(vec![Figure::new(format!("{id}/total"), what, "ms", &command).with(values)])
    }

    fn answers(&self, what: &str, plan: &Plan, runs: usize) -> Result<(Vec<Value>, String)> {
        let options = json!({"runs": plan.rounds()}).to_string();
        let answers = (0..runs).map(|_| {
            let mut node = Command::new("node");
            node.arg(workspace_root().join(DRIVER))
                .arg(what)
                .arg(&self.engine)
                .arg(&self.models)
                .arg(&options);
            process::announce(&node);
            let output = output_of(&mut node)?;
            serde_json::from_str(&output)
                .with_context(|| format!("expected JSON from {DRIVER}, got {output}"))
        });
        let answers = answers.collect::<Result<_>>()?;
        Ok((answers, format!("node {DRIVER} {what} target/page/engine MODELS '{options}'")))
    }
}
