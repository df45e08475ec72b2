//! What the visitor chose, kept in this browser until the next visit: models, their weights' precision, where they run,
//! and how writers write.
//!
//! A link or an earlier run shows its own choices on the page and leaves these as they are.

use inkling_engine::protocol::Parameters;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    browser,
    models::{self, Choice, Dtype, Source},
};

/// Each choice has a name of its own behind this, so that rubbish in one does not lose the others. The version is part of
/// the name: a page of another version does not read it.
const PREFIX: &str = "inkling.choices.1.";
/// Longest graph file that is kept.
const LONGEST_GRAPH: usize = 64 * 1024;
/// JavaScript's numbers hold whole ones exactly below this.
const SEED_END: u64 = 1 << 53;

/// The visitor's choices. What was never chosen is at its default.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Kept {
    /// How writers write, without seed.
    pub(crate) parameters: Parameters,
    /// The seed of every run.
    pub(crate) seed: Option<u64>,
    /// Models that are not the demo models, by node.
    pub(crate) models: Choice,
    /// How the weights of all models are kept.
    pub(crate) dtype: Dtype,
    /// The graph file in use.
    pub(crate) graph: Option<String>,
    /// The server in use.
    pub(crate) server: Option<String>,
}

impl Kept {
    /// What an earlier visit kept.
    pub(crate) fn load() -> Kept {
        Kept::read(|name| browser::kept(&format!("{PREFIX}{name}")))
    }

    /// Keeps it for the next visit.
    pub(crate) fn save(&self) {
        self.write(|name, json| browser::keep(&format!("{PREFIX}{name}"), json.as_deref()));
    }

    fn read(kept: impl Fn(&str) -> Option<String>) -> Kept {
        let parameters: Option<Parameters> = read(&kept, "parameters");
        let models: Choice = read(&kept, "models").unwrap_or_default();
        let graph: Option<String> = read(&kept, "graph");
        let server: Option<String> = read(&kept, "server");
        Kept {
            parameters: parameters
                .map(|parameters| Parameters { seed: None, alternatives: None, ..parameters })
                .filter(|parameters| parameters.settings().is_ok())
                .unwrap_or_default(),
            seed: read(&kept, "seed").filter(|seed| *seed < SEED_END),
            models: models.into_iter().filter(|(_, source)| is_sound(source)).collect(),
            dtype: read(&kept, "dtype").unwrap_or_default(),
            graph: graph.filter(|toml| toml.len() <= LONGEST_GRAPH),
            server: server.and_then(|url| models::address(&url).ok()),
        }
    }

    fn write(&self, mut keep: impl FnMut(&str, Option<String>)) {
        keep("parameters", json(&self.parameters));
        keep("seed", json(&self.seed));
        keep("models", json(&self.models));
        keep("dtype", json(&self.dtype));
        keep("graph", json(&self.graph));
        keep("server", json(&self.server));
    }
}

fn read<T: DeserializeOwned>(kept: impl Fn(&str) -> Option<String>, name: &str) -> Option<T> {
    serde_json::from_str(&kept(name)?).ok()
}

/// A choice as it is kept; nothing for a default.
fn json<T: Serialize + Default + PartialEq>(value: &T) -> Option<String> {
    if *value == T::default() { None } else { serde_json::to_string(value).ok() }
}

fn is_sound(source: &Source) -> bool {
    match source {
        Source::Demo => false,
        Source::Hub { repo, endpoint } => {
            models::is_repo(repo)
                && endpoint.as_ref().is_none_or(|url| models::address(url).as_ref() == Ok(url))
        }
        Source::Files { .. } => true,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn kept() -> Kept {
        let hub = Source::Hub { repo: "openai-community/gpt2".into(), endpoint: None };
        let files = Source::Files { name: "mine".into(), keep: Some("mine 00".into()) };
        Kept {
            parameters: Parameters { temperature: Some(0.7), ..Parameters::default() },
            seed: Some(7),
            models: Choice::from([("gpt2".into(), hub), ("bert".into(), files)]),
            dtype: Dtype::Q4,
            graph: Some("nodes = []".into()),
            server: Some("http://127.0.0.1:3000".into()),
        }
    }

    fn written(kept: &Kept) -> BTreeMap<String, String> {
        let mut written = BTreeMap::new();
        kept.write(|name, json| written.extend(json.map(|json| (name.to_owned(), json))));
        written
    }

    fn read_back(written: &BTreeMap<String, String>) -> Kept {
        Kept::read(|name| written.get(name).cloned())
    }

    #[test]
    fn what_was_chosen_comes_back() {
        assert_eq!(written(&kept()).len(), 6);
        assert_eq!(read_back(&written(&kept())), kept());
        assert_eq!(written(&Kept::default()), BTreeMap::new());
    }

    #[test]
    fn rubbish_in_one_choice_is_nothing_and_leaves_the_others() {
        let whole = written(&kept());
        for (name, rubbish) in [
            ("parameters", ""),
            ("parameters", r#"{"temperature": -3}"#),
            ("parameters", r#"{"temperature": "hot"}"#),
            ("seed", "9007199254740993"),
            ("seed", "-1"),
            (
                "models",
                r#"{"gpt2": {"hub": {"repo": "../../x"}}, "x": {"hub": {"repo": "a", "endpoint": "javascript:1"}}}"#,
            ),
            ("models", r#"{"gpt2": "walrus"}"#),
            ("models", "{"),
            ("dtype", r#""q2""#),
            ("dtype", "4"),
            ("server", r#""ftp://x""#),
            ("graph", "[1]"),
        ] {
            let (mut broken, mut expected) = (whole.clone(), whole.clone());
            broken.insert(name.to_owned(), rubbish.to_owned());
            expected.remove(name);
            assert_eq!(read_back(&broken), read_back(&expected), "{name} {rubbish}");
        }
    }
}
