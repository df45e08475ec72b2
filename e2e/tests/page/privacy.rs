//! Nothing leaves the visitor's machine.

use inkling_e2e::{
    netlog::{NetLog, Request},
    spec_with,
};

use crate::{run, until_ready};

/// Chromium makes requests of its own, for updates and the like. They are told apart by who asked, not by where they go:
/// a document, a worker and a service worker have an origin, and the browser has none.
#[test]
#[ignore = "`cargo xtask test --only e2e` builds the page and runs this"]
fn no_request_leaves_the_origin() {
    let log = NetLog::new().unwrap();
    // No name leads anywhere, so that nothing would be sent even if the page did ask.
    let nowhere = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1";
    spec_with(&[&log.argument(), nowhere], async |home| {
        let page = home.visit().await?;
        until_ready(&page).await?;
        run(&page, "I have an idea!").await?;
        for opener in ["Settings", "Models", "storage", "What happened", "History"] {
            page.click("button", opener).await?;
        }
        page.click("button", "New seed").await?;
        crate::outcome(&page).await?;
        page.click("button", "Share this exact run").await?;
        // What such a log would show: one request of the document, and one of a worker.
        let foreign = "
            await fetch('https://document.test/').catch(() => {});
            const { Model } = await import('./engine/inkling.js');
            await Model.load({ url: 'https://worker.test/' }).catch(() => {});";
        home.browser.script(foreign, vec![]).await?;
        home.browser.close().await;

        let origin = home.server.origin();
        let requests = log.requests()?;
        let asked = |url: &str, by: Option<&str>| {
            let is_it = |request: &&Request| request.url == url && request.initiator.as_deref() == by;
            requests.iter().find(is_it).is_some()
        };
        assert!(asked(&home.server.url("/"), None), "the visitor's own: {requests:#?}");
        for file in ["/engine/inkling.js", "/engine/worker.js", "/sw.js", "/models/demo/writer/model.gguf"] {
            assert!(asked(&home.server.url(file), Some(origin)), "{file}: {requests:#?}");
        }
        let mut elsewhere: Vec<&str> = requests
            .iter()
            .filter(|request| request.initiator.is_some() && !request.url.starts_with(&format!("{origin}/")))
            .map(|request| request.url.as_str())
            .collect();
        elsewhere.sort_unstable();
        elsewhere.dedup();
        let hosts: Vec<_> = elsewhere.iter().filter_map(|url| url.split('/').nth(2)).collect();
        assert_eq!(hosts, ["document.test", "worker.test"], "these, and nothing else: {elsewhere:?}");
        Ok(())
    });
}
