//! What the specs in `tests/page` stand on: the built server, a browser with a profile of its own, a hub that fails on
//! demand, and the browser's log of its network.
//!
//! Everything listens on loopback at a free port and ends with the test that started it.

pub mod browser;
pub mod hub;
pub mod netlog;
pub mod page;
pub mod process;
pub mod server;

use std::{
    any::Any,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::pin,
    task::Poll,
    time::Duration,
};

use anyhow::Result;

use crate::{browser::Browser, page::Page, server::Server};

/// How long the page may take for what a visitor waits for, on a slow machine with unoptimised builds.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A server and a browser, both new.
#[derive(Debug)]
pub struct Home {
    /// `inkling serve`, the page in it.
    pub server: Server,
    /// Its one window is at no page yet.
    pub browser: Browser,
}

impl Home {
    /// The page, opened and ready to be used.
    ///
    /// # Errors
    /// If it does not come.
    pub async fn visit(&self) -> Result<Page<'_>> {
        Page::open(&self.browser, &self.server.url("/")).await
    }
}

/// Runs a spec, and prints what the page's console said if it fails.
///
/// # Panics
/// If the spec fails, which is what a test does then.
pub fn spec(act: impl AsyncFnOnce(&Home) -> Result<()>) {
    spec_with(&[], act);
}

/// The same with more arguments for Chromium.
///
/// # Panics
/// If the spec fails.
pub fn spec_with(arguments: &[&str], act: impl AsyncFnOnce(&Home) -> Result<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime needs no more than memory");
    let outcome = runtime.block_on(async {
        let home = Home { server: Server::start(&[])?, browser: Browser::start(arguments).await? };
        let outcome = caught(act(&home)).await;
        if !matches!(outcome, Ok(Ok(()))) {
            home.browser.describe().await;
        }
        home.browser.close().await;
        match outcome {
            Ok(outcome) => outcome,
            Err(panic) => resume_unwind(panic),
        }
    });
    if let Err(error) = outcome {
        panic!("{error:#}");
    }
}

/// What a future becomes, or the panic in it: an assertion that fails must not leave a browser behind.
async fn caught<T>(future: impl Future<Output = T>) -> Result<T, Box<dyn Any + Send>> {
    let mut future = pin!(future);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await
}
