//! A file comes over the network, and is taken up again where it breaks.

use js_sys::Uint8Array;
use web_sys::AbortSignal;

use super::{
    Load, fetch,
    progress::Meter,
    source::{self, Bytes, Place, SourceFile},
};
use crate::{
    error::{Failure, Kind, Result},
    host,
};

/// How often a broken download is taken up again while no byte comes.
const TRIES: u32 = 5;
/// The pause before the first of these tries, in milliseconds; it doubles.
const PAUSE: f64 = 300.0;

/// A file that comes, and is taken up again where it breaks.
pub(super) struct Download<'a> {
    load: &'a Load<'a>,
    file: &'a SourceFile,
    bytes: Bytes,
    pub(super) version: fetch::Version,
    /// Bytes so far, and in all where known.
    at: u64,
    pub(super) size_bytes: Option<u64>,
    /// Breaks since the last byte came.
    breaks: u32,
    meter: Meter<'a>,
}

impl<'a> Download<'a> {
    /// Begins at byte `from` of the file, if it still is of `version`.
    pub(super) async fn begin(
        load: &'a Load<'a>,
        file: &'a SourceFile,
        from: u64,
        mut version: fetch::Version,
    ) -> Result<Download<'a>> {
        let (bytes, size_bytes) = match &file.content {
            Place::Url(url) => {
                let before = Some(&version);
                let opened = patiently(load.signal, async || {
                    fetch::open(url, load.asked(url), from, before, load.signal).await
                })
                .await?;
                if opened.from != from {
                    return Err(fetch::changed(url));
                }
                if from == 0 {
                    version = opened.version;
                }
                (Bytes::stream(&file.name, &opened.body)?, file.size_bytes.or(opened.size_bytes))
            }
            _ => file.open_here(from)?,
        };
        let meter = Meter::new(load.report, &file.name, from, size_bytes, file.content.from());
        Ok(Download { load, file, bytes, version, at: from, size_bytes, breaks: 0, meter })
    }

    /// Fills `piece` with the next bytes; false at the end.
    pub(super) async fn next(&mut self, piece: &mut Vec<u8>) -> Result<bool> {
        loop {
            let broke = match self.bytes.next(&self.file.name, self.load.signal).await {
                Ok(Some(array)) => {
                    take(&array, piece);
                    self.breaks = 0;
                    self.at += piece.len() as u64;
                    self.meter.set(self.at);
                    return Ok(true);
                }
                Ok(None) if self.size_bytes.is_none_or(|size| self.at >= size) => return Ok(false),
                Ok(None) => {
                    Failure::new(Kind::Network, format!("The download of `{}` ended early.", self.file.name))
                }
                Err(failure) => failure,
            };
            let Place::Url(url) = &self.file.content else { return Err(broke) };
            if broke.kind != Kind::Network {
                return Err(broke);
            }
            self.breaks += 1;
            if self.breaks >= TRIES {
                return Err(self.broke_off(&broke));
            }
            if self.breaks > 1 {
                rest(PAUSE * f64::from(self.breaks - 1), self.load.signal).await;
            }
            let (at, version, signal) = (self.at, &self.version, self.load.signal);
            let opened =
                patiently(signal, async || fetch::open(url, None, at, Some(version), signal).await).await;
            let opened = opened.map_err(|failure| match failure.kind {
                Kind::Network => self.broke_off(&failure),
                _ => failure,
            })?;
            if opened.from != at {
                // It cannot go on within a file. What is kept, or the beginning, is where another try goes on.
                return Err(self.broke_off(&broke));
            }
            self.bytes = Bytes::stream(&self.file.name, &opened.body)?;
        }
    }

    fn broke_off(&self, why: &Failure) -> Failure {
        let megabytes = self.at as f64 / 1e6;
        let error = format!("The download of `{}` broke at {megabytes:.1} MB. {}", self.file.name, why.error);
        Failure::new(Kind::Network, error)
    }
}

/// Tries several times, with growing pauses, as long as it is the network that fails.
async fn patiently<T>(signal: &AbortSignal, mut attempt: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let mut pause = PAUSE;
    let mut tries = 1;
    loop {
        match attempt().await {
            Err(failure) if failure.kind == Kind::Network && tries < TRIES && !signal.aborted() => {
                rest(pause, signal).await;
                pause *= 2.0;
                tries += 1;
            }
            Err(_) if signal.aborted() => return Err(source::stopped()),
            ended => return ended,
        }
    }
}

/// Waits so many milliseconds, in short naps, so that a stop need not wait as long.
async fn rest(milliseconds: f64, signal: &AbortSignal) {
    let until = host::now() + milliseconds;
    while host::now() < until && !signal.aborted() {
        host::sleep(50.0).await;
    }
}

/// Copies an array into a buffer that is kept from piece to piece.
fn take(array: &Uint8Array, piece: &mut Vec<u8>) {
    piece.resize(array.length() as usize, 0);
    array.copy_to(piece);
}
