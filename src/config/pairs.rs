//! Prefill and decode workers of the command line.

use fleet::rules::Policy;
use fleet::rules::Rules;
use fleet::snapshot::Role;

use crate::Failure;
use crate::cli::PairFlags;
use crate::control::PairWorker;

impl PairFlags {
    /// Whether there are to be pairs.
    pub(super) fn are_wanted(&self) -> bool {
        self.pd_disaggregation || self.mini_lb
    }
}

/// The policies of prefill and decode workers that name none, where they differ from that of others.
pub(super) fn policies(flags: &PairFlags, rules: &Rules) -> Result<[Option<Policy>; 2], Failure> {
    let policy = |flag: &str, name: &Option<String>| match name {
        Some(_) if flags.mini_lb => Err(Failure::usage(format!("{flag} does not go with --mini-lb"))),
        None => Ok(flags.mini_lb.then_some(Policy::Random)),
        Some(name) => rules.policy(name).map(Some).ok_or_else(|| {
            Failure::usage(format!("{flag}: unknown policy `{name}`: use {}", Policy::NAMES.join(", ")))
        }),
    };
    Ok([policy("--prefill-policy", &flags.prefill_policy)?, policy("--decode-policy", &flags.decode_policy)?])
}

/// The workers that `--prefill` and `--decode` name.
pub(super) fn workers(flags: &PairFlags) -> Result<Vec<PairWorker>, Failure> {
    if !flags.are_wanted() {
        let given = [
            ("--prefill", !flags.prefill.is_empty()),
            ("--decode", !flags.decode.is_empty()),
            ("--prefill-policy", flags.prefill_policy.is_some()),
            ("--decode-policy", flags.decode_policy.is_some()),
        ];
        return match given.iter().find(|(_, is_given)| *is_given) {
            Some((flag, _)) => Err(Failure::usage(format!("{flag} needs --pd-disaggregation"))),
            None => Ok(Vec::new()),
        };
    }
    let mut workers: Vec<PairWorker> = Vec::new();
    for word in &flags.prefill {
        match (port(word), workers.last_mut()) {
            (None, _) => {
                let (url, role) = (word.clone(), Role::Prefill);
                workers.push(PairWorker { url, role, bootstrap_port: None });
            }
            (Some(_), None) => {
                return Err(Failure::usage(format!("--prefill begins with a URL, not with {word}")));
            }
            (Some(port), Some(worker)) => {
                worker.bootstrap_port = port
                    .map_err(|()| Failure::usage(format!("--prefill {}: {word} is no port", worker.url)))?;
            }
        }
    }
    for url in &flags.decode {
        workers.push(PairWorker { url: url.clone(), role: Role::Decode, bootstrap_port: None });
    }
    Ok(workers)
}

/// What stands behind a URL: a port, or that there is none. Not a URL itself.
fn port(word: &str) -> Option<Result<Option<u16>, ()>> {
    if word.eq_ignore_ascii_case("none") {
        return Some(Ok(None));
    }
    let is_number = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| word.parse().ok().filter(|&port| port != 0).map(Some).ok_or(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(prefill: &[&str], decode: &[&str]) -> Result<Vec<PairWorker>, String> {
        let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        let (prefill, decode) = (owned(prefill), owned(decode));
        let flags = PairFlags {
            pd_disaggregation: true,
            mini_lb: false,
            prefill,
            decode,
            prefill_policy: None,
            decode_policy: None,
        };
        workers(&flags).map_err(|failure| failure.to_string())
    }

    #[test]
    fn a_port_belongs_to_the_url_before_it() {
        let workers = read(&["http://a:1", "9001", "http://b:1", "http://c:1", "none"], &["http://d:1"]);
        let told: Vec<_> =
            workers.expect("good words").into_iter().map(|w| (w.url, w.role, w.bootstrap_port)).collect();
        let prefill = |url: &str, port| (url.to_owned(), Role::Prefill, port);
        assert_eq!(
            told,
            [
                prefill("http://a:1", Some(9001)),
                prefill("http://b:1", None),
                prefill("http://c:1", None),
                ("http://d:1".to_owned(), Role::Decode, None)
            ]
        );
    }

    #[test]
    fn what_is_no_port_is_named() {
        for (words, told) in [
            (&["9001"][..], "--prefill begins with a URL, not with 9001"),
            (&["http://a:1", "70000"], "--prefill http://a:1: 70000 is no port"),
            (&["http://a:1", "0"], "--prefill http://a:1: 0 is no port"),
        ] {
            let error = read(words, &[]).expect_err("bad words");
            assert!(error.contains(told), "{error}");
        }
    }
}
