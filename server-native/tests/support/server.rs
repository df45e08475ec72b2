//! A server in this process, on a port of its own, and a client that sends what it is told to.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use inkling_engine::{
    checkpoint::LoadOptions,
    graph::{Graph, spec},
};
use inkling_server::{
    host::{Host, Limits, Load},
    http::{self, Site},
    load,
    models::{Source, locate_node},
};
use serde_json::Value;
use tokio::sync::oneshot;

pub(crate) const LIMITS: Limits =
    Limits { timeout: Some(Duration::from_secs(60)), max_concurrency: 32, max_batch_size: 8, threads: 2 };

/// Ends with the test that started it.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Server {
    /// Serves a graph; comes back at once, loaded or not.
    pub(crate) fn start(graph: Graph, limits: Limits, load: impl FnMut(&spec::Node) -> Load) -> Server {
        Server::start_with(graph, limits, Site::default(), load)
    }

    /// The same with a page, or with other origins allowed.
    pub(crate) fn start_with(
        graph: Graph,
        limits: Limits,
        site: Site,
        load: impl FnMut(&spec::Node) -> Load,
    ) -> Server {
        let host = Host::start(graph, limits, load).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = http::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                let stop = async {
                    let _ = stopped.await;
                };
                http::serve(listener, http::router(host, &site), stop, Duration::from_secs(5)).await.unwrap();
            });
        });
        Server { addr: told.recv().unwrap(), stop: Some(stop), thread: Some(thread) }
    }

    /// Serves the default graph on the models of a folder; comes back when it is ready.
    pub(crate) fn of_folder(folder: &std::path::Path, limits: Limits) -> Server {
        let source = Source::Folder(folder.into());
        let server = Server::start(Graph::default(), limits, |node| load_from(node.clone(), source.clone()));
        server.wait_until_ready();
        server
    }

    pub(crate) fn wait_until_ready(&self) {
        let began = Instant::now();
        while self.get("/readyz").status != 200 {
            assert!(began.elapsed() < Duration::from_secs(30), "never ready: {:?}", self.get("/readyz"));
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asks to end, and does not wait.
    pub(crate) fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    /// Asks to end, and waits until the server has.
    pub(crate) fn join(mut self) {
        self.stop();
        self.thread.take().unwrap().join().unwrap();
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.send(&format!("GET {path} HTTP/1.1\r\n"), b"")
    }

    pub(crate) fn post(&self, path: &str, content_type: &str, body: impl AsRef<[u8]>) -> Reply {
        self.send(&format!("POST {path} HTTP/1.1\r\ncontent-type: {content_type}\r\n"), body.as_ref())
    }

    pub(crate) fn post_json(&self, path: &str, body: &Value) -> Reply {
        self.post(path, "application/json", body.to_string())
    }

    /// Sends a head's beginning and a body, with the headers that every request needs.
    pub(crate) fn send(&self, head: &str, body: &[u8]) -> Reply {
        let length = body.len();
        let head = format!("{head}host: test\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
        let mut stream = self.connect();
        stream.write_all(head.as_bytes()).unwrap();
        // A server that said no already may have closed its end.
        let _ = stream.write_all(body);
        read_reply(&mut stream)
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub(crate) fn load_from(node: spec::Node, source: Source) -> Load {
    Box::new(move |progress| {
        let located = locate_node(&node, &source, progress)?;
        Ok(Box::new(load::load(&located, LoadOptions::default(), None, progress)?))
    })
}

pub(crate) fn read_reply(stream: &mut TcpStream) -> Reply {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("an answer has a head");
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
    let body = &bytes[end + 4..];
    let body = if head.contains("transfer-encoding: chunked") { unchunk(body) } else { body.to_vec() };
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Reply { status, head, body: String::from_utf8(body).unwrap() }
}

fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
        if size == 0 || bytes.len() < end + 2 + size {
            break;
        }
        whole.extend(&bytes[end + 2..end + 2 + size]);
        bytes = &bytes[end + 4 + size..];
    }
    whole
}

impl Reply {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")))
    }
}
