//! The engine's module as JavaScript has it.

use wasm_bindgen::prelude::*;

#[wasm_bindgen(inline_js = "export const import_module = (address) => import(address);")]
extern "C" {
    pub(super) fn import_module(address: &str) -> js_sys::Promise;
}

#[wasm_bindgen]
extern "C" {
    /// The module `inkling.js`.
    #[derive(Clone)]
    pub(crate) type Module;
    #[wasm_bindgen(method, catch, js_name = capabilities)]
    pub(super) fn js_capabilities(this: &Module) -> Result<js_sys::Promise, JsValue>;
    #[wasm_bindgen(method, catch, js_name = describe)]
    pub(super) fn js_describe(
        this: &Module,
        source: &JsValue,
        options: &JsValue,
    ) -> Result<js_sys::Promise, JsValue>;
    #[wasm_bindgen(method, getter, js_name = Graph)]
    pub(super) fn graph_class(this: &Module) -> GraphClass;
    #[wasm_bindgen(method, getter)]
    pub(super) fn storage(this: &Module) -> StorageApi;

    pub(super) type GraphClass;
    #[wasm_bindgen(method, catch)]
    pub(super) fn open(this: &GraphClass, options: &JsValue) -> Result<OpenGraph, JsValue>;

    /// A graph whose models load or are loaded.
    #[derive(Clone)]
    pub(crate) type OpenGraph;
    #[wasm_bindgen(method, catch, js_name = run)]
    pub(super) fn js_run(
        this: &OpenGraph,
        request: &JsValue,
        options: &JsValue,
    ) -> Result<js_sys::AsyncIterator, JsValue>;
    /// Loads a node again after it failed.
    #[wasm_bindgen(method)]
    pub(crate) fn retry(this: &OpenGraph, node: &str);
    /// Ends a node's download; what came is kept.
    #[wasm_bindgen(method, js_name = stopLoading)]
    pub(crate) fn stop_loading(this: &OpenGraph, node: &str);
    /// Ends its workers.
    #[wasm_bindgen(method)]
    pub(crate) fn close(this: &OpenGraph);
    #[wasm_bindgen(method, getter)]
    pub(super) fn opened(this: &OpenGraph) -> js_sys::Promise;
    #[wasm_bindgen(method, getter)]
    pub(super) fn nodes(this: &OpenGraph) -> JsValue;

    pub(super) type StorageApi;
    #[wasm_bindgen(method, catch)]
    pub(super) fn list(this: &StorageApi) -> Result<js_sys::Promise, JsValue>;
    #[wasm_bindgen(method, catch)]
    pub(super) fn remove(this: &StorageApi, id: &str) -> Result<js_sys::Promise, JsValue>;
    #[wasm_bindgen(method, catch)]
    pub(super) fn clear(this: &StorageApi) -> Result<js_sys::Promise, JsValue>;
    #[wasm_bindgen(method, catch)]
    pub(super) fn estimate(this: &StorageApi) -> Result<js_sys::Promise, JsValue>;
    #[wasm_bindgen(method, catch)]
    pub(super) fn persist(this: &StorageApi) -> Result<js_sys::Promise, JsValue>;
}
