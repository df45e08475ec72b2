//! Packages of Debian, where this is one.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::process::{on_path, output_of, run, show_duration};

/// Whether packages can be installed by `apt-get`.
pub(crate) fn is_here() -> bool {
    Path::new("/etc/debian_version").exists() && on_path("apt-get").is_some()
}

/// Installs those of the packages that are missing, and says so.
///
/// # Errors
/// If `apt-get` fails, or there is no right to use it.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let missing: Vec<_> = packages.iter().copied().filter(|package| !is_installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let started = Instant::now();
    let install = |packages: &[&str]| {
        let mut words = vec!["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--yes"];
        words.extend(["--quiet=2", "--no-install-recommends"]);
        words.extend(packages);
        run(&mut as_root(&words)?)
    };
    // A new machine has no list of packages yet, an old one has an old list: the second try has a fresh one.
    if install(&missing).is_err() {
        run(&mut as_root(&["apt-get", "update", "--quiet=2"])?)?;
        install(&missing)?;
    }
    println!("   packages installed in {}: {}", show_duration(started.elapsed()), missing.join(" "));
    Ok(())
}

fn is_installed(package: &str) -> bool {
    output_of(Command::new("dpkg-query").args(["--show", "--showformat=${db:Status-Status}", package]))
        .is_ok_and(|status| status == "installed")
}

/// A command with the rights of root: as it is, or through sudo if that asks for no password.
///
/// # Errors
/// If there are no such rights.
pub(crate) fn as_root(words: &[&str]) -> Result<Command> {
    let (program, args) = words.split_first().expect("callers name a program");
    if output_of(Command::new("id").arg("-u"))? == "0" {
        let mut command = Command::new(program);
        command.args(args);
        return Ok(command);
    }
    if output_of(Command::new("sudo").args(["-n", "true"])).is_ok() {
        let mut command = Command::new("sudo");
        command.arg("-n").args(words);
        return Ok(command);
    }
    bail!("`{}` needs root; run the same cargo xtask command once as root, or allow sudo", words.join(" "))
}
