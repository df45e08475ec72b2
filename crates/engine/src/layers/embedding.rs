//! Rows of a table, looked up by id.

use std::sync::Arc;

use candle_core::Tensor;

use super::{Matrix, op};
use crate::error::{Error, Result};

/// Token embeddings; the table may serve as the head's weights too.
#[derive(Clone, Debug)]
pub struct Embedding {
    table: Arc<Matrix>,
}

impl Embedding {
    /// `table`: `(vocab, width)`.
    #[must_use]
    pub fn new(table: Arc<Matrix>) -> Embedding {
        Embedding { table }
    }

    /// The table, to be shared with a tied head.
    #[must_use]
    pub fn table(&self) -> &Arc<Matrix> {
        &self.table
    }

    /// The rows of `ids`, to which `then(row, out)` may add more: `(ids, width)`.
    ///
    /// # Errors
    /// [`Error::TokenOutOfRange`].
    pub fn forward(&self, ids: &[u32], then: impl Fn(usize, &mut [f32])) -> Result<Tensor> {
        let (vocab_size, width) = self.table.shape();
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= vocab_size) {
            return Err(Error::TokenOutOfRange { id, vocab_size });
        }
        let rows = |row_of: &dyn Fn(u32, &mut [f32])| {
            op::filled(ids.len(), width, &mut |out| {
                for (at, (&id, row)) in ids.iter().zip(out.chunks_exact_mut(width)).enumerate() {
                    row_of(id, row);
                    then(at, row);
                }
            })
        };
        Ok(match &*self.table {
            Matrix::Packed(table) => rows(&|id, row| table.row(id as usize, row))?,
            Matrix::F32(table) => op::read(table, "embedding", |table| {
                rows(&|id, row| row.copy_from_slice(&table[id as usize * width..][..width]))
            })??,
        })
    }
}
