//! What is known of a file and of a batch, and what may become of a batch: values without clocks and storage.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;

use super::limits;

/// Purpose of the files that are the input of batches.
pub(super) const PURPOSE_BATCH: &str = "batch";
/// Purpose of the files that batches write.
pub(super) const PURPOSE_OUTPUT: &str = "batch_output";
/// Purpose of files whose client named none, as the production-stack's router says it.
pub(super) const PURPOSE_UNKNOWN: &str = "unknown";
/// Purposes that a client may name.
pub(super) const PURPOSES: [&str; 7] =
    [PURPOSE_BATCH, "assistants", "evals", "fine-tune", "user_data", "vision", PURPOSE_UNKNOWN];

/// A file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileRecord {
    pub(super) id: String,
    /// Whose it is; empty where tenants are not told apart.
    pub(super) owner: String,
    pub(super) filename: String,
    pub(super) purpose: String,
    pub(super) bytes: u64,
    /// Seconds since 1970.
    pub(super) created_at: u64,
}

impl FileRecord {
    /// As clients see it.
    pub(super) fn object(&self) -> Value {
        json!({
            "id": self.id,
            "object": "file",
            "bytes": self.bytes,
            "created_at": self.created_at,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
        })
    }
}

/// Where a batch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    Validating,
    InProgress,
    Finalizing,
    Completed,
    Failed,
    Expired,
    Cancelling,
    Cancelled,
}

impl Status {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Validating => "validating",
            Self::InProgress => "in_progress",
            Self::Finalizing => "finalizing",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Cancelling => "cancelling",
            Self::Cancelled => "cancelled",
        }
    }

    pub(super) fn is_over(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Expired | Self::Cancelled)
    }
}

/// How a batch ends, once its requests have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ending {
    Completed,
    Failed,
    Expired,
    Cancelled,
}

/// Why a batch failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fault {
    pub(super) code: String,
    pub(super) message: String,
    pub(super) param: Option<String>,
    /// The line of the input, from 1, if it is about one.
    pub(super) line: Option<u32>,
}

impl Fault {
    /// A fault of the whole batch.
    pub(super) fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), param: None, line: None }
    }
}

/// How many requests there are, and how many of them are done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counts {
    pub(super) total: u64,
    pub(super) completed: u64,
    pub(super) failed: u64,
}

/// Moments of a batch's life, in seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Times {
    pub(super) created_at: u64,
    pub(super) expires_at: u64,
    pub(super) in_progress_at: Option<u64>,
    pub(super) finalizing_at: Option<u64>,
    pub(super) completed_at: Option<u64>,
    pub(super) failed_at: Option<u64>,
    pub(super) expired_at: Option<u64>,
    pub(super) cancelling_at: Option<u64>,
    pub(super) cancelled_at: Option<u64>,
}

/// A batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Batch {
    pub(super) id: String,
    /// Whose it is; empty where tenants are not told apart.
    pub(super) owner: String,
    /// The class that its requests ask for.
    pub(super) priority: Option<String>,
    /// Whether it came with credentials for workers. They themselves are in memory only.
    pub(super) has_credentials: bool,
    pub(super) endpoint: String,
    pub(super) input_file_id: String,
    pub(super) completion_window: String,
    pub(super) metadata: Option<BTreeMap<String, String>>,
    pub(super) status: Status,
    pub(super) ending: Option<Ending>,
    pub(super) faults: Vec<Fault>,
    /// Ids that its output and its errors get, drawn when it was made.
    pub(super) results: Results,
    pub(super) output_file_id: Option<String>,
    pub(super) error_file_id: Option<String>,
    pub(super) times: Times,
    pub(super) counts: Counts,
}

/// Ids of the files that a batch writes, if it has anything to write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Results {
    pub(super) output: String,
    pub(super) errors: String,
}

impl Batch {
    /// As clients see it.
    pub(super) fn object(&self) -> Value {
        let errors =
            (!self.faults.is_empty()).then(|| json!({ "object": "list", "data": self.faults.clone() }));
        let times = &self.times;
        json!({
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "errors": errors,
            "input_file_id": self.input_file_id,
            "completion_window": self.completion_window,
            "status": self.status.name(),
            "output_file_id": self.output_file_id,
            "error_file_id": self.error_file_id,
            "created_at": times.created_at,
            "in_progress_at": times.in_progress_at,
            "expires_at": times.expires_at,
            "finalizing_at": times.finalizing_at,
            "completed_at": times.completed_at,
            "failed_at": times.failed_at,
            "expired_at": times.expired_at,
            "cancelling_at": times.cancelling_at,
            "cancelled_at": times.cancelled_at,
            "request_counts": self.counts,
            "metadata": self.metadata,
        })
    }

    /// Its input is good: so many requests are to be made. Says whether it may go on.
    pub(super) fn begin(&mut self, total: u64, now: u64) -> bool {
        if self.status != Status::Validating {
            return false;
        }
        self.status = Status::InProgress;
        self.times.in_progress_at = Some(now);
        self.counts.total = total;
        true
    }

    /// Somebody asked for its end. Says whether there was anything to end.
    pub(super) fn cancel(&mut self, now: u64) -> bool {
        match self.status {
            Status::Validating | Status::InProgress => {
                self.status = Status::Cancelling;
                self.times.cancelling_at = Some(now);
                true
            }
            // Its requests have ended, or somebody asked before.
            Status::Cancelling | Status::Finalizing => true,
            _ => false,
        }
    }

    /// All its requests have ended: what is left is to put its files in their places. A wish to cancel it that came
    /// while the last request ended is kept.
    pub(super) fn finalize(&mut self, ending: Ending, now: u64) {
        if self.status.is_over() || self.status == Status::Finalizing {
            return;
        }
        let is_cancelled = self.status == Status::Cancelling;
        self.ending = Some(if is_cancelled { Ending::Cancelled } else { ending });
        self.status = if is_cancelled { Status::Cancelling } else { Status::Finalizing };
        self.times.finalizing_at = (!is_cancelled).then_some(now);
    }

    /// It is over; these are the files it wrote.
    pub(super) fn finish(&mut self, output: Option<String>, errors: Option<String>, now: u64) {
        if self.status.is_over() {
            return;
        }
        self.output_file_id = output;
        self.error_file_id = errors;
        let (status, at) = match self.ending.unwrap_or(Ending::Cancelled) {
            Ending::Completed => (Status::Completed, &mut self.times.completed_at),
            Ending::Failed => (Status::Failed, &mut self.times.failed_at),
            Ending::Expired => (Status::Expired, &mut self.times.expired_at),
            Ending::Cancelled => (Status::Cancelled, &mut self.times.cancelled_at),
        };
        *at = Some(now);
        self.status = status;
    }

    /// It cannot be worked off.
    pub(super) fn fail(&mut self, faults: Vec<Fault>, now: u64) {
        if self.status.is_over() {
            return;
        }
        self.faults = faults;
        self.finalize(Ending::Failed, now);
    }
}

/// An id that nobody guesses.
pub(super) fn new_id(prefix: &str) -> String {
    format!("{prefix}{:032x}", rand::random::<u128>())
}

/// Whether it is an id that [`new_id`] may have made. Only such a one is ever part of a path.
pub(super) fn is_id(prefix: &str, id: &str) -> bool {
    id.strip_prefix(prefix).is_some_and(|rest| {
        rest.len() == 32 && rest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// Seconds of a window such as `24h`, `90m`, `30s` or `2d`.
pub(super) fn window_s(text: &str) -> Option<u64> {
    let unit_s = match text.as_bytes().last()? {
        b's' => 1,
        b'm' => 60,
        b'h' => 3600,
        b'd' => 24 * 3600,
        _ => return None,
    };
    let digits = &text[..text.len() - 1];
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let window_s = digits.parse::<u64>().ok()?.checked_mul(unit_s)?;
    (1..=limits::WINDOW_S_MAX).contains(&window_s).then_some(window_s)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn batch() -> Batch {
        Batch {
            id: new_id("batch_"),
            owner: String::new(),
            priority: None,
            has_credentials: false,
            endpoint: "/v1/completions".to_owned(),
            input_file_id: new_id("file-"),
            completion_window: "24h".to_owned(),
            metadata: None,
            status: Status::Validating,
            ending: None,
            faults: Vec::new(),
            results: Results { output: new_id("file-"), errors: new_id("file-") },
            output_file_id: None,
            error_file_id: None,
            times: Times { created_at: 1, expires_at: 100, ..Times::default() },
            counts: Counts::default(),
        }
    }

    #[test]
    fn a_batch_goes_from_status_to_status() {
        let mut batch = batch();
        assert!(batch.begin(3, 2) && !batch.begin(4, 3));
        batch.finalize(Ending::Completed, 4);
        assert_eq!(batch.status, Status::Finalizing);
        batch.finish(Some("file-1".to_owned()), None, 5);
        let object = batch.object();
        assert_eq!(
            (object["status"].as_str(), object["completed_at"].as_u64()),
            (Some("completed"), Some(5))
        );
        assert_eq!((object["in_progress_at"].as_u64(), object["finalizing_at"].as_u64()), (Some(2), Some(4)));
        assert_eq!(object["request_counts"], json!({"total": 3, "completed": 0, "failed": 0}));
        assert_eq!((&object["errors"], &object["error_file_id"]), (&Value::Null, &Value::Null));
        assert!(!batch.cancel(6), "it is over");
        batch.fail(vec![Fault::new("x", "y")], 7);
        batch.finish(None, None, 8);
        assert_eq!((batch.status, batch.output_file_id.is_some()), (Status::Completed, true));
    }

    #[test]
    fn who_cancels_is_heard_until_the_requests_have_ended() {
        for begins in [false, true] {
            let mut batch = batch();
            assert!(!begins || batch.begin(1, 2));
            assert!(batch.cancel(3) && batch.cancel(4));
            assert_eq!((batch.status, batch.times.cancelling_at), (Status::Cancelling, Some(3)));
            assert!(!batch.begin(1, 5), "it does not begin any more");
            batch.finalize(Ending::Completed, 5);
            batch.finish(None, None, 6);
            assert_eq!((batch.status, batch.times.cancelled_at), (Status::Cancelled, Some(6)));
        }
        let mut batch = batch();
        batch.begin(1, 2);
        batch.finalize(Ending::Expired, 3);
        assert!(batch.cancel(4));
        batch.finish(None, None, 5);
        assert_eq!(batch.status, Status::Expired);
    }

    #[test]
    fn what_is_wrong_is_told() {
        let mut batch = batch();
        batch.fail(vec![Fault { line: Some(7), ..Fault::new("invalid_json_line", "no JSON") }], 2);
        batch.finish(None, None, 3);
        let object = batch.object();
        assert_eq!((object["status"].as_str(), object["failed_at"].as_u64()), (Some("failed"), Some(3)));
        assert_eq!(object["errors"]["data"][0]["line"], 7);
        let kept = serde_json::to_string(&batch).expect("it is plain");
        assert_eq!(serde_json::from_str::<Batch>(&kept).expect("it was just written"), batch);
    }

    #[test]
    fn ids_are_told_from_paths() {
        let id = new_id("file-");
        assert!(is_id("file-", &id) && !is_id("batch_", &id) && new_id("file-") != id);
        for other in ["", "file-", "file-../../etc/passwd", "file-ABCDEF", &id[1..], &format!("{id}0")] {
            assert!(!is_id("file-", other), "{other}");
        }
    }

    #[test]
    fn windows_have_units() {
        for (text, expected) in [
            ("24h", Some(86_400)),
            ("5s", Some(5)),
            ("90m", Some(5400)),
            ("7d", Some(604_800)),
            ("8d", None),
            ("0s", None),
            ("h", None),
            ("", None),
            ("24", None),
            ("+1h", None),
            ("99999999999999999999h", None),
            ("1é", None),
        ] {
            assert_eq!(window_s(text), expected, "{text}");
        }
    }
}
