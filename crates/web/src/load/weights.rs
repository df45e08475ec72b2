//! Files of weights go into the loader while they come, after what an earlier load has kept of them.

use inkling_engine::checkpoint::{
    Loader, hexadecimal,
    packed::{Checkpoint, Content},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{
    Digest, Sha256,
    digest::common::hazmat::{SerializableState, SerializedState},
};

use super::{
    Load, check_hash,
    download::Download,
    fetch,
    keeping::Keeping,
    progress::{From, Meter},
    source::{self, Place, SourceFile},
};
use crate::{
    error::{Failure, Kind, Result},
    store::{Kept, Tail},
};

/// Bytes that are taken at once while a file's header is not whole.
const HEADER_STEP: usize = 16 << 10;

/// The hashes of the file that is being read, and of the whole model.
#[derive(Clone)]
pub(super) struct Hashes {
    /// Nothing unless it is known what it should be: hashing twice takes a third of a load's time.
    pub(super) file: Option<Sha256>,
    pub(super) model: Sha256,
}

/// What a checkpoint says beside the place in the file.
#[derive(Serialize, Deserialize)]
struct Resume {
    file: Option<String>,
    model: String,
    version: fetch::Version,
    /// Whether the file was read to its end.
    is_whole: bool,
}

impl Hashes {
    fn update(&mut self, bytes: &[u8]) {
        self.model.update(bytes);
        if let Some(file) = &mut self.file {
            file.update(bytes);
        }
    }
}

/// A file of weights while it is read.
struct Reading<'a> {
    file: &'a SourceFile,
    /// Bytes so far.
    at: u64,
    size_bytes: Option<u64>,
    version: fetch::Version,
}

impl Reading<'_> {
    /// Whether its last bytes are kept as they come: they can be had again at a cost, and proved.
    fn is_worth_a_tail(&self) -> bool {
        matches!(self.file.content, Place::Url(_)) && self.file.sha256.is_some()
    }

    /// A tail that begins here.
    fn tail(&self) -> Tail {
        Tail {
            file: self.file.name.clone(),
            at: self.at,
            size_bytes: self.size_bytes,
            version: self.version.clone(),
        }
    }

    fn checkpoint(&self, hashes: &Hashes, is_whole: bool) -> Checkpoint {
        let freeze = |sha: &Sha256| hexadecimal(&sha.serialize());
        let (file, model) = (hashes.file.as_ref().map(freeze), freeze(&hashes.model));
        let resume = Resume { file, model, version: self.version.clone(), is_whole };
        Checkpoint { file: self.file.name.clone(), at: self.at, state: json!(resume) }
    }
}

impl Load<'_> {
    /// Puts back what an earlier load has kept; answers with where that load was.
    pub(super) async fn restore(&self, kept: &Kept, loader: &mut Loader) -> Result<Option<Checkpoint>> {
        let index = &kept.index;
        let opened = kept.open().await;
        let total = index.pieces.iter().map(|piece| piece.size_bytes).sum();
        let mut meter = Meter::new(self.report, "model", 0, Some(total), From::Cache);
        let mut is_open = false;
        let mut done = 0;
        for piece in &index.pieces {
            if self.signal.aborted() {
                return Err(source::stopped());
            }
            if let Content::Header { name, file_bytes } = &piece.content {
                if is_open {
                    loader.skip_to(u64::MAX)?;
                    loader.end_file()?;
                }
                let mut header = vec![0; piece.size_bytes as usize];
                opened.read(piece, 0, &mut header).await?;
                piece.check(&header)?;
                loader.begin_file(name, *file_bytes)?;
                loader.restore_header(&header)?;
                is_open = true;
            } else if let Some(tensor) = piece.tensor() {
                let mut slot = loader.slot(&tensor)?;
                let mut from = 0;
                for part in slot.parts_mut() {
                    opened.read(piece, from, part).await?;
                    from += part.len() as u64;
                }
                loader.restore(slot)?;
            }
            done += piece.size_bytes;
            meter.set(done);
        }
        match &index.checkpoint {
            Some(checkpoint) => loader.skip_to(checkpoint.at)?,
            None if is_open => {
                loader.skip_to(u64::MAX)?;
                loader.end_file()?;
            }
            None => {}
        }
        Ok(index.checkpoint.clone())
    }

    /// Streams one file of weights into the loader, after what an earlier load had of it.
    pub(super) async fn weights(
        &self,
        file: &SourceFile,
        resumed: Option<Checkpoint>,
        loader: &mut Loader,
        hashes: &mut Hashes,
        keeping: &mut Keeping<'_>,
    ) -> Result<()> {
        hashes.file = file.sha256.is_some().then(Sha256::new);
        let mut reading =
            Reading { file, at: 0, size_bytes: file.size_bytes, version: fetch::Version::default() };
        let mut is_whole = false;
        if let Some(Checkpoint { at, state, .. }) = resumed {
            let state: Resume = serde_json::from_value(state).map_err(|_| unusable())?;
            hashes.model = thaw(&state.model)?;
            if let Some(hash) = &mut hashes.file {
                *hash = thaw(&state.file.unwrap_or_default())?;
            }
            (reading.at, reading.version, is_whole) = (at, state.version, state.is_whole);
        }
        if !is_whole {
            let has_tail = self.replay_tail(&mut reading, loader, hashes, keeping).await?;
            if !(has_tail && reading.size_bytes == Some(reading.at)) {
                let version = reading.version.clone();
                let mut download = Download::begin(self, file, reading.at, version).await?;
                (reading.size_bytes, reading.version) = (download.size_bytes, download.version.clone());
                if reading.at == 0 {
                    loader.begin_file(&file.name, reading.size_bytes)?;
                }
                if !has_tail && reading.is_worth_a_tail() {
                    let tail = reading.tail();
                    keeping.note(|keeper| keeper.begin_tail(&tail)).await;
                }
                let mut piece = Vec::new();
                while download.next(&mut piece).await? {
                    self.take_in(&piece, &mut reading, loader, hashes, keeping).await?;
                }
            }
            if let (Some(expected), Some(hash)) = (&file.sha256, hashes.file.clone()) {
                check_hash(file, expected, hash)?;
            }
            let line = reading.checkpoint(hashes, true);
            keeping.note(|keeper| keeper.checkpoint(line)).await;
        }
        Ok(loader.end_file()?)
    }

    /// Pushes what an earlier load had of the tensor in hand; false if that is nothing.
    async fn replay_tail(
        &self,
        reading: &mut Reading<'_>,
        loader: &mut Loader,
        hashes: &mut Hashes,
        keeping: &mut Keeping<'_>,
    ) -> Result<bool> {
        let keeper = keeping.keeper.as_ref().filter(|_| reading.is_worth_a_tail());
        let Some((tail, mut left)) = keeper.and_then(|keeper| keeper.tail(&reading.file.name, reading.at))
        else {
            return Ok(false);
        };
        if reading.at == 0 {
            loader.begin_file(&reading.file.name, tail.size_bytes)?;
        }
        (reading.size_bytes, reading.version) = (tail.size_bytes, tail.version);
        let mut piece = Vec::new();
        while let Some(keeper) = keeping.keeper.as_ref().filter(|_| left > 0) {
            keeper.read_tail(left, &mut piece)?;
            left -= piece.len() as u64;
            hashes.update(&piece);
            loader.push(&piece)?;
            reading.at += piece.len() as u64;
            // No checkpoint, which would cut the tail off before it was read.
            self.keep_fresh(loader, reading, keeping).await;
        }
        // Without a keeper, whose disk is full, only the rest of the tail is lost: it has to come again.
        Ok(true)
    }

    /// Takes the next bytes of a file.
    async fn take_in(
        &self,
        mut bytes: &[u8],
        reading: &mut Reading<'_>,
        loader: &mut Loader,
        hashes: &mut Hashes,
        keeping: &mut Keeping<'_>,
    ) -> Result<()> {
        while !bytes.is_empty() {
            // Not beyond a tensor's end, where the next load can go on, nor far beyond the header, which says where that is.
            let until = loader.until_tensor_end().and_then(|until| usize::try_from(until).ok());
            let (now, later) = bytes.split_at(until.unwrap_or(HEADER_STEP).min(bytes.len()));
            bytes = later;
            hashes.update(now);
            loader.push(now)?;
            reading.at += now.len() as u64;
            self.keep_fresh(loader, reading, keeping).await;
            let has_tail = reading.is_worth_a_tail();
            if until == Some(now.len()) {
                let (line, tail) = (reading.checkpoint(hashes, false), reading.tail());
                keeping.note(|keeper| keeper.checkpoint(line)).await;
                if has_tail {
                    keeping.note(|keeper| keeper.begin_tail(&tail)).await;
                }
            } else if has_tail {
                keeping.note(|keeper| keeper.extend_tail(now)).await;
            }
        }
        Ok(())
    }

    /// Keeps what has become whole since the last piece.
    async fn keep_fresh(&self, loader: &mut Loader, reading: &Reading<'_>, keeping: &mut Keeping<'_>) {
        if let Some(header) = loader.take_header() {
            let (name, size_bytes) = (&reading.file.name, reading.size_bytes);
            keeping.note(|keeper| keeper.header(name, size_bytes, &header)).await;
        }
        let finished = loader.take_finished();
        keeping.note(|keeper| finished.iter().try_for_each(|tensor| keeper.tensor(tensor))).await;
    }
}

/// A hash that goes on where an earlier load left it.
fn thaw(text: &str) -> Result<Sha256> {
    let byte = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..text.len()).step_by(2).map(byte).collect();
    let state = bytes.as_deref().and_then(|bytes| SerializedState::<Sha256>::try_from(bytes).ok());
    state.and_then(|state| Sha256::deserialize(&state).ok()).ok_or_else(unusable)
}

fn unusable() -> Failure {
    Failure::new(Kind::Storage, "What was kept in this browser cannot be read.")
}
