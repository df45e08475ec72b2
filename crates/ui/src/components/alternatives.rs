//! What could have stood in a token's place, and a way to go on from there.

use inkling_engine::protocol::Alternative;
use leptos::{ev, prelude::*};
use wasm_bindgen::JsCast;
use web_sys::HtmlElement;

use super::card::{focus_token, tokens_before};
use crate::{browser, format, run::RunState, state::App};

#[derive(Clone, PartialEq)]
struct Looked {
    token: String,
    probability: f64,
    alternatives: Vec<Alternative>,
    text: usize,
    index: usize,
    at: (f64, f64),
}

#[component]
pub(crate) fn Alternatives(app: App) -> impl IntoView {
    let looked = Memo::new(move |_| {
        let picked = app.picked.get()?;
        app.run.with(|run: &RunState| {
            let token = run.texts.get(picked.text)?.tokens.get(picked.token)?;
            Some(Looked {
                token: token.text.clone(),
                probability: f64::from(token.log_prob.exp()),
                alternatives: token.alternatives.clone(),
                text: picked.text,
                index: picked.token,
                at: picked.at,
            })
        })
    });
    // They go when the visitor turns to something else, by pointer or by keyboard.
    let leave = move |target: Option<web_sys::EventTarget>| {
        let element = target.and_then(|target| target.dyn_into::<web_sys::Element>().ok());
        let stays = element
            .is_some_and(|element| element.closest("[data-token], #alternatives").ok().flatten().is_some());
        if !stays && app.picked.with_untracked(Option::is_some) {
            app.picked.set(None);
        }
    };
    let _ = window_event_listener(ev::pointerdown, move |event| leave(event.target()));
    let _ = window_event_listener(ev::focusin, move |event| leave(event.target()));
    let on_key = move |event: ev::KeyboardEvent| {
        let Some(here) = event.target().and_then(|target| target.dyn_into::<HtmlElement>().ok()) else {
            return;
        };
        let row = here.parent_element();
        let next = match event.key().as_str() {
            "ArrowDown" => row.and_then(|row| row.next_element_sibling()),
            "ArrowUp" => row.and_then(|row| row.previous_element_sibling()),
            "Escape" => {
                if let Some(picked) = app.picked.get_untracked() {
                    focus_token(picked.text);
                }
                app.picked.set(None);
                return;
            }
            _ => return,
        };
        event.prevent_default();
        let button = next.and_then(|row| row.query_selector("button").ok().flatten());
        if let Some(button) = button.and_then(|button| button.dyn_into::<HtmlElement>().ok()) {
            let _ = button.focus();
        }
    };
    view! {
        {move || looked.get().map(|looked| {
            let Looked { token, probability, alternatives, text, index, at } = looked;
            let row = move |alternative: Alternative| {
                let probability = f64::from(alternative.log_prob.exp());
                let shown = format::visible(&alternative.text);
                let instead = alternative.text.clone();
                let go = move |event: ev::MouseEvent| {
                    let sentence = app.run.with_untracked(|run| {
                        run.texts.get(text).map(|text| text.with_instead(index, &instead))
                    });
                    if let Some(sentence) = sentence {
                        app.continue_from(sentence, tokens_before(app, text, index + 1));
                        // This button is about to go, and the keyboard's focus would go with it. A key's click has no
                        // count; a tap must not bring up a phone's keyboard.
                        if event.detail() == 0 {
                            browser::focus("sentence");
                        }
                    }
                };
                view! {
                    <li>
                        <button type="button" disabled=alternative.text.is_empty() on:click=go>
                            <span class="token">{shown}</span>
                            <span class="track" aria-hidden="true">
                                <span class="fill" style:width=format!("{:.1}%", probability * 100.0)></span>
                            </span>
                            <span class="number">{format::percent(probability)}</span>
                        </button>
                    </li>
                }
            };
            view! {
                <div
                    class="alternatives"
                    id="alternatives"
                    role="group"
                    aria-label="Alternatives"
                    style:left=format!("{}px", at.0)
                    style:top=format!("{}px", at.1)
                    on:pointerenter=move |_| app.hold_pick()
                    on:pointerleave=move |_| app.unpick_soon()
                    on:keydown=on_key
                >
                    <p>
                        <span class="token">{format::visible(&token)}</span>
                        " came with "
                        {format::percent(probability)}
                        ". Continue with:"
                    </p>
                    <ul>{alternatives.into_iter().map(row).collect::<Vec<_>>()}</ul>
                </div>
            }
        })}
    }
}
