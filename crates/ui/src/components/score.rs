//! What a critic says of a text: a diverging bar for two labels, a small ranked list for others.

use inkling_engine::{graph::answer::Judgement, protocol::LabelScore};
use leptos::prelude::*;

use crate::{format, run::rank};

/// Labels of a ranked list.
const MOST: usize = 5;

/// What every critic says; each is named where there are several.
#[component]
pub(crate) fn Scores(judgements: Memo<Vec<Judgement>>) -> impl IntoView {
    move || {
        let judgements = judgements.get();
        let is_named = judgements.len() > 1;
        judgements.into_iter().map(|judgement| view! { <Score judgement is_named /> }).collect::<Vec<_>>()
    }
}

#[component]
fn Score(judgement: Judgement, is_named: bool) -> impl IntoView {
    let said = &judgement.classification;
    let body = match rank::poles(said) {
        Some(poles) => {
            let at = format!("{:.2}%", poles.high_score * 100.0);
            let spoken = format!("{} {}", poles.high, format::percent(f64::from(poles.high_score)));
            let (left, width) = if poles.high_score < 0.5 {
                (at.clone(), format!("{:.2}%", 50.0 - poles.high_score * 100.0))
            } else {
                ("50%".to_owned(), format!("{:.2}%", poles.high_score * 100.0 - 50.0))
            };
            let number = format!("{:.2}", poles.high_score);
            let is_high = poles.high_score >= 0.5;
            view! {
                <div class="poles" role="img" aria-label=spoken data-score=poles.high_score.to_string()>
                    <span class="low" class:chosen=!is_high>{poles.low.to_lowercase()}</span>
                    <span class="track">
                        <span class="fill" style:left=left style:width=width></span>
                        <span class="at" style:left=at></span>
                    </span>
                    <span class="high" class:chosen=is_high>{poles.high.to_lowercase()} " " <b>{number}</b></span>
                </div>
            }
            .into_any()
        }
        None => {
            let mut scores: Vec<LabelScore> = said.scores.clone();
            scores.sort_by(|a, b| b.score.total_cmp(&a.score));
            scores.truncate(MOST);
            let row = |label: LabelScore| {
                let width = format!("{:.2}%", label.score * 100.0);
                view! {
                    <li>
                        <span class="label">{label.label}</span>
                        <span class="track" aria-hidden="true"><span class="fill" style:width=width></span></span>
                        <b>{format!("{:.2}", label.score)}</b>
                    </li>
                }
            };
            view! { <ol class="labels">{scores.into_iter().map(row).collect::<Vec<_>>()}</ol> }.into_any()
        }
    };
    view! {
        <div class="score" data-critic=judgement.node.clone() data-label=said.label.clone()>
            {is_named.then(|| view! { <p class="hint">{judgement.node.clone()}</p> })}
            {body}
            {said.truncated.then(|| view! {
                <p class="hint">{format!("judged by its beginning: {} cannot take more", judgement.node)}</p>
            })}
        </div>
    }
}
