//! The program `inkling`, as a user starts it.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up should stop where it stands")]

mod support;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::LazyLock,
};

use serde_json::{Value, json};

/// One folder of models for all tests that only read it.
fn models() -> &'static Path {
    static MODELS: LazyLock<tempfile::TempDir> = LazyLock::new(support::models);
    MODELS.path()
}

fn model(name: &str) -> String {
    models().join(name).display().to_string()
}

fn inkling(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_inkling"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn output(arguments: &[&str]) -> Output {
    inkling(arguments).output().unwrap()
}

/// What a run that succeeds prints, a value a line.
#[track_caller]
fn lines(arguments: &[&str]) -> Vec<Value> {
    json_lines(&output(arguments))
}

#[track_caller]
fn json_lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{output:?}");
    let text = str::from_utf8(&output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The program with something on standard input.
fn fed(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = inkling(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

/// A run that fails with `code`, and with one sentence that holds `sentence`.
#[track_caller]
fn check_fails(arguments: &[&str], code: i32, sentence: &str) {
    check_failed(&output(arguments), code, sentence);
}

#[track_caller]
fn check_failed(output: &Output, code: i32, sentence: &str) {
    let errors = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{errors}");
    assert!(errors.contains(sentence), "{errors}");
    assert!(!errors.contains("panicked") && !errors.contains("RUST_BACKTRACE"), "{errors}");
    if errors.starts_with("inkling: ") {
        assert_eq!(errors.lines().count(), 1, "one sentence: {errors}");
    }
}

fn run(rest: &[&str]) -> Vec<String> {
    let models = models().display().to_string();
    let base = ["run", "I have an idea!", "--models", &models, "--seed", "7", "--max-length", "24"];
    base.iter().chain(rest).map(|text| (*text).to_string()).collect()
}

#[track_caller]
fn run_lines(rest: &[&str]) -> Vec<Value> {
    let arguments = run(rest);
    lines(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn run_prints_the_rows_that_the_server_answers() {
    let [rows] = run_lines(&["--json"]).try_into().unwrap();
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(|row| row["generated"].as_str().unwrap().starts_with("I have an idea!")));
    assert!(rows.iter().all(|row| row["score"].is_f64()));
    assert_eq!(run_lines(&["--json"])[0].as_array(), Some(rows), "the same seed, the same rows");
}

/// Rows come in the order in which they are ready; README breaks lines.
#[test]
fn run_prints_what_the_readme_shows() {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let readme = words(include_str!("../../README.md"));
    let arguments = ["run", "I have an idea!", "--seed", "2", "--max-length", "48"];
    assert!(readme.contains("$ inkling run \"I have an idea!\" --seed 2 --max-length 48"));
    let output = String::from_utf8(output(&arguments).stdout).unwrap();
    let rows: Vec<String> = output.split("\n\n").map(words).filter(|row| !row.is_empty()).collect();
    assert!(rows.len() >= 2, "{output}");
    for row in rows {
        assert!(readme.contains(&row), "README.md lacks: {row}");
    }
}

#[test]
fn run_prints_the_full_answer() {
    let [answer] = run_lines(&["--json", "--full"]).try_into().unwrap();
    assert_eq!(answer["seed"], 7);
    assert_eq!(answer["rows"][0]["generated"], run_lines(&["--json"])[0][0]["generated"]);
}

#[test]
fn run_prints_its_events_as_they_happen() {
    let events = run_lines(&["--events"]);
    let texts = |node: &str| -> String {
        let tokens = events.iter().filter(|event| event["event"] == "token" && event["node"] == node);
        tokens.map(|event| event["text"].as_str().unwrap()).collect()
    };
    for (row, node) in ["gpt2", "distilgpt2"].into_iter().enumerate() {
        let expected = run_lines(&["--json"])[0][row]["generated"].as_str().unwrap().to_string();
        assert_eq!(format!("I have an idea!{}", texts(node)), expected);
    }
    assert_eq!(events.last().unwrap()["event"], "score");
}

#[test]
fn run_without_a_terminal_prints_plain_rows() {
    let arguments = run(&[]);
    let output = output(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("gpt2 · ") && text.contains("distilgpt2 · ") && !text.contains('\x1b'), "{text}");
}

#[test]
fn run_takes_the_sentence_from_standard_input() {
    let models = models().display().to_string();
    let arguments = ["run", "-", "--models", &models, "--max-length", "24", "--json"];
    let rows = json_lines(&fed(&arguments, b"Once upon a time\n"));
    let text = rows[0][0]["generated"].as_str().unwrap();
    assert!(text.starts_with("Once upon a time") && !text.starts_with("Once upon a time\n"), "{text:?}");
    check_failed(&fed(&arguments, b"\xff"), 2, "standard input is not UTF-8: see byte 0");
}

#[test]
fn run_takes_a_graph_of_ones_own() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("graph.toml");
    let one = "[[nodes]]\nname = 'only'\ntask = 'generate'\ninputs = ['sentence']\nmodel = 'gpt2'\n";
    fs::write(&file, one).unwrap();
    let file = file.display().to_string();
    let [rows] = run_lines(&["--json", "--graph", &file]).try_into().unwrap();
    assert_eq!(rows, json!([{"generated": rows[0]["generated"], "score": null}]));
    fs::write(&file, one.replace("'sentence'", "'nobody'")).unwrap();
    check_fails(
        &["run", "--graph", &file],
        2,
        "line 4: node `only`: input `nobody` is unknown; known: `sentence`, `only`",
    );
    check_fails(&["run", "--graph", "/nowhere.toml"], 2, "cannot read the graph /nowhere.toml");
}

#[test]
fn generate_answers_ids_text_and_reason() {
    let model = model("gpt2");
    let arguments =
        ["generate", "--model", &model, "--prompt", "I have", "--greedy", "--max-new-tokens", "5"];
    let [answer] = lines(&arguments).try_into().unwrap();
    assert_eq!(answer["ids"].as_array().unwrap().len(), 5);
    assert_eq!(answer["finish_reason"], "length");
    let ids = fed(&["tokenize", "--model", &model, "--decode"], format!("{}\n", answer["ids"]).as_bytes());
    assert_eq!(json_lines(&ids)[0], answer["text"]);
}

#[test]
fn four_bits_lose_more_and_say_so() {
    let text = concat!(env!("CARGO_MANIFEST_DIR"), "/../LICENSE-APACHE");
    let loss =
        |model| lines(&["bench", "--model", model, "--loss", text, "--dtype", "q4", "--json"]).remove(0);
    let writer = loss("writer");
    let number = |report: &Value, name: &str| report[name].as_f64().unwrap();
    assert!((1e-3..2e-2).contains(&number(&writer, "mean_kl")), "{writer}");
    assert!(number(&writer, "greedy_agreement") > 0.88, "{writer}");
    let critic = loss("critic");
    assert!(number(&critic, "label_agreement") > 0.95, "{critic}");
}

#[test]
fn a_text_in_four_bits_is_the_same_every_time() {
    let text = |rest: &[&str]| {
        let base = [
            "generate",
            "--model",
            "writer",
            "--prompt",
            "I have an idea!",
            "--greedy",
            "--max-new-tokens",
            "24",
        ];
        lines(&[&base, rest].concat()).remove(0)["text"].clone()
    };
    let once = text(&["--dtype", "q4"]);
    assert_eq!(once, text(&["--dtype", "q4"]));
    check_fails(&["bench", "--model", "writer", "--dtype", "q5"], 2, "[possible values: q8, q4, f32]");
}

#[test]
fn generate_takes_ids_without_a_tokenizer() {
    let folder = tempfile::tempdir().unwrap();
    support::write_gpt2(folder.path(), 1);
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        fs::remove_file(folder.path().join(file)).unwrap();
    }
    let bare = folder.path().display().to_string();
    let by_ids = |model: &str, rest: &[&str]| {
        let base = ["generate", "--model", model, "--ids", "1,2,3", "--greedy", "--max-new-tokens", "3"];
        lines(&[&base, rest].concat()).remove(0)
    };
    let answer = by_ids(&bare, &["--logits", "--dtype", "f32"]);
    assert_eq!(answer["text"], Value::Null);
    assert_eq!(answer["logits"].as_array().unwrap().len(), 311);
    assert_eq!(answer["ids"], by_ids(&model("gpt2"), &["--dtype", "f32"])["ids"]);
    let likeliest = (0..311).max_by(|a, b| {
        let logit = |id: &usize| answer["logits"][*id].as_f64().unwrap();
        logit(a).total_cmp(&logit(b))
    });
    assert_eq!(answer["ids"][0], likeliest.unwrap());
    check_fails(
        &["generate", "--model", &bare, "--prompt", "x"],
        2,
        "this model has no tokenizer, so it takes ids only",
    );
}

#[test]
fn generate_names_what_is_wrong() {
    let model = model("gpt2");
    let generate = |rest: &[&str], sentence: &str| {
        check_fails(&[&["generate", "--model", &model], rest].concat(), 2, sentence);
    };
    generate(&["--ids", "311"], "token id 311 is outside of the vocabulary of 311");
    generate(
        &["--prompt", "x", "--temperature", "0"],
        "`temperature` should be above 0 and at most 100, got 0",
    );
    generate(&["--prompt", "x", "--max-length", "1"], "but `max_length` is 1");
    generate(&[], "Usage:");
    generate(&["--prompt", "x", "--ids", "1"], "Usage:");
    generate(&["--ids", "one"], "invalid value 'one'");
    check_fails(
        &["generate", "--model", &self::model("critic"), "--prompt", "x"],
        2,
        "model critic is a classifier",
    );
}

#[test]
fn classify_answers_a_line_a_text() {
    let model = model("critic");
    let answers = lines(&["classify", "--model", &model, "A good film.", "", &"long ".repeat(100)]);
    assert_eq!(answers.len(), 3);
    for answer in &answers {
        let scores = answer["scores"].as_object().unwrap();
        assert_eq!(scores[answer["label"].as_str().unwrap()], answer["score"]);
        let sum: f64 = scores.values().map(|score| score.as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-6);
        assert_eq!(answer["logits"].as_array().unwrap().len(), 2);
    }
    assert_eq!(answers.iter().map(|answer| &answer["truncated"]).collect::<Vec<_>>(), [false, false, true]);
    let fed = json_lines(&fed(&["classify", "--model", &model], b"A good film.\n\n"));
    assert_eq!(fed, answers[..2]);
}

#[test]
fn tokenize_needs_the_tokenizer_only_and_goes_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    support::write_bert(folder.path(), 3);
    for file in ["model.safetensors", "config.json"] {
        fs::remove_file(folder.path().join(file)).unwrap();
    }
    let model = folder.path().display().to_string();
    let ids = |rest: &[&str]| {
        json_lines(&fed(&[&["tokenize", "--model", &model], rest].concat(), b"\"the film\"\n\n\"a\"\n"))
    };
    let (with, without) = (ids(&[]), ids(&["--no-special"]));
    assert_eq!(with.len(), 2);
    assert_eq!(with[0].as_array().unwrap().len(), without[0].as_array().unwrap().len() + 2);
    let decoded =
        fed(&["tokenize", "--model", &model, "--decode", "--no-special"], with[0].to_string().as_bytes());
    assert_eq!(json_lines(&decoded), ["the film"]);
    let wrong = fed(&["tokenize", "--model", &model], b"\"a\"\nnot JSON\n");
    check_failed(&wrong, 2, "standard input, line 2: expected a JSON string");
    check_failed(&fed(&["tokenize", "--model", &model, "--decode"], b"[99999]"), 2, "99999");
}

#[test]
fn models_that_are_not_there_are_the_callers_mistake() {
    check_fails(&["run", "--models", "/nowhere"], 2, "/nowhere is no folder of models");
    check_fails(
        &["generate", "--model", "/nowhere", "--prompt", "x"],
        2,
        "there is no file or folder /nowhere",
    );
    let empty = tempfile::tempdir().unwrap();
    check_fails(
        &["run", "--models", &empty.path().display().to_string()],
        2,
        "no model for node `gpt2`; tried ",
    );
}

#[test]
fn broken_models_fail_with_one_sentence_that_names_them() {
    let folder = tempfile::tempdir().unwrap();
    support::write_gpt2(folder.path(), 1);
    let weights = folder.path().join("model.safetensors");
    let whole = fs::read(&weights).unwrap();
    let generate = |sentence: &str| {
        let model = folder.path().display().to_string();
        check_fails(&["generate", "--model", &model, "--prompt", "x"], 1, sentence);
    };
    fs::write(&weights, &whole[..whole.len() / 2]).unwrap();
    generate("bytes, its header announces");
    fs::write(&weights, [&u64::MAX.to_le_bytes(), &whole[8..]].concat()).unwrap();
    generate("model.safetensors");
    fs::write(&weights, b"").unwrap();
    generate("model.safetensors");
    fs::write(&weights, &whole).unwrap();
    fs::write(folder.path().join("config.json"), r#"{"model_type": "llama"}"#).unwrap();
    generate("architecture `llama` is not supported; supported: GPT-2");
    fs::remove_file(folder.path().join("config.json")).unwrap();
    generate("`config.json` is missing");
}

#[test]
fn a_model_of_another_kind_is_refused_for_its_node() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["gpt2", "distilgpt2", "bert"] {
        support::write_gpt2(&folder.path().join(name), 1);
    }
    let models = folder.path().display().to_string();
    check_fails(&["run", "--models", &models], 1, "node `bert` classifies, but model bert is a generator");
}

#[test]
fn usage_errors_end_with_2_and_help_has_examples() {
    check_fails(&["run", "--no-such-option"], 2, "Usage:");
    check_fails(&["no-such-command"], 2, "Usage:");
    check_fails(&["run", "--json", "--events"], 2, "Usage:");
    for command in ["run", "generate", "classify", "tokenize", "serve"] {
        let help = String::from_utf8(output(&[command, "--help"]).stdout).unwrap();
        assert!(help.contains("Example") && help.contains("--json"), "{command}: {help}");
    }
}

#[test]
fn a_reader_that_leaves_ends_the_program_quietly() {
    let arguments = run(&["--events"]);
    let mut child = inkling(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut String::new()).unwrap();
    drop(out);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), b"".as_slice()));
}

/// `inkling serve`, ended with the test.
struct Serving {
    child: Child,
    url: String,
}

impl Serving {
    fn start() -> Serving {
        let models = models().display().to_string();
        let mut child = inkling(&["serve", "--addr", "127.0.0.1:0", "--models", &models, "--json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut next = || -> Value {
            let mut line = String::new();
            out.read_line(&mut line).unwrap();
            serde_json::from_str(&line).unwrap()
        };
        let loading = next();
        assert_eq!(loading["state"], "loading");
        assert_eq!(next(), json!({"state": "ready", "url": loading["url"]}));
        Serving { child, url: loading["url"].as_str().unwrap().into() }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(unix)]
#[test]
fn serve_says_where_and_ends_well_when_asked_to() {
    for signal in ["-INT", "-TERM"] {
        let mut serving = Serving::start();
        let addr = serving.url.strip_prefix("http://").unwrap().to_string();
        let mut stream = std::net::TcpStream::connect(&addr).unwrap();
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
        let id = serving.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
        assert_eq!(serving.child.wait().unwrap().code(), Some(0), "{signal}");
    }
}

#[test]
fn serve_names_a_port_that_is_in_use_and_models_that_are_missing() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let models = models().display().to_string();
    check_fails(
        &["serve", "--addr", &addr, "--models", &models],
        1,
        &format!("{addr} is in use: stop the program that has it"),
    );
    check_fails(
        &["serve", "--addr", "127.0.0.1:0", "--models", "/nowhere"],
        2,
        "/nowhere is no folder of models",
    );
    check_fails(&["serve", "--timeout", "0"], 2, "expected a number of seconds above 0");
    for wrong in
        ["example.org", "https://example.org/", "https://a@example.org", "ftp//x", "https://Example.org", ""]
    {
        check_fails(&["serve", "--allow-origin", wrong], 2, "expected an origin such as https://example.org");
    }
}

#[test]
fn bench_gives_figures_of_work_that_was_done() {
    let options = ["--threads", "2", "--rounds", "1", "--json"];
    let bench = |rest: &[&str]| lines(&[&["bench"], rest, &options].concat()).remove(0);
    let positive = |report: &Value, names: &[&str]| {
        for name in names {
            assert!(report[name].as_f64().unwrap() > 0.0, "{name} in {report}");
        }
    };
    let writer =
        bench(&["--model", "writer", "--prompt-tokens", "9", "--new-tokens", "5", "--sequences", "2"]);
    positive(&writer, &["prefill_tokens_per_s", "decode_tokens_per_s", "load_ms", "first_token_ms"]);
    assert_eq!((writer["prompt_tokens"].as_u64(), writer["new_tokens"].as_u64()), (Some(9), Some(10)));
    let critic = bench(&["--model", "critic"]);
    positive(&critic, &["classify_ms", "load_ms"]);
    let graph = bench(&["--graph", "--new-tokens", "4", "--clients", "2"]);
    positive(&graph, &["graph_ms", "graphs_per_s"]);
    assert_eq!(graph["new_tokens"], json!([4, 4]));
    check_fails(&["bench", "--model", "critic", "--graph"], 2, "cannot be used with");
}

#[test]
fn eight_bits_lose_almost_nothing() {
    // The licence is English that no model was trained on, and the only text that is here anyway.
    let text = concat!(env!("CARGO_MANIFEST_DIR"), "/../LICENSE-APACHE");
    let loss = |model| lines(&["bench", "--model", model, "--loss", text, "--json"]).remove(0);
    let writer = loss("writer");
    assert!(writer["tokens"].as_u64().unwrap() > 1000, "{writer}");
    let number = |report: &Value, name: &str| report[name].as_f64().unwrap();
    assert!(number(&writer, "mean_kl") < 1e-3 && number(&writer, "mean_kl") > 0.0, "{writer}");
    assert!(number(&writer, "greedy_agreement") > 0.97, "{writer}");
    assert!(
        (number(&writer, "perplexity") / number(&writer, "perplexity_f32") - 1.0).abs() < 0.01,
        "{writer}"
    );
    let critic = loss("critic");
    assert!(number(&critic, "label_agreement") > 0.97, "{critic}");
    check_fails(&["bench", "--model", "writer", "--loss", text, "--dtype", "f32"], 2, "f32 loses nothing");
}
