//! What admission goes by: how many at a time, which classes there are, and what each may have.

use std::num::NonZeroU32;
use std::time::Duration;

/// Most classes of priority.
pub const CLASSES_MAX: usize = 4;
/// Most requests in flight where classes are told apart: as many as a field of the shared word can count.
pub const IN_FLIGHT_BY_CLASS_MAX: u32 = (1 << 13) - 1;
/// Most requests in flight.
pub const IN_FLIGHT_MAX: u32 = 1 << 24;
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
}

/// The classes of SGLang's gateway: name, places reserved, share of all places reserved in percent, queue, longest
/// wait and patience in seconds. Of the two ways to reserve the larger counts.
const BY_PRIORITY: [(&str, u32, u32, u32, u64, u64); CLASSES_MAX] = [
    ("system", 32, 0, 64, 30, 5),
    ("interactive", 128, 25, 256, 30, 5),
    ("default", 0, 10, 512, 60, 30),
    ("bulk", 0, 0, 1024, 300, 120),
];
/// Position of the default class among them.
const DEFAULT_CLASS: ClassId = ClassId(2);

impl GateRules {
    /// One class for all.
    pub fn plain(in_flight_max: u32, queue_max: u32, queue_timeout: Duration) -> Self {
        let class = ClassRules { name: "default", reserve: 0, queue_max, queue_timeout, starvation: None };
        Self {
            in_flight_max,
            starts_per_s: None,
            classes: vec![class],
            default_class: ClassId(0),
            class_max: ClassId(0),
        }
    }

    /// SGLang's four classes. Reserves take half of all places at most, cut in proportion where they ask for more, so
    /// that a gateway with few places still serves every class.
    pub fn by_priority(in_flight_max: u32) -> Self {
        let wanted = BY_PRIORITY.map(|(_, floor, share_percent, ..)| {
            u64::from(floor).max(u64::from(in_flight_max) * u64::from(share_percent) / 100)
        });
        let (all, half) = (wanted.iter().sum::<u64>(), u64::from(in_flight_max) / 2);
        let reserve = |wanted: u64| if all <= half { wanted } else { wanted * half / all };
        let classes = BY_PRIORITY
            .iter()
            .zip(wanted)
            .map(|(&(name, _, _, queue_max, timeout_s, starvation_s), wanted)| ClassRules {
                name,
                reserve: reserve(wanted) as u32,
                queue_max,
                queue_timeout: Duration::from_secs(timeout_s),
                starvation: Some(Duration::from_secs(starvation_s)),
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
    BY_PRIORITY.map(|(name, ..)| name)
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
