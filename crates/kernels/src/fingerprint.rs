//! One number for the bits of all kernels.

use super::{
    Activation, Around, AttentionShape, IntegerCache, Mask, PackedMatrix, Packing, SingleThread, attention,
    attention_i16, cached_attention_i16, layer_norm, softmax,
};

/// FNV-1a over the bits of results.
struct Hash(u64);

const START: Hash = Hash(0xcbf2_9ce4_8422_2325);

impl Hash {
    fn add(&mut self, results: &[f32]) {
        for byte in results.iter().flat_map(|x| x.to_le_bytes()) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn products(&mut self, packing: Packing) {
        let activations =
            [Activation::None, Activation::GeluTanh, Activation::GeluErf, Activation::Relu, Activation::Tanh];
        for (rows, cols) in [(1, 32_usize), (17, 96), (16, 768), (33, 160), (7, 3072)] {
            let cols = cols.next_multiple_of(packing.columns());
            let (weights, bias) = (numbers(rows as u64, rows * cols), numbers(9, rows));
            // Weights and activations at the ends of their ranges too: what saturates, if anything does.
            let signs =
                |x: &[f32]| -> Vec<f32> { x.iter().map(|x| if *x > 0.0 { 1.0 } else { -1.0 }).collect() };
            for (m, activation) in [1, 2, 3, 4, 5, 8, 9, 17].into_iter().zip(activations.into_iter().cycle())
            {
                let x = numbers(100 + m as u64, m * cols);
                let mut out = vec![0.0; m * rows];
                for (weights, x) in [(weights.clone(), x.clone()), (signs(&weights), signs(&x))] {
                    let matrix = PackedMatrix::from_f32_as(packing, rows, cols, &weights)
                        .expect("seeded numbers are finite");
                    let around = Around { bias: Some(&bias), activation, ..Around::default() };
                    matrix.matmul_with(&x, &around, &mut out, &SingleThread);
                    self.add(&out);
                }
            }
        }
    }
}

/// `n` numbers of mixed sizes with zeros among them, the same for a seed everywhere.
pub(crate) fn numbers(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / 16_777_216.0
    };
    (0..n)
        .map(|_| {
            let (zero, x, far) = (next() < 0.05, next() - 0.5, next());
            let far = far * far;
            if zero { 0.0 } else { x * 4.0 * (1.0 + 10.0 * (far * far) * (far * far)) }
        })
        .collect()
}

/// A hash of what the kernels compute from seeded inputs of many sizes, with the instruction set in use.
///
/// It is the same number on every target and for every instruction set; a host's tests compare it with
/// [`FINGERPRINT`]. A few milliseconds.
#[must_use]
pub fn fingerprint() -> u64 {
    let mut hash = START;
    hash.products(Packing::Q8);
    for n in [1, 15, 16, 17, 768] {
        let mut x = numbers(n as u64, n);
        let mut out = vec![0.0; n];
        layer_norm(&x, &numbers(3, n), &numbers(4, n), 1e-5, &mut out);
        hash.add(&out);
        x.iter_mut().for_each(|x| *x *= 9.0);
        softmax(&mut x);
        hash.add(&x);
    }
    for (heads, head_dim, n) in [(3, 20, 23), (2, 16, 23), (4, 64, 23), (2, 96, 23), (1, 32, 150)] {
        let width = heads * head_dim;
        let (q, keys, values) = (numbers(1, n * width), numbers(2, n * width), numbers(3, n * width));
        for mask in [Mask::Causal { past: 0 }, Mask::Full { len: 18 }] {
            let (q_stride, kv_stride) = (width, width);
            let shape = AttentionShape { heads, head_dim, queries: n, q_stride, kv_stride, scale: 0.3, mask };
            let mut out = vec![0.0; n * width];
            attention(&q, &keys, &values, &shape, &mut out, &SingleThread);
            hash.add(&out);
            match mask {
                Mask::Full { .. } => attention_i16(&q, &keys, &values, &shape, &mut out, &SingleThread),
                Mask::Causal { .. } => {
                    let cache = &mut IntegerCache::default();
                    cached_attention_i16(&q, &keys, &values, &shape, cache, &mut out, &SingleThread);
                }
            }
            hash.add(&out);
        }
    }
    hash.0
}

/// What [`fingerprint`] gives everywhere.
pub const FINGERPRINT: u64 = 0x124b_d725_9d0f_bdc9;

/// [`fingerprint`] of products with matrices of one packing.
#[must_use]
pub fn fingerprint_of(packing: Packing) -> u64 {
    let mut hash = START;
    hash.products(packing);
    hash.0
}

/// What [`fingerprint_of`] gives everywhere, for packings that [`fingerprint`] leaves out.
pub const FINGERPRINTS: [(Packing, u64); 4] = [
    (Packing::Q4, 0x77cf_0c2f_8a90_b727),
    (Packing::Q8By(128), 0x9c5c_fffb_1e61_1dbf),
    (Packing::Q8By(768), 0xa7aa_5037_0913_40cb),
    (Packing::Q8By(1024), 0x9389_ea3d_b011_d11a),
];
