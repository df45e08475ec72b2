//! A visitor has no mouse.

use std::time::Duration;

use anyhow::Result;
use inkling_e2e::{page::Page, spec};
use serde_json::json;

use crate::{Card, outcome, until_ready};

/// Presses a key, as the operating system would: nothing is aimed at an element.
async fn press(page: &Page<'_>, key: &str, code: u32, modifiers: u32) -> Result<()> {
    for kind in ["rawKeyDown", "keyUp"] {
        let event = json!({
            "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": modifiers,
        });
        page.browser.cdp("Input.dispatchKeyEvent", event).await?;
    }
    Ok(())
}

async fn tab(page: &Page<'_>) -> Result<()> {
    press(page, "Tab", 9, 0).await
}

async fn enter(page: &Page<'_>) -> Result<()> {
    let down = json!({"type": "keyDown", "key": "Enter", "code": "Enter", "text": "\r", "windowsVirtualKeyCode": 13});
    page.browser.cdp("Input.dispatchKeyEvent", down).await?;
    let up = json!({"type": "keyUp", "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13});
    page.browser.cdp("Input.dispatchKeyEvent", up).await.map(drop)
}

async fn write(page: &Page<'_>, text: &str) -> Result<()> {
    page.browser.cdp("Input.insertText", json!({"text": text})).await.map(drop)
}

/// What has the focus: its text or id, and whether a ring shows it.
async fn focused(page: &Page<'_>) -> Result<(String, bool)> {
    let script = "
        const it = document.activeElement;
        if (it === document.body) return { name: '', ring: false };
        const isRinged = (element) => {
            const { outlineStyle, outlineWidth, boxShadow } = getComputedStyle(element);
            return (outlineStyle !== 'none' && parseFloat(outlineWidth) > 0) || boxShadow !== 'none';
        };
        // A field may leave the ring to the box around it.
        const ring = isRinged(it) || (it.parentElement?.matches('.box') && isRinged(it.parentElement));
        return { name: it.id || it.textContent.trim().slice(0, 40), ring: Boolean(ring) }";
    let found = page.browser.script(script, vec![]).await?;
    Ok((found["name"].as_str().unwrap_or_default().to_string(), found["ring"] == true))
}

/// Tabs until this has the focus; all that is passed shows where the focus is.
async fn tab_to(page: &Page<'_>, name: &str) -> Result<()> {
    let mut passed = Vec::new();
    for _ in 0..80 {
        tab(page).await?;
        let (found, ring) = focused(page).await?;
        // After the last element the browser's own buttons have their turn, and the page begins anew.
        if found.is_empty() {
            continue;
        }
        anyhow::ensure!(ring, "`{found}` has the focus and does not show it");
        if found.starts_with(name) {
            return Ok(());
        }
        passed.push(found);
    }
    anyhow::bail!("the tab key never comes to `{name}`, only to {passed:?}")
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn the_keyboard_alone_is_enough() {
    spec(async |home| {
        let page = home.visit().await?;
        until_ready(&page).await?;
        tab_to(&page, "sentence").await?;
        press(&page, "a", 65, 2).await?;
        write(&page, "The cat on the wall").await?;
        // Control and Enter.
        press(&page, "Enter", 13, 2).await?;
        let first = outcome(&page).await?;
        let is_whole = |card: &Card| card.state == "done" && card.score.is_some();
        assert!(
            first.iter().all(|card| is_whole(card) && card.text.starts_with("The cat on the wall")),
            "{first:?}"
        );

        // Open and close what opens in place.
        tab_to(&page, "Settings").await?;
        enter(&page).await?;
        page.find("slider", "Temperature").await?;
        enter(&page).await?;
        page.wait("the settings to close", async || Ok(!page.has("slider", "Temperature").await?)).await?;

        // To a token, to its alternatives, and on from one of them.
        tab_to(&page, "Alternatives").await?;
        enter(&page).await?;
        press(&page, "ArrowRight", 39, 0).await?;
        press(&page, "ArrowDown", 40, 0).await?;
        let inside = "return document.activeElement.closest('#alternatives') !== null";
        page.wait("the alternatives", async || Ok(home.browser.script(inside, vec![]).await? == true))
            .await?;
        press(&page, "Escape", 27, 0).await?;
        page.wait("the token again", async || Ok(home.browser.script(inside, vec![]).await? == false))
            .await?;
        press(&page, "ArrowDown", 40, 0).await?;
        page.wait("the alternatives", async || Ok(home.browser.script(inside, vec![]).await? == true))
            .await?;
        let chosen = "return document.activeElement.closest('li').querySelector('.token').textContent";
        let chosen = home.browser.script(chosen, vec![]).await?;
        enter(&page).await?;
        let at = home.browser.script("return document.activeElement.id", vec![]).await?;
        assert_eq!(at, "sentence", "the focus stays in the page");
        let mut now = Vec::new();
        page.wait("a text that goes on from there", async || {
            now = outcome(&page).await?;
            Ok(now.iter().all(is_whole) && now != first)
        })
        .await?;
        let sentence =
            home.browser.script("return document.getElementById('sentence').value", vec![]).await?;
        let sentence = sentence.as_str().unwrap_or_default();
        // The second token was looked at: the sentence, the first one, and what was chosen.
        let chosen = chosen.as_str().unwrap_or_default().replace('\u{2423}', " ").replace('⏎', "\n");
        assert!(
            sentence.starts_with("The cat on the wall") && sentence.ends_with(&chosen),
            "{sentence} | {chosen}"
        );
        assert!(now.iter().all(|card| card.text.starts_with(sentence)), "{now:?}");

        // Stop is a key, too.
        tab_to(&page, "Settings").await?;
        enter(&page).await?;
        tab_to(&page, "setting-num_return_sequences").await?;
        press(&page, "End", 35, 0).await?;
        tab_to(&page, "setting-max_length").await?;
        press(&page, "End", 35, 0).await?;
        // Until a run has begun the tab key passes Stop over.
        let can_stop = "
            const buttons = [...document.querySelectorAll('button')];
            return buttons.some((it) => it.textContent.trim() === 'Stop' && !it.disabled)";
        let mut is_stopped = false;
        tab_to(&page, "sentence").await?;
        // Else the texts may all be written before the second tab.
        home.browser.slow_workers(Duration::from_millis(20)).await?;
        for _ in 0..3 {
            press(&page, "Enter", 13, 2).await?;
            page.wait("the run to begin", async || Ok(home.browser.script(can_stop, vec![]).await? == true))
                .await?;
            tab(&page).await?;
            tab(&page).await?;
            if focused(&page).await?.0 == "Stop" {
                enter(&page).await?;
            }
            is_stopped = outcome(&page).await?.iter().any(|card| card.state == "stopped");
            if is_stopped {
                break;
            }
            home.browser.script("document.getElementById('sentence').focus()", vec![]).await?;
        }
        assert!(is_stopped, "three runs, and none was stopped");
        Ok(())
    });
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn the_first_tab_leads_past_everything() {
    spec(async |home| {
        let page = home.visit().await?;
        page.browser.script("document.activeElement.blur()", vec![]).await?;
        tab(&page).await?;
        let (name, ring) = focused(&page).await?;
        assert!(name.starts_with("Skip to"), "{name}");
        assert!(ring);
        Ok(())
    });
}
