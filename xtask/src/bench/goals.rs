//! What the figures should be: mostly ratios to a peer of the same sitting, since absolute figures drift.

use super::record::{Record, show};

/// A goal and what was measured.
#[derive(Debug, PartialEq)]
pub(super) struct Goal {
    pub(super) what: String,
    pub(super) goal: String,
    pub(super) measured: String,
    pub(super) is_met: bool,
}

impl Goal {
    pub(super) fn line(&self) -> String {
        let Goal { what, goal, measured, is_met } = self;
        format!("{} {what}: {measured}; goal {goal}", if *is_met { "met   " } else { "MISSED" })
    }
}

/// The figure that says what part of the memory's bandwidth, taken just before, a continuation reads.
pub(super) const SHARE: &str = "peers-native/inkling/share";

/// Every goal whose figures the record has.
pub(super) fn judge(record: &Record) -> Vec<Goal> {
    let median = |id: &str| record.figure(id).map(super::record::Figure::median);
    // How many times faster: rates divide one way, times the other.
    let ratio = |what: &str, least: f64, ours: &str, theirs: &str, is_rate: bool| {
        let (mine, other) = (median(ours)?, median(theirs)?);
        let times = if is_rate { mine / other } else { other / mine };
        let unit = &record.figure(ours)?.unit;
        Some(Goal {
            what: what.into(),
            goal: format!("{} x", show(least)),
            measured: format!("{} x ({} beside {} {unit})", show(times), show(mine), show(other)),
            is_met: times >= least,
        })
    };
    let most = |what: &str, most: f64, id: &str| {
        let (mine, unit) = (median(id)?, &record.figure(id)?.unit);
        let (goal, measured) = (format!("at most {} {unit}", show(most)), format!("{} {unit}", show(mine)));
        Some(Goal { what: what.into(), goal, measured, is_met: mine <= most })
    };
    let memory_limit = || {
        let (share, reads) = (median(SHARE)?, median("peers-native/memory")?);
        Some(Goal {
            what: "native, decode q8: share of the memory limit".into(),
            goal: "at least 80 %".into(),
            measured: format!("{share:.0} % of {} GB/s", show(reads)),
            is_met: share >= 80.0,
        })
    };
    [
        ratio(
            "page, one worker, decode q8, against transformers.js",
            5.0,
            "peers-page/inkling/decode",
            "peers-page/transformers.js/decode",
            true,
        ),
        ratio(
            "page, one worker, prefill q8, against transformers.js",
            2.0,
            "peers-page/inkling/prefill",
            "peers-page/transformers.js/prefill",
            true,
        ),
        ratio(
            "page, whole graph, against transformers.js in workers",
            5.0,
            "peers-page-graph/inkling/total",
            "peers-page-graph/transformers.js/total",
            false,
        ),
        ratio(
            "native, decode q8, against llama.cpp Q8_0",
            1.25,
            "peers-native/inkling/decode",
            "peers-native/llama.cpp/Q8_0/decode",
            true,
        ),
        memory_limit(),
        ratio(
            "native, prefill q8, against llama.cpp Q8_0",
            1.0,
            "peers-native/inkling/prefill",
            "peers-native/llama.cpp/Q8_0/prefill",
            true,
        ),
        ratio(
            "native, BERT-base, 128 tokens, q8, against PyTorch f32",
            5.0,
            "peers-native/inkling/bert",
            "peers-native/pytorch/bert",
            false,
        ),
        ratio(
            "native, whole graph, one client, against BentoML",
            5.0,
            "peers-server/inkling/1/latency",
            "peers-server/bentoml/1/latency",
            false,
        ),
        most("memory, three models of full size at 8 bits", 400.0, "graph/1/memory"),
        most("load of GPT-2's f32 safetensors to the first token", 800.0, "models/gpt2/files/first_token"),
        most("load of GPT-2's packed copy to the first token", 150.0, "models/gpt2/cache/first_token"),
    ]
    .into_iter()
    .flatten()
    .collect()
}
