//! A run on a server: the same events, over server-sent events.

use std::collections::BTreeMap;

use inkling_engine::{
    graph::{
        Answer, Graph,
        spec::{Input, ModelNames, Node, Task},
    },
    protocol::{Parameters, Request, Stamped},
};
use serde::Deserialize;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{
    AbortSignal, Headers, ReadableStreamDefaultReader, RequestInit, Response, TextDecodeOptions, TextDecoder,
};

use crate::{format, sse::Parser};

/// The graph that a server offers, read from the routes in its description.
///
/// # Errors
/// One sentence for the visitor.
pub(crate) async fn graph(url: &str) -> Result<Graph, String> {
    let response = fetch(url, &format!("{url}/docs.json"), &RequestInit::new()).await?;
    if !response.ok() {
        return Err(sentence_of_status(response.status(), None));
    }
    let text = text_of(&response).await.map_err(|_| broken(url))?;
    graph_of_docs(&text).ok_or_else(|| format!("There is a server at {url}, but it is not an Inkling one."))
}

/// Runs a request and gives every event to `on_event` as it comes; the answer at the end, unless it was aborted.
///
/// # Errors
/// One sentence for the visitor; none of the events given before is lost. An aborted run is no error.
pub(crate) async fn run(
    url: &str,
    request: &Request,
    signal: &AbortSignal,
    mut on_event: impl FnMut(Stamped),
) -> Result<Option<Answer>, String> {
    let body = serde_json::to_string(request).map_err(|error| error.to_string())?;
    let init = RequestInit::new();
    init.set_method("POST");
    init.set_body(&JsValue::from_str(&body));
    init.set_signal(Some(signal));
    let headers = Headers::new().map_err(|_| broken(url))?;
    for (name, value) in [("content-type", "application/json"), ("accept", "text/event-stream")] {
        headers.set(name, value).map_err(|_| broken(url))?;
    }
    init.set_headers(&headers);
    let response = match fetch(url, &format!("{url}/v1/graphs/default/run"), &init).await {
        Err(_) if signal.aborted() => return Ok(None),
        other => other?,
    };
    if !response.ok() {
        let reason = text_of(&response).await.ok().and_then(|body| reason_of(&body));
        return Err(sentence_of_status(response.status(), reason));
    }
    let reader: ReadableStreamDefaultReader =
        response.body().ok_or_else(|| broken(url))?.get_reader().unchecked_into();
    let decoder = TextDecoder::new().map_err(|_| broken(url))?;
    let options = TextDecodeOptions::new();
    options.set_stream(true);
    let mut parser = Parser::default();
    loop {
        let piece = match JsFuture::from(reader.read()).await {
            Err(_) if signal.aborted() => return Ok(None),
            Err(_) => return Err(broken(url)),
            Ok(piece) => piece,
        };
        let field = |name: &str| js_sys::Reflect::get(&piece, &name.into()).unwrap_or_default();
        if field("done").is_truthy() {
            return Err(broken(url));
        }
        let bytes: js_sys::Uint8Array = field("value").unchecked_into();
        let text = decoder
            .decode_with_js_u8_array_and_options(&bytes, &options)
            .map_err(|_| "The server's answer is not text.".to_owned())?;
        for event in parser.push(&text) {
            if event.name == "answer" {
                return Ok(serde_json::from_str(&event.data).ok());
            }
            let stamped = serde_json::from_str(&event.data)
                .map_err(|_| format!("The server at {url} speaks another version of Inkling's protocol."))?;
            on_event(stamped);
        }
    }
}

async fn fetch(url: &str, address: &str, init: &RequestInit) -> Result<Response, String> {
    let window = web_sys::window().ok_or_else(|| broken(url))?;
    let answer = JsFuture::from(window.fetch_with_str_and_init(address, init)).await;
    answer.map(JsCast::unchecked_into).map_err(|_| {
        let location = window.location();
        let is_secure = location.protocol().is_ok_and(|protocol| protocol == "https:");
        let origin = location.origin().unwrap_or_default();
        unreachable_sentence(url, &origin, is_secure)
    })
}

async fn text_of(response: &Response) -> Result<String, JsValue> {
    Ok(JsFuture::from(response.text()?).await?.as_string().unwrap_or_default())
}

fn broken(url: &str) -> String {
    format!("The connection to {url} broke. The text so far is kept.")
}

fn unreachable_sentence(url: &str, origin: &str, is_secure: bool) -> String {
    let is_local = url.contains("//localhost") || url.contains("//127.0.0.1") || url.contains("//[::1]");
    if is_secure && url.starts_with("http://") && !is_local {
        return format!(
            "This page came over https and may not ask {url}, which has no https. Use an https address."
        );
    }
    format!(
        "No answer from {url}. It is not running, or does not let this page in: start it with --allow-origin {origin}."
    )
}

fn sentence_of_status(status: u16, reason: Option<String>) -> String {
    let said = reason.map(|reason| format!(" It says: {}", format::sentence(&reason))).unwrap_or_default();
    match status {
        429 => "The server has too much to do just now. Try again in a moment.".into(),
        413 => "The sentence is longer than the server takes.".into(),
        401 | 403 => "The server does not let this page in.".into(),
        404 => "There is a server at this address, but it has no graph to run.".into(),
        400 | 422 => format!("The server cannot do this.{said}"),
        503 => format!("The server is not ready yet.{said}"),
        504 => format!("The server ran out of time.{said}"),
        _ => format!("The server failed (status {status}).{said}"),
    }
}

fn reason_of(body: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Problem {
        error: String,
    }
    serde_json::from_str(body).ok().map(|problem: Problem| problem.error)
}

/// The description names its nodes in a sentence: `Generators: gpt2, distilgpt2. Classifiers: bert.` How they are
/// connected is not in it: every writer is taken to continue the sentence and every critic to judge every writer, as in
/// the default graph.
fn graph_of_docs(json: &str) -> Option<Graph> {
    #[derive(Deserialize)]
    struct Docs {
        info: Info,
        paths: BTreeMap<String, serde::de::IgnoredAny>,
    }
    #[derive(Deserialize)]
    struct Info {
        description: String,
    }
    let docs: Docs = serde_json::from_str(json).ok()?;
    docs.paths.get("/v1/graphs/{graph}/run")?;
    let named = |head: &str| {
        let (_, rest) = docs.info.description.split_once(head)?;
        let names = rest.split('.').next()?.split(", ");
        Some(names.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect::<Vec<_>>())
    };
    let (writers, critics) = (named("Generators: ")?, named("Classifiers: ")?);
    let judged: Vec<Input> = match writers.len() {
        0 => vec![Input::Sentence],
        count => (0..count).map(Input::Node).collect(),
    };
    let node = |name: String, task, inputs| Node {
        name,
        task,
        model: ModelNames::Same("server".into()),
        inputs,
        parameters: Parameters::default(),
    };
    let writers = writers.into_iter().map(|name| node(name, Task::Generate, vec![Input::Sentence]));
    let critics = critics.into_iter().map(|name| node(name, Task::Classify, judged.clone()));
    let nodes: Vec<Node> = writers.chain(critics).collect();
    (!nodes.is_empty()).then(|| Graph { name: "default".into(), nodes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_of_the_default_graph_gives_the_default_graph() {
        let docs = r#"{
            "openapi": "3.1.0",
            "info": {"description": "A graph. Generators: gpt2, distilgpt2. Classifiers: bert."},
            "paths": {"/v1/graphs/{graph}/run": {"post": {}}, "/{node}/generate": {}}
        }"#;
        let graph = graph_of_docs(docs).unwrap();
        let shape = |graph: &Graph| {
            let nodes = graph.nodes.iter().map(|node| (node.name.clone(), node.task, node.inputs.clone()));
            nodes.collect::<Vec<_>>()
        };
        assert_eq!(shape(&graph), shape(&Graph::default()));
    }

    #[test]
    fn another_service_is_not_taken_for_ours() {
        for body in ["", "<html>", "{}", r#"{"info": {"description": "Pets."}, "paths": {"/pets": {}}}"#] {
            assert_eq!(graph_of_docs(body), None);
        }
    }

    #[test]
    fn each_failure_is_one_sentence_that_says_what_to_do() {
        let secure = unreachable_sentence("http://10.0.0.2:3000", "https://a.example", true);
        assert!(secure.contains("https address"), "{secure}");
        let gone = unreachable_sentence("http://127.0.0.1:3000", "https://a.example", true);
        assert!(gone.contains("--allow-origin https://a.example"), "{gone}");
        let reason = reason_of(r#"{"error": "`temperature` should be above 0, got -1", "detail": []}"#);
        assert_eq!(
            sentence_of_status(422, reason),
            "The server cannot do this. It says: `temperature` should be above 0, got -1."
        );
        assert_eq!(reason_of("<html>"), None);
        assert!(sentence_of_status(500, None).contains("500"));
    }
}
