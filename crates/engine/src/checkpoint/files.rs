//! Which files of a folder, or of a hub repository, make a model.

use serde::Deserialize;

use crate::error::{Error, Result};

/// The files of one model, by name. The smaller ones come first in a load, the weights last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFiles {
    /// `config.json`; a GGUF file can do without.
    pub config: Option<String>,
    /// `generation_config.json`: defaults for decoding.
    pub generation_config: Option<String>,
    /// What the tokenizer is read from, if anything is there: see [`tokenizer_files`].
    pub tokenizer: Option<Vec<&'static str>>,
    /// The weights.
    pub weights: WeightFiles,
}

impl ModelFiles {
    /// The names of all files but the weights.
    #[must_use]
    pub fn small(&self) -> Vec<&str> {
        let configs = [self.config.as_deref(), self.generation_config.as_deref()];
        let mut names: Vec<&str> = configs.into_iter().flatten().collect();
        names.extend(self.tokenizer.iter().flatten());
        names
    }
}

/// The weights' files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WeightFiles {
    /// One file, safetensors or GGUF.
    One(String),
    /// `model.safetensors.index.json`, which names the shards: see [`shards`].
    Sharded(String),
}

/// The tokenizer's files among `names`: its vocabulary in the best form that is there, and `tokenizer_config.json`, which
/// says what ends a text, and whether WordPiece lower-cases.
#[must_use]
pub fn tokenizer_files(names: &[String]) -> Option<Vec<&'static str>> {
    let has = |name: &str| names.iter().any(|other| other == name);
    let mut files = match () {
        () if has("tokenizer.json") => vec!["tokenizer.json"],
        // Byte-level BPE.
        () if has("vocab.json") && has("merges.txt") => vec!["vocab.json", "merges.txt"],
        // WordPiece.
        () if has("vocab.txt") => vec!["vocab.txt"],
        () => return None,
    };
    files.extend(Some("tokenizer_config.json").filter(|name| has(name)));
    Some(files)
}

/// Picks a model's files among `names`: safetensors before a sharded form before a single GGUF file.
///
/// # Errors
/// [`Error::Format`] if there are no weights, several GGUF files to choose from, or safetensors without a config.
pub fn model_files(names: &[String]) -> Result<ModelFiles> {
    let fail = |reason: String| Err(Error::format("model folder", reason));
    let find = |name: &str| names.iter().find(|other| *other == name).cloned();
    let config = find("config.json");
    let gguf: Vec<&String> = names.iter().filter(|name| name.ends_with(".gguf")).collect();
    let weights = match (find("model.safetensors"), find("model.safetensors.index.json"), gguf.as_slice()) {
        (Some(name), ..) => WeightFiles::One(name),
        (None, Some(index), _) => WeightFiles::Sharded(index),
        (None, None, [one]) => WeightFiles::One((*one).clone()),
        (None, None, []) => {
            let found = if names.is_empty() { "nothing".into() } else { names.join(", ") };
            return fail(format!(
                "expected `model.safetensors`, `model.safetensors.index.json` or one `.gguf` file, found {found}"
            ));
        }
        (None, None, several) => {
            let list = several.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
            return fail(format!(
                "expected one `.gguf` file, found {list}; name the file instead of the folder"
            ));
        }
    };
    let is_gguf = matches!(&weights, WeightFiles::One(name) if name.ends_with(".gguf"));
    if config.is_none() && !is_gguf {
        return fail("`config.json` is missing; it says which architecture the weights belong to".into());
    }
    Ok(ModelFiles {
        config,
        generation_config: find("generation_config.json"),
        tokenizer: tokenizer_files(names),
        weights,
    })
}

/// The shards that a `model.safetensors.index.json` names, each once, in order of their names.
///
/// # Errors
/// [`Error::Format`] if the JSON is broken, names no file, or names one outside of the folder.
pub fn shards(index_json: &[u8]) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    let file = "model.safetensors.index.json";
    let index: Index =
        serde_json::from_slice(index_json).map_err(|error| Error::format(file, error.to_string()))?;
    let mut names: Vec<String> = index.weight_map.into_values().collect();
    names.sort();
    names.dedup();
    if names.is_empty() {
        return Err(Error::format(file, "`weight_map` is empty: it names no shard"));
    }
    if let Some(outside) = names.iter().find(|name| name.contains(['/', '\\']) || name.starts_with('.')) {
        return Err(Error::format(file, format!("shard `{outside}` should be a plain file name")));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn files(names: &[&str]) -> Result<ModelFiles> {
        model_files(&names.iter().map(|&name| name.into()).collect::<Vec<_>>())
    }

    #[test]
    fn safetensors_come_before_gguf_and_tokenizer_json_before_its_parts() {
        let found =
            files(&["a.gguf", "model.safetensors", "config.json", "vocab.txt", "tokenizer.json"]).unwrap();
        assert_eq!(found.weights, WeightFiles::One("model.safetensors".into()));
        assert_eq!(found.tokenizer, Some(vec!["tokenizer.json"]));
        assert_eq!(files(&["a.gguf"]).unwrap().config, None);
    }

    #[test]
    fn every_vocabulary_is_read_with_its_config() {
        for vocabulary in [&["tokenizer.json"] as &[&str], &["vocab.json", "merges.txt"], &["vocab.txt"]] {
            let all = [vocabulary, &["tokenizer_config.json", "config.json", "a.gguf"]].concat();
            let found = files(&all).unwrap();
            assert_eq!(found.small(), [&["config.json"], vocabulary, &all[vocabulary.len()..][..1]].concat());
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let message = |names| files(names).unwrap_err().to_string();
        assert!(message(&["model.safetensors"]).contains("`config.json` is missing"));
        assert!(message(&["config.json"]).ends_with("found config.json"));
        assert!(message(&["a.gguf", "b.gguf"]).contains("found a.gguf, b.gguf"));
    }

    #[test]
    fn shards_stay_in_their_folder() {
        assert_eq!(shards(br#"{"weight_map": {"x": "b", "y": "a", "z": "b"}}"#).unwrap(), ["a", "b"]);
        for bad in [r#"{"weight_map": {"x": "../b"}}"#, r#"{"weight_map": {}}"#, "{", r#"{"weight_map": 3}"#]
        {
            assert!(shards(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
