//! A visitor comes back without a network.

use inkling_e2e::spec;

use crate::{run, until_ready};

/// Resolves when the service worker has everything and answers for this page.
const KEPT: &str = "
    await navigator.serviceWorker.ready;
    while (!navigator.serviceWorker.controller) await new Promise((next) => setTimeout(next, 20));
    return (await caches.keys()).filter((name) => name.startsWith('inkling-page-')).length";

#[test]
fn after_the_first_visit_the_page_works_without_a_network() {
    spec(async |home| {
        let page = home.visit().await?;
        until_ready(&page).await?;
        assert_eq!(home.browser.script(KEPT, vec![]).await?, 1);
        home.server.stop();
        home.browser.driver.refresh().await?;
        page.wait("the page", async || page.has("button", "Run").await).await?;
        let cards = run(&page, "Nobody is here, so").await?;
        assert!(cards.iter().all(|card| card.state == "done" && card.score.is_some()), "{cards:?}");
        Ok(())
    });
}
