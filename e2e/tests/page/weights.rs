//! A visitor has weights kept at 4 bits, and gets the texts of `--dtype q4`.

use anyhow::Result;
use inkling_e2e::{page::Page, server::inkling, spec};
use serde_json::Value;

use crate::{
    Card, assert_same, choices, downloads, files, links, models, notice, outcome, rows_of, run, server_mode,
    set_seed, shown_answer, until_ready,
};

const EIGHT: &str = "8 bits";
const FOUR: &str = "4 bits";

/// Opens the panel of models, and chooses.
async fn choose(page: &Page<'_>, bits: &str) -> Result<()> {
    choices::open_models(page).await?;
    page.click("radio", bits).await
}

/// Which precision is marked as the chosen one.
async fn chosen(page: &Page<'_>) -> Result<String> {
    choices::open_models(page).await?;
    let script = "return document.querySelector('input[name=dtype]:checked').closest('label').textContent.trim().slice(0, 6)";
    Ok(page.browser.script(script, vec![]).await?.as_str().unwrap_or_default().to_owned())
}

async fn until_said(page: &Page<'_>, text: &str) -> Result<()> {
    page.wait(&format!("the notice `{text}`"), async || Ok(notice(page).await?.contains(text))).await
}

/// What `inkling run` writes with a seed and these arguments.
fn written(arguments: &[&str]) -> Result<Vec<(String, f64)>> {
    rows_of(&inkling(&[&["run", "I have an idea!", "--seed", "7", "--json"], arguments].concat())?)
}

#[track_caller]
fn assert_all_same(cards: &[Card], rows: &[(String, f64)]) {
    assert_eq!(cards.len(), rows.len(), "{cards:?}");
    for (card, row) in cards.iter().zip(rows) {
        assert_same(card, row);
    }
}

/// What the storage panel lists.
async fn stored(page: &Page<'_>) -> Result<Vec<String>> {
    let script = "return Array.from(document.querySelectorAll('#storage li[data-stored]'), (it) => it.firstChild.textContent)";
    Ok(serde_json::from_value(page.browser.script(script, vec![]).await?)?)
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn four_bits_write_what_the_command_line_writes_at_four_bits() {
    spec(async |home| {
        let (four, eight) = (written(&["--dtype", "q4"])?, written(&[])?);
        assert!(
            four.iter().zip(&eight).all(|(four, eight)| four.0 != eight.0),
            "the precision tells: {four:?}"
        );
        let page = home.visit().await?;
        until_ready(&page).await?;
        choose(&page, FOUR).await?;
        until_said(&page, "4 bits").await?;
        until_ready(&page).await?;
        set_seed(&page, 7).await?;
        assert_all_same(&run(&page, "I have an idea!").await?, &four);
        page.click("button", "What happened").await?;
        page.says("Weights at 4 bits.").await?;
        assert_eq!(shown_answer(home, &page).await?["dtype"], "q4");

        // It is there at the next visit, and what was run then is told apart from what is run now.
        choices::reload(home, &page).await?;
        until_ready(&page).await?;
        assert_eq!(chosen(&page).await?, FOUR);
        assert_all_same(&run(&page, "I have an idea!").await?, &four);
        choose(&page, EIGHT).await?;
        until_said(&page, "8 bits").await?;
        assert_all_same(&run(&page, "I have an idea!").await?, &eight);
        page.click("button", "History").await?;
        let told = "return Array.from(document.querySelectorAll('#history li .hint'), (it) => it.textContent.includes('4 bits'))";
        let told: Value = home.browser.script(told, vec![]).await?;
        assert_eq!(told, serde_json::json!([false, true, true]));
        Ok(())
    });
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn a_link_of_four_bits_gives_another_visitor_the_same_text() {
    spec(async |home| {
        let page = home.visit().await?;
        until_ready(&page).await?;
        choose(&page, FOUR).await?;
        until_ready(&page).await?;
        let mine = run(&page, "The old captain smiled, because").await?;
        let link = links::share(&page).await?;
        let theirs =
            links::open_elsewhere(&link, "The text is the same as the link's, letter for letter.").await?;
        assert_eq!(theirs, mine);

        // A visitor who chose 8 bits opens it, and still has 8 bits without it.
        choose(&page, EIGHT).await?;
        until_said(&page, "8 bits").await?;
        home.browser.driver.goto("about:blank").await?;
        let page = Page::open(&home.browser, &link).await?;
        assert_eq!(outcome(&page).await?, mine);
        assert_eq!(chosen(&page).await?, FOUR, "what runs now");
        home.browser.driver.goto("about:blank").await?;
        let page = home.visit().await?;
        until_ready(&page).await?;
        assert_eq!(chosen(&page).await?, EIGHT);
        Ok(())
    });
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn a_model_of_a_hub_comes_again_only_if_the_visitor_agrees_and_is_kept_at_both() {
    spec(async |home| {
        let (hub, folder, page) = downloads::hub_and_page(home).await?;
        let weights = || downloads::asked_for_weights(&hub).len();
        downloads::choose(&page, &hub, &downloads::WRITER_ONLY).await?;
        until_ready(&page).await?;
        assert_eq!(weights(), 1);
        set_seed(&page, 7).await?;
        let eight = run(&page, "I have an idea!").await?;

        choose(&page, FOUR).await?;
        page.says("does not keep small/gpt2").await?;
        page.click("button", "Stay as it is").await?;
        page.wait("8 bits again", async || Ok(chosen(&page).await? == EIGHT)).await?;
        choose(&page, FOUR).await?;
        assert_eq!(weights(), 0, "nothing comes before the visitor says so");
        page.click("button", "Get them").await?;
        until_said(&page, "4 bits").await?;
        let four = run(&page, "I have an idea!").await?;
        assert_eq!((chosen(&page).await?, weights()), (FOUR.into(), 1));
        let at = folder.path().display().to_string();
        let rows = written(&["--models", &at, "--dtype", "q4"])?;
        // The critics are others: only the writer's part can be the same.
        assert_eq!(four[0].text, rows[0].0);
        assert_ne!(four[0].text, eight[0].text);

        // Both are kept, each under its name: from now on nothing comes.
        page.click("button", "storage").await?;
        let both = |names: Vec<String>| {
            names.len() == 2 && [EIGHT, FOUR].iter().all(|bits| names.iter().any(|name| name.ends_with(bits)))
        };
        page.wait("two copies in the list", async || Ok(both(stored(&page).await?))).await?;
        choose(&page, EIGHT).await?;
        until_said(&page, "8 bits").await?;
        assert_eq!(run(&page, "I have an idea!").await?, eight);
        choices::reload(home, &page).await?;
        choose(&page, FOUR).await?;
        until_said(&page, "4 bits").await?;
        until_ready(&page).await?;
        assert_eq!(run(&page, "I have an idea!").await?, four);
        assert_eq!(weights(), 0, "both were here");
        Ok(())
    });
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn own_files_are_packed_again_while_they_are_at_hand() {
    spec(async |home| {
        let folder = models::models();
        let page = home.visit().await?;
        choices::open_models(&page).await?;
        until_ready(&page).await?;
        files::give(&page, "own-folder", &[folder.path().into()]).await?;
        until_said(&page, "critic is bert now.").await?;
        until_ready(&page).await?;
        choose(&page, FOUR).await?;
        until_said(&page, "at 4 bits now").await?;
        until_ready(&page).await?;
        set_seed(&page, 7).await?;
        let at = folder.path().display().to_string();
        let four = run(&page, "I have an idea!").await?;
        assert_all_same(&four, &written(&["--models", &at, "--dtype", "q4"])?);

        // Another visit has no files, but what is kept of them.
        choices::reload(home, &page).await?;
        until_ready(&page).await?;
        assert_eq!(run(&page, "I have an idea!").await?, four);
        page.click("button", "storage").await?;
        page.click("button", "Delete gpt2, 8 bits").await?;
        page.says("gpt2, 8 bits is deleted.").await?;
        choose(&page, EIGHT).await?;
        until_said(&page, "keeps gpt2 at 4 bits only").await?;
        page.wait("4 bits again", async || Ok(chosen(&page).await? == FOUR)).await?;
        assert_eq!(run(&page, "I have an idea!").await?, four, "what ran before goes on");
        Ok(())
    });
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn a_server_decides_by_itself() {
    spec(async |home| {
        let page = home.visit().await?;
        until_ready(&page).await?;
        choose(&page, FOUR).await?;
        server_mode::choose(&page, home.server.origin()).await?;
        page.says("The server decides how it keeps them.").await?;
        assert!(!page.has("radio", EIGHT).await? && !page.has("radio", FOUR).await?);
        set_seed(&page, 7).await?;
        assert_all_same(&run(&page, "I have an idea!").await?, &written(&[])?);
        assert_eq!(shown_answer(home, &page).await?.get("dtype"), None);
        page.click("button", "Run in this page").await?;
        until_ready(&page).await?;
        assert_all_same(&run(&page, "I have an idea!").await?, &written(&["--dtype", "q4"])?);
        Ok(())
    });
}
