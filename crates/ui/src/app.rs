//! The page as a whole.

use leptos::{ev, prelude::*};
use wasm_bindgen::JsCast;

use crate::{
    browser,
    components::{
        AfterRun, Alternatives, BeforeRun, DropZone, Happened, History, Masthead, Models, Ribbon,
        SentenceBox, Settings, Storage, Texts, Update,
    },
    link::SharedRun,
    state::{App, Panel},
};

/// Draws the page in the place of the still one that `index.html` shows before this program is there.
pub(crate) fn mount() {
    std::panic::set_hook(Box::new(|panic| {
        web_sys::console::error_1(&panic.to_string().into());
        if let Some(broken) = browser::document().get_element_by_id("broken") {
            let _ = broken.remove_attribute("hidden");
        }
    }));
    let document = browser::document();
    let place: web_sys::HtmlElement =
        match document.get_element_by_id("page").and_then(|place| place.dyn_into().ok()) {
            Some(place) => place,
            None => document.body().expect("a page has a body").unchecked_into(),
        };
    // What was typed before the program came is kept.
    let typed = document
        .get_element_by_id("sentence")
        .and_then(|field| field.dyn_into::<web_sys::HtmlTextAreaElement>().ok());
    let had_focus =
        typed.as_ref().is_some_and(|field| document.active_element().as_ref() == Some(field.as_ref()));
    let typed = typed.map(|field| field.value());
    place.replace_children_with_node_0();
    let app = App::new();
    if let Some(typed) = typed {
        app.sentence.set(typed);
    }
    mount_to(place, move || view! { <Page app /> }).forget();
    if had_focus {
        browser::focus("sentence");
    }
    app.wake();
    open_link(app);
}

/// Runs what the page's address asks for, now and whenever it changes.
fn open_link(app: App) {
    let follow = move || {
        let fragment = browser::window().location().hash().unwrap_or_default();
        match SharedRun::from_fragment(&fragment) {
            Some(Ok(shared)) => app.follow_link(shared),
            Some(Err(bad)) => app.problem(bad.sentence()),
            None => {}
        }
    };
    follow();
    let _ = window_event_listener(ev::hashchange, move |_| follow());
}

#[component]
fn Page(app: App) -> impl IntoView {
    let is_open = move |panel| app.panels.with(|panels| panels.contains(&panel));
    let _ = window_event_listener(ev::online, move |_| app.is_offline.set(false));
    let _ = window_event_listener(ev::offline, move |_| app.is_offline.set(true));
    let notice_class =
        move || if app.notice.with(|notice| notice.is_problem) { "notice problem" } else { "notice" };
    view! {
        <a class="skip" href="#texts-heading">"Skip to the texts"</a>
        <Masthead app />
        <Show when=move || is_open(Panel::Storage)>
            <Storage app />
        </Show>
        <main>
            <Update />
            <SentenceBox app />
            <BeforeRun app />
            <Show when=move || is_open(Panel::Settings)>
                <Settings app />
            </Show>
            <Show when=move || is_open(Panel::Models)>
                <Models app />
            </Show>
            <Ribbon app />
            <p class=notice_class data-notice hidden=move || app.notice.with(|notice| notice.text.is_empty())>
                {move || app.notice.with(|notice| notice.text.clone())}
            </p>
            <Asked app />
            <Texts app />
            <AfterRun app />
            <Show when=move || is_open(Panel::Happened)>
                <Happened app />
            </Show>
            <Show when=move || is_open(Panel::History)>
                <History app />
            </Show>
            <Alternatives app />
        </main>
        <DropZone app />
        <div class="unseen" role="status" aria-live="polite" id="announcements">
            {move || app.announcement.get()}
        </div>
    }
}

/// A link that needs models which are not the page's own: nothing is downloaded before the visitor says so.
#[component]
fn Asked(app: App) -> impl IntoView {
    move || {
        let (_, wanted) = app.asked.get()?;
        let hubs = wanted.values().filter(|source| **source != crate::models::Source::Demo);
        let names = hubs.map(crate::models::Source::describe).collect::<Vec<_>>().join(", ");
        Some(view! {
            <div class="notice" role="group" aria-label="Models of the link">
                <p>{format!("This run used {names}. What is not kept in this browser yet has to be downloaded first; under models you can look up how much that is.")}</p>
                <button type="button" class="primary" on:click=move |_| app.accept_asked()>"Get them and run"</button>
                " "
                <button type="button" on:click=move |_| app.asked.set(None)>"Not now"</button>
            </div>
        })
    }
}
