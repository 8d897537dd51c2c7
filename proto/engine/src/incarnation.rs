//! Whether the process behind a worker's address is still the one it was: an engine that restarted has an empty
//! prefix cache, however short its absence was.

use serde_json::Value;

/// Counters that only grow while a process lives, of every engine known.
pub(crate) const COUNTERS: [&str; 10] = [
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
    "vllm:request_success_total",
    "vllm:prefix_cache_queries_total",
    "sglang:prompt_tokens_total",
    "sglang:generation_tokens_total",
    "sglang:num_requests_total",
    "llamacpp:prompt_tokens_total",
    "llamacpp:tokens_predicted_total",
    "llamacpp:n_decode_total",
];

/// Start times closer than this are the same start: exporters work them out from a boot time that the system's clock
/// corrects by a second now and then. No engine restarts in less.
const START_TOLERANCE_S: f64 = 2.0;

/// By what a process can be told from the one that follows it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Marks {
    /// `process_start_time_seconds`, in seconds since 1970.
    pub started_s: Option<f64>,
    /// A number that the engine drew when it started.
    pub start_id: Option<u64>,
    /// The growing counters, each summed over its labels.
    pub counters: [Option<f64>; COUNTERS.len()],
    /// Whether a metrics page was read to its end, so that a counter which is not there is zero.
    pub has_page: bool,
}

/// A worker's process as last seen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Incarnation(Marks);

/// What marks say about a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The process that was there before, or the first that is seen.
    Same,
    /// Another process than before.
    Restarted,
}

// === impl Marks ===

impl Marks {
    /// The marks in SGLang's `/server_info`. Unless it was given one, an SGLang server draws its seed at its start
    /// and shows it.
    pub fn from_server_info(body: &[u8]) -> Self {
        let info: Option<Value> = serde_json::from_slice(body).ok();
        let start_id = info.as_ref().and_then(|info| info.get("random_seed")?.as_u64());
        Self { start_id, ..Self::default() }
    }

    /// What is marked here, and of the rest what is marked there.
    #[must_use]
    pub fn or(mut self, other: &Self) -> Self {
        self.started_s = self.started_s.or(other.started_s);
        self.start_id = self.start_id.or(other.start_id);
        for (counter, other) in self.counters.iter_mut().zip(&other.counters) {
            *counter = counter.or(*other);
        }
        self.has_page |= other.has_page;
        self
    }
}

// === impl Incarnation ===

impl Incarnation {
    /// Takes in what was seen now, and says whether it is another process.
    pub fn observe(&mut self, marks: &Marks) -> Seen {
        let before = &self.0;
        let is_other_start = both(before.started_s, marks.started_s)
            .is_some_and(|(before, now)| (before - now).abs() > START_TOLERANCE_S);
        let is_other_id = both(before.start_id, marks.start_id).is_some_and(|(before, now)| before != now);
        let counters = before.counters.iter().zip(&marks.counters);
        let has_gone_back = counters.into_iter().any(|(&before, &now)| {
            // Labelled counters are not shown before they are first counted.
            let now = now.or(marks.has_page.then_some(0.0));
            both(before, now).is_some_and(|(before, now)| now < before)
        });
        if is_other_start || is_other_id || has_gone_back {
            self.0 = *marks;
            Seen::Restarted
        } else {
            self.0 = marks.or(before);
            Seen::Same
        }
    }
}

fn both<T>(before: Option<T>, now: Option<T>) -> Option<(T, T)> {
    Some((before?, now?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(count: f64) -> Marks {
        let mut marks = Marks { has_page: true, ..Marks::default() };
        marks.counters[0] = Some(count);
        marks
    }

    fn started(started_s: f64) -> Marks {
        Marks { started_s: Some(started_s), has_page: true, ..Marks::default() }
    }

    fn drawn(start_id: u64) -> Marks {
        Marks { start_id: Some(start_id), ..Marks::default() }
    }

    #[track_caller]
    fn check(marks: &[Marks], expect: &[Seen]) {
        let mut incarnation = Incarnation::default();
        let seen: Vec<Seen> = marks.iter().map(|marks| incarnation.observe(marks)).collect();
        assert_eq!(seen, expect);
    }

    #[test]
    fn the_first_look_is_no_restart() {
        check(&[counted(5.0)], &[Seen::Same]);
        check(&[started(1e9)], &[Seen::Same]);
        check(&[drawn(1)], &[Seen::Same]);
    }

    #[test]
    fn counters_that_grow_are_the_same_process() {
        check(&[counted(5.0), counted(5.0), counted(9.0)], &[Seen::Same; 3]);
    }

    #[test]
    fn a_counter_that_goes_back_is_a_restart_once() {
        check(
            &[counted(5.0), counted(2.0), counted(2.0), counted(3.0)],
            &[Seen::Same, Seen::Restarted, Seen::Same, Seen::Same],
        );
    }

    #[test]
    fn a_counter_missing_from_a_whole_page_is_zero() {
        let empty = Marks { has_page: true, ..Marks::default() };
        check(&[counted(5.0), empty, counted(1.0)], &[Seen::Same, Seen::Restarted, Seen::Same]);
        check(&[counted(0.0), empty], &[Seen::Same; 2]);
    }

    #[test]
    fn without_a_page_nothing_is_missing() {
        check(&[counted(5.0), Marks::default(), counted(5.0)], &[Seen::Same; 3]);
        check(&[counted(5.0), Marks::default(), counted(4.0)], &[Seen::Same, Seen::Same, Seen::Restarted]);
    }

    #[test]
    fn another_start_is_a_restart_and_a_corrected_clock_is_not() {
        check(&[started(1e9), started(1e9 + 1.0), started(1e9)], &[Seen::Same; 3]);
        check(&[started(1e9), started(1e9 + 60.0)], &[Seen::Same, Seen::Restarted]);
    }

    #[test]
    fn another_seed_is_a_restart() {
        check(
            &[drawn(1), drawn(1), drawn(2), drawn(2)],
            &[Seen::Same, Seen::Same, Seen::Restarted, Seen::Same],
        );
    }

    #[test]
    fn the_seed_stands_in_the_server_info() {
        assert_eq!(Marks::from_server_info(br#"{"random_seed":77,"version":"0.5"}"#).start_id, Some(77));
        for body in ["", "[]", r#"{"random_seed":null}"#, r#"{"random_seed":-1}"#, "{"] {
            assert_eq!(Marks::from_server_info(body.as_bytes()), Marks::default());
        }
    }
}
