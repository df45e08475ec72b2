//! Text becomes ids, and ids become text again, also one token at a time.
//!
//! The rules are the `tokenizers` crate's; this module makes them safe and the same everywhere. Whatever files a model
//! has, they become one `tokenizer.json` in memory, which is checked where the crate trusts it, stripped of what would
//! change ids (padding, truncation, dropout), and handed over.
//!
//! [`TextStream`] turns a continuation into text while it grows: half characters wait until they are whole.

mod spec;

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokenizers::{DecoderWrapper, Model};

use self::spec::{Spec, Tokens, Vocab};
use crate::error::{Error, Result};

const END_OF_TEXT: &str = "<|endoftext|>";
const BERT_SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// A model's vocabulary and the rules that cut text into it. Clones share it.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: Arc<tokenizers::Tokenizer>,
    vocab_size: usize,
    eos_id: Option<u32>,
    detokenization: Detokenization,
}

/// How tokens become text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Detokenization {
    /// Each token is a run of bytes, of UTF-8 that may break anywhere.
    ByteLevel,
    /// Words put together with spaces, which are taken away before punctuation.
    CleanedUp,
    /// Whatever the file's decoder does.
    Other,
}

/// The contents of those of a tokenizer's files that exist.
///
/// `tokenizer.json` is complete by itself and wins over the others.
#[derive(Clone, Copy, Debug, Default)]
pub struct Files<'a> {
    /// `tokenizer.json`.
    pub tokenizer_json: Option<&'a [u8]>,
    /// `vocab.json`, of a byte-level BPE together with `merges_txt`.
    pub vocab_json: Option<&'a [u8]>,
    /// `merges.txt`.
    pub merges_txt: Option<&'a [u8]>,
    /// `vocab.txt`, of a WordPiece.
    pub vocab_txt: Option<&'a [u8]>,
    /// `tokenizer_config.json`: `do_lower_case` for `vocab.txt` (true unless it says otherwise), and `eos_token`.
    pub tokenizer_config_json: Option<&'a [u8]>,
}

impl Tokenizer {
    /// A tokenizer from whatever files there are; `None` where they do not make one.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if a file is broken, or if only one of `vocab.json` and `merges.txt` is there.
    pub fn from_files(files: &Files<'_>) -> Result<Option<Self>> {
        let config = match files.tokenizer_config_json {
            Some(bytes) => parse("tokenizer_config.json", bytes)?,
            None => Map::<String, Value>::new(),
        };
        let mut tokenizer = match (files.tokenizer_json, files.vocab_json, files.merges_txt, files.vocab_txt)
        {
            (Some(json), ..) => Self::from_json(json)?,
            (None, Some(vocab), Some(merges), _) => Self::from_bpe(vocab, merges)?,
            (None, _, _, Some(vocab)) => {
                let lower_case = config.get("do_lower_case").and_then(Value::as_bool).unwrap_or(true);
                Self::from_wordpiece(vocab, lower_case)?
            }
            (None, Some(_), None, None) => {
                return Err(broken("vocab.json is there, but merges.txt is missing"));
            }
            (None, None, Some(_), None) => {
                return Err(broken("merges.txt is there, but vocab.json is missing"));
            }
            (None, None, None, None) => return Ok(None),
        };
        // A token is written as a string, or as an object with its settings.
        let eos = config.get("eos_token").and_then(|token| token.get("content").unwrap_or(token).as_str());
        if let Some(id) = eos.and_then(|token| tokenizer.token_id(token)) {
            tokenizer.eos_id = Some(id);
        }
        Ok(Some(tokenizer))
    }

    /// From the bytes of a `tokenizer.json`. Its padding, truncation and dropout are switched off.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] with the reason if it is not one, or contradicts itself.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        assemble("tokenizer.json", parse("tokenizer.json", bytes)?)
    }

    /// GPT-2's byte-level BPE from the bytes of `vocab.json` and `merges.txt`.
    ///
    /// `<|endoftext|>` is special if the vocabulary has it. Bytes that a vocabulary of less than all 256 lacks vanish, as
    /// they do in Hugging Face's.
    /// Source: Radford et al. 2019, 2.2; Hugging Face's `GPT2TokenizerFast`.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] with the reason if a file is broken, or if they do not belong together.
    pub fn from_bpe(vocab_json: &[u8], merges_txt: &[u8]) -> Result<Self> {
        let mut json = serde_json::Deserializer::from_slice(vocab_json);
        let vocab = spec::vocab(&mut json).and_then(|vocab| json.end().map(|()| vocab));
        let vocab = match vocab.map_err(|e| broken(format!("vocab.json: {e}")))? {
            Vocab::Tokens(tokens) => tokens,
            Vocab::List(_) => {
                return Err(broken("vocab.json: expected an object of tokens and ids, got a list"));
            }
        };
        let mut merges = Vec::new();
        for (number, line) in lines("merges.txt", merges_txt)?.enumerate() {
            if line.is_empty() || (number == 0 && line.starts_with("#version")) {
                continue;
            }
            let pair =
                line.split_once(' ').filter(|(a, b)| !a.is_empty() && !b.is_empty() && !b.contains(' '));
            let (a, b) = pair.ok_or_else(|| {
                broken(format!("merges.txt: line {}: expected two tokens, got {line:?}", number + 1))
            })?;
            merges.push((a.to_owned(), b.to_owned()));
        }
        let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true});
        let rest = json!({
            "version": "1.0",
            "added_tokens": special_tokens(&vocab, &[END_OF_TEXT]),
            "pre_tokenizer": byte_level,
            "decoder": byte_level,
        });
        let model = json!({"type": "BPE"});
        let model = spec::Model { vocab: Vocab::Tokens(vocab), merges: Some(merges), rest: object(model) };
        assemble("vocab.json and merges.txt", Spec { model, rest: object(rest) })
    }

    /// BERT's WordPiece from the bytes of `vocab.txt`, a token a line.
    ///
    /// `lower_case`: lower-case the text and strip its accents first.
    /// Source: Devlin et al. 2019, 3; Hugging Face's `BertTokenizerFast`.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] with the reason if it is not UTF-8, or lacks `[UNK]`, `[CLS]` or `[SEP]`.
    pub fn from_wordpiece(vocab_txt: &[u8], lower_case: bool) -> Result<Self> {
        // Of a token that comes twice the last place counts.
        let tokens = lines("vocab.txt", vocab_txt)?.zip(0..).map(|(token, id)| (token.to_owned(), id));
        let vocab: Tokens = tokens.collect();
        for token in ["[UNK]", "[CLS]", "[SEP]"] {
            if !vocab.contains_key(token) {
                return Err(broken(format!("vocab.txt: `{token}` is missing")));
            }
        }
        let template = |token: &str| json!({"id": token, "ids": [vocab[token]], "tokens": [token]});
        let piece = |token: &str| json!({"SpecialToken": {"id": token, "type_id": 0}});
        let sequence = |id: &str, type_id: u32| json!({"Sequence": {"id": id, "type_id": type_id}});
        let single = [piece("[CLS]"), sequence("A", 0), piece("[SEP]")];
        let rest = json!({
            "version": "1.0",
            "added_tokens": special_tokens(&vocab, &BERT_SPECIAL),
            "normalizer": {
                "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                "strip_accents": null, "lowercase": lower_case,
            },
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": {
                "type": "TemplateProcessing",
                "single": single,
                // The crate asks for one; the engine scores single texts only.
                "pair": [sequence("A", 0), sequence("B", 1)],
                "special_tokens": {"[CLS]": template("[CLS]"), "[SEP]": template("[SEP]")},
            },
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        });
        let model = json!({
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
        });
        let model = spec::Model { vocab: Vocab::Tokens(vocab), merges: None, rest: object(model) };
        assemble("vocab.txt", Spec { model, rest: object(rest) })
    }

    /// The ids of `text`; with `special`, those that the model wants around it too (`[CLS]`, `[SEP]`).
    ///
    /// A special token that is spelled out in the text, such as `<|endoftext|>`, becomes its id either way.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the vocabulary cannot express the text.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        Ok(self.inner.encode_fast(text, special).map_err(broken)?.get_ids().to_vec())
    }

    /// The ids of `text` with the special ones around it, at most `max_length`, and whether the text was cut for that.
    ///
    /// What is cut is the text's end; the special ids stay.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the vocabulary cannot express the text, or if `max_length` is less than the special ids.
    pub fn encode_for_classifier(&self, text: &str, max_length: usize) -> Result<(Vec<u32>, bool)> {
        let encoding = self.inner.encode_fast(text, true).map_err(broken)?;
        let ids = encoding.get_ids();
        if ids.len() <= max_length {
            return Ok((ids.to_vec(), false));
        }
        let is_special = encoding.get_special_tokens_mask().iter().map(|special| *special == 1);
        let special = is_special.clone().filter(|special| *special).count();
        let mut room = max_length.checked_sub(special).ok_or_else(|| {
            broken(format!(
                "{max_length} positions are too few for the {special} special tokens around a text"
            ))
        })?;
        let mut kept = Vec::with_capacity(max_length);
        for (&id, special) in ids.iter().zip(is_special) {
            if special {
                kept.push(id);
            } else if room > 0 {
                kept.push(id);
                room -= 1;
            }
        }
        Ok((kept, true))
    }

    /// The text of `ids`; with `skip_special`, without special tokens.
    ///
    /// A byte-level tokenizer gives back exactly the bytes it was given, U+FFFD standing for what is not UTF-8.
    /// A WordPiece one gives the words, with no spaces before punctuation (Hugging Face's `clean_up_tokenization`).
    ///
    /// # Errors
    /// [`Error::TokenOutOfRange`] for an id beyond the vocabulary.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        if let Some(&id) = ids.iter().find(|id| **id as usize >= self.vocab_size) {
            return Err(Error::TokenOutOfRange { id, vocab_size: self.vocab_size });
        }
        match self.detokenization {
            Detokenization::ByteLevel => {
                let mut bytes = Vec::new();
                ids.iter().for_each(|id| self.append_bytes(*id, skip_special, &mut bytes));
                Ok(String::from_utf8_lossy(&bytes).into_owned())
            }
            Detokenization::CleanedUp => self.inner.decode(ids, skip_special).map(clean_up).map_err(broken),
            Detokenization::Other => self.inner.decode(ids, skip_special).map_err(broken),
        }
    }

    /// The text of one token by itself, special ones included: U+FFFD for half a character, nothing for an id beyond the
    /// vocabulary.
    #[must_use]
    pub fn token_text(&self, id: u32) -> String {
        self.decode(&[id], false).unwrap_or_default()
    }

    /// The largest id plus one, added tokens included.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Refuses a model that embeds `rows` ids, if that is too few.
    pub(crate) fn check_fits(&self, rows: usize) -> Result<()> {
        let tokens = self.vocab_size;
        if tokens > rows {
            return Err(broken(format!("has {tokens} tokens, the model embeds {rows}: they do not match")));
        }
        Ok(())
    }

    /// The id of a token, spelled as in the vocabulary (`Ġthe`, `##ing`, `[SEP]`).
    #[must_use]
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The id that ends a text: `eos_token` of `tokenizer_config.json`, else `<|endoftext|>` where it exists.
    #[must_use]
    pub fn eos_id(&self) -> Option<u32> {
        self.eos_id
    }

    /// Appends the bytes of a byte-level token; none for an unknown id, and none for a special one that is skipped.
    fn append_bytes(&self, id: u32, skip_special: bool, bytes: &mut Vec<u8>) {
        let added = self.inner.get_added_vocabulary();
        let token = added.simple_id_to_token(id).or_else(|| self.inner.get_model().id_to_token(id));
        let Some(token) = token.filter(|token| !(skip_special && added.is_special_token(token))) else {
            return;
        };
        let start = bytes.len();
        for c in token.chars() {
            let Some(byte) = byte_of(c) else {
                // An added token that is plain text.
                bytes.truncate(start);
                bytes.extend_from_slice(token.as_bytes());
                return;
            };
            bytes.push(byte);
        }
    }
}

/// The text of a growing continuation, piece by piece.
///
/// A piece is what became certain with its token: a character that is split over tokens waits for its last one. For a
/// byte-level tokenizer the pieces together are exactly [`Tokenizer::decode`] of all ids. Every other tokenizer is asked
/// for the text of a few recent tokens; there a clean-up that reaches over tokens can differ from the whole's.
/// A step costs the same however long the text has become.
#[derive(Clone, Debug)]
pub struct TextStream {
    skip_special: bool,
    /// Byte-level: at most 3 bytes, the start of a character.
    bytes: Vec<u8>,
    /// Other: recent ids; the text of the first `shown` of them is out, but the next piece may depend on it.
    recent: Vec<u32>,
    shown: usize,
    /// Other: text that may still change.
    held: String,
}

impl Default for TextStream {
    /// A stream that leaves special tokens out, as a continuation's text does.
    fn default() -> Self {
        TextStream::new(true)
    }
}

impl TextStream {
    /// Ids after which text that still ends in U+FFFD is taken to mean it: a character has at most 4 bytes.
    const PATIENCE: usize = 8;

    /// A stream before its first token; `skip_special`: special tokens have no text.
    #[must_use]
    pub fn new(skip_special: bool) -> Self {
        TextStream { skip_special, bytes: Vec::new(), recent: Vec::new(), shown: 0, held: String::new() }
    }

    /// The text that became certain with `id`; nothing for an id beyond the vocabulary.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the tokenizer's own decoder fails.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> Result<String> {
        if tokenizer.detokenization == Detokenization::ByteLevel {
            tokenizer.append_bytes(id, self.skip_special, &mut self.bytes);
            return Ok(take_certain(&mut self.bytes));
        }
        let text = |ids: &[u32]| tokenizer.inner.decode(ids, self.skip_special).map_err(broken);
        let before = text(&self.recent[..self.shown])?.len();
        self.recent.push(id);
        let new = text(&self.recent)?.get(before..).unwrap_or_default().to_owned();
        if new.ends_with(char::REPLACEMENT_CHARACTER) && self.recent.len() - self.shown < Self::PATIENCE {
            self.held = new;
            return Ok(String::new());
        }
        self.recent.drain(..self.shown);
        self.shown = self.recent.len();
        self.held.clear();
        Ok(new)
    }

    /// The rest, after the last token: U+FFFD for a character that never became whole.
    #[must_use]
    pub fn finish(self) -> String {
        // What waits is the start of one character, for which `from_utf8_lossy` puts one U+FFFD.
        self.held + &String::from_utf8_lossy(&self.bytes)
    }
}

/// Takes all text but the incomplete character at the end, with U+FFFD where [`String::from_utf8_lossy`] puts it.
fn take_certain(bytes: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut certain = 0;
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        certain += chunk.valid().len();
        let at_end = certain + chunk.invalid().len() == bytes.len();
        let incomplete = || std::str::from_utf8(chunk.invalid()).is_err_and(|e| e.error_len().is_none());
        if chunk.invalid().is_empty() || (at_end && incomplete()) {
            break;
        }
        text.push(char::REPLACEMENT_CHARACTER);
        certain += chunk.invalid().len();
    }
    bytes.drain(..certain);
    text
}

/// The byte that a character of a byte-level token stands for.
///
/// Printable bytes stand for themselves; the other 68 are, in order, the characters from U+0100 on.
/// Source: `bytes_to_unicode` in OpenAI's GPT-2 `encoder.py`.
fn byte_of(c: char) -> Option<u8> {
    match c {
        '!'..='~' | '¡'..='¬' | '®'..='ÿ' => u8::try_from(c).ok(),
        '\u{100}'..='\u{120}' => Some((c as u32 - 0x100) as u8),
        '\u{121}'..='\u{142}' => Some((c as u32 - 0x121) as u8 + 0x7f),
        '\u{143}' => Some(0xad),
        _ => None,
    }
}

/// Source: Hugging Face's `PreTrainedTokenizerBase.clean_up_tokenization`.
fn clean_up(text: String) -> String {
    [" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're"]
        .iter()
        .fold(text, |text, artefact| text.replace(artefact, artefact.trim_ascii()))
}

fn broken(reason: impl ToString) -> Error {
    Error::Tokenizer(reason.to_string())
}

fn parse<T: DeserializeOwned>(file: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| broken(format!("{file}: {e}")))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => unreachable!("called on literals that are objects"),
    }
}

fn lines<'a>(file: &str, bytes: &'a [u8]) -> Result<impl Iterator<Item = &'a str>> {
    let text = std::str::from_utf8(bytes)
        .map_err(|e| broken(format!("{file}: byte {} is not UTF-8", e.valid_up_to())))?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    Ok(text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)))
}

/// The entries of `added_tokens` for those of `tokens` that the vocabulary has.
fn special_tokens(vocab: &Tokens, tokens: &[&str]) -> Vec<Value> {
    let present = tokens.iter().filter_map(|token| Some((token, vocab.get(*token)?)));
    let entry = |(token, id): (&&str, &u32)| {
        json!({
            "id": id, "content": token, "special": true,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        })
    };
    present.map(entry).collect()
}

/// Makes the tokenizer that `spec` describes; `file` is named in errors.
fn assemble(file: &str, spec: Spec) -> Result<Tokenizer> {
    let fail = |reason: String| broken(format!("{file}: {reason}"));
    check_templates(spec.rest.get("post_processor").unwrap_or(&Value::Null)).map_err(fail)?;
    let added = added_tokens(&spec.rest).map_err(fail)?;
    let (inner, largest) = spec.build().map_err(fail)?;
    for (token, id) in added {
        let got = inner.token_to_id(&token);
        if got.is_some_and(|got| u64::from(got) != id) {
            return Err(fail(format!("added token `{token}` says id {id}, the vocabulary makes it {got:?}")));
        }
    }
    let detokenization = match inner.get_decoder() {
        Some(DecoderWrapper::ByteLevel(_)) => Detokenization::ByteLevel,
        Some(DecoderWrapper::WordPiece(decoder)) if decoder.cleanup => Detokenization::CleanedUp,
        _ => Detokenization::Other,
    };
    let eos_id = inner.token_to_id(END_OF_TEXT);
    Ok(Tokenizer { inner: Arc::new(inner), vocab_size: largest as usize + 1, eos_id, detokenization })
}

/// Every template for single texts refers to what exists only: the crate looks it up without asking.
fn check_templates(processor: &Value) -> Result<(), String> {
    for inner in processor.get("processors").and_then(Value::as_array).into_iter().flatten() {
        check_templates(inner)?;
    }
    for piece in processor.get("single").and_then(Value::as_array).into_iter().flatten() {
        let special = piece.pointer("/SpecialToken/id").and_then(Value::as_str);
        if let Some(id) = special
            && processor.get("special_tokens").and_then(|tokens| tokens.get(id)).is_none()
        {
            return Err(format!("the post-processor's template names `{id}`, which it does not define"));
        }
        if piece.pointer("/Sequence/id").is_some_and(|id| id != "A") {
            return Err(format!("the post-processor's template for one text holds {piece}"));
        }
    }
    Ok(())
}

fn added_tokens(spec: &Map<String, Value>) -> Result<Vec<(String, u64)>, String> {
    let tokens = spec.get("added_tokens").and_then(Value::as_array).into_iter().flatten();
    tokens
        .map(|token| {
            let content = token.get("content").and_then(Value::as_str);
            let id = token.get("id").and_then(Value::as_u64).filter(|id| *id < spec::MAX_ID);
            content.zip(id).map(|(content, id)| (content.to_owned(), id))
        })
        .map(|token| {
            token.ok_or_else(|| "an added token should have `content` and an `id` below 2^31".to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn the_256_byte_characters_stand_for_256_bytes() {
        let mut bytes: Vec<u8> = ('\0'..='\u{200}').filter_map(byte_of).collect();
        assert_eq!((byte_of('Ġ'), byte_of('Ċ'), byte_of('A')), (Some(b' '), Some(b'\n'), Some(b'A')));
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
    }

    #[test]
    fn pieces_of_bytes_are_the_lossy_text_of_all() {
        let bytes = b"a\xf0\x9f\x98\x80\xff\xe2\x82b\xe2\x82\xac\xc3\xf0\x9f\x98";
        for step in 1..=bytes.len() {
            let (mut text, mut held) = (String::new(), Vec::new());
            for piece in bytes.chunks(step) {
                held.extend_from_slice(piece);
                text += &take_certain(&mut held);
                assert!(held.len() < 4);
            }
            text += &String::from_utf8_lossy(&held);
            assert_eq!(text, String::from_utf8_lossy(bytes));
        }
    }
}
