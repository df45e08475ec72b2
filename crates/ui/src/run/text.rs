//! One continuation: its tokens as they come, how it ended and what the critics say of it.

use inkling_engine::{
    graph::answer::Judgement,
    protocol::{Classification, FailureKind, FinishReason, TextId, Token},
};

/// How a text stands, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Nothing came yet.
    Waiting,
    /// Tokens are coming.
    Writing,
    /// Whole.
    Done,
    /// Stopped by the visitor; what came is kept.
    Stopped,
    /// Its writer failed.
    Failed,
}

impl Mark {
    /// The word for `data-state`.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Mark::Waiting => "waiting",
            Mark::Writing => "writing",
            Mark::Done => "done",
            Mark::Stopped => "stopped",
            Mark::Failed => "failed",
        }
    }
}

/// One text of a run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TextState {
    /// Who writes it, and which of its continuations it is.
    pub(crate) id: TextId,
    /// What it continues, where that is known.
    pub(crate) prompt: Option<String>,
    /// The new tokens. Their texts joined are the new text, also once it has ended.
    pub(crate) tokens: Vec<Token>,
    /// Counts changes to tokens that were there before, which a view cannot follow by appending.
    pub(crate) rewritten: u32,
    /// Why it ended.
    pub(crate) finish: Option<FinishReason>,
    /// What each critic says.
    pub(crate) judgements: Vec<Judgement>,
    /// Why its writer failed.
    pub(crate) error: Option<String>,
    /// The critic that did not judge it, and why.
    pub(crate) unjudged: Option<(String, String)>,
    /// When its first token came, in milliseconds since the run began.
    pub(crate) first_token_ms: Option<f64>,
    /// When its last event came.
    pub(crate) last_ms: f64,
    stopped: bool,
}

impl TextState {
    /// A text of which nothing came yet.
    pub(crate) fn new(id: TextId, prompt: Option<String>) -> TextState {
        TextState {
            id,
            prompt,
            tokens: Vec::new(),
            rewritten: 0,
            finish: None,
            judgements: Vec::new(),
            error: None,
            unjudged: None,
            first_token_ms: None,
            last_ms: 0.0,
            stopped: false,
        }
    }

    /// A text that is whole, as history has it: one piece without probabilities.
    pub(crate) fn whole(
        id: TextId,
        prompt: &str,
        completion: &str,
        finish: Option<FinishReason>,
    ) -> TextState {
        let mut text = TextState::new(id, Some(prompt.to_owned()));
        text.push_rest(completion);
        text.finish = finish;
        text
    }

    /// The new text so far.
    pub(crate) fn written(&self) -> String {
        self.tokens.iter().map(|token| token.text.as_str()).collect()
    }

    /// Prompt and new text.
    pub(crate) fn full(&self) -> String {
        format!("{}{}", self.prompt.as_deref().unwrap_or_default(), self.written())
    }

    /// Prompt and new text before the token at `index`, and `instead` in its place.
    pub(crate) fn with_instead(&self, index: usize, instead: &str) -> String {
        let before: String = self.tokens.iter().take(index).map(|token| token.text.as_str()).collect();
        format!("{}{before}{instead}", self.prompt.as_deref().unwrap_or_default())
    }

    /// How it stands.
    pub(crate) fn mark(&self) -> Mark {
        match self.finish {
            Some(FinishReason::Stopped) => Mark::Stopped,
            Some(_) => Mark::Done,
            None if self.error.is_some() => Mark::Failed,
            None if self.stopped => Mark::Stopped,
            None if self.tokens.is_empty() => Mark::Waiting,
            None => Mark::Writing,
        }
    }

    pub(super) fn push(&mut self, at_ms: f64, token: Token) {
        self.first_token_ms.get_or_insert(at_ms);
        self.last_ms = at_ms;
        self.tokens.push(token);
    }

    pub(super) fn end(&mut self, at_ms: f64, prompt: &str, completion: &str, finish: FinishReason) {
        self.prompt = Some(prompt.to_owned());
        self.finish = Some(finish);
        self.last_ms = at_ms;
        self.agree_with(completion);
    }

    pub(super) fn judge(&mut self, at_ms: f64, critic: &str, classification: Classification) {
        self.last_ms = at_ms;
        self.judgements.push(Judgement { node: critic.to_owned(), classification });
    }

    pub(super) fn stop(&mut self) {
        self.stopped = true;
    }

    pub(super) fn fail(&mut self, kind: FailureKind, error: &str) {
        match kind {
            FailureKind::Stopped => self.stopped = true,
            _ => self.error = Some(error.to_owned()),
        }
    }

    pub(super) fn stay_unjudged(&mut self, critic: &str, kind: FailureKind, error: &str) {
        let is_judged = self.judgements.iter().any(|judgement| judgement.node == critic);
        if !is_judged && kind != FailureKind::Stopped {
            self.unjudged = Some((critic.to_owned(), error.to_owned()));
        }
    }

    pub(super) fn fail_if_open(&mut self, error: &str) {
        if matches!(self.mark(), Mark::Waiting | Mark::Writing) {
            self.error = Some(error.to_owned());
        }
    }

    /// Makes the tokens say exactly `completion`: a stop string may have cut the text in the middle of a token, and a
    /// last half character may have come after the last token.
    fn agree_with(&mut self, completion: &str) {
        let mut at = 0;
        for index in 0..self.tokens.len() {
            let piece = &self.tokens[index].text;
            if completion[at..].starts_with(piece.as_str()) {
                at += piece.len();
                continue;
            }
            self.tokens.truncate(index);
            self.rewritten += 1;
            break;
        }
        self.push_rest(&completion[at..]);
    }

    fn push_rest(&mut self, rest: &str) {
        if !rest.is_empty() {
            let text = rest.to_owned();
            self.tokens.push(Token { id: 0, text, log_prob: f32::NAN, alternatives: Vec::new() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(pieces: &[&str]) -> TextState {
        let mut text = TextState::new(TextId { node: "a".into(), sequence: 0 }, Some("P".into()));
        for piece in pieces {
            let token = Token { id: 1, text: (*piece).into(), log_prob: -1.0, alternatives: Vec::new() };
            text.push(1.0, token);
        }
        text
    }

    #[track_caller]
    fn check(pieces: &[&str], completion: &str, tokens: &[&str], rewritten: u32) {
        let mut text = text(pieces);
        text.end(2.0, "P", completion, FinishReason::Length);
        assert_eq!(text.tokens.iter().map(|token| token.text.as_str()).collect::<Vec<_>>(), tokens);
        assert_eq!(text.written(), completion);
        assert_eq!(text.rewritten, rewritten);
    }

    #[test]
    fn an_end_that_agrees_changes_nothing() {
        check(&[" a", " b"], " a b", &[" a", " b"], 0);
    }

    #[test]
    fn a_stop_string_cuts_a_token() {
        check(&[" a", " b.\nX"], " a b.", &[" a", " b."], 1);
        check(&[" a", " b"], " a", &[" a"], 1);
    }

    #[test]
    fn a_late_half_character_is_appended() {
        check(&[" a"], " a\u{fffd}", &[" a", "\u{fffd}"], 0);
    }

    #[test]
    fn characters_of_several_bytes_are_not_cut() {
        check(&["\u{1f642}", "é"], "\u{1f642}", &["\u{1f642}"], 1);
    }

    #[test]
    fn an_alternative_replaces_its_token_and_all_that_follows() {
        assert_eq!(text(&[" a", " b", " c"]).with_instead(1, " x"), "P a x");
        assert_eq!(text(&[" a"]).with_instead(0, " x"), "P x");
    }
}
