//! Attention in integers, over a cache that grows and over whole texts: its numbers, its layout, and how heads and queries
//! become tasks.
//!
//! Queries, keys, values and the weights of the softmax become 16-bit integers, whose products add up exactly in 32 bits.
//! There an instruction multiplies and adds pairs of them: two to four times as many products as in f32 with each, which
//! rounds after every step. Less is lost than by the 8 bits of the products around it: queries and keys have 12 bits and
//! a half beside their sign (by heads of 64), values 15, and weights too, of [`CHUNK`] positions together.
//! [`scalar::attend_i16`](super::scalar::attend_i16) defines the bits.

use super::attention::{ATTENTION_TASK, AttentionShape, Mask, TOGETHER};
use super::dispatch;
use super::isa::Isa;
use super::pool::{Pool, Shared, SingleThread};
use super::quantised::scale;
use super::scalar::LANES;
use std::cell::Cell;
use std::ops::Range;

/// 16 lanes, in each a pair of numbers: of the same key, or of two positions' values.
pub(crate) type Pairs = [[i16; 2]; LANES];

/// 16 numbers of a query, or weights of 16 positions, in pairs: the first of each is the lower half.
pub(crate) type Row = [i32; LANES / 2];

/// Positions whose weights become integers together: with one scale for hundreds of positions that weigh the same, little
/// would be left of each.
pub(crate) const CHUNK: usize = 64;
/// The largest weight, and about what all weights of a chunk add up to: each is rounded by a half at most, so that their
/// products with values stay below `2^31`.
pub(crate) const WEIGHT: f32 = 32767.0;
/// The largest element of a value.
pub(crate) const VALUE: f32 = 32767.0;

/// The largest element of a query and of a key: `head_dim` of its squares stay below `2^31`.
fn query_limit(head_dim: usize) -> f32 {
    (i32::MAX as usize / head_dim).isqrt().min(32767) as f32
}

/// What the integers of 16 keys and of 16 values are multiplied with, a lane a position.
pub(crate) type Scales = [[f32; LANES]; 2];

/// Keys and values of a layer as integers, each with a scale of its own for each head.
///
/// They lie in tiles of 16 positions of a head: a position's row would scatter a head over the whole cache.
#[derive(Debug, Default)]
pub struct IntegerCache {
    positions: usize,
    /// For each 16 positions a tile a head. In it first keys, elements in pairs, a lane a position; then values, positions in
    /// pairs, a lane an element, 16 at a time. As many of the one as of the other, filled up with zeros.
    ///
    /// The first tile begins a cache line. Not by an alignment of its type: for that glibc takes more and leaves pieces, into
    /// which no such list fits again, and three models of full size took 4 MB more.
    tiles: Vec<[i16; 2]>,
    /// Where it begins.
    first: usize,
    /// Those of each tile.
    scales: Vec<Scales>,
}

/// The most elements of four bytes before a cache line begins.
const BEFORE: usize = LANES - 1;

/// Where in `x`, of elements of four bytes, a cache line begins.
fn line_start<T>(x: &[T]) -> usize {
    x.as_ptr().align_offset(size_of::<Pairs>()).min(BEFORE)
}

impl Clone for IntegerCache {
    /// A copy that begins a cache line, too.
    fn clone(&self) -> Self {
        let Some(kept) = self.tiles.len().checked_sub(BEFORE) else { return Self::default() };
        let mut tiles = vec![[0; 2]; self.tiles.len()];
        let first = line_start(&tiles);
        tiles[first..first + kept].copy_from_slice(&self.tiles[self.first..self.first + kept]);
        Self { positions: self.positions, tiles, first, scales: self.scales.clone() }
    }
}

impl IntegerCache {
    /// How many positions it holds.
    #[must_use]
    pub fn positions(&self) -> usize {
        self.positions
    }

    /// Makes room for so many positions at once, so that a cache which grows is not copied.
    pub fn reserve(&mut self, positions: usize, heads: usize, head_dim: usize) {
        let tiles = groups(positions) * heads;
        let elements = tiles * tile_size(head_dim) * LANES + BEFORE;
        self.tiles.reserve_exact(elements.saturating_sub(self.tiles.len()));
        self.scales.reserve_exact(tiles.saturating_sub(self.scales.len()));
    }

    /// Holds so many positions; of new ones the numbers are not known yet.
    fn resize(&mut self, positions: usize, heads: usize, head_dim: usize) {
        let (held, tiles) = (self.tiles.len().saturating_sub(BEFORE), groups(positions) * heads);
        self.tiles.resize(tiles * tile_size(head_dim) * LANES + BEFORE, [0; 2]);
        let first = line_start(&self.tiles);
        if first != self.first {
            let kept = held.min(self.tiles.len() - BEFORE);
            self.tiles.copy_within(self.first..self.first + kept, first);
            self.first = first;
        }
        self.scales.resize(tiles, [[0.0; LANES]; 2]);
        self.positions = positions;
    }

    /// Whether it is empty or of these heads.
    fn is_of(&self, heads: usize, head_dim: usize) -> bool {
        let tiles = groups(self.positions) * heads;
        self.positions == 0 || self.tiles.len() == tiles * tile_size(head_dim) * LANES + BEFORE
    }

    fn parts(&mut self) -> (Shared<'_, Pairs>, Shared<'_, Scales>) {
        (Shared::new(self.tiles[self.first..].as_chunks_mut().0), Shared::new(&mut self.scales))
    }
}

/// Groups of 16 positions; an even number, since kernels score two at a time.
pub(crate) fn groups(positions: usize) -> usize {
    positions.div_ceil(2 * LANES) * 2
}

/// Pairs of elements in whole groups of 16.
fn pairs(head_dim: usize) -> usize {
    head_dim.div_ceil(LANES) * LANES / 2
}

fn tile_size(head_dim: usize) -> usize {
    2 * pairs(head_dim)
}

/// A head of a cache, which one task has for itself.
pub(crate) struct Head<'a> {
    pub(crate) head_dim: usize,
    /// The largest element of a query and of a key.
    pub(crate) limit: f32,
    tiles: &'a Shared<'a, Pairs>,
    scales: &'a Shared<'a, Scales>,
    /// Which head, of how many.
    at: usize,
    of: usize,
}

impl Head<'_> {
    /// Groups of 16 elements.
    pub(crate) fn columns(&self) -> usize {
        self.head_dim.div_ceil(LANES)
    }

    /// Pairs of elements.
    pub(crate) fn pairs(&self) -> usize {
        pairs(self.head_dim)
    }

    fn tile(&self, group: usize) -> usize {
        group * self.of + self.at
    }

    /// Those of 16 positions.
    pub(crate) fn keys(&self, group: usize) -> &[Pairs] {
        let size = tile_size(self.head_dim);
        // SAFETY: whoever made this promised that nobody else uses the head; who changes it borrows it alone.
        unsafe { self.tiles.part(self.tile(group) * size, size / 2) }
    }

    /// Those of 16 positions.
    pub(crate) fn values(&self, group: usize) -> &[Pairs] {
        let size = tile_size(self.head_dim);
        // SAFETY: as above.
        unsafe { self.tiles.part(self.tile(group) * size + size / 2, size / 2) }
    }

    /// Those of 16 positions.
    pub(crate) fn scales(&self, group: usize) -> &Scales {
        // SAFETY: as above.
        unsafe { &self.scales.part(self.tile(group), 1)[0] }
    }

    /// Keys, values and scales of 16 positions.
    pub(crate) fn tile_mut(&mut self, group: usize) -> (&mut [Pairs], &mut [Pairs], &mut Scales) {
        let size = tile_size(self.head_dim);
        // SAFETY: as above.
        let (tile, scales) = unsafe {
            (self.tiles.part(self.tile(group) * size, size), self.scales.part(self.tile(group), 1))
        };
        let (keys, values) = tile.split_at_mut(size / 2);
        (keys, values, &mut scales[0])
    }
}

/// What a thread keeps between calls.
#[derive(Default)]
struct Scratch {
    /// Of one head of a text.
    cache: IntegerCache,
    work: Work,
}

/// Room for [`TOGETHER`] queries of a head.
#[derive(Default)]
pub(crate) struct Work {
    scores: Vec<f32>,
    rows: Vec<Row>,
    factors: Vec<[f32; TOGETHER]>,
}

/// Parts of a [`Work`], those of a query behind those of the one before.
pub(crate) struct Parts<'a> {
    /// For each query the scores of all groups of positions. They begin a cache line.
    pub(crate) scores: &'a mut [[f32; LANES]],
    /// For each query its `columns`.
    pub(crate) queries: &'a mut [Row],
    /// For each query the weights of all groups.
    pub(crate) weights: &'a mut [Row],
    /// For each chunk of positions, what sums of its weighted values are multiplied with.
    pub(crate) factors: &'a mut [[f32; TOGETHER]],
}

impl Work {
    /// The parts for so many `queries` over so many `groups` of positions.
    #[inline(always)]
    pub(crate) fn parts(&mut self, queries: usize, groups: usize, columns: usize) -> Parts<'_> {
        self.scores.resize(queries * groups * LANES + BEFORE, 0.0);
        self.rows.resize(queries * (columns + groups), [0; LANES / 2]);
        self.factors.resize((groups * LANES).div_ceil(CHUNK), [0.0; TOGETHER]);
        let first = line_start(&self.scores);
        let scores = &mut self.scores[first..].as_chunks_mut().0[..queries * groups];
        let (queries, weights) = self.rows.split_at_mut(queries * columns);
        Parts { scores, queries, weights, factors: &mut self.factors }
    }
}

thread_local! {
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// Scaled dot-product attention of a whole text in 16-bit integers: `softmax(q . k * scale) . v` for each head and query.
///
/// Shapes are those of [`attention`](super::attention). Each query, key and value of a head has a scale of its own. A NaN or an
/// infinity makes NaN of what is multiplied with it, be it with a weight of 0.
///
/// # Panics
/// If a slice is too short for `shape`, or its mask is not [`Mask::Full`].
pub fn attention_i16(
    q: &[f32],
    keys: &[f32],
    values: &[f32],
    shape: &AttentionShape,
    out: &mut [f32],
    pool: &dyn Pool,
) {
    with(Isa::active(), [q, keys, values], shape, None, out, pool);
}

/// [`attention_i16`] over a cache, [`Mask::Causal`]: `keys` and `values` are those of the positions that it lacks, and it takes
/// them first. There may be more of them than queries, which are those of the last positions.
///
/// # Panics
/// If a slice is too short for `shape`, its mask is not [`Mask::Causal`], or the cache is of other heads or of more positions.
pub fn cached_attention_i16(
    q: &[f32],
    keys: &[f32],
    values: &[f32],
    shape: &AttentionShape,
    cache: &mut IntegerCache,
    out: &mut [f32],
    pool: &dyn Pool,
) {
    with(Isa::active(), [q, keys, values], shape, Some(cache), out, pool);
}

/// Both with an instruction set, over a cache or a whole text. `inputs`: queries, keys and values.
pub(crate) fn with(
    isa: Isa,
    inputs: [&[f32]; 3],
    shape: &AttentionShape,
    cache: Option<&mut IntegerCache>,
    out: &mut [f32],
    pool: &dyn Pool,
) {
    let AttentionShape { heads, head_dim, queries, mask, .. } = *shape;
    assert_eq!(
        cache.is_some(),
        matches!(mask, Mask::Causal { .. }),
        "kernels: attention in integers over {mask:?}"
    );
    let old = cache.as_ref().map_or(0, |cache| cache.positions);
    let positions = shape.check(inputs.map(<[f32]>::len), old, out.len());
    assert!(
        cache.as_ref().is_none_or(|cache| cache.is_of(heads, head_dim)),
        "kernels: cache of other heads than {heads} of {head_dim}"
    );
    if positions == 0 {
        return out.fill(0.0);
    }
    let out = Shared::new(out);
    let pool = if queries * positions * heads * head_dim >= ATTENTION_TASK { pool } else { &SingleThread };
    let (new, limit) = (old..positions, query_limit(head_dim));
    let input = Input { isa, inputs, shape, new, out: &out };
    if let Some(cache) = cache {
        cache.resize(positions, heads, head_dim);
        let (tiles, scales) = &cache.parts();
        return pool.run(heads, &|task| {
            let mut scratch = SCRATCH.take().unwrap_or_default();
            let head = Head { head_dim, limit, tiles, scales, at: task, of: heads };
            input.attend(head, task, 0..queries, &mut scratch.work);
            SCRATCH.set(Some(scratch));
        });
    }
    let parts = (3 * (pool.threads() - 1)).div_ceil(heads).clamp(1, queries.div_ceil(LEAST));
    let fours = queries.div_ceil(TOGETHER);
    pool.run(heads * parts, &|task| {
        let part = task % parts;
        let own = part * fours / parts * TOGETHER..queries.min((part + 1) * fours / parts * TOGETHER);
        let mut scratch = SCRATCH.take().unwrap_or_default();
        let Scratch { cache, work } = &mut *scratch;
        cache.resize(positions, 1, head_dim);
        let (tiles, scales) = &cache.parts();
        input.attend(Head { head_dim, limit, tiles, scales, at: 0, of: 1 }, task / parts, own, work);
        SCRATCH.set(Some(scratch));
    });
}

/// What the tasks of an attention share.
struct Input<'a> {
    isa: Isa,
    /// Queries, keys and values.
    inputs: [&'a [f32]; 3],
    shape: &'a AttentionShape,
    /// Positions of the first key and behind the last one.
    new: Range<usize>,
    out: &'a Shared<'a, f32>,
}

impl Input<'_> {
    /// Makes integers of the new positions of a head, the one `at` this place of the rows, and attends for some of its queries.
    /// Nobody else uses `cached`, or attends for these.
    fn attend(&self, mut cached: Head<'_>, at: usize, queries: Range<usize>, work: &mut Work) {
        let AttentionShape { head_dim, kv_stride, scale, .. } = *self.shape;
        let Self { isa, inputs: [q, keys, values], shape, ref new, out } = *self;
        let at = at * head_dim;
        if !new.is_empty() {
            dispatch!(isa, pack_i16(&keys[at..], &values[at..], kv_stride, new.clone(), &mut cached));
        }
        for first in queries.clone().step_by(TOGETHER) {
            let n = TOGETHER.min(queries.end - first);
            // SAFETY: a query of a head belongs to one task.
            let (qs, seen, mut outs) = unsafe { shape.queries::<TOGETHER>(q, at, first..first + n, out) };
            dispatch!(isa, attend_i16(&qs[..n], &cached, scale, &seen[..n], work, &mut outs[..n]));
        }
    }
}

/// A task has at least so many queries, if there are so many: each makes integers of all keys and values.
const LEAST: usize = 16;

/// The scale of numbers whose largest magnitude has the bits `highest`, and what to multiply them with to get integers up
/// to `limit`.
pub(crate) fn integers(highest: u32, limit: f32) -> (f32, f32) {
    let (scale, inverse) = scale(highest, limit);
    (scale, inverse.unwrap_or(0.0))
}
