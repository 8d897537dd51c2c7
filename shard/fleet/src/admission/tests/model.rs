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

/// One in flight.
#[derive(Clone, Debug)]
struct Flies {
    number: u64,
    class: usize,
    /// Whether it may be broken off.
    is_open: bool,
    is_broken_off: bool,
}

/// What the gate should do, said as plainly as possible.
struct Model {
    rules: GateRules,
    /// In order of admission.
    in_flight: Vec<Flies>,
    /// In order of arrival.
    waiting: Vec<Waits>,
    /// By class: virtual time, and where each tenant's next request starts.
    shares: Vec<(u64, BTreeMap<u64, u64>)>,
    starts_in_turn: u32,
    /// Places of those that were broken off which are still for who had that done.
    owed: u32,
}

/// What a step led to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    admitted: BTreeSet<u64>,
    refused: BTreeSet<u64>,
    broken_off: BTreeSet<u64>,
}

impl Model {
    fn new(rules: &GateRules) -> Model {
        let classes = rules.classes.len();
        Model {
            rules: rules.clone(),
            in_flight: Vec::new(),
            waiting: Vec::new(),
            shares: vec![(1 << 40, BTreeMap::new()); classes],
            starts_in_turn: 0,
            owed: 0,
        }
    }

    fn flying(&self, class: usize) -> u32 {
        self.in_flight.iter().filter(|it| it.class == class).count() as u32
    }

    /// What is left after one more of `class` must cover what the others have reserved and do not use.
    fn may_start(&self, class: usize) -> bool {
        let total = self.in_flight.len() as u32;
        let owed: u32 = (0..self.rules.classes.len())
            .filter(|&other| other != class)
            .map(|other| self.rules.classes[other].reserve.saturating_sub(self.flying(other)))
            .sum();
        total + 1 + owed <= self.rules.in_flight_max
    }

    fn start(&mut self, number: u64, class: usize, is_promoted: bool) {
        let is_open = class > 0 && self.rules.classes[0].preempts && !is_promoted;
        self.in_flight.push(Flies { number, class, is_open, is_broken_off: false });
    }

    fn end(&mut self, number: u64) {
        let at = self.in_flight.iter().position(|it| it.number == number).expect("it flies");
        self.owed += u32::from(self.in_flight.remove(at).is_broken_off);
    }

    /// Whether it may begin to answer.
    fn begin(&mut self, number: u64) -> bool {
        let flies = self.in_flight.iter_mut().find(|it| it.number == number).expect("it flies");
        flies.is_open = false;
        !flies.is_broken_off
    }

    /// Each who waits in a class that preempts has one broken off, unless one is about to end for it.
    fn preempt(&mut self, told: &mut Told) {
        let beyond = |it: &Self, class: usize| {
            let own = it.rules.classes[class].reserve;
            it.flying(class).saturating_sub(own)
        };
        let own: u32 = self.rules.classes.iter().map(|class| class.reserve).sum();
        let taken: u32 = (0..self.rules.classes.len()).map(|class| beyond(self, class)).sum();
        if taken > self.rules.in_flight_max - own {
            return;
        }
        for class in 0..self.rules.classes.len() {
            if !self.rules.classes[class].preempts {
                return;
            }
            let waiting = (0..=class).map(|above| self.count(above, None)).sum::<usize>();
            while self.count(class, None) > 0
                && self.in_flight.iter().filter(|it| it.is_broken_off).count() < waiting
            {
                let ending = |at: usize| {
                    self.in_flight.iter().filter(|it| it.class == at && it.is_broken_off).count() as u32
                };
                let may_yield =
                    |it: &Flies| it.is_open && it.class > class && beyond(self, it.class) > ending(it.class);
                let newest_of_lowest = (self.in_flight.iter().enumerate())
                    .filter(|(_, it)| may_yield(it))
                    .max_by_key(|(at, it)| (it.class, *at));
                let Some((at, _)) = newest_of_lowest else { break };
                let flies = &mut self.in_flight[at];
                (flies.is_open, flies.is_broken_off) = (false, true);
                told.broken_off.insert(flies.number);
            }
        }
    }

    fn count(&self, class: usize, tenant: Option<u64>) -> usize {
        let is_meant = |waits: &&Waits| waits.class == class && tenant.is_none_or(|it| it == waits.tenant);
        self.waiting.iter().filter(is_meant).count()
    }

    fn enter(&mut self, waits: Waits, told: &mut Told) {
        let (class, tenant) = (waits.class, waits.tenant);
        if self.waiting.is_empty() && self.may_start(class) {
            self.start(waits.number, class, false);
            told.admitted.insert(waits.number);
            return;
        }
        if self.rules.places() == 0 {
            told.refused.insert(waits.number);
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
            let is_ready = |it: &Self, class: usize| it.count(class, None) > 0 && it.may_start(class);
            let Some(class) = (0..self.rules.classes.len()).find(|&class| is_ready(self, class)) else {
                return;
            };
            if !self.waiting.iter().any(|it| self.rules.classes[it.class].preempts) {
                self.owed = 0;
            }
            let starved = self.waiting.iter().position(|it| {
                let patience = self.rules.classes[it.class].starvation;
                self.starts_in_turn + 1 >= PROMOTION_EVERY
                    && self.owed == 0
                    && it.class > class
                    && is_ready(self, it.class)
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
            if self.rules.classes[next.class].preempts {
                self.owed = self.owed.saturating_sub(1);
            }
            self.start(next.number, next.class, starved.is_some());
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

fn rules(rng: &mut SmallRng, has_classes: bool) -> GateRules {
    let in_flight_max = rng.random_range(1..9);
    if !has_classes {
        return GateRules::plain(in_flight_max, rng.random_range(0..8), Duration::from_secs(60));
    }
    let preempting = rng.random_range(0..4);
    let mut rules = GateRules::by_priority(in_flight_max);
    for (at, class) in rules.classes.iter_mut().enumerate() {
        class.queue_max = rng.random_range(1..6);
        class.starvation = Some(Duration::from_micros(rng.random_range(1..50)));
        class.preempts = at < preempting;
    }
    rules
}

/// Whether a permit is told to end.
fn is_broken_off(gate: &Gate, permit: &Permit) -> bool {
    let cx = Context::from_waker(std::task::Waker::noop());
    permit.stake().is_some_and(|stake| gate.poll_preempted(stake, &cx).is_ready())
}

/// The gate and the model, taken through the same steps.
struct Both {
    gate: Gate,
    model: Model,
    permits: Vec<(u64, Permit)>,
    tickets: Vec<(u64, Ticket)>,
    told: Told,
    expected: Told,
    broken_off_total: usize,
}

impl Both {
    fn new(rules: &GateRules) -> Both {
        Both {
            gate: Gate::new(rules.clone()),
            model: Model::new(rules),
            permits: Vec::new(),
            tickets: Vec::new(),
            told: Told::default(),
            expected: Told::default(),
            broken_off_total: 0,
        }
    }

    fn enter(&mut self, number: u64, rng: &mut SmallRng) {
        let class = rng.random_range(0..self.model.rules.classes.len());
        let (tenant, tokens) = (rng.random_range(0..4), rng.random_range(1..100));
        self.model.enter(Waits { number, class, tenant, tokens, entered_us: number }, &mut self.expected);
        match self.gate.enter(ClassId(class as u8), number, || claim(tenant, tokens)) {
            Entry::Admitted(permit) => {
                self.told.admitted.insert(number);
                self.permits.push((number, permit));
            }
            Entry::Queued(ticket) => self.tickets.push((number, ticket)),
            Entry::Full => {
                self.told.refused.insert(number);
            }
        }
    }

    fn step(&mut self, now_us: u64, rng: &mut SmallRng) {
        match rng.random_range(0..24) {
            0..10 => self.enter(now_us, rng),
            10..17 if !self.permits.is_empty() => {
                let (number, permit) = self.permits.swap_remove(rng.random_range(0..self.permits.len()));
                self.model.end(number);
                if self.gate.release(permit, None) {
                    self.gate.pump(now_us);
                }
            }
            17..20 if !self.permits.is_empty() => {
                let (number, permit) = &self.permits[rng.random_range(0..self.permits.len())];
                let begins = permit.stake().is_none_or(|stake| self.gate.begin_answer(stake));
                assert_eq!(begins, self.model.begin(*number));
            }
            20 => {
                let rules = rules(rng, self.gate.has_classes());
                self.model.rules = rules.clone();
                self.gate.set_rules(rules, now_us);
            }
            _ if !self.tickets.is_empty() => {
                let (number, ticket) = self.tickets.swap_remove(rng.random_range(0..self.tickets.len()));
                self.model.leave(number);
                assert!(self.gate.leave(ticket), "a place that is given up is news");
                self.gate.pump(now_us);
            }
            _ => {}
        }
        self.model.admit(now_us, &mut self.expected);
        self.model.preempt(&mut self.expected);
    }

    /// Looks who has been told what.
    fn look(&mut self, before: &BTreeSet<u64>) {
        let Both { tickets, permits, told, gate, .. } = self;
        tickets.retain_mut(|(number, ticket)| match verdict(ticket) {
            Some(Verdict::Admitted { permit, .. }) => {
                told.admitted.insert(*number);
                permits.push((*number, permit));
                false
            }
            Some(Verdict::Refused) => {
                told.refused.insert(*number);
                false
            }
            None => true,
        });
        let now = permits.iter().filter(|(_, permit)| is_broken_off(gate, permit));
        told.broken_off = now.map(|(number, _)| *number).filter(|number| !before.contains(number)).collect();
        self.broken_off_total += told.broken_off.len();
    }
}

#[test]
fn the_gate_does_as_the_model_says() {
    let mut broken_off = 0;
    for seed in 0..SEEDS {
        let mut rng = SmallRng::seed_from_u64(seed);
        let has_classes = rng.random_range(0..3) > 0;
        let mut both = Both::new(&rules(&mut rng, has_classes));
        for step in 0..STEPS as u64 {
            let broken_off: BTreeSet<u64> =
                both.model.in_flight.iter().filter(|it| it.is_broken_off).map(|it| it.number).collect();
            let total_before = both.model.in_flight.len();
            both.step(step, &mut rng);
            both.look(&broken_off);
            let (told, expected) = (std::mem::take(&mut both.told), std::mem::take(&mut both.expected));
            assert_eq!(told, expected, "seed {seed}, step {step}");
            for class in both.gate.rules().class_ids() {
                let at = usize::from(class.0);
                assert_eq!(both.gate.in_flight(class), u64::from(both.model.flying(at)), "seed {seed}");
                assert_eq!(both.gate.depth(class) as usize, both.model.count(at, None), "seed {seed}");
            }
            // Beyond the limit only as long as it has been lowered, and then nobody is added.
            let limit = both.model.rules.in_flight_max as usize;
            assert!(both.permits.len() <= limit.max(total_before), "seed {seed}, step {step}");
        }
        broken_off += both.broken_off_total;
        let Both { gate, permits, tickets, .. } = both;
        tickets.into_iter().for_each(|(_, ticket)| leave(&gate, ticket));
        permits.into_iter().for_each(|(_, permit)| release(&gate, permit));
        assert_empty(&gate);
    }
    assert!(broken_off > 1_000, "{broken_off}");
}
