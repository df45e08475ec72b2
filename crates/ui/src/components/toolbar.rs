//! The two rows of buttons: before a run (examples, settings, models) and after it (what happened, history, export,
//! link).

use inkling_engine::graph::Answer;
use leptos::{prelude::*, task::spawn_local};
use serde::Serialize;

use crate::{
    browser,
    link::SharedRun,
    models::Dtype,
    run::RunState,
    state::{App, Panel},
};

/// Sentences to begin with; the last two show that any script goes in.
const EXAMPLES: [&str; 4] = [
    "This movie is",
    "The best thing about rain is",
    "Nobody had told the lighthouse keeper that",
    "The old captain smiled, because",
];

#[component]
pub(crate) fn BeforeRun(app: App) -> impl IntoView {
    let example = move |sentence: &'static str| {
        view! {
            <button type="button" class="example" on:click=move |_| {
                app.sentence.set(sentence.into());
                app.run_sentence();
            }>{sentence} "…"</button>
        }
    };
    view! {
        <div class="toolbar">
            <div class="examples" role="group" aria-label="Examples">
                <span aria-hidden="true">"try"</span>
                {EXAMPLES.map(example)}
            </div>
            <div class="openers">
                <Opener app panel=Panel::Settings controls="settings" label="Settings" />
                <Opener app panel=Panel::Models controls="models" label="Models" />
            </div>
        </div>
    }
}

#[component]
pub(crate) fn AfterRun(app: App) -> impl IntoView {
    let has_answer = Memo::new(move |_| app.run.with(|run| !run.is_open() && !run.texts.is_empty()));
    let export = move |_| {
        let (name, json) = app.run.with_untracked(|RunState { answer, dtype, .. }| {
            let json = serde_json::to_string_pretty(&Exported { answer, dtype: *dtype });
            (format!("inkling-{}.json", answer.seed), json.unwrap_or_default())
        });
        match browser::download(&name, "application/json", &json) {
            Ok(()) => app.say(format!("The answer is in {name}.")),
            Err(_) => app.problem("The browser did not take the file."),
        }
    };
    let share = move |_| {
        let shared = app.run.with_untracked(|run| SharedRun::of(run, &app.named_choice()));
        let fragment = shared.to_fragment();
        let location = browser::window().location();
        let address = location.href().unwrap_or_default();
        let address = format!("{}#{fragment}", address.split('#').next().unwrap_or_default());
        app.note_own_link(shared.clone());
        let _ = location.set_hash(&fragment);
        let local =
            shared.models.values().any(|source| matches!(source, crate::models::Source::Files { .. }));
        spawn_local(async move {
            let copied = browser::copy(&address).await;
            let told =
                if copied { "The link is on your clipboard" } else { "The link is in the address bar" };
            let warning = if local { ". It names your local model, but cannot carry it" } else { "" };
            app.say(format!("{told}{warning}."));
        });
    };
    view! {
        <div class="toolbar after">
            <Opener app panel=Panel::Happened controls="happened" label="What happened" />
            <Opener app panel=Panel::History controls="history" label="History" />
            <button type="button" class="plain" disabled=move || !has_answer.get() on:click=export>
                "Export JSON"
            </button>
            <button type="button" class="plain" disabled=move || !has_answer.get() on:click=share>
                "Share this exact run"
            </button>
        </div>
    }
}

/// A run's answer with what it does not say itself.
#[derive(Serialize)]
struct Exported<'a> {
    #[serde(flatten)]
    answer: &'a Answer,
    /// How weights were kept; a server does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    dtype: Option<Dtype>,
}

/// A button that opens a panel in place.
#[component]
fn Opener(app: App, panel: Panel, controls: &'static str, label: &'static str) -> impl IntoView {
    let is_open = move || app.panels.with(|panels| panels.contains(&panel));
    view! {
        <button
            type="button"
            class="plain opener"
            aria-expanded=move || is_open().to_string()
            aria-controls=controls
            on:click=move |_| app.toggle(panel)
        >
            {label}
        </button>
    }
}
