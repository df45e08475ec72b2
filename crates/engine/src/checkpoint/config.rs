//! What `config.json`, `generation_config.json` and GGUF metadata say about a model.

use serde::Deserialize;
use serde_json::Value;

use super::gguf;
use crate::{
    classify::Activation as Output,
    error::{Error, Result},
    kernels::Activation,
    protocol::Parameters,
};

/// The architectures that are supported, for errors.
pub const SUPPORTED: &str =
    "GPT-2 (gpt2), BERT (bert) and DistilBERT (distilbert) for sequence classification";

/// Largest sizes that are believed before any weight was read: far above every published model of these kinds.
const LARGEST: usize = 1 << 24;

/// Likewise for blocks and labels: each costs memory as soon as the config is read.
const MOST_BLOCKS: usize = 1024;
const MOST_LABELS: usize = 1 << 16;

/// A model's configuration.
#[derive(Clone, Debug, PartialEq)]
pub enum Config {
    /// A generator.
    Gpt2(Gpt2Config),
    /// A classifier.
    Encoder(EncoderConfig),
}

/// GPT-2's configuration, in Hugging Face's names.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpt2Config {
    /// Tokens.
    pub vocab_size: usize,
    /// Context, in tokens.
    pub n_positions: usize,
    /// Width of the residual stream.
    pub n_embd: usize,
    /// Blocks.
    pub n_layer: usize,
    /// Attention heads a block.
    pub n_head: usize,
    /// Width of the feed-forward layer.
    pub n_inner: usize,
    /// Activation of the feed-forward layer.
    pub activation: Activation,
    /// Added to the variance in layer norms.
    pub layer_norm_epsilon: f32,
    /// Whether the head is the token embedding.
    pub tie_word_embeddings: bool,
    /// Whether attention scores are divided by the root of the head's width.
    pub scale_attn_weights: bool,
    /// Whether attention scores are divided by the block's number, from 1, too.
    pub scale_attn_by_inverse_layer_idx: bool,
    /// Ids that end a text.
    pub eos_token_ids: Vec<u32>,
}

/// Configuration of BERT or DistilBERT with a classification head.
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderConfig {
    /// Which of the two.
    pub kind: EncoderKind,
    /// Tokens.
    pub vocab_size: usize,
    /// Context, in tokens.
    pub max_position_embeddings: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Blocks.
    pub num_hidden_layers: usize,
    /// Attention heads a block.
    pub num_attention_heads: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Activation of the feed-forward layer.
    pub activation: Activation,
    /// Added to the variance in layer norms.
    pub layer_norm_eps: f32,
    /// Segment types (BERT only).
    pub type_vocab_size: usize,
    /// Names of the head's outputs.
    pub labels: Vec<String>,
    /// How the head's outputs become probabilities.
    pub output: Output,
}

/// The two encoders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncoderKind {
    /// Devlin et al. 2018.
    Bert,
    /// Sanh et al. 2019.
    DistilBert,
}

impl Config {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`Error::Format`] for broken JSON, [`Error::Architecture`] for a model that is not supported,
    /// [`Error::Config`] for a field that is missing or impossible.
    pub fn from_json(json: &[u8]) -> Result<Config> {
        let fields: Value =
            serde_json::from_slice(json).map_err(|error| Error::format("config.json", error.to_string()))?;
        let fields = Fields(&fields);
        match fields.text("model_type")?.as_deref() {
            Some("gpt2") => Ok(Config::Gpt2(gpt2(&fields)?)),
            Some("bert") => Ok(Config::Encoder(bert(&fields)?)),
            Some("distilbert") => Ok(Config::Encoder(distilbert(&fields)?)),
            other => {
                let got = other.map_or_else(|| "none named by `model_type`".into(), str::to_string);
                Err(Error::Architecture { got, supported: SUPPORTED })
            }
        }
    }

    /// Reads the metadata of a GGUF file; `has_output`: whether it has a head of its own.
    pub(super) fn from_gguf(
        metadata: &gguf::Metadata,
        has_output: bool,
        vocab_size: usize,
    ) -> Result<Config> {
        let architecture = match metadata.get("general.architecture") {
            Some(gguf::Value::Text(name)) => name.as_str(),
            _ => "none named by `general.architecture`",
        };
        if architecture != "gpt2" {
            let got = format!("{architecture} in GGUF");
            return Err(Error::Architecture { got, supported: "gpt2 in GGUF; the others as safetensors" });
        }
        let integer = |key: &str| match metadata.get(&format!("gpt2.{key}")) {
            Some(gguf::Value::Integer(value)) => size(&format!("gpt2.{key}"), *value),
            other => Err(missing(&format!("gpt2.{key}"), "an integer", format!("{other:?}"))),
        };
        let epsilon = match metadata.get("gpt2.attention.layer_norm_epsilon") {
            Some(gguf::Value::Float(value)) => *value as f32,
            None => 1e-5,
            Some(other) => {
                return Err(missing("gpt2.attention.layer_norm_epsilon", "a number", format!("{other:?}")));
            }
        };
        let eos = match metadata.get("tokenizer.ggml.eos_token_id") {
            Some(gguf::Value::Integer(id)) => u32::try_from(*id).into_iter().collect(),
            _ => Vec::new(),
        };
        let n_embd = integer("embedding_length")?;
        let config = Gpt2Config {
            vocab_size,
            n_positions: integer("context_length")?,
            n_embd,
            n_layer: at_most("gpt2.block_count", integer("block_count")?, MOST_BLOCKS)?,
            n_head: integer("attention.head_count")?,
            n_inner: integer("feed_forward_length").unwrap_or(4 * n_embd),
            activation: Activation::GeluTanh,
            layer_norm_epsilon: epsilon,
            tie_word_embeddings: !has_output,
            scale_attn_weights: true,
            scale_attn_by_inverse_layer_idx: false,
            eos_token_ids: eos,
        };
        divides("gpt2.attention.head_count", config.n_head, config.n_embd)?;
        Ok(Config::Gpt2(config))
    }
}

/// Reads a `generation_config.json`: its decoding parameters, and the ids that end a text.
///
/// # Errors
/// [`Error::Format`] for broken JSON or a parameter of the wrong type, [`Error::Parameter`] for one out of range.
pub fn generation_defaults(json: &[u8]) -> Result<(Parameters, Vec<u32>)> {
    let file = "generation_config.json";
    let fail = |error: serde_json::Error| Error::format(file, error.to_string());
    let fields: Value = serde_json::from_slice(json).map_err(fail)?;
    let parameters = Parameters::deserialize(&fields).map_err(fail)?;
    parameters.settings()?;
    Ok((parameters, Fields(&fields).ids("eos_token_id")?))
}

fn gpt2(fields: &Fields<'_>) -> Result<Gpt2Config> {
    let n_embd = fields.size("n_embd", Some(768))?;
    let config = Gpt2Config {
        vocab_size: fields.size("vocab_size", Some(50257))?,
        n_positions: match fields.size("n_positions", None) {
            Ok(positions) => positions,
            Err(_) => fields.size("n_ctx", Some(1024))?,
        },
        n_embd,
        n_layer: at_most("n_layer", fields.size("n_layer", Some(12))?, MOST_BLOCKS)?,
        n_head: fields.size("n_head", Some(12))?,
        n_inner: fields.size("n_inner", Some(4 * n_embd))?,
        activation: fields.activation("activation_function", "gelu_new")?,
        layer_norm_epsilon: fields.number("layer_norm_epsilon", 1e-5)?,
        tie_word_embeddings: fields.flag("tie_word_embeddings", true)?,
        scale_attn_weights: fields.flag("scale_attn_weights", true)?,
        scale_attn_by_inverse_layer_idx: fields.flag("scale_attn_by_inverse_layer_idx", false)?,
        eos_token_ids: fields.ids("eos_token_id")?,
    };
    divides("n_head", config.n_head, config.n_embd)?;
    Ok(config)
}

fn bert(fields: &Fields<'_>) -> Result<EncoderConfig> {
    if let Some(kind) = fields.text("position_embedding_type")?
        && kind != "absolute"
    {
        return Err(Error::Config {
            field: "position_embedding_type".into(),
            expected: "`absolute`".into(),
            got: kind,
        });
    }
    let (labels, output) = labels(fields)?;
    let config = EncoderConfig {
        kind: EncoderKind::Bert,
        vocab_size: fields.size("vocab_size", Some(30522))?,
        max_position_embeddings: fields.size("max_position_embeddings", Some(512))?,
        hidden_size: fields.size("hidden_size", Some(768))?,
        num_hidden_layers: at_most(
            "num_hidden_layers",
            fields.size("num_hidden_layers", Some(12))?,
            MOST_BLOCKS,
        )?,
        num_attention_heads: fields.size("num_attention_heads", Some(12))?,
        intermediate_size: fields.size("intermediate_size", Some(3072))?,
        activation: fields.activation("hidden_act", "gelu")?,
        layer_norm_eps: fields.number("layer_norm_eps", 1e-12)?,
        type_vocab_size: fields.size("type_vocab_size", Some(2))?,
        labels,
        output,
    };
    divides("num_attention_heads", config.num_attention_heads, config.hidden_size)?;
    Ok(config)
}

fn distilbert(fields: &Fields<'_>) -> Result<EncoderConfig> {
    let (labels, output) = labels(fields)?;
    let hidden_size = fields.size("dim", Some(768))?;
    let config = EncoderConfig {
        kind: EncoderKind::DistilBert,
        vocab_size: fields.size("vocab_size", Some(30522))?,
        max_position_embeddings: fields.size("max_position_embeddings", Some(512))?,
        hidden_size,
        num_hidden_layers: at_most("n_layers", fields.size("n_layers", Some(6))?, MOST_BLOCKS)?,
        num_attention_heads: fields.size("n_heads", Some(12))?,
        intermediate_size: fields.size("hidden_dim", Some(4 * hidden_size))?,
        activation: fields.activation("activation", "gelu")?,
        layer_norm_eps: 1e-12,
        type_vocab_size: 0,
        labels,
        output,
    };
    divides("n_heads", config.num_attention_heads, config.hidden_size)?;
    Ok(config)
}

/// The head's labels from `id2label`, or `LABEL_0..` as many as `num_labels` (2) says.
fn labels(fields: &Fields<'_>) -> Result<(Vec<String>, Output)> {
    let labels = match fields.0.get("id2label") {
        None | Some(Value::Null) => {
            let count = at_most("num_labels", fields.size("num_labels", Some(2))?, MOST_LABELS)?;
            (0..count).map(|id| format!("LABEL_{id}")).collect()
        }
        Some(Value::Object(map)) => {
            let label = |id: usize| match map.get(&id.to_string()) {
                Some(Value::String(label)) => Ok(label.clone()),
                other => {
                    Err(missing("id2label", "one name for each id from 0", format!("{other:?} for {id}")))
                }
            };
            (0..map.len()).map(label).collect::<Result<Vec<String>>>()?
        }
        Some(other) => return Err(missing("id2label", "an object of names by id", other.to_string())),
    };
    if labels.is_empty() {
        return Err(missing("id2label", "at least one label", "none".into()));
    }
    let output = match fields.text("problem_type")?.as_deref() {
        Some("multi_label_classification") => Output::Sigmoid,
        Some("regression") => Output::Identity,
        _ if labels.len() == 1 => Output::Sigmoid,
        _ => Output::Softmax,
    };
    Ok((labels, output))
}

fn missing(field: &str, expected: &str, got: String) -> Error {
    Error::Config { field: field.into(), expected: expected.into(), got }
}

fn size(field: &str, value: i64) -> Result<usize> {
    match usize::try_from(value) {
        Ok(value) if (1..=LARGEST).contains(&value) => Ok(value),
        _ => Err(missing(field, &format!("an integer from 1 to {LARGEST}"), value.to_string())),
    }
}

fn at_most(field: &str, value: usize, most: usize) -> Result<usize> {
    match value <= most {
        true => Ok(value),
        false => Err(missing(field, &format!("at most {most}"), value.to_string())),
    }
}

fn divides(field: &str, heads: usize, width: usize) -> Result<()> {
    match width.is_multiple_of(heads) {
        true => Ok(()),
        false => Err(missing(field, &format!("a divisor of the width {width}"), heads.to_string())),
    }
}

/// The fields of a JSON object, with errors that name them. A null counts as absent.
struct Fields<'a>(&'a Value);

impl Fields<'_> {
    fn value(&self, field: &str) -> Option<&Value> {
        self.0.get(field).filter(|value| !value.is_null())
    }

    fn text(&self, field: &str) -> Result<Option<String>> {
        match self.value(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(other) => Err(missing(field, "a string", other.to_string())),
        }
    }

    fn size(&self, field: &str, default: Option<usize>) -> Result<usize> {
        match (self.value(field), default) {
            (None, Some(default)) => Ok(default),
            (None, None) => Err(missing(field, "an integer", "nothing".into())),
            (Some(value), _) => match value.as_i64() {
                Some(number) => size(field, number),
                None => Err(missing(field, &format!("an integer from 1 to {LARGEST}"), value.to_string())),
            },
        }
    }

    fn number(&self, field: &str, default: f32) -> Result<f32> {
        match self.value(field) {
            None => Ok(default),
            Some(value) => match value.as_f64() {
                Some(number) if number >= 0.0 && number.is_finite() => Ok(number as f32),
                _ => Err(missing(field, "a number, at least 0", value.to_string())),
            },
        }
    }

    fn flag(&self, field: &str, default: bool) -> Result<bool> {
        match self.value(field) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(missing(field, "true or false", other.to_string())),
        }
    }

    /// One id, several, or none.
    fn ids(&self, field: &str) -> Result<Vec<u32>> {
        let id = |value: &Value| {
            let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
            id.ok_or_else(|| missing(field, "an id or a list of ids", value.to_string()))
        };
        match self.value(field) {
            None => Ok(Vec::new()),
            Some(Value::Array(ids)) => ids.iter().map(id).collect(),
            Some(one) => Ok(vec![id(one)?]),
        }
    }

    fn activation(&self, field: &str, default: &str) -> Result<Activation> {
        let name = self.text(field)?.unwrap_or_else(|| default.into());
        match name.as_str() {
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(Activation::GeluTanh),
            "gelu" => Ok(Activation::GeluErf),
            "relu" => Ok(Activation::Relu),
            _ => Err(missing(field, "gelu_new, gelu or relu", name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[track_caller]
    fn check(json: &str, message: &str) {
        assert_eq!(Config::from_json(json.as_bytes()).unwrap_err().to_string(), message);
    }

    #[test]
    fn an_unknown_architecture_is_named_with_the_known_ones() {
        let supported = format!("is not supported; supported: {SUPPORTED}");
        check(r#"{"model_type": "llama"}"#, &format!("architecture `llama` {supported}"));
        check("{}", &format!("architecture `none named by `model_type`` {supported}"));
    }

    #[test]
    fn impossible_fields_are_named() {
        check(
            r#"{"model_type": "gpt2", "n_head": 7}"#,
            "config: `n_head` should be a divisor of the width 768, got 7",
        );
        let huge = r#"{"model_type": "gpt2", "n_embd": 99999999999}"#;
        check(huge, "config: `n_embd` should be an integer from 1 to 16777216, got 99999999999");
        let act = r#"{"model_type": "bert", "hidden_act": "silu"}"#;
        check(act, "config: `hidden_act` should be gelu_new, gelu or relu, got silu");
    }

    #[test]
    fn a_null_counts_as_absent() {
        let config = Config::from_json(br#"{"model_type": "gpt2", "n_inner": null}"#).unwrap();
        assert!(matches!(config, Config::Gpt2(Gpt2Config { n_inner: 3072, n_layer: 12, .. })));
    }

    #[test]
    fn labels_come_in_the_order_of_their_ids() {
        let json = br#"{"model_type": "bert", "id2label": {"1": "yes", "0": "no"}}"#;
        let Config::Encoder(config) = Config::from_json(json).unwrap() else { panic!("bert is an encoder") };
        assert_eq!((config.labels, config.output), (vec!["no".into(), "yes".into()], Output::Softmax));
    }

    #[test]
    fn generation_defaults_are_checked() {
        let (parameters, eos) =
            generation_defaults(br#"{"temperature": 0.5, "eos_token_id": [3, 4]}"#).unwrap();
        assert_eq!((parameters.temperature, eos), (Some(0.5), vec![3, 4]));
        assert!(generation_defaults(br#"{"temperature": -1}"#).is_err());
    }
}
