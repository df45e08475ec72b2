//! Chromium's log of its network stack: every request of every process, workers and the browser itself among them, with
//! who asked for it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;
use tempfile::TempDir;

/// A log that is being written.
#[derive(Debug)]
pub struct NetLog(TempDir);

/// A request as it began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What was asked for.
    pub url: String,
    /// The origin whose document, worker or service worker asked. `None`: the browser on its own account, or a visitor
    /// who typed an address.
    pub initiator: Option<String>,
}

impl NetLog {
    /// A place for a log.
    ///
    /// # Errors
    /// If there is no room for one.
    pub fn new() -> Result<NetLog> {
        Ok(NetLog(tempfile::tempdir()?))
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("net.json")
    }

    /// The argument by which Chromium writes it.
    pub fn argument(&self) -> String {
        format!("--log-net-log={}", self.path().display())
    }

    /// The requests in it. Whole once the browser is closed.
    ///
    /// # Errors
    /// If it is no such log.
    pub fn requests(&self) -> Result<Vec<Request>> {
        read(&self.path())
    }
}

fn read(path: &Path) -> Result<Vec<Request>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let log: Value = serde_json::from_str(&text).context("the browser has not finished its log")?;
    let began = &log["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"];
    anyhow::ensure!(began.is_number(), "the log knows no URL_REQUEST_START_JOB");
    let events = log["events"].as_array().into_iter().flatten();
    let requests = events.filter(|event| event["type"] == *began).filter_map(|event| {
        let of = |name: &str| event["params"][name].as_str();
        let initiator = of("initiator")?;
        Some(Request {
            url: of("url")?.into(),
            initiator: (initiator != "not an origin").then(|| initiator.into()),
        })
    });
    Ok(requests.collect())
}
