//! A visitor has a server do the work.

use anyhow::Result;
use inkling_e2e::{
    page::Page,
    server::{Server, inkling},
    spec,
};

use crate::{assert_same, notice, rows_of, run, set_seed, until_ready};

async fn choose(page: &Page<'_>, url: &str) -> Result<()> {
    if !page.has("textbox", "Server").await? {
        page.click("button", "Models").await?;
    }
    page.fill("textbox", "Server", url).await?;
    page.click("button", "Use this server").await
}

#[test]
fn a_server_answers_with_the_same_text() {
    spec(async |home| {
        let other = Server::start(&["--allow-origin", home.server.origin()])?;
        let page = home.visit().await?;
        choose(&page, other.origin()).await?;
        page.says(&format!("Runs go to {} now.", other.origin())).await?;
        set_seed(&page, 7).await?;
        let cards = run(&page, "I have an idea!").await?;
        let rows = inkling(&["run", "I have an idea!", "--seed", "7", "--json"])?;
        for (card, row) in cards.iter().zip(rows_of(&rows)?) {
            assert_same(card, &row);
        }
        Ok(())
    });
}

#[test]
fn a_server_that_goes_away_is_told_and_the_page_goes_on_by_itself() {
    spec(async |home| {
        let other = Server::start(&["--allow-origin", home.server.origin()])?;
        let page = home.visit().await?;
        until_ready(&page).await?;
        choose(&page, other.origin()).await?;
        page.says(&format!("Runs go to {} now.", other.origin())).await?;
        run(&page, "I have an idea!").await?;
        other.stop();
        page.click("button", "Run").await?;
        page.wait("a word about the server", async || {
            let text = page.text().await?;
            Ok(notice(&page).await?.contains(other.origin())
                || text.contains("could not be reached")
                || text.contains("does not answer"))
        })
        .await?;
        page.click("button", "Run in this page").await?;
        until_ready(&page).await?;
        let cards = run(&page, "I have an idea!").await?;
        assert!(cards.iter().all(|card| card.state == "done"), "{cards:?}");
        Ok(())
    });
}

#[test]
fn a_server_that_lets_no_other_page_in_is_told_from_one_that_is_gone() {
    spec(async |home| {
        let other = Server::start(&[])?;
        let page = home.visit().await?;
        choose(&page, other.origin()).await?;
        page.says("--allow-origin").await?;
        Ok(())
    });
}
