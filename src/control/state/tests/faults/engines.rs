//! Engines and what is wrong with them.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use rand::RngExt;

use super::Simulation;

/// How an engine treats requests that reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Healthy,
    Slow,
    /// Takes connections and says nothing.
    Stalled,
    /// Nothing listens.
    Refusing,
    /// Answers so; asks to be left alone for so many seconds.
    Answers(u16, u64),
    /// Some of its answers break off.
    Breaks,
}

#[derive(Debug)]
pub(super) struct Engine {
    pub(super) mode: Mode,
    /// Counts its processes.
    pub(super) boot: u64,
    pub(super) is_up: bool,
    /// Shards that do not reach it.
    cut_from: BTreeSet<usize>,
    is_cut_from_control: bool,
}

pub(super) struct Engines(BTreeMap<String, Engine>);

impl Engine {
    pub(super) fn is_cut_from(&self, shard: usize) -> bool {
        self.cut_from.contains(&shard)
    }

    pub(super) fn listens(&self) -> bool {
        self.is_up && self.mode != Mode::Refusing
    }

    fn restart(&mut self) {
        self.boot += 1;
        self.is_up = true;
    }
}

impl Engines {
    pub(super) fn new(urls: &[String]) -> Self {
        let engine = || Engine {
            mode: Mode::Healthy,
            boot: 1,
            is_up: true,
            cut_from: BTreeSet::new(),
            is_cut_from_control: false,
        };
        Self(urls.iter().map(|url| (url.clone(), engine())).collect())
    }

    pub(super) fn get(&self, url: &str) -> &Engine {
        self.0.get(url).expect("every worker has an engine")
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// URLs of those that answer a health check.
    pub(super) fn seen_by_control(&self) -> BTreeSet<String> {
        let answers =
            |engine: &Engine| engine.listens() && !engine.is_cut_from_control && engine.mode != Mode::Stalled;
        self.0.iter().filter(|(_, engine)| answers(engine)).map(|(url, _)| url.clone()).collect()
    }

    /// All faults end.
    pub(super) fn heal(&mut self) {
        for engine in self.0.values_mut() {
            engine.mode = Mode::Healthy;
            engine.cut_from.clear();
            engine.is_cut_from_control = false;
            if !engine.is_up {
                engine.restart();
            }
        }
    }
}

impl Simulation {
    /// Something happens to an engine.
    pub(super) fn disturb(&mut self) {
        let (rng, shards) = (&mut self.rng, self.shards.len());
        let at = rng.random_range(0..self.engines.0.len());
        let engine = self.engines.0.values_mut().nth(at).expect("in range");
        let seen = &mut self.book.seen;
        let mut note = |what| *seen.entry(what).or_default() += 1;
        match rng.random_range(0..12) {
            0 => {
                note("crash");
                engine.is_up = false;
            }
            1 => {
                note("restart");
                engine.restart();
            }
            2 => {
                note("stall");
                engine.mode = Mode::Stalled;
            }
            3 => engine.mode = Mode::Slow,
            4 => engine.mode = Mode::Refusing,
            5 | 6 => {
                let status = [500, 502, 503, 503, 429, 429, 400, 408][rng.random_range(0..8)];
                engine.mode = Mode::Answers(status, [0, 0, 1, 60][rng.random_range(0..4)]);
            }
            7 => engine.mode = Mode::Breaks,
            8 => {
                note("partition");
                if rng.random_range(0..3) == 0 {
                    engine.is_cut_from_control = true;
                } else {
                    engine.cut_from.insert(rng.random_range(0..shards));
                }
            }
            _ => {
                engine.mode = Mode::Healthy;
                engine.cut_from.clear();
                engine.is_cut_from_control = false;
                if !engine.is_up {
                    engine.restart();
                }
            }
        }
    }
}
