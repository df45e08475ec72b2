//! What this page keeps in the browser, and how to get rid of it.

use leptos::{prelude::*, task::spawn_local};

use crate::{
    browser::{self, OwnCopy},
    engine::{self, Estimate, Stored},
    format,
    state::App,
};

#[component]
pub(crate) fn Storage(app: App) -> impl IntoView {
    let stored = RwSignal::new(None::<Vec<Stored>>);
    let estimate = RwSignal::new(Estimate::default());
    let word = RwSignal::new(String::new());
    let own = RwSignal::new(None::<OwnCopy>);
    let look = move || {
        spawn_local(async move {
            let outcome = async {
                let module = engine::module().await?;
                estimate.set(module.estimate().await.unwrap_or_default());
                module.stored().await
            };
            own.set(browser::own_copy().await);
            match outcome.await {
                Ok(models) => stored.set(Some(models)),
                Err(error) => {
                    stored.set(Some(Vec::new()));
                    word.set(error);
                }
            }
            app.refresh_storage();
        });
    };
    // Looks again whenever a model has become ready, which is when something new is kept.
    Effect::new(move |_| {
        app.loads
            .with(|loads| loads.values().filter(|load| matches!(load, engine::LoadState::Ready(_))).count());
        look();
    });
    let delete = move |id: String, name: String| {
        spawn_local(async move {
            let outcome = async { engine::module().await?.remove_stored(&id).await };
            tell(app, word, outcome.await.map(|()| format!("{name} is deleted.")));
            look();
        });
    };
    let clear = move |_| {
        spawn_local(async move {
            let outcome = async { engine::module().await?.clear_stored().await };
            tell(app, word, outcome.await.map(|()| "All models are deleted.".to_owned()));
            look();
        });
    };
    let forget_own = move |_| {
        spawn_local(async move {
            browser::forget_own_copy().await;
            let text = "The offline copy is deleted. The next visit with a network makes a new one.";
            tell(app, word, Ok(text.into()));
            look();
        });
    };
    let persist = move |_| {
        spawn_local(async move {
            let outcome = async { engine::module().await?.persist().await };
            let text = |agreed| {
                if agreed {
                    "The browser keeps the models until you delete them."
                } else {
                    "The browser did not promise it: it may delete the models when storage runs short."
                }
            };
            tell(app, word, outcome.await.map(|agreed| text(agreed).to_owned()));
            look();
        });
    };
    let row = move |model: Stored| {
        let name = model.describe();
        let (id, label) = (model.id.clone(), format!("Delete {name}"));
        let state = if model.complete { "" } else { ", a part so far" };
        view! {
            <li data-stored=model.id>
                <span>{name.clone()}</span>
                <span class="number">{format!("{}{state}", format::bytes(model.size_bytes as u64))}</span>
                <button
                    type="button"
                    class="plain"
                    aria-label=label
                    on:click=move |_| delete(id.clone(), name.clone())
                >
                    "Delete"
                </button>
            </li>
        }
    };
    let models = move || match stored.get() {
        None => view! { <li>"Looking…"</li> }.into_any(),
        Some(models) if models.is_empty() => {
            view! { <li><span>"No models of a hub or of your own files"</span></li> }.into_any()
        }
        Some(models) => models.into_iter().map(row).collect::<Vec<_>>().into_any(),
    };
    let own_rows = move || {
        match own.get() {
        Some(OwnCopy { page_bytes, demo_bytes }) => view! {
            <li data-own>
                <span>"This page with its engine, and the demo models: the copy that works offline"</span>
                <span class="number">
                    {format!("{} + {}", format::bytes(page_bytes as u64), format::bytes(demo_bytes as u64))}
                </span>
                <button type="button" class="plain" aria-label="Delete the offline copy" on:click=forget_own>
                    "Delete"
                </button>
            </li>
        }
        .into_any(),
        None => view! {
            <li data-own><span>"No copy of this page and its demo models: they come anew at each visit"</span></li>
        }
        .into_any(),
    }
    };
    let runs = move || app.history.with(Vec::len);
    let room = move || {
        let Estimate { usage_bytes, quota_bytes, .. } = estimate.get();
        let (used, quota) = (usage_bytes?, quota_bytes?);
        Some(format!(
            "This page uses {} in all, of {} that the browser allows.",
            format::bytes(used as u64),
            format::bytes(quota as u64)
        ))
    };
    view! {
        <section class="panel" id="storage" aria-labelledby="storage-heading">
            <h2 id="storage-heading">"Storage"</h2>
            <p>{room}</p>
            <ul class="stored" role="list">
                {models}
                {own_rows}
                <li>
                    <span>"Earlier runs"</span>
                    <span class="number">{move || format::count(runs(), "run", "runs")}</span>
                    <button
                        type="button"
                        class="plain"
                        aria-label="Delete the earlier runs"
                        disabled=move || runs() == 0
                        on:click=move |_| app.forget(None)
                    >
                        "Delete"
                    </button>
                </li>
                <li>
                    <span>"Your choices: models, server, settings"</span>
                    <button
                        type="button"
                        class="plain"
                        aria-label="Delete your choices"
                        on:click=move |_| {
                            app.forget_choices();
                            let text = "Your choices are deleted. The next visit begins with the demo models.";
                            tell(app, word, Ok(text.into()));
                        }
                    >
                        "Delete"
                    </button>
                </li>
            </ul>
            <div class="buttons">
                <button
                    type="button"
                    disabled=move || stored.with(|stored| stored.as_ref().is_none_or(Vec::is_empty))
                    on:click=clear
                >
                    "Delete all models"
                </button>
                <Show
                    when=move || !estimate.get().persisted
                    fallback=|| view! { <p>"The browser keeps all of it until you delete it."</p> }
                >
                    <button type="button" on:click=persist>"Ask the browser to keep them"</button>
                </Show>
            </div>
            <p class="word" hidden=move || word.with(String::is_empty)>{move || word.get()}</p>
        </section>
    }
}

fn tell(app: App, word: RwSignal<String>, outcome: Result<String, String>) {
    let text = outcome.unwrap_or_else(|error| error);
    app.announcement.set(text.clone());
    word.set(text);
}
