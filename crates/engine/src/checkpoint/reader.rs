//! One weights file as it streams by: header first, then each tensor's bytes in the order of the file.

use candle_core::quantized::GgmlDType;

use super::{gguf, loader::Assembly, safetensors};
use crate::error::{Error, Result};

/// What a file's header says.
pub(super) struct Header {
    /// The tensors in the order of their bytes, without overlaps.
    pub(super) entries: Vec<Entry>,
    /// Where the tensors' bytes begin in the file.
    pub(super) data_start: usize,
    /// The metadata of a GGUF file; `None` for safetensors.
    pub(super) gguf: Option<gguf::Metadata>,
}

/// One tensor in a file.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    /// Slowest dimension first.
    pub(super) shape: Vec<usize>,
    pub(super) storage: Storage,
    /// Offset from the beginning of the data.
    pub(super) start: u64,
    pub(super) size_bytes: u64,
}

/// How a tensor's elements are stored.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Storage {
    F32,
    F16,
    BF16,
    /// Blocks of ggml.
    Blocks(GgmlDType),
    /// A type that can be skipped but not read, by name.
    Unsupported(String),
}

impl Storage {
    /// Elements and bytes of the smallest unit that can be read by itself.
    pub(super) fn unit(&self) -> (usize, usize) {
        match self {
            Storage::F32 => (1, 4),
            Storage::F16 | Storage::BF16 => (1, 2),
            Storage::Blocks(dtype) => (dtype.block_size(), dtype.type_size()),
            Storage::Unsupported(_) => (1, 1),
        }
    }
}

/// Most bytes that a header may announce where the file's size is not known.
const LARGEST_UNSIZED: u64 = 4 << 30;

/// A file that is being read.
pub(super) struct FileReader {
    name: String,
    /// The file's size, as far as it is known.
    size_bytes: Option<u64>,
    state: State,
    /// Bytes consumed so far.
    at: u64,
    /// The header's bytes, until somebody takes them.
    header: Option<Vec<u8>>,
}

enum State {
    /// The beginning of the file, until it holds the header; the number is how many bytes to wait for.
    Header(Vec<u8>, usize),
    Data {
        entries: std::vec::IntoIter<Entry>,
        current: Option<Entry>,
        data_start: u64,
        end: u64,
    },
}

impl FileReader {
    pub(super) fn new(name: &str, size_bytes: Option<u64>) -> FileReader {
        FileReader { name: name.into(), size_bytes, state: State::Header(Vec::new(), 8), at: 0, header: None }
    }

    /// Takes the next bytes of the file; its header and its tensors go to `assembly`.
    pub(super) fn push(&mut self, mut bytes: &[u8], assembly: &mut Assembly) -> Result<()> {
        while let State::Header(beginning, needed) = &mut self.state {
            let take = bytes.len().min(needed.saturating_sub(beginning.len()));
            beginning.extend_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            if beginning.len() < *needed {
                return Ok(());
            }
            let parsed = if beginning.starts_with(gguf::MAGIC) {
                gguf::parse(beginning)
            } else {
                safetensors::parse(beginning)
            };
            match parsed.map_err(|error| self.in_this_file(error))? {
                Err(more) => {
                    let State::Header(_, needed) = &mut self.state else {
                        unreachable!("still in the header")
                    };
                    *needed = more;
                }
                Ok(header) => {
                    let State::Header(beginning, _) = &mut self.state else {
                        unreachable!("still in the header")
                    };
                    let beginning = std::mem::take(beginning);
                    let data_start = header.data_start as u64;
                    let last = header.entries.last();
                    let end = last.map_or(Some(0), |entry| entry.start.checked_add(entry.size_bytes));
                    let expected = end.and_then(|end| end.checked_add(data_start)).unwrap_or(u64::MAX);
                    let file = self.name.clone();
                    match self.size_bytes {
                        Some(got) if expected > got => return Err(Error::Truncated { file, expected, got }),
                        None if expected > LARGEST_UNSIZED => {
                            let reason = format!(
                                "announces {expected} bytes; without a known size at most {LARGEST_UNSIZED} are read"
                            );
                            return Err(Error::Format { file, reason });
                        }
                        _ => {}
                    }
                    assembly.take_header(&header)?;
                    let entries = header.entries.into_iter();
                    self.state = State::Data { entries, current: None, data_start, end: expected };
                    // The header of a GGUF file is found by trying: bytes of data may have been taken with it.
                    let data = beginning.len().min(header.data_start);
                    self.at = data as u64;
                    self.push_data(&beginning[data..], assembly)?;
                    let mut header = beginning;
                    header.truncate(data);
                    self.header = Some(header);
                }
            }
        }
        self.push_data(bytes, assembly)
    }

    fn push_data(&mut self, mut bytes: &[u8], assembly: &mut Assembly) -> Result<()> {
        let State::Data { entries, current, data_start, end } = &mut self.state else {
            unreachable!("data comes after the header")
        };
        let sink = assembly.weights();
        while !bytes.is_empty() {
            if current.is_none() {
                *current = entries.next();
                if let Some(entry) = current {
                    sink.begin(entry)?;
                }
            }
            let Some(entry) = current else {
                let extra = self.at + bytes.len() as u64 - *end;
                let reason = format!("{extra} bytes beyond the end of the last tensor (byte {end})");
                // Files of ggml are padded to the alignment; a few zeros are no fault.
                if extra < 1 << 20 && bytes.iter().all(|&byte| byte == 0) {
                    self.at += bytes.len() as u64;
                    return Ok(());
                }
                return Err(Error::format(self.name.clone(), reason));
            };
            let start = *data_start + entry.start;
            if self.at < start {
                let skip = bytes.len().min((start - self.at) as usize);
                self.at += skip as u64;
                bytes = &bytes[skip..];
                continue;
            }
            let left = start + entry.size_bytes - self.at;
            let take = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            sink.write(&bytes[..take])?;
            self.at += take as u64;
            bytes = &bytes[take..];
            if take as u64 == left {
                sink.end()?;
                *current = None;
            }
        }
        Ok(())
    }

    /// Takes the bytes of a header that [`FileReader::take_header`] gave in an earlier load.
    pub(super) fn restore_header(&mut self, bytes: &[u8], assembly: &mut Assembly) -> Result<()> {
        // Where a header ends is found by trying, and a first try may want more than there is.
        self.state = State::Header(Vec::new(), bytes.len());
        self.push(bytes, assembly)?;
        self.header = None;
        match self.state {
            State::Data { .. } => Ok(()),
            State::Header(..) => Err(Error::format(self.name.clone(), "its kept header is not whole")),
        }
    }

    /// The bytes of the header, once, when it is whole.
    pub(super) fn take_header(&mut self) -> Option<Vec<u8>> {
        self.header.take()
    }

    /// Bytes until the tensor that is being read is whole.
    pub(super) fn until_tensor_end(&self) -> Option<u64> {
        let State::Data { entries, current, data_start, .. } = &self.state else { return None };
        let entry = current.as_ref().or_else(|| entries.as_slice().first())?;
        Some(data_start + entry.start + entry.size_bytes - self.at)
    }

    /// Goes on at byte `at` of the file: the tensors before it are there already.
    ///
    /// # Errors
    /// [`Error::Format`] if the header is not whole, or a tensor lies across that byte.
    pub(super) fn skip_to(&mut self, at: u64) -> Result<()> {
        let State::Data { entries, current: None, data_start, end } = &mut self.state else {
            return Err(Error::format(self.name.clone(), "is gone on with before its header is whole"));
        };
        let is_before = |entry: &Entry| *data_start + entry.start + entry.size_bytes <= at;
        while entries.as_slice().first().is_some_and(is_before) {
            entries.next();
        }
        let next = entries.as_slice().first().map_or(*end, |entry| *data_start + entry.start);
        if at < self.at || (at > next && !entries.as_slice().is_empty()) {
            let reason = format!("a tensor lies across byte {at}, where reading should go on");
            return Err(Error::format(self.name.clone(), reason));
        }
        self.at = at;
        Ok(())
    }

    /// Says that no more bytes come.
    ///
    /// # Errors
    /// [`Error::Truncated`] if the header announced more.
    pub(super) fn end(mut self, assembly: &mut Assembly) -> Result<()> {
        if let State::Header(beginning, needed) = &self.state {
            let (expected, got) = (*needed as u64, beginning.len() as u64);
            if got < 8 || !beginning.starts_with(gguf::MAGIC) {
                return Err(Error::Truncated { file: self.name, expected, got });
            }
            return Err(Error::format(self.name, format!("ends after {got} bytes, within its header")));
        }
        // Tensors without elements have no bytes that could announce them.
        let State::Data { entries, current, end, .. } = &mut self.state else {
            unreachable!("checked above")
        };
        if self.at < *end || current.is_some() {
            return Err(Error::Truncated { file: self.name, expected: *end, got: self.at });
        }
        for entry in entries {
            assembly.weights().begin(&entry)?;
            assembly.weights().end()?;
        }
        Ok(())
    }

    fn in_this_file(&self, error: Error) -> Error {
        match error {
            Error::Format { file, reason } if file != self.name => {
                Error::Format { file: format!("{} ({file})", self.name), reason }
            }
            other => other,
        }
    }
}
