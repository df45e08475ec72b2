//! How far a file is, and when it will be there.

use serde::Serialize;

use crate::host;

/// Milliseconds between two reports of a file.
const INTERVAL: f64 = 100.0;
/// The time over which the rate of bytes is smoothed, in milliseconds.
const SMOOTHING: f64 = 2000.0;

/// Where a file's bytes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum From {
    /// A server.
    Network,
    /// What was kept in this browser.
    Cache,
    /// A file of the visitor's, or bytes that the caller had.
    File,
}

/// How far a file is.
#[derive(Clone, Debug, Serialize)]
pub struct Progress {
    /// Its name.
    pub file: String,
    /// Bytes so far.
    pub bytes: u64,
    /// Bytes in all, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
    /// Milliseconds until the file is there, at the rate of the last seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ms_left: Option<f64>,
    /// Where it comes from.
    pub from: From,
}

/// Reports a file's progress, at most ten times a second.
pub(crate) struct Meter<'a> {
    report: &'a dyn Fn(&Progress),
    progress: Progress,
    rate: Rate,
    reported_at: f64,
}

impl<'a> Meter<'a> {
    /// Begins a file, of which `bytes` are there, and says so.
    pub(crate) fn new(
        report: &'a dyn Fn(&Progress),
        file: &str,
        bytes: u64,
        total_bytes: Option<u64>,
        from: From,
    ) -> Meter<'a> {
        let progress = Progress { file: file.into(), bytes, total_bytes, ms_left: None, from };
        let now = host::now();
        report(&progress);
        Meter { report, progress, rate: Rate::new(now, bytes), reported_at: now }
    }

    /// Sets the number of bytes so far.
    pub(crate) fn set(&mut self, bytes: u64) {
        self.progress.bytes = bytes;
        let now = host::now();
        let is_whole = self.progress.total_bytes == Some(bytes);
        if now - self.reported_at < INTERVAL && !is_whole {
            return;
        }
        self.rate.sample(now, bytes);
        let left = self.progress.total_bytes.map(|total| total.saturating_sub(bytes));
        self.progress.ms_left = left.and_then(|left| self.rate.time_for(left));
        self.reported_at = now;
        (self.report)(&self.progress);
    }
}

/// Bytes a millisecond, smoothed: an exponential mean over the last seconds.
struct Rate {
    at: f64,
    bytes: u64,
    per_ms: Option<f64>,
}

impl Rate {
    fn new(now: f64, bytes: u64) -> Rate {
        Rate { at: now, bytes, per_ms: None }
    }

    fn sample(&mut self, now: f64, bytes: u64) {
        let elapsed = now - self.at;
        if elapsed <= 0.0 || bytes < self.bytes {
            (self.at, self.bytes) = (now, bytes);
            return;
        }
        let current = (bytes - self.bytes) as f64 / elapsed;
        let weight = 1.0 - (-elapsed / SMOOTHING).exp();
        self.per_ms = Some(self.per_ms.map_or(current, |mean| mean + weight * (current - mean)));
        (self.at, self.bytes) = (now, bytes);
    }

    fn time_for(&self, bytes: u64) -> Option<f64> {
        self.per_ms.filter(|&per_ms| per_ms > 0.0).map(|per_ms| (bytes as f64 / per_ms).round())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_steady_rate_gives_the_exact_time_left() {
        let mut rate = Rate::new(0.0, 0);
        for tick in 1..=20 {
            rate.sample(f64::from(tick) * 100.0, 1000 * tick as u64);
        }
        assert_eq!(rate.time_for(5000), Some(500.0));
    }

    #[test]
    fn a_pause_lengthens_the_time_left_without_making_it_jump_to_infinity() {
        let mut rate = Rate::new(0.0, 0);
        rate.sample(100.0, 1000);
        rate.sample(1100.0, 1000);
        let left = rate.time_for(1000).unwrap();
        assert!((100.0..1000.0).contains(&left), "{left}");
    }

    #[test]
    fn a_download_that_begins_again_has_no_negative_rate() {
        let mut rate = Rate::new(0.0, 5000);
        rate.sample(100.0, 100);
        assert_eq!(rate.time_for(1000), None);
        rate.sample(200.0, 1100);
        assert_eq!(rate.time_for(1000), Some(100.0));
    }
}
