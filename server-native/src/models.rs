//! Where models come from, and which folder a name means.

use std::{
    convert::Infallible,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context, Result};
use include_dir::{Dir, include_dir};
use inkling_engine::graph::spec::Node;

use crate::{Mistake, hub::Hub};

/// The models that are part of the program.
static DEMO: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../models/demo");

/// Largest file that is read as a whole: tokenizers and configs, never weights.
const LARGEST_SMALL_FILE: u64 = 64 << 20;

/// Is told of bytes as they come: the file, bytes so far, bytes in all where known.
pub type Progress<'a> = dyn FnMut(&str, u64, Option<u64>) + 'a;

/// Where a graph's models come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The small models that are part of the program.
    Demo,
    /// The Hugging Face hub, by its cache.
    Hub,
    /// A folder with a folder for each model.
    Folder(PathBuf),
}

impl FromStr for Source {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Source, Infallible> {
        Ok(match text {
            "demo" => Source::Demo,
            "hub" => Source::Hub,
            path => Source::Folder(path.into()),
        })
    }
}

/// A model's files, by name.
#[derive(Clone, Debug)]
pub enum Folder {
    /// Part of the program.
    Embedded(&'static Dir<'static>),
    /// A folder of the file system.
    Disk(PathBuf),
    /// A GGUF file, with the tokenizer's files beside it; a `config.json` there is another model's.
    Gguf(PathBuf),
}

/// What of a model is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Model,
    /// The tokenizer's files alone.
    Tokenizer,
}

/// A model that was found.
#[derive(Clone, Debug)]
pub struct Located {
    /// What to call it.
    pub name: String,
    /// Its files.
    pub folder: Folder,
}

impl Folder {
    /// The names of the files.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn names(&self) -> Result<Vec<String>> {
        let mut names = match self {
            Folder::Embedded(dir) => {
                let name =
                    |file: &include_dir::File<'_>| Some(file.path().file_name()?.to_str()?.to_string());
                dir.files().filter_map(name).collect()
            }
            Folder::Disk(path) => names_on_disk(path)?,
            Folder::Gguf(path) => {
                let own = path.file_name().map(|name| name.to_string_lossy().into_owned());
                let is_weights = |name: &String| {
                    [".gguf", ".safetensors", ".index.json"].iter().any(|end| name.ends_with(end))
                        || name == "config.json"
                        || name == "generation_config.json"
                };
                let beside = names_on_disk(parent(path))?.into_iter().filter(|name| !is_weights(name));
                beside.chain(own).collect()
            }
        };
        names.sort();
        Ok(names)
    }

    /// Where a file is; nowhere if it is part of the program.
    #[must_use]
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        match self {
            Folder::Embedded(_) => None,
            Folder::Disk(path) => Some(path.join(name)),
            Folder::Gguf(path) => Some(parent(path).join(name)),
        }
    }

    /// Opens a file: its bytes and how many there are.
    ///
    /// # Errors
    /// If there is no such file, or it cannot be read.
    pub fn open(&self, name: &str) -> Result<(Box<dyn Read + '_>, u64)> {
        let path = match (self, self.path(name)) {
            (Folder::Embedded(dir), _) => {
                let file = dir.files().find(|file| file.path().file_name().is_some_and(|own| own == name));
                let bytes = file.with_context(|| format!("{name} is not part of the program"))?.contents();
                return Ok((Box::new(bytes), bytes.len() as u64));
            }
            (_, path) => path.expect("what is no part of the program is on the disk"),
        };
        let open = || -> std::io::Result<_> {
            let file = File::open(&path)?;
            let size = file.metadata()?.len();
            Ok((file, size))
        };
        let (file, size) = open().with_context(|| format!("cannot read {}", path.display()))?;
        Ok((Box::new(file), size))
    }

    /// Reads a small file as a whole.
    ///
    /// # Errors
    /// If it cannot be read, or is larger than any tokenizer or config.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        let (bytes, size) = self.open(name)?;
        if size > LARGEST_SMALL_FILE {
            anyhow::bail!("{name} has {size} bytes; at most {LARGEST_SMALL_FILE} are expected");
        }
        let mut content = Vec::with_capacity(usize::try_from(size)?);
        bytes
            .take(LARGEST_SMALL_FILE)
            .read_to_end(&mut content)
            .with_context(|| format!("cannot read {name}"))?;
        Ok(content)
    }
}

fn parent(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn names_on_disk(folder: &Path) -> Result<Vec<String>> {
    let list = || -> std::io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            // The hub's cache holds links, so what counts is what they lead to.
            let is_file = fs::metadata(entry.path()).is_ok_and(|found| found.is_file());
            if let (true, Ok(name)) = (is_file, entry.file_name().into_string()) {
                names.push(name);
            }
        }
        Ok(names)
    };
    list().with_context(|| format!("cannot read the folder {}", folder.display()))
}

/// The bytes of a demo model's file, by its path: `writer/config.json`.
pub fn demo_file(path: &str) -> Option<&'static [u8]> {
    DEMO.get_file(path).map(include_dir::File::contents)
}

/// The demo model of this name.
fn demo(name: &str) -> Result<Located> {
    let Some(dir) = DEMO.get_dir(name) else {
        let mut names: Vec<&str> = DEMO.dirs().filter_map(|dir| dir.path().to_str()).collect();
        names.sort_unstable();
        let known =
            if names.is_empty() { "none: this build has no demo models".into() } else { names.join(", ") };
        return Err(Mistake(format!("there is no demo model `{name}`; there are {known}")).into());
    };
    Ok(Located { name: name.into(), folder: Folder::Embedded(dir) })
}

fn on_disk(path: PathBuf) -> Located {
    let last = path.canonicalize().ok().and_then(|path| Some(path.file_name()?.to_str()?.to_string()));
    let name = last.unwrap_or_else(|| path.display().to_string());
    let is_gguf = path.is_file();
    Located { name, folder: if is_gguf { Folder::Gguf(path) } else { Folder::Disk(path) } }
}

fn from_hub(id: &str, part: Part, progress: &mut Progress<'_>) -> Result<Located> {
    let hub = Hub::from_env()?;
    let folder = match part {
        Part::Model => hub.fetch(id, progress)?,
        Part::Tokenizer => hub.fetch_tokenizer(id, progress)?,
    };
    Ok(Located { name: id.into(), folder: Folder::Disk(folder) })
}

/// Finds the model of a graph's node, fetching it where `source` is the hub.
///
/// In a folder, the first of these that exists: the node's name, its model's demo name, its hub id, the last part of
/// that id.
///
/// # Errors
/// [`Mistake`] if there is no such model, with the places that were tried; otherwise what the hub says.
pub fn locate_node(node: &Node, source: &Source, progress: &mut Progress<'_>) -> Result<Located> {
    let at = |source: &str| {
        node.model
            .at(source)
            .ok_or_else(|| Mistake(format!("node `{}` names no model for `{source}`", node.name)))
    };
    match source {
        Source::Demo => demo(at("demo")?),
        Source::Hub => from_hub(at("hub")?, Part::Model, progress),
        Source::Folder(folder) => {
            if !folder.is_dir() {
                return Err(Mistake(format!("{} is no folder of models", folder.display())).into());
            }
            let hub = node.model.at("hub");
            let last = hub.and_then(|id| id.rsplit('/').next());
            let mut tried: Vec<PathBuf> = Vec::new();
            for name in [Some(node.name.as_str()), node.model.at("demo"), hub, last].into_iter().flatten() {
                let path = folder.join(name);
                if path.is_dir() {
                    return Ok(on_disk(path));
                }
                if !tried.contains(&path) {
                    tried.push(path);
                }
            }
            let tried: Vec<String> = tried.iter().map(|path| path.display().to_string()).collect();
            let reason = format!("no model for node `{}`; tried {}", node.name, tried.join(", "));
            Err(Mistake(reason).into())
        }
    }
}

/// Finds one model: a folder or GGUF file, a demo model's name, or a hub id. Of the hub's, only `part` is fetched.
///
/// # Errors
/// [`Mistake`] if it is none of them; otherwise what the hub says.
pub fn locate(model: &str, part: Part, progress: &mut Progress<'_>) -> Result<Located> {
    let path = Path::new(model);
    if path.is_dir() || (path.is_file() && model.ends_with(".gguf")) {
        return Ok(on_disk(path.into()));
    }
    if path.is_file() {
        let reason = format!("{model} is a file; give the model's folder, or a .gguf file");
        return Err(Mistake(reason).into());
    }
    if DEMO.get_dir(model).is_some() {
        return demo(model);
    }
    if !is_hub_id(model) {
        return Err(Mistake(format!("there is no file or folder {model}")).into());
    }
    from_hub(model, part, progress)
}

/// Whether a text has the form of a hub id: `name` or `owner/name`.
fn is_hub_id(text: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
            && part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
    };
    text.split('/').count() <= 2 && text.split('/').all(is_part) && !text.ends_with(".gguf")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hub_ids_are_told_from_paths() {
        for id in ["gpt2", "openai-community/gpt2", "a/b.c_d-1"] {
            assert!(is_hub_id(id), "{id}");
        }
        for path in ["", "/tmp/x", "./x", "../x", "a/b/c", "x/", "a b", "x.gguf", "a/.."] {
            assert!(!is_hub_id(path), "{path}");
        }
    }

    #[test]
    fn a_missing_model_names_every_place_that_was_tried() {
        let graph = inkling_engine::graph::Graph::default();
        let folder = std::env::temp_dir().join(format!("inkling-empty-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let source = Source::Folder(folder.clone());
        let message = locate_node(&graph.nodes[1], &source, &mut |_, _, _| ()).unwrap_err().to_string();
        fs::remove_dir(&folder).unwrap();
        for name in ["distilgpt2", "writer-distilled", "distilbert/distilgpt2"] {
            assert!(message.contains(&folder.join(name).display().to_string()), "{message}");
        }
        assert_eq!(
            message.matches("distilgpt2,").count(),
            1,
            "the last part of the id is the node's name: {message}"
        );
    }
}
