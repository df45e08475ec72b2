//! The packed form of a model: its tensors as they lie in memory, kept so that the next load is plain copies.
//!
//! A host keeps two files a model. The *data* are bytes, one piece behind the other: small files (config, tokenizer) as
//! they came, each weights file's header as it came, and every tensor in its final form. The *index* says what lies
//! where, as one JSON value a line ([`Line`]):
//!
//! ```text
//! {"head":{"format":2,"layout":2,"dtype":"q8","source":...}}
//! {"piece":{"kind":"file","name":"config.json","offset":0,"size_bytes":665,"xxh64":"..."}}
//! {"piece":{"kind":"header","name":"model.safetensors","offset":665,"size_bytes":14283,"xxh64":"..."}}
//! {"piece":{"kind":"tensor","name":"wte.weight","file_name":"wte.weight","shape":[50257,768],"storage":"q8","offset":...}}
//! {"checkpoint":{"file":"model.safetensors","at":154397547,"state":...}}
//! {"complete":{"state":...}}
//! ```
//!
//! Both files only ever grow, data first. So whatever was interrupted, the lines up to the last checkpoint are true, and
//! the next load goes on from there: it takes the pieces back, and asks for the source file from byte `at` on. What lies
//! behind the last checkpoint is cut off, but for small files. `source` and `state` are the host's own: what the model was
//! made from, and the hashes of the files so far.
//!
//! Nothing here is believed without proof: sizes must follow from the model's config, and every piece must have its XXH64
//! when it is read back. That is proof against a disk that loses or changes bytes; whoever can write the data can write
//! the index. Bytes are in little-endian order.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use xxhash_rust::xxh64::Xxh64;

use super::weights::{Dtype, Filled, Form, Weights};
use crate::{
    error::{Error, Result},
    kernels::{PackedMatrixBuilder, Packing, bytes},
};

const FILE: &str = "packed model";
/// The form of the index.
const FORMAT: u32 = 2;
/// The order of weights in memory, and which form each has: see `kernels/matrix.rs` and [`Form`]. Another number means that
/// packed models are made anew.
const LAYOUT: u32 = 4;

/// A line of the index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// The first line: what the packed model is of.
    Head(Head),
    /// What lies at a place of the data.
    Piece(Piece),
    /// How far the source was read. All pieces before this line are whole.
    Checkpoint(Checkpoint),
    /// The last line: all pieces are there.
    Complete {
        /// The host's own, such as the hash of the whole model.
        state: Value,
    },
}

/// What a packed model is of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Head {
    format: u32,
    layout: u32,
    dtype: String,
    /// The host's own: names, sizes and hashes of the source's files.
    pub source: Value,
}

impl Head {
    /// The head for a model that is made from `source` with this engine.
    #[must_use]
    pub fn new(dtype: Dtype, source: Value) -> Head {
        Head { format: FORMAT, layout: LAYOUT, dtype: dtype.name().into(), source }
    }
}

/// Bytes of the data, and what they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Piece {
    /// What they are.
    #[serde(flatten)]
    pub content: Content,
    /// Where they begin.
    pub offset: u64,
    /// How many there are.
    pub size_bytes: u64,
    /// Their hash: XXH64 with seed 0, in hexadecimal, as `xxhsum -H64` prints it.
    pub xxh64: String,
}

/// What the bytes of a piece are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Content {
    /// A small file as it came.
    File {
        /// Its name.
        name: String,
    },
    /// The header of a weights file as it came.
    Header {
        /// The file's name.
        name: String,
        /// The size of the whole file, where it is known.
        #[serde(default)]
        file_bytes: Option<u64>,
    },
    /// A tensor as it lies in memory.
    Tensor {
        /// Its path in the architecture's own spelling.
        name: String,
        /// Its name in the source's file.
        file_name: String,
        /// `(rows, cols)`, or the number of elements.
        shape: Vec<usize>,
        /// How it is stored.
        storage: Storage,
    },
}

/// How a tensor is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Storage {
    /// f32, row-major.
    F32,
    /// 8-bit weights in panels, then their scales.
    Q8,
    /// The same, rotated, with a scale for so many weights.
    Q8By(usize),
    /// 4-bit weights in panels, then their scales.
    Q4,
}

impl From<Packing> for Storage {
    fn from(packing: Packing) -> Storage {
        match packing {
            Packing::Q8 => Storage::Q8,
            Packing::Q8By(columns) => Storage::Q8By(columns),
            Packing::Q4 => Storage::Q4,
        }
    }
}

/// How far the source was read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The weights file.
    pub file: String,
    /// The byte of it from which on to read.
    pub at: u64,
    /// The host's own: the hashes so far.
    pub state: Value,
}

/// A tensor that became whole while its source streamed by.
#[derive(Debug)]
pub struct Finished<'a> {
    name: &'a str,
    file_name: &'a str,
    shape: Vec<usize>,
    storage: Storage,
    /// Its bytes: those of the second part follow those of the first.
    pub parts: [&'a [u8]; 2],
}

impl<'a> Finished<'a> {
    pub(super) fn new(name: &'a str, file_name: &'a str, filled: &'a Filled) -> Finished<'a> {
        let (shape, storage, parts) = match filled {
            Filled::Plain(data) => (vec![data.len()], Storage::F32, [bytes::of_f32(data), &[]]),
            Filled::F32 { rows, cols, data } => {
                (vec![*rows, *cols], Storage::F32, [bytes::of_f32(data), &[]])
            }
            Filled::Packed(matrix) => {
                (vec![matrix.rows(), matrix.cols()], matrix.packing().into(), matrix.as_bytes())
            }
        };
        Finished { name, file_name, shape, storage, parts }
    }
}

/// A tensor of a packed model.
#[derive(Clone, Debug)]
pub struct PackedTensor {
    pub(super) name: String,
    file_name: String,
    shape: Vec<usize>,
    storage: Storage,
    size_bytes: u64,
    xxh64: String,
}

impl Piece {
    /// The piece as a tensor, if it is one.
    #[must_use]
    pub fn tensor(&self) -> Option<PackedTensor> {
        let Content::Tensor { name, file_name, shape, storage } = &self.content else { return None };
        Some(PackedTensor {
            name: name.clone(),
            file_name: file_name.clone(),
            shape: shape.clone(),
            storage: *storage,
            size_bytes: self.size_bytes,
            xxh64: self.xxh64.clone(),
        })
    }

    /// Checks bytes that were read back.
    ///
    /// # Errors
    /// [`Error::Format`] if they are not those that were packed.
    pub fn check(&self, bytes: &[u8]) -> Result<()> {
        let (Content::File { name } | Content::Header { name, .. } | Content::Tensor { name, .. }) =
            &self.content;
        check_hash(name, &self.xxh64, hash(&[bytes]))
    }
}

/// The place of a tensor that is read back.
pub struct Slot {
    name: String,
    file_name: String,
    xxh64: String,
    place: Place,
}

enum Place {
    Plain(Vec<f32>),
    F32 { rows: usize, cols: usize, data: Vec<f32> },
    Packed(PackedMatrixBuilder),
}

impl Slot {
    pub(super) fn new(tensor: &PackedTensor, weights: Option<&Weights>) -> Result<Slot> {
        let PackedTensor { name, file_name, shape, storage, size_bytes, xxh64 } = tensor;
        let fail = |reason: String| Err(Error::format(FILE, format!("tensor `{name}`: {reason}")));
        let open = weights.and_then(|weights| Some((weights.open_forms(name)?, weights)));
        let Some((forms, weights)) = open else { return fail("the model has no place for it".into()) };
        let is_this = |form: &Form| {
            let expected = match *form {
                Form::Plain(count) => (vec![count], Storage::F32),
                Form::F32 { rows, cols } => (vec![rows, cols], Storage::F32),
                Form::Packed { packing, rows, cols } => (vec![rows, cols], packing.into()),
            };
            expected == (shape.clone(), *storage) && form.size_bytes() == Some(*size_bytes)
        };
        let [form, _] = forms;
        let Some(form) = forms.into_iter().find(is_this) else {
            return fail(format!("expected {form:?}, got {storage:?} {shape:?} in {size_bytes} bytes"));
        };
        let place = match form {
            Form::Plain(count) => Place::Plain(vec![0.0; count]),
            Form::F32 { rows, cols } => Place::F32 { rows, cols, data: vec![0.0; rows * cols] },
            Form::Packed { packing, rows, cols } => {
                Place::Packed(weights.place_of(name, packing, rows, cols))
            }
        };
        Ok(Slot { name: name.clone(), file_name: file_name.clone(), xxh64: xxh64.clone(), place })
    }

    /// Where the tensor's bytes go: those of the second part follow those of the first.
    pub fn parts_mut(&mut self) -> [&mut [u8]; 2] {
        match &mut self.place {
            Place::Plain(data) | Place::F32 { data, .. } => [bytes::of_f32_mut(data), &mut []],
            Place::Packed(builder) => builder.as_bytes_mut(),
        }
    }

    /// Fills the tensor and checks it on the way, so that threads can share a model's tensors.
    ///
    /// `read` is asked for piece after piece of the tensor's bytes, in order. Each is small enough to be in the
    /// processor's cache still when it is hashed.
    ///
    /// # Errors
    /// Those of `read`; [`Error::Format`] if the bytes are not those that were packed.
    pub fn fill<E: From<Error>>(
        mut self,
        mut read: impl FnMut(&mut [u8]) -> std::result::Result<(), E>,
    ) -> std::result::Result<Checked, E> {
        const PIECE: usize = 256 << 10;
        let mut hash = Xxh64::new(0);
        for piece in self.parts_mut().into_iter().flat_map(|part| part.chunks_mut(PIECE)) {
            read(piece)?;
            hash.update(piece);
        }
        Ok(self.checked(hash)?)
    }

    pub(super) fn check(mut self) -> Result<Checked> {
        let found = hash(&self.parts_mut());
        self.checked(found)
    }

    fn checked(self, found: Xxh64) -> Result<Checked> {
        check_hash(&self.name, &self.xxh64, found)?;
        let filled = match self.place {
            Place::Plain(data) => Filled::Plain(data),
            Place::F32 { rows, cols, data } => Filled::F32 { rows, cols, data },
            Place::Packed(builder) => Filled::Packed(builder.finish()),
        };
        Ok(Checked { name: self.name, file_name: self.file_name, filled })
    }
}

/// A tensor of an earlier load that has its bytes again.
pub struct Checked {
    pub(super) name: String,
    pub(super) file_name: String,
    pub(super) filled: Filled,
}

impl std::fmt::Debug for Checked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checked").field("name", &self.name).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What an index says, as far as it can be believed.
#[derive(Clone, Debug)]
pub struct Index {
    /// What the packed model is of.
    pub head: Head,
    /// What lies in the data, in order and without gaps.
    pub pieces: Vec<Piece>,
    /// Where the source was left; `None` if no weights file was begun, or the model is complete.
    pub checkpoint: Option<Checkpoint>,
    /// The host's state of a complete model.
    pub complete: Option<Value>,
    /// Bytes of the index, and of the data, that are to be kept. What lies behind them is cut off before more is added.
    pub index_bytes: u64,
    /// See `index_bytes`.
    pub data_bytes: u64,
}

impl Index {
    /// Reads an index whose data has `data_size` bytes.
    ///
    /// A line that is cut off, or that is not true of the data, ends what is believed; the last checkpoint before it is
    /// where the next load goes on.
    ///
    /// # Errors
    /// [`Error::Format`] if it has no head, or one of another engine or `dtype`.
    pub fn parse(index: &[u8], dtype: Dtype, data_size: u64) -> Result<Index> {
        let fail = |reason: String| Err(Error::format(FILE, reason));
        let mut lines = index.split_inclusive(|&byte| byte == b'\n');
        let first = lines.next().unwrap_or_default();
        let head = match serde_json::from_slice(first) {
            Ok(Line::Head(head)) if first.ends_with(b"\n") => head,
            _ => return fail("its index has no head".into()),
        };
        let (expected, got) = (Head::new(dtype, Value::Null), Head { source: Value::Null, ..head.clone() });
        if expected != got {
            return fail(format!("expected {expected:?}, got {got:?}"));
        }
        let mut at = first.len() as u64;
        let mut found = Index {
            head,
            pieces: Vec::new(),
            checkpoint: None,
            complete: None,
            index_bytes: at,
            data_bytes: 0,
        };
        let (mut pieces, mut end) = (Vec::new(), 0u64);
        for line in lines {
            at += line.len() as u64;
            if !line.ends_with(b"\n") {
                break;
            }
            match serde_json::from_slice(line) {
                Ok(Line::Piece(piece)) => {
                    let next = piece.offset.checked_add(piece.size_bytes);
                    let Some(next) = next.filter(|&next| piece.offset == end && next <= data_size) else {
                        break;
                    };
                    end = next;
                    // Small files come first, whole, and are proved by their hashes alone.
                    let is_whole = pieces.is_empty() && matches!(piece.content, Content::File { .. });
                    pieces.push(piece);
                    if !is_whole {
                        continue;
                    }
                }
                Ok(Line::Checkpoint(checkpoint)) => found.checkpoint = Some(checkpoint),
                Ok(Line::Complete { state }) => (found.checkpoint, found.complete) = (None, Some(state)),
                Ok(Line::Head(_)) | Err(_) => break,
            }
            found.pieces.append(&mut pieces);
            (found.index_bytes, found.data_bytes) = (at, end);
            if found.complete.is_some() {
                break;
            }
        }
        Ok(found)
    }

    /// The piece of a small file.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<&Piece> {
        self.pieces.iter().find(|piece| matches!(&piece.content, Content::File { name: own } if own == name))
    }
}

/// Writes the lines of an index. The host writes the bytes of a piece before its line.
#[derive(Clone, Copy, Debug)]
pub struct Writer {
    /// Bytes of the data so far.
    offset: u64,
}

impl Writer {
    /// Begins a packed model: its first line.
    #[must_use]
    pub fn begin(head: Head) -> (Writer, String) {
        (Writer { offset: 0 }, text(&Line::Head(head)))
    }

    /// Goes on with one, whose files were cut to what the index says is to be kept.
    #[must_use]
    pub fn resume(index: &Index) -> Writer {
        Writer { offset: index.data_bytes }
    }

    /// The line of a small file of these bytes.
    pub fn file(&mut self, name: &str, bytes: &[u8]) -> String {
        self.piece(Content::File { name: name.into() }, &[bytes])
    }

    /// The line of a weights file's header.
    pub fn header(&mut self, name: &str, file_bytes: Option<u64>, bytes: &[u8]) -> String {
        self.piece(Content::Header { name: name.into(), file_bytes }, &[bytes])
    }

    /// The line of a tensor.
    pub fn tensor(&mut self, tensor: &Finished<'_>) -> String {
        let content = Content::Tensor {
            name: tensor.name.into(),
            file_name: tensor.file_name.into(),
            shape: tensor.shape.clone(),
            storage: tensor.storage,
        };
        self.piece(content, &tensor.parts)
    }

    /// The line of a checkpoint: all bytes and lines before it must be safe on the disk by then.
    #[must_use]
    pub fn checkpoint(&self, checkpoint: Checkpoint) -> String {
        text(&Line::Checkpoint(checkpoint))
    }

    /// The last line.
    #[must_use]
    pub fn complete(&self, state: Value) -> String {
        text(&Line::Complete { state })
    }

    fn piece(&mut self, content: Content, parts: &[&[u8]]) -> String {
        let size_bytes = parts.iter().map(|part| part.len() as u64).sum();
        let piece = Piece { content, offset: self.offset, size_bytes, xxh64: text_of(&hash(parts)) };
        self.offset += size_bytes;
        text(&Line::Piece(piece))
    }
}

fn text(line: &Line) -> String {
    let mut text = serde_json::to_string(line).expect("lines are plain data");
    text.push('\n');
    text
}

fn hash(parts: &[impl AsRef<[u8]>]) -> Xxh64 {
    let mut hash = Xxh64::new(0);
    parts.iter().for_each(|part| hash.update(part.as_ref()));
    hash
}

fn text_of(hash: &Xxh64) -> String {
    format!("{:016x}", hash.digest())
}

fn check_hash(name: &str, expected: &str, found: Xxh64) -> Result<()> {
    if text_of(&found) == expected {
        return Ok(());
    }
    Err(Error::format(FILE, format!("the bytes of `{name}` are not those that were packed")))
}
