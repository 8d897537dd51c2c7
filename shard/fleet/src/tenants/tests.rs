//! Accounts against plain lists of what was had when, and their bounds.

use std::net::IpAddr;
use std::thread;

use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::*;

const MINUTE_US: u64 = 60_000_000;

fn quota(requests: Option<u32>, tokens: Option<u32>) -> Quota {
    Quota { requests_per_minute: requests, tokens_per_minute: tokens }
}

fn charge(tenants: &Tenants, account: u64, quota: Quota, tokens: u32, now_us: u64) -> Result<Charge, u64> {
    tenants.charge(account, quota, tokens, now_us).expect("nobody else is at it")
}

#[test]
fn a_minutes_worth_passes_and_then_the_rate() {
    let tenants = Tenants::new();
    let quota = quota(Some(3), None);
    for _ in 0..3 {
        assert!(charge(&tenants, 7, quota, 1_000_000, 0).is_ok());
    }
    assert_eq!(charge(&tenants, 7, quota, 1, 0), Err(MINUTE_US / 3));
    assert_eq!(charge(&tenants, 7, quota, 1, MINUTE_US / 3 - 1), Err(1));
    assert!(charge(&tenants, 7, quota, 1, MINUTE_US / 3).is_ok());
    assert!(charge(&tenants, 8, quota, 1, 0).is_ok(), "others have their own");
}

#[test]
fn what_was_not_used_comes_back_and_what_was_used_beyond_is_owed() {
    let tenants = Tenants::new();
    let quota = quota(None, Some(100));
    let held = charge(&tenants, 7, quota, 100, 0).expect("it is the first");
    assert_eq!(charge(&tenants, 7, quota, 50, 0), Err(MINUTE_US / 2));
    tenants.settle(held, 40, 0);
    let held = charge(&tenants, 7, quota, 50, 0).expect("60 came back");
    tenants.settle(held, 160, 0);
    // 40 and 160 are 100 too many, which takes a minute, and 10 more are there after a tenth of one.
    assert_eq!(charge(&tenants, 7, quota, 10, 0), Err(MINUTE_US + MINUTE_US / 10));
}

#[test]
fn more_than_a_minutes_worth_passes_when_nothing_is_owed() {
    let tenants = Tenants::new();
    let quota = quota(None, Some(100));
    assert!(charge(&tenants, 7, quota, 250, 0).is_ok());
    assert_eq!(charge(&tenants, 7, quota, 250, 0), Err(250 * MINUTE_US / 100));
    assert!(charge(&tenants, 7, quota, 250, 250 * MINUTE_US / 100).is_ok());
}

#[test]
fn a_new_quota_holds_from_its_first_request_on() {
    let tenants = Tenants::new();
    for _ in 0..10 {
        assert!(charge(&tenants, 7, quota(Some(10), None), 1, 0).is_ok());
    }
    assert!(charge(&tenants, 7, quota(Some(20), None), 1, 0).is_ok(), "ten of twenty are had");
    assert_eq!(charge(&tenants, 7, quota(Some(1), None), 1, 0), Err(11 * MINUTE_US));
}

/// Over any stretch of time no more is had than a minute's worth and what the time brings, and whoever is told when to
/// come again and does so passes.
#[test]
fn no_more_is_had_than_may_be() {
    for seed in 0..300 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let tenants = Tenants::new();
        let (requests, tokens) = (rng.random_range(1..20), rng.random_range(10..500));
        let quota = quota(Some(requests), Some(tokens));
        let mut had: Vec<(u64, u32)> = Vec::new();
        let mut now_us = 0;
        for _ in 0..200 {
            let estimate = rng.random_range(1..=tokens);
            match charge(&tenants, 7, quota, estimate, now_us) {
                Ok(charge) => {
                    let used = rng.random_range(0..=estimate);
                    tenants.settle(charge, used, now_us);
                    had.push((now_us, used));
                }
                Err(due_us) if rng.random_range(0..2) == 0 => {
                    now_us += due_us;
                    let held =
                        charge(&tenants, 7, quota, estimate, now_us).expect("it came when it was told");
                    tenants.settle(held, estimate, now_us);
                    had.push((now_us, estimate));
                }
                Err(_) => now_us += rng.random_range(0..MINUTE_US / 4),
            }
        }
        for from in 0..had.len() {
            let mut sums = (0, 0);
            for &(at_us, used) in &had[from..] {
                sums = (sums.0 + 1, sums.1 + u64::from(used));
                let minutes = 1.0 + (at_us - had[from].0) as f64 / MINUTE_US as f64;
                assert!(f64::from(sums.0) <= f64::from(requests) * minutes + 1e-6, "seed {seed}");
                assert!(sums.1 as f64 <= f64::from(tokens) * minutes + 1e-6, "seed {seed}");
            }
        }
    }
}

#[test]
fn threads_have_together_what_one_may_have() {
    const EACH: u32 = 10_000;
    let tenants = Tenants::new();
    let quota = quota(Some(EACH), Some(10 * EACH));
    let passed: u32 = thread::scope(|scope| {
        let one = || {
            let mut passed = 0;
            for _ in 0..EACH {
                let charged = loop {
                    match tenants.charge(7, quota, 5, 0) {
                        Some(charged) => break charged,
                        None => thread::yield_now(),
                    }
                };
                if let Ok(charge) = charged {
                    passed += 1;
                    tenants.settle(charge, 10, 0);
                }
            }
            passed
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no assertion failed")).sum()
    });
    assert_eq!(passed, EACH);
}

#[test]
fn many_names_get_no_more_than_there_is_room_for() {
    let tenants = Tenants::new();
    let quota = quota(Some(1), None);
    // All in one stripe.
    let account = |name: u64| (name + 1) * STRIPES as u64;
    let passed = |names: std::ops::Range<u64>, now_us| {
        names.filter(|&name| charge(&tenants, account(name), quota, 1, now_us).is_ok()).count()
    };
    assert_eq!(passed(0..5_000, 0), ACCOUNTS_PER_STRIPE_MAX + 1, "the others share one");
    assert_eq!(
        tenants.shelves[0].stripe.lock().expect("unharmed").accounts.len(),
        ACCOUNTS_PER_STRIPE_MAX + 1
    );
    assert_eq!(passed(5_000..5_500, MINUTE_US), 500, "accounts that are even make room");
}

#[test]
fn a_request_goes_by_its_tenants_policy_and_its_models_rule() {
    let policy = |requests| Policy { quota: quota(Some(requests), None), model_rules: Vec::new() };
    let rule = |id: &str, matcher, requests| ModelRule {
        id: id.to_owned(),
        matcher,
        quota: quota(Some(requests), None),
    };
    let with_rules = Policy {
        model_rules: vec![
            rule("one", Matcher::Exact("big".to_owned()), 2),
            rule("others", Matcher::Prefix("b".to_owned()), 3),
        ],
        ..policy(1)
    };
    let v6 = |text: &str| text.parse::<IpAddr>().expect("an address");
    let policies = Policies::new(
        with_rules,
        [
            (PolicyTenant::Auth(b"a"[..].into()), policy(10)),
            (PolicyTenant::Header(b"a"[..].into()), policy(20)),
            (PolicyTenant::Address(v6("2001:db8::1")), policy(30)),
            (PolicyTenant::Anonymous, policy(40)),
        ],
    );
    let find = |tenant, model| {
        let (rule, quota) = policies.find(tenant, model);
        (rule, quota.requests_per_minute)
    };
    assert_eq!(find(TenantName::Auth(b"a"), Some("big")), (0, Some(10)));
    assert_eq!(find(TenantName::Header(b"a"), None), (0, Some(20)));
    assert_eq!(find(TenantName::address(v6("2001:db8::2")), None), (0, Some(30)), "one network");
    assert_eq!(find(TenantName::address(v6("10.0.0.1")), None), (0, Some(40)));
    assert_eq!(find(TenantName::Auth(b"b"), Some("big")), (1, Some(2)));
    assert_eq!(find(TenantName::Auth(b"b"), Some("bigger")), (2, Some(3)));
    assert_eq!(find(TenantName::Auth(b"b"), Some("small")), (0, Some(1)));
}
