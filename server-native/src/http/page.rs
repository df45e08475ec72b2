//! The page, as files that are part of the program.
//!
//! `build.rs` embeds the folder that `cargo xtask page` made. A program built without it says so at `/`.

use std::{collections::BTreeMap, fmt::Write as _, sync::LazyLock};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};

/// A file of the page.
#[derive(Clone, Copy, Debug)]
pub struct File {
    /// Where it lies, relative to the page: `engine/inkling.js`.
    pub path: &'static str,
    /// Names the content: another content has another one. Only characters that stand in an entity tag.
    pub etag: &'static str,
    /// The bytes as they are.
    pub content: &'static [u8],
    /// The same bytes compressed by brotli, where that makes them fewer.
    pub brotli: Option<&'static [u8]>,
}

/// The page that is part of this program; no files if it was built without one.
pub fn embedded() -> &'static [File] {
    static FILES: LazyLock<Vec<File>> =
        LazyLock::new(|| Vec::from(include!(concat!(env!("OUT_DIR"), "/page.rs"))));
    &FILES
}

/// What the page's own scripts may do; the same text stands in its `index.html`, for hosts that set no headers.
const POLICY: &str = include_str!("../../../crates/ui/content-security-policy.txt");

const WITHOUT_PAGE: &str = "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width\">
<meta name=\"color-scheme\" content=\"light dark\">
<title>Inkling</title>
<h1>Inkling</h1>
<p>This server was built without its page. <code>cargo xtask serve</code> builds and serves both.</p>
<p>The API is here all the same: <a href=\"docs.json\">docs.json</a> describes it.</p>
</html>
";

/// The files by their paths, and the headers that are the same for all.
pub(super) struct Page {
    files: BTreeMap<&'static str, File>,
    policy: HeaderValue,
}

impl Page {
    pub(super) fn new(files: &[File]) -> Page {
        let mut policy = POLICY.lines().fold(String::new(), |mut policy, directive| {
            write!(policy, "{directive}; ").expect("a string takes all that is written");
            policy
        });
        // The one directive that only a header can carry.
        policy.push_str("frame-ancestors 'none'");
        Page {
            files: files.iter().map(|file| (file.path, *file)).collect(),
            policy: HeaderValue::from_str(&policy).expect("the policy is a line of ASCII"),
        }
    }

    /// The answer, if the page has something at this path.
    pub(super) fn answer(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Option<Response> {
        let path = match uri.path().strip_prefix('/')? {
            "" => "index.html",
            path => path,
        };
        let file = match self.files.get(path) {
            Some(file) => *file,
            None if path == "index.html" => {
                File { path: "index.html", etag: "none", content: WITHOUT_PAGE.as_bytes(), brotli: None }
            }
            None => return None,
        };
        let mut response = if method == Method::GET || method == Method::HEAD {
            content(&file, headers)
        } else {
            // The caller says it in its own words.
            StatusCode::METHOD_NOT_ALLOWED.into_response()
        };
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_SECURITY_POLICY, self.policy.clone());
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        Some(response)
    }
}

/// The file, in the form that suits the request, or a 304.
fn content(file: &File, request: &HeaderMap) -> Response {
    let brotli = file.brotli.filter(|_| accepts_brotli(request));
    // A strong tag is for bytes, so each form has its own.
    let etag = format!("\"{}{}\"", file.etag, if brotli.is_some() { "-br" } else { "" });
    let mut response = if is_known(request, &etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Response::new(Body::from(brotli.unwrap_or(file.content)))
    };
    let is_new = response.status() == StatusCode::OK;
    let headers = response.headers_mut();
    if is_new {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type(file.path)));
        if brotli.is_some() {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("br"));
        }
    }
    if file.brotli.is_some() {
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
    let caching = if has_hash(file.path) { "public, max-age=31536000, immutable" } else { "no-cache" };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
    headers.insert(header::ETAG, HeaderValue::from_str(&etag).expect("`File::etag` promises it"));
    response
}

fn is_known(request: &HeaderMap, etag: &str) -> bool {
    let listed = request.get_all(header::IF_NONE_MATCH).into_iter().filter_map(|value| value.to_str().ok());
    let mut tags = listed.flat_map(|value| value.split(','));
    tags.any(|tag| {
        let tag = tag.trim();
        tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag
    })
}

fn accepts_brotli(request: &HeaderMap) -> bool {
    let listed = request.get_all(header::ACCEPT_ENCODING).into_iter().filter_map(|value| value.to_str().ok());
    let mut codings = listed.flat_map(|value| value.split(','));
    codings.any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let refused = |part: &str| {
            part.strip_prefix("q=").is_some_and(|q| q.parse::<f32>().is_ok_and(|weight| weight == 0.0))
        };
        name.eq_ignore_ascii_case("br") && !parts.any(refused)
    })
}

/// Whether the name carries a hash of the content, as Trunk writes it: `ui-0123456789abcdef_bg.wasm`. It is a number of 64
/// bits without the zeros at its head, so some are shorter.
fn has_hash(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.split(['-', '_', '.'])
        .skip(1)
        .any(|part| (12..=16).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" => "application/json",
        "webmanifest" => "application/manifest+json",
        "wasm" => "application/wasm",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "md" | "txt" | "ts" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_with_a_hash_never_change() {
        for path in ["ui-0123456789abcdef.js", "ui-0123456789abcdef_bg.wasm", "a/style-9abcdef01234567.css"] {
            assert!(has_hash(path), "{path}");
        }
        for path in
            ["index.html", "sw.js", "engine/inkling.js", "models/demo/writer/model.gguf", "0123456789abcdef"]
        {
            assert!(!has_hash(path), "{path}");
        }
    }

    #[test]
    fn brotli_is_sent_to_whoever_takes_it() {
        for (value, expected) in [
            ("gzip, deflate, br, zstd", true),
            ("br;q=0.5", true),
            ("BR", true),
            ("br;q=0", false),
            ("br; q=0.0, gzip", false),
            ("gzip", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(value))]);
            assert_eq!(accepts_brotli(&headers), expected, "{value}");
        }
    }

    #[test]
    fn the_policy_allows_no_inline_script_or_style() {
        let policy = Page::new(&[]).policy;
        let policy = policy.to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; "), "{policy}");
        assert!(!policy.contains("unsafe-inline") && !policy.contains("'unsafe-eval'"), "{policy}");
    }

    #[test]
    fn the_embedded_page_names_files_that_are_there() {
        for file in embedded() {
            assert!(!file.content.is_empty(), "{}", file.path);
            assert!(file.brotli.is_none_or(|brotli| brotli.len() < file.content.len()), "{}", file.path);
        }
    }
}
