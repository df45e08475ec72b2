//! What loading a model would take, without loading it.

use inkling_engine::checkpoint::{
    files::{WeightFiles, shards},
    memory_bytes,
};
use serde::Serialize;
use wasm_bindgen::prelude::*;
use web_sys::AbortController;

use super::{
    Keeping, Load, Options,
    source::{Origin, Place, Source, SourceFile},
};
use crate::{error::Result, host, store::Store};

/// What loading a model would take.
#[derive(Serialize)]
struct Description {
    name: String,
    files: Vec<Listed>,
    /// Bytes still to come over the network.
    download_bytes: u64,
    /// Bytes of the weights in memory, about.
    memory_bytes: u64,
    cached: bool,
}

#[derive(Serialize)]
struct Listed {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
}

/// What loading the model of a source would take. Asks the hub for names and sizes, and for the config; downloads no
/// weights.
///
/// # Errors
/// A [`crate::error::Failure`], as a load has it.
#[wasm_bindgen]
pub async fn describe(source: JsValue, options: JsValue) -> Result<JsValue, JsValue> {
    Ok(host::to_js(&description(&source, &Options::read(&options)?).await?))
}

async fn description(source: &JsValue, options: &Options) -> Result<Description> {
    let controller = AbortController::new().expect("every host has AbortController");
    let signal = &controller.signal();
    let origin = Origin::read(source)?;
    let dtype = options.load.dtype;
    let kept = match origin.key().filter(|_| options.cache) {
        Some(key) => Store::look(&key, dtype).await,
        None => None,
    };
    if let Some(found) = kept.as_ref().filter(|kept| kept.index.complete.is_some())
        && let Some(source) = Source::kept(&found.index.head.source)
    {
        return Ok(Description {
            name: source.name,
            files: source.files.into_iter().map(Listed::from).collect(),
            download_bytes: 0,
            memory_bytes: found.index.data_bytes,
            cached: true,
        });
    }
    let source = origin.resolve(&options.base, signal).await?;
    let files = source.model_files()?;
    let load =
        Load { source, kept: None, store: None, asked: Default::default(), options, signal, report: &|_| () };
    let mut keeping = Keeping::new(None);
    let weights = match &files.weights {
        WeightFiles::One(name) => vec![name.clone()],
        WeightFiles::Sharded(index) => shards(&load.small(index, &mut keeping).await?)?,
    };
    let config_json = load.small_if(files.config.as_deref(), &mut keeping).await?;
    let mut wanted = files.small();
    wanted.extend(weights.iter().map(String::as_str));
    let is_wanted = |file: &&SourceFile| wanted.contains(&file.name.as_str());
    let files: Vec<&SourceFile> = load.source.files.iter().filter(is_wanted).collect();
    let size = |file: &&SourceFile| file.size_bytes.unwrap_or(0);
    let weights_bytes = files.iter().filter(|file| weights.contains(&file.name)).map(size).sum();
    let to_come: u64 = files.iter().filter(|file| matches!(file.content, Place::Url(_))).map(size).sum();
    // Where an earlier load of the same source was.
    let came = kept
        .filter(|kept| kept.index.head.source == load.source.describe())
        .and_then(|kept| kept.index.checkpoint.map(|checkpoint| checkpoint.at))
        .unwrap_or(0);
    Ok(Description {
        name: load.source.name.clone(),
        download_bytes: to_come.saturating_sub(came),
        memory_bytes: match &config_json {
            Some(config) => memory_bytes(config, dtype)?,
            // A GGUF file by itself is about as large as it will be here.
            None => weights_bytes,
        },
        files: files.into_iter().cloned().map(Listed::from).collect(),
        cached: false,
    })
}

impl From<SourceFile> for Listed {
    fn from(file: SourceFile) -> Listed {
        Listed { name: file.name, size_bytes: file.size_bytes, sha256: file.sha256 }
    }
}
