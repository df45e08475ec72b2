//! The program `inkling`, as it was built for these tests: the page is part of it.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process::Process;

/// `inkling serve` at a port of its own.
#[derive(Debug)]
pub struct Server {
    process: Mutex<Option<Process>>,
    origin: String,
}

impl Server {
    /// Starts it with these arguments besides its own; its demo models load while it serves already.
    ///
    /// # Errors
    /// If the program is not there or does not serve.
    pub fn start(arguments: &[&str]) -> Result<Server> {
        Server::start_at("127.0.0.1:0", arguments)
    }

    /// The same at an address.
    ///
    /// # Errors
    /// As for [`Server::start`].
    pub fn start_at(address: &str, arguments: &[&str]) -> Result<Server> {
        let mut command = Command::new(program()?);
        command.args(["serve", "--addr", address, "--json"]).args(arguments);
        let (process, origin) = Process::start(&mut command, |line| {
            let said: Value = serde_json::from_str(line).ok()?;
            said["url"].as_str().map(str::to_string)
        })?;
        Ok(Server { process: Mutex::new(Some(process)), origin })
    }

    /// Ends it, at once.
    pub fn stop(&self) {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// `http://127.0.0.1:PORT`.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The port alone.
    pub fn port(&self) -> &str {
        self.origin.rsplit(':').next().unwrap_or_default()
    }

    /// An address on it.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }
}

/// What `inkling` prints for these arguments, as JSON.
///
/// # Errors
/// If it fails.
pub fn inkling(arguments: &[&str]) -> Result<Value> {
    let output = Command::new(program()?).args(arguments).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        bail!("inkling {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    serde_json::from_slice(&output.stdout).context("expected JSON from inkling")
}

/// The program that the page is part of.
fn program() -> Result<PathBuf> {
    let program = std::env::var_os("INKLING_BIN").map(PathBuf::from);
    program.filter(|program| program.is_file()).context(
        "INKLING_BIN should name the program `inkling`, built with the page; `cargo xtask test --only e2e` does all of it",
    )
}
