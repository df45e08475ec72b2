//! Running other programs: what is run is printed first, and a failure names the command and how it ended.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// How a program ended, and all that it printed (standard output and error in the order of arrival, line by line).
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) output: String,
}

/// A cargo command in the workspace's root.
pub(crate) fn cargo(subcommand: &str) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.arg(subcommand).current_dir(crate::workspace_root());
    without_package_variables(&mut cargo);
    cargo
}

/// Takes away the variables that describe this program's own package, which `cargo run` has set: build scripts that
/// watch them (that of `ring`) would run again whenever a build follows one that a person started.
pub(crate) fn without_package_variables(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(describes_a_package) {
            command.env_remove(name);
        }
    }
}

fn describes_a_package(variable: &str) -> bool {
    variable.starts_with("CARGO_PKG_")
        || matches!(variable, "CARGO" | "CARGO_MANIFEST_DIR" | "CARGO_MANIFEST_PATH")
}

/// Runs a command, passing its output through.
///
/// # Errors
/// If it cannot be started or ends with another status than 0.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    announce(command);
    let status = command.stdin(Stdio::null()).status().with_context(|| not_started(command))?;
    if !status.success() {
        bail!("{}", ended_badly(command, status));
    }
    Ok(())
}

/// Runs a command, passing its output through and keeping a copy of it.
///
/// # Errors
/// If it cannot be started. A bad exit status is the caller's to judge: it wants to read the output first.
pub(crate) fn run_and_keep(command: &mut Command) -> Result<Finished> {
    announce(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| not_started(command))?;
    let stdout = child.stdout.take().expect("stdout is piped: set above");
    let stderr = child.stderr.take().expect("stderr is piped: set above");
    let (sender, lines) = std::sync::mpsc::channel();
    let from_stderr = {
        let sender = sender.clone();
        thread::spawn(move || forward(stderr, &mut io::stderr(), &sender))
    };
    let from_stdout = thread::spawn(move || forward(stdout, &mut io::stdout(), &sender));
    let output = lines.iter().collect();
    for thread in [from_stdout, from_stderr] {
        thread.join().expect("a forwarding thread has nothing that panics");
    }
    let status = child.wait().with_context(|| format!("waiting for `{}`", show(command)))?;
    Ok(Finished { status, output })
}

/// Runs a command silently and returns its standard output, trimmed.
///
/// # Errors
/// If it cannot be started or ends with another status than 0; the text then ends with what it printed.
pub(crate) fn output_of(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| not_started(command))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {}", ended_badly(command, output.status), said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Whether a program of this name can be found on `PATH`.
pub(crate) fn on_path(program: &str) -> Option<std::path::PathBuf> {
    let name = format!("{program}{}", std::env::consts::EXE_SUFFIX);
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(&name)).find(|file| file.is_file())
}

/// The sentence for a command that ran and failed.
pub(crate) fn ended_badly(command: &Command, status: ExitStatus) -> String {
    format!("`{}` failed ({status})", show(command))
}

/// Prints a command as one could type it, under the heading of its step.
pub(crate) fn announce(command: &Command) {
    println!("   $ {}", show(command));
}

/// A duration for people: `0.8 s`, `75 s`, `12 min 5 s`.
pub(crate) fn show_duration(duration: Duration) -> String {
    match duration.as_secs() {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        seconds @ 10..120 => format!("{seconds} s"),
        seconds => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

/// The command line with the variables that were set for it.
fn show(command: &Command) -> String {
    let mut line = String::new();
    for (name, value) in command.get_envs() {
        // The search path is long, and what was found by it is in the line anyway.
        if let Some(value) = value.filter(|_| name != "PATH") {
            write!(line, "{}={} ", name.display(), quote(&value.to_string_lossy()))
                .expect("writing to a String cannot fail");
        }
    }
    line.push_str(&command.get_program().to_string_lossy());
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&quote(&arg.to_string_lossy()));
    }
    line
}

fn quote(word: &str) -> String {
    if word.contains(char::is_whitespace) || word.is_empty() { format!("'{word}'") } else { word.to_owned() }
}

fn not_started(command: &Command) -> String {
    format!("could not start `{}` (is it installed and on PATH?)", show(command))
}

/// Copies lines to our own stream and to the collector.
fn forward(from: impl Read, to: &mut impl Write, lines: &std::sync::mpsc::Sender<String>) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    // A read error means that the program is gone: its exit status tells the rest.
    while matches!(from.read_until(b'\n', &mut line), Ok(1..)) {
        // Who closed our output does not want to read it; the program must still be read to its end.
        let _ = to.write_all(&line);
        let _ = lines.send(String::from_utf8_lossy(&line).into_owned());
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_with_its_variables_and_quotes() {
        let mut command = Command::new("cargo");
        command.args(["run", "a b", ""]).env("LEVEL", "3").env_remove("CARGO");
        assert_eq!(show(&command), "LEVEL=3 cargo run 'a b' ''");
    }

    #[test]
    fn cargo_keeps_settings_and_drops_what_describes_a_package() {
        assert!(describes_a_package("CARGO_PKG_VERSION") && describes_a_package("CARGO_MANIFEST_DIR"));
        assert!(!describes_a_package("CARGO_TARGET_DIR") && !describes_a_package("CARGO_HOME"));
    }

    #[test]
    fn durations_read_naturally() {
        assert_eq!(show_duration(Duration::from_millis(840)), "0.8 s");
        assert_eq!(show_duration(Duration::from_secs(75)), "75 s");
        assert_eq!(show_duration(Duration::from_secs(725)), "12 min 5 s");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = run(&mut Command::new("inkling-no-such-program")).unwrap_err();
        assert!(format!("{error:#}").starts_with("could not start `inkling-no-such-program`"), "{error:#}");
    }

    #[cfg(unix)]
    #[test]
    fn output_is_kept_and_the_status_returned() {
        let finished =
            run_and_keep(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"])).unwrap();
        assert_eq!(finished.status.code(), Some(3));
        assert!(finished.output.contains("out\n") && finished.output.contains("err\n"));
    }
}
