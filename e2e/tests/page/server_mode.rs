//! A visitor has a server do the work.

use anyhow::Result;
use inkling_e2e::{
    Home,
    page::Page,
    server::{Server, inkling},
    spec,
};

use crate::{Card, assert_same, cards, notice, outcome, rows_of, run, set_seed, until_ready};

/// Has a server do the work from now on.
pub(crate) async fn choose(page: &Page<'_>, url: &str) -> Result<()> {
    if !page.has("textbox", "Server").await? {
        page.click("button", "Models").await?;
    }
    page.fill("textbox", "Server", url).await?;
    page.click("button", "Use this server").await
}

/// Starts another server that lets the page in, and has it do the work.
async fn start_and_choose(home: &Home, page: &Page<'_>) -> Result<Server> {
    let other = Server::start(&["--allow-origin", home.server.origin()])?;
    choose(page, other.origin()).await?;
    page.says(&format!("Runs go to {} now.", other.origin())).await?;
    Ok(other)
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn a_server_answers_with_the_same_text() {
    spec(async |home| {
        let page = home.visit().await?;
        let _other = start_and_choose(home, &page).await?;
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
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn a_server_that_goes_away_is_told_and_the_page_goes_on_by_itself() {
    spec(async |home| {
        let page = home.visit().await?;
        until_ready(&page).await?;
        let other = start_and_choose(home, &page).await?;
        run(&page, "I have an idea!").await?;
        other.stop();
        page.click("button", "Run").await?;
        let gone = format!("No answer from {}. ", other.origin());
        page.wait("a word about the server", async || Ok(notice(&page).await?.starts_with(&gone))).await?;
        page.click("button", "Run in this page").await?;
        until_ready(&page).await?;
        let cards = run(&page, "I have an idea!").await?;
        assert!(cards.iter().all(|card| card.state == "done"), "{cards:?}");
        Ok(())
    });
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn a_server_that_goes_away_in_a_run_leaves_the_text_so_far() {
    spec(async |home| {
        let page = home.visit().await?;
        until_ready(&page).await?;
        page.click("button", "Settings").await?;
        page.find("slider", "Length").await?.send_keys("\u{e010}").await?;
        page.find("slider", "Continuations").await?.send_keys("\u{e010}").await?;
        let is_writing = |card: &Card| card.state == "writing" && card.text.len() > 30;
        // A fast server may have written all texts before it is stopped.
        for _ in 0..10 {
            let other = start_and_choose(home, &page).await?;
            page.click("button", "Run").await?;
            page.wait("a text", async || {
                let now = cards(&page).await?;
                Ok(now.iter().any(is_writing) || now.iter().all(|card| card.state == "done"))
            })
            .await?;
            other.stop();
            let found = outcome(&page).await?;
            if found.iter().any(|card| card.state == "failed" && card.text.len() > 30) {
                let broke = format!("The connection to {} broke. The text so far is kept.", other.origin());
                page.wait("a word about it", async || Ok(notice(&page).await? == broke)).await?;
                return Ok(());
            }
        }
        panic!("ten servers, and none went away in a run");
    });
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn a_server_that_lets_no_other_page_in_is_told_from_one_that_is_gone() {
    spec(async |home| {
        let other = Server::start(&[])?;
        let page = home.visit().await?;
        choose(&page, other.origin()).await?;
        page.says("--allow-origin").await?;
        Ok(())
    });
}
