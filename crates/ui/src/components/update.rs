//! The service worker that makes the page work offline, and the offer of a new version, which never comes by itself in
//! the middle of a run.

use leptos::{prelude::*, task::spawn_local};
use wasm_bindgen::{JsCast, JsValue, closure::Closure};
use wasm_bindgen_futures::JsFuture;
use web_sys::{ServiceWorker, ServiceWorkerContainer, ServiceWorkerRegistration, ServiceWorkerState};

use crate::{browser, state::App};

/// In milliseconds.
const FIRST_VISIT_PAUSE: i32 = 2000;

#[component]
pub(crate) fn Update(app: App) -> impl IntoView {
    let waiting = RwSignal::new_local(None::<ServiceWorker>);
    // While the page is being developed, an old version from a cache would only be in the way.
    if cfg!(not(debug_assertions)) {
        // Without a service worker (a private window, plain http) the page works as long as it is online.
        let begin = move || spawn_local(async move { drop(register(app, waiting).await) });
        if container().is_some_and(|container| container.controller().is_some()) {
            begin();
        } else {
            after_first_load(app, begin);
        }
    }
    let renew = move |_| {
        if let Some(worker) = waiting.get_untracked() {
            let _ = worker.post_message(&JsValue::from_str("take over"));
        }
    };
    view! {
        <Show when=move || waiting.with(Option::is_some)>
            <p class="update" role="status">
                "A new version of this page is here. "
                <button type="button" on:click=renew>"Reload into it"</button>
            </p>
        </Show>
    }
}

/// Calls `begin` once no model is on its way, and a little later: what keeps the page asks for every file of it again, which
/// would take the network and the processor from the models and from a first run.
fn after_first_load(app: App, begin: impl Fn() + Copy + 'static) {
    let is_loading = Memo::new(move |_| app.is_loading());
    let _ = Effect::watch(
        move || is_loading.get(),
        move |is_loading, _, has_begun| {
            let has_begun = has_begun == Some(true);
            if !has_begun && !is_loading {
                browser::after(FIRST_VISIT_PAUSE, begin);
            }
            has_begun || !is_loading
        },
        true,
    );
}

/// Pages from plain http have none.
fn container() -> Option<ServiceWorkerContainer> {
    let navigator = browser::window().navigator();
    let container = js_sys::Reflect::get(&navigator, &"serviceWorker".into()).ok()?;
    container.is_object().then(|| navigator.service_worker())
}

async fn register(app: App, waiting: RwSignal<Option<ServiceWorker>, LocalStorage>) -> Result<(), JsValue> {
    let Some(container) = container() else { return Ok(()) };
    let had_one = container.controller().is_some();
    let registration: ServiceWorkerRegistration =
        JsFuture::from(container.register("sw.js")).await?.dyn_into()?;
    let offer = {
        let registration = registration.clone();
        move || waiting.set(registration.waiting().filter(|_| had_one))
    };
    offer();
    let on_found = Closure::<dyn FnMut()>::new({
        let registration = registration.clone();
        move || {
            let Some(worker) = registration.installing() else { return };
            let offer = offer.clone();
            let installed = worker.clone();
            let on_change = Closure::<dyn FnMut()>::new(move || {
                if installed.state() == ServiceWorkerState::Installed {
                    offer();
                    // It keeps the page and the demo models now.
                    app.refresh_storage();
                }
            });
            worker.set_onstatechange(Some(on_change.as_ref().unchecked_ref()));
            on_change.forget();
        }
    });
    registration.set_onupdatefound(Some(on_found.as_ref().unchecked_ref()));
    on_found.forget();
    // The first worker takes the page over silently; a later one was asked to, and the page starts anew with it.
    let on_takeover = Closure::<dyn FnMut()>::new(move || {
        if had_one {
            let _ = browser::window().location().reload();
        }
    });
    container.set_oncontrollerchange(Some(on_takeover.as_ref().unchecked_ref()));
    on_takeover.forget();
    Ok(())
}
