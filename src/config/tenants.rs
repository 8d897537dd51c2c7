//! What the flags of tenants' limits come to.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use fleet::tenants::Matcher;
use fleet::tenants::ModelRule;
use fleet::tenants::Policies;
use fleet::tenants::Policy;
use fleet::tenants::PolicyTenant;
use fleet::tenants::Quota;

use super::require;
use super::yaml::Document;
use super::yaml::Section;
use crate::Failure;
use crate::cli::AdmissionFlags;

/// Tenants with limits of their own.
const TENANTS_MAX: usize = 65_536;
/// Rules of one policy; a request looks at all of them.
const MODEL_RULES_MAX: usize = 256;

/// What tenants may ask for in a minute, if that is bounded.
///
/// # Errors
/// The first thing that cannot be used, as one line.
pub(super) fn policies(flags: &AdmissionFlags) -> Result<Option<Arc<Policies>>, Failure> {
    let is_on = flags.tenant_rate_limit_enabled;
    match &flags.tenant_rate_limit_config {
        Some(path) if is_on => read(path).map(|policies| Some(Arc::new(policies))),
        Some(_) => Err(Failure::usage("--tenant-rate-limit-config needs --tenant-rate-limit-enabled")),
        None => {
            require(!is_on, "--tenant-rate-limit-enabled needs --tenant-rate-limit-config")?;
            Ok(None)
        }
    }
}

fn read(path: &Path) -> Result<Policies, Failure> {
    let document = Document::read("--tenant-rate-limit-config", path)?;
    let mut root = document.root()?;
    let mut section = root.section("default_policy")?;
    let default = policy(&mut section)?;
    section.end()?;
    let mut seen = HashSet::new();
    let mut tenants = Vec::new();
    for mut section in root.list("tenants", TENANTS_MAX)? {
        let key = section.text("tenant_key")?.ok_or_else(|| section.wrong("tenant_key", "is missing"))?;
        let tenant = tenant(key).ok_or_else(|| {
            section.wrong("tenant_key", "must be auth:<id>, header:<id>, ip:<address> or anonymous")
        })?;
        if !seen.insert(tenant.clone()) {
            return Err(section.wrong("tenant_key", "is there twice"));
        }
        tenants.push((tenant, policy(&mut section)?));
        section.end()?;
    }
    root.end()?;
    Ok(Policies::new(default, tenants))
}

fn policy(section: &mut Section<'_>) -> Result<Policy, Failure> {
    let quota = quota(section)?;
    let mut ids = HashSet::new();
    let mut model_rules = Vec::new();
    for mut rule in section.list("model_rules", MODEL_RULES_MAX)? {
        let id = rule.text("rule_id")?.ok_or_else(|| rule.wrong("rule_id", "is missing"))?;
        if !ids.insert(id) {
            return Err(rule.wrong("rule_id", "is there twice"));
        }
        let mut matcher = rule.section("matcher")?;
        let found = match (matcher.text("exact")?, matcher.text("prefix")?) {
            (Some(name), None) => Matcher::Exact(name.to_owned()),
            (None, Some(prefix)) => Matcher::Prefix(prefix.to_owned()),
            _ => return Err(rule.wrong("matcher", "must have one of exact and prefix")),
        };
        matcher.end()?;
        model_rules.push(ModelRule { id: id.to_owned(), matcher: found, quota: self::quota(&mut rule)? });
        rule.end()?;
    }
    Ok(Policy { quota, model_rules })
}

fn quota(section: &mut Section<'_>) -> Result<Quota, Failure> {
    let mut bound =
        |name| section.number(name, 1..=u32::MAX.into()).map(|number| number.map(|number| number as u32));
    Ok(Quota {
        requests_per_minute: bound("requests_per_minute")?,
        tokens_per_minute: bound("tokens_per_minute")?,
    })
}

fn tenant(key: &str) -> Option<PolicyTenant> {
    match key.split_once(':') {
        Some((_, "")) => None,
        Some(("auth", id)) => Some(PolicyTenant::Auth(id.as_bytes().into())),
        Some(("header", id)) => Some(PolicyTenant::Header(id.as_bytes().into())),
        Some(("ip", address)) => address.parse().ok().map(PolicyTenant::Address),
        None if key == "anonymous" => Some(PolicyTenant::Anonymous),
        Some(_) | None => None,
    }
}

#[cfg(test)]
mod tests {
    use fleet::tenants::TenantName;

    use super::*;
    use crate::config::tests::file;
    use crate::config::tests::lowered;

    const GOOD: &str = "
default_policy:
  tokens_per_minute: 1000
  model_rules:
    - rule_id: big
      matcher: {prefix: big-}
      requests_per_minute: 5
tenants:
  - tenant_key: auth:acme
    requests_per_minute: 7
  - tenant_key: ip:10.0.0.1
    tokens_per_minute: 9
  - tenant_key: anonymous
";

    fn read(text: &str) -> Result<Option<Arc<Policies>>, Failure> {
        let file = file("tenants.yaml", text);
        let line =
            format!("--tenant-rate-limit-enabled --tenant-rate-limit-config {}", file.path().display());
        lowered(&line).map(|config| config.shard.tenant_policies)
    }

    #[test]
    fn a_file_says_who_may_have_what() {
        let policies = read(GOOD).expect("it is good").expect("limits");
        let find = |name, model| policies.find(name, model);
        let quota = |requests, tokens| Quota { requests_per_minute: requests, tokens_per_minute: tokens };
        assert_eq!(find(TenantName::Auth(b"other"), Some("small")), (0, quota(None, Some(1000))));
        assert_eq!(find(TenantName::Auth(b"other"), Some("big-1")), (1, quota(Some(5), None)));
        assert_eq!(find(TenantName::Auth(b"acme"), Some("big-1")), (0, quota(Some(7), None)));
        let by_address = |text: &str| find(TenantName::address(text.parse().expect("an address")), None);
        assert_eq!(by_address("10.0.0.1"), (0, quota(None, Some(9))));
        assert_eq!(by_address("10.0.0.2"), (0, Quota::default()));
    }

    #[test]
    fn whatever_is_wrong_is_named() {
        for (from, to, words) in [
            ("tokens_per_minute: 1000", "tokens_per_minute: 0", "`default_policy.tokens_per_minute` must be"),
            ("tokens_per_minute: 9", "tokens_per_minute: many", "`tenants[1].tokens_per_minute` must be"),
            ("rule_id: big", "name: big", "`default_policy.model_rules[0].rule_id` is missing"),
            ("{prefix: big-}", "{prefix: a, exact: b}", "`default_policy.model_rules[0].matcher` must have"),
            (
                "{prefix: big-}",
                "{regex: a, exact: b}",
                "`default_policy.model_rules[0].matcher.regex` is no field",
            ),
            ("auth:acme", "user:acme", "`tenants[0].tenant_key` must be auth:<id>"),
            ("ip:10.0.0.1", "auth:acme", "`tenants[1].tenant_key` is there twice"),
            ("ip:10.0.0.1", "ip:nowhere", "`tenants[1].tenant_key` must be"),
            ("default_policy", "policy", "`policy` is no field: use default_policy, tenants"),
            ("tenants:", "tenants: [", "line"),
        ] {
            let failure = read(&GOOD.replace(from, to)).expect_err(to);
            assert!(failure.message.contains(words), "{failure}");
            assert!(failure.message.contains("tenants.yaml") && !failure.message.contains('\n'), "{failure}");
        }
    }
}
