//! What is kept in the browser, and what happens when it goes.

use anyhow::Result;
use inkling_e2e::{Home, hub::Hub, spec, spec_with};
use serde_json::json;

use crate::{downloads, models, run, set_seed, until_ready};

async fn clear_storage(home: &Home) -> Result<()> {
    let all = json!({"origin": home.server.origin(), "storageTypes": "all"});
    home.browser.cdp("Storage.clearDataForOrigin", all).await.map(drop)
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn storage_deleted_under_the_page_harms_nothing() {
    spec(async |home| {
        let page = home.visit().await?;
        until_ready(&page).await?;
        clear_storage(home).await?;
        let cards = run(&page, "I have an idea!").await?;
        assert!(cards.iter().all(|card| card.state == "done" && card.score.is_some()), "{cards:?}");
        home.browser.driver.refresh().await?;
        page.wait("the page", async || page.has("button", "Run").await).await?;
        let cards = run(&page, "I have an idea!").await?;
        assert!(cards.iter().all(|card| card.state == "done" && card.score.is_some()), "{cards:?}");
        Ok(())
    });
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn a_full_disk_is_told_and_the_model_runs() {
    spec(async |home| {
        let (hub, folder) = (Hub::start()?, models::models());
        hub.add("small/gpt2", &folder.path().join("gpt2"))?;
        let page = home.visit().await?;
        until_ready(&page).await?;
        let full = json!({"origin": home.server.origin(), "quotaSize": 1});
        home.browser.cdp("Storage.overrideQuotaForOrigin", full).await?;
        downloads::choose(&page, &hub, &[("gpt2", "small/gpt2"), ("distilgpt2", ""), ("bert", "")]).await?;
        until_ready(&page).await?;
        page.says("will be downloaded again next time").await?;
        let cards = run(&page, "I have an idea!").await?;
        assert_eq!(cards[0].state, "done", "{cards:?}");
        Ok(())
    });
}

/// As in browsers that have no private file system, or hide it in a private window.
#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn without_a_private_file_system_models_are_kept_in_the_cache() {
    spec_with(&["--disable-blink-features=FileSystemAccessOriginPrivate"], async |home| {
        let (hub, folder) = (Hub::start()?, models::models());
        hub.add("small/gpt2", &folder.path().join("gpt2"))?;
        let weights = || hub.asked().into_iter().filter(|asked| asked.name == "model.safetensors").count();
        let page = home.visit().await?;
        until_ready(&page).await?;
        let files = home.browser.script("return typeof navigator.storage.getDirectory", vec![]).await?;
        assert_eq!(files, "undefined", "Chromium has the feature under another name");
        let only_one = [("gpt2", "small/gpt2"), ("distilgpt2", ""), ("bert", "")];
        downloads::choose(&page, &hub, &only_one).await?;
        until_ready(&page).await?;
        assert_eq!(weights(), 1);
        set_seed(&page, 7).await?;
        let text = run(&page, "I have an idea!").await?[0].text.clone();
        let again = async || {
            home.browser.driver.refresh().await?;
            page.wait("the page", async || page.has("button", "Models").await).await?;
            downloads::look_up(&page, &hub, &only_one).await?;
            page.click("button", "Use them").await?;
            until_ready(&page).await?;
            let cards = run(&page, "I have an idea!").await?;
            assert_eq!(cards[0].text, text, "{cards:?}");
            anyhow::Ok(weights())
        };
        assert_eq!(again().await?, 0, "it was here");

        // A byte changes: its hash tells, and the model comes anew.
        let damage = "
            const cache = await caches.open('inkling-models');
            const data = (await cache.keys()).find(({ url }) => url.endsWith('.data'));
            const bytes = new Uint8Array(await (await cache.match(data)).arrayBuffer());
            bytes[bytes.length >> 1] ^= 1;
            await cache.put(data, new Response(bytes));
            return bytes.length";
        assert!(home.browser.script(damage, vec![]).await?.as_u64() > Some(0));
        assert_eq!(again().await?, 1, "bytes that changed are not believed");
        Ok(())
    });
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn what_is_kept_is_listed_and_can_be_deleted() {
    spec(async |home| {
        let (hub, folder) = (Hub::start()?, models::models());
        hub.add("small/gpt2", &folder.path().join("gpt2"))?;
        let page = home.visit().await?;
        until_ready(&page).await?;
        downloads::choose(&page, &hub, &[("gpt2", "small/gpt2"), ("distilgpt2", ""), ("bert", "")]).await?;
        until_ready(&page).await?;
        page.click("button", "storage").await?;
        page.click("button", "Delete small/gpt2").await?;
        page.wait("it to be gone", async || Ok(!page.has("button", "Delete small/gpt2").await?)).await?;
        let list = "
            const { storage } = await import('./engine/inkling.js');
            return (await storage.list()).map(({ name }) => name)";
        let kept = home.browser.script(list, vec![]).await?;
        assert!(!kept.to_string().contains("small/gpt2"), "{kept}");
        Ok(())
    });
}
