//! A server that runs the graph.

use leptos::{ev, prelude::*, task::spawn_local};

use crate::{
    models,
    state::{App, Place},
};

#[component]
pub(super) fn Server(app: App) -> impl IntoView {
    let typed = RwSignal::new(match app.place.get_untracked() {
        Place::Server(url) => url,
        Place::Here => String::new(),
    });
    let word = RwSignal::new(String::new());
    let is_there = move || matches!(app.place.get(), Place::Server(_));
    let connect = move |event: ev::SubmitEvent| {
        event.prevent_default();
        let url = match models::address(&typed.get_untracked()) {
            Ok(url) => url,
            Err(_) => return word.set("Give an address such as http://127.0.0.1:3000.".into()),
        };
        word.set("Asking the server…".into());
        spawn_local(async move {
            let outcome = app.choose_server(url.clone()).await;
            let text = outcome.map_or_else(|error| error, |()| format!("Runs go to {url} now."));
            app.announcement.set(text.clone());
            word.set(text);
        });
    };
    view! {
        <section class="way" aria-labelledby="way-server">
            <h3 id="way-server">"On a server"</h3>
            <p>"The same graph on a machine that runs inkling serve. Then the sentence goes there, and only there."</p>
            <form on:submit=connect aria-label="Server">
                <label for="server-url">"Server"</label>
                <input
                    id="server-url"
                    inputmode="url"
                    spellcheck="false"
                    placeholder="http://127.0.0.1:3000"
                    prop:value=move || typed.get()
                    on:input:target=move |event| typed.set(event.target().value())
                />
                <button type="submit">"Use this server"</button>
            </form>
            <Show when=is_there>
                <button
                    type="button"
                    on:click=move |_| {
                        app.choose_here();
                        word.set("Runs stay in this page now.".into());
                    }
                >
                    "Run in this page"
                </button>
            </Show>
            <p class="word" data-server-word hidden=move || word.with(String::is_empty)>{move || word.get()}</p>
        </section>
    }
}
