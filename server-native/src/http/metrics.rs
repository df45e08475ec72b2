//! Counters in Prometheus' text format. By hand: four kinds of lines do not need a library.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use axum::http::StatusCode;

use crate::host::{Host, NodeState};

/// Upper ends of the buckets for the time of a request, in seconds.
const BUCKETS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

/// What happened since the start.
pub(super) struct Metrics {
    requests: Mutex<BTreeMap<(String, String, u16), Requests>>,
}

#[derive(Clone, Default)]
struct Requests {
    count: u64,
    seconds: f64,
    /// Requests in each of [`BUCKETS`], not summed up.
    buckets: [u64; BUCKETS.len()],
}

impl Metrics {
    pub(super) fn new() -> Metrics {
        Metrics { requests: Mutex::new(BTreeMap::new()) }
    }

    /// Counts an answered request. `route` is the pattern, not the path, so that there are only so many.
    pub(super) fn count(&self, method: &str, route: &str, status: StatusCode, time: Duration) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = requests.entry((route.into(), method.into(), status.as_u16())).or_default();
        entry.count += 1;
        entry.seconds += time.as_secs_f64();
        if let Some(bucket) = BUCKETS.iter().position(|end| time.as_secs_f64() <= *end) {
            entry.buckets[bucket] += 1;
        }
    }

    /// Everything, as text.
    pub(super) fn render(&self, host: &Host) -> String {
        let mut text = String::new();
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone();
        head(&mut text, "inkling_http_requests_total", "counter", "Answered requests.");
        for ((route, method, status), entry) in &requests {
            let labels = format!("route=\"{route}\",method=\"{method}\",status=\"{status}\"");
            line(&mut text, "inkling_http_requests_total", &labels, entry.count);
        }
        let name = "inkling_http_request_seconds";
        head(&mut text, name, "histogram", "Time from a request's head to its answer's head.");
        let mut by_route: BTreeMap<&str, Requests> = BTreeMap::new();
        for ((route, ..), entry) in &requests {
            let sum = by_route.entry(route).or_default();
            sum.count += entry.count;
            sum.seconds += entry.seconds;
            sum.buckets.iter_mut().zip(entry.buckets).for_each(|(sum, count)| *sum += count);
        }
        for (route, sum) in by_route {
            let mut below = 0;
            for (end, count) in BUCKETS.iter().zip(sum.buckets) {
                below += count;
                line(&mut text, &format!("{name}_bucket"), &format!("route=\"{route}\",le=\"{end}\""), below);
            }
            line(&mut text, &format!("{name}_bucket"), &format!("route=\"{route}\",le=\"+Inf\""), sum.count);
            line(&mut text, &format!("{name}_sum"), &format!("route=\"{route}\""), sum.seconds);
            line(&mut text, &format!("{name}_count"), &format!("route=\"{route}\""), sum.count);
        }
        head(&mut text, "inkling_tokens_total", "counter", "New tokens.");
        host.tokens().for_each(|(node, count)| line(&mut text, "inkling_tokens_total", &label(node), count));
        head(&mut text, "inkling_node_ready", "gauge", "1 while the node takes jobs.");
        host.states().for_each(|(node, state)| {
            line(&mut text, "inkling_node_ready", &label(node), u8::from(state == NodeState::Ready));
        });
        head(&mut text, "inkling_jobs_waiting", "gauge", "Jobs in the node's queue.");
        host.jobs()
            .for_each(|(node, (count, _))| line(&mut text, "inkling_jobs_waiting", &label(node), count));
        head(&mut text, "inkling_jobs_running", "gauge", "Jobs that the node has begun.");
        host.jobs()
            .for_each(|(node, (_, count))| line(&mut text, "inkling_jobs_running", &label(node), count));
        head(&mut text, "inkling_runs_in_flight", "gauge", "Runs on their way.");
        line(&mut text, "inkling_runs_in_flight", "", host.in_flight());
        if let Some(bytes) = resident_bytes() {
            head(&mut text, "process_resident_memory_bytes", "gauge", "Resident memory size in bytes.");
            line(&mut text, "process_resident_memory_bytes", "", bytes);
        }
        text
    }
}

fn label(node: &str) -> String {
    format!("node=\"{node}\"")
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n").expect("a string takes any text");
}

fn line(text: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
    writeln!(text, "{name}{labels} {value}").expect("a string takes any text");
}

/// Memory of this process, where the system says so in `/proc`.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}
