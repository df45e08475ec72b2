//! The origin's private file system: a folder `inkling` with files `ID.index`, `ID.data` and `ID.used`, and while a model
//! loads `ID.tail`.

use wasm_bindgen::{JsCast, prelude::*};
use wasm_bindgen_futures::JsFuture;
use web_sys::Blob;

use super::{Data, Entry, Listed, write_failed};
use crate::{
    error::{Failure, Kind, Result},
    host,
};

#[wasm_bindgen]
extern "C" {
    type StorageManager;
    #[wasm_bindgen(method, catch, js_name = getDirectory)]
    async fn root(this: &StorageManager) -> Result<JsValue, JsValue>;

    #[derive(Clone)]
    type DirectoryHandle;
    #[wasm_bindgen(method, catch, js_name = getDirectoryHandle)]
    async fn folder(this: &DirectoryHandle, name: &str, options: &JsValue) -> Result<JsValue, JsValue>;
    #[wasm_bindgen(method, catch, js_name = getFileHandle)]
    async fn file(this: &DirectoryHandle, name: &str, options: &JsValue) -> Result<JsValue, JsValue>;
    #[wasm_bindgen(method, catch, js_name = removeEntry)]
    async fn remove(this: &DirectoryHandle, name: &str) -> Result<JsValue, JsValue>;
    #[wasm_bindgen(method)]
    fn keys(this: &DirectoryHandle) -> js_sys::AsyncIterator;

    pub(super) type FileHandle;
    #[wasm_bindgen(method, catch, js_name = getFile)]
    async fn blob(this: &FileHandle) -> Result<JsValue, JsValue>;
    #[wasm_bindgen(method, catch, js_name = createSyncAccessHandle)]
    async fn open(this: &FileHandle) -> Result<JsValue, JsValue>;

    type AccessHandle;
    #[wasm_bindgen(method, catch)]
    fn write(this: &AccessHandle, bytes: &[u8], options: &JsValue) -> Result<f64, JsValue>;
    #[wasm_bindgen(method, catch)]
    fn read(this: &AccessHandle, bytes: &mut [u8], options: &JsValue) -> Result<f64, JsValue>;
    #[wasm_bindgen(method, catch, js_name = getSize)]
    fn size(this: &AccessHandle) -> Result<f64, JsValue>;
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
        Some(self.data(name).await?.blob)
    }

    async fn data(&self, name: &str) -> Option<Data> {
        let file = self.file(name, false).await.ok()?;
        Some(Data { blob: file.blob().await.ok()?.dyn_into().ok()?, file: Some(file) })
    }

    pub(super) async fn read(&self, id: &str) -> Option<Entry> {
        let index = self.blob(&format!("{id}.index")).await?;
        let data = self.data(&format!("{id}.data")).await?;
        Some(Entry { index: whole(&index).await?, data })
    }

    pub(super) async fn remove(&self, id: &str) -> Result<()> {
        // The index first: data alone are nothing.
        for suffix in ["index", "data", "tail", "used"] {
            let name = format!("{id}.{suffix}");
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
            let mut size_bytes = 0;
            for suffix in ["data", "tail"] {
                let blob = self.blob(&format!("{id}.{suffix}")).await;
                size_bytes += blob.map_or(0, |blob| blob.size() as u64);
            }
            let used = self.blob(&format!("{id}.used")).await.unwrap_or_else(|| index.clone());
            let last_used = host::property(&used, "lastModified").as_f64();
            listed.push(Listed::new(
                id.into(),
                &whole(&index).await.unwrap_or_default(),
                size_bytes,
                last_used,
            ));
        }
        Ok(listed)
    }

    /// Opens a model's files, index and data cut to these sizes.
    pub(super) async fn write(&self, id: &str, index_bytes: u64, data_bytes: u64) -> Result<Writing> {
        let open = async |suffix: &str, size: Option<u64>| {
            let file = self.file(&format!("{id}.{suffix}"), true).await?;
            Growing::new(Open::new(&file).await?, size)
        };
        let failed = |thrown: JsValue| write_failed(&thrown);
        let data = open("data", Some(data_bytes)).await.map_err(failed)?;
        let index = open("index", Some(index_bytes)).await.map_err(failed)?;
        let tail = open("tail", None).await.map_err(failed)?;
        Ok(Writing { index, data, tail, folder: self.handle.clone(), id: id.into() })
    }
}

/// The bytes of a small blob.
async fn whole(blob: &Blob) -> Option<Vec<u8>> {
    let buffer = JsFuture::from(blob.array_buffer()).await.ok()?;
    Some(js_sys::Uint8Array::new(&buffer).to_vec())
}

/// An open file. Nobody else can open it until it is closed.
pub(super) struct Open(AccessHandle);

impl Open {
    pub(super) async fn new(file: &FileHandle) -> Result<Open, JsValue> {
        Ok(Open(file.open().await?.unchecked_into()))
    }

    /// Fills `out` from byte `at` on; the answer is how many bytes there were.
    pub(super) fn read(&self, at: u64, out: &mut [u8]) -> usize {
        let at = host::object([("at", (at as f64).into())]);
        self.0.read(out, &at).map_or(0, |read| read as usize)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// A file that is written from its end on.
pub(super) struct Growing {
    file: Open,
    end: u64,
}

impl Growing {
    /// Cuts it to a size, if one is given.
    fn new(file: Open, size: Option<u64>) -> Result<Growing, JsValue> {
        let end = match size {
            Some(size) => {
                file.0.truncate(size as f64)?;
                size
            }
            None => file.0.size()? as u64,
        };
        Ok(Growing { file, end })
    }

    /// Bytes so far.
    pub(super) fn size_bytes(&self) -> u64 {
        self.end
    }

    pub(super) fn append(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let at = host::object([("at", (self.end as f64).into())]);
            let written = self.file.0.write(bytes, &at).map_err(|thrown| write_failed(&thrown))? as usize;
            if written == 0 {
                let thrown = host::object([("name", "QuotaExceededError".into())]);
                return Err(write_failed(&thrown));
            }
            self.end += written as u64;
            bytes = &bytes[written.min(bytes.len())..];
        }
        Ok(())
    }

    /// Fills `out` from byte `at` on; the answer is how many bytes there were.
    pub(super) fn read(&self, at: u64, out: &mut [u8]) -> usize {
        self.file.read(at, out)
    }

    /// Empties it.
    pub(super) fn clear(&mut self) -> Result<()> {
        self.end = 0;
        self.file.0.truncate(0.0).map_err(|thrown| write_failed(&thrown))
    }

    fn flush(&self) -> Result<()> {
        self.file.0.flush().map_err(|thrown| write_failed(&thrown))
    }
}

/// A model's files while they grow.
pub(super) struct Writing {
    pub(super) index: Growing,
    pub(super) data: Growing,
    /// See [`Tail`](super::Tail).
    pub(super) tail: Growing,
    folder: DirectoryHandle,
    id: String,
}

impl Writing {
    /// Sees to it that all of it is on the disk, the data before the index that names them.
    pub(super) fn flush(&self) -> Result<()> {
        [&self.data, &self.tail, &self.index].into_iter().try_for_each(Growing::flush)
    }

    /// Closes the files of a model that is whole.
    pub(super) async fn complete(self) -> Result<()> {
        self.flush()?;
        let Writing { folder, id, .. } = self;
        // Nobody reads it any more; should it stay, the next load of this model replaces it.
        let _ = folder.remove(&format!("{id}.tail")).await;
        Ok(())
    }
}
