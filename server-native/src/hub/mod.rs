//! Models from the Hugging Face hub, by its standard cache.
//!
//! [`Hub::fetch`] asks the hub which commit `main` is and which files it has, picks those that the engine reads
//! ([`files`]), fetches what the cache lacks, and answers the snapshot's folder:
//!
//! ```text
//! models--org--name/blobs/<etag>                the bytes, once for every commit that has them
//! models--org--name/snapshots/<commit>/<file>   links to them: the folder that a model is loaded from
//! models--org--name/refs/main                   the commit of the last fetch: where `HF_HUB_OFFLINE` starts
//! ```
//!
//! Python's `huggingface_hub` shares the cache both ways. The `hf-hub` crate is not used: 1.0.0 downloads from the start
//! each time, checks neither size nor hash, stores the body of a failed download as the file, and brings 200 crates for
//! a protocol (Xet) of which nothing is needed.
//!
//! 1. `blob` puts the bytes in place: appended to `<etag>.incomplete`, gone on with by `Range`, measured, hashed,
//!    synced and only then renamed, under the same lock that Python takes.
//! 2. `Tries`: what may pass (no connection, a break, 408, 429, 5xx) is tried again with growing pauses, or after what
//!    `Retry-After` asks; a try that brought bytes starts the count anew.
//! 3. Errors that say what to do: [`HubError`].
//! 4. The hub's own conversion: many older models have only `pytorch_model.bin` on `main`, and `model.safetensors` in
//!    a pull request by the hub's bot. We read that one, as `transformers` does.
//!
//! Bytes come over plain HTTP, which the hub serves for every file, also for those that it stores in Xet: one code path,
//! and one that the tests can cut.

mod blob;
mod error;
mod web;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use inkling_engine::checkpoint::files::{self, ModelFiles, WeightFiles};
use inkling_engine::checkpoint::hub::{is_at_top, is_id};
use inkling_engine::error::Error;

pub use error::{HubError, Tries};
use web::{Failure, Web};

/// The branch that a fetch follows.
const MAIN: &str = "main";

/// What a fetch needs to know; [`Settings::from_env`] takes it from where Hugging Face's own tools do.
#[derive(Clone)]
pub struct Settings {
    /// The hub's address, such as `https://huggingface.co`.
    pub endpoint: String,
    /// Sent to the endpoint, and to no other host. `None` asks as a stranger.
    pub token: Option<String>,
    /// The cache's folder.
    pub cache: PathBuf,
    /// Whether to use the cache alone.
    pub offline: bool,
    /// Tries in a row that bring nothing before giving up; at least 1.
    pub tries: u32,
    /// The first pause between tries; each further one is twice as long.
    pub pause: Duration,
    /// The longest pause. A `Retry-After` beyond it ends the fetch at once.
    pub longest_pause: Duration,
    /// How long a connection may be silent before it counts as broken.
    pub silence: Duration,
}

impl Settings {
    /// From the environment: `HF_ENDPOINT`; `HF_TOKEN`, the file that `HF_TOKEN_PATH` names or `$HF_HOME/token`;
    /// `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`, `$HF_HOME/hub`, `$XDG_CACHE_HOME/huggingface/hub` or
    /// `~/.cache/huggingface/hub`; `HF_HUB_OFFLINE`.
    #[must_use]
    pub fn from_env() -> Settings {
        let var = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let home = || match (var("HF_HOME"), var("XDG_CACHE_HOME")) {
            (Some(home), _) => PathBuf::from(home),
            (None, Some(caches)) => PathBuf::from(caches).join("huggingface"),
            (None, None) => std::env::home_dir().unwrap_or_default().join(".cache").join("huggingface"),
        };
        let read = |path: PathBuf| fs::read_to_string(path).ok();
        let token = match var("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            Some(_) => None,
            None => var("HF_TOKEN")
                .or_else(|| read(var("HF_TOKEN_PATH")?.into()))
                .or_else(|| read(home().join("token"))),
        };
        let yes = |value: String| ["1", "on", "yes", "true"].contains(&value.trim().to_lowercase().as_str());
        Settings {
            endpoint: var("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into()),
            token: token.map(|token| token.trim().to_string()).filter(|token| !token.is_empty()),
            cache: var("HF_HUB_CACHE")
                .or_else(|| var("HUGGINGFACE_HUB_CACHE"))
                .map_or_else(|| home().join("hub"), PathBuf::from),
            offline: var("HF_HUB_OFFLINE").is_some_and(yes),
            tries: 5,
            pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(60),
            silence: Duration::from_secs(20),
        }
    }
}

/// The Hugging Face hub, or a mirror of it. Fetches from several threads and processes may overlap.
pub struct Hub {
    settings: Settings,
}

/// Is told of bytes as they come: the file, its bytes so far, its bytes in all where the hub told them.
type Progress<'a> = dyn FnMut(&str, u64, Option<u64>) + 'a;

/// Which part of a repository is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Model,
    Tokenizer,
}

/// A commit and the files at its top.
struct Listing {
    revision: String,
    commit: String,
    names: Vec<String>,
}

impl Hub {
    /// The hub that the environment names.
    ///
    /// # Errors
    /// [`HubError::Setting`] if `HF_ENDPOINT` is not an address.
    pub fn from_env() -> Result<Hub, HubError> {
        Hub::new(Settings::from_env())
    }

    /// The hub that `settings` names.
    ///
    /// # Errors
    /// [`HubError::Setting`] if the endpoint is not an address.
    pub fn new(mut settings: Settings) -> Result<Hub, HubError> {
        let endpoint = settings.endpoint.trim().trim_end_matches('/').to_string();
        match reqwest::Url::parse(&endpoint) {
            Ok(url) if matches!(url.scheme(), "http" | "https") => settings.endpoint = endpoint,
            _ => {
                let reason = format!("expected an address such as https://huggingface.co, got `{endpoint}`");
                return Err(HubError::Setting { name: "HF_ENDPOINT", reason });
            }
        }
        Ok(Hub { settings })
    }

    /// Sees to it that the cache holds the model `id` as it is on `main`, and answers the folder of its files.
    ///
    /// Blocks, on a small async runtime of its own: call it from a plain thread or `spawn_blocking`. If the hub cannot
    /// be reached, a complete model of an earlier fetch serves. A file that is there already is not reported to
    /// `progress`.
    ///
    /// # Errors
    /// Each case of [`HubError`]. The cache then holds what it held, and what came of the file that failed.
    pub fn fetch(&self, id: &str, progress: &mut Progress<'_>) -> Result<PathBuf, HubError> {
        self.fetch_part(id, Part::Model, progress)
    }

    /// As [`Hub::fetch`], for the tokenizer's files alone.
    ///
    /// # Errors
    /// As [`Hub::fetch`].
    pub fn fetch_tokenizer(&self, id: &str, progress: &mut Progress<'_>) -> Result<PathBuf, HubError> {
        self.fetch_part(id, Part::Tokenizer, progress)
    }

    fn fetch_part(&self, id: &str, part: Part, progress: &mut Progress<'_>) -> Result<PathBuf, HubError> {
        if !is_id(id) {
            return Err(HubError::Id(id.into()));
        }
        let folder = self.settings.cache.join(format!("models--{}", id.replace('/', "--")));
        let cached = cached(&folder, part);
        if self.settings.offline {
            let cache = self.settings.cache.clone();
            return cached.map_err(|reason| HubError::Offline { repo: id.into(), cache, reason });
        }
        // Connections belong to the runtime that they were made on, so each fetch has its own of both.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime =
            runtime.map_err(|source| HubError::Cache { path: self.settings.cache.clone(), source })?;
        let web = Web::new(&self.settings, id)?;
        runtime.block_on(async {
            // With a model at hand, nobody should wait for a hub that is away.
            let tries = if cached.is_ok() { 1 } else { self.settings.tries };
            match (web.patiently(tries, id, async || listing(&web, MAIN).await).await, cached) {
                (Err(HubError::Unreachable { .. } | HubError::Busy { .. }), Ok(snapshot)) => Ok(snapshot),
                (Err(error), _) => Err(error),
                (Ok(listing), _) => Fetch { web: &web, folder: &folder }.part(part, listing, progress).await,
            }
        })
    }
}

/// One fetch of one repository.
struct Fetch<'a> {
    web: &'a Web<'a>,
    folder: &'a Path,
}

impl Fetch<'_> {
    async fn part(
        &self,
        part: Part,
        mut listing: Listing,
        progress: &mut Progress<'_>,
    ) -> Result<PathBuf, HubError> {
        if part == Part::Model
            && files::model_files(&listing.names).is_err()
            && listing.names.iter().any(|name| name == "pytorch_model.bin")
            && let Some(converted) = self.conversion().await
        {
            listing = converted;
        }
        let (names, index) = match part {
            Part::Model => {
                let found = files::model_files(&listing.names).map_err(|source| self.files_error(source))?;
                let index = match &found.weights {
                    WeightFiles::Sharded(index) => Some(index.clone()),
                    WeightFiles::One(_) => None,
                };
                (in_order(&found), index)
            }
            Part::Tokenizer => {
                let found = files::tokenizer_files(&listing.names).ok_or_else(|| {
                    let reason = "expected `tokenizer.json`, `vocab.json` with `merges.txt`, or `vocab.txt`";
                    self.files_error(Error::Format { file: "tokenizer".into(), reason: reason.into() })
                })?;
                (found.into_iter().map(Into::into).collect(), None)
            }
        };
        let snapshot = self.folder.join("snapshots").join(&listing.commit);
        for name in &names {
            self.place(&listing.commit, name, &snapshot, progress).await?;
        }
        if let Some(index) = index {
            for shard in shards(&snapshot.join(index)).map_err(|source| self.files_error(source))? {
                self.place(&listing.commit, &shard, &snapshot, progress).await?;
            }
        }
        write_ref(self.folder, &listing.revision, &listing.commit)?;
        Ok(snapshot)
    }

    /// Sees to it that `snapshot` has the file `name`. A commit never changes, so a file that is there stays right.
    async fn place(
        &self,
        commit: &str,
        name: &str,
        snapshot: &Path,
        progress: &mut Progress<'_>,
    ) -> Result<(), HubError> {
        if snapshot.join(name).exists() {
            return Ok(());
        }
        let tries = self.web.settings.tries;
        let entry = self.web.patiently(tries, name, async || self.web.entry(commit, name).await).await?;
        let lock = blob::lock(self.folder, name, &entry, progress).await?;
        blob::complete(self.web, self.folder, commit, name, &entry, progress).await?;
        let linked = blob::link(self.folder, snapshot, name, &entry);
        drop(lock);
        linked
    }

    /// The hub's own safetensors variant of a model that has none on `main`.
    async fn conversion(&self) -> Option<Listing> {
        let revision = self.web.conversion().await.ok()??;
        let tries = self.web.settings.tries;
        let found = self
            .web
            .patiently(tries, self.web.repo, async || listing(self.web, &revision).await)
            .await
            .ok()?;
        files::model_files(&found.names).is_ok().then_some(found)
    }

    fn files_error(&self, source: Error) -> HubError {
        let endpoint = self.web.settings.endpoint.clone();
        HubError::Files { repo: self.web.repo.into(), endpoint, source: Box::new(source) }
    }
}

/// Asks for the commit of `revision` and the files that lie at its top. Folders hold other forms of the same model.
async fn listing(web: &Web<'_>, revision: &str) -> Result<Listing, Failure> {
    let (commit, mut names) = web.listing(revision).await?;
    names.retain(|name| is_at_top(name));
    Ok(Listing { revision: revision.into(), commit, names })
}

/// A model's files, the weights last: where they are, the others are too.
fn in_order(files: &ModelFiles) -> Vec<String> {
    let (WeightFiles::One(weights) | WeightFiles::Sharded(weights)) = &files.weights;
    files.small().into_iter().chain([weights.as_str()]).map(Into::into).collect()
}

/// The shards that an index in the cache names.
fn shards(index: &Path) -> Result<Vec<String>, Error> {
    // What cannot be read is told as what cannot be parsed; the parser names the file.
    files::shards(&fs::read(index).unwrap_or_default())
}

/// The snapshot of the last fetch, or what it lacks.
fn cached(folder: &Path, part: Part) -> Result<PathBuf, String> {
    let mut lacks = Err("it was never fetched".to_string());
    for reference in references(folder) {
        let Ok(commit) = fs::read_to_string(reference) else { continue };
        let snapshot = folder.join("snapshots").join(commit.trim());
        match lack(&snapshot, part) {
            None => return Ok(snapshot),
            Some(lack) => lacks = Err(lack),
        }
    }
    lacks
}

/// `main`, then the pull requests, which a conversion may have come from.
fn references(folder: &Path) -> Vec<PathBuf> {
    let refs = folder.join("refs");
    let pulls =
        fs::read_dir(refs.join("refs").join("pr")).into_iter().flatten().flatten().map(|entry| entry.path());
    [refs.join(MAIN)].into_iter().chain(pulls).collect()
}

/// What a snapshot lacks of what is wanted.
fn lack(snapshot: &Path, part: Part) -> Option<String> {
    let entries = fs::read_dir(snapshot).into_iter().flatten().flatten();
    // A link may dangle: what counts is what it leads to.
    let names: Vec<String> = entries
        .filter(|entry| entry.path().is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    if part == Part::Tokenizer {
        return files::tokenizer_files(&names).is_none().then(|| "it has no tokenizer there".into());
    }
    let index = match files::model_files(&names) {
        Err(error) => return Some(error.to_string()),
        Ok(ModelFiles { weights: WeightFiles::One(_), .. }) => return None,
        Ok(ModelFiles { weights: WeightFiles::Sharded(index), .. }) => index,
    };
    match shards(&snapshot.join(index)) {
        Err(error) => Some(error.to_string()),
        Ok(shards) => shards
            .into_iter()
            .find(|shard| !names.contains(shard))
            .map(|shard| format!("`{shard}` is missing")),
    }
}

/// Notes the commit of `revision`: written beside and renamed, so that a reader sees the old or the new one.
fn write_ref(folder: &Path, revision: &str, commit: &str) -> Result<(), HubError> {
    let path = folder.join("refs").join(revision);
    if fs::read_to_string(&path).is_ok_and(|old| old.trim() == commit) {
        return Ok(());
    }
    let write = || -> io::Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let beside = path.with_extension(format!("{}.new", std::process::id()));
        fs::write(&beside, commit)?;
        fs::rename(&beside, &path)
    };
    write().map_err(|source| HubError::Cache { path: path.clone(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_come_last() {
        let names = ["model.safetensors", "tokenizer.json", "config.json", "generation_config.json"];
        let found = files::model_files(&names.map(String::from)).unwrap();
        assert_eq!(
            in_order(&found),
            ["config.json", "generation_config.json", "tokenizer.json", "model.safetensors"]
        );
    }

    #[test]
    fn an_endpoint_must_be_an_address() {
        for bad in ["", "huggingface.co", "file:///tmp", "not an address"] {
            let settings = Settings { endpoint: bad.into(), ..Settings::from_env() };
            let error = Hub::new(settings).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.starts_with("HF_ENDPOINT: expected an address"), "{bad}: {error}");
        }
    }
}
