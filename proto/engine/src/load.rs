//! How many tokens a worker is busy with, from the answers of `/get_load` and `/v1/loads`.

use serde_json::Value;

/// Tokens in use over all ranks of a worker, or `None` when the answer does not say.
///
/// Understood are SGLang's list of `{"num_tokens"}` per rank, its newer `{"loads": [{"num_total_tokens"}]}` and the
/// `{"aggregate": {"total_tokens"}}` between the two.
pub fn tokens(body: &[u8]) -> Option<u64> {
    match serde_json::from_slice(body).ok()? {
        Value::Array(ranks) => sum(&ranks),
        Value::Object(object) => {
            let by_rank = object.get("loads").and_then(Value::as_array).and_then(|ranks| sum(ranks));
            by_rank
                .or_else(|| object.get("aggregate")?.get("total_tokens")?.as_u64())
                .or_else(|| object.get("num_tokens")?.as_u64())
        }
        _ => None,
    }
}

/// The sum over ranks that name a number; none when no rank does.
fn sum(ranks: &[Value]) -> Option<u64> {
    ranks.iter().filter_map(rank_tokens).reduce(u64::saturating_add)
}

fn rank_tokens(rank: &Value) -> Option<u64> {
    ["num_tokens", "num_total_tokens"].into_iter().find_map(|key| rank.get(key)?.as_u64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(body: &str, expect: Option<u64>) {
        assert_eq!(tokens(body.as_bytes()), expect, "{body}");
    }

    #[test]
    fn ranks_are_added_up() {
        check(
            r#"[{"dp_rank":0,"num_reqs":2,"num_waiting_reqs":0,"num_tokens":7},{"dp_rank":1,"num_tokens":3}]"#,
            Some(10),
        );
        check(
            r#"{"loads":[{"dp_rank":0,"num_total_tokens":5},{"dp_rank":1,"num_total_tokens":6}]}"#,
            Some(11),
        );
        check(r#"{"aggregate":{"total_tokens":12}}"#, Some(12));
    }

    #[test]
    fn what_names_no_tokens_is_unknown() {
        check(r#"{"server_load":4}"#, None);
        check(r#"[{"num_tokens":"7"}]"#, None);
        check("[]", None);
        check("not json", None);
    }
}
