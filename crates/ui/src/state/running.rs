//! A run, from the button to its last event.

use inkling_engine::{
    graph::{Answer, spec::Task},
    protocol::{Parameters, Request, Stamped},
};
use leptos::{prelude::*, task::spawn_local};
use web_sys::AbortController;

use super::{Act, App, Notice, Place};
use crate::{
    browser,
    format::{TooLong, room_for, too_long},
    history::{self, Entry},
    link::SharedRun,
    run::{Mark, RunState, rank},
    server,
    settings::MOST_TOKENS,
};

/// Seeds that the page draws are below this: short enough to read out.
const SEEDS: f64 = 1e9;
/// Alternatives that each token brings.
const ALTERNATIVES: usize = 5;

impl App {
    /// Runs the sentence in the box.
    pub(crate) fn run_sentence(self) {
        let seed = self.kept_seed.get_untracked();
        self.run_with_seed(seed.unwrap_or_else(draw_seed));
    }

    /// Runs the sentence in the box with this seed.
    pub(crate) fn run_with_seed(self, seed: u64) {
        let sentence = self.sentence.get_untracked();
        if sentence.trim().is_empty() {
            self.problem("Type a sentence first; the writers continue it.");
            browser::focus("sentence");
            return;
        }
        self.shared.set(None);
        browser::drop_fragment();
        self.start(sentence, seed);
    }

    /// Runs the sentence in the box with a seed that was not there before, also where one is kept.
    pub(crate) fn run_new_seed(self) {
        let seed = draw_seed();
        if self.kept_seed.get_untracked().is_some() {
            self.set_seed(Some(seed));
        }
        self.run_with_seed(seed);
    }

    /// Runs on from a text of so many tokens: it becomes the sentence. A length that leaves it no room is raised, for this
    /// visit, or most texts could not go on where they ended.
    pub(crate) fn continue_from(self, text: String, tokens: usize) {
        self.sentence.set(text);
        self.picked.set(None);
        let length = self.parameters.with_untracked(length_of);
        let raised = length.filter(|length| tokens + 8 > *length).and_then(|_| room_for(tokens, MOST_TOKENS));
        if let Some(raised) = raised {
            self.parameters.update(|parameters| parameters.max_length = Some(raised));
        }
        self.run_sentence();
        if let Some(raised) = raised {
            self.say(format!("The length is {raised} tokens now, so that there is room to go on."));
        }
    }

    /// Stops the run: at once on the page, and as fast as the engine can. Models that are on their way stop there, too; the
    /// next run has them go on from what came.
    pub(crate) fn stop(self) {
        if !self.run.with_untracked(RunState::is_open) {
            return;
        }
        self.flush();
        self.run.update(RunState::stop);
        self.say("Stopped. The text so far is kept.");
        if let Some(abort) = self.handles.with_value(|handles| handles.abort.clone()) {
            abort.abort();
        }
        self.stop_all_loading();
    }

    pub(super) fn start(self, sentence: String, seed: u64) {
        self.abandon();
        let mut parameters = self.parameters.get_untracked();
        parameters.seed = Some(seed);
        parameters.alternatives = Some(ALTERNATIVES);
        let request = Request { sentence, parameters };
        self.run_number.update(|number| *number += 1);
        let mine = self.run_number.get_untracked();
        let mut run = RunState::begin(self.graph.get_untracked(), request.clone());
        run.dtype = (self.place.get_untracked() == Place::Here).then(|| self.dtype.get_untracked());
        self.run.set(run);
        self.notice.set(Notice::default());
        self.announcement.set("The writers begin.".into());
        let Ok(abort) = AbortController::new() else { return };
        let signal = abort.signal();
        self.handles.update_value(|handles| {
            handles.abort = Some(abort);
            handles.scroll_at_start = Some(browser::scroll());
        });
        spawn_local(async move {
            let is_mine = move || self.run_number.get_untracked() == mine;
            let on_event = move |event: Stamped| {
                if is_mine() {
                    self.take(event);
                }
            };
            self.restored().await;
            let outcome = match self.place.get_untracked() {
                Place::Here => match self.open_graph().await {
                    Ok(_) if signal.aborted() => Ok(None),
                    Ok(open) => {
                        self.go_on_loading(&open);
                        open.run(&request, &signal, on_event).await
                    }
                    Err(error) => Err(error),
                },
                Place::Server(url) => {
                    let outcome = server::run(&url, &request, &signal, on_event).await;
                    self.is_server_gone.set(matches!(&outcome, Err(error) if error.is_gone));
                    outcome.map_err(|error| error.text)
                }
            };
            if is_mine() {
                self.flush();
                self.end(outcome);
            }
        });
    }

    /// Takes an event; the page is redrawn once a frame, however many come.
    fn take(self, event: Stamped) {
        let is_due = self.handles.try_update_value(|handles| {
            handles.pending.push(event);
            std::mem::replace(&mut handles.frame_is_due, true)
        });
        if is_due == Some(false) {
            browser::next_frame(move || self.flush());
        }
    }

    fn flush(self) {
        let pending = self.handles.try_update_value(|handles| {
            handles.frame_is_due = false;
            std::mem::take(&mut handles.pending)
        });
        let pending = pending.unwrap_or_default();
        if pending.is_empty() {
            return;
        }
        let mut news = Vec::new();
        let mut first_done = None;
        self.run.update(|run| {
            for event in &pending {
                run.accept(event);
                news.extend(news_of(run, event));
            }
            let is_done = |text: &crate::run::TextState| text.mark() == Mark::Done;
            // More than two change places once they are ranked; then there is no place to go to yet.
            first_done = run.texts.iter().position(is_done).filter(|_| run.texts.len() <= 2);
        });
        self.show_first_done(first_done);
        if !news.is_empty() {
            self.announcement.set(news.join(" "));
        }
    }

    /// On a phone, where cards stack, the first text that is done comes into view, unless the visitor has scrolled.
    fn show_first_done(self, done: Option<usize>) {
        let scroll = browser::scroll();
        let is_due = self.handles.try_update_value(|handles| {
            let begun_at = handles.scroll_at_start?;
            handles.scroll_at_start = done.is_none().then_some(begun_at);
            done.filter(|_| (scroll - begun_at).abs() < 4.0)
        });
        if let Some(index) = is_due.flatten().filter(|_| browser::is_narrow()) {
            browser::show(&format!("card-{index}"));
        }
    }

    fn end(self, outcome: Result<Option<Answer>, String>) {
        self.run.update(|run| match &outcome {
            Ok(answer) => {
                run.end();
                // The host's own: it knows texts of which no event said that they were to come.
                run.answer = answer.clone().unwrap_or_else(|| run.answer.clone());
            }
            Err(_) if run.stopped => run.end(),
            Err(error) => run.break_off(error),
        });
        self.handles.update_value(|handles| handles.abort = None);
        let run = self.run.get_untracked();
        match (&run.error, self.shared.get_untracked().and_then(|shared| shared.compare(&run))) {
            (Some(error), _) => self.problem(error.clone()),
            (None, _) if self.tell_too_long(&run) => {}
            (None, _) if run.stopped => {}
            (None, Some(comparison)) if comparison.same == comparison.named => {
                self.say(comparison.sentence())
            }
            (None, Some(comparison)) => self.problem(comparison.sentence()),
            (None, None) => self.announce_end(&run),
        }
        if run.texts.iter().any(|text| text.mark() == Mark::Done) {
            let asked = SharedRun::of(&run, &self.named_choice());
            let entry = Entry { at_ms: js_sys::Date::now(), asked, answer: run.answer };
            self.history.update(|entries| {
                entries.insert(0, entry);
                *entries = history::save(std::mem::take(entries));
            });
        }
    }

    /// Says of a sentence that it leaves no room for a text, and offers more of it; whether that is so.
    fn tell_too_long(self, run: &RunState) -> bool {
        let errors = run.texts.iter().filter_map(|text| text.error.as_deref());
        let Some(TooLong { tokens, limit, .. }) =
            errors.filter_map(too_long).filter(|found| !found.is_of_model).max_by_key(|found| found.tokens)
        else {
            return false;
        };
        let raised = room_for(tokens, MOST_TOKENS);
        let advice = if raised.is_some() { "" } else { " Shorten it." };
        let text = format!(
            "The sentence alone has {tokens} tokens, and the length is set to {limit}: no room is left to write in.{advice}"
        );
        self.problem_with(text, raised.map(Act::RaiseLength).into_iter().collect());
        true
    }

    fn announce_end(self, run: &RunState) {
        let failed = run.texts.iter().filter(|text| text.mark() == Mark::Failed).count();
        let best = rank::ranking(run).first().map(|id| id.node.clone());
        let text = match (failed, best) {
            (0, Some(node)) if run.texts.len() > 1 => format!("All texts are done; {node} is ranked first."),
            (0, _) => "All texts are done.".to_owned(),
            (failed, _) => format!("Done; {} failed.", crate::format::count(failed, "text", "texts")),
        };
        self.announcement.set(text);
    }

    /// Lets go of a run that is still open, without a word.
    pub(super) fn abandon(self) {
        self.picked.set(None);
        let abort = self.handles.try_update_value(|handles| {
            handles.pending.clear();
            handles.abort.take()
        });
        if let Some(abort) = abort.flatten() {
            abort.abort();
        }
    }
}

/// What a screen reader is told of an event: a text's end with its score, and failures.
fn news_of(run: &RunState, stamped: &Stamped) -> Option<String> {
    use inkling_engine::protocol::{Event, FailureKind};
    match &stamped.event {
        Event::Score { source: Some(source), score, .. } => {
            let number = run.texts.iter().filter(|text| text.id.node == source.node).count();
            let which = if number > 1 { format!(" text {}", source.sequence + 1) } else { String::new() };
            let percent = crate::format::percent(f64::from(score.score));
            Some(format!("{}{which} is done: {} {percent}.", source.node, score.label))
        }
        Event::Done { node, .. } => {
            let is_judged = run.graph.nodes.iter().any(|other| other.task == Task::Classify);
            (!is_judged).then(|| format!("{node} is done."))
        }
        Event::Failed { kind: FailureKind::Stopped, .. } => None,
        Event::Failed { node, error, .. } => Some(format!("{node} failed: {error}.")),
        Event::Started { .. } | Event::Progress { .. } | Event::Token { .. } | Event::Score { .. } => None,
    }
}

/// The length that texts may have with their sentence, if that is what limits them.
fn length_of(parameters: &Parameters) -> Option<usize> {
    match parameters.max_new_tokens {
        Some(_) => None,
        None => Some(parameters.max_length.unwrap_or(128)),
    }
}

fn draw_seed() -> u64 {
    (js_sys::Math::random() * SEEDS) as u64
}
