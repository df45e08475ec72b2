//! A run on a server: the same events, over server-sent events.

use std::collections::BTreeMap;

use inkling_engine::{
    graph::{
        Answer, Graph,
        spec::{Input, ModelNames, Node, SENTENCE, Task},
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

/// What a server offers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Offer {
    /// Its graph.
    pub(crate) graph: Graph,
    /// The models that are loaded there, by node.
    pub(crate) models: BTreeMap<String, Model>,
}

/// A model on a server.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct Model {
    /// What it is called there.
    pub(crate) name: String,
    /// Bytes of its files.
    pub(crate) size_bytes: Option<u64>,
}

/// What the server at `url` offers.
///
/// # Errors
/// One sentence for the visitor.
pub(crate) async fn offer(url: &str) -> Result<Offer, String> {
    let response = fetch(url, &format!("{url}/v1/graphs/default"), &RequestInit::new()).await?;
    let stranger = || format!("There is a server at {url}, but it is not an Inkling one of this version.");
    match response.status() {
        404 | 405 => return Err(stranger()),
        _ if !response.ok() => return Err(sentence_of_status(response.status(), None)),
        _ => {}
    }
    let text = text_of(&response).await.map_err(|_| broken(url))?;
    read_offer(&text).ok_or_else(stranger)
}

/// Why a run on a server came to nothing.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Broken {
    /// One sentence for the visitor.
    pub(crate) text: String,
    /// Whether there was no answer at all.
    pub(crate) is_gone: bool,
}

impl From<String> for Broken {
    fn from(text: String) -> Broken {
        Broken { text, is_gone: false }
    }
}

/// Runs a request and gives every event to `on_event` as it comes; the answer at the end, unless it was aborted.
///
/// # Errors
/// [`Broken`]; none of the events given before is lost. An aborted run is no error.
pub(crate) async fn run(
    url: &str,
    request: &Request,
    signal: &AbortSignal,
    mut on_event: impl FnMut(Stamped),
) -> Result<Option<Answer>, Broken> {
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
        other => other.map_err(|text| Broken { text, is_gone: true })?,
    };
    if !response.ok() {
        let reason = text_of(&response).await.ok().and_then(|body| reason_of(&body));
        return Err(sentence_of_status(response.status(), reason).into());
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
            Err(_) => return Err(broken(url).into()),
            Ok(piece) => piece,
        };
        let field = |name: &str| js_sys::Reflect::get(&piece, &name.into()).unwrap_or_default();
        if field("done").is_truthy() {
            return Err(broken(url).into());
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

fn read_offer(json: &str) -> Option<Offer> {
    #[derive(Deserialize)]
    struct Told {
        name: String,
        nodes: Vec<ToldNode>,
    }
    #[derive(Deserialize)]
    struct ToldNode {
        name: String,
        task: Task,
        inputs: Vec<String>,
        model: Option<Model>,
        #[serde(default)]
        parameters: Option<Parameters>,
    }
    let Told { name, nodes: told } = serde_json::from_str(json).ok()?;
    let input = |name: &String| match told.iter().position(|node| node.name == *name) {
        Some(node) => Some(Input::Node(node)),
        None => (name == SENTENCE).then_some(Input::Sentence),
    };
    let mut nodes = Vec::new();
    for node in &told {
        let inputs: Option<Vec<Input>> = node.inputs.iter().map(input).collect();
        // What comes over a wire is not drawn unchecked: a circle would never end.
        let inputs = inputs.filter(|inputs| !inputs.is_empty())?;
        nodes.push(Node {
            name: node.name.clone(),
            task: node.task,
            model: ModelNames::Same(node.model.as_ref().map_or("server".into(), |model| model.name.clone())),
            inputs,
            parameters: node.parameters.clone().unwrap_or_default(),
        });
    }
    let graph = Graph { name, nodes };
    if graph.nodes.is_empty() || !has_an_order(&graph) {
        return None;
    }
    let models = told.into_iter().filter_map(|node| Some((node.name, node.model?)));
    Some(Offer { graph, models: models.collect() })
}

/// Whether every node has an end to its inputs.
fn has_an_order(graph: &Graph) -> bool {
    let mut placed = vec![false; graph.nodes.len()];
    for _ in &graph.nodes {
        for (index, node) in graph.nodes.iter().enumerate() {
            placed[index] |= node.inputs.iter().all(|input| match input {
                Input::Sentence => true,
                Input::Node(source) => placed[*source],
            });
        }
    }
    placed.into_iter().all(|placed| placed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(inputs_of_bert: &str) -> String {
        format!(
            r#"{{"name": "default", "nodes": [
                {{"name": "gpt2", "task": "generate", "inputs": ["sentence"], "state": "ready",
                  "model": {{"name": "writer", "sha256": "00", "size_bytes": 8}}, "parameters": {{"top_k": 50}}}},
                {{"name": "distilgpt2", "task": "generate", "inputs": ["sentence"], "state": "loading", "model": null}},
                {{"name": "bert", "task": "classify", "inputs": {inputs_of_bert}, "parameters": null}}
            ]}}"#
        )
    }

    #[test]
    fn what_a_server_tells_of_the_default_graph_is_the_default_graph() {
        let offer = read_offer(&told(r#"["gpt2", "distilgpt2"]"#)).unwrap();
        let shape = |graph: &Graph| {
            let nodes = graph.nodes.iter().map(|node| (node.name.clone(), node.task, node.inputs.clone()));
            nodes.collect::<Vec<_>>()
        };
        assert_eq!(shape(&offer.graph), shape(&Graph::default()));
        assert_eq!(offer.graph.nodes[0].parameters.top_k, Some(50));
        let models: Vec<_> = offer.models.iter().map(|(node, model)| (&node[..], model.size_bytes)).collect();
        assert_eq!(models, [("gpt2", Some(8))]);
    }

    #[test]
    fn another_service_or_a_graph_that_cannot_be_is_not_taken_for_ours() {
        let strange = ["", "<html>", "{}", r#"{"name": "pets", "nodes": []}"#];
        let circles = [told(r#"["bert"]"#), told(r#"["nobody"]"#), told("[]")];
        for body in strange.into_iter().map(str::to_owned).chain(circles) {
            assert_eq!(read_offer(&body), None, "{body}");
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
