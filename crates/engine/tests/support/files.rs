//! A model's files in memory, and loading them as a host does it.

use std::{fs, path::Path};

use inkling_engine::{
    Result,
    checkpoint::{
        Dtype, LoadOptions, Loaded, Loader,
        files::{WeightFiles, model_files, shards},
    },
};

/// A model's files in memory, so that tests can spoil them.
#[derive(Clone)]
pub(crate) struct Files {
    pub(crate) config: Option<Vec<u8>>,
    pub(crate) weights: Vec<(String, Vec<u8>)>,
}

impl Files {
    pub(crate) fn in_folder(folder: &Path) -> Files {
        let read = |name: &str| {
            fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{folder:?}/{name}: {error}"))
        };
        let names: Vec<String> = fs::read_dir(folder)
            .expect("a model is a folder")
            .map(|entry| entry.expect("a readable folder").file_name().into_string().expect("UTF-8"))
            .collect();
        let files = model_files(&names).unwrap();
        let weights = match files.weights {
            WeightFiles::One(name) => vec![name],
            WeightFiles::Sharded(index) => shards(&read(&index)).unwrap(),
        };
        Files {
            config: files.config.as_deref().map(read),
            weights: weights.into_iter().map(|name| (name.clone(), read(&name))).collect(),
        }
    }

    /// Pushes the files in pieces of `piece` bytes.
    pub(crate) fn load_in_pieces(&self, options: LoadOptions, piece: usize) -> Result<Loaded> {
        let mut loader = Loader::new(self.config.as_deref(), options)?;
        for (name, bytes) in &self.weights {
            loader.begin_file(name, Some(bytes.len() as u64))?;
            bytes.chunks(piece).try_for_each(|piece| loader.push(piece))?;
            loader.end_file()?;
        }
        loader.finish()
    }

    pub(crate) fn load(&self, dtype: Dtype) -> Result<Loaded> {
        self.load_in_pieces(LoadOptions { dtype, ..LoadOptions::default() }, 1 << 20)
    }
}
