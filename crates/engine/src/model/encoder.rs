//! The classifiers' common face: texts as ids in, the head's logits out.

use super::{bert::Bert, distilbert::DistilBert};
use crate::{
    checkpoint::{
        config::{EncoderConfig, EncoderKind},
        weights::{Plan, Weights},
    },
    classify::Activation,
    error::{Error, Result},
    kernels::Pool,
};

/// An encoder with a classification head.
#[derive(Debug)]
pub struct Encoder {
    config: EncoderConfig,
    architecture: Architecture,
}

#[derive(Debug)]
enum Architecture {
    Bert(Bert),
    DistilBert(DistilBert),
}

impl Encoder {
    pub(crate) fn plan(config: &EncoderConfig) -> Plan {
        match config.kind {
            EncoderKind::Bert => Bert::plan(config),
            EncoderKind::DistilBert => DistilBert::plan(config),
        }
    }

    pub(crate) fn new(config: EncoderConfig, weights: &mut Weights) -> Result<Encoder> {
        let architecture = match config.kind {
            EncoderKind::Bert => Architecture::Bert(Bert::new(&config, weights)?),
            EncoderKind::DistilBert => Architecture::DistilBert(DistilBert::new(&config, weights)?),
        };
        Ok(Encoder { config, architecture })
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// Most tokens of a text.
    #[must_use]
    pub fn max_positions(&self) -> usize {
        self.config.max_position_embeddings
    }

    /// Names of the head's outputs.
    #[must_use]
    pub fn labels(&self) -> &[String] {
        &self.config.labels
    }

    /// How the head's outputs become probabilities.
    #[must_use]
    pub fn activation(&self) -> Activation {
        self.config.output
    }

    /// See [`super::gpt2::Gpt2::has_f32_products`].
    #[must_use]
    pub fn has_f32_products(&self) -> bool {
        match &self.architecture {
            Architecture::Bert(model) => model.has_f32_products(),
            Architecture::DistilBert(model) => model.has_f32_products(),
        }
    }

    /// Runs a batch of texts without padding; each gets the logits that it gets by itself, one row of labels after
    /// the other.
    ///
    /// # Errors
    /// [`Error::Context`] for a text that is too long, [`Error::EmptyPrompt`] for one without ids,
    /// [`Error::TokenOutOfRange`].
    pub fn forward(&self, texts: &[&[u32]], pool: &dyn Pool) -> Result<Vec<f32>> {
        let context = self.max_positions();
        for text in texts {
            match text.len() {
                0 => return Err(Error::EmptyPrompt),
                positions if positions > context => return Err(Error::Context { positions, context }),
                _ => {}
            }
        }
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let logits = match &self.architecture {
            Architecture::Bert(model) => model.forward(texts, pool)?,
            Architecture::DistilBert(model) => model.forward(texts, pool)?,
        };
        Ok(logits.flatten_all()?.to_vec1()?)
    }
}
