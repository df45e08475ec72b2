//! The page's head: its name, where things run, what is stored, and the light.

use leptos::prelude::*;
use wasm_bindgen::JsCast;

use crate::{
    browser, format,
    state::{App, EngineState, Panel, Place},
};

const THEME_KEY: &str = "inkling.theme";

/// Which light the page is read by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Theme {
    System,
    Light,
    Dark,
}

impl Theme {
    fn kept() -> Theme {
        match browser::kept(THEME_KEY).as_deref() {
            Some("light") => Theme::Light,
            Some("dark") => Theme::Dark,
            _ => Theme::System,
        }
    }

    fn next(self) -> Theme {
        match self {
            Theme::System => Theme::Light,
            Theme::Light => Theme::Dark,
            Theme::Dark => Theme::System,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Theme::System => "system",
            Theme::Light => "light",
            Theme::Dark => "dark",
        }
    }

    fn apply(self) {
        let root = browser::document().document_element();
        if let Some(root) = root.and_then(|root| root.dyn_into::<web_sys::HtmlElement>().ok()) {
            let _ = match self {
                Theme::System => root.remove_attribute("data-theme"),
                Theme::Light | Theme::Dark => root.set_attribute("data-theme", self.word()),
            };
        }
        browser::keep(THEME_KEY, (self != Theme::System).then_some(self.word()));
    }
}

#[component]
pub(crate) fn Masthead(app: App) -> impl IntoView {
    let theme = RwSignal::new(Theme::kept());
    Effect::new(move |_| theme.get().apply());
    let storage = move || match app.stored_bytes.get() {
        Some(bytes) => format!("storage {}", format::bytes(bytes as u64)),
        None => "storage".into(),
    };
    let is_open = move || app.panels.with(|panels| panels.contains(&Panel::Storage));
    view! {
        <header class="masthead">
            <h1>"Inkling"</h1>
            <p class="where" data-where>{move || where_it_runs(app)}</p>
            <button
                type="button"
                class="plain"
                aria-expanded=move || is_open().to_string()
                aria-controls="storage"
                on:click=move |_| app.toggle(Panel::Storage)
            >
                {storage}
            </button>
            <button type="button" class="plain" on:click=move |_| theme.update(|theme| *theme = theme.next())>
                {move || format!("theme: {}", theme.get().word())}
            </button>
        </header>
    }
}

fn where_it_runs(app: App) -> String {
    let offline = if app.is_offline.get() { " · offline" } else { "" };
    let place = match (app.place.get(), app.engine.get()) {
        (Place::Server(url), _) if app.is_server_gone.get() => {
            format!("runs on {url}, which does not answer")
        }
        (Place::Server(url), _) => format!("runs on {url}"),
        (Place::Here, EngineState::Loading) => "runs here: the engine is on its way".into(),
        (Place::Here, EngineState::Failed(_)) => "the engine is not here".into(),
        (Place::Here, EngineState::Ready(capabilities)) if !capabilities.simd => "no model runs here".into(),
        (Place::Here, EngineState::Ready(capabilities)) if capabilities.workers => {
            let workers = app.graph.with(|graph| graph.nodes.len());
            format!("runs here: CPU, {}", format::count(workers, "worker", "workers"))
        }
        (Place::Here, EngineState::Ready(_)) => "runs here: CPU, no workers".into(),
    };
    format!("{place}{offline}")
}
