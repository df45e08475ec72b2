//! Fetching models, against a small hub of our own that fails on demand.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up should stop where it stands")]

#[path = "support/hub.rs"]
mod support;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use inkling_server::hub::{Hub, HubError, Settings};
use support::{COMMIT, FakeHub, Fault, hash};
use tempfile::TempDir;

const REPO: &str = "org/tiny";
const WEIGHTS: &str = "model.safetensors";

/// Bytes without a pattern that a shifted file would share.
fn weights(size: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..size).map(|_| next()).collect()
}

fn settings(hub: &FakeHub, cache: &TempDir) -> Settings {
    Settings {
        endpoint: hub.endpoint(),
        token: None,
        cache: cache.path().into(),
        offline: false,
        tries: 3,
        pause: Duration::from_millis(5),
        longest_pause: Duration::from_secs(2),
        // Long, for the sake of busy machines.
        silence: Duration::from_secs(20),
    }
}

fn fetch(hub: &FakeHub, cache: &TempDir) -> Result<PathBuf, HubError> {
    Hub::new(settings(hub, cache)).unwrap().fetch(REPO, &mut |_, _, _| {})
}

fn offline(hub: &FakeHub, cache: &TempDir) -> Result<PathBuf, HubError> {
    let settings = Settings { offline: true, ..settings(hub, cache) };
    Hub::new(settings).unwrap().fetch(REPO, &mut |_, _, _| {})
}

/// The error's sentence, with the hub's address by name.
#[track_caller]
fn sentence(hub: &FakeHub, result: Result<PathBuf, HubError>) -> String {
    result.expect_err("should fail").to_string().replace(&hub.endpoint(), "HUB")
}

fn blobs(cache: &TempDir) -> PathBuf {
    cache.path().join("models--org--tiny").join("blobs")
}

/// What was asked of the store, as ranges.
fn ranges(hub: &FakeHub) -> Vec<Option<String>> {
    hub.asked()
        .into_iter()
        .filter(|asked| asked.what.starts_with("GET store"))
        .map(|asked| asked.range)
        .collect()
}

/// A file in the cache is whole or has no name of its own.
#[track_caller]
fn assert_no_weights(cache: &TempDir, bytes: &[u8]) {
    assert!(!blobs(cache).join(hash(bytes)).exists(), "a blob that is not whole has its final name");
    let snapshot = cache.path().join("models--org--tiny").join("snapshots").join(COMMIT);
    assert!(
        fs::symlink_metadata(snapshot.join(WEIGHTS)).is_err(),
        "the snapshot names a file that is not there"
    );
}

#[test]
fn a_model_is_fetched_once_into_the_standard_cache() {
    let (bytes, cache) = (weights(300_000), TempDir::new().unwrap());
    let hub = FakeHub::with_model(REPO, bytes.clone());
    let mut seen: Vec<(String, u64, Option<u64>)> = Vec::new();
    let client = Hub::new(settings(&hub, &cache)).unwrap();
    let snapshot =
        client.fetch(REPO, &mut |file, done, total| seen.push((file.into(), done, total))).unwrap();

    let folder = cache.path().join("models--org--tiny");
    assert_eq!(snapshot, folder.join("snapshots").join(COMMIT));
    assert_eq!(fs::read_to_string(folder.join("refs/main")).unwrap(), COMMIT);
    assert_eq!(fs::read(snapshot.join(WEIGHTS)).unwrap(), bytes);
    assert_eq!(fs::read(folder.join("blobs").join(hash(&bytes))).unwrap(), bytes);
    let mut names: Vec<_> =
        fs::read_dir(&snapshot).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json"]);
    assert_eq!(fs::read_dir(folder.join("blobs")).unwrap().count(), 4, "nothing is left over");

    assert_eq!(seen.last(), Some(&(WEIGHTS.into(), 300_000, Some(300_000))));
    let done: Vec<u64> = seen.iter().filter(|(file, ..)| file == WEIGHTS).map(|(_, done, _)| *done).collect();
    assert!(done.len() > 2 && done[0] == 0 && done.is_sorted(), "{done:?}");

    hub.asked();
    assert_eq!(fetch(&hub, &cache).unwrap(), snapshot);
    let asked: Vec<String> = hub.asked().into_iter().map(|asked| asked.what).collect();
    assert_eq!(asked, [format!("GET hub /api/models/{REPO}/revision/main")]);
}

#[test]
fn a_broken_download_goes_on_where_it_broke() {
    let (bytes, cache) = (weights(300_000), TempDir::new().unwrap());
    let hub = FakeHub::with_model(REPO, bytes.clone());
    hub.fail("GET store", Fault::Cut(100_000), 2);
    let snapshot = fetch(&hub, &cache).unwrap();
    assert_eq!(fs::read(snapshot.join(WEIGHTS)).unwrap(), bytes);
    let range = |start: u32| Some(format!("bytes={start}-"));
    assert_eq!(ranges(&hub), [None, range(100_000), range(200_000)]);
}

#[test]
fn a_connection_that_falls_silent_counts_as_broken() {
    let (bytes, cache) = (weights(300_000), TempDir::new().unwrap());
    let hub = FakeHub::with_model(REPO, bytes.clone());
    hub.fail("GET store", Fault::Silence(100_000), 1);
    let impatient = Settings { silence: Duration::from_secs(1), tries: 10, ..settings(&hub, &cache) };
    let snapshot = Hub::new(impatient).unwrap().fetch(REPO, &mut |_, _, _| {}).unwrap();
    assert_eq!(fs::read(snapshot.join(WEIGHTS)).unwrap(), bytes);
    assert!(ranges(&hub).contains(&Some("bytes=100000-".into())));
}

#[test]
fn what_came_before_a_lasting_break_serves_the_next_run() {
    let (bytes, cache) = (weights(300_000), TempDir::new().unwrap());
    let hub = FakeHub::with_model(REPO, bytes.clone());
    hub.fail("GET store", Fault::Cut(100_000), 1);
    hub.fail("GET store", Fault::Cut(0), 3);
    let error = sentence(&hub, fetch(&hub, &cache));
    assert!(error.starts_with("the connection broke in `model.safetensors`: "), "{error}");
    assert!(error.contains("tried 3 times, waited"), "{error}");
    assert!(
        error.ends_with("100000 of 300000 bytes are kept, run the command again to go on from there"),
        "{error}"
    );
    assert_no_weights(&cache, &bytes);

    hub.asked();
    let snapshot = fetch(&hub, &cache).unwrap();
    assert_eq!(fs::read(snapshot.join(WEIGHTS)).unwrap(), bytes);
    assert_eq!(ranges(&hub), [Some("bytes=100000-".into())]);
}

#[test]
fn a_store_without_ranges_sends_the_whole_file_again() {
    let (bytes, cache) = (weights(300_000), TempDir::new().unwrap());
    let hub = FakeHub::with_model(REPO, bytes.clone());
    hub.fail("GET store", Fault::Cut(100_000), 1);
    hub.fail("GET store", Fault::NoRange, 1);
    let snapshot = fetch(&hub, &cache).unwrap();
    assert_eq!(fs::read(snapshot.join(WEIGHTS)).unwrap(), bytes);
}

#[test]
fn damaged_weights_are_refused_and_not_kept() {
    let (bytes, cache) = (weights(10_000), TempDir::new().unwrap());
    let hub = FakeHub::with_model(REPO, bytes.clone());
    hub.fail("GET store", Fault::Damage, 1);
    let error = sentence(&hub, fetch(&hub, &cache));
    let mut damaged = bytes.clone();
    damaged[5000] ^= 1;
    assert_eq!(
        error,
        format!(
            "`model.safetensors` came damaged: its sha256 is {}, HUB promised {}; \
             nothing of it is kept, run the command again to fetch it anew",
            hash(&damaged),
            hash(&bytes)
        )
    );
    assert_no_weights(&cache, &bytes);
    assert!(!blobs(&cache).join(format!("{}.incomplete", hash(&bytes))).exists());

    let snapshot = fetch(&hub, &cache).unwrap();
    assert_eq!(fs::read(snapshot.join(WEIGHTS)).unwrap(), bytes);
}

#[test]
fn a_damaged_rest_of_an_earlier_run_is_fetched_anew() {
    // Shorter, as long, and longer than the file.
    for left in [4000, 10_000, 20_000] {
        let (bytes, cache) = (weights(10_000), TempDir::new().unwrap());
        let hub = FakeHub::with_model(REPO, bytes.clone());
        fs::create_dir_all(blobs(&cache)).unwrap();
        fs::write(blobs(&cache).join(format!("{}.incomplete", hash(&bytes))), vec![7; left]).unwrap();
        let snapshot = fetch(&hub, &cache).unwrap();
        assert_eq!(fs::read(snapshot.join(WEIGHTS)).unwrap(), bytes);
    }
}

#[test]
fn a_blob_of_the_wrong_size_is_replaced() {
    let (bytes, cache) = (weights(10_000), TempDir::new().unwrap());
    let hub = FakeHub::with_model(REPO, bytes.clone());
    fs::create_dir_all(blobs(&cache)).unwrap();
    fs::write(blobs(&cache).join(hash(&bytes)), "503 service unavailable").unwrap();
    let snapshot = fetch(&hub, &cache).unwrap();
    assert_eq!(fs::read(snapshot.join(WEIGHTS)).unwrap(), bytes);
}

#[test]
fn an_unknown_model_is_named() {
    let (hub, cache) = (FakeHub::new("org/other"), TempDir::new().unwrap());
    assert_eq!(
        sentence(&hub, fetch(&hub, &cache)),
        "HUB has no model `org/tiny`: check the id, or use `--models demo`, which needs no network"
    );
    let path = Hub::new(settings(&hub, &cache)).unwrap().fetch("../etc", &mut |_, _, _| {});
    assert_eq!(
        sentence(&hub, path),
        "`../etc` is not the id of a model on the hub: expected `name` or `organisation/name`"
    );
}

#[test]
fn a_file_that_the_listing_invents_is_named() {
    let hub = FakeHub::with_model(REPO, weights(1000));
    let cache = TempDir::new().unwrap();
    hub.fail(&format!("resolve/{COMMIT}/tokenizer.json"), Fault::Status(404, None), 1);
    let error = sentence(&hub, fetch(&hub, &cache));
    assert!(error.starts_with("HUB has no `tokenizer.json` of `org/tiny`: check"), "{error}");
}

#[test]
fn a_private_model_asks_for_a_token() {
    let (hub, cache) = (FakeHub::with_model(REPO, weights(1000)), TempDir::new().unwrap());
    hub.fail("/api/", Fault::Status(401, None), 2);
    assert_eq!(
        sentence(&hub, fetch(&hub, &cache)),
        "HUB does not let everyone read `org/tiny` (401): check the id; \
         if it is private or gated, set HF_TOKEN to a token that may read it"
    );
    let with_token = Settings { token: Some("hf_secret".into()), ..settings(&hub, &cache) };
    let error = sentence(&hub, Hub::new(with_token).unwrap().fetch(REPO, &mut |_, _, _| {}));
    assert!(error.starts_with("HUB does not let this token read `org/tiny` (401)"), "{error}");
    assert!(error.contains("ask for access at HUB/org/tiny") && !error.contains("hf_secret"), "{error}");

    // A gated model lists its files to everyone.
    hub.fail("HEAD hub", Fault::Status(403, None), 1);
    let error = sentence(&hub, fetch(&hub, &cache));
    assert!(error.contains("everyone read `org/tiny` (403)"), "{error}");
}

#[test]
fn a_store_that_refuses_is_told_from_the_hub() {
    let (hub, cache) = (FakeHub::with_model(REPO, weights(1000)), TempDir::new().unwrap());
    hub.fail("GET store", Fault::Status(403, None), 1);
    let error = sentence(&hub, fetch(&hub, &cache));
    assert!(error.contains("for `model.safetensors`: it redirects to http://127.0.0.1:"), "{error}");
    assert!(error.contains("which answers 403 Forbidden") && !error.contains("HF_TOKEN"), "{error}");
}

#[test]
fn a_token_goes_to_the_hub_and_to_nobody_else() {
    let (hub, cache) = (FakeHub::with_model(REPO, weights(1000)), TempDir::new().unwrap());
    let with_token = Settings { token: Some("hf_secret".into()), ..settings(&hub, &cache) };
    Hub::new(with_token).unwrap().fetch(REPO, &mut |_, _, _| {}).unwrap();
    let asked = hub.asked();
    assert!(asked.iter().any(|asked| asked.what.starts_with("GET store")));
    for asked in asked {
        let expected = asked.what.contains(" hub ").then(|| "Bearer hf_secret".to_string());
        assert_eq!(asked.authorization, expected, "{}", asked.what);
    }

    // Also where the hub says nothing of a file, and we look for its `ETag` behind the redirect.
    let cache = TempDir::new().unwrap();
    let with_token = Settings { token: Some("hf_secret".into()), ..settings(&hub, &cache) };
    hub.fail(&format!("{COMMIT}/{WEIGHTS}"), Fault::Bare, 1);
    let error = sentence(&hub, Hub::new(with_token).unwrap().fetch(REPO, &mut |_, _, _| {}));
    assert!(error.contains("its ETag is `the store's own`"), "{error}");
    let asked = hub.asked();
    let behind = asked.iter().find(|asked| asked.what.starts_with("HEAD store")).unwrap();
    assert_eq!(behind.authorization, None);
}

#[test]
fn a_busy_hub_is_waited_for_as_it_asks() {
    let (bytes, cache) = (weights(1000), TempDir::new().unwrap());
    let hub = FakeHub::with_model(REPO, bytes.clone());
    // First the listing is asked, then a file's head, then the store.
    hub.fail("/api/", Fault::Status(503, Some(1)), 1);
    hub.fail("HEAD hub", Fault::Status(429, Some(1)), 1);
    hub.fail("GET store", Fault::Status(503, None), 2);
    let start = Instant::now();
    let snapshot = fetch(&hub, &cache).unwrap();
    assert!(start.elapsed() >= Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!(fs::read(snapshot.join(WEIGHTS)).unwrap(), bytes);
}

#[test]
fn a_hub_that_stays_busy_is_given_up_with_what_was_tried() {
    let (hub, cache) = (FakeHub::with_model(REPO, weights(1000)), TempDir::new().unwrap());
    hub.fail("GET store", Fault::Status(503, None), 3);
    let error = sentence(&hub, fetch(&hub, &cache));
    let start = "127.0.0.1 is too busy for `model.safetensors`: it answered 503; tried 3 times, waited";
    assert!(error.starts_with(start) && error.ends_with("; try again later"), "{error}");
    assert_no_weights(&cache, &weights(1000));

    hub.fail("/api/", Fault::Status(503, Some(3600)), 1);
    let cache = TempDir::new().unwrap();
    let error = sentence(&hub, fetch(&hub, &cache));
    assert!(
        error.contains("for `org/tiny`: it answered 503; tried once, and it asks to wait 3600 s more"),
        "{error}"
    );
}

#[test]
fn another_server_than_a_hub_is_told() {
    let (hub, cache) = (FakeHub::with_model(REPO, weights(1000)), TempDir::new().unwrap());
    hub.fail("/api/", Fault::Html, 1);
    let error = sentence(&hub, fetch(&hub, &cache));
    assert!(
        error.starts_with("HUB does not answer as the Hugging Face hub does for `org/tiny`: its listing"),
        "{error}"
    );
}

#[test]
fn a_hub_behind_https_is_spoken_to_in_tls() {
    let (hub, cache) = (FakeHub::with_model(REPO, weights(1000)), TempDir::new().unwrap());
    let endpoint = hub.endpoint().replace("http:", "https:");
    let settings = Settings { endpoint: endpoint.clone(), tries: 1, ..settings(&hub, &cache) };
    let error = Hub::new(settings).unwrap().fetch(REPO, &mut |_, _, _| {}).unwrap_err().to_string();
    // The hub of the tests knows no TLS: it takes the handshake for a broken request.
    assert!(error.starts_with(&format!("no connection to {endpoint} for `org/tiny`: ")), "{error}");
    assert!(hub.asked().is_empty(), "nothing was asked in the clear");
}

#[test]
fn without_a_network_the_cache_serves_and_without_a_cache_the_error_says_so() {
    let (bytes, cache) = (weights(1000), TempDir::new().unwrap());
    let hub = FakeHub::with_model(REPO, bytes.clone());
    // A port that nobody listens at.
    let nowhere = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let away = Settings { endpoint: format!("http://{nowhere}"), ..settings(&hub, &cache) };
    let away = Hub::new(away).unwrap();
    let error = away.fetch(REPO, &mut |_, _, _| {}).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("no connection to http://{nowhere} for `org/tiny`: Connection refused")),
        "{error}"
    );
    assert!(error.contains("tried 3 times") && error.contains("`--models demo`"), "{error}");

    let snapshot = fetch(&hub, &cache).unwrap();
    assert_eq!(away.fetch(REPO, &mut |_, _, _| {}).unwrap(), snapshot);
}

#[test]
fn offline_the_cache_serves_alone() {
    let (hub, cache) = (FakeHub::with_model(REPO, weights(1000)), TempDir::new().unwrap());
    assert_eq!(
        sentence(&hub, offline(&hub, &cache)),
        format!(
            "HF_HUB_OFFLINE is set, and `org/tiny` is not in the cache at {}: it was never fetched; \
             unset it once to fetch the model, or use `--models demo`",
            cache.path().display()
        )
    );
    let snapshot = fetch(&hub, &cache).unwrap();
    hub.asked();
    assert_eq!(offline(&hub, &cache).unwrap(), snapshot);
    assert_eq!(hub.asked().len(), 0, "offline asks nobody");

    fs::remove_file(blobs(&cache).join(hash(&weights(1000)))).unwrap();
    let error = sentence(&hub, offline(&hub, &cache));
    assert!(error.contains("model folder: expected `model.safetensors`"), "{error}");
}

#[test]
fn a_fetch_that_failed_leaves_no_model_for_offline_use() {
    let (hub, cache) = (FakeHub::with_model(REPO, weights(1000)), TempDir::new().unwrap());
    hub.fail("GET store", Fault::Damage, 1);
    fetch(&hub, &cache).unwrap_err();
    assert!(sentence(&hub, offline(&hub, &cache)).contains("it was never fetched"));
}

#[test]
fn fetches_at_the_same_time_share_one_download() {
    let (bytes, cache) = (weights(300_000), TempDir::new().unwrap());
    let hub = FakeHub::with_model(REPO, bytes.clone());
    // Slow enough that all of them are there before the first is done.
    hub.fail("GET store", Fault::Slow(100_000), 1);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let snapshot = fetch(&hub, &cache).unwrap();
                assert_eq!(fs::read(snapshot.join(WEIGHTS)).unwrap(), bytes);
            });
        }
    });
    assert_eq!(ranges(&hub), [None]);
}

#[test]
fn all_shards_of_an_index_come() {
    let cache = TempDir::new().unwrap();
    let index = br#"{"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}"#;
    let hub = FakeHub::new(REPO)
        .file("config.json", b"{}".to_vec())
        .file("vocab.txt", b"[UNK]".to_vec())
        .file("model.safetensors.index.json", index.to_vec())
        .large("model-1-of-2.safetensors", weights(1000))
        .large("model-2-of-2.safetensors", weights(2000));
    let snapshot = fetch(&hub, &cache).unwrap();
    assert_eq!(fs::read(snapshot.join("model-1-of-2.safetensors")).unwrap(), weights(1000));
    assert_eq!(fs::read(snapshot.join("model-2-of-2.safetensors")).unwrap(), weights(2000));
    assert_eq!(offline(&hub, &cache).unwrap(), snapshot);
    fs::remove_file(snapshot.join("model-2-of-2.safetensors")).unwrap();
    let error = sentence(&hub, offline(&hub, &cache));
    assert!(error.contains("`model-2-of-2.safetensors` is missing"), "{error}");
}

#[test]
fn a_tokenizer_comes_without_its_model() {
    let (hub, cache) = (FakeHub::with_model(REPO, weights(1000)), TempDir::new().unwrap());
    let client = Hub::new(settings(&hub, &cache)).unwrap();
    let snapshot = client.fetch_tokenizer(REPO, &mut |_, _, _| {}).unwrap();
    assert!(snapshot.join("tokenizer.json").exists() && !snapshot.join("config.json").exists());
    assert!(snapshot.join("tokenizer_config.json").exists(), "it says what ends a text");
    assert_eq!(ranges(&hub), []);
    // Half a model is none.
    assert!(offline(&hub, &cache).is_err());
    fetch(&hub, &cache).unwrap();
    assert_eq!(offline(&hub, &cache).unwrap(), snapshot);

    let hub = FakeHub::new(REPO).large(WEIGHTS, weights(1000));
    let none = Hub::new(settings(&hub, &cache)).unwrap().fetch_tokenizer(REPO, &mut |_, _, _| {});
    assert_eq!(
        sentence(&hub, none),
        "`org/tiny` at HUB: tokenizer: expected `tokenizer.json`, `vocab.json` with `merges.txt`, or `vocab.txt`"
    );
}

#[test]
fn a_model_in_an_older_form_comes_from_the_hubs_own_conversion() {
    let cache = TempDir::new().unwrap();
    let old =
        || FakeHub::new(REPO).file("config.json", b"{}".to_vec()).large("pytorch_model.bin", weights(500));
    let hub = old().pull_request(WEIGHTS, weights(1000));
    let snapshot = fetch(&hub, &cache).unwrap();
    assert_eq!(fs::read(snapshot.join(WEIGHTS)).unwrap(), weights(1000));
    assert_eq!(offline(&hub, &cache).unwrap(), snapshot);

    let (hub, cache) = (old(), TempDir::new().unwrap());
    assert_eq!(
        sentence(&hub, fetch(&hub, &cache)),
        "`org/tiny` at HUB: model folder: expected `model.safetensors`, `model.safetensors.index.json` \
         or one `.gguf` file, found config.json, pytorch_model.bin"
    );
}

#[test]
fn a_renamed_model_is_found() {
    let cache = TempDir::new().unwrap();
    let hub = FakeHub::with_model("new/name", weights(1000)).renamed_from(REPO);
    let snapshot = fetch(&hub, &cache).unwrap();
    assert_eq!(fs::read(snapshot.join(WEIGHTS)).unwrap(), weights(1000));
}

/// Runs one test of this file again, in a process whose surroundings `command` prepares.
fn again(command: &mut Command, test: &str, cache: &Path) {
    let output =
        command.args(["--exact", test, "--nocapture"]).env("INKLING_TEST_CACHE", cache).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// Where the process that `again` started should work.
fn surroundings() -> Option<PathBuf> {
    std::env::var_os("INKLING_TEST_CACHE").map(PathBuf::from)
}

#[test]
fn the_environment_is_heeded() {
    if let Some(cache) = surroundings() {
        let hub = Hub::from_env().unwrap();
        let fetched = hub.fetch(REPO, &mut |_, _, _| {});
        if std::env::var_os("HF_HUB_OFFLINE").is_some_and(|value| value == "1") {
            assert!(fetched.unwrap_err().to_string().starts_with("HF_HUB_OFFLINE is set"));
        } else {
            assert!(fetched.unwrap().starts_with(cache));
        }
        return;
    }
    let home = TempDir::new().unwrap();
    let hub = FakeHub::with_model(REPO, weights(1000));
    let own = |cache: &Path, vars: &[(&str, &str)]| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        for name in ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE"] {
            command.env_remove(name);
        }
        command
            .env_remove("HF_HUB_DISABLE_IMPLICIT_TOKEN")
            .env("HF_ENDPOINT", format!("{}/", hub.endpoint()));
        command.env("HF_HOME", home.path()).envs(vars.iter().copied());
        again(&mut command, "the_environment_is_heeded", cache);
        hub.asked().first().and_then(|asked| asked.authorization.clone())
    };
    let in_home = home.path().join("hub");
    assert_eq!(own(&in_home, &[("HF_HUB_OFFLINE", "1")]), None);
    assert_eq!(own(&in_home, &[("HF_HUB_OFFLINE", "0")]), None);
    assert_eq!(own(&in_home, &[("HF_TOKEN", "hf_a")]), Some("Bearer hf_a".into()));
    fs::write(home.path().join("token"), "hf_b\n").unwrap();
    assert_eq!(own(&in_home, &[]), Some("Bearer hf_b".into()));
    let elsewhere = TempDir::new().unwrap();
    own(elsewhere.path(), &[("HF_HUB_CACHE", elsewhere.path().to_str().unwrap())]);
}

/// A full disk by a limit on the size of files, which needs no rights.
#[cfg(unix)]
#[test]
fn a_disk_that_fills_up_is_told_and_nothing_is_lost() {
    let bytes = weights(400_000);
    let hub = FakeHub::with_model(REPO, bytes.clone());
    let cache = match surroundings() {
        Some(_) => TempDir::new().unwrap(),
        None => {
            // Signals that are ignored stay so in what the shell becomes; the write then fails like any other.
            let limited = "trap '' XFSZ; ulimit -f 100; exec \"$0\" \"$@\"";
            let mut command = Command::new("sh");
            command.args(["-c", limited]).arg(std::env::current_exe().unwrap());
            return again(&mut command, "a_disk_that_fills_up_is_told_and_nothing_is_lost", Path::new("-"));
        }
    };
    let error = sentence(&hub, fetch(&hub, &cache));
    let kept = fs::metadata(blobs(&cache).join(format!("{}.incomplete", hash(&bytes)))).unwrap().len();
    assert!(kept > 0, "what came before is kept");
    let start = format!(
        "no room for `model.safetensors` in {}: it needs {} more bytes, ",
        cache.path().join("models--org--tiny").display(),
        400_000 - kept
    );
    assert!(error.starts_with(&start), "{error}");
    assert_no_weights(&cache, &bytes);
}

/// A small disk, for which the system must let us mount one.
#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_is_too_small_is_told_before_the_download() {
    const NAME: &str = "a_disk_that_is_too_small_is_told_before_the_download";
    let Some(disk) = surroundings() else {
        let disk = TempDir::new().unwrap();
        let mount = |rights: &str, then: &str| {
            let script = format!("mount -t tmpfs -o size=256k tmpfs {} && {then}", disk.path().display());
            let mut command = Command::new("unshare");
            command.args([rights, "sh", "-c", &script]);
            command
        };
        // With a namespace of our own, the mount ends with the process.
        let works =
            |rights: &&&str| mount(rights, "true").output().is_ok_and(|output| output.status.success());
        match ["-rm", "-m"].iter().find(works) {
            Some(rights) => {
                let mut command = mount(rights, "exec \"$0\" \"$@\"");
                again(command.arg(std::env::current_exe().unwrap()), NAME, disk.path());
            }
            None => eprintln!("skipped: this system lets us mount no disk (unshare)"),
        }
        return;
    };
    let bytes = weights(400_000);
    let hub = FakeHub::with_model(REPO, bytes.clone());
    let cache = TempDir::new_in(disk).unwrap();
    let error = sentence(&hub, fetch(&hub, &cache));
    assert!(
        error.contains("it needs 400000 more bytes, 2") && error.contains(" are free; make room"),
        "{error}"
    );
    assert_eq!(ranges(&hub), [], "no byte is fetched in vain");
    assert_no_weights(&cache, &bytes);
}
