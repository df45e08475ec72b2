//! Which instruction set runs the kernels: found once, and forced by tests and benches.

use super::matrix::Packing;
use super::quantised::Form;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use super::simd128;
#[cfg(target_arch = "x86_64")]
use super::{amx, avx512};
#[cfg(target_arch = "x86_64")]
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU8, Ordering};

/// An instruction set that the kernels are written for.
///
/// Every one gives the same bits; they differ in speed only. Natively the best one that the processor has is found at
/// run time; in WebAssembly the build decides, since a module with an unknown instruction does not load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Isa {
    /// Plain Rust: the definition of what the others compute. Not in a WebAssembly build with SIMD, which never uses it and
    /// would be a hundredth larger, unless it has the feature `scalar`, as tests do.
    #[cfg(any(not(target_feature = "simd128"), feature = "scalar", test))]
    Scalar,
    /// x86-64 with AVX2 (and F16C, which came before it).
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX2 with AVX-VNNI: Intel's from Alder Lake on, AMD's from Zen 5 on.
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    /// AVX-512 with VNNI: Intel's servers from Cascade Lake on, AMD's from Zen 4 on.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    /// AVX-512 with VNNI, and AMX for products of many rows: Intel's servers from Sapphire Rapids on, under Linux.
    #[cfg(target_arch = "x86_64")]
    AmxInt8,
    /// NEON, on every aarch64.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// NEON with the dot-product instruction: ARMv8.4, and most processors since 2018.
    #[cfg(target_arch = "aarch64")]
    NeonDot,
    /// WebAssembly's 128-bit SIMD; not in builds with relaxed SIMD, which always have the next one.
    #[cfg(all(
        target_arch = "wasm32",
        target_feature = "simd128",
        any(not(target_feature = "relaxed-simd"), feature = "scalar", test)
    ))]
    Simd128,
    /// WebAssembly's relaxed SIMD as far as its standard promises results: 8-bit by 7-bit dot products.
    #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
    RelaxedSimd,
    /// Relaxed SIMD on an engine whose dot product is of signed by unsigned bytes: x86 with VNNI.
    #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
    RelaxedSimdUnsigned,
    /// Relaxed SIMD on an engine whose dot product is of signed bytes: ARM.
    #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
    RelaxedSimdSigned,
}

/// No instruction set.
const NONE: u8 = u8::MAX;

/// The instruction set in use as its `u8`; [`NONE`] before anyone asked, and after a forced one was given up.
static ACTIVE: AtomicU8 = AtomicU8::new(NONE);

impl Isa {
    /// The instruction sets that this machine (or this WebAssembly build) runs, slowest first.
    #[must_use]
    pub fn available() -> Vec<Self> {
        Self::ALL.iter().copied().filter(|isa| isa.is_available()).collect()
    }

    /// The instruction set that kernels use now: the forced one, else the best that is available.
    #[must_use]
    pub fn active() -> Self {
        let active = ACTIVE.load(Ordering::Relaxed);
        if let Some(isa) = Self::ALL.iter().find(|isa| **isa as u8 == active) {
            return *isa;
        }
        let best = *Self::ALL
            .iter()
            .rfind(|isa| isa.is_available())
            .expect("each target has one that runs everywhere");
        ACTIVE.store(best as u8, Ordering::Relaxed);
        best
    }

    /// Makes every kernel of this process use `isa`, or the best one again with `None`. For tests and benches.
    ///
    /// # Panics
    /// If this machine does not have `isa`.
    pub fn force(isa: Option<Self>) {
        if let Some(isa) = isa {
            assert!(
                isa.is_available(),
                "kernels: {isa:?} is not available here; available: {:?}",
                Self::available()
            );
        }
        ACTIVE.store(isa.map_or(NONE, |isa| isa as u8), Ordering::Relaxed);
    }

    /// Slowest first.
    const ALL: &[Self] = &[
        #[cfg(any(not(target_feature = "simd128"), feature = "scalar", test))]
        Self::Scalar,
        #[cfg(target_arch = "x86_64")]
        Self::Avx2,
        #[cfg(target_arch = "x86_64")]
        Self::AvxVnni,
        #[cfg(target_arch = "x86_64")]
        Self::Avx512Vnni,
        #[cfg(target_arch = "x86_64")]
        Self::AmxInt8,
        #[cfg(target_arch = "aarch64")]
        Self::Neon,
        #[cfg(target_arch = "aarch64")]
        Self::NeonDot,
        #[cfg(all(
            target_arch = "wasm32",
            target_feature = "simd128",
            any(not(target_feature = "relaxed-simd"), feature = "scalar", test)
        ))]
        Self::Simd128,
        #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
        Self::RelaxedSimd,
        #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
        Self::RelaxedSimdUnsigned,
        #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
        Self::RelaxedSimdSigned,
    ];

    /// How a product of a matrix with so many rows of activations takes these.
    pub(crate) fn form(self, packing: Packing, rows: usize) -> Form {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 if packing != Packing::Q4 => Form::Magnitudes,
            #[cfg(target_arch = "x86_64")]
            Self::AmxInt8 if amx::pays(packing, rows) => Form::SideBySide,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni | Self::AmxInt8 if packing != Packing::Q4 && rows >= avx512::MANY => {
                Form::Unsigned
            }
            _ => {
                let _ = (packing, rows);
                Form::Signed
            }
        }
    }

    /// Rows of activations that a product's inner loop multiplies together with each load of weights.
    pub(crate) fn rows_together(self, form: Form) -> usize {
        match (self, form) {
            #[cfg(target_arch = "x86_64")]
            (_, Form::SideBySide) => amx::TOGETHER,
            #[cfg(target_arch = "x86_64")]
            (Self::Avx512Vnni | Self::AmxInt8, _) => avx512::TOGETHER,
            _ => 4,
        }
    }

    /// Whether the processor reads fastest as several streams that nobody asks for ahead: AMD's do, Intel's do not.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn fetches_streams() -> bool {
        // In a virtual machine the question takes a microsecond and more.
        static AMD: LazyLock<bool> = LazyLock::new(|| {
            let vendor = std::arch::x86_64::__cpuid(0);
            [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).as_flattened() == b"AuthenticAMD"
        });
        *AMD
    }

    fn is_available(self) -> bool {
        match self {
            #[cfg(any(not(target_feature = "simd128"), feature = "scalar", test))]
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c"),
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni => Self::Avx2.is_available() && is_x86_feature_detected!("avxvnni"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "x86_64")]
            Self::AmxInt8 => Self::Avx512Vnni.is_available() && amx::works(),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => true,
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot => std::arch::is_aarch64_feature_detected!("dotprod"),
            #[cfg(all(
                target_arch = "wasm32",
                target_feature = "simd128",
                any(not(target_feature = "relaxed-simd"), feature = "scalar", test)
            ))]
            Self::Simd128 => simd128::plain::works(),
            #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
            // Where there is nothing to fall back on, its standard's word is taken.
            Self::RelaxedSimd => !cfg!(any(feature = "scalar", test)) || simd128::signed7::works(),
            #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
            Self::RelaxedSimdUnsigned => simd128::unsigned8::works(),
            #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
            Self::RelaxedSimdSigned => simd128::signed8::works(),
        }
    }
}
