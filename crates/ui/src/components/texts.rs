//! The texts, side by side; the best ones first once all are judged.

use leptos::prelude::*;

use super::{card::Card, score::Scores};
use crate::{
    run::rank,
    state::{App, Place},
};

#[component]
pub(crate) fn Texts(app: App) -> impl IntoView {
    // Cards are named by run and place, so that another run's are other cards and a ranked one keeps its own.
    let order = Memo::new(move |_| {
        let number = app.run_number.get();
        app.run.with(|run| {
            let mut order: Vec<usize> = (0..run.texts.len()).collect();
            // Two texts stay where they are being read; among more of them the best would be hard to find.
            if order.len() > 2 {
                let ranking = rank::ranking(run);
                let place = |index: &usize| {
                    let id = &run.texts[*index].id;
                    ranking.iter().position(|ranked| ranked == id).unwrap_or(usize::MAX)
                };
                order.sort_by_key(place);
            }
            order.into_iter().map(|index| (number, index)).collect::<Vec<_>>()
        })
    });
    let sentence = Memo::new(move |_| {
        app.run.with(|run| {
            let row = run.answer.rows.iter().find(|row| row.text.is_none());
            row.map(|row| row.judgements.clone()).unwrap_or_default()
        })
    });
    let is_empty = move || order.with(Vec::is_empty);
    view! {
        <section class="texts" aria-labelledby="texts-heading" data-count=move || order.with(Vec::len)>
            <h2 class="unseen" id="texts-heading" tabindex="-1">"Texts"</h2>
            <Show when=is_empty>
                <p class="empty">
                    "Two writers continue your sentence, a critic says how it finds what they wrote. "
                    {move || match app.place.get() {
                        Place::Here => "All of it is computed by your own machine; nothing you type leaves it.".to_owned(),
                        Place::Server(url) => format!("{url} computes it; what you type goes there, and only there."),
                    }}
                </p>
            </Show>
            <Show when=move || !sentence.with(Vec::is_empty)>
                <div class="own">
                    <p>"The sentence itself"</p>
                    <Scores judgements=sentence />
                </div>
            </Show>
            <For each=move || order.get() key=|key| *key let((_, index))>
                <Card app index />
            </For>
        </section>
    }
}
