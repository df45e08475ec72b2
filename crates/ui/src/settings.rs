//! The decoding parameters that a visitor can set: their sane ranges, and what each one does in a few words.

use inkling_engine::protocol::Parameters;

/// A parameter that is a number.
pub(crate) struct Setting {
    /// Its name on the wire.
    pub(crate) name: &'static str,
    /// Its name for people.
    pub(crate) label: &'static str,
    /// What it does.
    pub(crate) hint: &'static str,
    /// Least and largest value that the page offers; the engine allows more.
    pub(crate) range: (f64, f64),
    /// Distance between two values.
    pub(crate) step: f64,
    /// The built-in value.
    pub(crate) default: f64,
    get: fn(&Parameters) -> Option<f64>,
    set: fn(&mut Parameters, f64),
}

/// Longest text that the page offers, in tokens.
pub(crate) const MOST_TOKENS: usize = 512;

/// All of them, in the order of the page.
pub(crate) const SETTINGS: [Setting; 8] = [
    Setting {
        name: "num_return_sequences",
        label: "Continuations",
        hint: "How many texts each writer writes.",
        range: (1.0, 16.0),
        step: 1.0,
        default: 1.0,
        get: |parameters| parameters.num_return_sequences.map(|value| value as f64),
        set: |parameters, value| parameters.num_return_sequences = Some(value as usize),
    },
    Setting {
        name: "max_length",
        label: "Length",
        hint: "Most tokens of a text, the sentence included. A token is a word or a part of one.",
        range: (8.0, MOST_TOKENS as f64),
        step: 8.0,
        default: 128.0,
        get: |parameters| parameters.max_length.map(|value| value as f64),
        set: |parameters, value| {
            (parameters.max_length, parameters.max_new_tokens) = (Some(value as usize), None);
        },
    },
    Setting {
        name: "temperature",
        label: "Temperature",
        hint: "Below 1 the likely words come more often, above 1 the unlikely ones.",
        range: (0.1, 2.0),
        step: 0.05,
        default: 1.0,
        get: |parameters| parameters.temperature.map(f64::from),
        set: |parameters, value| parameters.temperature = Some(value as f32),
    },
    Setting {
        name: "top_k",
        label: "Top k",
        hint: "Draw among this many of the likeliest tokens only. 0 means among all.",
        range: (0.0, 200.0),
        step: 1.0,
        default: 50.0,
        get: |parameters| parameters.top_k.map(|value| value as f64),
        set: |parameters, value| parameters.top_k = Some(value as usize),
    },
    Setting {
        name: "top_p",
        label: "Top p",
        hint: "Draw among the fewest tokens that hold this share of the probability.",
        range: (0.05, 1.0),
        step: 0.01,
        default: 1.0,
        get: |parameters| parameters.top_p.map(f64::from),
        set: |parameters, value| parameters.top_p = Some(value as f32),
    },
    Setting {
        name: "min_p",
        label: "Min p",
        hint: "Leave out tokens less likely than this fraction of the likeliest one.",
        range: (0.0, 0.5),
        step: 0.01,
        default: 0.0,
        get: |parameters| parameters.min_p.map(f64::from),
        set: |parameters, value| parameters.min_p = Some(value as f32),
    },
    Setting {
        name: "repetition_penalty",
        label: "Repetition penalty",
        hint: "Above 1, tokens that are in the text already become less likely.",
        range: (1.0, 2.0),
        step: 0.05,
        default: 1.0,
        get: |parameters| parameters.repetition_penalty.map(f64::from),
        set: |parameters, value| parameters.repetition_penalty = Some(value as f32),
    },
    Setting {
        name: "no_repeat_ngram_size",
        label: "No repeats of",
        hint: "No run of this many tokens comes twice. 0 allows all.",
        range: (0.0, 8.0),
        step: 1.0,
        default: 0.0,
        get: |parameters| parameters.no_repeat_ngram_size.map(|value| value as f64),
        set: |parameters, value| parameters.no_repeat_ngram_size = Some(value as usize),
    },
];

impl Setting {
    /// The value in `parameters`, or the built-in one.
    pub(crate) fn value(&self, parameters: &Parameters) -> f64 {
        (self.get)(parameters).unwrap_or(self.default)
    }

    /// Puts a value into `parameters`, as near to it as the range allows. What is not a number changes nothing.
    pub(crate) fn put(&self, parameters: &mut Parameters, value: f64) {
        if value.is_finite() {
            (self.set)(parameters, value.clamp(self.range.0, self.range.1));
        }
    }

    /// A value as the page writes it.
    pub(crate) fn show(&self, value: f64) -> String {
        if self.step < 1.0 { format!("{value:.2}") } else { format!("{value:.0}") }
    }
}

/// Stop strings as typed, one a line; `\n` and `\t` stand for what cannot be typed.
pub(crate) fn stop_strings(typed: &str) -> Option<Vec<String>> {
    let lines = typed.lines().filter(|line| !line.is_empty());
    let stop: Vec<String> = lines.map(|line| line.replace("\\n", "\n").replace("\\t", "\t")).collect();
    (!stop.is_empty()).then(|| stop.into_iter().take(16).collect())
}

/// Stop strings as they are typed.
pub(crate) fn show_stop_strings(stop: Option<&Vec<String>>) -> String {
    let lines = stop.into_iter().flatten().map(|line| line.replace('\n', "\\n").replace('\t', "\\t"));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_that_the_page_offers_is_one_that_the_engine_takes() {
        for setting in &SETTINGS {
            for value in [setting.range.0, setting.default, setting.range.1, -1e9, 1e9, f64::NAN] {
                let mut parameters = Parameters::default();
                setting.put(&mut parameters, value);
                assert!(parameters.settings().is_ok(), "{} {value}", setting.name);
                let shown = setting.value(&parameters);
                assert!(shown >= setting.range.0 - 1e-6 && shown <= setting.range.1 + 1e-6);
            }
            assert!(Parameters::NAMES.contains(&setting.name));
        }
    }

    #[test]
    fn the_defaults_are_the_engine_s() {
        let engine = Parameters::default().settings().unwrap();
        let mut parameters = Parameters::default();
        for setting in &SETTINGS {
            setting.put(&mut parameters, setting.default);
        }
        assert_eq!(parameters.settings().unwrap(), engine);
    }

    #[test]
    fn stop_strings_are_lines() {
        let stop = stop_strings("END\n\n\\n\\n\n").unwrap();
        assert_eq!(stop, ["END", "\n\n"]);
        assert_eq!(stop_strings(&show_stop_strings(Some(&stop))), Some(stop));
        assert_eq!(stop_strings("\n"), None);
    }
}
