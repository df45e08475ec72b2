//! What keeping weights in fewer bits loses: the same model in f32 and in another form, on the same text.

use anyhow::{Context, Result, bail, ensure};
use inkling_engine::{
    checkpoint::{Dtype, LoadOptions},
    classify::Classifier,
    generate::Generator,
    graph::node::LoadedTask,
    kernels::Pool,
    model::gpt2::Cache,
};
use serde::Serialize;

use crate::{Mistake, load::load, models::Located};

/// Tokens of a window; each but the last is followed by one that both models guess.
const WINDOW: usize = 128;
/// Most windows of a text that are read.
const WINDOWS: usize = 64;

/// How far a model in another form is from itself in f32.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Loss {
    /// Of a generator's next-token distributions.
    Generator {
        /// Distributions that were compared.
        tokens: usize,
        /// Mean Kullback-Leibler divergence from f32's distribution, in nats.
        mean_kl: f64,
        /// Share of distributions with the same likeliest token.
        greedy_agreement: f64,
        /// Perplexity of the text in f32.
        perplexity_f32: f64,
        /// The same in the other form.
        perplexity: f64,
    },
    /// Of a classifier's judgements.
    Classifier {
        /// Texts that were judged.
        texts: usize,
        /// Share of texts with the same label.
        label_agreement: f64,
        /// Mean distance between the scores of f32's label.
        mean_score_distance: f64,
    },
}

impl Loss {
    /// Compares the model under `options` with itself in f32 on `text`.
    pub(super) fn measure(
        located: &Located,
        options: LoadOptions,
        text: &str,
        pool: &dyn Pool,
    ) -> Result<Loss> {
        ensure!(options.dtype != Dtype::F32, Mistake("f32 loses nothing; choose another --dtype".into()));
        let load = |options| load(located, options, None, &mut |_, _, _| ()).map(|loaded| loaded.model);
        let exact = load(LoadOptions { dtype: Dtype::F32, ..options })?;
        let other = load(options)?;
        match (&exact.task, &other.task) {
            (LoadedTask::Generate(exact), LoadedTask::Generate(other)) => {
                of_generators(exact, other, text, pool)
            }
            (LoadedTask::Classify(exact), LoadedTask::Classify(other)) => {
                of_classifiers(exact, other, text, pool)
            }
            _ => bail!("model {} changed while it was read", located.name),
        }
    }
}

fn of_generators(exact: &Generator, other: &Generator, text: &str, pool: &dyn Pool) -> Result<Loss> {
    let tokenizer = exact.tokenizer().context("a text needs a tokenizer, and the model has none")?;
    let ids = tokenizer.encode(text, false)?;
    let config = exact.model().config();
    let logits = |generator: &Generator, ids: &[u32]| {
        generator.model().forward_all(ids, &mut Cache::new(config, ids.len()), pool)
    };
    let (mut tokens, mut kl, mut agreed, mut nats_exact, mut nats) = (0_usize, 0.0, 0_usize, 0.0, 0.0);
    for window in ids.chunks_exact(WINDOW.min(config.n_positions)).take(WINDOWS) {
        let (p, q) = (logits(exact, window)?, logits(other, window)?);
        let vocab_size = config.vocab_size;
        let rows = p.values().chunks_exact(vocab_size).zip(q.values().chunks_exact(vocab_size));
        for ((p, q), next) in rows.zip(&window[1..]) {
            let (p, q) = (log_softmax(p), log_softmax(q));
            kl += p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
            agreed += usize::from(likeliest(&p) == likeliest(&q));
            nats_exact -= p[*next as usize];
            nats -= q[*next as usize];
            tokens += 1;
        }
    }
    ensure!(tokens > 0, Mistake(format!("the text has {} tokens; expected {WINDOW} or more", ids.len())));
    let each = tokens as f64;
    Ok(Loss::Generator {
        tokens,
        mean_kl: kl / each,
        greedy_agreement: agreed as f64 / each,
        perplexity_f32: (nats_exact / each).exp(),
        perplexity: (nats / each).exp(),
    })
}

fn of_classifiers(exact: &Classifier, other: &Classifier, text: &str, pool: &dyn Pool) -> Result<Loss> {
    let (mut texts, mut agreed, mut distance) = (0_usize, 0_usize, 0.0);
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let (p, q) = (exact.classify(&[line], pool)?.remove(0), other.classify(&[line], pool)?.remove(0));
        let same = q.scores.iter().find(|score| score.label == p.label);
        let same = same.context("the two forms of the model have different labels")?;
        agreed += usize::from(p.label == q.label);
        distance += f64::from(p.score - same.score).abs();
        texts += 1;
    }
    ensure!(texts > 0, Mistake("the text has no line to judge".into()));
    Ok(Loss::Classifier {
        texts,
        label_agreement: agreed as f64 / texts as f64,
        mean_score_distance: distance / texts as f64,
    })
}

/// Logarithms of the probabilities that logits stand for.
fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let highest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - highest).exp()).sum();
    let log_sum = highest + sum.ln();
    logits.iter().map(|&logit| f64::from(logit) - log_sum).collect()
}

fn likeliest(x: &[f64]) -> usize {
    (0..x.len()).fold(0, |best, at| if x[at] > x[best] { at } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_softmax_by_hand() {
        let p = log_softmax(&[0.0, 3.0_f32.ln()]);
        assert!((p[0].exp() - 0.25).abs() < 1e-7 && (p[1].exp() - 0.75).abs() < 1e-7);
        assert_eq!(likeliest(&p), 1);
    }
}
