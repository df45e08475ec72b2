//! The hub's HTTP: what is asked, what may be tried again, and when.

use std::time::Duration;

use inkling_engine::checkpoint::hub::{CONVERSIONS, Discussions};
use reqwest::header::{self, HeaderMap};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;

use super::Settings;
use super::error::{HubError, Tries};

const HAS_A_PATH: &str = "an http address has a path: checked in Hub::new";

/// One repository of the hub, and the clients to reach it.
pub(super) struct Web<'a> {
    pub(super) settings: &'a Settings,
    pub(super) repo: &'a str,
    endpoint: Url,
    /// Follows redirects, and then leaves the token at the hub's own host.
    client: Client,
    /// Follows none: the headers that say what a file is stand on the hub's own answer.
    straight: Client,
}

/// What the hub says of a file.
#[derive(Debug)]
pub(super) struct Entry {
    /// The blob's name: for large files their SHA-256, for small ones git's own id.
    pub(super) etag: String,
    /// In bytes.
    pub(super) size: Option<u64>,
}

impl Entry {
    /// The SHA-256 that the file must have, where the hub names one.
    pub(super) fn sha256(&self) -> Option<&str> {
        (self.etag.len() == 64 && self.etag.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .then_some(&*self.etag)
    }
}

/// Why one try failed.
pub(super) enum Failure {
    /// Another try would fail alike.
    Final(HubError),
    /// The server asked for patience.
    Busy { host: String, status: StatusCode, retry_after: Option<Duration> },
    /// No answer, or it broke off.
    Broken { reason: String },
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Failure {
        Failure::Final(error)
    }
}

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Failure {
        Failure::Broken { reason: reason(&error) }
    }
}

/// The innermost cause: what the system says is more use than which layer passed it on.
fn innermost(error: &reqwest::Error) -> &(dyn std::error::Error + 'static) {
    let mut cause: &(dyn std::error::Error + 'static) = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause
}

fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() { "it fell silent".into() } else { innermost(error).to_string() }
}

impl<'a> Web<'a> {
    pub(super) fn new(settings: &'a Settings, repo: &'a str) -> Result<Web<'a>, HubError> {
        let setting = |name, reason| HubError::Setting { name, reason };
        let endpoint =
            Url::parse(&settings.endpoint).map_err(|error| setting("HF_ENDPOINT", error.to_string()))?;
        if settings.token.as_ref().is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(setting(
                "HF_TOKEN",
                "a token has no spaces, line breaks or letters beyond ASCII".into(),
            ));
        }
        // A process has one provider of TLS's arithmetic. An error says that it has one already, which will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = |redirects| {
            Client::builder()
                .user_agent(concat!("inkling/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(settings.silence)
                .read_timeout(settings.silence)
                .redirect(redirects)
                .build()
                .map_err(|error| setting("TLS", reason(&error)))
        };
        let follows = client(reqwest::redirect::Policy::limited(10))?;
        let straight = client(reqwest::redirect::Policy::none())?;
        Ok(Web { settings, repo, endpoint, client: follows, straight })
    }

    /// Tries `act` until it succeeds, fails for good, or failed `tries` times.
    pub(super) async fn patiently<T>(
        &self,
        tries: u32,
        what: &str,
        mut act: impl AsyncFnMut() -> Result<T, Failure>,
    ) -> Result<T, HubError> {
        let mut past = Tries::default();
        loop {
            let failure = match act().await {
                Ok(value) => return Ok(value),
                Err(failure) => failure,
            };
            if let Some(failure) = self.pause(failure, tries, &mut past).await {
                return Err(self.give_up(failure, what, past));
            }
        }
    }

    /// Waits before the next try; gives the failure back if there should be none.
    pub(super) async fn pause(&self, failure: Failure, tries: u32, past: &mut Tries) -> Option<Failure> {
        past.count += 1;
        let asked = match &failure {
            Failure::Final(_) => return Some(failure),
            Failure::Busy { retry_after, .. } => *retry_after,
            Failure::Broken { .. } => None,
        };
        let growing = self.settings.pause.saturating_mul(1 << (past.count - 1).min(16));
        let pause = asked.unwrap_or(growing.min(self.settings.longest_pause));
        if past.count >= tries || pause > self.settings.longest_pause {
            return Some(failure);
        }
        tokio::time::sleep(pause).await;
        past.waited += pause;
        None
    }

    /// The error of a failure that was not to be waited out.
    pub(super) fn give_up(&self, failure: Failure, what: &str, tries: Tries) -> HubError {
        let what = what.to_string();
        match failure {
            Failure::Final(error) => error,
            Failure::Busy { host, status, retry_after } => {
                let asks = retry_after.filter(|asks| *asks > self.settings.longest_pause);
                HubError::Busy { host, what, status: status.as_u16(), tries, asks }
            }
            Failure::Broken { reason } => {
                HubError::Unreachable { endpoint: self.settings.endpoint.clone(), what, reason, tries }
            }
        }
    }

    /// The commit of `revision` and the names of its files.
    pub(super) async fn listing(&self, revision: &str) -> Result<(String, Vec<String>), Failure> {
        #[derive(Deserialize)]
        struct Info {
            sha: Option<String>,
            #[serde(default)]
            siblings: Vec<Sibling>,
        }
        #[derive(Deserialize)]
        struct Sibling {
            rfilename: String,
        }
        let mut url = self.url(&["api", "models"], &[self.repo, "revision"]);
        // One segment, whatever it holds: `refs/pr/2` is written `refs%2Fpr%2F2`.
        url.path_segments_mut().expect(HAS_A_PATH).push(revision);
        let answer = self.send(self.request(&self.client, Method::GET, url), self.repo).await?;
        let info: Info = serde_json::from_slice(&answer.bytes().await?).map_err(|error| {
            self.answer_error(self.repo, format!("its listing is not the JSON of one: {error}"))
        })?;
        let commit = info.sha.filter(|commit| is_plain(commit));
        let commit =
            commit.ok_or_else(|| self.answer_error(self.repo, "the listing names no commit".into()))?;
        Ok((commit, info.siblings.into_iter().map(|sibling| sibling.rfilename).collect()))
    }

    /// The revision in which the hub's bot offers `model.safetensors`.
    pub(super) async fn conversion(&self) -> Result<Option<String>, Failure> {
        let mut url = self.url(&["api", "models"], &[self.repo, "discussions"]);
        url.set_query(Some(CONVERSIONS));
        let found: Discussions =
            self.send(self.request(&self.client, Method::GET, url), self.repo).await?.json().await?;
        Ok(found.conversion())
    }

    /// What the hub says of the file `name`: the first answer on the way to it that names its content. Renamed models
    /// answer with a redirect that names none; the redirect to a store does, and the store itself need not.
    pub(super) async fn entry(&self, commit: &str, name: &str) -> Result<Entry, Failure> {
        let mut url = self.file_url(commit, name);
        for _ in 0..10 {
            let request = self.request(&self.straight, Method::HEAD, url.clone());
            let response = self.send(request, name).await?;
            let headers = response.headers();
            let field = |name: &str| headers.get(name)?.to_str().ok();
            if let Some(etag) = field("x-linked-etag").or_else(|| field("etag")) {
                let etag = etag.trim_start_matches("W/").trim_matches('"').to_string();
                if !is_plain(&etag) {
                    return Err(self.answer_error(name, format!("its ETag is `{etag}`")).into());
                }
                let length = || field("content-length").filter(|_| response.status().is_success());
                let size = field("x-linked-size").or_else(length).and_then(|size| size.parse().ok());
                // Servers that do not know yet may write 0.
                let size = size.filter(|size| *size > 0);
                return Ok(Entry { etag, size });
            }
            match field("location").map(|location| url.join(location)) {
                Some(Ok(next)) => url = next,
                _ => return Err(self.answer_error(name, "no ETag".into()).into()),
            }
        }
        Err(self.answer_error(name, "10 redirects lead nowhere".into()).into())
    }

    /// The bytes of a file from `start` on; the store may answer with all of them.
    pub(super) async fn bytes(&self, commit: &str, name: &str, start: u64) -> Result<Response, Failure> {
        let mut request = self.request(&self.client, Method::GET, self.file_url(commit, name));
        if start > 0 {
            request = request.header(header::RANGE, format!("bytes={start}-"));
        }
        self.send(request, name).await
    }

    pub(super) fn answer_error(&self, what: &str, reason: String) -> HubError {
        HubError::Answer { endpoint: self.settings.endpoint.clone(), what: what.into(), reason }
    }

    fn file_url(&self, commit: &str, name: &str) -> Url {
        self.url(&[], &[self.repo, "resolve", commit, name])
    }

    /// The endpoint's address with a path behind it; a part may hold several segments.
    fn url(&self, head: &[&str], tail: &[&str]) -> Url {
        let mut url = self.endpoint.clone();
        url.path_segments_mut()
            .expect(HAS_A_PATH)
            .pop_if_empty()
            .extend(head.iter().chain(tail).flat_map(|part| part.split('/')));
        url
    }

    /// A request that carries the token if it goes to the hub itself.
    fn request(&self, client: &Client, method: Method, url: Url) -> RequestBuilder {
        let own = url.origin() == self.endpoint.origin();
        // Compressed bytes could neither be counted nor gone on with.
        let request = client.request(method, url).header(header::ACCEPT_ENCODING, "identity");
        match &self.settings.token {
            Some(token) if own => request.bearer_auth(token),
            _ => request,
        }
    }

    /// One try at one request: an answer with a body or a redirect, or what its status means.
    async fn send(&self, request: RequestBuilder, what: &str) -> Result<Response, Failure> {
        let response = request.send().await.map_err(|error| match error.is_redirect() {
            true => self.answer_error(what, reason(&error)).into(),
            false => Failure::from(error),
        })?;
        let status = response.status();
        let asked_too_far = status == StatusCode::RANGE_NOT_SATISFIABLE;
        if status.is_success() || status.is_redirection() || asked_too_far {
            return Ok(response);
        }
        let host = response.url().host_str().unwrap_or_default().to_string();
        let failure = self.refusal(status, host, retry_after(response.headers()), what);
        Err(match failure {
            // The hub let us pass: a token would not help.
            Failure::Final(_) if response.url().origin() != self.endpoint.origin() => {
                let store = response.url().origin().ascii_serialization();
                self.answer_error(what, format!("it redirects to {store}, which answers {status}")).into()
            }
            failure => failure,
        })
    }

    /// What a status that refuses means.
    fn refusal(
        &self,
        status: StatusCode,
        host: String,
        retry_after: Option<Duration>,
        what: &str,
    ) -> Failure {
        let endpoint = self.settings.endpoint.clone();
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let token = self.settings.token.is_some();
                HubError::Denied { endpoint, repo: self.repo.into(), status: status.as_u16(), token }.into()
            }
            StatusCode::NOT_FOUND => HubError::NotFound { endpoint, what: self.named(what) }.into(),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                Failure::Busy { host, status, retry_after }
            }
            _ if status.is_server_error() => Failure::Busy { host, status, retry_after },
            _ => self.answer_error(what, format!("status {status}")).into(),
        }
    }

    /// The model, or the file and its model.
    fn named(&self, what: &str) -> String {
        if what == self.repo { format!("model `{what}`") } else { format!("`{what}` of `{}`", self.repo) }
    }
}

/// The `Retry-After` of an answer. The hub writes seconds; a date counts as none.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// Whether a text from the hub may become the name of a file.
fn is_plain(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !text.is_empty() && text.len() <= 200 && text.bytes().all(plain) && !text.starts_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_a_file_cannot_leave_its_folder() {
        assert!(is_plain("6bd1c0e1a2") && is_plain("a-b_c.d"));
        assert!(
            !is_plain("../a") && !is_plain("..") && !is_plain("") && !is_plain("a/b") && !is_plain("a\\b")
        );
    }

    #[test]
    fn only_64_digits_are_a_sha256() {
        let entry = |etag: &str| Entry { etag: etag.into(), size: None };
        assert_eq!(entry(&"aB3".repeat(21)).sha256(), None);
        assert_eq!(entry(&"ab".repeat(32)).sha256(), Some(&*"ab".repeat(32)));
        assert_eq!(entry(&"zz".repeat(32)).sha256(), None);
    }
}
