//! The tokenizer: goldens of independent implementations, round trips, streams, and files that are broken.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::path::PathBuf;

use inkling_engine::Error;
use inkling_engine::tokenizer::{Files, TextStream, Tokenizer};
use proptest::prelude::*;
use serde_json::{Value, json};

// Fixtures: small vocabularies that travel with the tests.

fn fixture(path: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/tokenizers").join(path);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn gpt2_tiny() -> Tokenizer {
    Tokenizer::from_bpe(&fixture("gpt2-tiny/vocab.json"), &fixture("gpt2-tiny/merges.txt")).unwrap()
}

fn bert_tiny() -> Tokenizer {
    Tokenizer::from_wordpiece(&fixture("bert-tiny/vocab.txt"), true).unwrap()
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn ids_of(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// Takes away the spaces that `clean_up_tokenization` of Hugging Face's Python takes away.
fn cleaned_up(text: &str) -> String {
    let text = text.replace(" .", ".").replace(" ?", "?").replace(" !", "!").replace(" ,", ",");
    let text = text.replace(" ' ", "'").replace(" n't", "n't").replace(" 'm", "'m");
    text.replace(" 's", "'s").replace(" 've", "'ve").replace(" 're", "'re")
}

/// Against a fixture's `golden.json`, which the crate's Python twin wrote: for WordPiece without the clean-up of the
/// whole text, which Hugging Face's `decode` adds on top, as the engine does.
#[track_caller]
fn check_fixture(name: &str, tokenizer: &Tokenizer) {
    let golden: Value = serde_json::from_slice(&fixture(&format!("{name}/golden.json"))).unwrap();
    let decoded = |text: &Value| match name {
        "gpt2-tiny" => text_of(text).to_owned(),
        _ => cleaned_up(text_of(text)),
    };
    assert_eq!(tokenizer.vocab_size() as u64, golden["vocab_size"].as_u64().unwrap());
    for (token, id) in golden["special"].as_object().unwrap() {
        assert_eq!(tokenizer.token_id(token).map(u64::from), id.as_u64());
    }
    for row in golden["texts"].as_array().unwrap() {
        let ids = ids_of(&row["ids"]);
        assert_eq!(tokenizer.encode(text_of(&row["text"]), true).unwrap(), ids, "{row}");
        let bare = tokenizer.encode(text_of(&row["text"]), false).unwrap();
        assert_eq!(bare, ids_of(&row["ids_without_special"]), "{row}");
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), decoded(&row["decoded"]), "{row}");
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), decoded(&row["decoded_with_special"]), "{row}");
    }
    for row in golden["broken"].as_array().into_iter().flatten() {
        assert_eq!(tokenizer.decode(&ids_of(&row["ids"]), true).unwrap(), text_of(&row["decoded"]), "{row}");
        assert_eq!(streamed(tokenizer, &ids_of(&row["ids"]), true), text_of(&row["decoded"]), "{row}");
    }
}

#[test]
fn fixtures_from_vocabularies_agree_with_the_crate_s_python_twin() {
    check_fixture("gpt2-tiny", &gpt2_tiny());
    check_fixture("bert-tiny", &bert_tiny());
    let cased = Tokenizer::from_wordpiece(&fixture("bert-tiny-cased/vocab.txt"), false).unwrap();
    check_fixture("bert-tiny-cased", &cased);
}

#[test]
fn fixtures_from_json_agree_with_the_crate_s_python_twin() {
    for name in ["gpt2-tiny", "bert-tiny", "bert-tiny-cased"] {
        check_fixture(name, &Tokenizer::from_json(&fixture(&format!("{name}/tokenizer.json"))).unwrap());
    }
}

// The real vocabularies, where they are at hand.

fn shared(path: &str) -> Option<Vec<u8>> {
    let Some(shared) = std::env::var_os("INKLING_SHARED") else {
        println!("skipped: INKLING_SHARED is not set");
        return None;
    };
    Some(std::fs::read(PathBuf::from(shared).join("data").join(path)).unwrap())
}

fn golden_rows(file: &str) -> Option<Vec<Value>> {
    let golden: Value =
        serde_json::from_slice(&shared(&format!("golden/{file}_tokenization.json"))?).unwrap();
    let rows = golden.as_object().unwrap().values().flat_map(|rows| rows.as_array().unwrap()).cloned();
    // The engine takes single texts.
    Some(rows.filter(|row| row.get("text_pair").is_none()).collect())
}

/// transformers.js cleans up byte-level text too; the engine gives back what was put in.
#[track_caller]
fn check_gpt2(tokenizer: &Tokenizer) {
    for row in golden_rows("gpt2").unwrap() {
        let text = text_of(&row["text"]);
        let ids = tokenizer.encode(text, true).unwrap();
        assert_eq!(ids, ids_of(&row["ids"]), "{row}");
        for (id, token) in ids.iter().zip(row["tokens"].as_array().unwrap()) {
            assert_eq!(tokenizer.token_id(text_of(token)), Some(*id));
        }
        let decoded = tokenizer.decode(&ids, false).unwrap();
        assert_eq!(decoded, text);
        assert_eq!(cleaned_up(&decoded), text_of(&row["decoded"]), "{row}");
        assert_eq!(streamed(tokenizer, &ids, false), text);
    }
    assert_eq!((tokenizer.vocab_size(), tokenizer.eos_id()), (50257, Some(50256)));
}

#[test]
fn gpt2_agrees_with_transformers_js() {
    let Some(json) = shared("tokenizers/gpt2/tokenizer.json") else { return };
    check_gpt2(&Tokenizer::from_json(&json).unwrap());
    let (vocab, merges) = (shared("tokenizers/gpt2/vocab.json"), shared("tokenizers/gpt2/merges.txt"));
    check_gpt2(&Tokenizer::from_bpe(&vocab.unwrap(), &merges.unwrap()).unwrap());
}

#[track_caller]
fn check_bert(tokenizer: &Tokenizer) {
    for row in ["bert", "distilbert"].iter().flat_map(|file| golden_rows(file).unwrap()) {
        let text = text_of(&row["text"]);
        let ids = tokenizer.encode(text, true).unwrap();
        assert_eq!(ids, ids_of(&row["ids"]), "{row}");
        assert_eq!(tokenizer.encode(text, false).unwrap(), ids[1..ids.len() - 1]);
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), text_of(&row["decoded"]), "{row}");
        assert_eq!(tokenizer.encode_for_classifier(text, 512).unwrap(), (ids, false));
    }
    assert_eq!((tokenizer.vocab_size(), tokenizer.eos_id()), (30522, None));
}

#[test]
fn bert_agrees_with_transformers_js() {
    let Some(json) = shared("tokenizers/bert-base-uncased/tokenizer.json") else { return };
    check_bert(&Tokenizer::from_json(&json).unwrap());
    let vocab = shared("tokenizers/bert-base-uncased/vocab.txt").unwrap();
    check_bert(&Tokenizer::from_wordpiece(&vocab, true).unwrap());
}

#[test]
fn a_megabyte_without_a_word_is_encoded() {
    let tokenizer = gpt2_tiny();
    for text in [" ".repeat(1 << 20), "a".repeat(1 << 20), "\n \u{3000}".repeat(1 << 18), "!".repeat(1 << 20)]
    {
        let ids = tokenizer.encode(&text, true).unwrap();
        assert!(tokenizer.decode(&ids, false).unwrap() == text);
    }
    let (ids, truncated) = bert_tiny().encode_for_classifier(&"good ".repeat(1 << 18), 512).unwrap();
    assert_eq!((ids.len(), truncated), (512, true));
}

// What each function promises.

fn streamed(tokenizer: &Tokenizer, ids: &[u32], skip_special: bool) -> String {
    let mut stream = TextStream::new(skip_special);
    let mut text: String = ids.iter().map(|id| stream.push(tokenizer, *id).unwrap()).collect();
    text += &stream.finish();
    text
}

#[test]
fn a_stream_holds_half_a_character_back() {
    let tokenizer = gpt2_tiny();
    let bytes: Vec<u32> = ["ð", "Ł", "ĺ", "Ģ"].iter().map(|byte| tokenizer.token_id(byte).unwrap()).collect();
    let mut stream = TextStream::new(true);
    let pieces: Vec<String> = bytes.iter().map(|id| stream.push(&tokenizer, *id).unwrap()).collect();
    assert_eq!(pieces, ["", "", "", "😀"]);
    assert_eq!(stream.finish(), "");
}

#[test]
fn what_never_becomes_a_character_comes_out_at_the_end() {
    let tokenizer = gpt2_tiny();
    let mut stream = TextStream::new(true);
    assert_eq!(stream.push(&tokenizer, tokenizer.token_id("ð").unwrap()).unwrap(), "");
    assert_eq!(stream.clone().finish(), "\u{fffd}");
    assert_eq!(stream.push(&tokenizer, tokenizer.token_id("a").unwrap()).unwrap(), "\u{fffd}a");
    assert_eq!(tokenizer.token_text(tokenizer.token_id("ð").unwrap()), "\u{fffd}");
}

#[test]
fn special_tokens_are_skipped_on_request() {
    let tokenizer = gpt2_tiny();
    let eos = tokenizer.eos_id().unwrap();
    let a = tokenizer.token_id("a").unwrap();
    assert_eq!(tokenizer.encode("a<|endoftext|>a", false).unwrap(), [a, eos, a]);
    for (skip, expected) in [(true, "aa"), (false, "a<|endoftext|>a")] {
        assert_eq!(tokenizer.decode(&[a, eos, a], skip).unwrap(), expected);
        assert_eq!(streamed(&tokenizer, &[a, eos, a], skip), expected);
    }
    assert_eq!(tokenizer.token_text(eos), "<|endoftext|>");
}

#[test]
fn ids_beyond_the_vocabulary_have_no_text() {
    let tokenizer = gpt2_tiny();
    let error = tokenizer.decode(&[0, 311], true).unwrap_err();
    assert!(matches!(error, Error::TokenOutOfRange { id: 311, vocab_size: 311 }), "{error}");
    assert_eq!(tokenizer.token_text(u32::MAX), "");
    assert_eq!(TextStream::new(true).push(&tokenizer, u32::MAX).unwrap(), "");
}

#[test]
fn a_cut_text_keeps_its_special_tokens() {
    let tokenizer = bert_tiny();
    let whole = tokenizer.encode("I have an idea", true).unwrap();
    assert_eq!(tokenizer.encode_for_classifier("I have an idea", 6).unwrap(), (whole.clone(), false));
    let cut = [&whole[..3], &whole[5..]].concat();
    assert_eq!(tokenizer.encode_for_classifier("I have an idea", 4).unwrap(), (cut, true));
    assert_eq!(tokenizer.encode_for_classifier("I", 2).unwrap(), (vec![whole[0], whole[5]], true));
    assert!(matches!(tokenizer.encode_for_classifier("I", 1), Err(Error::Tokenizer(_))));
    // A `[SEP]` in the text is text.
    let (ids, truncated) = tokenizer.encode_for_classifier("[SEP] [SEP] [SEP]", 4).unwrap();
    assert_eq!((ids, truncated), (vec![whole[0], whole[5], whole[5], whole[5]], true));
}

#[test]
fn word_pieces_stream_as_words() {
    let tokenizer = bert_tiny();
    let ids = tokenizer.encode("the boy said an idea", false).unwrap();
    assert_eq!(streamed(&tokenizer, &ids, true), tokenizer.decode(&ids, true).unwrap());
}

#[test]
fn padding_truncation_and_dropout_in_a_file_change_no_ids() {
    let plain = Tokenizer::from_json(&fixture("bert-tiny/tokenizer.json")).unwrap();
    let mut spec: Value = serde_json::from_slice(&fixture("bert-tiny/tokenizer.json")).unwrap();
    spec["truncation"] =
        json!({"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0});
    spec["padding"] = json!({"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"});
    let padded = Tokenizer::from_json(spec.to_string().as_bytes()).unwrap();
    let text = "the boy said an idea";
    assert_eq!(padded.encode(text, true).unwrap(), plain.encode(text, true).unwrap());

    let mut spec: Value = serde_json::from_slice(&fixture("gpt2-tiny/tokenizer.json")).unwrap();
    spec["model"]["dropout"] = json!(0.9);
    let dropping = Tokenizer::from_json(spec.to_string().as_bytes()).unwrap();
    assert_eq!(dropping.encode(text, true).unwrap(), gpt2_tiny().encode(text, true).unwrap());
}

#[test]
fn whatever_files_there_are_make_the_tokenizer() {
    let (json, vocab_json) = (fixture("gpt2-tiny/tokenizer.json"), fixture("gpt2-tiny/vocab.json"));
    let (merges, vocab_txt) = (fixture("gpt2-tiny/merges.txt"), fixture("bert-tiny-cased/vocab.txt"));
    let bpe = Files { vocab_json: Some(&vocab_json), merges_txt: Some(&merges), ..Files::default() };
    let whole = Files { tokenizer_json: Some(&json), ..Files::default() };
    for files in [bpe, whole, Files { vocab_txt: Some(&vocab_txt), ..whole }] {
        assert_eq!(Tokenizer::from_files(&files).unwrap().unwrap().vocab_size(), 311);
    }
    assert!(Tokenizer::from_files(&Files::default()).unwrap().is_none());
    assert!(Tokenizer::from_files(&Files { merges_txt: None, ..bpe }).is_err());
    assert!(Tokenizer::from_files(&Files { vocab_json: None, ..bpe }).is_err());

    let encode = |config: &[u8]| {
        let config = Some(config).filter(|config| !config.is_empty());
        let files = Files { vocab_txt: Some(&vocab_txt), tokenizer_config_json: config, ..Files::default() };
        Tokenizer::from_files(&files).unwrap().unwrap().encode("The", false).unwrap()
    };
    assert_ne!(encode(br#"{"do_lower_case": false}"#), encode(br#"{"do_lower_case": true}"#));
    assert_eq!(encode(b""), encode(br#"{"do_lower_case": true}"#));

    for config in [r#"{"eos_token": "a"}"#, r#"{"eos_token": {"content": "a"}}"#] {
        let files = Files { tokenizer_config_json: Some(config.as_bytes()), ..bpe };
        let tokenizer = Tokenizer::from_files(&files).unwrap().unwrap();
        assert_eq!(tokenizer.eos_id(), tokenizer.token_id("a"));
    }
}

// Broken files.

#[track_caller]
fn check_broken(result: Result<Tokenizer, Error>, reason: &str) {
    let error = result.unwrap_err();
    assert!(matches!(error, Error::Tokenizer(_)));
    assert!(error.to_string().contains(reason), "{error}");
}

#[test]
fn broken_vocabularies_and_merges_are_errors() {
    let bpe = |vocab: &str, merges: &str| Tokenizer::from_bpe(vocab.as_bytes(), merges.as_bytes());
    let vocab = r#"{"a": 0, "b": 1, "ab": 2}"#;
    assert_eq!(bpe(vocab, "#version: 0.2\na b\n").unwrap().encode("ab", true).unwrap(), [2]);
    assert_eq!(bpe(vocab, "a b\r\n").unwrap().encode("ab", true).unwrap(), [2]);
    check_broken(bpe("", ""), "vocab.json: EOF");
    check_broken(bpe("{}", ""), "empty");
    check_broken(bpe("[1]", ""), "vocab.json");
    check_broken(bpe(r#"{"a": "b"}"#, ""), "`a`");
    check_broken(bpe(r#"{"a": -1}"#, ""), "-1");
    check_broken(bpe(r#"{"a": 4294967295}"#, ""), "4294967295");
    check_broken(bpe(r#"{"a": 1, "b": 1}"#, ""), "both");
    check_broken(bpe(vocab, "a"), "merges.txt: line 1");
    check_broken(bpe(vocab, "a b\na b c"), "merges.txt: line 2");
    check_broken(bpe(vocab, "a c"), "`c`");
    check_broken(bpe(vocab, "b a"), "`ba`");
    check_broken(bpe(vocab, "ab ab"), "merge 0");
    check_broken(Tokenizer::from_bpe(vocab.as_bytes(), b"a \xff"), "merges.txt: byte 2 is not UTF-8");
}

#[test]
fn broken_word_lists_are_errors() {
    check_broken(Tokenizer::from_wordpiece(b"", true), "`[UNK]` is missing");
    check_broken(Tokenizer::from_wordpiece(b"[UNK]\n[CLS]\na", true), "`[SEP]` is missing");
    check_broken(Tokenizer::from_wordpiece(b"[UNK]\n\xc3", true), "byte 6 is not UTF-8");
}

/// A fixture's `tokenizer.json` with the value at `pointer` replaced.
fn changed(name: &str, pointer: &str, value: Value) -> Result<Tokenizer, Error> {
    let mut spec: Value = serde_json::from_slice(&fixture(&format!("{name}/tokenizer.json"))).unwrap();
    *spec.pointer_mut(pointer).unwrap() = value;
    Tokenizer::from_json(spec.to_string().as_bytes())
}

#[test]
fn files_that_contradict_themselves_are_errors() {
    check_broken(Tokenizer::from_json(b""), "tokenizer.json: EOF");
    check_broken(Tokenizer::from_json(b"[]"), "tokenizer.json");
    check_broken(Tokenizer::from_json(b"{}"), "`model`");
    check_broken(Tokenizer::from_json("[".repeat(1 << 20).as_bytes()), "tokenizer.json");
    check_broken(changed("bert-tiny", "/model", json!({})), "`vocab`");
    check_broken(changed("bert-tiny", "/model/type", json!("Oracle")), "tokenizer.json");
    check_broken(changed("bert-tiny", "/model/vocab", json!({})), "empty");
    check_broken(changed("bert-tiny", "/added_tokens/1/id", json!(9)), "`[UNK]`");
    check_broken(changed("bert-tiny", "/added_tokens/1/id", json!(-9)), "`id`");
    check_broken(changed("bert-tiny", "/post_processor/special_tokens", json!({})), "`[CLS]`");
    check_broken(changed("bert-tiny", "/post_processor/single/1/Sequence/id", json!("B")), "one text");
    check_broken(
        changed("gpt2-tiny", "/model/merges/0", json!(["<|endoftext|>", "<|endoftext|>"])),
        "merge 0",
    );
    check_broken(changed("gpt2-tiny", "/model/merges/0", json!(7)), "merge 0");
    check_broken(changed("gpt2-tiny", "/model/continuing_subword_prefix", json!("##")), "merge 0");
}

/// Every value in a `tokenizer.json`, replaced by others: an error or a tokenizer that works, never a panic.
#[test]
fn no_change_to_a_file_makes_it_panic() {
    fn pointers(value: &Value, here: &str, found: &mut Vec<String>) {
        found.push(here.to_owned());
        // A few entries of a vocabulary stand for all.
        let escape = |key: &String| key.replace('~', "~0").replace('/', "~1");
        match value {
            Value::Object(map) => map
                .iter()
                .step_by(map.len() / 10 + 1)
                .for_each(|(key, value)| pointers(value, &format!("{here}/{}", escape(key)), found)),
            Value::Array(list) => list
                .iter()
                .enumerate()
                .step_by(list.len() / 10 + 1)
                .for_each(|(i, value)| pointers(value, &format!("{here}/{i}"), found)),
            _ => {}
        }
    }
    for name in ["gpt2-tiny", "bert-tiny"] {
        let spec: Value = serde_json::from_slice(&fixture(&format!("{name}/tokenizer.json"))).unwrap();
        let mut places = Vec::new();
        pointers(&spec, "", &mut places);
        let odd = [
            json!(null),
            json!(-1),
            json!(u32::MAX),
            json!(1e300),
            json!(""),
            json!("é"),
            json!([]),
            json!({}),
        ];
        for place in &places {
            for value in &odd {
                let mut spec = spec.clone();
                *spec.pointer_mut(place).unwrap() = value.clone();
                let Ok(tokenizer) = Tokenizer::from_json(spec.to_string().as_bytes()) else { continue };
                if let Ok(ids) = tokenizer.encode("The boy's café 😀!\n", true) {
                    let _ = tokenizer.decode(&ids, false);
                    streamed(&tokenizer, &ids, true);
                }
                let _ = tokenizer.encode_for_classifier("The boy", 3);
            }
        }
    }
}

#[test]
fn no_prefix_of_a_file_makes_it_panic() {
    let json = fixture("bert-tiny/tokenizer.json");
    for end in (0..json.len() - 2).step_by(7) {
        assert!(Tokenizer::from_json(&json[..end]).is_err());
    }
}

// Relations.

/// Text with much that tokenizers stumble over.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        any::<String>(),
        "[a-zA-Z' ]{0,12}",
        "[ \t\n\r\u{a0}\u{3000}]{0,5}",
        prop::sample::select(vec![
            "😀",
            "👩‍👩‍👧",
            "e\u{301}",
            "naïve",
            "<|endoftext|>",
            "[SEP]",
            "'s",
            "\u{fffd}",
            "\0"
        ])
        .prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn bytes_make_the_round_trip(text in text()) {
        let tokenizer = gpt2_tiny();
        let ids = tokenizer.encode(&text, true).unwrap();
        prop_assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
    }

    #[test]
    fn a_stream_is_the_whole(ids in prop::collection::vec(0_u32..311, 0..60), skip: bool) {
        let tokenizer = gpt2_tiny();
        prop_assert_eq!(streamed(&tokenizer, &ids, skip), tokenizer.decode(&ids, skip).unwrap());
    }

    #[test]
    fn decoding_is_the_crate_s(ids in prop::collection::vec(0_u32..311, 0..60), skip: bool) {
        let peer = tokenizers::Tokenizer::from_bytes(fixture("gpt2-tiny/tokenizer.json")).unwrap();
        prop_assert_eq!(gpt2_tiny().decode(&ids, skip).unwrap(), peer.decode(&ids, skip).unwrap());
    }

    #[test]
    fn a_classifier_s_ids_fit(text in text(), max_length in 2_usize..20) {
        let tokenizer = bert_tiny();
        let whole = tokenizer.encode(&text, true).unwrap();
        let (ids, truncated) = tokenizer.encode_for_classifier(&text, max_length).unwrap();
        prop_assert_eq!(truncated, whole.len() > max_length);
        prop_assert_eq!(ids.len(), whole.len().min(max_length));
        prop_assert_eq!(&ids[..ids.len() - 1], &whole[..ids.len() - 1]);
        prop_assert_eq!(ids.last(), whole.last());
    }

    #[test]
    fn any_bytes_make_an_error_or_a_tokenizer(a: Vec<u8>, b: Vec<u8>) {
        let _ = Tokenizer::from_json(&a);
        let _ = Tokenizer::from_bpe(&a, &b);
        let _ = Tokenizer::from_wordpiece(&a, true);
    }
}
