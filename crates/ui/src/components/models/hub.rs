//! Models of a hub: looked up before they are downloaded.

use std::collections::BTreeMap;

use leptos::{prelude::*, task::spawn_local};

use crate::{
    device::Needs,
    engine::Description,
    format,
    models::{self, Choice, DEFAULT_ENDPOINT, Source},
    state::App,
};

#[component]
pub(super) fn Hub(app: App) -> impl IntoView {
    // The fields begin with the models in use, if they are a hub's, else with what the graph names.
    let choice = app.choice.get_untracked();
    let used = choice.values().find_map(|source| match source {
        Source::Hub { endpoint, .. } => endpoint.clone(),
        Source::Demo | Source::Files { .. } => None,
    });
    let endpoint = RwSignal::new(used.unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned()));
    let is_of_hub = choice.values().any(|source| matches!(source, Source::Hub { .. }));
    let repos = RwSignal::new(app.graph.with_untracked(|graph| {
        let repo = |node: &inkling_engine::graph::spec::Node| {
            let repo = match choice.get(&node.name) {
                Some(Source::Hub { repo, .. }) => repo.as_str(),
                _ if is_of_hub => "",
                _ => node.model.at("hub").unwrap_or_default(),
            };
            (node.name.clone(), repo.to_owned())
        };
        graph.nodes.iter().map(repo).collect::<Vec<_>>()
    }));
    let found = RwSignal::new(None::<(Choice, Needs)>);
    let word = RwSignal::new(String::new());
    let is_asking = RwSignal::new(false);
    Effect::new(move |_| {
        // What was found is for weights that are kept in another way.
        app.dtype.track();
        found.set(None);
    });
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
            match app.needs_of(&choice, app.dtype.get_untracked(), &BTreeMap::new()).await {
                Ok(needs) => {
                    word.set(String::new());
                    app.announcement.set(format!("{} {}", needs.download(), needs.verdict.text));
                    found.set(Some((choice, needs)));
                }
                Err((node, error)) => {
                    let error = format!("{node}: {error}");
                    app.announcement.set(error.clone());
                    word.set(error);
                }
            }
            is_asking.set(false);
        });
    };
    let use_found = move |_| {
        if let Some((choice, _)) = found.get_untracked() {
            app.use_here();
            app.choose_models(choice, BTreeMap::new());
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
            {move || found.get().map(|(_, needs)| {
                let is_kept = needs.models.iter().all(|(_, model)| model.cached);
                let label = if is_kept { "Use them" } else { "Download and use" };
                let size = |(node, model): &(String, Description)| {
                    view! { <li data-size-of=node.clone()>{format!("{node}: {}", size_of(model))}</li> }
                };
                view! {
                    <ul class="sizes">{needs.models.iter().map(size).collect::<Vec<_>>()}</ul>
                    <p class="word" data-verdict>{needs.download()} " " {needs.verdict.text}</p>
                    <button type="button" class="primary" disabled=needs.verdict.is_hopeless on:click=use_found>
                        {label}
                    </button>
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
