//! The open graph: its models, how far they are, and where it runs.

use std::{collections::BTreeMap, sync::Arc};

use inkling_engine::graph::Graph;
use leptos::{prelude::*, task::spawn_local};
use wasm_bindgen::{JsValue, closure::Closure};
use wasm_bindgen_futures::{JsFuture, future_to_promise};

use super::{App, EngineState, Notice, Place};
use crate::{
    browser,
    engine::{self, Files, LoadState, OpenGraph},
    models::{self, Choice, Dtype, Source},
    run::RunState,
    server,
};

impl App {
    /// Fetches the engine and opens the graph, so that models load before anything is asked; with what the visitor chose
    /// at an earlier visit, unless `is_link`: a link brings its own.
    pub(crate) fn begin(self, is_link: bool) {
        if !is_link {
            let restored = future_to_promise(async move {
                self.restore().await;
                Ok(JsValue::UNDEFINED)
            });
            self.handles.update_value(|handles| handles.restored = Some(restored));
        }
        self.wake();
    }

    fn wake(self) {
        spawn_local(async move {
            self.restored().await;
            if self.place.get_untracked() == Place::Here
                && let Err(error) = self.open_graph().await
                && !self.engine.with_untracked(EngineState::is_limit)
            {
                self.problem(error);
            }
        });
    }

    /// Waits until what an earlier visit chose is in use.
    pub(super) async fn restored(self) {
        if let Some(restored) = self.handles.with_value(|handles| handles.restored.clone()) {
            // It has nothing to say, and cannot fail.
            let _ = JsFuture::from(restored).await;
        }
    }

    /// Loads a failed node's model again.
    pub(crate) fn retry(self, node: &str) {
        if let Place::Server(url) = self.place.get_untracked() {
            spawn_local(async move { self.ask_server(url).await });
            return;
        }
        let open = self.handles.with_value(|handles| handles.open.clone());
        match open {
            Some(open) => open.retry(node),
            None => self.wake(),
        }
    }

    /// Ends a node's download; what came is kept.
    pub(crate) fn stop_loading(self, node: &str) {
        if let Some(open) = self.handles.with_value(|handles| handles.open.clone()) {
            open.stop_loading(node);
        }
    }

    /// Whether models come or will come to this page, unless they stopped or failed.
    pub(crate) fn is_loading(self) -> bool {
        let comes =
            self.engine.with(|engine| !matches!(engine, EngineState::Failed(_)) && !engine.is_limit());
        let is_awaited = |loads: &BTreeMap<String, LoadState>, node: &str| {
            loads.get(node).is_none_or(LoadState::is_on_its_way)
        };
        comes
            && self.place.with(|place| *place == Place::Here)
            && self.graph.with(|graph| {
                self.loads.with(|loads| graph.nodes.iter().any(|node| is_awaited(loads, &node.name)))
            })
    }

    /// Ends every download, as [`App::stop_loading`] ends one.
    pub(super) fn stop_all_loading(self) {
        let loads = self.loads.get_untracked();
        for (node, _) in loads.iter().filter(|(_, load)| load.is_on_its_way()) {
            self.stop_loading(node);
        }
    }

    /// Takes up the loads again that the visitor stopped.
    pub(super) fn go_on_loading(self, open: &OpenGraph) {
        let loads = self.loads.get_untracked();
        for (node, load) in &loads {
            if matches!(load, LoadState::Failed { kind, .. } if kind == "stopped") {
                open.retry(node);
            }
        }
    }

    /// Uses these models at `dtype`, with these files for the local ones, by what these are kept under.
    pub(super) fn use_models(self, choice: Choice, dtype: Dtype, files: BTreeMap<String, Files>) {
        self.choice.set(choice);
        self.dtype.set(dtype);
        self.handles.update_value(|handles| handles.files.extend(files));
        self.place.set(Place::Here);
        self.reopen();
    }

    /// The visitor's own files for each node of a choice, as far as they were given in this visit: among `given`, or
    /// before.
    pub(super) fn files_of(
        self,
        choice: &Choice,
        given: &BTreeMap<String, Files>,
    ) -> BTreeMap<String, Files> {
        self.handles.with_value(|handles| {
            let found = choice.iter().filter_map(|(node, source)| {
                let Source::Files { keep: Some(keep), .. } = source else { return None };
                let files = given.get(keep).or_else(|| handles.files.get(keep))?;
                Some((node.clone(), files.clone()))
            });
            found.collect()
        })
    }

    /// Takes another graph, with its demo models.
    ///
    /// # Errors
    /// What is wrong with the file, with its line.
    pub(super) async fn use_graph(self, toml: &str) -> Result<(), String> {
        let graph = engine::module().await?.read_graph(toml).await?;
        self.choice.set(models::demo(&graph));
        self.own_graph.set(Some((toml.to_owned(), graph.clone())));
        self.show_graph(graph);
        self.place.set(Place::Here);
        self.reopen();
        Ok(())
    }

    /// Takes the two writers and the critic, with the demo models.
    pub(super) fn use_default_graph(self) {
        let graph = Graph::default();
        self.choice.set(models::demo(&graph));
        self.own_graph.set(None);
        self.show_graph(graph);
        self.place.set(Place::Here);
        self.reopen();
    }

    /// Whether the graph is one of the visitor's files.
    pub(crate) fn has_own_graph(self) -> bool {
        self.own_graph.with(Option::is_some)
    }

    /// Runs on this page again.
    pub(crate) fn use_here(self) {
        if self.place.get_untracked() != Place::Here {
            self.place.set(Place::Here);
            let own = self.own_graph.get_untracked();
            self.show_graph(own.map(|(_, graph)| graph).unwrap_or_default());
            self.reopen();
        }
    }

    /// Runs on a server from now on, if there is one at this address.
    ///
    /// # Errors
    /// One sentence for the visitor.
    pub(super) async fn use_server(self, url: String) -> Result<(), String> {
        let server::Offer { graph, models } = server::offer(&url).await?;
        self.close_graph();
        self.place.set(Place::Server(url));
        self.server_models.set(models);
        self.is_server_gone.set(false);
        self.show_graph(graph);
        Ok(())
    }

    /// Looks up what models and the page itself take in this browser.
    pub(crate) fn refresh_storage(self) {
        spawn_local(async move {
            let Ok(module) = engine::module().await else { return };
            let Ok(stored) = module.stored().await else { return };
            let own = browser::own_copy().await.unwrap_or_default();
            let models: f64 = stored.iter().map(|model| model.size_bytes).sum();
            self.stored_bytes.set(Some(models + own.page_bytes + own.demo_bytes));
        });
    }

    fn show_graph(self, graph: Graph) {
        self.abandon();
        let graph = Arc::new(graph);
        self.graph.set(graph.clone());
        self.run_number.update(|number| *number += 1);
        self.run.set(RunState::idle(graph));
        self.notice.set(Notice::default());
    }

    fn reopen(self) {
        self.close_graph();
        let graph = self.graph.get_untracked();
        if self.run.with_untracked(RunState::is_open) {
            self.abandon();
            self.run.set(RunState::idle(graph));
        }
        self.wake();
    }

    pub(super) fn close_graph(self) {
        let open = self.handles.try_update_value(|handles| {
            handles.opened += 1;
            handles.open.take()
        });
        // Out here, because a graph that closes says so at once, and that looks at the handles again.
        if let Some(open) = open.flatten() {
            open.close();
        }
        self.loads.set(BTreeMap::new());
    }

    /// The open graph; opens it where it is not.
    pub(super) async fn open_graph(self) -> Result<OpenGraph, String> {
        let module = match engine::module().await {
            Ok(module) => module,
            Err(error) => {
                self.engine.set(EngineState::Failed(error.clone()));
                return Err(error);
            }
        };
        if let Some(open) = self.handles.with_value(|handles| handles.open.clone()) {
            return Ok(open);
        }
        let capabilities = module.capabilities().await.unwrap_or_default();
        self.engine.set(EngineState::Ready(capabilities.clone()));
        if !capabilities.simd {
            return Err("No model runs in this page, because this browser has no WebAssembly SIMD.".into());
        }
        // While that was awaited, another caller may have opened it.
        if let Some(open) = self.handles.with_value(|handles| handles.open.clone()) {
            return Ok(open);
        }
        let mine = self.handles.with_value(|handles| handles.opened);
        // The browser frees it when the graph that calls it is gone.
        let on_state = Closure::<dyn FnMut(String, JsValue)>::new(move |node: String, state: JsValue| {
            let is_mine = self.handles.with_value(|handles| handles.opened == mine);
            if let Some(state) = engine::load_state(state).filter(|_| is_mine) {
                self.loaded(node, state);
            }
        })
        .into_js_value();
        let choice = self.choice.get_untracked();
        let toml = self.own_graph.with_untracked(|own| own.as_ref().map(|(toml, _)| toml.clone()));
        let files = self.files_of(&choice, &BTreeMap::new());
        let open = module.open(toml.as_deref(), &choice, self.dtype.get_untracked(), &files, &on_state)?;
        self.handles.update_value(|handles| handles.open = Some(open.clone()));
        self.refresh_storage();
        Ok(open)
    }

    fn loaded(self, node: String, state: LoadState) {
        match &state {
            LoadState::Ready(loaded) => {
                if let Some(notice) = &loaded.notice {
                    self.problem(crate::format::sentence(notice));
                }
                self.refresh_storage();
            }
            LoadState::Failed { kind, .. } if kind == "stopped" => {
                self.say(format!("{node} is not loaded further. What came is kept."));
            }
            LoadState::Failed { error, .. } => {
                self.problem(format!("{node}: {}", crate::format::sentence(error)));
            }
            LoadState::Waiting | LoadState::Loading { .. } | LoadState::Closed => {}
        }
        self.loads.update(|loads| drop(loads.insert(node, state)));
    }
}
