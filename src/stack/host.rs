//! How busy the machine is, as the production-stack's router shows it beside its own figures.

/// Times of all CPUs together at the last look, in ticks: all, and those of them idle.
#[derive(Debug, Default)]
pub(super) struct Host {
    before: (u64, u64),
}

impl Host {
    /// Share of the CPUs' time that was taken since the last look, in percent.
    pub(super) fn cpu_percent(&mut self) -> f64 {
        let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let now = cpu_times(&stat);
        let (all, idle) = (now.0.saturating_sub(self.before.0), now.1.saturating_sub(self.before.1));
        self.before = now;
        percent(all.saturating_sub(idle), all)
    }
}

/// Share of the memory that is taken, in percent.
pub(super) fn memory_percent() -> f64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let of = |name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_ascii_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0)
    };
    let (total, free) = (of("MemTotal:"), of("MemAvailable:"));
    percent(total.saturating_sub(free), total)
}

/// Share of the disk of `/` that is taken, in percent.
pub(super) fn disk_percent() -> f64 {
    let Ok(disk) = rustix::fs::statvfs("/") else { return 0.0 };
    let taken = disk.f_blocks.saturating_sub(disk.f_bfree);
    percent(taken, taken + disk.f_bavail)
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}

/// All, and idle, of the first line of `/proc/stat`.
fn cpu_times(stat: &str) -> (u64, u64) {
    let times: Vec<u64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_ascii_whitespace()
        .skip(1)
        .filter_map(|time| time.parse().ok())
        .collect();
    // Guests are counted with their users; waiting for disks is idle time.
    let all = times.iter().take(8).sum();
    (all, times.iter().skip(3).take(2).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_percentages() {
        assert_eq!(cpu_times("cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1"), (36, 9));
        let mut host = Host::default();
        for share in [host.cpu_percent(), memory_percent(), disk_percent()] {
            assert!((0.0..=100.0).contains(&share), "{share}");
        }
    }
}
