//! A small hub on loopback: a listing, files that the hub serves itself, and large ones behind a redirect to a store on
//! another port. It speaks as much HTTP as the hub's clients ask for, notes what they ask, and fails on demand.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use sha2::{Digest, Sha256};

/// The commit that every branch names.
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// One request, as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// `GET hub /api/...` or `GET store /...`.
    pub(crate) what: String,
    /// The header `Range`.
    pub(crate) range: Option<String>,
    /// The header `Authorization`.
    pub(crate) authorization: Option<String>,
}

/// A way to fail.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// The connection ends after so many bytes of the body.
    Cut(usize),
    /// So many bytes of the body come, then nothing.
    Silence(usize),
    /// So many bytes of the body come, and the rest a while later.
    Slow(usize),
    /// One byte is another.
    Damage,
    /// A status, and a `Retry-After` in seconds.
    Status(u16, Option<u64>),
    /// The whole file, whatever part was asked for.
    NoRange,
    /// A body that is not the hub's.
    Html,
    /// The hub's own headers are missing, as behind a mirror that only redirects.
    Bare,
}

struct Planned {
    at: String,
    fault: Fault,
    times: usize,
}

struct File {
    name: String,
    sha256: String,
    bytes: Vec<u8>,
    large: bool,
}

impl File {
    fn new(name: &str, bytes: Vec<u8>, large: bool) -> File {
        File { name: name.into(), sha256: hash(&bytes), bytes, large }
    }
}

#[derive(Default)]
struct State {
    repo: Mutex<String>,
    renamed_from: Mutex<Option<String>>,
    files: Mutex<Vec<File>>,
    pull: Mutex<Option<File>>,
    asked: Mutex<Vec<Asked>>,
    faults: Mutex<Vec<Planned>>,
    ends: AtomicBool,
}

/// The hub and its store; both end when it is dropped.
pub(crate) struct FakeHub {
    state: Arc<State>,
    hub: SocketAddr,
    threads: Vec<(SocketAddr, JoinHandle<()>)>,
}

impl FakeHub {
    /// A hub with one empty repository.
    pub(crate) fn new(repo: &str) -> FakeHub {
        let state = Arc::new(State::default());
        *state.repo.lock().unwrap() = repo.into();
        let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (hub, store) = (bind(), bind());
        let (hub_at, store_at) = (hub.local_addr().unwrap(), store.local_addr().unwrap());
        let serve = |listener: TcpListener, is_hub: bool| {
            let (at, state) = (listener.local_addr().unwrap(), Arc::clone(&state));
            let listen = move || {
                for stream in listener.incoming() {
                    if state.ends.load(Ordering::SeqCst) {
                        return;
                    }
                    let state = Arc::clone(&state);
                    thread::spawn(move || stream.map(|stream| state.answer(stream, is_hub, store_at)));
                }
            };
            (at, thread::spawn(listen))
        };
        let threads = vec![serve(hub, true), serve(store, false)];
        FakeHub { state, hub: hub_at, threads }
    }

    /// A hub with a whole model: small files, large weights, and what nobody should fetch.
    pub(crate) fn with_model(repo: &str, weights: Vec<u8>) -> FakeHub {
        FakeHub::new(repo)
            .file("config.json", br#"{"model_type": "gpt2"}"#.to_vec())
            .file("tokenizer.json", b"{}".to_vec())
            .file("tokenizer_config.json", br#"{"eos_token": "<|endoftext|>"}"#.to_vec())
            .file("README.md", b"# a model".to_vec())
            .large("pytorch_model.bin", vec![1; 1000])
            .large("onnx/model.safetensors", vec![2; 1000])
            .large("model.safetensors", weights)
    }

    /// Adds a file that the hub serves itself.
    pub(crate) fn file(self, name: &str, bytes: Vec<u8>) -> FakeHub {
        self.state.files.lock().unwrap().push(File::new(name, bytes, false));
        self
    }

    /// Adds a file that the store serves.
    pub(crate) fn large(self, name: &str, bytes: Vec<u8>) -> FakeHub {
        self.state.files.lock().unwrap().push(File::new(name, bytes, true));
        self
    }

    /// Adds a pull request by the hub's bot, which adds one large file.
    pub(crate) fn pull_request(self, name: &str, bytes: Vec<u8>) -> FakeHub {
        *self.state.pull.lock().unwrap() = Some(File::new(name, bytes, true));
        self
    }

    /// Has the hub redirect this older id to the repository.
    pub(crate) fn renamed_from(self, id: &str) -> FakeHub {
        *self.state.renamed_from.lock().unwrap() = Some(id.into());
        self
    }

    /// The next `times` requests whose text holds `at`, such as `GET store`, fail.
    pub(crate) fn fail(&self, at: &str, fault: Fault, times: usize) {
        self.state.faults.lock().unwrap().push(Planned { at: at.into(), fault, times });
    }

    /// Where it is.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.hub)
    }

    /// What was asked since the last call.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.state.asked.lock().unwrap())
    }
}

impl Drop for FakeHub {
    fn drop(&mut self) {
        self.state.ends.store(true, Ordering::SeqCst);
        for (at, thread) in self.threads.drain(..) {
            let _ = TcpStream::connect(at);
            let _ = thread.join();
        }
    }
}

/// What goes back: a status, headers, a body.
struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Answer {
        Answer { status, headers: Vec::new(), body: body.into() }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Answer {
        self.headers.push((name, value.into()));
        self
    }
}

impl State {
    fn answer(&self, stream: TcpStream, is_hub: bool, store: SocketAddr) {
        let mut lines =
            BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
        let Some(first) = lines.next() else { return };
        let headers: Vec<String> = lines.collect();
        let header = |name: &str| {
            let found = headers.iter().filter_map(|line| line.split_once(": "));
            found
                .into_iter()
                .find(|(own, _)| own.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.to_string())
        };
        let mut words = first.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let what = format!("{method} {} {path}", if is_hub { "hub" } else { "store" });
        let range = header("range");
        let asked =
            Asked { what: what.clone(), range: range.clone(), authorization: header("authorization") };
        self.asked.lock().unwrap().push(asked);

        let fault = self.fault(&what);
        let mut answer = match fault {
            Some(Fault::Status(status, retry_after)) => {
                let answer = Answer::new(status, "no");
                match retry_after {
                    Some(seconds) => answer.with("Retry-After", seconds.to_string()),
                    None => answer,
                }
            }
            Some(Fault::Html) => Answer::new(200, "<html>log in</html>"),
            _ if is_hub => self.hub(path, store),
            _ => self.store(path),
        };
        if let (200, Some(start), false) = (answer.status, range, matches!(fault, Some(Fault::NoRange))) {
            let start: usize = start.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
            let size = answer.body.len();
            answer.status = 206;
            answer.body.drain(..start);
            answer = answer.with("Content-Range", format!("bytes {start}-{}/{size}", size - 1));
        }
        if matches!(fault, Some(Fault::Bare)) {
            answer.headers.retain(|(name, _)| !name.starts_with("X-"));
        }
        if matches!(fault, Some(Fault::Damage)) {
            let middle = answer.body.len() / 2;
            answer.body[middle] ^= 1;
        }
        let end = match fault {
            Some(Fault::Cut(end) | Fault::Silence(end) | Fault::Slow(end)) => end,
            _ => answer.body.len(),
        };
        let mut head = format!("HTTP/1.1 {} .\r\nConnection: close\r\n", answer.status);
        let _ = write!(head, "Content-Length: {}\r\n", answer.body.len());
        for (name, value) in &answer.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        // A client that hangs up early is its own affair.
        let _ = (&stream).write_all(format!("{head}\r\n").as_bytes());
        if method != "HEAD" {
            let _ = (&stream).write_all(&answer.body[..end]);
        }
        if matches!(fault, Some(Fault::Slow(_))) {
            thread::sleep(Duration::from_millis(300));
            let _ = (&stream).write_all(&answer.body[end..]);
        }
        while matches!(fault, Some(Fault::Silence(_))) && !self.ends.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn fault(&self, what: &str) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap();
        let planned = faults.iter_mut().find(|planned| planned.times > 0 && what.contains(&planned.at))?;
        planned.times -= 1;
        Some(planned.fault)
    }

    fn hub(&self, path: &str, store: SocketAddr) -> Answer {
        let repo = self.repo.lock().unwrap().clone();
        let path = path.split('?').next().unwrap_or_default();
        if let Some(old) = &*self.renamed_from.lock().unwrap()
            && path.contains(old.as_str())
        {
            return Answer::new(307, "").with("Location", path.replacen(old.as_str(), &repo, 1));
        }
        let files = self.files.lock().unwrap();
        let pull = self.pull.lock().unwrap();
        if path == format!("/api/models/{repo}/revision/main") {
            return listing(&repo, COMMIT, files.iter());
        }
        if let Some(pull) = &*pull
            && path == format!("/api/models/{repo}/discussions")
        {
            let title = "Adding `safetensors` variant of this model";
            let by = |num: u32, author: &str| {
                format!(
                    r#"{{"num": {num}, "title": "{title}", "isPullRequest": true, "author": {{"name": "{author}"}}}}"#
                )
            };
            assert!(pull.large);
            let body = format!(r#"{{"discussions": [{}, {}]}}"#, by(1, "somebody"), by(2, "SFconvertbot"));
            return Answer::new(200, body);
        }
        if path == format!("/api/models/{repo}/revision/refs%2Fpr%2F2") {
            return listing(&repo, PULL_COMMIT, files.iter().chain(&*pull));
        }
        for commit in [COMMIT, PULL_COMMIT] {
            let Some(name) = path.strip_prefix(&format!("/{repo}/resolve/{commit}/")) else { continue };
            let Some(file) = files.iter().chain(&*pull).find(|file| file.name == name) else { continue };
            let sha256 = &file.sha256;
            return if file.large {
                Answer::new(302, "moved")
                    .with("X-Repo-Commit", commit)
                    .with("X-Linked-Etag", format!("\"{sha256}\""))
                    .with("X-Linked-Size", file.bytes.len().to_string())
                    // The hub stores large files in Xet, and says so to everyone.
                    .with("X-Xet-Hash", sha256.clone())
                    .with("Location", format!("http://{store}/{sha256}?signed=yes"))
            } else {
                // Git's ids have 40 digits.
                let etag = format!("\"{}\"", &sha256[..40]);
                Answer::new(200, file.bytes.clone()).with("X-Repo-Commit", commit).with("ETag", etag)
            };
        }
        Answer::new(404, r#"{"error": "Repository not found"}"#)
    }

    fn store(&self, path: &str) -> Answer {
        let files = self.files.lock().unwrap();
        let pull = self.pull.lock().unwrap();
        let file = files.iter().chain(&*pull).find(|file| path == format!("/{}?signed=yes", file.sha256));
        match file {
            Some(file) => Answer::new(200, file.bytes.clone()).with("ETag", "\"the store's own\""),
            None => Answer::new(403, "not signed"),
        }
    }
}

const PULL_COMMIT: &str = "76543210fedcba9876543210fedcba9876543210";

fn listing<'a>(repo: &str, commit: &str, files: impl Iterator<Item = &'a File>) -> Answer {
    let names: Vec<String> = files.map(|file| format!(r#"{{"rfilename": "{}"}}"#, file.name)).collect();
    Answer::new(200, format!(r#"{{"id": "{repo}", "sha": "{commit}", "siblings": [{}]}}"#, names.join(", ")))
}

/// SHA-256 in hexadecimal.
pub(crate) fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
