//! Kernels for `cargo xtask test --only instructions`; `support/cases.rs` says how their instructions are counted.

#[path = "support/cases.rs"]
mod cases;
#[path = "support/attention.rs"]
mod integers;
#[path = "support/numbers.rs"]
mod numbers;

use cases::{Prepare, Run};
use inkling_kernels::{
    self as kernels, Activation, Around, AttentionShape, Mask, Norm, PackedMatrix, Packing, SingleThread,
};
use inkling_kernels::{Isa, PackedMatrixBuilder};
use integers::WIDTH;
use numbers::numbers;
use std::hint::black_box;
use std::process::ExitCode;

/// Sizes are GPT-2's, or a part of them where a whole would take valgrind seconds.
const CASES: [(&str, Prepare); 17] = [
    ("linear_q8/768x768/1", || product(Packing::Q8, 768, 768, 1)),
    ("linear_q8/768x768/4", || product(Packing::Q8, 768, 768, 4)),
    ("linear_q8/768x768/8", || product(Packing::Q8, 768, 768, 8)),
    ("linear_q8/768x3072/1", || product(Packing::Q8, 768, 3072, 1)),
    ("linear_q8_by_768/768x768/1", || product(Packing::Q8By(768), 768, 768, 1)),
    ("linear_q8_by_768/768x768/8", || product(Packing::Q8By(768), 768, 768, 8)),
    ("norm_and_quantise/768/8", norm_and_quantise),
    ("bias_and_gelu/3072", bias_and_gelu),
    ("attention/1+127", || attention(1, 127)),
    ("attention/16+0", || attention(16, 0)),
    ("attention/64+64", || attention(64, 64)),
    ("attention_i16/64", attention_i16),
    ("attention_i16/1+127", || cached_attention_i16(1, 127)),
    ("attention_i16/64+64", || cached_attention_i16(64, 64)),
    ("log_sum_exp/50257", log_sum_exp),
    ("pack/rows/128x768", pack_rows),
    ("pack/columns/768x128", pack_columns),
];

fn product(packing: Packing, rows: usize, cols: usize, m: usize) -> Run {
    let (matrix, x) = (matrix(packing, rows, cols), numbers(2, m * cols));
    let mut out = vec![0.0; m * rows];
    Box::new(move || matrix.matmul(&x, None, &mut out, &SingleThread))
}

/// A product so narrow that what comes before it is the most.
fn norm_and_quantise() -> Run {
    let (matrix, x, weight) = (matrix(Packing::Q8, 16, 768), numbers(2, 8 * 768), numbers(3, 768));
    let mut out = vec![0.0; 8 * 16];
    Box::new(move || {
        let norm = Some(Norm { weight: &weight, bias: &weight, eps: 1e-5 });
        matrix.matmul_with(&x, &Around { norm, ..Around::default() }, &mut out, &SingleThread);
    })
}

/// A product so flat that what follows it is the most.
fn bias_and_gelu() -> Run {
    let (matrix, x, bias) = (matrix(Packing::Q8, 3072, 32), numbers(2, 32), numbers(3, 3072));
    let mut out = vec![0.0; 3072];
    Box::new(move || {
        let around = Around { bias: Some(&bias), activation: Activation::GeluTanh, ..Around::default() };
        matrix.matmul_with(&x, &around, &mut out, &SingleThread);
    })
}

fn attention(queries: usize, past: usize) -> Run {
    let (heads, head_dim) = (12, 64);
    let width = heads * head_dim;
    let numbers = |seed, rows: usize| numbers(seed, rows * width);
    let (q, keys, values) = (numbers(1, queries), numbers(2, past + queries), numbers(3, past + queries));
    let mut out = vec![0.0; queries * width];
    let (q_stride, kv_stride, mask) = (width, width, Mask::Causal { past });
    let shape = AttentionShape { heads, head_dim, queries, q_stride, kv_stride, scale: 0.125, mask };
    Box::new(move || kernels::attention(&q, &keys, &values, &shape, &mut out, &SingleThread))
}

/// A text of 64 tokens over itself.
fn attention_i16() -> Run {
    let qkv = numbers(1, 64 * 3 * WIDTH);
    let mut out = vec![0.0; 64 * WIDTH];
    Box::new(move || integers::whole(&qkv, 64, &mut out))
}

/// New positions of a cache.
fn cached_attention_i16(queries: usize, past: usize) -> Run {
    let qkv = numbers(1, (past + queries) * 3 * WIDTH);
    let mut out = vec![0.0; queries * WIDTH];
    let cache = integers::cache(&qkv, past);
    let mut caches = vec![integers::copy(&cache, queries), integers::copy(&cache, queries)];
    Box::new(move || {
        let cache = &mut caches.pop().expect("a case is run twice");
        integers::cached(&qkv, queries, cache, &mut out);
    })
}

fn log_sum_exp() -> Run {
    let logits = numbers(1, 50_257);
    Box::new(move || {
        black_box(kernels::sum_exp(&logits, kernels::highest(&logits)));
    })
}

fn pack_rows() -> Run {
    let weights = numbers(1, 128 * 768);
    let mut builder = PackedMatrixBuilder::new(128, 768);
    Box::new(move || {
        for (row, weights) in weights.chunks_exact(768).enumerate() {
            builder.set_row_f32(row, weights).expect("seeded numbers are finite");
        }
    })
}

fn pack_columns() -> Run {
    let weights = numbers(1, 128 * 768);
    let mut builder = PackedMatrixBuilder::new(768, 128);
    Box::new(move || {
        for (block, weights) in weights.chunks_exact(32 * 768).enumerate() {
            builder.set_columns_f32(block, weights).expect("seeded numbers are finite");
        }
    })
}

fn matrix(packing: Packing, rows: usize, cols: usize) -> PackedMatrix {
    PackedMatrix::from_f32_as(packing, rows, cols, &numbers(1, rows * cols))
        .expect("seeded numbers are finite")
}

fn main() -> ExitCode {
    cases::main(&CASES)
}
