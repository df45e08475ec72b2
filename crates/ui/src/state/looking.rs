//! The alternatives of the token that the visitor looks at.

use leptos::prelude::*;

use super::{App, Picked};
use crate::browser;

impl App {
    /// Shows the alternatives of a token. One that the pointer passes does not replace one that was chosen.
    pub(crate) fn pick(self, picked: Picked) {
        self.hold_pick();
        let is_pinned = self.picked.with_untracked(|before| before.is_some_and(|before| before.pinned));
        if picked.pinned || !is_pinned {
            self.picked.set(Some(picked));
        }
    }

    /// The pointer left: alternatives that were not chosen go, after a moment in which it may come back.
    pub(crate) fn unpick_soon(self) {
        let mine = self.handles.try_update_value(|handles| {
            handles.leaving += 1;
            handles.leaving
        });
        browser::after(300, move || {
            let is_mine = self.handles.with_value(|handles| Some(handles.leaving) == mine);
            let is_pinned = self.picked.with_untracked(|picked| picked.is_some_and(|picked| picked.pinned));
            if is_mine && !is_pinned {
                self.picked.set(None);
            }
        });
    }

    /// The pointer came back.
    pub(crate) fn hold_pick(self) {
        self.handles.update_value(|handles| handles.leaving += 1);
    }
}
