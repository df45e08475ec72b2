//! Files that the visitor gives: each model goes to the node that it fits.

use std::collections::BTreeMap;

use leptos::prelude::*;

use super::{App, Panel};
use crate::{
    browser,
    engine::Files,
    files::{keep_name, task_of},
    models::{self, Source},
};

impl App {
    /// Gives each folder among the files to the node that its config fits.
    pub(crate) async fn take_files(self, files: Files) {
        if files.is_empty() {
            return;
        }
        if let [(name, file)] = files.as_slice()
            && name.ends_with(".toml")
        {
            let toml = browser::text_of(file).await.unwrap_or_default();
            match self.choose_graph(&toml).await {
                Ok(()) => self.say(format!("The graph of {name} runs now.")),
                Err(error) => self.problem(error),
            }
            return;
        }
        self.restored().await;
        self.use_here();
        let graph = self.graph.get_untracked();
        let mut choice = self.choice.get_untracked();
        let mut models = Vec::new();
        for (folder, files) in models::by_folder(files) {
            match task_of(&files).await {
                Ok(Some(task)) => models.push((folder, files, task)),
                // A folder without a model among folders that have one, such as `.git`.
                Ok(None) => {}
                Err(error) => return self.problem(error),
            }
        }
        let named: Vec<_> = models.iter().map(|(folder, _, task)| (folder.as_str(), *task)).collect();
        let places = models::places(&graph, &choice, &named);
        let mut own = BTreeMap::new();
        let mut said = Vec::new();
        for ((folder, files, _), node) in models.into_iter().zip(places) {
            let Some(node) = node else {
                said.push(format!("{folder} is not used: the graph has no node left for it."));
                continue;
            };
            said.push(format!("{folder} is {node} now."));
            let keep = keep_name(&folder, &files);
            choice.insert(node, Source::Files { name: folder, keep: Some(keep.clone()) });
            own.insert(keep, files);
        }
        if own.is_empty() {
            if said.is_empty() {
                said.push("No model is among these files: a config.json beside its weights, or a .gguf file, is expected.".into());
            }
            return self.problem(said.join(" "));
        }
        match self.needs_of(&models::without_demo(&choice), self.dtype.get_untracked(), &own).await {
            Ok(needs) if needs.verdict.is_hopeless => return self.problem(needs.verdict.text),
            Ok(needs) if needs.verdict.is_doubtful => said.push(needs.verdict.text),
            // What is wrong with the files is said when they are read.
            Ok(_) | Err(_) => {}
        }
        self.choose_models(choice, own);
        self.open_panel(Panel::Models);
        self.say(said.join(" "));
    }
}
