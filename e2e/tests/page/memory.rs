//! A visitor runs again and again.

use std::{collections::BTreeSet, fs};

use anyhow::{Context, Result};
use inkling_e2e::{Home, PATIENCE, page::Page, spec};
use serde_json::json;

use crate::until_ready;

const RUNS: &str = "
    const [count] = args;
    const run = Array.from(document.querySelectorAll('button')).find((button) => button.textContent.startsWith('Run'));
    const isOver = () => document.querySelectorAll('article[data-state=done] .score').length === 2
        && document.querySelector('li[data-node=bert]').dataset.state === 'done';
    for (let i = 0; i < count; i++) {
        run.click();
        while (isOver()) await new Promise((next) => setTimeout(next, 1));
        while (!isOver()) await new Promise((next) => setTimeout(next, 5));
    }
    return null";

/// Memory after the garbage is gone.
#[derive(Clone, Copy, Debug)]
struct Memory {
    /// Bytes of JavaScript's heap in the page.
    heap: f64,
    /// Nodes of documents that are alive.
    nodes: f64,
    /// Bytes that the browser's processes hold and share with nobody.
    private: u64,
}

async fn memory(home: &Home) -> Result<Memory> {
    home.browser.collect_garbage().await?;
    home.browser.cdp("Performance.enable", json!({})).await?;
    let metrics = home.browser.cdp("Performance.getMetrics", json!({})).await?;
    let metric = |name: &str| {
        let found = metrics["metrics"].as_array().into_iter().flatten().find(|metric| metric["name"] == name);
        found
            .and_then(|metric| metric["value"].as_f64())
            .with_context(|| format!("Chromium has no metric {name}"))
    };
    Ok(Memory {
        heap: metric("JSHeapUsedSize")?,
        nodes: metric("Nodes")?,
        private: private(home.browser.id())?,
    })
}

/// Bytes that a process and all its descendants hold for themselves.
fn private(root: u32) -> Result<u64> {
    let mut family = BTreeSet::from([root]);
    let processes: Vec<(u32, u32)> = fs::read_dir("/proc")?
        .filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The name may hold spaces and parentheses; the parent's id is the second field after it.
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect();
    loop {
        let before = family.len();
        family.extend(
            processes
                .iter()
                .filter(|(_, parent)| family.contains(parent))
                .map(|(pid, _)| *pid)
                .collect::<Vec<_>>(),
        );
        if family.len() == before {
            break;
        }
    }
    let of = |pid: &u32| -> u64 {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let lines = rollup.lines().filter(|line| line.starts_with("Private_"));
        lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum::<u64>() * 1024
    };
    Ok(family.iter().map(of).sum())
}

#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn many_runs_leave_no_memory_behind() {
    let count: u32 =
        std::env::var("INKLING_E2E_RUNS").ok().and_then(|count| count.parse().ok()).unwrap_or(30);
    spec(async |home| {
        // Nothing is looked for by role here: Chromium then keeps a tree of roles, which grows by 200 kB and more a run.
        home.browser.driver.goto(home.server.url("/")).await?;
        let page = Page { browser: &home.browser, patience: PATIENCE };
        page.wait("the program", async || Ok(!crate::node_state(&page, "bert").await?.is_empty())).await?;
        until_ready(&page).await?;
        // The history holds so many runs and no more; caches and compilers have warmed up by then.
        home.browser.script(RUNS, vec![25.into()]).await?;
        let before = memory(home).await?;
        // A script has a minute.
        let mut left = count;
        while left > 0 {
            let some = left.min(25);
            home.browser.script(RUNS, vec![some.into()]).await?;
            left -= some;
        }
        let after = memory(home).await?;
        println!("memory before and after {count} runs: {before:?}, {after:?}");
        // A leak of one run's events would be seen: here is one of a tenth of that a run.
        let leak = "window.leaked = Array.from({ length: args[0] }, () => new Array(1300).fill({}))";
        home.browser.script(leak, vec![count.into()]).await?;
        let leaking = memory(home).await?;
        println!("and with a leak: {leaking:?}");
        assert!(leaking.heap - after.heap > 4e3 * f64::from(count), "{after:?}, then {leaking:?}");
        let grown = |before: f64, after: f64| (after - before) / f64::from(count);
        // A run's events with their alternatives take some 100 kB: a leak of one a run would be seen.
        assert!(
            grown(before.heap, after.heap) < 30e3,
            "{} bytes a run in the heap",
            grown(before.heap, after.heap)
        );
        assert!(grown(before.nodes, after.nodes) < 20.0, "{} nodes a run", grown(before.nodes, after.nodes));
        let private = grown(before.private as f64, after.private as f64) * f64::from(count);
        assert!(private < 40e6, "the browser has grown by {private} bytes");
        Ok(())
    });
}
