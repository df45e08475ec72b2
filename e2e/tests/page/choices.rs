//! What a visitor chose is there at the next visit, or the page says what became of it.

use anyhow::Result;
use inkling_e2e::{Home, page::Page, spec};

use crate::{downloads, files, models, notice, outcome, run, set_seed, until_ready};

pub(crate) async fn reload(home: &Home, page: &Page<'_>) -> Result<()> {
    home.browser.driver.refresh().await?;
    page.wait("the page", async || page.has("button", "Models").await).await
}

/// What the seed's field holds.
async fn seed(page: &Page<'_>) -> Result<String> {
    if !page.has("textbox", "Seed").await? {
        page.click("button", "Settings").await?;
    }
    page.find("textbox", "Seed").await?;
    let value = page.browser.script("return document.getElementById('setting-seed').value", vec![]).await?;
    Ok(value.as_str().unwrap_or_default().to_owned())
}

/// Opens the models' panel where it is not open.
pub(crate) async fn open_models(page: &Page<'_>) -> Result<()> {
    if !page.has("button", "Look up sizes").await? {
        page.click("button", "Models").await?;
        page.find("button", "Look up sizes").await?;
    }
    Ok(())
}

/// What the models' panel says of a node's model.
async fn model_of(page: &Page<'_>, node: &str) -> Result<String> {
    open_models(page).await?;
    let script = "
        const rows = Array.from(document.querySelectorAll('#models tbody tr'));
        return rows.find((row) => row.cells[0].textContent === args[0])?.cells[1].textContent";
    let model = page.browser.script(script, vec![node.into()]).await?;
    Ok(model.as_str().unwrap_or_default().to_owned())
}

async fn delete_all_models(page: &Page<'_>) -> Result<()> {
    page.click("button", "storage").await?;
    page.click("button", "Delete all models").await?;
    page.says("All models are deleted.").await
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn settings_last_and_a_link_leaves_them_as_they_are() {
    spec(async |home| {
        let page = home.visit().await?;
        set_seed(&page, 7).await?;
        let texts = run(&page, "The old captain smiled, because").await?;
        page.click("button", "Share this exact run").await?;
        page.wait("the link", async || Ok(home.browser.driver.current_url().await?.fragment().is_some()))
            .await?;
        let link = home.browser.driver.current_url().await?;
        set_seed(&page, 8).await?;

        // The same visitor opens the link: it shows its own run, and is not what they chose.
        home.browser.driver.goto("about:blank").await?;
        let page = Page::open(&home.browser, link.as_str()).await?;
        assert_eq!(outcome(&page).await?, texts);
        page.says("The text is the same as the link's, letter for letter.").await?;
        home.browser.driver.goto("about:blank").await?;
        let page = home.visit().await?;
        assert_eq!(seed(&page).await?, "8");
        Ok(())
    });
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn rubbish_in_what_was_kept_harms_nothing() {
    spec(async |home| {
        let page = home.visit().await?;
        set_seed(&page, 7).await?;
        let rubbish = "
            for (const name of ['models', 'parameters', 'server', 'graph']) localStorage['inkling.choices.1.' + name] = '{[';
            localStorage['inkling.history.1'] = '3'";
        home.browser.script(rubbish, vec![]).await?;
        reload(home, &page).await?;
        until_ready(&page).await?;
        assert_eq!(seed(&page).await?, "7", "one that is broken does not lose the others");
        let cards = run(&page, "I have an idea!").await?;
        assert!(cards.iter().all(|card| card.state == "done"), "{cards:?}");
        Ok(())
    });
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn models_of_a_hub_come_back_and_are_asked_for_once_they_are_gone() {
    spec(async |home| {
        let (hub, _folder, page) = downloads::hub_and_page(home).await?;
        let weights = || downloads::asked_for_weights(&hub).len();
        downloads::choose(&page, &hub, &downloads::WRITER_ONLY).await?;
        until_ready(&page).await?;
        assert!(weights() > 0);
        reload(home, &page).await?;
        until_ready(&page).await?;
        assert!(model_of(&page, "gpt2").await?.starts_with("small/gpt2"), "{}", page.text().await?);
        assert_eq!(weights(), 0, "it was here");

        delete_all_models(&page).await?;
        reload(home, &page).await?;
        page.says("to download in all.").await?;
        until_ready(&page).await?;
        assert_eq!(model_of(&page, "gpt2").await?, "demo model");
        assert_eq!(weights(), 0, "nothing comes before the visitor says so");
        page.click("button", "Get them again").await?;
        until_ready(&page).await?;
        assert!(weights() > 0);
        Ok(())
    });
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn own_files_are_kept_at_8_bits_until_they_are_deleted() {
    spec(async |home| {
        let page = home.visit().await?;
        until_ready(&page).await?;
        page.click("button", "Models").await?;
        page.find("button", "Look up sizes").await?;
        let folder = models::models();
        files::give(&page, "own-folder", &[folder.path().join("gpt2")]).await?;
        page.wait("the folder to be taken", async || Ok(notice(&page).await?.contains("is gpt2 now.")))
            .await?;
        until_ready(&page).await?;
        set_seed(&page, 7).await?;
        let texts = run(&page, "I have an idea!").await?;

        reload(home, &page).await?;
        until_ready(&page).await?;
        assert_eq!(model_of(&page, "gpt2").await?, "gpt2 (local)");
        assert_eq!(run(&page, "I have an idea!").await?, texts);

        delete_all_models(&page).await?;
        reload(home, &page).await?;
        page.says("a page cannot open your files by itself: choose them again.").await?;
        until_ready(&page).await?;
        page.click("button", "Stay with the demo models").await?;
        reload(home, &page).await?;
        until_ready(&page).await?;
        assert_eq!(notice(&page).await?, "");
        Ok(())
    });
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn a_full_text_goes_on_and_a_long_sentence_is_given_room() {
    spec(async |home| {
        let page = home.visit().await?;
        until_ready(&page).await?;
        set_seed(&page, 7).await?;
        let long = "The lamp would not stay lit, and the fog had eaten every sound. ".repeat(9);
        let refused = run(&page, &long).await?;
        assert!(refused.iter().all(|card| card.state == "failed"), "{refused:?}");
        page.says("no room is left to write in").await?;
        page.click("button", "Raise the length to").await?;
        let written = outcome(&page).await?;
        assert!(
            written.iter().all(|card| card.state == "done" && card.text.len() > long.len()),
            "{written:?}"
        );

        // A text that fills its length goes on where it ended.
        page.click("button", "Reset settings").await?;
        set_seed(&page, 7).await?;
        let full = run(&page, "I have an idea!").await?;
        page.click("button", "Continue").await?;
        let on = outcome(&page).await?;
        assert!(on.iter().all(|card| card.state == "done" && card.text.starts_with(&full[0].text)), "{on:?}");
        page.says("so that there is room to go on.").await?;
        Ok(())
    });
}
