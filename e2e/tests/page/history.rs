//! A visitor looks at earlier runs, and erases them.

use anyhow::Result;
use inkling_e2e::{page::Page, spec};

use crate::{Card, cards, outcome, run, until_ready};

/// Sentences of the runs that the panel lists.
async fn listed(page: &Page<'_>) -> Result<Vec<String>> {
    let script = "return Array.from(document.querySelectorAll('#history li[data-run] .prompt'), (it) => it.textContent)";
    Ok(serde_json::from_value(page.browser.script(script, vec![]).await?)?)
}

async fn until_listed(page: &Page<'_>, expected: &[&str]) -> Result<()> {
    page.wait(&format!("the history to be {expected:?}"), async || Ok(listed(page).await? == expected)).await
}

/// What of a card an earlier run has too.
fn essence(cards: &[Card]) -> Vec<(String, String, Option<f64>, Option<String>)> {
    cards.iter().map(|card| (card.node.clone(), card.text.clone(), card.score, card.label.clone())).collect()
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn earlier_runs_are_shown_again_and_erased() {
    spec(async |home| {
        let page = home.visit().await?;
        until_ready(&page).await?;
        page.click("button", "History").await?;
        page.says("No runs yet.").await?;
        let first = run(&page, "The best thing about rain is").await?;
        run(&page, "This movie is").await?;
        until_listed(&page, &["This movie is", "The best thing about rain is"]).await?;

        // Kept beyond the visit.
        home.browser.driver.refresh().await?;
        page.wait("the page", async || page.has("button", "History").await).await?;
        until_ready(&page).await?;
        page.click("button", "History").await?;
        until_listed(&page, &["This movie is", "The best thing about rain is"]).await?;
        page.click("button", "Show: The best thing about rain is").await?;
        page.wait("the texts of that run", async || Ok(essence(&cards(&page).await?) == essence(&first)))
            .await?;
        // And it can be run again, to the same texts.
        page.click("button", "Run again: The best thing about rain is").await?;
        page.says("The text is the same as the link's, letter for letter.").await?;
        assert_eq!(essence(&outcome(&page).await?), essence(&first));
        until_listed(
            &page,
            &["The best thing about rain is", "This movie is", "The best thing about rain is"],
        )
        .await?;

        page.click("button", "Erase: This movie is").await?;
        until_listed(&page, &["The best thing about rain is", "The best thing about rain is"]).await?;
        page.click("button", "Erase the whole history").await?;
        page.says("No runs yet.").await?;
        home.browser.driver.refresh().await?;
        page.click("button", "History").await?;
        page.says("No runs yet.").await?;
        let kept = "return Object.entries(localStorage).map(String).join()";
        let kept = home.browser.script(kept, vec![]).await?.to_string();
        assert!(!kept.contains("rain") && !kept.contains("movie"), "{kept}");
        Ok(())
    });
}
