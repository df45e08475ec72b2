//! The dated record: figures, what they were taken on and with, and what they mean beside the goals.
//!
//! `DATE-CPU.json` holds everything and `DATE-CPU.md` is written from it, so that parts may be run one by one: a part that
//! is run again on the same day replaces its figures.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::goals::{self, Goal};
use super::plan::{Part, Plan};
use crate::process::output_of;
use crate::workspace_root;

const FOLDER: &str = "benches/record";

/// A quantity, taken once or several times.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Figure {
    /// What finds it again, such as `models/gpt2/2/decode`.
    pub(super) id: String,
    /// What it is, for people.
    pub(super) what: String,
    pub(super) unit: String,
    pub(super) values: Vec<f64>,
    /// What says it, as one could type it.
    pub(super) command: String,
    /// What to know besides.
    pub(super) note: String,
}

impl Figure {
    pub(super) fn new(id: impl Into<String>, what: impl Into<String>, unit: &str, command: &str) -> Figure {
        let (id, what, unit, command) = (id.into(), what.into(), unit.to_owned(), command.to_owned());
        Figure { id, what, unit, values: Vec::new(), command, note: String::new() }
    }

    pub(super) fn with(mut self, values: impl IntoIterator<Item = f64>) -> Figure {
        self.values.extend(values);
        self
    }

    pub(super) fn note(mut self, note: impl Into<String>) -> Figure {
        self.note = note.into();
        self
    }

    /// The middle value; of an even number the mean of the two in the middle.
    pub(super) fn median(&self) -> f64 {
        let mut values = self.values.clone();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        match values.len() {
            0 => f64::NAN,
            n if n % 2 == 1 => values[middle],
            _ => f64::midpoint(values[middle - 1], values[middle]),
        }
    }

    /// `31.4 (30.9 to 32.0)`.
    fn spread(&self) -> String {
        if self.values.len() < 2 {
            return show(self.median());
        }
        let low = self.values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = self.values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        format!("{} ({} to {})", show(self.median()), show(low), show(high))
    }

    pub(super) fn line(&self) -> String {
        let note = if self.note.is_empty() { String::new() } else { format!("; {}", self.note) };
        format!("{}: {} {}{note}", self.what, self.spread(), self.unit)
    }

    fn to_json(&self) -> Value {
        let Figure { id, what, unit, values, command, note } = self;
        json!({"id": id, "what": what, "unit": unit, "values": values, "command": command, "note": note})
    }

    fn from_json(value: &Value) -> Option<Figure> {
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        let values = value["values"].as_array()?.iter().map(Value::as_f64).collect::<Option<_>>()?;
        let (id, what, unit) = (text("id")?, text("what")?, text("unit")?);
        Some(Figure { id, what, unit, values, command: text("command")?, note: text("note")? })
    }
}

/// A number with three digits or more.
pub(super) fn show(x: f64) -> String {
    match x.abs() {
        y if y >= 100.0 => format!("{x:.0}"),
        y if y >= 10.0 => format!("{x:.1}"),
        _ => format!("{x:.2}"),
    }
}

/// A day's figures on this machine.
#[derive(Debug)]
pub(super) struct Record {
    date: String,
    cpu: String,
    /// What and what of: cores, memory, versions.
    machine: Vec<(String, String)>,
    checks: Vec<String>,
    parts: Vec<Taken>,
}

/// The figures of a part, and when they were taken.
#[derive(Debug)]
struct Taken {
    part: String,
    at: String,
    figures: Vec<Figure>,
}

impl Record {
    /// Today's, with the figures that it has.
    ///
    /// # Errors
    /// If there is one that cannot be read.
    pub(super) fn of_today(plan: &Plan) -> Result<Record> {
        let date = output_of(Command::new("date").arg("+%Y-%m-%d"))?;
        let cpu = cpu();
        let mut record = Record { date, cpu, machine: machine(plan), checks: Vec::new(), parts: Vec::new() };
        let path = record.path().with_extension("json");
        if path.is_file() {
            let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            let value: Value = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
            record.parts = parts(&value)
                .with_context(|| format!("expected {} to be a record of this command", path.display()))?;
        }
        Ok(record)
    }

    pub(super) fn path(&self) -> PathBuf {
        workspace_root().join(FOLDER).join(format!("{}-{}.md", self.date, slug(&self.cpu)))
    }

    /// What was checked before anything was timed.
    pub(super) fn checks(&mut self, checks: Vec<String>) {
        self.checks = checks;
    }

    /// Takes a part's new figures in place of its old ones.
    pub(super) fn take(&mut self, part: Part, figures: Vec<Figure>) {
        let at = output_of(Command::new("date").arg("+%H:%M")).unwrap_or_default();
        self.parts.retain(|taken| taken.part != part.name());
        self.parts.push(Taken { part: part.name().into(), at, figures });
    }

    pub(super) fn figure(&self, id: &str) -> Option<&Figure> {
        self.parts.iter().flat_map(|taken| &taken.figures).find(|figure| figure.id == id)
    }

    pub(super) fn write(&self) -> Result<()> {
        let path = self.path();
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        let json = serde_json::to_string_pretty(&self.to_json())? + "\n";
        fs::write(path.with_extension("json"), json)
            .and_then(|()| fs::write(&path, self.to_markdown(&goals::judge(self))))
            .with_context(|| format!("writing {}", path.display()))
    }

    fn to_json(&self) -> Value {
        let figures = |taken: &Taken| taken.figures.iter().map(Figure::to_json).collect::<Vec<_>>();
        let parts: Vec<Value> = self
            .parts
            .iter()
            .map(|taken| json!({"part": taken.part, "at": taken.at, "figures": figures(taken)}))
            .collect();
        let machine: serde_json::Map<String, Value> =
            self.machine.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        json!({"date": self.date, "cpu": self.cpu, "machine": machine, "checks": self.checks, "parts": parts})
    }

    fn to_markdown(&self, goals: &[Goal]) -> String {
        let mut text = format!("# {}, {}\n\n", self.date, self.cpu);
        text.push_str(
            "Written by `cargo xtask bench`. Figures are medians, with the least and the most beside them where a figure \
             was taken\nseveral times. MODELS, PEERS and SCRIPTS stand for folders: the checkpoints, where the peers are \
             installed, and the\nscripts that run them.\n\n",
        );
        for (name, value) in &self.machine {
            writeln!(text, "- {name}: {value}").expect("writing to a String cannot fail");
        }
        if !goals.is_empty() {
            text.push_str("\n## Goals\n\n| | goal | measured | met |\n|---|---|---|---|\n");
            for Goal { what, goal, measured, is_met } in goals {
                let met = if *is_met { "yes" } else { "no" };
                writeln!(text, "| {what} | {goal} | {measured} | {met} |").expect("as above");
            }
        }
        for Taken { part, at, figures } in &self.parts {
            let what = Part::of_name(part).map_or("", Part::what);
            write!(text, "\n## {part}: {what} (at {at})\n\n").expect("as above");
            text.push_str("| | | | command |\n|---|---|---|---|\n");
            for figure in figures {
                let Figure { what, unit, command, note, .. } = figure;
                let spread = figure.spread();
                writeln!(text, "| {what} | {spread} {unit} | {note} | `{command}` |").expect("as above");
            }
        }
        if !self.checks.is_empty() {
            text.push_str("\n## Checked before anything was timed\n\n");
            for check in &self.checks {
                writeln!(text, "- {check}").expect("as above");
            }
        }
        text
    }
}

fn parts(value: &Value) -> Option<Vec<Taken>> {
    let part = |value: &Value| {
        let figures = value["figures"].as_array()?.iter().map(Figure::from_json).collect::<Option<_>>()?;
        Some(Taken { part: value["part"].as_str()?.into(), at: value["at"].as_str()?.into(), figures })
    };
    value["parts"].as_array()?.iter().map(part).collect()
}

/// The processor's name, where the system says it.
fn cpu() -> String {
    let linux = || processor(&fs::read_to_string("/proc/cpuinfo").ok()?);
    let mac = || output_of(Command::new("sysctl").args(["-n", "machdep.cpu.brand_string"])).ok();
    linux().or_else(mac).unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

/// The name in `/proc/cpuinfo`, with family and model where they stand: a virtual machine may call processors of several
/// generations by one name.
fn processor(text: &str) -> Option<String> {
    let name = value_of(text, "model name")?;
    Some(match (value_of(text, "cpu family"), value_of(text, "model")) {
        (Some(family), Some(model)) => format!("{name} (family {family}, model {model})"),
        _ => name.to_owned(),
    })
}

/// What stands behind `name` and a colon, in the first line that begins so: files in `/proc` are written like that.
fn value_of<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut rows = text.lines().filter_map(|line| line.split_once(':'));
    rows.find(|(found, _)| found.trim() == name).map(|(_, value)| value.trim())
}

fn slug(name: &str) -> String {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-").to_lowercase()
}

fn machine(plan: &Plan) -> Vec<(String, String)> {
    let mut rows: Vec<(String, String)> = Vec::new();
    let mut row = |name: &str, value: Option<String>| {
        rows.extend(value.filter(|value| !value.is_empty()).map(|value| (name.to_owned(), value)));
    };
    let said = |program: &str, args: &[&str]| output_of(Command::new(program).args(args)).ok();
    let file = |path: &str| fs::read_to_string(path).ok();
    row("cores", std::thread::available_parallelism().ok().map(|cores| cores.to_string()));
    row("instruction sets", file("/proc/cpuinfo").map(|text| instruction_sets(&text)));
    row("memory", file("/proc/meminfo").and_then(|text| memory(&text)));
    row("system", file("/etc/os-release").and_then(|text| os_name(&text)));
    let commit = said("git", &["-C", &workspace_root().to_string_lossy(), "rev-parse", "--short=10", "HEAD"]);
    row("Inkling", commit.map(|commit| format!("{}, commit {commit}", env!("CARGO_PKG_VERSION"))));
    row("compiler", said("rustc", &["--version"]));
    row("Node", said("node", &["--version"]));
    row("Chromium", said("chromium", &["--version"]));
    if let Some(peers) = &plan.peers {
        row("peers", Some(peer_versions(peers).join(", ")));
    }
    rows
}

fn instruction_sets(cpuinfo: &str) -> String {
    let flags = value_of(cpuinfo, "flags").unwrap_or_default();
    let known = ["avx2", "avx_vnni", "avx512f", "avx512_vnni"];
    let found: Vec<&str> =
        known.into_iter().filter(|isa| flags.split_whitespace().any(|flag| flag == *isa)).collect();
    found.join(", ")
}

fn memory(meminfo: &str) -> Option<String> {
    let kib: f64 = value_of(meminfo, "MemTotal")?.split(' ').next()?.parse().ok()?;
    Some(format!("{:.0} GiB", kib / f64::from(1 << 20)))
}

fn os_name(release: &str) -> Option<String> {
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(name.trim_matches('"').to_owned())
}

/// Names and versions of the peers, as far as their folders say.
fn peer_versions(peers: &Path) -> Vec<String> {
    let names = |folder: PathBuf| -> Vec<String> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    };
    let mut versions = Vec::new();
    let llama = names(peers.to_path_buf()).into_iter().find_map(|name| {
        let version = name.strip_prefix("llama_cpp_python-")?;
        (!version.ends_with(".gz")).then(|| format!("llama.cpp of llama_cpp_python {version}"))
    });
    versions.extend(llama);
    let python = names(peers.join("py/lib")).into_iter().find(|name| name.starts_with("python"));
    let packages = names(peers.join("py/lib").join(python.unwrap_or_default()).join("site-packages"));
    for wanted in ["torch", "transformers", "bentoml"] {
        versions.extend(packages.iter().find_map(|name| {
            let version = name.strip_prefix(wanted)?.strip_prefix('-')?.strip_suffix(".dist-info")?;
            Some(format!("{wanted} {version}"))
        }));
    }
    for wanted in ["@huggingface/transformers", "@wllama/wllama"] {
        let package = peers.join("web/node_modules").join(wanted).join("package.json");
        let version = fs::read_to_string(package).ok().and_then(|text| {
            serde_json::from_str::<Value>(&text).ok()?["version"]
                .as_str()
                .map(|version| format!("{wanted} {version}"))
        });
        versions.extend(version);
    }
    versions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(values: &[f64]) -> Figure {
        Figure::new("a/b", "b of a", "ms", "inkling bench").with(values.iter().copied()).note("by hand")
    }

    #[test]
    fn medians_and_spreads_by_hand() {
        assert_eq!(figure(&[9.0, 1.0, 5.0]).line(), "b of a: 5.00 (1.00 to 9.00) ms; by hand");
        assert_eq!(figure(&[2.0, 100.0]).spread(), "51.0 (2.00 to 100)");
        assert_eq!(figure(&[123.4]).spread(), "123");
    }

    #[test]
    fn a_record_is_read_back() {
        let mut record = Record {
            date: "2026-01-02".into(),
            cpu: "A (TM) 9".into(),
            machine: vec![("cores".into(), "2".into())],
            checks: vec!["the same ids".into()],
            parts: Vec::new(),
        };
        record.take(Part::Graph, vec![figure(&[1.0])]);
        record.take(Part::Models, vec![figure(&[3.0])]);
        record.take(Part::Graph, vec![figure(&[2.5, 2.0])]);
        assert_eq!(record.figure("a/b").map(Figure::median), Some(3.0));
        let read = parts(&record.to_json()).unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!((read[1].part.as_str(), &read[1].figures), ("graph", &record.parts[1].figures));
        let text = record.to_markdown(&[]);
        assert!(text.contains("| b of a | 2.25 (2.00 to 2.50) ms | by hand | `inkling bench` |"), "{text}");
        assert!(record.path().ends_with("benches/record/2026-01-02-a-tm-9.md"));
    }

    #[test]
    fn what_the_system_says_is_read() {
        let processors =
            "processor\t: 0\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n\nmodel name\t: B\n";
        assert_eq!(processor(processors).as_deref(), Some("AMD EPYC (family 25, model 17)"));
        assert_eq!(processor("model name\t: Cortex\n").as_deref(), Some("Cortex"));
        assert_eq!(instruction_sets("x: 1\nflags\t\t: fpu avx2 avx512_vnni\n"), "avx2, avx512_vnni");
        assert_eq!(memory("MemTotal:       24576000 kB\n").as_deref(), Some("23 GiB"));
        assert_eq!(os_name("ID=x\nPRETTY_NAME=\"Debian 12\"\n").as_deref(), Some("Debian 12"));
    }
}
