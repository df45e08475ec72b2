//! One text: it grows token by token, then shows its score.

use inkling_engine::protocol::{FinishReason, Token};
use leptos::{ev, html, prelude::*, task::spawn_local};
use wasm_bindgen::JsCast;
use web_sys::{Element, HtmlElement};

use super::score::Scores;
use crate::{
    browser, format,
    models::Dtype,
    run::{Mark, TextState, rank},
    state::{App, Picked},
};

#[component]
pub(crate) fn Card(app: App, index: usize) -> impl IntoView {
    let of = move |run: &crate::run::RunState| run.texts.get(index).cloned();
    // Everything but the tokens: they are appended, not drawn anew.
    let head = app.run.with_untracked(of);
    let Some(head) = head else { return ().into_any() };
    let siblings =
        app.run.with_untracked(|run| run.texts.iter().filter(|text| text.id.node == head.id.node).count());
    let mark = Memo::new(move |_| with_text(app, index, TextState::mark).unwrap_or(Mark::Waiting));
    let judgements =
        Memo::new(move |_| with_text(app, index, |text| text.judgements.clone()).unwrap_or_default());
    let numbers = Memo::new(move |_| with_text(app, index, numbers_of).unwrap_or_default());
    let remark = Memo::new(move |_| with_text(app, index, remark_of).flatten());
    let place = Memo::new(move |_| {
        app.run.with(|run| {
            let ranking = rank::ranking(run);
            let id = &run.texts.get(index)?.id;
            let place = ranking.iter().position(|ranked| ranked == id)? + 1;
            (ranking.len() > 1).then_some((place, ranking.len()))
        })
    });
    let model = Memo::new(move |_| {
        app.run.with(|run| {
            let node = &run.texts.get(index)?.id.node;
            let model = run.answer.nodes.iter().find(|report| report.node == *node)?.model.as_ref()?;
            Some(format!("{model}{}", Dtype::unusual(run.dtype, ", ")))
        })
    });
    let heading = format!("text-{index}-heading");
    let named_by = heading.clone();
    let copy = move |_| {
        let text = with_text_untracked(app, index, TextState::full).unwrap_or_default();
        spawn_local(async move {
            if browser::copy(&text).await {
                app.say("The text is on your clipboard.");
            } else {
                app.problem("The browser did not allow copying.");
            }
        });
    };
    let go_on = move |_| {
        if let Some(text) = with_text_untracked(app, index, TextState::full) {
            app.continue_from(text, tokens_before(app, index, usize::MAX));
        }
    };
    let has_alternatives = Memo::new(move |_| {
        with_text(app, index, |text| text.tokens.iter().any(|token| !token.alternatives.is_empty()))
            == Some(true)
    });
    let can_go_on = move || matches!(mark.get(), Mark::Done | Mark::Stopped);
    view! {
        <article
            class="card"
            id=format!("card-{index}")
            class:winner=move || place.get().is_some_and(|(place, _)| place == 1)
            data-node=head.id.node.clone()
            data-sequence=head.id.sequence.to_string()
            data-state=move || mark.get().word()
            aria-labelledby=named_by
        >
            <header>
                <h3 id=heading>
                    {head.id.node.clone()}
                    {(siblings > 1).then(|| view! { <span class="which">{format!(" {} of {siblings}", head.id.sequence + 1)}</span> })}
                </h3>
                <span class="model">{move || model.get()}</span>
                <span class="place" data-place>
                    {move || place.get().map(|(place, of)| match place {
                        1 => "ranked first".to_owned(),
                        _ => format!("{} of {of}", format::ordinal(place)),
                    })}
                </span>
            </header>
            <Words app index />
            <p class="remark" hidden=move || remark.get().is_none()>{move || remark.get()}</p>
            <Scores judgements />
            <footer>
                <span class="numbers">{move || numbers.get()}</span>
                <button type="button" class="plain" on:click=copy>"Copy"</button>
                <button
                    type="button"
                    class="plain"
                    disabled=move || !has_alternatives.get()
                    on:click=move |_| focus_token(index)
                >
                    "Alternatives"
                </button>
                <button type="button" class="plain" disabled=move || !can_go_on() on:click=go_on>"Continue"</button>
            </footer>
        </article>
    }
    .into_any()
}

/// The text itself: the prompt, then one `span` a token. Only one token of a text is in the tab order; arrow keys move it.
#[component]
fn Words(app: App, index: usize) -> impl IntoView {
    let written = NodeRef::<html::Span>::new();
    let shown = StoredValue::new((0_usize, 0_u32));
    Effect::new(move |_| {
        let Some(place) = written.get() else { return };
        let rewritten = app.run.with(|run| {
            let text = run.texts.get(index)?;
            let (count, rewritten) = shown.get_value();
            let from = if text.rewritten == rewritten { count } else { 0 };
            if from == 0 && count > 0 {
                place.set_text_content(None);
            }
            append(&place, &text.tokens, from);
            Some((text.tokens.len(), text.rewritten))
        });
        if let Some(now) = rewritten {
            shown.set_value(now);
        }
    });
    let prompt = Memo::new(move |_| with_text(app, index, |text| text.prompt.clone()).flatten());
    let is_writing = Memo::new(move |_| with_text(app, index, TextState::mark) == Some(Mark::Writing));
    let look = move |target: Option<web_sys::EventTarget>, pinned: bool| {
        if let Some((token, element)) = token_at(target) {
            if pinned {
                make_current(&element);
            }
            app.pick(Picked { text: index, token, at: below(&element), pinned });
        }
    };
    view! {
        <p
            class="words"
            data-text
            dir="auto"
            id=format!("words-{index}")
            on:pointerover=move |event: ev::PointerEvent| {
                if event.pointer_type() == "mouse" {
                    look(event.target(), false);
                }
            }
            on:pointerleave=move |_| app.unpick_soon()
            on:click=move |event: ev::MouseEvent| look(event.target(), true)
            on:focusin=move |event: ev::FocusEvent| look(event.target(), true)
            on:keydown=move |event: ev::KeyboardEvent| on_key(app, index, &event)
        >
            <Prompt prompt />
            <span class="written" node_ref=written></span>
            <span class="caret" aria-hidden="true" hidden=move || !is_writing.get()></span>
        </p>
    }
}

/// The sentence before the new text. Of a very long one only the end is shown, which the new text goes on from; the rest
/// is there for whoever asks for it, and for whoever copies.
#[component]
fn Prompt(prompt: Memo<Option<String>>) -> impl IntoView {
    let is_whole = RwSignal::new(false);
    let parts = Memo::new(move |_| {
        prompt.with(|prompt| {
            let prompt = prompt.as_deref().unwrap_or_default();
            let (head, tail) = prompt.split_at(fold_at(prompt));
            (head.to_owned(), tail.to_owned())
        })
    });
    let has_head = move || parts.with(|(head, _)| !head.is_empty());
    view! {
        <span class="prompt">
            <span hidden=move || !is_whole.get()>{move || parts.with(|(head, _)| head.clone())}</span>
            <Show when=move || has_head() && !is_whole.get()>
                <button
                    type="button"
                    class="fold"
                    aria-label="Show the whole sentence"
                    on:click=move |_| is_whole.set(true)
                ></button>
            </Show>
            {move || parts.with(|(_, tail)| tail.clone())}
        </span>
    }
}

/// The byte at which the end of a long prompt begins that is shown: at a word, about so many characters from its end.
fn fold_at(prompt: &str) -> usize {
    const SHOWN: usize = 240;
    // A fold that hides less than it shows is not worth its button.
    if prompt.chars().count() <= 2 * SHOWN {
        return 0;
    }
    let (at, _) = prompt.char_indices().rev().nth(SHOWN - 1).unwrap_or((0, ' '));
    let word = prompt[at..].find(char::is_whitespace).filter(|gap| *gap < 40).unwrap_or(0);
    at + word
}

/// Appends the tokens from `from` on. A token without text (half a character) is part of the next one.
fn append(place: &HtmlElement, tokens: &[Token], from: usize) {
    let document = browser::document();
    for (index, token) in tokens.iter().enumerate().skip(from) {
        let Ok(span) = document.create_element("span") else { return };
        span.set_text_content(Some(&token.text));
        if !token.text.is_empty() {
            let _ = span.set_attribute("data-token", &index.to_string());
            if token.log_prob.is_finite() {
                let _ = span.set_attribute("class", weight_of(token.log_prob));
            }
            if !token.alternatives.is_empty() {
                let _ = span.set_attribute("tabindex", "-1");
                if place.query_selector("[tabindex=\"0\"]").ok().flatten().is_none() {
                    name_as_button(&span);
                }
            }
        }
        let _ = place.append_child(&span);
    }
}

/// The underline's weight, in five steps of probability.
fn weight_of(log_prob: f32) -> &'static str {
    match log_prob.exp() {
        p if p < 0.02 => "w0",
        p if p < 0.1 => "w1",
        p if p < 0.3 => "w2",
        p if p < 0.7 => "w3",
        _ => "w4",
    }
}

fn token_at(target: Option<web_sys::EventTarget>) -> Option<(usize, HtmlElement)> {
    let element: HtmlElement = target?.dyn_into().ok()?;
    let index = element.get_attribute("data-token")?.parse().ok()?;
    element.has_attribute("tabindex").then_some((index, element))
}

/// Puts this token, and no other of its text, into the tab order. Only there it is a button: a reader of the text is not
/// told so at every word.
fn make_current(element: &Element) {
    let Some(parent) = element.parent_element() else { return };
    if let Ok(Some(before)) = parent.query_selector("[tabindex=\"0\"]") {
        let _ = before.set_attribute("tabindex", "-1");
        let _ = before.remove_attribute("role");
        let _ = before.remove_attribute("aria-label");
    }
    name_as_button(element);
}

fn name_as_button(token: &Element) {
    let _ = token.set_attribute("tabindex", "0");
    let _ = token.set_attribute("role", "button");
    let text = token.text_content().unwrap_or_default();
    if text.trim().is_empty() {
        // A button whose text cannot be heard needs another name.
        let _ = token.set_attribute("aria-label", if text.contains('\n') { "line break" } else { "space" });
    }
}

/// The place below a token, in CSS pixels of the document.
fn below(element: &Element) -> (f64, f64) {
    let window = browser::window();
    let rectangle = element.get_bounding_client_rect();
    let scroll = |value: Result<f64, _>| value.unwrap_or_default();
    let width = window.inner_width().ok().and_then(|width| width.as_f64()).unwrap_or(390.0);
    let left = rectangle.left().min(width - 280.0).max(8.0);
    (left + scroll(window.scroll_x()), rectangle.bottom() + 4.0 + scroll(window.scroll_y()))
}

fn on_key(app: App, index: usize, event: &ev::KeyboardEvent) {
    let Some((token, element)) = token_at(event.target()) else { return };
    let step = |forward: bool| {
        let mut next =
            if forward { element.next_element_sibling() } else { element.previous_element_sibling() };
        while let Some(candidate) = next.clone().filter(|candidate| !candidate.has_attribute("tabindex")) {
            next =
                if forward { candidate.next_element_sibling() } else { candidate.previous_element_sibling() };
        }
        next
    };
    let end = |selector: &str| {
        let tokens = element.parent_element()?.query_selector_all(selector).ok()?;
        let last = tokens.length().checked_sub(1)?;
        tokens.item(if event.key() == "End" { last } else { 0 })?.dyn_into::<Element>().ok()
    };
    let next = match event.key().as_str() {
        // In a text from right to left the next token is at the left.
        "ArrowRight" => step(!is_from_right(&element)),
        "ArrowLeft" => step(is_from_right(&element)),
        "Home" | "End" => end("[tabindex]"),
        "ArrowDown" | "Enter" | " " => {
            event.prevent_default();
            // Escape closes them and leaves the focus here: then they open again first, at the next frame.
            if app.picked.get_untracked().is_none() {
                app.pick(Picked { text: index, token, at: below(&element), pinned: true });
            }
            request_animation_frame(focus_first_alternative);
            return;
        }
        "Escape" => {
            app.picked.set(None);
            return;
        }
        _ => return,
    };
    event.prevent_default();
    if let Some(next) = next.and_then(|next| next.dyn_into::<HtmlElement>().ok()) {
        let _ = next.focus();
    }
}

fn is_from_right(token: &HtmlElement) -> bool {
    let words = token.closest(".words").ok().flatten();
    words.is_some_and(|words| words.matches(":dir(rtl)").unwrap_or(false))
}

fn focus_first_alternative() {
    let first = browser::document().query_selector("#alternatives button").ok().flatten();
    if let Some(first) = first.and_then(|first| first.dyn_into::<HtmlElement>().ok()) {
        let _ = first.focus();
    }
}

/// Moves the focus to a text's current token.
pub(crate) fn focus_token(index: usize) {
    let selector = format!("#words-{index} [tabindex=\"0\"]");
    let token = browser::document().query_selector(&selector).ok().flatten();
    if let Some(token) = token.and_then(|token| token.dyn_into::<HtmlElement>().ok()) {
        let _ = token.focus();
    }
}

fn with_text<T>(app: App, index: usize, of: impl Fn(&TextState) -> T) -> Option<T> {
    app.run.with(|run| run.texts.get(index).map(of))
}

fn with_text_untracked<T>(app: App, index: usize, of: impl Fn(&TextState) -> T) -> Option<T> {
    app.run.with_untracked(|run| run.texts.get(index).map(of))
}

/// Tokens of a text before the one at `index`, those of its sentence among them.
pub(super) fn tokens_before(app: App, index: usize, token: usize) -> usize {
    app.run.with_untracked(|run| {
        let Some(text) = run.texts.get(index) else { return 0 };
        let sentence = run.node(&text.id.node).map_or(0, |node| node.input_tokens);
        sentence + text.tokens.len().min(token)
    })
}

fn numbers_of(text: &TextState) -> String {
    let tokens = text.tokens.iter().filter(|token| token.log_prob.is_finite()).count();
    if tokens == 0 {
        return String::new();
    }
    let first = text.first_token_ms.map(|ms| format!(" · first in {}", format::duration(ms)));
    format!("{}{}", format::count(tokens, "token", "tokens"), first.unwrap_or_default())
}

fn remark_of(text: &TextState) -> Option<String> {
    match (text.mark(), text.finish) {
        (Mark::Failed, _) => Some(format::reason(text.error.as_deref()?)),
        (Mark::Stopped, _) => Some("Stopped. The text so far is kept.".into()),
        (_, Some(FinishReason::Context)) => Some("The text fills all that this model can read.".into()),
        _ => {
            let (critic, reason) = text.unjudged.as_ref()?;
            Some(format!("No score from {critic}. {}", format::sentence(reason)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_sentence_the_end_is_shown_from_a_word_on() {
        assert_eq!(fold_at("I have an idea!"), 0);
        let long = "word ".repeat(200);
        let at = fold_at(&long);
        assert!(long[at..].starts_with(" word") && (200..=240).contains(&(long.len() - at)));
        // Without spaces, and in characters of several bytes.
        let long = "雨".repeat(600);
        assert_eq!(long[fold_at(&long)..].chars().count(), 240);
    }
}
