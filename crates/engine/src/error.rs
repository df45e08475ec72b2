//! Everything that can go wrong in the engine, said as: what was expected, what came, and where.

/// The engine's only error type.
///
/// Messages are lower case, name the file, tensor, field or node, and give both sides of a mismatch.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A checkpoint file breaks its own format: `file` is its kind or name, `reason` says where and how.
    #[error("{file}: {reason}")]
    Format {
        /// Which file or format, such as `safetensors` or `config.json`.
        file: String,
        /// What was expected, what came, and at which place.
        reason: String,
    },
    /// The byte stream ended before the checkpoint did.
    #[error("{file}: ends after {got} bytes, its header announces {expected}")]
    Truncated {
        /// Which file.
        file: String,
        /// Bytes that the header announces.
        expected: u64,
        /// Bytes that came.
        got: u64,
    },
    /// A field of `config.json` (or of GGUF metadata) is missing or impossible.
    #[error("config: `{field}` should be {expected}, got {got}")]
    Config {
        /// The field's name.
        field: String,
        /// What it should be.
        expected: String,
        /// What the file says.
        got: String,
    },
    /// The checkpoint is of an architecture that the engine does not run.
    #[error("architecture `{got}` is not supported; supported: {supported}")]
    Architecture {
        /// What the file names.
        got: String,
        /// What would work here.
        supported: &'static str,
    },
    /// The file holds a tensor that the architecture has no place for.
    #[error("weights: `{name}` is no tensor of a {architecture} model")]
    UnknownTensor {
        /// The tensor's name in the file.
        name: String,
        /// The architecture that the config names.
        architecture: &'static str,
    },
    /// The config asks for a tensor that no file holds.
    #[error("weights: `{name}` is missing; the config asks for shape {expected:?}")]
    MissingTensor {
        /// The tensor's name as the architecture spells it.
        name: String,
        /// Its shape by the config.
        expected: Vec<usize>,
    },
    /// A tensor came twice.
    #[error("weights: `{name}` comes twice (as `{first}` and as `{second}`)")]
    DuplicateTensor {
        /// The tensor's name as the architecture spells it.
        name: String,
        /// Its first name in the file.
        first: String,
        /// Its second name in the file.
        second: String,
    },
    /// A tensor's shape contradicts the config.
    #[error("weights: `{name}` has shape {got:?}, the config asks for {expected:?}")]
    TensorShape {
        /// The tensor's name in the file.
        name: String,
        /// Its shape by the config.
        expected: Vec<usize>,
        /// Its shape in the file.
        got: Vec<usize>,
    },
    /// A tensor is stored in a type that the engine does not read.
    #[error("weights: `{name}` is stored as {got}; supported: {supported}")]
    TensorType {
        /// The tensor's name in the file.
        name: String,
        /// The type that the file names.
        got: String,
        /// The types that are read.
        supported: &'static str,
    },
    /// A weight is NaN or infinite.
    #[error(
        "weights: `{name}` holds {value} at element {index}; a usable checkpoint has finite weights only"
    )]
    NotFinite {
        /// The tensor's name in the file.
        name: String,
        /// The element's index in file order.
        index: usize,
        /// The value found.
        value: f32,
    },
    /// The encoder has no trained classification head.
    #[error(
        "the checkpoint has no trained classifier (`{missing}` is missing), so its scores would be random; \
         choose a checkpoint fine-tuned for classification, or give a seed for an untrained head"
    )]
    UntrainedHead {
        /// The first tensor of the head that is missing.
        missing: String,
    },
    /// The tokenizer's files are broken, or contradict the model.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A classifier came without a tokenizer; it takes nothing but texts.
    #[error("a classifier needs its tokenizer: `tokenizer.json` or `vocab.txt`")]
    MissingTokenizer,
    /// A model without a tokenizer was given text, or asked for text.
    #[error("this model has no tokenizer, so it takes ids only")]
    NoTokenizer,
    /// A token id outside of the vocabulary.
    #[error("token id {id} is outside of the vocabulary of {vocab_size}")]
    TokenOutOfRange {
        /// The id.
        id: u32,
        /// Ids go from 0 to below this.
        vocab_size: usize,
    },
    /// Nothing to continue.
    #[error("the prompt is empty: give at least one token")]
    EmptyPrompt,
    /// The prompt leaves no room for a new token.
    #[error("the prompt has {prompt} tokens, but {limit_name} is {limit}: there is no room for a new one")]
    PromptTooLong {
        /// Tokens in the prompt.
        prompt: usize,
        /// Which limit: the model's context, or the request's `max_length`.
        limit_name: &'static str,
        /// The limit, in tokens.
        limit: usize,
    },
    /// More positions than the model has.
    #[error("{positions} positions do not fit the model's context of {context}")]
    Context {
        /// Positions asked for.
        positions: usize,
        /// Positions that the model has.
        context: usize,
    },
    /// A request parameter is out of its range.
    #[error("`{name}` should be {expected}, got {got}")]
    Parameter {
        /// The parameter's name on the wire.
        name: &'static str,
        /// Its range, in words.
        expected: String,
        /// The value given.
        got: String,
    },
    /// The model computed something that is not a number.
    #[error("the model's logits hold {value} at id {id}: its weights or its input are broken")]
    BrokenLogits {
        /// The vocabulary entry.
        id: usize,
        /// The value found.
        value: f32,
    },
    /// A graph file is wrong.
    #[error("graph: line {line}: {reason}")]
    Graph {
        /// The line in the file, from 1.
        line: usize,
        /// What is wrong there, naming the node.
        reason: String,
    },
    /// The host asked to stop.
    #[error("stopped")]
    Stopped,
    /// The tensor library failed; by the engine's own checks that should not happen.
    #[cfg(feature = "models")]
    #[error("tensor library: {0}")]
    Tensor(#[from] candle_core::Error),
}

/// Short for the engine's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Whether another request could have avoided it, as opposed to a fault of the model or the engine.
    #[must_use]
    pub fn is_callers_mistake(&self) -> bool {
        matches!(
            self,
            Error::EmptyPrompt
                | Error::PromptTooLong { .. }
                | Error::Context { .. }
                | Error::Parameter { .. }
                | Error::TokenOutOfRange { .. }
                | Error::NoTokenizer
                | Error::Graph { .. }
        )
    }

    /// A [`Error::Format`] for `file`.
    #[cfg(feature = "models")]
    pub(crate) fn format(file: impl Into<String>, reason: impl Into<String>) -> Self {
        Error::Format { file: file.into(), reason: reason.into() }
    }
}
