//! What a visitor is told when something is missing, each with a real cause.

use anyhow::Result;
use inkling_e2e::{
    hub::Fault,
    page::Page,
    server::{Server, inkling},
    spec, spec_with,
};
use serde_json::json;

use crate::{Card, assert_same, cards, downloads, notice, rows_of, run, server_mode, set_seed, until_ready};

/// Holds the cards of a run with seed 7 against the command line.
fn check(cards: &[Card]) -> Result<()> {
    let rows = rows_of(&inkling(&["run", "I have an idea!", "--seed", "7", "--json"])?)?;
    assert_eq!(cards.len(), rows.len(), "{cards:?}");
    for (card, row) in cards.iter().zip(&rows) {
        assert_same(card, row);
    }
    Ok(())
}

/// Without SSE4.1 Chromium has no SIMD in WebAssembly, as on a processor from before 2008.
#[cfg(target_arch = "x86_64")]
#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn without_simd_no_model_runs_here_and_a_server_s_do() {
    spec_with(&["--js-flags=--no-enable-sse4-1"], async |home| {
        let other = Server::start(&["--allow-origin", home.server.origin()])?;
        let page = home.visit().await?;
        page.says(
            "This browser has no WebAssembly SIMD, so no model runs in this page. A server can run them",
        )
        .await?;
        page.click("button", "Run").await?;
        page.wait("a word about the run", async || Ok(notice(&page).await?.contains("SIMD"))).await?;
        server_mode::choose(&page, other.origin()).await?;
        page.says(&format!("Runs go to {} now.", other.origin())).await?;
        set_seed(&page, 7).await?;
        check(&run(&page, "I have an idea!").await?)
    });
}

/// A page over plain http from another machine gets neither storage nor locks nor a service worker from the browser.
#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn over_plain_http_from_another_machine_the_page_keeps_nothing_and_runs() {
    spec_with(&["--host-resolver-rules=MAP inkling.test 127.0.0.1"], async |home| {
        let url = format!("http://inkling.test:{}/", home.server.port());
        let page = Page::open(&home.browser, &url).await?;
        assert_eq!(home.browser.script("return isSecureContext", vec![]).await?, false);
        page.says("This window keeps no models").await?;
        until_ready(&page).await?;
        set_seed(&page, 7).await?;
        check(&run(&page, "I have an idea!").await?)
    });
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn a_model_too_big_for_a_page_is_refused_before_it_is_downloaded() {
    spec(async |home| {
        let (hub, _folder, page) = downloads::hub_and_page(home).await?;
        // As large as GPT-3.
        let config = json!({
            "model_type": "gpt2", "vocab_size": 50257, "n_positions": 2048, "n_embd": 12288, "n_layer": 96, "n_head": 96,
        });
        hub.put("small/gpt2", "config.json", config.to_string().into());
        hub.announce("small/gpt2", "model.safetensors", 700_000_000_000);
        downloads::look_up(&page, &hub, &[("gpt2", "small/gpt2"), ("distilgpt2", ""), ("bert", "")]).await?;
        page.says("700 GB to download").await?;
        page.says("a page can give a model 3.5 GB at most. Run it on a server.").await?;
        let button = page.find("button", "Download and use").await?;
        assert!(!button.is_enabled().await?);
        assert_eq!(downloads::asked_for_weights(&hub), []);
        Ok(())
    });
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn without_the_critic_the_texts_are_kept() {
    spec(async |home| {
        let (hub, _folder, page) = downloads::hub_and_page(home).await?;
        hub.fail("model.safetensors", Fault::Gone, usize::MAX);
        downloads::choose(&page, &hub, &[("gpt2", ""), ("distilgpt2", ""), ("bert", "small/critic")]).await?;
        page.wait("the failure", async || Ok(crate::node_state(&page, "bert").await? == "failed")).await?;
        set_seed(&page, 7).await?;
        let cards = run(&page, "I have an idea!").await?;
        let rows = rows_of(&inkling(&["run", "I have an idea!", "--seed", "7", "--json"])?)?;
        for (card, (text, _)) in cards.iter().zip(rows) {
            assert_eq!((card.state.as_str(), &card.text, card.score), ("done", &text, None));
            assert!(!card.is_winner, "nobody ranked them");
        }
        page.says("No score from bert. ").await?;
        Ok(())
    });
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn without_one_writer_the_other_s_text_is_scored() {
    spec(async |home| {
        let (hub, _folder, page) = downloads::hub_and_page(home).await?;
        hub.fail("model.safetensors", Fault::Gone, usize::MAX);
        downloads::choose(&page, &hub, &[("gpt2", "small/gpt2"), ("distilgpt2", ""), ("bert", "")]).await?;
        page.wait("the failure", async || Ok(crate::node_state(&page, "gpt2").await? == "failed")).await?;
        set_seed(&page, 7).await?;
        let cards = run(&page, "I have an idea!").await?;
        let rows = rows_of(&inkling(&["run", "I have an idea!", "--seed", "7", "--json"])?)?;
        assert_eq!((cards[0].state.as_str(), cards[0].score), ("failed", None));
        assert_same(&cards[1], &rows[1]);
        let remark = "return document.querySelector('article[data-node=gpt2] .remark').textContent";
        let remark = home.browser.script(remark, vec![]).await?;
        assert!(
            remark.as_str().is_some_and(|text| text.contains("model.safetensors") && text.ends_with('.')),
            "{remark}"
        );
        Ok(())
    });
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn a_sentence_longer_than_the_models_read_is_answered_with_a_sentence() {
    spec(async |home| {
        let page = home.visit().await?;
        until_ready(&page).await?;
        let put = "
            const box = document.getElementById('sentence');
            box.value = 'The rain went on and on, and nobody minded. '.repeat(args[0]);
            box.dispatchEvent(new Event('input', { bubbles: true }));";
        home.browser.script(put, vec![400.into()]).await?;
        page.click("button", "Run").await?;
        crate::outcome(&page).await?;
        for card in cards(&page).await? {
            assert_eq!(card.state, "failed", "{card:?}");
        }
        let remarks =
            "return Array.from(document.querySelectorAll('article .remark'), (it) => it.textContent)";
        let remarks: Vec<String> = serde_json::from_value(home.browser.script(remarks, vec![]).await?)?;
        assert!(
            remarks.len() == 2 && remarks.iter().all(|text| text.ends_with('.') && text.contains("tokens")),
            "{remarks:?}"
        );
        // The page is well: a shorter one runs.
        let cards = run(&page, "I have an idea!").await?;
        assert!(cards.iter().all(|card| card.state == "done"), "{cards:?}");
        Ok(())
    });
}
