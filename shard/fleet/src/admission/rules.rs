//! What admission goes by: how many at a time, which classes there are, and what each may have.

use std::num::NonZeroU32;
use std::time::Duration;

/// Most classes of priority.
pub const CLASSES_MAX: usize = 4;
/// Most requests in flight where classes are told apart: as many as a field of the shared word can count.
pub const IN_FLIGHT_BY_CLASS_MAX: u32 = (1 << 13) - 1;
/// Most requests in flight.
pub const IN_FLIGHT_MAX: u32 = 1 << 24;
/// Most places in the queues of all classes together where classes are told apart.
pub const QUEUE_BY_CLASS_MAX: u32 = (1 << 12) - 1 - super::ARRIVALS_TO_JUDGE_MAX;
/// Most places in the queue: what waits holds its connection and body, and a queue of more than a minute helps nobody.
pub const QUEUE_MAX: u32 = 1 << 16;
/// Most request starts per second that can be asked for; time in its units then lasts for years.
pub const STARTS_PER_S_MAX: u32 = 100_000;

/// A class of priority: its position in [`GateRules::classes`], the highest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassId(pub u8);

/// What admission goes by.
#[derive(Clone, Debug)]
pub struct GateRules {
    /// Requests in flight at a time.
    pub in_flight_max: u32,
    /// Request starts per second, with a burst of `in_flight_max`; none for no such limit.
    pub starts_per_s: Option<NonZeroU32>,
    /// Classes of priority, the highest first: one, or up to [`CLASSES_MAX`].
    pub classes: Vec<ClassRules>,
    /// The class of requests that ask for none.
    pub default_class: ClassId,
    /// The highest class that a request can ask for.
    pub class_max: ClassId,
}

/// What a class may have.
#[derive(Clone, Debug)]
pub struct ClassRules {
    /// Its name, in requests and in metrics.
    pub name: &'static str,
    /// Places that no other class takes, even while they are free.
    pub reserve: u32,
    /// Places in its queue; 0 for no queue.
    pub queue_max: u32,
    /// Longest wait.
    pub queue_timeout: Duration,
    /// Wait after which a request may go before a higher class.
    pub starvation: Option<Duration>,
    /// Whether a request of it that finds no room breaks off one of a lower class that has not begun to answer. If it
    /// does, so do all classes above it.
    pub preempts: bool,
}

/// What a class of priority is given, before it is known how many places there are.
#[derive(Clone, Copy, Debug)]
pub struct ClassSettings {
    /// Its name, in requests and in metrics.
    pub name: &'static str,
    /// Places that it has for itself, at least.
    pub reserved_floor: u32,
    /// Share of all places that it has for itself, 0 to 1, if that is more.
    pub share: f64,
    /// Places in its queue.
    pub queue_size: u32,
    /// Longest wait in seconds.
    pub queue_timeout_s: u64,
    /// Wait in seconds after which a request may go before a higher class.
    pub starvation_s: u64,
    /// Whether it breaks off lower classes.
    pub preempt: bool,
}

/// The classes of SGLang's gateway, the highest first.
pub const PRIORITIES: [ClassSettings; CLASSES_MAX] = [
    ClassSettings {
        name: "system",
        reserved_floor: 32,
        share: 0.0,
        queue_size: 64,
        queue_timeout_s: 30,
        starvation_s: 5,
        preempt: true,
    },
    ClassSettings {
        name: "interactive",
        reserved_floor: 128,
        share: 0.25,
        queue_size: 256,
        queue_timeout_s: 30,
        starvation_s: 5,
        preempt: true,
    },
    ClassSettings {
        name: "default",
        reserved_floor: 0,
        share: 0.1,
        queue_size: 512,
        queue_timeout_s: 60,
        starvation_s: 30,
        preempt: false,
    },
    ClassSettings {
        name: "bulk",
        reserved_floor: 0,
        share: 0.0,
        queue_size: 1024,
        queue_timeout_s: 300,
        starvation_s: 120,
        preempt: false,
    },
];
/// Position of the default class among them.
const DEFAULT_CLASS: ClassId = ClassId(2);

impl GateRules {
    /// One class for all.
    pub fn plain(in_flight_max: u32, queue_max: u32, queue_timeout: Duration) -> Self {
        let class = ClassRules {
            name: "default",
            reserve: 0,
            queue_max,
            queue_timeout,
            starvation: None,
            preempts: false,
        };
        Self {
            in_flight_max,
            starts_per_s: None,
            classes: vec![class],
            default_class: ClassId(0),
            class_max: ClassId(0),
        }
    }

    /// SGLang's four classes.
    pub fn by_priority(in_flight_max: u32) -> Self {
        Self::with_classes(in_flight_max, &PRIORITIES)
    }

    /// The four classes with these settings. Reserves take half of all places at most, cut in proportion where they ask
    /// for more, so that a gateway with few places still serves every class.
    pub fn with_classes(in_flight_max: u32, settings: &[ClassSettings; CLASSES_MAX]) -> Self {
        let wanted = settings.map(|class| {
            let share = (f64::from(in_flight_max) * class.share).floor() as u64;
            u64::from(class.reserved_floor).max(share)
        });
        let (all, half) = (wanted.iter().sum::<u64>(), u64::from(in_flight_max) / 2);
        let reserve = |wanted: u64| if all <= half { wanted } else { wanted * half / all };
        let classes = settings
            .iter()
            .zip(wanted)
            .map(|(class, wanted)| ClassRules {
                name: class.name,
                reserve: reserve(wanted) as u32,
                queue_max: class.queue_size,
                queue_timeout: Duration::from_secs(class.queue_timeout_s),
                starvation: Some(Duration::from_secs(class.starvation_s)),
                preempts: class.preempt,
            })
            .collect();
        Self {
            in_flight_max,
            starts_per_s: None,
            classes,
            default_class: DEFAULT_CLASS,
            class_max: DEFAULT_CLASS,
        }
    }

    /// How many of the highest classes preempt.
    pub(super) fn preempting(&self) -> usize {
        self.classes.iter().take_while(|class| class.preempts).count()
    }

    /// How many may wait in all queues together.
    pub(super) fn places(&self) -> u32 {
        self.classes.iter().map(|class| class.queue_max).sum()
    }

    /// Every class's position.
    pub fn class_ids(&self) -> impl Iterator<Item = ClassId> + use<> {
        (0..self.classes.len()).map(|at| ClassId(at as u8))
    }

    /// What `class` may have.
    pub fn class(&self, class: ClassId) -> &ClassRules {
        &self.classes[usize::from(class.0)]
    }

    /// The class of that name, in whatever case.
    pub fn class_named(&self, name: &[u8]) -> Option<ClassId> {
        let at = self.classes.iter().position(|class| class.name.as_bytes().eq_ignore_ascii_case(name))?;
        Some(ClassId(at as u8))
    }
}

/// Names of SGLang's classes, the highest first.
pub fn priority_names() -> [&'static str; CLASSES_MAX] {
    PRIORITIES.map(|class| class.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reserves(in_flight_max: u32) -> Vec<u32> {
        GateRules::by_priority(in_flight_max).classes.iter().map(|class| class.reserve).collect()
    }

    #[test]
    fn reserves_are_sglangs_where_there_is_room() {
        assert_eq!(reserves(1000), [32, 250, 100, 0]);
        assert_eq!(reserves(400), [32, 128, 40, 0]);
    }

    #[test]
    fn reserves_take_half_of_few_places_at_most() {
        for in_flight_max in 1..400 {
            assert!(reserves(in_flight_max).iter().sum::<u32>() <= in_flight_max / 2);
        }
        assert_eq!(reserves(64), [6, 24, 1, 0]);
        assert_eq!(reserves(1), [0, 0, 0, 0]);
    }

    #[test]
    fn classes_are_found_by_name() {
        let rules = GateRules::by_priority(10);
        assert_eq!(rules.class_named(b"Interactive"), Some(ClassId(1)));
        assert_eq!(rules.class_named(b"urgent"), None);
        assert_eq!(rules.class(rules.default_class).name, "default");
    }
}
