//! Same seed, same text: the engine in the page against the program, on fifty prompts and with both of its builds.

use anyhow::Result;
use inkling_e2e::{server::inkling, spec};
use serde_json::{Value, json};

use crate::rows_of;

const PROMPTS: [&str; 10] = [
    "I have an idea!",
    "This movie is",
    "The best thing about rain is",
    "Nobody had told the lighthouse keeper that",
    "“Well,” said the old captain,",
    "It was the worst dinner of",
    "Once upon a time, in 1837,",
    "Why do cats",
    "Der Himmel über",
    "🙂 日本",
];
const SEEDS: [u64; 5] = [0, 1, 7, 123_456_789, (1 << 53) - 1];

fn requests() -> Vec<Value> {
    let of = |sentence: &str| SEEDS.map(|seed| json!({"sentence": sentence, "seed": seed, "max_length": 48}));
    PROMPTS.iter().flat_map(|sentence| of(sentence)).collect()
}

/// What `inkling run` says, from two threads: each run is a process of its own.
fn expected() -> Result<Vec<Vec<(String, f64)>>> {
    let answer = |request: &Value| {
        let (sentence, seed) =
            (request["sentence"].as_str().unwrap_or_default(), request["seed"].to_string());
        rows_of(&inkling(&["run", sentence, "--seed", &seed, "--max-length", "48", "--json"])?)
    };
    let requests = requests();
    std::thread::scope(|scope| {
        let halves: Vec<_> = requests
            .chunks(requests.len() / 2)
            .map(|half| scope.spawn(|| half.iter().map(answer).collect::<Result<Vec<_>>>()))
            .collect();
        let answers = halves.into_iter().map(|half| half.join().expect("a thread that asks does not panic"));
        Ok(answers.collect::<Result<Vec<_>>>()?.concat())
    })
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn fifty_prompts_give_the_text_of_the_command_line_in_both_builds() {
    spec(async |home| {
        let expected = expected()?;
        let script = "
            const [build, requests] = args;
            const { Graph } = await import('/engine/inkling.js');
            const module = await WebAssembly.compileStreaming(fetch(`/engine/inkling_web.${build}.wasm`));
            const graph = Graph.open({ module });
            await graph.ready;
            const isa = graph.state('gpt2').isa;
            const answers = [];
            for (const request of requests) {
                const { rows } = await graph.complete(request);
                answers.push(rows.map((row) => [row.generated, row.score]));
            }
            graph.close();
            return { isa, answers }";
        let mut sets = Vec::new();
        for build in ["simd128", "relaxed"] {
            // A place of the same origin where no engine has been started yet: a page has one.
            home.browser.driver.goto(home.server.url("/livez")).await?;
            let found = home.browser.script(script, vec![build.into(), json!(requests())]).await?;
            sets.push(found["isa"].as_str().unwrap_or_default().to_string());
            let answers: Vec<Vec<(String, f64)>> = serde_json::from_value(found["answers"].clone())?;
            assert_eq!(answers.len(), 50);
            for ((answer, expected), request) in answers.iter().zip(&expected).zip(requests()) {
                for (found, expected) in answer.iter().zip(expected) {
                    assert_eq!(found.0, expected.0, "{build}: {request}");
                    assert_eq!(found.1 as f32, expected.1 as f32, "{build}: {request}");
                }
            }
        }
        assert_ne!(sets[0], sets[1], "the two builds compute in different ways: {sets:?}");
        Ok(())
    });
}
