//! Packed copies of large models: they save time, they change nothing, and whatever becomes of them no load fails.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up should stop where it stands")]

mod support;

use std::{
    cell::RefCell,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
    time::{Duration, SystemTime},
};

use inkling_engine::{
    checkpoint::{Dtype, LoadOptions},
    generate::Prompt,
    graph::node::LoadedTask,
    kernels::SingleThread,
    protocol::Parameters,
};
use inkling_server::{
    cache::Cache,
    load::{FromFiles, Origin, load},
    models::{Part, locate},
};
use serde_json::Value;
use tempfile::TempDir;

/// A checkpoint of 21 MB, which is worth a copy, and a place for copies.
struct Setting {
    folder: TempDir,
}

thread_local! {
    static WARNINGS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn warn(sentence: &str) {
    WARNINGS.with_borrow_mut(|warnings| warnings.push(sentence.into()));
}

fn warnings() -> Vec<String> {
    WARNINGS.take()
}

impl Setting {
    fn new() -> Setting {
        let setting = Setting { folder: tempfile::tempdir().unwrap() };
        setting.write_model("model", 1);
        setting
    }

    fn write_model(&self, name: &str, seed: u64) {
        support::write_gpt2_of(&self.folder.path().join(name), seed, 384, 3);
    }

    fn place(&self) -> PathBuf {
        self.folder.path().join("cache").join("packed")
    }

    fn cache(&self) -> Cache {
        Cache::new(self.place(), warn)
    }

    /// Where the model came from, and what it is: its hash, and the ids that it writes.
    fn load(&self) -> (Origin, (Option<String>, Vec<u32>)) {
        load_of(&self.folder.path().join("model"), Some(&self.cache()))
    }

    /// The only entry.
    fn entry(&self) -> PathBuf {
        let entries = self.cache().entries().unwrap();
        assert_eq!(entries.len(), 1, "{entries:?}");
        entries[0].folder.clone()
    }

    /// The names of all that is where entries are.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.place()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn load_of(model: &Path, cache: Option<&Cache>) -> (Origin, (Option<String>, Vec<u32>)) {
    let located = locate(model.to_str().unwrap(), Part::Model, &mut |_, _, _| ()).unwrap();
    let FromFiles { model, origin, .. } =
        load(&located, LoadOptions::default(), cache, &mut |_, _, _| ()).unwrap();
    let LoadedTask::Generate(generator) = &model.task else { panic!("not a generator") };
    let parameters = Parameters {
        max_new_tokens: Some(8),
        do_sample: Some(false),
        seed: Some(0),
        ..Parameters::default()
    };
    let mut decoding = generator.start(Prompt::Text("The boy"), &parameters, 0).unwrap();
    while decoding.step(&SingleThread).unwrap().is_some() {}
    let ids = decoding.generation().sequences()[0].new_ids().to_vec();
    (origin, (model.sha256, ids))
}

#[test]
fn the_second_load_is_from_the_copy_and_gives_the_same_model() {
    let setting = Setting::new();
    let (origin, expected) = load_of(&setting.folder.path().join("model"), None);
    assert_eq!(origin, Origin::Files);
    assert!(!setting.place().exists(), "no cache was lent");
    assert_eq!(setting.load(), (Origin::Files, expected.clone()));
    assert_eq!(setting.load(), (Origin::Cache, expected));
    let entries = setting.cache().entries().unwrap();
    assert_eq!((entries[0].model.as_str(), entries[0].dtype.as_str()), ("model", "q8"));
    let source = fs::metadata(setting.folder.path().join("model/model.safetensors")).unwrap().len();
    assert!((source / 4..source / 3).contains(&entries[0].size_bytes), "{entries:?} of {source}");
    assert_eq!(warnings(), [""; 0]);
}

#[test]
fn a_source_that_has_changed_is_read_anew_and_replaces_its_copy() {
    let setting = Setting::new();
    let weights = setting.folder.path().join("model/model.safetensors");
    let (_, first) = setting.load();
    // Other weights of the same size, with the time of the first ones.
    let modified = fs::metadata(&weights).unwrap().modified().unwrap();
    setting.write_model("model", 2);
    File::options().append(true).open(&weights).unwrap().set_modified(modified).unwrap();
    let (origin, second) = setting.load();
    assert_eq!(origin, Origin::Files);
    assert_ne!(first, second);
    assert_eq!(setting.load(), (Origin::Cache, second));
    setting.entry();

    let config = setting.folder.path().join("model/config.json");
    let changed = fs::read_to_string(&config).unwrap().replace(r#""n_head":2"#, r#""n_head":3"#);
    fs::write(&config, changed).unwrap();
    assert_eq!(setting.load().0, Origin::Files);
    assert_eq!(setting.load().0, Origin::Cache);
    setting.entry();
    assert_eq!(warnings(), [""; 0]);
}

/// A copy that something happened to is not used, and the load after that has a new one.
#[track_caller]
fn check_is_made_anew(damage: impl FnOnce(&Path), warning: Option<&str>) {
    let setting = Setting::new();
    let (_, expected) = setting.load();
    damage(&setting.entry());
    assert_eq!(setting.load(), (Origin::Files, expected.clone()));
    let said = warnings();
    assert_eq!(said.len(), usize::from(warning.is_some()), "{said:?}");
    assert!(said.iter().all(|said| said.contains(warning.unwrap())), "{said:?}");
    assert_eq!(setting.load(), (Origin::Cache, expected));
    setting.entry();
    assert_eq!(setting.names().len(), 1, "{:?}", setting.names());
}

#[test]
fn a_damaged_copy_is_told_and_made_anew() {
    let flip = |entry: &Path| {
        let mut data = fs::read(entry.join("data")).unwrap();
        let middle = data.len() / 2;
        data[middle] ^= 1;
        fs::write(entry.join("data"), data).unwrap();
    };
    check_is_made_anew(flip, Some("the packed copy of model model is broken and is made anew: "));
}

#[test]
fn a_copy_that_a_crash_cut_short_is_made_anew() {
    check_is_made_anew(|entry| fs::write(entry.join("data"), b"").unwrap(), None);
    let cut = |entry: &Path| {
        let index = fs::read(entry.join("index")).unwrap();
        fs::write(entry.join("index"), &index[..index.len() - 9]).unwrap();
    };
    check_is_made_anew(cut, None);
}

#[test]
fn rubbish_in_place_of_a_copy_is_made_anew() {
    check_is_made_anew(|entry| fs::write(entry.join("index"), b"\xff{}\n\n[]").unwrap(), None);
    let to_file = |entry: &Path| {
        fs::remove_dir_all(entry).unwrap();
        fs::write(entry, b"a file").unwrap();
    };
    check_is_made_anew_from(to_file);
}

/// As above, where the entry is not listed any more.
fn check_is_made_anew_from(damage: impl FnOnce(&Path)) {
    let setting = Setting::new();
    let (_, expected) = setting.load();
    damage(&setting.entry());
    assert_eq!(setting.load(), (Origin::Files, expected.clone()));
    assert_eq!(setting.load(), (Origin::Cache, expected));
    assert_eq!(warnings(), [""; 0]);
}

#[test]
fn a_place_that_cannot_be_written_costs_one_sentence() {
    let setting = Setting::new();
    fs::write(setting.folder.path().join("cache"), b"in the way").unwrap();
    let (origin, _) = setting.load();
    assert_eq!(origin, Origin::Files);
    let said = warnings();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("no packed copy of model model is kept in "), "{said:?}");
}

#[test]
fn what_a_killed_writer_left_goes_and_a_live_one_is_left_alone() {
    let setting = Setting::new();
    let (dead, live) = (setting.place().join(".new-1-0-1"), setting.place().join(".new-2-0-2"));
    for folder in [&dead, &live] {
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join("data"), b"half of it").unwrap();
    }
    let writer = File::open(live.join("data")).unwrap();
    writer.lock().unwrap();
    setting.load();
    assert_eq!((dead.exists(), live.exists()), (false, true));
    drop(writer);
    setting.cache().remove(|_| false).unwrap();
    assert!(!live.exists());
}

#[test]
fn loads_at_the_same_time_agree_and_leave_one_copy() {
    let setting = Setting::new();
    let (_, expected) = load_of(&setting.folder.path().join("model"), None);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                assert_eq!(setting.load().1, expected);
                assert_eq!(warnings(), [""; 0]);
            });
        }
    });
    assert_eq!(setting.load(), (Origin::Cache, expected));
    assert_eq!(setting.names().len(), 1, "{:?}", setting.names());
}

#[test]
fn what_was_not_used_for_longest_goes_and_so_does_what_is_of_no_use() {
    let setting = Setting::new();
    let models = ["model", "second", "third"].map(|name| setting.folder.path().join(name));
    setting.write_model("second", 2);
    setting.write_model("third", 3);
    let cache = setting.cache();
    let names = || {
        let mut names: Vec<String> = cache.entries().unwrap().into_iter().map(|entry| entry.model).collect();
        names.sort();
        names
    };
    load_of(&models[0], Some(&cache));
    let one = cache.entries().unwrap()[0].size_bytes;
    load_of(&models[1], Some(&cache));
    // Both were used long ago, the first one lately again.
    for entry in cache.entries().unwrap() {
        let index = File::options().append(true).open(entry.folder.join("index")).unwrap();
        index.set_modified(SystemTime::now() - Duration::from_secs(100_000)).unwrap();
    }
    assert_eq!(load_of(&models[0], Some(&cache)).0, Origin::Cache);
    load_of(&models[2], Some(&cache.clone().with_limit_bytes(2 * one + one / 2)));
    assert_eq!(names(), ["model", "third"]);
    // One whose model is gone makes way without being in the way.
    fs::remove_dir_all(&models[0]).unwrap();
    load_of(&models[1], Some(&cache));
    assert_eq!(names(), ["second", "third"]);
}

#[test]
fn what_packing_does_not_make_smaller_is_not_kept() {
    let setting = Setting::new();
    let cache = setting.cache();
    let small = setting.folder.path().join("small");
    support::write_gpt2(&small, 1);
    load_of(&small, Some(&cache));
    let model = setting.folder.path().join("model").display().to_string();
    let located = locate(&model, Part::Model, &mut |_, _, _| ()).unwrap();
    let exact = LoadOptions { dtype: Dtype::F32, ..LoadOptions::default() };
    load(&located, exact, Some(&cache), &mut |_, _, _| ()).unwrap();
    assert!(!setting.place().exists());
}

fn inkling(setting: &Setting, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_inkling"))
        .args(arguments)
        .env("INKLING_CACHE_DIR", setting.folder.path().join("cache"))
        .output()
        .unwrap()
}

#[track_caller]
fn json(output: &Output) -> Value {
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_program_lists_and_removes_copies() {
    let setting = Setting::new();
    let model = setting.folder.path().join("model").display().to_string();
    let generate = ["generate", "--model", &model, "--ids", "1", "--greedy", "--max-new-tokens", "2"];
    let list = || json(&inkling(&setting, &["cache", "--json"]));
    assert_eq!(list()["models"], serde_json::json!([]));
    let with = |more: &[&str]| json(&inkling(&setting, &[generate.as_slice(), more].concat()))["ids"].clone();
    let expected = with(&["--no-cache"]);
    assert_eq!(list()["size_bytes"], 0);
    assert_eq!((with(&[]), with(&[])), (expected.clone(), expected));
    assert_eq!(list()["models"][0]["model"], "model");
    let table = inkling(&setting, &["cache"]);
    assert!(String::from_utf8_lossy(&table.stdout).starts_with("model "), "{table:?}");
    let unknown = inkling(&setting, &["cache", "--remove", "other"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("there is no packed copy of other in "));
    let freed = json(&inkling(&setting, &["cache", "--remove", "model", "--json"]));
    assert!(freed["freed_bytes"].as_u64().unwrap() > 5_000_000);
    assert_eq!(list()["models"], serde_json::json!([]));
    with(&[]);
    json(&inkling(&setting, &["cache", "--clear", "--json"]));
    assert_eq!(list()["size_bytes"], 0);
}

/// The whole f32 file is never held: beyond what any run takes a load takes at most 1.3 times the packed weights.
#[cfg(target_os = "linux")]
#[test]
fn a_load_takes_little_more_memory_than_its_weights() {
    let setting = Setting::new();
    support::write_gpt2_of(&setting.folder.path().join("model"), 1, 768, 4);
    support::write_gpt2(&setting.folder.path().join("small"), 1);
    let peak = |name: &str, more: &[&str]| {
        let model = setting.folder.path().join(name).display().to_string();
        let bench =
            ["bench", "--model", &model, "--threads", "2", "--rounds", "1", "--new-tokens", "2", "--json"];
        let report = json(&inkling(&setting, &[bench.as_slice(), more].concat()));
        (report["peak_rss_bytes"].as_f64().unwrap(), report["load_from"].as_str().unwrap().to_string())
    };
    let (base, _) = peak("small", &[]);
    let files = peak("model", &["--no-cache"]);
    let keeping = peak("model", &[]);
    let cache = peak("model", &[]);
    assert_eq!((files.1.as_str(), keeping.1.as_str(), cache.1.as_str()), ("files", "files", "cache"));
    let packed = setting.cache().entries().unwrap()[0].size_bytes as f64;
    for (peak, from) in [files, keeping, cache] {
        assert!(peak - base <= 1.3 * packed, "{peak} beyond {base} from {from} for {packed}");
    }
}
