//! What the work cost: processor time and memory, of the servers that are measured and of the generator itself.
//!
//! A [`Snapshot`] is taken at both ends of the measured window, and the difference is told. The generator watches its own
//! threads too: one that was busy for most of the window may have been what was measured, and then the report says so. A
//! thread that does what it is asked in half of its time could have done more.

use std::collections::HashMap;
use std::fs;

use nix::time::ClockId;
use nix::unistd::Pid;

use crate::clock;
use crate::error::LoadError;
use crate::report::{Figure, Report};

/// A thread of the generator that was busy for more of the window than this may have been the limit.
const BUSY_PERCENT_MAX: f64 = 85.0;

/// Nanoseconds of a tick of /proc/PID/stat, which is a hundredth of a second on every Linux that people run.
const TICK_NS: u64 = 10_000_000;

/// What had been used at one moment.
#[derive(Debug)]
pub(crate) struct Snapshot {
    at_ns: u64,
    own_cpu_ns: u64,
    /// Processor time of each thread of ours, by its id.
    threads: HashMap<u32, ThreadUse>,
    /// Of each server, in the order of the command line.
    servers: Vec<ServerUse>,
}

#[derive(Clone, Copy, Debug, Default)]
struct ThreadUse {
    cpu_ns: u64,
    /// For how long it could have run, and had no processor.
    waited_ns: u64,
}

#[derive(Clone, Copy, Debug)]
struct ServerUse {
    cpu_ns: u64,
    resident_bytes: u64,
}

impl Snapshot {
    /// Looks at ourselves, and at the processes with these ids.
    ///
    /// # Errors
    /// If one of the processes is not there, which says which.
    pub(crate) fn take(pids: &[u32]) -> Result<Snapshot, LoadError> {
        let servers = pids.iter().map(|pid| ServerUse::read(*pid)).collect::<Result<_, _>>()?;
        let own = ClockId::CLOCK_PROCESS_CPUTIME_ID.now();
        Ok(Snapshot {
            at_ns: clock::now_ns(),
            own_cpu_ns: own.map_or(0, clock::nanoseconds),
            threads: threads(),
            servers,
        })
    }

    /// Seconds from an earlier one to this one.
    pub(crate) fn seconds_since(&self, earlier: &Snapshot) -> f64 {
        self.at_ns.saturating_sub(earlier.at_ns).max(1) as f64 / 1e9
    }

    /// Resident memory of all servers.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.servers.iter().map(|server| server.resident_bytes).sum()
    }

    /// Tells what was used since an earlier one: by the servers, also for each of `units` (a word and how many there
    /// were), and by ourselves.
    pub(crate) fn tell(&self, earlier: &Snapshot, units: (&str, u64), report: &mut Report) {
        let window_s = self.seconds_since(earlier);
        let (unit, count) = units;
        if !self.servers.is_empty() {
            let used = |servers: &[ServerUse]| servers.iter().map(|one| one.cpu_ns).sum::<u64>();
            let cpu_ns = used(&self.servers).saturating_sub(used(&earlier.servers)) as f64;
            report.add("server_cpu_s", Figure::Seconds(cpu_ns / 1e9));
            report.add("server_cpu_percent", Figure::Percent(cpu_ns / 1e7 / window_s));
            if count > 0 {
                let each = Figure::Micros(cpu_ns / 1e3 / count as f64);
                report.add(format!("server_cpu_us_per_{unit}"), each);
            }
            report.add("server_rss_bytes", Figure::Bytes(self.resident_bytes()));
        }
        let own_ns = self.own_cpu_ns.saturating_sub(earlier.own_cpu_ns) as f64;
        report.add("generator_cpu_s", Figure::Seconds(own_ns / 1e9));
        let busiest = self.busiest(earlier);
        let percent = |ns: u64| ns as f64 / 1e7 / window_s;
        let busy_percent = percent(busiest.cpu_ns);
        report.add("generator_busiest_thread_percent", Figure::Percent(busy_percent));
        let waited_percent = percent(busiest.waited_ns);
        let waited = Figure::Percent(waited_percent);
        report.add("generator_busiest_thread_waited_percent", waited);
        let is_limit = busy_percent > BUSY_PERCENT_MAX;
        report.add("limited_by_generator", Figure::Flag(is_limit));
        if is_limit {
            report.warn(format!(
                "a thread of the generator was busy for {busy_percent:.0} % of the time: it may have been the limit; \
                 give it more --threads, or cores of its own"
            ));
        } else if busy_percent + waited_percent > BUSY_PERCENT_MAX {
            report.warn(format!(
                "a thread of the generator had no processor for {waited_percent:.0} % of the time in which it could have run: \
                 latencies have that in them"
            ));
        }
    }

    /// What the thread of ours used that used most.
    fn busiest(&self, earlier: &Snapshot) -> ThreadUse {
        let since = self.threads.iter().map(|(id, now)| {
            let before = earlier.threads.get(id).copied().unwrap_or_default();
            ThreadUse {
                cpu_ns: now.cpu_ns.saturating_sub(before.cpu_ns),
                waited_ns: now.waited_ns.saturating_sub(before.waited_ns),
            }
        });
        since.max_by_key(|thread| thread.cpu_ns).unwrap_or_default()
    }
}

impl ServerUse {
    fn read(pid: u32) -> Result<ServerUse, LoadError> {
        let gone = || LoadError::Usage(format!("--pid {pid}: there is no such process"));
        let id = Pid::from_raw(i32::try_from(pid).map_err(|_| gone())?);
        // Exact, and of all its threads, those that have ended too; /proc/PID/stat says the same in hundredths of a second.
        let cpu = ClockId::pid_cpu_clock_id(id).and_then(ClockId::now).map_err(|_| gone())?;
        let resident_kb = resident_kb(pid).ok_or_else(gone)?;
        Ok(ServerUse { cpu_ns: clock::nanoseconds(cpu), resident_bytes: resident_kb * 1024 })
    }
}

/// Resident memory of a process. `smaps_rollup` counts the pages; `status` has what the kernel keeps in one counter for each
/// processor, and may be some hundred pages off. It is there where the other may not be read.
fn resident_kb(pid: u32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok();
    let exact = rollup.and_then(|text| field_kb(&text, "Rss:"));
    exact.or_else(|| field_kb(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, "VmRSS:"))
}

fn field_kb(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// What each thread of ours has used so far.
fn threads() -> HashMap<u32, ThreadUse> {
    let Ok(directory) = fs::read_dir("/proc/self/task") else { return HashMap::new() };
    let ids = directory.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    // A thread may end between the two looks: it was not the busiest.
    ids.filter_map(|id| Some((id, thread(id)?))).collect()
}

fn thread(id: u32) -> Option<ThreadUse> {
    // "RUNNING WAITING SLICES", in nanoseconds; not in every kernel.
    if let Ok(text) = fs::read_to_string(format!("/proc/self/task/{id}/schedstat")) {
        let mut numbers = text.split_whitespace().map(str::parse::<u64>);
        if let (Some(Ok(cpu_ns)), Some(Ok(waited_ns))) = (numbers.next(), numbers.next()) {
            return Some(ThreadUse { cpu_ns, waited_ns });
        }
    }
    let stat = fs::read_to_string(format!("/proc/self/task/{id}/stat")).ok()?;
    // The name is in parentheses and may have any character; user and system time are the 12th and 13th behind it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11).map(str::parse::<u64>);
    let ticks = fields.next()?.ok()? + fields.next()?.ok()?;
    Some(ThreadUse { cpu_ns: ticks * TICK_NS, waited_ns: 0 })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn memory_is_read_in_kilobytes() {
        let text = "55d-7ff ---p 00000000 [rollup]\nRss:              1516 kB\nPss: 1 kB\n";
        assert_eq!(field_kb(text, "Rss:"), Some(1516));
        assert_eq!(field_kb(text, "Swap:"), None);
        assert!(resident_kb(std::process::id()).unwrap() > 100);
    }

    #[test]
    fn a_busy_thread_is_the_limit() {
        let own = std::process::id();
        let before = Snapshot::take(&[own]).unwrap();
        let spin = std::thread::spawn(|| {
            let end = clock::now_ns() + 50_000_000;
            while clock::now_ns() < end {}
            let after = Snapshot::take(&[std::process::id()]).unwrap();
            (after, std::time::Instant::now())
        });
        let (mut after, _) = spin.join().unwrap();
        let mut report = Report::default();
        after.tell(&before, ("request", 10), &mut report);
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert!(json["generator_cpu_s"].as_f64().unwrap() > 0.0, "{json}");
        assert!(json["server_cpu_us_per_request"].as_f64().unwrap() > 0.0, "{json}");
        assert!(json["server_rss_bytes"].as_u64().unwrap() > 100 << 10, "{json}");

        // The same use in a window that is as short as the use.
        after.at_ns = before.at_ns + after.busiest(&before).cpu_ns;
        let mut report = Report::default();
        after.tell(&before, ("request", 0), &mut report);
        assert!(report.json().contains(r#""limited_by_generator":true"#));
        assert!(report.table().contains("warning: a thread of the generator"));
    }

    #[test]
    fn a_process_that_is_not_there_is_named() {
        let error = Snapshot::take(&[u32::MAX]).unwrap_err();
        assert_eq!(error.to_string(), "--pid 4294967295: there is no such process");
        assert_eq!(error.exit_code(), 2);
    }
}
