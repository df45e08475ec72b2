//! Models that are kept in this browser, in the engine's packed form: already quantised, checked, gone on with where a
//! load broke off.
//!
//! In the origin's private file system ([`opfs`]) where a worker may write there without waiting, else as whole files in
//! the Cache API ([`cache_api`]). A Web Lock a model sees to it that two tabs do not write the same one at once: the
//! second waits, and then reads what the first has kept.

mod cache_api;
mod lock;
mod opfs;

use inkling_engine::checkpoint::packed::{Checkpoint, Finished, Head, Index, Piece, Writer};
use inkling_engine::checkpoint::{Dtype, hexadecimal};
use js_sys::Uint8Array;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{AbortSignal, Blob};

pub(crate) use lock::Lock;

use crate::{
    error::{Failure, Kind, Result, reason},
    host,
    load::fetch::Version,
};

/// Bytes that are read at once.
const SLICE: u64 = 4 << 20;
/// What was written is made sure to be on the disk after so many bytes or milliseconds, whichever comes first.
///
/// That is for a machine that stops: what a worker has written stays when only the worker ends, in a reload as well. In
/// Chromium, on the disk of a server, a flush takes 4 ms; after every MiB it made writing 256 MiB ten times slower (1112
/// instead of 103 ms), after every 4 MiB less than twice (190 ms).
const FLUSH_BYTES: u64 = 4 << 20;
/// See [`FLUSH_BYTES`].
const FLUSH_MS: f64 = 250.0;

/// Bytes of the longest first line of a [`Tail`].
const LONGEST_LINE: usize = 4096;

/// The place of one model in this browser.
pub(crate) struct Store {
    id: String,
    medium: Medium,
}

enum Medium {
    Opfs(opfs::Folder),
    Cache(cache_api::Cache),
}

/// A model that is kept, at least in part.
pub(crate) struct Kept {
    pub(crate) index: Index,
    /// The index as far as it is believed, as it was read.
    index_text: String,
    data: Data,
}

/// Bytes of a source's file since the last checkpoint, as they came: the first line of a file that the bytes follow.
///
/// A packed model has whole tensors only, and one of them may be a third of a file. So what came of the tensor in hand is
/// kept beside it; a load that goes on takes these bytes first and then asks for the rest. Nothing here proves them, so
/// that is done only where the whole file has a hash to be held against.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tail {
    /// The file.
    pub(crate) file: String,
    /// The byte of it that comes first.
    pub(crate) at: u64,
    /// The size of the file.
    pub(crate) size_bytes: Option<u64>,
    /// What its server said of it.
    pub(crate) version: Version,
}

/// What a medium has of a model.
struct Entry {
    index: Vec<u8>,
    data: Data,
}

/// The bytes of a model's pieces.
struct Data {
    blob: Blob,
    /// The file behind it, which a worker can read without waiting.
    file: Option<opfs::FileHandle>,
}

impl Store {
    /// The place of the model `key` at `dtype`; nothing where this host keeps nothing.
    pub(crate) async fn open(key: &str, dtype: Dtype) -> Option<Store> {
        let id = format!("{}.{}", file_name(key), dtype.name());
        let medium = match opfs::Folder::open().await {
            Some(folder) if folder.can_write() => Medium::Opfs(folder),
            _ => Medium::Cache(cache_api::Cache::open().await?),
        };
        Some(Store { id, medium })
    }

    /// What is kept of the model, for a thread that only reads: where workers can write files they do, also where this
    /// thread cannot.
    pub(crate) async fn look(key: &str, dtype: Dtype) -> Option<Kept> {
        let own = Store::open(key, dtype).await?;
        if let Some(kept) = own.read(dtype).await {
            return Some(kept);
        }
        let folder = opfs::Folder::open().await?;
        Store { id: own.id, medium: Medium::Opfs(folder) }.read(dtype).await
    }

    /// Waits until no other tab or worker reads or writes this model.
    pub(crate) async fn lock(&self, signal: &AbortSignal) -> Result<Option<Lock>> {
        Lock::acquire(&format!("inkling-store-{}", self.id), signal).await
    }

    /// What is kept of it. What another version of the engine kept, or what cannot be read, counts as nothing.
    pub(crate) async fn read(&self, dtype: Dtype) -> Option<Kept> {
        let entry = match &self.medium {
            Medium::Opfs(folder) => folder.read(&self.id).await,
            Medium::Cache(cache) => cache.read(&self.id).await,
        };
        let Entry { index, data } = entry?;
        let mut text = index;
        let index = Index::parse(&text, dtype, data.blob.size() as u64).ok()?;
        text.truncate(usize::try_from(index.index_bytes).ok()?);
        Some(Kept { index, index_text: String::from_utf8(text).ok()?, data })
    }

    /// Notes that the model was used.
    pub(crate) async fn touch(&self) {
        if let Medium::Opfs(folder) = &self.medium {
            folder.touch(&self.id).await;
        }
    }

    /// Forgets it.
    pub(crate) async fn remove(&self) {
        match &self.medium {
            Medium::Opfs(folder) => drop(folder.remove(&self.id).await),
            Medium::Cache(cache) => cache.remove(&self.id).await,
        }
    }

    /// Begins to keep the model, or goes on after what `kept` has of it.
    pub(crate) async fn keep(&self, head: Head, kept: Option<&Kept>) -> Result<Keeper> {
        let (writer, first) = match kept {
            Some(kept) => (Writer::resume(&kept.index), None),
            None => {
                let (writer, first) = Writer::begin(head);
                (writer, Some(first))
            }
        };
        let (index_bytes, data_bytes) =
            kept.map_or((0, 0), |kept| (kept.index.index_bytes, kept.index.data_bytes));
        let mut files = match &self.medium {
            Medium::Opfs(folder) => Files::Opfs(folder.write(&self.id, index_bytes, data_bytes).await?),
            Medium::Cache(cache) => Files::Cache(cache.write(&self.id, kept)?),
        };
        if let Some(first) = first {
            files.index(&first)?;
        }
        Ok(Keeper { files, writer, unflushed: 0, flushed_at: host::now() })
    }
}

#[cfg(all(test, target_arch = "wasm32"))]
impl Store {
    /// Its id in what [`stored`] lists.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Whether it is kept in files.
    pub(crate) fn is_files(&self) -> bool {
        matches!(self.medium, Medium::Opfs(_))
    }

    /// Other bytes for those of the model, under the same index.
    pub(crate) async fn replace_data(&self, mut kept: Kept, bytes: &[u8]) {
        kept.index.data_bytes = 0;
        match &self.medium {
            Medium::Opfs(folder) => {
                let files = folder.write(&self.id, kept.index.index_bytes, 0).await;
                files.expect("nobody else has it open").data.append(bytes).expect("there is room");
            }
            Medium::Cache(cache) => {
                let mut parts = cache.write(&self.id, Some(&kept)).expect("nothing is written yet");
                parts.data(bytes).expect("there is room");
                parts.store().await.expect("there is room");
            }
        }
    }
}

impl Kept {
    /// A small file.
    pub(crate) async fn file(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(piece) = self.index.file(name) else { return Ok(None) };
        let mut bytes = vec![0; piece.size_bytes as usize];
        Opened { blob: &self.data.blob, file: None }.read(piece, 0, &mut bytes).await?;
        piece.check(&bytes)?;
        Ok(Some(bytes))
    }

    /// Opens it for its tensors. Nobody can write it until that is dropped.
    pub(crate) async fn open(&self) -> Opened<'_> {
        let file = match &self.data.file {
            // Where this thread may not, or somebody else has it open, there is the blob.
            Some(file) => opfs::Open::new(file).await.ok(),
            None => None,
        };
        Opened { blob: &self.data.blob, file }
    }
}

/// The bytes of a model that is kept.
///
/// A worker has them from the file at once, for which Chromium takes 0.1 s where it takes 0.4 to 1 s to hand over the same
/// 131 MB as a blob's slices.
pub(crate) struct Opened<'a> {
    blob: &'a Blob,
    file: Option<opfs::Open>,
}

impl Opened<'_> {
    /// Whether it has the file itself, not its blob.
    #[cfg(all(test, target_arch = "wasm32"))]
    pub(crate) fn is_the_file(&self) -> bool {
        self.file.is_some()
    }

    /// Reads a part of a piece, from its byte `from` on.
    pub(crate) async fn read(&self, piece: &Piece, from: u64, mut out: &mut [u8]) -> Result<()> {
        let mut at = piece.offset + from;
        while !out.is_empty() {
            let (now, later) = out.split_at_mut(out.len().min(SLICE as usize));
            let read = match &self.file {
                Some(file) => file.read(at, now),
                None => slice(self.blob, at, now).await?,
            };
            if read != now.len() {
                return Err(shorter());
            }
            at += read as u64;
            out = later;
        }
        Ok(())
    }
}

/// Reads a blob from byte `at` on; the answer is how many bytes there were.
async fn slice(data: &Blob, at: u64, out: &mut [u8]) -> Result<usize> {
    let gone = |thrown: JsValue| {
        Failure::thrown(Kind::Storage, "What was kept in this browser cannot be read", &thrown)
    };
    let slice = data.slice_with_f64_and_f64(at as f64, at as f64 + out.len() as f64).map_err(gone)?;
    let array = Uint8Array::new(&JsFuture::from(slice.array_buffer()).await.map_err(gone)?);
    let read = array.length() as usize;
    if read == out.len() {
        array.copy_to(out);
    }
    Ok(read)
}

fn shorter() -> Failure {
    Failure::new(Kind::Storage, "What was kept in this browser has become shorter.")
}

/// Keeps a model while it loads.
pub(crate) struct Keeper {
    files: Files,
    writer: Writer,
    unflushed: u64,
    flushed_at: f64,
}

enum Files {
    Opfs(opfs::Writing),
    Cache(cache_api::Writing),
}

impl Files {
    fn data(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Files::Opfs(files) => files.data.append(bytes),
            Files::Cache(files) => files.data(bytes),
        }
    }

    fn index(&mut self, line: &str) -> Result<()> {
        match self {
            Files::Opfs(files) => files.index.append(line.as_bytes()),
            Files::Cache(files) => {
                files.index(line);
                Ok(())
            }
        }
    }
}

impl Keeper {
    pub(crate) fn file(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.files.data(bytes)?;
        self.files.index(&self.writer.file(name, bytes))
    }

    pub(crate) fn header(&mut self, name: &str, file_bytes: Option<u64>, bytes: &[u8]) -> Result<()> {
        self.files.data(bytes)?;
        self.files.index(&self.writer.header(name, file_bytes, bytes))
    }

    pub(crate) fn tensor(&mut self, tensor: &Finished<'_>) -> Result<()> {
        for part in tensor.parts {
            self.files.data(part)?;
            self.unflushed += part.len() as u64;
        }
        self.files.index(&self.writer.tensor(tensor))
    }

    /// What was kept so far is where the next load goes on.
    pub(crate) fn checkpoint(&mut self, checkpoint: Checkpoint) -> Result<()> {
        // Should the lines reach the disk and the bytes not, their hashes tell.
        self.files.index(&self.writer.checkpoint(checkpoint))?;
        self.flush_in_time()
    }

    /// How many bytes there are that follow byte `at` of `file`, and what their first line says.
    pub(crate) fn tail(&self, file: &str, at: u64) -> Option<(Tail, u64)> {
        let Files::Opfs(opfs::Writing { tail, .. }) = &self.files else { return None };
        let mut line = vec![0; LONGEST_LINE];
        let read = tail.read(0, &mut line);
        let end = line[..read].iter().position(|&byte| byte == b'\n')?;
        let found: Tail = serde_json::from_slice(&line[..end]).ok()?;
        let bytes = tail.size_bytes() - (end as u64 + 1);
        (found.file == file && found.at == at && bytes > 0).then_some((found, bytes))
    }

    /// Reads the last `left` bytes of the tail, or as many of them as `out` holds.
    pub(crate) fn read_tail(&self, left: u64, out: &mut Vec<u8>) -> Result<()> {
        let Files::Opfs(opfs::Writing { tail, .. }) = &self.files else { return Ok(()) };
        out.resize(left.min(SLICE) as usize, 0);
        if tail.read(tail.size_bytes() - left, out) == out.len() {
            return Ok(());
        }
        Err(shorter())
    }

    /// Begins a tail.
    pub(crate) fn begin_tail(&mut self, first: &Tail) -> Result<()> {
        let Files::Opfs(opfs::Writing { tail, .. }) = &mut self.files else { return Ok(()) };
        let line = serde_json::to_string(first).expect("plain data") + "\n";
        tail.clear()?;
        tail.append(line.as_bytes())
    }

    /// Adds to it what came.
    pub(crate) fn extend_tail(&mut self, bytes: &[u8]) -> Result<()> {
        let Files::Opfs(opfs::Writing { tail, .. }) = &mut self.files else { return Ok(()) };
        tail.append(bytes)?;
        self.unflushed += bytes.len() as u64;
        self.flush_in_time()
    }

    fn flush_in_time(&mut self) -> Result<()> {
        let is_due = self.unflushed >= FLUSH_BYTES || host::now() - self.flushed_at >= FLUSH_MS;
        if let (Files::Opfs(files), true) = (&self.files, is_due) {
            files.flush()?;
            (self.unflushed, self.flushed_at) = (0, host::now());
        }
        Ok(())
    }

    /// The load ends before the model is whole; another will go on here.
    pub(crate) async fn suspend(self) -> Result<()> {
        match self.files {
            Files::Opfs(files) => files.flush(),
            Files::Cache(files) => files.store().await,
        }
    }

    /// The model is whole.
    pub(crate) async fn complete(mut self, state: Value) -> Result<()> {
        if let Files::Opfs(files) = &self.files {
            files.flush()?;
        }
        self.files.index(&self.writer.complete(state))?;
        match self.files {
            Files::Opfs(files) => files.complete().await,
            Files::Cache(files) => files.store().await,
        }
    }
}

/// A model that is kept, for people.
#[derive(Serialize)]
struct Listed {
    id: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    dtype: Option<&'static str>,
    size_bytes: u64,
    complete: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used: Option<f64>,
}

impl Listed {
    /// Reads an index without caring for its dtype.
    fn new(id: String, index: &[u8], data_bytes: u64, last_used: Option<f64>) -> Listed {
        let parsed =
            Dtype::ALL.iter().find_map(|&dtype| Some((dtype, Index::parse(index, dtype, data_bytes).ok()?)));
        let name = parsed.as_ref().and_then(|(_, index)| index.head.source["name"].as_str());
        Listed {
            name: name.unwrap_or(&id).to_string(),
            dtype: parsed.as_ref().map(|(dtype, _)| dtype.name()),
            size_bytes: data_bytes + index.len() as u64,
            complete: parsed.as_ref().is_some_and(|(_, index)| index.complete.is_some()),
            last_used,
            id,
        }
    }
}

/// What is kept in this browser: `[{id, name, dtype, size_bytes, complete, last_used}]`.
///
/// # Errors
/// If the storage cannot be read.
#[wasm_bindgen]
pub async fn stored() -> Result<JsValue, JsValue> {
    let mut listed = Vec::new();
    if let Some(folder) = opfs::Folder::open().await {
        listed.extend(folder.list().await?);
    }
    if let Some(cache) = cache_api::Cache::open().await {
        listed.extend(cache.list().await);
    }
    Ok(host::to_js(&listed))
}

/// Forgets a model that is kept, or all of them.
///
/// # Errors
/// If it is being loaded at the moment.
#[wasm_bindgen]
pub async fn forget(id: Option<String>) -> Result<(), JsValue> {
    if let Some(folder) = opfs::Folder::open().await {
        for listed in
            folder.list().await?.into_iter().filter(|listed| id.as_ref().is_none_or(|id| *id == listed.id))
        {
            folder.remove(&listed.id).await?;
        }
    }
    if let Some(cache) = cache_api::Cache::open().await {
        for listed in
            cache.list().await.into_iter().filter(|listed| id.as_ref().is_none_or(|id| *id == listed.id))
        {
            cache.remove(&listed.id).await;
        }
    }
    Ok(())
}

/// The failure of a write.
fn write_failed(thrown: &JsValue) -> Failure {
    let is_full = host::text(thrown, "name").as_deref() == Some("QuotaExceededError");
    let error = match is_full {
        true => "The disk is full: the model runs, but will be downloaded again next time.".to_string(),
        false => format!("The model could not be kept in this browser: {}.", reason(thrown)),
    };
    Failure::new(Kind::Storage, error)
}

/// A key as the name of a file.
fn file_name(key: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '_' };
    let readable: String =
        key.chars().rev().take(60).collect::<Vec<_>>().into_iter().rev().map(plain).collect();
    use sha2::{Digest as _, Sha256};
    let hash = hexadecimal(&Sha256::digest(key.as_bytes()));
    format!("{}-{}", readable.trim_start_matches('.'), &hash[..10])
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn names_of_files_are_plain_and_differ_where_keys_do() {
        let (one, other) = (file_name("hub https://a/b c@main"), file_name("hub https://a/b_c@main"));
        assert_ne!(one, other);
        for name in [one, other, file_name("../../ü"), file_name(&"x".repeat(500))] {
            assert!(name.len() < 80 && !name.starts_with('.'), "{name}");
            assert!(name.bytes().all(|c| c.is_ascii_alphanumeric() || b".-_".contains(&c)), "{name}");
        }
    }
}
