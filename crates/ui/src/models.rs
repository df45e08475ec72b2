//! Which model each node has, and how weights are kept: the page's choice, as plain data. Files themselves live in the
//! browser only.

use std::collections::{BTreeMap, BTreeSet};

use inkling_engine::graph::{
    Graph,
    spec::{Node, Task},
};
use serde::{Deserialize, Serialize};

/// The hub that is asked where no other address is given.
pub(crate) const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// How the weights of all models are kept.
///
/// It holds for every source: demo models, a hub's and files are packed alike while they are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Dtype {
    /// 8 bits a weight.
    #[default]
    Q8,
    /// 4 bits a weight, but for embeddings and heads.
    Q4,
}

impl Dtype {
    /// Its name for the engine.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Dtype::Q8 => "q8",
            Dtype::Q4 => "q4",
        }
    }

    /// For people.
    pub(crate) fn bits(self) -> &'static str {
        match self {
            Dtype::Q8 => "8 bits",
            Dtype::Q4 => "4 bits",
        }
    }

    /// What is said of a thing whose weights are not kept as usual, such as `, 4 bits` behind a model's name.
    pub(crate) fn unusual(dtype: Option<Dtype>, before: &str) -> String {
        let unusual = dtype.filter(|dtype| *dtype != Dtype::default());
        unusual.map(|dtype| format!("{before}{}", dtype.bits())).unwrap_or_default()
    }
}

/// Where a node's model comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Source {
    /// The demo model that comes with the page.
    Demo,
    /// A repository of a model hub.
    Hub {
        /// Such as `openai-community/gpt2`.
        repo: String,
        /// The hub's address; [`DEFAULT_ENDPOINT`] where there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        endpoint: Option<String>,
    },
    /// Files of the visitor's own.
    Files {
        /// The folder's or the file's name.
        name: String,
        /// What the loaded model is kept under in this browser. In another one it names nothing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        keep: Option<String>,
    },
}

impl Source {
    /// For people.
    pub(crate) fn describe(&self) -> String {
        match self {
            Source::Demo => "demo model".into(),
            Source::Hub { repo, endpoint: None } => repo.clone(),
            Source::Hub { repo, endpoint: Some(endpoint) } => format!("{repo} at {endpoint}"),
            Source::Files { name, .. } => format!("{name} (local)"),
        }
    }
}

/// A source for each node.
pub(crate) type Choice = BTreeMap<String, Source>;

/// The demo model for every node.
pub(crate) fn demo(graph: &Graph) -> Choice {
    graph.nodes.iter().map(|node| (node.name.clone(), Source::Demo)).collect()
}

/// Whether these models are all ones that come with the page.
pub(crate) fn is_demo(choice: &Choice) -> bool {
    choice.values().all(|source| *source == Source::Demo)
}

/// The models that are not the demo models.
pub(crate) fn without_demo(choice: &Choice) -> Choice {
    let others = choice.iter().filter(|(_, source)| **source != Source::Demo);
    others.map(|(node, source)| (node.clone(), source.clone())).collect()
}

/// The models that are not the demo models, for people: `openai-community/gpt2 and mine (local)`.
pub(crate) fn describe(choice: &Choice) -> String {
    let names: Vec<String> = without_demo(choice).values().map(Source::describe).collect();
    match names.as_slice() {
        [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        names => names.concat(),
    }
}

/// An address that a visitor typed for a hub or a server: `https://` where no scheme is given, no slash at the end.
///
/// # Errors
/// One sentence, if it is no http address.
pub(crate) fn address(typed: &str) -> Result<String, String> {
    let typed = typed.trim().trim_end_matches('/');
    let has_scheme = typed.contains("://");
    let is_local = ["localhost", "127.0.0.1", "[::1]"].iter().any(|host| typed.starts_with(host));
    let url = match (has_scheme, is_local) {
        (true, _) => typed.to_owned(),
        (false, true) => format!("http://{typed}"),
        (false, false) => format!("https://{typed}"),
    };
    let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")).unwrap_or_default();
    let (authority, path) = host.split_once('/').unwrap_or((host, ""));
    let is_name = !authority.is_empty()
        && authority.chars().all(|c| c.is_alphanumeric() || ".-:[]".contains(c))
        && authority.rsplit(':').next().is_some_and(|port| {
            !authority.contains(':') || authority.ends_with(']') || port.parse::<u16>().is_ok()
        });
    if is_name && !path.contains(|c: char| c.is_whitespace() || "?#@".contains(c)) {
        Ok(url)
    } else {
        Err("Give an address such as https://huggingface.co.".into())
    }
}

/// Whether a name has the form of a hub's repository: `owner/name`, or one word for the oldest ones.
pub(crate) fn is_repo(name: &str) -> bool {
    let is_word = |word: &str| {
        !word.is_empty()
            && word.len() <= 96
            && !word.starts_with('.')
            && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    let words: Vec<&str> = name.split('/').collect();
    matches!(words.len(), 1 | 2) && words.into_iter().all(is_word)
}

/// What a folder's `config.json` says about the task of its model.
///
/// # Errors
/// One sentence, if it is not a model that Inkling runs.
pub(crate) fn task_of_config(json: &str) -> Result<Task, String> {
    #[derive(Deserialize)]
    struct Config {
        model_type: Option<String>,
        #[serde(default)]
        architectures: Vec<String>,
    }
    let config: Config =
        serde_json::from_str(json).map_err(|_| "The config.json of these files is broken.".to_owned())?;
    let model_type = config.model_type.unwrap_or_default();
    match model_type.as_str() {
        "gpt2" => Ok(Task::Generate),
        "bert" | "distilbert" => Ok(Task::Classify),
        _ => {
            let name = config.architectures.into_iter().next().unwrap_or(model_type);
            Err(format!("These files are a {name} model; GPT-2, BERT and DistilBERT run here."))
        }
    }
}

/// The nodes that models go to, given by the name of their folder and their task.
///
/// A folder that is called as a node, or as a node's model, goes there, as `inkling run --models FOLDER` has it. Any other
/// goes to the first node of its task that has no files yet, or else to the first that is left; `None` where none is.
pub(crate) fn places(graph: &Graph, choice: &Choice, models: &[(&str, Task)]) -> Vec<Option<String>> {
    let mut taken = BTreeSet::new();
    let mut place = |task: Task, is_right: &dyn Fn(&Node) -> bool| {
        let mut nodes = graph.nodes.iter();
        let node = nodes.find(|node| node.task == task && !taken.contains(&node.name) && is_right(node))?;
        taken.insert(node.name.clone());
        Some(node.name.clone())
    };
    let mut places: Vec<_> =
        models.iter().map(|(folder, task)| place(*task, &|node| is_called(node, folder))).collect();
    let is_free = |node: &Node| !matches!(choice.get(&node.name), Some(Source::Files { .. }));
    for (found, (_, task)) in places.iter_mut().zip(models).filter(|(found, _)| found.is_none()) {
        *found = place(*task, &is_free).or_else(|| place(*task, &|_| true));
    }
    places
}

/// Whether this is the name of a node or of its model, in short.
fn is_called(node: &Node, name: &str) -> bool {
    node.name == name || node.model.all().any(|model| model.rsplit('/').next() == Some(name))
}

/// Files by the folder that they lie in, each under its own name; the folder is named by the last part of its path.
pub(crate) fn by_folder<F>(files: Vec<(String, F)>) -> BTreeMap<String, Vec<(String, F)>> {
    let mut folders: BTreeMap<String, Vec<(String, F)>> = BTreeMap::new();
    for (path, file) in files {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
        folders.entry(folder.to_owned()).or_default().push((name.to_owned(), file));
    }
    let named = |(path, files): (String, Vec<(String, F)>)| {
        let gguf = files.iter().map(|(name, _)| name).find(|name| name.ends_with(".gguf"));
        let name = match path.rsplit('/').next().unwrap_or_default() {
            "" => gguf.map_or("your files", |name| name.as_str()).to_owned(),
            last => last.to_owned(),
        };
        (name, files)
    };
    folders.into_iter().map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_get_their_scheme() {
        assert_eq!(address(" hf.example.org/ ").unwrap(), "https://hf.example.org");
        assert_eq!(address("localhost:3000").unwrap(), "http://localhost:3000");
        assert_eq!(address("http://10.0.0.2:80/x/").unwrap(), "http://10.0.0.2:80/x");
        for bad in [
            "",
            "ftp://a",
            "https://",
            "https:///x",
            "javascript:alert(1)",
            "a b",
            "a:x",
            "u@a",
            "https://a?x",
        ] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn repositories_have_one_or_two_words() {
        assert!(["gpt2", "openai-community/gpt2", "a/b.c_d"].into_iter().all(is_repo));
        assert!(!["", "a/", "/a", "a/b/c", "../x", "a b", "https://x/y"].into_iter().any(is_repo));
    }

    #[test]
    fn a_config_names_its_task() {
        assert_eq!(task_of_config(r#"{"model_type":"gpt2"}"#), Ok(Task::Generate));
        assert_eq!(task_of_config(r#"{"model_type":"distilbert"}"#), Ok(Task::Classify));
        let llama = task_of_config(r#"{"model_type":"llama","architectures":["LlamaForCausalLM"]}"#);
        assert!(llama.unwrap_err().contains("LlamaForCausalLM"));
        assert!(task_of_config("{").is_err());
    }

    #[test]
    fn folders_are_told_apart_and_named_by_their_last_part() {
        let files = ["set/a/config.json", "set/a/model.safetensors", "set/b/x.gguf"];
        let folders = by_folder(files.map(|path| (path.to_owned(), ())).to_vec());
        let names: Vec<_> = folders.iter().map(|(name, files)| (name.as_str(), files.len())).collect();
        assert_eq!(names, [("a", 2), ("b", 1)]);
        let loose = by_folder(vec![("x.gguf".to_owned(), ()), ("tokenizer.json".to_owned(), ())]);
        assert_eq!(loose.keys().collect::<Vec<_>>(), ["x.gguf"]);
    }

    #[track_caller]
    fn check(choice: &Choice, models: &[(&str, Task)], expected: &[Option<&str>]) {
        let found = places(&Graph::default(), choice, models);
        assert_eq!(found.iter().map(Option::as_deref).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn folders_go_to_the_nodes_that_are_called_so() {
        let folders = [("distilgpt2", Task::Generate), ("gpt2", Task::Generate)];
        check(&demo(&Graph::default()), &folders, &[Some("distilgpt2"), Some("gpt2")]);
        // The names of the models on the hub; one critic is one too many.
        let folders = [("bert-base-uncased", Task::Classify), ("bert-base-uncased-SST-2", Task::Classify)];
        check(&demo(&Graph::default()), &folders, &[None, Some("bert")]);
        check(&demo(&Graph::default()), &[("gpt2", Task::Classify)], &[Some("bert")]);
    }

    #[test]
    fn files_go_to_the_first_free_node_of_their_task() {
        let mut choice = demo(&Graph::default());
        check(&choice, &[("a", Task::Generate)], &[Some("gpt2")]);
        choice.insert("gpt2".into(), Source::Files { name: "a".into(), keep: None });
        check(&choice, &[("b", Task::Generate)], &[Some("distilgpt2")]);
        check(&choice, &[("b", Task::Generate), ("c", Task::Generate)], &[Some("distilgpt2"), Some("gpt2")]);
        choice.insert("distilgpt2".into(), Source::Files { name: "b".into(), keep: None });
        check(&choice, &[("c", Task::Generate)], &[Some("gpt2")]);
        check(&choice, &[("c", Task::Classify)], &[Some("bert")]);
    }
}
