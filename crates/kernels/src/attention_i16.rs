//! Attention of whole texts in integers: its numbers, its layout, and how heads and queries become tasks.
//!
//! Queries, keys, values and the weights of the softmax become 16-bit integers, whose products add up exactly in 32 bits.
//! There an instruction multiplies and adds pairs of them: two to four times as many products as in f32 with each, which
//! rounds after every step. Less is lost than by the 8 bits of the products around it: queries and keys have 12 bits and
//! a half beside their sign (by heads of 64), values and weights 15.
//! [`scalar::attend_i16`](super::scalar::attend_i16) defines the bits.
//!
//! A classifier's, since keys and values have one scale for the head of a text. A generator's cache grows by tokens.

use super::attention::{ATTENTION_TASK, AttentionShape, Mask, TOGETHER};
use super::dispatch;
use super::isa::Isa;
use super::pool::{Pool, Shared, SingleThread};
use super::quantised::scale;
use super::scalar::LANES;
use std::array::from_fn;
use std::cell::Cell;

/// 16 lanes, in each a pair of numbers: of the same key, or of two positions' values.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Pairs(pub(crate) [[i16; 2]; LANES]);

impl Pairs {
    pub(crate) const ZERO: Self = Self([[0; 2]; LANES]);
}

/// 16 numbers of a query, or weights of 16 positions, in pairs: the first of each is the lower half.
pub(crate) type Row = [i32; LANES / 2];

/// Most positions of a text whose attention is in integers: weights that add up to 32767, each rounded by a half at most,
/// times values up to 32767 stay below `2^31`.
pub const POSITIONS_I16: usize = 1 << 15;
/// The largest weight, and about what all weights of a query add up to.
pub(crate) const WEIGHT: f32 = 32767.0;
/// The largest element of a value.
pub(crate) const VALUE: f32 = 32767.0;

/// The largest element of a query and of a key: `head_dim` of its squares stay below `2^31`.
pub(crate) fn query_limit(head_dim: usize) -> f32 {
    (i32::MAX as usize / head_dim).isqrt().min(32767) as f32
}

/// Keys and values of a head as integers, filled up with zeros.
#[derive(Default)]
pub(crate) struct Head {
    pub(crate) positions: usize,
    pub(crate) head_dim: usize,
    /// What the integers of keys and of values are multiplied with.
    pub(crate) scales: [f32; 2],
    /// For each group of 16 positions, a lane each, the elements in pairs.
    pub(crate) keys: Vec<Pairs>,
    /// For each pair of positions the elements, a lane each, 16 at a time.
    pub(crate) values: Vec<Pairs>,
}

impl Head {
    /// Groups of 16 positions; an even number, since kernels score two at a time.
    pub(crate) fn groups(&self) -> usize {
        self.positions.div_ceil(2 * LANES) * 2
    }

    /// Groups of 16 elements.
    pub(crate) fn columns(&self) -> usize {
        self.head_dim.div_ceil(LANES)
    }

    /// Pairs of elements.
    pub(crate) fn pairs(&self) -> usize {
        self.columns() * LANES / 2
    }

    fn resize(&mut self, positions: usize, head_dim: usize) {
        (self.positions, self.head_dim) = (positions, head_dim);
        self.keys.resize(self.groups() * self.pairs(), Pairs::ZERO);
        self.values.resize(positions.div_ceil(2) * self.columns(), Pairs::ZERO);
    }
}

/// What a thread keeps between calls.
#[derive(Default)]
struct Scratch {
    head: Head,
    work: Work,
}

/// Room for [`TOGETHER`] queries of a head.
#[derive(Default)]
pub(crate) struct Work {
    scores: Vec<f32>,
    rows: Vec<Row>,
}

impl Work {
    /// For each query: the scores of all groups of positions; behind each other the rows of the queries, of which each has
    /// `columns`, and those of the weights. Scores begin a cache line.
    #[inline(always)]
    pub(crate) fn parts(&mut self, head: &Head) -> (&mut [[f32; LANES]], &mut [Row], &mut [Row]) {
        let (groups, columns) = (head.groups(), head.columns());
        self.scores.resize(TOGETHER * groups * LANES + LANES, 0.0);
        self.rows.resize(TOGETHER * (columns + groups), [0; LANES / 2]);
        let first = self.scores.as_ptr().align_offset(LANES * size_of::<f32>()).min(LANES);
        let scores = self.scores[first..].as_chunks_mut().0;
        let (queries, weights) = self.rows.split_at_mut(TOGETHER * columns);
        (&mut scores[..TOGETHER * groups], queries, weights)
    }
}

thread_local! {
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// Scaled dot-product attention of a whole text in 16-bit integers: `softmax(q . k * scale) . v` for each head and query.
///
/// Shapes are those of [`attention`](super::attention). Within a head of the text all keys have one scale, and all values;
/// a query has its own. A NaN or an infinity makes NaN of what is multiplied with it, be it with a weight of 0.
///
/// # Panics
/// If a slice is too short for `shape`, its mask is not [`Mask::Full`], or the text has more than [`POSITIONS_I16`].
pub fn attention_i16(
    q: &[f32],
    keys: &[f32],
    values: &[f32],
    shape: &AttentionShape,
    out: &mut [f32],
    pool: &dyn Pool,
) {
    with(Isa::active(), q, keys, values, shape, out, pool);
}

/// [`attention_i16`] with an instruction set.
pub(crate) fn with(
    isa: Isa,
    q: &[f32],
    keys: &[f32],
    values: &[f32],
    shape: &AttentionShape,
    out: &mut [f32],
    pool: &dyn Pool,
) {
    let AttentionShape { heads, head_dim, queries, q_stride, kv_stride, mask, .. } = *shape;
    let positions = shape.check(q.len(), keys.len(), values.len(), out.len());
    assert!(
        matches!(mask, Mask::Full { .. }) && positions <= POSITIONS_I16,
        "kernels: attention in integers is of whole texts of at most {POSITIONS_I16} positions"
    );
    if positions == 0 {
        return out.fill(0.0);
    }
    let out = Shared::new(out);
    let pool = if queries * positions * heads * head_dim >= ATTENTION_TASK { pool } else { &SingleThread };
    let parts = (3 * (pool.threads() - 1)).div_ceil(heads).clamp(1, queries.div_ceil(LEAST));
    let groups = queries.div_ceil(TOGETHER);
    pool.run(heads * parts, &|task| {
        let (at, part) = (task / parts * head_dim, task % parts);
        let mut scratch = SCRATCH.take().unwrap_or_default();
        let Scratch { head, work } = &mut *scratch;
        head.resize(positions, head_dim);
        dispatch!(isa, pack_i16(&keys[at..], &values[at..], kv_stride, head));
        for group in part * groups / parts..(part + 1) * groups / parts {
            let first = group * TOGETHER;
            let n = TOGETHER.min(queries - first);
            let mut qs = [&q[..0]; TOGETHER];
            let mut outs: [&mut [f32]; TOGETHER] = from_fn(|_| [].as_mut_slice());
            for (i, query) in (first..first + n).enumerate() {
                qs[i] = &q[query * q_stride + at..][..head_dim];
                // SAFETY: a query of a head belongs to one task, and its part of the row does not overlap those of others.
                outs[i] = unsafe { out.part(query * heads * head_dim + at, head_dim) };
            }
            dispatch!(isa, attend_i16(&qs[..n], head, shape.scale, work, &mut outs[..n]));
        }
        SCRATCH.set(Some(scratch));
    });
}

/// A task has at least so many queries, if there are so many: each makes integers of all keys and values.
const LEAST: usize = 16;

/// The scale of numbers whose largest magnitude has the bits `highest`, and what to multiply them with to get integers up
/// to `limit`.
pub(crate) fn integers(highest: u32, limit: f32) -> (f32, f32) {
    let (scale, inverse) = scale(highest, limit);
    (scale, inverse.unwrap_or(0.0))
}

/// For weights that add up to `sum` and values of a scale: what to multiply the weights with to get integers, and what the sum
/// of integer products. NaN, if the sum is, so that it shows.
pub(crate) fn weight_scales(sum: f32, value_scale: f32) -> (f32, f32) {
    (WEIGHT / sum, if sum.is_nan() { f32::NAN } else { value_scale / WEIGHT })
}
