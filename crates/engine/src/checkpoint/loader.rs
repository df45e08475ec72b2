//! Puts a model together from the bytes of its files.

use super::{
    config::Config,
    packed::{Checked, Finished, PackedTensor, Slot},
    reader::{FileReader, Header},
    weights::{Dtype, Weights},
};
use crate::{
    error::{Error, Result},
    model::{Encoder, gpt2::Gpt2},
};

/// How a checkpoint is loaded.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions {
    /// How matrices are kept.
    pub dtype: Dtype,
    /// Fills a missing classification head with draws from this seed, instead of refusing the checkpoint.
    pub untrained_head_seed: Option<u64>,
}

/// A model that was loaded.
#[derive(Debug)]
pub enum Loaded {
    /// A generator.
    Gpt2(Gpt2),
    /// A classifier.
    Encoder(Encoder),
}

/// Bytes that the weights of a model with this config take in memory, kept at `dtype`.
///
/// # Errors
/// Those of [`Config::from_json`].
pub fn memory_bytes(config_json: &[u8], dtype: Dtype) -> Result<u64> {
    let plan = match Config::from_json(config_json)? {
        Config::Gpt2(config) => Gpt2::plan(&config, false),
        Config::Encoder(config) => Encoder::plan(&config),
    };
    let sizes = plan.wanted.iter().map(|wanted| wanted.form(dtype, None).size_bytes().unwrap_or(u64::MAX));
    Ok(sizes.fold(0, u64::saturating_add))
}

/// Takes the files of a checkpoint, in pieces of any size, and gives the model.
///
/// ```
/// use inkling_engine::checkpoint::{LoadOptions, Loader};
///
/// let mut loader = Loader::new(Some(br#"{"model_type": "gpt2"}"#), LoadOptions::default())?;
/// loader.begin_file("model.safetensors", Some(10))?;
/// loader.push(b"\x02\0\0\0")?; // any piece will do
/// loader.push(b"\0\0\0\0{}")?;
/// loader.end_file()?;
/// let error = loader.finish().unwrap_err();
/// assert_eq!(error.to_string(), "weights: `wte.weight` is missing; the config asks for shape [50257, 768]");
/// # Ok::<(), inkling_engine::Error>(())
/// ```
pub struct Loader {
    assembly: Assembly,
    file: Option<FileReader>,
}

/// What the files have given so far.
#[derive(Debug)]
pub(super) struct Assembly {
    config: Option<Config>,
    options: LoadOptions,
    weights: Option<Weights>,
}

impl Loader {
    /// Begins a checkpoint. Only a GGUF file can do without a config.
    ///
    /// # Errors
    /// Those of [`Config::from_json`].
    pub fn new(config_json: Option<&[u8]>, options: LoadOptions) -> Result<Loader> {
        let config = config_json.map(Config::from_json).transpose()?;
        Ok(Loader { assembly: Assembly { config, options, weights: None }, file: None })
    }

    /// Begins the next weights file; shards come one after the other, in any order.
    ///
    /// `size_bytes` is the file's size. A header that announces more is refused before anything is allocated for it;
    /// where a host does not know the size, at most 4 GiB are believed.
    ///
    /// # Errors
    /// [`Error::Format`] if the file before was not ended.
    pub fn begin_file(&mut self, name: &str, size_bytes: Option<u64>) -> Result<()> {
        if self.file.is_some() {
            return Err(Error::format(name, "begun before the file before it was ended"));
        }
        self.file = Some(FileReader::new(name, size_bytes));
        Ok(())
    }

    /// Takes the next bytes of the file.
    ///
    /// # Errors
    /// Whatever is wrong with them: see [`Error`].
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.file {
            Some(file) => file.push(bytes, &mut self.assembly),
            None => Err(Error::format("weights", "bytes came before any file was begun")),
        }
    }

    /// Bytes until the tensor that is being read is whole; nothing before the header is, and after the last tensor.
    ///
    /// A host that pushes no more than that at once learns of each tensor when it is whole, and can go on after it in
    /// another load: see [`packed`](super::packed).
    #[must_use]
    pub fn until_tensor_end(&self) -> Option<u64> {
        self.file.as_ref().and_then(FileReader::until_tensor_end)
    }

    /// The bytes of the file's header, once, as soon as it is whole.
    pub fn take_header(&mut self) -> Option<Vec<u8>> {
        self.file.as_mut().and_then(FileReader::take_header)
    }

    /// Takes back what [`take_header`](Self::take_header) gave in an earlier load of the file that was begun.
    ///
    /// # Errors
    /// Those of [`push`](Self::push).
    pub fn restore_header(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.file {
            Some(file) => file.restore_header(bytes, &mut self.assembly),
            None => Err(Error::format("weights", "no file was begun")),
        }
    }

    /// The tensors that became whole since the last call, in their final form.
    pub fn take_finished(&mut self) -> Vec<Finished<'_>> {
        let fresh = self.assembly.weights.as_mut().map(Weights::take_fresh).unwrap_or_default();
        fresh.into_iter().map(|(name, file_name, filled)| Finished::new(name, file_name, filled)).collect()
    }

    /// Makes the place of a tensor that was packed in an earlier load, to be filled with its bytes. The header of its
    /// file has to be read before.
    ///
    /// # Errors
    /// [`Error::Format`] if the model wants no such tensor, wants it in another form, or has it.
    pub fn slot(&self, tensor: &PackedTensor) -> Result<Slot> {
        Slot::new(tensor, self.assembly.weights.as_ref())
    }

    /// Takes back a tensor of an earlier load.
    ///
    /// # Errors
    /// [`Error::Format`] if its bytes are not those that were packed.
    pub fn restore(&mut self, slot: Slot) -> Result<()> {
        self.restore_checked(slot.check()?);
        Ok(())
    }

    /// Takes back a tensor of an earlier load that [`Slot::fill`] made.
    pub fn restore_checked(&mut self, tensor: Checked) {
        let Checked { name, file_name, filled } = tensor;
        self.assembly.weights().restore(name, file_name, filled);
    }

    /// Goes on at byte `at` of the file that was begun, whose header was pushed; the tensors before it were restored.
    ///
    /// # Errors
    /// [`Error::Format`] if a tensor lies across that byte.
    pub fn skip_to(&mut self, at: u64) -> Result<()> {
        match &mut self.file {
            Some(file) => file.skip_to(at),
            None => Err(Error::format("weights", "no file was begun")),
        }
    }

    /// Ends the file.
    ///
    /// # Errors
    /// [`Error::Truncated`] if bytes are missing.
    pub fn end_file(&mut self) -> Result<()> {
        match self.file.take() {
            Some(file) => file.end(&mut self.assembly),
            None => Err(Error::format("weights", "no file was begun")),
        }
    }

    /// Builds the model.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] or [`Error::UntrainedHead`] if tensors are missing.
    pub fn finish(self) -> Result<Loaded> {
        let Assembly { config, options, weights } = self.assembly;
        let (Some(config), Some(mut weights)) = (config, weights) else {
            return Err(Error::format("weights", "no weights file was read"));
        };
        weights.check(options.untrained_head_seed)?;
        match config {
            Config::Gpt2(config) => Ok(Loaded::Gpt2(Gpt2::new(config, &mut weights)?)),
            Config::Encoder(config) => Ok(Loaded::Encoder(Encoder::new(config, &mut weights)?)),
        }
    }
}

impl Assembly {
    /// Learns from a file's header what to expect of its tensors.
    pub(super) fn take_header(&mut self, header: &Header) -> Result<()> {
        let config = match (&self.config, &header.gguf) {
            (Some(config), _) => config,
            (None, Some(metadata)) => {
                let shape =
                    |name: &str| header.entries.iter().find(|entry| entry.name == name).map(|e| &e.shape);
                let vocab_size =
                    shape("token_embd.weight").and_then(|shape| shape.first()).copied().unwrap_or(0);
                let config = Config::from_gguf(metadata, shape("output.weight").is_some(), vocab_size)?;
                self.config.insert(config)
            }
            (None, None) => {
                let (expected, got) = ("given by a config.json".into(), "no config.json".into());
                return Err(Error::Config { field: "model_type".into(), expected, got });
            }
        };
        let plan = match config {
            Config::Gpt2(config) => Gpt2::plan(config, header.gguf.is_some()),
            Config::Encoder(config) if header.gguf.is_none() => Encoder::plan(config),
            Config::Encoder(_) => {
                let got = "an encoder in GGUF".into();
                return Err(Error::Architecture {
                    got,
                    supported: "gpt2 in GGUF; the others as safetensors",
                });
            }
        };
        self.weights.get_or_insert_with(|| Weights::new(plan, self.options.dtype));
        Ok(())
    }

    /// The tensors.
    pub(super) fn weights(&mut self) -> &mut Weights {
        self.weights.as_mut().expect("made when the first header was read")
    }
}

impl std::fmt::Debug for Loader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loader").field("assembly", &self.assembly).finish_non_exhaustive()
    }
}
