//! What one node of the graph is doing in a run.

use inkling_engine::{
    graph::{answer::NodeReport, spec::Task},
    protocol::{Event, FailureKind},
};

/// What a node is doing, as the ribbon says it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Activity {
    /// Nothing was asked of it yet.
    Idle,
    /// It waits for its texts.
    Waiting,
    /// Its model is loading.
    Loading {
        /// The file that is being read.
        file: String,
        /// Bytes so far.
        bytes: u64,
        /// Bytes in all, where known.
        total_bytes: Option<u64>,
    },
    /// Tokens are coming.
    Writing,
    /// It reads a text to score it.
    Scoring,
    /// All is done.
    Done,
    /// The visitor stopped it.
    Stopped,
    /// It failed, for this reason.
    Failed(String),
}

/// One node's part of a run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NodeState {
    task: Task,
    /// What it is doing.
    pub(crate) activity: Activity,
    /// Texts that it is to write or to score.
    pub(crate) expected: usize,
    /// Texts that it wrote or scored.
    pub(crate) ended: usize,
    failed: usize,
    /// New tokens in all its texts.
    pub(crate) tokens: usize,
    /// Tokens of the text that it was last given.
    pub(crate) input_tokens: usize,
    first_token_ms: Option<f64>,
    last_token_ms: f64,
}

impl NodeState {
    pub(super) fn new(task: Task, expected: usize) -> NodeState {
        NodeState {
            task,
            activity: Activity::Idle,
            expected,
            ended: 0,
            failed: 0,
            tokens: 0,
            input_tokens: 0,
            first_token_ms: None,
            last_token_ms: 0.0,
        }
    }

    /// A node's part in a run that is over, by its report; `ended` of its `expected` texts are whole.
    pub(crate) fn of_report(task: Task, report: &NodeReport, ended: usize, expected: usize) -> NodeState {
        let first = report.first_token_ms;
        let span =
            report.tokens_per_second.map(|speed| (report.tokens.saturating_sub(1)) as f64 * 1000.0 / speed);
        NodeState {
            activity: if ended > 0 || expected == 0 { Activity::Done } else { Activity::Idle },
            ended,
            tokens: report.tokens,
            first_token_ms: first,
            last_token_ms: first.unwrap_or_default() + span.unwrap_or_default(),
            ..NodeState::new(task, expected)
        }
    }

    /// Tokens after the first, by the time from the first to the last.
    pub(crate) fn tokens_per_second(&self) -> Option<f64> {
        let elapsed_ms = self.last_token_ms - self.first_token_ms?;
        (elapsed_ms > 0.0).then(|| (self.tokens - 1) as f64 * 1000.0 / elapsed_ms)
    }

    pub(super) fn accept(&mut self, at_ms: f64, event: &Event) {
        match event {
            Event::Progress { file, bytes, total_bytes, .. } => {
                let (file, bytes, total_bytes) = (file.clone(), *bytes, *total_bytes);
                self.become_busy(Activity::Loading { file, bytes, total_bytes });
            }
            Event::Started { input_tokens, .. } => {
                self.input_tokens = *input_tokens;
                self.become_busy(self.busy());
            }
            Event::Token { .. } => {
                self.tokens += 1;
                self.first_token_ms.get_or_insert(at_ms);
                self.last_token_ms = at_ms;
                self.become_busy(Activity::Writing);
            }
            Event::Done { .. } | Event::Score { .. } => {
                self.ended += 1;
                self.settle();
            }
            Event::Failed { kind: FailureKind::Stopped, .. } => self.stop(),
            Event::Failed { text, error, .. } => {
                self.failed += if text.is_some() { 1 } else { self.expected };
                self.activity = Activity::Failed(error.clone());
            }
        }
    }

    pub(super) fn stop(&mut self) {
        if !matches!(self.activity, Activity::Done | Activity::Failed(_)) {
            self.activity = Activity::Stopped;
        }
    }

    /// The run is over: a critic whose other texts never came has done what there was to do.
    pub(super) fn end(&mut self) {
        if matches!(self.activity, Activity::Waiting | Activity::Writing | Activity::Scoring) {
            self.activity = if self.ended > 0 { Activity::Done } else { Activity::Idle };
        }
    }

    pub(super) fn fail_if_open(&mut self, error: &str) {
        if !matches!(self.activity, Activity::Done | Activity::Failed(_) | Activity::Stopped) {
            self.activity = Activity::Failed(error.to_owned());
        }
    }

    fn busy(&self) -> Activity {
        match self.task {
            Task::Generate => Activity::Writing,
            Task::Classify => Activity::Scoring,
        }
    }

    /// What failed or was stopped stays so: a late event of another text does not hide it.
    fn become_busy(&mut self, activity: Activity) {
        if !matches!(self.activity, Activity::Failed(_) | Activity::Stopped) {
            self.activity = activity;
        }
    }

    fn settle(&mut self) {
        if matches!(self.activity, Activity::Failed(_) | Activity::Stopped) {
            return;
        }
        self.activity = match self.task {
            _ if self.ended + self.failed >= self.expected => Activity::Done,
            Task::Generate => Activity::Writing,
            Task::Classify => Activity::Waiting,
        };
    }
}
