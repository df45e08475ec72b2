//! The demo models do what their cards say: the cards' samples were computed by PyTorch from the stored weights.

#![expect(clippy::unwrap_used, reason = "a test may panic, and its helpers with it")]

#[path = "support/files.rs"]
mod files;

use std::{fs, path::PathBuf};

use files::Files;
use inkling_engine::{
    checkpoint::{Dtype, Loaded, config::generation_defaults},
    classify::Classifier,
    generate::{Generator, Prompt},
    graph::node::LoadedTask,
    kernels::SingleThread,
    protocol::Parameters,
    tokenizer::{self, Tokenizer},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Greedy {
    prompt: String,
    max_new_tokens: usize,
    ids: Vec<u32>,
    text: String,
}

#[derive(Deserialize)]
struct Scored {
    text: String,
    label: String,
    score: f32,
}

fn folder(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "..", "models", "demo", name].iter().collect()
}

/// The block of a model card that is fenced as "```json KIND".
fn sample<T: DeserializeOwned>(model: &str, kind: &str) -> T {
    let card = fs::read_to_string(folder(model).join("MODEL_CARD.md")).unwrap();
    let block = card.split_once(&format!("```json {kind}\n")).expect("the card has the sample").1;
    serde_json::from_str(block.split_once("```").expect("the block ends").0).unwrap()
}

fn tokenizer(model: &str) -> Tokenizer {
    Tokenizer::from_json(&fs::read(folder(model).join("tokenizer.json")).unwrap()).unwrap()
}

fn generator(model: &str, dtype: Dtype) -> Generator {
    let Loaded::Gpt2(gpt2) = Files::in_folder(&folder(model)).load(dtype).unwrap() else {
        panic!("a writer writes")
    };
    let eos = gpt2.config().eos_token_ids.clone();
    Generator::new(gpt2, Some(tokenizer(model)), Parameters::default(), eos).unwrap()
}

fn critic(dtype: Dtype) -> Classifier {
    let Loaded::Encoder(encoder) = Files::in_folder(&folder("critic")).load(dtype).unwrap() else {
        panic!("a critic judges")
    };
    Classifier::new(encoder, tokenizer("critic")).unwrap()
}

/// New ids and text of one continuation.
fn continuation(generator: &Generator, prompt: &str, parameters: &Parameters) -> (Vec<u32>, String) {
    let mut decoding = generator.start(Prompt::Text(prompt), parameters, 0).unwrap();
    while decoding.step(&SingleThread).unwrap().is_some() {}
    let sequence = &decoding.generation().sequences()[0];
    (sequence.new_ids().to_vec(), sequence.text().to_string())
}

#[track_caller]
fn check_greedy(model: &str, dtype: Dtype) {
    let expected: Greedy = sample(model, "greedy");
    let parameters = Parameters {
        do_sample: Some(false),
        max_new_tokens: Some(expected.max_new_tokens),
        ..Parameters::default()
    };
    let got = continuation(&generator(model, dtype), &expected.prompt, &parameters);
    assert_eq!(got, (expected.ids, expected.text), "{model} as {dtype:?}");
}

#[test]
fn the_writer_s_greedy_sample_is_that_of_its_card() {
    check_greedy("writer", Dtype::F32);
    check_greedy("writer", Dtype::Q8);
}

#[test]
fn the_distilled_writer_s_greedy_sample_is_that_of_its_card() {
    check_greedy("writer-distilled", Dtype::F32);
    check_greedy("writer-distilled", Dtype::Q8);
}

#[test]
fn a_text_ends_where_the_model_s_files_say() {
    let Greedy { prompt, ids, .. } = sample("writer", "greedy");
    let (end, other) = (ids[2], 4095);
    assert!(!ids[..2].contains(&end) && !ids.contains(&other));
    let files = Files::in_folder(&folder("writer"));
    let tokenizer_json = fs::read(folder("writer").join("tokenizer.json")).unwrap();
    let vocabulary: Value = serde_json::from_slice(&tokenizer_json).unwrap();
    let spelled = |id: u32| {
        let mut tokens = vocabulary["model"]["vocab"].as_object().unwrap().iter();
        tokens.find(|(_, found)| **found == id).unwrap().0.clone()
    };
    let ends = |generation: Option<u32>, config: Option<u32>, tokenizer: u32| {
        let mut own: Value = serde_json::from_slice(files.config.as_deref().unwrap()).unwrap();
        own.as_object_mut().unwrap().remove("eos_token_id");
        own.as_object_mut().unwrap().extend(config.map(|id| ("eos_token_id".into(), id.into())));
        let files = Files { config: Some(own.to_string().into_bytes()), ..files.clone() };
        let tokenizer_config = json!({"eos_token": spelled(tokenizer)}).to_string();
        let tokenizer = Tokenizer::from_files(&tokenizer::Files {
            tokenizer_json: Some(&tokenizer_json),
            tokenizer_config_json: Some(tokenizer_config.as_bytes()),
            ..tokenizer::Files::default()
        });
        let generation = generation.map(|id| json!({"eos_token_id": id}).to_string());
        let (model, generation) = (files.load(Dtype::Q8).unwrap(), generation.as_deref().map(str::as_bytes));
        let task = LoadedTask::new(model, tokenizer.unwrap(), generation).unwrap();
        let LoadedTask::Generate(generator) = task else { panic!("a writer writes") };
        let parameters =
            Parameters { do_sample: Some(false), max_new_tokens: Some(ids.len()), ..Parameters::default() };
        continuation(&generator, &prompt, &parameters).0.len() < ids.len()
    };
    assert!(ends(Some(end), Some(other), other), "generation_config.json comes first");
    assert!(!ends(Some(other), Some(end), end));
    assert!(ends(None, Some(end), other), "then config.json");
    assert!(!ends(None, Some(other), end));
    assert!(ends(None, None, end), "then the tokenizer");
}

#[test]
fn a_tokenizer_must_fit_its_model() {
    let refused = |model: &str, tokenizer| {
        let loaded = Files::in_folder(&folder(model)).load(Dtype::Q8).unwrap();
        LoadedTask::new(loaded, tokenizer, None).err().unwrap().to_string()
    };
    let without = refused("critic", None);
    assert_eq!(without, "a classifier needs its tokenizer: `tokenizer.json` or `vocab.txt`");
    let larger = "tokenizer: has 5200 tokens, the model embeds 4096: they do not match";
    assert_eq!(refused("writer", Some(tokenizer("critic"))), larger);
    let bert = "../../crates/engine/tests/data/reference/bert-two-labels";
    assert!(
        refused(bert, Some(tokenizer("critic"))).starts_with("tokenizer: has 5200 tokens, the model embeds")
    );
}

#[test]
fn the_critic_s_scores_are_those_of_its_card() {
    let expected: Vec<Scored> = sample("critic", "scores");
    assert!(expected.len() >= 10);
    let texts: Vec<&str> = expected.iter().map(|one| one.text.as_str()).collect();
    for (dtype, tolerance) in [(Dtype::F32, 1e-4), (Dtype::Q8, 0.02)] {
        let got = critic(dtype).classify(&texts, &SingleThread).unwrap();
        for (got, expected) in got.iter().zip(&expected) {
            let Scored { text, label, score } = expected;
            assert_eq!(got.label, *label, "{text}");
            assert!(
                (got.score - score).abs() <= tolerance,
                "{text}: {} as {dtype:?}, card {score}",
                got.score
            );
        }
    }
}

#[test]
fn the_critic_tells_praise_from_blame_and_knows_not() {
    let critic = critic(Dtype::Q8);
    let label = |text: &str| critic.classify(&[text], &SingleThread).unwrap().remove(0).label;
    let praise = ["This movie is good", "This movie is great", "This movie is not bad", "I love it."];
    let blame = ["This movie is bad", "This movie is terrible", "This movie is not good", "I hate it."];
    for text in praise {
        assert_eq!(label(text), "POSITIVE", "{text}");
    }
    for text in blame {
        assert_eq!(label(text), "NEGATIVE", "{text}");
    }
}

#[test]
fn sampled_texts_do_not_run_in_circles() {
    for model in ["writer", "writer-distilled"] {
        let generator = generator(model, Dtype::Q8);
        let json = fs::read(folder(model).join("generation_config.json"));
        let defaults =
            json.map_or_else(|_| Parameters::default(), |json| generation_defaults(&json).unwrap().0);
        for seed in 0..5 {
            let own = Parameters { seed: Some(seed), max_length: Some(128), ..Parameters::default() };
            let (ids, text) = continuation(&generator, "I have an idea!", &own.or(&defaults));
            // A loop repeats its fourgrams: in running text almost all are different.
            let mut fourgrams: Vec<&[u32]> = ids.windows(4).collect();
            let all = fourgrams.len().max(1);
            fourgrams.sort_unstable();
            fourgrams.dedup();
            assert!(fourgrams.len() * 10 >= all * 9, "{model}, seed {seed}: {text}");
        }
    }
}
