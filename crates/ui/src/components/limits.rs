//! What this browser or window cannot do, and what works all the same.

use leptos::prelude::*;

use crate::{
    engine::Capabilities,
    state::{App, EngineState, Place},
};

#[component]
pub(crate) fn Limits(app: App) -> impl IntoView {
    let limits = Memo::new(move |_| {
        let is_here = app.place.get() == Place::Here;
        let mut limits = match app.engine.get() {
            EngineState::Ready(capabilities) => of_browser(&capabilities, is_here),
            EngineState::Loading | EngineState::Failed(_) => Vec::new(),
        };
        if app.is_offline.get() {
            limits.push("You are offline. The demo models, models that this browser keeps and your own files work; a hub or a server can not be asked.");
        }
        limits
    });
    view! {
        <Show when=move || !limits.with(Vec::is_empty)>
            <ul class="limits" role="list" aria-label="What this browser cannot do">
                {move || limits.get().into_iter().map(|limit| view! { <li>{limit}</li> }).collect::<Vec<_>>()}
            </ul>
        </Show>
    }
}

fn of_browser(capabilities: &Capabilities, is_here: bool) -> Vec<&'static str> {
    let mut limits = Vec::new();
    if !capabilities.simd && is_here {
        limits.push("This browser has no WebAssembly SIMD, so no model runs in this page. A server can run them (under models); links and the history can be looked at. Browsers from 2023 on have it.");
    }
    if capabilities.simd && !capabilities.opfs && !capabilities.cache_api {
        limits.push("This window keeps no models, as private windows do: those of a hub are downloaded anew at each visit, and your own files are chosen anew. All else works.");
    }
    if capabilities.simd && !capabilities.workers && is_here {
        limits.push("This browser has no workers: the models run one after the other, and the page answers slowly while they do.");
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_says_what_still_works() {
        let whole = Capabilities::default();
        assert_eq!(of_browser(&whole, true), [""; 0]);
        let old = Capabilities { simd: false, ..whole.clone() };
        assert!(of_browser(&old, true)[0].contains("A server can run them"));
        assert_eq!(of_browser(&old, false), [""; 0], "a server needs nothing of this browser");
        let private = Capabilities { opfs: false, cache_api: false, ..whole.clone() };
        assert!(of_browser(&private, true)[0].contains("All else works"));
        // The Cache API keeps models, too.
        assert_eq!(of_browser(&Capabilities { opfs: false, ..whole }, true), [""; 0]);
    }
}
