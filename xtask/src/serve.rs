//! `cargo xtask serve`: one command from a checkout to a running Inkling.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::process;

const HELP: &str = "\
Build Inkling in release mode and serve it at http://127.0.0.1:3000

Usage: cargo xtask serve [ARGS]

ARGS go to `inkling serve` (for example `--addr 127.0.0.1:8080`, `--models hub`);
`cargo xtask serve -- --help` lists them.

The first build compiles the tensor library and takes some minutes; later ones take seconds.";

/// Builds, then becomes the server.
///
/// # Errors
/// If cargo cannot be started. A build that fails or a port in use is explained by cargo and by the server.
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
    let mut command = process::cargo("run");
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
