//! The bytes of one file: appended to `<etag>.incomplete`, gone on with after a break, and renamed once they are right.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{Response, StatusCode};
use sha2::{Digest, Sha256};

use super::Progress;
use super::error::{HubError, Tries};
use super::web::{Entry, Failure, Web};
use crate::disk::free_bytes;

/// How often a fetch that waits for another one looks how far that is.
const GLANCE: Duration = Duration::from_millis(100);

/// Held while a blob is written; other threads and processes wait for its end.
pub(super) struct Lock {
    _file: Option<File>,
}

/// Takes the lock of a blob, the one that Python's `huggingface_hub` takes too. Meanwhile the bytes that
/// its holder brings are reported as ours.
pub(super) async fn lock(
    folder: &Path,
    name: &str,
    entry: &Entry,
    progress: &mut Progress<'_>,
) -> Result<Lock, HubError> {
    let locks = folder.parent().unwrap_or(folder).join(".locks").join(folder.file_name().unwrap_or_default());
    let path = locks.join(format!("{}.lock", entry.etag));
    let open = || {
        fs::create_dir_all(&locks)?;
        fs::create_dir_all(folder.join("blobs"))?;
        File::options().create(true).truncate(false).write(true).open(&path)
    };
    let file = open().map_err(|source| disk_error(folder, &path, name, None, source))?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Lock { _file: Some(file) }),
            Err(TryLockError::WouldBlock) => {}
            // Some network disks know no locks: there, two fetches at once end in a damaged file that is fetched anew.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                return Ok(Lock { _file: None });
            }
            Err(TryLockError::Error(source)) => return Err(HubError::Cache { path, source }),
        }
        if let Ok(theirs) = fs::metadata(incomplete(folder, entry)) {
            progress(name, theirs.len(), entry.size);
        }
        tokio::time::sleep(GLANCE).await;
    }
}

/// Sees to it that the blob of `entry` is there, and right. The caller holds its lock.
pub(super) async fn complete(
    web: &Web<'_>,
    folder: &Path,
    commit: &str,
    name: &str,
    entry: &Entry,
    progress: &mut Progress<'_>,
) -> Result<(), HubError> {
    let blob = folder.join("blobs").join(&entry.etag);
    let is_whole = |found: fs::Metadata| entry.size.is_none_or(|size| size == found.len());
    if fs::metadata(&blob).is_ok_and(is_whole) {
        return Ok(());
    }
    let path = incomplete(folder, entry);
    let mut part = Part { web, folder, commit, name, entry, kept: 0, file: open(&path, folder, name)? };
    part.kept = part.len()?;
    let mut inherited = part.kept > 0;
    loop {
        part.fill(progress).await?;
        let wrong = match part.check()? {
            None => break,
            Some(wrong) => wrong,
        };
        // Nothing wrong is kept. If we did not write all of it, it may not be the hub's fault.
        part.restart()?;
        if !inherited {
            let _ = fs::remove_file(&path);
            return Err(wrong);
        }
        inherited = false;
    }
    let finish = || {
        part.file.sync_all()?;
        fs::rename(&path, &blob)
    };
    finish().map_err(|source| part.disk_error(source))
}

/// Links the blob of `entry` into the snapshot as the file `name`, as `huggingface_hub` does: relatively, so that the
/// cache can be moved; where there are no links the file itself stands there.
pub(super) fn link(folder: &Path, snapshot: &Path, name: &str, entry: &Entry) -> Result<(), HubError> {
    let path = snapshot.join(name);
    let link = || {
        // Another fetch was here first, and somebody may be reading the file.
        if path.exists() {
            return Ok(());
        }
        fs::create_dir_all(snapshot)?;
        // A dangling link, of a blob that somebody deleted, is in the way.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        symlink(Path::new("..").join("..").join("blobs").join(&entry.etag), &path)
            .or_else(|_| fs::copy(folder.join("blobs").join(&entry.etag), &path).map(|_| ()))
    };
    link().map_err(|source| disk_error(folder, &path, name, entry.size, source))
}

#[cfg(unix)]
use std::os::unix::fs::symlink;
#[cfg(windows)]
use std::os::windows::fs::symlink_file as symlink;

fn incomplete(folder: &Path, entry: &Entry) -> PathBuf {
    folder.join("blobs").join(format!("{}.incomplete", entry.etag))
}

fn open(path: &Path, folder: &Path, name: &str) -> Result<File, HubError> {
    let file = File::options().create(true).read(true).append(true).open(path);
    file.map_err(|source| disk_error(folder, path, name, None, source))
}

/// A file on its way.
struct Part<'a> {
    web: &'a Web<'a>,
    folder: &'a Path,
    commit: &'a str,
    name: &'a str,
    entry: &'a Entry,
    /// `<etag>.incomplete`, open to append.
    file: File,
    /// Its length.
    kept: u64,
}

impl Part<'_> {
    /// Tries until all bytes are there.
    async fn fill(&mut self, progress: &mut Progress<'_>) -> Result<(), HubError> {
        let mut past = Tries::default();
        loop {
            if self.entry.size.is_some_and(|size| self.kept >= size) {
                return Ok(());
            }
            self.check_room()?;
            let before = self.kept;
            let failure = match self.once(progress).await {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            let brought = self.kept > before;
            if brought {
                past = Tries::default();
            }
            if let Some(failure) = self.web.pause(failure, self.web.settings.tries, &mut past).await {
                return Err(match failure {
                    Failure::Broken { reason } if self.kept > 0 => HubError::Cut {
                        file: self.name.into(),
                        kept: self.kept,
                        total: self.entry.size,
                        reason,
                        tries: past,
                    },
                    failure => self.web.give_up(failure, self.name, past),
                });
            }
            if brought {
                past.count = 0;
            }
        }
    }

    /// One request, from where the file ends.
    async fn once(&mut self, progress: &mut Progress<'_>) -> Result<(), Failure> {
        let mut response = self.web.bytes(self.commit, self.name, self.kept).await?;
        if self.kept > 0 && !goes_on_at(self.kept, &response) {
            self.restart()?;
            if response.status() != StatusCode::OK {
                return Err(Failure::Broken {
                    reason: format!("it answered a range with {}", response.status()),
                });
            }
        }
        progress(self.name, self.kept, self.entry.size);
        while let Some(bytes) = response.chunk().await? {
            self.file.write_all(&bytes).map_err(|source| {
                // A full disk may have taken a part of it.
                self.kept = self.file.metadata().map_or(self.kept, |found| found.len());
                self.disk_error(source)
            })?;
            self.kept += bytes.len() as u64;
            progress(self.name, self.kept, self.entry.size);
            if self.entry.size.is_some_and(|size| self.kept > size) {
                // What came beyond the end will not get better: let the check tell it.
                return Ok(());
            }
        }
        match self.entry.size {
            Some(size) if self.kept < size => Err(Failure::Broken { reason: "it ended early".into() }),
            _ => Ok(()),
        }
    }

    /// What is wrong with the bytes, if anything is.
    fn check(&mut self) -> Result<Option<HubError>, HubError> {
        let (file, endpoint) = (self.name.to_string(), self.web.settings.endpoint.clone());
        if let Some(expected) = self.entry.size
            && self.kept != expected
        {
            return Ok(Some(HubError::Size { file, endpoint, expected, got: self.kept }));
        }
        let Some(expected) = self.entry.sha256() else { return Ok(None) };
        let got = sha256(&mut self.file).map_err(|source| self.disk_error(source))?;
        let expected = expected.to_lowercase();
        Ok((got != expected).then_some(HubError::Hash { file, endpoint, expected, got }))
    }

    /// Empties the file.
    fn restart(&mut self) -> Result<(), HubError> {
        self.file.set_len(0).map_err(|source| self.disk_error(source))?;
        self.kept = 0;
        Ok(())
    }

    fn len(&self) -> Result<u64, HubError> {
        self.file.metadata().map(|found| found.len()).map_err(|source| self.disk_error(source))
    }

    /// Tells a full disk before minutes of download do.
    fn check_room(&self) -> Result<(), HubError> {
        match (self.entry.size, free_bytes(self.folder)) {
            (Some(size), Some(free)) if size.saturating_sub(self.kept) > free => {
                Err(self.disk_error(io::ErrorKind::StorageFull.into()))
            }
            _ => Ok(()),
        }
    }

    fn disk_error(&self, source: io::Error) -> HubError {
        let needs = self.entry.size.map(|size| size.saturating_sub(self.kept));
        disk_error(self.folder, &incomplete(self.folder, self.entry), self.name, needs, source)
    }
}

/// Whether an answer goes on where the file ends.
fn goes_on_at(start: u64, response: &Response) -> bool {
    let range = response.headers().get(reqwest::header::CONTENT_RANGE).and_then(|range| range.to_str().ok());
    response.status() == StatusCode::PARTIAL_CONTENT
        && range.is_some_and(|range| range.starts_with(&format!("bytes {start}-")))
}

/// The SHA-256 of a file from its start, in hexadecimal.
fn sha256(file: &mut File) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    file.rewind()?;
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What the system says of the disk; a full one, a full quota and a file beyond the limit are one thing to a user.
fn disk_error(folder: &Path, path: &Path, name: &str, needs: Option<u64>, source: io::Error) -> HubError {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    match source.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => {
            let free = free_bytes(folder);
            HubError::DiskFull { file: name.into(), folder: folder.into(), needs, free }
        }
        _ => HubError::Cache { path: path.into(), source },
    }
}
