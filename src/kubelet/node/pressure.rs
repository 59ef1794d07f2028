//! Whether memory, disk or processes run short on the node, and the thresholds that say when.
//!
//! Owns: thresholds, and one look at the machine. Does not: evict pods or collect images, keep a condition for a while after
//! it has passed (upstream's evictionPressureTransitionPeriod), or know soft thresholds.
//!
//! When it breaks: what cannot be measured counts as enough.
//!
//! upstream: pkg/kubelet/eviction/helpers.go, api/types.go, defaults_linux.go

use std::collections::BTreeMap;
use std::path::Path;

use copepod_meta::quantity::Quantity;

use crate::context::Context;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// Memory, in bytes.
    Memory,
    /// Room on the file system of the agent's directory, in bytes.
    NodeDisk,
    /// Inodes there.
    NodeInodes,
    /// Room on the file system of images, in bytes.
    ImageDisk,
    /// Inodes there.
    ImageInodes,
    /// Processes and threads.
    Pids,
}

impl Signal {
    const ALL: [(&'static str, Signal); 6] = [
        ("memory.available", Signal::Memory),
        ("nodefs.available", Signal::NodeDisk),
        ("nodefs.inodesFree", Signal::NodeInodes),
        ("imagefs.available", Signal::ImageDisk),
        ("imagefs.inodesFree", Signal::ImageInodes),
        ("pid.available", Signal::Pids),
    ];

    fn of(name: &str) -> Option<Signal> {
        Signal::ALL.iter().find(|(known, _)| *known == name).map(|(_, signal)| *signal)
    }
}

/// Below it there is too little.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Threshold {
    Amount(i64),
    Share(f32),
}

impl Threshold {
    /// `None` is a threshold that is never crossed: `0%`, `100%`.
    // upstream: eviction/helpers.go parseThresholdStatement
    fn parse(name: &str, text: &str) -> Result<Option<Threshold>, String> {
        let Some(percent) = text.strip_suffix('%') else {
            let amount = Quantity::parse(text).map_err(|error| error.to_string())?.value();
            return match amount > 0 {
                true => Ok(Some(Threshold::Amount(amount))),
                false => Err(format!("eviction threshold {name} must be positive: {text}")),
            };
        };
        if matches!(percent, "0" | "100") {
            return Ok(None);
        }
        let value: f32 = percent
            .parse()
            .map_err(|_| format!("strconv.ParseFloat: parsing {percent:?}: invalid syntax"))?;
        match value {
            value if value < 0.0 => {
                Err(format!("eviction percentage threshold {name} must be >= 0%: {text}"))
            }
            value if value > 100.0 => {
                Err(format!("eviction percentage threshold {name} must be <= 100%: {text}"))
            }
            value => Ok(Some(Threshold::Share(value / 100.0))),
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "a share is a rough number"
    )]
    fn amount(self, capacity: i64) -> i64 {
        match self {
            Threshold::Amount(amount) => amount,
            Threshold::Share(share) => (capacity as f64 * f64::from(share)) as i64,
        }
    }
}

/// The hard thresholds of a node.
#[derive(Debug, Clone, PartialEq)]
pub struct Thresholds {
    /// As they were written.
    texts: BTreeMap<String, String>,
    values: BTreeMap<Signal, Threshold>,
}

impl Default for Thresholds {
    // upstream: eviction/defaults_linux.go DefaultEvictionHard
    fn default() -> Self {
        Thresholds {
            texts: [
                ("memory.available", "100Mi"),
                ("nodefs.available", "10%"),
                ("nodefs.inodesFree", "5%"),
                ("imagefs.available", "15%"),
                ("imagefs.inodesFree", "5%"),
            ]
            .map(|(name, text)| (name.to_owned(), text.to_owned()))
            .into(),
            values: [
                (Signal::Memory, Threshold::Amount(100 << 20)),
                (Signal::NodeDisk, Threshold::Share(0.10)),
                (Signal::NodeInodes, Threshold::Share(0.05)),
                (Signal::ImageDisk, Threshold::Share(0.15)),
                (Signal::ImageInodes, Threshold::Share(0.05)),
            ]
            .into(),
        }
    }
}

impl Thresholds {
    /// Reads `evictionHard`: these thresholds and no others.
    pub fn parse(texts: BTreeMap<String, String>) -> Result<Self, String> {
        let mut values = BTreeMap::new();
        for (name, text) in &texts {
            let signal = Signal::of(name).ok_or_else(|| format!("unrecognized eviction signal {name}"))?;
            values.extend(Threshold::parse(name, text)?.map(|threshold| (signal, threshold)));
        }
        Ok(Thresholds { texts, values })
    }

    /// As they were written, by signal.
    pub fn texts(&self) -> &BTreeMap<String, String> {
        &self.texts
    }

    /// What has to stay free of a capacity; 0 where nothing is said.
    pub fn amount(&self, signal: Signal, capacity: i64) -> i64 {
        self.values.get(&signal).map_or(0, |threshold| threshold.amount(capacity))
    }

    fn crossed(&self, signal: Signal, measured: Option<Measured>) -> bool {
        measured.is_some_and(|measured| measured.available < self.amount(signal, measured.capacity))
    }
}

/// `--eviction-hard`: `signal<threshold`, separated by commas.
// upstream: component-base/cli/flag LangleSeparatedMapStringString
impl std::str::FromStr for Thresholds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pair = |pair: &str| match pair.split_once('<') {
            Some((signal, threshold)) => Ok((signal.trim().to_owned(), threshold.trim().to_owned())),
            None => Err(format!("malformed pair, expect string<string: {pair}")),
        };
        let pairs = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        Thresholds::parse(pairs.map(pair).collect::<Result<_, _>>()?)
    }
}

impl std::fmt::Display for Thresholds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pairs: Vec<String> = self.texts.iter().map(|(signal, text)| format!("{signal}<{text}")).collect();
        f.write_str(&pairs.join(","))
    }
}

/// How much there is of something, and how much of it is left.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// Left, for this program.
    pub available: i64,
    /// In all.
    pub capacity: i64,
}

/// What the node runs short of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pressures {
    /// Memory.
    pub memory: bool,
    /// Room or inodes on the agent's or the images' file system.
    pub disk: bool,
    /// Processes.
    pub pids: bool,
}

impl Pressures {
    /// Looks at the machine now.
    pub async fn look(context: &Context) -> Pressures {
        let thresholds = &context.config.eviction_hard;
        let nodes = disk(&context.config.root_dir).ok();
        let images = match context.runtime.image_fs_info().await {
            Ok(info) => info
                .image_filesystems
                .into_iter()
                .find_map(|system| system.fs_id)
                .and_then(|system| disk(Path::new(&system.mountpoint)).ok()),
            Err(error) => {
                tracing::debug!(error = error.grpc_text(), "asking where images are");
                None
            }
        };
        let crossed = |signal, measured| thresholds.crossed(signal, measured);
        Pressures {
            memory: crossed(Signal::Memory, memory(context.machine.memory_bytes)),
            disk: crossed(Signal::NodeDisk, nodes.map(|disk| disk.0))
                || crossed(Signal::NodeInodes, nodes.and_then(|disk| disk.1))
                || crossed(Signal::ImageDisk, images.map(|disk| disk.0))
                || crossed(Signal::ImageInodes, images.and_then(|disk| disk.1)),
            pids: crossed(Signal::Pids, pids(context.machine.pids)),
        }
    }
}

fn memory(capacity: i64) -> Option<Measured> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let available: i64 = line.split_whitespace().next()?.parse().ok()?;
    Some(Measured { available: available * 1024, capacity })
}

/// Room on the file system of this path, in bytes.
pub fn room(path: &Path) -> std::io::Result<Measured> {
    Ok(disk(path)?.0)
}

/// Room in bytes, and inodes where the file system counts them.
fn disk(path: &Path) -> std::io::Result<(Measured, Option<Measured>)> {
    let stat = nix::sys::statvfs::statvfs(path)?;
    let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    #[allow(clippy::unnecessary_cast)] // The types differ between platforms.
    let bytes = |blocks: u64| number(blocks.saturating_mul(stat.fragment_size() as u64));
    #[allow(clippy::unnecessary_cast)]
    let (room, inodes) = (
        Measured { available: bytes(stat.blocks_available() as u64), capacity: bytes(stat.blocks() as u64) },
        Measured { available: number(stat.files_free() as u64), capacity: number(stat.files() as u64) },
    );
    Ok((room, (inodes.capacity > 0).then_some(inodes)))
}

/// The fourth field of `/proc/loadavg` is `running/all`.
// upstream: kubelet/stats/pidlimit/pidlimit_linux.go Stats
fn pids(capacity: Option<i64>) -> Option<Measured> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    let all: i64 = text.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()?;
    capacity.map(|capacity| Measured { available: capacity - all, capacity })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_read_as_upstream_reads_them() {
        for (text, want) in [
            ("memory.available<1Gi", Ok((1 << 30, 0))),
            ("memory.available<1.5Gi,nodefs.available<10%", Ok((3 << 29, 100))),
            ("nodefs.available<0%, memory.available<100Mi", Ok((100 << 20, 0))),
            ("nodefs.available<100%", Ok((0, 0))),
            ("", Ok((0, 0))),
            ("memory.free<1Gi", Err("unrecognized eviction signal memory.free")),
            ("nodefs.available=1Gi", Err("malformed pair, expect string<string: nodefs.available=1Gi")),
            (
                "nodefs.available<-1%",
                Err("eviction percentage threshold nodefs.available must be >= 0%: -1%"),
            ),
            (
                "nodefs.available<101%",
                Err("eviction percentage threshold nodefs.available must be <= 100%: 101%"),
            ),
            ("nodefs.available<0", Err("eviction threshold nodefs.available must be positive: 0")),
            ("nodefs.available<x%", Err("strconv.ParseFloat: parsing \"x\": invalid syntax")),
        ] {
            let got = text.parse::<Thresholds>().map(|thresholds| {
                (thresholds.amount(Signal::Memory, 1 << 40), thresholds.amount(Signal::NodeDisk, 1000))
            });
            assert_eq!(got, want.map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn the_defaults_are_what_their_texts_say() {
        let defaults = Thresholds::default();
        assert_eq!(Thresholds::parse(defaults.texts.clone()), Ok(defaults));
    }

    #[test]
    fn a_threshold_is_crossed_below_it() {
        let thresholds: Thresholds = "nodefs.available<10%".parse().expect("thresholds");
        let disk = |available| Some(Measured { available, capacity: 1000 });
        assert!(thresholds.crossed(Signal::NodeDisk, disk(99)));
        assert!(!thresholds.crossed(Signal::NodeDisk, disk(100)));
        assert!(!thresholds.crossed(Signal::NodeDisk, None));
        assert!(!thresholds.crossed(Signal::ImageDisk, disk(0)), "nothing is said of images");
    }
}
