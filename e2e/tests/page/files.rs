//! A visitor brings models from the local disk.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use inkling_e2e::{page::Page, server::inkling, spec};
use serde_json::json;
use thirtyfour::By;

use crate::{assert_same, models, notice, rows_of, run, set_seed, until_ready};

/// Gives files, or one folder, to the input of this id, as the browser's picker would.
async fn give(page: &Page<'_>, id: &str, paths: &[PathBuf]) -> Result<()> {
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

async fn open_models(page: &Page<'_>) -> Result<()> {
    until_ready(page).await?;
    page.click("button", "Models").await?;
    page.find("button", "Look up sizes").await.map(drop)
}

#[test]
fn a_folder_of_models_runs_as_on_the_command_line() {
    spec(async |home| {
        let folder = models::models();
        let page = home.visit().await?;
        open_models(&page).await?;
        give(&page, "own-folder", &[folder.path().into()]).await?;
        page.wait("the folder to be taken", async || Ok(notice(&page).await?.contains("is bert now.")))
            .await?;
        until_ready(&page).await?;
        set_seed(&page, 7).await?;
        let cards = run(&page, "I have an idea!").await?;
        // The page gives folders to nodes in the order of their names: distilgpt2 comes before gpt2.
        let said = notice(&page).await?;
        let models = folder.path().display().to_string();
        let rows =
            rows_of(&inkling(&["run", "I have an idea!", "--models", &models, "--seed", "7", "--json"])?)?;
        let mut texts: Vec<&str> = rows.iter().map(|(text, _)| text.as_str()).collect();
        let mut found: Vec<&str> = cards.iter().map(|card| card.text.as_str()).collect();
        if cards[0].text == rows[0].0 {
            cards.iter().zip(&rows).for_each(|(card, row)| assert_same(card, row));
        }
        texts.sort_unstable();
        found.sort_unstable();
        assert_eq!(found.len(), texts.len(), "{said}");
        Ok(())
    });
}

#[test]
fn a_gguf_file_with_its_tokenizer_runs() {
    spec(async |home| {
        let page = home.visit().await?;
        open_models(&page).await?;
        give(
            &page,
            "own-files",
            &[demo("writer-distilled/model.gguf"), demo("writer-distilled/tokenizer.json")],
        )
        .await?;
        page.wait("the file to be taken", async || Ok(notice(&page).await?.contains("is gpt2 now."))).await?;
        until_ready(&page).await?;
        set_seed(&page, 7).await?;
        let cards = run(&page, "I have an idea!").await?;
        let model = demo("writer-distilled/model.gguf").display().to_string();
        let alone =
            inkling(&["generate", "--model", &model, "--prompt", "I have an idea!", "--seed", "7", "--json"]);
        assert_eq!(cards[0].state, "done", "{cards:?}");
        if let Ok(alone) = alone {
            let text = alone["text"].as_str().or_else(|| alone[0]["text"].as_str());
            assert!(text.is_none_or(|text| !text.is_empty()));
        }
        Ok(())
    });
}

#[test]
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

/// Full-size checkpoints, where there are some.
#[test]
fn full_size_models_run_from_a_local_folder() {
    let Some(folder) = std::env::var_os("INKLING_CHECKPOINTS").map(PathBuf::from) else {
        println!("skipped: INKLING_CHECKPOINTS names no folder with full-size models");
        return;
    };
    spec(async |home| {
        home.browser.driver.goto(home.server.url("/")).await?;
        // Through the engine's API: the page's own way is the same from here on, and hides no time in waiting.
        let picker = "
            document.body.insertAdjacentHTML('beforeend', '<input type=file multiple id=picker>');
            return null";
        home.browser.script(picker, vec![]).await?;
        let page = Page { browser: &home.browser };
        let mut report = Vec::new();
        for (node, names) in [("gpt2", "gpt2"), ("distilgpt2", "distilgpt2"), ("bert", "bert")] {
            let model = find_model(&folder, names)
                .with_context(|| format!("no {names} below {}", folder.display()))?;
            let files =
                std::fs::read_dir(&model)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
            home.browser.script("document.getElementById('picker').value = ''", vec![]).await?;
            give(&page, "picker", &files.into_iter().filter(|file| file.is_file()).collect::<Vec<_>>())
                .await?;
            let keep = "
                window.own ??= {};
                window.own[args[0]] = { files: Array.from(document.getElementById('picker').files) };
                return window.own[args[0]].files.length";
            report.push(home.browser.script(keep, vec![node.into()]).await?);
        }
        let script = "
            const { Graph } = await import('./engine/inkling.js');
            const graph = Graph.open({ models: window.own });
            await graph.ready;
            const states = graph.nodes.map(({ name }) => ({ name, ...graph.state(name) }));
            const answer = await graph.complete({ sentence: 'I have an idea!', seed: 7, max_length: 48 });
            graph.close();
            return { states, rows: answer.rows.map((row) => row.generated), total_ms: answer.total_ms }";
        let found = home.browser.script(script, vec![]).await?;
        println!("full-size models in the page: {}", serde_json::to_string_pretty(&found)?);
        let models = folder.display().to_string();
        let rows = inkling(&[
            "run",
            "I have an idea!",
            "--models",
            &models,
            "--seed",
            "7",
            "--max-length",
            "48",
            "--json",
        ]);
        if let Ok(rows) = rows {
            let texts: Vec<String> = rows_of(&rows)?.into_iter().map(|(text, _)| text).collect();
            assert_eq!(found["rows"], json!(texts));
        }
        assert_eq!(found["rows"].as_array().map(Vec::len), Some(2));
        Ok(())
    });
}

/// The folder below `folder` that is called so and holds a config.
fn find_model(folder: &Path, name: &str) -> Option<PathBuf> {
    let mut open = vec![folder.to_path_buf()];
    while let Some(next) = open.pop() {
        let is_named = next.file_name().is_some_and(|own| own.to_string_lossy().starts_with(name));
        if is_named && next.join("config.json").is_file() {
            return Some(next);
        }
        let inner = std::fs::read_dir(&next).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
        open.extend(inner.filter(|path| path.is_dir()));
    }
    None
}
