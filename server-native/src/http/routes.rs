//! What each route does.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{OriginalUri, Path, State},
    http::{HeaderMap, Method, StatusCode, header},
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use futures_util::{Stream, stream};
use inkling_engine::{
    graph::{Answer, Graph, answer::Pair, spec::Task},
    protocol::Request,
};
use serde::Serialize;

use super::{App, body::Asked, graph::GraphInfo, openapi, problem::Problem};
use crate::host::{NodeState, Running};

type Shared = State<Arc<App>>;

/// A generator's answer, as the reference has it.
#[derive(Serialize)]
pub(super) struct Generated {
    generated_text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// The graph's texts and scores.
///
/// One row a continuation, in the order of the graph. A row that failed has nulls and an error, the others stay whole.
#[utoipa::path(post, path = "/generate_score", tag = "graph", responses((status = 200, description = "The rows", body = [openapi::Row])))]
pub(super) async fn generate_score(
    State(app): Shared,
    Asked(request): Asked,
) -> Result<Json<Vec<Pair>>, Problem> {
    let answer = finish(&app, app.host.run(request)).await?;
    Ok(Json(answer.pairs()))
}

/// The graph: its nodes, the models that they run on, and what holds where a request says nothing.
#[utoipa::path(
    get,
    path = "/v1/graphs/{graph}",
    tag = "graph",
    params(("graph" = String, Path, description = "`default`, or the name of the graph that is served")),
    responses(
        (status = 200, description = "The graph", body = GraphInfo),
        (status = 404, description = "No graph of this name", body = Problem),
    )
)]
pub(super) async fn graph(State(app): Shared, Path(graph): Path<String>) -> Result<Json<GraphInfo>, Problem> {
    known_graph(&app, &graph)?;
    Ok(Json(GraphInfo::of(&app.host)))
}

/// The graph's full answer, or its events as they come.
///
/// With `accept: text/event-stream` the events come as they happen, a JSON object each, and last the answer as an event
/// named `answer`.
#[utoipa::path(
    post,
    path = "/v1/graphs/{graph}/run",
    tag = "graph",
    params(("graph" = String, Path, description = "`default`, or the name of the graph that is served")),
    responses((status = 200, description = "The answer, or its events", content(
        (openapi::Answer = "application/json"),
        (String = "text/event-stream"),
    )))
)]
pub(super) async fn run(
    State(app): Shared,
    Path(graph): Path<String>,
    headers: HeaderMap,
    Asked(request): Asked,
) -> Result<Response, Problem> {
    known_graph(&app, &graph)?;
    let running = app.host.run(request);
    if wants_events(&headers) {
        let running = running.map_err(|refused| Problem::of_refusal(&refused))?;
        let keep_alive = KeepAlive::new().interval(Duration::from_secs(10));
        return Ok(Sse::new(events(running)).keep_alive(keep_alive).into_response());
    }
    Ok(Json(finish(&app, running).await?).into_response())
}

/// One generator by itself.
#[utoipa::path(
    post,
    path = "/{node}/generate",
    tag = "nodes",
    params(("node" = String, Path, description = "A generator of the graph")),
    responses((status = 200, description = "Its continuations", body = [openapi::Continuation]))
)]
pub(super) async fn generate(
    State(app): Shared,
    Path(node): Path<String>,
    Asked(request): Asked,
) -> Result<Json<Vec<Generated>>, Problem> {
    let answer = run_alone(&app, &node, Task::Generate, request).await?;
    let rows = answer.pairs().into_iter();
    Ok(Json(rows.map(|pair| Generated { generated_text: pair.generated, error: pair.error }).collect()))
}

/// One classifier by itself.
#[utoipa::path(
    post,
    path = "/{node}/classify",
    tag = "nodes",
    params(("node" = String, Path, description = "A classifier of the graph")),
    responses((status = 200, description = "Its judgement", body = openapi::Classification))
)]
pub(super) async fn classify(
    State(app): Shared,
    Path(node): Path<String>,
    Asked(request): Asked,
) -> Result<Response, Problem> {
    let mut answer = run_alone(&app, &node, Task::Classify, request).await?;
    let judgement = answer.rows.first_mut().and_then(|row| row.judgements.pop());
    Ok(Json(judgement.map(|judgement| judgement.classification)).into_response())
}

/// The first classifier by itself: text in, score of the likeliest label out.
#[utoipa::path(post, path = "/classify_generated_texts", tag = "nodes", responses((status = 200, description = "The score", body = f32)))]
pub(super) async fn classify_generated_texts(
    State(app): Shared,
    Asked(request): Asked,
) -> Result<Json<Option<f32>>, Problem> {
    let Some(node) = app.host.nodes(Task::Classify).next().map(str::to_string) else {
        return Err(Problem::new(StatusCode::NOT_FOUND, "the graph has no classifier"));
    };
    let answer = run_alone(&app, &node, Task::Classify, request).await?;
    Ok(Json(answer.rows.first().and_then(|row| row.score)))
}

/// Whether the server answers at all: one newline.
#[utoipa::path(get, path = "/livez", tag = "health", responses((status = 200, description = "It does", body = String)))]
pub(super) async fn alive() -> &'static str {
    "\n"
}

/// The same as `/livez`.
#[utoipa::path(get, path = "/healthz", tag = "health", responses((status = 200, description = "It does", body = String)))]
pub(super) async fn healthy() -> &'static str {
    "\n"
}

/// Whether every model is there: one newline.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "health",
    responses(
        (status = 200, description = "They are", body = String),
        (status = 503, description = "What is missing", body = Problem),
    )
)]
pub(super) async fn ready(State(app): Shared) -> Response {
    if app.host.is_ready() {
        return "\n".into_response();
    }
    let waiting = app.host.states().filter_map(|(node, state)| match state {
        NodeState::Ready => None,
        NodeState::Failed(reason) => Some(format!("node `{node}` has no model: {reason}")),
        NodeState::Loading { file, .. } if file.is_empty() => Some(format!("node `{node}` is loading")),
        NodeState::Loading { file, bytes, total_bytes: Some(total) } => {
            Some(format!("node `{node}` is loading: {bytes} of {total} bytes of {file}"))
        }
        NodeState::Loading { file, bytes, total_bytes: None } => {
            Some(format!("node `{node}` is loading: {bytes} bytes of {file}"))
        }
    });
    let error = waiting.collect::<Vec<_>>().join("; ");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, error).into_response()
}

/// Counters in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", tag = "health", responses((status = 200, description = "The counters", body = String)))]
pub(super) async fn metrics(State(app): Shared) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.metrics.render(&app.host))
}

/// This description.
#[utoipa::path(get, path = "/docs.json", tag = "health", responses((status = 200, description = "OpenAPI")))]
pub(super) async fn docs(State(app): Shared) -> impl IntoResponse {
    let generators: Vec<&str> = app.host.nodes(Task::Generate).collect();
    let classifiers: Vec<&str> = app.host.nodes(Task::Classify).collect();
    Json(openapi::document(&generators, &classifiers))
}

/// The page's files, at every path that no other route has.
pub(super) async fn page(
    State(app): Shared,
    method: Method,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Response {
    match app.page.answer(&method, &uri, &headers) {
        Some(response) if response.status() == StatusCode::METHOD_NOT_ALLOWED => {
            let problem = method_not_allowed(method, OriginalUri(uri)).await;
            ([(header::ALLOW, "GET,HEAD")], problem).into_response()
        }
        Some(response) => response,
        None => {
            let error = format!("there is nothing at {}; /docs.json lists what there is", uri.path());
            Problem::new(StatusCode::NOT_FOUND, error).into_response()
        }
    }
}

pub(super) async fn method_not_allowed(method: Method, OriginalUri(uri): OriginalUri) -> Problem {
    let error = format!("{} does not take {method}; the `allow` header says what it takes", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, error)
}

fn known_graph(app: &App, graph: &str) -> Result<(), Problem> {
    let name = &app.host.graph().name;
    if graph == "default" || graph == name {
        return Ok(());
    }
    let also = if name == "default" { "" } else { ", also called `default`" };
    let error = format!("no graph named `{graph}`; there is `{name}`{also}");
    Err(Problem::new(StatusCode::NOT_FOUND, error))
}

async fn run_alone(app: &App, node: &str, task: Task, request: Request) -> Result<Answer, Problem> {
    let graph: Option<Arc<Graph>> =
        if app.host.nodes(task).any(|other| other == node) { app.host.alone(node) } else { None };
    let Some(graph) = graph else {
        let names: Vec<&str> = app.host.nodes(task).collect();
        let kind = match task {
            Task::Generate => "generator",
            Task::Classify => "classifier",
        };
        let known = if names.is_empty() { "none".into() } else { names.join(", ") };
        let error = format!("no {kind} named `{node}`; there are: {known}");
        return Err(Problem::new(StatusCode::NOT_FOUND, error));
    };
    finish(app, app.host.run_graph(graph, request)).await
}

async fn finish(app: &App, running: Result<Running, crate::host::Refused>) -> Result<Answer, Problem> {
    let answer = running.map_err(|refused| Problem::of_refusal(&refused))?.finish().await;
    match Problem::of_answer(&answer, app.host.limits()) {
        Some(problem) => Err(problem),
        None => Ok(answer),
    }
}

fn wants_events(headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(header::ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    let mut kinds = accepts.flat_map(|value| value.split(','));
    kinds.any(|kind| {
        kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream"))
    })
}

/// A run's events as they come, then its answer as an event of that name. Dropped when the reader goes away, and the run
/// with it.
fn events(running: Running) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(Some(running), |running| async move {
        let mut running = running?;
        match running.next().await {
            Some(event) => Some((Ok(json_event(&event)), Some(running))),
            None => Some((Ok(json_event(running.answer()).event("answer")), None)),
        }
    })
}

fn json_event(data: &impl Serialize) -> Event {
    Event::default().json_data(data).expect("events and answers have text keys and finite numbers")
}
