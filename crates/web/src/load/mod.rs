//! A model's files, from wherever they come, become a model while they arrive.

pub mod describe;
mod download;
pub(crate) mod fetch;
pub(crate) mod hub;
#[cfg(all(test, target_arch = "wasm32"))]
mod in_a_worker;
mod keeping;
mod options;
pub(crate) mod progress;
pub(crate) mod source;
mod weights;

use inkling_engine::{
    checkpoint::{
        Loader,
        files::{ModelFiles, WeightFiles, shards},
        hexadecimal, memory_bytes,
        packed::Head,
    },
    graph::{NodeModel, node::LoadedTask, spec::Task},
    tokenizer::{Files, Tokenizer},
};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use wasm_bindgen::JsValue;
use web_sys::AbortSignal;

use download::Download;
use fetch::Asked;
use keeping::Keeping;
pub use options::Options;
pub use progress::Progress;
use source::{Origin, Place, Source, SourceFile};
use weights::Hashes;

use crate::{
    error::{Failure, Kind, Result},
    store::{Kept, Store},
};

/// Largest file that is read as a whole: tokenizers and configs, never weights.
const LARGEST_SMALL_FILE: u64 = 64 << 20;
/// Largest file of weights that is asked for before it is known that it will be read.
const LARGEST_AHEAD: u64 = 16 << 20;

/// A model that was loaded.
pub(crate) struct Loaded {
    pub(crate) model: NodeModel,
    /// What did not go as it should, but did not keep the model from running.
    pub(crate) notice: Option<String>,
}

/// Loads a model: from what is kept in this browser if it is whole there, else from its source, after what is kept.
///
/// Its `sha256` covers the bytes of `config.json`, if there is one, and then of the weights' files in order of their
/// names, as natively.
pub(crate) async fn load(
    source: JsValue,
    options: &Options,
    signal: &AbortSignal,
    report: &dyn Fn(&Progress),
) -> Result<Loaded> {
    let origin = Origin::read(&source)?;
    let dtype = options.load.dtype;
    let store = match origin.key().filter(|_| options.cache) {
        Some(key) => Store::open(&key, dtype).await,
        None => None,
    };
    let _lock = match &store {
        Some(store) => store.lock(signal).await?,
        None => None,
    };
    let mut kept = match &store {
        Some(store) => store.read(dtype).await,
        None => None,
    };
    let load = |source, kept| {
        let (store, asked) = (store.as_ref(), RefCell::default());
        Load { source, kept, store, asked, options, signal, report }
    };
    if let (Some(store), Some(found)) = (&store, kept.take_if(|kept| kept.index.complete.is_some())) {
        if let Some(source) = Source::kept(&found.index.head.source) {
            match load(source, Some(found)).run().await {
                Ok(loaded) => {
                    store.touch().await;
                    return Ok(loaded);
                }
                Err(failure) if failure.kind == Kind::Stopped || failure.kind == Kind::Memory => {
                    return Err(failure);
                }
                // What is kept has been changed, or is gone: the source has it.
                Err(_) => {}
            }
        }
        store.remove().await;
    }
    let source = origin.resolve(&options.base, signal).await?;
    let is_of_source = |kept: &mut Kept| kept.index.head.source == source.describe();
    let kept = kept.take_if(is_of_source);
    let had_some = kept.is_some();
    match load(source.clone(), kept).run().await {
        // A source that has changed, or kept bytes that are broken: once more, from the beginning.
        Err(failure) if had_some && matches!(failure.kind, Kind::Hash | Kind::Format | Kind::Storage) => {
            if let Some(store) = &store {
                store.remove().await;
            }
            load(source, None).run().await
        }
        ended => ended,
    }
}

struct Load<'a> {
    source: Source,
    /// What an earlier load has kept.
    kept: Option<Kept>,
    store: Option<&'a Store>,
    /// Files that were asked for ahead, by address.
    asked: RefCell<Vec<(String, Asked)>>,
    options: &'a Options,
    signal: &'a AbortSignal,
    report: &'a dyn Fn(&Progress),
}

impl Load<'_> {
    async fn run(&self) -> Result<Loaded> {
        let mut keeping = Keeping::new(self.store);
        let loaded = self.run_and_keep(&mut keeping).await;
        if let Err(failure) = &loaded {
            match failure.kind {
                // Nothing is kept of bytes that are wrong.
                Kind::Hash | Kind::Format | Kind::Invalid => keeping.give_up(failure.clone()).await,
                // What came before a broken connection or a stop is.
                _ => keeping.suspend().await,
            }
        }
        loaded.map(|model| Loaded { model, notice: keeping.notice })
    }

    async fn run_and_keep(&self, keeping: &mut Keeping<'_>) -> Result<NodeModel> {
        let files = self.source.model_files()?;
        self.ask_ahead(&files)?;
        // Before the weights, which then take the memory that parsing leaves free.
        let tokenizer = self.tokenizer(files.tokenizer.as_deref(), keeping).await?;
        let config = self.small_if(files.config.as_deref(), keeping).await?;
        let generation_config = self.small_if(files.generation_config.as_deref(), keeping).await?;
        let mut hashes = Hashes { file: None, model: Sha256::new() };
        hashes.model.update(config.as_deref().unwrap_or_default());
        let mut loader = Loader::new(config.as_deref(), self.options.load)?;
        if let Some(config) = &config {
            reserve(memory_bytes(config, self.options.load.dtype)?)?;
        }
        let weights = match &files.weights {
            WeightFiles::One(name) => vec![name.clone()],
            WeightFiles::Sharded(index) => shards(&self.small(index, keeping).await?)?,
        };
        let mut resumed = match &self.kept {
            Some(kept) => self.restore(kept, &mut loader).await?,
            None => None,
        };
        let sha256 = match self.kept.as_ref().and_then(|kept| kept.index.complete.as_ref()) {
            Some(state) => state["sha256"].as_str().map(Into::into),
            None => {
                let head = Head::new(self.options.load.dtype, self.source.describe());
                keeping.open(head, self.kept.as_ref()).await;
                let first = resumed.as_ref().map(|checkpoint| checkpoint.file.clone());
                for name in
                    weights.iter().skip_while(|name| first.as_ref().is_some_and(|first| first != *name))
                {
                    let resumed = resumed.take();
                    self.weights(self.file(name)?, resumed, &mut loader, &mut hashes, keeping).await?;
                }
                Some(hexadecimal(&hashes.model.finalize()))
            }
        };
        let name = self.source.name.clone();
        let task = LoadedTask::new(loader.finish()?, tokenizer, generation_config.as_deref())?;
        check_task(&name, self.options.task, &task)?;
        if let Some(keeper) = keeping.keeper.take() {
            let state = json!({"sha256": sha256});
            if let Err(failure) = keeper.complete(state).await {
                keeping.give_up(failure).await;
            }
        }
        Ok(NodeModel { name, sha256, task })
    }

    /// Asks for all files at once that are not large: one after the other each would take its way to the server and back.
    fn ask_ahead(&self, files: &ModelFiles) -> Result<()> {
        let small = files.small();
        for SourceFile { name, size_bytes, content, .. } in &self.source.files {
            let is_small = small.contains(&name.as_str());
            let is_weights = matches!(&files.weights, WeightFiles::One(one) if one == name);
            if let Place::Url(url) = content
                && self.kept.is_none()
                && (is_small || is_weights && size_bytes.is_some_and(|size| size <= LARGEST_AHEAD))
            {
                self.asked.borrow_mut().push((url.clone(), fetch::ask(url, self.signal)?));
            }
        }
        Ok(())
    }

    /// The answer to what was asked for ahead, once.
    fn asked(&self, url: &str) -> Option<Asked> {
        let mut asked = self.asked.borrow_mut();
        let at = asked.iter().position(|(of, _)| of == url)?;
        Some(asked.swap_remove(at).1)
    }

    fn file(&self, name: &str) -> Result<&SourceFile> {
        self.source.files.iter().find(|file| file.name == name).ok_or_else(|| {
            let error = format!("The model's index names `{name}`, but there is no such file.");
            Failure::new(Kind::Missing, error).for_good()
        })
    }

    /// Reads a small file as a whole, and checks its hash if one is known.
    async fn small(&self, name: &str, keeping: &mut Keeping<'_>) -> Result<Vec<u8>> {
        if let Some(kept) = &self.kept
            && let Some(content) = kept.file(name).await?
        {
            return Ok(content);
        }
        let file = self.file(name)?;
        let mut content = Vec::new();
        let mut download = Download::begin(self, file, 0, fetch::Version::default()).await?;
        content.reserve_exact(download.size_bytes.unwrap_or(0).min(LARGEST_SMALL_FILE) as usize);
        let mut piece = Vec::new();
        while download.next(&mut piece).await? {
            if (content.len() + piece.len()) as u64 > LARGEST_SMALL_FILE {
                let error = format!("`{name}` is larger than any tokenizer or config; is it the right file?");
                return Err(Failure::new(Kind::Format, error));
            }
            content.extend_from_slice(&piece);
        }
        if let Some(expected) = &file.sha256 {
            check_hash(file, expected, Sha256::new_with_prefix(&content))?;
        }
        if keeping.store.is_some() {
            keeping.early.push((name.into(), content.clone()));
        }
        Ok(content)
    }

    async fn small_if(&self, name: Option<&str>, keeping: &mut Keeping<'_>) -> Result<Option<Vec<u8>>> {
        match name {
            Some(name) => self.small(name, keeping).await.map(Some),
            None => Ok(None),
        }
    }

    async fn tokenizer(
        &self,
        wanted: Option<&[&str]>,
        keeping: &mut Keeping<'_>,
    ) -> Result<Option<Tokenizer>> {
        let Some(wanted) = wanted else { return Ok(None) };
        let mut read = async |name| self.small_if(wanted.contains(&name).then_some(name), keeping).await;
        let (json, vocab, merges) =
            (read("tokenizer.json").await?, read("vocab.json").await?, read("merges.txt").await?);
        let (words, config) = (read("vocab.txt").await?, read("tokenizer_config.json").await?);
        Ok(Tokenizer::from_files(&Files {
            tokenizer_json: json.as_deref(),
            vocab_json: vocab.as_deref(),
            merges_txt: merges.as_deref(),
            vocab_txt: words.as_deref(),
            tokenizer_config_json: config.as_deref(),
        })?)
    }
}

/// Makes sure that there is memory for the weights, before anything is downloaded.
///
/// What is given back at once stays with the module, so the weights then fill it without growing again.
fn reserve(bytes: u64) -> Result<()> {
    let mut probe = Vec::<u8>::new();
    let bytes = usize::try_from(bytes).ok();
    match bytes.map(|bytes| probe.try_reserve_exact(bytes)) {
        Some(Ok(())) => Ok(()),
        _ => {
            let error =
                "There is not enough memory for this model; close other pages, or choose a smaller one.";
            Err(Failure::new(Kind::Memory, error))
        }
    }
}

fn check_hash(file: &SourceFile, expected: &str, sha: Sha256) -> Result<()> {
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
