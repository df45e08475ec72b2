//! Options that several commands share.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use inkling_engine::{
    checkpoint::{self, LoadOptions},
    graph::{Graph, NodeModel, spec::Node},
    protocol::Parameters,
};

use super::{bars::Bars, complain};
use crate::{
    Mistake,
    cache::Cache,
    host::Load,
    load::{check_task, load},
    models::{Part, Source, locate, locate_node},
};

/// How weights are kept in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Dtype {
    /// 8 bits a weight, with a scale for 32 to 1024 of them
    Q8,
    /// 4 bits a weight, with a scale for each 32 of them; embeddings and heads at 8 bits: smaller, faster, less exact
    Q4,
    /// 32-bit floats: the reference, four times as large as 8 bits
    F32,
}

#[derive(Args, Clone, Copy, Debug)]
pub(super) struct Weights {
    /// How weights are kept in memory
    #[arg(long, value_enum, default_value = "q8")]
    dtype: Dtype,
    /// Fill a classifier's missing head with random numbers from this seed, instead of refusing the model
    #[arg(long, value_name = "SEED")]
    untrained_head: Option<u64>,
    /// Read the model's own files, and keep no packed copy of it for the next load: see `inkling cache`
    #[arg(long)]
    no_cache: bool,
}

impl Weights {
    /// The form of the weights, as on the command line.
    pub(super) fn name(self) -> &'static str {
        self.load_options().dtype.name()
    }

    pub(super) fn load_options(self) -> LoadOptions {
        let dtype = match self.dtype {
            Dtype::Q8 => checkpoint::Dtype::Q8,
            Dtype::Q4 => checkpoint::Dtype::Q4,
            Dtype::F32 => checkpoint::Dtype::F32,
        };
        LoadOptions { dtype, untrained_head_seed: self.untrained_head }
    }

    pub(super) fn cache(self) -> Option<Cache> {
        if self.no_cache { None } else { Cache::from_env(complain) }
    }
}

/// Which model a command uses.
#[derive(Args, Clone, Debug)]
pub(super) struct Model {
    /// A folder or .gguf file; a demo model (writer, writer-distilled, critic); or a hub id such as
    /// openai-community/gpt2
    #[arg(long, value_name = "DIR_OR_ID")]
    pub(super) model: String,
}

impl Model {
    pub(super) fn load(&self, weights: Weights) -> Result<NodeModel> {
        let bars = Bars::new();
        let located = locate(&self.model, Part::Model, &mut bars.fetching(&self.model))?;
        let (options, cache) = (weights.load_options(), weights.cache());
        Ok(load(&located, options, cache.as_ref(), &mut |_, _, _| ())?.model)
    }
}

/// Which graph a command runs, and on which models.
#[derive(Args, Clone, Debug)]
pub(super) struct GraphAndModels {
    /// A graph file; without one, two writers and a critic
    #[arg(long, value_name = "FILE")]
    graph: Option<PathBuf>,
    /// Where models come from: demo (part of this program), hub (the Hugging Face hub), or a folder with a folder for
    /// each model
    #[arg(long, value_name = "demo|hub|DIR", default_value = "demo")]
    models: Source,
    #[command(flatten)]
    weights: Weights,
}

impl GraphAndModels {
    pub(super) fn graph(&self) -> Result<Graph> {
        let Some(path) = &self.graph else { return Ok(Graph::default()) };
        let toml = fs::read_to_string(path)
            .map_err(|error| Mistake(format!("cannot read the graph {}: {error}", path.display())))?;
        Graph::parse(&toml).with_context(|| path.display().to_string())
    }

    /// The loader of each node: see [`node_loader`].
    pub(super) fn loader(&self, graph: &Graph) -> Result<impl FnMut(&Node) -> Load + use<>> {
        node_loader(self.models.clone(), self.weights, graph)
    }
}

/// The loader of each of the graph's nodes.
///
/// Models that should be here are looked for at once, so that a wrong name is told before anything starts.
pub(super) fn node_loader(
    source: Source,
    weights: Weights,
    graph: &Graph,
) -> Result<impl FnMut(&Node) -> Load + use<>> {
    let (options, cache) = (weights.load_options(), weights.cache());
    if source != Source::Hub {
        graph.nodes.iter().try_for_each(|node| locate_node(node, &source, &mut |_, _, _| ()).map(drop))?;
    }
    let bars = Bars::new();
    Ok(move |node: &Node| -> Load {
        let (node, source, bars, cache) = (node.clone(), source.clone(), bars.clone(), cache.clone());
        Box::new(move |progress| {
            let mut bar = bars.fetching(&node.name);
            let located = locate_node(&node, &source, &mut |file, bytes, total| {
                bar(file, bytes, total);
                progress(file, bytes, total);
            })?;
            let loaded = load(&located, options, cache.as_ref(), progress)?;
            check_task(&node.name, node.task, &loaded.model)?;
            Ok(Box::new(loaded))
        })
    })
}

/// How to decode; what is not given is left to the graph, the model and the built-in defaults.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Decoding")]
pub(super) struct Decoding {
    /// Most tokens of prompt and continuation together [built in: 128]
    #[arg(long, value_name = "N")]
    max_length: Option<usize>,
    /// Most new tokens; where given it decides alone
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<usize>,
    /// The same seed gives the same text; drawn where it is missing
    #[arg(long, value_name = "N")]
    pub(super) seed: Option<u64>,
    /// Always take the likeliest token
    #[arg(long, conflicts_with_all = ["seed", "temperature", "top_k", "top_p", "min_p"])]
    greedy: bool,
    /// Divides logits before drawing; above 0
    #[arg(long, value_name = "X")]
    temperature: Option<f32>,
    /// Draw from the K likeliest tokens only; 0 means all [built in: 50]
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Draw from the smallest set of likeliest tokens that holds this probability
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// Draw from tokens at least this fraction as likely as the likeliest
    #[arg(long, value_name = "P")]
    min_p: Option<f32>,
    /// Makes tokens that are in the text already less likely; 1 changes nothing
    #[arg(long, value_name = "X")]
    repetition_penalty: Option<f32>,
    /// No run of N tokens comes twice; 0 allows all
    #[arg(long, value_name = "N")]
    no_repeat_ngram_size: Option<usize>,
    /// Continuations of each prompt
    #[arg(long, value_name = "N")]
    num_return_sequences: Option<usize>,
    /// End before this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
}

impl Decoding {
    pub(super) fn parameters(&self) -> Parameters {
        Parameters {
            max_length: self.max_length,
            max_new_tokens: self.max_new_tokens,
            do_sample: self.greedy.then_some(false),
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            no_repeat_ngram_size: self.no_repeat_ngram_size,
            num_return_sequences: self.num_return_sequences,
            seed: self.seed,
            stop: if self.stop.is_empty() { None } else { Some(self.stop.clone()) },
            alternatives: None,
        }
    }
}
