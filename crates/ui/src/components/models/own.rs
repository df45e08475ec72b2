//! Models and graphs of the visitor's own.

use leptos::{prelude::*, task::spawn_local};
use web_sys::HtmlInputElement;

use crate::{browser, files::named, state::App};

#[component]
pub(super) fn Own(app: App) -> impl IntoView {
    let graph_word = RwSignal::new(String::new());
    let take = move |input: HtmlInputElement| {
        let files = input.files().map(|files| named(&files)).unwrap_or_default();
        spawn_local(async move { app.take_files(files).await });
    };
    let take_graph = move |input: HtmlInputElement| {
        let Some(file) = input.files().and_then(|files| files.get(0)) else { return };
        spawn_local(async move {
            let toml = browser::text_of(&file).await.unwrap_or_default();
            graph_word.set(match app.choose_graph(&toml).await {
                Ok(()) => format!("{} runs now.", file.name()),
                Err(error) => error,
            });
        });
    };
    view! {
        <section class="way" aria-labelledby="way-own">
            <h3 id="way-own">"Your own files"</h3>
            <p>
                "A folder with config.json, tokenizer.json and safetensors, or a GGUF file with tokenizer.json beside it. Drop them anywhere on the page, too. They stay on this machine; the page keeps a copy at "
                {move || app.dtype.get().bits()} " for your next visit, until you delete it under storage."
            </p>
            <label for="own-folder">"Folder"</label>
            <input
                id="own-folder"
                type="file"
                prop:webkitdirectory=true
                on:change:target=move |event| take(event.target())
            />
            <label for="own-files">"Files"</label>
            <input id="own-files" type="file" multiple on:change:target=move |event| take(event.target()) />
            <label for="own-graph">"Another graph (TOML)"</label>
            <input id="own-graph" type="file" accept=".toml" on:change:target=move |event| take_graph(event.target()) />
            <Show when=move || app.has_own_graph()>
                <button
                    type="button"
                    on:click=move |_| {
                        graph_word.set(String::new());
                        app.choose_default_graph();
                        app.say("The two writers and the critic run now.");
                    }
                >
                    "Back to two writers and a critic"
                </button>
            </Show>
            <p class="word" hidden=move || graph_word.with(String::is_empty)>{move || graph_word.get()}</p>
        </section>
    }
}
