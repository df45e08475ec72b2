//! Other programs on the same weights. Their scripts print what they always print; here it is read.
//!
//! Inkling's own figures of these parts are taken before and after a peer's, so that a ratio is of one sitting.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::goals::SHARE;
use super::kernels;
use super::native::{CLASSIFY, CLIENTS, DECODE, GRAPH, GRAPHS, Inkling, PREFILL, Reports, cores};
use super::page::Chromium;
use super::plan::Plan;
use super::record::Figure;
use crate::process::{ended_badly, run_and_keep};

/// So often Inkling and the peer of the page's goals take turns: one of them alone may meet a slow minute of the machine.
const TURNS: usize = 3;

/// Bytes of weights that a token of GPT-2 124M at 8 bits reads: twelve blocks and the head. A scale of two bytes is for 256
/// columns of 768, for all of them, or for 1024 of 3072.
const TOKEN_BYTES: f64 =
    (12 * (2304 + 3072) * 3 * (256 + 2) + (12 * 768 + 50_272) * (768 + 2) + 12 * 768 * 3 * (1024 + 2)) as f64;

/// llama.cpp and PyTorch.
///
/// # Errors
/// If a script fails, or prints nothing that is known.
pub(super) fn native(plan: &Plan, inkling: &Inkling) -> Result<Vec<Figure>> {
    let threads = cores();
    // What memory gives, and right after it a continuation: a neighbour's minute changes both.
    let turn = || -> Result<_> {
        let memory = kernels::bandwidth(plan, "peers-native/memory")?;
        let generator = inkling.generator(plan, super::checkpoints::GPT2, threads, true)?;
        Ok((memory, generator, inkling.classifier(plan, threads)?))
    };
    let mut turns = vec![turn()?, turn()?];
    let mut script = Script::new(plan, "native.sh", &[&threads.to_string()]);
    let said = script.run()?;
    turns.extend([turn()?, turn()?]);
    let of = |what: &str| format!("Inkling q8, {what}");
    let decode = |generators: &Reports| {
        generators.figure("peers-native/inkling/decode".into(), of("GPT-2: continuation of 128"), DECODE)
    };
    let shares: Vec<f64> = turns
        .iter()
        .map(|(memory, generator, _)| {
            100.0 * decode(generator).median() * TOKEN_BYTES / 1e9 / memory.median()
        })
        .collect();
    let all = turns.into_iter().reduce(|(memory, generators, classifiers), turn| {
        (memory.with(turn.0.values), generators.and(turn.1), classifiers.and(turn.2))
    });
    let (memory, generators, classifiers) = all.context("there were turns")?;
    let decode = decode(&generators);
    let commands = format!("{}; {}", memory.command, decode.command);
    let share = of("GPT-2: continuation, share of what memory gives");
    let share = Figure::new(SHARE, share, "%", &commands).with(shares);
    let mut figures = vec![memory];
    figures.extend([
        generators.figure("peers-native/inkling/prefill".into(), of("GPT-2: prompt of 64"), PREFILL),
        decode,
        share,
        classifiers.figure("peers-native/inkling/bert".into(), of("BERT-base: 128 tokens"), CLASSIFY),
    ]);
    let theirs = native_figures(&said, &script.shown);
    if theirs.is_empty() {
        bail!("expected figures of llama.cpp and PyTorch from {}, got: {said}", script.shown);
    }
    figures.extend(theirs);
    if let Some(ids) = greedy_ids(&said) {
        let own = inkling.greedy(threads)?;
        let same = own.iter().zip(&ids).take_while(|(own, theirs)| own == theirs).count();
        let what = "first greedy ids that are PyTorch's (f32), of 12";
        figures.push(
            Figure::new("peers-native/inkling/ids", what, "ids", "inkling generate --ids .. --greedy")
                .with([same as f64]),
        );
    }
    Ok(figures)
}

/// transformers.js and wllama in Chromium; one that fails is left out.
///
/// # Errors
/// If Chromium fails with Inkling.
pub(super) fn page(plan: &Plan, models: &Path) -> Result<Vec<Figure>> {
    let chromium = Chromium::new(models)?;
    let decode = || chromium.decode(plan, 1, "peers-page/inkling");
    let mut figures = decode()?;
    for (peer, threads) in
        [("transformers.js", "1"), ("wllama", "1"), ("transformers.js", "2"), ("wllama", "2")]
    {
        let mut script = Script::new(plan, "browser.mjs", &["decode", peer, threads]);
        let (id, of) = match threads {
            "1" => (format!("peers-page/{peer}"), format!("{peer} q8, one thread")),
            _ => (format!("peers-page/{peer}/{threads}"), format!("{peer} q8, {threads} threads")),
        };
        let of_the_goals = peer == "transformers.js" && threads == "1";
        for _ in 0..if of_the_goals { TURNS } else { 1 } {
            // One that is not installed takes nothing away from the others.
            let answer = match script.run().and_then(|said| last_json(&said)) {
                Ok(answer) => answer,
                Err(error) => {
                    println!("   {peer}, {threads} threads: left out: {error:#}");
                    break;
                }
            };
            let theirs = [("prefill", "prompt"), ("decode", "continuation of 96")].map(|(name, what)| {
                let (id, what) = (format!("{id}/{name}"), format!("{of}: {what}"));
                Figure::new(id, what, "tokens/s", &script.shown).with(answer[name].as_f64())
            });
            add(&mut figures, theirs);
            if of_the_goals {
                add(&mut figures, decode()?);
            }
        }
    }
    Ok(figures)
}

/// The graph on transformers.js.
///
/// # Errors
/// As for [`native`].
pub(super) fn page_graph(plan: &Plan, models: &Path) -> Result<Vec<Figure>> {
    let chromium = Chromium::new(models)?;
    let graph = || chromium.graph(plan, 1, "peers-page-graph/inkling");
    let mut figures = graph()?;
    let mut script = Script::new(plan, "browser.mjs", &["graph", "1"]);
    let answer = last_json(&script.run()?)?;
    let what = "transformers.js q8, the graph, a worker a model, one thread each";
    let theirs = Figure::new("peers-page-graph/transformers.js/total", what, "ms", &script.shown);
    add(&mut figures, graph()?);
    figures.push(theirs.with(answer["total"].as_f64()));
    Ok(figures)
}

/// The graph on BentoML.
///
/// # Errors
/// As for [`native`].
pub(super) fn server(plan: &Plan, inkling: &Inkling) -> Result<Vec<Figure>> {
    let graphs =
        || CLIENTS.into_iter().map(|clients| inkling.graph_of(plan, clients)).collect::<Result<Vec<_>>>();
    let before = graphs()?;
    let mut script = Script::new(plan, "seed.sh", &[]);
    let said = script.run()?;
    let mut figures = Vec::new();
    for ((before, after), clients) in before.into_iter().zip(graphs()?).zip(CLIENTS) {
        let both = before.and(after);
        let of = format!("Inkling q8, {}", show_clients(clients));
        let id = format!("peers-server/inkling/{clients}");
        figures.push(both.figure(format!("{id}/latency"), format!("{of}: a graph"), GRAPH));
        figures.push(both.figure(format!("{id}/rate"), format!("{of}: graphs"), GRAPHS));
    }
    let theirs = server_figures(&said, &script.shown)?;
    if theirs.is_empty() {
        bail!("expected figures of BentoML from {}, got: {said}", script.shown);
    }
    figures.extend(theirs);
    Ok(figures)
}

fn show_clients(clients: usize) -> String {
    format!("{clients} client{}", if clients == 1 { "" } else { "s" })
}

/// Adds the values of `later` to the figures with the same ids; others are added themselves.
fn add(figures: &mut Vec<Figure>, later: impl IntoIterator<Item = Figure>) {
    for later in later {
        match figures.iter_mut().find(|figure| figure.id == later.id) {
            Some(figure) => figure.values.extend(later.values),
            None => figures.push(later),
        }
    }
}

/// A script that runs a peer.
struct Script {
    command: Command,
    shown: String,
}

impl Script {
    fn new(plan: &Plan, name: &str, args: &[&str]) -> Script {
        let folder = plan.scripts.as_deref().expect("the plan has scripts where it has peers");
        let program = if name.ends_with(".mjs") { "node" } else { "bash" };
        let mut command = Command::new(program);
        command.arg(folder.join(name)).args(args);
        if let Some(peers) = &plan.peers {
            command.env("PEERS_HOME", peers);
        }
        let shown = format!("{program} SCRIPTS/{name} {}", args.join(" ")).trim_end().to_owned();
        Script { command, shown }
    }

    /// Runs it; the answer is what it prints.
    fn run(&mut self) -> Result<String> {
        let finished = run_and_keep(&mut self.command)?;
        if !finished.status.success() {
            bail!("{}", ended_badly(&self.command, finished.status));
        }
        Ok(finished.output)
    }
}

/// What native.sh says: rows of llama-bench's table, and PyTorch's lines.
fn native_figures(said: &str, command: &str) -> Vec<Figure> {
    let figure = |id: &str, what: String, unit: &str, value: f64| {
        Figure::new(format!("peers-native/{id}"), what, unit, command).with([value])
    };
    let mut figures = Vec::new();
    for line in said.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if let ["", model, .., test, rate, ""] = cells.as_slice() {
            let format =
                model.rsplit("B ").next().unwrap_or_default().split(" - ").next().unwrap_or_default();
            // llama-bench names a file of all f32 so.
            let format = format.trim_start_matches("all ");
            let format = llama_format(format);
            let value = rate.split_whitespace().next().and_then(|value| value.parse().ok());
            let (name, what) = match *test {
                "pp64" => ("prefill", "prompt of 64"),
                "tg128" => ("decode", "continuation of 128"),
                _ => continue,
            };
            figures.extend(value.map(|value| {
                figure(
                    &format!("llama.cpp/{format}/{name}"),
                    format!("llama.cpp {format}: {what}"),
                    "tokens/s",
                    value,
                )
                .note(rate.to_string())
            }));
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["pytorch", "gpt2", "f32", _, "pp64", prefill, "tg128", decode] => {
                let of = |what: &str| format!("PyTorch f32, GPT-2: {what}");
                figures.extend(
                    prefill
                        .parse()
                        .map(|value| figure("pytorch/prefill", of("prompt of 64"), "tokens/s", value)),
                );
                figures.extend(
                    decode
                        .parse()
                        .map(|value| figure("pytorch/decode", of("continuation of 128"), "tokens/s", value)),
                );
            }
            ["pytorch", "bert", "f32", _, "128", "tokens", value, "ms"] => {
                let what = "PyTorch f32, BERT-base: 128 tokens".to_owned();
                figures.extend(value.parse().map(|value| figure("pytorch/bert", what, "ms", value)));
            }
            _ => {}
        }
    }
    figures
}

/// llama-bench's name for a file's weights, as llama-quantize calls it.
fn llama_format(name: &str) -> &str {
    match name {
        "F32" => "f32",
        name => name,
    }
}

/// PyTorch's greedy ids, which native.sh prints.
fn greedy_ids(said: &str) -> Option<Vec<u64>> {
    let list = said.lines().find_map(|line| line.strip_prefix("pytorch gpt2 greedy ids "))?;
    list.trim_matches(['[', ']']).split(',').map(|id| id.trim().parse().ok()).collect()
}

/// What seed.sh says: `4 clients: 0.61 req/s, p50 6.40 s, max 6.71 s, good 12/12`.
fn server_figures(said: &str, command: &str) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for line in said.lines() {
        let words: Vec<&str> = line.split([' ', ',']).filter(|word| !word.is_empty()).collect();
        let [clients, "clients:", rate, "req/s", "p50", latency, "s", "max", _, "s", "good", good] =
            words.as_slice()
        else {
            continue;
        };
        let (done, all) = good.split_once('/').unwrap_or_default();
        if done != all {
            bail!("expected every request to be answered, got `{line}`");
        }
        let number =
            |text: &str| text.parse::<f64>().with_context(|| format!("expected a number, got `{text}`"));
        let of = format!("BentoML, {}", show_clients(clients.parse()?));
        let id = format!("peers-server/bentoml/{clients}");
        figures.push(
            Figure::new(format!("{id}/latency"), format!("{of}: a graph"), "ms", command)
                .with([number(latency)? * 1000.0]),
        );
        figures.push(
            Figure::new(format!("{id}/rate"), format!("{of}: graphs"), "graphs/s", command)
                .with([number(rate)?]),
        );
    }
    Ok(figures)
}

/// The JSON at the end of the last line that has some: `decode transformers.js 1 {..}`.
fn last_json(said: &str) -> Result<Value> {
    let json = said.lines().rev().find_map(|line| serde_json::from_str(&line[line.find('{')?..]).ok());
    json.with_context(|| format!("expected JSON from the script, got: {said}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(figures: &[Figure]) -> Vec<String> {
        figures.iter().map(|figure| format!("{} {} {}", figure.id, figure.median(), figure.unit)).collect()
    }

    #[test]
    fn a_token_reads_124_megabytes() {
        assert!((TOKEN_BYTES / 1e6 - 124.10).abs() < 0.01, "{TOKEN_BYTES}");
    }

    #[test]
    fn llama_bench_and_pytorch_are_read() {
        let said = "\
| gpt2 0.1B all F32            | 622.02 MiB |   163.04 M | CPU        |       2 |            pp64 |      1150.10 \u{b1} 8.2 |
| gpt2 0.1B Q8_0               | 165.32 MiB |   163.04 M | CPU        |       2 |           tg128 |        212.5 \u{b1} 1.0 |
| gpt2 0.1B Q4_K - Medium      | 107.4 MiB  |   163.04 M | CPU        |       2 |            pp64 |      2170.00 \u{b1} 30 |
pytorch gpt2 f32 threads=2 pp64 480 tg128 34.1
pytorch gpt2 greedy ids [11, 22, 33]
pytorch bert f32 threads=2 128 tokens 137 ms";
        let expected = [
            "peers-native/llama.cpp/f32/prefill 1150.1 tokens/s",
            "peers-native/llama.cpp/Q8_0/decode 212.5 tokens/s",
            "peers-native/llama.cpp/Q4_K/prefill 2170 tokens/s",
            "peers-native/pytorch/prefill 480 tokens/s",
            "peers-native/pytorch/decode 34.1 tokens/s",
            "peers-native/pytorch/bert 137 ms",
        ];
        assert_eq!(shown(&native_figures(said, "")), expected);
        assert_eq!(greedy_ids(said), Some(vec![11, 22, 33]));
        assert_eq!(native_figures("nothing", ""), []);
    }

    #[test]
    fn a_load_of_the_server_is_read() {
        let said = "noise\n1 clients: 0.57 req/s, p50 1.76 s, max 1.90 s, good 3/3\n";
        let expected =
            ["peers-server/bentoml/1/latency 1760 ms", "peers-server/bentoml/1/rate 0.57 graphs/s"];
        assert_eq!(shown(&server_figures(said, "").unwrap()), expected);
        assert!(server_figures("1 clients: 1 req/s, p50 1 s, max 2 s, good 2/3", "").is_err());
    }

    #[test]
    fn the_last_json_of_a_line_is_read() {
        let answer = last_json("x {\ndecode wllama 1 {\"prefill\":45.5}\nbye\n").unwrap();
        assert_eq!(answer["prefill"], 45.5);
        assert!(last_json("none").is_err());
    }

    #[test]
    fn later_values_go_to_their_figure() {
        let figure = |values: &[f64]| Figure::new("a", "", "", "").with(values.iter().copied());
        let mut figures = vec![figure(&[1.0])];
        add(&mut figures, vec![figure(&[3.0])]);
        assert_eq!(figures[0].values, [1.0, 3.0]);
    }
}
