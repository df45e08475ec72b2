//! The graph, live: a sentence, the writers that continue it, the critics that judge. It is progress bar, status and
//! explanation in one.

use leptos::prelude::*;

use inkling_engine::graph::{Graph, spec::Task};

use crate::{
    engine::LoadState,
    run::layout::{Layout, Place},
    state::{App, EngineState, Place as Home},
    status::Status,
};

/// Width of the sentence's column, of a node's column and of the gap between two, in hundredths of the ribbon, for a
/// graph of so many columns.
struct Columns {
    sentence: f64,
    gap: f64,
    node: f64,
}

impl Columns {
    fn of(layout: &Layout) -> Columns {
        let (sentence, gap) = (10.0, 6.0);
        let nodes = (layout.columns - 1).max(1) as f64;
        Columns { sentence, gap, node: (100.0 - sentence - gap * nodes) / nodes }
    }

    fn left(&self, column: usize) -> f64 {
        match column {
            0 => 0.0,
            _ => self.sentence + self.gap + (column - 1) as f64 * (self.node + self.gap),
        }
    }

    fn right(&self, column: usize) -> f64 {
        self.left(column) + if column == 0 { self.sentence } else { self.node }
    }
}

#[component]
pub(crate) fn Ribbon(app: App) -> impl IntoView {
    view! {
        <section class="ribbon" aria-label="The graph">
            {move || {
                let graph = app.graph.get();
                let layout = Layout::of(&graph);
                let columns = Columns::of(&layout);
                let height = format!("{}rem", layout.rows as f64 * 3.0);
                let top = |place: Place| format!("{}rem", place.row * 3.0);
                let nodes = graph.nodes.iter().zip(&layout.nodes).map(|(node, place)| {
                    let left = format!("{}%", columns.left(place.column));
                    let width = format!("{}%", columns.node);
                    view! { <Node app name=node.name.clone() task=node.task left width top=top(*place) /> }
                });
                view! {
                    <div class="plan" style:height=height>
                        <Edges app graph=graph.as_ref().clone() layout=layout.clone() />
                        <ol>
                            <li
                                class="node sentence"
                                style:left="0%"
                                style:width=format!("{}%", columns.sentence)
                                style:top=top(layout.sentence)
                            >
                                <span class="name">"sentence"</span>
                            </li>
                            {nodes.collect::<Vec<_>>()}
                        </ol>
                    </div>
                }
            }}
        </section>
    }
}

/// The lines between nodes. A line is drawn strong once a text has gone along it.
#[component]
fn Edges(app: App, graph: Graph, layout: Layout) -> impl IntoView {
    let columns = Columns::of(&layout);
    let lines: Vec<_> = layout
        .edges
        .iter()
        .map(|edge| {
            let from = edge.source.map_or(layout.sentence, |source| layout.nodes[source]);
            let to = layout.nodes[edge.target];
            let (x1, x2) = (columns.right(from.column), columns.left(to.column));
            // Lines turn in the last gap, so that a long one passes behind the nodes between.
            let turn = x2 - columns.gap / 2.0;
            let path = format!("M{x1} {} H{turn} V{} H{x2}", from.row, to.row);
            let source = edge.source.map(|source| graph.nodes[source].name.clone());
            let target = graph.nodes[edge.target].name.clone();
            let is_lit = move || {
                app.run.with(|run| {
                    let sent = match &source {
                        None => run.is_open() || run.answer.total_ms > 0.0,
                        Some(name) => run.node(name).is_some_and(|node| node.ended > 0),
                    };
                    sent && run.node(&target).is_some()
                })
            };
            view! { <path d=path class:lit=is_lit></path> }
        })
        .collect();
    let view_box = format!("0 0 100 {}", layout.rows);
    view! {
        <svg class="edges" viewBox=view_box preserveAspectRatio="none" aria-hidden="true">
            {lines}
        </svg>
    }
}

#[component]
fn Node(app: App, name: String, task: Task, left: String, width: String, top: String) -> impl IntoView {
    let name = StoredValue::new(name);
    let status = Memo::new(move |_| name.with_value(|name| status_of(app, name)));
    let loads = move || {
        let is_loading = |load: &crate::engine::LoadState| matches!(load, crate::engine::LoadState::Loading { from, .. } if from == "network");
        name.with_value(|name| app.loads.with(|loads| loads.get(name).is_some_and(is_loading)))
    };
    let share =
        move || status.with(|status| status.progress.map(|progress| format!("{:.1}%", progress * 100.0)));
    view! {
        <li
            class="node"
            data-node=name.get_value()
            data-task=if task == Task::Generate { "generate" } else { "classify" }
            data-state=move || status.with(|status| status.word)
            style:left=left
            style:width=width
            style:top=top
        >
            <span class="dot" aria-hidden="true"></span>
            <span class="name">{name.get_value()}</span>
            <span class="detail">{move || status.with(|status| status.detail.clone())}</span>
            <Show when=move || status.with(|status| status.can_retry)>
                <button
                    type="button"
                    class="small"
                    aria-label=format!("Try {} again", name.get_value())
                    on:click=move |_| name.with_value(|name| app.retry(name))
                >
                    "Try again"
                </button>
            </Show>
            <Show when=loads>
                <button
                    type="button"
                    class="small"
                    aria-label=format!("Stop loading {}", name.get_value())
                    on:click=move |_| name.with_value(|name| app.stop_loading(name))
                >
                    "Stop loading"
                </button>
            </Show>
            <span class="progress" aria-hidden="true">
                <span style:width=move || share().unwrap_or_else(|| "0%".into())></span>
            </span>
        </li>
    }
}

/// What the ribbon says of a node now.
pub(crate) fn status_of(app: App, name: &str) -> Status {
    let is_here = app.place.with(|place| *place == Home::Here);
    // A node without a state of its own shares the engine's.
    let shared = match app.engine.get() {
        EngineState::Failed(error) => LoadState::Failed { error, kind: "engine".into(), can_retry: true },
        EngineState::Ready(capabilities) if !capabilities.simd => LoadState::Failed {
            error: "cannot run here".into(),
            kind: "unsupported".into(),
            can_retry: false,
        },
        EngineState::Loading | EngineState::Ready(_) => LoadState::Waiting,
    };
    let no_server = LoadState::Failed { error: "no answer".into(), kind: "server".into(), can_retry: true };
    let is_server_gone = app.is_server_gone.get();
    app.loads.with(|loads| {
        let load = match loads.get(name) {
            None if is_here => Some(&shared),
            None if is_server_gone => Some(&no_server),
            load => load,
        };
        app.run.with(|run| {
            let node = run.node(name).filter(|_| run.phase != crate::run::Phase::Idle);
            let most = run.request.parameters.max_length.unwrap_or(128);
            Status::of(load, node, node.map(|node| node.expected * most), !run.is_open())
        })
    })
}
