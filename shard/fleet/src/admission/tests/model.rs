//! The gate against a model that looks through one plain list, over random arrivals, ends and leavings.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::super::arbiter::PROMOTION_EVERY;
use super::*;

const SEEDS: u64 = 1_200;
const STEPS: usize = 250;

/// One who waits.
#[derive(Clone, Debug)]
struct Waits {
    number: u64,
    class: usize,
    tenant: u64,
    tokens: u32,
    entered_us: u64,
}

/// What the gate should do, said as plainly as possible.
struct Model {
    rules: GateRules,
    in_flight: Vec<u32>,
    /// In order of arrival.
    waiting: Vec<Waits>,
    /// By class: virtual time, and where each tenant's next request starts.
    shares: Vec<(u64, BTreeMap<u64, u64>)>,
    starts_in_turn: u32,
}

/// What a step led to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    admitted: BTreeSet<u64>,
    refused: BTreeSet<u64>,
}

impl Model {
    fn new(rules: &GateRules) -> Model {
        let classes = rules.classes.len();
        Model {
            rules: rules.clone(),
            in_flight: vec![0; classes],
            waiting: Vec::new(),
            shares: vec![(1 << 40, BTreeMap::new()); classes],
            starts_in_turn: 0,
        }
    }

    /// What is left after one more of `class` must cover what the others have reserved and do not use.
    fn may_start(&self, class: usize) -> bool {
        let total: u32 = self.in_flight.iter().sum();
        let owed: u32 = (0..self.in_flight.len())
            .filter(|&other| other != class)
            .map(|other| self.rules.classes[other].reserve.saturating_sub(self.in_flight[other]))
            .sum();
        total + 1 + owed <= self.rules.in_flight_max
    }

    fn count(&self, class: usize, tenant: Option<u64>) -> usize {
        let is_meant = |waits: &&Waits| waits.class == class && tenant.is_none_or(|it| it == waits.tenant);
        self.waiting.iter().filter(is_meant).count()
    }

    fn enter(&mut self, waits: Waits, told: &mut Told) {
        let (class, tenant) = (waits.class, waits.tenant);
        if self.waiting.is_empty() && self.may_start(class) {
            self.in_flight[class] += 1;
            told.admitted.insert(waits.number);
            return;
        }
        if self.count(class, None) >= self.rules.classes[class].queue_max as usize {
            let tenants: BTreeSet<u64> =
                self.waiting.iter().filter(|it| it.class == class).map(|it| it.tenant).collect();
            let largest = tenants.iter().max_by_key(|it| (self.count(class, Some(**it)), **it));
            let Some(&holder) =
                largest.filter(|it| self.count(class, Some(**it)) >= self.count(class, Some(tenant)) + 2)
            else {
                told.refused.insert(waits.number);
                return;
            };
            let is_held = |it: &Waits| it.class == class && it.tenant == holder;
            let last = self.waiting.iter().rposition(is_held).expect("it holds some");
            told.refused.insert(self.waiting.remove(last).number);
        }
        let is_new = self.count(class, Some(tenant)) == 0;
        let (time, tags) = &mut self.shares[class];
        let tag = tags.entry(tenant).or_insert(*time);
        if is_new {
            *tag = (*tag).max(*time);
        }
        self.waiting.push(waits);
    }

    fn leave(&mut self, number: u64) {
        let at = self.waiting.iter().position(|it| it.number == number).expect("it waits");
        let class = self.waiting.remove(at).class;
        self.forget(class);
    }

    /// Nothing is remembered of who is not ahead, and of nobody once nobody waits.
    fn forget(&mut self, class: usize) {
        let waiting: BTreeSet<u64> =
            self.waiting.iter().filter(|it| it.class == class).map(|it| it.tenant).collect();
        let (time, tags) = &mut self.shares[class];
        if waiting.is_empty() {
            *time = tags.values().copied().max().unwrap_or(0).max(*time);
        }
        tags.retain(|tenant, tag| waiting.contains(tenant) || *tag > *time);
    }

    fn admit(&mut self, now_us: u64, told: &mut Told) {
        loop {
            let is_ready = |class: &usize| self.count(*class, None) > 0 && self.may_start(*class);
            let Some(class) = (0..self.in_flight.len()).find(is_ready) else { return };
            let starved = self.waiting.iter().position(|it| {
                let patience = self.rules.classes[it.class].starvation;
                self.starts_in_turn + 1 >= PROMOTION_EVERY
                    && it.class > class
                    && is_ready(&it.class)
                    && patience.is_some_and(|it_is| now_us - it.entered_us >= it_is.as_micros() as u64)
            });
            let at = starved.unwrap_or_else(|| self.fair(class));
            self.starts_in_turn = if starved.is_some() { 0 } else { self.starts_in_turn + 1 };
            let next = self.waiting.remove(at);
            let (time, tags) = &mut self.shares[next.class];
            let tag = tags.get_mut(&next.tenant).expect("it waited");
            if starved.is_none() {
                *time = (*time).max(*tag);
            }
            *tag += u64::from(next.tokens);
            self.in_flight[next.class] += 1;
            told.admitted.insert(next.number);
            self.forget(next.class);
        }
    }

    /// The first of the tenant that is least ahead.
    fn fair(&self, class: usize) -> usize {
        let tags = &self.shares[class].1;
        let of_class = self.waiting.iter().enumerate().filter(|(_, it)| it.class == class);
        of_class.min_by_key(|(_, it)| (tags[&it.tenant], it.tenant)).expect("somebody waits").0
    }
}

fn rules(rng: &mut SmallRng) -> GateRules {
    let in_flight_max = rng.random_range(1..9);
    if rng.random_range(0..2) == 0 {
        return GateRules::plain(in_flight_max, rng.random_range(0..8), Duration::from_secs(60));
    }
    let mut rules = GateRules::by_priority(in_flight_max);
    for class in &mut rules.classes {
        class.queue_max = rng.random_range(1..6);
        class.starvation = Some(Duration::from_micros(rng.random_range(1..50)));
    }
    rules
}

#[test]
fn the_gate_does_as_the_model_says() {
    for seed in 0..SEEDS {
        let mut rng = SmallRng::seed_from_u64(seed);
        let rules = rules(&mut rng);
        let gate = Gate::new(rules.clone());
        let mut model = Model::new(&rules);
        let mut permits: Vec<(usize, Permit)> = Vec::new();
        let mut tickets: Vec<(u64, usize, Ticket)> = Vec::new();
        for step in 0..STEPS as u64 {
            let now_us = step;
            let (mut told, mut expected) = (Told::default(), Told::default());
            match rng.random_range(0..10) {
                0..5 => {
                    let class = rng.random_range(0..rules.classes.len());
                    let (tenant, tokens) = (rng.random_range(0..4), rng.random_range(1..100));
                    model.enter(
                        Waits { number: step, class, tenant, tokens, entered_us: now_us },
                        &mut expected,
                    );
                    let id = ClassId(class as u8);
                    match gate.enter(id, now_us, || claim(tenant, tokens)) {
                        Entry::Admitted(permit) => {
                            told.admitted.insert(step);
                            permits.push((class, permit));
                        }
                        Entry::Queued(ticket) => tickets.push((step, class, ticket)),
                        Entry::Full => {
                            told.refused.insert(step);
                        }
                    }
                }
                5..9 if !permits.is_empty() => {
                    let (class, permit) = permits.swap_remove(rng.random_range(0..permits.len()));
                    model.in_flight[class] -= 1;
                    if gate.release(permit, None) {
                        gate.pump(now_us);
                    }
                }
                _ if !tickets.is_empty() => {
                    let (number, _, ticket) = tickets.swap_remove(rng.random_range(0..tickets.len()));
                    model.leave(number);
                    assert!(gate.leave(ticket), "a place that is given up is news");
                    gate.pump(now_us);
                }
                _ => {}
            }
            model.admit(now_us, &mut expected);
            tickets.retain_mut(|(number, class, ticket)| match verdict(ticket) {
                Some(Verdict::Admitted { permit, .. }) => {
                    told.admitted.insert(*number);
                    permits.push((*class, permit));
                    false
                }
                Some(Verdict::Refused) => {
                    told.refused.insert(*number);
                    false
                }
                None => true,
            });
            assert_eq!(told, expected, "seed {seed}, step {step}");
            for class in rules.class_ids() {
                let at = usize::from(class.0);
                assert_eq!(gate.in_flight(class), u64::from(model.in_flight[at]), "seed {seed}");
                assert_eq!(gate.depth(class) as usize, model.count(at, None), "seed {seed}, step {step}");
            }
            let total: u64 = rules.class_ids().map(|class| gate.in_flight(class)).sum();
            assert!(total <= u64::from(rules.in_flight_max));
        }
        tickets.into_iter().for_each(|(.., ticket)| leave(&gate, ticket));
        permits.into_iter().for_each(|(_, permit)| release(&gate, permit));
        assert_empty(&gate);
    }
}
