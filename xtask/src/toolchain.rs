//! A Rust toolchain that compiles for another target than this machine. Nothing else in this repository knows where
//! it comes from.
//!
//! Three ways, tried in this order:
//!
//! 1. The toolchain in use already has the target, or way 3 was gone before: nothing to do.
//! 2. `rustup target add TARGET`. This is enough wherever rustup can download.
//! 3. On Debian, where rustup cannot but `apt-get` can: the packages `rustc-web`, `cargo-web` and `rust-web-src`
//!    are a whole Rust with the sources of its standard library, but without that library for the target. So:
//!    - cargo builds it once, as a by-product of an empty crate (`-Z build-std`, an unstable option that
//!      `RUSTC_BOOTSTRAP=1` unlocks; with bitcode, because link-time optimisation looks for it);
//!    - its `.rlib` files are copied to where that rustc looks for a target's libraries, with a note of the rustc
//!      that made them, since no other one can read them;
//!    - `rustup toolchain link` gives that Rust a name, so that `RUSTUP_TOOLCHAIN` chooses it for cargo and for
//!      every tool that calls cargo;
//!    - its sysroot has no linker for wasm, so one is named by a variable.
//!
//! No toolchain brings a linker and a C library for aarch64: `tools::aarch64_emulator` sees to those.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::debian::{self, as_root};
use crate::process::{self, on_path, output_of, run, show_duration};
use crate::tools::{self, AARCH64_LINKER};
use crate::workspace_root;

/// The name that way 3 gives to Debian's Rust.
const LINKED: &str = "inkling-debian";
const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
/// Names the compiler (`rustc -vV`) that the libraries beside it were built with.
const BUILT_BY: &str = "inkling-built-by.txt";
/// Where under the target folder builds of another compiler lie.
const APART: &str = "debian";

/// What is compiled for besides this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// The page, the JavaScript package, and the wasm tests.
    Wasm32,
    /// Tests of the NEON kernels.
    Aarch64,
}

impl Target {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Target::Wasm32 => "wasm32-unknown-unknown",
            Target::Aarch64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// The variable by which cargo is told about `what`, the target's `LINKER`, `RUNNER` or `RUSTFLAGS`.
    pub(crate) fn variable(self, what: &str) -> String {
        format!("CARGO_TARGET_{}_{what}", self.name().replace('-', "_").to_uppercase())
    }
}

/// Flags of rustc, each after a blank, by which messages of panics name a dependency's file from its crate's folder on.
///
/// What is shipped is then the same bytes wherever it was built, and tells nobody where that was. The folders that cargo
/// unpacks crates into have the registries' names, of which there may be several. Flags are split at blanks, so a folder
/// with one in its path is left out: that makes a module larger, not wrong.
pub(crate) fn without_registry_paths() -> String {
    let own = || Some(std::env::home_dir()?.join(".cargo"));
    let Some(home) = tools::folder("CARGO_HOME").or_else(own) else { return String::new() };
    let Ok(registries) = fs::read_dir(home.join("registry/src")) else { return String::new() };
    without_paths(registries.filter_map(|entry| entry.ok()?.path().to_str().map(str::to_owned)).collect())
}

fn without_paths(mut folders: Vec<String>) -> String {
    folders.retain(|folder| !folder.contains([' ', '=']));
    // Another order would build everything anew.
    folders.sort();
    folders.iter().fold(String::new(), |flags, folder| flags + " --remap-path-prefix=" + folder + "/=")
}

/// A toolchain that has the target.
pub(crate) struct Toolchain {
    target: Target,
    /// Its name for rustup; none means the one in use.
    name: Option<&'static str>,
    /// A linker, where the toolchain does not bring one.
    linker: Option<PathBuf>,
}

impl Toolchain {
    /// Finds a toolchain that has the target, or makes one.
    ///
    /// # Errors
    /// If none of the three ways is open; the text says why each is not.
    pub(crate) fn find_or_install(target: Target) -> Result<Self> {
        if in_use_has(target) {
            return Ok(Self::in_use(target));
        }
        if linked_is_ready(target) {
            return Self::linked(target);
        }
        let started = Instant::now();
        let Err(rustup) = add_with_rustup(target) else {
            println!("   added in {}", show_duration(started.elapsed()));
            return Ok(Self::in_use(target));
        };
        println!("   rustup cannot add the target here: {rustup:#}");
        println!("   so Debian's rustc-web is set up for it (once; a few minutes)");
        set_up_debian(target).with_context(|| {
            format!(
                "expected a Rust toolchain with the target {}; rustup: {rustup:#}; Debian's packages",
                target.name()
            )
        })?;
        println!("   set up in {}", show_duration(started.elapsed()));
        Self::linked(target)
    }

    /// A cargo that compiles for the target.
    pub(crate) fn cargo(&self, subcommand: &str) -> Command {
        let mut cargo = process::cargo(subcommand);
        cargo.args(["--target", self.target.name()]);
        self.configure(&mut cargo);
        cargo
    }

    /// Lets a program that calls cargo (Trunk) use this toolchain.
    pub(crate) fn configure(&self, command: &mut Command) {
        if let Some(name) = self.name {
            command.env("RUSTUP_TOOLCHAIN", name);
            // Two compilers in one folder would build everything anew in turns.
            command.env("CARGO_TARGET_DIR", self.target_dir());
            if let Some(build_dir) = std::env::var_os("CARGO_BUILD_BUILD_DIR") {
                command.env("CARGO_BUILD_BUILD_DIR", Path::new(&build_dir).join(APART));
            }
        }
        if let Some(linker) = &self.linker {
            command.env(self.target.variable("LINKER"), linker);
        }
    }

    /// Cargo's target folder for builds with this toolchain; what is built lies in `TARGET/PROFILE` below it.
    pub(crate) fn target_dir(&self) -> PathBuf {
        let target = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| workspace_root().join("target"), PathBuf::from);
        if self.name.is_some() { target.join(APART) } else { target }
    }

    /// What it is, for people.
    pub(crate) fn describe(&self) -> String {
        match (self.name, &self.linker) {
            (Some(name), Some(linker)) => {
                format!("Debian's rustc, linked as `{name}`, with {}", linker.display())
            }
            _ => "the toolchain in use has the target".to_owned(),
        }
    }

    fn in_use(target: Target) -> Self {
        let linker = (target == Target::Aarch64).then(|| AARCH64_LINKER.into());
        Self { target, name: None, linker }
    }

    fn linked(target: Target) -> Result<Self> {
        let linker = match target {
            Target::Wasm32 => wasm_linker()?,
            Target::Aarch64 => AARCH64_LINKER.into(),
        };
        Ok(Self { target, name: Some(LINKED), linker: Some(linker) })
    }
}

fn in_use_has(target: Target) -> bool {
    output_of(Command::new("rustc").args(["--target", target.name(), "--print", "target-libdir"]))
        .is_ok_and(|folder| has_std(Path::new(&folder)))
}

/// Whether way 3 was gone before, and its compiler is still the one that it was gone with.
fn linked_is_ready(target: Target) -> bool {
    // Without the second variable rustup would try to download a toolchain of that name.
    let rustc = |args: &[&str]| {
        let mut rustc = Command::new("rustc");
        output_of(rustc.args(args).env("RUSTUP_TOOLCHAIN", LINKED).env("RUSTUP_AUTO_INSTALL", "0"))
    };
    let (Ok(folder), Ok(version)) =
        (rustc(&["--target", target.name(), "--print", "target-libdir"]), rustc(&["-vV"]))
    else {
        return false;
    };
    has_std(Path::new(&folder)) && built_by(Path::new(&folder)).as_deref() == Some(version.as_str())
}

fn has_std(folder: &Path) -> bool {
    // `test` is what `#[test]` expands to.
    rlibs(folder).is_ok_and(|files| {
        ["std", "test"].iter().all(|name| files.iter().any(|file| crate_name(file) == *name))
    })
}

fn built_by(folder: &Path) -> Option<String> {
    fs::read_to_string(folder.join(BUILT_BY)).ok()
}

/// Way 2.
fn add_with_rustup(target: Target) -> Result<()> {
    if on_path("rustup").is_none() {
        bail!("rustup is not on PATH (https://rustup.rs installs it)");
    }
    let mut add = Command::new("rustup");
    add.args(["target", "add", target.name()]).current_dir(workspace_root());
    process::announce(&add);
    // What is asked of rustup is a reason, not its stack.
    output_of(add.env("RUST_BACKTRACE", "0")).map(drop)
}

/// Way 3.
fn set_up_debian(target: Target) -> Result<()> {
    if !debian::is_here() {
        bail!(
            "this is not a Debian; install the target by hand so that `rustc --target {}` works",
            target.name()
        );
    }
    if on_path("rustup").is_none() {
        bail!("rustup is not on PATH, and it is needed to give Debian's Rust a name");
    }
    debian::install(&DEBIAN_PACKAGES)?;
    let version = output_of(Command::new(DEBIAN_RUSTC).arg("-vV"))?;
    let sysroot = output_of(Command::new(DEBIAN_RUSTC).args(["--print", "sysroot"]))?;
    let folder = Path::new(&sysroot).join("lib/rustlib").join(target.name()).join("lib");
    if !has_std(&folder) || built_by(&folder).as_deref() != Some(version.as_str()) {
        install_std(target, &folder, &version)?;
    }
    run(Command::new("rustup").args(["toolchain", "link", LINKED, &sysroot]))
}

/// Builds the standard library for the target and copies it to `folder`, where rustc looks for it.
fn install_std(target: Target, folder: &Path, version: &str) -> Result<()> {
    let started = Instant::now();
    let probe = tools::cache_dir()?.join("std");
    // What an interrupted or older build left must not be copied.
    match fs::remove_dir_all(&probe) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("removing {}", probe.display()));
        }
        _ => {}
    }
    fs::create_dir_all(probe.join("src")).with_context(|| format!("creating {}", probe.display()))?;
    fs::write(probe.join("src/lib.rs"), "#![no_std]\n")?;
    fs::write(
        probe.join("Cargo.toml"),
        "[package]\nname = \"probe\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n",
    )?;
    let mut build = Command::new(DEBIAN_CARGO);
    build
        .args([
            "build",
            "--quiet",
            "--release",
            "--target",
            target.name(),
            "-Z",
            "build-std=std,panic_abort,test",
        ])
        .current_dir(&probe)
        .env("RUSTC", DEBIAN_RUSTC)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", "-C embed-bitcode=yes")
        // The caller may have its own; the files are looked for in this one.
        .env("CARGO_TARGET_DIR", probe.join("target"))
        .env_remove("CARGO_BUILD_BUILD_DIR")
        .env_remove("RUSTUP_TOOLCHAIN");
    run(&mut build)?;

    let built = rlibs(&probe.join("target").join(target.name()).join("release/deps"))?;
    let stale = rlibs(folder).unwrap_or_default();
    let folder_name = folder.to_string_lossy();
    run(&mut as_root(&["mkdir", "-p", &folder_name])?)?;
    if !stale.is_empty() {
        output_of(as_root(&["rm", "-f"])?.args(&stale))?;
    }
    let library = built.iter().filter(|file| crate_name(file) != "probe");
    println!("   copying the library's {} files to {folder_name}", built.len() - 1);
    output_of(as_root(&["cp"])?.args(library).arg(folder))?;
    let note = probe.join(BUILT_BY);
    fs::write(&note, version)?;
    // Last, because its presence says that the rest is complete.
    output_of(as_root(&["cp"])?.arg(&note).arg(folder))?;
    fs::remove_dir_all(&probe).with_context(|| format!("removing {}", probe.display()))?;
    println!("   standard library for {} built in {}", target.name(), show_duration(started.elapsed()));
    Ok(())
}

/// The compiled libraries in a folder.
fn rlibs(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rlib") {
            files.push(path);
        }
    }
    Ok(files)
}

/// `std` for `libstd-0123456789abcdef.rlib`; empty if the name has another form.
fn crate_name(rlib: &Path) -> &str {
    let stem = rlib.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    stem.strip_prefix("lib").and_then(|stem| stem.rsplit_once('-')).map_or("", |(name, _hash)| name)
}

/// A linker for wasm: that of the toolchain in use, else LLVM's from a package.
fn wasm_linker() -> Result<PathBuf> {
    let sysroot = output_of(Command::new("rustc").args(["--print", "sysroot"]))?;
    let host = output_of(Command::new("rustc").args(["--print", "host-tuple"]))?;
    let own = Path::new(&sysroot).join("lib/rustlib").join(host).join("bin/rust-lld");
    if own.is_file() {
        return Ok(own);
    }
    on_path("rust-lld").or_else(|| on_path("wasm-ld")).with_context(|| {
        format!(
            "expected a linker for wasm32: {}, rust-lld or wasm-ld on PATH; found none (apt-get install lld)",
            own.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cut_in_one_order_and_never_at_a_blank() {
        let folders = ["/c/src/two", "/c/src/one", "/my cargo/src/one"].map(str::to_owned).to_vec();
        let flags = " --remap-path-prefix=/c/src/one/= --remap-path-prefix=/c/src/two/=";
        assert_eq!(without_paths(folders), flags);
    }

    #[test]
    fn a_library_is_named_by_its_file() {
        assert_eq!(crate_name(Path::new("a/libstd-5d0815dd03c3a01c.rlib")), "std");
        assert_eq!(
            crate_name(Path::new("librustc_std_workspace_alloc-e7aa.rlib")),
            "rustc_std_workspace_alloc"
        );
        assert_eq!(crate_name(Path::new("libstd.rlib")), "");
    }

    #[test]
    fn a_folder_without_std_is_not_a_target() {
        assert!(!has_std(Path::new("/nowhere")));
        assert!(!has_std(Path::new(env!("CARGO_MANIFEST_DIR"))));
    }

    fn set_by(toolchain: &Toolchain, variable: &str) -> Option<PathBuf> {
        let cargo = toolchain.cargo("build");
        cargo
            .get_envs()
            .find_map(|(name, value)| (name == variable).then_some(value).flatten())
            .map(PathBuf::from)
    }

    #[test]
    fn builds_of_another_compiler_are_apart() {
        let linker = Some("/bin/wasm-ld".into());
        let debian = Toolchain { target: Target::Wasm32, name: Some(LINKED), linker };
        assert_eq!(set_by(&debian, "CARGO_TARGET_DIR"), Some(debian.target_dir()));
        assert!(debian.target_dir().ends_with(APART));
    }

    #[test]
    fn builds_of_the_same_compiler_share_a_folder() {
        let same = Toolchain::in_use(Target::Wasm32);
        assert_eq!(set_by(&same, "CARGO_TARGET_DIR"), None);
        assert!(!same.target_dir().ends_with(APART));
    }

    #[test]
    fn only_aarch64_needs_a_linker_of_its_own_everywhere() {
        let linker = "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER";
        assert_eq!(Target::Aarch64.variable("LINKER"), linker);
        assert_eq!(set_by(&Toolchain::in_use(Target::Aarch64), linker), Some(AARCH64_LINKER.into()));
        assert_eq!(Toolchain::in_use(Target::Wasm32).linker, None);
    }
}
