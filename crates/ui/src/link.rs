//! A link that carries a whole run: sentence, seed, parameters, models, and what the texts were.
//!
//! It is the page's fragment, which browsers do not send to a server: `#run=1.PAYLOAD.CHECK`. `1` is the version, the
//! payload is JSON in base64url, and the check is the head of the payload's SHA-256, so that a link that was cut on its
//! way is told from one that means something else. A run with weights at 4 bits is version `2`: a page that knows `1`
//! only would run it at 8 bits.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use inkling_engine::protocol::{Parameters, Request};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    models::{Dtype, Source},
    run::RunState,
};

const PREFIX: &str = "run=";
/// The versions that are read, by what they can say: weights at 8 bits; at 4 bits too.
const VERSIONS: [&str; 2] = ["1", "2"];
/// A link longer than this was not made here: 8 kB hold a sentence of several pages.
const LONGEST: usize = 64 * 1024;
/// Bytes of a text's SHA-256 that a link keeps.
const NAME_BYTES: usize = 12;

/// What a link says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SharedRun {
    /// The sentence.
    #[serde(rename = "s")]
    pub(crate) sentence: String,
    /// The parameters, the seed among them.
    #[serde(rename = "p")]
    pub(crate) parameters: Parameters,
    /// The models that are not the graph's demo models, by node.
    #[serde(rename = "m", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) models: BTreeMap<String, Source>,
    /// How weights were kept. Links that do not say it are older than the choice, or of a server, which does not tell.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub(crate) dtype: Option<Dtype>,
    /// The name of each text, in the order of the graph: the head of its SHA-256. Empty for texts that were not whole.
    #[serde(rename = "t", default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) texts: Vec<String>,
}

/// Why a link says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadLink {
    /// Its check does not fit: it was cut or changed on its way.
    Damaged,
    /// It has a version that this page does not know.
    Newer,
}

impl BadLink {
    /// For people.
    pub(crate) fn sentence(self) -> &'static str {
        match self {
            BadLink::Damaged => "This link is damaged: part of it is missing. Ask for it again.",
            BadLink::Newer => {
                "This link was made by a newer version of this page. Reload the page and try again."
            }
        }
    }
}

impl SharedRun {
    /// The run on the page.
    pub(crate) fn of(run: &RunState, models: &BTreeMap<String, Source>) -> SharedRun {
        let models = models.iter().filter(|(_, source)| **source != Source::Demo);
        SharedRun {
            sentence: run.request.sentence.clone(),
            parameters: Parameters { alternatives: None, ..run.request.parameters.clone() },
            models: models.map(|(node, source)| (node.clone(), source.clone())).collect(),
            dtype: run.dtype,
            texts: names(run),
        }
    }

    /// The request that writes the same texts.
    pub(crate) fn request(&self) -> Request {
        Request { sentence: self.sentence.clone(), parameters: self.parameters.clone() }
    }

    /// The fragment, without its `#`.
    pub(crate) fn to_fragment(&self) -> String {
        let json = serde_json::to_vec(self).expect("strings, numbers and maps of strings are JSON");
        let payload = BASE64_URL_SAFE_NO_PAD.encode(json);
        let check = check_of(&payload);
        let version = VERSIONS[usize::from(self.dtype == Some(Dtype::Q4))];
        format!("{PREFIX}{version}.{payload}.{check}")
    }

    /// What a fragment says; `None` if it is not about a run at all.
    pub(crate) fn from_fragment(fragment: &str) -> Option<Result<SharedRun, BadLink>> {
        let link = fragment.trim_start_matches('#').strip_prefix(PREFIX)?;
        Some(parse(link))
    }

    /// How many of the link's texts came out again, and how many it names; `None` if it names none.
    pub(crate) fn compare(&self, run: &RunState) -> Option<Comparison> {
        let named = self.texts.iter().filter(|name| !name.is_empty()).count();
        let came = names(run);
        let is_same = |(ours, theirs): &(&String, &String)| !theirs.is_empty() && ours == theirs;
        let same = came.iter().zip(&self.texts).filter(is_same).count();
        (named > 0).then_some(Comparison { same, named })
    }
}

/// How the texts of a run compare with those that a link names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Comparison {
    /// Texts that are the same, to the byte.
    pub(crate) same: usize,
    /// Texts that the link names.
    pub(crate) named: usize,
}

impl Comparison {
    /// For people.
    pub(crate) fn sentence(self) -> String {
        match self {
            Comparison { same, named } if same == named => {
                "The text is the same as the link's, letter for letter.".into()
            }
            Comparison { same: 0, named: 1 } => "The text differs from the link's.".into(),
            Comparison { same: 0, .. } => "The texts differ from the link's.".into(),
            Comparison { same, named } => format!("{same} of {named} texts are the same as the link's."),
        }
    }
}

/// The name of each text: the head of its SHA-256, empty where it is not whole.
fn names(run: &RunState) -> Vec<String> {
    let name = |text: &crate::run::TextState| match text.mark() {
        crate::run::Mark::Done => name_of(&text.full()),
        _ => String::new(),
    };
    run.texts.iter().map(name).collect()
}

fn name_of(text: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(&Sha256::digest(text.as_bytes())[..NAME_BYTES])
}

fn check_of(payload: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(&Sha256::digest(payload.as_bytes())[..6])
}

fn parse(link: &str) -> Result<SharedRun, BadLink> {
    if link.len() > LONGEST {
        return Err(BadLink::Damaged);
    }
    let mut parts = link.split('.');
    let (version, payload, check) = (parts.next(), parts.next(), parts.next());
    match version {
        Some(version) if VERSIONS.contains(&version) => {}
        Some(other) if other.parse::<u32>().is_ok() => return Err(BadLink::Newer),
        _ => return Err(BadLink::Damaged),
    }
    let (Some(payload), Some(check), None) = (payload, check, parts.next()) else {
        return Err(BadLink::Damaged);
    };
    if check != check_of(payload) {
        return Err(BadLink::Damaged);
    }
    let json = BASE64_URL_SAFE_NO_PAD.decode(payload).map_err(|_| BadLink::Damaged)?;
    let shared: SharedRun = serde_json::from_slice(&json).map_err(|_| BadLink::Damaged)?;
    // Whoever makes a link by hand can write anything into it: out of range is as good as damaged.
    shared.parameters.settings().map_err(|_| BadLink::Damaged)?;
    Ok(shared)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use inkling_engine::{
        graph::Graph,
        protocol::{Event, FinishReason, Stamped},
    };

    use super::*;

    fn shared() -> SharedRun {
        let hub = Source::Hub { repo: "openai-community/gpt2".into(), endpoint: None };
        SharedRun {
            sentence: "Rain — 雨, مطر".into(),
            parameters: Parameters {
                seed: Some(9_007_199_254_740_991),
                temperature: Some(0.7),
                stop: Some(vec!["\n".into()]),
                ..Parameters::default()
            },
            models: BTreeMap::from([("gpt2".into(), hub)]),
            dtype: Some(Dtype::Q8),
            texts: vec!["a".into(), String::new()],
        }
    }

    fn forge(json: &str) -> String {
        let payload = BASE64_URL_SAFE_NO_PAD.encode(json);
        format!("run=1.{payload}.{}", check_of(&payload))
    }

    #[track_caller]
    fn check_bad(fragment: &str, expected: BadLink) {
        assert_eq!(SharedRun::from_fragment(fragment), Some(Err(expected)), "{fragment}");
    }

    #[test]
    fn a_link_says_what_was_put_in() {
        let fragment = shared().to_fragment();
        assert!(fragment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"=.-_".contains(&byte)));
        assert_eq!(SharedRun::from_fragment(&fragment), Some(Ok(shared())));
        assert_eq!(SharedRun::from_fragment(&format!("#{fragment}")), Some(Ok(shared())));
    }

    #[test]
    fn weights_at_4_bits_are_a_version_of_their_own() {
        let version = |dtype| SharedRun { dtype, ..shared() }.to_fragment()[PREFIX.len()..][..2].to_owned();
        assert_eq!([None, Some(Dtype::Q8), Some(Dtype::Q4)].map(version), ["1.", "1.", "2."]);
        let four = SharedRun { dtype: Some(Dtype::Q4), ..shared() };
        assert_eq!(SharedRun::from_fragment(&four.to_fragment()), Some(Ok(four)));
        // From before there was a choice.
        let old = SharedRun::from_fragment(&forge("{\"s\":\"a\",\"p\":{}}")).unwrap().unwrap();
        assert_eq!(old.dtype.unwrap_or_default(), Dtype::Q8);
    }

    #[test]
    fn other_fragments_are_no_links() {
        for fragment in ["", "#", "#history", "walrus"] {
            assert_eq!(SharedRun::from_fragment(fragment), None);
        }
    }

    #[test]
    fn a_link_that_was_cut_or_changed_anywhere_is_damaged() {
        let fragment = shared().to_fragment();
        for end in PREFIX.len()..fragment.len() {
            assert!(matches!(SharedRun::from_fragment(&fragment[..end]), Some(Err(_))), "cut at {end}");
        }
        for at in PREFIX.len() + 2..fragment.len() {
            let mut bytes = fragment.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(matches!(SharedRun::from_fragment(&changed), Some(Err(_))), "changed at {at}");
        }
    }

    #[test]
    fn a_newer_version_says_so() {
        check_bad("run=3.abc.def", BadLink::Newer);
        check_bad("run=x.abc.def", BadLink::Damaged);
        check_bad("run=", BadLink::Damaged);
    }

    #[test]
    fn forged_links_are_refused() {
        check_bad(&forge("[]"), BadLink::Damaged);
        check_bad(&forge("{\"s\":3,\"p\":{}}"), BadLink::Damaged);
        check_bad(&forge("{\"s\":\"a\",\"p\":{\"temperature\":-1}}"), BadLink::Damaged);
        check_bad(&forge("{\"s\":\"a\",\"p\":{\"num_return_sequences\":100000}}"), BadLink::Damaged);
        check_bad(&forge("{\"s\":\"a\",\"p\":{\"max_length\":\"x\"}}"), BadLink::Damaged);
        check_bad(&forge("{\"s\":\"a\",\"p\":{},\"d\":\"q2\"}"), BadLink::Damaged);
        check_bad(&forge(&format!("{{\"s\":\"{}\",\"p\":{{}}}}", "a".repeat(100_000))), BadLink::Damaged);
        let deep = format!("{{\"s\":\"a\",\"p\":{{}},\"m\":{}", "[".repeat(2000));
        check_bad(&forge(&deep), BadLink::Damaged);
    }

    #[test]
    fn a_link_knows_whether_the_same_texts_came_out() {
        let run = |completions: [&str; 2]| {
            let mut run = RunState::begin(Arc::new(Graph::default()), Request::default());
            for (node, completion) in ["gpt2", "distilgpt2"].iter().zip(completions) {
                let event = Event::Done {
                    node: (*node).into(),
                    sequence: 0,
                    prompt: "p".into(),
                    completion: completion.into(),
                    new_tokens: 1,
                    finish_reason: FinishReason::Length,
                };
                run.accept(&Stamped { at_ms: 1.0, event });
            }
            run.end();
            run
        };
        let shared = SharedRun::of(&run(["a", "b"]), &BTreeMap::new());
        assert_eq!(shared.compare(&run(["a", "b"])), Some(Comparison { same: 2, named: 2 }));
        assert_eq!(shared.compare(&run(["a", "c"])), Some(Comparison { same: 1, named: 2 }));
        let nameless = SharedRun { texts: Vec::new(), ..shared };
        assert_eq!(nameless.compare(&run(["a", "b"])), None);
    }
}
