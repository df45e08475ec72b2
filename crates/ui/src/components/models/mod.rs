//! Which models run, how their weights are kept, and where: the demo set, a hub's, the visitor's own files, or a server's.

mod hub;
mod own;
mod server;

use std::collections::BTreeMap;

use leptos::{prelude::*, task::spawn_local};

use self::{hub::Hub, own::Own, server::Server};
use crate::{
    engine::LoadState,
    format,
    models::{self, Dtype, Source},
    state::{App, Place},
};

#[component]
pub(crate) fn Models(app: App) -> impl IntoView {
    view! {
        <section class="panel" id="models" aria-labelledby="models-heading">
            <h2 id="models-heading">"Models"</h2>
            <InUse app />
            <Weights app />
            <div class="ways">
                <Demo app />
                <Hub app />
                <Own app />
                <Server app />
            </div>
        </section>
    }
}

/// What runs now, node by node.
#[component]
fn InUse(app: App) -> impl IntoView {
    let rows = move || {
        let (choice, loads, place) = (app.choice.get(), app.loads.get(), app.place.get());
        let row = |node: &inkling_engine::graph::spec::Node| {
            let source = match &place {
                Place::Here => choice.get(&node.name).map(Source::describe).unwrap_or_default(),
                Place::Server(url) => {
                    match app.server_models.with(|models| models.get(&node.name).cloned()) {
                        Some(model) => format!("{} at {url}", model.name),
                        None => url.clone(),
                    }
                }
            };
            let state = match loads.get(&node.name) {
                Some(LoadState::Ready(loaded)) => {
                    let memory = format::bytes(loaded.memory_bytes as u64);
                    let bits = app.dtype.get().bits();
                    format!("{memory} in memory at {bits}, loaded in {}", format::duration(loaded.load_ms))
                }
                Some(LoadState::Failed { error, .. }) => format::sentence(error),
                Some(LoadState::Loading { .. }) => "on its way".into(),
                None if matches!(place, Place::Server(_)) => {
                    let size = app.server_models.with(|models| models.get(&node.name)?.size_bytes);
                    size.map(|bytes| format!("{} in files there", format::bytes(bytes))).unwrap_or_default()
                }
                _ => String::new(),
            };
            view! {
                <tr>
                    <th scope="row">{node.name.clone()}</th>
                    <td>{source}</td>
                    <td>{state}</td>
                </tr>
            }
        };
        app.graph.with(|graph| graph.nodes.iter().map(row).collect::<Vec<_>>())
    };
    view! {
        <table>
            <caption class="unseen">"The models in use"</caption>
            <thead>
                <tr><th scope="col">"Node"</th><th scope="col">"Model"</th><th scope="col">"State"</th></tr>
            </thead>
            <tbody>{rows}</tbody>
        </table>
    }
}

/// How the weights of all models are kept. The numbers are those of `inkling bench --loss` in the README.
#[component]
fn Weights(app: App) -> impl IntoView {
    let is_of_server = move || matches!(app.place.get(), Place::Server(_));
    let option = move |dtype: Dtype, loss: &'static str| {
        view! {
            <label>
                <input
                    type="radio"
                    name="dtype"
                    prop:checked=move || app.wished_dtype() == dtype
                    on:change=move |_| spawn_local(async move { app.choose_dtype(dtype).await })
                />
                {dtype.bits()} {loss}
            </label>
        }
    };
    let hint = move || {
        if is_of_server() {
            "The server decides how it keeps them."
        } else {
            "At 8 bits the demo writers' likeliest next token is that of the exact weights 99 times in 100, at 4 bits 94 times. The same seed gives another text."
        }
    };
    view! {
        <fieldset class="weights" disabled=is_of_server aria-describedby="weights-hint">
            <legend>"Weights"</legend>
            {option(Dtype::Q8, "")}
            {option(Dtype::Q4, ": smaller and faster, less exact")}
            <p class="hint" id="weights-hint">{hint}</p>
        </fieldset>
    }
}

#[component]
fn Demo(app: App) -> impl IntoView {
    let in_use = move || app.place.get() == Place::Here && app.choice.with(models::is_demo);
    view! {
        <section class="way" aria-labelledby="way-demo">
            <h3 id="way-demo">"Demo models"</h3>
            <p>"Two tiny writers and a tiny critic, trained for this page. They come with it and start at once."</p>
            <button
                type="button"
                disabled=in_use
                on:click=move |_| {
                    app.use_here();
                    app.choose_models(app.graph.with_untracked(|graph| models::demo(graph)), BTreeMap::new());
                    app.say("The demo models run now.");
                }
            >
                {move || if in_use() { "In use" } else { "Use the demo models" }}
            </button>
        </section>
    }
}
