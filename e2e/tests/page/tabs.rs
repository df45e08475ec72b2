//! A visitor has the page open twice.

use inkling_e2e::{hub::Hub, page::Page, spec};

use crate::{assert_same, downloads, models, outcome, run, set_seed, until_ready};

const LONG: &str = "
    const set = (id, value) => {
        const slider = document.getElementById(id);
        slider.value = value;
        slider.dispatchEvent(new Event('input', { bubbles: true }));
    };
    set('setting-max_length', 512);
    set('setting-num_return_sequences', 4);";

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn two_tabs_run_at_the_same_time() {
    spec(async |home| {
        let page = home.visit().await?;
        until_ready(&page).await?;
        let first = home.browser.driver.window().await?;
        let second = home.browser.driver.new_tab().await?;
        home.browser.driver.switch_to_window(second.clone()).await?;
        let other = Page::open(&home.browser, &home.server.url("/")).await?;
        until_ready(&other).await?;
        // Both are under way before either has ended: theirs long, ours short.
        set_seed(&other, 7).await?;
        home.browser.script(LONG, vec![]).await?;
        other.click("button", "Run").await?;
        assert!(other.has("button", "Stop").await?, "a run is under way");
        home.browser.driver.switch_to_window(first).await?;
        set_seed(&page, 7).await?;
        let cards = run(&page, "I have an idea!").await?;
        let rows = inkling_e2e::server::inkling(&["run", "I have an idea!", "--seed", "7", "--json"])?;
        for (card, row) in cards.iter().zip(crate::rows_of(&rows)?) {
            assert_same(card, &row);
        }
        home.browser.driver.switch_to_window(second).await?;
        let cards = outcome(&other).await?;
        assert_eq!(cards.len(), 8);
        assert!(cards.iter().all(|card| card.state == "done" && card.score.is_some()), "{cards:?}");
        Ok(())
    });
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn a_second_tab_uses_what_the_first_has_kept() {
    spec(async |home| {
        let (hub, folder) = (Hub::start()?, models::models());
        hub.add("small/gpt2", &folder.path().join("gpt2"))?;
        let choice = [("gpt2", "small/gpt2"), ("distilgpt2", ""), ("bert", "")];
        let page = home.visit().await?;
        until_ready(&page).await?;
        downloads::choose(&page, &hub, &choice).await?;
        until_ready(&page).await?;
        set_seed(&page, 7).await?;
        let mine = run(&page, "I have an idea!").await?;
        hub.asked();

        let first = home.browser.driver.window().await?;
        let second = home.browser.driver.new_tab().await?;
        home.browser.driver.switch_to_window(second).await?;
        let other = Page::open(&home.browser, &home.server.url("/")).await?;
        until_ready(&other).await?;
        downloads::look_up(&other, &hub, &choice).await?;
        other.click("button", "Use them").await?;
        until_ready(&other).await?;
        set_seed(&other, 7).await?;
        assert_eq!(run(&other, "I have an idea!").await?, mine);
        let weights: Vec<_> =
            hub.asked().into_iter().filter(|asked| asked.name == "model.safetensors").collect();
        assert_eq!(weights, [], "they were here");
        // What one tab deletes, the other goes on running with.
        other.click("button", "storage").await?;
        other.click("button", "Delete small/gpt2").await?;
        other.wait("it to be gone", async || Ok(!other.has("button", "Delete small/gpt2").await?)).await?;
        home.browser.driver.switch_to_window(first).await?;
        assert_eq!(run(&page, "I have an idea!").await?, mine);
        Ok(())
    });
}
