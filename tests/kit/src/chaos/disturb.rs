//! What happens to the fleet meanwhile: workers are added, removed and killed, in an order that a seed decides.

use serde_json::Value;

use crate::chaos::Disturbances;
use crate::chaos::Engine;
use crate::chaos::Plan;
use crate::chaos::Progress;
use crate::client::Request;
use crate::draws::Draws;
use crate::gateway::Gateway;

/// Healthy workers that are always left.
const HEALTHY_MIN: usize = 2;

/// The thread that changes the fleet.
pub(super) struct Disturber<'a> {
    plan: &'a Plan,
    gateway: &'a Gateway,
    /// Engines that are registered, as far as this side knows.
    engines: Vec<Engine>,
    /// Engines that were removed: they finish what they have, and may come back.
    retired: Vec<Engine>,
    random: Draws,
    counts: Disturbances,
}

impl<'a> Disturber<'a> {
    pub(super) fn new(plan: &'a Plan, gateway: &'a Gateway, engines: Vec<Engine>) -> Disturber<'a> {
        let random = Draws::new(plan.seed);
        Disturber { plan, gateway, engines, retired: Vec::new(), random, counts: Disturbances::default() }
    }

    /// Changes the fleet at even distances over the requests. Returns when the run is over.
    pub(super) fn run(mut self, progress: &Progress) -> Disturbances {
        for at in 1..=self.plan.disturbances {
            if !progress.reaches(self.plan.requests * at / (self.plan.disturbances + 1)) {
                break;
            }
            let healthy = self.healthy();
            if healthy <= HEALTHY_MIN || (healthy < self.plan.engines_max && self.random.below(2) == 0) {
                self.add();
            } else if self.plan.kills && self.random.below(2) == 0 {
                self.kill();
            } else {
                self.remove();
            }
        }
        while progress.reaches(usize::MAX) {}
        self.counts
    }

    /// Workers that get requests and whose engines live.
    fn healthy(&self) -> usize {
        let workers = self.gateway.workers();
        let is_alive = |worker: &&Value| self.engines.iter().any(|engine| worker["url"] == engine.url());
        workers.iter().filter(|worker| worker["is_healthy"] == true).filter(is_alive).count()
    }

    fn add(&mut self) {
        let engine = if self.retired.is_empty() || self.random.below(2) == 0 {
            Engine::start(&self.plan.program)
        } else {
            let at = self.random.index(self.retired.len());
            self.retired.swap_remove(at)
        };
        let body = serde_json::json!({"url": engine.url()}).to_string();
        let answer = self.gateway.ask(&Request::json("/workers", body));
        // While it drains, a worker cannot come back: then the next disturbance does something else.
        if answer.status == 202 {
            self.counts.added += 1;
            self.engines.push(engine);
        } else {
            assert_eq!(answer.status, 409, "{answer:?}");
            self.retired.push(engine);
        }
    }

    fn remove(&mut self) {
        let at = self.random.index(self.engines.len());
        let engine = self.engines.swap_remove(at);
        let name = engine.url().replace(':', "%3A").replace('/', "%2F");
        let answer = self.gateway.ask(&Request::new("DELETE", &format!("/workers/{name}")));
        assert_eq!(answer.status, 202, "{answer:?}");
        self.counts.removed += 1;
        self.retired.push(engine);
    }

    fn kill(&mut self) {
        let at = self.random.index(self.engines.len());
        // Dropping it kills its process. The gateway has to find out by itself.
        drop(self.engines.swap_remove(at));
        self.counts.killed += 1;
    }
}
