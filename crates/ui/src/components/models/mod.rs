//! Which models run, and where: the demo set, a hub's, the visitor's own files, or a server's.

mod hub;
mod own;
mod server;

use std::collections::BTreeMap;

use leptos::prelude::*;

use self::{hub::Hub, own::Own, server::Server};
use crate::{
    engine::LoadState,
    format,
    models::{self, Source},
    state::{App, Place},
};

#[component]
pub(crate) fn Models(app: App) -> impl IntoView {
    view! {
        <section class="panel" id="models" aria-labelledby="models-heading">
            <h2 id="models-heading">"Models"</h2>
            <InUse app />
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
                    format!("{memory} in memory, loaded in {}", format::duration(loaded.load_ms))
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
