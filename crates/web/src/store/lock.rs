//! Web Locks: one owner at a time, over all tabs and workers of an origin.

use std::{cell::RefCell, rc::Rc};

use js_sys::{Function, Promise};
use wasm_bindgen::{JsCast, prelude::*};
use wasm_bindgen_futures::JsFuture;
use web_sys::AbortSignal;

use crate::{
    error::{Failure, Kind, Result},
    host,
    load::source::stopped,
};

#[wasm_bindgen]
extern "C" {
    type LockManager;
    #[wasm_bindgen(method)]
    fn request(this: &LockManager, name: &str, options: &JsValue, callback: &Function) -> Promise;
}

/// A lock that is held until it is dropped.
pub(crate) struct Lock {
    release: Function,
}

impl Lock {
    /// Waits for the lock `name`; nothing where the host has no locks.
    pub(crate) async fn acquire(name: &str, signal: &AbortSignal) -> Result<Option<Lock>> {
        let locks = host::property(&host::global("navigator"), "locks");
        if !locks.is_object() {
            return Ok(None);
        }
        let locks: LockManager = locks.unchecked_into();
        let release: Rc<RefCell<Option<Function>>> = Rc::default();
        let kept = Rc::clone(&release);
        let granted = Promise::new(&mut |resolve, reject| {
            let kept = Rc::clone(&kept);
            // The lock is held as long as the promise that this answers with is open.
            let callback = Closure::once_into_js(move || {
                let held = Promise::new(&mut |resolve, _| *kept.borrow_mut() = Some(resolve));
                let _ = resolve.call0(&JsValue::UNDEFINED);
                held
            });
            let options = host::object([("signal", signal.into())]);
            let request = locks.request(name, &options, callback.unchecked_ref());
            let refused = Closure::once_into_js(move |thrown: JsValue| {
                let _ = reject.call1(&JsValue::UNDEFINED, &thrown);
            });
            let catch: Function = host::property(&request, "catch").unchecked_into();
            let _ = catch.call1(&request, &refused);
        });
        match JsFuture::from(granted).await {
            Ok(_) => {
                let release = release.borrow_mut().take().expect("granted after it was set");
                Ok(Some(Lock { release }))
            }
            Err(_) if signal.aborted() => Err(stopped()),
            Err(thrown) => {
                Err(Failure::thrown(Kind::Storage, "The browser's storage cannot be locked", &thrown))
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.release.call0(&JsValue::UNDEFINED);
    }
}
