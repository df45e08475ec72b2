//! The page as a whole.

use leptos::{ev, prelude::*};
use wasm_bindgen::JsCast;

use crate::{
    browser,
    components::{
        AfterRun, Alternatives, BeforeRun, DropZone, Happened, History, Limits, Masthead, Models, Ribbon,
        SentenceBox, Settings, Storage, Texts, Update,
    },
    link::SharedRun,
    models::{self, Dtype},
    state::{Act, App, Asked, Panel, Reason},
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
    app.begin(SharedRun::from_fragment(&fragment()).is_some());
    open_link(app);
}

fn fragment() -> String {
    browser::window().location().hash().unwrap_or_default()
}

/// Runs what the page's address asks for, now and whenever it changes.
fn open_link(app: App) {
    let follow = move || match SharedRun::from_fragment(&fragment()) {
        Some(Ok(shared)) => app.follow_link(shared),
        Some(Err(bad)) => app.problem(bad.sentence()),
        None => {}
    };
    follow();
    let _ = window_event_listener(ev::hashchange, move |_| follow());
}

#[component]
fn Page(app: App) -> impl IntoView {
    let is_open = move |panel| app.panels.with(|panels| panels.contains(&panel));
    let _ = window_event_listener(ev::online, move |_| app.is_offline.set(false));
    let _ = window_event_listener(ev::offline, move |_| app.is_offline.set(true));
    view! {
        <a class="skip" href="#texts-heading">"Skip to the texts"</a>
        <Masthead app />
        <Show when=move || is_open(Panel::Storage)>
            <Storage app />
        </Show>
        <main>
            <Update app />
            <SentenceBox app />
            <BeforeRun app />
            <Show when=move || is_open(Panel::Settings)>
                <Settings app />
            </Show>
            <Show when=move || is_open(Panel::Models)>
                <Models app />
            </Show>
            <Limits app />
            <Ribbon app />
            <Told app />
            <Ask app />
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

/// What the page has to say, and what can be done about it.
#[component]
fn Told(app: App) -> impl IntoView {
    let class = move || if app.notice.with(|notice| notice.is_problem) { "notice problem" } else { "notice" };
    let button = move |act: Act| {
        view! { <button type="button" on:click={ let act = act.clone(); move |_| app.act(act.clone()) }>{act.label()}</button> }
    };
    let buttons = move || {
        let acts = app.notice.with(|notice| notice.acts.clone());
        (!acts.is_empty())
            .then(|| view! { <div class="buttons">{acts.into_iter().map(button).collect::<Vec<_>>()}</div> })
    };
    view! {
        <div class=class hidden=move || app.notice.with(|notice| notice.text.is_empty())>
            <p data-notice>{move || app.notice.with(|notice| notice.text.clone())}</p>
            {buttons}
        </div>
    }
}

/// Models that would have to be downloaded first: how much that is, and whether this device can hold them.
#[component]
fn Ask(app: App) -> impl IntoView {
    move || {
        let Asked { why, choice, dtype, needs } = app.asked.get()?;
        let (names, bits) = (models::describe(&choice), dtype.bits());
        let (text, accept, decline) = match why {
            Reason::Run(_) => {
                let at = Dtype::unusual(Some(dtype), " at ");
                (format!("This run used {names}{at}."), "Get them and run", "Not now")
            }
            Reason::LastVisit => (
                format!("At your last visit you used {names}, which this browser does not keep any more."),
                "Get them again",
                "Stay with the demo models",
            ),
            Reason::Dtype => (
                format!("This browser does not keep {names} at {bits}: the files have to come again."),
                "Get them",
                "Stay as it is",
            ),
        };
        Some(view! {
            <div class="notice" role="group" aria-label="Models to download" data-asked>
                <p>{text} " " {needs.download()} " " {needs.verdict.text}</p>
                <div class="buttons">
                    <button
                        type="button"
                        class="primary"
                        disabled=needs.verdict.is_hopeless
                        on:click=move |_| app.accept_asked()
                    >
                        {accept}
                    </button>
                    <button type="button" on:click=move |_| app.decline_asked()>{decline}</button>
                </div>
            </div>
        })
    }
}
