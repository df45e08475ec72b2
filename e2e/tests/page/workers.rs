//! A model's worker ends from outside, as when the system is short of memory.

use anyhow::Result;
use inkling_e2e::{Home, page::Page, spec};
use serde_json::json;

use crate::{outcome, run, until_ready};

/// Keeps every worker that the page starts where the spec can reach it; the page cannot tell.
async fn visit(home: &Home) -> Result<Page<'_>> {
    let keep = "
        window.startedWorkers = [];
        const Original = window.Worker;
        window.Worker = class extends Original {
            constructor(...args) { super(...args); window.startedWorkers.push(this); }
        };";
    home.browser.cdp("Page.addScriptToEvaluateOnNewDocument", json!({"source": keep})).await?;
    let page = home.visit().await?;
    until_ready(&page).await?;
    Ok(page)
}

/// Ends all of them.
async fn kill(home: &Home) -> Result<()> {
    let script = "
        const all = window.startedWorkers.splice(0);
        all.forEach((worker) => Worker.prototype.terminate.call(worker));
        return all.length";
    let killed = home.browser.script(script, vec![]).await?;
    assert_eq!(killed, 3, "a worker for each model");
    Ok(())
}

#[test]
fn a_worker_that_ends_is_replaced() {
    spec(async |home| {
        let page = visit(home).await?;
        run(&page, "I have an idea!").await?;
        kill(home).await?;
        let replaced = "return window.startedWorkers.length";
        page.wait("new workers", async || Ok(home.browser.script(replaced, vec![]).await? == 3)).await?;
        until_settled(&page).await?;
        let cards = run(&page, "I have an idea!").await?;
        assert!(cards.iter().all(|card| card.state == "done" && card.score.is_some()), "{cards:?}");
        Ok(())
    });
}

#[test]
fn a_worker_that_ends_in_a_run_fails_its_text_with_a_sentence() {
    spec(async |home| {
        let page = visit(home).await?;
        page.click("button", "Settings").await?;
        page.find("slider", "Length").await?.send_keys("\u{e010}").await?;
        page.find("slider", "Continuations").await?.send_keys("\u{e010}").await?;
        page.click("button", "Run").await?;
        page.wait("a text", async || {
            Ok(crate::cards(&page).await?.iter().any(|card| card.state == "writing"))
        })
        .await?;
        kill(home).await?;
        let cards = outcome(&page).await?;
        assert!(cards.iter().any(|card| card.state == "failed"), "{cards:?}");
        page.says("worker ended").await?;
        until_settled(&page).await?;
        page.click("button", "Reset settings").await?;
        page.click("button", "Run").await?;
        page.wait("all texts", async || Ok(outcome(&page).await?.iter().all(|card| card.state == "done")))
            .await?;
        Ok(())
    });
}

/// Waits until the engine's models are there again, whatever the last run's state on the page is.
async fn until_settled(page: &Page<'_>) -> Result<()> {
    page.wait("the workers to be ready", async || {
        let states =
            "return Array.from(document.querySelectorAll('li[data-node]'), (node) => node.dataset.state)";
        let states = page.browser.script(states, vec![]).await?.to_string();
        Ok(!states.contains("loading") && !states.contains("writing"))
    })
    .await
}
