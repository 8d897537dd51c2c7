//! What is kept per model name for the life of the process: rotation, counters and the seed of its block hashes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use fleet::blocks::chain;
use fleet::stats::ModelStats;
use fleet::stats::StatsShape;

use crate::control::limits::MODELS_MAX;

/// Model of workers that do not say what they serve, and of names beyond [`MODELS_MAX`].
pub(crate) const UNKNOWN_MODEL: &str = "unknown";

/// The lasting part of a pool.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) rotation: Arc<AtomicU64>,
    pub(crate) stats: Arc<ModelStats>,
    pub(crate) block_seed: u64,
}

/// Every model name ever served, so that counters never go back and a rotation never restarts.
#[derive(Debug)]
pub(crate) struct Models {
    by_name: BTreeMap<Box<str>, Model>,
    shards: usize,
    shape: StatsShape,
    seed: u64,
}

impl Models {
    pub(crate) fn new(shards: usize, shape: StatsShape, seed: u64) -> Self {
        Self { by_name: BTreeMap::new(), shards, shape, seed }
    }

    /// The lasting part of `name`'s pool, which must have been admitted.
    pub(crate) fn get(&self, name: &str) -> &Model {
        self.by_name.get(name).expect("a worker's model names are admitted when it is described")
    }

    /// `name`, or the name it is served under because there are too many.
    pub(crate) fn admit(&mut self, name: &str) -> Box<str> {
        let is_full = self.by_name.len() >= MODELS_MAX && !self.by_name.contains_key(name);
        let name: Box<str> = if is_full { UNKNOWN_MODEL.into() } else { name.into() };
        if !self.by_name.contains_key(&name) {
            let model = self.create(&name);
            self.by_name.insert(name.clone(), model);
        }
        name
    }

    /// A part that belongs to no name, for the pool of every worker.
    pub(crate) fn create(&self, name: &str) -> Model {
        Model {
            rotation: Arc::default(),
            stats: Arc::new(ModelStats::new(self.shards, &self.shape)),
            block_seed: name.bytes().fold(self.seed, |seed, byte| chain(seed, u64::from(byte))),
        }
    }

    /// Every name with its counters, ordered by name.
    pub(crate) fn stats(&self) -> impl Iterator<Item = (&str, &Arc<ModelStats>)> {
        self.by_name.iter().map(|(name, model)| (&**name, &model.stats))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn models() -> Models {
        let shape =
            StatsShape { endpoints: 1, methods: 1, error_codes: 1, duration_bounds_us: Arc::from([1]) };
        Models::new(1, shape, 7)
    }

    #[test]
    fn a_name_keeps_its_part_and_shares_no_seed() {
        let mut models = models();
        models.admit("a");
        let rotation = Arc::clone(&models.get("a").rotation);
        models.admit("b");
        models.admit("a");
        assert!(Arc::ptr_eq(&rotation, &models.get("a").rotation));
        assert_ne!(models.get("a").block_seed, models.get("b").block_seed);
    }

    #[test]
    fn names_beyond_the_bound_are_unknown() {
        let mut models = models();
        for n in 0..MODELS_MAX {
            assert_eq!(*models.admit(&format!("m{n}")), *format!("m{n}"));
        }
        assert_eq!(&*models.admit("one more"), UNKNOWN_MODEL);
        assert_eq!(&*models.admit("m1"), "m1");
    }
}
