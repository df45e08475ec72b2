//! `cargo xtask test`: everything that CI checks, as named steps that one can also run alone.

use std::ops::AddAssign;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::counts::{self, Counts};
use crate::process::{self, ended_badly, on_path, output_of, run, run_and_keep, show_duration};
use crate::toolchain::{Target, Toolchain};
use crate::{budget, engine, instructions, page, tools, workspace_root};

const FUZZ: &str = "crates/engine/fuzz";
/// What is tested on wasm32 too: whatever has `#[wasm_bindgen_test]`.
const WASM_PACKAGES: [&str; 3] = ["inkling-kernels", "inkling-engine", "inkling-web"];
/// Modules of tests that need a browser have this name.
const BROWSER_ONLY: &str = "in_a_worker";
/// Chromium's arguments for the wasm tests.
const WEBDRIVER: &str = "xtask/webdriver.json";
/// Processors that QEMU knows, each with the best instruction set that the kernels have for it.
const AARCH64: [(&str, &str); 2] = [("max", "NeonDot"), ("cortex-a53", "Neon")];

/// One thing that CI checks.
struct Step {
    name: &'static str,
    /// What it does and why, in a line.
    what: &'static str,
    /// What to do when it fails.
    advice: &'static str,
    /// Whether it runs only with `--long` (or when asked for by name).
    long: bool,
    run: fn(&Options) -> Result<Report>,
}

const STEPS: [Step; 14] = [
    Step {
        name: "fmt",
        what: "the code is formatted, so that diffs show only what changed",
        advice: "run `cargo fmt --all`",
        long: false,
        run: |_| run(cargo("fmt").args(["--all", "--check"])).map(Report::from),
    },
    Step {
        name: "deny",
        what: "licences, bans and sources of all dependencies, against deny.toml",
        advice: "the message above names the crate; an exception in deny.toml needs its reason beside it",
        long: false,
        run: deny,
    },
    Step {
        name: "page",
        what: "the page is built as it is shipped, and weighs no more than page-budget.txt allows",
        advice: "`cargo xtask page` builds and weighs it; what outgrew its line in page-budget.txt is named above",
        long: false,
        run: |_| budget::check(built_page()?, false).map(Report::from),
    },
    Step {
        name: "clippy",
        what: "no warning anywhere: lints of rustc, clippy and the workspace, in tests and benches too",
        advice: "fix the warnings above, or `#[expect(lint, reason = \"...\")]` where the lint is wrong",
        long: false,
        run: |_| {
            let mut clippy = cargo("clippy");
            clippy.args(["--workspace", "--all-targets", "--quiet", "--", "--deny", "warnings"]);
            run(&mut clippy).map(Report::from)
        },
    },
    Step {
        name: "native",
        what: "unit and integration tests on this machine",
        advice: "the failing tests are named above; `cargo test -p PACKAGE NAME` runs one",
        long: false,
        run: native,
    },
    Step {
        name: "doc",
        what: "the examples in the documentation compile and hold",
        advice: "the failing examples are named above by file and line",
        long: false,
        run: |_| tests(cargo("test").args(["--workspace", "--doc", "--no-fail-fast"])),
    },
    Step {
        name: "instructions",
        what: "kernels, sampler, tokenizer and a load take no more instructions than instruction-budget.txt says",
        advice: "make it cheaper, or accept it with `cargo xtask test --only instructions --accept` and say why",
        long: false,
        run: |options| instructions::check(options.accept).map(Report::from),
    },
    Step {
        name: "aarch64",
        what: "kernels and whole models on emulated aarch64: the bits of NEON, with and without dot products",
        advice: "the failing tests are named above, instruction sets with them; their native twins have the same names",
        long: false,
        run: aarch64,
    },
    Step {
        name: "wasm-build",
        what: "kernels, engine and its JavaScript side compile for wasm32, with their tests",
        advice: "look for threads, clocks, files or C code in what they newly use",
        long: false,
        run: wasm_build,
    },
    Step {
        name: "wasm-test",
        what: "the wasm tests in Node: the same claims as native, on the other instruction sets",
        advice: "the failing tests are named above; their native twins have the same names",
        long: false,
        run: |options| wasm_tests(options, Home::Node),
    },
    Step {
        name: "browser",
        what: "the wasm tests in a worker of Chromium, where the page runs them; and those of the browser's storage",
        advice: "the failing tests are named above; if `wasm-test` is well, a browser differs from Node there",
        long: false,
        run: |options| wasm_tests(options, Home::Chromium),
    },
    Step {
        name: "npm",
        what: "the engine for JavaScript in Node, as the npm package has it: whole graphs, downloads that break, bad input",
        advice: "the failing tests are named above; `node --test crates/web/js/test/*.test.mjs` runs them",
        long: false,
        run: npm,
    },
    Step {
        name: "e2e",
        what: "the page in Chromium: one test a visitor's act, against the server that has the page in it",
        advice: "the failing specs are named above; INKLING_E2E_FAILURES=FOLDER takes a screenshot of each",
        long: false,
        run: e2e,
    },
    Step {
        name: "fuzz",
        what: "every fuzz target for a minute: hostile bytes never panic",
        advice: "the input that fails is saved under the path named above; turn it into a unit test",
        long: true,
        run: fuzz,
    },
];

/// What a step has to say besides that it went well or not.
#[derive(Default)]
struct Report {
    counts: Counts,
    /// The test runners' own summary lines.
    lines: Vec<String>,
    /// Why the step is a failure although it ran to its end.
    failure: Option<String>,
}

impl From<Counts> for Report {
    fn from(counts: Counts) -> Self {
        Self { counts, ..Self::default() }
    }
}

impl From<()> for Report {
    fn from((): ()) -> Self {
        Self::default()
    }
}

impl AddAssign for Report {
    fn add_assign(&mut self, other: Self) {
        self.counts += other.counts;
        self.lines.extend(other.lines);
        self.failure = match (self.failure.take(), other.failure) {
            (Some(one), Some(another)) => Some(format!("{one}; {another}")),
            (one, another) => one.or(another),
        };
    }
}

/// How a step ended.
struct Ended {
    step: &'static Step,
    took: Duration,
    report: Report,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    help: bool,
    list: bool,
    long: bool,
    advisories: bool,
    accept: bool,
    only: Vec<String>,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self::default();
        let mut naming_steps = false;
        for arg in args {
            if !arg.starts_with('-') && naming_steps {
                if !STEPS.iter().any(|step| step.name == arg) {
                    bail!("expected a step ({}), got `{arg}`", step_names());
                }
                options.only.push(arg.clone());
                continue;
            }
            naming_steps = false;
            match arg.as_str() {
                "--help" | "-h" => options.help = true,
                "--list" => options.list = true,
                "--long" => options.long = true,
                "--advisories" => options.advisories = true,
                "--accept" => options.accept = true,
                "--only" => naming_steps = true,
                _ => bail!(
                    "expected --only STEP.., --long, --advisories, --accept, --list or --help, got `{arg}`"
                ),
            }
        }
        if options.only.is_empty() && args.iter().any(|arg| arg == "--only") {
            bail!("expected a step after --only ({})", step_names());
        }
        Ok(options)
    }

    fn wants(&self, step: &Step) -> bool {
        if self.only.is_empty() { self.long || !step.long } else { self.only.iter().any(|n| n == step.name) }
    }
}

/// Runs the steps, all of them even if one fails, and ends with the count of tests.
///
/// # Errors
/// If the arguments are wrong. Failing steps are printed, and make the exit code 1.
pub(crate) fn main(args: &[String]) -> Result<ExitCode> {
    let options = Options::parse(args)?;
    if options.help {
        print_help();
        return Ok(ExitCode::SUCCESS);
    }
    if options.list {
        print_steps();
        return Ok(ExitCode::SUCCESS);
    }
    let wanted: Vec<&Step> = STEPS.iter().filter(|step| options.wants(step)).collect();
    let started = Instant::now();
    let mut ended = Vec::new();
    for (index, step) in wanted.iter().enumerate() {
        println!("\n== {} ({} of {}): {}", step.name, index + 1, wanted.len(), step.what);
        let started = Instant::now();
        let report = (step.run)(&options)
            .unwrap_or_else(|error| Report { failure: Some(format!("{error:#}")), ..Report::default() });
        let took = started.elapsed();
        match &report.failure {
            None => println!("   ok, {}", show_duration(took)),
            Some(why) => {
                println!("   FAILED after {}: {why}\n   what to do: {}", show_duration(took), step.advice)
            }
        }
        ended.push(Ended { step, took, report });
    }
    print_summary(&ended, started.elapsed());
    let all_well = ended.iter().all(|ended| ended.report.failure.is_none());
    Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Steps with the runners' own counts, and as the last line the sum.
fn print_summary(ended: &[Ended], took: Duration) {
    println!("\n== summary, {}", show_duration(took));
    for Ended { step, took, report } in ended {
        let outcome = if report.failure.is_none() { "ok    " } else { "FAILED" };
        println!("   {outcome} {:<12} {:>12}", step.name, show_duration(*took));
        for line in &report.lines {
            println!("          {line}");
        }
    }
    for Ended { step, report, .. } in ended {
        if let Some(why) = &report.failure {
            println!("   {}: {why}; {}", step.name, step.advice);
        }
    }
    println!("{}", total(ended.iter().map(|ended| &ended.report)));
}

/// The sum over all runners. A step that failed without naming a failed test (it did not compile, a lint, a
/// licence) counts as one failure, so that `0 failed` always means that everything is well.
fn total<'a>(reports: impl Iterator<Item = &'a Report>) -> Counts {
    let mut sum = Counts::default();
    for report in reports {
        sum += report.counts;
        if report.failure.is_some() && report.counts.failed == 0 {
            sum.failed += 1;
        }
    }
    sum
}

/// The page of this run, built at its first use. From then on it is part of every server that is built, so that no
/// step builds one anew.
static PAGE: OnceLock<PathBuf> = OnceLock::new();

fn built_page() -> Result<&'static Path> {
    if let Some(folder) = PAGE.get() {
        return Ok(folder);
    }
    let folder = page::build()?;
    Ok(PAGE.get_or_init(|| folder))
}

/// A cargo command for this machine.
fn cargo(subcommand: &str) -> Command {
    let mut cargo = process::cargo(subcommand);
    if let Some(folder) = PAGE.get() {
        cargo.env("INKLING_PAGE", folder);
    }
    cargo
}

/// A runner of the workspace's tests, all but the specs or only those.
///
/// Both build the whole workspace: with a part of it, shared crates would have other features and be built again.
fn runner(specs: bool) -> Command {
    // nextest runs each test in a process of its own and says which one hangs or crashes.
    if output_of(Command::new("cargo").args(["nextest", "--version"])).is_ok() {
        let mut nextest = cargo("nextest");
        nextest.args([
            "run",
            "--workspace",
            "--no-fail-fast",
            "--no-tests=pass",
            "--status-level=fail",
            "--cargo-quiet",
        ]);
        nextest.args(match specs {
            // One at a time: they measure times and memory, and a browser takes what there is.
            // All of them: they are ignored elsewhere, since they need what this step builds.
            true => ["--filterset", "package(inkling-e2e)", "--run-ignored", "all", "--test-threads", "1"]
                .as_slice(),
            false => ["--filterset", "not package(inkling-e2e)"].as_slice(),
        });
        return nextest;
    }
    println!("   cargo-nextest is not installed: cargo's own runner does it");
    let mut test = cargo("test");
    test.args(["--workspace", "--no-fail-fast"]);
    test.args(match specs {
        true => ["--test", "page", "--", "--include-ignored", "--test-threads=1"].as_slice(),
        false => ["--lib", "--bins", "--tests", "--examples"].as_slice(),
    });
    test
}

fn native(options: &Options) -> Result<Report> {
    tests(with_long_forms(&mut runner(false), options))
}

/// Tests that have a long form read this variable when they are compiled: in wasm there is no other time.
fn with_long_forms<'a>(command: &'a mut Command, options: &Options) -> &'a mut Command {
    if options.long { command.env("INKLING_LONG", "1") } else { command }
}

fn npm(_: &Options) -> Result<Report> {
    // The page's build has the engine in it, with both modules.
    built_page()?;
    let folder = workspace_root().join("crates/web/js/test");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .with_context(|| format!("reading {}", folder.display()))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|file| file.to_string_lossy().ends_with(".test.mjs"));
    files.sort();
    if files.is_empty() {
        bail!("expected tests (*.test.mjs) in {}, found none", folder.display());
    }
    let mut node = Command::new("node");
    node.arg("--test").args(files).current_dir(workspace_root());
    tests(&mut node)
}

fn e2e(_: &Options) -> Result<Report> {
    built_page()?;
    tools::chromium()?;
    let axe = tools::axe_core()?;
    run(cargo("build").args(["--workspace", "--bin", "inkling", "--quiet"]))?;
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace_root().join("target"), PathBuf::from);
    let program = target.join("debug").join(format!("inkling{}", std::env::consts::EXE_SUFFIX));
    tests(runner(true).env("INKLING_BIN", program).env("INKLING_AXE", axe))
}

fn aarch64(_: &Options) -> Result<Report> {
    if cfg!(target_arch = "aarch64") {
        println!("   nothing to do: this machine is one, so `native` has tested it");
        return Ok(Report::default());
    }
    let emulator = tools::aarch64_emulator()?;
    let toolchain = toolchain(Target::Aarch64)?;
    let mut report = Report::default();
    for (processor, best) in AARCH64 {
        let mut test = toolchain.cargo("test");
        test.args(["--package", "inkling-kernels", "--package", "inkling-engine", "--lib"])
            .args(["--test", "logits", "--test", "wasm", "--quiet", "--no-fail-fast"])
            .env(Target::Aarch64.variable("RUNNER"), format!("{emulator} -cpu {processor}"))
            // A processor without an instruction would pass for want of a test.
            .env("INKLING_BEST_ISA", best);
        report += tests(&mut test)?;
    }
    Ok(report)
}

/// Where wasm tests run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Home {
    Node,
    Chromium,
}

fn wasm_build(options: &Options) -> Result<Report> {
    let toolchain = toolchain(Target::Wasm32)?;
    // Exactly the builds that the next steps run.
    wasm_test_builds(&toolchain, options).iter_mut().try_for_each(|build| run(build.arg("--no-run")))?;
    Ok(Report::default())
}

fn wasm_tests(options: &Options, home: Home) -> Result<Report> {
    let toolchain = toolchain(Target::Wasm32)?;
    let runner = tools::wasm_bindgen_test_runner()?.find_or_install()?;
    match home {
        Home::Node => {
            let node = output_of(Command::new("node").arg("--version"))
                .context("expected Node.js 20 or newer on PATH to run wasm tests")?;
            println!("   Node {node}");
        }
        Home::Chromium => tools::chromium()?,
    }
    let mut report = Report::default();
    let [plain, relaxed] = wasm_test_builds(&toolchain, options);
    // Node has relaxed SIMD from version 21 on.
    for mut test in [Some(plain), (home == Home::Chromium).then_some(relaxed)].into_iter().flatten() {
        test.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER", &runner)
            // Seconds a test, in a browser seconds a crate. The runner's own 20 are few on a busy machine.
            .env("WASM_BINDGEN_TEST_TIMEOUT", "300");
        match home {
            Home::Node => test.args(["--", "--skip", BROWSER_ONLY]),
            Home::Chromium => test
                .env("WASM_BINDGEN_USE_DEDICATED_WORKER", "1")
                .env("WASM_BINDGEN_TEST_WEBDRIVER_JSON", workspace_root().join(WEBDRIVER))
                .env("WASM_BINDGEN_TEST_DRIVER_TIMEOUT", "60")
                .env("CHROMEDRIVER", "chromedriver"),
        };
        report += tests(&mut test)?;
    }
    Ok(report)
}

/// The builds of the wasm tests: all of them with plain SIMD, and with relaxed SIMD those that depend on it: the kernels'
/// and the bits of whole models. One profile and one set of packages, so that no step builds what another has built.
fn wasm_test_builds(toolchain: &Toolchain, options: &Options) -> [Command; 2] {
    let (mut plain, (mut relaxed, _)) = (toolchain.cargo("test"), engine::RELAXED.cargo(toolchain, "test"));
    for package in WASM_PACKAGES {
        plain.args(["--package", package]);
    }
    plain.arg("--tests");
    relaxed.args(["--package", "inkling-kernels", "--package", "inkling-engine"]);
    relaxed.args(["--test", "logits", "--test", "wasm"]);
    [plain, relaxed].map(|mut test| {
        test.args(["--lib", "--profile=wasm-test", "--no-fail-fast"]);
        with_long_forms(&mut test, options);
        test
    })
}

fn deny(options: &Options) -> Result<Report> {
    let program = tools::cargo_deny().find_or_install()?;
    let mut deny = Command::new(program);
    deny.args(["--workspace", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"]);
    if options.advisories {
        deny.arg("advisories");
    } else {
        println!(
            "   security advisories are left out: their database comes from github.com; --advisories checks them"
        );
    }
    run(deny.current_dir(workspace_root())).map(Report::from)
}

fn fuzz(_: &Options) -> Result<Report> {
    let folder = workspace_root().join(FUZZ);
    if !folder.is_dir() {
        println!("   nothing to do: there is no {FUZZ}");
        return Ok(Report::default());
    }
    if on_path("c++").is_none() {
        bail!("expected a C++ compiler (`c++`) for libFuzzer, found none: apt-get install g++");
    }
    let program = tools::cargo_fuzz().find_or_install()?;
    let fuzz = |args: &[&str]| {
        let mut fuzz = Command::new(&program);
        // Sanitizers are unstable options; the variable lets the stable compiler take them.
        fuzz.args(args).current_dir(folder.parent().unwrap_or(Path::new("."))).env("RUSTC_BOOTSTRAP", "1");
        fuzz
    };
    let mut report = Report::default();
    for target in output_of(&mut fuzz(&["list"]))?.lines() {
        match run(&mut fuzz(&["run", target, "--", "-max_total_time=60", "-rss_limit_mb=4096"])) {
            Ok(()) => report.counts.passed += 1,
            Err(error) => {
                report.counts.failed += 1;
                report.failure = Some(format!("{error:#}"));
            }
        }
    }
    report.lines.push(format!("fuzz targets: {}", report.counts));
    Ok(report)
}

/// Runs a command that runs tests, and reads how many.
fn tests(command: &mut Command) -> Result<Report> {
    let finished = run_and_keep(command)?;
    let bad_end = (!finished.status.success()).then(|| ended_badly(command, finished.status));
    Ok(judge(&finished.output, bad_end))
}

/// The report on a run of tests that printed `output`; `bad_end` says how the runner ended if not with status 0.
fn judge(output: &str, bad_end: Option<String>) -> Report {
    let (counts, lines) = counts::read(output);
    // Both are believed: neither a runner that hides failures nor one that dies late passes.
    let failure = match counts.failed {
        0 => bad_end,
        failed => Some(format!("{failed} of its tests failed")),
    };
    Report { counts, lines, failure }
}

fn toolchain(target: Target) -> Result<Toolchain> {
    let toolchain = Toolchain::find_or_install(target)?;
    println!("   {}: {}", target.name(), toolchain.describe());
    Ok(toolchain)
}

fn step_names() -> String {
    STEPS.map(|step| step.name).join(", ")
}

fn print_steps() {
    for step in &STEPS {
        let when = if step.long { " (only with --long)" } else { "" };
        println!("  {:<12} {}{when}", step.name, step.what);
    }
}

fn print_help() {
    println!(
        "\
Run everything that CI checks

Usage: cargo xtask test [OPTIONS]

Options:
  --only STEP..   Run only these steps
  --long          Also run the fuzz targets, a minute each, and the long forms of tests (full-size models)
  --advisories    Let `deny` also check security advisories (their database comes from github.com)
  --accept        Let `instructions` write what it counts to instruction-budget.txt
  --list          List the steps and stop
  -h, --help      Print this text

Steps:"
    );
    print_steps();
    println!(
        "
Every step runs, even after one failed. The last line is `N passed, N failed`, the sum over all test runners;
a step that fails without a failing test counts as one, so 0 failed means that everything is well.

INKLING_SHARED: a folder with large test data; tests that need it are skipped without it.
The head of e2e/tests/page/main.rs lists the variables that `e2e` knows: long forms, screenshots."
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options> {
        Options::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[track_caller]
    fn check_steps(line: &str, expected: &str) {
        let options = parse(line).unwrap();
        let names: Vec<_> = STEPS.iter().filter(|step| options.wants(step)).map(|step| step.name).collect();
        assert_eq!(names.join(" "), expected);
    }

    #[test]
    fn everything_but_the_long_steps_by_default() {
        check_steps(
            "",
            "fmt deny page clippy native doc instructions aarch64 wasm-build wasm-test browser npm e2e",
        );
    }

    #[test]
    fn long_adds_fuzz() {
        check_steps(
            "--long",
            "fmt deny page clippy native doc instructions aarch64 wasm-build wasm-test browser npm e2e fuzz",
        );
    }

    #[test]
    fn only_takes_several_steps_in_any_order() {
        check_steps("--only deny fmt --advisories", "fmt deny");
        check_steps("--only fuzz", "fuzz");
    }

    #[test]
    fn an_unknown_step_is_named_with_the_known_ones() {
        let error = parse("--only format").unwrap_err().to_string();
        assert_eq!(
            error,
            "expected a step (fmt, deny, page, clippy, native, doc, instructions, aarch64, wasm-build, wasm-test, browser, npm, e2e, fuzz), got `format`"
        );
    }

    #[test]
    fn only_without_a_step_is_an_error() {
        assert!(parse("--only").is_err());
        assert!(parse("--only --long").is_err());
    }

    #[test]
    fn an_unknown_option_is_named() {
        assert!(parse("--fast").unwrap_err().to_string().ends_with("got `--fast`"));
        assert!(parse("fmt").unwrap_err().to_string().ends_with("got `fmt`"));
    }

    #[test]
    fn a_failure_without_a_test_counts_as_one() {
        let failed = |failed| Report {
            counts: Counts { passed: 3, failed, skipped: 0 },
            failure: Some("why".to_owned()),
            ..Report::default()
        };
        assert_eq!(total([failed(2), failed(0)].iter()).to_string(), "6 passed, 3 failed");
    }

    #[test]
    fn two_runs_of_a_step_are_one_report() {
        let failing = judge("test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 filtered out", None);
        let mut report = judge("test result: ok. 3 passed; 0 failed; 0 ignored; 0 filtered out", None);
        report += failing;
        assert_eq!(report.counts, Counts { passed: 5, failed: 1, skipped: 0 });
        assert_eq!((report.lines.len(), report.failure.as_deref()), (2, Some("1 of its tests failed")));
    }

    #[test]
    fn a_runner_that_dies_is_a_failure_whatever_it_counted() {
        let all_passed = "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
        let report = judge(all_passed, Some("died".to_owned()));
        assert_eq!((report.counts.passed, report.failure.as_deref()), (2, Some("died")));
        assert_eq!(judge(all_passed, None).failure, None);
    }

    #[test]
    fn a_failed_test_is_a_failure_whatever_the_exit_status() {
        let one_failed = "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(judge(one_failed, None).failure.as_deref(), Some("1 of its tests failed"));
    }
}
