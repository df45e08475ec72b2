//! What went wrong, in one sentence that a person can act on.

use inkling_engine::Error;
use serde::Serialize;
use wasm_bindgen::{JsCast as _, JsValue};

/// What kind of thing failed, which decides what a person can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A server could not be reached, refused, or broke off.
    Network,
    /// The bytes are not those that were announced.
    Hash,
    /// A file, a repository or stored data is not there.
    Missing,
    /// The browser's storage failed.
    Storage,
    /// There is not enough memory.
    Memory,
    /// A file is not what a model's file should be.
    Format,
    /// The request or the graph is wrong.
    Invalid,
    /// The caller asked to stop.
    Stopped,
    /// A fault of Inkling.
    Internal,
}

/// A failure as it crosses to JavaScript.
#[derive(Clone, Debug, PartialEq, Serialize, thiserror::Error)]
#[error("{error}")]
pub struct Failure {
    /// One sentence.
    pub error: String,
    /// What kind of failure.
    pub kind: Kind,
    /// Whether the same thing may succeed when it is tried again.
    pub can_retry: bool,
}

/// Short for results that cross to JavaScript.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// A failure of `kind`. Broken connections, stopped loads, storage and wrong bytes are worth another try.
    pub fn new(kind: Kind, error: impl Into<String>) -> Failure {
        let can_retry = match kind {
            Kind::Network | Kind::Hash | Kind::Stopped | Kind::Storage | Kind::Missing | Kind::Memory => true,
            Kind::Format | Kind::Invalid | Kind::Internal => false,
        };
        Failure { error: error.into(), kind, can_retry }
    }

    /// The same failure, of which another try cannot come out otherwise.
    #[must_use]
    pub fn for_good(self) -> Failure {
        Failure { can_retry: false, ..self }
    }

    /// Something that JavaScript threw.
    #[must_use]
    pub fn thrown(kind: Kind, what: &str, thrown: &JsValue) -> Failure {
        Failure::new(kind, format!("{what}: {}", reason(thrown)))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let kind = match error {
            Error::Tensor(_) | Error::BrokenLogits { .. } => Kind::Internal,
            Error::Stopped => Kind::Stopped,
            Error::MissingTokenizer => Kind::Missing,
            ref other if other.is_callers_mistake() => Kind::Invalid,
            _ => Kind::Format,
        };
        let failure = Failure::new(kind, sentence(&error.to_string()));
        // What the engine refuses it refuses again.
        if kind == Kind::Stopped { failure } else { failure.for_good() }
    }
}

impl From<Failure> for JsValue {
    fn from(failure: Failure) -> JsValue {
        crate::host::to_js(&failure)
    }
}

/// The engine's messages are parts of sentences; people read whole ones.
fn sentence(message: &str) -> String {
    if message.ends_with(['.', '?']) { message.into() } else { format!("{message}.") }
}

/// What a thrown value says, without the full stop.
#[must_use]
pub fn reason(thrown: &JsValue) -> String {
    let text = match thrown.dyn_ref::<js_sys::Error>() {
        Some(error) => String::from(error.message()),
        None => thrown.as_string().unwrap_or_else(|| format!("{thrown:?}")),
    };
    text.trim_end_matches('.').to_string()
}
