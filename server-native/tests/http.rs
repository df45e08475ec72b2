//! The HTTP API, over real sockets on loopback: the reference's table, and what is better than it.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up should stop where it stands")]

#[path = "support/server.rs"]
mod server;
mod support;

use std::{
    io::{Read, Write},
    net::Shutdown,
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use axum::http::HeaderValue;
use inkling_engine::{
    graph::{Graph, node::Jobs},
    kernels::Pool,
    protocol::{Classification, Event, FailureKind, FinishReason, Job, Token, Work},
};
use inkling_server::{
    host::{Limits, Load, Worker},
    http::{Site, page},
    models::Source,
};
use serde_json::{Value, json};
use server::{LIMITS, Reply, Server, load_from, read_reply};

/// One server for all tests that leave it as it was.
fn shared() -> &'static Server {
    static SERVER: LazyLock<(tempfile::TempDir, Server)> = LazyLock::new(|| {
        let folder = support::models();
        let server = Server::of_folder(folder.path(), LIMITS);
        (folder, server)
    });
    &SERVER.1
}

/// A request that is quick and says the same each time.
fn ask() -> Value {
    json!({"original_sentence": "I have an idea!", "seed": 7, "max_length": 24})
}

fn rows(reply: &Reply) -> Vec<Value> {
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json().as_array().unwrap().clone()
}

#[track_caller]
fn check_problem(reply: &Reply, status: u16, error: &str) {
    assert_eq!(reply.status, status, "{reply:?}");
    assert_eq!(reply.json()["error"], error);
}

#[test]
fn generate_score_answers_a_row_for_each_generator_with_two_keys() {
    let reply = shared().post_json("/generate_score", &ask());
    let rows = rows(&reply);
    assert_eq!(rows.len(), 2);
    for row in &rows {
        assert_eq!(row.as_object().unwrap().len(), 2);
        assert!(row["generated"].as_str().unwrap().starts_with("I have an idea!"));
        assert!((0.0..=1.0).contains(&row["score"].as_f64().unwrap()));
    }
    assert_eq!(reply.header("content-type"), Some("application/json"));
}

#[test]
fn rows_stand_in_the_order_of_the_graph() {
    let ask = json!({"seed": 7, "max_length": 24});
    let both = rows(&shared().post_json("/generate_score", &ask));
    for (row, node) in both.iter().zip(["gpt2", "distilgpt2"]) {
        let alone = rows(&shared().post_json(&format!("/{node}/generate"), &ask));
        assert_eq!(row["generated"], alone[0]["generated_text"], "{node}");
    }
    assert_ne!(both[0]["generated"], both[1]["generated"]);
}

#[test]
fn every_content_type_asks_the_same() {
    let expected = shared().post_json("/generate_score", &ask()).body;
    let form = "original_sentence=I+have+an+idea%21&seed=7&max_length=24";
    let multipart = [("original_sentence", "I have an idea!"), ("seed", "7"), ("max_length", "24")]
        .map(|(name, value)| {
            format!("--x\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        })
        .concat()
        + "--x--\r\n";
    for (kind, body) in [
        ("application/json; charset=utf-8", ask().to_string()),
        ("text/plain", ask().to_string()),
        ("application/x-www-form-urlencoded", form.into()),
        ("application/x-www-form-urlencoded", ask().to_string()),
        ("multipart/form-data; boundary=x", multipart),
    ] {
        assert_eq!(shared().post("/generate_score", kind, body).body, expected, "{kind}");
    }
}

#[test]
fn a_text_plain_sentence_is_the_sentence() {
    let rows = rows(&shared().post("/generate_score", "text/plain", "Once upon a time"));
    assert!(rows[0]["generated"].as_str().unwrap().starts_with("Once upon a time"));
}

#[test]
fn nothing_asks_for_the_default_sentence_and_unknown_keys_are_ignored() {
    for (kind, body) in [
        ("application/json", ""),
        ("application/json", "{}"),
        ("text/plain", ""),
        ("application/x-www-form-urlencoded", ""),
        ("multipart/form-data; boundary=x", ""),
        ("application/json", r#"{"unknown": {"deep": [1]}, "temperature": null}"#),
    ] {
        let rows = rows(&shared().post("/generate_score", kind, body));
        assert!(rows[0]["generated"].as_str().unwrap().starts_with("I have an idea!"), "{kind} {body}");
    }
}

#[test]
fn the_same_seed_gives_the_same_text_and_no_seed_gives_a_new_one() {
    let texts = |ask: &Value| rows(&shared().post_json("/generate_score", ask))[0]["generated"].clone();
    assert_eq!(texts(&ask()), texts(&ask()));
    assert_ne!(texts(&ask()), texts(&json!({"max_length": 24, "seed": 8})));
    assert_ne!(texts(&json!({})), texts(&json!({})));
}

#[test]
fn a_reported_seed_gives_the_same_answer_again() {
    let first = shared().post_json("/v1/graphs/default/run", &json!({"max_length": 24})).json();
    let again = shared().post_json("/generate_score", &json!({"max_length": 24, "seed": first["seed"]}));
    assert_eq!(rows(&again)[1]["generated"], first["rows"][1]["generated"]);
    assert!(first["seed"].as_u64().unwrap() < 1 << 53);
}

#[test]
fn a_body_that_is_no_request_is_a_400_that_says_where() {
    for (body, kind, loc) in [
        ("{", "json_invalid", json!([])),
        ("\"a sentence\"", "object_type", json!([])),
        ("3", "object_type", json!([])),
        ("null", "object_type", json!([])),
        (r#"{"original_sentence": 3}"#, "string_type", json!(["original_sentence"])),
        (r#"{"original_sentence": null}"#, "string_type", json!(["original_sentence"])),
        (r#"{"max_length": "long"}"#, "type_error", json!(["max_length"])),
        (r#"{"seed": 1.5}"#, "type_error", json!(["seed"])),
        (r#"{"seed": -1}"#, "type_error", json!(["seed"])),
        (r#"{"stop": [3]}"#, "type_error", json!(["stop", "0"])),
    ] {
        let reply = shared().post("/generate_score", "application/json", body);
        assert_eq!(reply.status, 400, "{body}: {reply:?}");
        let problem = reply.json();
        assert!(problem["error"].is_string(), "{body}");
        let detail = &problem["detail"][0];
        assert_eq!((&detail["type"], &detail["loc"]), (&json!(kind), &loc), "{body}");
        assert!(detail["msg"].is_string(), "{body}");
    }
    let half = b"{\"sentence\": \"\xff\"}";
    assert_eq!(shared().post("/generate_score", "application/json", half).status, 400);
    assert_eq!(shared().post("/generate_score", "multipart/form-data", "x").status, 400);
}

#[test]
fn what_cannot_be_done_is_a_422_that_says_why() {
    let long = "idea ".repeat(200);
    let reply = shared().post_json("/gpt2/generate", &json!({"sentence": long, "max_length": 1000}));
    assert_eq!(reply.status, 422, "{reply:?}");
    let error = reply.json()["error"].as_str().unwrap().to_string();
    assert!(error.contains("tokens, but the model's context is 160"), "{error}");
    let short = shared().post_json("/generate_score", &json!({"max_length": 2}));
    assert_eq!(short.status, 422);
    assert!(short.json()["error"].as_str().unwrap().contains("`max_length` is 2"));
    for (name, value) in [
        ("temperature", json!(0)),
        ("top_p", json!(1.5)),
        ("min_p", json!(-0.5)),
        ("num_return_sequences", json!(17)),
        ("max_length", json!(0)),
        ("stop", json!([""])),
    ] {
        let reply = shared().post_json("/generate_score", &json!({name: value}));
        assert_eq!(reply.status, 422, "{name}: {reply:?}");
        assert_eq!(reply.json()["detail"][0]["loc"], json!([name]));
    }
}

#[test]
fn a_text_longer_than_the_classifier_takes_is_cut_and_says_so() {
    let long = "idea ".repeat(200);
    let judgement = shared().post("/bert/classify", "text/plain", long).json();
    assert_eq!(judgement["truncated"], true);
    assert_eq!(shared().post("/bert/classify", "text/plain", "Short.").json()["truncated"], false);
}

#[test]
fn an_empty_sentence_is_judged_and_its_continuation_refused_or_begun() {
    assert_eq!(shared().post_json("/classify_generated_texts", &json!({"sentence": ""})).status, 200);
    let reply = shared().post_json("/generate_score", &json!({"sentence": ""}));
    assert!([200, 422].contains(&reply.status), "{reply:?}");
}

#[test]
fn more_than_a_mebibyte_is_a_413() {
    let large = "x".repeat((1 << 20) + 1);
    for kind in ["text/plain", "application/json", "multipart/form-data; boundary=x"] {
        check_problem(
            &shared().post("/generate_score", kind, &large),
            413,
            "the body has more than 1048576 bytes",
        );
    }
    // A length that is not announced does not help.
    let mut stream = shared().connect();
    let head = "POST /generate_score HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\nconnection: close\r\n\
                transfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let chunk = format!("{:x}\r\n{large}\r\n0\r\n\r\n", large.len());
    let _ = stream.write_all(chunk.as_bytes());
    assert_eq!(read_reply(&mut stream).status, 413);
}

#[test]
fn wrong_methods_paths_and_types_are_told_as_json() {
    let reply = shared().get("/generate_score");
    check_problem(&reply, 405, "/generate_score does not take GET; the `allow` header says what it takes");
    assert_eq!(reply.header("allow"), Some("post"));
    check_problem(
        &shared().get("/nowhere"),
        404,
        "there is nothing at /nowhere; /docs.json lists what there is",
    );
    let unknown = shared().post_json("/bert/generate", &json!({}));
    check_problem(&unknown, 404, "no generator named `bert`; there are: gpt2, distilgpt2");
    assert_eq!(shared().post_json("/v1/graphs/other/run", &json!({})).status, 404);
    assert_eq!(shared().post("/generate_score", "image/png", "x").status, 415);
    check_problem(&shared().post_json("/%ff/generate", &json!({})), 400, "bad request");
}

#[test]
fn every_answer_carries_a_request_id() {
    let fresh = |path: &str| shared().get(path).header("x-request-id").unwrap().to_string();
    assert_ne!(fresh("/livez"), fresh("/livez"));
    assert_eq!(fresh("/nowhere").len(), 26);
    let given = shared().send("GET /livez HTTP/1.1\r\nx-request-id: mine-1\r\n", b"");
    assert_eq!(given.header("x-request-id"), Some("mine-1"));
    let odd = shared().send("GET /livez HTTP/1.1\r\nx-request-id: a b\r\n", b"");
    assert_ne!(odd.header("x-request-id"), Some("a b"));
}

#[test]
fn health_is_one_newline() {
    for path in ["/livez", "/healthz", "/readyz"] {
        let reply = shared().get(path);
        assert_eq!((reply.status, reply.body.as_str()), (200, "\n"), "{path}");
    }
}

#[test]
fn metrics_count_requests_and_tokens() {
    shared().post_json("/generate_score", &ask());
    let text = shared().get("/metrics").body;
    let value = |line: &str| -> f64 {
        let found =
            text.lines().find_map(|text| text.strip_prefix(line)).unwrap_or_else(|| panic!("{line}\n{text}"));
        found.trim().parse().unwrap()
    };
    let labels = r#"{route="/generate_score",method="POST",status="200"}"#;
    assert!(value(&format!("inkling_http_requests_total{labels}")) >= 1.0);
    assert!(value(r#"inkling_tokens_total{node="gpt2"}"#) >= 1.0);
    assert_eq!(value(r#"inkling_node_ready{node="bert"}"#), 1.0);
    let count = value(r#"inkling_http_request_seconds_count{route="/generate_score"}"#);
    assert_eq!(value(r#"inkling_http_request_seconds_bucket{route="/generate_score",le="+Inf"}"#), count);
}

#[test]
fn the_description_lists_every_route() {
    let document = shared().get("/docs.json").json();
    assert!(document["openapi"].as_str().unwrap().starts_with('3'));
    let paths = document["paths"].as_object().unwrap();
    for path in ["/generate_score", "/v1/graphs/{graph}/run", "/{node}/generate", "/classify_generated_texts"]
    {
        assert!(paths[path]["post"]["requestBody"].is_object(), "{path}");
    }
    for path in ["/v1/graphs/{graph}", "/livez", "/healthz", "/readyz", "/metrics", "/docs.json"] {
        assert!(paths[path]["get"].is_object(), "{path}");
    }
}

/// A page of two files, the second with a hash in its name and a compressed form.
const PAGE: [page::File; 2] = [
    page::File { path: "index.html", etag: "1", content: b"<p>hello", brotli: None },
    page::File {
        path: "a/ui-0123456789abcdef.js",
        etag: "2",
        content: b"console.log(1)",
        brotli: Some(b"compressed"),
    },
];

const PAGE_SCRIPT: &str = "/a/ui-0123456789abcdef.js";

/// A server with [`PAGE`], whose models never come.
fn with_site(allowed_origins: &[&'static str]) -> Server {
    let allowed_origins = allowed_origins.iter().map(|origin| HeaderValue::from_static(origin)).collect();
    let site = Site { page: &PAGE, allowed_origins };
    Server::start_with(Graph::default(), LIMITS, site, |_| Box::new(|_| anyhow::bail!("no model here")))
}

#[test]
fn the_page_comes_with_a_strict_policy() {
    let page = with_site(&[]).get("/");
    assert_eq!((page.status, page.body.as_str()), (200, "<p>hello"));
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(page.header("cache-control"), Some("no-cache"));
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; "), "{policy}");
    assert!(policy.ends_with("frame-ancestors 'none'"), "{policy}");
}

#[test]
fn a_name_with_a_hash_is_kept_for_good_and_compressed_for_whoever_takes_it() {
    let server = with_site(&[]);
    let plain = server.get(PAGE_SCRIPT);
    assert_eq!((plain.body.as_str(), plain.header("content-encoding")), ("console.log(1)", None));
    let small = server.send(&format!("GET {PAGE_SCRIPT} HTTP/1.1\r\naccept-encoding: gzip, br\r\n"), b"");
    assert_eq!((small.body.as_str(), small.header("content-encoding")), ("compressed", Some("br")));
    for reply in [&plain, &small] {
        assert_eq!(reply.header("content-type"), Some("text/javascript; charset=utf-8"));
        assert_eq!(reply.header("cache-control"), Some("public, max-age=31536000, immutable"));
        assert_eq!(reply.header("vary"), Some("accept-encoding"));
    }
    assert_ne!(plain.header("etag"), small.header("etag"), "other bytes, another strong tag");
}

#[test]
fn what_the_browser_has_is_not_sent_again() {
    let server = with_site(&[]);
    let ask = |path: &str, etag: &str| {
        server.send(&format!("GET {path} HTTP/1.1\r\nif-none-match: {etag}\r\n"), b"")
    };
    let etag = server.get("/").header("etag").unwrap().to_string();
    let again = ask("/", &format!("\"other\", W/{etag}"));
    assert_eq!((again.status, again.body.as_str()), (304, ""));
    assert_eq!(again.header("etag"), Some(etag.as_str()));
    assert_eq!(ask("/", "\"other\"").status, 200);
    assert_eq!(ask(PAGE_SCRIPT, "\"2-br\"").status, 200, "the tag of the form that was not asked for");
}

#[test]
fn head_is_the_page_without_its_body_and_other_methods_are_refused() {
    let server = with_site(&[]);
    let head = server.send("HEAD / HTTP/1.1\r\n", b"");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(head.header("content-length"), Some("8"));
    let refused = server.post("/", "text/plain", "x");
    check_problem(&refused, 405, "/ does not take POST; the `allow` header says what it takes");
    assert_eq!(refused.header("allow"), Some("get,head"));
}

#[test]
fn a_page_leaves_the_api_as_it_is() {
    let server = with_site(&[]);
    assert_eq!(server.get("/livez").body, "\n");
    assert_eq!(server.get("/generate_score").status, 405);
    let missing = server.get("/a/none.js");
    check_problem(&missing, 404, "there is nothing at /a/none.js; /docs.json lists what there is");
}

#[test]
fn without_a_page_the_root_says_how_to_get_one() {
    let page = shared().get("/");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.body.contains("cargo xtask serve"), "{page:?}");
    assert_eq!(shared().get("/sw.js").status, 404);
}

/// What a browser asks before it lets a page of `origin` send JSON.
fn preflight(server: &Server, origin: &str) -> Reply {
    let head = format!(
        "OPTIONS /generate_score HTTP/1.1\r\norigin: {origin}\r\naccess-control-request-method: POST\r\n\
         access-control-request-headers: content-type\r\n"
    );
    server.send(&head, b"")
}

#[test]
fn other_origins_are_let_in_only_if_named() {
    let closed = with_site(&[]);
    let reply = preflight(&closed, "https://a.example");
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (405, None));

    let open = with_site(&["https://a.example", "http://localhost:8080"]);
    for origin in ["https://a.example", "http://localhost:8080"] {
        let reply = preflight(&open, origin);
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(reply.header("access-control-allow-origin"), Some(origin));
        assert_eq!(reply.header("access-control-allow-methods"), Some("get,post"));
        assert!(reply.header("access-control-allow-headers").unwrap().contains("content-type"), "{reply:?}");
    }
    assert_eq!(preflight(&open, "https://b.example").header("access-control-allow-origin"), None);
    // An error too is an answer that the page wants to read.
    let wrong =
        "POST /generate_score HTTP/1.1\r\norigin: https://a.example\r\ncontent-type: application/json\r\n";
    let reply = open.send(wrong, b"{");
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (400, Some("https://a.example")));
}

#[test]
fn a_star_lets_every_origin_in() {
    let reply = preflight(&with_site(&["*"]), "https://any.example");
    assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
}

#[test]
fn text_in_score_out() {
    let score = |kind: &str, body: &str| {
        let reply = shared().post("/classify_generated_texts", kind, body);
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json().as_f64().unwrap()
    };
    let by_text = score("text/plain", "A good film.");
    assert_eq!(by_text, score("application/json", r#"{"sentence": "A good film."}"#));
    assert!((0.5..=1.0).contains(&by_text), "the likelier of two labels: {by_text}");
}

#[test]
fn the_full_answer_has_labels_scores_times_seed_and_hashes() {
    let answer = shared().post_json("/v1/graphs/default/run", &ask()).json();
    assert_eq!((&answer["graph"], &answer["seed"]), (&json!("default"), &json!(7)));
    let row = &answer["rows"][1];
    assert_eq!(row["text"], json!({"node": "distilgpt2", "sequence": 0}));
    let scores = row["judgements"][0]["scores"].as_array().unwrap();
    assert_eq!(scores.len(), 2);
    assert_eq!(scores.iter().find(|score| score["label"] == row["label"]).unwrap()["score"], row["score"]);
    for node in answer["nodes"].as_array().unwrap() {
        assert_eq!(node["model_sha256"].as_str().unwrap().len(), 64);
        assert!(node["ended_ms"].as_f64().unwrap() >= node["started_ms"].as_f64().unwrap());
    }
    let pairs = rows(&shared().post_json("/generate_score", &ask()));
    assert_eq!(pairs[1]["generated"], row["generated"]);
}

#[test]
fn the_graph_tells_its_nodes_models_and_defaults() {
    let graph = shared().get("/v1/graphs/default").json();
    assert_eq!(graph["name"], "default");
    let nodes = graph["nodes"].as_array().unwrap();
    let inputs: Vec<&Value> = nodes.iter().map(|node| &node["inputs"]).collect();
    assert_eq!(inputs, [&json!(["sentence"]), &json!(["sentence"]), &json!(["gpt2", "distilgpt2"])]);
    // The hashes are those of an answer, and what holds without a request's word is what a request may say.
    let answer = shared().post_json("/v1/graphs/default/run", &ask()).json();
    for (node, report) in nodes.iter().zip(answer["nodes"].as_array().unwrap()) {
        assert_eq!(node["name"], report["node"]);
        assert_eq!(node["model"]["name"], report["model"]);
        assert_eq!(node["model"]["sha256"], report["model_sha256"]);
        assert!(node["model"]["size_bytes"].as_u64().unwrap() > 1000);
        assert_eq!(node["state"], "ready");
        assert_eq!(node["parameters"].is_null(), node["task"] == "classify");
    }
    let mut spelled_out = nodes[0]["parameters"].clone();
    assert_eq!((&spelled_out["max_length"], &spelled_out["top_k"]), (&json!(128), &json!(50)));
    spelled_out["seed"] = json!(7);
    spelled_out["sentence"] = ask()["original_sentence"].clone();
    let silent =
        shared().post_json("/generate_score", &json!({"sentence": ask()["original_sentence"], "seed": 7}));
    assert_eq!(rows(&shared().post_json("/generate_score", &spelled_out)), rows(&silent));
    check_problem(&shared().get("/v1/graphs/other"), 404, "no graph named `other`; there is `default`");
}

#[test]
fn a_size_is_that_of_config_and_weights() {
    let folder = support::models();
    let server = Server::of_folder(folder.path(), LIMITS);
    let graph = server.get("/v1/graphs/default").json();
    let size = |name: &str| std::fs::metadata(folder.path().join("gpt2").join(name)).unwrap().len();
    assert_eq!(graph["nodes"][0]["model"]["size_bytes"], size("config.json") + size("model.safetensors"));
}

#[test]
fn num_return_sequences_gives_so_many_rows_of_each_generator() {
    let ask = json!({"num_return_sequences": 3, "max_length": 20, "seed": 1});
    let rows = rows(&shared().post_json("/generate_score", &ask));
    assert_eq!(rows.len(), 6);
    assert_ne!(rows[0]["generated"], rows[1]["generated"]);
}

#[test]
fn the_stream_tells_the_same_as_the_answer() {
    let head = "POST /v1/graphs/default/run HTTP/1.1\r\ncontent-type: application/json\r\naccept: text/event-stream\r\n";
    let reply = shared().send(head, ask().to_string().as_bytes());
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/event-stream")));
    let mut events: Vec<(Option<&str>, Value)> = Vec::new();
    for event in reply.body.split("\n\n").filter(|event| event.contains("data:")) {
        let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        events.push((field("event:"), serde_json::from_str(field("data:").unwrap()).unwrap()));
    }
    let (name, answer) = events.pop().unwrap();
    assert_eq!(name, Some("answer"));
    let whole = shared().post_json("/v1/graphs/default/run", &ask()).json();
    for (streamed, whole) in answer["rows"].as_array().unwrap().iter().zip(whole["rows"].as_array().unwrap())
    {
        assert_eq!(streamed["generated"], whole["generated"]);
        assert_eq!(streamed["score"], whole["score"]);
    }
    for node in ["gpt2", "distilgpt2"] {
        let of = |kind: &str| {
            events.iter().filter(|(_, e)| e["event"] == kind && e["node"] == node).collect::<Vec<_>>()
        };
        let text: String = of("token").iter().map(|(_, event)| event["text"].as_str().unwrap()).collect();
        assert_eq!(of("done")[0].1["completion"], text);
    }
    assert_eq!(events.iter().filter(|(_, event)| event["event"] == "score").count(), 2);
    let times: Vec<f64> = events.iter().map(|(_, event)| event["at_ms"].as_f64().unwrap()).collect();
    assert!(times.is_sorted());
}

#[test]
fn rubbish_never_breaks_the_server() {
    let mut state = 1u64;
    let mut next = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize
    };
    let pieces: [&[u8]; 12] = [
        b"{",
        b"}",
        b"\"sentence\"",
        b":",
        b"[",
        b"\xff\xfe",
        b"\"seed\":1e999",
        b"--x\r\n",
        b"=&",
        b"\0",
        b"%zz",
        b"null",
    ];
    let kinds = [
        "application/json",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        ";",
    ];
    let paths = [
        "/generate_score",
        "/gpt2/generate",
        "/classify_generated_texts",
        "/v1/graphs/default/run",
        "/%ff/generate",
    ];
    for _ in 0..150 {
        let body: Vec<u8> = (0..next() % 8).flat_map(|_| pieces[next() % pieces.len()].to_vec()).collect();
        let (kind, path) = (kinds[next() % kinds.len()], paths[next() % paths.len()]);
        let reply = shared().post(path, kind, &body);
        assert!(reply.status < 500, "{path} {kind} {body:?}: {reply:?}");
    }
    let mut stream = shared().connect();
    stream.write_all(b"\x16\x03\x01 not HTTP at all\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert_eq!(shared().get("/livez").status, 200);
}

/// A node that does as it is told: what a test needs to see of time and failure.
struct Scripted {
    play: Play,
}

type Play = Arc<dyn Fn(&Job, &dyn Fn() -> Option<FailureKind>, &mut dyn FnMut(Event)) + Send + Sync>;

impl Worker for Scripted {
    fn work(&self, jobs: &dyn Jobs, _pool: &dyn Pool) {
        while let Some((name, job)) = jobs.next(0) {
            (self.play)(&job, &|| jobs.stop(name), &mut |event| jobs.emit(name, event));
        }
    }
}

/// Writes " x" a few times, or scores with 0.5; at once.
fn play_well(job: &Job, emit: &mut dyn FnMut(Event)) {
    let node = job.node.clone();
    match &job.work {
        Work::Generate { prompt, first_sequence, .. } => {
            let token = Token { id: 0, text: " x".into(), log_prob: 0.0, alternatives: Vec::new() };
            emit(Event::Token { node: node.clone(), sequence: *first_sequence, token });
            emit(Event::Done {
                node,
                sequence: *first_sequence,
                prompt: prompt.clone(),
                completion: " x".into(),
                new_tokens: 1,
                finish_reason: FinishReason::Length,
            });
        }
        Work::Classify { source, .. } => {
            let score = Classification {
                label: "FINE".into(),
                score: 0.5,
                scores: Vec::new(),
                logits: Vec::new(),
                truncated: false,
            };
            emit(Event::Score { node, source: source.clone(), score });
        }
    }
}

/// A server whose nodes do `play`; loading costs `loading` each time.
fn scripted(limits: Limits, loading: Duration, play: Play) -> Server {
    with_workers(limits, loading, move || Scripted { play: Arc::clone(&play) })
}

/// A server whose nodes load these workers, at that cost each time.
fn with_workers<W: Worker + 'static>(
    limits: Limits,
    loading: Duration,
    worker: impl Fn() -> W + Clone + Send + 'static,
) -> Server {
    Server::start(Graph::default(), limits, |_| {
        let worker = worker.clone();
        let load: Load = Box::new(move |_| {
            thread::sleep(loading);
            Ok(Box::new(worker()) as Box<dyn Worker>)
        });
        load
    })
}

/// A node that begins with two jobs before it does any.
#[derive(Clone)]
struct InPairs {
    breaks: Arc<AtomicBool>,
}

impl Worker for InPairs {
    fn work(&self, jobs: &dyn Jobs, _pool: &dyn Pool) {
        while let Some(first) = jobs.next(0) {
            let began = Instant::now();
            let second = loop {
                match jobs.next(1) {
                    Some(second) => break second,
                    None => assert!(began.elapsed() < Duration::from_secs(20), "no second job came"),
                }
                thread::sleep(Duration::from_millis(2));
            };
            if self.breaks.swap(false, Ordering::Relaxed) {
                panic!("a cosmic ray");
            }
            assert!(jobs.next(2).is_none(), "the batch is full");
            for (name, job) in [second, first] {
                assert_eq!(jobs.stop(name), None);
                play_well(&job, &mut |event| jobs.emit(name, event));
            }
        }
    }
}

/// Posts from so many threads; what came.
fn post_at_once(server: &Server, path: &str, bodies: &[Value]) -> Vec<Reply> {
    thread::scope(|scope| {
        let posts: Vec<_> = bodies.iter().map(|body| scope.spawn(|| server.post_json(path, body))).collect();
        posts.into_iter().map(|post| post.join().unwrap()).collect()
    })
}

#[test]
fn metrics_tell_what_a_node_has_begun_and_what_waits() {
    let (server, goes_on) = held(LIMITS);
    let says = |waiting: usize, running: usize| {
        let text = server.get("/metrics").body;
        text.contains(&format!("inkling_jobs_waiting{{node=\"gpt2\"}} {waiting}\n"))
            && text.contains(&format!("inkling_jobs_running{{node=\"gpt2\"}} {running}\n"))
    };
    assert!(says(0, 0));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| server.post_json("/gpt2/generate", &json!({})));
        }
        wait_for(|| says(2, 1));
        goes_on.store(false, Ordering::Relaxed);
    });
    wait_for(|| says(0, 0));
}

#[test]
fn jobs_of_several_requests_run_side_by_side_as_many_as_allowed() {
    let limits = Limits { max_batch_size: 2, ..LIMITS };
    let worker = InPairs { breaks: Arc::default() };
    let server = with_workers(limits, Duration::ZERO, move || worker.clone());
    server.wait_until_ready();
    let sentences: Vec<Value> = (0..6).map(|i| json!({"sentence": i.to_string()})).collect();
    for (reply, i) in post_at_once(&server, "/gpt2/generate", &sentences).iter().zip(0..) {
        assert_eq!(rows(reply), [json!({"generated_text": format!("{i} x")})]);
    }
}

#[test]
fn a_panic_fails_the_jobs_that_ran_together_and_the_next_are_done() {
    let worker = InPairs { breaks: Arc::new(AtomicBool::new(true)) };
    let server = with_workers(LIMITS, Duration::from_millis(100), move || worker.clone());
    server.wait_until_ready();
    let asks = [json!({"sentence": "a"}), json!({"sentence": "b"})];
    for reply in post_at_once(&server, "/gpt2/generate", &asks) {
        check_problem(&reply, 500, "gpt2: the node broke: a cosmic ray");
    }
    server.wait_until_ready();
    for reply in post_at_once(&server, "/gpt2/generate", &asks) {
        assert_eq!(reply.status, 200, "{reply:?}");
    }
}

#[test]
fn requests_at_the_same_time_get_what_each_gets_alone() {
    let asks: Vec<Value> = (0..12)
        .map(|i| {
            let prompt = "Nobody knew why the old house stood empty. ".repeat(i % 3 + 1);
            json!({"sentence": prompt, "seed": i, "max_new_tokens": 5 + 3 * i, "num_return_sequences": i % 4 + 1})
        })
        .collect();
    let alone: Vec<_> = asks.iter().map(|ask| rows(&shared().post_json("/generate_score", ask))).collect();
    let together = post_at_once(shared(), "/generate_score", &asks);
    assert_eq!(together.iter().map(rows).collect::<Vec<_>>(), alone);
}

/// A server that is ready, whose nodes do one job at a time, and each only once what is given with it is false.
fn held(limits: Limits) -> (Server, Arc<AtomicBool>) {
    let goes_on = Arc::new(AtomicBool::new(true));
    let until = Arc::clone(&goes_on);
    let server = scripted(
        limits,
        Duration::ZERO,
        Arc::new(move |job, _, emit| {
            while until.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(2));
            }
            play_well(job, emit);
        }),
    );
    server.wait_until_ready();
    (server, goes_on)
}

/// Tokens for as long as nobody says stop.
fn play_on(job: &Job, stop: &dyn Fn() -> Option<FailureKind>, emit: &mut dyn FnMut(Event)) -> FailureKind {
    loop {
        if let Some(kind) = stop() {
            return kind;
        }
        let token = Token { id: 0, text: " x".into(), log_prob: 0.0, alternatives: Vec::new() };
        emit(Event::Token { node: job.node.clone(), sequence: 0, token });
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn past_the_time_the_answer_is_a_504_that_names_it() {
    let limits = Limits { timeout: Some(Duration::from_millis(1500)), ..LIMITS };
    // This node does not even look at the clock.
    let stuck = Arc::new(AtomicBool::new(true));
    let until = Arc::clone(&stuck);
    let server = scripted(
        limits,
        Duration::ZERO,
        Arc::new(move |job, _, emit| {
            while job.node == "gpt2" && until.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(5));
            }
            if job.node == "distilgpt2" {
                panic!("no row shall be whole");
            }
            play_well(job, emit);
        }),
    );
    server.wait_until_ready();
    let reply = server.post_json("/generate_score", &json!({}));
    stuck.store(false, Ordering::Relaxed);
    check_problem(&reply, 504, "Not able to process the request in 1.5 seconds");
}

#[test]
fn a_node_that_looks_at_the_clock_stops_at_the_deadline() {
    let limits = Limits { timeout: Some(Duration::from_millis(300)), ..LIMITS };
    let told = Arc::new(Mutex::new(Vec::new()));
    let kinds = Arc::clone(&told);
    let server = scripted(
        limits,
        Duration::ZERO,
        Arc::new(move |job, stop, emit| {
            let kind = play_on(job, stop, emit);
            kinds.lock().unwrap().push(kind);
        }),
    );
    server.wait_until_ready();
    assert_eq!(server.post_json("/generate_score", &json!({})).status, 504);
    server.join();
    // The answer does not wait for the node, which looks at the clock when its thread has its turn.
    let patience = Instant::now() + Duration::from_secs(20);
    while told.lock().unwrap().is_empty() {
        assert!(Instant::now() < patience, "the node goes on past the deadline");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn more_runs_than_allowed_are_refused_at_once() {
    let limits = Limits { max_concurrency: 1, ..LIMITS };
    let (server, goes_on) = held(limits);
    thread::scope(|scope| {
        let first = scope.spawn(|| server.post_json("/generate_score", &json!({})));
        wait_for(|| server.get("/metrics").body.contains("inkling_runs_in_flight 1"));
        let second = server.post_json("/generate_score", &json!({}));
        check_problem(&second, 429, "Too many requests");
        assert_eq!(second.header("retry-after"), Some("1"));
        // What is wrong is told even when there is no room.
        assert_eq!(server.post_json("/generate_score", &json!({"top_p": 2})).status, 422);
        goes_on.store(false, Ordering::Relaxed);
        assert_eq!(first.join().unwrap().status, 200);
    });
    assert_eq!(server.post_json("/generate_score", &json!({})).status, 200);
}

#[track_caller]
fn wait_for(mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(20), "did not come true");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_reader_that_goes_away_stops_its_run() {
    for accept in ["application/json", "text/event-stream"] {
        let stopped = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&stopped);
        let server = scripted(
            LIMITS,
            Duration::ZERO,
            Arc::new(move |job, stop, emit| {
                assert_eq!(play_on(job, stop, emit), FailureKind::Stopped);
                count.fetch_add(1, Ordering::Relaxed);
            }),
        );
        server.wait_until_ready();
        let mut stream = server.connect();
        let head = format!(
            "POST /v1/graphs/default/run HTTP/1.1\r\nhost: x\r\naccept: {accept}\r\ncontent-length: 0\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        wait_for(|| server.get("/metrics").body.contains("inkling_runs_in_flight 1"));
        stream.shutdown(Shutdown::Both).unwrap();
        drop(stream);
        wait_for(|| stopped.load(Ordering::Relaxed) == 2);
        wait_for(|| server.get("/metrics").body.contains("inkling_runs_in_flight 0"));
    }
}

#[test]
fn a_node_that_panics_fails_at_once_leaves_the_other_row_and_comes_back() {
    let breaks = Arc::new(AtomicBool::new(true));
    let now = Arc::clone(&breaks);
    let server = scripted(
        LIMITS,
        Duration::from_millis(400),
        Arc::new(move |job, _, emit| {
            if job.node == "gpt2" && now.swap(false, Ordering::Relaxed) {
                panic!("a cosmic ray");
            }
            play_well(job, emit);
        }),
    );
    server.wait_until_ready();
    let began = Instant::now();
    let reply = server.post_json("/generate_score", &json!({"sentence": "a"}));
    assert!(began.elapsed() < Duration::from_secs(5), "at once");
    let rows = rows(&reply);
    assert_eq!(
        rows[0],
        json!({"generated": null, "score": null, "error": "gpt2: the node broke: a cosmic ray"})
    );
    assert_eq!(rows[1], json!({"generated": "a x", "score": 0.5}));
    let unready = server.get("/readyz");
    check_problem(&unready, 503, "node `gpt2` is loading");
    let meanwhile = server.post_json("/gpt2/generate", &json!({}));
    check_problem(&meanwhile, 503, "gpt2: its model is loading");
    server.wait_until_ready();
    assert_eq!(server.post_json("/gpt2/generate", &json!({})).status, 200);
}

#[test]
fn a_graph_that_fails_wholly_is_a_500_and_keeps_its_texts() {
    let server = scripted(
        LIMITS,
        Duration::ZERO,
        Arc::new(|job, _, emit| match &job.work {
            Work::Classify { .. } => panic!("no scores today"),
            Work::Generate { .. } => play_well(job, emit),
        }),
    );
    server.wait_until_ready();
    let reply = server.post_json("/generate_score", &json!({"sentence": "a"}));
    assert!([500, 503].contains(&reply.status), "{reply:?}");
    assert_eq!(reply.json()["rows"][0]["generated"], "a x");
}

#[test]
fn while_models_load_the_server_answers_and_says_so() {
    let server = scripted(LIMITS, Duration::from_millis(1500), Arc::new(|job, _, emit| play_well(job, emit)));
    assert_eq!(server.get("/livez").status, 200);
    assert_eq!(server.get("/readyz").status, 503);
    let reply = server.post_json("/generate_score", &json!({}));
    check_problem(&reply, 503, "gpt2: its model is loading");
    let graph = server.get("/v1/graphs/default").json();
    assert_eq!((&graph["nodes"][0]["state"], &graph["nodes"][0]["model"]), (&json!("loading"), &Value::Null));
    assert_eq!(reply.header("retry-after"), Some("1"));
    server.wait_until_ready();
    assert_eq!(server.post_json("/generate_score", &json!({})).status, 200);
}

#[test]
fn a_model_that_cannot_be_loaded_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let source = Source::Folder(folder.path().into());
    let server = Server::start(Graph::default(), LIMITS, |node| load_from(node.clone(), source.clone()));
    wait_for(|| server.get("/readyz").body.contains("no model for node `bert`; tried"));
    assert_eq!(server.post_json("/generate_score", &json!({})).status, 503);
}

#[test]
fn a_server_that_ends_finishes_what_it_began() {
    let mut server = scripted(
        LIMITS,
        Duration::ZERO,
        Arc::new(|job, _, emit| {
            thread::sleep(Duration::from_millis(400));
            play_well(job, emit);
        }),
    );
    server.wait_until_ready();
    let mut stream = server.connect();
    stream
        .write_all(
            b"POST /generate_score HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        )
        .unwrap();
    wait_for(|| server.get("/metrics").body.contains("inkling_runs_in_flight 1"));
    server.stop();
    assert_eq!(read_reply(&mut stream).status, 200);
    let addr = server.addr;
    server.join();
    assert!(std::net::TcpStream::connect(addr).is_err(), "the port is free");
}
