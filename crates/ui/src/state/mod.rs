//! The page's state as signals, and what a visitor can do with it. Everything that is drawn reads from here.
//!
//! - [`running`]: a run from the button to its last event;
//! - [`opening`]: the open graph, its models and where it runs;
//! - [`choosing`]: what the visitor chooses, and keeps until the next visit;
//! - [`earlier`]: runs of links and of the history;
//! - [`taking`]: files that the visitor gives;
//! - [`looking`]: the alternatives of a token.

mod choosing;
mod earlier;
mod looking;
mod opening;
mod running;
mod taking;

use std::{collections::BTreeMap, sync::Arc};

use inkling_engine::{
    graph::Graph,
    protocol::{DEFAULT_SENTENCE, Parameters, Request, Stamped},
};
use leptos::{prelude::*, task::spawn_local};
use web_sys::AbortController;

use crate::{
    browser,
    engine::{Capabilities, Files, LoadState, OpenGraph},
    history::{self, Entry},
    kept::Kept,
    link::SharedRun,
    models::{self, Choice, Dtype},
    run::RunState,
    server,
};

pub(crate) use choosing::{Asked, Reason};

/// Where the graph runs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Place {
    /// In this page.
    Here,
    /// On a server, at this address.
    Server(String),
}

/// Whether the engine is there.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum EngineState {
    /// On its way.
    Loading,
    /// There, in a browser that can do this.
    Ready(Capabilities),
    /// Not there, for this reason.
    Failed(String),
}

impl EngineState {
    /// Whether no model can run here, which the page says in another place.
    pub(crate) fn is_limit(&self) -> bool {
        matches!(self, EngineState::Ready(capabilities) if !capabilities.simd)
    }
}

/// A panel that opens in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Panel {
    Settings,
    Models,
    Storage,
    Happened,
    History,
}

/// The one line under the ribbon.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Notice {
    pub(crate) text: String,
    pub(crate) is_problem: bool,
    /// What can be done about it.
    pub(crate) acts: Vec<Act>,
}

/// What can be done about a notice: a button beside it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Act {
    /// Choose the files of a local model.
    ChooseFiles,
    /// Forget models that are gone, and let the demo models do their part.
    StayWithDemo,
    /// Ask the server at this address again.
    AskServer(String),
    /// Run in this page, not on a server.
    RunHere,
    /// Let texts have so many tokens, and run.
    RaiseLength(usize),
}

impl Act {
    /// What the button says.
    pub(crate) fn label(&self) -> String {
        match self {
            Act::ChooseFiles => "Choose the folder".into(),
            Act::StayWithDemo => "Stay with the demo models".into(),
            Act::AskServer(_) => "Ask it again".into(),
            Act::RunHere => "Run in this page".into(),
            Act::RaiseLength(tokens) => format!("Raise the length to {tokens} and run"),
        }
    }
}

/// A token that the visitor looks at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Picked {
    /// Its text, as an index of the run's texts.
    pub(crate) text: usize,
    /// Its index among the text's tokens.
    pub(crate) token: usize,
    /// Where its alternatives are shown: left and top in CSS pixels of the document.
    pub(crate) at: (f64, f64),
    /// Whether they stay when the pointer leaves.
    pub(crate) pinned: bool,
}

/// Everything that the page knows. A handle: copies are the same page.
#[derive(Clone, Copy)]
pub(crate) struct App {
    pub(crate) sentence: RwSignal<String>,
    /// Without seed.
    pub(crate) parameters: RwSignal<Parameters>,
    /// The seed that every run takes; a new one each time where there is none.
    pub(crate) kept_seed: RwSignal<Option<u64>>,
    pub(crate) graph: RwSignal<Arc<Graph>>,
    /// A graph file of the visitor's, and what it says.
    own_graph: RwSignal<Option<(String, Graph)>>,
    /// The models in use.
    pub(crate) choice: RwSignal<Choice>,
    /// How their weights are kept.
    pub(crate) dtype: RwSignal<Dtype>,
    /// How the visitor would have them kept, while it is looked for models that are.
    wanted_dtype: RwSignal<Option<Dtype>>,
    pub(crate) place: RwSignal<Place>,
    pub(crate) engine: RwSignal<EngineState>,
    /// Where each node's model stands; empty while a server has them.
    pub(crate) loads: RwSignal<BTreeMap<String, LoadState>>,
    pub(crate) run: RwSignal<RunState>,
    /// Counts runs: the cards of another run are other cards.
    pub(crate) run_number: RwSignal<u32>,
    /// The link that the page was opened from, until something else is run.
    pub(crate) shared: RwSignal<Option<SharedRun>>,
    /// What happened to it.
    pub(crate) notice: RwSignal<Notice>,
    /// What a screen reader is told; never single tokens.
    pub(crate) announcement: RwSignal<String>,
    pub(crate) history: RwSignal<Vec<Entry>>,
    pub(crate) panels: RwSignal<Vec<Panel>>,
    pub(crate) picked: RwSignal<Option<Picked>>,
    /// Models that would have to be downloaded first.
    pub(crate) asked: RwSignal<Option<Asked>>,
    /// What the visitor chose, which a link or an earlier run leaves as it is.
    own: StoredValue<Kept>,
    /// The models of the server in use, by node.
    pub(crate) server_models: RwSignal<BTreeMap<String, server::Model>>,
    /// Whether the server in use gave no answer when it was last asked.
    pub(crate) is_server_gone: RwSignal<bool>,
    own_link: RwSignal<Option<SharedRun>>,
    /// Bytes that models and the page itself take in this browser.
    pub(crate) stored_bytes: RwSignal<Option<f64>>,
    pub(crate) is_offline: RwSignal<bool>,
    handles: StoredValue<Handles, LocalStorage>,
}

/// What JavaScript lent.
#[derive(Default)]
struct Handles {
    open: Option<OpenGraph>,
    /// Counts graphs: states of one that was closed are not listened to.
    opened: u32,
    abort: Option<AbortController>,
    /// The visitor's own files, by what they are kept under.
    files: BTreeMap<String, Files>,
    /// Settles when what an earlier visit chose is in use.
    restored: Option<js_sys::Promise>,
    /// Events that came since the last frame.
    pending: Vec<Stamped>,
    frame_is_due: bool,
    /// How far the page was scrolled when the run began, until its first text is done.
    scroll_at_start: Option<f64>,
    /// Counts the pointer's ways out of a text and back.
    leaving: u32,
}

impl App {
    /// The page as it is first seen.
    pub(crate) fn new() -> App {
        let graph = Arc::new(Graph::default());
        let kept = Kept::load();
        App {
            sentence: RwSignal::new(DEFAULT_SENTENCE.into()),
            parameters: RwSignal::new(kept.parameters.clone()),
            kept_seed: RwSignal::new(kept.seed),
            choice: RwSignal::new(models::demo(&graph)),
            dtype: RwSignal::new(kept.dtype),
            wanted_dtype: RwSignal::new(None),
            run: RwSignal::new(RunState::idle(graph.clone())),
            graph: RwSignal::new(graph),
            own_graph: RwSignal::new(None),
            place: RwSignal::new(Place::Here),
            engine: RwSignal::new(EngineState::Loading),
            loads: RwSignal::new(BTreeMap::new()),
            run_number: RwSignal::new(0),
            shared: RwSignal::new(None),
            notice: RwSignal::new(Notice::default()),
            announcement: RwSignal::new(String::new()),
            history: RwSignal::new(history::load()),
            panels: RwSignal::new(Vec::new()),
            picked: RwSignal::new(None),
            asked: RwSignal::new(None),
            own: StoredValue::new(kept),
            server_models: RwSignal::new(BTreeMap::new()),
            is_server_gone: RwSignal::new(false),
            own_link: RwSignal::new(None),
            stored_bytes: RwSignal::new(None),
            is_offline: RwSignal::new(!browser::is_online()),
            handles: StoredValue::new_local(Handles::default()),
        }
    }

    /// Shows or hides a panel.
    pub(crate) fn toggle(self, panel: Panel) {
        self.panels.update(|panels| match panels.iter().position(|open| *open == panel) {
            Some(at) => drop(panels.remove(at)),
            None => panels.push(panel),
        });
    }

    /// Shows a panel.
    pub(crate) fn open_panel(self, panel: Panel) {
        if self.panels.with_untracked(|panels| !panels.contains(&panel)) {
            self.toggle(panel);
        }
    }

    /// Puts a request into the box and the settings.
    pub(crate) fn show_request(self, request: &Request) {
        self.sentence.set(request.sentence.clone());
        self.parameters.set(Parameters { seed: None, alternatives: None, ..request.parameters.clone() });
    }

    /// Says something good or neutral, on the page and to a screen reader.
    pub(crate) fn say(self, text: impl Into<String>) {
        let text = text.into();
        self.announcement.set(text.clone());
        self.notice.set(Notice { text, ..Notice::default() });
    }

    /// Says what is wrong, on the page and to a screen reader.
    pub(crate) fn problem(self, text: impl Into<String>) {
        self.problem_with(text, Vec::new());
    }

    /// The same, with what can be done about it.
    pub(crate) fn problem_with(self, text: impl Into<String>, acts: Vec<Act>) {
        let text = text.into();
        self.announcement.set(text.clone());
        self.notice.set(Notice { text, is_problem: true, acts });
    }

    /// Does what a notice offered.
    pub(crate) fn act(self, act: Act) {
        self.notice.set(Notice::default());
        match act {
            Act::ChooseFiles => {
                self.open_panel(Panel::Models);
                // Drawn first; a browser opens its picker as long as the click is fresh.
                browser::next_frame(|| browser::press("own-folder"));
            }
            Act::StayWithDemo => self.keep_models_in_use(),
            Act::AskServer(url) => spawn_local(async move { self.ask_server(url).await }),
            Act::RunHere => self.choose_here(),
            Act::RaiseLength(tokens) => {
                self.set_parameters(|parameters| {
                    (parameters.max_length, parameters.max_new_tokens) = (Some(tokens), None);
                });
                self.run_sentence();
            }
        }
    }
}
