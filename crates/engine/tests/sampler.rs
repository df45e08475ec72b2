//! The sampler: numbers checked by hand, Hugging Face's and candle's goldens, and relations over random logits.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use inkling_engine::Error;
use inkling_engine::logits::{Logits, Row};
use inkling_engine::protocol::{Parameters, Settings};
use inkling_engine::sampler::{
    Candidate, Changes, Drawn, Random, Sampler, argmax, everything, likeliest, min_p, repeated_ngrams, top_p,
    weigh,
};
use proptest::prelude::*;
use serde_json::Value;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn settings(parameters: Parameters) -> Settings {
    parameters.settings().unwrap()
}

/// Draws from all, at temperature 1.
fn plain(seed: u64) -> Parameters {
    Parameters { seed: Some(seed), top_k: Some(0), ..Parameters::default() }
}

fn greedy() -> Parameters {
    Parameters { do_sample: Some(false), ..Parameters::default() }
}

/// What `then` makes of logits.
fn with_row<R>(logits: &[f32], then: impl FnOnce(&mut Row<'_>) -> R) -> R {
    then(&mut Logits::new(logits.to_vec(), logits.len()).rows_mut().next().unwrap())
}

fn sample(parameters: &Parameters, logits: &[f32], context: &[u32]) -> Drawn {
    let mut sampler = Sampler::new(&settings(parameters.clone()), 0);
    with_row(logits, |logits| sampler.sample(logits, context)).unwrap()
}

/// `n` draws of one sampler from the same logits, with an unchanging context.
fn draws(parameters: &Parameters, logits: &[f32], n: usize) -> Vec<u32> {
    let mut sampler = Sampler::new(&settings(parameters.clone()), 0);
    with_row(logits, |logits| (0..n).map(|_| sampler.sample(logits, &[]).unwrap().id).collect())
}

fn ids(candidates: &[Candidate]) -> Vec<u32> {
    let mut ids: Vec<u32> = candidates.iter().map(|c| c.id).collect();
    ids.sort_unstable();
    ids
}

/// Candidates whose probabilities are these.
fn of_probabilities(probabilities: &[f32]) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    everything(&probabilities.iter().map(|p| p.ln()).collect::<Vec<_>>(), &mut candidates);
    weigh(&mut candidates, 1.0);
    candidates
}

/// Log-softmax in f64 with the platform's functions.
fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| (f64::from(x) - f64::from(highest)).exp()).sum();
    logits.iter().map(|&x| f64::from(x) - f64::from(highest) - sum.ln()).collect()
}

// Numbers checked by hand.

#[test]
fn greedy_takes_the_likeliest_and_of_equals_the_lowest_id() {
    assert_eq!(sample(&greedy(), &[0.0, 3.0, 1.0, 3.0], &[]).id, 1);
    assert_eq!(sample(&greedy(), &[-0.0, 0.0], &[]).id, 0);
}

#[test]
fn log_prob_is_of_the_model_s_own_distribution() {
    let parameters = Parameters {
        temperature: Some(0.1),
        top_k: Some(1),
        repetition_penalty: Some(3.0),
        alternatives: Some(2),
        ..plain(0)
    };
    // Probabilities 1/6, 2/6, 3/6; the penalty moves the choice from id 2 to id 1.
    let logits = [1.0_f32.ln(), 2.0_f32.ln(), 3.0_f32.ln()];
    let drawn = sample(&parameters, &logits, &[2, 2]);
    assert_eq!(drawn.id, 1);
    assert!((drawn.log_prob - (2.0_f32 / 6.0).ln()).abs() < 1e-6, "{drawn:?}");
    let [(2, first), (1, second)] = drawn.alternatives[..] else { panic!("{drawn:?}") };
    assert!((first - 0.5_f32.ln()).abs() < 1e-6 && (second - drawn.log_prob).abs() < 1e-6, "{drawn:?}");
}

#[test]
fn the_logits_come_back_as_they_were() {
    let parameters = Parameters { repetition_penalty: Some(2.0), no_repeat_ngram_size: Some(1), ..plain(1) };
    let before = Logits::new(vec![0.3_f32, -0.7, f32::NEG_INFINITY, 2.0], 4);
    let mut logits = before.clone();
    let mut row = logits.rows_mut().next().unwrap();
    Sampler::new(&settings(parameters), 0).sample(&mut row, &[0, 3, 3, 2, 9]).unwrap();
    assert_eq!(logits, before);
}

#[test]
fn greedy_obeys_penalty_and_ban() {
    let penalty = Parameters { repetition_penalty: Some(2.0), ..greedy() };
    assert_eq!(sample(&penalty, &[1.0, 0.6], &[0, 0]).id, 1);
    let ban = Parameters { no_repeat_ngram_size: Some(2), ..greedy() };
    assert_eq!(sample(&ban, &[0.0, 5.0, 4.0], &[2, 1, 2]).id, 2);
}

#[test]
fn a_ban_of_everything_is_lifted() {
    let ban = Parameters { no_repeat_ngram_size: Some(1), ..greedy() };
    assert_eq!(sample(&ban, &[0.0, 5.0, f32::NEG_INFINITY], &[0, 1]).id, 1);
    let ban = Parameters { no_repeat_ngram_size: Some(1), ..plain(3) };
    assert!(sample(&ban, &[0.0, 5.0, f32::NEG_INFINITY], &[0, 1]).id < 2);
}

#[track_caller]
fn check_broken(logits: &[f32], expected_id: usize) {
    let mut sampler = Sampler::new(&settings(plain(0)), 0);
    let error = with_row(logits, |logits| sampler.sample(logits, &[])).unwrap_err();
    assert!(matches!(error, Error::BrokenLogits { id, .. } if id == expected_id), "{error}");
}

#[test]
fn nan_in_the_logits_is_an_error() {
    check_broken(&[0.0, f32::NAN, 1.0], 1);
    let mut logits = vec![0.0; 40];
    logits[33] = -f32::NAN;
    check_broken(&logits, 33);
}

#[test]
fn infinity_in_the_logits_is_an_error() {
    check_broken(&[0.0, 1.0, f32::INFINITY], 2);
}

#[test]
fn logits_without_any_token_are_an_error() {
    check_broken(&[f32::NEG_INFINITY; 3], 0);
}

#[test]
fn huge_logits_and_tiny_temperatures_stay_sound() {
    let parameters = Parameters { temperature: Some(1e-30), repetition_penalty: Some(1e-9), ..plain(0) };
    assert_eq!(sample(&parameters, &[f32::MIN, 3e38, f32::MAX], &[1, 0]).id, 1);
}

#[test]
fn ties_at_the_last_place_of_top_k_go_to_the_lower_id() {
    for k in [2, 300] {
        let mut logits = vec![-9.0; 1000];
        logits[k..k + 3].fill(1.0);
        logits[..k - 1].fill(2.0);
        let mut kept = Vec::new();
        with_row(&logits, |logits| likeliest(logits, k, &mut kept));
        assert_eq!(ids(&kept), (0..k as u32 - 1).chain([k as u32]).collect::<Vec<_>>());
    }
}

#[test]
fn each_sequence_has_its_own_random_numbers() {
    let start = |seed, stream| Random::new(seed, stream).bits();
    let starts = [start(0, 0), start(0, 1), start(1, 0), start(1, 1), start(u64::MAX, 0)];
    for (i, a) in starts.iter().enumerate() {
        assert!(!starts[i + 1..].contains(a), "{starts:?}");
    }
}

/// The promise to users: a seed's text never changes. Do not edit these numbers to make a change pass. They were
/// computed by a second implementation, in f64, of what the docs say.
#[test]
fn what_a_seed_draws_is_fixed_for_ever() {
    let logits: Vec<f32> = (0..1000).map(|i| (i * 37 % 1000) as f32 / 100.0).collect();
    let got = draws(&plain(42), &logits, 12);
    assert_eq!(got, [916, 700, 426, 726, 914, 405, 618, 291, 53, 421, 76, 945]);
    let warped = Parameters {
        temperature: Some(0.8),
        top_k: Some(50),
        top_p: Some(0.95),
        min_p: Some(0.01),
        ..plain(42)
    };
    assert_eq!(draws(&warped, &logits, 12), [891, 621, 297, 648, 891, 297, 540, 215, 53, 297, 54, 945]);
    let mut second = Sampler::new(&settings(plain(42)), 1);
    let got: Vec<u32> =
        with_row(&logits, |logits| (0..4).map(|_| second.sample(logits, &[]).unwrap().id).collect());
    assert_eq!(got, [214, 459, 161, 242]);
}

#[test]
fn frequencies_follow_the_distribution() {
    // Probabilities 1/15, 2/15, 4/15, 8/15: chi-squared with 3 degrees of freedom is below 16.3 in 999 of 1000 cases.
    let logits: Vec<f32> = (0..4).map(|i| i as f32 * 2.0_f32.ln()).collect();
    let n = 20_000;
    let mut counts = [0.0_f64; 4];
    for id in draws(&plain(7), &logits, n) {
        counts[id as usize] += 1.0;
    }
    let chi_squared: f64 = (0..4)
        .map(|i| {
            let expected = n as f64 * f64::from(1 << i) / 15.0;
            (counts[i] - expected).powi(2) / expected
        })
        .sum();
    assert!(chi_squared < 16.3, "{chi_squared}: {counts:?}");
}

#[test]
fn temperature_sharpens_the_distribution() {
    // Odds of 1:2 at temperature 0.5 are odds of 1:4.
    let parameters = Parameters { temperature: Some(0.5), ..plain(5) };
    let ones = draws(&parameters, &[0.0, 2.0_f32.ln()], 20_000).iter().filter(|id| **id == 1).count();
    assert!((15_800..16_200).contains(&ones), "{ones}");
}

// Goldens of independent implementations.

fn goldens() -> Option<Value> {
    let Some(shared) = std::env::var_os("INKLING_SHARED") else {
        println!("skipped: INKLING_SHARED is not set");
        return None;
    };
    let path = std::path::Path::new(&shared).join("data/golden/sampler_goldens.json");
    Some(serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap())
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn rows(value: &Value) -> Vec<Vec<f32>> {
    value.as_array().unwrap().iter().map(numbers).collect()
}

fn token_ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as u32).collect()
}

fn not_zero(row: &[f32]) -> Vec<u32> {
    (0..row.len() as u32).filter(|i| row[*i as usize] != 0.0).collect()
}

#[test]
fn top_p_agrees_with_hugging_face() {
    let Some(goldens) = goldens() else { return };
    let golden = &goldens["top_p"];
    let p = golden["p"].as_f64().unwrap() as f32;
    for (probabilities, expected) in
        rows(&golden["probs_in"]).iter().zip(rows(&golden["probs_kept_unnormalised"]))
    {
        let mut kept = of_probabilities(probabilities);
        top_p(&mut kept, p, 1);
        assert_eq!(ids(&kept), not_zero(&expected));
    }
    let golden = &goldens["top_p_ramp"];
    let least = golden["min_tokens_to_keep"].as_u64().unwrap() as usize;
    for (logits, count) in rows(&golden["logits"]).iter().zip(token_ids(&golden["kept_count"])) {
        let mut kept = Vec::new();
        everything(logits, &mut kept);
        weigh(&mut kept, 1.0);
        top_p(&mut kept, golden["p"].as_f64().unwrap() as f32, least);
        assert_eq!(kept.len(), count as usize);
    }
}

#[test]
fn top_k_agrees_with_hugging_face() {
    let Some(goldens) = goldens() else { return };
    let golden = &goldens["top_k"];
    for (logits, masked) in rows(&golden["logits"]).iter().zip(rows(&golden["masked"])) {
        let mut kept = Vec::new();
        with_row(logits, |logits| likeliest(logits, golden["k"].as_u64().unwrap() as usize, &mut kept));
        let expected: Vec<f32> = masked.iter().map(|m| 1.0 - m).collect();
        assert_eq!(ids(&kept), not_zero(&expected));
    }
}

#[test]
fn min_p_agrees_with_hugging_face() {
    let Some(goldens) = goldens() else { return };
    let golden = &goldens["min_p"];
    for (probabilities, expected) in
        rows(&golden["probs_in"]).iter().zip(rows(&golden["probs_kept_unnormalised"]))
    {
        let mut kept = of_probabilities(probabilities);
        min_p(&mut kept, golden["p"].as_f64().unwrap() as f32);
        assert_eq!(ids(&kept), not_zero(&expected));
    }
}

#[test]
fn repetition_penalty_agrees_with_hugging_face() {
    let Some(goldens) = goldens() else { return };
    let golden = &goldens["repetition_penalty"];
    let contexts = golden["input_ids"].as_array().unwrap();
    let expected = rows(&golden["expected_logits"]);
    let penalty = golden["penalty"].as_f64().unwrap() as f32;
    for ((context, logits), expected) in contexts.iter().zip(rows(&golden["logits"])).zip(expected) {
        with_row(&logits, |logits| {
            Changes::default().penalise(logits, &token_ids(context), penalty);
            assert_eq!(logits.values(), expected);
        });
    }
}

#[test]
fn no_repeat_ngram_agrees_with_hugging_face() {
    let Some(goldens) = goldens() else { return };
    for golden in goldens["no_repeat_ngram"].as_array().unwrap() {
        let n = golden["n"].as_u64().unwrap() as usize;
        let contexts = golden["input_ids"].as_array().unwrap();
        for (context, expected) in contexts.iter().zip(golden["banned"].as_array().unwrap()) {
            let mut banned: Vec<u32> = repeated_ngrams(&token_ids(context), n).collect();
            banned.sort_unstable();
            banned.dedup();
            assert_eq!(banned, token_ids(expected), "{golden}");
        }
    }
}

/// candle draws with another generator of random numbers, so its tokens are only among those that can come here;
/// where just one can, it is that one.
#[test]
fn candle_s_tokens_are_among_those_that_can_come() {
    let Some(goldens) = goldens() else { return };
    for golden in goldens["candle_LogitsProcessor"].as_array().unwrap() {
        let logits = numbers(&golden["logits_f64"]);
        let mut parameters = plain(golden["seed"].as_u64().unwrap());
        parameters.temperature = golden["temperature"].as_f64().map(|t| t as f32);
        parameters.top_p = golden["top_p"].as_f64().map(|p| p as f32);
        match golden["sampling"].as_str() {
            Some(sampling) => {
                let k = sampling.split("k:").nth(1).and_then(|rest| rest.split(',').next());
                parameters.top_k = Some(k.unwrap().parse().unwrap());
            }
            None => parameters.do_sample = Some(golden["temperature"].is_number()),
        }
        let possible = draws(&parameters, &logits, 500);
        let theirs = token_ids(&golden["tokens"]);
        assert!(theirs.iter().all(|id| possible.contains(id)), "{golden}");
        if parameters.do_sample == Some(false) || parameters.top_k == Some(1) {
            assert!(possible.iter().all(|id| theirs == [*id]), "{golden}");
        }
    }
}

// Relations.

fn logit() -> impl Strategy<Value = f32> {
    prop_oneof![
        6 => -20.0_f32..20.0,
        2 => (-3_i8..3).prop_map(f32::from),
        1 => Just(f32::NEG_INFINITY),
        1 => proptest::num::f32::NORMAL | proptest::num::f32::ZERO | proptest::num::f32::SUBNORMAL,
    ]
}

/// Logits with at least one token that can come.
fn some_logits() -> impl Strategy<Value = Vec<f32>> {
    prop::collection::vec(logit(), 1..600)
        .prop_filter("some token can come", |l| l.iter().any(|x| *x > f32::NEG_INFINITY))
}

fn some_parameters() -> impl Strategy<Value = Parameters> {
    // What is common, and all that may come.
    let temperature = prop_oneof![0.3_f32..2.0, 1e-3_f32..100.0];
    let top_k = prop_oneof![Just(0), 0_usize..700];
    let min_p = prop_oneof![Just(0.0), 0.0_f32..0.1, 0.0_f32..=1.0];
    let numbers = (temperature, top_k, prop_oneof![Just(1.0), 1e-6_f32..=1.0], min_p, 0.01_f32..100.0);
    (any::<u64>(), any::<bool>(), numbers, 0_usize..4, 0_usize..=20).prop_map(
        |(seed, do_sample, (temperature, top_k, top_p, min_p, penalty), ngram, alternatives)| Parameters {
            seed: Some(seed),
            do_sample: Some(do_sample),
            temperature: Some(temperature),
            top_k: Some(top_k),
            top_p: Some(top_p),
            min_p: Some(min_p),
            repetition_penalty: Some(penalty),
            no_repeat_ngram_size: Some(ngram),
            alternatives: Some(alternatives),
            ..Parameters::default()
        },
    )
}

/// Logits of a larger vocabulary without ties, or nearly: squares of uniforms, so that few are high.
fn different_logits() -> impl Strategy<Value = Vec<f32>> {
    (1_usize..9000, 1.0_f32..30.0, any::<u64>()).prop_map(|(n, spread, seed)| {
        let mut random = Random::new(seed, 0);
        (0..n).map(|_| -spread * (1.0 - random.uniform().powi(2)) as f32).collect()
    })
}

/// Logits of a larger vocabulary, which has many ties: 1 to 40 values, in any order.
fn many_logits() -> impl Strategy<Value = Vec<f32>> {
    (prop::collection::vec(logit(), 1..40), 1_usize..9000, any::<u64>())
        .prop_map(|(values, n, seed)| {
            let mut random = Random::new(seed, 0);
            (0..n).map(|_| values[(random.uniform() * values.len() as f64) as usize]).collect()
        })
        .prop_filter("some token can come", |l: &Vec<f32>| l.iter().any(|x| *x > f32::NEG_INFINITY))
}

/// A context that often has what it had before.
fn some_context() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(prop_oneof![0_u32..5, 0_u32..9000], 0..60)
}

// What the sampler is, by plain scans and a sort of the whole vocabulary.

fn plain_likeliest(logits: &[f32], k: usize) -> Vec<Candidate> {
    let mut all = Vec::new();
    everything(logits, &mut all);
    all.sort_by(|a, b| b.logit.partial_cmp(&a.logit).unwrap());
    all.truncate(k);
    all
}

fn plain_argmax(logits: &[f32]) -> u32 {
    (0..logits.len()).fold(0, |best, id| if logits[id] > logits[best] { id } else { best }) as u32
}

fn plainly_changed(settings: &Settings, logits: &[f32], context: &[u32]) -> Vec<f32> {
    let mut changed = logits.to_vec();
    for id in
        (0..logits.len()).filter(|id| context.contains(&(*id as u32)) && logits[*id] > f32::NEG_INFINITY)
    {
        let penalty = settings.repetition_penalty;
        let penalised = if logits[id] > 0.0 { logits[id] / penalty } else { logits[id] * penalty };
        changed[id] = if penalty == 1.0 { logits[id] } else { penalised.clamp(f32::MIN, f32::MAX) };
    }
    let mut banned = changed.clone();
    for id in repeated_ngrams(context, settings.no_repeat_ngram_size) {
        if let Some(logit) = banned.get_mut(id as usize) {
            *logit = f32::NEG_INFINITY;
        }
    }
    if banned.iter().all(|logit| *logit == f32::NEG_INFINITY) { changed } else { banned }
}

fn plain_sample(settings: &Settings, logits: &[f32], context: &[u32]) -> u32 {
    let logits = plainly_changed(settings, logits, context);
    if !settings.do_sample {
        return plain_argmax(&logits);
    }
    let mut kept = Vec::new();
    match settings.top_k {
        0 => everything(&logits, &mut kept),
        k => kept = plain_likeliest(&logits, k),
    }
    weigh(&mut kept, settings.temperature);
    if settings.top_p < 1.0 {
        top_p(&mut kept, settings.top_p, 1);
    }
    min_p(&mut kept, settings.min_p);
    kept.sort_by_key(|c| c.id);
    let target =
        Random::new(settings.seed, 0).uniform() * kept.iter().map(|c| f64::from(c.weight)).sum::<f64>();
    let mut sum = 0.0;
    let drawn = kept.iter().find(|c| {
        sum += f64::from(c.weight);
        sum > target
    });
    drawn.unwrap().id
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_sampler_does_what_plain_scans_do(
        parameters in some_parameters(),
        logits in prop_oneof![some_logits(), many_logits(), different_logits()],
        context in some_context(),
    ) {
        let drawn = sample(&parameters, &logits, &context);
        let settings = settings(parameters);
        prop_assert_eq!(drawn.id, plain_sample(&settings, &logits, &context));
        let alternatives: Vec<u32> = drawn.alternatives.iter().map(|(id, _)| *id).collect();
        let expected: Vec<u32> = plain_likeliest(&logits, settings.alternatives).iter().map(|c| c.id).collect();
        prop_assert_eq!(alternatives, expected);
    }

    #[test]
    fn maxima_stay_those_of_changed_logits(
        parameters in some_parameters(),
        logits in prop_oneof![some_logits(), many_logits(), different_logits()],
        context in some_context(),
        k in 0_usize..700,
    ) {
        let settings = settings(parameters);
        let before = Logits::new(logits.clone(), logits.len());
        let mut after = before.clone();
        let mut changes = Changes::default();
        {
            let mut row = after.rows_mut().next().unwrap();
            changes.penalise(&mut row, &context, settings.repetition_penalty);
            changes.ban(&mut row, &context, settings.no_repeat_ngram_size);
            prop_assert_eq!(argmax(&row), plain_argmax(row.values()));
            let mut kept = Vec::new();
            likeliest(&row, k, &mut kept);
            prop_assert_eq!(kept, plain_likeliest(row.values(), k));
        }
        let changed = plainly_changed(&settings, &logits, &context);
        prop_assert_eq!(&after, &Logits::new(changed, logits.len()));
        changes.undo(&mut after.rows_mut().next().unwrap());
        prop_assert_eq!(after, before);
    }
}

proptest! {
    #[test]
    fn whatever_comes_can_come(
        parameters in some_parameters(), logits in some_logits(), context in prop::collection::vec(0_u32..700, 0..40),
    ) {
        let before = Logits::new(logits.clone(), logits.len());
        let mut after = before.clone();
        let mut sampler = Sampler::new(&settings(parameters.clone()), 0);
        let drawn = sampler.sample(&mut after.rows_mut().next().unwrap(), &context).unwrap();
        prop_assert_eq!(after, before);
        prop_assert!(logits[drawn.id as usize] > f32::NEG_INFINITY);
        prop_assert!(drawn.log_prob <= 1e-6);
        let expected = log_softmax(&logits);
        let close = |id: u32, log_prob: f32| {
            (f64::from(log_prob) - expected[id as usize]).abs() <= 1e-5 * expected[id as usize].abs().max(1.0)
        };
        prop_assert!(close(drawn.id, drawn.log_prob), "{:?} {}", drawn, expected[drawn.id as usize]);
        let possible = logits.iter().filter(|x| **x > f32::NEG_INFINITY).count();
        prop_assert_eq!(drawn.alternatives.len(), parameters.alternatives.unwrap().min(possible));
        prop_assert!(drawn.alternatives.iter().all(|&(id, log_prob)| close(id, log_prob)));
        prop_assert!(drawn.alternatives.windows(2).all(|w| w[0].1 >= w[1].1));
        let first = drawn.alternatives.first();
        prop_assert!(first.is_none_or(|(id, _)| *id == with_row(&logits, |logits| argmax(logits))));
    }

    #[test]
    fn top_k_draws_among_the_k_likeliest(k in 1_usize..400, seed: u64, logits in some_logits()) {
        let parameters = Parameters { top_k: Some(k), ..plain(seed) };
        let mut sorted: Vec<u32> = (0..logits.len() as u32).collect();
        sorted.sort_by(|a, b| logits[*b as usize].partial_cmp(&logits[*a as usize]).unwrap());
        sorted.truncate(k);
        let drawn = draws(&parameters, &logits, 20);
        prop_assert!(drawn.iter().all(|id| sorted.contains(id)), "{drawn:?} {sorted:?}");
    }

    #[test]
    fn top_p_keeps_the_shortest_sorted_prefix(p in 0.01_f32..0.999, logits in some_logits()) {
        let mut kept = Vec::new();
        everything(&logits, &mut kept);
        weigh(&mut kept, 1.0);
        let total: f64 = kept.iter().map(|c| f64::from(c.weight)).sum();
        let mut sorted = kept.clone();
        sorted.sort_by(|a, b| b.logit.partial_cmp(&a.logit).unwrap());
        top_p(&mut kept, p, 1);
        prop_assert_eq!(&kept[..], &sorted[..kept.len()]);
        let mass = |n: usize| kept[..n].iter().map(|c| f64::from(c.weight)).sum::<f64>() / total;
        prop_assert!(mass(kept.len()) >= f64::from(p) - 2e-6);
        prop_assert!(kept.len() == 1 || mass(kept.len() - 1) < f64::from(p));
    }

    #[test]
    fn the_same_seed_draws_the_same(parameters in some_parameters(), logits in some_logits()) {
        prop_assert_eq!(draws(&parameters, &logits, 5), draws(&parameters, &logits, 5));
    }

    #[test]
    fn top_k_of_one_is_greedy(mut parameters in some_parameters(), logits in some_logits(), context: Vec<u8>) {
        let context: Vec<u32> = context.into_iter().map(u32::from).collect();
        parameters.do_sample = Some(true);
        parameters.top_k = Some(1);
        let one = sample(&parameters, &logits, &context);
        parameters.do_sample = Some(false);
        prop_assert_eq!(one, sample(&parameters, &logits, &context));
    }

    #[test]
    fn filters_that_keep_all_change_nothing(seed: u64, logits in some_logits()) {
        let parameters = Parameters {
            top_k: Some(logits.len()),
            repetition_penalty: Some(1.0),
            no_repeat_ngram_size: Some(0),
            ..plain(seed)
        };
        prop_assert_eq!(draws(&parameters, &logits, 10), draws(&plain(seed), &logits, 10));
    }

    #[test]
    fn renaming_the_tokens_renames_the_alternatives(logits in some_logits(), turn in 0_usize..600) {
        let parameters = Parameters { alternatives: Some(20), ..greedy() };
        let n = logits.len();
        let mut turned = logits.clone();
        turned.rotate_left(turn % n);
        let (a, b) = (sample(&parameters, &logits, &[]), sample(&parameters, &turned, &[]));
        prop_assert_eq!(logits[a.id as usize], turned[b.id as usize]);
        for ((id_a, log_prob_a), (id_b, log_prob_b)) in a.alternatives.into_iter().zip(b.alternatives) {
            prop_assert_eq!(logits[id_a as usize], turned[id_b as usize]);
            prop_assert!((log_prob_a - log_prob_b).abs() <= 1e-6 * log_prob_a.abs().max(1.0));
        }
    }

    #[test]
    fn no_run_comes_twice(n in 1_usize..4, seed: u64) {
        let parameters = Parameters { no_repeat_ngram_size: Some(n), ..plain(seed) };
        let mut sampler = Sampler::new(&settings(parameters), 0);
        let mut text: Vec<u32> = Vec::new();
        // 16 ids last longer than 12 steps, whatever n is.
        for _ in 0..12 {
            let id = with_row(&[0.0; 16], |logits| sampler.sample(logits, &text).unwrap().id);
            text.push(id);
        }
        let mut runs: Vec<&[u32]> = text.windows(n).collect();
        runs.sort_unstable();
        prop_assert!(runs.windows(2).all(|pair| pair[0] != pair[1]), "{text:?}");
    }
}
