//! What is kept of a load while it goes on, in this browser's storage.

use inkling_engine::checkpoint::packed::Head;

use crate::{
    error::{Failure, Result},
    store::{Keeper, Kept, Store},
};

/// What is kept of this load, if it is; a failure to keep it is no failure to load it.
pub(super) struct Keeping<'a> {
    pub(super) store: Option<&'a Store>,
    pub(super) keeper: Option<Keeper>,
    /// Small files that came before the keeper was opened: what is kept has to be read back first.
    pub(super) early: Vec<(String, Vec<u8>)>,
    pub(super) notice: Option<String>,
}

impl<'a> Keeping<'a> {
    pub(super) fn new(store: Option<&'a Store>) -> Keeping<'a> {
        Keeping { store, keeper: None, early: Vec::new(), notice: None }
    }

    /// Begins to keep the load, after what `kept` has of it.
    pub(super) async fn open(&mut self, head: Head, kept: Option<&Kept>) {
        let Some(store) = self.store else { return };
        match store.keep(head, kept).await {
            Ok(keeper) => self.keeper = Some(keeper),
            Err(failure) => self.give_up(failure).await,
        }
        for (name, content) in std::mem::take(&mut self.early) {
            self.note(|keeper| keeper.file(&name, &content)).await;
        }
    }

    pub(super) async fn note(&mut self, keep: impl FnOnce(&mut Keeper) -> Result<()>) {
        if let Some(Err(failure)) = self.keeper.as_mut().map(keep) {
            self.give_up(failure).await;
        }
    }

    /// Ends it so that another load can go on. Should that fail, it begins anew: the failure to tell is the load's.
    pub(super) async fn suspend(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.suspend().await;
        }
    }

    pub(super) async fn give_up(&mut self, failure: Failure) {
        self.notice = Some(failure.error);
        // Files have to be closed before they can be removed.
        self.keeper = None;
        if let Some(store) = self.store {
            store.remove().await;
        }
    }
}
