//! What happened in a run, in numbers, and a small drawing of the graph with each node's state.

use inkling_engine::graph::answer::NodeReport;
use leptos::prelude::*;

use super::ribbon::status_of;
use crate::{
    browser,
    engine::{LoadState, Loaded},
    format,
    run::{
        Phase,
        layout::{Layout, Place},
    },
    state::App,
};

#[component]
pub(crate) fn Happened(app: App) -> impl IntoView {
    let is_dtype = move || app.run.with(|run| run.dtype == Some(app.dtype.get()));
    // What is loaded now was loaded for this run only if it is the same model, its weights kept alike.
    let loaded_for = move |report: &NodeReport| match app.loads.with(|loads| loads.get(&report.node).cloned())
    {
        Some(LoadState::Ready(loaded)) if report.model_sha256 == loaded.model_sha256 && is_dtype() => {
            Some(loaded)
        }
        _ => None,
    };
    let summary = move || {
        app.run.with(|run| match run.phase {
            Phase::Idle => "Nothing yet.".to_owned(),
            _ => {
                let (seed, time) = (run.answer.seed, format::duration(run.answer.total_ms));
                let reports = &run.answer.nodes;
                let tokens: usize = reports.iter().map(|report| report.tokens).sum();
                let memory: f64 =
                    reports.iter().filter_map(loaded_for).map(|loaded| loaded.memory_bytes).sum();
                let memory = match memory {
                    0.0 => String::new(),
                    bytes => format!(" The models take {} of memory.", format::bytes(bytes as u64)),
                };
                let tokens = format::count(tokens, "token", "tokens");
                let weights =
                    run.dtype.map(|dtype| format!(" Weights at {}.", dtype.bits())).unwrap_or_default();
                format!("Seed {seed}. {tokens} in {time}, from asking to the last event.{weights}{memory}")
            }
        })
    };
    let rows = move || {
        app.run.with(|run| {
            let row = |report: &NodeReport| {
                let loaded = loaded_for(report);
                let ms = |value: Option<f64>| value.map_or_else(nothing, format::duration);
                let of_loaded = |of: fn(&Loaded) -> String| loaded.as_ref().map_or_else(nothing, of);
                let hash = report.model_sha256.clone().unwrap_or_default();
                let judged = run.answer.rows.iter().flat_map(|row| &row.judgements);
                let judged = judged.filter(|judgement| judgement.node == report.node).count();
                let done = match (report.tokens, judged) {
                    (0, 0) => nothing(),
                    (0, judged) => format!("{} judged", format::count(judged, "text", "texts")),
                    (tokens, _) => format::count(tokens, "token", "tokens"),
                };
                let speed = report.tokens_per_second.map_or_else(nothing, |speed| format!("{speed:.0}"));
                view! {
                    <tr data-report=report.node.clone()>
                        <th scope="row">{report.node.clone()}</th>
                        <td>{report.model.clone().unwrap_or_else(nothing)}</td>
                        <td class="number">{ms(report.started_ms)}</td>
                        <td class="number">{ms(report.first_token_ms)}</td>
                        <td class="number">{ms(report.ended_ms)}</td>
                        <td class="number">{done}</td>
                        <td class="number">{speed}</td>
                        <td class="number">{of_loaded(|loaded| format::bytes(loaded.memory_bytes as u64))}</td>
                        <td class="number">{of_loaded(|loaded| format::duration(loaded.load_ms))}</td>
                        <td>{of_loaded(|loaded| format::kernels(&loaded.isa))}</td>
                        <td><code title=hash.clone()>{short(&hash)}</code></td>
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
            <p class="hint">"Times count from asking."</p>
            <div class="scroll" tabindex="0" role="region" aria-label="Numbers of each node">
                <table>
                    <thead>
                        <tr>
                            <th scope="col">"Node"</th>
                            <th scope="col">"Model"</th>
                            <th scope="col">"Began after"</th>
                            <th scope="col">"First token"</th>
                            <th scope="col">"Ended"</th>
                            <th scope="col">"Did"</th>
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

fn nothing() -> String {
    "–".into()
}

/// The head of a hash, long enough to compare.
fn short(hash: &str) -> String {
    if hash.is_empty() { nothing() } else { hash.chars().take(12).collect() }
}

/// The graph as boxes and lines.
#[component]
fn Drawing(app: App) -> impl IntoView {
    const ROW: f64 = 54.0;
    const BOX_HEIGHT: f64 = 38.0;
    move || {
        // Three columns fit a phone without being scaled down.
        let (column_width, box_width) = if browser::is_narrow() { (110.0, 92.0) } else { (190.0, 140.0) };
        let graph = app.graph.get();
        let layout = Layout::of(&graph);
        let corner =
            |place: Place| (place.column as f64 * column_width + 1.0, place.row * ROW - BOX_HEIGHT / 2.0);
        let lines: Vec<_> = layout
            .edges
            .iter()
            .map(|edge| {
                let from = edge.source.map_or(layout.sentence, |source| layout.nodes[source]);
                let to = layout.nodes[edge.target];
                let (x1, x2) = (corner(from).0 + box_width, corner(to).0);
                let turn = x2 - (column_width - box_width) / 2.0;
                let path = format!("M{x1} {} H{turn} V{} H{x2}", from.row * ROW, to.row * ROW);
                view! { <path d=path></path> }
            })
            .collect();
        let node = |name: String, state: String, word: &'static str, place: Place| {
            let (x, y) = corner(place);
            let most = (box_width / 7.6) as usize;
            let cut: String = name.chars().take(most - 1).collect();
            let label = if name.chars().count() > most { format!("{cut}…") } else { name.clone() };
            view! {
                <g data-state=word>
                    <title>{name}</title>
                    <rect x=x.to_string() y=y.to_string() width=box_width.to_string() height=BOX_HEIGHT.to_string() rx="3"></rect>
                    <text x=(x + 9.0).to_string() y=(y + 16.0).to_string()>{label}</text>
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
        let size = (
            layout.columns as f64 * column_width - (column_width - box_width) + 2.0,
            layout.rows as f64 * ROW,
        );
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
