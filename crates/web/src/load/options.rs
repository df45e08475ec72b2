//! What a caller may choose about a load.

use inkling_engine::{
    checkpoint::{Dtype, LoadOptions},
    graph::spec::Task,
};
use wasm_bindgen::JsValue;

use crate::{
    error::{Failure, Kind, Result},
    host,
};

/// How a model is loaded.
#[derive(Debug)]
pub struct Options {
    pub(super) load: LoadOptions,
    /// Whether the model is kept in this browser.
    pub(super) cache: bool,
    /// Where the engine's own files lie, with a slash at its end.
    pub(super) base: String,
    /// What the model is for; a model of another kind is refused.
    pub(super) task: Option<Task>,
}

impl Options {
    /// Reads `{dtype, cache, base, task, untrained_head_seed}`.
    pub(crate) fn read(options: &JsValue) -> Result<Options> {
        let invalid = |error: String| Err(Failure::new(Kind::Invalid, error));
        let dtype = match host::text(options, "dtype").as_deref() {
            None => Dtype::default(),
            Some(name) => match Dtype::of_name(name) {
                Some(dtype) => dtype,
                None => return invalid(format!("`dtype` should be `q8`, `q4` or `f32`, got `{name}`.")),
            },
        };
        let task = match host::text(options, "task").as_deref() {
            None => None,
            Some("generate") => Some(Task::Generate),
            Some("classify") => Some(Task::Classify),
            Some(other) => {
                return invalid(format!("`task` should be `generate` or `classify`, got `{other}`."));
            }
        };
        let seed = host::property(options, "untrained_head_seed").as_f64();
        Ok(Options {
            load: LoadOptions { dtype, untrained_head_seed: seed.map(|seed| seed as u64) },
            cache: host::property(options, "cache").as_bool().unwrap_or(true),
            base: host::text(options, "base").unwrap_or_default(),
            task,
        })
    }
}
