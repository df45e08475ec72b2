//! GPT-2, the generator. Source: Radford et al. 2019; names and details as in Hugging Face's `modeling_gpt2.py`.

use candle_core::Tensor;

use super::{KeptScratch, Scratch, rows};
use crate::{
    checkpoint::{
        config::Gpt2Config,
        weights::{Path, Place, Plan, Wanted, Weights},
    },
    error::{Error, Result},
    kernels::{self, Pool},
    layers::{Embedding, Heads, KeysValues, LayerNorm, Linear, cached_attention},
    logits::Logits,
};

/// GPT-2 with its language-modelling head.
#[derive(Debug)]
pub struct Gpt2 {
    config: Gpt2Config,
    wte: Embedding,
    /// Position embeddings, `(n_positions, n_embd)`.
    wpe: Vec<f32>,
    h: Vec<Block>,
    ln_f: LayerNorm,
    lm_head: Linear,
    scratch: KeptScratch,
}

#[derive(Debug)]
struct Block {
    ln_1: LayerNorm,
    attn: Attention,
    ln_2: LayerNorm,
    mlp: Mlp,
}

#[derive(Debug)]
struct Attention {
    c_attn: Linear,
    c_proj: Linear,
    heads: Heads,
}

#[derive(Debug)]
struct Mlp {
    c_fc: Linear,
    c_proj: Linear,
}

/// Keys and values of one sequence, a layer each.
#[derive(Clone, Debug)]
pub struct Cache {
    layers: Vec<KeysValues>,
    positions: usize,
}

impl Cache {
    /// An empty cache with room for `positions` before it must grow.
    #[must_use]
    pub fn new(config: &Gpt2Config, positions: usize) -> Cache {
        let layer = || KeysValues::with_capacity(positions);
        Cache { layers: std::iter::repeat_with(layer).take(config.n_layer).collect(), positions: 0 }
    }

    /// Positions that it holds.
    #[must_use]
    pub fn positions(&self) -> usize {
        self.positions
    }
}

impl Gpt2 {
    /// The tensors that a checkpoint must hold, and how its files may spell them.
    pub(crate) fn plan(config: &Gpt2Config, gguf: bool) -> Plan {
        let Gpt2Config { n_embd, n_inner, vocab_size, n_positions, .. } = *config;
        let mut wanted = vec![
            Wanted::vocabulary("wte.weight", vocab_size, n_embd),
            Wanted::plain("wpe.weight", &[n_positions, n_embd]),
        ];
        let conv1d = |path: String, input, out| {
            [
                Wanted::conv1d(format!("{path}.weight"), input, out),
                Wanted::plain(format!("{path}.bias"), &[out]),
            ]
        };
        for layer in 0..config.n_layer {
            let path = |name: &str| format!("h.{layer}.{name}");
            wanted.extend(Wanted::layer_norm(&path("ln_1"), n_embd));
            wanted.extend(conv1d(path("attn.c_attn"), n_embd, 3 * n_embd));
            wanted.extend(conv1d(path("attn.c_proj"), n_embd, n_embd));
            wanted.extend(Wanted::layer_norm(&path("ln_2"), n_embd));
            wanted.extend(conv1d(path("mlp.c_fc"), n_embd, n_inner));
            wanted.extend(conv1d(path("mlp.c_proj"), n_inner, n_embd));
        }
        wanted.extend(Wanted::layer_norm("ln_f", n_embd));
        if !config.tie_word_embeddings {
            wanted.push(Wanted::vocabulary("lm_head.weight", vocab_size, n_embd));
        }
        let place = match (gguf, config.tie_word_embeddings) {
            (false, true) => |name: &str| place(name, true),
            (false, false) => |name: &str| place(name, false),
            (true, true) => |name: &str| place_gguf(name, true),
            (true, false) => |name: &str| place_gguf(name, false),
        };
        Plan { architecture: "GPT-2", wanted, place, conv1d_is_transposed: gguf, stacked: &[] }
    }

    /// Builds the model from a checkpoint's tensors.
    pub(crate) fn new(config: Gpt2Config, weights: &mut Weights) -> Result<Gpt2> {
        let wte = Embedding::new(weights.matrix("wte.weight")?);
        let wpe = weights.plain("wpe.weight")?;
        let h = (0..config.n_layer)
            .map(|layer| Block::new(&config, layer, &mut weights.pp("h").pp(layer)))
            .collect::<Result<_>>()?;
        let ln_f = weights.pp("ln_f").layer_norm(config.layer_norm_epsilon)?;
        let head = match config.tie_word_embeddings {
            true => wte.table().clone(),
            false => weights.matrix("lm_head.weight")?,
        };
        let lm_head = Linear::new(head, None);
        Ok(Gpt2 { config, wte, wpe, h, ln_f, lm_head, scratch: KeptScratch::default() })
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Gpt2Config {
        &self.config
    }

    /// Whether any product is in f32. If none is, a row's numbers do not depend on the other rows of a batch, to the bit;
    /// candle's products of f32 add in an order that depends on how many there are.
    #[must_use]
    pub fn has_f32_products(&self) -> bool {
        let linears = |Block { attn, mlp, .. }: &Block| {
            [&attn.c_attn, &attn.c_proj, &mlp.c_fc, &mlp.c_proj].into_iter().any(Linear::is_exact)
        };
        self.h.iter().any(linears) || self.lm_head.is_exact()
    }

    /// Runs new ids of several sequences together and gives the logits after each sequence's last id, a row each. The
    /// caches take the new positions.
    ///
    /// # Errors
    /// [`Error::Context`] if a sequence outgrows the model, [`Error::EmptyPrompt`] if one brings no id,
    /// [`Error::TokenOutOfRange`].
    pub fn forward(&self, batch: &mut [(&[u32], &mut Cache)], pool: &dyn Pool) -> Result<Logits> {
        let mut last = Vec::with_capacity(batch.len());
        let mut rows = 0u32;
        for (ids, _) in batch.iter() {
            rows += ids.len() as u32;
            last.push(rows.checked_sub(1).filter(|_| !ids.is_empty()).ok_or(Error::EmptyPrompt)?);
        }
        let wanted = (last.len() < rows as usize).then_some(last.as_slice());
        let x = self.hidden(batch, wanted, pool)?;
        self.lm_head.logits(&self.ln_f, &x, pool)
    }

    /// Like [`Gpt2::forward`] for one sequence, with the logits after every id.
    ///
    /// # Errors
    /// As [`Gpt2::forward`].
    pub fn forward_all(&self, ids: &[u32], cache: &mut Cache, pool: &dyn Pool) -> Result<Logits> {
        let x = self.hidden(&mut [(ids, cache)], None, pool)?;
        self.lm_head.logits(&self.ln_f, &x, pool)
    }

    /// The residual stream after the last block, `(rows, n_embd)`, or its `wanted` rows, the last of each sequence.
    fn hidden(
        &self,
        batch: &mut [(&[u32], &mut Cache)],
        wanted: Option<&[u32]>,
        pool: &dyn Pool,
    ) -> Result<Tensor> {
        let context = self.config.n_positions;
        let mut ids = Vec::new();
        let mut positions = Vec::new();
        for (new, cache) in batch.iter() {
            let past = cache.positions;
            if past + new.len() > context {
                return Err(Error::Context { positions: past + new.len(), context });
            }
            ids.extend_from_slice(new);
            positions.extend(past..past + new.len());
        }
        let width = self.config.n_embd;
        let mut x = self
            .wte
            .forward(&ids, |row, out| kernels::add(out, &self.wpe[positions[row] * width..][..width]))?;
        let scratch = Scratch::new(ids.len(), width, self.config.n_inner, &self.scratch)?;
        for (layer, block) in self.h.iter().enumerate() {
            let mut caches: Vec<(usize, &mut KeysValues)> =
                batch.iter_mut().map(|(ids, cache)| (ids.len(), &mut cache.layers[layer])).collect();
            let wanted = wanted.filter(|_| layer + 1 == self.h.len());
            x = block.forward(x, &mut caches, wanted, &scratch, pool)?;
        }
        for (ids, cache) in batch.iter_mut() {
            cache.positions += ids.len();
        }
        Ok(x)
    }
}

impl Block {
    fn new(config: &Gpt2Config, layer: usize, vb: &mut Path<'_>) -> Result<Block> {
        Ok(Block {
            ln_1: vb.pp("ln_1").layer_norm(config.layer_norm_epsilon)?,
            attn: Attention::new(config, layer, &mut vb.pp("attn"))?,
            ln_2: vb.pp("ln_2").layer_norm(config.layer_norm_epsilon)?,
            mlp: Mlp {
                c_fc: vb.pp("mlp").pp("c_fc").linear()?.then(config.activation),
                c_proj: vb.pp("mlp").pp("c_proj").linear()?,
            },
        })
    }

    /// Adds to the residual stream `x`, `(rows, n_embd)`: `x += attn(ln_1(x))`, then `x += mlp(ln_2(x))`, and gives it, or
    /// its `wanted` rows, the last of each sequence.
    fn forward(
        &self,
        x: Tensor,
        caches: &mut [(usize, &mut KeysValues)],
        wanted: Option<&[u32]>,
        scratch: &Scratch<'_>,
        pool: &dyn Pool,
    ) -> Result<Tensor> {
        let Scratch { qkv, mixed, inner, .. } = scratch;
        self.attn.c_attn.forward_into(Some(&self.ln_1), &x, qkv, pool)?;
        let x = rows(x, wanted)?;
        let mixed = mixed.narrow(0, 0, x.dims2()?.0)?;
        let Attention { c_attn, heads, .. } = &self.attn;
        cached_attention(qkv, caches, *heads, c_attn.is_exact(), wanted.is_some(), &mixed, pool)?;
        self.attn.c_proj.forward_add(&mixed, &x, pool)?;
        let inner = inner.narrow(0, 0, x.dims2()?.0)?;
        self.mlp.c_fc.forward_into(Some(&self.ln_2), &x, &inner, pool)?;
        self.mlp.c_proj.forward_add(&inner, &x, pool)?;
        Ok(x)
    }
}

impl Attention {
    fn new(config: &Gpt2Config, layer: usize, vb: &mut Path<'_>) -> Result<Attention> {
        let mut scale = 1.0;
        if config.scale_attn_weights {
            scale /= ((config.n_embd / config.n_head) as f32).sqrt();
        }
        if config.scale_attn_by_inverse_layer_idx {
            scale /= (layer + 1) as f32;
        }
        let (c_attn, c_proj) = (vb.pp("c_attn").linear()?, vb.pp("c_proj").linear()?);
        Ok(Attention { c_attn, c_proj, heads: Heads { heads: config.n_head, scale } })
    }
}

/// Hugging Face's spellings: with and without `transformer.`, old mask buffers, a head that repeats a tied embedding.
fn place(name: &str, tied: bool) -> Place {
    let name = name.strip_prefix("transformer.").unwrap_or(name);
    let is_mask =
        name.starts_with("h.") && (name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias"));
    match is_mask || (tied && name == "lm_head.weight") {
        true => Place::Ignored,
        false => Place::Tensor(name.into()),
    }
}

/// llama.cpp's spellings.
fn place_gguf(name: &str, tied: bool) -> Place {
    let renamed = match name {
        "token_embd.weight" => "wte.weight".into(),
        "position_embd.weight" => "wpe.weight".into(),
        "output_norm.weight" => "ln_f.weight".into(),
        "output_norm.bias" => "ln_f.bias".into(),
        "output.weight" if tied => return Place::Ignored,
        "output.weight" => "lm_head.weight".into(),
        _ => {
            let block = name.strip_prefix("blk.").unwrap_or_default();
            let mut parts = block.splitn(3, '.');
            let (layer, part, kind) = (parts.next(), parts.next().unwrap_or_default(), parts.next());
            let part = match part {
                "attn_norm" => "ln_1",
                "attn_qkv" => "attn.c_attn",
                "attn_output" => "attn.c_proj",
                "ffn_norm" => "ln_2",
                "ffn_up" => "mlp.c_fc",
                "ffn_down" => "mlp.c_proj",
                _ => return Place::Tensor(name.into()),
            };
            format!("h.{}.{part}.{}", layer.unwrap_or_default(), kind.unwrap_or_default())
        }
    };
    Place::Tensor(renamed)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn the_hubs_spellings_lead_to_one_name() {
        let tensor = |name: &str| Place::Tensor(name.into());
        assert_eq!(place("transformer.h.3.ln_1.weight", true), tensor("h.3.ln_1.weight"));
        assert_eq!(place("h.3.attn.bias", true), Place::Ignored);
        assert_eq!(place("transformer.h.3.attn.masked_bias", true), Place::Ignored);
        assert_eq!(place("h.3.attn.c_attn.bias", true), tensor("h.3.attn.c_attn.bias"));
        assert_eq!(place("lm_head.weight", true), Place::Ignored);
        assert_eq!(place("lm_head.weight", false), tensor("lm_head.weight"));
        assert_eq!(place_gguf("blk.11.ffn_down.weight", true), tensor("h.11.mlp.c_proj.weight"));
        assert_eq!(place_gguf("blk.1.attn_q.weight", true), tensor("blk.1.attn_q.weight"));
    }
}
