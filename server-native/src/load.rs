//! The files of a folder become a model.
//!
//! 1. The weights stream by: this thread reads and packs them, another one hashes the same pieces meanwhile.
//! 2. A third one parses the tokenizer.
//! 3. What was packed is kept in the [`cache`](crate::cache); from there a load is a read, on all cores.

use std::{
    collections::BTreeMap,
    io::Read,
    panic::resume_unwind,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
};

use anyhow::{Context, Result};
use inkling_engine::{
    checkpoint::{
        LoadOptions, Loaded, Loader,
        files::{ModelFiles, WeightFiles, model_files, shards, tokenizer_files},
        hexadecimal,
    },
    graph::node::{Jobs, LoadedTask, NodeModel},
    graph::spec::Task,
    kernels::{self, Pool},
    tokenizer::{Files, Tokenizer},
};
use sha2::{Digest, Sha256};

use crate::{
    cache::Cache,
    host::{About, Worker},
    models::{Folder, Located, Progress},
};

/// Bytes read at once. Small enough to stay in the processor's cache, large enough to keep a disk busy.
const PIECE: usize = 1 << 20;

/// Pieces that are read, packed or hashed at the same time.
const PIECES: usize = 3;

/// Where weights were read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The model's own files.
    Files,
    /// The cache.
    Cache,
}

/// A model, where it came from, and how large its files are.
#[derive(Debug)]
pub struct FromFiles {
    /// The model.
    pub model: NodeModel,
    /// Bytes of its config and weights: of what its `sha256` covers.
    pub size_bytes: u64,
    /// Where its weights were read.
    pub origin: Origin,
}

impl Worker for FromFiles {
    fn work(&self, jobs: &dyn Jobs, pool: &dyn Pool) {
        self.model.work(jobs, pool);
    }

    fn about(&self) -> Option<About> {
        Some(About { size_bytes: Some(self.size_bytes), ..self.model.about()? })
    }
}

/// Reads a model, from `cache` if it has it; otherwise the cache may have it from then on. Its `sha256` covers the bytes
/// of `config.json`, if there is one, and then of the weights' files in order of their names:
/// `cat config.json model.safetensors | sha256sum`.
///
/// # Errors
/// Whatever is wrong with the files, naming model and file.
pub fn load(
    located: &Located,
    options: LoadOptions,
    cache: Option<&Cache>,
    progress: &mut Progress<'_>,
) -> Result<FromFiles> {
    let loaded = try_load(located, options, cache, progress);
    kernels::give_back();
    loaded.with_context(|| format!("model {}", located.name))
}

/// Refuses a model that cannot do what its node is for.
///
/// # Errors
/// An error that names the node, the model and what would fit.
pub fn check_task(node: &str, task: Task, model: &NodeModel) -> Result<()> {
    let name = &model.name;
    match (task, &model.task) {
        (Task::Generate, LoadedTask::Generate(generator)) if generator.tokenizer().is_none() => {
            anyhow::bail!("node `{node}`: model {name} has no tokenizer, so it cannot continue a text")
        }
        (Task::Generate, LoadedTask::Generate(_)) | (Task::Classify, LoadedTask::Classify(_)) => Ok(()),
        (Task::Generate, LoadedTask::Classify(_)) => {
            anyhow::bail!("node `{node}` generates, but model {name} is a classifier; supported there: GPT-2")
        }
        (Task::Classify, LoadedTask::Generate(_)) => anyhow::bail!(
            "node `{node}` classifies, but model {name} is a generator; supported there: BERT and DistilBERT"
        ),
    }
}

/// Reads the tokenizer of a folder that holds one, with or without a model.
///
/// # Errors
/// If a file is broken, or there is no tokenizer.
pub fn load_tokenizer(located: &Located) -> Result<Tokenizer> {
    let load = || {
        let names = located.folder.names()?;
        let expected = "expected tokenizer.json, or vocab.json with merges.txt, or vocab.txt";
        read_tokenizer(&located.folder, &names)?.with_context(|| format!("no tokenizer; {expected}"))
    };
    load().with_context(|| format!("model {}", located.name))
}

fn try_load(
    located: &Located,
    options: LoadOptions,
    cache: Option<&Cache>,
    progress: &mut Progress<'_>,
) -> Result<FromFiles> {
    let folder = &located.folder;
    let names = folder.names()?;
    let files = model_files(&names)?;
    let (weights, tokenizer) = thread::scope(|scope| -> Result<_> {
        let tokenizer = beside(scope, "tokenizer", || read_tokenizer(folder, &names))?;
        let weights = read_weights(located, &names, &files, options, cache, progress);
        let tokenizer = tokenizer.join().unwrap_or_else(|panic| resume_unwind(panic))?;
        Ok((weights?, tokenizer))
    })?;
    let Weights { model, sha256, size_bytes, origin } = weights;
    let generation_config = files.generation_config.as_deref().map(|name| folder.read(name)).transpose()?;
    let task = LoadedTask::new(model, tokenizer, generation_config.as_deref())?;
    let model = NodeModel { name: located.name.clone(), sha256: Some(sha256), task };
    Ok(FromFiles { model, size_bytes, origin })
}

/// A thread for something that is done meanwhile.
fn beside<'scope, T: Send + 'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<thread::ScopedJoinHandle<'scope, T>> {
    thread::Builder::new()
        .name(name.into())
        .spawn_scoped(scope, work)
        .with_context(|| format!("cannot start a thread for the {name}"))
}

/// A model without its tokenizer.
struct Weights {
    model: Loaded,
    sha256: String,
    size_bytes: u64,
    origin: Origin,
}

fn read_weights(
    located: &Located,
    names: &[String],
    files: &ModelFiles,
    options: LoadOptions,
    cache: Option<&Cache>,
    progress: &mut Progress<'_>,
) -> Result<Weights> {
    let folder = &located.folder;
    let config = files.config.as_deref().map(|name| folder.read(name)).transpose()?;
    let weights = match &files.weights {
        WeightFiles::One(name) => vec![name.clone()],
        WeightFiles::Sharded(index) => shards(&folder.read(index)?)?,
    };
    if let Some(missing) = weights.iter().find(|name| !names.contains(name)) {
        anyhow::bail!("the index names {missing}, but there is no such file");
    }
    let mut size_bytes = config.as_ref().map_or(0, |config| config.len() as u64);
    let wanted = cache
        .zip(config.as_deref())
        .and_then(|(cache, config)| cache.wants(&located.name, folder, &weights, config, options));
    if let Some(wanted) = &wanted
        && let Some((model, sha256)) = wanted.restore(options)
    {
        size_bytes += wanted.source_bytes();
        return Ok(Weights { model, sha256, size_bytes, origin: Origin::Cache });
    }
    let mut keeping = wanted.as_ref().map(|wanted| wanted.keep());
    let mut sha = Sha256::new();
    sha.update(config.as_deref().unwrap_or_default());
    let mut loader = Loader::new(config.as_deref(), options)?;
    for name in &weights {
        let (bytes, size) = folder.open(name)?;
        size_bytes += size;
        loader.begin_file(name, Some(size))?;
        let mut done = 0;
        sha = stream(bytes, sha, &mut |bytes| {
            loader.push(bytes)?;
            if let Some(keeping) = &mut keeping {
                keeping.take(&mut loader, name, size);
            }
            done += bytes.len() as u64;
            progress(name, done, Some(size));
            Ok(())
        })
        .with_context(|| format!("cannot read {name}"))?;
        loader.end_file()?;
    }
    let sha256 = hexadecimal(&sha.finalize());
    let model = loader.finish()?;
    if let Some(keeping) = keeping {
        keeping.complete(&sha256);
    }
    Ok(Weights { model, sha256, size_bytes, origin: Origin::Files })
}

/// Gives the bytes to `push`, a piece at a time, while another thread adds them to `sha`.
fn stream(mut bytes: impl Read, sha: Sha256, push: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<Sha256> {
    thread::scope(|scope| {
        let (to_hash, pieces) = mpsc::channel::<Piece>();
        let (give_back, hashed) = mpsc::channel();
        let hash = move || {
            let mut sha = sha;
            for piece in pieces {
                sha.update(&piece.bytes[..piece.count]);
                // Given back only then, so that the reader finds it to be its own again.
                drop(piece);
                if give_back.send(()).is_err() {
                    break;
                }
            }
            sha
        };
        let hasher = beside(scope, "hash", hash)?;
        let mut read = 0;
        let mut ring: [Arc<Vec<u8>>; PIECES] = std::array::from_fn(|_| Arc::new(vec![0; PIECE]));
        loop {
            if read >= PIECES && hashed.recv().is_err() {
                break;
            }
            let buffer = &mut ring[read % PIECES];
            let own = Arc::get_mut(buffer).expect("the piece before it in this place was hashed and dropped");
            let count = fill(&mut bytes, own)?;
            if count == 0 {
                break;
            }
            let piece = Piece { bytes: Arc::clone(buffer), count };
            let piece = to_hash.send(piece);
            push(&buffer[..count])?;
            if piece.is_err() {
                break;
            }
            read += 1;
        }
        drop(to_hash);
        Ok(hasher.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

/// What is hashed and packed at the same time.
struct Piece {
    bytes: Arc<Vec<u8>>,
    count: usize,
}

/// Reads until the buffer is full or the file ends.
fn fill(bytes: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match bytes.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn read_tokenizer(folder: &Folder, names: &[String]) -> Result<Option<Tokenizer>> {
    let Some(wanted) = tokenizer_files(names) else { return Ok(None) };
    let read = |name| wanted.contains(&name).then_some(name).map(|name| folder.read(name)).transpose();
    let (json, vocab, merges) = (read("tokenizer.json")?, read("vocab.json")?, read("merges.txt")?);
    let (words, config) = (read("vocab.txt")?, read("tokenizer_config.json")?);
    let parts = [&json, &vocab, &merges, &words, &config];
    let mut sha = Sha256::new();
    for part in parts {
        let bytes = part.as_deref().unwrap_or_default();
        sha.update((bytes.len() as u64).to_le_bytes());
        sha.update(bytes);
    }
    // The lock is held while files are parsed: two nodes of one tokenizer then parse it once.
    let mut shared = TOKENIZERS.lock().unwrap_or_else(PoisonError::into_inner);
    let key = sha.finalize().to_vec();
    if let Some(tokenizer) = shared.get(&key) {
        return Ok(Some(tokenizer.clone()));
    }
    let tokenizer = Tokenizer::from_files(&Files {
        tokenizer_json: json.as_deref(),
        vocab_json: vocab.as_deref(),
        merges_txt: merges.as_deref(),
        vocab_txt: words.as_deref(),
        tokenizer_config_json: config.as_deref(),
    })?;
    shared.extend(tokenizer.clone().map(|tokenizer| (key, tokenizer)));
    Ok(tokenizer)
}

/// The tokenizers of this process by the hash of their files. GPT-2 and DistilGPT-2 have the same one, of 26 MB.
static TOKENIZERS: Mutex<BTreeMap<Vec<u8>, Tokenizer>> = Mutex::new(BTreeMap::new());
