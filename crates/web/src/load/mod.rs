//! A model's files, from wherever they come, become a model while they arrive.

pub mod describe;
pub(crate) mod fetch;
pub(crate) mod hub;
#[cfg(all(test, target_arch = "wasm32"))]
mod in_a_worker;
pub(crate) mod progress;
pub(crate) mod source;

use inkling_engine::{
    checkpoint::{
        Dtype, LoadOptions, Loader,
        files::{ModelFiles, TokenizerFiles, WeightFiles, model_files, shards},
        hexadecimal, memory_bytes,
        packed::{Checkpoint, Content, Head},
    },
    graph::{NodeModel, node::LoadedTask, spec::Task},
    tokenizer::{Files, Tokenizer},
};
use js_sys::Uint8Array;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{
    Digest, Sha256,
    digest::common::hazmat::{SerializableState, SerializedState},
};
use std::cell::RefCell;
use wasm_bindgen::JsValue;
use web_sys::AbortSignal;

use fetch::Asked;
pub use progress::Progress;
use progress::{From, Meter};
use source::{Bytes, Origin, Place, Source, SourceFile};

use crate::{
    error::{Failure, Kind, Result},
    host,
    store::{Keeper, Kept, Store, Tail},
};

/// Largest file that is read as a whole: tokenizers and configs, never weights.
const LARGEST_SMALL_FILE: u64 = 64 << 20;
/// Largest file of weights that is asked for before it is known that it will be read.
const LARGEST_AHEAD: u64 = 16 << 20;
/// Bytes that are taken at once while a file's header is not whole.
const HEADER_STEP: usize = 16 << 10;
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
            None => Dtype::default(),
            Some(name) => match Dtype::of_name(name) {
                Some(dtype) => dtype,
                None => return invalid(format!("`dtype` should be `q8`, `q4` or `f32`, got `{name}`.")),
            },
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

/// What is kept of this load, if it is; a failure to keep it is no failure to load it.
struct Keeping<'a> {
    store: Option<&'a Store>,
    keeper: Option<Keeper>,
    /// Small files that came before the keeper was opened: what is kept has to be read back first.
    early: Vec<(String, Vec<u8>)>,
    notice: Option<String>,
}

impl<'a> Keeping<'a> {
    fn new(store: Option<&'a Store>) -> Keeping<'a> {
        Keeping { store, keeper: None, early: Vec::new(), notice: None }
    }

    /// Begins to keep the load, after what `kept` has of it.
    async fn open(&mut self, head: Head, kept: Option<&Kept>) {
        let Some(store) = self.store else { return };
        match store.keep(head, kept).await {
            Ok(keeper) => self.keeper = Some(keeper),
            Err(failure) => self.give_up(failure).await,
        }
        for (name, content) in std::mem::take(&mut self.early) {
            self.note(|keeper| keeper.file(&name, &content)).await;
        }
    }

    async fn note(&mut self, keep: impl FnOnce(&mut Keeper) -> Result<()>) {
        if let Some(Err(failure)) = self.keeper.as_mut().map(keep) {
            self.give_up(failure).await;
        }
    }

    /// Ends it so that another load can go on. Should that fail, it begins anew: the failure to tell is the load's.
    async fn suspend(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.suspend().await;
        }
    }

    async fn give_up(&mut self, failure: Failure) {
        self.notice = Some(failure.error);
        // Files have to be closed before they can be removed.
        self.keeper = None;
        if let Some(store) = self.store {
            store.remove().await;
        }
    }
}

/// The hashes of the file that is being read, and of the whole model.
#[derive(Clone)]
struct Hashes {
    /// Nothing unless it is known what it should be: hashing twice takes a third of a load's time.
    file: Option<Sha256>,
    model: Sha256,
}

/// What a checkpoint says beside the place in the file.
#[derive(Serialize, Deserialize)]
struct Resume {
    file: Option<String>,
    model: String,
    version: fetch::Version,
    /// Whether the file was read to its end.
    is_whole: bool,
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
        let names: Vec<String> = self.source.files.iter().map(|file| file.name.clone()).collect();
        let files = model_files(&names)?;
        self.ask_ahead(&files)?;
        // Before the weights, which then take the memory that parsing leaves free.
        let tokenizer = self.tokenizer(files.tokenizer.as_ref(), keeping).await?;
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
        files: Option<&TokenizerFiles>,
        keeping: &mut Keeping<'_>,
    ) -> Result<Option<Tokenizer>> {
        let Some(files) = files else { return Ok(None) };
        let wanted = files.names();
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

    /// Puts back what an earlier load has kept; answers with where that load was.
    async fn restore(&self, kept: &Kept, loader: &mut Loader) -> Result<Option<Checkpoint>> {
        let index = &kept.index;
        let opened = kept.open().await;
        let total = index.pieces.iter().map(|piece| piece.size_bytes).sum();
        let mut meter = Meter::new(self.report, "model", 0, Some(total), From::Cache);
        let mut is_open = false;
        let mut done = 0;
        for piece in &index.pieces {
            if self.signal.aborted() {
                return Err(source::stopped());
            }
            if let Content::Header { name, file_bytes } = &piece.content {
                if is_open {
                    loader.skip_to(u64::MAX)?;
                    loader.end_file()?;
                }
                let mut header = vec![0; piece.size_bytes as usize];
                opened.read(piece, 0, &mut header).await?;
                piece.check(&header)?;
                loader.begin_file(name, *file_bytes)?;
                loader.restore_header(&header)?;
                is_open = true;
            } else if let Some(tensor) = piece.tensor() {
                let mut slot = loader.slot(&tensor)?;
                let mut from = 0;
                for part in slot.parts_mut() {
                    opened.read(piece, from, part).await?;
                    from += part.len() as u64;
                }
                loader.restore(slot)?;
            }
            done += piece.size_bytes;
            meter.set(done);
        }
        match &index.checkpoint {
            Some(checkpoint) => loader.skip_to(checkpoint.at)?,
            None if is_open => {
                loader.skip_to(u64::MAX)?;
                loader.end_file()?;
            }
            None => {}
        }
        Ok(index.checkpoint.clone())
    }

    /// Streams one file of weights into the loader, after what an earlier load had of it.
    async fn weights(
        &self,
        file: &SourceFile,
        resumed: Option<Checkpoint>,
        loader: &mut Loader,
        hashes: &mut Hashes,
        keeping: &mut Keeping<'_>,
    ) -> Result<()> {
        hashes.file = file.sha256.is_some().then(Sha256::new);
        let mut reading =
            Reading { file, at: 0, size_bytes: file.size_bytes, version: fetch::Version::default() };
        let mut is_whole = false;
        if let Some(Checkpoint { at, state, .. }) = resumed {
            let state: Resume = serde_json::from_value(state).map_err(|_| unusable())?;
            hashes.model = thaw(&state.model)?;
            if let Some(hash) = &mut hashes.file {
                *hash = thaw(&state.file.unwrap_or_default())?;
            }
            (reading.at, reading.version, is_whole) = (at, state.version, state.is_whole);
        }
        if !is_whole {
            let has_tail = self.replay_tail(&mut reading, loader, hashes, keeping).await?;
            if !(has_tail && reading.size_bytes == Some(reading.at)) {
                let version = reading.version.clone();
                let mut download = Download::begin(self, file, reading.at, version).await?;
                (reading.size_bytes, reading.version) = (download.size_bytes, download.version.clone());
                if reading.at == 0 {
                    loader.begin_file(&file.name, reading.size_bytes)?;
                }
                if !has_tail && reading.is_worth_a_tail() {
                    let tail = reading.tail();
                    keeping.note(|keeper| keeper.begin_tail(&tail)).await;
                }
                let mut piece = Vec::new();
                while download.next(&mut piece).await? {
                    self.take_in(&piece, &mut reading, loader, hashes, keeping).await?;
                }
            }
            if let (Some(expected), Some(hash)) = (&file.sha256, hashes.file.clone()) {
                check_hash(file, expected, hash)?;
            }
            let line = reading.checkpoint(hashes, true);
            keeping.note(|keeper| keeper.checkpoint(line)).await;
        }
        Ok(loader.end_file()?)
    }

    /// Pushes what an earlier load had of the tensor in hand; false if that is nothing.
    async fn replay_tail(
        &self,
        reading: &mut Reading<'_>,
        loader: &mut Loader,
        hashes: &mut Hashes,
        keeping: &mut Keeping<'_>,
    ) -> Result<bool> {
        let keeper = keeping.keeper.as_ref().filter(|_| reading.is_worth_a_tail());
        let Some((tail, mut left)) = keeper.and_then(|keeper| keeper.tail(&reading.file.name, reading.at))
        else {
            return Ok(false);
        };
        if reading.at == 0 {
            loader.begin_file(&reading.file.name, tail.size_bytes)?;
        }
        (reading.size_bytes, reading.version) = (tail.size_bytes, tail.version);
        let mut piece = Vec::new();
        while let Some(keeper) = keeping.keeper.as_ref().filter(|_| left > 0) {
            keeper.read_tail(left, &mut piece)?;
            left -= piece.len() as u64;
            hashes.update(&piece);
            loader.push(&piece)?;
            reading.at += piece.len() as u64;
            // No checkpoint, which would cut the tail off before it was read.
            self.keep_fresh(loader, reading, keeping).await;
        }
        // Without a keeper, whose disk is full, only the rest of the tail is lost: it has to come again.
        Ok(true)
    }

    /// Takes the next bytes of a file.
    async fn take_in(
        &self,
        mut bytes: &[u8],
        reading: &mut Reading<'_>,
        loader: &mut Loader,
        hashes: &mut Hashes,
        keeping: &mut Keeping<'_>,
    ) -> Result<()> {
        while !bytes.is_empty() {
            // Not beyond a tensor's end, where the next load can go on, nor far beyond the header, which says where that is.
            let until = loader.until_tensor_end().and_then(|until| usize::try_from(until).ok());
            let (now, later) = bytes.split_at(until.unwrap_or(HEADER_STEP).min(bytes.len()));
            bytes = later;
            hashes.update(now);
            loader.push(now)?;
            reading.at += now.len() as u64;
            self.keep_fresh(loader, reading, keeping).await;
            let has_tail = reading.is_worth_a_tail();
            if until == Some(now.len()) {
                let (line, tail) = (reading.checkpoint(hashes, false), reading.tail());
                keeping.note(|keeper| keeper.checkpoint(line)).await;
                if has_tail {
                    keeping.note(|keeper| keeper.begin_tail(&tail)).await;
                }
            } else if has_tail {
                keeping.note(|keeper| keeper.extend_tail(now)).await;
            }
        }
        Ok(())
    }

    /// Keeps what has become whole since the last piece.
    async fn keep_fresh(&self, loader: &mut Loader, reading: &Reading<'_>, keeping: &mut Keeping<'_>) {
        if let Some(header) = loader.take_header() {
            let (name, size_bytes) = (&reading.file.name, reading.size_bytes);
            keeping.note(|keeper| keeper.header(name, size_bytes, &header)).await;
        }
        let finished = loader.take_finished();
        keeping.note(|keeper| finished.iter().try_for_each(|tensor| keeper.tensor(tensor))).await;
    }
}

impl Hashes {
    fn update(&mut self, bytes: &[u8]) {
        self.model.update(bytes);
        if let Some(file) = &mut self.file {
            file.update(bytes);
        }
    }
}

/// A file of weights while it is read.
struct Reading<'a> {
    file: &'a SourceFile,
    /// Bytes so far.
    at: u64,
    size_bytes: Option<u64>,
    version: fetch::Version,
}

impl Reading<'_> {
    /// Whether its last bytes are kept as they come: they can be had again at a cost, and proved.
    fn is_worth_a_tail(&self) -> bool {
        matches!(self.file.content, Place::Url(_)) && self.file.sha256.is_some()
    }

    /// A tail that begins here.
    fn tail(&self) -> Tail {
        Tail {
            file: self.file.name.clone(),
            at: self.at,
            size_bytes: self.size_bytes,
            version: self.version.clone(),
        }
    }

    fn checkpoint(&self, hashes: &Hashes, is_whole: bool) -> Checkpoint {
        let freeze = |sha: &Sha256| hexadecimal(&sha.serialize());
        let (file, model) = (hashes.file.as_ref().map(freeze), freeze(&hashes.model));
        let resume = Resume { file, model, version: self.version.clone(), is_whole };
        Checkpoint { file: self.file.name.clone(), at: self.at, state: json!(resume) }
    }
}

/// A hash that goes on where an earlier load left it.
fn thaw(text: &str) -> Result<Sha256> {
    let byte = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..text.len()).step_by(2).map(byte).collect();
    let state = bytes.as_deref().and_then(|bytes| SerializedState::<Sha256>::try_from(bytes).ok());
    state.and_then(|state| Sha256::deserialize(&state).ok()).ok_or_else(unusable)
}

fn unusable() -> Failure {
    Failure::new(Kind::Storage, "What was kept in this browser cannot be read.")
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

/// A file that comes, and is taken up again where it breaks.
struct Download<'a> {
    load: &'a Load<'a>,
    file: &'a SourceFile,
    bytes: Bytes,
    version: fetch::Version,
    /// Bytes so far, and in all where known.
    at: u64,
    size_bytes: Option<u64>,
    /// Breaks since the last byte came.
    breaks: u32,
    meter: Meter<'a>,
}

impl<'a> Download<'a> {
    /// Begins at byte `from` of the file, if it still is of `version`.
    async fn begin(
        load: &'a Load<'a>,
        file: &'a SourceFile,
        from: u64,
        mut version: fetch::Version,
    ) -> Result<Download<'a>> {
        let (bytes, size_bytes) = match &file.content {
            Place::Url(url) => {
                let before = Some(&version);
                let opened = patiently(load.signal, async || {
                    fetch::open(url, load.asked(url), from, before, load.signal).await
                })
                .await?;
                if opened.from != from {
                    return Err(fetch::changed(url));
                }
                if from == 0 {
                    version = opened.version;
                }
                (Bytes::stream(&file.name, &opened.body)?, file.size_bytes.or(opened.size_bytes))
            }
            _ => file.open_here(from)?,
        };
        let meter = Meter::new(load.report, &file.name, from, size_bytes, file.content.from());
        Ok(Download { load, file, bytes, version, at: from, size_bytes, breaks: 0, meter })
    }

    /// Fills `piece` with the next bytes; false at the end.
    async fn next(&mut self, piece: &mut Vec<u8>) -> Result<bool> {
        loop {
            let broke = match self.bytes.next(&self.file.name, self.load.signal).await {
                Ok(Some(array)) => {
                    take(&array, piece);
                    self.breaks = 0;
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
            let Place::Url(url) = &self.file.content else { return Err(broke) };
            if broke.kind != Kind::Network {
                return Err(broke);
            }
            self.breaks += 1;
            if self.breaks >= TRIES {
                return Err(self.broke_off(&broke));
            }
            if self.breaks > 1 {
                rest(PAUSE * f64::from(self.breaks - 1), self.load.signal).await;
            }
            let (at, version, signal) = (self.at, &self.version, self.load.signal);
            let opened =
                patiently(signal, async || fetch::open(url, None, at, Some(version), signal).await).await;
            let opened = opened.map_err(|failure| match failure.kind {
                Kind::Network => self.broke_off(&failure),
                _ => failure,
            })?;
            if opened.from != at {
                // It cannot go on within a file. What is kept, or the beginning, is where another try goes on.
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
                rest(pause, signal).await;
                pause *= 2.0;
                tries += 1;
            }
            Err(_) if signal.aborted() => return Err(source::stopped()),
            ended => return ended,
        }
    }
}

/// Waits so many milliseconds, in short naps, so that a stop need not wait as long.
async fn rest(milliseconds: f64, signal: &AbortSignal) {
    let until = host::now() + milliseconds;
    while host::now() < until && !signal.aborted() {
        host::sleep(50.0).await;
    }
}

/// Copies an array into a buffer that is kept from piece to piece.
fn take(array: &Uint8Array, piece: &mut Vec<u8>) {
    piece.resize(array.length() as usize, 0);
    array.copy_to(piece);
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
