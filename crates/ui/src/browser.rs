//! Small things that the page asks of the browser.

use serde::Deserialize;
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

/// Focuses and clicks the element with this id.
pub(crate) fn press(id: &str) {
    if let Some(element) = document().get_element_by_id(id).and_then(|element| element.dyn_into().ok()) {
        let element: HtmlElement = element;
        let _ = element.focus();
        element.click();
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

/// The page's own files as its service worker keeps them for visits without a network.
const PAGE_CACHE: &str = "inkling-page-";

/// What the service worker keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct OwnCopy {
    /// Bytes of the page and its engine.
    pub(crate) page_bytes: f64,
    /// Bytes of the demo models.
    pub(crate) demo_bytes: f64,
}

/// What the service worker keeps, by the list that it puts beside it; nothing before that is whole.
pub(crate) async fn own_copy() -> Option<OwnCopy> {
    #[derive(Deserialize)]
    struct List {
        files: Vec<File>,
    }
    #[derive(Deserialize)]
    struct File {
        path: String,
        size_bytes: f64,
    }
    let caches = caches()?;
    for name in own_caches(&caches).await {
        let cache: web_sys::Cache = JsFuture::from(caches.open(&name)).await.ok()?.unchecked_into();
        let Ok(list) = JsFuture::from(cache.match_with_str("precache.json")).await else { continue };
        let Ok(list) = list.dyn_into::<web_sys::Response>() else { continue };
        let json = JsFuture::from(list.text().ok()?).await.ok()?.as_string()?;
        let List { files } = serde_json::from_str(&json).ok()?;
        let bytes = |is_demo: bool| {
            files
                .iter()
                .filter(|file| file.path.starts_with("models/") == is_demo)
                .map(|file| file.size_bytes)
                .sum()
        };
        return Some(OwnCopy { page_bytes: bytes(false), demo_bytes: bytes(true) });
    }
    None
}

/// Forgets what the service worker keeps, and the service worker; the next visit with a network brings both again.
pub(crate) async fn forget_own_copy() {
    let Some(caches) = caches() else { return };
    for name in own_caches(&caches).await {
        // One that is gone already is as good.
        let _ = JsFuture::from(caches.delete(&name)).await;
    }
    let registration = JsFuture::from(window().navigator().service_worker().get_registration()).await;
    if let Ok(Ok(registration)) =
        registration.map(|found| found.dyn_into::<web_sys::ServiceWorkerRegistration>())
        && let Ok(gone) = registration.unregister()
    {
        let _ = JsFuture::from(gone).await;
    }
}

/// The caches of this origin. Pages from plain http have none, and no service worker either.
fn caches() -> Option<web_sys::CacheStorage> {
    let caches = js_sys::Reflect::get(&window(), &"caches".into()).ok()?;
    caches.is_object().then(|| caches.unchecked_into())
}

async fn own_caches(caches: &web_sys::CacheStorage) -> Vec<String> {
    let names =
        JsFuture::from(caches.keys()).await.map(|names| js_sys::Array::from(&names)).unwrap_or_default();
    names.iter().filter_map(|name| name.as_string()).filter(|name| name.starts_with(PAGE_CACHE)).collect()
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
