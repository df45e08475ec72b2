//! A model's files, from wherever they come, become a model while they arrive.

pub(crate) mod fetch;
pub(crate) mod hub;
pub(crate) mod progress;
pub(crate) mod source;

use inkling_engine::{
    checkpoint::{
        Dtype, LoadOptions, Loaded as LoadedModel, Loader,
        config::generation_defaults,
        files::{TokenizerFiles, WeightFiles, model_files, shards},
    },
    classify::Classifier,
    generate::Generator,
    graph::{NodeModel, node::LoadedTask, spec::Task},
    protocol::Parameters,
    tokenizer::{Files, Tokenizer},
};
use js_sys::Uint8Array;
use sha2::{Digest, Sha256};
use wasm_bindgen::JsValue;
use web_sys::AbortSignal;

use progress::Meter;
pub use progress::Progress;
use source::{Bytes, Content, Origin, Source, SourceFile};

use crate::{
    error::{Failure, Kind, Result},
    host,
};

/// Largest file that is read as a whole: tokenizers and configs, never weights.
const LARGEST_SMALL_FILE: u64 = 64 << 20;
/// How often a broken download is taken up again while no byte comes.
const TRIES: u32 = 5;
/// The pause before the first of these tries, in milliseconds; it doubles.
const PAUSE: f64 = 300.0;

/// How a model is loaded.
#[derive(Debug)]
pub struct Options {
    load: LoadOptions,
    /// Whether the model is kept in this browser.
    cache: bool,
    /// Where the engine's own files lie, with a slash at its end.
    base: String,
    /// What the model is for; a model of another kind is refused.
    task: Option<Task>,
}

impl Options {
    /// Reads `{dtype, cache, base, task, untrained_head_seed}`.
    pub(crate) fn read(options: &JsValue) -> Result<Options> {
        let invalid = |error: String| Err(Failure::new(Kind::Invalid, error));
        let dtype = match host::text(options, "dtype").as_deref() {
            None | Some("q8") => Dtype::Q8,
            Some("f32") => Dtype::F32,
            Some(other) => return invalid(format!("`dtype` should be `q8` or `f32`, got `{other}`.")),
        };
        let task = match host::text(options, "task").as_deref() {
            None => None,
            Some("generate") => Some(Task::Generate),
            Some("classify") => Some(Task::Classify),
            Some(other) => {
                return invalid(format!("`task` should be `generate` or `classify`, got `{other}`."));
            }
        };
        let seed = host::property(options, "untrained_head_seed").as_f64();
        Ok(Options {
            load: LoadOptions { dtype, untrained_head_seed: seed.map(|seed| seed as u64) },
            cache: host::property(options, "cache").as_bool().unwrap_or(true),
            base: host::text(options, "base").unwrap_or_default(),
            task,
        })
    }
}

/// A model that was loaded.
pub(crate) struct Loaded {
    pub(crate) model: NodeModel,
    /// What did not go as it should, but did not keep the model from running.
    pub(crate) notice: Option<String>,
}

/// Loads a model. Its `sha256` covers the bytes of `config.json`, if there is one, and then of the weights' files in
/// order of their names, as natively.
pub(crate) async fn load(
    source: JsValue,
    options: &Options,
    signal: &AbortSignal,
    report: &dyn Fn(&Progress),
) -> Result<Loaded> {
    let origin = Origin::read(&source)?;
    let source = origin.resolve(&options.base, signal).await?;
    Load { source: &source, options, signal, report }.run().await
}

struct Load<'a> {
    source: &'a Source,
    options: &'a Options,
    signal: &'a AbortSignal,
    report: &'a dyn Fn(&Progress),
}

impl Load<'_> {
    async fn run(&self) -> Result<Loaded> {
        let names: Vec<String> = self.source.files.iter().map(|file| file.name.clone()).collect();
        let files = model_files(&names)?;
        // Before the weights, which then take the memory that parsing leaves free.
        let tokenizer = self.tokenizer(files.tokenizer.as_ref(), &names).await?;
        let config = self.small_if(files.config.as_deref()).await?;
        let generation_config = self.small_if(files.generation_config.as_deref()).await?;
        let mut model_sha = Sha256::new();
        model_sha.update(config.as_deref().unwrap_or_default());
        let mut loader = Loader::new(config.as_deref(), self.options.load)?;
        let weights = match &files.weights {
            WeightFiles::One(name) => vec![name.clone()],
            WeightFiles::Sharded(index) => shards(&self.small(index).await?)?,
        };
        for name in &weights {
            self.weights(self.file(name)?, &mut loader, &mut model_sha).await?;
        }
        let sha256 = Some(hexadecimal(&model_sha.finalize()));
        let name = self.source.name.clone();
        let task = assemble(loader.finish()?, tokenizer, generation_config.as_deref())?;
        check_task(&name, self.options.task, &task)?;
        Ok(Loaded { model: NodeModel { name, sha256, task }, notice: None })
    }

    fn file(&self, name: &str) -> Result<&SourceFile> {
        self.source.files.iter().find(|file| file.name == name).ok_or_else(|| {
            let error = format!("The model's index names `{name}`, but there is no such file.");
            Failure::new(Kind::Missing, error).for_good()
        })
    }

    /// Reads a small file as a whole, and checks its hash if one is known.
    async fn small(&self, name: &str) -> Result<Vec<u8>> {
        let file = self.file(name)?;
        let mut content = Vec::new();
        let mut sha = Sha256::new();
        let mut download = Download::begin(self, file, 0).await?;
        content.reserve_exact(download.size_bytes.unwrap_or(0).min(LARGEST_SMALL_FILE) as usize);
        let mut piece = Vec::new();
        while download.next(&mut piece).await? {
            if (content.len() + piece.len()) as u64 > LARGEST_SMALL_FILE {
                let error = format!("`{name}` is larger than any tokenizer or config; is it the right file?");
                return Err(Failure::new(Kind::Format, error));
            }
            content.extend_from_slice(&piece);
        }
        if file.sha256.is_some() {
            sha.update(&content);
        }
        check_hash(file, sha)?;
        Ok(content)
    }

    async fn small_if(&self, name: Option<&str>) -> Result<Option<Vec<u8>>> {
        match name {
            Some(name) => self.small(name).await.map(Some),
            None => Ok(None),
        }
    }

    async fn tokenizer(&self, files: Option<&TokenizerFiles>, names: &[String]) -> Result<Option<Tokenizer>> {
        let Some(files) = files else { return Ok(None) };
        let config = "tokenizer_config.json";
        let wanted = |name: &str| {
            files.names().contains(&name) || (name == config && names.iter().any(|other| other == name))
        };
        let read = async |name: &str| self.small_if(Some(name).filter(|name| wanted(name))).await;
        let (json, vocab, merges) =
            (read("tokenizer.json").await?, read("vocab.json").await?, read("merges.txt").await?);
        let (words, config) = (read("vocab.txt").await?, read(config).await?);
        Ok(Tokenizer::from_files(&Files {
            tokenizer_json: json.as_deref(),
            vocab_json: vocab.as_deref(),
            merges_txt: merges.as_deref(),
            vocab_txt: words.as_deref(),
            tokenizer_config_json: config.as_deref(),
        })?)
    }

    /// Streams one file of weights into the loader.
    async fn weights(&self, file: &SourceFile, loader: &mut Loader, model_sha: &mut Sha256) -> Result<()> {
        let mut file_sha = Sha256::new();
        let mut download = Download::begin(self, file, 0).await?;
        loader.begin_file(&file.name, download.size_bytes)?;
        let mut piece = Vec::new();
        while download.next(&mut piece).await? {
            model_sha.update(&piece);
            if file.sha256.is_some() {
                file_sha.update(&piece);
            }
            loader.push(&piece)?;
        }
        check_hash(file, file_sha)?;
        Ok(loader.end_file()?)
    }
}

/// A file that comes, and is taken up again where it breaks.
struct Download<'a> {
    load: &'a Load<'a>,
    file: &'a SourceFile,
    bytes: Bytes,
    version: fetch::Version,
    /// Bytes so far, and in all where known.
    at: u64,
    size_bytes: Option<u64>,
    meter: Meter<'a>,
}

impl<'a> Download<'a> {
    async fn begin(load: &'a Load<'a>, file: &'a SourceFile, from: u64) -> Result<Download<'a>> {
        let mut version = fetch::Version::default();
        let (bytes, size_bytes) = match &file.content {
            Content::Url(url) => {
                let opened =
                    patiently(load.signal, async || fetch::open(url, from, None, load.signal).await).await?;
                version = opened.version;
                (Bytes::stream(&file.name, &opened.body)?, file.size_bytes.or(opened.size_bytes))
            }
            _ => file.open(from, load.signal).await?,
        };
        let meter = Meter::new(load.report, &file.name, from, size_bytes, file.content.from());
        Ok(Download { load, file, bytes, version, at: from, size_bytes, meter })
    }

    /// Fills `piece` with the next bytes; false at the end.
    async fn next(&mut self, piece: &mut Vec<u8>) -> Result<bool> {
        loop {
            let broke = match self.bytes.next(&self.file.name, self.load.signal).await {
                Ok(Some(array)) => {
                    take(&array, piece);
                    self.at += piece.len() as u64;
                    self.meter.set(self.at);
                    return Ok(true);
                }
                Ok(None) if self.size_bytes.is_none_or(|size| self.at >= size) => return Ok(false),
                Ok(None) => {
                    Failure::new(Kind::Network, format!("The download of `{}` ended early.", self.file.name))
                }
                Err(failure) => failure,
            };
            let Content::Url(url) = &self.file.content else { return Err(broke) };
            if broke.kind != Kind::Network {
                return Err(broke);
            }
            let (at, version, signal) = (self.at, &self.version, self.load.signal);
            let opened = patiently(signal, async || fetch::open(url, at, Some(version), signal).await).await;
            let opened = opened.map_err(|failure| match failure.kind {
                Kind::Network => self.broke_off(&failure),
                _ => failure,
            })?;
            if opened.from != at {
                return Err(self.broke_off(&broke));
            }
            self.bytes = Bytes::stream(&self.file.name, &opened.body)?;
        }
    }

    fn broke_off(&self, why: &Failure) -> Failure {
        let megabytes = self.at as f64 / 1e6;
        let error = format!("The download of `{}` broke at {megabytes:.1} MB. {}", self.file.name, why.error);
        Failure::new(Kind::Network, error)
    }
}

/// Tries several times, with growing pauses, as long as it is the network that fails.
async fn patiently<T>(signal: &AbortSignal, mut attempt: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let mut pause = PAUSE;
    let mut tries = 1;
    loop {
        match attempt().await {
            Err(failure) if failure.kind == Kind::Network && tries < TRIES && !signal.aborted() => {
                // In short naps, so that a stop need not wait for the longest.
                let until = host::now() + pause;
                while host::now() < until && !signal.aborted() {
                    host::sleep(50.0).await;
                }
                pause *= 2.0;
                tries += 1;
            }
            Err(_) if signal.aborted() => return Err(source::stopped()),
            ended => return ended,
        }
    }
}

/// Copies an array into a buffer that is kept from piece to piece.
fn take(array: &Uint8Array, piece: &mut Vec<u8>) {
    piece.resize(array.length() as usize, 0);
    array.copy_to(piece);
}

fn check_hash(file: &SourceFile, sha: Sha256) -> Result<()> {
    let Some(expected) = &file.sha256 else { return Ok(()) };
    let found = hexadecimal(&sha.finalize());
    if found.eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    let error = format!(
        "`{}` is not the file that was announced (its SHA-256 begins with {}, {} was expected), so nothing of it was kept. Try again.",
        file.name,
        &found[..12],
        expected.get(..12).unwrap_or(expected)
    );
    Err(Failure::new(Kind::Hash, error))
}

/// Puts model and tokenizer together.
fn assemble(
    model: LoadedModel,
    tokenizer: Option<Tokenizer>,
    generation_config: Option<&[u8]>,
) -> Result<LoadedTask> {
    match model {
        LoadedModel::Gpt2(model) => {
            let (defaults, mut end_of_text) = match generation_config {
                Some(json) => generation_defaults(json)?,
                None => (Parameters::default(), Vec::new()),
            };
            if end_of_text.is_empty() {
                end_of_text.clone_from(&model.config().eos_token_ids);
            }
            if end_of_text.is_empty() {
                end_of_text.extend(tokenizer.as_ref().and_then(Tokenizer::eos_id));
            }
            Ok(LoadedTask::Generate(Box::new(Generator::new(model, tokenizer, defaults, end_of_text)?)))
        }
        LoadedModel::Encoder(model) => {
            let Some(tokenizer) = tokenizer else {
                let error = "A classifier needs its tokenizer: `tokenizer.json` or `vocab.txt`.";
                return Err(Failure::new(Kind::Missing, error).for_good());
            };
            let (tokens, rows) = (tokenizer.vocab_size(), model.config().vocab_size);
            if tokens > rows {
                let error =
                    format!("The tokenizer has {tokens} tokens, the model embeds {rows}: they do not match.");
                return Err(Failure::new(Kind::Format, error));
            }
            Ok(LoadedTask::Classify(Box::new(Classifier::new(model, tokenizer))))
        }
    }
}

/// Refuses a model that cannot do what it is for.
fn check_task(name: &str, wanted: Option<Task>, model: &LoadedTask) -> Result<()> {
    let error = match (wanted, model) {
        (Some(Task::Generate), LoadedTask::Classify(_)) => {
            format!("{name} is a classifier, and a writer is wanted here; GPT-2 models can write.")
        }
        (Some(Task::Classify), LoadedTask::Generate(_)) => {
            format!("{name} writes texts, and a critic is wanted here; BERT and DistilBERT models can judge.")
        }
        (_, LoadedTask::Generate(generator)) if generator.tokenizer().is_none() => {
            format!(
                "{name} came without a tokenizer; add `tokenizer.json`, or `vocab.json` and `merges.txt`."
            )
        }
        _ => return Ok(()),
    };
    Err(Failure::new(Kind::Format, error))
}

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes any text");
        text
    })
}
