//! Where a model's files are, and their bytes.

use std::collections::BTreeMap;

use inkling_engine::checkpoint::files::{ModelFiles, model_files};
use js_sys::{Array, ArrayBuffer, Uint8Array};
use serde::Deserialize;
use serde_json::{Value, json};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{AbortSignal, Blob, ReadableStream, ReadableStreamDefaultReader};

use super::{fetch, hub, progress::From};
use crate::{
    error::{Failure, Kind, Result},
    host,
};

/// Bytes of a `Blob` that are read at once.
const SLICE: f64 = (1 << 20) as f64;

/// A model's files.
#[derive(Clone)]
pub(crate) struct Source {
    /// What to call the model.
    pub(crate) name: String,
    pub(crate) files: Vec<SourceFile>,
}

impl Source {
    /// Which of the files make the model.
    pub(super) fn model_files(&self) -> Result<ModelFiles> {
        let names: Vec<String> = self.files.iter().map(|file| file.name.clone()).collect();
        Ok(model_files(&names)?)
    }

    /// What the index of a kept model says of its source: enough to tell another version of it.
    pub(crate) fn describe(&self) -> Value {
        let file = |file: &SourceFile| {
            let url = if let Place::Url(url) = &file.content { Some(url) } else { None };
            json!({"name": file.name, "size_bytes": file.size_bytes, "sha256": file.sha256, "url": url})
        };
        json!({"name": self.name, "files": self.files.iter().map(file).collect::<Vec<_>>()})
    }

    /// The source of a model that is kept as a whole.
    pub(crate) fn kept(described: &Value) -> Option<Source> {
        let file = |file: &Value| {
            let name = file["name"].as_str()?.to_string();
            Some(SourceFile { name, size_bytes: None, sha256: None, content: Place::Kept })
        };
        let files = described["files"].as_array()?.iter().map(file).collect::<Option<_>>()?;
        Some(Source { name: described["name"].as_str()?.into(), files })
    }
}

/// One file of a model.
#[derive(Clone)]
pub(crate) struct SourceFile {
    pub(crate) name: String,
    pub(crate) size_bytes: Option<u64>,
    /// What its bytes must hash to, in hexadecimal.
    pub(crate) sha256: Option<String>,
    pub(crate) content: Place,
}

/// A file's bytes: at an address, or here already.
#[derive(Clone)]
pub(crate) enum Place {
    Url(String),
    Blob(Blob),
    Bytes(Uint8Array),
    /// The body of a response; it can be read once.
    Stream(ReadableStream),
    /// In what is kept in this browser, and nowhere else.
    Kept,
}

/// Where a model comes from, as JavaScript says it.
pub(crate) enum Origin {
    /// A model that is shipped beside the engine.
    Demo(String),
    /// A repository of the hub.
    Hub(hub::Repository),
    /// One GGUF file, with `tokenizer.json` beside it.
    Gguf { url: String, sha256: Option<String> },
    /// Files that the caller names, and what they are kept under, if they are.
    Files { name: String, files: Vec<SourceFile>, keep: Option<String> },
    /// Files of an earlier visit, by what they were kept under: they are in this browser or nowhere.
    Kept { name: String, keep: String },
}

impl Origin {
    /// Reads a source: `{demo}`, `{hub, revision, endpoint}`, `{url, sha256}`, `{files: [[name, content]], name, keep}` or
    /// `{keep, name}`.
    pub(crate) fn read(source: &JsValue) -> Result<Origin> {
        if let Some(demo) = host::text(source, "demo") {
            return Ok(Origin::Demo(demo));
        }
        if let Some(id) = host::text(source, "hub") {
            let (revision, endpoint) = (host::text(source, "revision"), host::text(source, "endpoint"));
            return hub::Repository::new(id, revision, endpoint).map(Origin::Hub);
        }
        if let Some(url) = host::text(source, "url") {
            return Ok(Origin::Gguf { url, sha256: host::text(source, "sha256") });
        }
        let files = host::property(source, "files");
        let name = host::text(source, "name").unwrap_or_else(|| "files".into());
        let keep = host::text(source, "keep");
        if let Some(keep) = keep.clone().filter(|_| files.is_undefined()) {
            return Ok(Origin::Kept { name, keep });
        }
        if files.is_undefined() {
            let expected = "A model's source should be `{demo}`, `{hub}`, `{url}`, `{files}` or `{keep}`.";
            return Err(Failure::new(Kind::Invalid, expected));
        }
        let files: Vec<SourceFile> = Array::from(&files)
            .iter()
            .map(|pair| {
                let pair = Array::from(&pair);
                let name = pair.get(0).as_string().unwrap_or_default();
                let (content, size_bytes) = Place::read(&name, &pair.get(1))?;
                Ok(SourceFile { name, size_bytes, sha256: None, content })
            })
            .collect::<Result<_>>()?;
        Ok(Origin::Files { name, files, keep })
    }

    /// What a model is kept under; nothing for files that nobody asked to keep, and those that came with the page.
    pub(crate) fn key(&self) -> Option<String> {
        match self {
            Origin::Hub(hub::Repository { id, revision, endpoint }) => {
                Some(format!("hub {endpoint} {id}@{revision}"))
            }
            Origin::Gguf { url, sha256 } => Some(format!("{url} {}", sha256.as_deref().unwrap_or_default())),
            Origin::Files { keep, .. } => keep.as_ref().map(|keep| format!("files {keep}")),
            Origin::Kept { keep, .. } => Some(format!("files {keep}")),
            Origin::Demo(_) => None,
        }
    }

    /// Finds the files. `base` is where the engine's own files lie, with a slash at its end.
    pub(crate) async fn resolve(&self, base: &str, signal: &AbortSignal) -> Result<Source> {
        match self {
            Origin::Demo(name) => demo(name, base, signal).await,
            Origin::Hub(repository) => repository.list(signal).await,
            Origin::Gguf { url, sha256 } => Ok(gguf(url, sha256.clone())),
            Origin::Files { name, files, .. } => Ok(Source { name: name.clone(), files: files.clone() }),
            Origin::Kept { name, .. } => {
                let error = format!("{name} is not kept in this browser any more. Choose its files again.");
                Err(Failure::new(Kind::Missing, error).for_good())
            }
        }
    }
}

/// The files of a demo model, which `index.json` beside them lists.
async fn demo(name: &str, base: &str, signal: &AbortSignal) -> Result<Source> {
    #[derive(Deserialize)]
    struct Index {
        models: BTreeMap<String, Model>,
    }
    #[derive(Deserialize)]
    struct Model {
        files: Vec<Listed>,
    }
    #[derive(Deserialize)]
    struct Listed {
        name: String,
        size_bytes: u64,
        sha256: String,
    }
    let folder = format!("{base}../models/demo/");
    let Index { models } = fetch::json(&format!("{folder}index.json"), signal).await?;
    let Some(Model { files }) = models.get(name) else {
        let known = models.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let error = format!("There is no demo model `{name}`; there are {known}.");
        return Err(Failure::new(Kind::Missing, error).for_good());
    };
    let file = |listed: &Listed| SourceFile {
        name: listed.name.clone(),
        size_bytes: Some(listed.size_bytes),
        sha256: Some(listed.sha256.clone()),
        content: Place::Url(format!("{folder}{name}/{}", listed.name)),
    };
    Ok(Source { name: name.into(), files: files.iter().map(file).collect() })
}

/// A GGUF file and the tokenizer beside it.
fn gguf(url: &str, sha256: Option<String>) -> Source {
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    let name = if file.ends_with(".gguf") { file.to_string() } else { format!("{file}.gguf") };
    let at = |name: String, url: String, sha256| SourceFile {
        name,
        size_bytes: None,
        sha256,
        content: Place::Url(url),
    };
    Source {
        name: name.clone(),
        files: vec![
            at("tokenizer.json".into(), format!("{folder}/tokenizer.json"), None),
            at(name, url.into(), sha256),
        ],
    }
}

impl Place {
    fn read(name: &str, content: &JsValue) -> Result<(Place, Option<u64>)> {
        if let Some(url) = content.as_string() {
            return Ok((Place::Url(url), None));
        }
        if let Some(blob) = content.dyn_ref::<Blob>() {
            return Ok((Place::Blob(blob.clone()), Some(blob.size() as u64)));
        }
        if let Some(buffer) = content.dyn_ref::<ArrayBuffer>() {
            let bytes = Uint8Array::new(buffer);
            let size = u64::from(bytes.length());
            return Ok((Place::Bytes(bytes), Some(size)));
        }
        if let Some(bytes) = content.dyn_ref::<Uint8Array>() {
            return Ok((Place::Bytes(bytes.clone()), Some(u64::from(bytes.length()))));
        }
        if let Ok(stream) = host::property(content, "stream").dyn_into::<ReadableStream>() {
            let size = host::property(content, "size").as_f64().map(|size| size as u64);
            return Ok((Place::Stream(stream), size));
        }
        let error = format!("`{name}` should be an address, a Blob, a Response or bytes.");
        Err(Failure::new(Kind::Invalid, error))
    }

    /// Where its bytes come from, for people.
    pub(crate) fn from(&self) -> From {
        match self {
            Place::Url(_) | Place::Stream(_) => From::Network,
            Place::Blob(_) | Place::Bytes(_) => From::File,
            Place::Kept => From::Cache,
        }
    }
}

/// A file's bytes as they come.
pub(crate) enum Bytes {
    Stream(ReadableStreamDefaultReader),
    Blob { blob: Blob, at: f64 },
    Array { bytes: Uint8Array, at: u32 },
}

impl SourceFile {
    /// Opens what needs no request, at its byte `from`; the second value is its size, where that is known.
    pub(crate) fn open_here(&self, from: u64) -> Result<(Bytes, Option<u64>)> {
        match &self.content {
            Place::Blob(blob) => {
                Ok((Bytes::Blob { blob: blob.clone(), at: from as f64 }, Some(blob.size() as u64)))
            }
            Place::Bytes(bytes) => {
                let size = u64::from(bytes.length());
                let at = u32::try_from(from.min(size)).expect("at most the length, which is a u32");
                Ok((Bytes::Array { bytes: bytes.clone(), at }, Some(size)))
            }
            Place::Stream(stream) => Ok((Bytes::stream(&self.name, stream)?, self.size_bytes)),
            Place::Url(_) | Place::Kept => {
                let error = format!("`{}` is not in what was kept in this browser.", self.name);
                Err(Failure::new(Kind::Storage, error))
            }
        }
    }
}

impl Bytes {
    /// The bytes of a stream, which must not have been read from.
    pub(crate) fn stream(name: &str, stream: &ReadableStream) -> Result<Bytes> {
        if stream.locked() {
            let error =
                format!("The response for `{name}` was read already; ask for it again and give the new one.");
            return Err(Failure::new(Kind::Missing, error).for_good());
        }
        Ok(Bytes::Stream(stream.get_reader().unchecked_into()))
    }

    /// The next piece of the file `name`; nothing at its end.
    pub(crate) async fn next(&mut self, name: &str, signal: &AbortSignal) -> Result<Option<Uint8Array>> {
        if signal.aborted() {
            return Err(stopped());
        }
        match self {
            Bytes::Stream(reader) => {
                let read = JsFuture::from(reader.read()).await.map_err(|thrown| {
                    if signal.aborted() {
                        return stopped();
                    }
                    Failure::thrown(Kind::Network, &format!("The download of `{name}` broke"), &thrown)
                })?;
                let value = host::property(&read, "value");
                Ok(value.dyn_into::<Uint8Array>().ok())
            }
            Bytes::Blob { blob, at } => {
                let end = (*at + SLICE).min(blob.size());
                if *at >= end {
                    return Ok(None);
                }
                let gone = |thrown: JsValue| {
                    let what = format!("`{name}` cannot be read any more; choose the file again");
                    Failure::thrown(Kind::Missing, &what, &thrown).for_good()
                };
                let slice = blob.slice_with_f64_and_f64(*at, end).map_err(gone)?;
                let buffer = JsFuture::from(slice.array_buffer()).await.map_err(gone)?;
                *at = end;
                Ok(Some(Uint8Array::new(&buffer)))
            }
            Bytes::Array { bytes, at } => {
                let end = (*at + SLICE as u32).min(bytes.length());
                let piece = (*at < end).then(|| bytes.subarray(*at, end));
                *at = end;
                if piece.is_some() {
                    host::turn().await;
                }
                Ok(piece)
            }
        }
    }
}

/// The failure of a load that was asked to stop.
pub(crate) fn stopped() -> Failure {
    Failure::new(Kind::Stopped, "Loading was stopped. What came so far is kept.")
}
