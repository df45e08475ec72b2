//! A hub on loopback: it lists a model's files with sizes and hashes, sends them from a store on another port, notes
//! what is asked for, and fails on demand.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use anyhow::Result;
use serde_json::json;
use sha2::{Digest, Sha256};

/// The commit that every branch names.
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A way to fail, or to be slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection ends after so many bytes of the body.
    Cut(usize),
    /// One byte is another.
    Damage,
    /// 404.
    Gone,
    /// 404, as soon as these files have been asked for, too; or after ten seconds.
    GoneAfter(&'static [&'static str]),
    /// The body comes in so many pieces, a twentieth of a second apart.
    Slow(usize),
}

/// One request for a file's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The file.
    pub name: String,
    /// The header `Range`.
    pub range: Option<String>,
}

/// A reader that hung up before it had the whole body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HungUp {
    /// The file.
    pub name: String,
    /// Bytes of the body that were sent until then.
    pub sent: usize,
    /// When it was seen, within some milliseconds.
    pub at: SystemTime,
}

#[derive(Debug, Default)]
struct State {
    /// By `owner/name`, then by file.
    models: Mutex<BTreeMap<String, BTreeMap<String, Vec<u8>>>>,
    /// Sizes that the listing states in place of the true ones, by `owner/name` and file.
    announced: Mutex<BTreeMap<(String, String), u64>>,
    asked: Mutex<Vec<Asked>>,
    hung_up: Mutex<Vec<HungUp>>,
    /// File, fault, how often.
    faults: Mutex<Vec<(String, Fault, usize)>>,
    ends: AtomicBool,
}

/// The hub and its store; both end when dropped.
#[derive(Debug)]
pub struct Hub {
    state: Arc<State>,
    at: SocketAddr,
    threads: Vec<(SocketAddr, JoinHandle<()>)>,
}

impl Hub {
    /// A hub without models.
    ///
    /// # Errors
    /// If there is no free port.
    pub fn start() -> Result<Hub> {
        let state = Arc::new(State::default());
        let (hub, store) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
        let (at, store_at) = (hub.local_addr()?, store.local_addr()?);
        let serve = |listener: TcpListener, at: SocketAddr| {
            let state = Arc::clone(&state);
            let listen = move || {
                for stream in listener.incoming() {
                    if state.ends.load(Ordering::SeqCst) {
                        return;
                    }
                    let (Ok(stream), state) = (stream, Arc::clone(&state)) else { continue };
                    thread::spawn(move || state.answer(&stream, store_at));
                }
            };
            (at, thread::spawn(listen))
        };
        let threads = vec![serve(hub, at), serve(store, store_at)];
        Ok(Hub { state, at, threads })
    }

    /// Adds the files of a folder as a model.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn add(&self, id: &str, folder: &Path) -> Result<()> {
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            files.insert(name, std::fs::read(path)?);
        }
        locked(&self.state.models).insert(id.into(), files);
        Ok(())
    }

    /// Adds one file to a model, or puts it in another's place.
    pub fn put(&self, id: &str, file: &str, bytes: Vec<u8>) {
        locked(&self.state.models).entry(id.into()).or_default().insert(file.into(), bytes);
    }

    /// Lists a file as this large, whatever it is.
    pub fn announce(&self, id: &str, file: &str, size_bytes: u64) {
        locked(&self.state.announced).insert((id.into(), file.into()), size_bytes);
    }

    /// The next `times` requests for the bytes of `file` fail in this way.
    pub fn fail(&self, file: &str, fault: Fault, times: usize) {
        locked(&self.state.faults).push((file.into(), fault, times));
    }

    /// Nothing fails any more.
    pub fn forgive(&self) {
        locked(&self.state.faults).clear();
    }

    /// Its address.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.at)
    }

    /// Which bytes were asked for since the last call.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *locked(&self.state.asked))
    }

    /// Who hung up on a slow body since the last call.
    pub fn hung_up(&self) -> Vec<HungUp> {
        std::mem::take(&mut *locked(&self.state.hung_up))
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.state.ends.store(true, Ordering::SeqCst);
        for (at, thread) in self.threads.drain(..) {
            let _ = TcpStream::connect(at);
            let _ = thread.join();
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A status, headers and a body.
struct Answer(u16, Vec<(&'static str, String)>, Vec<u8>);

impl State {
    fn answer(&self, mut stream: &TcpStream, store: SocketAddr) {
        let mut lines =
            BufReader::new(stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
        let Some(first) = lines.next() else { return };
        let range =
            lines.filter_map(|line| line.split_once(": ").map(|(a, b)| (a.to_lowercase(), b.to_string())));
        let range = range.filter(|(name, _)| name == "range").map(|(_, value)| value).last();
        let mut words = first.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (Answer(status, headers, body), fault) = self.reply(path, range, store);
        if let Some(Fault::GoneAfter(others)) = fault {
            self.until_asked(others, Duration::from_secs(10));
        }
        let mut head =
            format!("HTTP/1.1 {status} .\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
        // As the real one: any page may read, also what browsers otherwise hide from it.
        head.push_str("Access-Control-Allow-Origin: *\r\nAccess-Control-Expose-Headers: *\r\n");
        head.push_str("Access-Control-Allow-Headers: *\r\nAccess-Control-Allow-Methods: GET, HEAD\r\n");
        for (name, value) in &headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        // A browser that hangs up early is its own affair.
        let _ = stream.write_all(format!("{head}\r\n").as_bytes());
        if method != "GET" {
            return;
        }
        match fault {
            Some(Fault::Cut(end)) => {
                let _ = stream.write_all(&body[..end.min(body.len())]);
                // Chromium throws away what it has not handed to the page when a connection breaks.
                thread::sleep(Duration::from_millis(200));
            }
            Some(Fault::Slow(pieces)) => {
                let mut sent = 0;
                for piece in body.chunks(body.len().div_ceil(pieces).max(1)) {
                    let is_sent = stream.write_all(piece).is_ok();
                    sent += if is_sent { piece.len() } else { 0 };
                    if !is_sent || is_gone(stream, Duration::from_millis(50)) {
                        let name = path.rsplit('/').next().unwrap_or_default().to_string();
                        locked(&self.hung_up).push(HungUp { name, sent, at: SystemTime::now() });
                        return;
                    }
                    if self.ends.load(Ordering::SeqCst) {
                        return;
                    }
                }
            }
            _ => drop(stream.write_all(&body)),
        }
    }

    /// Waits until all of these files have been asked for, or the time is over.
    fn until_asked(&self, names: &[&str], time: Duration) {
        let end = Instant::now() + time;
        let is_asked = |name: &&str| locked(&self.asked).iter().any(|asked| asked.name == *name);
        while !names.iter().all(is_asked) && Instant::now() < end && !self.ends.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn reply(&self, path: &str, range: Option<String>, store: SocketAddr) -> (Answer, Option<Fault>) {
        let models = locked(&self.models);
        let path = path.split('?').next().unwrap_or_default();
        for (id, files) in &*models {
            if path == format!("/api/models/{id}/revision/main") || path == format!("/api/models/{id}") {
                let listed = files.iter().map(|(name, bytes)| {
                    let announced = locked(&self.announced).get(&(id.clone(), name.clone())).copied();
                    let size = announced.unwrap_or(bytes.len() as u64);
                    let mut file = json!({"rfilename": name, "size": size});
                    if is_large(name) {
                        file["lfs"] = json!({"sha256": hash(bytes), "size": size});
                    }
                    file
                });
                let listing = json!({"id": id, "sha": COMMIT, "siblings": listed.collect::<Vec<_>>()});
                return (
                    Answer(
                        200,
                        vec![("Content-Type", "application/json".into())],
                        listing.to_string().into(),
                    ),
                    None,
                );
            }
            let resolve = [format!("/{id}/resolve/{COMMIT}/"), format!("/{id}/resolve/main/")];
            let name = resolve.iter().find_map(|prefix| path.strip_prefix(prefix.as_str()));
            if let Some((name, bytes)) = name.and_then(|name| files.get_key_value(name)) {
                if is_large(name) {
                    let to = format!("http://{store}/{id}/{name}");
                    return (Answer(302, vec![("Location", to)], Vec::new()), None);
                }
                return self.file(name, bytes, range);
            }
            if let Some((name, bytes)) =
                path.strip_prefix(&format!("/{id}/")).and_then(|name| files.get_key_value(name))
            {
                return self.file(name, bytes, range);
            }
        }
        (Answer(404, Vec::new(), br#"{"error": "Repository not found"}"#.to_vec()), None)
    }

    fn file(&self, name: &str, bytes: &[u8], range: Option<String>) -> (Answer, Option<Fault>) {
        locked(&self.asked).push(Asked { name: name.into(), range: range.clone() });
        let mut faults = locked(&self.faults);
        let planned = faults.iter_mut().find(|(at, _, times)| at == name && *times > 0);
        let fault = planned.map(|(_, fault, times)| {
            *times -= 1;
            *fault
        });
        if let Some(Fault::Gone | Fault::GoneAfter(_)) = fault {
            return (Answer(404, Vec::new(), b"not found".to_vec()), fault);
        }
        let mut bytes = bytes.to_vec();
        if fault == Some(Fault::Damage) {
            // Far behind the header, so that only the hash can tell.
            let at = bytes.len() - 8;
            bytes[at] ^= 1;
        }
        let mut headers = vec![("ETag", format!("\"{}\"", hash(&bytes))), ("Accept-Ranges", "bytes".into())];
        // Else Chromium's own cache would keep the beginning of a file that was cut, and ask in the page's place.
        headers.push(("Cache-Control", "no-store".into()));
        let start =
            range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
        let Some(start) = start else { return (Answer(200, headers, bytes), fault) };
        headers.push(("Content-Range", format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len())));
        (Answer(206, headers, bytes.split_off(start)), fault)
    }
}

/// Waits for a time, or until the other side has closed the connection; whether it has.
fn is_gone(stream: &TcpStream, time: Duration) -> bool {
    // Nothing more is expected to be said on this connection, so a read ends with the time or with the connection.
    let _ = stream.set_read_timeout(Some(time));
    match (&mut &*stream).read(&mut [0]) {
        Ok(count) => count == 0,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

/// Whether the hub keeps such a file in its store.
fn is_large(name: &str) -> bool {
    name.ends_with(".safetensors") || name.ends_with(".gguf")
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
