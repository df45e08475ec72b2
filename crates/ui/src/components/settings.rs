//! How the writers write: the decoding parameters, the seed and what each does.

use inkling_engine::protocol::Parameters;
use leptos::prelude::*;

use crate::{
    settings::{SETTINGS, Setting, show_stop_strings, stop_strings},
    state::App,
};

#[component]
pub(crate) fn Settings(app: App) -> impl IntoView {
    let draws = Memo::new(move |_| app.parameters.with(|parameters| parameters.do_sample.unwrap_or(true)));
    let is_default = Memo::new(move |_| {
        app.parameters.with(|parameters| *parameters == Parameters::default())
            && app.kept_seed.get().is_none()
    });
    let stop = move || app.parameters.with(|parameters| show_stop_strings(parameters.stop.as_ref()));
    let seed = move || app.kept_seed.get().map(|seed| seed.to_string()).unwrap_or_default();
    view! {
        <section class="panel" id="settings" aria-labelledby="settings-heading">
            <h2 id="settings-heading">"Settings"</h2>
            <div class="settings">
                {SETTINGS.iter().map(|setting| view! { <Number app setting /> }).collect::<Vec<_>>()}
                <div class="setting">
                    <label for="setting-seed">"Seed"</label>
                    <input
                        id="setting-seed"
                        inputmode="numeric"
                        placeholder="a new one each time"
                        aria-describedby="setting-seed-hint"
                        prop:value=seed
                        on:change:target=move |event| app.set_seed(seed_of(&event.target().value()))
                    />
                    <p class="hint" id="setting-seed-hint">
                        "The same seed, sentence, settings and models give the same text, here and on every other device."
                    </p>
                </div>
                <div class="setting">
                    <label for="setting-stop">"Stop before"</label>
                    <textarea
                        id="setting-stop"
                        rows="2"
                        aria-describedby="setting-stop-hint"
                        prop:value=stop
                        on:change:target=move |event| {
                            let strings = stop_strings(&event.target().value());
                            app.set_parameters(|parameters| parameters.stop = strings);
                        }
                    ></textarea>
                    <p class="hint" id="setting-stop-hint">
                        "A text ends before the first of these, one a line. \\n is a line break."
                    </p>
                </div>
                <div class="setting check">
                    <label>
                        <input
                            type="checkbox"
                            prop:checked=move || !draws.get()
                            on:change:target=move |event| {
                                let greedy = event.target().checked();
                                app.set_parameters(|parameters| {
                                    parameters.do_sample = greedy.then_some(false);
                                });
                            }
                        />
                        " Always take the likeliest token"
                    </label>
                    <p class="hint">"Then nothing is drawn, and temperature, top k, top p and the seed do not matter."</p>
                </div>
            </div>
            <button
                type="button"
                disabled=move || is_default.get()
                on:click=move |_| {
                    app.set_parameters(|parameters| *parameters = Parameters::default());
                    app.set_seed(None);
                    app.announcement.set("Settings are back at their defaults.".into());
                }
            >
                "Reset settings"
            </button>
        </section>
    }
}

#[component]
fn Number(app: App, setting: &'static Setting) -> impl IntoView {
    let value = Memo::new(move |_| app.parameters.with(|parameters| setting.value(parameters)));
    let id = format!("setting-{}", setting.name);
    let hint = format!("{id}-hint");
    view! {
        <div class="setting" class:changed=move || value.get() != setting.default>
            <label for=id.clone()>{setting.label}</label>
            <output for=id.clone()>{move || setting.show(value.get())}</output>
            <input
                type="range"
                id=id
                data-setting=setting.name
                min=setting.range.0.to_string()
                max=setting.range.1.to_string()
                step=setting.step.to_string()
                aria-describedby=hint.clone()
                prop:value=move || value.get().to_string()
                on:input:target=move |event| {
                    let typed = event.target().value().parse().unwrap_or(f64::NAN);
                    app.set_parameters(|parameters| setting.put(parameters, typed));
                }
            />
            <p class="hint" id=hint>{setting.hint}</p>
        </div>
    }
}

/// A seed as typed; JavaScript's numbers hold it exactly below 2^53.
fn seed_of(typed: &str) -> Option<u64> {
    typed.trim().parse().ok().filter(|seed| *seed < 1 << 53)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_whole_number_that_javascript_holds() {
        assert_eq!(seed_of(" 7 "), Some(7));
        assert_eq!(seed_of("9007199254740991"), Some((1 << 53) - 1));
        for typed in ["9007199254740992", "-1", "1.5", "x", ""] {
            assert_eq!(seed_of(typed), None, "{typed}");
        }
    }
}
