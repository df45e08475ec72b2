//! A visitor comes back without a network.

use anyhow::Result;
use inkling_e2e::{Home, page::Page, server::inkling, spec};
use serde_json::json;

use crate::{assert_same, rows_of, run, set_seed, until_ready};

/// Resolves when the service worker has everything and answers for this page.
const KEPT: &str = "
    await navigator.serviceWorker.ready;
    while (!navigator.serviceWorker.controller) await new Promise((next) => setTimeout(next, 20));
    return (await caches.keys()).filter((name) => name.startsWith('inkling-page-')).length";

/// Builds of the engine that the service worker keeps.
const KEPT_BUILDS: &str = "
    const [name] = (await caches.keys()).filter((name) => name.startsWith('inkling-page-'));
    return (await (await caches.open(name)).keys()).filter(({ url }) => url.endsWith('.wasm') && url.includes('/engine/')).length";

/// The page as a browser kept it that did not know relaxed SIMD yet.
const KEEP_THE_OTHER_BUILD: &str = "
    const [name] = (await caches.keys()).filter((name) => name.startsWith('inkling-page-'));
    const cache = await caches.open(name);
    await cache.put('engine/inkling_web.simd128.wasm', await fetch('engine/inkling_web.simd128.wasm'));
    return await cache.delete('engine/inkling_web.relaxed.wasm')";

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn after_the_first_visit_the_page_works_without_a_network() {
    spec(async |home| {
        let page = home.visit().await?;
        until_ready(&page).await?;
        assert_eq!(home.browser.script(KEPT, vec![]).await?, 1);
        assert_eq!(home.browser.script(KEPT_BUILDS, vec![]).await?, 1, "the build for this browser alone");
        page.wait("what is kept to be counted", async || Ok(!page.text().await?.contains("storage 0 B")))
            .await?;
        works_without_a_network(home, &page).await
    });
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn a_browser_that_has_learnt_more_since_works_without_a_network() {
    spec(async |home| {
        let page = home.visit().await?;
        until_ready(&page).await?;
        assert_eq!(home.browser.script(KEPT, vec![]).await?, 1);
        assert_eq!(home.browser.script(KEEP_THE_OTHER_BUILD, vec![]).await?, true);
        works_without_a_network(home, &page).await
    });
}

async fn works_without_a_network(home: &Home, page: &Page<'_>) -> Result<()> {
    home.server.stop();
    // Nothing but the service worker may answer; the browser's own cache would hide that it does not.
    home.browser.cdp("Network.clearBrowserCache", json!({})).await?;
    home.browser.driver.refresh().await?;
    page.wait("the page", async || page.has("button", "Run").await).await?;
    until_ready(page).await?;
    set_seed(page, 7).await?;
    let cards = run(page, "Nobody is here, so").await?;
    let rows = inkling(&["run", "Nobody is here, so", "--seed", "7", "--json"])?;
    for (card, row) in cards.iter().zip(rows_of(&rows)?) {
        assert_same(card, &row);
    }
    Ok(())
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn the_page_says_that_it_is_offline() {
    spec(async |home| {
        let page = home.visit().await?;
        until_ready(&page).await?;
        assert!(!page.text().await?.contains("offline"));
        let network = |offline: bool| json!({"offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1});
        home.browser.cdp("Network.enable", json!({})).await?;
        home.browser.cdp("Network.emulateNetworkConditions", network(true)).await?;
        page.says("· offline").await?;
        let cards = run(&page, "I have an idea!").await?;
        assert!(cards.iter().all(|card| card.state == "done" && card.score.is_some()), "{cards:?}");
        home.browser.cdp("Network.emulateNetworkConditions", network(false)).await?;
        page.wait("the word to go", async || Ok(!page.text().await?.contains("offline"))).await?;
        Ok(())
    });
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn the_page_can_be_installed() {
    spec(async |home| {
        let page = home.visit().await?;
        until_ready(&page).await?;
        let manifest = home.browser.cdp("Page.getAppManifest", json!({})).await?;
        assert_eq!(manifest["errors"], json!([]));
        assert!(
            manifest["url"].as_str().is_some_and(|url| url.ends_with("/manifest.webmanifest")),
            "{manifest}"
        );
        let faults = home.browser.cdp("Page.getInstallabilityErrors", json!({})).await?;
        assert_eq!(faults["installabilityErrors"], json!([]));
        Ok(())
    });
}
