//! Numbers as people read them.

/// A size, such as `12.3 MB`; powers of 1000, as browsers and download pages count.
pub(crate) fn bytes(size: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if size < 1000 {
        return format!("{size} B");
    }
    let mut value = size as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = usize::from(value < 99.95);
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// A span of time, such as `38 ms`, `1.4 s` or `2 min 5 s`.
pub(crate) fn duration(ms: f64) -> String {
    if ms < 999.5 {
        return format!("{ms:.0} ms");
    }
    let seconds = ms / 1000.0;
    if seconds < 59.95 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    format!("{} min {} s", whole / 60, whole % 60)
}

/// Time that is left, roundly: `5 s left`, `3 min left`.
pub(crate) fn time_left(ms: f64) -> String {
    let seconds = (ms / 1000.0).ceil().max(1.0);
    if seconds < 90.0 { format!("{seconds:.0} s left") } else { format!("{:.0} min left", seconds / 60.0) }
}

/// A probability, such as `81 %`, `0.4 %` or `under 0.1 %`.
pub(crate) fn percent(probability: f64) -> String {
    let percent = probability * 100.0;
    match percent {
        _ if percent < 0.1 => "under 0.1 %".into(),
        _ if percent < 9.95 => format!("{percent:.1} %"),
        _ => format!("{percent:.0} %"),
    }
}

/// `1 token`, `2 tokens`.
pub(crate) fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// `1st`, `2nd`, `11th`.
pub(crate) fn ordinal(number: usize) -> String {
    let suffix = match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{number}{suffix}")
}

/// An engine's message as a sentence: capital at its head, full stop at its end.
pub(crate) fn sentence(message: &str) -> String {
    let message = message.trim();
    let mut characters = message.chars();
    let Some(first) = characters.next() else { return String::new() };
    let stop = if message.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{}{}{stop}", first.to_uppercase(), characters.as_str())
}

/// A prompt that is too long, as the engine says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong {
    /// Tokens of the prompt.
    pub(crate) tokens: usize,
    /// Tokens that it may have at most, with the text.
    pub(crate) limit: usize,
    /// Whether the limit is the model's own, not that of the settings.
    pub(crate) is_of_model: bool,
}

/// What the engine says of a prompt that is too long: `the prompt has 265 tokens, but `max_length` is 128: ...`.
pub(crate) fn too_long(error: &str) -> Option<TooLong> {
    let (_, rest) = error.split_once("rompt has ")?;
    let (tokens, rest) = rest.split_once(" tokens, but ")?;
    let (name, rest) = rest.split_once(" is ")?;
    let limit = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    Some(TooLong {
        tokens: tokens.parse().ok()?,
        limit: limit.parse().ok()?,
        is_of_model: name.contains("context"),
    })
}

/// Why something failed, as a sentence for people.
pub(crate) fn reason(error: &str) -> String {
    match too_long(error) {
        Some(TooLong { tokens, limit, is_of_model: true }) => {
            format!("The sentence has {tokens} tokens, and this model reads {limit} at most. Shorten it.")
        }
        Some(TooLong { tokens, limit, is_of_model: false }) => {
            format!("The sentence alone has {tokens} tokens, and the length is set to {limit}.")
        }
        None => sentence(error),
    }
}

/// A length that leaves a text of so many tokens room to go on, if the page offers one.
pub(crate) fn room_for(tokens: usize, most: usize) -> Option<usize> {
    let length = (tokens + 64).next_multiple_of(8).min(most);
    (length >= tokens + 8).then_some(length)
}

/// An instruction set of kernels, for people.
pub(crate) fn kernels(isa: &str) -> String {
    match isa {
        "RelaxedSimd" => "relaxed SIMD".into(),
        "Simd128" => "SIMD".into(),
        other => other.to_owned(),
    }
}

/// A token's text where white space would not show: line breaks as `⏎`, blanks kept visible.
pub(crate) fn visible(token: &str) -> String {
    if token.is_empty() {
        return "(end or half a character)".into();
    }
    token.replace('\n', "⏎").replace('\t', "⇥").replace(' ', "\u{2423}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans_have_two_or_three_digits() {
        assert_eq!([bytes(999), bytes(61_000_000), bytes(1_260_000_000)], ["999 B", "61.0 MB", "1.3 GB"]);
        assert_eq!([bytes(548_000_000), bytes(999_900)], ["548 MB", "1.0 MB"]);
        assert_eq!([duration(37.6), duration(1400.0), duration(125_000.0)], ["38 ms", "1.4 s", "2 min 5 s"]);
        assert_eq!([time_left(200.0), time_left(180_000.0)], ["1 s left", "3 min left"]);
    }

    #[test]
    fn small_probabilities_are_not_called_nothing() {
        assert_eq!([percent(0.814), percent(0.004), percent(1e-6)], ["81 %", "0.4 %", "under 0.1 %"]);
    }

    #[test]
    fn ordinals_know_the_teens() {
        assert_eq!([1, 2, 3, 4, 11, 12, 21, 112].map(ordinal), {
            ["1st", "2nd", "3rd", "4th", "11th", "12th", "21st", "112th"]
        });
    }

    #[test]
    fn messages_become_sentences() {
        assert_eq!(sentence("the file is gone"), "The file is gone.");
        assert_eq!(sentence("Gone."), "Gone.");
        assert_eq!(sentence(" "), "");
    }

    #[test]
    fn a_prompt_that_is_too_long_is_told_by_what_the_engine_says() {
        let own = "the prompt has 265 tokens, but `max_length` is 128: there is no room for a new one";
        assert_eq!(too_long(own), Some(TooLong { tokens: 265, limit: 128, is_of_model: false }));
        let model =
            "the prompt has 300 tokens, but the model's context is 256: there is no room for a new one";
        assert_eq!(too_long(&sentence(model)), Some(TooLong { tokens: 300, limit: 256, is_of_model: true }));
        assert!(reason(model).ends_with("reads 256 at most. Shorten it."));
        assert_eq!(reason("the model is gone"), "The model is gone.");
        assert_eq!(too_long("the prompt has many tokens, but x is y"), None);
    }

    #[test]
    fn there_is_room_as_far_as_the_page_offers_lengths() {
        assert_eq!(room_for(128, 512), Some(192));
        assert_eq!(room_for(490, 512), Some(512));
        assert_eq!(room_for(510, 512), None);
    }
}
