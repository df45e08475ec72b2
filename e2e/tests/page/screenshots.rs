//! Screenshots of the main states, for the README; kept where `INKLING_E2E_SCREENSHOTS` names a folder.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::Result;
use inkling_e2e::{Home, spec};
use serde_json::json;

use crate::{run, set_seed, until_ready};

async fn take(home: &Home, folder: &Path, name: &str, scheme: &str) -> Result<()> {
    let media = json!({"features": [
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": "reduce"},
    ]});
    home.browser.cdp("Emulation.setEmulatedMedia", media).await?;
    home.browser.script("scrollTo(0, 0); await new Promise((next) => setTimeout(next, 300))", vec![]).await?;
    home.browser.driver.screenshot(&folder.join(format!("{name}.png"))).await?;
    Ok(())
}

async fn size(home: &Home, width: u32, height: u32, mobile: bool) -> Result<()> {
    let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile});
    home.browser.cdp("Emulation.setDeviceMetricsOverride", metrics).await.map(drop)
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn the_main_states() {
    let kept = std::env::var_os("INKLING_E2E_SCREENSHOTS").map(PathBuf::from);
    spec(async |home| {
        let passing = tempfile::tempdir()?;
        let folder = kept.as_deref().unwrap_or(passing.path());
        std::fs::create_dir_all(folder)?;
        size(home, 1100, 860, false).await?;
        let page = home.visit().await?;
        until_ready(&page).await?;
        take(home, folder, "idle-light", "light").await?;
        set_seed(&page, 2).await?;
        page.click("button", "Settings").await?;
        run(&page, "I have an idea!").await?;
        take(home, folder, "done-light", "light").await?;
        take(home, folder, "done-dark", "dark").await?;
        page.click("button", "Models").await?;
        take(home, folder, "models-light", "light").await?;
        page.click("button", "Models").await?;
        size(home, 390, 844, true).await?;
        take(home, folder, "phone-light", "light").await?;
        take(home, folder, "phone-dark", "dark").await?;
        // Not to be looked at by a program; but each shows something else.
        let mut seen = BTreeSet::new();
        for state in ["idle-light", "done-light", "done-dark", "models-light", "phone-light", "phone-dark"] {
            assert!(seen.insert(std::fs::read(folder.join(format!("{state}.png")))?), "{state}");
        }
        Ok(())
    });
}
