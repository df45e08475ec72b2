//! Times the kernels for every instruction set that the machine has: `cargo bench -p inkling-kernels --bench kernels`.
//!
//! A row is a path: `kernel/linear_q8/2304x768/1/Avx512Vnni` is the product of a 2304 x 768 matrix with one activation
//! row. Products with one row are read off in bytes a second, to be compared with `memory/read`, the same number of
//! bytes merely read; those with 64 rows in multiplications a second. Scalar rows are the peers: ratios in one run hold
//! where absolute times drift. Bits are checked before anything is timed.

#[path = "support/attention.rs"]
mod integers;
#[path = "support/numbers.rs"]
mod numbers;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use inkling_kernels::{
    self as kernels, Activation, AttentionShape, FINGERPRINT, FINGERPRINTS, Isa, Mask, PackedMatrix,
    PackedMatrixBuilder, Packing, SingleThread,
};
use integers::WIDTH;
use numbers::numbers;
use std::hint::black_box;

/// GPT-2's matrices (outputs, inputs); the last one is its head, rounded up.
const MATRICES: [(usize, usize); 5] = [(2304, 768), (768, 768), (3072, 768), (768, 3072), (50_272, 768)];

/// Forces each instruction set in turn; scalar kernels are left out where they would take minutes.
fn each(scalar: bool, mut f: impl FnMut(Isa)) {
    for isa in Isa::available() {
        if isa == Isa::Scalar && !scalar {
            continue;
        }
        Isa::force(Some(isa));
        assert_eq!(kernels::fingerprint(), FINGERPRINT, "{isa:?} computes other bits");
        for (packing, expected) in FINGERPRINTS {
            assert_eq!(
                kernels::fingerprint_of(packing),
                expected,
                "{isa:?} computes other bits: {packing:?}"
            );
        }
        f(isa);
    }
    Isa::force(None);
}

fn memory(c: &mut Criterion) {
    let mut group = c.benchmark_group("memory");
    for (rows, cols) in MATRICES {
        let words = vec![1_u64; PackedMatrixBuilder::new(rows, cols).finish().size_bytes() / 8];
        group.throughput(Throughput::Bytes(words.len() as u64 * 8));
        group.bench_function(BenchmarkId::new("read", format!("{rows}x{cols}")), |b| {
            // Eight sums, so that the additions do not wait for each other.
            b.iter(|| {
                let mut sums = [0_u64; 8];
                for words in words.as_chunks::<8>().0 {
                    for (sum, word) in sums.iter_mut().zip(words) {
                        *sum ^= word;
                    }
                }
                black_box(sums)
            });
        });
    }
}

fn linear_q8(c: &mut Criterion) {
    linear(c, "kernel/linear_q8", Packing::Q8);
}

fn linear_q4(c: &mut Criterion) {
    linear(c, "kernel/linear_q4", Packing::Q4);
}

fn linear_q8_by_768(c: &mut Criterion) {
    linear(c, "kernel/linear_q8_by_768", Packing::Q8By(768));
}

fn linear(c: &mut Criterion, name: &str, packing: Packing) {
    let mut group = c.benchmark_group(name);
    group.sample_size(20);
    for (rows, cols) in MATRICES {
        let weights = numbers(1, rows * cols);
        let matrix =
            PackedMatrix::from_f32_as(packing, rows, cols, &weights).expect("seeded numbers are finite");
        for m in [1, 64] {
            let (x, mut out) = (numbers(2, m * cols), vec![0.0; m * rows]);
            group.throughput(match m {
                1 => Throughput::Bytes(matrix.size_bytes() as u64),
                _ => Throughput::Elements((m * rows * cols) as u64),
            });
            each(m == 1 && rows <= 3072, |isa| {
                let id = BenchmarkId::new(format!("{rows}x{cols}/{m}"), format!("{isa:?}"));
                group.bench_function(id, |b| {
                    b.iter(|| matrix.matmul(black_box(&x), None, &mut out, &SingleThread))
                });
            });
        }
    }
}

fn pack(c: &mut Criterion) {
    packing(c, "kernel/pack_q8", Packing::Q8);
    packing(c, "kernel/pack_q4", Packing::Q4);
}

fn packing(c: &mut Criterion, name: &str, packing: Packing) {
    let (rows, cols) = (3072, 768);
    let weights = numbers(1, rows * cols);
    let mut group = c.benchmark_group(name);
    group.sample_size(20).throughput(Throughput::Bytes(size_of_val(weights.as_slice()) as u64));
    each(true, |isa| {
        let mut builder = PackedMatrixBuilder::with_packing(packing, rows, cols);
        group.bench_function(BenchmarkId::new("rows", format!("{isa:?}")), |b| {
            b.iter(|| {
                for (row, weights) in weights.chunks(cols).enumerate() {
                    builder.set_row_f32(row, weights).expect("seeded numbers are finite");
                }
            });
        });
        group.bench_function(BenchmarkId::new("columns", format!("{isa:?}")), |b| {
            b.iter(|| {
                for (block, weights) in weights.chunks(32 * rows).enumerate() {
                    builder.set_columns_f32(block, weights).expect("seeded numbers are finite");
                }
            });
        });
    });
}

fn rows(c: &mut Criterion) {
    let (x, weight, logits) = (numbers(1, 3072), numbers(2, 768), numbers(3, 50_257));
    let mut group = c.benchmark_group("kernel");
    each(true, |isa| {
        let isa = format!("{isa:?}");
        let mut out = vec![0.0; 3072];
        group.throughput(Throughput::Elements(768));
        group.bench_function(BenchmarkId::new("layer_norm/768", &isa), |b| {
            b.iter(|| kernels::layer_norm(black_box(&x[..768]), &weight, &weight, 1e-5, &mut out[..768]));
        });
        group.throughput(Throughput::Elements(3072));
        for activation in [Activation::GeluTanh, Activation::GeluErf, Activation::Tanh] {
            group.bench_function(BenchmarkId::new(format!("{activation:?}/3072"), &isa), |b| {
                b.iter(|| {
                    out.copy_from_slice(&x);
                    activation.apply(black_box(&mut out));
                });
            });
        }
        group.throughput(Throughput::Elements(logits.len() as u64));
        group.bench_function(BenchmarkId::new("log_sum_exp/50257", &isa), |b| {
            b.iter(|| black_box(kernels::sum_exp(black_box(&logits), kernels::highest(&logits))));
        });
        group.throughput(Throughput::Elements(3072));
        group.bench_function(BenchmarkId::new("softmax/3072", &isa), |b| {
            b.iter(|| {
                out.copy_from_slice(&x);
                kernels::softmax(black_box(&mut out));
            });
        });
    });
}

fn attention(c: &mut Criterion) {
    let (heads, head_dim, positions) = (12, 64, 1024);
    let width = heads * head_dim;
    let (q, keys, values) =
        (numbers(1, 64 * width), numbers(2, positions * width), numbers(3, positions * width));
    let mut group = c.benchmark_group("kernel/attention");
    group.sample_size(20);
    // One query over a short and a long cache, and a prompt's 64.
    for (queries, past) in [(1, 127), (1, 1023), (64, 0), (64, 960)] {
        let mask = Mask::Causal { past };
        let shape = AttentionShape {
            heads,
            head_dim,
            queries,
            q_stride: width,
            kv_stride: width,
            scale: 0.125,
            mask,
        };
        let seen: usize = (0..queries).map(|query| past + query + 1).sum();
        group.throughput(Throughput::Elements((seen * width) as u64));
        let mut out = vec![0.0; queries * width];
        each(true, |isa| {
            let id = BenchmarkId::new(format!("{queries}+{past}"), format!("{isa:?}"));
            group.bench_function(id, |b| {
                b.iter(|| kernels::attention(black_box(&q), &keys, &values, &shape, &mut out, &SingleThread));
            });
        });
    }
}

/// A text of 128 tokens over itself; one query and a prompt's 64 after a short and a long cache, which takes them in.
fn attention_i16(c: &mut Criterion) {
    let qkv = numbers(1, 1024 * 3 * WIDTH);
    let mut out = vec![0.0; 128 * WIDTH];
    let mut group = c.benchmark_group("kernel/attention_i16");
    group.sample_size(20).throughput(Throughput::Elements((128 * 128 * WIDTH) as u64));
    each(true, |isa| {
        group.bench_function(BenchmarkId::new("128", format!("{isa:?}")), |b| {
            b.iter(|| integers::whole(black_box(&qkv), 128, &mut out));
        });
    });
    for (queries, past) in [(1, 127), (1, 1023), (64, 0), (64, 960)] {
        let seen: usize = (0..queries).map(|query| past + query + 1).sum();
        group.throughput(Throughput::Elements((seen * WIDTH) as u64));
        each(true, |isa| {
            let cache = integers::cache(&qkv, past);
            group.bench_function(BenchmarkId::new(format!("{queries}+{past}"), format!("{isa:?}")), |b| {
                let run = |cache: &mut _| integers::cached(black_box(&qkv), queries, cache, &mut out);
                b.iter_batched_ref(|| integers::copy(&cache, queries), run, BatchSize::LargeInput);
            });
        });
    }
}

criterion_group!(
    benches,
    memory,
    linear_q8,
    linear_q8_by_768,
    linear_q4,
    pack,
    rows,
    attention,
    attention_i16
);
criterion_main!(benches);
