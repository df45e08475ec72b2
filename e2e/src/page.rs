//! The page as a visitor has it: things are found by what they are and what they are called, as a screen reader finds
//! them.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use thirtyfour::{By, WebElement};

use crate::{PATIENCE, browser::Browser};

/// A page in a browser.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// Where it is open.
    pub browser: &'a Browser,
    /// How long it may take for what is waited for.
    pub patience: Duration,
}

/// A node of the accessibility tree.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its role: `button`, `textbox`.
    pub role: String,
    /// Its accessible name.
    pub name: String,
    /// Whether it is marked as disabled.
    pub disabled: bool,
    backend: Value,
}

impl<'a> Page<'a> {
    /// Opens an address, and waits until the page has something to type into.
    ///
    /// # Errors
    /// If it does not come.
    pub async fn open(browser: &'a Browser, url: &str) -> Result<Page<'a>> {
        browser.driver.goto(url).await?;
        let page = Page { browser, patience: PATIENCE };
        page.wait("the sentence box", async || Ok(!page.nodes("textbox").await?.is_empty())).await?;
        Ok(page)
    }

    /// All that have this role, in the order of the page.
    ///
    /// # Errors
    /// If Chromium does not answer.
    pub async fn nodes(&self, role: &str) -> Result<Vec<Node>> {
        let root = self.browser.cdp("DOM.getDocument", json!({"depth": 0})).await?;
        let query = json!({"backendNodeId": root["root"]["backendNodeId"], "role": role});
        let found = self.browser.cdp("Accessibility.queryAXTree", query).await?;
        let nodes = found["nodes"].as_array().into_iter().flatten();
        let nodes = nodes.filter(|node| node["ignored"] != true).map(|node| {
            let properties = node["properties"].as_array().into_iter().flatten();
            let mut disabled = properties.filter(|property| property["name"] == "disabled");
            Node {
                role: role.into(),
                name: node["name"]["value"].as_str().unwrap_or_default().trim().into(),
                disabled: disabled.next_back().is_some_and(|property| property["value"]["value"] == true),
                backend: node["backendDOMNodeId"].clone(),
            }
        });
        Ok(nodes.collect())
    }

    /// The first that has this role, and a name that begins like this; waits for it.
    ///
    /// # Errors
    /// If there is none in time; the names that there are instead are listed.
    pub async fn find(&self, role: &str, name: &str) -> Result<WebElement> {
        let mut found = None;
        let looked = self
            .wait(&format!("a {role} named `{name}`"), async || {
                found = self.nodes(role).await?.into_iter().find(|node| node.name.starts_with(name));
                Ok(found.is_some())
            })
            .await;
        if looked.is_err() {
            let names: Vec<String> = self.nodes(role).await?.into_iter().map(|node| node.name).collect();
            bail!("expected a {role} named `{name}`; there are: {names:?}");
        }
        let found = found.context("found above")?;
        self.element(&found).await
    }

    /// Whether there is one now.
    ///
    /// # Errors
    /// If Chromium does not answer.
    pub async fn has(&self, role: &str, name: &str) -> Result<bool> {
        Ok(self.nodes(role).await?.iter().any(|node| node.name.starts_with(name) && !node.disabled))
    }

    /// Clicks the first that has this role and name.
    ///
    /// # Errors
    /// If there is none, or it cannot be clicked.
    pub async fn click(&self, role: &str, name: &str) -> Result<()> {
        // The page may replace an element between the look and the click.
        for _ in 0..3 {
            let element = self.find(role, name).await?;
            match element.click().await {
                Ok(()) => return Ok(()),
                Err(error) => println!("clicking {role} `{name}`: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bail!("the {role} `{name}` cannot be clicked")
    }

    /// Types a text into the field of this name, in place of what is there.
    ///
    /// # Errors
    /// If there is no such field.
    pub async fn fill(&self, role: &str, name: &str, text: &str) -> Result<()> {
        let field = self.find(role, name).await?;
        field.clear().await?;
        field.send_keys(text).await?;
        Ok(())
    }

    /// The element of a node.
    ///
    /// # Errors
    /// If it is gone.
    pub async fn element(&self, node: &Node) -> Result<WebElement> {
        static MARKS: AtomicUsize = AtomicUsize::new(0);
        let mark = format!("e2e-{}", MARKS.fetch_add(1, Ordering::Relaxed));
        let object = self.browser.cdp("DOM.resolveNode", json!({"backendNodeId": node.backend})).await?;
        let call = json!({
            "objectId": object["object"]["objectId"],
            "functionDeclaration": "function(mark) { this.setAttribute('data-e2e', mark) }",
            "arguments": [{"value": mark}],
        });
        self.browser.cdp("Runtime.callFunctionOn", call).await?;
        Ok(self.browser.driver.find(By::Css(format!("[data-e2e={mark}]"))).await?)
    }

    /// All that the page shows as text.
    ///
    /// # Errors
    /// If the page is gone.
    pub async fn text(&self) -> Result<String> {
        let text = self.browser.script("return document.body.innerText", vec![]).await?;
        Ok(text.as_str().unwrap_or_default().to_string())
    }

    /// Waits until the page says this somewhere.
    ///
    /// # Errors
    /// If it does not in time.
    pub async fn says(&self, text: &str) -> Result<()> {
        self.wait(&format!("the page to say `{text}`"), async || Ok(self.text().await?.contains(text))).await
    }

    /// Waits until something holds.
    ///
    /// # Errors
    /// If it does not in time, or cannot be asked.
    pub async fn wait(&self, what: &str, holds: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
        wait_for(self.patience, what, holds).await
    }
}

/// Waits until something holds.
///
/// # Errors
/// If it does not in time; the last failure to ask is the reason then.
pub async fn wait_for(
    time: Duration,
    what: &str,
    mut holds: impl AsyncFnMut() -> Result<bool>,
) -> Result<()> {
    let began = Instant::now();
    loop {
        let answer = holds().await;
        if matches!(answer, Ok(true)) {
            return Ok(());
        }
        if began.elapsed() > time {
            return match answer {
                Err(error) => Err(error.context(format!("waited {} s for {what}", time.as_secs()))),
                _ => bail!("waited {} s for {what}", time.as_secs()),
            };
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}
