//! Small things that the page asks of the browser.

use wasm_bindgen::{JsCast, JsValue, closure::Closure};
use wasm_bindgen_futures::JsFuture;
use web_sys::{Document, HtmlElement, Window};

/// The window. The page does not run anywhere else.
pub(crate) fn window() -> Window {
    web_sys::window().expect("the page runs in a window, not in a worker")
}

/// The document.
pub(crate) fn document() -> Document {
    window().document().expect("a window has a document")
}

/// Whether the browser thinks that there is a network.
pub(crate) fn is_online() -> bool {
    web_sys::window().is_none_or(|window| window.navigator().on_line())
}

/// Moves the keyboard's focus to the element with this id.
pub(crate) fn focus(id: &str) {
    if let Some(element) = document().get_element_by_id(id).and_then(|element| element.dyn_into().ok()) {
        let element: HtmlElement = element;
        let _ = element.focus();
    }
}

/// Calls `action` before the next frame is drawn; in a hidden tab, where none is drawn, soon.
pub(crate) fn next_frame(action: impl FnOnce() + 'static) {
    let callback = Closure::once_into_js(action);
    let callback = callback.unchecked_ref();
    let window = window();
    let asked = if document().hidden() {
        window.set_timeout_with_callback_and_timeout_and_arguments_0(callback, 50)
    } else {
        window.request_animation_frame(callback)
    };
    debug_assert!(asked.is_ok(), "a window takes callbacks");
}

/// How far the page is scrolled down, in CSS pixels.
pub(crate) fn scroll() -> f64 {
    window().scroll_y().unwrap_or_default()
}

/// Whether the page has one column.
pub(crate) fn is_narrow() -> bool {
    matches("(max-width: 899px)")
}

/// Scrolls an element into view.
pub(crate) fn show(id: &str) {
    if let Some(element) = document().get_element_by_id(id) {
        let options = web_sys::ScrollIntoViewOptions::new();
        options.set_block(web_sys::ScrollLogicalPosition::Nearest);
        if !matches("(prefers-reduced-motion: reduce)") {
            options.set_behavior(web_sys::ScrollBehavior::Smooth);
        }
        element.scroll_into_view_with_scroll_into_view_options(&options);
    }
}

fn matches(query: &str) -> bool {
    window().match_media(query).ok().flatten().is_some_and(|list| list.matches())
}

/// Takes a link's fragment out of the page's address, once something else is run.
pub(crate) fn drop_fragment() {
    let location = window().location();
    let address = location.href().unwrap_or_default();
    if let Some((address, _)) = address.split_once('#')
        && let Ok(history) = window().history()
    {
        let _ = history.replace_state_with_url(&JsValue::NULL, "", Some(address));
    }
}

/// Calls `action` after a while.
pub(crate) fn after(ms: i32, action: impl FnOnce() + 'static) {
    let callback = Closure::once_into_js(action);
    let _ = window().set_timeout_with_callback_and_timeout_and_arguments_0(callback.unchecked_ref(), ms);
}

/// Puts text on the clipboard; whether the browser let it.
pub(crate) async fn copy(text: &str) -> bool {
    let navigator = window().navigator();
    // Only pages from https or this machine have a clipboard.
    let has_clipboard =
        js_sys::Reflect::get(&navigator, &"clipboard".into()).is_ok_and(|value| value.is_object());
    has_clipboard && JsFuture::from(navigator.clipboard().write_text(text)).await.is_ok()
}

/// Gives the visitor a file to keep.
pub(crate) fn download(name: &str, content_type: &str, content: &str) -> Result<(), JsValue> {
    let parts = js_sys::Array::of1(&JsValue::from_str(content));
    let options = web_sys::BlobPropertyBag::new();
    options.set_type(content_type);
    let blob = web_sys::Blob::new_with_str_sequence_and_options(&parts, &options)?;
    let address = web_sys::Url::create_object_url_with_blob(&blob)?;
    let link: web_sys::HtmlAnchorElement = document().create_element("a")?.unchecked_into();
    link.set_href(&address);
    link.set_download(name);
    link.click();
    // The browser has taken the file by then.
    after(10_000, move || {
        let _ = web_sys::Url::revoke_object_url(&address);
    });
    Ok(())
}

/// The text of a file.
pub(crate) async fn text_of(file: &web_sys::File) -> Option<String> {
    JsFuture::from(file.text()).await.ok()?.as_string()
}

/// What is kept under a key in this browser, if anything is.
pub(crate) fn kept(key: &str) -> Option<String> {
    window().local_storage().ok().flatten()?.get_item(key).ok().flatten()
}

/// Keeps something under a key, or forgets it. A browser that keeps nothing is no reason to stop.
pub(crate) fn keep(key: &str, value: Option<&str>) {
    if let Ok(Some(storage)) = window().local_storage() {
        let _ = match value {
            Some(value) => storage.set_item(key, value),
            None => storage.remove_item(key),
        };
    }
}
