//! A program of the test's own that ends with it.

use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
};

use anyhow::{Context, Result, bail};

/// A running program; killed when dropped.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Starts `command` and returns what `find` makes of the first line of its output that it knows.
    ///
    /// # Errors
    /// If it cannot be started, or ends before it prints such a line.
    pub fn start<T>(command: &mut Command, find: impl Fn(&str) -> Option<T>) -> Result<(Process, T)> {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("could not start {name}"))?;
        let mut output = BufReader::new(child.stdout.take().context("stdout is piped: set above")?);
        let process = Process(child);
        let mut said = String::new();
        loop {
            let mut line = String::new();
            if output.read_line(&mut line)? == 0 {
                bail!("{name} ended before it was ready: {said}");
            }
            if let Some(found) = find(&line) {
                // A full pipe would stop the program.
                thread::spawn(move || drain(output));
                return Ok((process, found));
            }
            said.push_str(&line);
        }
    }

    /// Its id in the system.
    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

fn drain(output: BufReader<ChildStdout>) {
    for line in output.split(b'\n') {
        if line.is_err() {
            break;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for a program that is gone.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
