//! What the ribbon says of a node: its part in the run and where its model stands, as one state and a few words.

use crate::{
    engine::LoadState,
    format,
    run::{Activity, NodeState},
};

/// A node as the ribbon shows it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Status {
    /// For `data-state`.
    pub(crate) word: &'static str,
    /// A few words, such as `142 tokens/s`.
    pub(crate) detail: String,
    /// How far it is, 0 to 1, where that can be said.
    pub(crate) progress: Option<f64>,
    /// Whether loading again may help.
    pub(crate) can_retry: bool,
}

impl Status {
    fn new(word: &'static str, detail: impl Into<String>) -> Status {
        Status { word, detail: detail.into(), progress: None, can_retry: false }
    }

    fn at(self, progress: Option<f64>) -> Status {
        Status { progress, ..self }
    }

    /// The status of a node whose model is at `load` (`None`: a server's) and whose part in the run is `node`.
    ///
    /// `is_over`: whether the run is. `most_tokens`: tokens that all its texts may have together, where known.
    pub(crate) fn of(
        load: Option<&LoadState>,
        node: Option<&NodeState>,
        most_tokens: Option<usize>,
        is_over: bool,
    ) -> Status {
        let Some(node) = node else { return of_load(load) };
        match &node.activity {
            Activity::Idle | Activity::Waiting if load.is_some_and(LoadState::is_on_its_way) => of_load(load),
            Activity::Idle | Activity::Waiting => {
                if let Some(LoadState::Failed { .. }) = load {
                    return of_load(load);
                }
                let detail = match (node.ended, node.expected) {
                    (0, _) if is_over => return Status::new("idle", "had nothing to do"),
                    (0, _) => "waits for a text".to_owned(),
                    (ended, expected) => format!("{ended} of {expected}"),
                };
                Status::new("waiting", detail).at(fraction(node.ended, node.expected))
            }
            // The engine's own state knows the time left, an event of the run does not.
            Activity::Loading { .. } if load.is_some_and(LoadState::is_on_its_way) => of_load(load),
            Activity::Loading { bytes, total_bytes, .. } => {
                let (bytes, total) = (*bytes as f64, total_bytes.map(|total| total as f64));
                Status::new("loading", loading(bytes, total, None)).at(part(bytes, total))
            }
            Activity::Writing => {
                let detail = match node.tokens_per_second() {
                    Some(speed) => format!("{speed:.0} tokens/s"),
                    None => "reads the sentence".into(),
                };
                let progress = most_tokens.and_then(|most| fraction(node.tokens, most));
                Status::new("writing", detail).at(progress)
            }
            Activity::Scoring => {
                let detail = format!("reads {} of {}", (node.ended + 1).min(node.expected), node.expected);
                Status::new("scoring", detail).at(fraction(node.ended, node.expected))
            }
            Activity::Done if matches!(load, Some(LoadState::Failed { .. })) => of_load(load),
            Activity::Done => {
                let detail = match node.tokens_per_second() {
                    Some(speed) => format!("done, {speed:.0} tokens/s"),
                    None if node.tokens > 0 => "done".into(),
                    None => format!("done, {} of {}", node.ended, node.expected),
                };
                Status::new("done", detail).at(Some(1.0))
            }
            // The run is stopped; its model may still be on its way, or have been stopped too.
            Activity::Stopped => match load {
                Some(LoadState::Loading { .. }) => {
                    let load = of_load(load);
                    Status::new("stopped", format!("stopped; its model: {}", load.detail)).at(load.progress)
                }
                Some(LoadState::Failed { .. }) => of_load(load),
                _ => Status::new("stopped", "stopped"),
            },
            Activity::Failed(error) => Status {
                can_retry: matches!(load, Some(LoadState::Failed { can_retry: true, .. })),
                ..Status::new("failed", format::reason(error))
            },
        }
    }
}

fn of_load(load: Option<&LoadState>) -> Status {
    match load {
        None => Status::new("idle", "ready"),
        Some(LoadState::Waiting | LoadState::Closed) => Status::new("loading", "the engine is on its way"),
        Some(LoadState::Loading { bytes, total_bytes, ms_left, .. }) => {
            Status::new("loading", loading(*bytes, *total_bytes, *ms_left)).at(part(*bytes, *total_bytes))
        }
        Some(LoadState::Ready { .. }) => Status::new("idle", "ready"),
        Some(LoadState::Failed { kind, .. }) if kind == "stopped" => {
            Status { can_retry: true, ..Status::new("stopped", "not loaded; what came is kept") }
        }
        Some(LoadState::Failed { error, can_retry, .. }) => {
            Status { can_retry: *can_retry, ..Status::new("failed", format::sentence(error)) }
        }
    }
}

fn loading(bytes: f64, total_bytes: Option<f64>, ms_left: Option<f64>) -> String {
    let came = format::bytes(bytes as u64);
    let size = match total_bytes {
        // The next file has not begun, or the last one is being made ready.
        Some(total) if total > 0.0 && bytes >= total => return format!("{came} read"),
        Some(total) if total > 0.0 => format!("{came} of {}", format::bytes(total as u64)),
        _ => came,
    };
    match ms_left {
        Some(ms) if bytes > 0.0 => format!("{size}, {}", format::time_left(ms)),
        _ => size,
    }
}

fn part(bytes: f64, total_bytes: Option<f64>) -> Option<f64> {
    total_bytes.filter(|total| *total > 0.0).map(|total| (bytes / total).clamp(0.0, 1.0))
}

fn fraction(number: usize, of: usize) -> Option<f64> {
    (of > 0).then(|| (number as f64 / of as f64).min(1.0))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use inkling_engine::{
        graph::Graph,
        protocol::{Event, Request, Stamped, Token},
    };

    use super::*;
    use crate::{engine::Loaded, run::RunState};

    #[track_caller]
    fn check(status: &Status, word: &str, detail: &str) {
        assert_eq!((status.word, status.detail.as_str()), (word, detail));
    }

    fn load(bytes: f64, ms_left: Option<f64>) -> LoadState {
        let (file, from) = ("model.gguf".into(), "network".into());
        LoadState::Loading { file, bytes, total_bytes: Some(8e6), ms_left, from }
    }

    #[test]
    fn a_model_on_its_way_says_bytes_and_time_left() {
        let status = Status::of(Some(&load(2e6, Some(3000.0))), None, None, false);
        check(&status, "loading", "2.0 MB of 8.0 MB, 3 s left");
        assert_eq!(status.progress, Some(0.25));
        check(&Status::of(Some(&LoadState::Ready(Loaded::default())), None, None, false), "idle", "ready");
    }

    #[test]
    fn a_run_that_waits_for_a_model_shows_the_model_coming() {
        let run = RunState::begin(Arc::new(Graph::default()), Request::default());
        let status = Status::of(Some(&load(0.0, None)), Some(&run.nodes[0]), None, false);
        check(&status, "loading", "0 B of 8.0 MB");
        let ready = LoadState::Ready(Loaded::default());
        check(&Status::of(Some(&ready), Some(&run.nodes[2]), None, false), "waiting", "waits for a text");
    }

    #[test]
    fn a_critic_without_texts_does_not_wait_for_ever() {
        let mut run = RunState::begin(Arc::new(Graph::default()), Request::default());
        run.end();
        let ready = LoadState::Ready(Loaded::default());
        check(&Status::of(Some(&ready), Some(&run.nodes[2]), None, true), "idle", "had nothing to do");
    }

    #[test]
    fn a_writer_says_its_speed() {
        let mut run = RunState::begin(Arc::new(Graph::default()), Request::default());
        for at_ms in [100.0, 110.0, 120.0] {
            let token = Token { id: 1, text: "x".into(), log_prob: 0.0, alternatives: Vec::new() };
            let event = Event::Token { node: "gpt2".into(), sequence: 0, token };
            run.accept(&Stamped { at_ms, event });
        }
        let status = Status::of(None, Some(&run.nodes[0]), Some(6), false);
        check(&status, "writing", "100 tokens/s");
        assert_eq!(status.progress, Some(0.5));
    }

    #[test]
    fn a_stopped_run_still_tells_of_its_model() {
        let mut run = RunState::begin(Arc::new(Graph::default()), Request::default());
        run.stop();
        let status = Status::of(Some(&load(2e6, None)), Some(&run.nodes[0]), None, false);
        check(&status, "stopped", "stopped; its model: 2.0 MB of 8.0 MB");
        let gone = LoadState::Failed { error: "gone".into(), kind: "network".into(), can_retry: true };
        assert!(Status::of(Some(&gone), Some(&run.nodes[0]), None, false).can_retry);
    }

    #[test]
    fn a_download_that_was_stopped_did_not_fail() {
        let error = "Loading was stopped.".into();
        let stopped = LoadState::Failed { error, kind: "stopped".into(), can_retry: true };
        let status = Status::of(Some(&stopped), None, None, false);
        check(&status, "stopped", "not loaded; what came is kept");
        assert!(status.can_retry);
    }

    #[test]
    fn what_failed_says_whether_trying_again_may_help() {
        let failed = LoadState::Failed { error: "no answer".into(), kind: "network".into(), can_retry: true };
        let status = Status::of(Some(&failed), None, None, false);
        check(&status, "failed", "No answer.");
        assert!(status.can_retry);
    }
}
