//! CPU time and memory of a process and its children, from the kernel.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// Returns a process and all its descendants.
pub(crate) fn family(pid: u32) -> Vec<u32> {
    let mut pids = vec![pid];
    let mut next = 0;
    while next < pids.len() {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", pids[next]));
        pids.extend(
            children.unwrap_or_default().split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()),
        );
        next += 1;
    }
    pids
}

/// Returns the CPU time of all threads of these processes, user and system, from the scheduler in nanoseconds.
pub(crate) fn cpu(pids: &[u32]) -> Result<Duration> {
    let mut total = Duration::ZERO;
    for pid in pids {
        for task in fs::read_dir(format!("/proc/{pid}/task")).context("a process has ended")? {
            let path = task?.path().join("schedstat");
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let nanoseconds = text.split(' ').next().and_then(|first| first.parse().ok());
            total += Duration::from_nanos(nanoseconds.context("schedstat begins with a number")?);
        }
    }
    Ok(total)
}

/// Returns the proportional set size of these processes in bytes: shared pages count once.
pub(crate) fn memory(pids: &[u32]) -> Result<u64> {
    let mut total = 0;
    for pid in pids {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).context("a process has ended")?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss line")?;
        total += line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024;
    }
    Ok(total)
}
