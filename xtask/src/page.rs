//! `cargo xtask page`: the page, built by Trunk and finished for its hosts.
//!
//! Trunk compiles `crates/ui` and gathers the files that `index.html` names; `Trunk.toml` has it call back before
//! (`cargo xtask engine`) and after (`cargo xtask page-finish`), so a bare `trunk serve` does the same. Finishing is:
//!
//! 1. inline scripts become files, and the policy of `crates/ui/content-security-policy.txt` goes into `index.html`, so
//!    that it holds on hosts that set no headers;
//! 2. the page's module loses the names of its functions, a quarter of what it weighs;
//! 3. the demo models are put beside, with their sizes and hashes;
//! 4. `precache.json` lists what the service worker keeps, whose text changes whenever one of them does;
//! 5. in release, a copy compressed by brotli stands beside each file that gets smaller by it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::process::{self, run, show_duration};
use crate::toolchain::{self, Target, Toolchain};
use crate::{budget, tools, workspace_root};

const HELP: &str = "\
Build the page (release) to target/page/dist, and weigh it against page-budget.txt

Usage: cargo xtask page [--weigh]

--weigh only weighs what is built already, file by file.

`cargo xtask trunk ARGS` is Trunk with the tools and the toolchain that the page needs: `cargo xtask trunk serve`
builds again at every change.";

const POLICY: &str = "crates/ui/content-security-policy.txt";
const DEMO: &str = "models/demo";
const PRECACHE: &str = "precache.json";
const SERVICE_WORKER: &str = "sw.js";
/// Stands in the service worker for the version of the page.
const VERSION: &str = "__INKLING_VERSION__";

/// Where Trunk puts the page.
pub(crate) fn dist() -> PathBuf {
    workspace_root().join("target/page/dist")
}

/// Builds the page and says what it weighs.
///
/// # Errors
/// If the build fails, or the page weighs more than its budget.
pub(crate) fn main(args: &[String]) -> Result<ExitCode> {
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => drop(build()?),
        ["--weigh"] => {}
        ["--help" | "-h"] => {
            println!("{HELP}");
            return Ok(ExitCode::SUCCESS);
        }
        _ => bail!("expected --weigh or nothing, got `{}`", args.join(" ")),
    }
    budget::check(&dist(), true)?;
    Ok(ExitCode::SUCCESS)
}

/// Builds the page in release mode; the answer is its folder.
///
/// # Errors
/// If a tool cannot be had, or Trunk or a hook of its fails.
pub(crate) fn build() -> Result<PathBuf> {
    let started = Instant::now();
    run(trunk_command()?.args(["build", "--release"]))?;
    println!("   the page is built: {} ({})", dist().display(), show_duration(started.elapsed()));
    Ok(dist())
}

/// `cargo xtask trunk ARGS`.
///
/// # Errors
/// If a tool cannot be had or Trunk does not end well.
pub(crate) fn trunk(args: &[String]) -> Result<ExitCode> {
    let mut trunk = trunk_command()?;
    process::announce(trunk.args(args));
    let status = trunk.status().context("could not start Trunk")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Trunk, with wasm-bindgen where it looks for it and a toolchain that compiles for wasm32.
fn trunk_command() -> Result<Command> {
    let toolchain = Toolchain::find_or_install(Target::Wasm32)?;
    let bindgen = tools::wasm_bindgen()?.find_or_install()?;
    let program = tools::trunk().find_or_install()?;
    let mut trunk = Command::new(program);
    process::without_package_variables(&mut trunk);
    toolchain.configure(&mut trunk);
    let own = bindgen.parent().context("a program lies in a folder")?.to_path_buf();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(own).chain(std::env::split_paths(&path)))?;
    trunk.current_dir(workspace_root()).env("PATH", path);
    // The page itself runs without SIMD, so that a browser that has none can say so, and ask a server. Comes after what
    // `.cargo/config.toml` says; the engine is built with flags of its own. A bare `trunk` leaves this out.
    let flags = format!("-C target-feature=-simd128{}", toolchain::without_registry_paths());
    trunk.env(Target::Wasm32.variable("RUSTFLAGS"), flags);
    // Trunk takes a `NO_COLOR` of another value than true or false for a mistake.
    trunk.env_remove("NO_COLOR");
    Ok(trunk)
}

/// `cargo xtask page-finish`: what Trunk calls when its files are in place.
///
/// # Errors
/// If a file cannot be read or written, or `index.html` is not as Trunk writes it.
pub(crate) fn finish() -> Result<ExitCode> {
    let folder = std::env::var_os("TRUNK_STAGING_DIR").map_or_else(dist, PathBuf::from);
    let root = workspace_root();
    let policy = read_text(&root.join(POLICY))?;
    let html = read_text(&folder.join("index.html"))?;
    let (html, scripts) = without_inline_scripts(&html)?;
    for (name, script) in &scripts {
        write(&folder.join(name), script)?;
    }
    // `trunk serve` adds a script of its own, inline, which it still changes while it serves.
    let html = if html.contains("__TRUNK_ADDRESS__") { html } else { with_policy(&html, &policy)? };
    write(&folder.join("index.html"), &html)?;
    for path in files(&folder)?.into_iter().filter(|path| path.ends_with("_bg.wasm")) {
        let module = read(&folder.join(&path))?;
        let stripped =
            without_custom_sections(&module).with_context(|| format!("{path} is no wasm module"))?;
        fs::write(folder.join(&path), stripped).with_context(|| format!("writing {path}"))?;
    }
    add_demo_models(&root.join(DEMO), &folder.join(DEMO))?;
    add_precache(&folder)?;
    if std::env::var("TRUNK_PROFILE").as_deref() != Ok("debug") {
        let cache = root.join("target/page/brotli");
        for path in files(&folder)?.into_iter().filter(|path| !is_model_weight(path)) {
            compress(&folder, &path, &cache)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Moves the text of every inline script into a file, and names it by what it says.
fn without_inline_scripts(html: &str) -> Result<(String, BTreeMap<String, String>)> {
    let mut kept = String::with_capacity(html.len());
    let mut scripts = BTreeMap::new();
    let mut rest = html;
    while let Some(start) = rest.find("<script") {
        let tag_end = start + rest[start..].find('>').context("index.html: a <script> tag has no end")?;
        let (tag, after) = (&rest[start..tag_end], &rest[tag_end + 1..]);
        let end = after.find("</script>").context("index.html: a <script> has no </script>")?;
        let text = after[..end].trim();
        kept.push_str(&rest[..start]);
        if text.is_empty() || text.contains("__TRUNK_ADDRESS__") {
            kept.push_str(&rest[start..=tag_end]);
            kept.push_str(&after[..end]);
        } else {
            let name = format!("boot-{}.js", &hash(text.as_bytes())[..16]);
            write!(kept, "{tag} src=\"./{name}\">")?;
            scripts.insert(name, format!("{text}\n"));
        }
        kept.push_str("</script>");
        rest = &after[end + "</script>".len()..];
    }
    kept.push_str(rest);
    Ok((kept, scripts))
}

/// Puts the policy first in the head, because it holds only for what comes after it.
fn with_policy(html: &str, policy: &str) -> Result<String> {
    let head = html.find("<head>").context("index.html: expected <head>")? + "<head>".len();
    let policy = policy.lines().collect::<Vec<_>>().join("; ");
    let (before, after) = html.split_at(head);
    // The encoding has to come within the first kilobyte, so the policy follows it if it is there.
    let at = after.find("<meta charset").filter(|at| after[..*at].trim().is_empty());
    let split = at.and_then(|at| Some(at + after[at..].find('>')? + 1)).unwrap_or(0);
    let (charset, rest) = after.split_at(split);
    Ok(format!(r#"{before}{charset}<meta http-equiv="content-security-policy" content="{policy}">{rest}"#))
}

/// A wasm module without what is not run: names, producers. None if it is no module.
///
/// A module is eight bytes and then sections: an id (0 for custom ones), a length in LEB128, as many bytes.
fn without_custom_sections(module: &[u8]) -> Option<Vec<u8>> {
    let mut kept = module.strip_prefix(b"\0asm").map(|_| module.get(..8).map(<[u8]>::to_vec))??;
    let mut rest = &module[8..];
    while let Some((&id, after)) = rest.split_first() {
        let mut size = 0_usize;
        let mut used = 0;
        for (place, byte) in after.iter().take(5).enumerate() {
            size |= usize::from(byte & 0x7f) << (7 * place);
            used = place + 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let (section, next) = rest.split_at_checked(1 + used + size)?;
        if id != 0 {
            kept.extend_from_slice(section);
        }
        rest = next;
    }
    Some(kept)
}

/// Copies the demo models and lists their files with sizes and hashes, so that the page need not ask before it loads.
pub(crate) fn add_demo_models(from: &Path, to: &Path) -> Result<()> {
    let mut models = BTreeMap::new();
    for path in files(from)? {
        let Some((model, name)) = path.split_once('/') else { continue };
        let bytes = read(&from.join(&path))?;
        let entry = json!({"name": name, "size_bytes": bytes.len(), "sha256": hash(&bytes)});
        models.entry(model.to_owned()).or_insert_with(Vec::new).push(entry);
        let target = to.join(&path);
        make_folder(target.parent().unwrap_or(to))?;
        fs::write(&target, bytes).with_context(|| format!("writing {}", target.display()))?;
    }
    let models: BTreeMap<_, _> =
        models.into_iter().map(|(model, files)| (model, json!({"files": files}))).collect();
    write(&to.join("index.json"), &format!("{}\n", json!({"models": models})))
}

/// Lists what the page needs for the service worker, of the engine's builds each with its name, and gives the service
/// worker the version that the list has.
fn add_precache(folder: &Path) -> Result<()> {
    let mut listed = Vec::new();
    let mut all = String::new();
    for path in files(folder)?.into_iter().filter(|path| is_needed(path)) {
        let bytes = read(&folder.join(&path))?;
        let sha256 = hash(&bytes);
        writeln!(all, "{sha256} {path}")?;
        let kind = if path.starts_with(DEMO) { "model" } else { "page" };
        let mut file = json!({"path": path, "size_bytes": bytes.len(), "sha256": sha256, "kind": kind});
        let build = path.strip_prefix("engine/inkling_web.").and_then(|name| name.strip_suffix(".wasm"));
        if let Some(build) = build {
            file["build"] = json!(build);
        }
        listed.push(file);
    }
    let version = &hash(all.as_bytes())[..16];
    write(&folder.join(PRECACHE), &format!("{}\n", json!({"version": version, "files": listed})))?;
    let worker = folder.join(SERVICE_WORKER);
    if worker.is_file() {
        let text = read_text(&worker)?;
        if !text.contains(VERSION) {
            bail!(
                "expected {SERVICE_WORKER} to name {VERSION}, so that it changes whenever the page does; it does not"
            );
        }
        write(&worker, &text.replace(VERSION, version))?;
    }
    Ok(())
}

/// Whether the page needs the file without a network.
fn is_needed(path: &str) -> bool {
    path != PRECACHE && path != SERVICE_WORKER && !is_for_developers(path)
}

/// Whether people and their tools read the file, and no page does.
pub(crate) fn is_for_developers(path: &str) -> bool {
    [".d.ts", ".md", "package.json"].iter().any(|end| path.ends_with(end))
}

/// Weights are close to random bytes: brotli takes long for a few per cent.
fn is_model_weight(path: &str) -> bool {
    path.starts_with(DEMO) && [".gguf", ".safetensors"].iter().any(|end| path.ends_with(end))
}

/// Writes `PATH.br` if that is smaller. What was compressed before is remembered by its hash: brotli's best takes
/// seconds a megabyte.
fn compress(folder: &Path, path: &str, cache: &Path) -> Result<()> {
    let bytes = read(&folder.join(path))?;
    let kept = cache.join(hash(&bytes));
    let compressed = match fs::read(&kept) {
        Ok(compressed) => compressed,
        Err(_) => {
            let compressed = brotli(&bytes)?;
            make_folder(cache)?;
            // Under another name first: a build that is stopped must not leave half a file to be believed.
            let half = kept.with_extension(std::process::id().to_string());
            fs::write(&half, &compressed).with_context(|| format!("writing {}", half.display()))?;
            fs::rename(&half, &kept).with_context(|| format!("writing {}", kept.display()))?;
            compressed
        }
    };
    if compressed.len() < bytes.len() {
        let target = folder.join(format!("{path}.br"));
        fs::write(&target, compressed).with_context(|| format!("writing {}", target.display()))?;
    }
    Ok(())
}

/// Compressed as well as brotli can: with a window of 1 MiB the engine's modules come out 0.5 % smaller than with 16.
fn brotli(bytes: &[u8]) -> Result<Vec<u8>> {
    let params = brotli::enc::BrotliEncoderParams {
        quality: 11,
        lgwin: 20,
        size_hint: bytes.len(),
        ..brotli::enc::BrotliEncoderParams::default()
    };
    let mut compressed = Vec::new();
    brotli::BrotliCompress(&mut &*bytes, &mut compressed, &params).context("compressing in memory")?;
    Ok(compressed)
}

/// All files below `folder` by their paths in it, with `/`, sorted. Copies made by brotli are left out.
pub(crate) fn files(folder: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).with_context(|| format!("reading {}", next.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(folder).ok().and_then(Path::to_str);
            let name = name.with_context(|| format!("{} is not Unicode", path.display()))?.replace('\\', "/");
            if !name.ends_with(".br") {
                found.push(name);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// SHA-256 in hexadecimal.
pub(crate) fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all that is written");
        text
    })
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}

fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("creating {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HTML: &str = "<!DOCTYPE html><html><head>\n<meta charset=\"utf-8\">\n<script src=\"a.js\"></script>\
                        <script type=\"module\" nonce=\"x\">\nimport init from './ui.js';\n</script></head><body></body></html>";

    #[test]
    fn inline_scripts_become_files_and_others_stay() {
        let (html, scripts) = without_inline_scripts(HTML).unwrap();
        let (name, text) = scripts.first_key_value().unwrap();
        assert_eq!((scripts.len(), text.as_str()), (1, "import init from './ui.js';\n"));
        assert!(
            html.contains(&format!("<script type=\"module\" nonce=\"x\" src=\"./{name}\"></script></head>")),
            "{html}"
        );
        assert!(html.contains("<script src=\"a.js\"></script>"), "{html}");
        assert_eq!(
            without_inline_scripts(&html).unwrap(),
            (html, BTreeMap::new()),
            "nothing is left to move"
        );
    }

    #[test]
    fn a_module_keeps_all_but_its_custom_sections() {
        let custom = [&[0, 0x83, 1][..], &[7; 131]].concat();
        let types = [1, 4, 1, 0x60, 0, 0];
        let module = [b"\0asm\x01\0\0\0".as_slice(), &custom, &types, &custom].concat();
        let stripped = [b"\0asm\x01\0\0\0".as_slice(), &types].concat();
        assert_eq!(without_custom_sections(&module), Some(stripped));
        assert_eq!(without_custom_sections(&module[..module.len() - 1]), None, "cut off");
        assert_eq!(without_custom_sections(b"no module"), None);
    }

    #[test]
    fn the_policy_comes_before_everything_but_the_encoding() {
        let html = with_policy(HTML, "default-src 'none'\nscript-src 'self'\n").unwrap();
        let expected = "<head>\n<meta charset=\"utf-8\"><meta http-equiv=\"content-security-policy\" \
                        content=\"default-src 'none'; script-src 'self'\">\n<script";
        assert!(html.contains(expected), "{html}");
        assert!(with_policy("<html>", "").is_err());
    }

    #[test]
    fn the_policy_fits_into_an_attribute() {
        let policy = fs::read_to_string(workspace_root().join(POLICY)).unwrap();
        assert!(!policy.contains('"') && policy.is_ascii());
        assert!(policy.lines().all(|line| !line.is_empty() && !line.ends_with(';')));
    }

    #[test]
    fn a_page_is_finished_and_a_change_reaches_the_service_worker() {
        let folder = std::env::temp_dir().join(format!("inkling-page-{}", std::process::id()));
        fs::create_dir_all(folder.join("engine")).unwrap();
        for name in ["inkling.d.ts", "inkling_web.relaxed.wasm"] {
            fs::write(folder.join("engine").join(name), name).unwrap();
        }
        let version = |script: &str| {
            fs::write(folder.join("engine/inkling.js"), script).unwrap();
            fs::write(folder.join("sw.js"), "const version = '__INKLING_VERSION__';").unwrap();
            add_precache(&folder).unwrap();
            fs::read_to_string(folder.join("sw.js")).unwrap()
        };
        let (one, other) = (version("1"), version("2"));
        assert_eq!(version("1"), one);
        let list: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(folder.join(PRECACHE)).unwrap()).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert_ne!(one, other);
        assert!(!one.contains(VERSION));
        let listed = |index: usize| &list["files"][index];
        assert_eq!(
            list["files"].as_array().unwrap().len(),
            2,
            "neither itself nor the service worker nor what only people read: {list}"
        );
        assert_eq!((&listed(0)["sha256"], &listed(0)["build"]), (&json!(hash(b"1")), &json!(null)));
        assert_eq!(listed(1)["build"], "relaxed");
    }

    #[test]
    fn the_service_worker_picks_the_build_that_the_engine_picks() {
        let probe = |path: &str| {
            let text = fs::read_to_string(workspace_root().join(path)).unwrap();
            let (_, rest) = text.split_once("const RELAXED_SIMD = [").unwrap();
            rest.split_once("];").unwrap().0.to_owned()
        };
        assert_eq!(probe("crates/ui/assets/sw.js"), probe("crates/web/js/inkling.js"));
    }

    #[test]
    fn brotli_makes_text_smaller_and_is_remembered() {
        let folder = std::env::temp_dir().join(format!("inkling-brotli-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let text = "the same again. ".repeat(1000);
        fs::write(folder.join("a.js"), &text).unwrap();
        let cache = folder.join("cache");
        compress(&folder, "a.js", &cache).unwrap();
        let first = fs::read(folder.join("a.js.br")).unwrap();
        fs::write(cache.join(hash(text.as_bytes())), "remembered").unwrap();
        compress(&folder, "a.js", &cache).unwrap();
        let second = fs::read(folder.join("a.js.br")).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert!(first.len() < text.len() / 20);
        let mut back = Vec::new();
        brotli::BrotliDecompress(&mut &*first, &mut back).unwrap();
        assert_eq!(back, text.as_bytes());
        assert_eq!(second, b"remembered");
    }
}
