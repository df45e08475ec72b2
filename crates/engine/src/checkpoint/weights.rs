//! The tensors that an architecture asks for, filled while a file streams by.

#[cfg(not(target_arch = "wasm32"))]
use std::sync::{Mutex, PoisonError};
use std::{collections::BTreeMap, sync::Arc};

use candle_core::{CpuStorage, quantized::GgmlDType};

use super::reader::{Entry, Storage};
use crate::{
    error::{Error, Result},
    kernels::{PackedMatrix, PackedMatrixBuilder, Packing, bf16_to_f32, bytes, f16_to_f32},
    layers::{LayerNorm, Linear, Matrix},
};

/// Columns of a block, of which one or a few share a scale.
const BLOCK: usize = 32;
/// Bytes of f32 that rows of a transposed matrix may take until they are packed together, beside its packed form.
const STRIP: usize = 3 << 20;

/// How matrices are kept in memory. Vectors and position embeddings always stay f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dtype {
    /// 32-bit floats: the reference.
    F32,
    /// 8 bits a weight and a scale for 128 to 1024, or, where 128 does not divide a row or the file has such, for 32, as GGUF's
    /// Q8_0. Matrices whose rows 32 does not divide stay f32.
    #[default]
    Q8,
    /// 4 bits a weight and a scale for 32 of them, as GGUF's Q4_0; embeddings and a generator's head at 8 bits.
    Q4,
}

impl Dtype {
    /// All of them, the default first.
    pub const ALL: [Dtype; 3] = [Dtype::Q8, Dtype::Q4, Dtype::F32];

    /// Its name: `f32`, `q8` or `q4`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::Q8 => "q8",
            Dtype::Q4 => "q4",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Dtype> {
        Dtype::ALL.into_iter().find(|dtype| dtype.name() == name)
    }
}

/// A tensor that an architecture asks for.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// The tensor's path in the architecture's own spelling, such as `h.0.attn.c_attn.weight`.
    pub(crate) name: String,
    /// Its shape as Hugging Face stores it.
    pub(crate) shape: Vec<usize>,
    pub(crate) kind: Kind,
    /// Part of a classification head: where it is missing the checkpoint is untrained rather than broken.
    pub(crate) head: bool,
}

/// What a tensor is for, which decides how it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The weights `(out, in)` of a classifier's linear layer.
    Matrix,
    /// An embedding `(vocab, dim)`, or a generator's head: a row a token.
    ///
    /// Never below 8 bits: what is read of a row is the row itself, so that no sum evens its roundings out.
    Vocabulary,
    /// The same, stored `(in, out)` by Hugging Face's `Conv1D`; kept `(out, in)`.
    Conv1d,
    /// Anything that is kept as it is, in f32.
    Plain,
}

impl Wanted {
    pub(crate) fn matrix(name: impl Into<String>, out: usize, input: usize) -> Wanted {
        Wanted { name: name.into(), shape: vec![out, input], kind: Kind::Matrix, head: false }
    }

    pub(crate) fn vocabulary(name: impl Into<String>, size: usize, dim: usize) -> Wanted {
        Wanted { name: name.into(), shape: vec![size, dim], kind: Kind::Vocabulary, head: false }
    }

    pub(crate) fn conv1d(name: impl Into<String>, input: usize, out: usize) -> Wanted {
        Wanted { name: name.into(), shape: vec![input, out], kind: Kind::Conv1d, head: false }
    }

    pub(crate) fn plain(name: impl Into<String>, shape: &[usize]) -> Wanted {
        Wanted { name: name.into(), shape: shape.to_vec(), kind: Kind::Plain, head: false }
    }

    /// `weight` and `bias` of a layer norm over `dim`.
    pub(crate) fn layer_norm(path: &str, dim: usize) -> [Wanted; 2] {
        [Wanted::plain(format!("{path}.weight"), &[dim]), Wanted::plain(format!("{path}.bias"), &[dim])]
    }

    /// `weight` and `bias` of a linear layer, stored `(out, in)`.
    pub(crate) fn linear(path: &str, out: usize, input: usize) -> [Wanted; 2] {
        [Wanted::matrix(format!("{path}.weight"), out, input), Wanted::plain(format!("{path}.bias"), &[out])]
    }

    pub(crate) fn in_head(mut self) -> Wanted {
        self.head = true;
        self
    }

    /// How it is kept at `dtype`, read from blocks with these weights if it is from any that a packed matrix can hold.
    ///
    /// At 8 bits with a scale for 128 to 1024 weights where one of these divides `in`: the products are much faster, and rotated
    /// they lose little more than with a scale for 32. Of a matrix that files have transposed as many rows are collected as share
    /// a scale, so that these are not more than [`STRIP`] allows. But a generator's weights that the file has at 8 bits or fewer
    /// stay what they are there.
    pub(super) fn form(&self, dtype: Dtype, blocks: Option<Packing>) -> Form {
        let (rows, cols) = match (self.kind, self.shape.as_slice()) {
            (Kind::Matrix | Kind::Vocabulary, &[rows, cols]) | (Kind::Conv1d, &[cols, rows]) => (rows, cols),
            (_, shape) => return Form::Plain(shape.iter().product()),
        };
        let stays = self.kind != Kind::Matrix && blocks.is_some();
        let most = match self.kind {
            Kind::Conv1d => STRIP / (4 * rows.max(1)),
            _ => cols,
        };
        let q8 = Packing::widest(cols, most).filter(|_| !stays).unwrap_or(Packing::Q8);
        let packing = match dtype {
            Dtype::Q8 => q8,
            Dtype::Q4 if self.kind == Kind::Vocabulary || self.head => q8,
            Dtype::Q4 => Packing::Q4,
            Dtype::F32 => return Form::F32 { rows, cols },
        };
        match cols.is_multiple_of(packing.columns()) && cols > 0 && rows > 0 {
            true => Form::Packed { packing, rows, cols },
            false => Form::F32 { rows, cols },
        }
    }
}

/// The form that a tensor is kept in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// So many f32.
    Plain(usize),
    F32 {
        rows: usize,
        cols: usize,
    },
    /// In panels, with scales.
    Packed {
        packing: Packing,
        rows: usize,
        cols: usize,
    },
}

impl Form {
    /// Bytes in memory; nothing if that is more than can be counted.
    pub(super) fn size_bytes(self) -> Option<u64> {
        let product = |rows: usize, cols: usize| (rows as u64).checked_mul(cols as u64);
        match self {
            Form::Plain(count) => (count as u64).checked_mul(4),
            Form::F32 { rows, cols } => product(rows, cols)?.checked_mul(4),
            // Whole panels of 16 rows; a scale takes two bytes.
            Form::Packed { packing, rows, cols } => {
                let weights = match packing {
                    Packing::Q4 => packing.columns() / 2,
                    Packing::Q8 | Packing::Q8By(_) => packing.columns(),
                };
                let scales = product(rows.checked_next_multiple_of(16)?, cols / packing.columns())?;
                scales.checked_mul(weights as u64 + 2)
            }
        }
    }
}

/// Where a file's tensor belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The tensor of this path.
    Tensor(String),
    /// A buffer or head that the architecture has no use for.
    Ignored,
}

/// What an architecture expects of a file.
pub(crate) struct Plan {
    /// For errors: `GPT-2`, `BERT`, ...
    pub(crate) architecture: &'static str,
    /// Every tensor that is needed.
    pub(crate) wanted: Vec<Wanted>,
    /// Maps a file's name for a tensor to the architecture's; unknown names are mapped to themselves.
    pub(crate) place: fn(&str) -> Place,
    /// Whether matrices come `(out, in)` also where Hugging Face has `Conv1D`: so in GGUF files.
    pub(crate) conv1d_is_transposed: bool,
    /// Names of linear layers side by side, of one size, that become one ([`Path::linears`]): none or all in each place.
    #[cfg_attr(target_arch = "wasm32", expect(dead_code, reason = "for neighbours in memory"))]
    pub(crate) stacked: &'static [&'static str],
}

/// The tensors of a model, partly or wholly read.
pub struct Weights {
    plan: Plan,
    dtype: Dtype,
    filled: BTreeMap<String, (String, Filled)>,
    /// Places of matrices that will be stacked with one that has begun.
    #[cfg(not(target_arch = "wasm32"))]
    reserved: Mutex<BTreeMap<String, PackedMatrixBuilder>>,
    /// Names of the tensors that were read since somebody last asked.
    fresh: Vec<String>,
    /// The tensor that is being read; `None` where its bytes are skipped.
    current: Option<Target>,
    /// The room of the last [`Store::Packed`]'s strip, for the next one: new pages of memory take time. Empty in WebAssembly,
    /// whose heap grew by a third where it stayed.
    strip: Vec<f32>,
}

/// A tensor in its final form.
pub(super) enum Filled {
    Plain(Vec<f32>),
    /// A matrix `(rows, cols)`, row-major.
    F32 {
        rows: usize,
        cols: usize,
        data: Vec<f32>,
    },
    Packed(PackedMatrix),
}

/// A tensor that is being read.
struct Target {
    file_name: String,
    name: String,
    storage: Storage,
    /// Bytes of a unit that the last piece cut in two.
    carry: Vec<u8>,
    /// Elements decoded so far.
    elements: usize,
    store: Store,
}

/// Where decoded elements go.
enum Store {
    Plain(Vec<f32>),
    F32 {
        rows: usize,
        cols: usize,
        transpose: bool,
        data: Vec<f32>,
    },
    /// A matrix `(rows, cols)`; `strip` collects one row, or as many rows of the transposed matrix as share scales.
    Packed {
        builder: PackedMatrixBuilder,
        rows: usize,
        cols: usize,
        transpose: bool,
        strip: Vec<f32>,
        done: usize,
    },
}

impl Weights {
    pub(crate) fn new(plan: Plan, dtype: Dtype) -> Weights {
        Weights {
            plan,
            dtype,
            filled: BTreeMap::new(),
            #[cfg(not(target_arch = "wasm32"))]
            reserved: Mutex::default(),
            fresh: Vec::new(),
            current: None,
            strip: Vec::new(),
        }
    }

    /// Begins a tensor of the file: checks name, shape and type, and makes its place.
    pub(super) fn begin(&mut self, entry: &Entry) -> Result<()> {
        let name = match (self.plan.place)(&entry.name) {
            Place::Ignored => {
                self.current = None;
                return Ok(());
            }
            Place::Tensor(name) => name,
        };
        let Some(wanted) = self.plan.wanted.iter().find(|wanted| wanted.name == name) else {
            let (name, architecture) = (entry.name.clone(), self.plan.architecture);
            return Err(Error::UnknownTensor { name, architecture });
        };
        if let Some((first, _)) = self.filled.get(&name) {
            return Err(Error::DuplicateTensor { name, first: first.clone(), second: entry.name.clone() });
        }
        let conv1d = wanted.kind == Kind::Conv1d;
        let mut expected = wanted.shape.clone();
        if conv1d && self.plan.conv1d_is_transposed {
            expected.reverse();
        }
        if entry.shape != expected {
            return Err(Error::TensorShape { name: entry.name.clone(), expected, got: entry.shape.clone() });
        }
        if let Storage::Unsupported(got) = &entry.storage {
            return Err(Error::TensorType {
                name: entry.name.clone(),
                got: got.clone(),
                supported: "F32, F16, BF16, and in GGUF also Q8_0, Q4_0, Q4_K, Q6_K",
            });
        }
        let transpose = conv1d && !self.plan.conv1d_is_transposed;
        let store = match wanted.form(self.dtype, kept_packing(&entry.storage)) {
            Form::Plain(count) => Store::Plain(Vec::with_capacity(count)),
            Form::Packed { packing, rows, cols } => Store::Packed {
                builder: self.place_of(&name, packing, rows, cols),
                rows,
                cols,
                transpose,
                strip: std::mem::take(&mut self.strip),
                done: 0,
            },
            Form::F32 { rows, cols } if transpose => {
                Store::F32 { rows, cols, transpose, data: vec![0.0; rows * cols] }
            }
            Form::F32 { rows, cols } => {
                Store::F32 { rows, cols, transpose, data: Vec::with_capacity(rows * cols) }
            }
        };
        let (file_name, storage) = (entry.name.clone(), entry.storage.clone());
        self.current = Some(Target { file_name, name, storage, carry: Vec::new(), elements: 0, store });
        Ok(())
    }

    /// The place of a packed matrix. With the first of those that will be stacked come all of them, as neighbours.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn place_of(
        &self,
        name: &str,
        packing: Packing,
        rows: usize,
        cols: usize,
    ) -> PackedMatrixBuilder {
        let parts = self.plan.stacked;
        let layer = name.strip_suffix(".weight").and_then(|layer| layer.rsplit_once('.'));
        let layer = layer.and_then(|(path, own)| Some((path, parts.iter().position(|part| *part == own)?)));
        let Some((path, at)) = layer else {
            return PackedMatrixBuilder::with_packing(packing, rows, cols);
        };
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = reserved.remove(name) {
            return place;
        }
        let mut places = PackedMatrixBuilder::neighbours(packing, rows, cols, parts.len());
        let place = places.remove(at);
        let others = parts.iter().enumerate().filter(|(i, _)| *i != at);
        reserved.extend(others.map(|(_, part)| format!("{path}.{part}.weight")).zip(places));
        place
    }

    /// The place of a packed matrix: WebAssembly's memory has no neighbours.
    #[cfg(target_arch = "wasm32")]
    pub(super) fn place_of(
        &self,
        _name: &str,
        packing: Packing,
        rows: usize,
        cols: usize,
    ) -> PackedMatrixBuilder {
        PackedMatrixBuilder::with_packing(packing, rows, cols)
    }

    /// Takes the next bytes of the tensor that has begun.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.current {
            Some(target) => target.write(bytes),
            None => Ok(()),
        }
    }

    /// Ends the tensor.
    pub(super) fn end(&mut self) -> Result<()> {
        if let Some(mut target) = self.current.take() {
            if let Store::Packed { strip, .. } = &mut target.store
                && !cfg!(target_arch = "wasm32")
            {
                self.strip = std::mem::take(strip);
            }
            let (name, file_name, filled) = target.finish();
            self.fresh.push(name.clone());
            self.filled.insert(name, (file_name, filled));
        }
        Ok(())
    }

    /// Checks that nothing is missing. Missing tensors of a classification head are drawn from
    /// `untrained_head_seed` if one is given.
    pub(super) fn check(&mut self, untrained_head_seed: Option<u64>) -> Result<()> {
        let missing: Vec<Wanted> = self
            .plan
            .wanted
            .iter()
            .filter(|wanted| !self.filled.contains_key(&wanted.name))
            .cloned()
            .collect();
        if let Some(wanted) = missing.iter().find(|wanted| !wanted.head) {
            return Err(Error::MissingTensor { name: wanted.name.clone(), expected: wanted.shape.clone() });
        }
        // The last one is the classifier itself, whose name says most.
        let Some(last) = missing.iter().rev().find(|wanted| wanted.kind == Kind::Matrix).or(missing.last())
        else {
            return Ok(());
        };
        let Some(seed) = untrained_head_seed else {
            return Err(Error::UntrainedHead { missing: last.name.clone() });
        };
        for (index, wanted) in missing.into_iter().enumerate() {
            let count = wanted.shape.iter().product();
            let data = match wanted.kind {
                Kind::Plain => vec![0.0; count],
                _ => draws(seed.wrapping_add(index as u64), count),
            };
            let filled = match wanted.kind {
                Kind::Plain => Filled::Plain(data),
                _ => Filled::F32 { rows: wanted.shape[0], cols: wanted.shape[1], data },
            };
            self.filled.insert(wanted.name, ("an untrained head".into(), filled));
        }
        Ok(())
    }

    /// The tensors that were read since the last call: name, name in the file, and the tensor.
    pub(super) fn take_fresh(&mut self) -> Vec<(&str, &str, &Filled)> {
        let fresh = std::mem::take(&mut self.fresh);
        let found = fresh.iter().filter_map(|name| self.filled.get_key_value(name.as_str()));
        found.map(|(name, (file_name, filled))| (name.as_str(), file_name.as_str(), filled)).collect()
    }

    /// The forms that a tensor may have that is wanted and not there yet.
    pub(super) fn open_forms(&self, name: &str) -> Option<[Form; 2]> {
        let wanted = self.plan.wanted.iter().find(|wanted| wanted.name == name)?;
        let forms = || [None, Some(Packing::Q8)].map(|blocks| wanted.form(self.dtype, blocks));
        (!self.filled.contains_key(name)).then(forms)
    }

    /// Puts a tensor in its place that was read in an earlier load.
    pub(super) fn restore(&mut self, name: String, file_name: String, filled: Filled) {
        self.filled.insert(name, (file_name, filled));
    }

    /// Takes a vector (or a table that is kept in f32) out.
    pub(crate) fn plain(&mut self, name: &str) -> Result<Vec<f32>> {
        match self.filled.remove(name) {
            Some((_, Filled::Plain(data))) => Ok(data),
            _ => Err(Error::MissingTensor { name: name.into(), expected: Vec::new() }),
        }
    }

    /// Takes a matrix out, to be shared by all that use it.
    pub(crate) fn matrix(&mut self, name: &str) -> Result<Arc<Matrix>> {
        Ok(Arc::new(self.take_matrix(name)?))
    }

    fn take_matrix(&mut self, name: &str) -> Result<Matrix> {
        match self.filled.remove(name) {
            Some((_, Filled::Packed(matrix))) => Ok(Matrix::Packed(matrix)),
            Some((_, Filled::F32 { rows, cols, data })) => Matrix::from_f32(rows, cols, data),
            _ => Err(Error::MissingTensor { name: name.into(), expected: Vec::new() }),
        }
    }

    /// A view under `path`: `weights.pp("attn").pp("c_attn")` names a layer as the file does.
    pub(crate) fn pp<'a>(&'a mut self, path: impl std::fmt::Display) -> Path<'a> {
        Path { weights: self, path: path.to_string() }
    }
}

/// A place in a [`Weights`], named as in the file.
pub(crate) struct Path<'a> {
    weights: &'a mut Weights,
    path: String,
}

impl Path<'_> {
    pub(crate) fn pp(&mut self, name: impl std::fmt::Display) -> Path<'_> {
        Path { path: format!("{}.{name}", self.path), weights: self.weights }
    }

    pub(crate) fn plain(&mut self, name: &str) -> Result<Vec<f32>> {
        self.weights.plain(&format!("{}.{name}", self.path))
    }

    pub(crate) fn matrix(&mut self, name: &str) -> Result<Arc<Matrix>> {
        self.weights.matrix(&format!("{}.{name}", self.path))
    }

    /// The linear layer of `weight` and `bias` here.
    pub(crate) fn linear(&mut self) -> Result<Linear> {
        Ok(Linear::new(self.matrix("weight")?, Some(self.plain("bias")?)))
    }

    /// The linear layers of these names on the same input, as one layer: their outputs come side by side.
    pub(crate) fn linears<const N: usize>(&mut self, names: [&str; N]) -> Result<Linear> {
        let mut matrices = Vec::with_capacity(N);
        let mut bias = Vec::new();
        for name in names {
            let mut part = self.pp(name);
            matrices.push(part.weights.take_matrix(&format!("{}.weight", part.path))?);
            bias.extend(part.plain("bias")?);
        }
        Ok(Linear::new(Arc::new(Matrix::stack(matrices)?), Some(bias)))
    }

    /// The layer norm of `weight` and `bias` here.
    pub(crate) fn layer_norm(&mut self, eps: f32) -> Result<LayerNorm> {
        Ok(LayerNorm::new(self.plain("weight")?, self.plain("bias")?, eps))
    }
}

/// Uniform numbers with the standard deviation of BERT's initialisation (0.02), from SplitMix64.
fn draws(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed;
    let width = 0.02 * 12f32.sqrt();
    std::iter::repeat_with(|| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let unit = (z >> 40) as f32 / (1u64 << 24) as f32;
        (unit - 0.5) * width
    })
    .take(count)
    .collect()
}

/// The packing of ggml's blocks whose weights a packed matrix can hold as they are.
fn kept_packing(storage: &Storage) -> Option<Packing> {
    match storage {
        Storage::Blocks(GgmlDType::Q8_0) => Some(Packing::Q8),
        Storage::Blocks(GgmlDType::Q4_0) => Some(Packing::Q4),
        _ => None,
    }
}

impl Target {
    fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        let (_, unit) = self.storage.unit();
        if !self.carry.is_empty() {
            let take = bytes.len().min(unit - self.carry.len());
            self.carry.extend_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            if self.carry.len() < unit {
                return Ok(());
            }
            let whole = std::mem::take(&mut self.carry);
            self.decode(&whole)?;
        }
        let whole = bytes.len() - bytes.len() % unit;
        if self.storage == Storage::F32
            && let Some(numbers) = bytes::as_f32(&bytes[..whole])
        {
            self.carry.extend_from_slice(&bytes[whole..]);
            return self.accept(numbers);
        }
        // Pieces small enough to stay in the nearest caches between decoding and quantising.
        let piece = unit * (16384 / unit).max(1);
        for piece in bytes[..whole].chunks(piece) {
            self.decode(piece)?;
        }
        self.carry.extend_from_slice(&bytes[whole..]);
        Ok(())
    }

    /// Decodes whole units.
    fn decode(&mut self, bytes: &[u8]) -> Result<()> {
        if let Store::Packed { builder, cols, transpose: false, strip, done, .. } = &mut self.store
            && let Some(kept) = kept_packing(&self.storage)
            && (kept == builder.packing() || (kept, builder.packing()) == (Packing::Q4, Packing::Q8))
        {
            // The very weights of the file: no second rounding.
            debug_assert!(strip.is_empty());
            let per_row = *cols / BLOCK;
            let (_, unit) = self.storage.unit();
            for block in bytes.chunks_exact(unit) {
                let scale = u16::from_le_bytes([block[0], block[1]]);
                let weights = std::array::from_fn(|at| match kept {
                    // The first 16 in the lower halves of the bytes, the others in the upper ones, all plus 8.
                    Packing::Q4 => (block[2 + at % 16] >> (at / 16 * 4) & 15) as i8 - 8,
                    Packing::Q8 | Packing::Q8By(_) => block[2 + at] as i8,
                });
                builder.set_block(*done / per_row, *done % per_row, scale, &weights).map_err(|_| {
                    Error::NotFinite {
                        name: self.file_name.clone(),
                        index: *done * BLOCK,
                        value: f16_to_f32(&[scale.to_le_bytes()])[0],
                    }
                })?;
                *done += 1;
            }
            self.elements += bytes.len() / unit * BLOCK;
            return Ok(());
        }
        let decoded = match &self.storage {
            Storage::F32 => bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
            Storage::F16 => f16_to_f32(bytes.as_chunks::<2>().0),
            Storage::BF16 => bf16_to_f32(bytes.as_chunks::<2>().0),
            Storage::Blocks(dtype) => {
                // candle wants the bytes aligned as its blocks are: a vector of its own is.
                let aligned = bytes.to_vec();
                let elements = bytes.len() / dtype.type_size() * dtype.block_size();
                match dtype.from_data(std::borrow::Cow::Owned(aligned)).dequantize(elements)? {
                    CpuStorage::F32(decoded) => decoded,
                    _ => return Err(Error::format("gguf", "dequantised to something other than f32")),
                }
            }
            Storage::Unsupported(_) => unreachable!("refused when the tensor began"),
        };
        self.accept(&decoded)
    }

    fn accept(&mut self, decoded: &[f32]) -> Result<()> {
        // Quantising finds what is not finite by itself.
        if !matches!(self.store, Store::Packed { .. }) {
            check_finite(&self.file_name, self.elements, decoded)?;
        }
        match &mut self.store {
            Store::Plain(data) => data.extend_from_slice(decoded),
            Store::F32 { transpose: false, data, .. } => data.extend_from_slice(decoded),
            Store::F32 { rows, cols, transpose: true, data } => {
                for (offset, &value) in decoded.iter().enumerate() {
                    let at = self.elements + offset;
                    data[(at % *rows) * *cols + at / *rows] = value;
                }
            }
            Store::Packed { builder, rows, cols, transpose, strip, done } => {
                let whole = if *transpose { *rows * builder.packing().columns() } else { *cols };
                let mut rest = decoded;
                while !rest.is_empty() {
                    let take = rest.len().min(whole - strip.len());
                    let (now, later) = rest.split_at(take);
                    rest = later;
                    let full = if strip.is_empty() && take == whole {
                        now
                    } else {
                        strip.reserve_exact(whole - strip.len());
                        strip.extend_from_slice(now);
                        if strip.len() < whole {
                            break;
                        }
                        strip.as_slice()
                    };
                    let set = match transpose {
                        true => builder.set_columns_f32(*done, full),
                        false => builder.set_row_f32(*done, full),
                    };
                    if set.is_err() {
                        check_finite(&self.file_name, *done * whole, full)?;
                        unreachable!("only numbers that are not finite are refused");
                    }
                    strip.clear();
                    *done += 1;
                }
            }
        }
        self.elements += decoded.len();
        Ok(())
    }

    fn finish(self) -> (String, String, Filled) {
        let filled = match self.store {
            Store::Plain(data) => Filled::Plain(data),
            Store::F32 { rows, cols, data, .. } => Filled::F32 { rows, cols, data },
            Store::Packed { builder, .. } => Filled::Packed(builder.finish()),
        };
        (self.name, self.file_name, filled)
    }
}

/// The elements of a tensor from `first` on, if all are numbers.
fn check_finite(name: &str, first: usize, elements: &[f32]) -> Result<()> {
    // In two passes, since the first one becomes vector code.
    if elements.iter().fold(true, |finite, x| finite & x.is_finite()) {
        return Ok(());
    }
    let at = elements.iter().position(|x| !x.is_finite()).expect("one is not finite");
    Err(Error::NotFinite { name: name.into(), index: first + at, value: elements[at] })
}

impl std::fmt::Debug for Weights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&String> = self.filled.keys().collect();
        f.debug_struct("Weights")
            .field("architecture", &self.plan.architecture)
            .field("filled", &names)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_matrix_has_the_form_that_its_width_and_its_file_allow() {
        let packing = |wanted: &Wanted, dtype, blocks| match wanted.form(dtype, blocks) {
            Form::Packed { packing, .. } => Some(packing),
            Form::Plain(_) | Form::F32 { .. } => None,
        };
        let (q8, q4) = (Some(Packing::Q8), Some(Packing::Q4));
        let generators = [Wanted::conv1d("c", 256, 64), Wanted::vocabulary("v", 64, 256)];
        for wanted in &generators {
            assert_eq!(packing(wanted, Dtype::Q8, None), Some(Packing::Q8By(256)));
            assert_eq!(packing(wanted, Dtype::Q8, q8), q8);
            assert_eq!(packing(wanted, Dtype::Q8, q4), q8);
        }
        let [layer, head] = &generators;
        assert_eq!(packing(layer, Dtype::Q4, None), q4);
        assert_eq!(
            (packing(head, Dtype::Q4, None), packing(head, Dtype::Q4, q4)),
            (Some(Packing::Q8By(256)), q8)
        );
        let gpt2 = [
            (Wanted::conv1d("c_attn", 768, 2304), 256),
            (Wanted::conv1d("c_proj", 768, 768), 768),
            (Wanted::conv1d("c_fc", 768, 3072), 256),
            (Wanted::conv1d("c_proj", 3072, 768), 1024),
            (Wanted::vocabulary("wte", 50257, 768), 768),
            (Wanted::conv1d("c_fc", 1280, 50000), 128),
        ];
        for (wanted, columns) in gpt2 {
            assert_eq!(packing(&wanted, Dtype::Q8, None), Some(Packing::Q8By(columns)), "{wanted:?}");
        }
        let classifiers = Wanted::matrix("m", 64, 256);
        assert_eq!(packing(&classifiers, Dtype::Q8, q8), Some(Packing::Q8By(256)));
        assert_eq!(packing(&Wanted::conv1d("c", 224, 64), Dtype::Q8, None), q8);
        assert_eq!(packing(&Wanted::conv1d("c", 20, 64), Dtype::Q8, None), None);
    }
}
