//! Scaled dot-product attention: its shapes, and how heads and queries become tasks.
//!
//! Source: Vaswani et al. 2017, 3.2.1. [`scalar::attend`](super::scalar::attend) defines the bits.

use super::dispatch;
use super::isa::Isa;
use super::pool::{Pool, Shared};
use super::scalar::LANES;
use std::array::from_fn;
use std::cell::Cell;
use std::ops::Range;

/// Which positions a query sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    /// A generator's: query `i` sees positions `0..=past + i`.
    Causal {
        /// Positions in the cache before the first query.
        past: usize,
    },
    /// A classifier's: every query sees positions `0..len`, the rest is padding.
    Full {
        /// Positions that hold text.
        len: usize,
    },
}

impl Mask {
    pub(crate) fn visible(self, query: usize) -> usize {
        match self {
            Self::Causal { past } => past + query + 1,
            Self::Full { len } => len,
        }
    }
}

/// The shapes of one [`attention`].
#[derive(Clone, Copy, Debug)]
pub struct AttentionShape {
    /// Heads, side by side in a row.
    pub heads: usize,
    /// Elements of a head; multiples of 16 are fast.
    pub head_dim: usize,
    /// Rows of `q` and of the output.
    pub queries: usize,
    /// From the start of a query's row to the next, at least `heads * head_dim`.
    pub q_stride: usize,
    /// From a position's row in `keys` and `values` to the next, at least `heads * head_dim`.
    pub kv_stride: usize,
    /// What scores are multiplied with, `1 / sqrt(head_dim)` as a rule.
    pub scale: f32,
    /// What a query sees.
    pub mask: Mask,
}

impl AttentionShape {
    /// Positions that the last query sees, after a look at the lengths of queries, keys and values, which lack the first `held`
    /// positions, and of outputs; 0 without a query or an element.
    pub(crate) fn check(&self, [q, keys, values]: [usize; 3], held: usize, out: usize) -> usize {
        let Self { heads, head_dim, queries, q_stride, kv_stride, mask, .. } = *self;
        let width = heads * head_dim;
        assert_eq!(out, queries * width, "kernels: outputs of an attention");
        if queries == 0 || width == 0 {
            return 0;
        }
        let positions = mask.visible(queries - 1);
        assert!(
            q_stride >= width && kv_stride >= width,
            "kernels: strides {q_stride}, {kv_stride} below {width}"
        );
        assert!(q >= (queries - 1) * q_stride + width, "kernels: {} elements for {queries} queries", q);
        assert!(
            held <= positions,
            "kernels: cache of {held} positions, of which the last query sees {positions}"
        );
        let new = positions - held;
        let least = if new == 0 { 0 } else { (new - 1) * kv_stride + width };
        assert!(keys >= least && values >= least, "kernels: keys of {keys} elements for {new} positions");
        positions
    }

    /// Some queries of the head that begins `at` this element of each row, `N` at most: their elements, how many positions they
    /// see, and their parts of `out`.
    ///
    /// # Safety
    /// Nobody else uses these parts.
    #[expect(clippy::mut_from_ref, reason = "as for `Shared::part`")]
    pub(crate) unsafe fn queries<'a, const N: usize>(
        &self,
        q: &'a [f32],
        at: usize,
        queries: Range<usize>,
        out: &'a Shared<'_, f32>,
    ) -> ([&'a [f32]; N], [usize; N], [&'a mut [f32]; N]) {
        let Self { heads, head_dim, q_stride, mask, .. } = *self;
        let (mut qs, mut seen) = ([&q[..0]; N], [0; N]);
        let mut outs = from_fn(|_| [].as_mut_slice());
        for (i, query) in queries.enumerate() {
            qs[i] = &q[query * q_stride + at..][..head_dim];
            seen[i] = mask.visible(query);
            // SAFETY: the caller's promise; heads and queries do not overlap.
            outs[i] = unsafe { out.part(query * heads * head_dim + at, head_dim) };
        }
        (qs, seen, outs)
    }
}

/// Scaled dot-product attention over a cache: `softmax(q . k * scale) . v` for each head and query.
///
/// `q`: `queries` rows of `heads * head_dim`, `q_stride` apart; `keys`, `values`: a row of `heads * head_dim` a position,
/// `kv_stride` apart, so that a column range of a wider matrix will do. `out`: `(queries, heads * head_dim)`, dense.
/// A query without a visible position gives zeros.
/// Source: Vaswani et al. 2017, 3.2.1.
///
/// # Panics
/// If a slice is too short for `shape`.
pub fn attention(
    q: &[f32],
    keys: &[f32],
    values: &[f32],
    shape: &AttentionShape,
    out: &mut [f32],
    pool: &dyn Pool,
) {
    let AttentionShape { heads, head_dim, queries, .. } = *shape;
    let width = heads * head_dim;
    let positions = shape.check([q.len(), keys.len(), values.len()], 0, out.len());
    if positions == 0 {
        return out.fill(0.0);
    }
    let isa = Isa::active();
    let out = Shared::new(out);
    let tasks = if pool.threads() > 1 && queries * positions * width >= ATTENTION_TASK { heads } else { 1 };
    pool.run(tasks, &|task| {
        let mut scratch = SCORES.take();
        let n = if share_copies(queries) { queries.min(MANY) } else { queries.min(TOGETHER) };
        scratch.resize(scratch_size(n, positions, head_dim), 0.0);
        for head in task * heads / tasks..(task + 1) * heads / tasks {
            let head = Head { isa, q, keys, values, shape, at: head * head_dim, out: &out };
            let mut first = 0;
            while first < queries {
                first += if share_copies(queries - first) {
                    head.attend::<MANY>(first, &mut scratch)
                } else {
                    head.attend::<TOGETHER>(first, &mut scratch)
                };
            }
        }
        SCORES.set(scratch);
    });
}

/// A head of an [`attention`], which belongs to one task.
struct Head<'a> {
    isa: Isa,
    q: &'a [f32],
    keys: &'a [f32],
    values: &'a [f32],
    shape: &'a AttentionShape,
    /// Where it begins in each row.
    at: usize,
    out: &'a Shared<'a, f32>,
}

impl Head<'_> {
    /// Attention of the queries from `first` on, `MOST` or as many as there are; returns how many.
    fn attend<const MOST: usize>(&self, first: usize, scratch: &mut [f32]) -> usize {
        let Self { isa, keys, values, shape, at, .. } = *self;
        let n = MOST.min(shape.queries - first);
        // SAFETY: a head belongs to one task.
        let (qs, seen, mut outs) = unsafe { shape.queries::<MOST>(self.q, at, first..first + n, self.out) };
        let (qs, seen, outs) = (&qs[..n], &seen[..n], &mut outs[..n]);
        dispatch!(isa, attend(qs, &keys[at..], &values[at..], shape, seen, scratch, outs));
        n
    }
}

/// Queries that share copies of their head's keys and values, at most.
pub(crate) const MANY: usize = 128;

/// Whether so many queries share them. Of a short prompt too much is copied and scored that nobody sees: 16 queries without
/// a past take 28 % more instructions. In WebAssembly attention took half as long again, and on ARM nobody has measured it.
pub(crate) const fn share_copies(queries: usize) -> bool {
    cfg!(target_arch = "x86_64") && queries >= 32
}

/// Positions whose keys or values are copied at a time.
pub(crate) const COPIED: usize = 64;

/// Room for the scores of some queries of a head, a row of whole blocks each, and behind them for copies.
pub(crate) fn scratch_size(queries: usize, positions: usize, head_dim: usize) -> usize {
    let copies = if share_copies(queries) { COPIED * head_dim } else { 0 };
    queries * positions.next_multiple_of(LANES) + copies
}

/// Queries of a head that are worked on together.
pub(crate) const TOGETHER: usize = 4;

/// Below this many products an attention stays on the caller's thread.
pub(crate) const ATTENTION_TASK: usize = 8 * 1024;

thread_local! {
    /// Scores of the queries at work and copies, kept between calls.
    static SCORES: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}
