//! The origin's private file system: a folder `inkling` with files `ID.index`, `ID.data` and `ID.used`.

use wasm_bindgen::{JsCast, prelude::*};
use wasm_bindgen_futures::JsFuture;
use web_sys::Blob;

use super::{Entry, Listed, write_failed};
use crate::{
    error::{Failure, Kind, Result},
    host,
};

#[wasm_bindgen]
extern "C" {
    type StorageManager;
    #[wasm_bindgen(method, catch, js_name = getDirectory)]
    async fn root(this: &StorageManager) -> Result<JsValue, JsValue>;

    type DirectoryHandle;
    #[wasm_bindgen(method, catch, js_name = getDirectoryHandle)]
    async fn folder(this: &DirectoryHandle, name: &str, options: &JsValue) -> Result<JsValue, JsValue>;
    #[wasm_bindgen(method, catch, js_name = getFileHandle)]
    async fn file(this: &DirectoryHandle, name: &str, options: &JsValue) -> Result<JsValue, JsValue>;
    #[wasm_bindgen(method, catch, js_name = removeEntry)]
    async fn remove(this: &DirectoryHandle, name: &str) -> Result<JsValue, JsValue>;
    #[wasm_bindgen(method)]
    fn keys(this: &DirectoryHandle) -> js_sys::AsyncIterator;

    type FileHandle;
    #[wasm_bindgen(method, catch, js_name = getFile)]
    async fn blob(this: &FileHandle) -> Result<JsValue, JsValue>;
    #[wasm_bindgen(method, catch, js_name = createSyncAccessHandle)]
    async fn open(this: &FileHandle) -> Result<JsValue, JsValue>;

    type AccessHandle;
    #[wasm_bindgen(method, catch)]
    fn write(this: &AccessHandle, bytes: &[u8], options: &JsValue) -> Result<f64, JsValue>;
    #[wasm_bindgen(method, catch)]
    fn truncate(this: &AccessHandle, size: f64) -> Result<(), JsValue>;
    #[wasm_bindgen(method, catch)]
    fn flush(this: &AccessHandle) -> Result<(), JsValue>;
    #[wasm_bindgen(method)]
    fn close(this: &AccessHandle);
}

/// The folder of all models.
pub(super) struct Folder {
    handle: DirectoryHandle,
}

impl Folder {
    /// The folder; nothing where the host has none.
    pub(super) async fn open() -> Option<Folder> {
        let storage = host::property(&host::global("navigator"), "storage");
        if !host::property(&storage, "getDirectory").is_function() {
            return None;
        }
        // Browsers refuse it in private windows.
        let root: DirectoryHandle =
            storage.unchecked_into::<StorageManager>().root().await.ok()?.unchecked_into();
        let create = host::object([("create", true.into())]);
        let handle = root.folder("inkling", &create).await.ok()?.unchecked_into();
        Some(Folder { handle })
    }

    /// Whether this thread may write without waiting: workers may.
    #[expect(clippy::unused_self, reason = "a property of the thread that opened it")]
    pub(super) fn can_write(&self) -> bool {
        let prototype = host::property(&host::global("FileSystemFileHandle"), "prototype");
        host::property(&prototype, "createSyncAccessHandle").is_function()
            && host::global("document").is_undefined()
    }

    async fn file(&self, name: &str, create: bool) -> Result<FileHandle, JsValue> {
        let options = host::object([("create", create.into())]);
        Ok(self.handle.file(name, &options).await?.unchecked_into())
    }

    async fn blob(&self, name: &str) -> Option<Blob> {
        let handle = self.file(name, false).await.ok()?;
        handle.blob().await.ok()?.dyn_into().ok()
    }

    pub(super) async fn read(&self, id: &str) -> Option<Entry> {
        let index = self.blob(&format!("{id}.index")).await?;
        let data = self.blob(&format!("{id}.data")).await?;
        Some(Entry { index: whole(&index).await?, data })
    }

    pub(super) async fn remove(&self, id: &str) -> Result<()> {
        // The index first: data alone are nothing.
        for name in [format!("{id}.index"), format!("{id}.data"), format!("{id}.used")] {
            match self.handle.remove(&name).await {
                Err(thrown) if host::text(&thrown, "name").as_deref() != Some("NotFoundError") => {
                    let what = "The model is being loaded at the moment; try again when that is done";
                    return Err(Failure::thrown(Kind::Storage, what, &thrown));
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) async fn touch(&self, id: &str) {
        let touch = async || {
            let file = self.file(&format!("{id}.used"), true).await?;
            let handle = Open::new(&file).await?;
            handle.0.write(b"1", &host::object([("at", 0.into())]))
        };
        // Only the order in which people see their models depends on it.
        let _ = touch().await;
    }

    pub(super) async fn list(&self) -> Result<Vec<Listed>> {
        let unreadable =
            |thrown: JsValue| Failure::thrown(Kind::Storage, "The browser's storage cannot be read", &thrown);
        let names = self.handle.keys();
        let mut listed = Vec::new();
        loop {
            let next = names.next().map_err(unreadable)?;
            let next = JsFuture::from(next).await.map_err(unreadable)?;
            let Some(name) = host::text(&next, "value") else { break };
            let Some(id) = name.strip_suffix(".index") else { continue };
            let Some(index) = self.blob(&name).await else { continue };
            let data = self.blob(&format!("{id}.data")).await.map_or(0, |data| data.size() as u64);
            let used = self.blob(&format!("{id}.used")).await.unwrap_or_else(|| index.clone());
            let last_used = host::property(&used, "lastModified").as_f64();
            listed.push(Listed::new(id.into(), &whole(&index).await.unwrap_or_default(), data, last_used));
        }
        Ok(listed)
    }

    /// Opens a model's files, cut to these sizes.
    pub(super) async fn write(&self, id: &str, index_bytes: u64, data_bytes: u64) -> Result<Writing> {
        let open = async |name: String, size: u64| {
            let file = self.file(&name, true).await?;
            let handle = Open::new(&file).await?;
            handle.0.truncate(size as f64)?;
            Ok(handle)
        };
        let failed = |thrown: JsValue| write_failed(&thrown);
        let data = open(format!("{id}.data"), data_bytes).await.map_err(failed)?;
        let index = open(format!("{id}.index"), index_bytes).await.map_err(failed)?;
        Ok(Writing { index, data, index_at: index_bytes, data_at: data_bytes })
    }
}

/// The bytes of a small blob.
async fn whole(blob: &Blob) -> Option<Vec<u8>> {
    let buffer = JsFuture::from(blob.array_buffer()).await.ok()?;
    Some(js_sys::Uint8Array::new(&buffer).to_vec())
}

/// An open file. Nobody else can open it until it is closed.
struct Open(AccessHandle);

impl Open {
    async fn new(file: &FileHandle) -> Result<Open, JsValue> {
        Ok(Open(file.open().await?.unchecked_into()))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// A model's files while they grow.
pub(super) struct Writing {
    index: Open,
    data: Open,
    index_at: u64,
    data_at: u64,
}

impl Writing {
    pub(super) fn data(&mut self, bytes: &[u8]) -> Result<()> {
        append(&self.data, &mut self.data_at, bytes)
    }

    pub(super) fn index(&mut self, bytes: &[u8]) -> Result<()> {
        append(&self.index, &mut self.index_at, bytes)
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        let flush = |file: &Open| file.0.flush().map_err(|thrown| write_failed(&thrown));
        flush(&self.data)?;
        flush(&self.index)
    }
}

fn append(file: &Open, at: &mut u64, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        let options = host::object([("at", (*at as f64).into())]);
        let written = file.0.write(bytes, &options).map_err(|thrown| write_failed(&thrown))? as usize;
        if written == 0 {
            let thrown = host::object([("name", "QuotaExceededError".into())]);
            return Err(write_failed(&thrown));
        }
        *at += written as u64;
        bytes = &bytes[written.min(bytes.len())..];
    }
    Ok(())
}
