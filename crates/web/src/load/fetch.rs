//! Requests to servers, and what their failures mean.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use wasm_bindgen::{JsCast, JsValue, prelude::*};
use wasm_bindgen_futures::JsFuture;
use web_sys::{AbortSignal, Headers, ReadableStream, Request, RequestInit, Response};

use super::source::stopped;
use crate::{
    error::{Failure, Kind, Result, reason},
    host,
};

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_name = fetch)]
    fn global_fetch(request: &Request) -> js_sys::Promise;
}

/// What tells one version of a file from another, as far as its server says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Version {
    pub(crate) etag: Option<String>,
    pub(crate) size_bytes: Option<u64>,
}

/// A file that begins to arrive.
pub(crate) struct Opened {
    pub(crate) body: ReadableStream,
    /// The size of the whole file.
    pub(crate) size_bytes: Option<u64>,
    pub(crate) version: Version,
    /// Where the body begins: not where it was asked to if the server ignores ranges or the file has changed.
    pub(crate) from: u64,
}

/// A request whose answer nobody has taken yet.
pub(crate) struct Asked(JsFuture);

/// Asks for a whole file, to be [opened](open) soon.
pub(crate) fn ask(url: &str, signal: &AbortSignal) -> Result<Asked> {
    request(url, &no_headers(), signal)
}

/// Opens a file from byte `from` on: the one that was asked for, or it is asked for now. `version` is what the bytes before
/// were of.
pub(crate) async fn open(
    url: &str,
    asked: Option<Asked>,
    from: u64,
    version: Option<&Version>,
    signal: &AbortSignal,
) -> Result<Opened> {
    let headers = no_headers();
    if from > 0 {
        headers.set("range", &format!("bytes={from}-")).expect("a valid header");
        let etag = version.and_then(|version| version.etag.as_deref());
        // A foreign server would be asked for permission to send this header, and may know no answer. There the
        // version in the response is compared.
        if let (Some(etag), true) = (etag.filter(|etag| !etag.starts_with("W/")), is_own(url)) {
            headers.set("if-range", etag).map_err(|thrown| broken(url, &thrown))?;
        }
    }
    let asked = match asked {
        Some(asked) => asked,
        None => request(url, &headers, signal)?,
    };
    let response = answer(url, asked, signal).await?;
    let header = |name: &str| response.headers().get(name).ok().flatten();
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let (begins, size_bytes) = match response.status() {
        200 => {
            // The length of a compressed answer is not the file's.
            let is_plain = header("content-encoding").is_none_or(|encoding| encoding == "identity");
            (0, header("content-length").filter(|_| is_plain).and_then(|length| number(&length)))
        }
        206 => {
            let range = header("content-range");
            let parts = range.as_deref().and_then(|range| range.strip_prefix("bytes ")?.split_once('/'));
            let begins = parts.and_then(|(range, _)| number(range.split_once('-')?.0));
            // A server that does not let foreign pages see the header still answers what was asked.
            (begins.unwrap_or(from), parts.and_then(|(_, size)| number(size)))
        }
        // The file has no such byte: it is shorter than it was.
        416 => return Err(changed(url)),
        _ => return Err(refused(url, &response)),
    };
    let found = Version { etag: header("etag"), size_bytes };
    if begins > 0 && version.is_some_and(|version| contradicts(version, &found)) {
        return Err(changed(url));
    }
    let body = response.body().ok_or_else(|| {
        Failure::new(Kind::Network, format!("{} sent nothing for `{}`.", host_of(url), file_of(url)))
    })?;
    Ok(Opened { body, size_bytes, version: found, from: begins })
}

/// Asks for JSON.
pub(crate) async fn json<T: DeserializeOwned>(url: &str, signal: &AbortSignal) -> Result<T> {
    let response = answer(url, ask(url, signal)?, signal).await?;
    if !response.ok() {
        return Err(refused(url, &response));
    }
    let text = response.text().map_err(|thrown| broken(url, &thrown))?;
    let text = JsFuture::from(text).await.map_err(|thrown| broken(url, &thrown))?;
    serde_json::from_str(&text.as_string().unwrap_or_default()).map_err(|error| {
        let error = format!("{} answered with something else than was expected: {error}.", host_of(url));
        Failure::new(Kind::Format, error)
    })
}

fn no_headers() -> Headers {
    Headers::new().expect("the constructor takes nothing")
}

fn request(url: &str, headers: &Headers, signal: &AbortSignal) -> Result<Asked> {
    let init = RequestInit::new();
    init.set_headers(headers);
    init.set_signal(Some(signal));
    let request = Request::new_with_str_and_init(url, &init)
        .map_err(|thrown| Failure::thrown(Kind::Invalid, &format!("`{url}` is no address"), &thrown))?;
    Ok(Asked(JsFuture::from(global_fetch(&request))))
}

async fn answer(url: &str, asked: Asked, signal: &AbortSignal) -> Result<Response> {
    match asked.0.await {
        Ok(response) => Ok(response.unchecked_into()),
        Err(_) if signal.aborted() => Err(stopped()),
        Err(thrown) => Err(broken(url, &thrown)),
    }
}

fn contradicts(before: &Version, now: &Version) -> bool {
    fn differ<T: PartialEq>(before: &Option<T>, now: &Option<T>) -> bool {
        matches!((before, now), (Some(before), Some(now)) if before != now)
    }
    differ(&before.etag, &now.etag) || differ(&before.size_bytes, &now.size_bytes)
}

/// The failure of a file that is not the one of which the first part is here: it has to come anew.
pub(crate) fn changed(url: &str) -> Failure {
    let error = format!("`{}` has changed on {} since its first part came.", file_of(url), host_of(url));
    Failure::new(Kind::Hash, error)
}

/// The failure of a request that got no answer. Browsers do not tell why: the network, or a server that does not let
/// other pages read.
fn broken(url: &str, thrown: &JsValue) -> Failure {
    let host = host_of(url);
    let offline = host::property(&host::global("navigator"), "onLine").as_bool() == Some(false);
    let error = match (offline, is_own(url)) {
        (true, _) => format!("This device is offline, and `{}` is not kept here yet.", file_of(url)),
        (false, true) => {
            format!("{host} could not be reached: {}. Check that it is running.", reason(thrown))
        }
        (false, false) => format!(
            "{host} could not be reached: {}. Check the connection; the server must also allow other pages to read from it (CORS).",
            reason(thrown)
        ),
    };
    Failure::new(Kind::Network, error)
}

fn refused(url: &str, response: &Response) -> Failure {
    let (host, file, status) = (host_of(url), file_of(url), response.status());
    match status {
        401 | 403 => {
            let error = format!(
                "{host} does not give `{file}` without a sign-in; choose a public model, or open its files from a folder."
            );
            Failure::new(Kind::Missing, error).for_good()
        }
        404 | 410 => Failure::new(Kind::Missing, format!("`{file}` is not on {host}.")),
        429 => Failure::new(
            Kind::Network,
            format!("{host} has had too many requests; wait a minute and try again."),
        ),
        _ => Failure::new(
            Kind::Network,
            format!("{host} could not give `{file}` (status {status}); try again later."),
        ),
    }
}

/// Whether a request goes to where this thread's own script came from.
fn is_own(url: &str) -> bool {
    let location = host::property(&js_sys::global(), "location");
    host::text(&location, "origin")
        .is_some_and(|origin| url.strip_prefix(&origin).is_some_and(|rest| rest.starts_with('/')))
}

/// The host of an address, for people.
pub(crate) fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    if host.is_empty() { url } else { host }
}

/// The last part of an address's path, for people.
fn file_of(url: &str) -> &str {
    let path = url.split(['?', '#']).next().unwrap_or(url);
    path.rsplit('/').find(|part| !part.is_empty()).unwrap_or(path)
}
