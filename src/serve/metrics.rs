//! Counters, gauges and histograms, rendered in the Prometheus text format 0.0.4.
//!
//! Why our own: the OpenMetrics writer of `prometheus-client` renames counters (`_total`), so upstream's names are impossible.
//!
//! Counting is one atomic addition on a handle; finding the handle of a set of label values is one lookup that allocates nothing
//! when the set is known. Invariant: the number of series of a family is bounded by [`SERIES_MAX`]; further label sets are counted in a
//! series that is not shown, so that a hostile label value costs no memory.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

/// Series of one family. Upstream's largest, apiserver_request_duration_seconds, has about 2,000 on a busy server.
pub const SERIES_MAX: usize = 10_000;

/// Upstream's buckets of request durations, in seconds.
pub const REQUEST_SECONDS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];

/// Prometheus' default buckets, in seconds.
pub const DEFAULT_SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Something that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }
    /// The count.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Sets it.
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }
    /// Adds, perhaps a negative number.
    pub fn add(&self, delta: f64) {
        let add = |bits| Some((f64::from_bits(bits) + delta).to_bits());
        // Always `Some`, so always `Ok`.
        let _updated = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
    /// The value.
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

/// A distribution over fixed buckets.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    /// One more than bounds: the last is +Inf. Not cumulative.
    buckets: Box<[AtomicU64]>,
    /// The sum in billionths: exact to a nanosecond, full after 584 years of seconds.
    sum_nanos: AtomicU64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Histogram {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram { bounds, buckets, sum_nanos: AtomicU64::new(0) }
    }
    /// Records one value, not negative.
    pub fn observe(&self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_nanos.fetch_add((value * 1e9) as u64, Ordering::Relaxed);
    }
    /// How many values were recorded.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|b| b.load(Ordering::Relaxed)).sum()
    }
}

/// What a family is made of.
pub trait Instrument: Send + Sync + 'static {
    /// A fresh series. `bounds` is for histograms.
    fn make(bounds: &'static [f64]) -> Self;
    /// The word behind `# TYPE`.
    const TYPE: &'static str;
    /// Writes the series' lines. `labels` is `a="b",c="d"` or "".
    fn render(&self, name: &str, labels: &str, out: &mut String);
}

impl Instrument for Counter {
    const TYPE: &'static str = "counter";
    fn make(_bounds: &'static [f64]) -> Counter {
        Counter::default()
    }
    fn render(&self, name: &str, labels: &str, out: &mut String) {
        sample(out, name, labels, self.get());
    }
}

impl Instrument for Gauge {
    const TYPE: &'static str = "gauge";
    fn make(_bounds: &'static [f64]) -> Gauge {
        Gauge::default()
    }
    fn render(&self, name: &str, labels: &str, out: &mut String) {
        sample(out, name, labels, self.get());
    }
}

impl Instrument for Histogram {
    const TYPE: &'static str = "histogram";
    fn make(bounds: &'static [f64]) -> Histogram {
        Histogram::new(bounds)
    }
    fn render(&self, name: &str, labels: &str, out: &mut String) {
        let (bucket, comma) = (format!("{name}_bucket"), if labels.is_empty() { "" } else { "," });
        let mut total = 0;
        for (i, count) in self.buckets.iter().enumerate() {
            total += count.load(Ordering::Relaxed);
            let bound = self.bounds.get(i).map_or("+Inf".to_string(), f64::to_string);
            sample(out, &bucket, &format!("{labels}{comma}le=\"{bound}\""), total);
        }
        let sum = self.sum_nanos.load(Ordering::Relaxed) as f64 / 1e9;
        sample(out, &format!("{name}_sum"), labels, sum);
        sample(out, &format!("{name}_count"), labels, total);
    }
}

fn sample(out: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let _infallible = if labels.is_empty() {
        writeln!(out, "{name} {value}")
    } else {
        writeln!(out, "{name}{{{labels}}} {value}")
    };
}

/// Instruments of one name, told apart by the values of their labels.
#[derive(Clone)]
pub struct Family<I> {
    inner: Arc<FamilyInner<I>>,
}

struct FamilyInner<I> {
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    bounds: &'static [f64],
    /// By label values joined with 0xff, which occurs in no text.
    series: RwLock<HashMap<Vec<u8>, Arc<I>>>,
}

impl<I: Instrument> Family<I> {
    /// The instrument for these label values, in the order in which the labels were declared.
    pub fn with(&self, values: &[&str]) -> Arc<I> {
        debug_assert_eq!(values.len(), self.inner.labels.len(), "{}", self.inner.name);
        KEY.with_borrow_mut(|key| {
            key.clear();
            for value in values {
                key.extend_from_slice(value.as_bytes());
                key.push(0xff);
            }
            if let Some(found) = self.inner.series.read().get(key.as_slice()) {
                return Arc::clone(found);
            }
            let mut series = self.inner.series.write();
            if series.len() >= SERIES_MAX && !series.contains_key(key.as_slice()) {
                return Arc::new(I::make(self.inner.bounds));
            }
            let made = || Arc::new(I::make(self.inner.bounds));
            Arc::clone(series.entry(key.clone()).or_insert_with(made))
        })
    }
}

thread_local! {
    /// Where a lookup joins its label values.
    static KEY: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

trait Render: Send + Sync {
    fn name(&self) -> &'static str;
    fn render(&self, out: &mut String);
}

impl<I: Instrument> Render for FamilyInner<I> {
    fn name(&self) -> &'static str {
        self.name
    }
    fn render(&self, out: &mut String) {
        let series = self.series.read();
        if series.is_empty() {
            return;
        }
        head(out, self.name, self.help, I::TYPE);
        let mut sorted: Vec<_> = series.iter().collect();
        sorted.sort_by(|a, b| a.0.cmp(b.0));
        for (key, instrument) in sorted {
            let mut labels = String::new();
            for (name, value) in self.labels.iter().zip(key.split(|b| *b == 0xff)) {
                if !labels.is_empty() {
                    labels.push(',');
                }
                let _infallible = write!(labels, "{name}=\"");
                escape(&String::from_utf8_lossy(value), &mut labels);
                labels.push('"');
            }
            instrument.render(self.name, &labels, out);
        }
    }
}

fn head(out: &mut String, name: &str, help: &str, ty: &str) {
    let _infallible = write!(out, "# HELP {name} {help}\n# TYPE {name} {ty}\n");
}

fn escape(value: &str, out: &mut String) {
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}

/// Numbers that exist elsewhere and are read when the page is rendered.
struct Sampled<F> {
    name: &'static str,
    help: &'static str,
    ty: &'static str,
    read: F,
}

impl<F: Fn() -> f64 + Send + Sync> Render for Sampled<F> {
    fn name(&self) -> &'static str {
        self.name
    }
    fn render(&self, out: &mut String) {
        head(out, self.name, self.help, self.ty);
        sample(out, self.name, "", (self.read)());
    }
}

/// All families of a component. Cheap to clone.
#[derive(Clone, Default)]
pub struct Registry {
    families: Arc<RwLock<Vec<Arc<dyn Render>>>>,
}

impl Registry {
    /// Without any family.
    pub fn new() -> Registry {
        Registry::default()
    }

    fn family<I: Instrument>(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        bounds: &'static [f64],
    ) -> Family<I> {
        let inner = Arc::new(FamilyInner { name, help, labels, bounds, series: RwLock::default() });
        self.families.write().push(inner.clone());
        Family { inner }
    }

    /// Declares counters.
    pub fn counters(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Family<Counter> {
        self.family(name, help, labels, &[])
    }

    /// Declares gauges.
    pub fn gauges(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Family<Gauge> {
        self.family(name, help, labels, &[])
    }

    /// Declares histograms over `bounds`, which ascend.
    pub fn histograms(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        bounds: &'static [f64],
    ) -> Family<Histogram> {
        self.family(name, help, labels, bounds)
    }

    /// Declares a counter that is read when rendered.
    pub fn sampled_counter(
        &self,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> f64 + Send + Sync + 'static,
    ) {
        self.families.write().push(Arc::new(Sampled { name, help, ty: "counter", read }));
    }

    /// Declares a gauge that is read when rendered.
    pub fn sampled_gauge(
        &self,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> f64 + Send + Sync + 'static,
    ) {
        self.families.write().push(Arc::new(Sampled { name, help, ty: "gauge", read }));
    }

    /// Declares what every process shows: CPU, memory, file descriptors, start.
    pub fn process(&self) {
        self.sampled_counter(
            "process_cpu_seconds_total",
            "Total user and system CPU time spent in seconds.",
            || process().cpu_seconds,
        );
        self.sampled_gauge("process_resident_memory_bytes", "Resident memory size in bytes.", || {
            process().resident_bytes
        });
        self.sampled_gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", || {
            process().virtual_bytes
        });
        self.sampled_gauge(
            "process_start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
            || process().start_seconds,
        );
        self.sampled_gauge("process_open_fds", "Number of open file descriptors.", || {
            std::fs::read_dir("/proc/self/fd").map_or(0.0, |entries| entries.count() as f64)
        });
    }

    /// The page, `text/plain; version=0.0.4; charset=utf-8`, families in order of their names.
    pub fn render(&self) -> String {
        let mut families = self.families.read().clone();
        families.sort_by_key(|f| f.name());
        let mut out = String::with_capacity(64 * 1024);
        for family in families {
            family.render(&mut out);
        }
        out
    }
}

/// The content type of [`Registry::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";

#[derive(Default)]
struct Process {
    cpu_seconds: f64,
    resident_bytes: f64,
    virtual_bytes: f64,
    start_seconds: f64,
}

/// Reads `/proc/self/stat`; zeros where that does not exist.
fn process() -> Process {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return Process::default() };
    // The command's name may hold spaces and brackets: fields count from the last closing one.
    let fields: Vec<f64> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().map(|f| f.parse().unwrap_or(0.0)).collect())
        .unwrap_or_default();
    let field = |i: usize| fields.get(i).copied().unwrap_or(0.0);
    let (ticks, page) = (sysconf(libc::_SC_CLK_TCK, 100.0), sysconf(libc::_SC_PAGESIZE, 4096.0));
    let boot = std::fs::read_to_string("/proc/stat")
        .ok()
        .and_then(|s| s.lines().find_map(|l| l.strip_prefix("btime ")?.trim().parse::<f64>().ok()))
        .unwrap_or(0.0);
    Process {
        cpu_seconds: (field(11) + field(12)) / ticks,
        start_seconds: boot + field(19) / ticks,
        virtual_bytes: field(20),
        resident_bytes: field(21) * page,
    }
}

#[allow(unsafe_code, reason = "sysconf has no safe wrapper in std; it reads a constant")]
fn sysconf(name: libc::c_int, otherwise: f64) -> f64 {
    // SAFETY: no pointers, any argument is allowed; a failure is -1.
    let value = unsafe { libc::sysconf(name) };
    if value > 0 { value as f64 } else { otherwise }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_the_text_format() {
        let registry = Registry::new();
        let requests = registry.counters("b_total", "Requests.", &["verb", "code"]);
        let seconds = registry.histograms("c_seconds", "Seconds.", &[], &[0.1, 1.0]);
        let inflight = registry.gauges("a_inflight", "In flight.", &["kind"]);
        registry.counters("never_used", "Nothing.", &["x"]);
        requests.with(&["GET", "200"]).add(2);
        requests.with(&["GET", "200"]).inc();
        requests.with(&["GET", "\"\\\n"]).inc();
        for value in [0.05, 0.1, 0.5, 5.0] {
            seconds.with(&[]).observe(value);
        }
        inflight.with(&["read"]).add(2.0);
        inflight.with(&["read"]).add(-0.5);
        assert_eq!(
            registry.render(),
            "# HELP a_inflight In flight.\n# TYPE a_inflight gauge\na_inflight{kind=\"read\"} 1.5\n\
             # HELP b_total Requests.\n# TYPE b_total counter\n\
             b_total{verb=\"GET\",code=\"\\\"\\\\\\n\"} 1\nb_total{verb=\"GET\",code=\"200\"} 3\n\
             # HELP c_seconds Seconds.\n# TYPE c_seconds histogram\n\
             c_seconds_bucket{le=\"0.1\"} 2\nc_seconds_bucket{le=\"1\"} 3\nc_seconds_bucket{le=\"+Inf\"} 4\n\
             c_seconds_sum 5.65\nc_seconds_count 4\n"
        );
    }

    #[test]
    fn hostile_labels_cost_no_memory() {
        let registry = Registry::new();
        let family = registry.counters("x", "X.", &["l"]);
        for i in 0..SERIES_MAX + 10 {
            family.with(&[&i.to_string()]).inc();
        }
        assert_eq!(registry.render().lines().count(), SERIES_MAX + 2);
    }

    #[test]
    fn the_process_is_seen() {
        let process = process();
        assert!(process.resident_bytes > 1e5 && process.start_seconds > 1e9, "{}", process.resident_bytes);
    }
}
