//! CPUs this process may use, CPU lists as the kernel writes them, and pinning.

use std::fmt;
use std::io;

use rustix::thread::CpuSet;
use rustix::thread::sched_getaffinity;
use rustix::thread::sched_setaffinity;

/// Why a CPU list cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CpuListError {
    /// Not of the form `0-3,8`.
    Syntax(String),
    /// This CPU does not exist or is outside the process's affinity mask or cgroup cpuset.
    Unusable(usize),
    /// This CPU stands in the list twice.
    Repeated(usize),
}

impl fmt::Display for CpuListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(part) => write!(f, "`{part}` is not a CPU or a range of CPUs such as 0-3"),
            Self::Unusable(cpu) => write!(f, "CPU {cpu} cannot be used by this process"),
            Self::Repeated(cpu) => write!(f, "CPU {cpu} is listed twice"),
        }
    }
}

impl std::error::Error for CpuListError {}

/// CPUs in the calling thread's affinity mask, ascending; the kernel already takes the cgroup's cpuset into account.
///
/// # Errors
/// When the kernel does not answer, which only seccomp can cause.
pub fn usable() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect())
}

/// Parses a list such as `0-3,8` and checks each CPU against `usable`. Order is kept.
///
/// # Errors
/// Names the first part or CPU that cannot be used.
pub fn parse_list(list: &str, usable: &[usize]) -> Result<Vec<usize>, CpuListError> {
    let mut cpus = Vec::new();
    for part in list.split(',') {
        let part = part.trim();
        let number = |text: &str| text.parse::<usize>().map_err(|_| CpuListError::Syntax(part.to_owned()));
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        if first > last {
            return Err(CpuListError::Syntax(part.to_owned()));
        }
        for cpu in first..=last {
            if !usable.contains(&cpu) {
                return Err(CpuListError::Unusable(cpu));
            }
            if cpus.contains(&cpu) {
                return Err(CpuListError::Repeated(cpu));
            }
            cpus.push(cpu);
        }
    }
    Ok(cpus)
}

/// Pins the calling thread to one CPU.
///
/// # Errors
/// When the kernel refuses, as for a CPU outside the cgroup's cpuset.
pub fn pin(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const USABLE: [usize; 5] = [0, 1, 2, 3, 8];

    #[test]
    fn lists_and_ranges_keep_their_order() {
        assert_eq!(parse_list("0-3,8", &USABLE), Ok(vec![0, 1, 2, 3, 8]));
        assert_eq!(parse_list("8, 1", &USABLE), Ok(vec![8, 1]));
    }

    #[test]
    fn bad_lists_name_what_is_wrong() {
        assert_eq!(parse_list("4", &USABLE), Err(CpuListError::Unusable(4)));
        assert_eq!(parse_list("0-9999999999", &USABLE), Err(CpuListError::Unusable(4)));
        assert_eq!(parse_list("1,0-2", &USABLE), Err(CpuListError::Repeated(1)));
        for bad in ["", "a", "1-", "3-1", "1,,2", "-1"] {
            assert!(matches!(parse_list(bad, &USABLE), Err(CpuListError::Syntax(_))), "{bad}");
        }
    }

    #[test]
    fn this_thread_may_use_a_cpu_and_pin_to_it() {
        let cpu = *usable().expect("affinity").first().expect("a CPU");
        std::thread::spawn(move || {
            pin(cpu).expect("pinned");
            assert_eq!(usable().expect("affinity"), [cpu]);
        })
        .join()
        .expect("no panic");
    }
}
