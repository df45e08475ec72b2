//! A proxy that lets nothing through and notes who was asked for: what a browser would have sent to other machines.
//! Chromium never uses a proxy for loopback addresses.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::Result;

/// Ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    at: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Listens at a free port.
    ///
    /// # Errors
    /// If there is none.
    pub fn start() -> Result<Proxy> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let at = listener.local_addr()?;
        let (asked, ends) = (Arc::default(), Arc::default());
        let thread = {
            let (asked, ends): (Arc<Mutex<Vec<String>>>, Arc<AtomicBool>) =
                (Arc::clone(&asked), Arc::clone(&ends));
            thread::spawn(move || {
                for stream in listener.incoming() {
                    if ends.load(Ordering::SeqCst) {
                        return;
                    }
                    let (Ok(mut stream), asked) = (stream, Arc::clone(&asked)) else { continue };
                    thread::spawn(move || {
                        let mut line = String::new();
                        // A connection that says nothing asks for nothing.
                        if BufReader::new(&stream).read_line(&mut line).is_ok() && !line.is_empty() {
                            asked
                                .lock()
                                .unwrap_or_else(PoisonError::into_inner)
                                .push(line.trim().to_string());
                            let _ = stream.write_all(
                                b"HTTP/1.1 403 no\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
                            );
                        }
                    });
                }
            })
        };
        Ok(Proxy { at, asked, ends, thread: Some(thread) })
    }

    /// The argument by which Chromium uses it.
    pub fn argument(&self) -> String {
        format!("--proxy-server=http://{}", self.at)
    }

    /// The first line of every request that came.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.at);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
