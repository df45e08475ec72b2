//! Which models run, and where: the demo set, a hub's, the visitor's own files, or a server's.

use std::collections::BTreeMap;

use leptos::{ev, prelude::*, task::spawn_local};
use wasm_bindgen::{JsCast, JsValue, closure::Closure};
use wasm_bindgen_futures::JsFuture;
use web_sys::{
    File, FileList, FileSystemDirectoryEntry, FileSystemEntry, FileSystemFileEntry, HtmlInputElement,
};

use crate::{
    browser,
    engine::{self, Description, Estimate, Files, LoadState},
    format,
    models::{self, Choice, DEFAULT_ENDPOINT, Source},
    state::{App, EngineState, Panel, Place, is_demo},
};

/// A worker's memory ends at 4 GB, and a model needs some room beside its weights.
const MOST_PER_MODEL: f64 = 3.5e9;
/// The share of a device's memory that a page may hope for.
const SHARE_OF_MEMORY: f64 = 0.6;

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
                Place::Server(url) => url.clone(),
            };
            let state = match loads.get(&node.name) {
                Some(LoadState::Ready(loaded)) => {
                    let memory = format::bytes(loaded.memory_bytes as u64);
                    format!("{memory} in memory, loaded in {}", format::duration(loaded.load_ms))
                }
                Some(LoadState::Failed { error, .. }) => format::sentence(error),
                Some(LoadState::Loading { .. }) => "on its way".into(),
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
    let in_use = move || app.place.get() == Place::Here && app.choice.with(is_demo);
    view! {
        <section class="way" aria-labelledby="way-demo">
            <h3 id="way-demo">"Demo models"</h3>
            <p>"Two tiny writers and a tiny critic, trained for this page. They come with it and start at once."</p>
            <button
                type="button"
                disabled=in_use
                on:click=move |_| {
                    app.use_here();
                    app.use_models(app.graph.with_untracked(|graph| models::demo(graph)), BTreeMap::new());
                    app.say("The demo models run now.");
                }
            >
                {move || if in_use() { "In use" } else { "Use the demo models" }}
            </button>
        </section>
    }
}

/// What a look at the hub found.
#[derive(Clone, Debug, PartialEq)]
struct Found {
    choice: Choice,
    descriptions: Vec<(String, Description)>,
    verdict: Verdict,
}

/// Whether this device can hold the models.
#[derive(Clone, Debug, PartialEq)]
struct Verdict {
    /// For the visitor.
    text: String,
    /// Whether to try is without hope.
    is_hopeless: bool,
}

/// Judges models against the device. `memory_gib`: what the browser says, at most 8 in some.
fn judge(descriptions: &[(String, Description)], memory_gib: Option<f64>, estimate: Estimate) -> Verdict {
    let memory: f64 = descriptions.iter().map(|(_, model)| model.memory_bytes).sum();
    let download: f64 = descriptions.iter().map(|(_, model)| model.download_bytes).sum();
    let size = |bytes: f64| format::bytes(bytes as u64);
    if let Some((node, model)) = descriptions.iter().find(|(_, model)| model.memory_bytes > MOST_PER_MODEL) {
        let text = format!(
            "{node} would need {} of memory; a page can give a model {} at most. Run it on a server.",
            size(model.memory_bytes),
            size(MOST_PER_MODEL)
        );
        return Verdict { text, is_hopeless: true };
    }
    // Browsers round the memory down to a power of two and say 8 for anything above it.
    let room = memory_gib.filter(|gib| *gib < 8.0).map(|gib| gib * 1_073_741_824.0 * SHARE_OF_MEMORY);
    if let Some(room) = room.filter(|room| memory > *room) {
        let text = format!(
            "Together they need {} of memory, and this device has about {} to give: it will probably not hold them.",
            size(memory),
            size(room)
        );
        return Verdict { text, is_hopeless: false };
    }
    let left = estimate.quota_bytes.zip(estimate.usage_bytes).map(|(quota, usage)| quota - usage);
    if let Some(left) = left.filter(|left| download > 0.0 && memory > *left) {
        let text = format!(
            "They need {} of memory, which this device has. Storage has {} left, so they would be downloaded again next time.",
            size(memory),
            size(left.max(0.0))
        );
        return Verdict { text, is_hopeless: false };
    }
    Verdict {
        text: format!("They need {} of memory; this device can hold them.", size(memory)),
        is_hopeless: false,
    }
}

#[component]
fn Hub(app: App) -> impl IntoView {
    let endpoint = RwSignal::new(DEFAULT_ENDPOINT.to_owned());
    let repos = RwSignal::new(app.graph.with_untracked(|graph| {
        let repo = |node: &inkling_engine::graph::spec::Node| {
            (node.name.clone(), node.model.at("hub").unwrap_or_default().to_owned())
        };
        graph.nodes.iter().map(repo).collect::<Vec<_>>()
    }));
    let found = RwSignal::new(None::<Found>);
    let word = RwSignal::new(String::new());
    let is_asking = RwSignal::new(false);
    let look = move |_| {
        found.set(None);
        let address = match models::address(&endpoint.get_untracked()) {
            Ok(address) => address,
            Err(error) => return word.set(error),
        };
        let mut choice = app.graph.with_untracked(|graph| models::demo(graph));
        for (node, repo) in repos.get_untracked() {
            if repo.trim().is_empty() {
                continue;
            }
            if !models::is_repo(repo.trim()) {
                return word.set(format!("{node}: a repository is named owner/name, got {repo}."));
            }
            let endpoint = (address != DEFAULT_ENDPOINT).then(|| address.clone());
            choice.insert(node, Source::Hub { repo: repo.trim().to_owned(), endpoint });
        }
        word.set("Asking the hub…".into());
        is_asking.set(true);
        spawn_local(async move {
            match ask(app, choice).await {
                Ok(answer) => {
                    word.set(String::new());
                    app.announcement.set(format!("{} {}", total_of(&answer), answer.verdict.text));
                    found.set(Some(answer));
                }
                Err(error) => {
                    app.announcement.set(error.clone());
                    word.set(error);
                }
            }
            is_asking.set(false);
        });
    };
    let use_found = move |_| {
        if let Some(found) = found.get_untracked() {
            app.use_here();
            app.use_models(found.choice, BTreeMap::new());
            app.say(
                "The models are loading. The graph shows how far they are; a run may be started already.",
            );
        }
    };
    let fields = move || {
        repos
            .get_untracked()
            .into_iter()
            .enumerate()
            .map(|(index, (node, repo))| {
                let id = format!("repo-{node}");
                view! {
                    <label for=id.clone()>{node}</label>
                    <input
                        id=id
                        spellcheck="false"
                        autocapitalize="off"
                        placeholder="demo model"
                        prop:value=repo
                        on:input:target=move |event| {
                            repos.update_untracked(|repos| repos[index].1 = event.target().value());
                            found.set(None);
                        }
                    />
                }
            })
            .collect::<Vec<_>>()
    };
    view! {
        <section class="way" aria-labelledby="way-hub">
            <h3 id="way-hub">"From a hub"</h3>
            <p>"GPT-2, DistilGPT-2 and BERT in full size, or other models of these kinds. Downloaded once, then kept in this browser."</p>
            <div class="fields">
                <label for="hub-endpoint">"Hub"</label>
                <input
                    id="hub-endpoint"
                    type="url"
                    spellcheck="false"
                    prop:value=move || endpoint.get()
                    on:input:target=move |event| {
                        endpoint.set(event.target().value());
                        found.set(None);
                    }
                />
                {fields}
            </div>
            <button type="button" disabled=move || is_asking.get() on:click=look>"Look up sizes"</button>
            <p class="word" data-hub-word hidden=move || word.with(String::is_empty)>{move || word.get()}</p>
            {move || found.get().map(|found| {
                let total = total_of(&found);
                let hopeless = found.verdict.is_hopeless;
                let is_kept = found.descriptions.iter().all(|(_, model)| model.cached);
                let label = if is_kept { "Use them".to_owned() } else { "Download and use".to_owned() };
                view! {
                    <ul class="sizes">
                        {found.descriptions.iter().map(|(node, model)| view! {
                            <li data-size-of=node.clone()>{format!("{node}: {}", size_of(model))}</li>
                        }).collect::<Vec<_>>()}
                    </ul>
                    <p class="word" data-verdict>{total} " " {found.verdict.text}</p>
                    <button type="button" class="primary" disabled=hopeless on:click=use_found>{label}</button>
                }
            })}
        </section>
    }
}

fn size_of(model: &Description) -> String {
    let memory = format::bytes(model.memory_bytes as u64);
    if model.cached || model.download_bytes == 0.0 {
        return format!("already here, {memory} in memory");
    }
    format!("{} to download, {memory} in memory", format::bytes(model.download_bytes as u64))
}

fn total_of(found: &Found) -> String {
    let download: f64 = found.descriptions.iter().map(|(_, model)| model.download_bytes).sum();
    if download == 0.0 {
        return "Nothing is left to download.".into();
    }
    format!("{} to download in all.", format::bytes(download as u64))
}

async fn ask(app: App, choice: Choice) -> Result<Found, String> {
    let module = engine::module().await?;
    let mut descriptions = Vec::new();
    for (node, source) in &choice {
        if *source != Source::Demo {
            let description =
                module.describe(source, None).await.map_err(|error| format!("{node}: {error}"))?;
            descriptions.push((node.clone(), description));
        }
    }
    let estimate = module.estimate().await.unwrap_or_default();
    let memory = match app.engine.get_untracked() {
        EngineState::Ready(capabilities) => capabilities.memory_gib,
        EngineState::Loading | EngineState::Failed(_) => None,
    };
    let verdict = judge(&descriptions, memory, estimate);
    Ok(Found { choice, descriptions, verdict })
}

#[component]
fn Own(app: App) -> impl IntoView {
    let graph_word = RwSignal::new(String::new());
    let take = move |input: HtmlInputElement| {
        let files = input.files().map(|files| named(&files)).unwrap_or_default();
        spawn_local(async move { take_files(app, files).await });
    };
    let take_graph = move |input: HtmlInputElement| {
        let Some(file) = input.files().and_then(|files| files.get(0)) else { return };
        spawn_local(async move {
            let toml = browser::text_of(&file).await.unwrap_or_default();
            graph_word.set(match app.use_graph(&toml).await {
                Ok(()) => format!("{} runs now.", file.name()),
                Err(error) => error,
            });
        });
    };
    view! {
        <section class="way" aria-labelledby="way-own">
            <h3 id="way-own">"Your own files"</h3>
            <p>
                "A folder with config.json, tokenizer.json and safetensors, or a GGUF file with tokenizer.json beside it. Drop them anywhere on the page, too. They stay on this machine."
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
            <p class="word" hidden=move || graph_word.with(String::is_empty)>{move || graph_word.get()}</p>
        </section>
    }
}

#[component]
fn Server(app: App) -> impl IntoView {
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
            let outcome = app.use_server(url.clone()).await;
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
                        app.use_here();
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
            take_files(app, if files.is_empty() { plain } else { files }).await;
        });
    });
    view! { <div class="drop" hidden=move || !is_over.get() aria-hidden="true">"Drop a model here"</div> }
}

/// The files below an entry: itself, or what the folder holds.
async fn files_of(entry: FileSystemEntry) -> Files {
    let mut files = Files::new();
    let mut open = vec![entry];
    while let Some(entry) = open.pop() {
        if entry.is_file() {
            let entry: FileSystemFileEntry = entry.unchecked_into();
            let promise = js_sys::Promise::new(&mut |resolve, reject| {
                entry.file_with_callback_and_callback(&resolve, &reject);
            });
            if let Ok(file) = JsFuture::from(promise).await {
                let file: File = file.unchecked_into();
                files.push((entry.full_path().trim_start_matches('/').to_owned(), file));
            }
        } else if entry.is_directory() {
            let entry: FileSystemDirectoryEntry = entry.unchecked_into();
            let reader = entry.create_reader();
            // A reader gives at most 100 entries a call, and none at the end.
            loop {
                let promise = js_sys::Promise::new(&mut |resolve, reject| {
                    let rejected =
                        Closure::once_into_js(move |error: JsValue| reject.call1(&JsValue::NULL, &error));
                    let _ =
                        reader.read_entries_with_callback_and_callback(&resolve, rejected.unchecked_ref());
                });
                let Ok(entries) = JsFuture::from(promise).await else { break };
                let entries: js_sys::Array = entries.unchecked_into();
                if entries.length() == 0 {
                    break;
                }
                open.extend(entries.iter().map(JsCast::unchecked_into::<FileSystemEntry>));
            }
        }
    }
    files
}

/// Files with their paths, where the picker gave a folder.
fn named(list: &FileList) -> Files {
    let name = |file: &File| {
        let path =
            js_sys::Reflect::get(file, &"webkitRelativePath".into()).ok().and_then(|path| path.as_string());
        path.filter(|path| !path.is_empty()).unwrap_or_else(|| file.name())
    };
    (0..list.length()).filter_map(|index| list.get(index)).map(|file| (name(&file), file)).collect()
}

/// Gives each folder among the files to the node that its config fits.
async fn take_files(app: App, files: Files) {
    if files.is_empty() {
        return;
    }
    if let [(name, file)] = files.as_slice()
        && name.ends_with(".toml")
    {
        let toml = browser::text_of(file).await.unwrap_or_default();
        match app.use_graph(&toml).await {
            Ok(()) => app.say(format!("The graph of {name} runs now.")),
            Err(error) => app.problem(error),
        }
        return;
    }
    app.use_here();
    let graph = app.graph.get_untracked();
    let mut choice = app.choice.get_untracked();
    let mut own = BTreeMap::new();
    let mut said = Vec::new();
    for (folder, files) in models::by_folder(files) {
        let task = match task_of(&files).await {
            Ok(Some(task)) => task,
            // A folder without a model among folders that have one, such as `.git`.
            Ok(None) => continue,
            Err(error) => return app.problem(error),
        };
        let Some(node) = models::node_for(&graph, &choice, task) else {
            app.problem(format!("The graph has no node that takes {folder}."));
            return;
        };
        said.push(format!("{folder} is {node} now."));
        choice.insert(node.clone(), Source::Files { name: folder });
        own.insert(node, files);
    }
    if own.is_empty() {
        app.problem(
            "No model is among these files: a config.json beside its weights, or a .gguf file, is expected.",
        );
        return;
    }
    app.use_models(choice, own);
    if !app.panels.with_untracked(|panels| panels.contains(&Panel::Models)) {
        app.toggle(Panel::Models);
    }
    app.say(said.join(" "));
}

/// The task of a folder's model: what its config says; a lone GGUF file is a writer.
async fn task_of(files: &Files) -> Result<Option<inkling_engine::graph::spec::Task>, String> {
    if let Some((_, file)) = files.iter().find(|(name, _)| name == "config.json") {
        let json = browser::text_of(file).await.ok_or("The config.json of these files cannot be read.")?;
        return models::task_of_config(&json).map(Some);
    }
    let has_gguf = files.iter().any(|(name, _)| name.to_lowercase().ends_with(".gguf"));
    Ok(has_gguf.then_some(inkling_engine::graph::spec::Task::Generate))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(memory_bytes: f64, download_bytes: f64) -> (String, Description) {
        ("gpt2".into(), Description { memory_bytes, download_bytes, ..Description::default() })
    }

    #[test]
    fn a_model_too_big_for_a_page_is_refused_before_it_is_downloaded() {
        let verdict = judge(&[model(6e9, 6e9)], None, Estimate::default());
        assert!(verdict.is_hopeless && verdict.text.contains("6.0 GB"), "{}", verdict.text);
    }

    #[test]
    fn a_small_device_is_told_so() {
        let verdict = judge(&[model(9e8, 1e9)], Some(1.0), Estimate::default());
        assert!(!verdict.is_hopeless && verdict.text.contains("probably not"), "{}", verdict.text);
    }

    #[test]
    fn a_full_storage_is_no_reason_to_stop() {
        let estimate = Estimate { usage_bytes: Some(9e8), quota_bytes: Some(1e9), persisted: false };
        let verdict = judge(&[model(3e8, 5e8)], Some(8.0), estimate);
        assert!(!verdict.is_hopeless && verdict.text.contains("downloaded again"), "{}", verdict.text);
        let verdict = judge(&[model(3e8, 5e8)], Some(8.0), Estimate::default());
        assert_eq!(verdict.text, "They need 300 MB of memory; this device can hold them.");
    }
}
