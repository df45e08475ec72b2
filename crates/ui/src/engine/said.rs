//! What the engine says of the browser, of models and of what is kept.

use serde::{Deserialize, Serialize};

/// What this browser can do.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Capabilities {
    pub(crate) simd: bool,
    pub(crate) relaxed_simd: bool,
    pub(crate) workers: bool,
    pub(crate) opfs: bool,
    pub(crate) cache_api: bool,
    pub(crate) persisted: bool,
    pub(crate) cores: f64,
    /// As the browser says it; never above 8, and absent in some.
    pub(crate) memory_gib: Option<f64>,
}

impl Default for Capabilities {
    fn default() -> Self {
        Capabilities {
            simd: true,
            relaxed_simd: false,
            workers: true,
            opfs: true,
            cache_api: true,
            persisted: false,
            cores: 1.0,
            memory_gib: None,
        }
    }
}

/// What loading a model would take.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Description {
    pub(crate) name: String,
    /// Still to come over the network.
    pub(crate) download_bytes: f64,
    /// In memory, at its dtype.
    pub(crate) memory_bytes: f64,
    pub(crate) cached: bool,
    pub(crate) files: Vec<DescribedFile>,
}

/// A file of a model.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct DescribedFile {
    pub(crate) size_bytes: f64,
}

impl Description {
    /// Whether some of it is in this browser already: its download goes on.
    pub(crate) fn is_begun(&self) -> bool {
        let total: f64 = self.files.iter().map(|file| file.size_bytes).sum();
        self.cached || self.download_bytes < total
    }
}

/// Where a node's model stands.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(crate) enum LoadState {
    /// Not begun.
    Waiting,
    /// On its way.
    Loading {
        #[serde(default)]
        file: String,
        #[serde(default)]
        bytes: f64,
        #[serde(default)]
        total_bytes: Option<f64>,
        #[serde(default)]
        ms_left: Option<f64>,
        /// `network`, `cache` or `file`.
        #[serde(default)]
        from: String,
    },
    /// There.
    Ready(Loaded),
    /// Not there, for a reason.
    Failed {
        error: String,
        #[serde(default)]
        kind: String,
        #[serde(default)]
        can_retry: bool,
    },
    /// Let go.
    Closed,
}

impl LoadState {
    /// Whether it is not yet known how this ends.
    pub(crate) fn is_on_its_way(&self) -> bool {
        matches!(self, LoadState::Waiting | LoadState::Loading { .. })
    }
}

/// A loaded model.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Loaded {
    pub(crate) load_ms: f64,
    pub(crate) memory_bytes: f64,
    pub(crate) model: String,
    pub(crate) model_sha256: Option<String>,
    /// Which kernels it computes with.
    pub(crate) isa: String,
    /// What the visitor should know, such as a full disk.
    pub(crate) notice: Option<String>,
}

/// A model that is kept in this browser.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct Stored {
    pub(crate) id: String,
    pub(crate) name: String,
    /// How its weights are kept: `q8`, `q4` or `f32`; nothing where another version of the engine kept it.
    pub(crate) dtype: Option<String>,
    pub(crate) size_bytes: f64,
    pub(crate) complete: bool,
}

impl Stored {
    /// For people, with its weights' precision: there may be a copy at each.
    pub(crate) fn describe(&self) -> String {
        let bits = match self.dtype.as_deref() {
            Some("q8") => ", 8 bits",
            Some("q4") => ", 4 bits",
            Some("f32") => ", 32 bits",
            _ => "",
        };
        format!("{}{bits}", self.name)
    }
}

/// How full this browser's storage is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Estimate {
    pub(crate) usage_bytes: Option<f64>,
    pub(crate) quota_bytes: Option<f64>,
    pub(crate) persisted: bool,
}
