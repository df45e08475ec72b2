//! Earlier runs: to look at again, and to erase.

use leptos::prelude::*;

use crate::{format, history::Entry, models::Dtype, state::App};

#[component]
pub(crate) fn History(app: App) -> impl IntoView {
    let is_empty = move || app.history.with(Vec::is_empty);
    view! {
        <section class="panel" id="history" aria-labelledby="history-heading">
            <h2 id="history-heading">"History"</h2>
            <p class="hint">{format!("The last {} runs are kept in this browser, and nowhere else.", crate::history::MOST)}</p>
            <Show when=is_empty>
                <p>"No runs yet."</p>
            </Show>
            <ol class="runs" role="list">
                <For each=move || app.history.get() key=|entry| entry.at_ms.to_bits() let(entry)>
                    <Run app entry />
                </For>
            </ol>
            <Show when=move || !is_empty()>
                <button type="button" on:click=move |_| app.forget(None)>"Erase the whole history"</button>
            </Show>
        </section>
    }
}

#[component]
fn Run(app: App, entry: Entry) -> impl IntoView {
    let date = js_sys::Date::new(&entry.at_ms.into());
    let when = String::from(date.to_locale_string("default", &wasm_bindgen::JsValue::UNDEFINED));
    let at_ms = entry.at_ms;
    let texts = format::count(entry.answer.rows.len(), "text", "texts");
    let weights = Dtype::unusual(entry.asked.dtype, " · ");
    let excerpt = entry.excerpt();
    let sentence = entry.answer.sentence.clone();
    let seed = entry.answer.seed;
    let again = entry.asked.clone();
    let shown = StoredValue::new(entry);
    let label = format!("{sentence}, seed {seed}");
    view! {
        <li data-run=at_ms.to_string()>
            <p class="words" dir="auto"><span class="prompt">{sentence}</span>{excerpt}</p>
            <p class="hint">{format!("{when} · seed {seed} · {texts}{weights}")}</p>
            <div class="buttons">
                <button
                    type="button"
                    class="plain"
                    aria-label=format!("Show: {label}")
                    on:click=move |_| shown.with_value(|entry| app.show_again(entry))
                >
                    "Show"
                </button>
                <button
                    type="button"
                    class="plain"
                    aria-label=format!("Run again: {label}")
                    on:click=move |_| app.open_shared(again.clone())
                >
                    "Run again"
                </button>
                <button
                    type="button"
                    class="plain"
                    aria-label=format!("Erase: {label}")
                    on:click=move |_| app.forget(Some(at_ms))
                >
                    "Erase"
                </button>
            </div>
        </li>
    }
}
