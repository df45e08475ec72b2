//! Where files land that are dropped on the page.

use leptos::{ev, prelude::*, task::spawn_local};
use wasm_bindgen::JsValue;
use web_sys::FileSystemEntry;

use crate::{
    engine::Files,
    files::{files_of, named},
    state::App,
};

/// Takes files that are dropped anywhere on the page.
#[component]
pub(crate) fn DropZone(app: App) -> impl IntoView {
    let is_over = RwSignal::new(false);
    let carries_files = |event: &ev::DragEvent| {
        event.data_transfer().is_some_and(|data| data.types().includes(&JsValue::from_str("Files"), 0))
    };
    let _ = window_event_listener(ev::dragover, move |event| {
        if carries_files(&event) {
            event.prevent_default();
            is_over.set(true);
        }
    });
    let _ = window_event_listener(ev::dragleave, move |event| {
        if event.related_target().is_none() {
            is_over.set(false);
        }
    });
    let _ = window_event_listener(ev::drop, move |event| {
        is_over.set(false);
        let Some(data) = event.data_transfer() else { return };
        if !carries_files(&event) {
            return;
        }
        event.prevent_default();
        // The list of entries is empty once this handler has returned, so they are taken now.
        let items = data.items();
        let entries: Vec<FileSystemEntry> = (0..items.length())
            .filter_map(|index| items.get(index)?.webkit_get_as_entry().ok().flatten())
            .collect();
        let plain = data.files().map(|files| named(&files)).unwrap_or_default();
        spawn_local(async move {
            let mut files = Files::new();
            for entry in entries {
                files.extend(files_of(entry).await);
            }
            app.take_files(if files.is_empty() { plain } else { files }).await;
        });
    });
    view! { <div class="drop" hidden=move || !is_over.get() aria-hidden="true">
        <p>"Drop it here: a model's folder, a GGUF file with its tokenizer.json, or a graph file."</p>
        <p class="hint">"It stays on this machine."</p>
    </div> }
}
