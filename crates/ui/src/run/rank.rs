//! Which text comes first.

use inkling_engine::protocol::{Classification, TextId};

use super::{Mark, Phase, RunState};

/// The two poles of a judgement with two labels: what speaks against a text, what speaks for it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Poles {
    /// The label at the left.
    pub(crate) low: String,
    /// The label at the right, by whose probability texts are ranked.
    pub(crate) high: String,
    /// The right label's probability.
    pub(crate) high_score: f32,
}

/// The poles of a judgement with exactly two labels; the second is the one that speaks for the text, unless the first
/// one is called positive.
pub(crate) fn poles(judgement: &Classification) -> Option<Poles> {
    let [first, second] = judgement.scores.as_slice() else { return None };
    let positive = |label: &str| label.to_lowercase().starts_with("pos");
    let (low, high) = if positive(&first.label) { (second, first) } else { (first, second) };
    Some(Poles { low: low.label.clone(), high: high.label.clone(), high_score: high.score })
}

/// The number by which texts are compared: for two labels the probability of the better one, else of the likeliest.
pub(crate) fn merit(judgement: &Classification) -> f32 {
    poles(judgement).map_or(judgement.score, |poles| poles.high_score)
}

/// The judged texts of an ended run, best first. Equal ones keep the order of the graph.
pub(crate) fn ranking(run: &RunState) -> Vec<TextId> {
    if run.phase != Phase::Ended {
        return Vec::new();
    }
    let judged = |text: &super::TextState| {
        let merit = merit(&text.judgements.first()?.classification);
        (text.mark() == Mark::Done).then(|| (merit, text.id.clone()))
    };
    let mut ranked: Vec<_> = run.texts.iter().filter_map(judged).collect();
    ranked.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    ranked.into_iter().map(|(_, id)| id).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use inkling_engine::{
        graph::Graph,
        protocol::{Event, FinishReason, LabelScore, Request, Stamped},
    };

    use super::*;

    fn judgement(labels: &[(&str, f32)]) -> Classification {
        let scores: Vec<_> =
            labels.iter().map(|&(label, score)| LabelScore { label: label.into(), score }).collect();
        let best = scores.iter().max_by(|a, b| a.score.total_cmp(&b.score)).unwrap().clone();
        Classification { label: best.label, score: best.score, scores, logits: Vec::new(), truncated: false }
    }

    #[test]
    fn two_labels_rank_by_the_better_one_however_sure_the_critic_is_of_the_worse() {
        assert_eq!(merit(&judgement(&[("NEGATIVE", 0.9), ("POSITIVE", 0.1)])), 0.1);
        assert_eq!(merit(&judgement(&[("positive", 0.2), ("negative", 0.8)])), 0.2);
        assert_eq!(merit(&judgement(&[("joy", 0.5), ("fear", 0.3), ("rage", 0.2)])), 0.5);
    }

    #[test]
    fn the_best_text_of_an_ended_run_comes_first() {
        let mut run = RunState::begin(Arc::new(Graph::default()), Request::default());
        let id = |node: &str| TextId { node: node.into(), sequence: 0 };
        for (node, positive) in [("gpt2", 0.25), ("distilgpt2", 0.75)] {
            let done = Event::Done {
                node: node.into(),
                sequence: 0,
                prompt: "p".into(),
                completion: "c".into(),
                new_tokens: 1,
                finish_reason: FinishReason::Length,
            };
            let score = judgement(&[("NEGATIVE", 1.0 - positive), ("POSITIVE", positive)]);
            let score = Event::Score { node: "bert".into(), source: Some(id(node)), score };
            for event in [done, score] {
                run.accept(&Stamped { at_ms: 1.0, event });
            }
        }
        assert_eq!(ranking(&run), []);
        run.end();
        assert_eq!(ranking(&run), [id("distilgpt2"), id("gpt2")]);
    }
}
