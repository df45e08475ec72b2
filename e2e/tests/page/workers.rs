//! A model's worker ends from outside, as when the system is short of memory.

use std::time::Duration;

use anyhow::Result;
use inkling_e2e::{page::Page, spec};

use crate::{assert_same, notice, outcome, rows_of, run, set_seed, until_ready};

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn a_worker_that_ends_is_replaced() {
    spec(async |home| {
        let page = home.visit().await?;
        until_ready(&page).await?;
        run(&page, "I have an idea!").await?;
        let before = home.browser.workers().await?;
        assert_eq!(home.browser.end_workers().await?, 3, "a worker for each model");
        page.wait("a word about it", async || Ok(notice(&page).await?.contains("ended and was replaced")))
            .await?;
        let said = notice(&page).await?;
        assert!(said.ends_with('.') && said.matches(". ").count() <= 1, "{said}");
        page.wait("new workers", async || Ok(home.browser.workers().await?.len() == 3)).await?;
        let now = home.browser.workers().await?;
        assert!(!now.iter().any(|worker| before.contains(worker)), "{before:?}, then {now:?}");
        until_settled(&page).await?;
        set_seed(&page, 7).await?;
        let cards = run(&page, "I have an idea!").await?;
        let rows = inkling_e2e::server::inkling(&["run", "I have an idea!", "--seed", "7", "--json"])?;
        for (card, row) in cards.iter().zip(rows_of(&rows)?) {
            assert_same(card, &row);
        }
        Ok(())
    });
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn a_worker_that_ends_in_a_run_fails_its_text_with_a_sentence() {
    spec(async |home| {
        let page = home.visit().await?;
        until_ready(&page).await?;
        page.click("button", "Settings").await?;
        page.find("slider", "Length").await?.send_keys("\u{e010}").await?;
        page.find("slider", "Continuations").await?.send_keys("\u{e010}").await?;
        home.browser.end_workers_at_work(Duration::from_millis(300)).await?;
        page.click("button", "Run").await?;
        let cards = outcome(&page).await?;
        assert!(cards.iter().any(|card| card.state == "failed"), "{cards:?}");
        page.says("The model's worker ended: it was ended from outside.").await?;
        until_settled(&page).await?;
        page.click("button", "Reset settings").await?;
        page.click("button", "Run").await?;
        page.wait("all texts", async || {
            Ok(outcome(&page).await?.iter().all(|card| card.state == "done" && card.score.is_some()))
        })
        .await?;
        Ok(())
    });
}

/// A graph's workers begin to start before it is known how many it needs.
#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn a_graph_has_a_worker_for_each_node_and_no_more() {
    spec(async |home| {
        let page = home.visit().await?;
        until_ready(&page).await?;
        let others = home.browser.workers().await?.len();
        let open = "const { Graph } = await import('/engine/inkling.js');
            globalThis.graph?.close();
            globalThis.graph = Graph.open({ graph: args[0] });
            if (args[1]) await graph.opened;
            else graph.close();";
        let node = |n| {
            format!(
                "[[nodes]]\nname = \"n{n}\"\ntask = \"generate\"\ninputs = [\"sentence\"]\nmodel = \"writer\"\n"
            )
        };
        for (nodes, stays, expected) in [(1, true, 1), (4, true, 4), (2, false, 0)] {
            let toml: String = (0..nodes).map(node).collect();
            home.browser.script(open, vec![toml.into(), stays.into()]).await?;
            page.wait(&format!("{expected} workers"), async || {
                Ok(home.browser.workers().await?.len() == others + expected)
            })
            .await?;
        }
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
