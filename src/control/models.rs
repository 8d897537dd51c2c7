//! What is kept per model and role: rotation, counters and the seed of its block hashes for the life of the process, its
//! policy and board as long as a worker serves it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use fleet::blocks::chain;
use fleet::board::Board;
use fleet::lengths::LengthHistogram;
use fleet::rules::Policy;
use fleet::rules::Rules;
use fleet::snapshot::PoolName;
use fleet::snapshot::Role;
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

/// Every model ever served, by name and role, so that counters never go back and a rotation never restarts.
#[derive(Debug)]
pub(crate) struct Models {
    by_name: BTreeMap<PoolName, Model>,
    shards: usize,
    shape: StatsShape,
    seed: u64,
    rules: Rules,
}

impl Models {
    pub(crate) fn new(shards: usize, shape: StatsShape, seed: u64, rules: Rules) -> Self {
        Self { by_name: BTreeMap::new(), shards, shape, seed, rules }
    }

    /// Has models that nobody serves go by other rules from their next worker on.
    pub(crate) fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// The lasting part of `name`'s pool, which must have been admitted.
    pub(crate) fn get(&self, name: &PoolName) -> &Model {
        self.by_name.get(name).expect("a worker's model names are admitted when it is described")
    }

    /// As [`Models::get`], to change it.
    pub(crate) fn get_mut(&mut self, name: &PoolName) -> &mut Model {
        self.by_name.get_mut(name).expect("a worker's model names are admitted when it is described")
    }

    /// Counts one more worker of `model` and `role`, and returns what names its pool: under another model if there are
    /// too many. The first worker decides on the policy: by `hint`, the name of one, or the default.
    pub(crate) fn admit(&mut self, model: &str, role: Role, hint: Option<&str>) -> PoolName {
        let mut name = PoolName { model: model.into(), role };
        if self.by_name.len() >= MODELS_MAX && !self.by_name.contains_key(&name) {
            name.model = UNKNOWN_MODEL.into();
        }
        if !self.by_name.contains_key(&name) {
            let model = self.create(&name);
            self.by_name.insert(name.clone(), model);
        }
        let model = self.by_name.get_mut(&name).expect("inserted above");
        if model.workers == 0 {
            let policy =
                hint.and_then(|hint| self.rules.policy(hint)).unwrap_or_else(|| self.rules.default_of(role));
            if policy.unit() != model.board.unit() {
                model.board = Arc::new(Board::new(policy.unit()));
            }
            model.policy = policy;
        }
        model.workers += 1;
        name
    }

    /// Counts one worker less of each of `names`.
    pub(crate) fn release(&mut self, names: &[PoolName]) {
        for name in names {
            if let Some(model) = self.by_name.get_mut(name) {
                model.workers = model.workers.saturating_sub(1);
            }
        }
    }

    /// Every model, to change it.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&PoolName, &mut Model)> {
        self.by_name.iter_mut()
    }

    /// Counters are those of the model, whatever the roles of its workers.
    fn create(&self, name: &PoolName) -> Model {
        let of_model = |(other, model): (&PoolName, &Model)| {
            (other.model == name.model).then(|| Arc::clone(&model.stats))
        };
        let stats = self.by_name.iter().find_map(of_model);
        Model {
            rotation: Arc::default(),
            stats: stats.unwrap_or_else(|| Arc::new(ModelStats::new(self.shards, &self.shape))),
            block_seed: name.model.bytes().fold(self.seed, |seed, byte| chain(seed, u64::from(byte))),
            policy: self.rules.default_of(name.role),
            board: Arc::new(Board::new(self.rules.default_of(name.role).unit())),
            lengths: Arc::default(),
            workers: 0,
            engine_costs: EngineCosts::default(),
        }
    }

    /// Every model, ordered by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&PoolName, &Model)> {
        self.by_name.iter()
    }
}

#[cfg(test)]
mod tests {
    use fleet::board::Unit;

    use super::*;

    fn name(model: &str) -> PoolName {
        PoolName { model: model.into(), role: Role::Regular }
    }

    fn models() -> Models {
        let shape =
            StatsShape { endpoints: 1, methods: 1, error_codes: 1, duration_bounds_us: Arc::from([1]) };
        Models::new(1, shape, 7, Rules::default())
    }

    #[test]
    fn a_name_keeps_its_part_and_shares_no_seed() {
        let mut models = models();
        models.admit("a", Role::Regular, None);
        let rotation = Arc::clone(&models.get(&name("a")).rotation);
        models.admit("b", Role::Regular, None);
        models.admit("a", Role::Regular, None);
        assert!(Arc::ptr_eq(&rotation, &models.get(&name("a")).rotation));
        assert_ne!(models.get(&name("a")).block_seed, models.get(&name("b")).block_seed);
    }

    #[test]
    fn names_beyond_the_bound_are_unknown() {
        let mut models = models();
        for n in 0..MODELS_MAX {
            assert_eq!(*models.admit(&format!("m{n}"), Role::Regular, None).model, *format!("m{n}"));
        }
        assert_eq!(&*models.admit("one more", Role::Regular, None).model, UNKNOWN_MODEL);
        assert_eq!(&*models.admit("m1", Role::Regular, None).model, "m1");
    }

    #[test]
    fn the_first_worker_decides_on_the_policy_until_the_last_has_left() {
        let mut models = models();
        models.admit("a", Role::Regular, Some("least_load"));
        models.admit("a", Role::Regular, Some("random"));
        assert_eq!(
            (models.get(&name("a")).policy, models.get(&name("a")).board.unit()),
            (Policy::LeastLoad, Unit::Work)
        );
        models.release(&[name("a")]);
        models.admit("a", Role::Regular, Some("random"));
        assert_eq!(models.get(&name("a")).policy, Policy::LeastLoad);
        models.release(&[name("a"), name("a")]);
        models.admit("a", Role::Regular, Some("no such policy"));
        assert_eq!(models.get(&name("a")).policy, Rules::default().default);
        assert_eq!(models.get(&name("a")).board.unit(), Unit::Requests);
    }

    #[test]
    fn roles_of_a_model_share_its_counters_and_nothing_else() {
        let mut models = models();
        let prefill = models.admit("a", Role::Prefill, Some("cache_aware"));
        let decode = models.admit("a", Role::Decode, Some("random"));
        let [prefill, decode] = [&prefill, &decode].map(|name| models.get(name));
        assert!(Arc::ptr_eq(&prefill.stats, &decode.stats));
        assert!(
            !Arc::ptr_eq(&prefill.board, &decode.board) && !Arc::ptr_eq(&prefill.rotation, &decode.rotation)
        );
        assert_eq!(decode.policy, Policy::Random);
    }
}
