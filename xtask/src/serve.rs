//! `cargo xtask serve`: one command from a checkout to a running Inkling, page and all.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::{page, process};

const HELP: &str = "\
Build the page and the server in release mode and serve both at http://127.0.0.1:3000

Usage: cargo xtask serve [ARGS]

ARGS go to `inkling serve` (for example `--addr 127.0.0.1:8080`, `--models hub`);
`cargo xtask serve -- --help` lists them.

The first build compiles the tensor library and the page's tools (Trunk, wasm-bindgen) and takes up to half an hour
on two cores; later ones take seconds.";

/// Builds, then becomes the server.
///
/// # Errors
/// If the page cannot be built or cargo cannot be started. A server that cannot be built or a port in use is explained
/// by cargo and by the server.
pub(crate) fn main(args: &[String]) -> Result<ExitCode> {
    let args = match args.split_first() {
        Some((first, _)) if first == "--help" || first == "-h" => {
            println!("{HELP}");
            return Ok(ExitCode::SUCCESS);
        }
        Some((first, rest)) if first == "--" => rest,
        _ => args,
    };
    println!("== serve: build in release mode (minutes the first time), then serve; Ctrl-C stops it");
    let folder = page::build()?;
    let mut command = process::cargo("run");
    command.env("INKLING_PAGE", folder);
    command.args(["--release", "--package", "inkling-server", "--bin", "inkling", "--", "serve"]).args(args);
    process::announce(&command);
    become_program(command)
}

/// Replaces this process, so that Ctrl-C reaches the server alone and it can finish what it serves.
#[cfg(unix)]
fn become_program(mut command: Command) -> Result<ExitCode> {
    use std::os::unix::process::CommandExt;
    let error = command.exec();
    Err(anyhow::Error::new(error).context("could not start `cargo` (is it on PATH?)"))
}

#[cfg(not(unix))]
fn become_program(mut command: Command) -> Result<ExitCode> {
    let status = command.status()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
