//! Text to label and score.

use crate::{
    error::Result,
    kernels::{self, Pool},
    model::Encoder,
    protocol::{Classification, LabelScore},
    tokenizer::Tokenizer,
};

/// A classifier ready to run.
#[derive(Debug)]
pub struct Classifier {
    model: Encoder,
    tokenizer: Tokenizer,
}

/// How logits become probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// One of several labels: a softmax over the logits.
    Softmax,
    /// Each label by itself: a sigmoid a logit, as for multi-label models and those with a single output.
    Sigmoid,
    /// The logit itself, as for regression.
    Identity,
}

/// A text as the classifier sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// Its ids, with the special ones around it.
    pub ids: Vec<u32>,
    /// Whether the text was cut to the model's context.
    pub truncated: bool,
}

impl Classifier {
    /// Puts a classifier together.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`] if the tokenizer knows more ids than the model has embeddings.
    pub fn new(model: Encoder, tokenizer: Tokenizer) -> Result<Classifier> {
        tokenizer.check_fits(model.config().vocab_size)?;
        Ok(Classifier { model, tokenizer })
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Encoder {
        &self.model
    }

    /// The tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The ids of a text, cut to the model's context where it is longer.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`].
    pub fn encode(&self, text: &str) -> Result<Encoded> {
        let (ids, truncated) = self.tokenizer.encode_for_classifier(text, self.model.max_positions())?;
        Ok(Encoded { ids, truncated })
    }

    /// Judges each text.
    ///
    /// All texts run as one batch without padding; each gets the same numbers as by itself.
    ///
    /// # Errors
    /// Those of the model.
    pub fn judge(&self, texts: &[Encoded], pool: &dyn Pool) -> Result<Vec<Classification>> {
        let ids: Vec<&[u32]> = texts.iter().map(|text| text.ids.as_slice()).collect();
        let logits = self.model.forward(&ids, pool)?;
        let (labels, activation) = (self.model.labels(), self.model.activation());
        let rows = logits.chunks_exact(labels.len());
        Ok(rows.zip(texts).map(|(logits, text)| judge(logits, labels, activation, text.truncated)).collect())
    }

    /// [`Classifier::encode`] and [`Classifier::judge`] in one.
    ///
    /// # Errors
    /// Those of tokenizer and model.
    pub fn classify(&self, texts: &[&str], pool: &dyn Pool) -> Result<Vec<Classification>> {
        let encoded: Vec<Encoded> = texts.iter().map(|text| self.encode(text)).collect::<Result<_>>()?;
        self.judge(&encoded, pool)
    }
}

/// Turns one row of logits into a judgement; ties go to the first label.
#[must_use]
pub fn judge(logits: &[f32], labels: &[String], activation: Activation, truncated: bool) -> Classification {
    let probabilities = activation.apply(logits);
    let best = (0..logits.len()).fold(0, |best, at| if logits[at] > logits[best] { at } else { best });
    let scores = labels
        .iter()
        .zip(&probabilities)
        .map(|(label, &score)| LabelScore { label: label.clone(), score })
        .collect();
    Classification {
        label: labels[best].clone(),
        score: probabilities[best],
        scores,
        logits: logits.to_vec(),
        truncated,
    }
}

impl Activation {
    /// Probabilities of `logits`.
    #[must_use]
    pub fn apply(self, logits: &[f32]) -> Vec<f32> {
        match self {
            Activation::Softmax => {
                let mut row = logits.to_vec();
                kernels::softmax(&mut row);
                row
            }
            Activation::Identity => logits.to_vec(),
            Activation::Sigmoid => logits.iter().map(|&x| 1.0 / (1.0 + kernels::exp(-x))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn softmax_and_sigmoid_by_hand() {
        let labels = ["NO".to_string(), "YES".to_string()];
        let odds = 3.0f32.ln();
        let one = judge(&[0.0, odds], &labels, Activation::Softmax, false);
        assert_eq!(one.label, "YES");
        assert!((one.score - 0.75).abs() < 1e-6 && (one.scores[0].score - 0.25).abs() < 1e-6);
        let each = judge(&[odds, 0.0], &labels, Activation::Sigmoid, true);
        assert_eq!((each.label.as_str(), each.truncated), ("NO", true));
        assert!((each.score - 0.75).abs() < 1e-6 && (each.scores[1].score - 0.5).abs() < 1e-6);
    }
}
