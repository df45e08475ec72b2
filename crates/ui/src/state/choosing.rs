//! What the visitor chooses, which is kept until the next visit, and what of it that visit finds.

use std::collections::BTreeMap;

use inkling_engine::protocol::Parameters;
use leptos::prelude::*;

use super::{Act, App, EngineState, Notice, Place};
use crate::{
    device::Needs,
    engine::{self, Files},
    kept::Kept,
    link::SharedRun,
    models::{self, Choice, Dtype, Source},
};

/// Models that would have to be downloaded first: nothing comes before the visitor says so.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asked {
    pub(crate) why: Reason,
    /// All models of the graph then.
    pub(crate) choice: Choice,
    /// How their weights are kept then.
    pub(crate) dtype: Dtype,
    /// What they need.
    pub(crate) needs: Needs,
}

/// What models are needed for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reason {
    /// The run of a link, or an earlier run.
    Run(Box<SharedRun>),
    /// The visitor chose them at an earlier visit.
    LastVisit,
    /// The visitor would have their weights kept in another way.
    Dtype,
}

impl App {
    /// Uses these models from now on, with files for the local ones, by what these are kept under.
    pub(crate) fn choose_models(self, choice: Choice, files: BTreeMap<String, Files>) {
        self.keep_here(|kept| kept.models = models::without_demo(&choice));
        self.asked.set(None);
        self.use_models(choice, self.dtype.get_untracked(), files);
    }

    /// Keeps the weights of the models in use like this from now on. What would have to be downloaded for it is asked for
    /// first.
    pub(crate) async fn choose_dtype(self, dtype: Dtype) {
        self.wanted_dtype.set(Some(dtype));
        self.restored().await;
        let (choice, now) = (self.choice.get_untracked(), self.dtype.get_untracked());
        let needs = self.needs_of(&choice, dtype, &BTreeMap::new()).await;
        if self.wanted_dtype.get_untracked() != Some(dtype) {
            // The visitor changed their mind meanwhile.
            return;
        }
        self.wanted_dtype.set(None);
        self.asked.set(None);
        if dtype == now || self.choice.get_untracked() != choice {
            return;
        }
        match needs {
            Ok(needs) if needs.are_met() && !needs.verdict.is_hopeless => self.keep_dtype(choice, dtype),
            Ok(needs) => {
                let text = format!("At {} the models are to be downloaded first.", dtype.bits());
                self.announcement.set(text);
                self.asked.set(Some(Asked { why: Reason::Dtype, choice, dtype, needs }));
            }
            Err((node, error)) => match choice.get(&node) {
                Some(Source::Files { name, .. }) => {
                    let (here, bits) = (now.bits(), dtype.bits());
                    let text = format!(
                        "This browser keeps {name} at {here} only, and a page cannot open your files by itself: choose them again, then {bits}."
                    );
                    self.problem_with(text, vec![Act::ChooseFiles]);
                }
                _ => self.problem(format!("{node}: {}", crate::format::sentence(&error))),
            },
        }
    }

    fn keep_dtype(self, choice: Choice, dtype: Dtype) {
        self.use_models(choice, dtype, BTreeMap::new());
        self.keep_here(|_| ());
        self.say(format!("The models are kept at {} now.", dtype.bits()));
    }

    /// How the visitor would have weights kept: as in use, or as is being looked for or asked.
    pub(crate) fn wished_dtype(self) -> Dtype {
        let asked = self.asked.with(|asked| match asked {
            Some(Asked { why: Reason::Dtype, dtype, .. }) => Some(*dtype),
            _ => None,
        });
        self.wanted_dtype.get().or(asked).unwrap_or_else(|| self.dtype.get())
    }

    /// Uses a graph file from now on.
    ///
    /// # Errors
    /// What is wrong with the file, with its line.
    pub(crate) async fn choose_graph(self, toml: &str) -> Result<(), String> {
        self.use_graph(toml).await?;
        self.keep_here(|kept| {
            kept.graph = Some(toml.to_owned());
            kept.models.clear();
        });
        Ok(())
    }

    /// Goes back to the two writers and the critic, with the demo models.
    pub(crate) fn choose_default_graph(self) {
        self.keep_here(|kept| {
            kept.graph = None;
            kept.models.clear();
        });
        self.use_default_graph();
    }

    /// Runs on a server from now on, if there is one at this address.
    ///
    /// # Errors
    /// One sentence for the visitor.
    pub(crate) async fn choose_server(self, url: String) -> Result<(), String> {
        self.use_server(url.clone()).await?;
        self.keep(|kept| kept.server = Some(url));
        Ok(())
    }

    /// Runs in this page from now on.
    pub(crate) fn choose_here(self) {
        self.keep_here(|_| ());
        self.use_here();
    }

    /// Changes how the writers write from now on.
    pub(crate) fn set_parameters(self, change: impl FnOnce(&mut Parameters)) {
        self.parameters.update(change);
        let parameters = self.parameters.get_untracked();
        self.keep(|kept| kept.parameters = parameters);
    }

    /// Gives every run this seed, or each one a seed of its own.
    pub(crate) fn set_seed(self, seed: Option<u64>) {
        self.kept_seed.set(seed);
        self.keep(|kept| kept.seed = seed);
    }

    /// Forgets all choices; what is in use stays until the page is loaded again.
    pub(crate) fn forget_choices(self) {
        self.keep(|kept| *kept = Kept::default());
    }

    /// Keeps a choice that is for this page, not a server; with it goes how weights are kept, which may be a link's so far.
    fn keep_here(self, change: impl FnOnce(&mut Kept)) {
        let dtype = self.dtype.get_untracked();
        self.keep(|kept| {
            (kept.dtype, kept.server) = (dtype, None);
            change(kept);
        });
    }

    fn keep(self, change: impl FnOnce(&mut Kept)) {
        self.own.update_value(|kept| {
            change(kept);
            kept.save();
        });
    }

    /// What a choice of models needs at `dtype`; `files` as [`App::choose_models`] takes them.
    ///
    /// # Errors
    /// The node whose model is not to be had, and one sentence why.
    pub(crate) async fn needs_of(
        self,
        choice: &Choice,
        dtype: Dtype,
        files: &BTreeMap<String, Files>,
    ) -> Result<Needs, (String, String)> {
        let module = engine::module().await.map_err(|error| ("the engine".to_owned(), error))?;
        let memory = match self.engine.get_untracked() {
            EngineState::Ready(capabilities) => capabilities.memory_gib,
            EngineState::Loading | EngineState::Failed(_) => {
                module.capabilities().await.unwrap_or_default().memory_gib
            }
        };
        Needs::of(&module, choice, dtype, &self.files_of(choice, files), memory).await
    }

    /// Uses the models of a link if they are here, else asks the visitor; then runs it.
    pub(super) async fn prepare(self, choice: Choice, run: SharedRun) {
        let number = self.run_number.get_untracked();
        let dtype = run.dtype.unwrap_or_default();
        let needs = self.needs_of(&choice, dtype, &BTreeMap::new()).await;
        if self.run_number.get_untracked() != number {
            // Something else was run meanwhile.
            return;
        }
        match needs {
            Ok(needs) if needs.are_met() && !needs.verdict.is_hopeless => {
                self.notice.set(Notice::default());
                self.use_models(choice, dtype, BTreeMap::new());
                self.run_shared(run);
            }
            Ok(needs) => {
                self.notice.set(Notice::default());
                self.announcement.set("Some models of this run are to be downloaded first.".into());
                self.asked.set(Some(Asked { why: Reason::Run(Box::new(run)), choice, dtype, needs }));
            }
            Err((node, error)) => match choice.get(&node) {
                Some(Source::Files { name, .. }) => self.problem_with(
                    format!("This run used a local model, {name}, as {node}. Choose its files, then run."),
                    vec![Act::ChooseFiles],
                ),
                _ => self.problem(format!("{node}: {}", crate::format::sentence(&error))),
            },
        }
    }

    /// The visitor agreed to download what is asked for.
    pub(crate) fn accept_asked(self) {
        let Some(Asked { why, choice, dtype, .. }) = self.asked.get_untracked() else { return };
        self.asked.set(None);
        match why {
            Reason::Run(run) => {
                self.use_models(choice, dtype, BTreeMap::new());
                self.run_shared(*run);
            }
            Reason::LastVisit => self.use_models(choice, dtype, BTreeMap::new()),
            Reason::Dtype => self.keep_dtype(choice, dtype),
        }
    }

    /// The visitor did not. Models of an earlier visit are forgotten then, so as not to be asked for again.
    pub(crate) fn decline_asked(self) {
        if self.asked.get_untracked().is_some_and(|asked| asked.why == Reason::LastVisit) {
            self.keep_models_in_use();
        }
        self.asked.set(None);
    }

    /// Keeps what is in use as the visitor's choice; what it stands in for is forgotten.
    pub(super) fn keep_models_in_use(self) {
        let choice = models::without_demo(&self.choice.get_untracked());
        self.keep(|kept| kept.models = choice);
    }

    /// Takes up what the visitor chose at an earlier visit.
    pub(super) async fn restore(self) {
        let kept = self.own.get_value();
        if let Some(toml) = &kept.graph
            && let Err(error) = self.use_graph(toml).await
        {
            self.problem(format!("The graph of your last visit does not run any more. {error}"));
        }
        if let Some(url) = kept.server {
            self.place.set(Place::Server(url.clone()));
            self.ask_server(url).await;
            return;
        }
        self.restore_models(kept.models).await;
    }

    /// Connects to the server in use again.
    pub(super) async fn ask_server(self, url: String) {
        if let Err(error) = self.use_server(url.clone()).await {
            self.is_server_gone.set(true);
            let text = format!("{error} Runs go there until you choose otherwise.");
            self.problem_with(text, vec![Act::AskServer(url), Act::RunHere]);
        }
    }

    /// What is here runs at once; for what would have to come the visitor is asked, and the demo models do its part.
    async fn restore_models(self, models: Choice) {
        let of_graph = |node: &String| self.graph.with_untracked(|graph| graph.node(node).is_some());
        let models: Choice = models.into_iter().filter(|(node, _)| of_graph(node)).collect();
        if models.is_empty() {
            return;
        }
        let (dtype, demo) =
            (self.dtype.get_untracked(), self.graph.with_untracked(|graph| models::demo(graph)));
        let (mut here, mut all) = (demo.clone(), demo);
        let mut gone = Vec::new();
        for (node, source) in models {
            let alone = Choice::from([(node.clone(), source.clone())]);
            match self.needs_of(&alone, dtype, &BTreeMap::new()).await {
                Ok(needs) => {
                    if needs.are_met() && !needs.verdict.is_hopeless {
                        here.insert(node.clone(), source.clone());
                    }
                    all.insert(node, source);
                }
                Err((_, error)) => gone.push((node, source, error)),
            }
        }
        let is_chosen_since = self.choice.with_untracked(|choice| !models::is_demo(choice));
        if is_chosen_since || self.place.get_untracked() != Place::Here {
            return;
        }
        self.say_what_is_gone(&gone);
        if here != self.choice.get_untracked() {
            self.choice.set(here.clone());
            self.close_graph();
        }
        if all != here
            && let Ok(needs) = self.needs_of(&all, dtype, &BTreeMap::new()).await
        {
            self.asked.set(Some(Asked { why: Reason::LastVisit, choice: all, dtype, needs }));
        }
    }

    fn say_what_is_gone(self, gone: &[(String, Source, String)]) {
        let is_local = |(_, source, _): &&(String, Source, String)| matches!(source, Source::Files { .. });
        let local: Vec<String> = gone
            .iter()
            .filter(is_local)
            .map(|(node, source, _)| format!("{} as {node}", source.describe()))
            .collect();
        if !local.is_empty() {
            let text = format!(
                "At your last visit you used {}. This browser did not keep it, and a page cannot open your files by itself: choose them again. Until then a demo model does its part.",
                local.join(" and ")
            );
            return self.problem_with(text, vec![Act::ChooseFiles, Act::StayWithDemo]);
        }
        if let Some((node, source, error)) = gone.first() {
            let error = crate::format::sentence(error);
            let text = format!(
                "{} is not kept in this browser any more. {error} Until then a demo model does the part of {node}.",
                source.describe()
            );
            self.problem_with(text, vec![Act::StayWithDemo]);
        }
    }
}
