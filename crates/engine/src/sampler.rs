//! Logits become a token: greedy, or drawn after temperature, top-k, top-p and min-p, with penalties before.
//!
//! The order is Hugging Face's: repetition penalty, n-gram ban, then either the likeliest token or temperature, top-k,
//! top-p, min-p and a draw. Everything here gives the same bits on every target: sums run over a fixed count of lanes,
//! `exp` and `ln` are our own, and the random numbers are integers until the last division.
//!
//! Nothing is allocated per token once the scratch has grown but the alternatives that are answered, and the vocabulary is
//! never sorted as a whole: the likeliest token and the `k` likeliest are looked for in the few groups of logits whose
//! maxima are high enough, and where top-p alone ends, sums of weights by their size say: only tokens about as likely as the
//! last one are sorted. With top-k, the one pass over all logits is the sum that makes a logit a log-probability.

use std::cmp::Ordering;
use std::ops::RangeInclusive;

use crate::error::{Error, Result};
use crate::kernels::{self, exp};
use crate::logits::Row;
use crate::protocol::Settings;

/// A token that was chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawn {
    /// Its id.
    pub id: u32,
    /// Natural logarithm of its probability in the model's own distribution, before penalties and warping.
    pub log_prob: f32,
    /// The likeliest tokens of that same distribution with their `log_prob`, best first, ties by lower id:
    /// [`Settings::alternatives`] of them, fewer where fewer have a probability above 0.
    pub alternatives: Vec<(u32, f32)>,
}

/// Chooses the tokens of one continuation.
///
/// It keeps its place in the stream of random numbers: every draw takes exactly one, so the `n`-th token of a
/// continuation depends on the seed, the sequence's number, `n` and the logits only.
#[derive(Debug)]
pub struct Sampler {
    do_sample: bool,
    temperature: f32,
    top_k: usize,
    top_p: f32,
    min_p: f32,
    repetition_penalty: f32,
    no_repeat_ngram_size: usize,
    alternatives: usize,
    random: Random,
    candidates: Vec<Candidate>,
    /// Of the whole vocabulary, where there is no top-k.
    weights: Vec<f32>,
    changes: Changes,
}

impl Sampler {
    /// A sampler at the start of the random numbers of continuation `sequence` under `settings.seed`.
    #[must_use]
    pub fn new(settings: &Settings, sequence: usize) -> Self {
        Sampler {
            do_sample: settings.do_sample,
            temperature: settings.temperature,
            top_k: settings.top_k,
            top_p: settings.top_p,
            min_p: settings.min_p,
            repetition_penalty: settings.repetition_penalty,
            no_repeat_ngram_size: settings.no_repeat_ngram_size,
            alternatives: settings.alternatives,
            random: Random::new(settings.seed, sequence as u64),
            candidates: Vec::new(),
            weights: Vec::new(),
            changes: Changes::default(),
        }
    }

    /// Chooses the token that follows `context`, which is the prompt and all tokens chosen since.
    ///
    /// `logits`: one per vocabulary entry; `-inf` is a token that never comes. They serve as scratch and are as they
    /// came when this returns. Ids in `context` beyond the vocabulary are passed over.
    /// Where the n-gram ban leaves no token at all, it is lifted for this one step: a text goes on.
    ///
    /// # Errors
    /// [`Error::BrokenLogits`] if a logit is NaN or `+inf`, or if there is none above `-inf`.
    pub fn sample(&mut self, logits: &mut Row<'_>, context: &[u32]) -> Result<Drawn> {
        let distribution = Distribution::of(logits)?;
        let mut alternatives = Vec::new();
        if self.alternatives > 0 {
            likeliest(logits, self.alternatives, &mut self.candidates);
            alternatives.extend(self.candidates.iter().map(|c| (c.id, distribution.log_prob(c.logit))));
        }
        self.changes.penalise(logits, context, self.repetition_penalty);
        self.changes.ban(logits, context, self.no_repeat_ngram_size);
        let id = if self.do_sample { self.draw(logits) } else { argmax(logits) };
        self.changes.undo(logits);
        let log_prob = distribution.log_prob(logits.values()[id as usize]);
        Ok(Drawn { id, log_prob, alternatives })
    }

    /// One draw from the warped distribution. Invariant: some logit is finite and none is NaN or `+inf`.
    fn draw(&mut self, logits: &Row<'_>) -> u32 {
        let kept = &mut self.candidates;
        if self.top_k == 0 {
            self.weights.resize(logits.values().len(), 0.0);
            kernels::weigh(logits.values(), logits.highest(), self.temperature, &mut self.weights);
            nucleus(logits.values(), &self.weights, self.top_p, kept);
        } else {
            likeliest(logits, self.top_k, kept);
            weigh(kept, self.temperature);
            if self.top_p < 1.0 {
                top_p(kept, self.top_p, 1);
            }
        }
        if self.min_p > 0.0 {
            min_p(kept, self.min_p);
        }
        // By id, so that a tiny difference in the logits (a GPU's, say) moves the borders between tokens a little,
        // where in order of likelihood two tokens could change places.
        kept.sort_unstable_by_key(|c| c.id);
        let total: f64 = kept.iter().map(|c| f64::from(c.weight)).sum();
        let target = self.random.uniform() * total;
        let mut sum = 0.0;
        let drawn = kept.iter().find(|c| {
            sum += f64::from(c.weight);
            sum > target
        });
        drawn.expect("the same sum reached `total` above, and `target` is below it: a uniform is below 1").id
    }
}

/// A token that may be drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Its id.
    pub id: u32,
    /// Its logit.
    pub logit: f32,
    /// Its probability but for a common factor; 0 until [`weigh`] sets it.
    pub weight: f32,
}

/// Likelier first; of equals the lower id first.
fn by_likelihood(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.partial_cmp(&a.logit).unwrap_or(Ordering::Equal).then(a.id.cmp(&b.id))
}

/// The likeliest id; of equals the lowest. 0 where nothing is above `-inf`.
#[must_use]
pub fn argmax(logits: &Row<'_>) -> u32 {
    logits.at_least(logits.highest()).map(|(id, _)| id).min().unwrap_or(0)
}

/// Every token above `-inf`, by id, into `out`.
pub fn everything(logits: &[f32], out: &mut Vec<Candidate>) {
    out.clear();
    let above = logits.iter().enumerate().filter(|(_, logit)| **logit > f32::NEG_INFINITY);
    out.extend(above.map(|(id, &logit)| Candidate { id: id as u32, logit, weight: 0.0 }));
}

/// The `k` likeliest tokens above `-inf` into `out`, best first; ties, at the last place too, by lower id.
///
/// Hugging Face's `TopKLogitsWarper` keeps all that tie for the last place; here `k` means at most `k`.
pub fn likeliest(logits: &Row<'_>, k: usize, out: &mut Vec<Candidate>) {
    out.clear();
    if k == 0 {
        return;
    }
    match bar(logits.maxima(), k) {
        Some(bar) => out.extend(logits.at_least(bar).map(|(id, logit)| Candidate { id, logit, weight: 0.0 })),
        None => everything(logits.values(), out),
    }
    if k < out.len() {
        out.select_nth_unstable_by(k - 1, by_likelihood);
        out.truncate(k);
    }
    out.sort_unstable_by(by_likelihood);
}

/// A number that at least `k` of `maxima` reach, and few more; none if `k` is too many for that.
///
/// Every 256th of the maxima is taken together, so that common tokens, which lie side by side in a vocabulary, do not meet;
/// the `k`-th highest of these 256 is the bar.
fn bar(maxima: &[f32], k: usize) -> Option<f32> {
    let mut tops = [f32::NEG_INFINITY; 256];
    for maxima in maxima.chunks(tops.len()) {
        for (top, highest) in tops.iter_mut().zip(maxima) {
            *top = if *highest > *top { *highest } else { *top };
        }
    }
    if k > tops.len() {
        return None;
    }
    let (_, bar, _) = tops.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
    Some(*bar).filter(|bar| *bar > f32::NEG_INFINITY)
}

/// Sets every weight to `exp((logit - highest) / temperature)`: the likeliest weighs 1.
pub fn weigh(candidates: &mut [Candidate], temperature: f32) {
    let highest = candidates.iter().fold(f32::NEG_INFINITY, |m, c| if c.logit > m { c.logit } else { m });
    for c in candidates {
        c.weight = exp((c.logit - highest) / temperature);
    }
}

/// The tokens of a whole vocabulary that [`top_p`] keeps, or all if `p` is 1, by id into `out`; some that weigh nothing may
/// be missing.
///
/// `weights`: of all `logits`, the highest 1. Only those about as likely as the last one that is kept are sorted.
fn nucleus(logits: &[f32], weights: &[f32], p: f32, out: &mut Vec<Candidate>) {
    let token = |id: usize| Candidate { id: id as u32, logit: logits[id], weight: weights[id] };
    out.clear();
    if p >= 1.0 {
        out.extend((0..logits.len()).map(token).filter(|c| c.weight > 0.0));
        return;
    }
    let masses = Masses::of(weights);
    let enough = mass(p, masses.total);
    let (before, steps) = masses.around(enough);
    for (id, weight) in weights.iter().enumerate() {
        if steps.contains(&Masses::step(*weight)) {
            out.push(token(id));
        }
    }
    out.sort_unstable_by(by_likelihood);
    let last = reached(out, before, enough).map(|last| &out[last]).or(out.last());
    let Some(last) = last.copied() else { return };
    out.clear();
    // Which of them weigh enough is asked first: it is what decides for nearly all.
    let least = last.weight * 0.99;
    for (id, weight) in weights.iter().enumerate() {
        if *weight >= least && by_likelihood(&token(id), &last).is_le() {
            out.push(token(id));
        }
    }
}

/// How much weight lies where: the weights in 0..=1, from the heaviest on, in steps of an eighth of their power of two.
struct Masses {
    steps: [f64; Masses::STEPS],
    total: f64,
}

impl Masses {
    const ONE: u32 = 1.0_f32.to_bits();
    /// Bits after an exponent and three more.
    const BITS: u32 = 20;
    const STEPS: usize = (Masses::ONE >> Masses::BITS) as usize + 1;

    fn step(weight: f32) -> usize {
        (Masses::ONE.saturating_sub(weight.to_bits()) >> Masses::BITS) as usize
    }

    fn of(weights: &[f32]) -> Self {
        let mut masses = Masses { steps: [0.0; Masses::STEPS], total: 0.0 };
        for &weight in weights {
            masses.steps[Masses::step(weight)] += f64::from(weight);
            masses.total += f64::from(weight);
        }
        masses
    }

    /// The steps around the one where the mass `enough` is reached, and the mass before them. With a step more on both
    /// sides: `exp` may err in the last place, and then of two weights the likelier token's is not the heavier.
    fn around(&self, enough: f64) -> (f64, RangeInclusive<usize>) {
        let mut mass = 0.0;
        let reached = self.steps.iter().position(|step| {
            mass += step;
            mass >= enough
        });
        let reached = reached.unwrap_or(Masses::STEPS);
        // Steps without a token are as good as none.
        let before = |step: &usize| self.steps[*step] > 0.0;
        let first = (0..reached).rev().find(before).unwrap_or(reached);
        (self.steps[..first].iter().sum(), first..=reached + 1)
    }
}

/// Keeps the fewest likeliest candidates that hold `p` of the whole weight, and at least `least`; leaves them best first.
///
/// "Hold" is meant up to one part in a million, which f32 logits do not resolve: with probabilities 0.5, 0.3, 0.1, 0.1
/// and `p` = 0.8 two are kept, however the sum is rounded.
/// Source: Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration"; Hugging Face's `TopPLogitsWarper`.
pub fn top_p(candidates: &mut Vec<Candidate>, p: f32, least: usize) {
    let total: f64 = candidates.iter().map(|c| f64::from(c.weight)).sum();
    candidates.sort_unstable_by(by_likelihood);
    if let Some(last) = reached(candidates, 0.0, mass(p, total)) {
        candidates.truncate(least.max(last + 1));
    }
}

/// The first of `candidates`, best first, with which `mass` and what they weigh come to `enough`.
fn reached(candidates: &[Candidate], mut mass: f64, enough: f64) -> Option<usize> {
    candidates.iter().position(|c| {
        mass += f64::from(c.weight);
        mass >= enough
    })
}

/// The mass that holds `p` of `total`: see [`top_p`].
fn mass(p: f32, total: f64) -> f64 {
    const ROUNDING: f64 = 1e-6;
    (f64::from(p) - ROUNDING) * total
}

/// Keeps the candidates that weigh at least `p` times as much as the heaviest.
pub fn min_p(candidates: &mut Vec<Candidate>, p: f32) {
    let heaviest = candidates.iter().fold(0.0_f32, |m, c| if c.weight > m { c.weight } else { m });
    candidates.retain(|c| c.weight >= p * heaviest);
}

/// The ids that would complete a run of `n` tokens that `context` already holds; some may come more than once.
///
/// `n` = 1 names every id of `context`, 0 none.
pub fn repeated_ngrams(context: &[u32], n: usize) -> impl Iterator<Item = u32> + '_ {
    let start = if n == 0 { context.len() } else { context.len().saturating_sub(n - 1) };
    let recent = &context[start..];
    context.windows(n.max(1)).filter(move |run| n > 0 && run[..n - 1] == *recent).map(move |run| run[n - 1])
}

/// What penalties and bans did to the logits, so that it can be undone.
#[derive(Debug, Default)]
pub struct Changes {
    /// Ids and their former logits, oldest first.
    log: Vec<(u32, f32)>,
    /// Per id, whether this step's penalty has met it; all false between calls.
    seen: Vec<bool>,
}

impl Changes {
    /// Divides the logits of the ids in `context` by `penalty` where positive and multiplies them where not, each id once.
    ///
    /// Finite logits stay finite. Source: Keskar et al. 2019, "CTRL", 4.1; Hugging Face's
    /// `RepetitionPenaltyLogitsProcessor`.
    pub fn penalise(&mut self, logits: &mut Row<'_>, context: &[u32], penalty: f32) {
        if penalty == 1.0 {
            return;
        }
        self.seen.resize(logits.values().len(), false);
        let first = self.log.len();
        for &id in context {
            let Some(&logit) = logits.values().get(id as usize) else { continue };
            if self.seen[id as usize] || logit == f32::NEG_INFINITY {
                continue;
            }
            self.seen[id as usize] = true;
            self.log.push((id, logit));
            let penalised = if logit > 0.0 { logit / penalty } else { logit * penalty };
            logits.set(id, penalised.clamp(f32::MIN, f32::MAX));
        }
        for &(id, _) in &self.log[first..] {
            self.seen[id as usize] = false;
        }
    }

    /// Sets the logit of every token that would repeat a run of `n` tokens of `context` to `-inf`.
    ///
    /// Where that leaves nothing above `-inf`, it does nothing.
    /// Source: Hugging Face's `NoRepeatNGramLogitsProcessor`.
    pub fn ban(&mut self, logits: &mut Row<'_>, context: &[u32], n: usize) {
        let first = self.log.len();
        for id in repeated_ngrams(context, n) {
            if let Some(&logit) = logits.values().get(id as usize) {
                self.log.push((id, logit));
                logits.set(id, f32::NEG_INFINITY);
            }
        }
        if self.log.len() > first && logits.highest() == f32::NEG_INFINITY {
            self.undo_to(logits, first);
        }
    }

    /// Gives every logit its former value.
    pub fn undo(&mut self, logits: &mut Row<'_>) {
        self.undo_to(logits, 0);
    }

    fn undo_to(&mut self, logits: &mut Row<'_>, first: usize) {
        for (id, logit) in self.log.drain(first..).rev() {
            logits.set(id, logit);
        }
    }
}

/// The model's own distribution: what turns a logit into a log-probability.
struct Distribution {
    highest: f32,
    /// Natural logarithm of the sum of `exp(logit - highest)`.
    log_sum: f64,
}

impl Distribution {
    fn of(logits: &Row<'_>) -> Result<Self> {
        let (highest, logits) = (logits.highest(), logits.values());
        let sum = kernels::sum_exp(logits, highest);
        // A NaN stays one in the sum; so does the difference of two infinities, positive or negative. The sum of nothing is 0.
        if sum.is_nan() || sum == 0.0 {
            let broken = logits.iter().position(|logit| logit.is_nan() || *logit == f32::INFINITY);
            let id = broken.unwrap_or(0);
            return Err(Error::BrokenLogits { id, value: logits.get(id).copied().unwrap_or(f32::NAN) });
        }
        Ok(Distribution { highest, log_sum: ln(sum) })
    }

    fn log_prob(&self, logit: f32) -> f32 {
        ((f64::from(logit) - f64::from(self.highest)) - self.log_sum) as f32
    }
}

/// Natural logarithm of a normal positive number, to within a few units in the last place; the platform's own may differ
/// from target to target.
///
/// `x = m 2^e` with `m` near 1; `ln m = 2 artanh(s)` with `s = (m - 1) / (m + 1)`, `|s| < 0.172`, by its series.
fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let mut e = (bits >> 52) as i32 - 1023;
    let mut m = f64::from_bits((bits & ((1 << 52) - 1)) | (1023 << 52));
    if m > std::f64::consts::SQRT_2 {
        m *= 0.5;
        e += 1;
    }
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let series = (0..11).rev().fold(0.0, |sum, k| sum * z + 1.0 / f64::from(2 * k + 1));
    f64::from(e) * std::f64::consts::LN_2 + 2.0 * s * series
}

/// Seeded random numbers: xoshiro256++, its state filled by SplitMix64.
///
/// Written here rather than taken from a crate, so that no update can change the texts that seeds stand for; the tests
/// pin both algorithms to published values. The starting point is a hash of seed and stream: every pair of them is its
/// own sequence, and neighbouring seeds have nothing in common.
/// Source: Blackman and Vigna 2021, "Scrambled Linear Pseudorandom Number Generators"; Steele et al. 2014, "Fast
/// Splittable Pseudorandom Number Generators".
#[derive(Clone, Debug)]
pub struct Random {
    state: [u64; 4],
}

impl Random {
    /// The start of stream `stream` under `seed`.
    #[must_use]
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut from_seed = SplitMix64(seed);
        let mut from_stream = SplitMix64(from_seed.next() ^ stream);
        let mut filler = SplitMix64(from_stream.next());
        // Four outputs of SplitMix64 in a row differ, so the state is never the all-zero one that xoshiro cannot leave.
        Random { state: std::array::from_fn(|_| filler.next()) }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let shifted = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= shifted;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// A number in `[0, 1)`, a multiple of 2^-53.
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn splitmix64_gives_the_published_values() {
        let mut random = SplitMix64(1_234_567);
        let got: [u64; 5] = std::array::from_fn(|_| random.next());
        let published = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        assert_eq!(got, published);
    }

    #[test]
    fn xoshiro256_plus_plus_gives_the_published_values() {
        let mut random = Random { state: [1, 2, 3, 4] };
        let got: [u64; 6] = std::array::from_fn(|_| random.bits());
        let published = [
            41_943_041,
            58_720_359,
            3_588_806_011_781_223,
            3_591_011_842_654_386,
            9_228_616_714_210_784_205,
            9_973_669_472_204_895_162,
        ];
        assert_eq!(got, published);
    }

    #[test]
    fn ln_agrees_with_the_platform() {
        for x in [1.0, 1.4, 1.42, 1.5, 2.0, 3.0, 10.0, 50_257.0, 1e300, 1e-300, 0.999_999_9] {
            let error = (ln(x) - f64::ln(x)).abs();
            assert!(error <= 4e-16 * f64::ln(x).abs().max(1e-7), "ln({x}): {} is off by {error}", ln(x));
        }
    }
}
