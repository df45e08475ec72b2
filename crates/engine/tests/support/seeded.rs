//! Checkpoints with seeded random weights, in the layouts of the hub's safetensors files.
//!
//! Neither speed nor memory nor equality of bits depends on what weights say, so these stand in for models that would have
//! to be downloaded. The same seed gives the same bytes on every target: weights are integers until the last
//! multiplication. It needs the standard library alone, since `cargo xtask bench` includes this file too.

/// A tensor of f32 to be written.
pub(crate) struct Tensor {
    name: String,
    shape: Vec<usize>,
    /// What its numbers lie around, and their standard deviation.
    mean: f32,
    deviation: f32,
}

impl Tensor {
    pub(crate) fn new(name: impl Into<String>, shape: &[usize], deviation: f32) -> Tensor {
        Tensor { name: name.into(), shape: shape.to_vec(), mean: 0.0, deviation }
    }

    /// `weight` and `bias` of a layer norm over `width`.
    pub(crate) fn layer_norm(path: &str, width: usize) -> [Tensor; 2] {
        let weight = Tensor { mean: 1.0, ..Tensor::new(format!("{path}.weight"), &[width], 0.1) };
        [weight, Tensor::new(format!("{path}.bias"), &[width], 0.05)]
    }

    fn numbers(&self) -> usize {
        self.shape.iter().product()
    }
}

/// The sizes of a GPT-2; heads are 64 wide.
#[derive(Clone, Copy)]
pub(crate) struct Gpt2Sizes {
    pub(crate) vocab_size: usize,
    pub(crate) n_positions: usize,
    pub(crate) n_embd: usize,
    pub(crate) n_layer: usize,
}

impl Gpt2Sizes {
    /// GPT-2 124M.
    pub(crate) const FULL: Gpt2Sizes =
        Gpt2Sizes { vocab_size: 50_257, n_positions: 1024, n_embd: 768, n_layer: 12 };

    pub(crate) fn config_json(&self) -> String {
        let Gpt2Sizes { vocab_size, n_positions, n_embd, n_layer } = self;
        format!(
            r#"{{"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "activation_function": "gelu_new",
"vocab_size": {vocab_size}, "n_positions": {n_positions}, "n_ctx": {n_positions}, "n_embd": {n_embd},
"n_layer": {n_layer}, "n_head": {}, "layer_norm_epsilon": 1e-05, "bos_token_id": {eos}, "eos_token_id": {eos}}}"#,
            n_embd / 64,
            eos = vocab_size - 1,
        )
    }

    /// Deviations spread the logits, so that the likeliest token has no near tie.
    pub(crate) fn tensors(&self) -> Vec<Tensor> {
        let Gpt2Sizes { vocab_size, n_positions, n_embd, n_layer } = *self;
        let conv1d = |path: String, input: usize, out: usize| {
            [
                Tensor::new(format!("{path}.weight"), &[input, out], 0.04),
                Tensor::new(format!("{path}.bias"), &[out], 0.05),
            ]
        };
        let mut tensors = vec![
            Tensor::new("wte.weight", &[vocab_size, n_embd], 0.06),
            Tensor::new("wpe.weight", &[n_positions, n_embd], 0.1),
        ];
        for layer in 0..n_layer {
            let path = |name: &str| format!("h.{layer}.{name}");
            tensors.extend(Tensor::layer_norm(&path("ln_1"), n_embd));
            tensors.extend(conv1d(path("attn.c_attn"), n_embd, 3 * n_embd));
            tensors.extend(conv1d(path("attn.c_proj"), n_embd, n_embd));
            tensors.extend(Tensor::layer_norm(&path("ln_2"), n_embd));
            tensors.extend(conv1d(path("mlp.c_fc"), n_embd, 4 * n_embd));
            tensors.extend(conv1d(path("mlp.c_proj"), 4 * n_embd, n_embd));
        }
        tensors.extend(Tensor::layer_norm("ln_f", n_embd));
        tensors
    }
}

/// Bytes of the file that [`write`] writes.
pub(crate) fn size_bytes(tensors: &[Tensor]) -> u64 {
    (header(tensors).len() + 4 * tensors.iter().map(Tensor::numbers).sum::<usize>()) as u64
}

/// Writes `tensors` as a safetensors file, in pieces.
///
/// # Errors
/// Those of `push`.
pub(crate) fn write<E>(
    tensors: &[Tensor],
    seed: u64,
    mut push: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    /// Numbers of a piece.
    const PIECE: usize = 1 << 16;
    push(&header(tensors))?;
    let mut bytes = Vec::with_capacity(4 * PIECE);
    for (tensor, own_seed) in tensors.iter().zip(seed << 32..) {
        let mut random = Random(own_seed);
        let mut left = tensor.numbers();
        while left > 0 {
            bytes.clear();
            for _ in 0..left.min(PIECE) {
                bytes.extend((tensor.mean + tensor.deviation * random.normal()).to_le_bytes());
            }
            left -= left.min(PIECE);
            push(&bytes)?;
        }
    }
    Ok(())
}

/// The header's length, then the header. No name here has a character that JSON would escape.
fn header(tensors: &[Tensor]) -> Vec<u8> {
    let mut at = 0;
    let entries = tensors.iter().map(|tensor| {
        let start = at;
        at += 4 * tensor.numbers();
        let Tensor { name, shape, .. } = tensor;
        format!(r#""{name}":{{"dtype":"F32","shape":{shape:?},"data_offsets":[{start},{at}]}}"#)
    });
    let json = format!("{{{}}}", entries.collect::<Vec<_>>().join(","));
    [&(json.len() as u64).to_le_bytes(), json.as_bytes()].concat()
}

/// SplitMix64. Source: Steele, Lea and Flood 2014.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// About normal, with deviation 1: the sum of four uniform numbers.
    fn normal(&mut self) -> f32 {
        let sum: u64 = (0..4)
            .map({
                let bits = self.next();
                move |i| (bits >> (16 * i)) & 0xffff
            })
            .sum();
        // The sum's mean is 2 * 65535; its deviation sqrt(4/12) * 65536, that is 37837.
        (sum as f32 - 131_070.0) * (1.0 / 37_837.0)
    }
}
