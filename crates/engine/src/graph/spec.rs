//! What a graph file says, checked: a TOML list of nodes, each with task, model, inputs and parameters.
//!
//! ```toml
//! name = "default"
//!
//! [[nodes]]
//! name = "gpt2"
//! task = "generate"                # text in, text out; or "classify": text in, score out
//! inputs = ["sentence"]            # the request's sentence, or names of generators
//! model = { demo = "writer", hub = "openai-community/gpt2" }   # or one string for every source
//! parameters = { max_length = 128, temperature = 0.9 }         # generators only, all optional
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
#[cfg(feature = "toml")]
use toml::Spanned;

#[cfg(feature = "toml")]
use crate::error::{Error, Result};
use crate::protocol::Parameters;

/// The input name that means the request's sentence.
pub const SENTENCE: &str = "sentence";

/// A checked graph: names are unique, inputs exist and fit, and there is no cycle.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    /// The graph's name.
    pub name: String,
    /// The nodes in the order of the file, which is the order of the answer's rows.
    pub nodes: Vec<Node>,
}

/// One node of a graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its name: letters, digits, `_` and `-`.
    pub name: String,
    /// What it does.
    pub task: Task,
    /// Which model does it.
    pub model: ModelNames,
    /// Where its texts come from.
    pub inputs: Vec<Input>,
    /// Decoding parameters of a generator; a request's own lie over them.
    pub parameters: Parameters,
}

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Text in, longer text out.
    Generate,
    /// Text in, label and score out.
    Classify,
}

/// Where a node's text comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// The request's sentence.
    Sentence,
    /// Every text of the generator at this index of [`Graph::nodes`].
    Node(usize),
}

/// The model's name, one for every source of models or one for each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ModelNames {
    /// The same name wherever models come from.
    Same(String),
    /// A name a source, such as `demo` and `hub`.
    BySource(BTreeMap<String, String>),
}

impl ModelNames {
    /// The model's name at `source`, such as `demo` or `hub`.
    #[must_use]
    pub fn at(&self, source: &str) -> Option<&str> {
        match self {
            ModelNames::Same(name) => Some(name),
            ModelNames::BySource(names) => names.get(source).map(String::as_str),
        }
    }

    /// Every name, in no promised order.
    pub fn all(&self) -> impl Iterator<Item = &str> {
        let names: Vec<&str> = match self {
            ModelNames::Same(name) => vec![name],
            ModelNames::BySource(names) => names.values().map(String::as_str).collect(),
        };
        names.into_iter()
    }
}

impl Default for Graph {
    /// Two generators and a classifier on both texts, as the reference has them.
    /// `default.toml` says the same; a test compares them.
    fn default() -> Self {
        let node = |name: &str, task, [demo, hub]: [&str; 2], inputs: &[Input]| Node {
            name: name.into(),
            task,
            model: ModelNames::BySource(BTreeMap::from([
                ("demo".into(), demo.into()),
                ("hub".into(), hub.into()),
            ])),
            inputs: inputs.to_vec(),
            parameters: Parameters::default(),
        };
        let sentence = [Input::Sentence];
        let distilled = ["writer-distilled", "distilbert/distilgpt2"];
        let critic = ["critic", "textattack/bert-base-uncased-SST-2"];
        let nodes = vec![
            node("gpt2", Task::Generate, ["writer", "openai-community/gpt2"], &sentence),
            node("distilgpt2", Task::Generate, distilled, &sentence),
            node("bert", Task::Classify, critic, &[Input::Node(0), Input::Node(1)]),
        ];
        Graph { name: "default".into(), nodes }
    }
}

#[cfg(feature = "toml")]
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GraphFile {
    #[serde(default = "unnamed")]
    name: String,
    #[serde(default)]
    nodes: Vec<Spanned<NodeFile>>,
}

#[cfg(feature = "toml")]
fn unnamed() -> String {
    "graph".into()
}

#[cfg(feature = "toml")]
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeFile {
    name: Spanned<String>,
    task: Task,
    model: ModelNames,
    inputs: Spanned<Vec<Spanned<String>>>,
    #[serde(default)]
    parameters: Option<Spanned<toml::Table>>,
}

impl Graph {
    /// Reads and checks a graph file.
    ///
    /// # Errors
    /// [`Error::Graph`] with the line, naming the node: bad TOML, an unknown key, a name that is taken, an input
    /// that is unknown, given twice or of the wrong type, a parameter out of range, a cycle.
    #[cfg(feature = "toml")]
    pub fn parse(toml: &str) -> Result<Graph> {
        let at = |offset: usize, reason: String| Error::Graph { line: line_of(toml, offset), reason };
        let file: GraphFile = toml::from_str(toml).map_err(|error| {
            at(error.span().map_or(0, |span| span.start), error.message().trim().to_string())
        })?;
        if file.nodes.is_empty() {
            return Err(at(0, "the graph has no nodes: give at least one `[[nodes]]`".into()));
        }
        let names: Vec<&str> = file.nodes.iter().map(|node| node.get_ref().name.get_ref().as_str()).collect();
        let mut nodes = Vec::with_capacity(names.len());
        for (index, node) in file.nodes.iter().enumerate() {
            let NodeFile { name, task, model, inputs, parameters } = node.get_ref();
            let place = name.span().start;
            let name = name.get_ref();
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
                let reason = format!("node `{name}`: a name has letters, digits, `_` and `-` only");
                return Err(at(place, reason));
            }
            if name == SENTENCE {
                return Err(at(place, format!("node `{SENTENCE}`: that name means the request's sentence")));
            }
            if names[..index].contains(&name.as_str()) {
                return Err(at(place, format!("node `{name}`: the name is taken by an earlier node")));
            }
            if model.all().any(str::is_empty) || model.all().next().is_none() {
                return Err(at(place, format!("node `{name}`: the model's name is empty")));
            }
            if inputs.get_ref().is_empty() {
                let reason = format!("node `{name}`: no inputs; give `{SENTENCE}` or names of generators");
                return Err(at(inputs.span().start, reason));
            }
            let mut resolved = Vec::new();
            for input in inputs.get_ref() {
                let source = input.get_ref();
                let fail =
                    |what: String| at(input.span().start, format!("node `{name}`: input `{source}` {what}"));
                let input = match names.iter().position(|other| other == source) {
                    _ if source == SENTENCE => Input::Sentence,
                    Some(other) if file.nodes[other].get_ref().task == Task::Classify => {
                        return Err(fail(
                            "is a classifier: its output is a score, a text is expected".into(),
                        ));
                    }
                    Some(other) => Input::Node(other),
                    None => {
                        let known = [&[SENTENCE], names.as_slice()].concat().join("`, `");
                        return Err(fail(format!("is unknown; known: `{known}`")));
                    }
                };
                if resolved.contains(&input) {
                    return Err(fail("is given twice".into()));
                }
                resolved.push(input);
            }
            let parameters = match parameters {
                None => Parameters::default(),
                Some(table) => read_parameters(name, *task, table.get_ref())
                    .map_err(|reason| at(table.span().start, reason))?,
            };
            nodes.push(Node {
                name: name.clone(),
                task: *task,
                model: model.clone(),
                inputs: resolved,
                parameters,
            });
        }
        let graph = Graph { name: file.name, nodes };
        if let Some(cycle) = graph.cycle() {
            let place = file.nodes[cycle[0]].get_ref().inputs.span().start;
            let path: Vec<&str> = cycle.iter().chain([&cycle[0]]).map(|&node| names[node]).collect();
            let reason =
                format!("node `{}`: its inputs form a cycle: {}", names[cycle[0]], path.join(" <- "));
            return Err(at(place, reason));
        }
        Ok(graph)
    }

    /// The node of this name.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// How many texts each node writes in a run with these parameters; a classifier counts those that it scores.
    #[must_use]
    pub fn text_counts(&self, request: &Parameters) -> Vec<usize> {
        (0..self.nodes.len()).map(|node| self.text_count(node, request)).collect()
    }

    /// Continuations of each prompt that `node` writes in a run with these parameters.
    #[must_use]
    pub fn sequences(&self, node: usize, request: &Parameters) -> usize {
        match self.nodes[node].task {
            Task::Generate => request.or(&self.nodes[node].parameters).num_return_sequences.unwrap_or(1),
            Task::Classify => 1,
        }
    }

    fn text_count(&self, node: usize, request: &Parameters) -> usize {
        let texts = |input: &Input| match input {
            Input::Sentence => 1,
            Input::Node(source) => self.text_count(*source, request),
        };
        self.sequences(node, request) * self.nodes[node].inputs.iter().map(texts).sum::<usize>()
    }

    /// A cycle as node indices, each the input of the one before; the smallest index comes first.
    #[cfg(feature = "toml")]
    fn cycle(&self) -> Option<Vec<usize>> {
        // Depth first from every node; a node met again on the current path closes a cycle.
        fn visit(graph: &Graph, node: usize, path: &mut Vec<usize>, done: &mut [bool]) -> Option<Vec<usize>> {
            if let Some(start) = path.iter().position(|&seen| seen == node) {
                let mut cycle = path[start..].to_vec();
                let least = (0..cycle.len()).min_by_key(|&at| cycle[at]).unwrap_or(0);
                cycle.rotate_left(least);
                return Some(cycle);
            }
            if done[node] {
                return None;
            }
            path.push(node);
            for input in &graph.nodes[node].inputs {
                if let Input::Node(source) = input
                    && let Some(cycle) = visit(graph, *source, path, done)
                {
                    return Some(cycle);
                }
            }
            path.pop();
            done[node] = true;
            None
        }
        let mut done = vec![false; self.nodes.len()];
        (0..self.nodes.len()).find_map(|node| visit(self, node, &mut Vec::new(), &mut done))
    }
}

#[cfg(feature = "toml")]
fn read_parameters(node: &str, task: Task, table: &toml::Table) -> Result<Parameters, String> {
    if task == Task::Classify {
        return Err(format!("node `{node}`: a classifier takes no parameters"));
    }
    if let Some(unknown) = table.keys().find(|key| !Parameters::NAMES.contains(&key.as_str())) {
        let known = Parameters::NAMES.join("`, `");
        return Err(format!("node `{node}`: unknown parameter `{unknown}`; known: `{known}`"));
    }
    let parameters: Parameters = table
        .clone()
        .try_into()
        .map_err(|error: toml::de::Error| format!("node `{node}`: {}", error.message()))?;
    parameters.settings().map_err(|error| format!("node `{node}`: {error}"))?;
    Ok(parameters)
}

/// The line of a byte offset, from 1.
#[cfg(feature = "toml")]
fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|&&byte| byte == b'\n').count() + 1
}

#[cfg(test)]
#[cfg(feature = "toml")]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[track_caller]
    fn check(toml: &str, line: usize, message: &str) {
        let Err(Error::Graph { line: got, reason }) = Graph::parse(toml) else {
            panic!("expected an error, got a graph");
        };
        assert_eq!((got, reason.as_str()), (line, message));
    }

    fn node(name: &str, task: &str, inputs: &str, rest: &str) -> String {
        format!(
            "[[nodes]]\nname = \"{name}\"\ntask = \"{task}\"\nmodel = \"m\"\ninputs = [{inputs}]\n{rest}\n"
        )
    }

    #[test]
    fn default_graph_is_two_generators_and_a_classifier_on_both() {
        let graph = Graph::default();
        let inputs: Vec<_> = graph.nodes.iter().map(|node| node.inputs.as_slice()).collect();
        assert_eq!(inputs[..2], [[Input::Sentence], [Input::Sentence]]);
        assert_eq!(inputs[2], [Input::Node(0), Input::Node(1)]);
        assert_eq!(graph.nodes[1].model.at("hub"), Some("distilbert/distilgpt2"));
        assert_eq!(graph.nodes[1].model.at("moon"), None);
    }

    #[test]
    fn the_default_file_says_the_default_graph() {
        assert_eq!(Graph::parse(include_str!("default.toml")).unwrap(), Graph::default());
    }

    #[test]
    fn a_cycle_is_named_with_its_path() {
        let toml = node("a", "generate", "\"c\"", "")
            + &node("b", "generate", "\"a\"", "")
            + &node("c", "generate", "\"b\"", "");
        check(&toml, 5, "node `a`: its inputs form a cycle: a <- c <- b <- a");
    }

    #[test]
    fn a_node_that_feeds_itself_is_a_cycle() {
        check(&node("a", "generate", "\"a\"", ""), 5, "node `a`: its inputs form a cycle: a <- a");
    }

    #[test]
    fn an_unknown_input_is_named_with_the_known_ones() {
        let toml = node("a", "generate", "\"sentence\"", "") + &node("b", "classify", "\"x\"", "");
        check(&toml, 11, "node `b`: input `x` is unknown; known: `sentence`, `a`, `b`");
    }

    #[test]
    fn a_score_is_no_text() {
        let toml = node("a", "classify", "\"sentence\"", "") + &node("b", "generate", "\"a\"", "");
        check(&toml, 11, "node `b`: input `a` is a classifier: its output is a score, a text is expected");
    }

    #[test]
    fn parameters_are_checked_when_the_file_is_read() {
        let hot = node("a", "generate", "\"sentence\"", "parameters = { temperature = -1.0 }");
        check(&hot, 6, "node `a`: `temperature` should be above 0 and at most 100, got -1");
        let classifier = node("a", "classify", "\"sentence\"", "parameters = { top_k = 3 }");
        check(&classifier, 6, "node `a`: a classifier takes no parameters");
        let toml = node("a", "generate", "\"sentence\"", "parameters = { topk = 3 }");
        assert!(
            Graph::parse(&toml)
                .unwrap_err()
                .to_string()
                .contains("unknown parameter `topk`; known: `max_length`")
        );
    }

    #[test]
    fn broken_files_name_their_line() {
        check("", 1, "the graph has no nodes: give at least one `[[nodes]]`");
        check(
            &node("a", "generate", "", ""),
            5,
            "node `a`: no inputs; give `sentence` or names of generators",
        );
        let twice = node("a", "generate", "\"sentence\"", "") + &node("a", "generate", "\"sentence\"", "");
        check(&twice, 8, "node `a`: the name is taken by an earlier node");
        for bad in ["x = 1", "[[nodes]]\nname = 3", "[[nodes", "name = \"\u{0}\""] {
            assert!(matches!(Graph::parse(bad), Err(Error::Graph { line: 1..=2, .. })), "{bad}");
        }
    }
}
