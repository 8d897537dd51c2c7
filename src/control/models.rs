//! What is kept per model name: rotation, counters and the seed of its block hashes for the life of the process, its
//! policy and board as long as a worker serves it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use fleet::blocks::chain;
use fleet::board::Board;
use fleet::lengths::LengthHistogram;
use fleet::rules::Policy;
use fleet::rules::Rules;
use fleet::stats::ModelStats;
use fleet::stats::StatsShape;

use crate::control::limits::MODELS_MAX;
use crate::control::state::engine_cost::EngineCosts;

/// Model of workers that do not say what they serve, and of names beyond [`MODELS_MAX`].
pub(crate) const UNKNOWN_MODEL: &str = "unknown";

/// The lasting part of a pool.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) rotation: Arc<AtomicU64>,
    pub(crate) stats: Arc<ModelStats>,
    pub(crate) block_seed: u64,
    /// The policy, once a worker serves the model.
    pub(crate) policy: Policy,
    pub(crate) board: Arc<Board>,
    pub(crate) lengths: Arc<LengthHistogram>,
    /// Workers that serve it.
    pub(crate) workers: usize,
    /// What its workers' engines count as on its board.
    pub(crate) engine_costs: EngineCosts,
}

/// Every model name ever served, so that counters never go back and a rotation never restarts.
#[derive(Debug)]
pub(crate) struct Models {
    by_name: BTreeMap<Box<str>, Model>,
    shards: usize,
    shape: StatsShape,
    seed: u64,
    rules: Rules,
}

impl Models {
    pub(crate) fn new(shards: usize, shape: StatsShape, seed: u64, rules: Rules) -> Self {
        Self { by_name: BTreeMap::new(), shards, shape, seed, rules }
    }

    /// The lasting part of `name`'s pool, which must have been admitted.
    pub(crate) fn get(&self, name: &str) -> &Model {
        self.by_name.get(name).expect("a worker's model names are admitted when it is described")
    }

    /// As [`Models::get`], to change it.
    pub(crate) fn get_mut(&mut self, name: &str) -> &mut Model {
        self.by_name.get_mut(name).expect("a worker's model names are admitted when it is described")
    }

    /// Counts one more worker of `name`, and returns that name, or the one it is served under because there are too
    /// many. The first worker decides on the policy: by `hint`, the name of one, or the default.
    pub(crate) fn admit(&mut self, name: &str, hint: Option<&str>) -> Box<str> {
        let is_full = self.by_name.len() >= MODELS_MAX && !self.by_name.contains_key(name);
        let name: Box<str> = if is_full { UNKNOWN_MODEL.into() } else { name.into() };
        if !self.by_name.contains_key(&name) {
            let model = self.create(&name);
            self.by_name.insert(name.clone(), model);
        }
        let model = self.by_name.get_mut(&name).expect("inserted above");
        if model.workers == 0 {
            let policy = hint.and_then(|hint| self.rules.policy(hint)).unwrap_or(self.rules.default);
            if policy.unit() != model.board.unit() {
                model.board = Arc::new(Board::new(policy.unit()));
            }
            model.policy = policy;
        }
        model.workers += 1;
        name
    }

    /// Counts one worker less of each of `names`.
    pub(crate) fn release(&mut self, names: &[Box<str>]) {
        for name in names {
            if let Some(model) = self.by_name.get_mut(name) {
                model.workers = model.workers.saturating_sub(1);
            }
        }
    }

    /// Every model, to change it.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &mut Model)> {
        self.by_name.iter_mut().map(|(name, model)| (&**name, model))
    }

    /// A part that belongs to no name, for the pool of every worker.
    pub(crate) fn create(&self, name: &str) -> Model {
        Model {
            rotation: Arc::default(),
            stats: Arc::new(ModelStats::new(self.shards, &self.shape)),
            block_seed: name.bytes().fold(self.seed, |seed, byte| chain(seed, u64::from(byte))),
            policy: self.rules.default,
            board: Arc::new(Board::new(self.rules.default.unit())),
            lengths: Arc::default(),
            workers: 0,
            engine_costs: EngineCosts::default(),
        }
    }

    /// How many names there are.
    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Every model, ordered by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Model)> {
        self.by_name.iter().map(|(name, model)| (&**name, model))
    }
}

#[cfg(test)]
mod tests {
    use fleet::board::Unit;

    use super::*;

    fn models() -> Models {
        let shape =
            StatsShape { endpoints: 1, methods: 1, error_codes: 1, duration_bounds_us: Arc::from([1]) };
        Models::new(1, shape, 7, Rules::default())
    }

    #[test]
    fn a_name_keeps_its_part_and_shares_no_seed() {
        let mut models = models();
        models.admit("a", None);
        let rotation = Arc::clone(&models.get("a").rotation);
        models.admit("b", None);
        models.admit("a", None);
        assert!(Arc::ptr_eq(&rotation, &models.get("a").rotation));
        assert_ne!(models.get("a").block_seed, models.get("b").block_seed);
    }

    #[test]
    fn names_beyond_the_bound_are_unknown() {
        let mut models = models();
        for n in 0..MODELS_MAX {
            assert_eq!(*models.admit(&format!("m{n}"), None), *format!("m{n}"));
        }
        assert_eq!(&*models.admit("one more", None), UNKNOWN_MODEL);
        assert_eq!(&*models.admit("m1", None), "m1");
    }

    #[test]
    fn the_first_worker_decides_on_the_policy_until_the_last_has_left() {
        let mut models = models();
        models.admit("a", Some("least_load"));
        models.admit("a", Some("random"));
        assert_eq!((models.get("a").policy, models.get("a").board.unit()), (Policy::LeastLoad, Unit::Work));
        models.release(&["a".into()]);
        models.admit("a", Some("random"));
        assert_eq!(models.get("a").policy, Policy::LeastLoad);
        models.release(&["a".into(), "a".into()]);
        models.admit("a", Some("no such policy"));
        assert_eq!(models.get("a").policy, Rules::default().default);
        assert_eq!(models.get("a").board.unit(), Unit::Requests);
    }
}
