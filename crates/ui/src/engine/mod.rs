//! The engine for JavaScript (`crates/web`), bound at run time, so that the page is drawn before the engine is there.
//!
//! - [`bindings`]: its module as JavaScript has it;
//! - [`crossing`]: values on their way;
//! - [`said`]: what it says of the browser, of models and of what is kept.

mod bindings;
mod crossing;
mod said;

use std::collections::BTreeMap;

use inkling_engine::{
    graph::{
        Answer, Graph,
        spec::{Input, ModelNames, Node, Task},
    },
    protocol::{Parameters, Request, Stamped},
};
use serde::Deserialize;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{AbortSignal, File};

use self::{
    bindings::import_module,
    crossing::{awaited, from_js, log, sentence_of, set, settled, to_js},
};
use crate::{
    browser,
    models::{Dtype, Source},
};

pub(crate) use bindings::{Module, OpenGraph};
pub(crate) use crossing::load_state;
pub(crate) use said::{Capabilities, Description, Estimate, LoadState, Loaded, Stored};

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

    /// What loading from `source` at `dtype` would take; asks the hub for sizes only.
    pub(crate) async fn describe(
        &self,
        source: &Source,
        dtype: Dtype,
        files: Option<&Files>,
    ) -> Result<Description, String> {
        let options = js_sys::Object::new();
        set(&options, "dtype", &dtype.name().into());
        awaited(self.js_describe(&js_source(source, files), &options)).await
    }

    /// Opens a graph; its models load in the background at `dtype`, and each change of a node's state goes to `on_state`.
    ///
    /// # Errors
    /// One sentence for the visitor.
    pub(crate) fn open(
        &self,
        graph_toml: Option<&str>,
        models: &BTreeMap<String, Source>,
        dtype: Dtype,
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
        set(&options, "dtype", &dtype.name().into());
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
        let (models, files) = (BTreeMap::new(), BTreeMap::new());
        let open = self.open(Some(toml), &models, Dtype::default(), &files, &JsValue::UNDEFINED)?;
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
        Source::Files { name, keep } => {
            // Without files it is a model that an earlier visit kept.
            if let Some(files) = files {
                let contents = js_sys::Object::new();
                for (file_name, file) in files {
                    set(&contents, file_name, file);
                }
                set(&object, "files", &contents);
            }
            set(&object, "name", &name.into());
            if let Some(keep) = keep {
                set(&object, "keep", &keep.into());
            }
        }
    }
    object.into()
}
