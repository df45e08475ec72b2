//! Models that are kept in this browser, in the engine's packed form: already quantised, checked, gone on with where a
//! load broke off.
//!
//! In the origin's private file system ([`opfs`]) where a worker may write there without waiting, else as whole files in
//! the Cache API ([`cache_api`]). A Web Lock a model sees to it that two tabs do not write the same one at once: the
//! second waits, and then reads what the first has kept.

mod cache_api;
mod lock;
mod opfs;

use inkling_engine::checkpoint::Dtype;
use inkling_engine::checkpoint::packed::{Checkpoint, Finished, Head, Index, Piece, Writer};
use js_sys::Uint8Array;
use serde::Serialize;
use serde_json::Value;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{AbortSignal, Blob};

pub(crate) use lock::Lock;

use crate::{
    error::{Failure, Kind, Result, reason},
    host,
};

/// Bytes that are read at once.
const SLICE: u64 = 4 << 20;
/// Bytes between two times that what was written is made sure to be on the disk.
const FLUSH: u64 = 16 << 20;

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
    data: Blob,
}

/// What a medium has of a model.
struct Entry {
    index: Vec<u8>,
    data: Blob,
}

impl Store {
    /// The place of the model `key` at `dtype`; nothing where this host keeps nothing.
    pub(crate) async fn open(key: &str, dtype: Dtype) -> Option<Store> {
        let id = format!("{}.{}", file_name(key), if dtype == Dtype::Q8 { "q8" } else { "f32" });
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
        let index = Index::parse(&index, dtype, data.size() as u64).ok()?;
        Some(Kept { index, data })
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
            Medium::Cache(cache) => Files::Cache(cache.write(&self.id)),
        };
        if let Some(first) = first {
            files.index(&first)?;
        }
        Ok(Keeper { files, writer, unflushed: 0 })
    }
}

impl Kept {
    /// A small file.
    pub(crate) async fn file(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(piece) = self.index.file(name) else { return Ok(None) };
        let mut bytes = vec![0; piece.size_bytes as usize];
        self.read(piece, 0, &mut bytes).await?;
        piece.check(&bytes)?;
        Ok(Some(bytes))
    }

    /// Reads a part of a piece, from its byte `from` on.
    pub(crate) async fn read(&self, piece: &Piece, from: u64, mut out: &mut [u8]) -> Result<()> {
        let mut at = piece.offset + from;
        while !out.is_empty() {
            let take = out.len().min(SLICE as usize);
            let (now, later) = out.split_at_mut(take);
            let end = at + take as u64;
            let gone = |thrown: JsValue| {
                Failure::thrown(Kind::Storage, "What was kept in this browser cannot be read", &thrown)
            };
            let slice = self.data.slice_with_f64_and_f64(at as f64, end as f64).map_err(gone)?;
            let buffer = JsFuture::from(slice.array_buffer()).await.map_err(gone)?;
            let array = Uint8Array::new(&buffer);
            if array.length() as usize != take {
                return Err(Failure::new(Kind::Storage, "What was kept in this browser has become shorter."));
            }
            array.copy_to(now);
            out = later;
            at = end;
        }
        Ok(())
    }
}

/// Keeps a model while it loads.
pub(crate) struct Keeper {
    files: Files,
    writer: Writer,
    unflushed: u64,
}

enum Files {
    Opfs(opfs::Writing),
    Cache(cache_api::Writing),
}

impl Files {
    fn data(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Files::Opfs(files) => files.data(bytes),
            Files::Cache(files) => files.data(bytes),
        }
    }

    fn index(&mut self, line: &str) -> Result<()> {
        match self {
            Files::Opfs(files) => files.index(line.as_bytes()),
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

    pub(crate) fn checkpoint(&mut self, checkpoint: Checkpoint) -> Result<()> {
        // Should the lines reach the disk and the bytes not, their hashes tell.
        self.files.index(&self.writer.checkpoint(checkpoint))?;
        if let (Files::Opfs(files), true) = (&mut self.files, self.unflushed >= FLUSH) {
            files.flush()?;
            self.unflushed = 0;
        }
        Ok(())
    }

    /// The model is whole.
    pub(crate) async fn complete(mut self, state: Value) -> Result<()> {
        if let Files::Opfs(files) = &mut self.files {
            files.flush()?;
        }
        self.files.index(&self.writer.complete(state))?;
        match self.files {
            Files::Opfs(mut files) => files.flush(),
            Files::Cache(files) => files.complete().await,
        }
    }
}

/// A model that is kept, for people.
#[derive(Serialize)]
struct Listed {
    id: String,
    name: String,
    size_bytes: u64,
    complete: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used: Option<f64>,
}

impl Listed {
    /// Reads an index without caring for its dtype.
    fn new(id: String, index: &[u8], data_bytes: u64, last_used: Option<f64>) -> Listed {
        let parsed =
            [Dtype::Q8, Dtype::F32].iter().find_map(|&dtype| Index::parse(index, dtype, data_bytes).ok());
        let name = parsed.as_ref().and_then(|index| index.head.source["name"].as_str());
        Listed {
            name: name.unwrap_or(&id).to_string(),
            size_bytes: data_bytes + index.len() as u64,
            complete: parsed.as_ref().is_some_and(|index| index.complete.is_some()),
            last_used,
            id,
        }
    }
}

/// What is kept in this browser: `[{id, name, size_bytes, complete, last_used}]`.
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
    let hash = crate::load::hexadecimal(&Sha256::digest(key.as_bytes()));
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
