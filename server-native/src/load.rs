//! The files of a folder become a model, streamed and hashed on the way.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::Read,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result};
use inkling_engine::{
    Error,
    checkpoint::{
        LoadOptions, Loaded, Loader,
        config::generation_defaults,
        files::{WeightFiles, model_files, shards, tokenizer_files},
    },
    classify::Classifier,
    generate::Generator,
    graph::node::{LoadedTask, NodeModel},
    graph::spec::Task,
    kernels::Pool,
    protocol::{Event, FailureKind, Job, Parameters},
    tokenizer::{Files, Tokenizer},
};
use sha2::{Digest, Sha256};

use crate::{
    host::{About, Worker},
    models::{Folder, Located, Progress},
};

/// Bytes read at once. Small enough to stay in the processor's cache, large enough to keep a disk busy.
const PIECE: usize = 1 << 20;

/// Reads a model. Its `sha256` covers the bytes of `config.json`, if there is one, and then of the weights' files in
/// order of their names: `cat config.json model.safetensors | sha256sum`.
///
/// # Errors
/// Whatever is wrong with the files, naming model and file.
pub fn load(located: &Located, options: LoadOptions, progress: &mut Progress<'_>) -> Result<NodeModel> {
    try_load(located, options, progress).with_context(|| format!("model {}", located.name))
}

/// A model and how large its files are.
#[derive(Debug)]
pub struct FromFiles {
    /// The model.
    pub model: NodeModel,
    /// Bytes of its config and weights: of what its `sha256` covers.
    pub size_bytes: u64,
}

impl Worker for FromFiles {
    fn run(
        &self,
        job: &Job,
        pool: &dyn Pool,
        stop: &dyn Fn() -> Option<FailureKind>,
        emit: &mut dyn FnMut(Event),
    ) {
        self.model.run(job, pool, stop, emit);
    }

    fn about(&self) -> Option<About> {
        Some(About { size_bytes: Some(self.size_bytes), ..self.model.about()? })
    }
}

/// Reads a model for a host: see [`load`].
///
/// # Errors
/// As [`load`].
pub fn load_worker(
    located: &Located,
    options: LoadOptions,
    progress: &mut Progress<'_>,
) -> Result<FromFiles> {
    let mut sizes = BTreeMap::new();
    let model = load(located, options, &mut |file, bytes, total| {
        sizes.insert(file.to_owned(), total.unwrap_or(bytes));
        progress(file, bytes, total);
    })?;
    let names = located.folder.names()?;
    let config = model_files(&names)?.config;
    let config_bytes = config.map(|name| located.folder.open(&name)).transpose()?.map_or(0, |(_, size)| size);
    Ok(FromFiles { model, size_bytes: config_bytes + sizes.values().sum::<u64>() })
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

fn try_load(located: &Located, options: LoadOptions, progress: &mut Progress<'_>) -> Result<NodeModel> {
    let folder = &located.folder;
    let names = folder.names()?;
    let files = model_files(&names)?;
    // Before the weights, which then take the memory that parsing leaves free.
    let tokenizer = read_tokenizer(folder, &names)?;
    let config = files.config.as_deref().map(|name| folder.read(name)).transpose()?;
    let mut sha = Sha256::new();
    sha.update(config.as_deref().unwrap_or_default());
    let mut loader = Loader::new(config.as_deref(), options)?;
    let weights = match &files.weights {
        WeightFiles::One(name) => vec![name.clone()],
        WeightFiles::Sharded(index) => shards(&folder.read(index)?)?,
    };
    if let Some(missing) = weights.iter().find(|name| !names.contains(name)) {
        anyhow::bail!("the index names {missing}, but there is no such file");
    }
    for name in &weights {
        let (bytes, size) = folder.open(name)?;
        loader.begin_file(name, Some(size))?;
        stream(bytes, &mut |bytes| Ok(loader.push(bytes)?), &mut sha, &mut |done| {
            progress(name, done, Some(size))
        })
        .with_context(|| format!("cannot read {name}"))?;
        loader.end_file()?;
    }
    let model = loader.finish()?;
    let task = match model {
        Loaded::Gpt2(model) => {
            let (defaults, mut end_of_text) = match &files.generation_config {
                Some(name) => generation_defaults(&folder.read(name)?)?,
                None => (Parameters::default(), Vec::new()),
            };
            if end_of_text.is_empty() {
                end_of_text.clone_from(&model.config().eos_token_ids);
            }
            if end_of_text.is_empty() {
                end_of_text.extend(tokenizer.as_ref().and_then(Tokenizer::eos_id));
            }
            LoadedTask::Generate(Box::new(Generator::new(model, tokenizer, defaults, end_of_text)?))
        }
        Loaded::Encoder(model) => {
            let tokenizer =
                tokenizer.context("a classifier needs its tokenizer: tokenizer.json or vocab.txt")?;
            let (tokens, rows) = (tokenizer.vocab_size(), model.config().vocab_size);
            if tokens > rows {
                let reason = format!("has {tokens} tokens, the model embeds {rows}: they do not match");
                return Err(Error::Tokenizer(reason).into());
            }
            LoadedTask::Classify(Box::new(Classifier::new(model, tokenizer)))
        }
    };
    Ok(NodeModel { name: located.name.clone(), sha256: Some(hexadecimal(&sha.finalize())), task })
}

/// Gives the bytes to `push` and `sha`, a piece at a time, and tells `progress` how many were given so far.
fn stream(
    mut bytes: impl Read,
    push: &mut dyn FnMut(&[u8]) -> Result<()>,
    sha: &mut Sha256,
    progress: &mut dyn FnMut(u64),
) -> Result<()> {
    let mut piece = vec![0; PIECE];
    let mut done = 0;
    loop {
        let count = match bytes.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        sha.update(&piece[..count]);
        push(&piece[..count])?;
        done += count as u64;
        progress(done);
    }
}

fn read_tokenizer(folder: &Folder, names: &[String]) -> Result<Option<Tokenizer>> {
    let Some(files) = tokenizer_files(names) else { return Ok(None) };
    let config = "tokenizer_config.json";
    let wanted =
        |name: &&str| files.names().contains(name) || (*name == config && names.iter().any(|n| n == config));
    let read = |name: &str| Some(name).filter(wanted).map(|name| folder.read(name)).transpose();
    let (json, vocab, merges) = (read("tokenizer.json")?, read("vocab.json")?, read("merges.txt")?);
    let (words, config) = (read("vocab.txt")?, read(config)?);
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

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes any text");
        text
    })
}
