//! Where workers are found: selectors of pods, read and checked.

use fleet::snapshot::Role;

use crate::Failure;
use crate::cli::DiscoveryFlags;
use crate::cli::PairFlags;
use crate::discovery::NAMES_MAX;
use crate::discovery::WATCH_SECONDS_MAX;
use crate::discovery::dns::Named;
use crate::discovery::dns::NamesConfig;
use crate::discovery::kubernetes::Selector;

/// Pods that are workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodsConfig {
    /// Where they are; everywhere if none.
    pub(crate) namespace: Option<String>,
    /// Port at which they serve.
    pub(crate) port: u16,
    /// Which they are, and what they do; the first that fits counts.
    pub(crate) selectors: Vec<Selector>,
    /// Time after which a watch is begun anew, in seconds; [`WATCH_SECONDS_MAX`] at most.
    pub(crate) watch_s: u32,
}

/// Longest key and longest value of a label, in bytes (Kubernetes' own bounds; a key may have a prefix).
const KEY_BYTES_MAX: usize = 253 + 1 + 63;
const VALUE_BYTES_MAX: usize = 63;

/// The pods that are workers, if any are looked for.
pub(super) fn pods(flags: &DiscoveryFlags, pairs: &PairFlags) -> Result<Option<PodsConfig>, Failure> {
    let given = [
        ("--selector", Role::Regular, &flags.selector),
        ("--prefill-selector", Role::Prefill, &flags.prefill_selector),
        ("--decode-selector", Role::Decode, &flags.decode_selector),
    ];
    let mut selectors = Vec::new();
    for (flag, role, words) in given {
        if words.is_empty() {
            continue;
        }
        if !flags.service_discovery {
            return Err(Failure::usage(format!("{flag} needs --service-discovery")));
        }
        if role != Role::Regular && !pairs.are_wanted() {
            return Err(Failure::usage(format!("{flag} needs --pd-disaggregation")));
        }
        selectors.push(Selector { role, connector: None, labels: labels(flag, words)? });
    }
    if !flags.service_discovery {
        return match &flags.service_discovery_namespace {
            Some(_) => Err(Failure::usage("--service-discovery-namespace needs --service-discovery")),
            None => Ok(None),
        };
    }
    if selectors.is_empty() {
        let flags = if pairs.are_wanted() {
            "--prefill-selector, --decode-selector or --selector"
        } else {
            "--selector"
        };
        return Err(Failure::usage(format!("--service-discovery needs {flags}: not every pod is a worker")));
    }
    // Who does a half of requests may have the labels of all workers too.
    selectors.sort_by_key(|selector| match selector.role {
        Role::Prefill => 0,
        Role::Decode => 1,
        Role::Regular => 2,
    });
    if flags.service_discovery_port == 0 {
        return Err(Failure::usage("--service-discovery-port must be above 0"));
    }
    let namespace = flags.service_discovery_namespace.clone();
    if let Some(name) = namespace.as_deref().filter(|name| !is_namespace(name)) {
        return Err(Failure::usage(format!(
            "--service-discovery-namespace {name:?} is no name of a namespace"
        )));
    }
    Ok(Some(PodsConfig {
        namespace,
        port: flags.service_discovery_port,
        selectors,
        watch_s: WATCH_SECONDS_MAX,
    }))
}

/// The names that stand for workers, if any do.
pub(super) fn names(flags: &DiscoveryFlags) -> Result<Option<NamesConfig>, Failure> {
    if flags.worker_dns.is_empty() {
        return match flags.dns_server {
            Some(_) => Err(Failure::usage("--dns-server needs --worker-dns")),
            None => Ok(None),
        };
    }
    if flags.worker_dns.len() > NAMES_MAX {
        return Err(Failure::usage(format!("--worker-dns: more than {NAMES_MAX} names")));
    }
    let named = |text: &String| {
        Named::parse(text).map_err(|what| Failure::usage(format!("--worker-dns {text:?}: {what}")))
    };
    let names = flags.worker_dns.iter().map(named).collect::<Result<_, _>>()?;
    Ok(Some(NamesConfig { names, server: flags.dns_server }))
}

/// Labels as the cluster's API takes them: `a=b,c=d`.
fn labels(flag: &str, words: &[String]) -> Result<String, Failure> {
    let mut labels = Vec::new();
    for word in words.iter().flat_map(|words| words.split([' ', ','])).filter(|word| !word.is_empty()) {
        let is_good = word.split_once('=').is_some_and(|(key, value)| is_key(key) && is_value(value));
        if !is_good {
            return Err(Failure::usage(format!("{flag}: {word:?} is no label as key=value")));
        }
        labels.push(word);
    }
    if labels.is_empty() {
        return Err(Failure::usage(format!("{flag} names no label")));
    }
    Ok(labels.join(","))
}

fn is_key(key: &str) -> bool {
    let name = key.split_once('/').map_or(key, |(_, name)| name);
    !name.is_empty()
        && key.len() <= KEY_BYTES_MAX
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte))
}

fn is_value(value: &str) -> bool {
    value.len() <= VALUE_BYTES_MAX
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn is_namespace(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= VALUE_BYTES_MAX
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(selectors: [&[&str]; 3]) -> DiscoveryFlags {
        let [selector, prefill_selector, decode_selector] =
            selectors.map(|words| words.iter().map(|&word| word.to_owned()).collect());
        DiscoveryFlags {
            service_discovery: true,
            selector,
            service_discovery_port: 8000,
            service_discovery_namespace: None,
            prefill_selector,
            decode_selector,
            worker_file: None,
            worker_dns: Vec::new(),
            dns_server: None,
        }
    }

    fn pairs(pd_disaggregation: bool) -> PairFlags {
        PairFlags {
            pd_disaggregation,
            mini_lb: false,
            prefill: Vec::new(),
            decode: Vec::new(),
            prefill_policy: None,
            decode_policy: None,
        }
    }

    #[test]
    fn labels_are_words_or_a_list() {
        for words in [
            &["app=sglang", "component=worker"][..],
            &["app=sglang component=worker"],
            &["app=sglang,component=worker"],
        ] {
            let config = pods(&flags([words, &[], &[]]), &pairs(false)).expect("good").expect("wanted");
            assert_eq!(
                config.selectors,
                [Selector {
                    role: Role::Regular,
                    connector: None,
                    labels: "app=sglang,component=worker".into()
                }]
            );
        }
    }

    #[test]
    fn halves_come_before_all() {
        let config = pods(&flags([&["a=b"], &["a=b", "c=p"], &["a=b", "c=d"]]), &pairs(true));
        let roles: Vec<Role> =
            config.expect("good").expect("wanted").selectors.iter().map(|selector| selector.role).collect();
        assert_eq!(roles, [Role::Prefill, Role::Decode, Role::Regular]);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let refused = |flags: DiscoveryFlags, is_paired: bool| {
            pods(&flags, &pairs(is_paired)).expect_err("refused").to_string()
        };
        assert!(refused(flags([&["app"], &[], &[]]), false).contains("--selector: \"app\" is no label"));
        assert!(refused(flags([&["a=b c"], &[], &[]]), false).contains("\"c\""));
        assert!(refused(flags([&["=b"], &[], &[]]), false).contains("\"=b\""));
        assert!(refused(flags([&[" "], &[], &[]]), false).contains("names no label"));
        assert!(refused(flags([&[], &[], &[]]), false).contains("--service-discovery needs --selector"));
        assert!(refused(flags([&[], &["a=b"], &[]]), false).contains("--prefill-selector needs --pd"));
        let off = DiscoveryFlags { service_discovery: false, ..flags([&["a=b"], &[], &[]]) };
        assert!(refused(off, false).contains("--selector needs --service-discovery"));
        let named = |name: &str| DiscoveryFlags {
            service_discovery_namespace: Some(name.to_owned()),
            ..flags([&["a=b"], &[], &[]])
        };
        assert!(refused(named("Not A Name"), false).contains("no name of a namespace"));
    }
}
