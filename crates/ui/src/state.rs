//! The page's state as signals, and what a visitor can do with it. Everything that is drawn reads from here.

use std::{collections::BTreeMap, sync::Arc};

use inkling_engine::{
    graph::{Answer, Graph, spec::Task},
    protocol::{DEFAULT_SENTENCE, Parameters, Request, Stamped},
};
use leptos::{prelude::*, task::spawn_local};
use wasm_bindgen::{JsValue, closure::Closure};
use web_sys::AbortController;

use crate::{
    browser,
    engine::{self, Capabilities, Files, LoadState, OpenGraph},
    history::{self, Entry},
    link::SharedRun,
    models::{self, Choice, Source},
    run::{Mark, RunState, rank},
    server,
};

/// Seeds that the page draws are below this: short enough to read out.
const SEEDS: f64 = 1e9;
/// Alternatives that each token brings.
const ALTERNATIVES: usize = 5;

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
    /// A link whose models would have to be downloaded first.
    pub(crate) asked: RwSignal<Option<(SharedRun, Choice)>>,
    own_link: RwSignal<Option<SharedRun>>,
    /// Bytes that models take in this browser.
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
    files: BTreeMap<String, Files>,
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
        App {
            sentence: RwSignal::new(DEFAULT_SENTENCE.into()),
            parameters: RwSignal::new(Parameters::default()),
            kept_seed: RwSignal::new(None),
            choice: RwSignal::new(models::demo(&graph)),
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
            own_link: RwSignal::new(None),
            stored_bytes: RwSignal::new(None),
            is_offline: RwSignal::new(!browser::is_online()),
            handles: StoredValue::new_local(Handles::default()),
        }
    }

    /// Fetches the engine and opens the graph, so that models load before anything is asked.
    pub(crate) fn wake(self) {
        spawn_local(async move {
            if let Err(error) = self.open_graph().await {
                self.problem(error);
            }
        });
    }

    /// Shows or hides a panel.
    pub(crate) fn toggle(self, panel: Panel) {
        self.panels.update(|panels| match panels.iter().position(|open| *open == panel) {
            Some(at) => drop(panels.remove(at)),
            None => panels.push(panel),
        });
    }

    /// Runs the sentence in the box.
    pub(crate) fn run_sentence(self) {
        let seed = self.kept_seed.get_untracked();
        self.run_with_seed(seed.unwrap_or_else(draw_seed));
    }

    /// Runs the sentence in the box with this seed.
    pub(crate) fn run_with_seed(self, seed: u64) {
        let sentence = self.sentence.get_untracked();
        if sentence.trim().is_empty() {
            self.problem("Type a sentence first; the writers continue it.");
            browser::focus("sentence");
            return;
        }
        self.shared.set(None);
        browser::drop_fragment();
        self.start(sentence, seed);
    }

    /// Runs the sentence in the box with a seed that was not there before, also where one is kept.
    pub(crate) fn run_new_seed(self) {
        let seed = draw_seed();
        if self.kept_seed.get_untracked().is_some() {
            self.kept_seed.set(Some(seed));
        }
        self.run_with_seed(seed);
    }

    /// Runs on from a text: it becomes the sentence.
    pub(crate) fn continue_from(self, text: String) {
        self.sentence.set(text);
        self.picked.set(None);
        self.run_sentence();
    }

    /// Runs what a link or an earlier run asks for, with its models. A model that is not here yet is not downloaded
    /// before the visitor says so.
    pub(crate) fn open_shared(self, shared: SharedRun) {
        let request = shared.request();
        self.show_request(&request);
        let wanted = self.graph.with_untracked(|graph| {
            let mut choice = models::demo(graph);
            choice.extend(shared.models.clone());
            choice
        });
        let is_here = self.place.get_untracked() == Place::Here;
        if is_here && self.choice.get_untracked() != wanted {
            if let Some((node, Source::Files { name })) =
                wanted.iter().find(|(_, source)| matches!(source, Source::Files { .. }))
            {
                self.problem(format!(
                    "This run used a local model, {name}, as {node}. Choose its files under models, then run."
                ));
                return;
            }
            if models::needs_download(&wanted) {
                self.asked.set(Some((shared, wanted)));
                return;
            }
            self.use_models(wanted, BTreeMap::new());
        }
        self.run_shared(shared);
    }

    /// The visitor agreed to download what a link needs.
    pub(crate) fn accept_asked(self) {
        if let Some((shared, wanted)) = self.asked.get_untracked() {
            self.asked.set(None);
            self.use_models(wanted, BTreeMap::new());
            self.run_shared(shared);
        }
    }

    fn run_shared(self, shared: SharedRun) {
        let request = shared.request();
        self.shared.set(Some(shared));
        self.start(request.sentence, request.parameters.seed.unwrap_or_default());
    }

    /// Remembers the link that the page itself puts into its address, so as not to follow it.
    pub(crate) fn note_own_link(self, shared: SharedRun) {
        self.own_link.set(Some(shared));
    }

    /// Runs what the page's address asks for, unless the page itself put it there.
    pub(crate) fn follow_link(self, shared: SharedRun) {
        if self.own_link.with_untracked(|own| own.as_ref() != Some(&shared)) {
            self.open_shared(shared);
        }
    }

    /// Shows the alternatives of a token. One that the pointer passes does not replace one that was chosen.
    pub(crate) fn pick(self, picked: Picked) {
        self.hold_pick();
        let is_pinned = self.picked.with_untracked(|before| before.is_some_and(|before| before.pinned));
        if picked.pinned || !is_pinned {
            self.picked.set(Some(picked));
        }
    }

    /// The pointer left: alternatives that were not chosen go, after a moment in which it may come back.
    pub(crate) fn unpick_soon(self) {
        let mine = self.handles.try_update_value(|handles| {
            handles.leaving += 1;
            handles.leaving
        });
        browser::after(300, move || {
            let is_mine = self.handles.with_value(|handles| Some(handles.leaving) == mine);
            let is_pinned = self.picked.with_untracked(|picked| picked.is_some_and(|picked| picked.pinned));
            if is_mine && !is_pinned {
                self.picked.set(None);
            }
        });
    }

    /// The pointer came back.
    pub(crate) fn hold_pick(self) {
        self.handles.update_value(|handles| handles.leaving += 1);
    }

    /// Puts a request into the box and the settings.
    pub(crate) fn show_request(self, request: &Request) {
        self.sentence.set(request.sentence.clone());
        self.parameters.set(Parameters { seed: None, alternatives: None, ..request.parameters.clone() });
    }

    /// Stops the run: at once on the page, and as fast as the engine can.
    pub(crate) fn stop(self) {
        if !self.run.with_untracked(RunState::is_open) {
            return;
        }
        self.flush();
        self.run.update(RunState::stop);
        self.say("Stopped. The text so far is kept.");
        if let Some(abort) = self.handles.with_value(|handles| handles.abort.clone()) {
            abort.abort();
        }
    }

    /// Loads a failed node's model again.
    pub(crate) fn retry(self, node: &str) {
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

    /// Uses these models, with these files for the nodes that have local ones.
    pub(crate) fn use_models(self, choice: Choice, files: BTreeMap<String, Files>) {
        self.choice.set(choice);
        self.handles.update_value(|handles| handles.files.extend(files));
        self.place.set(Place::Here);
        self.reopen();
    }

    /// The visitor's own files for each node.
    pub(crate) fn files(self) -> BTreeMap<String, Files> {
        self.handles.with_value(|handles| handles.files.clone())
    }

    /// Takes another graph, with its demo models.
    ///
    /// # Errors
    /// What is wrong with the file, with its line.
    pub(crate) async fn use_graph(self, toml: &str) -> Result<(), String> {
        let graph = engine::module().await?.read_graph(toml).await?;
        self.choice.set(models::demo(&graph));
        self.own_graph.set(Some((toml.to_owned(), graph.clone())));
        self.show_graph(graph);
        self.place.set(Place::Here);
        self.reopen();
        Ok(())
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
    pub(crate) async fn use_server(self, url: String) -> Result<(), String> {
        let graph = server::graph(&url).await?;
        self.close_graph();
        self.place.set(Place::Server(url));
        self.show_graph(graph);
        Ok(())
    }

    /// Forgets one earlier run, or all of them.
    pub(crate) fn forget(self, at_ms: Option<f64>) {
        self.history.update(|entries| {
            entries.retain(|entry| at_ms.is_some_and(|at_ms| entry.at_ms != at_ms));
            history::save(entries.clone());
        });
        self.announcement.set(if at_ms.is_some() { "Run erased." } else { "History erased." }.into());
    }

    /// Shows an earlier run again, as it was.
    pub(crate) fn show_again(self, entry: &Entry) {
        self.abandon();
        self.show_request(&entry.asked.request());
        self.shared.set(None);
        self.run_number.update(|number| *number += 1);
        self.run.set(entry.to_run());
        let seed = entry.answer.seed;
        self.say(format!("An earlier run, seed {seed}. The words' alternatives were not kept."));
    }

    /// Says something good or neutral, on the page and to a screen reader.
    pub(crate) fn say(self, text: impl Into<String>) {
        let text = text.into();
        self.announcement.set(text.clone());
        self.notice.set(Notice { text, is_problem: false });
    }

    /// Says what is wrong, on the page and to a screen reader.
    pub(crate) fn problem(self, text: impl Into<String>) {
        let text = text.into();
        self.announcement.set(text.clone());
        self.notice.set(Notice { text, is_problem: true });
    }

    /// Looks up what models take in this browser.
    pub(crate) fn refresh_storage(self) {
        spawn_local(async move {
            let Ok(module) = engine::module().await else { return };
            if let Ok(stored) = module.stored().await {
                self.stored_bytes.set(Some(stored.iter().map(|model| model.size_bytes).sum()));
            }
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

    fn close_graph(self) {
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
    async fn open_graph(self) -> Result<OpenGraph, String> {
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
            let error = "This browser cannot run the models: it has no WebAssembly SIMD. A newer one can; a server can do it too (see models).";
            self.engine.set(EngineState::Failed(error.into()));
            return Err(error.into());
        }
        if !capabilities.opfs && !capabilities.cache_api {
            self.say("This browser window keeps no models, so they come anew at each visit. All else works.");
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
        let open = module.open(toml.as_deref(), &choice, &self.files(), &on_state)?;
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

    fn start(self, sentence: String, seed: u64) {
        self.abandon();
        let mut parameters = self.parameters.get_untracked();
        parameters.seed = Some(seed);
        parameters.alternatives = Some(ALTERNATIVES);
        let request = Request { sentence, parameters };
        self.run_number.update(|number| *number += 1);
        let mine = self.run_number.get_untracked();
        self.run.set(RunState::begin(self.graph.get_untracked(), request.clone()));
        self.notice.set(Notice::default());
        self.announcement.set("The writers begin.".into());
        let Ok(abort) = AbortController::new() else { return };
        let signal = abort.signal();
        self.handles.update_value(|handles| {
            handles.abort = Some(abort);
            handles.scroll_at_start = Some(browser::scroll());
        });
        spawn_local(async move {
            let is_mine = move || self.run_number.get_untracked() == mine;
            let on_event = move |event: Stamped| {
                if is_mine() {
                    self.take(event);
                }
            };
            let outcome = match self.place.get_untracked() {
                Place::Here => match self.open_graph().await {
                    Ok(_) if signal.aborted() => Ok(None),
                    Ok(open) => open.run(&request, &signal, on_event).await,
                    Err(error) => Err(error),
                },
                Place::Server(url) => server::run(&url, &request, &signal, on_event).await,
            };
            if is_mine() {
                self.flush();
                self.end(outcome);
            }
        });
    }

    /// Takes an event; the page is redrawn once a frame, however many come.
    fn take(self, event: Stamped) {
        let is_due = self.handles.try_update_value(|handles| {
            handles.pending.push(event);
            std::mem::replace(&mut handles.frame_is_due, true)
        });
        if is_due == Some(false) {
            browser::next_frame(move || self.flush());
        }
    }

    fn flush(self) {
        let pending = self.handles.try_update_value(|handles| {
            handles.frame_is_due = false;
            std::mem::take(&mut handles.pending)
        });
        let pending = pending.unwrap_or_default();
        if pending.is_empty() {
            return;
        }
        let mut news = Vec::new();
        let mut first_done = None;
        self.run.update(|run| {
            for event in &pending {
                run.accept(event);
                news.extend(news_of(run, event));
            }
            let is_done = |text: &crate::run::TextState| text.mark() == Mark::Done;
            // More than two change places once they are ranked; then there is no place to go to yet.
            first_done = run.texts.iter().position(is_done).filter(|_| run.texts.len() <= 2);
        });
        self.show_first_done(first_done);
        if !news.is_empty() {
            self.announcement.set(news.join(" "));
        }
    }

    /// On a phone, where cards stack, the first text that is done comes into view, unless the visitor has scrolled.
    fn show_first_done(self, done: Option<usize>) {
        let scroll = browser::scroll();
        let is_due = self.handles.try_update_value(|handles| {
            let begun_at = handles.scroll_at_start?;
            handles.scroll_at_start = done.is_none().then_some(begun_at);
            done.filter(|_| (scroll - begun_at).abs() < 4.0)
        });
        if let Some(index) = is_due.flatten().filter(|_| browser::is_narrow()) {
            browser::show(&format!("card-{index}"));
        }
    }

    fn end(self, outcome: Result<Option<Answer>, String>) {
        self.run.update(|run| match &outcome {
            Ok(answer) => {
                run.end();
                // The host's own: it knows texts of which no event said that they were to come.
                run.answer = answer.clone().unwrap_or_else(|| run.answer.clone());
            }
            Err(_) if run.stopped => run.end(),
            Err(error) => run.break_off(error),
        });
        self.handles.update_value(|handles| handles.abort = None);
        let run = self.run.get_untracked();
        match (&run.error, self.shared.get_untracked().and_then(|shared| shared.compare(&run))) {
            (Some(error), _) => self.problem(error.clone()),
            (None, _) if run.stopped => {}
            (None, Some(comparison)) if comparison.same == comparison.named => {
                self.say(comparison.sentence())
            }
            (None, Some(comparison)) => self.problem(comparison.sentence()),
            (None, None) => self.announce_end(&run),
        }
        if run.texts.iter().any(|text| text.mark() == Mark::Done) {
            let asked = SharedRun::of(&run, &self.named_choice());
            let entry = Entry { at_ms: js_sys::Date::now(), asked, answer: run.answer };
            self.history.update(|entries| {
                entries.insert(0, entry);
                *entries = history::save(std::mem::take(entries));
            });
        }
    }

    /// The models as a link may name them: a server's are its own.
    pub(crate) fn named_choice(self) -> Choice {
        match self.place.get_untracked() {
            Place::Here => self.choice.get_untracked(),
            Place::Server(_) => Choice::new(),
        }
    }

    fn announce_end(self, run: &RunState) {
        let failed = run.texts.iter().filter(|text| text.mark() == Mark::Failed).count();
        let best = rank::ranking(run).first().map(|id| id.node.clone());
        let text = match (failed, best) {
            (0, Some(node)) if run.texts.len() > 1 => format!("All texts are done; {node} is ranked first."),
            (0, _) => "All texts are done.".to_owned(),
            (failed, _) => format!("Done; {} failed.", crate::format::count(failed, "text", "texts")),
        };
        self.announcement.set(text);
    }

    /// Lets go of a run that is still open, without a word.
    fn abandon(self) {
        self.picked.set(None);
        let abort = self.handles.try_update_value(|handles| {
            handles.pending.clear();
            handles.abort.take()
        });
        if let Some(abort) = abort.flatten() {
            abort.abort();
        }
    }
}

/// What a screen reader is told of an event: a text's end with its score, and failures.
fn news_of(run: &RunState, stamped: &Stamped) -> Option<String> {
    use inkling_engine::protocol::{Event, FailureKind};
    match &stamped.event {
        Event::Score { source: Some(source), score, .. } => {
            let number = run.texts.iter().filter(|text| text.id.node == source.node).count();
            let which = if number > 1 { format!(" text {}", source.sequence + 1) } else { String::new() };
            let percent = crate::format::percent(f64::from(score.score));
            Some(format!("{}{which} is done: {} {percent}.", source.node, score.label))
        }
        Event::Done { node, .. } => {
            let is_judged = run.graph.nodes.iter().any(|other| other.task == Task::Classify);
            (!is_judged).then(|| format!("{node} is done."))
        }
        Event::Failed { kind: FailureKind::Stopped, .. } => None,
        Event::Failed { node, error, .. } => Some(format!("{node} failed: {error}.")),
        Event::Started { .. } | Event::Progress { .. } | Event::Token { .. } | Event::Score { .. } => None,
    }
}

fn draw_seed() -> u64 {
    (js_sys::Math::random() * SEEDS) as u64
}

/// Whether a model is one that comes with the page.
pub(crate) fn is_demo(choice: &Choice) -> bool {
    choice.values().all(|source| *source == Source::Demo)
}
