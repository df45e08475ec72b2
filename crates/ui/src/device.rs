//! What models need, and whether this device has it: said before they are downloaded.

use std::collections::BTreeMap;

use crate::{
    engine::{Description, Estimate, Files, Module},
    format,
    models::{Choice, Dtype, Source},
};

/// A worker's memory ends at 4 GB, and a model needs some room beside its weights.
const MOST_PER_MODEL: f64 = 3.5e9;
/// The share of a device's memory that a page may hope for.
const SHARE_OF_MEMORY: f64 = 0.6;

/// What a choice of models needs beside the demo models.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Needs {
    /// Each model, by node.
    pub(crate) models: Vec<(String, Description)>,
    /// Whether this device can hold them.
    pub(crate) verdict: Verdict,
}

impl Needs {
    /// Asks the hub for sizes, and this browser for what it keeps. `files`: local files by node.
    ///
    /// # Errors
    /// The node whose model is not to be had, and one sentence why.
    pub(crate) async fn of(
        module: &Module,
        choice: &Choice,
        dtype: Dtype,
        files: &BTreeMap<String, Files>,
        memory_gib: Option<f64>,
    ) -> Result<Needs, (String, String)> {
        let mut models = Vec::new();
        for (node, source) in choice.iter().filter(|(_, source)| **source != Source::Demo) {
            match module.describe(source, dtype, files.get(node)).await {
                Ok(description) => models.push((node.clone(), description)),
                Err(error) => return Err((node.clone(), error)),
            }
        }
        let estimate = module.estimate().await.unwrap_or_default();
        let verdict = judge(&models, memory_gib, estimate);
        Ok(Needs { models, verdict })
    }

    /// Whether the visitor need not be asked: all is here, or was begun.
    pub(crate) fn are_met(&self) -> bool {
        self.models.iter().all(|(_, model)| model.is_begun())
    }

    /// What is still to come over the network, as a sentence.
    pub(crate) fn download(&self) -> String {
        let bytes: f64 = self.models.iter().map(|(_, model)| model.download_bytes).sum();
        if bytes == 0.0 {
            return "Nothing is left to download.".into();
        }
        format!("{} to download in all.", format::bytes(bytes as u64))
    }
}

/// Whether this device can hold the models.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Verdict {
    /// For the visitor.
    pub(crate) text: String,
    /// Whether to try is without hope.
    pub(crate) is_hopeless: bool,
    /// Whether it may well fail.
    pub(crate) is_doubtful: bool,
}

/// Judges models against the device. `memory_gib`: what the browser says, at most 8 in some.
fn judge(descriptions: &[(String, Description)], memory_gib: Option<f64>, estimate: Estimate) -> Verdict {
    let memory: f64 = descriptions.iter().map(|(_, model)| model.memory_bytes).sum();
    let download: f64 = descriptions.iter().map(|(_, model)| model.download_bytes).sum();
    let size = |bytes: f64| format::bytes(bytes as u64);
    if let Some((node, model)) = descriptions.iter().find(|(_, model)| model.memory_bytes > MOST_PER_MODEL) {
        let text = format!(
            "{node} would need {} of memory; a page can give a model {} at most. Run it on a server.",
            size(model.memory_bytes),
            size(MOST_PER_MODEL)
        );
        return Verdict { text, is_hopeless: true, is_doubtful: true };
    }
    // Browsers round the memory down to a power of two and say 8 for anything above it.
    let room = memory_gib.filter(|gib| *gib < 8.0).map(|gib| gib * 1_073_741_824.0 * SHARE_OF_MEMORY);
    if let Some(room) = room.filter(|room| memory > *room) {
        let text = format!(
            "Together they need {} of memory, and this device has about {} to give: it will probably not hold them.",
            size(memory),
            size(room)
        );
        return Verdict { text, is_hopeless: false, is_doubtful: true };
    }
    let left = estimate.quota_bytes.zip(estimate.usage_bytes).map(|(quota, usage)| quota - usage);
    if let Some(left) = left.filter(|left| download > 0.0 && memory > *left) {
        let text = format!(
            "They need {} of memory, which this device has. Storage has {} left, so they would be downloaded again next time.",
            size(memory),
            size(left.max(0.0))
        );
        return Verdict { text, is_hopeless: false, is_doubtful: false };
    }
    Verdict {
        text: format!("They need {} of memory; this device can hold them.", size(memory)),
        is_hopeless: false,
        is_doubtful: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(memory_bytes: f64, download_bytes: f64) -> (String, Description) {
        ("gpt2".into(), Description { memory_bytes, download_bytes, ..Description::default() })
    }

    #[test]
    fn a_model_too_big_for_a_page_is_refused_before_it_is_downloaded() {
        let verdict = judge(&[model(6e9, 6e9)], None, Estimate::default());
        assert!(verdict.is_hopeless && verdict.text.contains("6.0 GB"), "{}", verdict.text);
    }

    #[test]
    fn a_small_device_is_told_so() {
        let verdict = judge(&[model(9e8, 1e9)], Some(1.0), Estimate::default());
        assert!(!verdict.is_hopeless && verdict.text.contains("probably not"), "{}", verdict.text);
    }

    #[test]
    fn a_full_storage_is_no_reason_to_stop() {
        let estimate = Estimate { usage_bytes: Some(9e8), quota_bytes: Some(1e9), persisted: false };
        let verdict = judge(&[model(3e8, 5e8)], Some(8.0), estimate);
        assert!(!verdict.is_hopeless && verdict.text.contains("downloaded again"), "{}", verdict.text);
        let verdict = judge(&[model(3e8, 5e8)], Some(8.0), Estimate::default());
        assert_eq!(verdict.text, "They need 300 MB of memory; this device can hold them.");
    }
}
