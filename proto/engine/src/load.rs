//! What a worker is busy with: the one type for it, and the JSON answers of `/get_load` and `/v1/loads`.

use serde_json::Value;

/// What an engine is busy with, or one rank of it. What it does not tell is unknown, which is not zero.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EngineLoad {
    /// Requests that it computes.
    pub running: Option<u32>,
    /// Requests that wait for a place.
    pub waiting: Option<u32>,
    /// Tokens in use; with SGLang's JSON also those of the requests that wait.
    pub tokens: Option<u64>,
    /// Share of the KV cache that is taken, between 0 and 1; the mean over ranks.
    pub kv_used: Option<f32>,
}

// === impl EngineLoad ===

impl EngineLoad {
    /// Reads the answer of `/v1/loads` or `/get_load`, of one rank or summed over all; none when it says nothing.
    ///
    /// Understood are SGLang's list of `{"num_reqs", "num_waiting_reqs", "num_tokens"}` per rank, its newer
    /// `{"loads": [{"num_running_reqs", "num_waiting_reqs", "num_total_tokens", "token_usage"}]}` and the
    /// `{"aggregate": {"total_tokens"}}` between the two.
    pub fn from_json(body: &[u8], rank: Option<u16>) -> Option<Self> {
        let load = match (serde_json::from_slice(body).ok()?, rank) {
            (Value::Array(ranks), _) => over_ranks(of_rank(&ranks, rank)),
            // What is said of all ranks together says nothing of one.
            (Value::Object(object), Some(_)) => {
                let ranks = object.get("loads").and_then(Value::as_array)?;
                over_ranks(of_rank(ranks, rank))
            }
            (Value::Object(object), None) => {
                let by_rank = object.get("loads").and_then(Value::as_array).map(|ranks| over_ranks(ranks));
                let aggregate = object.get("aggregate").map(aggregate);
                let whole =
                    Self { tokens: object.get("num_tokens").and_then(Value::as_u64), ..Self::default() };
                by_rank.unwrap_or_default().or(aggregate.unwrap_or_default()).or(whole)
            }
            _ => Self::default(),
        };
        load.is_known().then_some(load)
    }

    /// Whether anything is known.
    pub fn is_known(&self) -> bool {
        *self != Self::default()
    }

    /// What is known here, and of the rest what is known there.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            running: self.running.or(other.running),
            waiting: self.waiting.or(other.waiting),
            tokens: self.tokens.or(other.tokens),
            kv_used: self.kv_used.or(other.kv_used),
        }
    }
}

/// Tokens in use by one rank of a worker or by all, or `None` when the answer does not say.
pub fn tokens(body: &[u8], rank: Option<u16>) -> Option<u64> {
    EngineLoad::from_json(body, rank)?.tokens
}

/// The part of a list by rank that is about `rank`: what names it, else what stands in its place.
fn of_rank(ranks: &[Value], rank: Option<u16>) -> &[Value] {
    let Some(rank) = rank else { return ranks };
    let names = |entry: &Value| entry.get("dp_rank").and_then(Value::as_u64);
    let at = match ranks.iter().position(|entry| names(entry) == Some(rank.into())) {
        None if ranks.iter().any(|entry| names(entry).is_some()) => ranks.len(),
        None => rank.into(),
        Some(at) => at,
    };
    ranks.get(at..=at).unwrap_or_default()
}

fn over_ranks(ranks: &[Value]) -> EngineLoad {
    let sum = |of: fn(&Value) -> Option<u64>| ranks.iter().filter_map(of).reduce(u64::saturating_add);
    let usages: Vec<f64> = ranks.iter().filter_map(|rank| rank.get("token_usage")?.as_f64()).collect();
    EngineLoad {
        running: sum(rank_running).map(saturated),
        waiting: sum(|rank| rank.get("num_waiting_reqs")?.as_u64()).map(saturated),
        tokens: sum(|rank| first(rank, &["num_tokens", "num_total_tokens", "num_used_tokens"])),
        kv_used: share(usages.iter().sum(), usages.len()),
    }
}

/// The oldest answers count running and waiting requests together.
fn rank_running(rank: &Value) -> Option<u64> {
    let counted_apart = rank.get("num_running_reqs").and_then(Value::as_u64);
    counted_apart.or_else(|| {
        let waiting = rank.get("num_waiting_reqs")?.as_u64()?;
        Some(rank.get("num_reqs")?.as_u64()?.saturating_sub(waiting))
    })
}

fn aggregate(aggregate: &Value) -> EngineLoad {
    EngineLoad {
        running: first(aggregate, &["total_running_reqs"]).map(saturated),
        waiting: first(aggregate, &["total_waiting_reqs"]).map(saturated),
        tokens: first(aggregate, &["total_tokens"]),
        kv_used: aggregate.get("avg_token_usage").and_then(Value::as_f64).and_then(|usage| share(usage, 1)),
    }
}

fn first(object: &Value, keys: &[&str]) -> Option<u64> {
    keys.iter().find_map(|key| object.get(key)?.as_u64())
}

fn saturated(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The mean of shares, none of nothing.
pub(crate) fn share(sum: f64, count: usize) -> Option<f32> {
    (count > 0 && sum.is_finite()).then(|| (sum / count as f64).clamp(0.0, 1.0) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(body: &str, expect: Option<EngineLoad>) {
        assert_eq!(EngineLoad::from_json(body.as_bytes(), None), expect, "{body}");
        assert_eq!(tokens(body.as_bytes(), None), expect.and_then(|load| load.tokens), "{body}");
    }

    fn load(running: u32, waiting: u32, tokens: u64) -> EngineLoad {
        EngineLoad { running: Some(running), waiting: Some(waiting), tokens: Some(tokens), kv_used: None }
    }

    #[test]
    fn ranks_are_added_up() {
        check(
            r#"[{"dp_rank":0,"num_reqs":3,"num_waiting_reqs":1,"num_tokens":7},{"dp_rank":1,"num_tokens":3}]"#,
            Some(load(2, 1, 10)),
        );
        let two_ranks = r#"{"loads":[
            {"dp_rank":0,"num_running_reqs":1,"num_waiting_reqs":0,"num_used_tokens":4,"num_total_tokens":5,"token_usage":0.25},
            {"dp_rank":1,"num_running_reqs":2,"num_waiting_reqs":9,"num_used_tokens":6,"num_total_tokens":6,"token_usage":0.75}],
            "aggregate":{"total_running_reqs":3,"total_waiting_reqs":9}}"#;
        check(two_ranks, Some(EngineLoad { kv_used: Some(0.5), ..load(3, 9, 11) }));
        check(
            r#"{"aggregate":{"total_tokens":12,"total_running_reqs":1,"total_waiting_reqs":2}}"#,
            Some(load(1, 2, 12)),
        );
        check(r#"{"num_tokens":4}"#, Some(EngineLoad { tokens: Some(4), ..EngineLoad::default() }));
    }

    #[test]
    fn one_rank_is_told_apart() {
        let of = |body: &str, rank| EngineLoad::from_json(body.as_bytes(), Some(rank));
        let named = r#"[{"dp_rank":1,"num_reqs":3,"num_waiting_reqs":1,"num_tokens":7},{"dp_rank":0,"num_tokens":3}]"#;
        assert_eq!(of(named, 1), Some(load(2, 1, 7)));
        assert_eq!(of(named, 0), Some(EngineLoad { tokens: Some(3), ..EngineLoad::default() }));
        assert_eq!(of(named, 2), None);
        let placed =
            r#"{"loads":[{"num_total_tokens":5},{"num_total_tokens":6}],"aggregate":{"total_tokens":11}}"#;
        assert_eq!(of(placed, 1).and_then(|load| load.tokens), Some(6));
        assert_eq!(of(placed, 2), None);
        assert_eq!(of(r#"{"aggregate":{"total_tokens":11}}"#, 0), None);
    }

    #[test]
    fn what_names_no_load_is_unknown() {
        check(r#"{"server_load":4}"#, None);
        check(r#"[{"num_tokens":"7","num_reqs":-1}]"#, None);
        check(r#"{"loads":{},"aggregate":[]}"#, None);
        check("[]", None);
        check("not json", None);
    }

    #[test]
    fn numbers_beyond_the_type_are_its_largest() {
        let huge = r#"[{"num_running_reqs":18446744073709551615,"num_tokens":18446744073709551615},{"num_running_reqs":1,"num_tokens":1}]"#;
        let expect = EngineLoad { running: Some(u32::MAX), tokens: Some(u64::MAX), ..EngineLoad::default() };
        check(huge, Some(expect));
    }
}
