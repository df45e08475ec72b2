//! `cargo xtask engine`: the engine for JavaScript, as the folder that the page and the npm package ship.
//!
//! `crates/web` is compiled twice, with plain and with relaxed SIMD, and wasm-bindgen writes the JavaScript side of each.
//! That side is the same for both, so the folder has it once; `inkling.js` picks the module that the browser can run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::process::{output_of, run, show_duration};
use crate::toolchain::{self, Target, Toolchain};
use crate::{page, tools, workspace_root};

const HELP: &str = "\
Build the engine for JavaScript to target/page/engine, and the npm package around it to target/npm

Usage: cargo xtask engine [--dev] [--npm]

  --dev   Build faster, for a larger and slower module with the checks of a debug build
  --npm   Also assemble the npm package (`npm pack` works in target/npm)

Trunk calls it before it builds the page; TRUNK_PROFILE=debug means --dev.";

/// What is written by hand.
const SOURCES: &str = "crates/web/js";
const HAND_WRITTEN: [&str; 3] = ["inkling.js", "inkling.d.ts", "worker.js"];
const DEMO: &str = "models/demo";
/// The JavaScript side that wasm-bindgen writes.
const GLUE: &str = "inkling_web.js";

/// How the engine is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Small and fast: minutes.
    Page,
    /// Quick to build, with assertions.
    Dev,
}

impl Profile {
    fn name(self) -> &'static str {
        match self {
            Profile::Page => "page",
            Profile::Dev => "wasm-test",
        }
    }
}

/// One of the two modules.
pub(crate) struct Build {
    /// Its folder under the target folder is called so, too. With `--remap-path-prefix` cargo does not tell builds with
    /// other flags apart: in one folder they, and the page's, would throw each other's work away.
    name: &'static str,
    features: &'static str,
}

/// For every browser.
const SIMD128: Build = Build { name: "simd128", features: "+simd128" };
/// For engines with relaxed SIMD, on which it is faster.
pub(crate) const RELAXED: Build = Build { name: "relaxed", features: "+simd128,+relaxed-simd" };

const BUILDS: [Build; 2] = [SIMD128, RELAXED];

impl Build {
    /// A cargo command for this build, and the target folder that it uses.
    pub(crate) fn cargo(&self, toolchain: &Toolchain, subcommand: &str) -> (Command, PathBuf) {
        let mut cargo = toolchain.cargo(subcommand);
        let target = toolchain.target_dir().join(self.name);
        if let Some(folder) = std::env::var_os("CARGO_BUILD_BUILD_DIR") {
            cargo.env("CARGO_BUILD_BUILD_DIR", Path::new(&folder).join(self.name));
        }
        cargo.env("CARGO_TARGET_DIR", &target);
        // LLVM's pass that makes addresses in loops cheaper does not know that wasm engines add constants for nothing:
        // without it prompts are read a tenth faster. With instructions in the order of the source, and not in LLVM's, they
        // are read 2 % faster.
        let flags = "-C llvm-args=-disable-lsr -C llvm-args=-pre-RA-sched=source";
        let flags = format!("-C target-feature={} {flags}", self.features);
        cargo.env("RUSTFLAGS", format!("{flags}{}", toolchain::without_registry_paths()));
        (cargo, target)
    }
}

/// Runs the command.
///
/// # Errors
/// If the arguments are wrong or a build fails.
pub(crate) fn main(args: &[String]) -> Result<ExitCode> {
    let mut profile = match std::env::var("TRUNK_PROFILE").as_deref() {
        Ok("debug") => Profile::Dev,
        _ => Profile::Page,
    };
    let mut npm = false;
    for arg in args {
        match arg.as_str() {
            "--dev" => profile = Profile::Dev,
            "--npm" => npm = true,
            "--help" | "-h" => {
                println!("{HELP}");
                return Ok(ExitCode::SUCCESS);
            }
            other => bail!("expected --dev, --npm or --help, got `{other}`"),
        }
    }
    let engine = build(profile)?;
    if npm {
        let package = assemble_npm(&engine)?;
        println!("   the npm package is assembled: {}", package.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds the engine's folder; the answer is where it is.
///
/// # Errors
/// If a tool cannot be had or a build fails.
pub(crate) fn build(profile: Profile) -> Result<PathBuf> {
    let started = Instant::now();
    let root = workspace_root();
    let folder = root.join("target/page/engine");
    let toolchain = Toolchain::find_or_install(Target::Wasm32)?;
    let bindgen = tools::wasm_bindgen()?.find_or_install()?;
    let staging = root.join("target/page/engine-staging");
    let mut glue: Option<String> = None;
    for build in &BUILDS {
        let module = compile(&toolchain, build, profile)?;
        let out = staging.join(build.name);
        let mut command = Command::new(&bindgen);
        command.args(["--target", "web", "--no-typescript", "--out-name", "inkling_web"]);
        if profile == Profile::Page {
            command.args(["--remove-name-section", "--remove-producers-section"]);
        }
        run(command.arg("--out-dir").arg(&out).arg(&module))?;
        let own_glue = without_comments(&read_text(&out.join(GLUE))?);
        match &glue {
            None => glue = Some(own_glue),
            Some(other) if *other == own_glue => {}
            Some(_) => bail!(
                "expected the same {GLUE} for both builds, got two: compare them under {}",
                staging.display()
            ),
        }
    }
    // All at the end: the files of two builds do not fit together.
    for build in &BUILDS {
        let module = staging.join(build.name).join("inkling_web_bg.wasm");
        copy_if_new(&module, &folder.join(format!("inkling_web.{}.wasm", build.name)))?;
    }
    write_if_new(&folder.join(GLUE), glue.unwrap_or_default().as_bytes())?;
    for name in HAND_WRITTEN {
        let source = root.join(SOURCES).join(name);
        match page::is_for_developers(name) {
            true => copy_if_new(&source, &folder.join(name))?,
            false => write_if_new(&folder.join(name), without_comments(&read_text(&source)?).as_bytes())?,
        }
    }
    // Where the engine looks for them, so that the folder above is complete by itself.
    page::add_demo_models(&root.join(DEMO), &root.join("target/page").join(DEMO))?;
    println!("   the engine is built: {} ({})", folder.display(), show_duration(started.elapsed()));
    Ok(folder)
}

/// Compiles the module; the answer is its file.
fn compile(toolchain: &Toolchain, build: &Build, profile: Profile) -> Result<PathBuf> {
    let (mut cargo, target) = build.cargo(toolchain, "build");
    let profile = profile.name();
    run(cargo.args(["--package", "inkling-web", "--lib", "--profile", profile, "--quiet"]))?;
    Ok(target.join("wasm32-unknown-unknown").join(profile).join("inkling_web.wasm"))
}

/// A script without lines of comments. Those of the glue number a module's functions, in which the builds differ; and
/// nobody downloads comments for pleasure: developers have them in `inkling.d.ts`.
fn without_comments(script: &str) -> String {
    let mut kept = String::with_capacity(script.len());
    let mut in_comment = false;
    for line in script.lines() {
        let text = line.trim();
        in_comment |= text.starts_with("/*");
        if !in_comment && !text.starts_with("//") && !text.is_empty() {
            kept.push_str(line);
            kept.push('\n');
        }
        in_comment &= !text.ends_with("*/");
    }
    kept
}

/// Puts the npm package together: engine, demo models, texts. The answer is its folder.
fn assemble_npm(engine: &Path) -> Result<PathBuf> {
    let root = workspace_root();
    let package = root.join("target/npm");
    match fs::remove_dir_all(&package) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("removing {}", package.display()));
        }
        _ => {}
    }
    for entry in fs::read_dir(engine).with_context(|| format!("reading {}", engine.display()))? {
        let entry = entry?;
        copy_if_new(&entry.path(), &package.join("engine").join(entry.file_name()))?;
    }
    page::add_demo_models(&root.join(DEMO), &package.join(DEMO))?;
    copy_if_new(&root.join(SOURCES).join("package.json"), &package.join("package.json"))?;
    copy_if_new(&root.join("crates/web/README.md"), &package.join("README.md"))?;
    for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
        copy_if_new(&root.join(licence), &package.join(licence))?;
    }
    // Says what would be published, and fails where the package is not one.
    output_of(Command::new("npm").args(["pack", "--dry-run", "--silent"]).current_dir(&package))?;
    Ok(package)
}

fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

fn copy_if_new(from: &Path, to: &Path) -> Result<()> {
    write_if_new(to, &fs::read(from).with_context(|| format!("reading {}", from.display()))?)
}

/// Leaves a file alone that is right already, so that nothing that watches it builds again.
fn write_if_new(path: &Path, content: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == content) {
        return Ok(());
    }
    let parent = path.parent().context("a file lies in a folder")?;
    fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
    fs::write(path, content).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_names_every_file_that_is_written_by_hand() {
        for name in HAND_WRITTEN {
            assert!(workspace_root().join(SOURCES).join(name).is_file(), "{name}");
        }
    }

    #[test]
    fn comments_go_and_code_stays() {
        let glue = "/* a */\nlet x = 1; // kept\n\n    // b\n/**\n * c\n */\nlet y;\n";
        assert_eq!(without_comments(glue), "let x = 1; // kept\nlet y;\n");
    }

    #[test]
    fn the_npm_package_has_the_version_of_the_workspace() {
        let package = read_text(&workspace_root().join(SOURCES).join("package.json")).unwrap();
        let package: serde_json::Value = serde_json::from_str(&package).unwrap();
        assert_eq!(package["version"], env!("CARGO_PKG_VERSION"));
    }
}
