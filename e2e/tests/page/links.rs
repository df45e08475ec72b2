//! A visitor shares a run, and another one opens the link.

use anyhow::Result;
use inkling_e2e::{browser::Browser, page::Page, spec};

use crate::{Card, notice, outcome, run, until_ready};

/// Settings that are not the built-in ones, so that a link that forgets one gives other texts.
const OWN_SETTINGS: &str = "
    const set = (id, value) => {
        const slider = document.getElementById(id);
        slider.value = value;
        slider.dispatchEvent(new Event('input', { bubbles: true }));
    };
    set('setting-max_length', 40);
    set('setting-num_return_sequences', 2);
    set('setting-temperature', 1.3);
    set('setting-top_k', 20);";

/// Opens a link in a browser that was never here, and gives what its page shows at the end.
pub(crate) async fn open_elsewhere(link: &str, says: &str) -> Result<Vec<Card>> {
    let other = Browser::start(&[]).await?;
    let outcome = async {
        let page = Page::open(&other, link).await?;
        let theirs = outcome(&page).await?;
        page.says(says).await?;
        Ok(theirs)
    }
    .await;
    if outcome.is_err() {
        other.describe().await;
    }
    other.close().await;
    outcome
}

/// Shares the run on the page, and gives the link.
pub(crate) async fn share(page: &Page<'_>) -> Result<String> {
    page.click("button", "Share this exact run").await?;
    page.wait("the link", async || Ok(page.browser.driver.current_url().await?.fragment().is_some())).await?;
    page.wait("a word about it", async || Ok(notice(page).await?.contains("link"))).await?;
    Ok(page.browser.driver.current_url().await?.to_string())
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn a_link_gives_another_visitor_the_same_text() {
    spec(async |home| {
        let page = home.visit().await?;
        until_ready(&page).await?;
        page.click("button", "Settings").await?;
        home.browser.script(OWN_SETTINGS, vec![]).await?;
        let mine = run(&page, "The old captain smiled, because").await?;
        assert_eq!(mine.len(), 4);
        let link = share(&page).await?;
        let theirs = open_elsewhere(&link, "The text is the same as the link's, letter for letter.").await?;
        assert_eq!(theirs, mine);
        Ok(())
    });
}

/// As from a sender whose models were others: the link names texts that do not come out here.
#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn a_link_with_other_texts_is_told() {
    spec(async |home| {
        let page = home.visit().await?;
        run(&page, "The old captain smiled, because").await?;
        let link = share(&page).await?;
        let change = "
            const [head, version, payload] = args[0].match(/^(.*#run=)(1)\\.([^.]+)\\./).slice(1);
            const web = (bytes) => btoa(String.fromCharCode(...bytes)).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
            const read = (text) => Uint8Array.from(atob(text.replaceAll('-', '+').replaceAll('_', '/')), (c) => c.charCodeAt(0));
            const said = JSON.parse(new TextDecoder().decode(read(payload)));
            said.t[0] = said.t[1];
            const changed = web(new TextEncoder().encode(JSON.stringify(said)));
            const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(changed));
            return `${head}${version}.${changed}.${web(new Uint8Array(digest).slice(0, 6))}`";
        let changed = home.browser.script(change, vec![link.as_str().into()]).await?;
        let changed = changed.as_str().unwrap_or_default();
        open_elsewhere(changed, "1 of 2 texts are the same as the link's.").await?;
        Ok(())
    });
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn a_damaged_link_says_so() {
    spec(async |home| {
        let page = Page::open(&home.browser, &home.server.url("/#run=1.abc.def")).await?;
        page.wait("a word about it", async || Ok(notice(&page).await?.contains("link is damaged"))).await?;
        Ok(())
    });
}
