//! Runs that were made before: a link's, and those of the history.

use std::collections::BTreeMap;

use leptos::{prelude::*, task::spawn_local};

use super::{App, Place};
use crate::{
    history::{self, Entry},
    link::SharedRun,
    models::{self, Choice},
};

impl App {
    /// Runs what a link or an earlier run asks for, with its models. A model that is not here yet is not downloaded
    /// before the visitor says so.
    pub(crate) fn open_shared(self, shared: SharedRun) {
        let request = shared.request();
        self.show_request(&request);
        self.asked.set(None);
        let wanted = self.graph.with_untracked(|graph| {
            let mut choice = models::demo(graph);
            choice.extend(shared.models.clone());
            choice
        });
        let dtype = shared.dtype.unwrap_or_default();
        let is_here = self.place.get_untracked() == Place::Here;
        if is_here && (self.choice.get_untracked() != wanted || self.dtype.get_untracked() != dtype) {
            if !models::is_demo(&wanted) {
                self.say("Looking for the models of this run…");
                spawn_local(async move { self.prepare(wanted, shared).await });
                return;
            }
            self.use_models(wanted, dtype, BTreeMap::new());
        }
        self.run_shared(shared);
    }

    pub(super) fn run_shared(self, shared: SharedRun) {
        let request = shared.request();
        self.shared.set(Some(shared));
        self.start(request.sentence, request.parameters.seed.unwrap_or_default());
    }

    /// Remembers the link that the page itself puts into its address, so as not to follow it.
    pub(crate) fn note_own_link(self, shared: SharedRun) {
        self.own_link.set(Some(shared));
    }

    /// Runs what the page's address asks for, unless the page itself put it there.
    pub(crate) fn follow_link(self, shared: SharedRun) {
        if self.own_link.with_untracked(|own| own.as_ref() != Some(&shared)) {
            self.open_shared(shared);
        }
    }

    /// The models as a link may name them: a server's are its own.
    pub(crate) fn named_choice(self) -> Choice {
        match self.place.get_untracked() {
            Place::Here => self.choice.get_untracked(),
            Place::Server(_) => Choice::new(),
        }
    }

    /// Forgets one earlier run, or all of them.
    pub(crate) fn forget(self, at_ms: Option<f64>) {
        self.history.update(|entries| {
            entries.retain(|entry| at_ms.is_some_and(|at_ms| entry.at_ms != at_ms));
            history::save(entries.clone());
        });
        self.announcement.set(if at_ms.is_some() { "Run erased." } else { "History erased." }.into());
    }

    /// Shows an earlier run again, as it was.
    pub(crate) fn show_again(self, entry: &Entry) {
        self.abandon();
        self.show_request(&entry.asked.request());
        self.shared.set(None);
        self.run_number.update(|number| *number += 1);
        self.run.set(entry.to_run(&self.graph.get_untracked()));
        let seed = entry.answer.seed;
        self.say(format!("An earlier run, seed {seed}. The words' alternatives were not kept."));
    }
}
