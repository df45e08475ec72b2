//! The header of a safetensors file: eight bytes of length, then JSON. Its checks (offsets in order, without gaps
//! or overlaps, sizes that fit shapes) are those of the `safetensors` crate.

use safetensors::tensor::{Dtype, Metadata};

use super::reader::{Entry, Header, Storage};
use crate::error::{Error, Result};

const FILE: &str = "safetensors";
/// As the `safetensors` crate has it: no real header comes near.
const LARGEST_HEADER: u64 = 100_000_000;

/// Reads the header from the beginning of a file, or says how many bytes it needs.
///
/// # Errors
/// [`Error::Format`] for a length that no header has, and for whatever the `safetensors` crate refuses.
pub(super) fn parse(beginning: &[u8]) -> Result<Result<Header, usize>> {
    let Some((length, rest)) = beginning.split_first_chunk::<8>() else { return Ok(Err(8)) };
    let length = u64::from_le_bytes(*length);
    if length > LARGEST_HEADER {
        return Err(Error::format(
            FILE,
            format!("header of {length} bytes; at most {LARGEST_HEADER} are expected"),
        ));
    }
    let length = usize::try_from(length).expect("checked against a limit that fits");
    let Some(json) = rest.get(..length) else { return Ok(Err(8 + length)) };
    let metadata: Metadata =
        serde_json::from_slice(json).map_err(|error| Error::format(FILE, format!("header: {error}")))?;
    let entries = metadata.offset_keys().into_iter().map(|name| {
        let info = metadata.info(&name).expect("the name comes from the same metadata");
        let storage = match info.dtype {
            Dtype::F32 => Storage::F32,
            Dtype::F16 => Storage::F16,
            Dtype::BF16 => Storage::BF16,
            other => Storage::Unsupported(format!("{other:?}")),
        };
        let (start, end) = info.data_offsets;
        Entry {
            name,
            shape: info.shape.clone(),
            storage,
            start: start as u64,
            size_bytes: (end - start) as u64,
        }
    });
    Ok(Ok(Header { entries: entries.collect(), data_start: 8 + length, gguf: None }))
}
