//! Rows of a table, looked up by id.

use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::Matrix;
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
        let mut out = vec![0.0; ids.len() * width];
        let rows = out.chunks_exact_mut(width);
        match &*self.table {
            Matrix::Packed(table) => ids.iter().zip(rows).for_each(|(&id, row)| table.row(id as usize, row)),
            Matrix::F32(table) => {
                let (storage, layout) = table.storage_and_layout();
                let candle_core::Storage::Cpu(storage) = &*storage else {
                    return Err(
                        candle_core::Error::Msg("embedding: expected a table on the CPU".into()).into()
                    );
                };
                let table = &storage.as_slice::<f32>()?[layout.start_offset()..];
                ids.iter()
                    .zip(rows)
                    .for_each(|(&id, row)| row.copy_from_slice(&table[id as usize * width..][..width]));
            }
        }
        out.chunks_exact_mut(width).enumerate().for_each(|(at, row)| then(at, row));
        Ok(Tensor::from_vec(out, (ids.len(), width), &Device::Cpu)?)
    }
}
