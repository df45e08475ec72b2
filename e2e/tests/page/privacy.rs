//! Nothing leaves the visitor's machine.

use inkling_e2e::{proxy::Proxy, spec_with};

use crate::{run, until_ready};

#[test]
fn no_request_leaves_the_origin() {
    let proxy = Proxy::start().expect("a free port");
    spec_with(&[&proxy.argument()], async |home| {
        let page = home.visit().await?;
        until_ready(&page).await?;
        run(&page, "I have an idea!").await?;
        for opener in ["Settings", "Models", "What happened", "History"] {
            page.click("button", opener).await?;
        }
        page.click("button", "New seed").await?;
        crate::outcome(&page).await?;
        let events = home.browser.events().await?;
        let requests: Vec<&str> = events
            .iter()
            .filter(|event| event["method"] == "Network.requestWillBeSent")
            .filter_map(|event| event["params"]["request"]["url"].as_str())
            .collect();
        assert!(requests.iter().any(|url| url.ends_with(".wasm")), "the log sees the page: {requests:?}");
        let origin = format!("{}/", home.server.origin());
        let is_inside =
            |url: &str| ["chrome:", "data:", "blob:"].iter().any(|scheme| url.starts_with(scheme));
        let elsewhere: Vec<_> =
            requests.iter().filter(|url| !url.starts_with(&origin) && !is_inside(url)).collect();
        assert!(elsewhere.is_empty(), "{elsewhere:?}");
        // And nothing that only the network sees: what workers and the browser itself ask for goes through the proxy.
        let asked: Vec<String> = proxy.asked().into_iter().filter(|line| !is_of_the_browser(line)).collect();
        assert!(asked.is_empty(), "{asked:#?}");
        Ok(())
    });
}

/// Chromium's own errands, which the page has no part in; Debian's has a start page elsewhere.
fn is_of_the_browser(line: &str) -> bool {
    ["google.com", "googleapis.com", "gvt1.com", "gstatic.com", "start.duckduckgo.com"]
        .iter()
        .any(|host| line.contains(host))
}
