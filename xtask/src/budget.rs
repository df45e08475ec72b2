//! What the page may weigh: `page-budget.txt` against the files of a build, compressed by brotli.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::{page, workspace_root};

const BUDGET: &str = "page-budget.txt";

/// A limit's name for the engine's files together.
const ENGINE: &str = "engine/";
/// And for everything.
const TOTAL: &str = "total";

/// Weighs the page that lies in `dist`; says what each file weighs if `show`.
///
/// # Errors
/// One that names each file and sum that is over its limit, or that has none.
pub(crate) fn check(dist: &Path, show: bool) -> Result<()> {
    let path = workspace_root().join(BUDGET);
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let limits = limits(&text)?;
    let weights = needed(weigh(dist)?);
    if show {
        for (name, weight) in &weights {
            println!("   {weight:>9} {name}");
        }
    }
    for (name, weight) in sums(&weights) {
        println!("   {weight:>9} of at most {} bytes: {name}", limits.get(name).copied().unwrap_or_default());
    }
    let faults = faults(&weights, &limits);
    if !faults.is_empty() {
        bail!("the page is over its budget ({BUDGET}):\n     {}", faults.join("\n     "));
    }
    Ok(())
}

/// Bytes of each file on its way to a visitor, by its name without the hash.
fn weigh(dist: &Path) -> Result<BTreeMap<String, u64>> {
    let mut weights = BTreeMap::new();
    for path in page::files(dist)? {
        let size = |path: &str| fs::metadata(dist.join(path)).map(|file| file.len());
        let weight = size(&format!("{path}.br"))
            .or_else(|_| size(&path))
            .with_context(|| format!("weighing {path}"))?;
        *weights.entry(without_hash(&path)).or_default() += weight;
    }
    Ok(weights)
}

/// What a visitor needs before the first token, besides model files.
fn needed(mut weights: BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    weights.retain(|name, _| {
        !name.starts_with("models/") && !name.ends_with(".txt") && !page::is_for_developers(name)
    });
    // The engine's two builds are for two kinds of browsers; a visitor gets one of them. The heavier one counts.
    let builds: Vec<String> =
        weights.keys().filter(|name| name.starts_with(ENGINE) && name.ends_with(".wasm")).cloned().collect();
    let heaviest = builds.iter().max_by_key(|name| weights[*name]).cloned();
    weights.retain(|name, _| !builds.contains(name) || Some(name) == heaviest.as_ref());
    weights
}

fn sums(weights: &BTreeMap<String, u64>) -> [(&'static str, u64); 2] {
    let engine = weights.iter().filter(|(name, _)| name.starts_with(ENGINE)).map(|(_, weight)| weight).sum();
    [(ENGINE, engine), (TOTAL, weights.values().sum())]
}

fn faults(weights: &BTreeMap<String, u64>, limits: &BTreeMap<String, u64>) -> Vec<String> {
    let files = weights.iter().map(|(name, weight)| (name.as_str(), *weight));
    let fault = |(name, weight): (&str, u64)| match limits.get(name) {
        None => Some(format!("{name} is new ({weight} bytes): give it a line, or leave it out of the page")),
        Some(limit) if weight > *limit => {
            Some(format!("{name} has {weight} bytes, at most {limit} are allowed"))
        }
        Some(_) => None,
    };
    files.chain(sums(weights)).filter_map(fault).collect()
}

/// The lines `BYTES NAME`; a line that starts with `#` explains.
fn limits(text: &str) -> Result<BTreeMap<String, u64>> {
    let lines = text
        .lines()
        .map(str::trim)
        .enumerate()
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let limit = |(index, line): (usize, &str)| {
        let (bytes, name) = line.split_once(char::is_whitespace)?;
        Some((name.trim().to_owned(), bytes.replace('_', "").parse().ok()?)).ok_or(index).ok()
    };
    lines
        .map(|(index, line)| {
            limit((index, line))
                .with_context(|| format!("{BUDGET}, line {}: expected `BYTES NAME`, got `{line}`", index + 1))
        })
        .collect()
}

/// `ui_bg.wasm` for `ui-0123456789abcdef_bg.wasm`.
fn without_hash(path: &str) -> String {
    // Trunk writes a number of 64 bits without the zeros at its head: one name in sixteen is shorter.
    let is_hash = |text: &str| (12..=16).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
    for (at, _) in path.match_indices('-') {
        let rest = &path[at + 1..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        if is_hash(&rest[..end]) {
            return format!("{}{}", &path[..at], &rest[end..]);
        }
    }
    // Trunk's initializers have it in front.
    if let Some((hash, name)) = path.split_once('-')
        && is_hash(hash)
    {
        return name.to_owned();
    }
    path.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(files: &[(&str, u64)]) -> BTreeMap<String, u64> {
        files.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect()
    }

    #[test]
    fn a_file_keeps_its_name_whatever_its_hash() {
        assert_eq!(without_hash("inkling-ui-0123456789abcdef_bg.wasm"), "inkling-ui_bg.wasm");
        assert_eq!(without_hash("a/boot-89abcdef01234567.js"), "a/boot.js");
        assert_eq!(without_hash("base-13fa7fc3a7391f2.css"), "base.css");
        assert_eq!(without_hash("engine/inkling-relaxed.wasm"), "engine/inkling-relaxed.wasm");
        assert_eq!(without_hash("0123456789abcdef-start.js"), "start.js");
        assert_eq!(without_hash("x-0123456789abcdef0.js"), "x-0123456789abcdef0.js");
    }

    #[test]
    fn models_and_the_lighter_build_do_not_count() {
        let needed = needed(weights(&[
            ("engine/a.wasm", 5),
            ("engine/b.wasm", 6),
            ("engine/inkling.d.ts", 9),
            ("index.html", 1),
            ("models/demo/writer/model.gguf", 99),
        ]));
        assert_eq!(needed, weights(&[("engine/b.wasm", 6), ("index.html", 1)]));
        assert_eq!(sums(&needed), [(ENGINE, 6), (TOTAL, 7)]);
    }

    #[test]
    fn what_grew_and_what_is_new_is_named() {
        let limits = limits("# why\n10 index.html\n1_000 engine/\n\n11 total\n").unwrap();
        assert_eq!(faults(&weights(&[("index.html", 10)]), &limits), [""; 0]);
        let faults = faults(&weights(&[("index.html", 11), ("new.js", 1)]), &limits);
        assert_eq!(faults.len(), 3, "{faults:?}");
        assert_eq!(faults[0], "index.html has 11 bytes, at most 10 are allowed");
        assert!(faults[1].starts_with("new.js is new (1 bytes)"));
        assert_eq!(faults[2], "total has 12 bytes, at most 11 are allowed");
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        let error = limits("10 a\nten b\n").unwrap_err().to_string();
        assert_eq!(error, "page-budget.txt, line 2: expected `BYTES NAME`, got `ten b`");
    }

    #[test]
    fn the_committed_budget_keeps_the_promise() {
        let text = fs::read_to_string(workspace_root().join(BUDGET)).unwrap();
        let limits = limits(&text).unwrap();
        assert!(limits[TOTAL] <= 1_200_000 && limits[ENGINE] <= 850_000, "{limits:?}");
    }
}
