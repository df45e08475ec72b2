//! What is kept of a load, in a worker of a browser: in its private file system, and in the Cache API where there is
//! none that can be written without waiting.
//!
//! `cargo xtask test --only browser` runs these; nothing of them is there in Node.

use inkling_engine::{checkpoint::Dtype, kernels::SingleThread, protocol::Classification};
use js_sys::{Array, Function, Object, Reflect, Uint8Array};
use std::cell::RefCell;
use wasm_bindgen::JsCast;
use wasm_bindgen_futures::JsFuture;
use wasm_bindgen_test::wasm_bindgen_test;
use web_sys::{AbortController, Blob};

use super::*;
use crate::{
    host,
    store::{Tail, forget, stored},
};

const WEIGHTS: &str = "model.safetensors";

/// The demo critic's files.
const FILES: [(&str, &[u8]); 4] = [
    ("config.json", include_bytes!("../../../../models/demo/critic/config.json")),
    (WEIGHTS, include_bytes!("../../../../models/demo/critic/model.safetensors")),
    ("tokenizer.json", include_bytes!("../../../../models/demo/critic/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("../../../../models/demo/critic/tokenizer_config.json")),
];

fn weights() -> &'static [u8] {
    FILES[1].1
}

/// Its files with the hashes that a hub would list. Of the weights only so many bytes come, if that is said.
fn critic(weights_end: Option<usize>) -> Source {
    let file = |(name, bytes): &(&str, &'static [u8])| {
        let blob = |bytes: &[u8]| {
            Blob::new_with_u8_array_sequence(&Array::of1(&Uint8Array::from(bytes))).expect("a blob")
        };
        let content = match weights_end.filter(|_| *name == WEIGHTS) {
            Some(end) => Place::Stream(blob(&bytes[..end]).stream()),
            None => Place::Blob(blob(bytes)),
        };
        let sha256 = Some(hexadecimal(&Sha256::digest(bytes)));
        SourceFile { name: (*name).into(), size_bytes: Some(bytes.len() as u64), sha256, content }
    };
    Source { name: "critic".into(), files: FILES.iter().map(file).collect() }
}

/// Where a browser keeps models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Medium {
    /// The origin's private file system.
    Opfs,
    /// The Cache API, because files cannot be written without waiting: Safari before 16, Firefox before 111.
    Cache,
}

/// The place of a model, as a browser with this medium opens it; empty.
async fn open(medium: Medium, key: &str) -> Store {
    let prototype = host::property(&host::global("FileSystemFileHandle"), "prototype");
    let name = "createSyncAccessHandle".into();
    let method: Function = Reflect::get(&prototype, &name).expect("a property").unchecked_into();
    if medium == Medium::Cache {
        Reflect::delete_property(prototype.unchecked_ref::<Object>(), &name)
            .expect("a method can be taken away");
    }
    let store = Store::open(key, Dtype::Q8).await;
    Reflect::set(&prototype, &name, &method).expect("and be given back");
    let store = store.expect("a worker of a browser keeps models");
    assert_eq!(store.is_files(), medium == Medium::Opfs);
    store.remove().await;
    store
}

/// Loads, and says from which byte on the weights were read; nothing if they were not.
async fn load_from(source: Source, store: &Store) -> (Result<Loaded>, Option<u64>) {
    let controller = AbortController::new().expect("every host has it");
    let began = RefCell::new(None);
    let report = |progress: &Progress| {
        if progress.file == WEIGHTS {
            began.borrow_mut().get_or_insert(progress.bytes);
        }
    };
    let options = Options::read(&JsValue::UNDEFINED).expect("the defaults are right");
    let load = Load {
        kept: store.read(Dtype::Q8).await,
        source,
        store: Some(store),
        asked: Default::default(),
        options: &options,
        signal: &controller.signal(),
        report: &report,
    };
    let loaded = load.run().await;
    let began = *began.borrow();
    (loaded, began)
}

fn judged(loaded: &Loaded) -> Classification {
    let LoadedTask::Classify(critic) = &loaded.model.task else { panic!("the critic is a classifier") };
    let texts = ["This movie is wonderful, I loved it."];
    critic.classify(&texts, &SingleThread).expect("a text").remove(0)
}

async fn is_complete(store: &Store) -> bool {
    store.read(Dtype::Q8).await.is_some_and(|kept| kept.index.complete.is_some())
}

/// Changes one byte of what is kept, in the middle of the weights.
async fn damage(store: &Store, medium: Medium) {
    let kept = store.read(Dtype::Q8).await.expect("it is kept");
    let (mut bytes, middle) = (vec![0; kept.index.data_bytes as usize], kept.index.data_bytes as usize / 2);
    let all = kept.index.pieces.first().expect("there are pieces").clone();
    kept.open().await.read(&all, 0, &mut bytes).await.expect("all of it lies behind the first piece");
    bytes[middle] ^= 1;
    store.replace_data(kept, &bytes).await;
    assert!(is_complete(store).await, "{medium:?}: its size is right");
}

async fn a_kept_model_is_the_same_model(medium: Medium) {
    let store = open(medium, &format!("kept {medium:?}")).await;
    let (first, began) = load_from(critic(None), &store).await;
    let first = first.expect("a whole model");
    assert_eq!((began, first.notice.as_deref()), (Some(0), None));
    assert!(is_complete(&store).await);
    let kept = store.read(Dtype::Q8).await.expect("it is kept");
    let source = Source::kept(&kept.index.head.source).expect("it says what it was made from");
    let (second, began) = load_from(source, &store).await;
    let second = second.expect("all of it is here");
    assert_eq!(began, None, "the weights are not read again");
    assert_eq!((&second.model.sha256, judged(&second)), (&first.model.sha256, judged(&first)));
    store.remove().await;
    assert!(store.read(Dtype::Q8).await.is_none());
}

async fn a_load_that_broke_goes_on_after_its_last_tensor(medium: Medium) {
    let store = open(medium, &format!("broken {medium:?}")).await;
    let cut = weights().len() * 9 / 10;
    let (broken, _) = load_from(critic(Some(cut)), &store).await;
    assert_eq!(broken.err().map(|failure| failure.kind), Some(Kind::Network));
    let (whole, began) = load_from(critic(None), &store).await;
    let (whole, began) = (whole.expect("the rest comes"), began.expect("the weights are read"));
    assert!(began > cut as u64 / 2 && began <= cut as u64, "{medium:?}: cut at {cut}, gone on at {began}");
    assert!(is_complete(&store).await);
    store.remove().await;
    let (other, _) = load_from(critic(None), &store).await;
    let other = other.expect("a whole model");
    assert_eq!((&whole.model.sha256, judged(&whole)), (&other.model.sha256, judged(&other)));
    store.remove().await;
}

async fn a_changed_byte_is_found(medium: Medium) {
    let store = open(medium, &format!("damaged {medium:?}")).await;
    load_from(critic(None), &store).await.0.expect("a whole model");
    damage(&store, medium).await;
    let kept = store.read(Dtype::Q8).await.expect("it is kept");
    let source = Source::kept(&kept.index.head.source).expect("it says what it was made from");
    let failure = load_from(source, &store).await.0.err().expect("its hash tells");
    assert!(failure.error.contains("are not those that were packed"), "{failure}");
    assert!(store.read(Dtype::Q8).await.is_none(), "{medium:?}: nothing of it is believed any more");
}

async fn what_is_kept_is_listed_and_can_be_forgotten(medium: Medium) {
    let store = open(medium, &format!("listed {medium:?}")).await;
    load_from(critic(None), &store).await.0.expect("a whole model");
    let listed = || async {
        let all = Array::from(&stored().await.expect("the storage can be read"));
        all.iter().find(|entry| host::text(entry, "id").as_deref() == Some(store.id()))
    };
    let entry = listed().await.expect("it is listed");
    assert_eq!(host::text(&entry, "name").as_deref(), Some("critic"));
    assert_eq!(host::text(&entry, "dtype").as_deref(), Some("q8"));
    assert_eq!(host::property(&entry, "complete").as_bool(), Some(true));
    let size = host::property(&entry, "size_bytes").as_f64().expect("a number");
    assert!(size > 4e5 && size < 2e6, "{size}");
    forget(Some(store.id().into())).await.expect("nobody reads it");
    assert!(listed().await.is_none());
}

#[wasm_bindgen_test]
async fn a_kept_model_is_the_same_model_in_files() {
    a_kept_model_is_the_same_model(Medium::Opfs).await;
}

#[wasm_bindgen_test]
async fn a_kept_model_is_the_same_model_in_the_cache() {
    a_kept_model_is_the_same_model(Medium::Cache).await;
}

#[wasm_bindgen_test]
async fn a_load_that_broke_goes_on_after_its_last_tensor_in_files() {
    a_load_that_broke_goes_on_after_its_last_tensor(Medium::Opfs).await;
}

#[wasm_bindgen_test]
async fn a_load_that_broke_goes_on_after_its_last_tensor_in_the_cache() {
    a_load_that_broke_goes_on_after_its_last_tensor(Medium::Cache).await;
}

#[wasm_bindgen_test]
async fn a_changed_byte_is_found_in_files() {
    a_changed_byte_is_found(Medium::Opfs).await;
}

#[wasm_bindgen_test]
async fn a_changed_byte_is_found_in_the_cache() {
    a_changed_byte_is_found(Medium::Cache).await;
}

#[wasm_bindgen_test]
async fn what_is_kept_is_listed_and_can_be_forgotten_in_files() {
    what_is_kept_is_listed_and_can_be_forgotten(Medium::Opfs).await;
}

#[wasm_bindgen_test]
async fn what_is_kept_is_listed_and_can_be_forgotten_in_the_cache() {
    what_is_kept_is_listed_and_can_be_forgotten(Medium::Cache).await;
}

/// As after a reload, which ends a worker without a word: nobody closes or flushes anything.
#[wasm_bindgen_test]
async fn the_tail_of_a_load_that_was_ended_is_there() {
    let store = open(Medium::Opfs, "tail").await;
    let head = || Head::new(Dtype::Q8, critic(None).describe());
    let tail = Tail {
        file: WEIGHTS.into(),
        at: 7,
        size_bytes: Some(100),
        version: fetch::Version { etag: Some("\"e\"".into()), size_bytes: Some(100) },
    };
    let mut keeper = store.keep(head(), None).await.expect("an empty place");
    assert_eq!(keeper.tail(WEIGHTS, 7), None);
    keeper.begin_tail(&Tail { at: 0, ..tail.clone() }).expect("room");
    keeper.extend_tail(&[1; 9]).expect("room");
    keeper.begin_tail(&tail).expect("room");
    keeper.extend_tail(&[2; 5]).expect("room");
    keeper.extend_tail(&[3; 5]).expect("room");
    drop(keeper);
    let kept = store.read(Dtype::Q8).await.expect("the head is there");
    let mut keeper = store.keep(head(), Some(&kept)).await.expect("its place");
    assert_eq!((keeper.tail(WEIGHTS, 0), keeper.tail("other", 7)), (None, None));
    assert_eq!(keeper.tail(WEIGHTS, 7), Some((tail, 10)));
    let mut read = Vec::new();
    keeper.read_tail(6, &mut read).expect("what was written");
    assert_eq!(read, [2, 3, 3, 3, 3, 3]);
    keeper.extend_tail(&[4]).expect("room");
    assert_eq!(keeper.tail(WEIGHTS, 7).map(|(_, bytes)| bytes), Some(11));
    drop(keeper);
    store.remove().await;
}

#[wasm_bindgen_test]
async fn a_model_that_is_written_cannot_be_forgotten() {
    let store = open(Medium::Opfs, "written").await;
    let keeper =
        store.keep(Head::new(Dtype::Q8, critic(None).describe()), None).await.expect("an empty place");
    let refused = forget(Some(store.id().into())).await.expect_err("its files are open");
    let error = host::text(&refused, "error").expect("a sentence");
    assert!(error.starts_with("The model is being loaded at the moment"), "{error}");
    drop(keeper);
    forget(Some(store.id().into())).await.expect("now it can be");
}

#[wasm_bindgen_test]
async fn a_kept_model_is_read_while_its_file_is_open_elsewhere() {
    let store = open(Medium::Opfs, "open elsewhere").await;
    load_from(critic(None), &store).await.0.expect("a whole model");
    let kept = store.read(Dtype::Q8).await.expect("it is kept");
    let elsewhere = kept.open().await;
    assert!(elsewhere.is_the_file() && !kept.open().await.is_the_file());
    let (second, began) = load_from(critic(None), &store).await;
    assert!(second.is_ok() && began.is_none(), "the weights are not read again");
    drop(elsewhere);
    assert!(kept.open().await.is_the_file());
    store.remove().await;
}

#[wasm_bindgen_test]
async fn a_second_load_waits_for_the_first_or_its_own_stop() {
    let store = open(Medium::Opfs, "locked").await;
    let controller = AbortController::new().expect("every host has it");
    let first = store.lock(&controller.signal()).await.expect("nobody has it").expect("browsers have locks");
    let second = AbortController::new().expect("every host has it");
    second.abort();
    assert_eq!(store.lock(&second.signal()).await.err().map(|failure| failure.kind), Some(Kind::Stopped));
    drop(first);
    assert!(store.lock(&controller.signal()).await.expect("nobody has it any more").is_some());
}

/// A blob's address knows ranges, as the hub does.
#[wasm_bindgen_test]
async fn an_address_is_read_from_any_byte_on() {
    let blob = Blob::new_with_u8_array_sequence(&Array::of1(&Uint8Array::from(weights()))).expect("a blob");
    let create: Function = host::property(&host::global("URL"), "createObjectURL").unchecked_into();
    let url = create.call1(&host::global("URL"), &blob).expect("an address").as_string().expect("a text");
    let controller = AbortController::new().expect("every host has it");
    let opened = fetch::open(&url, None, 1_000_000, None, &controller.signal()).await.expect("it is here");
    assert_eq!((opened.from, opened.size_bytes), (1_000_000, Some(weights().len() as u64)));
    let body = web_sys::Response::new_with_opt_readable_stream(Some(&opened.body)).expect("a response");
    let buffer = JsFuture::from(body.array_buffer().expect("its bytes")).await.expect("its bytes");
    assert_eq!(Uint8Array::new(&buffer).to_vec(), &weights()[1_000_000..]);
}
