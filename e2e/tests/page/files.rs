//! A visitor brings models from the local disk.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use inkling_e2e::{Home, page::Page, server::inkling, spec};
use tempfile::TempDir;
use thirtyfour::By;

use crate::{Card, assert_same, models, notice, rows_of, run, set_seed, shown_answer, until_ready};

/// Gives files, or one folder, to the input of this id, as the browser's picker would.
pub(crate) async fn give(page: &Page<'_>, id: &str, paths: &[PathBuf]) -> Result<()> {
    let input = page.browser.driver.find(By::Id(id)).await?;
    let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    input.send_keys(paths.join("\n")).await?;
    Ok(())
}

/// Where the demo models lie.
fn demo(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../models/demo")
        .join(path)
        .canonicalize()
        .expect("it is committed")
}

/// Runs with a seed and holds every text and score against `inkling run` with the models of `folder`.
async fn check_against_the_command_line(page: &Page<'_>, folder: &Path) -> Result<Vec<Card>> {
    set_seed(page, 7).await?;
    let cards = run(page, "I have an idea!").await?;
    let folder = folder.display().to_string();
    let answer = inkling(&["run", "I have an idea!", "--models", &folder, "--seed", "7", "--json"])?;
    let rows = rows_of(&answer)?;
    assert_eq!(cards.len(), rows.len(), "{cards:?}");
    for (card, row) in cards.iter().zip(&rows) {
        assert_eq!(card.state, "done", "{card:?}");
        assert_same(card, row);
    }
    Ok(cards)
}

async fn says(page: &Page<'_>, text: &str) -> Result<()> {
    page.wait(&format!("the notice `{text}`"), async || Ok(notice(page).await?.contains(text))).await
}

/// The models that the page has once a GGUF file was given to its first writer: that file, and the demo models.
fn with_gguf() -> Result<(TempDir, [PathBuf; 2])> {
    let folder = tempfile::tempdir()?;
    // The second writer's model in the first one's place, so that the text tells whether it is used.
    for (node, model) in
        [("gpt2", "writer-distilled"), ("distilgpt2", "writer-distilled"), ("critic", "critic")]
    {
        let to = folder.path().join(node);
        fs::create_dir(&to)?;
        for entry in fs::read_dir(demo(model))? {
            let path = entry?.path();
            fs::copy(&path, to.join(path.file_name().context("a file has a name")?))?;
        }
    }
    // What is given to the page: nothing but these.
    let own = folder.path().join("gpt2");
    for other in ["config.json", "generation_config.json", "tokenizer_config.json"] {
        fs::remove_file(own.join(other))?;
    }
    let files = [own.join("model.gguf"), own.join("tokenizer.json")];
    Ok((folder, files))
}

async fn open_models(page: &Page<'_>) -> Result<()> {
    until_ready(page).await?;
    page.click("button", "Models").await?;
    page.find("button", "Look up sizes").await.map(drop)
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn a_folder_of_models_runs_as_on_the_command_line() {
    spec(async |home| {
        let folder = models::models();
        let page = home.visit().await?;
        open_models(&page).await?;
        give(&page, "own-folder", &[folder.path().into()]).await?;
        for word in ["gpt2 is gpt2 now.", "distilgpt2 is distilgpt2 now.", "critic is bert now."] {
            says(&page, word).await?;
        }
        until_ready(&page).await?;
        check_against_the_command_line(&page, folder.path()).await?;
        Ok(())
    });
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn a_gguf_file_with_its_tokenizer_runs_as_on_the_command_line() {
    spec(async |home| {
        let (folder, files) = with_gguf()?;
        let page = home.visit().await?;
        open_models(&page).await?;
        give(&page, "own-files", &files).await?;
        says(&page, "model.gguf is gpt2 now.").await?;
        until_ready(&page).await?;
        let cards = check_against_the_command_line(&page, folder.path()).await?;
        let demo = rows_of(&inkling(&["run", "I have an idea!", "--seed", "7", "--json"])?)?;
        assert_ne!(cards[0].text, demo[0].0, "another model writes otherwise");
        Ok(())
    });
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn a_folder_that_is_dropped_on_the_page_runs_as_on_the_command_line() {
    spec(async |home| {
        let folder = models::models();
        let page = home.visit().await?;
        until_ready(&page).await?;
        home.browser.drop_files(&[folder.path().into()]).await?;
        says(&page, "critic is bert now.").await?;
        until_ready(&page).await?;
        check_against_the_command_line(&page, folder.path()).await?;
        Ok(())
    });
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn a_gguf_file_that_is_dropped_on_the_page_runs_as_on_the_command_line() {
    spec(async |home| {
        let (folder, files) = with_gguf()?;
        let page = home.visit().await?;
        until_ready(&page).await?;
        home.browser.drop_files(&files).await?;
        says(&page, "model.gguf is gpt2 now.").await?;
        until_ready(&page).await?;
        check_against_the_command_line(&page, folder.path()).await?;
        Ok(())
    });
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn files_that_are_no_model_are_refused_with_a_sentence() {
    spec(async |home| {
        let page = home.visit().await?;
        open_models(&page).await?;
        give(&page, "own-files", &[demo("writer/MODEL_CARD.md")]).await?;
        page.wait("a word about it", async || {
            Ok(notice(&page).await?.contains("No model is among these files"))
        })
        .await?;
        let cards = run(&page, "I have an idea!").await?;
        assert!(cards.iter().all(|card| card.state == "done"), "what ran before goes on: {cards:?}");
        Ok(())
    });
}

/// A folder laid out as the hub is, `OWNER/NAME`, with one model more than the graph takes: full-size where
/// `INKLING_CHECKPOINTS` names such a folder, small otherwise. Either goes through the page's own picker.
#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn models_laid_out_as_on_the_hub_run_from_a_local_folder() {
    let own = std::env::var_os("INKLING_CHECKPOINTS").map(PathBuf::from);
    spec(async |home| {
        let made = hub_folder()?;
        let folder = own.as_deref().unwrap_or(made.path());
        let page = home.visit().await?;
        let page = Page { patience: Duration::from_secs(if own.is_some() { 300 } else { 30 }), ..page };
        open_models(&page).await?;
        give(&page, "own-folder", &[folder.into()]).await?;
        says(&page, "gpt2 is gpt2 now.").await?;
        says(&page, "bert-base-uncased-SST-2 is bert now.").await?;
        says(&page, "bert-base-uncased is not used").await?;
        until_ready(&page).await?;
        check_against_the_command_line(&page, folder).await?;
        page.click("button", "What happened").await?;
        println!("{}", report(&page).await?);
        let answer = shown_answer(home, &page).await?;
        assert_eq!(answer["nodes"].as_array().map(Vec::len), Some(3), "{answer}");
        photograph(home, own.is_some()).await?;
        Ok(())
    });
}

/// Small models under the names that the full-size ones have on the hub.
fn hub_folder() -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    models::write_gpt2(&at("openai-community/gpt2"), 1);
    models::write_gpt2(&at("distilbert/distilgpt2"), 2);
    models::write_bert(&at("textattack/bert-base-uncased-SST-2"), 3);
    models::write_bert(&at("google-bert/bert-base-uncased"), 4);
    Ok(folder)
}

/// What the page says of the run and of each node, a line each.
async fn report(page: &Page<'_>) -> Result<String> {
    let script = "
        const panel = document.getElementById('happened');
        const rows = Array.from(panel.querySelectorAll('tr'), (row) =>
            Array.from(row.children, (cell) => cell.textContent).join(' | '));
        return [panel.querySelector('p').textContent, ...rows].join('\\n')";
    Ok(page.browser.script(script, vec![]).await?.as_str().unwrap_or_default().to_string())
}

/// A picture for whoever wants to look, where `INKLING_E2E_SCREENSHOTS` names a folder.
async fn photograph(home: &Home, is_full_size: bool) -> Result<()> {
    if let Some(folder) = std::env::var_os("INKLING_E2E_SCREENSHOTS").filter(|_| is_full_size) {
        fs::create_dir_all(&folder)?;
        home.browser.driver.screenshot(&Path::new(&folder).join("full-size.png")).await?;
    }
    Ok(())
}
