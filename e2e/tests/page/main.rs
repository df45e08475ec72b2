//! The page in a real browser: one spec a visitor's act, things found by what they are and what they are called.
//!
//! `cargo xtask test --only e2e` builds what these need and runs them. `cargo test` reports them as ignored; asked to run
//! them all the same, it needs these variables. By environment:
//!
//! - `INKLING_BIN`: the program `inkling` with the page in it (set by xtask);
//! - `INKLING_AXE`: axe-core's script, for the accessibility specs (set by xtask);
//! - `INKLING_E2E_RUNS`: runs in a row for the memory spec, instead of 30;
//! - `INKLING_E2E_SCREENSHOTS`: a folder to keep the screenshots of the README in;
//! - `INKLING_E2E_FAILURES`: a folder for a screenshot of each failed spec;
//! - `INKLING_CHECKPOINTS`: a folder `OWNER/NAME/...` with full-size GPT-2, DistilGPT-2 and BERT, for the spec of local
//!   folders, in place of small ones.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up should stop where it stands")]

mod accessible;
mod choices;
mod downloads;
mod files;
mod history;
mod keyboard;
mod links;
mod memory;
#[path = "../../../server-native/tests/support/mod.rs"]
mod models;
mod offline;
mod privacy;
mod run;
mod same_text;
mod screenshots;
mod server_mode;
mod states;
mod stop;
mod storage;
mod tabs;
mod weights;
mod workers;

use anyhow::{Context, Result, bail};
use inkling_e2e::{Home, page::Page};
use serde_json::Value;

const SENTENCE: &str = "A sentence to continue";

/// What a card shows.
#[derive(Clone, Debug, PartialEq)]
struct Card {
    node: String,
    state: String,
    text: String,
    label: Option<String>,
    score: Option<f64>,
    is_winner: bool,
}

/// The cards as they are now.
async fn cards(page: &Page<'_>) -> Result<Vec<Card>> {
    let script = "return Array.from(document.querySelectorAll('article[data-node]'), (card) => {
        const score = card.querySelector('.score');
        return {
            node: card.dataset.node, state: card.dataset.state,
            text: card.querySelector('[data-text]').textContent,
            label: score?.dataset.label ?? null,
            score: card.querySelector('[data-score]')?.dataset.score ?? score?.dataset.score ?? null,
            winner: card.classList.contains('winner'),
        };
    })";
    let found = page.browser.script(script, vec![]).await?;
    let text = |card: &Value, key: &str| card[key].as_str().map(str::to_string);
    let cards = found.as_array().context("the script gives a list")?.iter().map(|card| Card {
        node: text(card, "node").unwrap_or_default(),
        state: text(card, "state").unwrap_or_default(),
        text: text(card, "text").unwrap_or_default(),
        label: text(card, "label"),
        score: text(card, "score").and_then(|score| score.parse().ok()),
        is_winner: card["winner"] == true,
    });
    Ok(cards.collect())
}

/// Waits until a run that was started has ended, and gives its cards.
async fn outcome(page: &Page<'_>) -> Result<Vec<Card>> {
    let ended = ["done", "stopped", "failed"];
    let mut found = Vec::new();
    page.wait("the run to end", async || {
        // Stop can be pressed as long as a run goes on.
        let is_over = !page.has("button", "Stop").await?;
        found = cards(page).await?;
        Ok(is_over && !found.is_empty() && found.iter().all(|card| ended.contains(&card.state.as_str())))
    })
    .await?;
    Ok(found)
}

/// Types a sentence, runs it and waits for the end.
async fn run(page: &Page<'_>, sentence: &str) -> Result<Vec<Card>> {
    page.fill("textbox", SENTENCE, sentence).await?;
    page.click("button", "Run").await?;
    outcome(page).await
}

/// Keeps a seed in the settings, and makes texts short.
async fn set_seed(page: &Page<'_>, seed: u64) -> Result<()> {
    if !page.has("textbox", "Seed").await? {
        page.click("button", "Settings").await?;
    }
    page.fill("textbox", "Seed", &seed.to_string()).await?;
    // The field is read when it is left.
    page.find("textbox", SENTENCE).await?.click().await?;
    Ok(())
}

/// What the graph's drawing says of a node: `idle`, `writing`.
async fn node_state(page: &Page<'_>, node: &str) -> Result<String> {
    let script = "return document.querySelector(`li[data-node=\"${args[0]}\"]`)?.dataset.state";
    let state = page.browser.script(script, vec![node.into()]).await?;
    Ok(state.as_str().unwrap_or_default().to_string())
}

/// Waits until every model is there.
async fn until_ready(page: &Page<'_>) -> Result<()> {
    page.wait("the models", async || {
        for node in ["gpt2", "distilgpt2", "bert"] {
            let state = node_state(page, node).await?;
            if state == "failed" {
                bail!("{node} failed");
            }
            if state != "idle" {
                return Ok(false);
            }
        }
        Ok(true)
    })
    .await
}

/// The answer of the run on the page, as its export has it.
async fn shown_answer(home: &Home, page: &Page<'_>) -> Result<Value> {
    let folder = tempfile::tempdir()?;
    home.browser.download_to(folder.path()).await?;
    page.click("button", "Export JSON").await?;
    let mut answer = None;
    page.wait("the export", async || {
        // Under another name until it is whole.
        let done = std::fs::read_dir(folder.path())?.filter_map(|entry| Some(entry.ok()?.path()));
        let file = done.into_iter().find(|path| path.extension().is_some_and(|end| end == "json"));
        answer = file.and_then(|file| serde_json::from_str(&std::fs::read_to_string(file).ok()?).ok());
        Ok(answer.is_some())
    })
    .await?;
    answer.context("waited for above")
}

/// The line that tells the visitor what happened.
async fn notice(page: &Page<'_>) -> Result<String> {
    let script = "return document.querySelector('[data-notice]')?.textContent ?? ''";
    Ok(page.browser.script(script, vec![]).await?.as_str().unwrap_or_default().to_string())
}

/// The rows that `inkling run` answers for a sentence and a seed: text and score of each.
fn rows_of(answer: &Value) -> Result<Vec<(String, f64)>> {
    let rows = answer.as_array().context("expected rows")?.iter().map(|row| {
        Ok((
            row["generated"].as_str().context("a text")?.to_string(),
            row["score"].as_f64().context("a score")?,
        ))
    });
    rows.collect()
}

/// Holds a page's text and score against a row: the page shows scores rounded.
#[track_caller]
fn assert_same(card: &Card, row: &(String, f64)) {
    assert_eq!(card.text, row.0, "{}", card.node);
    let score = card.score.expect("the critic scored it");
    assert!((score - row.1).abs() < 0.006, "{}: the page says {score}, inkling {}", card.node, row.1);
}
