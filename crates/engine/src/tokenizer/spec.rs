//! What a `tokenizer.json` says, its two large parts in the form in which they are used.
//!
//! The crate's own way takes GPT-2's 50,000 tokens and as many merges through four other forms, which is most of what
//! loading a small model takes. Here tokens and merges are read once, checked, and handed to the crate's builders. Kinds
//! that no model here has (Unigram, WordLevel) go the crate's way.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value, json};
use tokenizers::{
    AddedToken, ModelWrapper,
    models::{
        bpe::{BPE, Merges},
        wordpiece::WordPiece,
    },
};

/// Tokens and their ids.
pub(super) type Tokens = tokenizers::models::bpe::Vocab;

/// Ids are below this, so that sizes made from them fit everywhere, WebAssembly included.
pub(super) const MAX_ID: u64 = 1 << 31;

/// The contents of a `tokenizer.json`.
#[derive(Deserialize)]
pub(super) struct Spec {
    pub(super) model: Model,
    #[serde(flatten)]
    pub(super) rest: Map<String, Value>,
}

/// Its `model`.
#[derive(Deserialize)]
pub(super) struct Model {
    #[serde(deserialize_with = "vocab")]
    pub(super) vocab: Vocab,
    #[serde(default, deserialize_with = "merges")]
    pub(super) merges: Option<Merges>,
    #[serde(flatten)]
    pub(super) rest: Map<String, Value>,
}

pub(super) enum Vocab {
    Tokens(Tokens),
    /// Unigram's is a list, whose ids are its places.
    List(Vec<Value>),
}

/// Which of the crate's models it is.
enum Kind {
    Bpe,
    WordPiece,
    Other,
}

#[derive(Deserialize)]
struct BpeSettings {
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    fuse_unk: Option<bool>,
    byte_fallback: Option<bool>,
    ignore_merges: Option<bool>,
}

#[derive(Deserialize)]
struct WordPieceSettings {
    unk_token: String,
    continuing_subword_prefix: String,
    max_input_chars_per_word: usize,
}

impl Spec {
    /// The tokenizer that it describes, and its largest id. The error is the reason why it is none.
    pub(super) fn build(self) -> Result<(tokenizers::Tokenizer, u32), String> {
        let Spec { mut model, mut rest } = self;
        // These would change ids.
        rest.remove("truncation");
        rest.remove("padding");
        model.rest.remove("dropout");
        let largest = model.check()?;
        let said = |error: serde_json::Error| error.to_string();
        let build = |model: ModelWrapper, mut rest: Map<String, Value>| -> Result<_, String> {
            let added = rest.remove("added_tokens").unwrap_or_else(|| json!([]));
            let added: Vec<AddedToken> = serde_json::from_value(added).map_err(said)?;
            // The crate reads the rest with a model in it, and another one is put in its place.
            rest.insert("model".into(), json!({"type": "BPE", "vocab": {}, "merges": []}));
            let mut tokenizer: tokenizers::Tokenizer =
                serde_json::from_value(Value::Object(rest)).map_err(said)?;
            tokenizer.with_model(model);
            tokenizer.add_tokens(added).map_err(|error| error.to_string())?;
            let added = tokenizer.get_added_vocabulary().get_vocab().values().max().copied();
            Ok((tokenizer, largest.max(added.unwrap_or(0))))
        };
        match (model.kind(), model) {
            (Kind::Bpe, Model { vocab: Vocab::Tokens(tokens), merges: Some(merges), rest: settings }) => {
                build(ModelWrapper::BPE(bpe(tokens, merges, settings)?), rest)
            }
            (Kind::WordPiece, Model { vocab: Vocab::Tokens(tokens), rest: settings, .. }) => {
                build(ModelWrapper::WordPiece(word_piece(tokens, settings)?), rest)
            }
            (_, model) => {
                rest.insert("model".into(), model.into_json());
                let tokenizer: tokenizers::Tokenizer =
                    serde_json::from_value(Value::Object(rest)).map_err(said)?;
                let largest = tokenizer.get_vocab(true).into_values().max();
                Ok((tokenizer, largest.unwrap_or(0)))
            }
        }
    }
}

impl Model {
    /// Older files do not say what they are.
    fn kind(&self) -> Kind {
        match self.rest.get("type").map(Value::as_str) {
            Some(Some("BPE")) => Kind::Bpe,
            None if self.merges.is_some() => Kind::Bpe,
            Some(Some("WordPiece")) => Kind::WordPiece,
            _ => Kind::Other,
        }
    }

    /// The largest id. No id stands for two tokens, and no merge is longer than the longest token or shorter than the
    /// prefix: the crate copies the one into a buffer for the other without looking. Whether all merges are of known
    /// tokens it checks itself.
    fn check(&self) -> Result<u32, String> {
        let tokens = match &self.vocab {
            Vocab::Tokens(tokens) if !tokens.is_empty() => tokens,
            Vocab::List(list) if !list.is_empty() => return Ok(0),
            _ => return Err("the vocabulary is empty".into()),
        };
        let mut ids: Vec<u32> = tokens.values().copied().collect();
        ids.sort_unstable();
        if let Some(twice) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            let mut both: Vec<&str> =
                tokens.iter().filter(|(_, id)| **id == twice[0]).map(|(token, _)| token.as_str()).collect();
            both.sort_unstable();
            return Err(format!("id {} stands for both `{}`", twice[0], both.join("` and `")));
        }
        let prefix = self.rest.get("continuing_subword_prefix").and_then(Value::as_str).unwrap_or("").len();
        let longest = tokens.keys().map(String::len).max().unwrap_or(0);
        let makes_none =
            |(a, b): &(String, String)| !b.is_char_boundary(prefix) || a.len() + b.len() - prefix > longest;
        let merges = self.merges.as_deref().unwrap_or_default();
        if let Some(number) = merges.iter().position(makes_none) {
            let (a, b) = &merges[number];
            return Err(format!("merge {number}, {a:?} and {b:?}, makes no token of the vocabulary"));
        }
        Ok(ids.last().copied().unwrap_or(0))
    }

    fn into_json(self) -> Value {
        let mut model = self.rest;
        let vocab = match self.vocab {
            Vocab::Tokens(tokens) => {
                Value::Object(tokens.into_iter().map(|(token, id)| (token, json!(id))).collect())
            }
            Vocab::List(list) => Value::Array(list),
        };
        model.insert("vocab".into(), vocab);
        model.extend(self.merges.map(|merges| ("merges".into(), json!(merges))));
        Value::Object(model)
    }
}

fn bpe(tokens: Tokens, merges: Merges, settings: Map<String, Value>) -> Result<BPE, String> {
    let settings: BpeSettings =
        serde_json::from_value(Value::Object(settings)).map_err(|error| error.to_string())?;
    let mut builder = BPE::builder()
        .vocab_and_merges(tokens, merges)
        .fuse_unk(settings.fuse_unk.unwrap_or(false))
        .byte_fallback(settings.byte_fallback.unwrap_or(false))
        .ignore_merges(settings.ignore_merges.unwrap_or(false));
    if let Some(token) = settings.unk_token {
        builder = builder.unk_token(token);
    }
    if let Some(prefix) = settings.continuing_subword_prefix {
        builder = builder.continuing_subword_prefix(prefix);
    }
    if let Some(suffix) = settings.end_of_word_suffix {
        builder = builder.end_of_word_suffix(suffix);
    }
    builder.build().map_err(|error| error.to_string())
}

fn word_piece(tokens: Tokens, settings: Map<String, Value>) -> Result<WordPiece, String> {
    let settings: WordPieceSettings =
        serde_json::from_value(Value::Object(settings)).map_err(|error| error.to_string())?;
    let builder = WordPiece::builder()
        .vocab(tokens)
        .unk_token(settings.unk_token)
        .continuing_subword_prefix(settings.continuing_subword_prefix)
        .max_input_chars_per_word(settings.max_input_chars_per_word);
    builder.build().map_err(|error| error.to_string())
}

/// A `vocab.json`, or the same inside of a `tokenizer.json`.
pub(super) fn vocab<'de, D: Deserializer<'de>>(from: D) -> Result<Vocab, D::Error> {
    struct Expected;
    impl<'de> Visitor<'de> for Expected {
        type Value = Vocab;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object `vocab` of tokens and ids")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocab, A::Error> {
            let mut tokens = Vec::new();
            while let Some((token, id)) = map.next_entry::<String, Value>()? {
                match id.as_u64().filter(|id| *id < MAX_ID) {
                    Some(id) => tokens.push((token, id as u32)),
                    None => {
                        let reason =
                            format!("token `{token}` should have an id from 0 to 2^31 - 1, got {id}");
                        return Err(A::Error::custom(reason));
                    }
                }
            }
            Ok(Vocab::Tokens(tokens.into_iter().collect()))
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vocab, A::Error> {
            let mut list = Vec::new();
            while let Some(entry) = seq.next_element()? {
                list.push(entry);
            }
            Ok(Vocab::List(list))
        }
    }
    from.deserialize_any(Expected)
}

/// Merges as pairs of tokens, or as in older files as one text with a space between them.
fn merges<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Merges>, D::Error> {
    struct List;
    impl<'de> Visitor<'de> for List {
        type Value = Option<Merges>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of merges")
        }

        fn visit_unit<E>(self) -> Result<Option<Merges>, E> {
            Ok(None)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Option<Merges>, A::Error> {
            let mut merges = Vec::new();
            while let Some(pair) = seq.next_element_seed(Merge(merges.len()))? {
                merges.push(pair);
            }
            Ok(Some(merges))
        }
    }

    /// The merge of this number.
    struct Merge(usize);
    impl<'de> DeserializeSeed<'de> for Merge {
        type Value = (String, String);

        fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(String, String), D::Error> {
            from.deserialize_any(self)
        }
    }
    impl<'de> Visitor<'de> for Merge {
        type Value = (String, String);

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "merge {} to be two tokens", self.0)
        }

        fn visit_str<E: serde::de::Error>(self, pair: &str) -> Result<(String, String), E> {
            match pair.split_once(' ').filter(|(_, b)| !b.contains(' ')) {
                Some((a, b)) => Ok((a.into(), b.into())),
                None => Err(E::custom(format!("merge {} should be two tokens, got {pair:?}", self.0))),
            }
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(String, String), A::Error> {
            let number = self.0;
            let pair =
                (seq.next_element()?, seq.next_element()?, seq.next_element::<serde::de::IgnoredAny>()?);
            match pair {
                (Some(a), Some(b), None) => Ok((a, b)),
                _ => Err(A::Error::custom(format!("merge {number} should be two tokens"))),
            }
        }
    }
    from.deserialize_any(List)
}
