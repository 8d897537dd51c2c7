//! The table of registered workers by index, in chunks, so that a change copies one chunk and shares the others.

use std::sync::Arc;

use crate::snapshot::Worker;

/// Workers per chunk.
const CHUNK: usize = 128;

/// Workers by index; `None` where nothing is registered. A clone shares every chunk.
#[derive(Clone, Debug, Default)]
pub struct WorkerTable {
    chunks: Vec<Arc<Chunk>>,
}

type Chunk = [Option<Arc<Worker>>; CHUNK];

// === impl WorkerTable ===

impl WorkerTable {
    /// The worker registered under `index`.
    #[inline]
    pub fn get(&self, index: u32) -> Option<&Arc<Worker>> {
        let index = index as usize;
        self.chunks.get(index / CHUNK)?[index % CHUNK].as_ref()
    }

    /// Registers a worker under `index`, or nobody.
    pub fn set(&mut self, index: u32, worker: Option<Arc<Worker>>) {
        let index = index as usize;
        while self.chunks.len() <= index / CHUNK {
            self.chunks.push(Arc::new([const { None }; CHUNK]));
        }
        Arc::make_mut(&mut self.chunks[index / CHUNK])[index % CHUNK] = worker;
    }

    /// All workers in order of index.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Worker>> {
        self.chunks.iter().flat_map(|chunk| chunk.iter()).flatten()
    }

    /// One past the highest index that may be in use.
    pub fn index_end(&self) -> u32 {
        (self.chunks.len() * CHUNK) as u32
    }
}
