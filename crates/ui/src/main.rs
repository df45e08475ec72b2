//! Inkling's page.
//!
//! - [`run`]: the state of a run, a pure fold over the protocol's events;
//! - [`engine`] and [`server`]: the two places where a run can happen, this page and a server ([`sse`]);
//! - [`device`]: whether this device can hold models; [`files`]: those that the visitor gives;
//! - [`kept`]: what the visitor chose, until the next visit;
//! - [`link`], [`history`], [`models`], [`settings`], [`status`], [`format`]: what a link, a past run, a choice of models
//!   and so on are, as plain data;
//! - [`state`]: the page's state as signals, and what a visitor can do;
//! - [`components`]: what is drawn; [`app`] puts it together.
//! - [`browser`]: small things that are asked of the browser.

mod app;
mod browser;
mod components;
mod device;
mod engine;
mod files;
mod format;
mod history;
mod kept;
mod link;
mod models;
mod run;
mod server;
mod settings;
mod sse;
mod state;
mod status;

fn main() {
    app::mount();
}
