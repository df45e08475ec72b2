//! Claims about kernels: every instruction set gives the bits of the scalar definition.

use super::attention::{MANY, scratch_size};
use super::attention_i16::CHUNK;
use super::fingerprint::numbers;
use super::matrix::BLOCK;
use super::*;
use proptest::prelude::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[track_caller]
fn same(got: &[f32], expected: &[f32], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (a, b)) in got.iter().zip(expected).enumerate() {
        assert!(
            a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()),
            "{what}: element {i}: {a} instead of {b}"
        );
    }
}

/// Runs `f` with the scalar kernels and with each available instruction set, and compares the bits.
#[track_caller]
fn twins_agree(f: impl Fn(Isa) -> Vec<f32>) {
    let expected = f(Isa::Scalar);
    for isa in Isa::available() {
        same(&f(isa), &expected, &format!("{isa:?}"));
    }
}

/// A pool that runs its tasks last to first, on two threads where there are threads.
struct Two;

impl Pool for Two {
    fn threads(&self) -> usize {
        2
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        let (first, second) =
            (|| (0..tasks / 2).rev().for_each(task), || (tasks / 2..tasks).rev().for_each(task));
        if cfg!(target_arch = "wasm32") {
            second();
            return first();
        }
        std::thread::scope(|scope| {
            scope.spawn(second);
            first();
        });
    }
}

fn product(isa: Isa, matrix: &PackedMatrix, x: &[f32], m: usize, pool: &dyn Pool) -> Vec<f32> {
    let mut out = vec![f32::NAN; m * matrix.rows()];
    let bias = numbers(5, matrix.rows());
    let around = Around { bias: Some(&bias), activation: Activation::GeluTanh, ..Around::default() };
    matrix.product(isa, x, m, &around, &mut out, pool);
    out
}

fn packings() -> impl Strategy<Value = Packing> {
    prop_oneof![
        Just(Packing::Q8),
        Just(Packing::Q4),
        Just(Packing::Q8By(128)),
        Just(Packing::Q8By(384)),
        Just(Packing::Q8By(1024))
    ]
}

/// Columns of so many blocks, or a few more, as many as the packing can have.
fn columns_of(packing: Packing, blocks: usize) -> usize {
    (blocks * BLOCK).next_multiple_of(packing.columns())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn products_agree(packing in packings(), m in 1_usize..36, rows in 1_usize..70, blocks in 1_usize..28, seed: u64) {
        let cols = columns_of(packing, blocks);
        let matrix = PackedMatrix::from_f32_as(packing, rows, cols, &numbers(seed, rows * cols)).unwrap();
        let x = numbers(seed ^ 1, m * cols);
        twins_agree(|isa| product(isa, &matrix, &x, m, &SingleThread));
    }

    #[test]
    fn what_stands_around_a_product_is_one_step_after_the_other(
        packing in packings(), m in 1_usize..20, rows in 1_usize..40, blocks in 1_usize..6, seed: u64, add: bool,
    ) {
        let cols = columns_of(packing, blocks);
        let matrix = PackedMatrix::from_f32_as(packing, rows, cols, &numbers(seed, rows * cols)).unwrap();
        let (x, before) = (numbers(seed ^ 1, m * cols), numbers(seed ^ 2, m * rows));
        let (weight, shift, bias) = (numbers(3, cols), numbers(4, cols), numbers(5, rows));
        let norm = Norm { weight: &weight, bias: &shift, eps: 1e-5 };
        for activation in [Activation::None, Activation::GeluTanh, Activation::GeluErf, Activation::Relu, Activation::Tanh] {
            let around = Around { norm: Some(norm), bias: Some(&bias), activation, add, maxima: false };
            let mut normed = vec![0.0; m * cols];
            for (x, out) in x.chunks(cols).zip(normed.chunks_mut(cols)) {
                normalise(Isa::Scalar, x, norm, out);
            }
            let mut expected = vec![0.0; m * rows];
            matrix.product(Isa::Scalar, &normed, m, &Around::default(), &mut expected, &SingleThread);
            expected.chunks_mut(rows).for_each(|row| super::add(row, &bias));
            activation.apply_with(Isa::Scalar, &mut expected);
            if add {
                super::add(&mut expected, &before);
            }
            for isa in Isa::available() {
                for pool in [&SingleThread as &dyn Pool, &Two] {
                    let mut out = before.clone();
                    matrix.product(isa, &x, m, &around, &mut out, pool);
                    same(&out, &expected, &format!("{isa:?}, {activation:?}"));
                }
            }
        }
    }

    #[test]
    fn maxima_are_the_highest_of_their_groups(n in 0_usize..1200, seed: u64) {
        let x = numbers(seed, n);
        let mut expected = vec![f32::NEG_INFINITY; groups(n)];
        for (group, highest) in expected.iter_mut().enumerate() {
            for member in members(group).filter(|i| *i < n) {
                prop_assert_eq!(group_of(member), group);
                *highest = highest.max(x[member]);
            }
        }
        for isa in Isa::available() {
            let mut found = vec![f32::NAN; groups(n)];
            maxima_with(isa, &x, &mut found);
            same(&found, &expected, &format!("{isa:?}"));
        }
    }

    #[test]
    fn maxima_follow_a_product(packing in packings(), m in 1_usize..10, rows in 1_usize..1200, seed: u64) {
        let cols = packing.columns();
        let matrix = PackedMatrix::from_f32_as(packing, rows, cols, &numbers(seed, rows * cols)).unwrap();
        let x = numbers(seed ^ 1, m * cols);
        for isa in Isa::available() {
            let mut expected = vec![f32::NAN; m * rows];
            matrix.product(isa, &x, m, &Around::default(), &mut expected, &SingleThread);
            for row in 0..m {
                let mut maxima = vec![f32::NAN; groups(rows)];
                maxima_with(isa, &expected[row * rows..][..rows], &mut maxima);
                expected.extend(maxima);
            }
            for pool in [&SingleThread as &dyn Pool, &Two] {
                let mut out = vec![f32::NAN; expected.len()];
                matrix.product(isa, &x, m, &Around { maxima: true, ..Around::default() }, &mut out, pool);
                same(&out, &expected, &format!("{isa:?}"));
            }
        }
    }

    #[test]
    fn extreme_products_agree(packing in packings(), m in 1_usize..20, signs: u64) {
        // Every weight and activation at the end of its range: what saturates, if anything does.
        let sign = |i: usize, n: u32| if signs.rotate_left(n) >> (i % 64) & 1 == 0 { 1.0 } else { -1.0 };
        let cols = 2 * packing.columns();
        let weights: Vec<f32> = (0..16 * cols).map(|i| sign(i, 0)).collect();
        let matrix = PackedMatrix::from_f32_as(packing, 16, cols, &weights).unwrap();
        let x: Vec<f32> = (0..m * cols).map(|i| sign(i, 7)).collect();
        twins_agree(|isa| product(isa, &matrix, &x, m, &SingleThread));
    }

    #[test]
    fn quantised_activations_agree(packing in packings(), spans in 1_usize..9, seed: u64, size in -40_i32..38) {
        let x: Vec<f32> =
            numbers(seed, spans * packing.columns()).iter().map(|x| x * 10_f32.powi(size)).collect();
        twins_agree(|isa| {
            let mut out = vec![Block { scale: f32::NAN, ..Block::ZERO }; x.len() / 32];
            quantise(isa, &x, packing.span(), &mut out, 1);
            out.iter().flat_map(|b| b.q.map(f32::from).into_iter().chain([b.scale, b.excess as f32])).collect()
        });
    }

    #[test]
    fn rotations_agree(spans in 1_usize..9, seed: u64, size in -40_i32..36) {
        let x: Vec<f32> = numbers(seed, spans * 128).iter().map(|x| x * 10_f32.powi(size)).collect();
        let rotated = |isa, x: &[f32]| {
            let mut out = vec![0.0; x.len()];
            rotate(isa, x, &mut out);
            out
        };
        twins_agree(|isa| rotated(isa, &x));
        let length = |x: &[f32]| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let once = rotated(Isa::active(), &x);
        let back = rotated(Isa::active(), &once);
        let far: Vec<f32> = back.iter().zip(&x).map(|(a, b)| a - b).collect();
        let (was, limit) = (length(&x), 1e-6 * length(&x) + 1e-40);
        prop_assert!((length(&once) - was).abs() <= limit, "length {} of {was}", length(&once));
        prop_assert!(length(&far) <= limit, "{} from where it was", length(&far));
    }

    #[test]
    fn activations_agree(n in 0_usize..70, seed: u64) {
        for activation in [Activation::GeluTanh, Activation::GeluErf, Activation::Tanh, Activation::Relu] {
            twins_agree(|isa| {
                let mut x = numbers(seed, n);
                activation.apply_with(isa, &mut x);
                x
            });
        }
    }

    #[test]
    fn any_bits_give_the_same_activation(bits in prop::collection::vec(any::<u32>(), 32)) {
        for activation in [Activation::GeluTanh, Activation::GeluErf, Activation::Tanh] {
            twins_agree(|isa| {
                let mut x: Vec<f32> = bits.iter().map(|b| f32::from_bits(*b)).collect();
                activation.apply_with(isa, &mut x);
                x
            });
        }
    }

    #[test]
    fn layer_norms_agree(n in 1_usize..100, seed: u64) {
        let (x, weight, bias) = (numbers(seed, n), numbers(seed ^ 1, n), numbers(seed ^ 2, n));
        twins_agree(|isa| {
            let mut out = vec![0.0; n];
            dispatch!(isa, layer_norm(&x, &weight, &bias, 1e-5, &mut out));
            out
        });
    }

    #[test]
    fn softmaxes_agree(n in 0_usize..100, seed: u64, spread in 0.01_f32..60.0) {
        let x: Vec<f32> = numbers(seed, n).iter().map(|x| x * spread).collect();
        twins_agree(|isa| {
            let mut x = x.clone();
            let sum = dispatch!(isa, exp_minus_max(&mut x));
            x.push(sum);
            x
        });
    }

    #[test]
    fn weights_agree(n in 0_usize..100, seed: u64, spread in 0.01_f32..60.0, temperature in 0.01_f32..4.0) {
        let mut x: Vec<f32> = numbers(seed, n).iter().map(|x| x * spread).collect();
        if let Some(banned) = x.get_mut(seed as usize % 100) {
            *banned = f32::NEG_INFINITY;
        }
        twins_agree(|isa| {
            let mut out = vec![f32::NAN; n];
            dispatch!(isa, weigh(&x, spread, temperature, &mut out));
            out
        });
    }

    #[test]
    fn sums_over_a_vocabulary_agree(n in 0_usize..100, seed: u64, spread in 0.01_f32..60.0) {
        let x: Vec<f32> = numbers(seed, n).iter().map(|x| x * spread).collect();
        twins_agree(|isa| {
            let highest = dispatch!(isa, highest(&x));
            let sum: f64 = dispatch!(isa, sum_exp(&x, highest));
            // Both halves of the sum's bits, each as an f32 that holds it exactly.
            let bits = sum.to_bits();
            (0..4).map(|i| (bits >> (16 * i) & 0xffff) as f32).chain([highest]).collect()
        });
    }

    #[test]
    fn attentions_agree(
        head_dim in prop_oneof![1_usize..80, Just(32), Just(64)],
        queries in prop_oneof![1_usize..=4, 5_usize..=12, 13_usize..=MANY],
        past in prop_oneof![0_usize..40, 100_usize..200],
        seed: u64,
    ) {
        let (len, kv_stride) = (past + queries, head_dim + seed as usize % 5);
        let (q, keys, values) =
            (numbers(seed, queries * head_dim), numbers(seed ^ 1, len * kv_stride), numbers(seed ^ 2, len * kv_stride));
        for mask in [Mask::Full { len }, Mask::Full { len: past + 1 }, Mask::Causal { past }] {
            let shape = AttentionShape {
                heads: 1, head_dim, queries, q_stride: head_dim, kv_stride, scale: 0.3, mask,
            };
            let qs: Vec<&[f32]> = q.chunks(head_dim).collect();
            let seen: Vec<usize> = (0..queries).map(|i| mask.visible(i)).collect();
            twins_agree(|isa| {
                let mut scratch = vec![f32::NAN; scratch_size(queries, seen[queries - 1], head_dim)];
                let mut out = vec![f32::NAN; queries * head_dim];
                let outs = &mut out.chunks_mut(head_dim).collect::<Vec<_>>();
                dispatch!(isa, attend(&qs, &keys, &values, &shape, &seen, &mut scratch, outs));
                out
            });
        }
    }
}

proptest! {
    #[test]
    fn attentions_in_integers_agree(
        head_dim in prop_oneof![1_usize..80, Just(32), Just(64), Just(128)],
        queries in prop_oneof![1_usize..=9, 10_usize..=70],
        past in prop_oneof![0_usize..40, 100_usize..200],
        size in prop_oneof![Just(1.0), Just(1e-20), Just(1e15), Just(3e37)],
        seed: u64,
    ) {
        let (positions, kv_stride) = (past + queries, head_dim + seed as usize % 5);
        let kept = |seed, n: usize| numbers(seed, n).iter().map(|x| x * size).collect::<Vec<f32>>();
        let (q, keys, values) = (
            numbers(seed, queries * head_dim), kept(seed ^ 1, positions * kv_stride), kept(seed ^ 2, positions * kv_stride),
        );
        for mask in [Mask::Full { len: positions }, Mask::Causal { past }] {
            let shape = AttentionShape {
                heads: 1, head_dim, queries, q_stride: head_dim, kv_stride, scale: 0.3 / size, mask,
            };
            twins_agree(|isa| {
                let mut out = vec![f32::NAN; queries * head_dim];
                let mut cache = IntegerCache::default();
                let cache = matches!(mask, Mask::Causal { .. }).then_some(&mut cache);
                attention_i16::with(isa, [&q, &keys, &values], &shape, cache, &mut out, &SingleThread);
                out
            });
        }
    }
}

/// The seeded shape of the tests below: `queries` after `past` others, `heads` of 20.
fn causal(heads: usize, queries: usize, past: usize) -> AttentionShape {
    let (head_dim, width) = (20, heads * 20);
    AttentionShape {
        heads,
        head_dim,
        queries,
        q_stride: 3 * width,
        kv_stride: 3 * width,
        scale: 0.3,
        mask: Mask::Causal { past },
    }
}

/// However a text is cut, and whatever ran before, on any pool.
#[test]
fn a_cache_of_integers_grows_in_any_pieces() {
    let (heads, positions) = (3, 150);
    let width = heads * 20;
    let qkv = numbers(5, positions * 3 * width);
    let run = |pieces: &[usize], pool: &dyn Pool| {
        let (mut cache, mut outs) = (IntegerCache::default(), Vec::new());
        // Without it the cache moves as it grows.
        if pieces.len() < 100 {
            cache.reserve(positions, heads, 20);
        }
        for &queries in pieces {
            let past = cache.positions();
            let qkv = &qkv[past * 3 * width..];
            let mut out = vec![f32::NAN; queries * width];
            let (keys, values) = (&qkv[width..], &qkv[2 * width..]);
            cached_attention_i16(
                qkv,
                keys,
                values,
                &causal(heads, queries, past),
                &mut cache,
                &mut out,
                pool,
            );
            outs.extend(out);
            // A copy goes on as well.
            cache = cache.clone();
        }
        assert_eq!(cache.positions(), positions);
        outs
    };
    let expected = run(&[positions], &SingleThread);
    same(&run(&[positions], &Two), &expected, "two threads");
    same(&run(&[1; 150], &SingleThread), &expected, "one by one");
    same(&run(&[64, 5, 1, 1, 43, 36], &Two), &expected, "in pieces");

    // The last queries alone, of as many new positions.
    let (mut cache, mut out) = (IntegerCache::default(), vec![f32::NAN; 2 * width]);
    let (keys, values, last) = (&qkv[width..], &qkv[2 * width..], &qkv[148 * 3 * width..]);
    cached_attention_i16(last, keys, values, &causal(heads, 2, 148), &mut cache, &mut out, &SingleThread);
    same(&out, &expected[148 * width..], "the last two");
}

/// Beside the attention in f32, where every position weighs about the same, and where one weighs nearly all.
#[test]
fn an_attention_in_integers_is_near_the_one_in_f32() {
    let (heads, queries, past) = (2, 40, 700);
    let width = heads * 20;
    for (scale, limit) in [(1e-4, 2e-3), (0.02, 1e-3), (1.0, 1e-3)] {
        let shape = AttentionShape { scale, ..causal(heads, queries, past) };
        let qkv = numbers(6, (past + queries) * 3 * width);
        let (q, keys, values) = (&qkv[past * 3 * width..], &qkv[width..], &qkv[2 * width..]);
        let (mut out, mut exact) = (vec![0.0; queries * width], vec![0.0; queries * width]);
        let mut cache = IntegerCache::default();
        cached_attention_i16(q, keys, values, &shape, &mut cache, &mut out, &SingleThread);
        attention(q, keys, values, &shape, &mut exact, &SingleThread);
        let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| x * x).sum::<f32>().sqrt();
        let error = norm(&mut out.iter().zip(&exact).map(|(x, y)| x - y)) / norm(&mut exact.iter().copied());
        assert!(error < limit, "scores times {scale}: {error}");
    }
}

/// The largest numbers that there are everywhere: what adds up in 32 bits stays there.
#[test]
fn integers_of_an_attention_do_not_overflow() {
    for (head_dim, positions) in [(1, 9), (64, 512), (128, 33), (1000, 40)] {
        for sign in [1.0, -1.0] {
            let (q, keys) = (vec![3.0; head_dim], vec![sign * 7.0; positions * head_dim]);
            let shape = AttentionShape {
                heads: 1,
                head_dim,
                queries: 1,
                q_stride: head_dim,
                kv_stride: head_dim,
                scale: 0.01,
                mask: Mask::Full { len: positions },
            };
            twins_agree(|isa| {
                let mut out = vec![0.0; head_dim];
                attention_i16::with(isa, [&q, &keys, &keys], &shape, None, &mut out, &SingleThread);
                // Each weight is rounded by a half at most, of 32767 for a chunk.
                let error = 7.0 * positions.min(CHUNK) as f32 * 0.5 / 32767.0;
                assert!(out.iter().all(|x| (x - sign * 7.0).abs() <= error + 1e-4), "{head_dim}: {out:?}");
                out
            });
        }
    }
}

/// Of a query only what it is multiplied with; of a key or a value what sees it, and none of what comes before it.
#[test]
fn a_number_that_is_none_shows_in_an_attention_in_integers() {
    let (queries, head_dim, positions) = (7, 20, 7);
    for mask in [Mask::Full { len: positions }, Mask::Causal { past: 0 }] {
        let shape = AttentionShape {
            heads: 1,
            head_dim,
            queries,
            q_stride: head_dim,
            kv_stride: head_dim,
            scale: 0.3,
            mask,
        };
        for (bad, place) in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY]
            .into_iter()
            .flat_map(|bad| [0, 1, 2].map(|place| (bad, place)))
        {
            let mut inputs = [queries, positions, positions].map(|rows| numbers(1, rows * head_dim));
            inputs[place][3 * head_dim + 19] = bad;
            let [q, keys, values] = &inputs;
            twins_agree(|isa| {
                let mut out = vec![0.0; queries * head_dim];
                let mut cache = IntegerCache::default();
                let cache = matches!(mask, Mask::Causal { .. }).then_some(&mut cache);
                attention_i16::with(isa, [q, keys, values], &shape, cache, &mut out, &SingleThread);
                for (query, out) in out.chunks(head_dim).enumerate() {
                    let shows = if place == 0 { query == 3 } else { mask.visible(query) > 3 };
                    assert!(
                        out.iter().all(|x| x.is_nan() == shows),
                        "{bad} in {place}, query {query}, {mask:?}: {out:?}"
                    );
                }
                out
            });
        }
    }
}

#[test]
fn a_product_is_the_same_on_any_pool_and_in_any_batch() {
    let (rows, cols, m) = (1000, 256, 21);
    let matrix = PackedMatrix::from_f32(rows, cols, &numbers(3, rows * cols)).unwrap();
    let x = numbers(4, m * cols);
    let isa = Isa::active();
    let expected = product(isa, &matrix, &x, m, &SingleThread);
    same(&product(isa, &matrix, &x, m, &Two), &expected, "two threads");
    for (i, x) in x.chunks(cols).enumerate() {
        same(&product(isa, &matrix, x, 1, &Two), &expected[i * rows..(i + 1) * rows], "one row");
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_product_is_the_same_in_streams() {
    if !Isa::available().contains(&Isa::Avx2) {
        return;
    }
    // Ten panels: twice four side by side, and two.
    let (rows, cols) = (150, 1536);
    for packing in [Packing::Q8, Packing::Q8By(128), Packing::Q8By(768)] {
        let matrix = PackedMatrix::from_f32_as(packing, rows, cols, &numbers(1, rows * cols)).unwrap();
        let (x, around) = (numbers(2, cols), Around::default());
        let mut expected = vec![0.0; rows];
        matrix.product(Isa::Scalar, &x, 1, &around, &mut expected, &SingleThread);
        Quantised::with(Isa::Avx2, &x, 1, packing, None, &SingleThread, |x| {
            for streams in [false, true] {
                let (mut out, panels) = (vec![0.0; rows], 0..rows.div_ceil(PANEL));
                // SAFETY: AVX2 is there, and nobody else has `out`.
                unsafe {
                    crate::avx2::matmul_in(streams, &matrix, x, panels, &around, &Shared::new(&mut out))
                };
                same(&out, &expected, if streams { "streams" } else { "one panel after the other" });
            }
        });
    }
}

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
#[test]
fn a_product_is_the_same_in_one_stream() {
    let (rows, cols) = (150, 1536);
    for packing in [Packing::Q4, Packing::Q8, Packing::Q8By(128), Packing::Q8By(768)] {
        let matrix = PackedMatrix::from_f32_as(packing, rows, cols, &numbers(1, rows * cols)).unwrap();
        for several in [false, true] {
            simd128::streams::force(several);
            twins_agree(|isa| product(isa, &matrix, &numbers(2, cols), 1, &SingleThread));
        }
    }
}

/// What the standard promises is there, so the tests above are of these too; of the two full 8-bit forms an engine has one
/// or none.
/// Who emulates a processor says in `INKLING_BEST_ISA` which one it is, so that no kernel goes untested unnoticed.
#[cfg(not(target_arch = "wasm32"))]
#[test]
fn the_best_instruction_set_is_the_one_that_an_emulator_promises() {
    if let Ok(promised) = std::env::var("INKLING_BEST_ISA") {
        assert_eq!(Isa::available().last().map(|isa| format!("{isa:?}")), Some(promised));
    }
}

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
#[test]
fn an_engine_has_every_instruction_set_that_its_standard_promises() {
    let available = Isa::available();
    assert!(available.contains(&Isa::Simd128), "{available:?}");
    #[cfg(target_feature = "relaxed-simd")]
    assert!(available.contains(&Isa::RelaxedSimd), "{available:?}");
}

#[test]
fn bits_are_those_of_every_other_target() {
    // The other tests do not mind which instruction set is forced meanwhile: that is what they say.
    for isa in Isa::available() {
        Isa::force(Some(isa));
        assert_eq!(fingerprint(), FINGERPRINT, "{isa:?}: {:#x}", fingerprint());
        for (packing, expected) in FINGERPRINTS {
            let found = fingerprint_of(packing);
            assert_eq!(found, expected, "{isa:?}, {packing:?}: {found:#x}");
        }
    }
    Isa::force(None);
}

/// How far a product with 48 rows of 768 weights is from the exact one, relative to it.
fn relative_error(packing: Packing, w: &[f32], x: &[f32]) -> f64 {
    let (rows, cols) = (48, 768);
    let matrix = PackedMatrix::from_f32_as(packing, rows, cols, w).unwrap();
    let mut out = vec![0.0; rows];
    matrix.matmul(x, None, &mut out, &SingleThread);
    let (mut error, mut size) = (0.0, 0.0);
    for (w, out) in w.chunks(cols).zip(out) {
        let exact: f64 = w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
        error += (f64::from(out) - exact).powi(2);
        size += exact.powi(2);
    }
    (error / size).sqrt()
}

#[test]
fn a_product_is_near_the_f32_one() {
    let (w, x) = (numbers(3, 48 * 768), numbers(4, 768));
    for (packing, limit) in
        [(Packing::Q8, 0.02), (Packing::Q8By(128), 0.01), (Packing::Q8By(768), 0.013), (Packing::Q4, 0.15)]
    {
        let error = relative_error(packing, &w, &x);
        assert!(error < limit, "{packing:?}: relative error {error}");
    }
}

#[test]
fn large_activations_leave_the_others_their_bits() {
    // A hundred times as large, in a channel whose weights are as much smaller: what trained models have.
    let (mut w, mut x) = (numbers(3, 48 * 768), numbers(4, 768));
    for i in [5, 300, 601] {
        x[i] = 100.0;
        w.iter_mut().skip(i).step_by(768).for_each(|w| *w /= 100.0);
    }
    let plain = relative_error(Packing::Q8, &w, &x);
    for packing in [Packing::Q8By(128), Packing::Q8By(768)] {
        let rotated = relative_error(packing, &w, &x);
        assert!(rotated < plain, "{packing:?}: {rotated}, with finer scales but not rotated {plain}");
    }
}

/// 32 numbers as the weights of one row, in and out of 4 bits.
fn through_q4(weights: &[f32; 32]) -> [f32; 32] {
    let mut out = [0.0; 32];
    PackedMatrix::from_f32_as(Packing::Q4, 1, 32, weights).unwrap().row(0, &mut out);
    out
}

#[test]
fn what_four_bits_can_hold_is_kept() {
    // The sign of the largest magnitude is the scale's, and no other scale explains all 32.
    for (sign, highest) in [(1.0, 8), (-1.0, 8), (1.0, 7), (-1.0, 7)] {
        let weights = std::array::from_fn(|k| (k as i32 % (8 + highest) - highest) as f32 * 0.25 * sign);
        assert_eq!(through_q4(&weights), weights);
    }
    assert_eq!(through_q4(&[0.0; 32]), [0.0; 32]);
    assert_eq!(through_q4(&[1e-9; 32]), [0.0; 32]);
}

#[test]
fn the_scale_of_four_bits_loses_less_than_that_of_gguf() {
    let weights = numbers(11, 32 * 1000);
    let (mut error, mut error_gguf) = (0.0, 0.0);
    for weights in weights.as_chunks::<32>().0 {
        let square = |kept: [f32; 32]| {
            weights.iter().zip(kept).map(|(w, kept)| f64::from(w - kept).powi(2)).sum::<f64>()
        };
        let largest = weights.iter().fold(0.0_f32, |m, w| if w.abs() > m.abs() { *w } else { m });
        let d = f16::f32_from_f16(f16::f16_from_f32(largest.abs() / 8.0)).copysign(-largest);
        error += square(through_q4(weights));
        error_gguf += square(weights.map(|w| (w / d).round().clamp(-8.0, 7.0) * d));
    }
    assert!(error < 0.95 * error_gguf, "{error} and {error_gguf}");
}

#[test]
fn a_product_with_ones_is_checkable_by_hand() {
    let mut builder = PackedMatrixBuilder::new(2, 64);
    builder.set_row_f32(0, &[1.0; 64]).unwrap();
    // d = 127 / 127 = 1, so the weights are themselves.
    let counted: Vec<f32> = (0..64).map(|k| if k % 32 == 0 { 127.0 } else { k as f32 }).collect();
    builder.set_row_f32(1, &counted).unwrap();
    let matrix = builder.finish();
    let mut out = [0.0; 2];
    matrix.matmul(&[127.0; 64], Some(&[0.5, -1.0]), &mut out, &SingleThread);
    let scale_of_one = 127.0 * f32::from(127_i8) * 32.0 * f16::f32_from_f16(0x2008);
    assert_eq!(out, [2.0 * scale_of_one + 0.5, 127.0 * counted.iter().sum::<f32>() - 1.0]);
}

#[test]
fn a_stack_has_the_rows_of_its_parts() {
    let cols = 64;
    let weights = numbers(3, 37 * cols);
    let whole = PackedMatrix::from_f32(37, cols, &weights).unwrap();
    let part = |rows: Range<usize>| {
        PackedMatrix::from_f32(rows.len(), cols, &weights[rows.start * cols..rows.end * cols]).unwrap()
    };
    let stacked = PackedMatrix::stack(vec![part(0..16), part(16..32), part(32..37)]);
    let x = numbers(4, 3 * cols);
    same(
        &product(Isa::active(), &stacked, &x, 3, &SingleThread),
        &product(Isa::active(), &whole, &x, 3, &SingleThread),
        "stacked",
    );
}

#[track_caller]
fn check_transposed(packing: Packing) {
    let (rows, cols) = (37, 3 * packing.columns());
    let weights = numbers(9, rows * cols);
    let matrix = PackedMatrix::from_f32_as(packing, rows, cols, &weights).unwrap();
    let mut builder = PackedMatrixBuilder::with_packing(packing, rows, cols);
    let transposed: Vec<f32> = (0..rows * cols).map(|i| weights[(i % rows) * cols + i / rows]).collect();
    for (strip, slab) in transposed.chunks(packing.columns() * rows).enumerate() {
        builder.set_columns_f32(strip, slab).unwrap();
    }
    let other = builder.finish();
    let (mut a, mut b) = (vec![0.0; cols], vec![0.0; cols]);
    for row in 0..rows {
        matrix.row(row, &mut a);
        other.row(row, &mut b);
        same(&b, &a, "row");
    }
}

#[test]
fn quantising_a_transposed_matrix_is_the_same() {
    check_transposed(Packing::Q8);
    check_transposed(Packing::Q8By(128));
    check_transposed(Packing::Q8By(768));
    check_transposed(Packing::Q4);
}

#[test]
fn foreign_blocks_keep_their_values() {
    let mut builder = PackedMatrixBuilder::new(1, 32);
    let q: [i8; 32] = std::array::from_fn(|k| (k as i8 - 16) * 7);
    // -0.5 as f16: the sign moves to the weights.
    builder.set_block(0, 0, 0xb800, &q).unwrap();
    let mut row = [0.0; 32];
    builder.finish().row(0, &mut row);
    assert_eq!(row, q.map(|q| f32::from(q) * -0.5));
    let mut builder = PackedMatrixBuilder::with_packing(Packing::Q4, 1, 32);
    let q: [i8; 32] = std::array::from_fn(|k| k as i8 % 16 - 8);
    builder.set_block(0, 0, 0xb800, &q).unwrap();
    builder.finish().row(0, &mut row);
    assert_eq!(row, q.map(|q| f32::from(q) * -0.5));
}

#[test]
fn weights_that_are_no_numbers_are_refused() {
    let mut builder = PackedMatrixBuilder::new(3, 64);
    let mut row = [0.0; 64];
    row[40] = f32::NAN;
    assert_eq!(builder.set_row_f32(2, &row), Err(NotFinite { row: 2, block: 1 }));
    assert_eq!(builder.set_block(1, 0, 0x7c00, &[0; 32]), Err(NotFinite { row: 1, block: 0 }));
    let mut builder = PackedMatrixBuilder::with_packing(Packing::Q4, 3, 64);
    assert_eq!(builder.set_row_f32(2, &row), Err(NotFinite { row: 2, block: 1 }));
    let mut builder_by_128 = PackedMatrixBuilder::with_packing(Packing::Q8By(128), 3, 256);
    let mut wide = [0.0; 256];
    wide[170] = f32::INFINITY;
    assert_eq!(builder_by_128.set_row_f32(2, &wide), Err(NotFinite { row: 2, block: 5 }));
    let columns: Vec<f32> = (0..3 * 128).map(|i| if i == 3 * 42 + 1 { f32::NAN } else { 1.0 }).collect();
    assert_eq!(builder_by_128.set_columns_f32(1, &columns), Err(NotFinite { row: 1, block: 5 }));
    let column: Vec<f32> = (0..3 * 32).map(|i| if i == 7 { f32::INFINITY } else { 1.0 }).collect();
    assert_eq!(builder.set_columns_f32(1, &column), Err(NotFinite { row: 1, block: 1 }));
    assert_eq!(builder.set_block(1, 0, 0xfc00, &[0; 32]), Err(NotFinite { row: 1, block: 0 }));
    assert_eq!(
        NotFinite { row: 2, block: 1 }.to_string(),
        "weights: a number in row 2, columns 32 to 63, is infinite or not a number"
    );
}

#[test]
fn the_largest_weights_that_are_numbers_are_no_error() {
    let mut builder = PackedMatrixBuilder::with_packing(Packing::Q8By(128), 3, 128);
    builder.set_row_f32(0, &[f32::MAX; 128]).unwrap();
    builder.set_row_f32(1, &[f32::MIN; 128]).unwrap();
    let mut by_columns = PackedMatrixBuilder::with_packing(Packing::Q8By(128), 3, 128);
    by_columns.set_columns_f32(0, &[f32::MAX, f32::MIN, 0.0].repeat(128)).unwrap();
    for matrix in [builder.finish(), by_columns.finish()] {
        for (row, sign) in [1.0, -1.0, 0.0].into_iter().enumerate() {
            let mut out = [f32::NAN; 128];
            matrix.row(row, &mut out);
            assert!(out.iter().all(|w| w.is_finite() && (w * sign > 1e6 || sign == 0.0)), "{out:?}");
        }
    }
}

#[test]
fn activations_that_are_no_numbers_show_in_the_output() {
    for packing in [Packing::Q8, Packing::Q8By(128), Packing::Q8By(768)] {
        let cols = 2 * packing.columns();
        let matrix = PackedMatrix::from_f32_as(packing, 5, cols, &numbers(1, 5 * cols)).unwrap();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = numbers(2, cols);
            x[33] = bad;
            twins_agree(|isa| product(isa, &matrix, &x, 1, &SingleThread));
            assert!(product(Isa::active(), &matrix, &x, 1, &SingleThread).iter().all(|y| y.is_nan()));
        }
    }
}

#[test]
fn f16_scales_round_trip() {
    for bits in 0..0x7c00 {
        assert_eq!(f16::f16_from_f32(f16::f32_from_f16(bits)), bits);
        assert_eq!(f16::f32_from_f16(bits | 0x8000), -f16::f32_from_f16(bits));
    }
    // Halfway between two f16: to the even one; above the largest: the largest.
    assert_eq!(f16::f16_from_f32(1.0 + 1.0 / 2048.0), 0x3c00);
    assert_eq!(f16::f16_from_f32(1.0 + 3.0 / 2048.0), 0x3c02);
    assert_eq!(f16::f16_from_f32(1e9), 0x7bff);
}

#[test]
fn every_number_of_16_bits_has_its_value() {
    let all: Vec<[u8; 2]> = (0..=u16::MAX).map(u16::to_le_bytes).collect();
    // By the formats' definitions: a sign, 5 or 8 bits of exponent, the rest a fraction.
    let value = |bits: u16, fraction_bits: i32, bias: i32| {
        let highest = (1_i32 << (15 - fraction_bits)) - 1;
        let exponent = i32::from(bits & 0x7fff) >> fraction_bits;
        let fraction =
            f64::from(i32::from(bits) & ((1 << fraction_bits) - 1)) / f64::from(1 << fraction_bits);
        let magnitude = match exponent {
            0 => fraction * 2_f64.powi(1 - bias),
            _ if exponent < highest => (1.0 + fraction) * 2_f64.powi(exponent - bias),
            _ if fraction == 0.0 => f64::INFINITY,
            _ => f64::NAN,
        };
        magnitude.copysign(if bits < 0x8000 { 1.0 } else { -1.0 })
    };
    for (got, fraction_bits, bias) in [(f16_to_f32(&all), 10, 15), (bf16_to_f32(&all), 7, 127)] {
        assert_eq!(got.len(), all.len());
        for (bits, got) in (0..=u16::MAX).zip(got) {
            let expected = value(bits, fraction_bits, bias);
            let same = got.to_bits() == (expected as f32).to_bits() || got.is_nan() && expected.is_nan();
            assert!(same, "{bits:#x}: {got}, expected {expected}");
        }
    }
}

/// The largest distance of `f` from `exact` in units in the last place of the exact value, on a fine grid.
fn worst(f: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64, from: f32, to: f32) -> f64 {
    let n = 400_000;
    (0..=n)
        .map(|i| {
            let x = from + (to - from) * i as f32 / n as f32;
            let exact = exact(f64::from(x));
            let ulp =
                f64::from(f32::EPSILON) * 2_f64.powi(exact.abs().log2().floor() as i32).max(2_f64.powi(-126));
            if exact == 0.0 { f64::from(f(x)).abs() } else { (f64::from(f(x)) - exact).abs() / ulp }
        })
        .fold(0.0, f64::max)
}

/// `erf` in f64 by its Taylor series, which suffices for `|x| <= 4`.
fn exact_erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..120 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

#[test]
fn functions_are_as_near_as_they_say() {
    for (name, got, limit) in [
        ("exp", worst(exp, f64::exp, -87.0, 88.5), 1.0),
        ("tanh", worst(tanh, f64::tanh, -10.0, 10.0), 5.5),
        ("erf", worst(erf, exact_erf, -4.0, 4.0), 6.5),
    ] {
        eprintln!("{name}: {got}");
        assert!(got <= limit, "{name}: {got} units in the last place");
    }
}

#[test]
fn functions_hold_at_their_ends() {
    assert_eq!(exp(0.0), 1.0);
    assert_eq!((exp(-200.0), exp(f32::NEG_INFINITY)), (0.0, 0.0));
    assert_eq!((exp(200.0), exp(f32::INFINITY)), (f32::INFINITY, f32::INFINITY));
    assert_eq!((tanh(50.0), tanh(f32::NEG_INFINITY), tanh(0.0)), (1.0, -1.0, 0.0));
    assert_eq!((erf(50.0), erf(f32::NEG_INFINITY), erf(0.0)), (1.0, -1.0, 0.0));
    assert!(exp(f32::NAN).is_nan() && tanh(f32::NAN).is_nan() && erf(f32::NAN).is_nan());
}

#[test]
fn relu_keeps_what_is_not_below_zero() {
    let x = [f32::NAN, -0.0, 0.0, -1.0, 2.5, f32::INFINITY, f32::NEG_INFINITY, f32::MIN_POSITIVE];
    let kept = [f32::NAN, -0.0, 0.0, 0.0, 2.5, f32::INFINITY, 0.0, f32::MIN_POSITIVE];
    // Twice, so that a vectorised loop has whole registers of it.
    let (mut got, expected) = ([x, x].concat(), [kept, kept].concat());
    relu(&mut got);
    same(&got, &expected, "relu");
}

#[test]
fn attention_is_the_textbook_formula() {
    let (heads, head_dim, queries, past) = (3, 16, 5, 4);
    let (width, positions) = (heads * head_dim, past + queries);
    let (q, keys, values) =
        (numbers(1, queries * width), numbers(2, positions * width), numbers(3, positions * width));
    for mask in [Mask::Causal { past }, Mask::Full { len: 6 }] {
        let shape =
            AttentionShape { heads, head_dim, queries, q_stride: width, kv_stride: width, scale: 0.25, mask };
        let mut out = vec![f32::NAN; queries * width];
        attention(&q, &keys, &values, &shape, &mut out, &Two);
        for (i, out) in out.iter().enumerate() {
            let (query, head, at) = (i / width, i % width / head_dim, i % width);
            let visible = if let Mask::Full { len } = mask { len } else { past + query + 1 };
            let weight = |p: usize| {
                let dot: f64 = (0..head_dim)
                    .map(|d| {
                        f64::from(q[query * width + head * head_dim + d])
                            * f64::from(keys[p * width + head * head_dim + d])
                    })
                    .sum();
                (dot * 0.25).exp()
            };
            let sum: f64 = (0..visible).map(weight).sum();
            let exact: f64 = (0..visible).map(|p| weight(p) / sum * f64::from(values[p * width + at])).sum();
            assert!((f64::from(*out) - exact).abs() < 1e-5, "{mask:?}, element {i}: {out}, exactly {exact}");
        }
    }
}

type Attention = fn(&[f32], &[f32], &[f32], &AttentionShape, &mut [f32], &dyn Pool);

/// In integers: as near as 12 bits of queries and keys, and 15 of weights and values, allow.
#[test]
fn attention_in_integers_is_near_the_exact_one_and_the_same_on_any_pool() {
    for (heads, head_dim, positions) in [(3, 16, 5), (2, 20, 37), (12, 64, 200)] {
        let width = heads * head_dim;
        let qkv = numbers(1, positions * 3 * width);
        let shape = AttentionShape {
            heads,
            head_dim,
            queries: positions,
            q_stride: 3 * width,
            kv_stride: 3 * width,
            // These numbers are of size 2: scores as wide as of numbers of size 1.
            scale: 0.25 / (head_dim as f32).sqrt(),
            mask: Mask::Full { len: positions },
        };
        let run = |attention: Attention, pool: &dyn Pool| {
            let mut out = vec![f32::NAN; positions * width];
            attention(&qkv, &qkv[width..], &qkv[2 * width..], &shape, &mut out, pool);
            out
        };
        let (got, exact) = (run(attention_i16, &SingleThread), run(attention, &SingleThread));
        same(&run(attention_i16, &Two), &got, "two threads");
        let rms = |x: &mut dyn Iterator<Item = f32>| {
            (x.map(|x| f64::from(x * x)).sum::<f64>() / got.len() as f64).sqrt()
        };
        let (error, size) =
            (rms(&mut got.iter().zip(&exact).map(|(a, b)| a - b)), rms(&mut exact.iter().copied()));
        assert!(error < 1e-3 * size, "{heads} x {head_dim}: error {error} of {size}");
    }
}

#[test]
fn attention_is_the_same_on_any_pool_and_in_one_or_many_steps() {
    let (heads, head_dim, positions) = (4, 32, MANY + 70);
    let width = heads * head_dim;
    let qkv = numbers(1, positions * 3 * width);
    let shape = |past: usize, queries: usize| AttentionShape {
        heads,
        head_dim,
        queries,
        q_stride: 3 * width,
        kv_stride: 3 * width,
        scale: 0.2,
        mask: Mask::Causal { past },
    };
    let run = |past: usize, queries: usize, pool: &dyn Pool| {
        let mut out = vec![0.0; queries * width];
        attention(
            &qkv[past * 3 * width..],
            &qkv[width..],
            &qkv[2 * width..],
            &shape(past, queries),
            &mut out,
            pool,
        );
        out
    };
    let expected = run(0, positions, &SingleThread);
    same(&run(0, positions, &Two), &expected, "two threads");
    for position in 0..positions {
        same(
            &run(position, 1, &SingleThread),
            &expected[position * width..(position + 1) * width],
            "one query",
        );
    }
}

#[test]
fn a_query_that_sees_nothing_gives_zeros() {
    let shape = AttentionShape {
        heads: 2,
        head_dim: 16,
        queries: 1,
        q_stride: 32,
        kv_stride: 32,
        scale: 1.0,
        mask: Mask::Full { len: 0 },
    };
    let mut out = [f32::NAN; 32];
    attention(&[1.0; 32], &[], &[], &shape, &mut out, &SingleThread);
    assert_eq!(out, [0.0; 32]);
}

#[test]
fn layer_norm_is_checkable_by_hand() {
    // Mean 2.5, variance 1.25.
    let mut out = [0.0; 4];
    layer_norm(&[1.0, 2.0, 3.0, 4.0], &[2.0; 4], &[1.0; 4], 0.0, &mut out);
    let step = 1.0 / 1.25_f32.sqrt();
    assert_eq!(
        out,
        [-1.5 * step * 2.0 + 1.0, -0.5 * step * 2.0 + 1.0, 0.5 * step * 2.0 + 1.0, 1.5 * step * 2.0 + 1.0]
    );
}

#[test]
fn softmax_sums_to_one() {
    let mut x = numbers(7, 1000);
    softmax(&mut x);
    assert!((x.iter().sum::<f32>() - 1.0).abs() < 1e-5);
}

#[test]
fn sizes_are_those_of_weights_and_scales() {
    let bits = |packing| PackedMatrixBuilder::with_packing(packing, 32, 128).finish().size_bytes() * 8;
    assert_eq!(bits(Packing::Q8), 32 * 128 * 17 / 2);
    assert_eq!(bits(Packing::Q8By(128)), 32 * 128 * 65 / 8);
    let by_768 = PackedMatrixBuilder::with_packing(Packing::Q8By(768), 32, 768).finish();
    assert_eq!(by_768.size_bytes(), 32 * (768 + 2));
    assert_eq!(bits(Packing::Q4), 32 * 128 * 9 / 2);
}
