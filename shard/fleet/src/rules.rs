//! How workers are chosen, as it is configured: the policy of a model and its thresholds.
//!
//! Names and defaults are those of SGLang's router and of vLLM's production-stack router, where they have them.

use crate::board::Unit;
use crate::ring::Layout;
use crate::snapshot::Role;

/// Thresholds of [`Policy::CacheAware`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CacheAware {
    /// Share of the prompt that must be known before affinity decides, 0 to 1 (`--cache-threshold`).
    pub cache_threshold: f32,
    /// Load above the least, in requests, that is still balanced (`--balance-abs-threshold`).
    pub balance_abs_threshold: u32,
    /// Load over the least, at least 1, that is still balanced (`--balance-rel-threshold`).
    pub balance_rel_threshold: f32,
    /// Load over the average, at least 1, up to which affinity is followed (`--affinity-load-factor`).
    pub affinity_load_factor: f32,
}

/// Settings of [`Policy::PrefixHash`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PrefixHash {
    /// Bytes of prompt that make the key (`--prefix-token-count`, four bytes a token).
    pub prefix_bytes: u32,
    /// Load over the average up to which a worker takes what the ring gives it (`--prefix-hash-load-factor`).
    pub load_factor: f32,
}

/// How [`Policy::Manual`] finds a worker for a new key (`--assignment-mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AssignmentMode {
    /// Any.
    Random,
    /// Who has the least load.
    MinLoad,
    /// Who has the fewest keys.
    MinGroup,
}

/// Settings of [`Policy::Manual`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manual {
    /// How a new key finds a worker.
    pub assignment: AssignmentMode,
    /// Seconds after which an unused key is forgotten (`--max-idle-secs`).
    pub max_idle_s: u32,
}

/// Thresholds of [`Policy::Bucket`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// Prompt bytes in flight above the least that are still balanced (`--balance-abs-threshold`).
    pub balance_abs_threshold: u32,
    /// Prompt bytes in flight over the least that are still balanced (`--balance-rel-threshold`).
    pub balance_rel_threshold: f32,
}

/// Settings of [`Policy::PrefixAware`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefixAware {
    /// Bytes of prompt that must match (`--prefix-min-match-length`).
    pub match_bytes_min: u32,
}

/// How a worker is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Policy {
    /// Uniformly.
    Random,
    /// In turn, exactly, over every shard and connection.
    RoundRobin,
    /// The less loaded of two drawn at random (Mitzenmacher, "The power of two choices", 2001).
    PowerOfTwo,
    /// The holder of the longest known prefix, within a bound on its load.
    CacheAware(CacheAware),
    /// Least work ahead: uncached tokens not yet computed, and pressure on the cache.
    LeastLoad,
    /// By the beginning of the prompt on a ring, within a bound on load (Mirrokni et al., "Consistent hashing with
    /// bounded loads", 2018).
    PrefixHash(PrefixHash),
    /// By a key of the request on SGLang's ring.
    ConsistentHashing,
    /// The worker that a key was assigned to once.
    Manual(Manual),
    /// By the length of the prompt, each worker having a range of lengths.
    Bucket(Bucket),
    /// By a session key on the production-stack's ring.
    Session,
    /// Any holder of the longest known prefix, as the production-stack's router chooses.
    PrefixAware(PrefixAware),
}

/// The settings of every policy, and which is meant when nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// The policy of models whose workers name none.
    pub default: Policy,
    /// The same of their prefill workers, if it is another.
    pub prefill: Option<Policy>,
    /// The same of their decode workers.
    pub decode: Option<Policy>,
    /// For cache_aware.
    pub cache_aware: CacheAware,
    /// For prefix_hash.
    pub prefix_hash: PrefixHash,
    /// For manual.
    pub manual: Manual,
    /// For bucket.
    pub bucket: Bucket,
    /// For prefixaware.
    pub prefix_aware: PrefixAware,
}

// === impl defaults ===

impl Default for CacheAware {
    fn default() -> Self {
        Self {
            cache_threshold: 0.3,
            balance_abs_threshold: 64,
            balance_rel_threshold: 1.5,
            affinity_load_factor: 3.0,
        }
    }
}

impl Default for PrefixHash {
    fn default() -> Self {
        Self { prefix_bytes: 256 * 4, load_factor: 1.25 }
    }
}

impl Default for Manual {
    fn default() -> Self {
        Self { assignment: AssignmentMode::Random, max_idle_s: 4 * 3600 }
    }
}

impl Default for Bucket {
    fn default() -> Self {
        Self { balance_abs_threshold: 64, balance_rel_threshold: 1.5 }
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            default: Policy::CacheAware(CacheAware::default()),
            prefill: None,
            decode: None,
            cache_aware: CacheAware::default(),
            prefix_hash: PrefixHash::default(),
            manual: Manual::default(),
            bucket: Bucket::default(),
            prefix_aware: PrefixAware::default(),
        }
    }
}

// === impl Policy ===

impl Policy {
    /// Every name, in the order of `--help`.
    pub const NAMES: [&str; 11] = [
        "cache_aware",
        "round_robin",
        "random",
        "power_of_two",
        "least_load",
        "prefix_hash",
        "consistent_hashing",
        "manual",
        "bucket",
        "session",
        "prefixaware",
    ];

    /// Its name on the command line, in metrics and logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::RoundRobin => "round_robin",
            Self::PowerOfTwo => "power_of_two",
            Self::CacheAware(_) => "cache_aware",
            Self::LeastLoad => "least_load",
            Self::PrefixHash(_) => "prefix_hash",
            Self::ConsistentHashing => "consistent_hashing",
            Self::Manual(_) => "manual",
            Self::Bucket(_) => "bucket",
            Self::Session => "session",
            Self::PrefixAware(_) => "prefixaware",
        }
    }

    /// Its position in [`Policy::NAMES`].
    pub fn number(&self) -> u8 {
        let name = self.name();
        Self::NAMES.iter().position(|&other| other == name).unwrap_or_default() as u8
    }

    /// Whether the decision looks at the prompt's blocks. If not, nobody needs to hash them.
    pub fn reads_prompt(&self) -> bool {
        matches!(self, Self::CacheAware(_) | Self::LeastLoad | Self::PrefixHash(_) | Self::PrefixAware(_))
    }

    /// Whether the decision looks at what the client says about where its request belongs.
    pub fn reads_keys(&self) -> bool {
        matches!(self, Self::CacheAware(_) | Self::ConsistentHashing | Self::Manual(_) | Self::Session)
    }

    /// Whether the decision looks up what workers hold, so that placements must be remembered.
    pub fn reads_tree(&self) -> bool {
        matches!(self, Self::CacheAware(_) | Self::LeastLoad | Self::PrefixAware(_))
    }

    /// What its pool's board adds up.
    pub fn unit(&self) -> Unit {
        match self {
            Self::LeastLoad => Unit::Work,
            Self::Bucket(_) => Unit::PromptBytes,
            Self::Random
            | Self::RoundRobin
            | Self::PowerOfTwo
            | Self::CacheAware(_)
            | Self::PrefixHash(_)
            | Self::ConsistentHashing
            | Self::Manual(_)
            | Self::Session
            | Self::PrefixAware(_) => Unit::Requests,
        }
    }

    /// The ring that it reads, if any.
    pub fn ring_layout(&self) -> Option<Layout> {
        match self {
            Self::ConsistentHashing | Self::PrefixHash(_) => Some(Layout::Sglang),
            Self::Session => Some(Layout::Uhashring),
            Self::Random
            | Self::RoundRobin
            | Self::PowerOfTwo
            | Self::CacheAware(_)
            | Self::LeastLoad
            | Self::Manual(_)
            | Self::Bucket(_)
            | Self::PrefixAware(_) => None,
        }
    }
}

impl Rules {
    /// The policy of workers of this role that name none.
    pub fn default_of(&self, role: Role) -> Policy {
        let own = match role {
            Role::Regular => None,
            Role::Prefill => self.prefill,
            Role::Decode => self.decode,
        };
        own.unwrap_or(self.default)
    }

    /// The policy of this name with its settings; `-` counts as `_`.
    pub fn policy(&self, name: &str) -> Option<Policy> {
        Some(match name.replace('-', "_").as_str() {
            "random" => Policy::Random,
            "round_robin" | "roundrobin" => Policy::RoundRobin,
            "power_of_two" => Policy::PowerOfTwo,
            "cache_aware" => Policy::CacheAware(self.cache_aware),
            "least_load" => Policy::LeastLoad,
            "prefix_hash" => Policy::PrefixHash(self.prefix_hash),
            "consistent_hashing" | "consistent_hash" => Policy::ConsistentHashing,
            "manual" => Policy::Manual(self.manual),
            "bucket" => Policy::Bucket(self.bucket),
            "session" => Policy::Session,
            "prefixaware" | "prefix_aware" => Policy::PrefixAware(self.prefix_aware),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_has_its_unit_and_ring() {
        for name in Policy::NAMES {
            let policy = Rules::default().policy(name).expect(name);
            let (unit, ring) = match name {
                "least_load" => (Unit::Work, None),
                "bucket" => (Unit::PromptBytes, None),
                "consistent_hashing" | "prefix_hash" => (Unit::Requests, Some(Layout::Sglang)),
                "session" => (Unit::Requests, Some(Layout::Uhashring)),
                _ => (Unit::Requests, None),
            };
            assert_eq!((policy.unit(), policy.ring_layout()), (unit, ring), "{name}");
        }
    }
}
