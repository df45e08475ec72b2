//! The developers' commands, called as `cargo xtask COMMAND` (an alias in `.cargo/config.toml`).
//!
//! - [`serve`]: build and serve Inkling.
//! - [`engine`]: build the engine for JavaScript, and the npm package.
//! - [`page`]: build the page; [`budget`] weighs it.
//! - [`bench`]: how fast it is here, beside other programs, as a dated record.
//! - [`test`]: everything that CI checks, as named steps; [`counts`] adds up what the test runners report.
//! - [`instructions`]: counts instructions of what takes the time, and compares them with a budget.
//! - [`toolchain`]: a Rust toolchain that compiles for wasm32 or aarch64, whatever it takes.
//! - [`tools`]: pinned helper programs, installed once into a cache.
//! - [`debian`]: packages of the system, where that is a Debian.
//! - [`process`]: running other programs, saying what is run.

mod bench;
mod budget;
mod counts;
mod debian;
mod engine;
mod instructions;
mod page;
mod process;
mod serve;
mod test;
mod toolchain;
mod tools;

use std::path::PathBuf;
use std::process::ExitCode;

const HELP: &str = "\
Inkling's developer commands

Usage: cargo xtask <COMMAND> [ARGS]

Commands:
  serve [ARGS]   Build (release) and serve at http://127.0.0.1:3000; ARGS go to `inkling serve`
  engine         Build the engine for JavaScript to target/page/engine; with --npm the npm package too
  page           Build the page (release) to target/page/dist, and weigh it
  test           Run everything that CI checks
  bench          Measure kernels, models, graph and page, beside other programs if they are installed
  trunk ARGS     Trunk with the tools that the page needs: `trunk serve` builds again at every change
  help           Print this text

Trunk itself calls `page-finish`.

`cargo xtask COMMAND --help` says more.

What they install (a wasm32 target, helper programs) goes where rustup keeps toolchains and into a
cache: $INKLING_CACHE if set, else inkling under $XDG_CACHE_HOME or ~/.cache.";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let command = args.next();
    let rest: Vec<String> = args.collect();
    let outcome = match command.as_deref() {
        Some("serve") => serve::main(&rest),
        Some("engine") => engine::main(&rest),
        Some("page") => page::main(&rest),
        Some("page-finish") => page::finish(),
        Some("trunk") => page::trunk(&rest),
        Some("test") => test::main(&rest),
        Some("bench") => bench::main(&rest),
        Some("help" | "--help" | "-h") => {
            println!("{HELP}");
            Ok(ExitCode::SUCCESS)
        }
        Some(other) => {
            eprintln!(
                "xtask: expected a command (serve, engine, page, test, bench, trunk, help), got `{other}`\n\n{HELP}"
            );
            Ok(ExitCode::from(2))
        }
        None => {
            eprintln!("{HELP}");
            Ok(ExitCode::from(2))
        }
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}

/// The root of the workspace.
///
/// Asked at run time (`cargo run` sets the variable), because checkouts may share one build folder and with it
/// this program.
fn workspace_root() -> PathBuf {
    let xtask = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let mut root = PathBuf::from(xtask);
    root.pop();
    root
}
