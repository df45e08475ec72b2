//! How many instructions the kernels, the sampler, the tokenizer and a load take, counted by valgrind's callgrind, against
//! `instruction-budget.txt`.
//!
//! Times vary with the machine and with what else runs on it; these counts vary by less than one in a hundred. The cases
//! are in `crates/kernels/benches/instructions.rs` and `crates/engine/benches/instructions.rs`. Each is run on
//! instruction sets that valgrind knows, in a process of its own, and only the function `counted` is counted.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, bail};

use crate::counts::Counts;
use crate::process::{on_path, output_of};
use crate::{debian, process, workspace_root};

const BUDGET: &str = "instruction-budget.txt";

const HEAD: &str = "\
# Instructions of one run of each case on x86-64, written by `cargo xtask test --only instructions --accept`.
# A case that takes more than 3 in 100 instructions more fails the suite. With another compiler than the one named here
# 25 in 100 are allowed, since it may well choose other instructions.
";

/// What names the compiler in the file.
const COMPILER: &str = "# Compiler: ";

/// Counts by case and instruction set, such as `linear_q8/768x768/1/avx2`.
type Instructions = BTreeMap<String, u64>;

/// Counts, and compares with the budget; with `accept` the budget becomes what was counted.
///
/// # Errors
/// If valgrind cannot be had, if a case fails, or if cases are over their budget: then the text names them.
pub(crate) fn check(accept: bool) -> Result<Counts> {
    if !cfg!(target_arch = "x86_64") {
        println!("   nothing is counted: the budget is for x86-64");
        return Ok(Counts::default());
    }
    let isas = isas();
    let valgrind = valgrind()?;
    let compiler = output_of(Command::new("rustc").arg("--version"))?;
    let mut cases = Vec::new();
    for program in [kernels()?, engine()?] {
        let names = output_of(&mut Command::new(&program))?;
        for &isa in isas {
            cases.extend(names.lines().map(|case| (program.clone(), case.to_owned(), isa)));
        }
    }
    let counted = count(&valgrind, &cases)?;
    let path = workspace_root().join(BUDGET);
    if accept {
        if isas.len() < 2 {
            bail!("expected a machine with AVX2 to write {BUDGET}: it would lose its lines for it");
        }
        fs::write(&path, written(&counted, &compiler))
            .with_context(|| format!("writing {}", path.display()))?;
        println!("   {BUDGET} has what was counted");
        return Ok(passed(counted.len()));
    }
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let (mut budget, budget_compiler) = read(&text)?;
    budget.retain(|name, _| isas.iter().any(|isa| name.ends_with(&format!("/{isa}"))));
    let tolerance = if budget_compiler == compiler { 3 } else { 25 };
    for (name, now, was) in pairs(&counted, &budget) {
        if now * 100 < was * (100 - tolerance) {
            println!("   {name} takes {} than the budget says: --accept writes that down", change(now, was));
        }
    }
    let faults = faults(&counted, &budget, tolerance);
    if faults.is_empty() {
        return Ok(passed(counted.len()));
    }
    bail!(
        "{} (budget by {budget_compiler}, this is {compiler}):\n     {}",
        if faults.len() == 1 { "one case is off its budget" } else { "several cases are off their budget" },
        faults.join("\n     ")
    )
}

fn passed(passed: usize) -> Counts {
    Counts { passed, ..Counts::default() }
}

/// The instruction sets that are counted: those that valgrind knows, as far as this machine has them.
fn isas() -> &'static [&'static str] {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c") {
        return &["avx2", "scalar"];
    }
    println!("   this machine has no AVX2: only plain Rust is counted");
    &["scalar"]
}

fn valgrind() -> Result<PathBuf> {
    if let Some(valgrind) = on_path("valgrind") {
        return Ok(valgrind);
    }
    if !debian::is_here() {
        bail!(
            "expected `valgrind` on PATH to count instructions; install it with this system's package manager"
        );
    }
    println!("   valgrind is missing (counts instructions; seconds): installing Debian's");
    debian::install(&["valgrind", "libc6-dbg"])?;
    on_path("valgrind").context("expected `valgrind` on PATH after Debian's package was installed")
}

/// The kernels' cases, built as they are shipped.
fn kernels() -> Result<PathBuf> {
    built("kernels", &["--release", "--package", "inkling-kernels"])
}

/// The engine's cases, as the tests build the engine: optimised, and the only build of it that the suite has.
fn engine() -> Result<PathBuf> {
    built("engine", &["--workspace"])
}

/// Builds the bench `instructions` of `crates/NAME`; the answer is the program.
fn built(name: &str, args: &[&str]) -> Result<PathBuf> {
    let mut cargo = process::cargo("build");
    cargo.args(args).args(["--bench", "instructions", "--quiet", "--message-format=json-render-diagnostics"]);
    process::announce(&cargo);
    let messages = output_of(&mut cargo)?;
    let manifest = workspace_root().join("crates").join(name).join("Cargo.toml");
    let executable = messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_it = Path::new(message["manifest_path"].as_str()?) == manifest;
        message["executable"].as_str().filter(|_| is_it).map(PathBuf::from)
    });
    executable.with_context(|| format!("expected cargo to build the bench `instructions` of crates/{name}"))
}

/// Counts every case; as many at a time as there are cores.
fn count(valgrind: &Path, cases: &[(PathBuf, String, &str)]) -> Result<Instructions> {
    let (next, counted) = (AtomicUsize::new(0), Mutex::new(Instructions::new()));
    let work = || -> Result<()> {
        while let Some((program, case, isa)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let count = count_one(valgrind, program, case, isa)?;
            let mut counted = counted.lock().expect("no thread panics with the lock");
            counted.insert(format!("{case}/{isa}"), count);
        }
        Ok(())
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("counting does not panic"))
    })?;
    Ok(counted.into_inner().expect("no thread panics with the lock"))
}

fn count_one(valgrind: &Path, program: &Path, case: &str, isa: &str) -> Result<u64> {
    let mut command = Command::new(valgrind);
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*counted*"]);
    let output = command.arg(program).args([case, isa]).output().context("starting valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let count = collected(&said).filter(|_| output.status.success());
    count.with_context(|| format!("expected valgrind to count {case} with {isa} ({}): {said}", output.status))
}

/// The count in what callgrind prints: `==123== Collected : 456`. None if nothing was counted.
fn collected(said: &str) -> Option<u64> {
    let count = said.lines().find_map(|line| line.split_once("Collected : "))?.1;
    count.trim().parse().ok().filter(|count| *count > 0)
}

/// Cases that were counted and have a budget: name, count, budget.
fn pairs<'a>(
    counted: &'a Instructions,
    budget: &'a Instructions,
) -> impl Iterator<Item = (&'a str, u64, u64)> {
    counted.iter().filter_map(|(name, now)| Some((name.as_str(), *now, *budget.get(name)?)))
}

/// What is over its budget by more than `tolerance` in 100, what has none, and what was not counted.
fn faults(counted: &Instructions, budget: &Instructions, tolerance: u64) -> Vec<String> {
    let grown = pairs(counted, budget).filter(|(_, now, was)| now * 100 > was * (100 + tolerance)).map(
        |(name, now, was)| format!("{name} takes {} than its budget ({was}, now {now})", change(now, was)),
    );
    let new = counted.iter().filter(|(name, _)| !budget.contains_key(*name));
    let gone = budget.keys().filter(|name| !counted.contains_key(*name));
    grown
        .chain(new.map(|(name, now)| format!("{name} is new ({now})")))
        .chain(gone.map(|name| format!("{name} is no more")))
        .collect()
}

/// `12.3 % more instructions`.
fn change(now: u64, was: u64) -> String {
    let percent = (now as f64 / was as f64 - 1.0) * 100.0;
    format!("{:.1} % {} instructions", percent.abs(), if percent > 0.0 { "more" } else { "fewer" })
}

/// The lines `COUNT NAME`, and the compiler that made what was counted.
fn read(text: &str) -> Result<(Instructions, &str)> {
    let compiler = text.lines().find_map(|line| line.strip_prefix(COMPILER)).unwrap_or("an unknown compiler");
    let mut budget = Instructions::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let entry = line.trim().split_once(' ').and_then(|(count, name)| Some((name, count.parse().ok()?)));
        let (name, count) = entry
            .with_context(|| format!("{BUDGET}, line {}: expected `COUNT NAME`, got `{line}`", index + 1))?;
        budget.insert(name.trim().to_owned(), count);
    }
    Ok((budget, compiler))
}

fn written(counted: &Instructions, compiler: &str) -> String {
    let mut text = format!("{HEAD}{COMPILER}{compiler}\n\n");
    for (name, count) in counted {
        writeln!(text, "{count:>9} {name}").expect("writing to a String cannot fail");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instructions(counts: &[(&str, u64)]) -> Instructions {
        counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let counted = instructions(&[("a/1/avx2", 12), ("b/scalar", 3_000_000_000)]);
        let text = written(&counted, "rustc 1.95.0");
        assert_eq!(read(&text).unwrap(), (counted, "rustc 1.95.0"));
    }

    #[test]
    fn what_grew_what_is_new_and_what_is_gone_is_named() {
        let budget = instructions(&[("a", 1000), ("b", 1000), ("c", 1000), ("d", 1)]);
        let counted = instructions(&[("a", 1030), ("b", 1031), ("c", 10), ("e", 7)]);
        let expected = [
            "b takes 3.1 % more instructions than its budget (1000, now 1031)",
            "e is new (7)",
            "d is no more",
        ];
        assert_eq!(faults(&counted, &budget, 3), expected);
        assert_eq!(faults(&counted, &budget, 25), expected[1..]);
    }

    #[test]
    fn a_count_of_nothing_is_none() {
        assert_eq!(collected("==9== Events    : Ir\n==9== Collected : 144368\n"), Some(144_368));
        assert_eq!(collected("==9== Collected : 0\n"), None);
        assert_eq!(collected("valgrind: failed to start tool"), None);
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        let error = read("# why\n\n12\n").unwrap_err().to_string();
        assert_eq!(error, "instruction-budget.txt, line 3: expected `COUNT NAME`, got `12`");
    }
}
