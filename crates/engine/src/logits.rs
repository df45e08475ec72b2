//! A model's logits, with the highest of each group beside them.
//!
//! The head's product finds these maxima while it writes the logits, [`kernels::groups`] of them a row. Who looks for the
//! highest logits compares a sixteenth of the numbers, and looks into the few groups that have any.

use crate::kernels;

/// Logits after several places in texts, a row of `vocab_size` each.
#[derive(Clone, Debug, PartialEq)]
pub struct Logits {
    /// The rows, then the maxima of each: `(rows, vocab_size)` and `(rows, groups(vocab_size))`.
    numbers: Vec<f32>,
    rows: usize,
    vocab_size: usize,
}

/// The logits of one place.
#[derive(Debug)]
pub struct Row<'a> {
    values: &'a mut [f32],
    /// The highest of each group of `values`, at all times.
    maxima: &'a mut [f32],
}

impl Logits {
    /// Rows of `vocab_size` from a product that found no maxima.
    #[must_use]
    pub fn new(values: Vec<f32>, vocab_size: usize) -> Logits {
        let rows = values.len().checked_div(vocab_size).unwrap_or(0);
        let mut logits = Logits { numbers: values, rows, vocab_size };
        logits.numbers.resize(rows * (vocab_size + kernels::groups(vocab_size)), 0.0);
        logits.rows_mut().for_each(|row| kernels::maxima(row.values, row.maxima));
        logits
    }

    /// Rows as [`kernels::Around::maxima`] lets a product write them, `write`; it gets zeros.
    pub(crate) fn written<E>(
        rows: usize,
        vocab_size: usize,
        write: impl FnOnce(&mut [f32]) -> Result<(), E>,
    ) -> Result<Logits, E> {
        let mut numbers = vec![0.0; rows * (vocab_size + kernels::groups(vocab_size))];
        write(&mut numbers)?;
        Ok(Logits { numbers, rows, vocab_size })
    }

    /// One row after the other: `(rows, vocab_size)`.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.numbers[..self.rows * self.vocab_size]
    }

    /// [`Logits::values`], without the maxima.
    #[must_use]
    pub fn into_values(self) -> Vec<f32> {
        let mut values = self.numbers;
        values.truncate(self.rows * self.vocab_size);
        values
    }

    /// The rows, to be read and changed.
    pub fn rows_mut(&mut self) -> impl Iterator<Item = Row<'_>> {
        let (values, maxima) = self.numbers.split_at_mut(self.rows * self.vocab_size);
        let maxima = maxima.chunks_exact_mut(kernels::groups(self.vocab_size).max(1));
        let values = values.chunks_exact_mut(self.vocab_size.max(1));
        values.zip(maxima).map(|(values, maxima)| Row { values, maxima })
    }
}

impl Row<'_> {
    /// One logit per vocabulary entry.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        self.values
    }

    /// The highest of each of [`kernels::groups`].
    #[must_use]
    pub fn maxima(&self) -> &[f32] {
        self.maxima
    }

    /// The highest logit.
    #[must_use]
    pub fn highest(&self) -> f32 {
        kernels::highest(self.maxima)
    }

    /// Ids whose logits are at least `bar`, in no order, with their logits.
    pub fn at_least(&self, bar: f32) -> impl Iterator<Item = (u32, f32)> {
        let groups = self.maxima.iter().enumerate().filter(move |(_, highest)| **highest >= bar);
        let members = groups.flat_map(|(group, _)| kernels::members(group));
        let logits = members.filter_map(|id| Some((id as u32, *self.values.get(id)?)));
        logits.filter(move |(_, logit)| *logit >= bar)
    }

    /// Changes the logit of `id`, and its group's highest with it. Neither it nor its former value is NaN.
    ///
    /// # Panics
    /// If the vocabulary has no `id`.
    pub fn set(&mut self, id: u32, logit: f32) {
        let id = id as usize;
        let former = std::mem::replace(&mut self.values[id], logit);
        let group = kernels::group_of(id);
        if logit >= self.maxima[group] {
            self.maxima[group] = logit;
        } else if former == self.maxima[group] {
            let members = kernels::members(group).filter_map(|id| self.values.get(id));
            self.maxima[group] = members.fold(f32::NEG_INFINITY, |highest, logit| highest.max(*logit));
        }
    }
}
