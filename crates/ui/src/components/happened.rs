//! What happened in a run, in numbers, and a small drawing of the graph with each node's state.

use leptos::prelude::*;

use super::ribbon::status_of;
use crate::{
    engine::LoadState,
    format,
    run::{
        Phase,
        layout::{Layout, Place},
    },
    state::App,
};

#[component]
pub(crate) fn Happened(app: App) -> impl IntoView {
    let summary = move || {
        app.run.with(|run| match run.phase {
            Phase::Idle => "Nothing yet.".to_owned(),
            _ => {
                let seed = run.answer.seed;
                format!(
                    "Seed {seed}, {} from asking to the last event.",
                    format::duration(run.answer.total_ms)
                )
            }
        })
    };
    let rows = move || {
        let loads = app.loads.get();
        app.run.with(|run| {
            let row = |report: &inkling_engine::graph::answer::NodeReport| {
                let loaded = match loads.get(&report.node) {
                    Some(LoadState::Ready(loaded)) => Some(loaded.clone()),
                    _ => None,
                };
                let ms = |value: Option<f64>| value.map(format::duration).unwrap_or_else(|| "–".into());
                let first = report.first_token_ms.zip(report.started_ms).map(|(first, started)| first - started);
                let hash = report.model_sha256.clone().or_else(|| loaded.as_ref()?.model_sha256.clone());
                let short = hash.as_deref().map(|hash| hash.chars().take(12).collect::<String>());
                let loaded_field = |of: fn(&crate::engine::Loaded) -> String| {
                    loaded.as_ref().map(of).unwrap_or_else(|| "–".into())
                };
                view! {
                    <tr data-report=report.node.clone()>
                        <th scope="row">{report.node.clone()}</th>
                        <td>{report.model.clone().unwrap_or_else(|| "–".into())}</td>
                        <td class="number">{ms(first)}</td>
                        <td class="number">{report.tokens}</td>
                        <td class="number">
                            {report.tokens_per_second.map(|speed| format!("{speed:.0}")).unwrap_or_else(|| "–".into())}
                        </td>
                        <td class="number">{loaded_field(|loaded| format::bytes(loaded.memory_bytes as u64))}</td>
                        <td class="number">{loaded_field(|loaded| format::duration(loaded.load_ms))}</td>
                        <td>{loaded_field(|loaded| loaded.isa.clone())}</td>
                        <td><code title=hash.unwrap_or_default()>{short.unwrap_or_else(|| "–".into())}</code></td>
                    </tr>
                }
            };
            run.answer.nodes.iter().map(row).collect::<Vec<_>>()
        })
    };
    view! {
        <section class="panel" id="happened" aria-labelledby="happened-heading">
            <h2 id="happened-heading">"What happened"</h2>
            <p>{summary}</p>
            <Drawing app />
            <div class="scroll" tabindex="0" role="region" aria-label="Numbers of each node">
                <table>
                    <thead>
                        <tr>
                            <th scope="col">"Node"</th>
                            <th scope="col">"Model"</th>
                            <th scope="col">"First token"</th>
                            <th scope="col">"Tokens"</th>
                            <th scope="col">"Tokens/s"</th>
                            <th scope="col">"Memory"</th>
                            <th scope="col">"Loaded in"</th>
                            <th scope="col">"Kernels"</th>
                            <th scope="col">"SHA-256"</th>
                        </tr>
                    </thead>
                    <tbody>{rows}</tbody>
                </table>
            </div>
        </section>
    }
}

/// The graph as boxes and lines.
#[component]
fn Drawing(app: App) -> impl IntoView {
    const COLUMN: f64 = 190.0;
    const ROW: f64 = 54.0;
    const BOX: (f64, f64) = (140.0, 38.0);
    move || {
        let graph = app.graph.get();
        let layout = Layout::of(&graph);
        let corner = |place: Place| (place.column as f64 * COLUMN + 1.0, place.row * ROW - BOX.1 / 2.0);
        let lines: Vec<_> = layout
            .edges
            .iter()
            .map(|edge| {
                let from = edge.source.map_or(layout.sentence, |source| layout.nodes[source]);
                let to = layout.nodes[edge.target];
                let (x1, x2) = (corner(from).0 + BOX.0, corner(to).0);
                let turn = x2 - (COLUMN - BOX.0) / 2.0;
                let path = format!("M{x1} {} H{turn} V{} H{x2}", from.row * ROW, to.row * ROW);
                view! { <path d=path></path> }
            })
            .collect();
        let node = |name: String, state: String, word: &'static str, place: Place| {
            let (x, y) = corner(place);
            view! {
                <g data-state=word>
                    <rect x=x.to_string() y=y.to_string() width=BOX.0.to_string() height=BOX.1.to_string() rx="3"></rect>
                    <text x=(x + 9.0).to_string() y=(y + 16.0).to_string()>{name}</text>
                    <text class="state" x=(x + 9.0).to_string() y=(y + 30.0).to_string()>{state}</text>
                </g>
            }
        };
        let mut spoken = Vec::new();
        let mut boxes = vec![node("sentence".into(), "given".into(), "done", layout.sentence)];
        for (of, place) in graph.nodes.iter().zip(&layout.nodes) {
            let status = status_of(app, &of.name);
            spoken.push(format!("{}: {}", of.name, status.word));
            boxes.push(node(of.name.clone(), status.word.into(), status.word, *place));
        }
        let size = (layout.columns as f64 * COLUMN - (COLUMN - BOX.0) + 2.0, layout.rows as f64 * ROW);
        view! {
            <svg
                class="drawing"
                role="img"
                aria-label=format!("The graph. {}", spoken.join(", "))
                viewBox=format!("0 0 {} {}", size.0, size.1)
                width=size.0.to_string()
                height=size.1.to_string()
            >
                {lines}
                {boxes}
            </svg>
        }
    }
}
