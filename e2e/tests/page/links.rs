//! A visitor shares a run, and another one opens the link.

use anyhow::Result;
use inkling_e2e::{browser::Browser, page::Page, spec};

use crate::{notice, outcome, run};

#[test]
fn a_link_gives_another_visitor_the_same_text() {
    spec(async |home| {
        let page = home.visit().await?;
        let mine = run(&page, "The old captain smiled, because").await?;
        page.click("button", "Share this exact run").await?;
        page.wait("the link", async || Ok(home.browser.driver.current_url().await?.fragment().is_some()))
            .await?;
        let link = home.browser.driver.current_url().await?;
        assert!(notice(&page).await?.contains("link"), "{}", notice(&page).await?);

        let other = Browser::start(&[]).await?;
        let outcome: Result<_> = async {
            let page = Page::open(&other, link.as_str()).await?;
            let theirs = outcome(&page).await?;
            page.says("The text is the same as the link's, letter for letter.").await?;
            Ok(theirs)
        }
        .await;
        if outcome.is_err() {
            other.describe().await;
        }
        other.close().await;
        assert_eq!(outcome?, mine);
        Ok(())
    });
}

#[test]
fn a_damaged_link_says_so() {
    spec(async |home| {
        let page = Page::open(&home.browser, &home.server.url("/#run=1.abc.def")).await?;
        page.wait("a word about it", async || Ok(notice(&page).await?.contains("link"))).await?;
        Ok(())
    });
}
