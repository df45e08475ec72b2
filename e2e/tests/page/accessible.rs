//! axe-core finds nothing to object to, in the main states, light and dark, wide and on a phone.

use anyhow::{Context, Result};
use inkling_e2e::{Home, page::Page, spec};
use serde_json::{Value, json};

use crate::{run, until_ready};

/// Violations of WCAG 2.2 A and AA and of best practice, each with the elements that have them.
async fn violations(home: &Home) -> Result<Vec<String>> {
    let path = std::env::var_os("INKLING_AXE")
        .context("INKLING_AXE should name axe-core's script; `cargo xtask test` sets it")?;
    let axe =
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.to_string_lossy()))?;
    if home.browser.script("return typeof axe", vec![]).await? == "undefined" {
        // By Chromium's own protocol, since the page's policy lets no foreign script in.
        home.browser.cdp("Runtime.evaluate", json!({"expression": axe})).await?;
    }
    let script = "
        // Transitions would be measured half way.
        await Promise.all(document.getAnimations().map((animation) => animation.finished.catch(() => {})));
        const { violations } = await axe.run(document, { resultTypes: ['violations'] });
        return violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map(({ html, any }) =>
            `${html.slice(0, 160)} ${any.map(({ message }) => message).join(' ')}`).join(' | ')}`)";
    let found = home.browser.script(script, vec![]).await?;
    Ok(found.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_string).collect())
}

async fn check(home: &Home, state: &str) -> Result<()> {
    for scheme in ["light", "dark"] {
        let media = json!({"features": [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]});
        home.browser.cdp("Emulation.setEmulatedMedia", media).await?;
        let found = violations(home).await?;
        anyhow::ensure!(found.is_empty(), "{state}, {scheme}:\n{}", found.join("\n"));
    }
    Ok(())
}

async fn open_everything(page: &Page<'_>) -> Result<()> {
    for opener in ["Settings", "Models", "storage", "What happened", "History"] {
        page.click("button", opener).await?;
    }
    Ok(())
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn axe_finds_nothing_in_any_state() {
    spec(async |home| {
        let page = home.visit().await?;
        check(home, "first visit").await?;
        until_ready(&page).await?;
        check(home, "idle").await?;
        run(&page, "I have an idea!").await?;
        check(home, "done").await?;
        open_everything(&page).await?;
        check(home, "everything open").await?;
        page.click("button", "Alternatives").await?;
        check(home, "alternatives").await?;
        Ok(())
    });
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn axe_finds_nothing_on_a_phone() {
    spec(async |home| {
        let phone = json!({"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": true});
        home.browser.cdp("Emulation.setDeviceMetricsOverride", phone).await?;
        let page = home.visit().await?;
        until_ready(&page).await?;
        run(&page, "I have an idea!").await?;
        check(home, "done").await?;
        open_everything(&page).await?;
        check(home, "everything open").await?;
        let wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
        assert_eq!(home.browser.script(wide, vec![]).await?, 0, "nothing is wider than the phone");
        Ok(())
    });
}
