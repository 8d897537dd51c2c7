//! What each tenant may ask for in a minute: requests and tokens, over all shards.
//!
//! [`policy`] says how much, [`level`] how much has been had. Accounts lie in stripes, each behind a lock that is only
//! ever *tried*: who finds it taken lets others of its shard go on and tries again, for a holder needs some tens of
//! nanoseconds. What a request cost in the end is settled where it ends, which cannot wait: it is left in the stripe's
//! mailbox, and whoever opens the stripe next reads that first.
//!
//! A tenant whose account is even again needs none, so accounts are dropped for newcomers when a stripe is full. If
//! nobody's is even, newcomers share one: nobody gets more by coming under many names.

mod level;
mod policy;

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::hash::RandomState;
use std::sync::Mutex;
use std::sync::TryLockError;

use crossbeam_channel::Receiver;
use crossbeam_channel::Sender;

use self::level::Level;
pub use self::policy::Matcher;
pub use self::policy::ModelRule;
pub use self::policy::Policies;
pub use self::policy::Policy;
pub use self::policy::PolicyTenant;
pub use self::policy::Quota;
pub use self::policy::TenantName;

/// Stripes: enough that shards seldom meet at one.
const STRIPES: usize = 64;
/// Accounts of one stripe; 65,536 in all, some MiB.
const ACCOUNTS_PER_STRIPE_MAX: usize = 1024;
/// Settlements in a stripe's mailbox; one that finds no room is dropped, and an account is off by so much.
const SETTLEMENTS_QUEUED_MAX: usize = 256;
/// Least time between two looks through a full stripe for accounts to drop.
const SWEEP_PAUSE_US: u64 = 1_000_000;
/// The account that newcomers share where there is no room for their own.
const SHARED: u64 = 0;

/// What a request has been charged, to be settled at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    account: u64,
    quota: Quota,
    tokens: u32,
}

/// What a tenant has had.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    requests: Level,
    tokens: Level,
    quota: Quota,
}

/// Some of the accounts.
#[derive(Debug, Default)]
struct Stripe {
    accounts: HashMap<u64, Account>,
    swept_us: u64,
}

/// What a request was charged, and what it cost in tokens.
#[derive(Clone, Copy, Debug)]
struct Settlement {
    charge: Charge,
    used: u32,
}

#[derive(Debug)]
struct Shelf {
    stripe: Mutex<Stripe>,
    mailbox: (Sender<Settlement>, Receiver<Settlement>),
}

/// The accounts of all tenants.
#[derive(Debug)]
pub struct Tenants {
    shelves: Vec<Shelf>,
    hasher: RandomState,
}

impl Default for Tenants {
    fn default() -> Self {
        Self::new()
    }
}

impl Tenants {
    /// Nobody has had anything.
    pub fn new() -> Self {
        let shelf = || Shelf {
            stripe: Mutex::default(),
            mailbox: crossbeam_channel::bounded(SETTLEMENTS_QUEUED_MAX),
        };
        Self { shelves: std::iter::repeat_with(shelf).take(STRIPES).collect(), hasher: RandomState::new() }
    }

    /// The account of a tenant under one of its policy's rules.
    pub fn account(&self, name: TenantName<'_>, rule: usize) -> u64 {
        self.hasher.hash_one((name, rule)).max(SHARED + 1)
    }

    /// Charges one request that is taken to cost so many tokens. None when somebody else is at the stripe: then it is
    /// tried again.
    ///
    /// # Errors
    /// When the tenant has had what it may: in how many microseconds there is enough again.
    pub fn charge(
        &self,
        account: u64,
        quota: Quota,
        tokens: u32,
        now_us: u64,
    ) -> Option<Result<Charge, u64>> {
        let shelf = self.shelf(account);
        let mut stripe = match shelf.stripe.try_lock() {
            Ok(stripe) => stripe,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        for Settlement { charge, used } in shelf.mailbox.1.try_iter().take(SETTLEMENTS_QUEUED_MAX) {
            stripe.settle(charge, used, now_us);
        }
        Some(stripe.charge(account, quota, tokens, now_us))
    }

    /// Says what a request cost in the end.
    pub fn settle(&self, charge: Charge, used: u32, now_us: u64) {
        let shelf = self.shelf(charge.account);
        match shelf.stripe.try_lock() {
            Ok(mut stripe) => stripe.settle(charge, used, now_us),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().settle(charge, used, now_us),
            // Without room it is dropped: the estimate stands.
            Err(TryLockError::WouldBlock) => drop(shelf.mailbox.0.try_send(Settlement { charge, used })),
        }
    }

    fn shelf(&self, account: u64) -> &Shelf {
        &self.shelves[account as usize % STRIPES]
    }
}

impl Stripe {
    fn charge(&mut self, account: u64, quota: Quota, tokens: u32, now_us: u64) -> Result<Charge, u64> {
        let at = self.find(account, now_us);
        let held = self.accounts.entry(at).or_default();
        held.go_by(quota, now_us);
        let requests_due = held.requests.due_us(1, quota.requests_per_minute);
        let tokens_due = held.tokens.due_us(tokens, quota.tokens_per_minute);
        if requests_due > 0 || tokens_due > 0 {
            return Err(requests_due.max(tokens_due));
        }
        held.requests.add(1);
        held.tokens.add(tokens);
        Ok(Charge { account, quota, tokens })
    }

    fn settle(&mut self, charge: Charge, used: u32, now_us: u64) {
        let account = self.find(charge.account, now_us);
        let held = self.accounts.entry(account).or_default();
        let quota = if held.quota == Quota::default() { charge.quota } else { held.quota };
        held.go_by(quota, now_us);
        held.tokens.correct(charge.tokens, used);
    }

    /// The account to go by: the tenant's own, or the shared one where there is no room.
    fn find(&mut self, account: u64, now_us: u64) -> u64 {
        if self.accounts.len() < ACCOUNTS_PER_STRIPE_MAX || self.accounts.contains_key(&account) {
            return account;
        }
        if now_us >= self.swept_us + SWEEP_PAUSE_US {
            self.swept_us = now_us;
            self.accounts.retain(|_, held| {
                held.go_by(held.quota, now_us);
                !held.requests.is_even() || !held.tokens.is_even()
            });
        }
        if self.accounts.len() < ACCOUNTS_PER_STRIPE_MAX { account } else { SHARED }
    }
}

impl Account {
    /// Lets time pass under the quota so far, and goes by `quota` from now on.
    fn go_by(&mut self, quota: Quota, now_us: u64) {
        self.requests.pass(self.quota.requests_per_minute, now_us);
        self.tokens.pass(self.quota.tokens_per_minute, now_us);
        self.quota = quota;
    }
}

#[cfg(test)]
mod tests;
