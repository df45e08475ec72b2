//! The sentence, and the buttons that run and stop.

use leptos::{ev, prelude::*};

use crate::{run::RunState, state::App};

#[component]
pub(crate) fn SentenceBox(app: App) -> impl IntoView {
    let is_running = Memo::new(move |_| app.run.with(|run| run.phase == crate::run::Phase::Running));
    let can_repeat = Memo::new(move |_| app.run.with(|run| !run.is_open() && run.answer.total_ms > 0.0));
    let on_key = move |event: ev::KeyboardEvent| {
        if event.key() == "Enter" && (event.ctrl_key() || event.meta_key()) {
            event.prevent_default();
            app.run_sentence();
        }
    };
    let again = move |_| {
        let seed = app.run.with_untracked(|run| run.answer.seed);
        app.run_with_seed(seed);
    };
    view! {
        <form
            class="ask"
            aria-label="Sentence"
            on:submit=move |event| {
                event.prevent_default();
                app.run_sentence();
            }
        >
            <label for="sentence">"A sentence to continue"</label>
            <div class="box">
                <textarea
                    id="sentence"
                    rows="2"
                    dir="auto"
                    spellcheck="false"
                    autocomplete="off"
                    aria-describedby="sentence-keys"
                    prop:value=move || app.sentence.get()
                    on:input:target=move |event| app.sentence.set(event.target().value())
                    on:keydown=on_key
                ></textarea>
                <div class="go">
                    <button type="submit" class="primary">"Run" <kbd aria-hidden="true">"Ctrl+⏎"</kbd></button>
                    <button
                        type="button"
                        disabled=move || !is_running.get()
                        on:click=move |_| app.stop()
                    >
                        "Stop"
                    </button>
                </div>
            </div>
            <p class="unseen" id="sentence-keys">"Control and Enter run it."</p>
            <div class="again">
                <button type="button" class="plain" disabled=move || !can_repeat.get() on:click=again>
                    "Same seed again"
                </button>
                <button
                    type="button"
                    class="plain"
                    disabled=move || !can_repeat.get()
                    on:click=move |_| app.run_new_seed()
                >
                    "New seed"
                </button>
                <span class="seed" data-seed>
                    {move || app.run.with(|run: &RunState| {
                        (run.phase != crate::run::Phase::Idle).then(|| format!("seed {}", run.answer.seed))
                    })}
                </span>
            </div>
        </form>
    }
}
