//! Files that the visitor chose or dropped.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use inkling_engine::graph::spec::Task;
use sha2::{Digest, Sha256};
use wasm_bindgen::{JsCast, JsValue, closure::Closure};
use wasm_bindgen_futures::JsFuture;
use web_sys::{File, FileList, FileSystemDirectoryEntry, FileSystemEntry, FileSystemFileEntry};

use crate::{browser, engine::Files, models};

/// The files below an entry: itself, or what the folder holds.
pub(crate) async fn files_of(entry: FileSystemEntry) -> Files {
    let mut files = Files::new();
    let mut open = vec![entry];
    while let Some(entry) = open.pop() {
        if entry.is_file() {
            let entry: FileSystemFileEntry = entry.unchecked_into();
            let promise = js_sys::Promise::new(&mut |resolve, reject| {
                entry.file_with_callback_and_callback(&resolve, &reject);
            });
            if let Ok(file) = JsFuture::from(promise).await {
                let file: File = file.unchecked_into();
                files.push((entry.full_path().trim_start_matches('/').to_owned(), file));
            }
        } else if entry.is_directory() {
            let entry: FileSystemDirectoryEntry = entry.unchecked_into();
            let reader = entry.create_reader();
            // A reader gives at most 100 entries a call, and none at the end.
            loop {
                let promise = js_sys::Promise::new(&mut |resolve, reject| {
                    let rejected =
                        Closure::once_into_js(move |error: JsValue| reject.call1(&JsValue::NULL, &error));
                    let _ =
                        reader.read_entries_with_callback_and_callback(&resolve, rejected.unchecked_ref());
                });
                let Ok(entries) = JsFuture::from(promise).await else { break };
                let entries: js_sys::Array = entries.unchecked_into();
                if entries.length() == 0 {
                    break;
                }
                open.extend(entries.iter().map(JsCast::unchecked_into::<FileSystemEntry>));
            }
        }
    }
    files
}

/// Files with their paths, where the picker gave a folder.
pub(crate) fn named(list: &FileList) -> Files {
    let name = |file: &File| {
        let path =
            js_sys::Reflect::get(file, &"webkitRelativePath".into()).ok().and_then(|path| path.as_string());
        path.filter(|path| !path.is_empty()).unwrap_or_else(|| file.name())
    };
    (0..list.length()).filter_map(|index| list.get(index)).map(|file| (name(&file), file)).collect()
}

/// What a model of these files is kept under: another name as soon as a file is another one.
pub(crate) fn keep_name(folder: &str, files: &Files) -> String {
    let facts = files.iter().map(|(name, file)| format!("{name} {} {}\n", file.size(), file.last_modified()));
    let mut facts: Vec<String> = facts.collect();
    facts.sort();
    let hash = Sha256::digest(facts.concat().as_bytes());
    format!("{folder} {}", BASE64_URL_SAFE_NO_PAD.encode(&hash[..9]))
}

/// The task of a folder's model: what its config says; a lone GGUF file is a writer.
pub(crate) async fn task_of(files: &Files) -> Result<Option<Task>, String> {
    if let Some((_, file)) = files.iter().find(|(name, _)| name == "config.json") {
        let json = browser::text_of(file).await.ok_or("The config.json of these files cannot be read.")?;
        return models::task_of_config(&json).map(Some);
    }
    let has_gguf = files.iter().any(|(name, _)| name.to_lowercase().ends_with(".gguf"));
    Ok(has_gguf.then_some(Task::Generate))
}
