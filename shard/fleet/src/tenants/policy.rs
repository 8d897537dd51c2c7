//! How much a tenant may ask for: the settings, and which of them a request goes by.

use std::collections::HashMap;
use std::net::IpAddr;

/// Bounds of a minute; none where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Requests.
    pub requests_per_minute: Option<u32>,
    /// Tokens of prompts and answers.
    pub tokens_per_minute: Option<u32>,
}

/// Which models a rule is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Matcher {
    /// The one of this name.
    Exact(String),
    /// Those whose names begin like this.
    Prefix(String),
}

/// What a tenant may ask of some models, counted apart from the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelRule {
    /// What it is called.
    pub id: String,
    /// Which models.
    pub matcher: Matcher,
    /// How much.
    pub quota: Quota,
}

/// What a tenant may ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Of models that no rule is for.
    pub quota: Quota,
    /// The first that is for a request's model counts, in place of `quota`.
    pub model_rules: Vec<ModelRule>,
}

/// Who a tenant is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TenantName<'a> {
    /// By its key.
    Auth(&'a [u8]),
    /// By a header that is trusted.
    Header(&'a [u8]),
    /// By its address: four bytes, or the eight of an IPv6 network.
    Address([u8; 8], u8),
}

impl TenantName<'_> {
    /// A tenant by its address. A client has a whole /64 to itself: all of its addresses are one tenant.
    pub fn address(address: IpAddr) -> Self {
        let mut bytes = [0; 8];
        match address {
            IpAddr::V4(address) => bytes[..4].copy_from_slice(&address.octets()),
            IpAddr::V6(address) => bytes.copy_from_slice(&address.octets()[..8]),
        }
        Self::Address(bytes, if address.is_ipv4() { 4 } else { 6 })
    }
}

/// Whom a policy is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PolicyTenant {
    /// The tenant of a key (`auth:<id>`).
    Auth(Box<[u8]>),
    /// The tenant that a header names (`header:<id>`).
    Header(Box<[u8]>),
    /// Clients of an address (`ip:<addr>`).
    Address(IpAddr),
    /// Everybody else who is known by address alone, each counted alone (`anonymous`).
    Anonymous,
}

/// The policies of all tenants.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    policies: Vec<Policy>,
    auth: HashMap<Box<[u8]>, usize>,
    header: HashMap<Box<[u8]>, usize>,
    address: HashMap<([u8; 8], u8), usize>,
    anonymous: usize,
    has_model_rules: bool,
}

impl Policies {
    /// One policy for everybody, and others for some.
    pub fn new(default: Policy, tenants: impl IntoIterator<Item = (PolicyTenant, Policy)>) -> Self {
        let mut policies = Self { policies: vec![default], ..Self::default() };
        for (tenant, policy) in tenants {
            let at = policies.policies.len();
            policies.policies.push(policy);
            match tenant {
                PolicyTenant::Auth(name) => drop(policies.auth.insert(name, at)),
                PolicyTenant::Header(name) => drop(policies.header.insert(name, at)),
                PolicyTenant::Address(address) => {
                    if let TenantName::Address(bytes, version) = TenantName::address(address) {
                        policies.address.insert((bytes, version), at);
                    }
                }
                PolicyTenant::Anonymous => policies.anonymous = at,
            }
        }
        policies.has_model_rules = policies.policies.iter().any(|policy| !policy.model_rules.is_empty());
        policies
    }

    /// Whether it matters which model is asked for.
    pub fn has_model_rules(&self) -> bool {
        self.has_model_rules
    }

    /// What a request of a tenant for a model goes by: the number of the rule, which is 0 where none is for it, and
    /// how much.
    pub fn find(&self, tenant: TenantName<'_>, model: Option<&str>) -> (usize, Quota) {
        let at = match tenant {
            TenantName::Auth(name) => self.auth.get(name).copied().unwrap_or(0),
            TenantName::Header(name) => self.header.get(name).copied().unwrap_or(0),
            TenantName::Address(bytes, version) => {
                self.address.get(&(bytes, version)).copied().unwrap_or(self.anonymous)
            }
        };
        let Some(policy) = self.policies.get(at) else { return (0, Quota::default()) };
        let is_for = |rule: &ModelRule| match &rule.matcher {
            Matcher::Exact(name) => model == Some(name),
            Matcher::Prefix(prefix) => model.is_some_and(|model| model.starts_with(prefix.as_str())),
        };
        match policy.model_rules.iter().position(is_for) {
            Some(rule) => (rule + 1, policy.model_rules[rule].quota),
            None => (0, policy.quota),
        }
    }
}
