//! A visitor takes models from a hub, and something goes wrong on the way.

use std::time::Duration;

use anyhow::Result;
use inkling_e2e::{
    Home,
    hub::{Asked, Fault, Hub},
    page::Page,
    server::inkling,
    spec,
};
use tempfile::TempDir;

use crate::{assert_same, models, node_state, rows_of, run, set_seed, until_ready};

/// Chooses these repositories at a hub and starts to load them.
pub(crate) async fn choose(page: &Page<'_>, hub: &Hub, repos: &[(&str, &str)]) -> Result<()> {
    look_up(page, hub, repos).await?;
    page.click("button", "Download and use").await
}

/// Chooses these repositories at a hub and has their sizes looked up.
pub(crate) async fn look_up(page: &Page<'_>, hub: &Hub, repos: &[(&str, &str)]) -> Result<()> {
    if !page.has("textbox", "Hub").await? {
        page.click("button", "Models").await?;
    }
    page.fill("textbox", "Hub", &hub.endpoint()).await?;
    for (node, repo) in repos {
        page.fill("textbox", node, repo).await?;
        if repo.is_empty() {
            // Emptied as a visitor does: WebDriver's own way leaves the page without an event.
            page.find("textbox", node).await?.send_keys(" \u{e003}").await?;
        }
    }
    page.click("button", "Look up sizes").await
}

/// A hub with small models, and the folder that it has them from; the page at rest.
pub(crate) async fn hub_and_page(home: &Home) -> Result<(Hub, TempDir, Page<'_>)> {
    let (hub, folder) = (Hub::start()?, models::models());
    for model in ["gpt2", "distilgpt2", "critic"] {
        hub.add(&format!("small/{model}"), &folder.path().join(model))?;
    }
    let page = home.visit().await?;
    until_ready(&page).await?;
    Ok((hub, folder, page))
}

pub(crate) const WRITER_ONLY: [(&str, &str); 3] = [("gpt2", "small/gpt2"), ("distilgpt2", ""), ("bert", "")];

/// The ranges that weights were asked for by, since the last look.
pub(crate) fn asked_for_weights(hub: &Hub) -> Vec<Option<String>> {
    let asked = hub.asked().into_iter().filter(|Asked { name, .. }| name == "model.safetensors");
    asked.map(|asked| asked.range).collect()
}

/// The byte from which on a request asked for the weights, if it did so by range.
fn begins_at(range: &Option<String>) -> Option<usize> {
    range.as_deref()?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}

/// The text that the writer of this folder has for seed 7.
fn expected(folder: &TempDir) -> Result<String> {
    let models = folder.path().display().to_string();
    let rows = inkling(&["run", "I have an idea!", "--models", &models, "--seed", "7", "--json"])?;
    Ok(rows_of(&rows)?.swap_remove(0).0)
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn models_of_a_hub_run_after_their_size_was_shown() {
    spec(async |home| {
        let (hub, folder, page) = hub_and_page(home).await?;
        let all = [("gpt2", "small/gpt2"), ("distilgpt2", "small/distilgpt2"), ("bert", "small/critic")];
        look_up(&page, &hub, &all).await?;
        page.find("button", "Download and use").await?;
        page.says("to download in all").await?;
        assert_eq!(asked_for_weights(&hub), [], "nothing comes before the visitor says so");
        page.click("button", "Download and use").await?;
        until_ready(&page).await?;
        set_seed(&page, 7).await?;
        page.click("button", "Reset settings").await?;
        set_seed(&page, 7).await?;
        let cards = run(&page, "I have an idea!").await?;
        let models = folder.path().display().to_string();
        let rows = inkling(&["run", "I have an idea!", "--models", &models, "--seed", "7", "--json"])?;
        for (card, row) in cards.iter().zip(rows_of(&rows)?) {
            assert_same(card, &row);
        }
        // The second visit finds them here.
        hub.asked();
        home.browser.driver.refresh().await?;
        page.wait("the page", async || page.has("button", "Models").await).await?;
        look_up(&page, &hub, &all).await?;
        page.find("button", "Use them").await?;
        page.click("button", "Use them").await?;
        until_ready(&page).await?;
        assert_eq!(asked_for_weights(&hub), []);
        Ok(())
    });
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn a_broken_download_goes_on_where_it_broke() {
    spec(async |home| {
        let (hub, folder, page) = hub_and_page(home).await?;
        // Broken for good first, so that the visitor sees it.
        hub.fail("model.safetensors", Fault::Cut(30_000), 1);
        hub.fail("model.safetensors", Fault::Gone, 20);
        choose(&page, &hub, &WRITER_ONLY).await?;
        page.wait("the failure", async || Ok(node_state(&page, "gpt2").await? == "failed")).await?;
        let ranges: Vec<_> = asked_for_weights(&hub).iter().map(begins_at).collect();
        assert_eq!(ranges[0], None);
        assert!(ranges.len() > 1 && ranges[1..].iter().all(|from| *from == Some(30_000)), "{ranges:?}");

        hub.forgive();
        page.click("button", "Try gpt2 again").await?;
        until_ready(&page).await?;
        let ranges: Vec<_> = asked_for_weights(&hub).iter().map(begins_at).collect();
        assert_eq!(ranges, [Some(30_000)], "not one byte comes twice");
        set_seed(&page, 7).await?;
        let cards = run(&page, "I have an idea!").await?;
        assert_eq!(cards[0].text, expected(&folder)?, "{cards:?}");
        Ok(())
    });
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn a_download_goes_on_after_a_reload() {
    spec(async |home| {
        let (hub, folder, page) = hub_and_page(home).await?;
        hub.fail("model.safetensors", Fault::Slow(100), 1);
        choose(&page, &hub, &WRITER_ONLY).await?;
        page.wait("the weights to be asked for", async || Ok(asked_for_weights(&hub) == [None])).await?;
        // A third of the file.
        tokio::time::sleep(Duration::from_millis(1700)).await;
        home.browser.driver.refresh().await?;
        let mut sent = 0;
        page.wait("the browser to hang up", async || {
            sent += hub.hung_up().iter().map(|reader| reader.sent).sum::<usize>();
            Ok(sent > 0)
        })
        .await?;
        page.wait("the page", async || page.has("button", "Models").await).await?;
        choose(&page, &hub, &WRITER_ONLY).await?;
        until_ready(&page).await?;
        let ranges: Vec<_> = asked_for_weights(&hub).iter().map(begins_at).collect();
        let [Some(from)] = ranges[..] else { panic!("expected one request by range, got {ranges:?}") };
        println!("of {sent} bytes that were sent before the reload, {from} were kept");
        assert!(from > sent / 2 && from <= sent, "{sent} bytes were sent, but it went on at {from}");
        set_seed(&page, 7).await?;
        let cards = run(&page, "I have an idea!").await?;
        assert_eq!(cards[0].text, expected(&folder)?, "{cards:?}");
        Ok(())
    });
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn one_break_is_mended_without_a_word() {
    spec(async |home| {
        let (hub, _folder, page) = hub_and_page(home).await?;
        hub.fail("model.safetensors", Fault::Cut(20_000), 1);
        choose(&page, &hub, &WRITER_ONLY).await?;
        until_ready(&page).await?;
        let ranges = asked_for_weights(&hub);
        assert_eq!(ranges[0], None);
        assert!(
            ranges.len() > 1 && ranges[1..].iter().all(|range| begins_at(range) == Some(20_000)),
            "{ranges:?}"
        );
        Ok(())
    });
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn damaged_weights_are_refused_and_come_anew() {
    spec(async |home| {
        let (hub, _folder, page) = hub_and_page(home).await?;
        hub.fail("model.safetensors", Fault::Damage, 5);
        choose(&page, &hub, &WRITER_ONLY).await?;
        page.wait("the failure", async || Ok(node_state(&page, "gpt2").await? == "failed")).await?;
        let detail = detail(&page, "gpt2").await?;
        assert!(detail.contains("model.safetensors") && detail.ends_with('.'), "{detail}");
        hub.forgive();
        hub.asked();
        page.click("button", "Try gpt2 again").await?;
        until_ready(&page).await?;
        assert_eq!(asked_for_weights(&hub), [None], "nothing of the damaged file is kept");
        Ok(())
    });
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn a_file_that_vanished_is_named() {
    spec(async |home| {
        let (hub, _folder, page) = hub_and_page(home).await?;
        hub.fail("model.safetensors", Fault::Gone, usize::MAX);
        choose(&page, &hub, &WRITER_ONLY).await?;
        page.wait("the failure", async || Ok(node_state(&page, "gpt2").await? == "failed")).await?;
        let detail = detail(&page, "gpt2").await?;
        assert!(detail.contains("model.safetensors"), "{detail}");
        // The other writer goes on.
        let cards = run(&page, "I have an idea!").await?;
        assert_eq!((cards[0].state.as_str(), cards[1].state.as_str()), ("failed", "done"), "{cards:?}");
        Ok(())
    });
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn small_files_are_asked_for_at_once() {
    spec(async |home| {
        const OTHERS: [&str; 2] = ["tokenizer_config.json", "model.safetensors"];
        let (hub, _folder, page) = hub_and_page(home).await?;
        // The tokenizer is read first. Its answer waits for the others' requests, which on their way through a
        // redirection might else be overtaken by the failure.
        hub.fail("tokenizer.json", Fault::GoneAfter(&OTHERS), usize::MAX);
        choose(&page, &hub, &WRITER_ONLY).await?;
        page.wait("the failure", async || Ok(node_state(&page, "gpt2").await? == "failed")).await?;
        let asked: Vec<String> = hub.asked().into_iter().map(|asked| asked.name).collect();
        for name in OTHERS {
            assert!(asked.iter().any(|asked| asked == name), "{name} is not among {asked:?}");
        }
        Ok(())
    });
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn a_hub_that_is_not_there_is_named() {
    spec(async |home| {
        let (hub, _folder, page) = hub_and_page(home).await?;
        look_up(&page, &hub, &[("gpt2", "small/nothing"), ("distilgpt2", ""), ("bert", "")]).await?;
        page.says("small/nothing").await?;
        drop(hub);
        page.click("button", "Look up sizes").await?;
        page.says("could not be reached").await?;
        Ok(())
    });
}

/// What the graph's drawing says beside a node.
pub(crate) async fn detail(page: &Page<'_>, node: &str) -> Result<String> {
    let script = "return document.querySelector(`li[data-node=\"${args[0]}\"] .detail`)?.textContent";
    let detail = page.browser.script(script, vec![node.into()]).await?;
    Ok(detail.as_str().unwrap_or_default().trim().to_string())
}
