//! The header of a GGUF file: magic, version, key-value metadata, tensor descriptions.
//!
//! Source: the GGUF specification of ggml, versions 2 and 3, little-endian. It is read here rather than by
//! candle, since candle's reader wants to seek and believes the sizes that a file claims before it has the bytes.

use std::collections::BTreeMap;

use candle_core::quantized::GgmlDType;

use super::reader::{Entry, Header, Storage};
use crate::error::{Error, Result};

const FILE: &str = "gguf";
pub(super) const MAGIC: &[u8; 4] = b"GGUF";
/// Longest header that is waited for: a vocabulary of 256 k tokens with scores stays below.
const LARGEST_HEADER: usize = 100_000_000;

/// A metadata value, as far as the engine looks at it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Integer(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    /// Arrays are skipped: tokenizers come from their own files.
    Array,
}

/// The metadata of a GGUF file.
pub(super) type Metadata = BTreeMap<String, Value>;

/// Why parsing stopped: the header goes on beyond the bytes at hand, or it is broken.
enum Stop {
    Short,
    Broken(Error),
}

/// Reads the header from the beginning of a file, or says how many bytes to try again with.
///
/// # Errors
/// [`Error::Format`] naming the place and what was expected there; [`Error::TensorType`] never: unsupported types
/// are an error only where such a tensor is used.
pub(super) fn parse(beginning: &[u8]) -> Result<Result<Header, usize>> {
    match parse_header(&mut Cursor { bytes: beginning, at: 0 }) {
        Ok(header) => Ok(Ok(header)),
        Err(Stop::Short) if beginning.len() > LARGEST_HEADER => {
            Err(Error::format(FILE, format!("the header is still open after {LARGEST_HEADER} bytes")))
        }
        // Doubling keeps the sum of all attempts linear in the header's size.
        Err(Stop::Short) => Ok(Err((2 * beginning.len()).max(4096))),
        Err(Stop::Broken(error)) => Err(error),
    }
}

fn broken<T>(reason: String) -> Result<T, Stop> {
    Err(Stop::Broken(Error::format(FILE, reason)))
}

fn parse_header(cursor: &mut Cursor<'_>) -> Result<Header, Stop> {
    let magic = cursor.take(4)?;
    if magic != MAGIC {
        return broken(format!("begins with {magic:?}, expected {MAGIC:?}"));
    }
    let version = cursor.u32()?;
    if !(2..=3).contains(&version) {
        return broken(format!(
            "version {version} (big-endian files read as huge versions); supported: 2 and 3"
        ));
    }
    let tensors = cursor.u64()?;
    let pairs = cursor.u64()?;
    let mut metadata = Metadata::new();
    for _ in 0..pairs {
        let key = cursor.string()?;
        let kind = cursor.u32()?;
        let value = cursor.value(kind, 0)?;
        metadata.insert(key, value);
    }
    let mut entries = Vec::new();
    for _ in 0..tensors {
        entries.push(parse_entry(cursor)?);
    }
    let alignment = match metadata.get("general.alignment") {
        None => 32,
        Some(Value::Integer(bytes)) if (1..=1 << 20).contains(bytes) && bytes.count_ones() == 1 => {
            *bytes as usize
        }
        Some(other) => return broken(format!("`general.alignment` should be a power of two, got {other:?}")),
    };
    let data_start = cursor.at.next_multiple_of(alignment);
    entries.sort_by_key(|entry| entry.start);
    for pair in entries.windows(2) {
        if pair[0].start.checked_add(pair[0].size_bytes).is_none_or(|end| end > pair[1].start) {
            return broken(format!("tensors `{}` and `{}` overlap", pair[0].name, pair[1].name));
        }
    }
    Ok(Header { entries, data_start, gguf: Some(metadata) })
}

fn parse_entry(cursor: &mut Cursor<'_>) -> Result<Entry, Stop> {
    let name = cursor.string()?;
    let rank = cursor.u32()?;
    if rank > 4 {
        return broken(format!("tensor `{name}` has {rank} dimensions, at most 4 are expected"));
    }
    let mut shape = Vec::new();
    for _ in 0..rank {
        let dimension = cursor.u64()?;
        match usize::try_from(dimension) {
            Ok(dimension) => shape.insert(0, dimension), // ggml stores the fastest dimension first
            Err(_) => return broken(format!("tensor `{name}` has a dimension of {dimension}")),
        }
    }
    let kind = cursor.u32()?;
    let storage = storage(kind);
    let start = cursor.u64()?;
    let elements = shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n));
    let (unit_elements, unit_bytes) = storage.unit();
    let size_bytes = match elements {
        Some(elements) if elements % unit_elements == 0 => {
            (elements / unit_elements).checked_mul(unit_bytes).map(|bytes| bytes as u64)
        }
        _ => None,
    };
    match size_bytes {
        Some(size_bytes) => Ok(Entry { name, shape, storage, start, size_bytes }),
        None => broken(format!("tensor `{name}` of shape {shape:?} cannot be stored as type {kind}")),
    }
}

/// The numbers are ggml's `ggml_type`.
fn storage(kind: u32) -> Storage {
    match kind {
        0 => Storage::F32,
        1 => Storage::F16,
        2 => Storage::Blocks(GgmlDType::Q4_0),
        8 => Storage::Blocks(GgmlDType::Q8_0),
        12 => Storage::Blocks(GgmlDType::Q4K),
        14 => Storage::Blocks(GgmlDType::Q6K),
        30 => Storage::BF16,
        other => Storage::Unsupported(format!("ggml type {other}")),
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Stop> {
        let end = self.at.checked_add(count).ok_or(Stop::Short)?;
        let taken = self.bytes.get(self.at..end).ok_or(Stop::Short)?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        Ok(self.take(N)?.try_into().expect("take gives as many bytes as asked for"))
    }

    fn u32(&mut self) -> Result<u32, Stop> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, Stop> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn string(&mut self) -> Result<String, Stop> {
        let length = self.u64()?;
        if length > LARGEST_HEADER as u64 {
            return broken(format!("a string of {length} bytes at byte {}", self.at));
        }
        let at = self.at;
        let bytes = self.take(length as usize)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.into()),
            Err(_) => broken(format!("the string at byte {at} is not UTF-8")),
        }
    }

    fn value(&mut self, kind: u32, depth: usize) -> Result<Value, Stop> {
        Ok(match kind {
            0 => Value::Integer(i64::from(u8::from_le_bytes(self.array()?))),
            1 => Value::Integer(i64::from(i8::from_le_bytes(self.array()?))),
            2 => Value::Integer(i64::from(u16::from_le_bytes(self.array()?))),
            3 => Value::Integer(i64::from(i16::from_le_bytes(self.array()?))),
            4 => Value::Integer(i64::from(self.u32()?)),
            5 => Value::Integer(i64::from(i32::from_le_bytes(self.array()?))),
            6 => Value::Float(f64::from(f32::from_le_bytes(self.array()?))),
            7 => Value::Bool(u8::from_le_bytes(self.array()?) != 0),
            8 => Value::Text(self.string()?),
            9 if depth < 4 => {
                let (kind, count) = (self.u32()?, self.u64()?);
                for _ in 0..count {
                    self.value(kind, depth + 1)?;
                }
                Value::Array
            }
            10 => Value::Integer(self.u64()? as i64),
            11 => Value::Integer(i64::from_le_bytes(self.array()?)),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            other => return broken(format!("a metadata value of unknown type {other} at byte {}", self.at)),
        })
    }
}
