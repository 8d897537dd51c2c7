//! Makes captured decisions again from their evidence: proof that a capture holds everything they were made from.

use policy::decide;

use crate::trace::Captured;

/// How many captured decisions came out the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reproduction {
    /// Decisions made again.
    pub decisions: usize,
    /// Of those, with the same worker and the same reason.
    pub reproduced: usize,
    /// The first that was not, in words.
    pub first_difference: Option<String>,
}

/// Makes every decision again, under the policy that made it.
pub fn reproduce(captured: &[Captured]) -> Reproduction {
    let mut reproduction = Reproduction { decisions: captured.len(), ..Reproduction::default() };
    for (number, decision) in captured.iter().enumerate() {
        match difference(decision) {
            None => reproduction.reproduced += 1,
            Some(difference) => {
                let first = &mut reproduction.first_difference;
                first.get_or_insert_with(|| format!("decision {}: {difference}", number + 1));
            }
        }
    }
    reproduction
}

fn difference(captured: &Captured) -> Option<String> {
    let Captured { policy, evidence, chosen, reason } = captured;
    let Some((at, reason_now)) = decide(policy, evidence) else {
        return Some("no candidate".to_owned());
    };
    let chosen_now = evidence.candidates[at].worker;
    let is_same = (chosen_now, reason_now) == (*chosen, *reason);
    let words = || {
        let (name, before, now) = (policy.name(), reason.name(), reason_now.name());
        format!("{name} chose {chosen} ({before}), now {chosen_now} ({now})")
    };
    (!is_same).then(words)
}

// === impl Reproduction ===

impl std::fmt::Display for Reproduction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "reproduced {} of {} choices", self.reproduced, self.decisions)?;
        match &self.first_difference {
            Some(difference) => write!(f, "; first difference: {difference}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
