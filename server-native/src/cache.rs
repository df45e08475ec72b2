//! Packed models, kept on disk: the second load of a large checkpoint reads a quarter of the bytes and packs nothing.
//!
//! What is kept is the form that the page keeps too ([`packed`](inkling_engine::checkpoint::packed)): a folder a model,
//! with its tensors as they lie in memory (`data`) and the list of their places and hashes (`index`):
//!
//! ```text
//! packed/6f0c...9a/data, index      a model
//! packed/.new-4711-0-.../           one that is being written; its writer holds a lock on `data`
//! ```
//!
//! 1. An entry is found by the paths of the weights' files, and is of use only if these files have the size, inode and
//!    times (of content and of status) that they had when they were read, and the config has its hash. Whatever writes to
//!    a file changes the time of its status.
//! 2. Each tensor has its hash, which is checked whenever it is read, by all threads together. So nothing has to wait
//!    for the disk while an entry is written: what a crash or a broken disk leaves of it is found out, told, and made anew.
//! 3. An entry is written beside and renamed when it is whole. Of two processes that write the same one the first wins.
//! 4. A cache that cannot be read or written costs time and one sentence, never the load.
//! 5. After an entry was written, those go whose source has changed or is gone, then those that were not used for longest,
//!    until the rest has at most [`LIMIT_BYTES`].
//!
//! Only what packing makes much smaller is worth its place: f32 safetensors of some size, not GGUF at 8 bits.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use inkling_engine::checkpoint::{
    Dtype, LoadOptions, Loaded, Loader, hexadecimal, memory_bytes,
    packed::{Content, Head, Index, Piece, Writer},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{disk::free_bytes, models::Folder, pool::cores};

/// Most bytes that the entries take together.
pub const LIMIT_BYTES: u64 = 8 << 30;

/// Checkpoints of less are read as fast as their entry would be.
const LEAST_BYTES: u64 = 16 << 20;

/// Where packed models are kept.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
    limit_bytes: u64,
    warn: fn(&str),
}

/// An entry, for people.
#[derive(Clone, Debug, Serialize)]
pub struct Listed {
    /// What the model was called.
    pub model: String,
    /// How its weights are kept.
    pub dtype: String,
    /// Bytes on the disk.
    pub size_bytes: u64,
    /// When it was last used, in seconds since 1970.
    pub used: u64,
    /// The entry's folder.
    pub folder: PathBuf,
}

/// What an entry is made from.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Source {
    /// What the model is called, for people only.
    model: String,
    config_sha256: String,
    files: Vec<SourceFile>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct SourceFile {
    path: PathBuf,
    size_bytes: u64,
    /// In nanoseconds since 1970.
    modified: i64,
    /// Of the file's status, which every write changes. 0 where the system keeps none.
    changed: i64,
    /// 0 where the system tells none.
    inode: u64,
}

/// A checkpoint that is worth an entry.
pub(crate) struct Wanted<'a> {
    cache: &'a Cache,
    source: Source,
    dtype: Dtype,
    config: &'a [u8],
    /// About what the entry will have.
    packed_bytes: u64,
    /// The entry's folder.
    place: PathBuf,
}

/// The host's state of a complete entry.
#[derive(Serialize, Deserialize)]
struct State {
    /// The hash of the model: see [`load`](crate::load::load).
    sha256: String,
}

impl Cache {
    /// The cache in `folder`. `warn` is told, in a sentence, what is wrong with it; nothing fails for that.
    #[must_use]
    pub fn new(folder: PathBuf, warn: fn(&str)) -> Cache {
        Cache { folder, limit_bytes: LIMIT_BYTES, warn }
    }

    /// The same with another limit for all entries together.
    #[must_use]
    pub fn with_limit_bytes(self, limit_bytes: u64) -> Cache {
        Cache { limit_bytes, ..self }
    }

    /// The cache in `$INKLING_CACHE_DIR`, else `$XDG_CACHE_HOME/inkling`, else `~/.cache/inkling`; none without a home.
    #[must_use]
    pub fn from_env(warn: fn(&str)) -> Option<Cache> {
        let var = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = || std::env::home_dir().filter(|home| home.is_absolute()).map(|home| home.join(".cache"));
        let folder = var("INKLING_CACHE_DIR")
            .or_else(|| Some(var("XDG_CACHE_HOME").or_else(home)?.join("inkling")))?;
        Some(Cache::new(folder.join("packed"), warn))
    }

    /// Where the entries are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The entries, the one that was used last first.
    ///
    /// # Errors
    /// If the folder is there and cannot be read.
    pub fn entries(&self) -> io::Result<Vec<Listed>> {
        let mut entries: Vec<Listed> = self.folders()?.iter().filter_map(|folder| listed(folder)).collect();
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.used));
        Ok(entries)
    }

    /// Removes the entries that `unwanted` says, and what broken writes have left. Answers how many bytes that gave.
    ///
    /// # Errors
    /// If a folder cannot be read or removed.
    pub fn remove(&self, mut unwanted: impl FnMut(&Listed) -> bool) -> io::Result<u64> {
        self.remove_leftovers()?;
        let mut freed = 0;
        for entry in self.entries()?.iter().filter(|entry| unwanted(entry)) {
            self.discard(&entry.folder)?;
            freed += entry.size_bytes;
        }
        Ok(freed)
    }

    /// The folders of entries and of what broken writes have left.
    fn folders(&self) -> io::Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let path = |entry: io::Result<fs::DirEntry>| entry.map(|entry| entry.path());
        entries.map(path).filter(|path| path.as_ref().map_or(true, |path| path.is_dir())).collect()
    }

    /// Whether to keep the weights in `files` of `folder`, in the order of their names, and as what.
    pub(crate) fn wants<'a>(
        &'a self,
        model: &str,
        folder: &Folder,
        files: &[String],
        config: &'a [u8],
        options: LoadOptions,
    ) -> Option<Wanted<'a>> {
        if !files.iter().all(|name| name.ends_with(".safetensors")) {
            return None;
        }
        let source_files: Vec<SourceFile> =
            files.iter().map(|name| SourceFile::of(&folder.path(name)?)).collect::<Option<_>>()?;
        let source_bytes = size_bytes(&source_files);
        let packed_bytes = memory_bytes(config, options.dtype).ok()?;
        if source_bytes < LEAST_BYTES || packed_bytes > source_bytes / 3 * 2 {
            return None;
        }
        let mut sha = Sha256::new();
        sha.update(format!("{:?}", options.dtype));
        for file in &source_files {
            sha.update(file.path.as_os_str().as_encoded_bytes());
            sha.update([0]);
        }
        let place = self.folder.join(&hexadecimal(&sha.finalize())[..32]);
        let source = Source {
            model: model.into(),
            config_sha256: hexadecimal(&Sha256::digest(config)),
            files: source_files,
        };
        Some(Wanted { cache: self, source, dtype: options.dtype, config, packed_bytes, place })
    }

    /// Removes an entry so that nobody meets a part of it.
    fn discard(&self, folder: &Path) -> io::Result<()> {
        let aside = self.unused_name("old");
        fs::rename(folder, &aside)?;
        fs::remove_dir_all(aside)
    }

    /// A name that nobody has.
    fn unused_name(&self, what: &str) -> PathBuf {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        // Processes in containers may share a folder and a number.
        let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |now| now.as_nanos());
        let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        self.folder.join(format!(".{what}-{process}-{number}-{now}"))
    }

    fn remove_leftovers(&self) -> io::Result<()> {
        for folder in self.folders()?.iter().filter(|folder| is_leftover(folder)) {
            let is_given_up = match File::open(folder.join("data")) {
                Ok(data) => data.try_lock().is_ok(),
                // Just begun, unless that was long ago.
                Err(_) => fs::metadata(folder)
                    .and_then(|found| found.modified())
                    .is_ok_and(|begun| begun.elapsed().is_ok_and(|age| age > Duration::from_secs(60))),
            };
            if is_given_up {
                fs::remove_dir_all(folder)?;
            }
        }
        Ok(())
    }

    /// Removes what is of no use any more, and what is too much.
    fn tidy(&self, newest: &Path) -> io::Result<()> {
        let mut room = self.limit_bytes;
        self.remove(|entry| {
            if entry.folder == newest {
                room = room.saturating_sub(entry.size_bytes);
                return false;
            }
            let is_current = source_of(&entry.folder).is_some_and(|source| source.is_current());
            let fits = room.checked_sub(entry.size_bytes).filter(|_| is_current);
            room = fits.unwrap_or(room);
            fits.is_none()
        })
        .map(drop)
    }
}

/// Whether a folder is no entry: one that is being written, or was, or is being removed.
fn is_leftover(folder: &Path) -> bool {
    folder.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What a folder holds, if it is an entry.
fn listed(folder: &Path) -> Option<Listed> {
    if is_leftover(folder) {
        return None;
    }
    let size = |name: &str| fs::metadata(folder.join(name)).map_or(0, |found| found.len());
    let used = fs::metadata(folder.join("index")).or_else(|_| fs::metadata(folder)).ok()?.modified().ok()?;
    let head = head_of(folder).unwrap_or_default();
    let text =
        |pointer: &str| head.pointer(pointer).and_then(serde_json::Value::as_str).unwrap_or("?").to_string();
    Some(Listed {
        model: text("/head/source/model"),
        dtype: text("/head/dtype"),
        size_bytes: size("data") + size("index"),
        used: seconds(used),
        folder: folder.into(),
    })
}

/// The first line of an entry's index.
fn head_of(folder: &Path) -> Option<serde_json::Value> {
    let index = fs::read(folder.join("index")).ok()?;
    serde_json::from_slice(index.split(|&byte| byte == b'\n').next()?).ok()
}

fn source_of(folder: &Path) -> Option<Source> {
    serde_json::from_value(head_of(folder)?.pointer_mut("/head/source")?.take()).ok()
}

impl Source {
    /// Whether its files are as they were.
    fn is_current(&self) -> bool {
        self.files.iter().all(|file| SourceFile::of(&file.path).as_ref() == Some(file))
    }
}

/// Of all of them together.
fn size_bytes(files: &[SourceFile]) -> u64 {
    files.iter().map(|file| file.size_bytes).sum()
}

impl SourceFile {
    fn of(path: &Path) -> Option<SourceFile> {
        let path = path.canonicalize().ok()?;
        let found = fs::metadata(&path).ok()?;
        let since = found.modified().ok()?.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let modified = i64::try_from(since.as_nanos()).unwrap_or(i64::MAX);
        let (changed, inode) = status(&found);
        // Lossy, so that every path has a form in JSON; it is compared, not opened.
        let path = path.to_string_lossy().into_owned().into();
        Some(SourceFile { path, size_bytes: found.len(), modified, changed, inode })
    }
}

#[cfg(unix)]
fn status(found: &fs::Metadata) -> (i64, u64) {
    use std::os::unix::fs::MetadataExt;
    (found.ctime().saturating_mul(1_000_000_000).saturating_add(found.ctime_nsec()), found.ino())
}

#[cfg(not(unix))]
fn status(_: &fs::Metadata) -> (i64, u64) {
    (0, 0)
}

impl Wanted<'_> {
    /// Bytes of the weights that the entry is made from.
    pub(crate) fn source_bytes(&self) -> u64 {
        size_bytes(&self.source.files)
    }

    /// The model from its entry, and its hash. `None` where there is no entry, or none that is of use.
    pub(crate) fn restore(&self, options: LoadOptions) -> Option<(Loaded, String)> {
        let index = self.index()?;
        match self.read(&index, options) {
            Ok(found) => {
                // What was not used for longest goes first.
                let used = File::options().append(true).open(self.place.join("index"));
                let _ = used.and_then(|index| index.set_modified(SystemTime::now()));
                Some(found)
            }
            Err(error) => {
                let model = &self.source.model;
                (self.cache.warn)(&format!(
                    "the packed copy of model {model} is broken and is made anew: {error:#}"
                ));
                // Its index says that all is well, so nobody would replace it.
                let _ = self.cache.discard(&self.place);
                None
            }
        }
    }

    /// What the entry's index says, if it is whole and of this source.
    fn index(&self) -> Option<Index> {
        let lines = fs::read(self.place.join("index")).ok()?;
        let data_bytes = fs::metadata(self.place.join("data")).ok()?.len();
        let index = Index::parse(&lines, self.dtype, data_bytes).ok()?;
        let source: Source = serde_json::from_value(index.head.source.clone()).ok()?;
        let is_same = source.config_sha256 == self.source.config_sha256 && source.files == self.source.files;
        (is_same && index.complete.is_some()).then_some(index)
    }

    /// Reads the model, on as many threads as there are cores.
    fn read(&self, index: &Index, options: LoadOptions) -> Result<(Loaded, String)> {
        let State { sha256 } = serde_json::from_value(index.complete.clone().unwrap_or_default())?;
        let mut loader = Loader::new(Some(self.config), options)?;
        let path = self.place.join("data");
        let mut file = File::open(&path).context("its data are gone")?;
        let mut headers = index.pieces.iter().filter_map(|piece| match &piece.content {
            Content::Header { name, file_bytes } => Some((piece, name, *file_bytes)),
            _ => None,
        });
        let mut begin =
            |loader: &mut Loader, (piece, name, file_bytes): (&Piece, &String, Option<u64>)| -> Result<()> {
                let mut header = vec![0; usize::try_from(piece.size_bytes)?];
                file.seek(SeekFrom::Start(piece.offset))?;
                file.read_exact(&mut header)?;
                piece.check(&header)?;
                loader.begin_file(name, file_bytes)?;
                Ok(loader.restore_header(&header)?)
            };
        let end = |loader: &mut Loader| -> Result<()> {
            loader.skip_to(u64::MAX)?;
            Ok(loader.end_file()?)
        };
        // From the first header on the loader knows what tensors there are.
        begin(&mut loader, headers.next().context("it has no header")?)?;
        for tensor in tensors(index, &loader, &path)? {
            loader.restore_checked(tensor);
        }
        end(&mut loader)?;
        for header in headers {
            begin(&mut loader, header)?;
            end(&mut loader)?;
        }
        Ok((loader.finish()?, sha256))
    }

    /// Begins an entry. Where that is not possible the reason is told.
    pub(crate) fn keep(&self) -> Keeping<'_> {
        let keeping = self.begin();
        Keeping { wanted: self, entry: keeping.map_err(|error| self.say_not_kept(&error)).ok() }
    }

    fn begin(&self) -> io::Result<NewEntry> {
        let cache = self.cache;
        fs::create_dir_all(&cache.folder)?;
        if free_bytes(&cache.folder).is_some_and(|free| free < self.packed_bytes) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let folder = cache.unused_name("new");
        fs::create_dir(&folder)?;
        let entry = File::options().write(true).create_new(true).open(folder.join("data")).map(|data| {
            // Says that somebody is at it; where the disk has no locks, a leftover may stay.
            let _ = data.try_lock();
            let source = serde_json::to_value(&self.source).expect("a source is plain data");
            let (writer, index) = Writer::begin(Head::new(self.dtype, source));
            NewEntry { folder: folder.clone(), data, writer, index }
        });
        entry.inspect_err(|_| drop(fs::remove_dir(&folder)))
    }

    fn say_not_kept(&self, error: &io::Error) {
        let (model, folder) = (&self.source.model, self.cache.folder.display());
        (self.cache.warn)(&format!("no packed copy of model {model} is kept in {folder}: {error}"));
    }
}

/// All tensors of an entry.
fn tensors(
    index: &Index,
    loader: &Loader,
    path: &Path,
) -> Result<Vec<inkling_engine::checkpoint::packed::Checked>> {
    let mut pieces: Vec<_> = index
        .pieces
        .iter()
        .filter_map(|piece| Some((piece.offset, piece.size_bytes, piece.tensor()?)))
        .collect();
    // The largest first, so that all threads end at about the same time.
    pieces.sort_by_key(|(_, size, _)| std::cmp::Reverse(*size));
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(pieces.len()));
    let work = || -> Result<()> {
        let mut file = File::open(path)?;
        while let Some((offset, _, tensor)) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
            let slot = loader.slot(tensor)?;
            file.seek(SeekFrom::Start(*offset))?;
            let tensor = slot.fill(|bytes| file.read_exact(bytes).map_err(anyhow::Error::new))?;
            done.lock().unwrap_or_else(PoisonError::into_inner).push(tensor);
        }
        Ok(())
    };
    thread::scope(|scope| {
        // Where the system gives fewer threads, the others do everything.
        let helpers = (1..cores().min(pieces.len()))
            .map_while(|_| thread::Builder::new().name("restore".into()).spawn_scoped(scope, work).ok());
        let helpers: Vec<_> = helpers.collect();
        let own = work();
        let ended = helpers
            .into_iter()
            .map(|helper| helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        ended.fold(own, Result::and)
    })?;
    Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// An entry that is being written while its source is read; nothing, once that failed.
pub(crate) struct Keeping<'a> {
    wanted: &'a Wanted<'a>,
    entry: Option<NewEntry>,
}

struct NewEntry {
    folder: PathBuf,
    data: File,
    writer: Writer,
    /// The index so far: it is written last.
    index: String,
}

impl Keeping<'_> {
    /// Takes what became whole of the weights file `name`.
    pub(crate) fn take(&mut self, loader: &mut Loader, name: &str, file_bytes: u64) {
        self.attempt(|entry| {
            if let Some(header) = loader.take_header() {
                entry.data.write_all(&header)?;
                entry.index += &entry.writer.header(name, Some(file_bytes), &header);
            }
            for tensor in loader.take_finished() {
                tensor.parts.iter().try_for_each(|part| entry.data.write_all(part))?;
                entry.index += &entry.writer.tensor(&tensor);
            }
            Ok(())
        });
    }

    /// The model is whole, and has this hash.
    pub(crate) fn complete(mut self, sha256: &str) {
        let wanted = self.wanted;
        self.attempt(|entry| {
            let state = serde_json::to_value(State { sha256: sha256.into() }).expect("a state is plain data");
            entry.index += &entry.writer.complete(state);
            fs::write(entry.folder.join("index"), &entry.index)?;
            if fs::rename(&entry.folder, &wanted.place).is_err() {
                // An older entry is in the way, or one that another process has just made.
                if wanted.index().is_none() {
                    let _ = wanted.cache.discard(&wanted.place);
                    let renamed = fs::rename(&entry.folder, &wanted.place);
                    if wanted.index().is_none() {
                        renamed?;
                    }
                }
            }
            Ok(())
        });
        if self.entry.is_some()
            && let Err(error) = wanted.cache.tidy(&wanted.place)
        {
            let folder = wanted.cache.folder.display();
            (wanted.cache.warn)(&format!("the packed models in {folder} cannot be tidied up: {error}"));
        }
    }

    /// Does something to the entry. If it fails the reason is told and the entry given up.
    fn attempt(&mut self, act: impl FnOnce(&mut NewEntry) -> io::Result<()>) {
        if let Some(entry) = &mut self.entry
            && let Err(error) = act(entry)
        {
            self.wanted.say_not_kept(&error);
            self.entry = None;
        }
    }
}

impl Drop for NewEntry {
    /// Removes what has not become an entry.
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}
