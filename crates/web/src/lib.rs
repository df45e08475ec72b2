//! Inkling's engine for JavaScript.
//!
//! One WebAssembly module serves every thread. The thread that uses the API holds a [`GraphSpec`] and a [`Course`] for
//! each run, which drive the engine's graph runner; each worker holds a [`Node`], which loads one model and does its
//! jobs. `js/inkling.js` carries messages between them; where there are no workers it calls the nodes directly.
//!
//! - [`course`]: a request in, jobs out, events and the answer back;
//! - [`node`]: one model: it loads, runs jobs, and gives the event loop a turn between tokens;
//! - [`load`]: a model's files, from wherever they come, become a model while they arrive;
//! - [`store`]: models that are kept in this browser;
//! - [`error`]: what went wrong, in one sentence that a person can act on;
//! - [`host`]: what differs between browsers, Node and edge runtimes.

pub mod course;
pub mod error;
pub mod host;
pub mod load;
pub mod node;
pub mod store;

pub use course::{Course, GraphSpec};
pub use node::Node;
use wasm_bindgen::prelude::*;

/// Runs when the module is instantiated: from then on a panic is told to every node of this thread before it ends the
/// module, since WebAssembly itself only says `unreachable`. And the kernels get a clock.
#[wasm_bindgen(start)]
pub fn start() {
    std::panic::set_hook(Box::new(|panic| node::announce_death(&panic.to_string())));
    #[cfg(target_feature = "simd128")]
    inkling_engine::kernels::lend_clock(host::now);
}

/// The instruction set that the kernels of this module run on, such as `RelaxedSimdUnsigned`.
#[wasm_bindgen]
#[must_use]
pub fn isa() -> String {
    format!("{:?}", inkling_engine::kernels::Isa::active())
}

/// Bytes of this module's linear memory. It never shrinks.
#[wasm_bindgen]
#[must_use]
pub fn memory_bytes() -> f64 {
    host::memory_bytes()
}
