//! The engine for JavaScript (`crates/web`), bound at run time, so that the page is drawn before the engine is there.
//!
//! Values cross as JSON text, which a server's events do too: one reader of every type, and a sixth of the page's weight
//! less than with a second one.

use std::collections::BTreeMap;

use inkling_engine::{
    graph::{
        Answer, Graph,
        spec::{Input, ModelNames, Node, Task},
    },
    protocol::{Parameters, Request, Stamped},
};
use serde::{Deserialize, Serialize};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{AbortSignal, File};

use crate::{browser, format, models::Source};

#[wasm_bindgen(inline_js = "export const import_module = (address) => import(address);")]
extern "C" {
    fn import_module(address: &str) -> js_sys::Promise;
}

#[wasm_bindgen]
extern "C" {
    /// The module `inkling.js`.
    #[derive(Clone)]
    pub(crate) type Module;
    #[wasm_bindgen(method, catch, js_name = capabilities)]
    fn js_capabilities(this: &Module) -> Result<js_sys::Promise, JsValue>;
    #[wasm_bindgen(method, catch, js_name = describe)]
    fn js_describe(this: &Module, source: &JsValue) -> Result<js_sys::Promise, JsValue>;
    #[wasm_bindgen(method, getter, js_name = Graph)]
    fn graph_class(this: &Module) -> GraphClass;
    #[wasm_bindgen(method, getter)]
    fn storage(this: &Module) -> StorageApi;

    type GraphClass;
    #[wasm_bindgen(method, catch)]
    fn open(this: &GraphClass, options: &JsValue) -> Result<OpenGraph, JsValue>;

    /// A graph whose models load or are loaded.
    #[derive(Clone)]
    pub(crate) type OpenGraph;
    #[wasm_bindgen(method, catch, js_name = run)]
    fn js_run(
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
    fn opened(this: &OpenGraph) -> js_sys::Promise;
    #[wasm_bindgen(method, getter)]
    fn nodes(this: &OpenGraph) -> JsValue;

    type StorageApi;
    #[wasm_bindgen(method, catch)]
    fn list(this: &StorageApi) -> Result<js_sys::Promise, JsValue>;
    #[wasm_bindgen(method, catch)]
    fn remove(this: &StorageApi, id: &str) -> Result<js_sys::Promise, JsValue>;
    #[wasm_bindgen(method, catch)]
    fn clear(this: &StorageApi) -> Result<js_sys::Promise, JsValue>;
    #[wasm_bindgen(method, catch)]
    fn estimate(this: &StorageApi) -> Result<js_sys::Promise, JsValue>;
    #[wasm_bindgen(method, catch)]
    fn persist(this: &StorageApi) -> Result<js_sys::Promise, JsValue>;
}

/// What this browser can do.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Capabilities {
    pub(crate) simd: bool,
    pub(crate) relaxed_simd: bool,
    pub(crate) workers: bool,
    pub(crate) opfs: bool,
    pub(crate) cache_api: bool,
    pub(crate) persisted: bool,
    pub(crate) cores: f64,
    /// As the browser says it; never above 8, and absent in some.
    pub(crate) memory_gib: Option<f64>,
}

impl Default for Capabilities {
    fn default() -> Self {
        Capabilities {
            simd: true,
            relaxed_simd: false,
            workers: true,
            opfs: true,
            cache_api: true,
            persisted: false,
            cores: 1.0,
            memory_gib: None,
        }
    }
}

/// What loading a model would take.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Description {
    pub(crate) name: String,
    /// Still to come over the network.
    pub(crate) download_bytes: f64,
    /// In memory, at its dtype.
    pub(crate) memory_bytes: f64,
    pub(crate) cached: bool,
}

/// Where a node's model stands.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(crate) enum LoadState {
    /// Not begun.
    Waiting,
    /// On its way.
    Loading {
        #[serde(default)]
        file: String,
        #[serde(default)]
        bytes: f64,
        #[serde(default)]
        total_bytes: Option<f64>,
        #[serde(default)]
        ms_left: Option<f64>,
        /// `network`, `cache` or `file`.
        #[serde(default)]
        from: String,
    },
    /// There.
    Ready(Loaded),
    /// Not there, for a reason.
    Failed {
        error: String,
        #[serde(default)]
        kind: String,
        #[serde(default)]
        can_retry: bool,
    },
    /// Let go.
    Closed,
}

/// A loaded model.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Loaded {
    pub(crate) load_ms: f64,
    pub(crate) memory_bytes: f64,
    pub(crate) model: String,
    pub(crate) model_sha256: Option<String>,
    /// Which kernels it computes with.
    pub(crate) isa: String,
    /// What the visitor should know, such as a full disk.
    pub(crate) notice: Option<String>,
}

/// A model that is kept in this browser.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct Stored {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) size_bytes: f64,
    pub(crate) complete: bool,
}

/// How full this browser's storage is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Estimate {
    pub(crate) usage_bytes: Option<f64>,
    pub(crate) quota_bytes: Option<f64>,
    pub(crate) persisted: bool,
}

/// Files of the visitor's own, by name.
pub(crate) type Files = Vec<(String, File)>;

/// The engine's module. The browser keeps it: asking twice loads once.
///
/// # Errors
/// One sentence for the visitor.
pub(crate) async fn module() -> Result<Module, String> {
    match JsFuture::from(import_module(&format!("{}inkling.js", folder()))).await {
        Ok(module) => Ok(module.unchecked_into()),
        Err(error) => {
            log(&error);
            Err("The engine did not arrive. Check the connection and reload the page.".into())
        }
    }
}

/// The folder of the engine's files, beside the page.
fn folder() -> String {
    let base = browser::document().base_uri().ok().flatten().unwrap_or_default();
    web_sys::Url::new_with_base("engine/", &base).map(|address| address.href()).unwrap_or_default()
}

impl Module {
    /// What this browser can do.
    pub(crate) async fn capabilities(&self) -> Result<Capabilities, String> {
        awaited(self.js_capabilities()).await
    }

    /// What loading from `source` would take; asks the hub for sizes only.
    pub(crate) async fn describe(
        &self,
        source: &Source,
        files: Option<&Files>,
    ) -> Result<Description, String> {
        awaited(self.js_describe(&js_source(source, files))).await
    }

    /// Opens a graph; its models load in the background, and each change of a node's state goes to `on_state`.
    ///
    /// # Errors
    /// One sentence for the visitor.
    pub(crate) fn open(
        &self,
        graph_toml: Option<&str>,
        models: &BTreeMap<String, Source>,
        files: &BTreeMap<String, Files>,
        on_state: &JsValue,
    ) -> Result<OpenGraph, String> {
        let options = js_sys::Object::new();
        let sources = js_sys::Object::new();
        for (node, source) in models {
            if *source != Source::Demo {
                set(&sources, node, &js_source(source, files.get(node)));
            }
        }
        set(&options, "models", &sources);
        if let Some(toml) = graph_toml {
            set(&options, "graph", &toml.into());
        }
        set(&options, "onstate", on_state);
        set(&options, "base", &folder().into());
        self.graph_class().open(&options).map_err(sentence_of)
    }

    /// What a graph file says.
    ///
    /// # Errors
    /// What is wrong with it, with its line.
    pub(crate) async fn read_graph(&self, toml: &str) -> Result<Graph, String> {
        // The engine reads a file in order to open it, and begins to load demo models, which costs next to nothing.
        let open = self.open(Some(toml), &BTreeMap::new(), &BTreeMap::new(), &JsValue::UNDEFINED)?;
        let read = JsFuture::from(open.opened()).await.map_err(sentence_of);
        let nodes = read.and_then(|_| from_js(open.nodes()));
        open.close();
        Ok(graph_of(nodes?))
    }

    /// The models that are kept.
    pub(crate) async fn stored(&self) -> Result<Vec<Stored>, String> {
        awaited(self.storage().list()).await
    }

    /// Deletes one of them.
    pub(crate) async fn remove_stored(&self, id: &str) -> Result<(), String> {
        settled(self.storage().remove(id)).await.map(drop)
    }

    /// Deletes all of them.
    pub(crate) async fn clear_stored(&self) -> Result<(), String> {
        settled(self.storage().clear()).await.map(drop)
    }

    /// How full the storage is.
    pub(crate) async fn estimate(&self) -> Result<Estimate, String> {
        awaited(self.storage().estimate()).await
    }

    /// Asks the browser not to delete models by itself; whether it agreed.
    pub(crate) async fn persist(&self) -> Result<bool, String> {
        awaited(self.storage().persist()).await
    }
}

impl OpenGraph {
    /// Runs a request and gives every event to `on_event` as it comes; the answer at the end.
    ///
    /// # Errors
    /// One sentence for the visitor.
    pub(crate) async fn run(
        &self,
        request: &Request,
        signal: &AbortSignal,
        mut on_event: impl FnMut(Stamped),
    ) -> Result<Option<Answer>, String> {
        let request = to_js(request)?;
        let options = js_sys::Object::new();
        set(&options, "signal", signal);
        let events = self.js_run(&request, &options).map_err(sentence_of)?;
        loop {
            let step = JsFuture::from(events.next().map_err(sentence_of)?).await.map_err(sentence_of)?;
            let step: js_sys::IteratorNext = step.unchecked_into();
            if step.done() {
                return from_js(step.value());
            }
            on_event(from_js(step.value())?);
        }
    }
}

/// A node as the engine describes it.
#[derive(Deserialize)]
struct NodeInfo {
    name: String,
    task: Task,
    inputs: Vec<String>,
    model: String,
    #[serde(default)]
    hub: Option<String>,
    #[serde(default)]
    parameters: Parameters,
}

fn graph_of(infos: Vec<NodeInfo>) -> Graph {
    let names: Vec<String> = infos.iter().map(|info| info.name.clone()).collect();
    let input =
        |name: &String| names.iter().position(|other| other == name).map_or(Input::Sentence, Input::Node);
    let node = |info: NodeInfo| {
        let models = [("demo".to_owned(), Some(info.model)), ("hub".to_owned(), info.hub)];
        let models = models.into_iter().filter_map(|(source, model)| Some((source, model?)));
        Node {
            name: info.name,
            task: info.task,
            model: ModelNames::BySource(models.collect()),
            inputs: info.inputs.iter().map(input).collect(),
            parameters: info.parameters,
        }
    };
    Graph { name: "graph".into(), nodes: infos.into_iter().map(node).collect() }
}

fn js_source(source: &Source, files: Option<&Files>) -> JsValue {
    let object = js_sys::Object::new();
    match source {
        Source::Demo => {}
        Source::Hub { repo, endpoint } => {
            set(&object, "hub", &repo.into());
            if let Some(endpoint) = endpoint {
                set(&object, "endpoint", &endpoint.into());
            }
        }
        Source::Files { name } => {
            let contents = js_sys::Object::new();
            for (file_name, file) in files.into_iter().flatten() {
                set(&contents, file_name, file);
            }
            set(&object, "files", &contents);
            set(&object, "name", &name.into());
        }
    }
    object.into()
}

fn set(object: &js_sys::Object, key: &str, value: &JsValue) {
    // Only a frozen object or a setter that throws could refuse, and these objects are plain and new.
    let _ = js_sys::Reflect::set(object, &key.into(), value);
}

fn to_js(value: &impl Serialize) -> Result<JsValue, String> {
    let json = serde_json::to_string(value).map_err(|error| error.to_string())?;
    js_sys::JSON::parse(&json).map_err(sentence_of)
}

fn from_js<T: for<'de> Deserialize<'de>>(value: JsValue) -> Result<T, String> {
    let json = js_sys::JSON::stringify(&value).ok().and_then(|json| json.as_string());
    // `undefined` has no text.
    let json = json.unwrap_or_else(|| "null".into());
    serde_json::from_str(&json).map_err(|error| {
        log(&format!("{error}: {json}").into());
        "The engine and the page do not fit together. Reload the page.".into()
    })
}

/// A node's state as it crosses; `None` if it is none.
pub(crate) fn load_state(value: JsValue) -> Option<LoadState> {
    from_js(value).ok()
}

async fn settled(promise: Result<js_sys::Promise, JsValue>) -> Result<JsValue, String> {
    JsFuture::from(promise.map_err(sentence_of)?).await.map_err(sentence_of)
}

async fn awaited<T: for<'de> Deserialize<'de>>(
    promise: Result<js_sys::Promise, JsValue>,
) -> Result<T, String> {
    from_js(settled(promise).await?)
}

fn sentence_of(error: JsValue) -> String {
    let message = js_sys::Reflect::get(&error, &"message".into()).ok().and_then(|value| value.as_string());
    if message.is_none() {
        log(&error);
    }
    format::sentence(&message.unwrap_or_else(|| "the engine failed; the browser's console has more".into()))
}

fn log(value: &JsValue) {
    web_sys::console::error_1(value);
}
