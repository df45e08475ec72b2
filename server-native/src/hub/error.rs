//! What can go wrong between here and the hub, each as one sentence that says what to do.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a model could not be fetched. Every message stands alone: it names the model or file, the place, and a way on.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The id has not the form of one.
    #[error("`{0}` is not the id of a model on the hub: expected `name` or `organisation/name`")]
    Id(String),
    /// An environment variable, or a field of [`Settings`](super::Settings), cannot be used.
    #[error("{name}: {reason}")]
    Setting {
        /// The variable, such as `HF_ENDPOINT`.
        name: &'static str,
        /// What is wrong with its value; never the value of a token.
        reason: String,
    },
    /// 404 for a model or for a file of it.
    #[error("{endpoint} has no {what}: check the id, or use `--models demo`, which needs no network")]
    NotFound {
        /// The hub's address.
        endpoint: String,
        /// The model, or the file and its model.
        what: String,
    },
    /// 401 or 403: a private or gated model, or (the hub tells no stranger which) one that does not exist.
    #[error("{endpoint} does not let {} read `{repo}` ({status}): check the id; {}",
        if *token { "this token" } else { "everyone" },
        if *token { format!("if it is private or gated, ask for access at {endpoint}/{repo}, or set HF_TOKEN to a token that has it") }
        else { "if it is private or gated, set HF_TOKEN to a token that may read it".into() })]
    Denied {
        /// The hub's address.
        endpoint: String,
        /// The model.
        repo: String,
        /// 401 or 403.
        status: u16,
        /// Whether a token was sent.
        token: bool,
    },
    /// 429, 408 or a 5xx, again and again.
    #[error("{host} is too busy for `{what}`: it answered {status}; {tries}{}; try again later",
        match asks { Some(asks) => format!(", and it asks to wait {} more", Span(*asks)), None => String::new() })]
    Busy {
        /// Who answered: the hub, or the store that it redirects to.
        host: String,
        /// The model or file.
        what: String,
        /// The last status.
        status: u16,
        /// How often and how long it was tried.
        tries: Tries,
        /// A `Retry-After` that was too long to wait for.
        asks: Option<Duration>,
    },
    /// No answer at all, again and again.
    #[error(
        "no connection to {endpoint} for `{what}`: {reason}; {tries}; \
        check the network and HF_ENDPOINT, or use `--models demo`, which needs neither"
    )]
    Unreachable {
        /// The hub's address.
        endpoint: String,
        /// The model or file.
        what: String,
        /// The innermost cause, such as `Connection refused`.
        reason: String,
        /// How often and how long it was tried.
        tries: Tries,
    },
    /// The connection broke in a file, and would not come back.
    #[error("the connection broke in `{file}`: {reason}; {tries}; {} kept, run the command again to go on from there",
        match total { Some(total) => format!("{kept} of {total} bytes are"), None => format!("{kept} bytes are") })]
    Cut {
        /// The file.
        file: String,
        /// Its bytes on disk.
        kept: u64,
        /// Its size, if the hub told.
        total: Option<u64>,
        /// The innermost cause.
        reason: String,
        /// How often and how long it was tried.
        tries: Tries,
    },
    /// A file arrived whole, with other contents than the hub promised.
    #[error(
        "`{file}` came damaged: its sha256 is {got}, {endpoint} promised {expected}; \
        nothing of it is kept, run the command again to fetch it anew"
    )]
    Hash {
        /// The file.
        file: String,
        /// The hub's address.
        endpoint: String,
        /// In hexadecimal, as the hub says.
        expected: String,
        /// In hexadecimal, of what came.
        got: String,
    },
    /// More bytes came than the hub promised.
    #[error(
        "`{file}` came with {got} bytes, {endpoint} promised {expected}; \
        nothing of it is kept, run the command again to fetch it anew"
    )]
    Size {
        /// The file.
        file: String,
        /// The hub's address.
        endpoint: String,
        /// In bytes, as the hub says.
        expected: u64,
        /// In bytes, of what came.
        got: u64,
    },
    /// The cache's disk is full, or will be.
    #[error("no room for `{file}` in {}: it needs {} more bytes{}; \
        make room, or set HF_HOME to a folder on another disk",
        folder.display(),
        match needs { Some(needs) => needs.to_string(), None => "some".into() },
        match free { Some(free) => format!(", {free} are free"), None => String::new() })]
    DiskFull {
        /// The file.
        file: String,
        /// The cache folder of its model.
        folder: PathBuf,
        /// Bytes still to come, if the hub told the file's size.
        needs: Option<u64>,
        /// Bytes that this user may still write there, if the system tells.
        free: Option<u64>,
    },
    /// The cache cannot be read or written for another reason.
    #[error("{}: {source}", path.display())]
    Cache {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// `HF_HUB_OFFLINE` is set, and the cache cannot serve alone.
    #[error("HF_HUB_OFFLINE is set, and `{repo}` is not in the cache at {}: {reason}; \
        unset it once to fetch the model, or use `--models demo`", cache.display())]
    Offline {
        /// The model.
        repo: String,
        /// The cache's folder.
        cache: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// The repository holds no model in a form that the engine reads.
    #[error("`{repo}` at {endpoint}: {source}")]
    Files {
        /// The model.
        repo: String,
        /// The hub's address.
        endpoint: String,
        /// What the engine expected.
        source: Box<inkling_engine::error::Error>,
    },
    /// The answer is not one of a hub.
    #[error(
        "{endpoint} does not answer as the Hugging Face hub does for `{what}`: {reason}; check HF_ENDPOINT"
    )]
    Answer {
        /// The hub's address.
        endpoint: String,
        /// The model or file.
        what: String,
        /// What was expected, what came.
        reason: String,
    },
}

/// How often something was tried in vain, and the pauses between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tries {
    /// Tries in a row that brought no new byte.
    pub count: u32,
    /// All pauses between them.
    pub waited: Duration,
}

impl fmt::Display for Tries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count {
            1 => f.write_str("tried once"),
            count => write!(f, "tried {count} times, waited {}", Span(self.waited)),
        }
    }
}

/// A duration in seconds, with tenths where they matter.
struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs_f64();
        let digits = usize::from(seconds < 10.0 && self.0.subsec_millis() >= 50);
        write!(f, "{seconds:.digits$} s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_told_in_seconds() {
        let tries = |count, millis| Tries { count, waited: Duration::from_millis(millis) }.to_string();
        assert_eq!(tries(1, 0), "tried once");
        assert_eq!(tries(3, 2000), "tried 3 times, waited 2 s");
        assert_eq!(tries(3, 2500), "tried 3 times, waited 2.5 s");
        assert_eq!(tries(9, 75_400), "tried 9 times, waited 75 s");
    }
}
