//! Earlier runs, kept in this browser's local storage until the visitor erases them.

use std::sync::Arc;

use inkling_engine::graph::{
    Answer, Graph,
    answer::{NodeReport, Row},
    spec::{Node, Task},
};
use serde::{Deserialize, Serialize};

use crate::{
    link::SharedRun,
    run::{NodeState, Phase, RunState, TextState},
};

const KEY: &str = "inkling.history.1";
/// Runs that are kept; the oldest ones go first.
pub(crate) const MOST: usize = 50;

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// When it ended, in milliseconds since 1970; its name too.
    pub(crate) at_ms: f64,
    /// What was asked, with which models.
    pub(crate) asked: SharedRun,
    /// What came out.
    pub(crate) answer: Answer,
}

impl Entry {
    /// The run as the page shows it: texts, judgements and the nodes' parts, without the tokens' probabilities. `graph` is
    /// the one on the page; the nodes are known only if it is the one of the run.
    pub(crate) fn to_run(&self, graph: &Arc<Graph>) -> RunState {
        let names = self.answer.nodes.iter().map(|report| &report.node);
        let is_same = names.eq(graph.nodes.iter().map(|node| &node.name));
        let unknown = || Arc::new(Graph { name: self.answer.graph.clone(), nodes: Vec::new() });
        let graph = if is_same { graph.clone() } else { unknown() };
        let part = |(node, report): (&Node, &NodeReport)| {
            let rows = self.answer.rows.iter();
            let (ended, expected) = match node.task {
                Task::Generate => {
                    let own = rows.filter(|row| row.text.as_ref().is_some_and(|text| text.node == node.name));
                    own.fold((0, 0), |(ended, all), row| {
                        (ended + usize::from(row.generated.is_some()), all + 1)
                    })
                }
                Task::Classify => {
                    let is_own =
                        |row: &&Row| row.judgements.iter().any(|judgement| judgement.node == node.name);
                    let judged = rows.filter(is_own).count();
                    (judged, judged)
                }
            };
            NodeState::of_report(node.task, report, ended, expected)
        };
        let nodes = graph.nodes.iter().zip(&self.answer.nodes).map(part).collect();
        let mut run = RunState::begin(graph, self.asked.request());
        run.phase = Phase::Ended;
        run.dtype = self.asked.dtype;
        run.nodes = nodes;
        run.texts.clear();
        for row in &self.answer.rows {
            let Some(id) = &row.text else { continue };
            let sentence = &self.answer.sentence;
            let generated = row.generated.as_deref().unwrap_or_default();
            let completion = generated.strip_prefix(sentence.as_str()).unwrap_or(generated);
            let mut text = TextState::whole(id.clone(), sentence, completion, row.finish_reason);
            text.judgements = row.judgements.clone();
            text.error = row.error.as_ref().map(|error| format!("{}: {}", error.node, error.message));
            run.texts.push(text);
        }
        run.answer = self.answer.clone();
        run
    }

    /// The new text of the first row, for the list.
    pub(crate) fn excerpt(&self) -> String {
        let text = self.answer.rows.iter().find_map(|row| row.generated.as_deref()).unwrap_or_default();
        let text = text.strip_prefix(self.answer.sentence.as_str()).unwrap_or(text);
        let short: String = text.chars().take(90).collect();
        if short.len() < text.len() { format!("{}…", short.trim_end()) } else { short }
    }
}

/// What is kept, newest first. What cannot be read any more is nothing.
pub(crate) fn load() -> Vec<Entry> {
    let json = storage().and_then(|storage| storage.get_item(KEY).ok().flatten());
    json.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default()
}

/// Keeps `entries`, as many of the newest as there is room for; what could be kept.
pub(crate) fn save(mut entries: Vec<Entry>) -> Vec<Entry> {
    entries.truncate(MOST);
    let Some(storage) = storage() else { return entries };
    if entries.is_empty() {
        let _ = storage.remove_item(KEY);
        return entries;
    }
    while let Ok(json) = serde_json::to_string(&entries) {
        // A full storage refuses; half as many runs may still fit.
        if storage.set_item(KEY, &json).is_ok() || entries.len() <= 1 {
            break;
        }
        entries.truncate(entries.len() / 2);
    }
    entries
}

fn storage() -> Option<web_sys::Storage> {
    web_sys::window()?.local_storage().ok().flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use inkling_engine::protocol::{Event, FinishReason, Request, Stamped};

    use super::*;
    use crate::{models::Dtype, run::Activity};

    #[test]
    fn an_entry_shows_the_texts_of_its_run() {
        let mut run = RunState::begin(Arc::new(Graph::default()), Request::default());
        run.dtype = Some(Dtype::Q4);
        for (node, completion) in [("gpt2", " One."), ("distilgpt2", " Two.")] {
            let event = Event::Done {
                node: node.into(),
                sequence: 0,
                prompt: run.request.sentence.clone(),
                completion: completion.into(),
                new_tokens: 2,
                finish_reason: FinishReason::EndOfText,
            };
            run.accept(&Stamped { at_ms: 1.0, event });
        }
        run.end();
        let asked = SharedRun::of(&run, &BTreeMap::new());
        let entry = Entry { at_ms: 1.0, asked, answer: run.answer.clone() };
        let entry: Entry = serde_json::from_str(&serde_json::to_string(&entry).unwrap()).unwrap();
        let shown = entry.to_run(&run.graph);
        assert_eq!(shown.dtype, run.dtype);
        assert_eq!(shown.texts.iter().map(TextState::full).collect::<Vec<_>>(), {
            run.texts.iter().map(TextState::full).collect::<Vec<_>>()
        });
        assert!(shown.nodes[..2].iter().all(|node| node.activity == Activity::Done));
        // Under another graph the nodes are not known, the texts are.
        let other = entry.to_run(&Arc::new(Graph { name: "other".into(), nodes: Vec::new() }));
        assert_eq!((other.nodes.len(), other.texts.len()), (0, 2));
        assert_eq!(entry.excerpt(), " One.");
        assert_eq!(entry.asked.compare(&shown).map(|same| same.same), Some(2));
    }
}
