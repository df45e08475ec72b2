//! The Cache API, where there is no private file system: a model is put there when it is whole, or when its load ends before.

use js_sys::{Array, Promise, Uint8Array};
use wasm_bindgen::{JsCast, prelude::*};
use wasm_bindgen_futures::JsFuture;
use web_sys::{Blob, Response};

use super::{Data, Entry, Kept, Listed, write_failed};
use crate::{error::Result, host};

/// Keys of the cache are addresses; nothing is ever asked for under these.
const ADDRESS: &str = "https://inkling.invalid/";

#[wasm_bindgen]
extern "C" {
    type Caches;
    #[wasm_bindgen(method, catch)]
    async fn open(this: &Caches, name: &str) -> Result<JsValue, JsValue>;

    #[derive(Clone)]
    type CacheHandle;
    #[wasm_bindgen(method, js_name = "match")]
    fn find(this: &CacheHandle, address: &str) -> Promise;
    #[wasm_bindgen(method)]
    fn put(this: &CacheHandle, address: &str, response: &Response) -> Promise;
    #[wasm_bindgen(method)]
    fn delete(this: &CacheHandle, address: &str) -> Promise;
    #[wasm_bindgen(method)]
    fn keys(this: &CacheHandle) -> Promise;
}

/// The cache of all models.
pub(super) struct Cache {
    handle: CacheHandle,
}

impl Cache {
    /// The cache; nothing where the host has none.
    pub(super) async fn open() -> Option<Cache> {
        let caches = host::global("caches");
        if !host::property(&caches, "open").is_function() {
            return None;
        }
        let handle = caches.unchecked_into::<Caches>().open("inkling-models").await.ok()?;
        Some(Cache { handle: handle.unchecked_into() })
    }

    async fn blob(&self, address: &str) -> Option<Blob> {
        let response: Response = JsFuture::from(self.handle.find(address)).await.ok()?.dyn_into().ok()?;
        JsFuture::from(response.blob().ok()?).await.ok()?.dyn_into().ok()
    }

    pub(super) async fn read(&self, id: &str) -> Option<Entry> {
        let index = self.blob(&format!("{ADDRESS}{id}.index")).await?;
        let data = Data { blob: self.blob(&format!("{ADDRESS}{id}.data")).await?, file: None };
        let index = JsFuture::from(index.array_buffer()).await.ok()?;
        Some(Entry { index: Uint8Array::new(&index).to_vec(), data })
    }

    pub(super) async fn remove(&self, id: &str) {
        for name in ["index", "data"] {
            let _ = JsFuture::from(self.handle.delete(&format!("{ADDRESS}{id}.{name}"))).await;
        }
    }

    pub(super) async fn list(&self) -> Vec<Listed> {
        let Ok(keys) = JsFuture::from(self.handle.keys()).await else { return Vec::new() };
        let mut listed = Vec::new();
        for request in Array::from(&keys).iter() {
            let Some(address) = host::text(&request, "url") else { continue };
            let Some(id) = address.strip_prefix(ADDRESS).and_then(|name| name.strip_suffix(".index")) else {
                continue;
            };
            if let Some(Entry { index, data }) = self.read(id).await {
                listed.push(Listed::new(id.into(), &index, data.blob.size() as u64, None));
            }
        }
        listed
    }

    /// Begins a model, or goes on after what is kept of it.
    pub(super) fn write(&self, id: &str, kept: Option<&Kept>) -> Result<Writing> {
        let (mut index, parts) = (String::new(), Array::new());
        if let Some(kept) = kept {
            index += &kept.index_text;
            let end = kept.index.data_bytes as f64;
            let data =
                kept.data.blob.slice_with_f64_and_f64(0.0, end).map_err(|thrown| write_failed(&thrown))?;
            parts.push(&data);
        }
        Ok(Writing { cache: self.handle.clone(), id: id.into(), index, parts })
    }
}

/// A model while it grows: its bytes are blobs, which browsers hold outside of the page's memory.
pub(super) struct Writing {
    cache: CacheHandle,
    id: String,
    index: String,
    parts: Array,
}

impl Writing {
    pub(super) fn data(&mut self, bytes: &[u8]) -> Result<()> {
        let parts = Array::of1(&Uint8Array::from(bytes));
        let blob = Blob::new_with_u8_array_sequence(&parts).map_err(|thrown| write_failed(&thrown))?;
        self.parts.push(&blob);
        Ok(())
    }

    pub(super) fn index(&mut self, line: &str) {
        self.index += line;
    }

    /// Puts what there is into the cache.
    pub(super) async fn store(self) -> Result<()> {
        let put = async || {
            let data = Blob::new_with_blob_sequence(&self.parts)?;
            let data = Response::new_with_opt_blob(Some(&data))?;
            // Data first: without an index they are nothing.
            JsFuture::from(self.cache.put(&format!("{ADDRESS}{}.data", self.id), &data)).await?;
            let index = Response::new_with_opt_str(Some(&self.index))?;
            JsFuture::from(self.cache.put(&format!("{ADDRESS}{}.index", self.id), &index)).await
        };
        match put().await {
            Ok(_) => Ok(()),
            Err(thrown) => Err(write_failed(&thrown)),
        }
    }
}
