//! Helper programs at pinned versions, built once by `cargo install` into a cache of our own.
//!
//! Each version has a folder of its own, so a change of version never disturbs another checkout, and nothing in
//! `~/.cargo/bin` is touched. A program of the very same version that is on `PATH` already is used instead.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::process::{on_path, output_of, run, show_duration};
use crate::{debian, workspace_root};

/// A program from crates.io.
pub(crate) struct Tool {
    /// The crate that has it.
    pub(crate) package: &'static str,
    pub(crate) program: &'static str,
    pub(crate) version: String,
    /// Why it is wanted, and about how long the installation takes.
    pub(crate) why: &'static str,
}

/// Judges licences, sources and bans of dependencies.
pub(crate) fn cargo_deny() -> Tool {
    Tool {
        package: "cargo-deny",
        program: "cargo-deny",
        version: "0.20.2".to_owned(),
        why: "checks licences and sources of dependencies; 2 minutes on two cores",
    }
}

/// Runs fuzz targets.
pub(crate) fn cargo_fuzz() -> Tool {
    Tool {
        package: "cargo-fuzz",
        program: "cargo-fuzz",
        version: "0.13.2".to_owned(),
        why: "runs the fuzz targets; 1 minute on two cores",
    }
}

/// Builds the page: compiles `crates/ui` and gathers the files that index.html names.
pub(crate) fn trunk() -> Tool {
    Tool {
        package: "trunk",
        program: "trunk",
        // 0.22.1 wants a newer compiler than ours.
        version: "0.21.14".to_owned(),
        why: "builds the page; 6 minutes on two cores",
    }
}

/// Writes the JavaScript side of a wasm module. It must have the version of the library that the module is linked with.
///
/// # Errors
/// If Cargo.lock does not name exactly one version of `wasm-bindgen`.
pub(crate) fn wasm_bindgen() -> Result<Tool> {
    of_wasm_bindgen("wasm-bindgen", "writes the JavaScript side of wasm modules; 3 minutes on two cores")
}

/// Runs wasm tests in Node and in browsers.
///
/// # Errors
/// As for [`wasm_bindgen`].
pub(crate) fn wasm_bindgen_test_runner() -> Result<Tool> {
    of_wasm_bindgen("wasm-bindgen-test-runner", "runs wasm tests; 3 minutes on two cores")
}

fn of_wasm_bindgen(program: &'static str, why: &'static str) -> Result<Tool> {
    let path = workspace_root().join("Cargo.lock");
    let lock = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let version = locked_version(&lock, "wasm-bindgen")?;
    Ok(Tool { package: "wasm-bindgen-cli", program, version, why })
}

/// axe-core's script, which finds faults of accessibility in a page; from npm.
const AXE_CORE: &str = "4.14.1";

/// The path of axe-core's script, installing it first if it is missing.
///
/// # Errors
/// If npm fails.
pub(crate) fn axe_core() -> Result<PathBuf> {
    let root = cache_dir()?.join("tools").join(format!("axe-core-{AXE_CORE}"));
    let script = root.join("node_modules/axe-core/axe.min.js");
    if !script.is_file() {
        println!("   axe-core {AXE_CORE} is missing (finds faults of accessibility; seconds): installing");
        fs::create_dir_all(&root).with_context(|| format!("creating {}", root.display()))?;
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-save", "--no-package-lock", "--ignore-scripts", "--no-audit", "--silent"]);
        run(npm.arg("--prefix").arg(&root).arg(format!("axe-core@{AXE_CORE}")).current_dir(&root))?;
    }
    if !script.is_file() {
        bail!("expected {} after npm installed axe-core, but it is not there", script.display());
    }
    Ok(script)
}

/// Sees to it that Chromium and its driver are there.
///
/// # Errors
/// If they are not, and cannot be installed.
pub(crate) fn chromium() -> Result<()> {
    if on_path("chromium").is_some() && on_path("chromedriver").is_some() {
        return Ok(());
    }
    if !debian::is_here() {
        bail!("expected `chromium` and `chromedriver` of the same version on PATH; install them");
    }
    println!("   Chromium or its driver is missing (runs the page; 1 minute): installing Debian's");
    debian::install(&["chromium", "chromium-driver"])
}

/// Links programs for aarch64.
pub(crate) const AARCH64_LINKER: &str = "aarch64-linux-gnu-gcc";
/// Runs them, a process at a time.
const AARCH64_EMULATOR: &str = "qemu-aarch64";
/// Where Debian's cross compiler has aarch64's C library.
const AARCH64_LIBRARIES: &str = "/usr/aarch64-linux-gnu";

/// The command that runs a program for aarch64, installing it, the linker and the C library if they are missing.
///
/// # Errors
/// If they are missing and cannot be installed.
pub(crate) fn aarch64_emulator() -> Result<String> {
    let library = Path::new(AARCH64_LIBRARIES).join("lib/libc.so.6");
    if on_path(AARCH64_EMULATOR).is_none() || on_path(AARCH64_LINKER).is_none() || !library.is_file() {
        if !debian::is_here() {
            bail!(
                "expected `{AARCH64_EMULATOR}` and `{AARCH64_LINKER}` on PATH, and {}; install them",
                library.display()
            );
        }
        println!("   QEMU or a linker for aarch64 is missing (seconds): installing Debian's");
        debian::install(&["qemu-user", "gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"])?;
    }
    Ok(format!("{AARCH64_EMULATOR} -L {AARCH64_LIBRARIES}"))
}

/// Settings for `cargo install`. Trunk and cargo-deny ask for one unit and a whole-program optimisation, which takes longer
/// than all that they ever do here.
const QUICK_TO_BUILD: [(&str, &str); 3] = [
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"),
];

impl Tool {
    /// The program's path, installing it first if it is missing.
    ///
    /// # Errors
    /// If `cargo install` fails.
    pub(crate) fn find_or_install(&self) -> Result<PathBuf> {
        let root = cache_dir()?.join("tools").join(format!("{}-{}", self.package, self.version));
        let installed = root.join("bin").join(format!("{}{}", self.program, std::env::consts::EXE_SUFFIX));
        if self.is_at(&installed) {
            return Ok(installed);
        }
        if let Some(found) = on_path(self.program).filter(|found| self.is_at(found)) {
            return Ok(found);
        }
        println!("   {} {} is missing ({}): installing", self.package, self.version, self.why);
        let started = Instant::now();
        self.install(&root)?;
        if !self.is_at(&installed) {
            bail!(
                "expected {} of version {} after `cargo install {}`, but it is not there",
                installed.display(),
                self.version,
                self.package
            );
        }
        println!("   installed in {} to {}", show_duration(started.elapsed()), root.display());
        Ok(installed)
    }

    fn is_at(&self, path: &Path) -> bool {
        path.is_file()
            && output_of(Command::new(path).arg("--version"))
                .is_ok_and(|said| said.split_whitespace().any(|word| word == self.version))
    }

    fn install(&self, root: &Path) -> Result<()> {
        let build = root.join("build");
        let install = |locked: &[&str]| {
            let mut command = Command::new("cargo");
            command
                .args(["install", "--quiet", "--version", &self.version, "--root"])
                .arg(root)
                .args(locked)
                .arg(self.package)
                // Outside the checkout, whose cargo settings are for its own crates.
                .current_dir(root)
                .envs(QUICK_TO_BUILD)
                .env("CARGO_TARGET_DIR", &build)
                .env_remove("CARGO_BUILD_BUILD_DIR")
                .env_remove("RUSTFLAGS");
            run(&mut command)
        };
        fs::create_dir_all(root).with_context(|| format!("creating {}", root.display()))?;
        // With the versions that its authors tested. They can be newer than what a registry's mirror has.
        let outcome = install(&["--locked"]).or_else(|error| {
            println!(
                "   {error:#}; trying again with the newest versions of its dependencies that there are"
            );
            install(&[])
        });
        // It holds hundreds of megabytes that nobody needs again; a leftover does no harm.
        let _ = fs::remove_dir_all(&build);
        outcome.with_context(|| {
            format!("expected to install {} {} from crates.io ({})", self.package, self.version, self.why)
        })
    }
}

/// The folder that a variable of the environment names, if it is set and not empty.
pub(crate) fn folder(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Where things that outlive a checkout are kept.
///
/// # Errors
/// If the environment names no folder for it.
pub(crate) fn cache_dir() -> Result<PathBuf> {
    if let Some(own) = folder("INKLING_CACHE") {
        return Ok(own);
    }
    folder("XDG_CACHE_HOME")
        .or_else(|| folder("HOME").or_else(|| folder("USERPROFILE")).map(|home| home.join(".cache")))
        .map(|caches| caches.join("inkling"))
        .context("expected INKLING_CACHE, XDG_CACHE_HOME or HOME to name a folder for tools; none is set")
}

/// The version of a package in the text of a Cargo.lock.
fn locked_version(lock: &str, package: &str) -> Result<String> {
    let mut versions = lock.split("[[package]]").filter_map(|entry| {
        let value = |key: &str| {
            entry.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"'))
        };
        (value("name") == Some(package)).then(|| value("version").unwrap_or_default().to_owned())
    });
    match (versions.next(), versions.next()) {
        (Some(version), None) => Ok(version),
        (None, _) => {
            bail!("expected Cargo.lock to name {package}, but it does not: run `cargo check` to update it")
        }
        (Some(one), Some(other)) => bail!(
            "expected one version of {package} in Cargo.lock, got {one} and {other}: run `cargo tree -i {package}`"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = r#"
version = 4

[[package]]
name = "wasm-bindgen"
version = "0.2.130"
dependencies = [
 "wasm-bindgen-macro",
]

[[package]]
name = "wasm-bindgen-macro"
version = "0.2.131"

[[package]]
name = "rand"
version = "0.9.5"

[[package]]
name = "rand"
version = "0.10.4"
"#;

    #[test]
    fn the_locked_version_is_of_exactly_that_package() {
        assert_eq!(locked_version(LOCK, "wasm-bindgen").unwrap(), "0.2.130");
    }

    #[test]
    fn a_missing_package_is_named() {
        let error = locked_version(LOCK, "web-sys").unwrap_err().to_string();
        assert!(error.starts_with("expected Cargo.lock to name web-sys"), "{error}");
    }

    #[test]
    fn two_versions_are_both_named() {
        let error = locked_version(LOCK, "rand").unwrap_err().to_string();
        assert!(error.contains("0.9.5 and 0.10.4"), "{error}");
    }

    #[test]
    fn the_workspace_locks_one_wasm_bindgen() {
        let runner = wasm_bindgen_test_runner().unwrap();
        assert!(runner.version.starts_with("0.2."), "{}", runner.version);
    }
}
