//! In how many streams a single row of activations reads its weights: found by trying.
//!
//! Some processors read memory fastest as several streams side by side (Zen 3, Sapphire Rapids), others as one: on a Zen 4
//! server a token's products take two thirds of the time so. A module cannot ask what it runs on, and the outcome is the
//! same to the bit. So where the host lends a clock, the first products with a matrix that caches do not hold, which for a
//! generator are those with its head, go both ways in turns, and all later ones the way of the quickest.

use std::cell::Cell;

/// Matrices of fewer bytes say nothing about memory.
const LARGE: usize = 16 << 20;
/// Timed products: both ways in turns. The first few are compiled in a hurry, and neighbours disturb some.
const RUNS: usize = 16;

thread_local! {
    static TRIAL: Cell<Trial> = const { Cell::new(Trial::NEW) };
}

#[derive(Clone, Copy)]
struct Trial {
    /// Milliseconds.
    clock: Option<fn() -> f64>,
    runs: usize,
    /// The least time with one stream, and with several.
    least: [f64; 2],
    several: bool,
}

impl Trial {
    const NEW: Self = Self { clock: None, runs: 0, least: [f64::INFINITY; 2], several: true };

    /// The next product is timed with one stream, then with several.
    fn begin(mut self) -> Self {
        self.several = self.runs % 2 == 1;
        self
    }

    /// The product took so many milliseconds. One stream must be worth it: clocks may stand still.
    fn end(mut self, took: f64) -> Self {
        let least = &mut self.least[usize::from(self.several)];
        *least = least.min(took);
        self.runs += 1;
        self.several = self.runs < 2 || self.least[0] >= 0.95 * self.least[1];
        self
    }
}

/// Lends a clock of milliseconds, which begins the trial.
pub fn lend_clock(clock: fn() -> f64) {
    TRIAL.set(Trial { clock: Some(clock), ..Trial::NEW });
}

/// Whether a single row takes several panels side by side now.
pub(super) fn several() -> bool {
    TRIAL.get().several
}

/// Makes this thread read so from now on.
#[cfg(test)]
pub(crate) fn force(several: bool) {
    TRIAL.set(Trial { several, ..Trial::NEW });
}

/// Runs a product of a single row with a matrix of so many bytes.
pub(crate) fn timed(bytes: usize, run: impl FnOnce()) {
    let trial = TRIAL.get();
    let (Some(clock), true) = (trial.clock, bytes >= LARGE && trial.runs < RUNS) else { return run() };
    let trial = trial.begin();
    TRIAL.set(trial);
    let began = clock();
    run();
    TRIAL.set(trial.end(clock() - began));
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    thread_local! {
        static NOW: Cell<f64> = const { Cell::new(0.0) };
    }

    /// What is chosen where products take `one` and `several` milliseconds, and the first of all `first` more.
    fn chosen(one: f64, several_: f64, first: f64) -> bool {
        lend_clock(|| NOW.get());
        let mut late = first;
        for _ in 0..RUNS + 3 {
            timed(LARGE, || {
                NOW.set(NOW.get() + std::mem::take(&mut late) + if several() { several_ } else { one });
            });
            timed(LARGE - 1, || NOW.set(NOW.get() + 1000.0));
        }
        several()
    }

    #[test]
    fn the_quicker_way_is_taken() {
        assert!(!chosen(2.0, 3.0, 50.0));
        assert!(chosen(3.0, 2.0, 50.0));
        // A clock that stands still, and a gain that may be chance.
        assert!(chosen(0.0, 0.0, 0.0));
        assert!(chosen(1.99, 2.0, 0.0));
        force(true);
    }

    #[test]
    fn without_a_clock_nothing_is_tried() {
        force(true);
        (0..3).for_each(|_| timed(LARGE, || assert!(several())));
    }
}
