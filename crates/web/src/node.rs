//! One model in its thread: it loads, does jobs one after the other, and says what happens.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use inkling_engine::{
    graph::{NodeModel, node::LoadedTask},
    kernels::SingleThread,
    protocol::{Event, FailureKind, Job},
};
use js_sys::Function;
use serde::Serialize;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::spawn_local;
use web_sys::AbortController;

use crate::{
    course::failure_kind,
    error::Failure,
    host,
    load::{self, Options, Progress},
};

/// How long a job computes before the event loop gets a turn, in milliseconds: a frame. Stop arrives in the turn;
/// a turn a token would cost a tiny model a tenth of its speed.
const LONGEST_SPELL: f64 = 16.0;

thread_local! {
    /// The nodes of this thread, to be told of a panic.
    static POSTS: RefCell<Vec<Function>> = const { RefCell::new(Vec::new()) };
}

/// Tells every node's owner that this thread's module is at its end.
pub(crate) fn announce_death(reason: &str) {
    let posts = POSTS.with(|posts| posts.try_borrow().map(|posts| posts.clone()).unwrap_or_default());
    for post in posts {
        send(&post, [("type", "died".into()), ("error", reason.into())]);
    }
}

/// A node: one model, and the jobs that it does.
#[wasm_bindgen]
pub struct Node {
    inner: Rc<Inner>,
}

struct Inner {
    post: Function,
    model: RefCell<Option<Rc<NodeModel>>>,
    loading: RefCell<Option<AbortController>>,
    /// The job that is running, and whether it was asked to stop.
    running: Cell<Option<(u32, Option<FailureKind>)>>,
}

/// How a node is.
#[derive(Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum State<'a> {
    Loading(&'a Progress),
    Ready {
        load_ms: f64,
        memory_bytes: f64,
        model: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        model_sha256: Option<&'a str>,
        task: &'static str,
        isa: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        notice: Option<String>,
    },
    Failed(&'a Failure),
}

#[wasm_bindgen]
impl Node {
    /// A node without a model. `post` takes its messages: `{type: "state", state}`, `{type: "events", job, events}`,
    /// `{type: "ended", job}` and, if a panic ends the thread, `{type: "died", error}`.
    #[wasm_bindgen(constructor)]
    #[must_use]
    pub fn new(post: Function) -> Node {
        POSTS.with_borrow_mut(|posts| posts.push(post.clone()));
        let (model, loading) = (RefCell::new(None), RefCell::new(None));
        Node { inner: Rc::new(Inner { post, model, loading, running: Cell::new(None) }) }
    }

    /// Begins to load a model. States follow: `loading` several times a second, then `ready` or `failed`.
    pub fn load(&self, source: JsValue, options: JsValue) {
        let inner = Rc::clone(&self.inner);
        spawn_local(async move { inner.load(source, &options).await });
    }

    /// Ends the load that is on its way. What came is kept.
    pub fn stop_loading(&self) {
        if let Some(controller) = &*self.inner.loading.borrow() {
            controller.abort();
        }
    }

    /// Begins a job, given as JSON. Jobs come one at a time.
    pub fn job(&self, id: u32, job: String) {
        let inner = Rc::clone(&self.inner);
        inner.running.set(Some((id, None)));
        spawn_local(async move {
            inner.run(id, &job).await;
            inner.running.set(None);
            send(&inner.post, [("type", "ended".into()), ("job", id.into())]);
        });
    }

    /// Ends a job before its next token.
    ///
    /// # Errors
    /// If `kind` is no kind of failure.
    pub fn stop(&self, id: u32, kind: &str) -> Result<(), Failure> {
        let kind = failure_kind(kind)?;
        if let Some((running, _)) = self.inner.running.get()
            && running == id
        {
            self.inner.running.set(Some((id, Some(kind))));
        }
        Ok(())
    }

    /// Gives the model up.
    pub fn close(&self) {
        self.stop_loading();
        if let Some((id, None)) = self.inner.running.get() {
            self.inner.running.set(Some((id, Some(FailureKind::Stopped))));
        }
        self.inner.model.borrow_mut().take();
        POSTS.with_borrow_mut(|posts| posts.retain(|post| *post != self.inner.post));
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("model", &self.inner.model).finish_non_exhaustive()
    }
}

impl Inner {
    fn state(&self, state: &State<'_>) {
        send(&self.post, [("type", "state".into()), ("state", host::to_js(state))]);
    }

    async fn load(&self, source: JsValue, options: &JsValue) {
        let began = host::now();
        let before = host::memory_bytes();
        let controller = AbortController::new().expect("every host has AbortController");
        let signal = controller.signal();
        self.model.borrow_mut().take();
        *self.loading.borrow_mut() = Some(controller);
        let report = |progress: &Progress| self.state(&State::Loading(progress));
        let loaded = match Options::read(options) {
            Ok(options) => load::load(source, &options, &signal, &report).await,
            Err(failure) => Err(failure),
        };
        self.loading.borrow_mut().take();
        match loaded {
            Ok(loaded) => {
                let model = Rc::new(loaded.model);
                *self.model.borrow_mut() = Some(Rc::clone(&model));
                let memory = host::memory_bytes();
                self.state(&State::Ready {
                    load_ms: host::now() - began,
                    // In a worker of its own all memory is the model's; elsewhere what came is.
                    memory_bytes: if POSTS.with_borrow(Vec::len) > 1 { memory - before } else { memory },
                    model: &model.name,
                    model_sha256: model.sha256.as_deref(),
                    task: task(&model.task),
                    isa: crate::isa(),
                    notice: loaded.notice,
                });
            }
            Err(failure) => self.state(&State::Failed(&failure)),
        }
    }

    async fn run(&self, id: u32, job: &str) {
        let job: Job = serde_json::from_str(job).expect("the runner wrote it");
        let model = self.model.borrow().clone();
        let mut batch = Vec::new();
        let Some(model) = model else {
            let error = "the node's model is not loaded".to_string();
            let failed = |text| Event::Failed {
                node: job.node.clone(),
                text,
                kind: FailureKind::Unavailable,
                error: error.clone(),
            };
            batch.extend(job.texts().into_iter().map(failed));
            return self.emit(id, &mut batch);
        };
        let mut running = model.start(job);
        let mut spell_began = host::now();
        loop {
            if let Some((_, Some(kind))) = self.running.get() {
                running.stop(kind, &mut |event| batch.push(event));
                break;
            }
            let more = running.step(&SingleThread, &mut |event| batch.push(event));
            if !more {
                break;
            }
            if host::now() - spell_began >= LONGEST_SPELL {
                self.emit(id, &mut batch);
                host::turn().await;
                spell_began = host::now();
            }
        }
        self.emit(id, &mut batch);
    }

    /// Posts the events of a spell in one message.
    fn emit(&self, id: u32, batch: &mut Vec<Event>) {
        if batch.is_empty() {
            return;
        }
        let events = host::to_js(batch);
        batch.clear();
        send(&self.post, [("type", "events".into()), ("job", id.into()), ("events", events)]);
    }
}

fn task(task: &LoadedTask) -> &'static str {
    match task {
        LoadedTask::Generate(_) => "generate",
        LoadedTask::Classify(_) => "classify",
    }
}

fn send<const N: usize>(post: &Function, message: [(&str, JsValue); N]) {
    // Whoever listened may be gone; then nobody is left to tell.
    let _ = post.call1(&JsValue::UNDEFINED, &host::object(message));
}
