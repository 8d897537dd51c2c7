//! Shares of tenants: the bound of start-time fair queueing, and what settling does to it.

use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::super::lane::Lane;
use super::*;

const SEEDS: u64 = 200;
const TOKENS: u32 = 500;

fn waiter(id: u64, tenant: u64, tokens: u32) -> Waiter<()> {
    Waiter { id, tenant: TenantId(tenant), tokens, entered_us: 0, reply: () }
}

/// While two tenants wait, what one has had is never more beyond the other's than one request of each.
#[test]
fn tenants_that_wait_have_the_same() {
    for seed in 0..SEEDS {
        let mut rng = SmallRng::seed_from_u64(seed);
        let tenants = rng.random_range(2..6_u64);
        // Each has requests of its own size, and floods at its own rate.
        let sizes: Vec<u32> = (0..tenants).map(|_| rng.random_range(1..TOKENS)).collect();
        let mut lane = Lane::new();
        let mut id = 0;
        let mut served = vec![0_i64; tenants as usize];
        for _ in 0..2_000 {
            for tenant in 0..tenants {
                for _ in 0..rng.random_range(1..4) {
                    id += 1;
                    lane.push(waiter(id, tenant, rng.random_range(1..=sizes[tenant as usize])));
                }
            }
            let next = lane.pop_fair().expect("everybody waits");
            served[next.tenant.0 as usize] += i64::from(next.tokens);
            for (a, had) in served.iter().enumerate() {
                for (b, other) in served.iter().enumerate() {
                    let bound = i64::from(sizes[a] + sizes[b]);
                    assert!((had - other).abs() <= bound, "seed {seed}: {served:?}");
                }
            }
        }
    }
}

/// One tenant asks for ten times what it uses, the other for what it uses: settled, both get the same.
#[test]
fn shares_are_of_what_is_used() {
    let mut lane = Lane::new();
    let mut used = [0_u64; 2];
    for id in 0..20_000 {
        lane.push(waiter(2 * id, 0, 1_000));
        lane.push(waiter(2 * id + 1, 1, 100));
        let next = lane.pop_fair().expect("both wait");
        used[next.tenant.0 as usize] += 100;
        lane.settle(next.tenant, 100 - i64::from(next.tokens));
    }
    assert!(used[0].abs_diff(used[1]) <= 1_100, "{used:?}");
}

/// A hundred arrivals to one, three times what can be served, a queue that is always full: shares stay even.
#[test]
fn a_flood_does_not_take_the_others_share() {
    let gate = plain(1, 50);
    let mut permits = vec![admitted(enter(&gate, ONLY, 1))];
    let mut tickets: Vec<(u64, Ticket)> = Vec::new();
    let mut served = [0_f64; 3];
    for _ in 0..1_000 {
        for tenant in std::iter::repeat_n(1, 100).chain([2]) {
            if let Entry::Queued(ticket) = enter(&gate, ONLY, tenant) {
                tickets.push((tenant, ticket));
            }
        }
        let permit = permits.pop().expect("one is in flight");
        release(&gate, permit);
        tickets.retain_mut(|(tenant, ticket)| match verdict(ticket) {
            Some(Verdict::Admitted { permit, .. }) => {
                permits.push(permit);
                served[*tenant as usize] += 1.0;
                false
            }
            Some(Verdict::Refused) => false,
            None => true,
        });
    }
    let jain = (served[1] + served[2]).powi(2) / (2.0 * (served[1].powi(2) + served[2].powi(2)));
    assert!(jain >= 0.99, "{served:?}");
}

/// However many tenants come and go, few are remembered.
#[test]
fn tenants_that_left_are_forgotten() {
    let mut lane = Lane::new();
    lane.push(waiter(0, u64::MAX, 1));
    for tenant in 0..20_000 {
        lane.push(waiter(tenant + 1, tenant, 1_000));
        if tenant > 10 {
            let gone = lane.pop_oldest().expect("they wait");
            lane.settle(gone.tenant, 1);
        }
    }
    assert!(lane.tenants() <= 4096 + lane.len());
    while lane.pop_fair().is_some() {}
    assert_eq!((lane.len(), lane.tenants()), (0, 0));
}
