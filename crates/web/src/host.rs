//! What differs between browsers, Node and edge runtimes: clock, turns of the event loop, globals.

use std::{cell::RefCell, collections::VecDeque};

use js_sys::{Function, Object, Promise, Reflect};
use serde::Serialize;
use wasm_bindgen::{JsCast, JsValue, prelude::*};
use wasm_bindgen_futures::JsFuture;
use web_sys::{MessageChannel, MessagePort};

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = performance, js_name = now)]
    fn performance_now() -> f64;
    #[wasm_bindgen(js_name = setTimeout)]
    fn set_timeout(callback: &Function, milliseconds: f64) -> JsValue;
}

/// Milliseconds on a clock that never goes back.
#[must_use]
pub fn now() -> f64 {
    performance_now()
}

/// Bytes of this module's linear memory.
#[must_use]
pub fn memory_bytes() -> f64 {
    let memory: js_sys::WebAssembly::Memory = wasm_bindgen::memory().unchecked_into();
    let buffer: js_sys::ArrayBuffer = memory.buffer().unchecked_into();
    f64::from(buffer.byte_length())
}

/// A value of the globals, or undefined.
#[must_use]
pub fn global(name: &str) -> JsValue {
    property(&js_sys::global(), name)
}

/// A property, or undefined where there is none.
#[must_use]
pub fn property(of: &JsValue, name: &str) -> JsValue {
    if !of.is_object() && !of.is_function() {
        return JsValue::UNDEFINED;
    }
    Reflect::get(of, &name.into()).unwrap_or(JsValue::UNDEFINED)
}

/// A property that is a string.
#[must_use]
pub fn text(of: &JsValue, name: &str) -> Option<String> {
    property(of, name).as_string()
}

/// A plain object with these properties.
#[must_use]
pub fn object<const N: usize>(properties: [(&str, JsValue); N]) -> JsValue {
    let object = Object::new();
    for (name, value) in properties {
        Reflect::set(&object, &name.into(), &value).expect("a new object takes properties");
    }
    object.into()
}

/// A Rust value by way of JSON, in one piece: each property by itself would be a call. So numbers are those that the HTTP API
/// writes. Integers that a JavaScript number cannot hold, as seeds may be, travel in other ways.
#[must_use]
pub fn to_js(value: &impl Serialize) -> JsValue {
    let text = serde_json::to_string(value).expect("the protocol's types are plain data");
    js_sys::JSON::parse(&text).expect("it is JSON")
}

/// Waits.
pub async fn sleep(milliseconds: f64) {
    wait(|resolve| {
        set_timeout(&resolve, milliseconds);
    })
    .await;
}

/// Lets the event loop do what is due, such as taking a message that says to stop, and goes on at once.
///
/// `setTimeout` waits for 4 ms when it is nested, so it is the last choice.
pub async fn turn() {
    wait(|resolve| {
        let immediate: JsValue = global("setImmediate");
        if let Some(set_immediate) = immediate.dyn_ref::<Function>() {
            let _ = set_immediate.call1(&JsValue::UNDEFINED, &resolve);
        } else if !global("MessageChannel").is_undefined() {
            TURNS.with_borrow_mut(|turns| turns.get_or_insert_with(Turns::new).push(resolve));
        } else {
            set_timeout(&resolve, 0.0);
        }
    })
    .await;
}

async fn wait(begin: impl FnOnce(Function)) {
    let mut begin = Some(begin);
    let promise = Promise::new(&mut |resolve, _| {
        if let Some(begin) = begin.take() {
            begin(resolve);
        }
    });
    // A promise that is only ever resolved.
    let _ = JsFuture::from(promise).await;
}

thread_local! {
    static TURNS: RefCell<Option<Turns>> = const { RefCell::new(None) };
}

/// Those who wait for a turn: each message to oneself wakes the first of them.
struct Turns {
    waiting: VecDeque<Function>,
    to: MessagePort,
    _from: MessagePort,
    _wake: Closure<dyn FnMut()>,
}

impl Turns {
    fn new() -> Turns {
        let channel = MessageChannel::new().expect("the constructor exists");
        let wake = Closure::<dyn FnMut()>::new(|| {
            let next =
                TURNS.with_borrow_mut(|turns| turns.as_mut().and_then(|turns| turns.waiting.pop_front()));
            if let Some(resolve) = next {
                let _ = resolve.call0(&JsValue::UNDEFINED);
            }
        });
        let from = channel.port1();
        from.set_onmessage(Some(wake.as_ref().unchecked_ref()));
        Turns { waiting: VecDeque::new(), to: channel.port2(), _from: from, _wake: wake }
    }

    fn push(&mut self, resolve: Function) {
        self.waiting.push_back(resolve);
        self.to.post_message(&JsValue::NULL).expect("null can be cloned");
    }
}
