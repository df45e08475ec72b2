//! Values on their way between the page and the engine: as JSON text, which a server's events are too. One reader of every
//! type, and a sixth of the page's weight less than with a second one.

use serde::{Deserialize, Serialize};
use wasm_bindgen::JsValue;
use wasm_bindgen_futures::JsFuture;

use super::LoadState;
use crate::format;

pub(super) fn set(object: &js_sys::Object, key: &str, value: &JsValue) {
    // Only a frozen object or a setter that throws could refuse, and these objects are plain and new.
    let _ = js_sys::Reflect::set(object, &key.into(), value);
}

pub(super) fn to_js(value: &impl Serialize) -> Result<JsValue, String> {
    let json = serde_json::to_string(value).map_err(|error| error.to_string())?;
    js_sys::JSON::parse(&json).map_err(sentence_of)
}

pub(super) fn from_js<T: for<'de> Deserialize<'de>>(value: JsValue) -> Result<T, String> {
    let json = js_sys::JSON::stringify(&value).ok().and_then(|json| json.as_string());
    // `undefined` has no text.
    let json = json.unwrap_or_else(|| "null".into());
    serde_json::from_str(&json).map_err(|error| {
        log(&format!("{error}: {json}").into());
        "The engine and the page do not fit together. Reload the page.".into()
    })
}

/// A node's state as it crosses; `None` if it is none.
pub(crate) fn load_state(value: JsValue) -> Option<LoadState> {
    from_js(value).ok()
}

pub(super) async fn settled(promise: Result<js_sys::Promise, JsValue>) -> Result<JsValue, String> {
    JsFuture::from(promise.map_err(sentence_of)?).await.map_err(sentence_of)
}

pub(super) async fn awaited<T: for<'de> Deserialize<'de>>(
    promise: Result<js_sys::Promise, JsValue>,
) -> Result<T, String> {
    from_js(settled(promise).await?)
}

pub(super) fn sentence_of(error: JsValue) -> String {
    let message = js_sys::Reflect::get(&error, &"message".into()).ok().and_then(|value| value.as_string());
    if message.is_none() {
        log(&error);
    }
    format::sentence(&message.unwrap_or_else(|| "the engine failed; the browser's console has more".into()))
}

pub(super) fn log(value: &JsValue) {
    web_sys::console::error_1(value);
}
