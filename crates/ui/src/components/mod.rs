//! What is drawn. Each file is one thing that a visitor would name; none of them knows more than [`crate::state::App`].

#![expect(unreachable_pub, reason = "leptos's component macro makes the types of properties public")]

mod alternatives;
mod card;
mod drop;
mod happened;
mod history;
mod limits;
mod masthead;
mod models;
mod ribbon;
mod score;
mod sentence_box;
mod settings;
mod storage;
mod texts;
mod toolbar;
mod update;

pub(crate) use alternatives::Alternatives;
pub(crate) use drop::DropZone;
pub(crate) use happened::Happened;
pub(crate) use history::History;
pub(crate) use limits::Limits;
pub(crate) use masthead::Masthead;
pub(crate) use models::Models;
pub(crate) use ribbon::Ribbon;
pub(crate) use sentence_box::SentenceBox;
pub(crate) use settings::Settings;
pub(crate) use storage::Storage;
pub(crate) use texts::Texts;
pub(crate) use toolbar::{AfterRun, BeforeRun};
pub(crate) use update::Update;
