//! Criterion's benches of `crates/kernels`, read from the files that criterion leaves.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use super::native::{Inkling, cores};
use super::plan::Plan;
use super::record::Figure;
use crate::process::{self, run};

/// What the part `kernels` says.
///
/// # Errors
/// If a bench fails: each checks the bits of its kernels first.
pub(super) fn run_all(plan: &Plan, inkling: &Inkling) -> Result<Vec<Figure>> {
    let isa = inkling.isa()?;
    let token = rows(plan, "token", "")?;
    let kernels = rows(plan, "kernels", &format!("/{isa}$"))?;
    let reads: Vec<Figure> = token.iter().filter(|row| row.is_read()).map(|row| row.figure("")).collect();
    let mut figures = reads.clone();
    for row in token.iter().filter(|row| !row.is_read()) {
        let threads = row.name.rsplit('/').next().unwrap_or_default();
        let read = reads.iter().find(|read| read.id.ends_with(&format!("/{threads}")));
        figures.push(row.figure(&share(row, read, threads)));
    }
    let read = reads.first();
    figures.extend(kernels.iter().map(|row| row.figure(&share(row, read, "1"))));
    Ok(figures)
}

/// What part of the memory's bandwidth the bytes of a row come to.
fn share(row: &Row, read: Option<&Figure>, threads: &str) -> String {
    let (Some(read), true) = (read.map(Figure::median), row.is_bytes) else { return String::new() };
    let share = row.figure("").median() / read * 100.0;
    let plural = if threads == "1" { "" } else { "s" };
    format!("{share:.0} % of plain reads on {threads} thread{plural}")
}

/// Bandwidth of plain reads with all cores, GB/s.
pub(super) fn bandwidth(plan: &Plan, id: &str) -> Result<Figure> {
    let rows = rows(plan, "token", "^memory/")?;
    let row = rows.iter().find(|row| row.name.ends_with(&format!("/{}", cores())));
    let mut figure = row.context("expected a row of plain reads")?.figure("");
    figure.id = id.to_owned();
    Ok(figure)
}

/// A row of criterion's.
struct Row {
    name: String,
    /// Of an iteration: bytes, or elements.
    amount: f64,
    is_bytes: bool,
    /// Nanoseconds of an iteration, once a sample.
    times: Vec<f64>,
    command: String,
}

impl Row {
    fn is_read(&self) -> bool {
        self.name.starts_with("memory/read/")
    }

    /// Amounts a second. Rates of samples lie as their times do, so the median of one is that of the other.
    fn figure(&self, note: &str) -> Figure {
        let unit = if self.is_bytes { "GB/s" } else { "G elements/s" };
        Figure::new(format!("kernels/{}", self.name), self.name.clone(), unit, &self.command)
            .with(self.times.iter().map(|time| self.amount / time))
            .note(note)
    }
}

/// Runs those rows of a bench that `filter` fits.
fn rows(plan: &Plan, bench: &str, filter: &str) -> Result<Vec<Row>> {
    let home = Plan::scratch().join("criterion");
    if home.is_dir() {
        fs::remove_dir_all(&home).with_context(|| format!("removing {}", home.display()))?;
    }
    let (warm_up, time) = if plan.quick { ("0.1", "0.2") } else { ("0.3", "1") };
    let options = ["--noplot", "--warm-up-time", warm_up, "--measurement-time", time];
    let mut cargo = process::cargo("bench");
    cargo.args(["--package", "inkling-kernels", "--bench", bench, "--quiet", "--"]).args(options);
    if !filter.is_empty() {
        cargo.arg(filter);
    }
    run(cargo.env("CRITERION_HOME", &home))?;
    let command = format!("cargo bench -p inkling-kernels --bench {bench}");
    let mut folders = Vec::new();
    find_rows(&home, &mut folders)?;
    folders.sort();
    folders.iter().map(|folder| row(folder, &command)).collect()
}

/// The folders `new` of all rows.
fn find_rows(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if path.join("sample.json").is_file() && path.ends_with("new") {
            found.push(path);
        } else if path.is_dir() {
            find_rows(&path, found)?;
        }
    }
    Ok(())
}

fn row(folder: &Path, command: &str) -> Result<Row> {
    let json = |name: &str| -> Result<Value> {
        let path = folder.join(name);
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| path.display().to_string())
    };
    read_row(&json("benchmark.json")?, &json("sample.json")?, command)
        .with_context(|| format!("expected a row of criterion in {}", folder.display()))
}

fn read_row(benchmark: &Value, sample: &Value, command: &str) -> Option<Row> {
    let throughput = &benchmark["throughput"];
    let bytes = throughput["Bytes"].as_f64();
    let numbers = |name: &str| sample[name].as_array().into_iter().flatten().filter_map(Value::as_f64);
    Some(Row {
        name: benchmark["full_id"].as_str()?.into(),
        amount: bytes.or_else(|| throughput["Elements"].as_f64())?,
        is_bytes: bytes.is_some(),
        times: numbers("times").zip(numbers("iters")).map(|(time, iterations)| time / iterations).collect(),
        command: command.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_row_is_read_with_its_share_of_the_bandwidth() {
        let sample = json!({"iters": [1.0, 2.0, 4.0], "times": [10.0, 20.0, 80.0]});
        let benchmark = |name: &str, bytes: u64| json!({"full_id": name, "throughput": {"Bytes": bytes}});
        let read = read_row(&benchmark("memory/read/2", 400), &sample, "").unwrap();
        let row = read_row(&benchmark("token/decode/2", 300), &sample, "").unwrap();
        assert!(read.is_read() && !row.is_read());
        assert_eq!(row.figure("").values, [30.0, 30.0, 15.0]);
        assert_eq!(share(&row, Some(&read.figure("")), "2"), "75 % of plain reads on 2 threads");
        let elements = json!({"full_id": "x", "throughput": {"Elements": 20}});
        let row = read_row(&elements, &sample, "").unwrap();
        assert_eq!((row.figure("").unit.as_str(), row.figure("").median()), ("G elements/s", 2.0));
        assert_eq!(share(&row, Some(&read.figure("")), "2"), "");
    }
}
