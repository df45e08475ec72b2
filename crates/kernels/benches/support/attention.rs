//! Attention in integers as GPT-2 and BERT base have it, over rows of a query, a key and a value side by side.

use inkling_kernels::{self as kernels, AttentionShape, IntegerCache, Mask, SingleThread};

const HEADS: usize = 12;
const HEAD_DIM: usize = 64;
/// Elements of a query, a key, a value and an output.
pub(crate) const WIDTH: usize = HEADS * HEAD_DIM;

fn shape(queries: usize, mask: Mask) -> AttentionShape {
    AttentionShape {
        heads: HEADS,
        head_dim: HEAD_DIM,
        queries,
        q_stride: 3 * WIDTH,
        kv_stride: 3 * WIDTH,
        scale: 0.125,
        mask,
    }
}

/// A text of `len` tokens over itself.
pub(crate) fn whole(qkv: &[f32], len: usize, out: &mut [f32]) {
    let shape = shape(len, Mask::Full { len });
    let out = &mut out[..len * WIDTH];
    kernels::attention_i16(qkv, &qkv[WIDTH..], &qkv[2 * WIDTH..], &shape, out, &SingleThread);
}

/// The next `queries` tokens of a text, whose first ones the cache holds.
pub(crate) fn cached(qkv: &[f32], queries: usize, cache: &mut IntegerCache, out: &mut [f32]) {
    let past = cache.positions();
    let (qkv, out) = (&qkv[past * 3 * WIDTH..], &mut out[..queries * WIDTH]);
    let shape = shape(queries, Mask::Causal { past });
    kernels::cached_attention_i16(qkv, &qkv[WIDTH..], &qkv[2 * WIDTH..], &shape, cache, out, &SingleThread);
}

/// A cache that holds the first `past` tokens.
pub(crate) fn cache(qkv: &[f32], past: usize) -> IntegerCache {
    let mut cache = IntegerCache::default();
    if past > 0 {
        cached(qkv, past, &mut cache, &mut vec![0.0; past * WIDTH]);
    }
    cache
}

/// A copy with room for so many tokens more, as a text's cache has it from the start.
pub(crate) fn copy(cache: &IntegerCache, tokens: usize) -> IntegerCache {
    let mut copy = cache.clone();
    copy.reserve(cache.positions() + tokens, HEADS, HEAD_DIM);
    copy
}
