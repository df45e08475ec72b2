//! What every client of the Hugging Face hub has to know: the form of a repository's id, and where the hub's own
//! conversion of a model waits. Asking is the host's.

use serde::Deserialize;

/// Whether a text has the form of a repository's id: `name` or `owner/name`, as the hub allows them. What passes is safe
/// in an address and, with `--` in place of the slash, as the name of a folder.
#[must_use]
pub fn is_id(text: &str) -> bool {
    let is_name = |name: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        !name.is_empty() && name.bytes().all(plain) && !name.starts_with('.') && !name.contains("--")
    };
    match text.split_once('/') {
        Some((owner, name)) => is_name(owner) && is_name(name),
        None => is_name(text),
    }
}

/// Whether a file lies at the top of a repository. Folders hold other forms of the same model.
#[must_use]
pub fn is_at_top(name: &str) -> bool {
    !name.contains(['/', '\\', ':'])
}

/// Asks a repository's `discussions` for the pull requests of the hub's bot.
///
/// An older repository may have `pytorch_model.bin` alone on `main`; the bot then offers `model.safetensors` in a pull
/// request. `transformers` finds it in the same way.
pub const CONVERSIONS: &str = "author=SFconvertbot&type=pull_request";

/// The hub's answer to [`CONVERSIONS`].
#[derive(Clone, Debug, Deserialize)]
pub struct Discussions {
    discussions: Vec<Discussion>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Discussion {
    num: u64,
    title: String,
    is_pull_request: bool,
    author: Author,
}

#[derive(Clone, Debug, Deserialize)]
struct Author {
    name: String,
}

impl Discussions {
    /// The revision with the hub's own conversion, such as `refs/pr/2`, if there is one.
    #[must_use]
    pub fn conversion(&self) -> Option<String> {
        let by_bot = |found: &&Discussion| {
            found.is_pull_request
                && found.author.name == "SFconvertbot"
                && found.title == "Adding `safetensors` variant of this model"
        };
        self.discussions.iter().find(by_bot).map(|found| format!("refs/pr/{}", found.num))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn ids_are_names_and_never_paths() {
        for id in ["gpt2", "openai-community/gpt2", "textattack/bert-base-uncased-SST-2", "a/b.c_d"] {
            assert!(is_id(id), "{id}");
        }
        for bad in
            ["", "/", "a/", "/a", "a/b/c", "..", "a/..", "./a", "a b", "a\\b", "a--b/c", "a/b?c", "ü/a"]
        {
            assert!(!is_id(bad), "{bad}");
        }
    }

    #[test]
    fn a_conversion_is_the_bots_pull_request_and_nobody_elses() {
        let title = "Adding `safetensors` variant of this model";
        let page = |author: &str, title: &str, is_pull_request: bool| {
            let text = format!(
                r#"{{"discussions": [
                    {{"num": 1, "title": "Hello", "isPullRequest": false, "author": {{"name": "SFconvertbot"}}}},
                    {{"num": 2, "title": "{title}", "isPullRequest": {is_pull_request}, "author": {{"name": "{author}"}}}}
                ], "count": 2}}"#
            );
            serde_json::from_str::<Discussions>(&text).unwrap().conversion()
        };
        assert_eq!(page("SFconvertbot", title, true).as_deref(), Some("refs/pr/2"));
        assert_eq!(page("somebody", title, true), None);
        assert_eq!(page("SFconvertbot", "Other", true), None);
        assert_eq!(page("SFconvertbot", title, false), None);
    }
}
