//! Chromium through chromedriver, and Chromium's own protocol where WebDriver has no word for something.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tempfile::TempDir;
use thirtyfour::{CapabilitiesHelper, ChromiumLikeCapabilities, DesiredCapabilities, WebDriver};

use crate::{PATIENCE, page::wait_for, process::Process};

const ARGUMENTS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--force-color-profile=srgb",
];

/// A browser with a new profile; gone when closed or dropped.
#[derive(Debug)]
pub struct Browser {
    /// For what is not wrapped here.
    pub driver: WebDriver,
    // Dropped in this order: chromedriver first, so that it leaves the profile alone.
    chromedriver: Process,
    _profile: TempDir,
}

/// Starts chromedriver; returns its port too.
///
/// It takes a free port of IPv6, then the same one of IPv4, and ends where somebody else has that. So it has more than
/// one try.
fn start_chromedriver() -> Result<(Process, u16)> {
    let mut tries = 0;
    loop {
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").stderr(Stdio::null());
        let started = Process::start(&mut command, |line| {
            let port = line.split("started successfully on port ").nth(1)?;
            port.trim().trim_end_matches('.').parse().ok()
        });
        tries += 1;
        match started {
            Err(error) if tries < 5 && error.to_string().contains("port not available") => {}
            _ => return started,
        }
    }
}

impl Browser {
    /// Starts chromedriver and Chromium, in a window of 1200 by 900.
    ///
    /// # Errors
    /// If one of them is not there or does not start.
    pub async fn start(arguments: &[&str]) -> Result<Browser> {
        let profile = tempfile::tempdir()?;
        let (chromedriver, port) = start_chromedriver()
            .context("expected chromedriver on PATH (Debian: apt-get install chromium chromium-driver)")?;
        let mut wanted = DesiredCapabilities::chrome();
        for argument in ARGUMENTS.iter().chain(arguments) {
            wanted.add_arg(argument)?;
        }
        wanted.add_arg(&format!("--user-data-dir={}", profile.path().display()))?;
        wanted.add_arg("--window-size=1200,900")?;
        wanted.set("goog:loggingPrefs", json!({"browser": "ALL"}))?;
        // Nothing here speaks TLS, but a client of `reqwest`, as the workspace builds it, asks for its arithmetic.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let driver = WebDriver::new(format!("http://127.0.0.1:{port}"), wanted).await?;
        driver.set_script_timeout(Duration::from_secs(60)).await?;
        Ok(Browser { driver, chromedriver, _profile: profile })
    }

    /// The id of chromedriver's process, whose descendants are the browser's.
    pub fn id(&self) -> u32 {
        self.chromedriver.id()
    }

    /// Ends the session, and with it Chromium.
    pub async fn close(&self) {
        // What is left ends with chromedriver.
        let _ = self.driver.clone().quit().await;
    }

    /// A command of Chromium's own protocol, to the page.
    ///
    /// # Errors
    /// What Chromium says.
    pub async fn cdp(&self, method: &str, parameters: Value) -> Result<Value> {
        self.driver.cdp().send_raw(method, parameters).await.with_context(|| format!("{method} failed"))
    }

    /// Runs a function body in the page; what it returns, or the promise that it returns becomes.
    ///
    /// # Errors
    /// If it throws.
    pub async fn script(&self, body: &str, arguments: Vec<Value>) -> Result<Value> {
        let script = format!(
            "const done = arguments[arguments.length - 1];
             (async (...args) => {{ {body} }})(...Array.from(arguments).slice(0, -1)).then(
                 (value) => done({{ value: value ?? null }}),
                 (error) => done({{ error: String(error?.stack ?? error) }}));"
        );
        let mut answer = self.driver.execute_async(script, arguments).await?.json().clone();
        if let Some(error) = answer["error"].as_str() {
            anyhow::bail!("the script threw {error}");
        }
        Ok(answer["value"].take())
    }

    /// Ends the workers of the page, each from within: its thread stops and its memory is gone, and neither the page's
    /// script nor its `Worker` object is told. How many there were.
    ///
    /// Chromium offers no rougher end for a worker alone: `Target.closeTarget` answers that the target does not support
    /// it, `Runtime.terminateExecution` ends what runs but not the worker, and a worker that runs out of memory takes the
    /// page's process with it.
    ///
    /// # Errors
    /// If Chromium does not answer.
    pub async fn end_workers(&self) -> Result<usize> {
        let workers = self.workers().await?;
        self.tell_workers("Runtime.evaluate", json!({"expression": "close()"})).await?;
        let left = || async {
            let now = self.workers().await?;
            Ok(!workers.iter().any(|worker| now.contains(worker)))
        };
        wait_for(PATIENCE, "the workers to be gone", left).await?;
        Ok(workers.len())
    }

    /// Makes every dedicated worker of the page end `delay` after the next message it gets: in the midst of a job that
    /// takes longer, however fast the machine is.
    ///
    /// # Errors
    /// If Chromium does not answer.
    pub async fn end_workers_at_work(&self, delay: Duration) -> Result<()> {
        let end = format!("addEventListener('message', () => setTimeout(close, {}))", delay.as_millis());
        self.tell_workers("Runtime.evaluate", json!({"expression": end})).await
    }

    /// Makes every dedicated worker of the page busy for `time` between its jobs' steps, as on a slow machine.
    ///
    /// # Errors
    /// If Chromium does not answer.
    pub async fn slow_workers(&self, time: Duration) -> Result<()> {
        let wait =
            format!("const end = performance.now() + {}; while (performance.now() < end);", time.as_millis());
        let expression = format!("setInterval(() => {{ {wait} }})");
        self.tell_workers("Runtime.evaluate", json!({"expression": expression})).await
    }

    /// Frees what nobody holds any more, in the page and in its workers: these collect by themselves only when much has
    /// come together.
    ///
    /// # Errors
    /// If Chromium does not answer.
    pub async fn collect_garbage(&self) -> Result<()> {
        for _ in 0..3 {
            self.cdp("HeapProfiler.collectGarbage", json!({})).await?;
            self.tell_workers("HeapProfiler.collectGarbage", json!({})).await?;
        }
        // The workers' answers cannot be waited for.
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(())
    }

    /// Sends a command of Chromium's own protocol to every dedicated worker, without its answer.
    async fn tell_workers(&self, method: &str, parameters: Value) -> Result<()> {
        for worker in self.workers().await? {
            let attached =
                self.cdp("Target.attachToTarget", json!({"targetId": worker, "flatten": false})).await?;
            let message = json!({"id": 1, "method": method, "params": parameters}).to_string();
            let sending = json!({"sessionId": attached["sessionId"], "message": message});
            self.cdp("Target.sendMessageToTarget", sending).await?;
        }
        Ok(())
    }

    /// The dedicated workers that there are, by Chromium's own names for them.
    ///
    /// # Errors
    /// If Chromium does not answer.
    pub async fn workers(&self) -> Result<Vec<String>> {
        let targets = self.cdp("Target.getTargets", json!({"filter": [{"type": "worker"}]})).await?;
        let ids = targets["targetInfos"].as_array().into_iter().flatten();
        Ok(ids.filter_map(|target| target["targetId"].as_str()).map(str::to_string).collect())
    }

    /// Has downloads land in this folder.
    ///
    /// # Errors
    /// If Chromium refuses.
    pub async fn download_to(&self, folder: &Path) -> Result<()> {
        let behavior = json!({"behavior": "allow", "downloadPath": folder});
        self.cdp("Browser.setDownloadBehavior", behavior).await.map(drop)
    }

    /// Drops files or folders of this machine onto the page, as from a file manager.
    ///
    /// # Errors
    /// If Chromium refuses.
    pub async fn drop_files(&self, paths: &[PathBuf]) -> Result<()> {
        let data = json!({"items": [], "files": paths, "dragOperationsMask": 1});
        for kind in ["dragEnter", "dragOver", "drop"] {
            let event = json!({"type": kind, "x": 300, "y": 300, "data": data});
            self.cdp("Input.dispatchDragEvent", event).await?;
        }
        Ok(())
    }

    /// What the page's console said since the last call: errors, warnings and more.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub async fn console(&self) -> Result<Vec<String>> {
        let entries = serde_json::to_value(&self.driver.get_log("browser").await?)?;
        let entries = entries.as_array().cloned().unwrap_or_default();
        Ok(entries.iter().map(|entry| format!("{} {}", entry["level"], entry["message"])).collect())
    }

    /// Prints where the browser is and what the console said, for whoever reads a failed test.
    pub async fn describe(&self) {
        let url = self.driver.current_url().await.map(String::from).unwrap_or_default();
        println!("the browser is at {url}");
        for line in self.console().await.unwrap_or_default() {
            println!("console: {line}");
        }
        if let Ok(Value::String(text)) = self.script("return document.body.innerText", vec![]).await {
            println!("the page says:\n{text}");
        }
        if let Some(folder) = std::env::var_os("INKLING_E2E_FAILURES") {
            let name = std::thread::current().name().unwrap_or("spec").replace("::", "-");
            let file = std::path::Path::new(&folder).join(format!("{name}.png"));
            if self.driver.screenshot(&file).await.is_ok() {
                println!("a screenshot is at {}", file.display());
            }
        }
    }
}
