//! The native home of Inkling: a command line and an HTTP server over the engine.
//!
//! The engine has no files, sockets, threads or clock; here they are. Modules, in the order in which data flows:
//!
//! - [`models`]: where models come from, and which folder a name means; [`hub`] fetches those that are elsewhere;
//! - [`load`]: the files of a folder become a model, streamed and hashed on the way;
//! - [`cache`]: what came out of large ones is kept, so that the next load is short;
//! - [`pool`]: threads for the kernels;
//! - [`host`]: a graph with a thread a node: requests in, events out;
//! - [`http`]: the host behind HTTP;
//! - [`cli`]: the program `inkling`.

pub mod cache;
pub mod cli;
mod disk;
pub mod host;
pub mod http;
pub mod hub;
pub mod load;
pub mod models;
pub mod pool;

/// Something that the caller can put right: a name, an option, an input. The program ends with 2 then, not with 1.
#[derive(Debug)]
pub struct Mistake(pub String);

impl std::fmt::Display for Mistake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Mistake {}
