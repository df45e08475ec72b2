//! What bounds a token: all products of GPT-2 124M one after the other, beside memory that is merely read, on one thread
//! and on all cores.
//!
//! Weights of a token are 125 MB, more than most caches keep, so the products can be no faster than plain reads; how near
//! they come is what `cargo xtask bench` prints. Rows are named `memory/read/THREADS`, `token/decode/THREADS` and
//! `token/prefill_64/THREADS`.

#[path = "support/numbers.rs"]
mod numbers;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use inkling_kernels::{
    FINGERPRINT, PackedMatrix, PackedMatrixBuilder, Packing, Pool, SingleThread, Team, fingerprint,
};
use numbers::numbers;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

/// A block's matrices (outputs, inputs); there are twelve blocks.
const BLOCK: [(usize, usize); 4] = [(2304, 768), (768, 768), (3072, 768), (768, 3072)];
const BLOCKS: usize = 12;
/// The head, with its rows rounded up to whole panels.
const HEAD: (usize, usize) = (50_272, 768);

/// Threads as a host lends them.
struct Threads {
    team: Arc<Team>,
    helpers: Vec<JoinHandle<()>>,
}

impl Threads {
    fn new(threads: usize) -> Self {
        let team = Arc::new(Team::new(threads));
        let help = |_| {
            let team = Arc::clone(&team);
            thread::spawn(move || team.help())
        };
        let helpers = (1..threads).map(help).collect();
        Self { team, helpers }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.team.disband();
        for helper in self.helpers.drain(..) {
            helper.join().expect("a helper catches what tasks panic with");
        }
    }
}

/// 1 and the number of cores, if that is more.
fn thread_counts() -> Vec<usize> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    if cores > 1 { vec![1, cores] } else { vec![1] }
}

/// Times `run` on a pool of each size.
fn each(c: &mut Criterion, group: &str, name: &str, throughput: Throughput, run: impl Fn(&dyn Pool)) {
    let mut group = c.benchmark_group(group);
    group.sample_size(20).throughput(throughput);
    for threads in thread_counts() {
        let pool = Threads::new(threads);
        let pool: &dyn Pool = if threads == 1 { &SingleThread } else { &*pool.team };
        group.bench_function(BenchmarkId::new(name, threads), |b| b.iter(|| run(pool)));
    }
}

/// Plain reads of 143 MB, about what a token reads, that lie where weights lie, whatever memory or cache that is. Eight
/// streams side by side, line by line: one alone leaves half of the bandwidth unused on some servers, since processors fetch
/// ahead within a page only.
fn memory(c: &mut Criterion) {
    /// Parts that threads take.
    const PARTS: usize = 64;
    let mut builder = PackedMatrixBuilder::new(1 << 17, 1024);
    // A page that nobody has written to is not there yet.
    builder.as_bytes_mut().into_iter().for_each(|bytes| bytes.fill(1));
    let matrix = builder.finish();
    let [bytes, _] = matrix.as_bytes();
    let sum = AtomicU64::new(0);
    each(c, "memory", "read", Throughput::Bytes(bytes.len() as u64), |pool| {
        pool.run(PARTS, &|part| {
            let len = bytes.len() / PARTS;
            let part = black_box(&bytes[part * len..][..len]);
            let streams: [_; 8] = std::array::from_fn(|i| part[i * len / 8..][..len / 8].as_chunks::<64>().0);
            // Eight sums, so that the additions do not wait for each other.
            let mut sums = [0_u64; 8];
            for line in 0..streams[0].len() {
                for stream in streams {
                    for (sum, bytes) in sums.iter_mut().zip(stream[line].as_chunks::<8>().0) {
                        *sum ^= u64::from_le_bytes(*bytes);
                    }
                }
            }
            sum.fetch_xor(sums.iter().fold(0, |all, sum| all ^ sum), Ordering::Relaxed);
        });
    });
    black_box(sum);
}

fn token(c: &mut Criterion) {
    assert_eq!(fingerprint(), FINGERPRINT, "the kernels compute other bits than they should");
    // As the engine keeps them.
    let matrix = |(rows, cols): (usize, usize), seed| {
        let weights = numbers(seed, rows * cols);
        let most = if rows == HEAD.0 { cols } else { (3 << 20) / (4 * rows) };
        let packing = Packing::widest(cols, most).expect("128 divides the widths of GPT-2");
        PackedMatrix::from_f32_as(packing, rows, cols, &weights).expect("seeded numbers are finite")
    };
    let mut matrices: Vec<PackedMatrix> =
        (0..BLOCKS).flat_map(|block| BLOCK.map(|shape| matrix(shape, block as u64))).collect();
    matrices.push(matrix(HEAD, 99));
    let bytes: usize = matrices.iter().map(PackedMatrix::size_bytes).sum();
    let weights: usize = matrices.iter().map(|matrix| matrix.rows() * matrix.cols()).sum();
    for (name, m, throughput) in [
        ("decode", 1, Throughput::Bytes(bytes as u64)),
        ("prefill_64", 64, Throughput::Elements(64 * weights as u64)),
    ] {
        let x = numbers(7, m * 3072);
        let out = std::sync::Mutex::new(vec![0.0; m * HEAD.0]);
        each(c, "token", name, throughput, |pool| {
            let mut out = out.lock().expect("no run panics");
            for matrix in &matrices {
                matrix.matmul(black_box(&x[..m * matrix.cols()]), None, &mut out[..m * matrix.rows()], pool);
            }
        });
    }
}

criterion_group!(benches, memory, token);
criterion_main!(benches);
