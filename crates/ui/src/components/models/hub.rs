//! Models of a hub: looked up before they are downloaded.

use std::collections::BTreeMap;

use leptos::{prelude::*, task::spawn_local};

use crate::{
    device::{Verdict, judge},
    engine::{self, Description},
    format,
    models::{self, Choice, DEFAULT_ENDPOINT, Source},
    state::{App, EngineState},
};

/// What a look at the hub found.
#[derive(Clone, Debug, PartialEq)]
struct Found {
    choice: Choice,
    descriptions: Vec<(String, Description)>,
    verdict: Verdict,
}

#[component]
pub(super) fn Hub(app: App) -> impl IntoView {
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
