//! What this process uses of the machine, as Linux tells.

use crate::session::Usage;

/// Ticks of a second in `/proc/self/stat` (`USER_HZ`, 100 on every Linux).
const TICK_MS: u64 = 10;

/// Reads it; what the system does not tell is 0.
pub fn usage() -> Usage {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    parse(&read("/proc/self/status"), &read("/proc/self/stat"))
}

/// Memory that this process may use: the machine's, or less when its control group has a limit; `None`: the system does not
/// tell.
pub fn machine_memory() -> Option<u64> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    memory(&read("/proc/meminfo"), &read("/sys/fs/cgroup/memory.max"))
}

fn memory(meminfo: &str, limit: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let total = line.split_ascii_whitespace().next()?.parse::<u64>().ok()? << 10;
    Some(limit.trim().parse().map_or(total, |limit: u64| limit.min(total)))
}

fn parse(status: &str, stat: &str) -> Usage {
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_ascii_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
    };
    // The second field, the name in brackets, may hold blanks.
    let fields: Vec<&str> =
        stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3).and_then(|ticks| ticks.parse::<u64>().ok());
    Usage {
        rss_bytes: bytes("VmRSS:").unwrap_or(0),
        rss_peak_bytes: bytes("VmHWM:").unwrap_or(0),
        cpu_user_ms: ticks(14).unwrap_or(0) * TICK_MS,
        cpu_system_ms: ticks(15).unwrap_or(0) * TICK_MS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linux_tells_of_this_process() {
        let status = "Name:\ta\nVmHWM:\t     300 kB\nVmRSS:\t     200 kB\n";
        let stat = "1 (a ) b) S 0 1 1 0 -1 4194560 1 2 3 4 7 9 0 0 20 0 1 0 1 2 3";
        let usage = Usage { rss_bytes: 204_800, rss_peak_bytes: 307_200, cpu_system_ms: 90, cpu_user_ms: 70 };
        assert_eq!((parse(status, stat), parse("", "")), (usage, Usage::default()));
        let own = super::usage();
        assert!(own.rss_bytes > 0 && own.rss_bytes <= own.rss_peak_bytes);
        let total = "MemTotal:    1000 kB\nMemFree:   5 kB\n";
        assert_eq!(
            [memory(total, "max\n"), memory(total, "4096\n"), memory(total, "99999999\n"), memory("", "")],
            [Some(1_024_000), Some(4096), Some(1_024_000), None]
        );
        assert!(machine_memory() > Some(own.rss_bytes));
    }
}
