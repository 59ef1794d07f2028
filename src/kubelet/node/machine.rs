//! What the machine has: processors, memory, disk, names. Read once at the start.
//!
//! upstream: kubelet/cadvisor, kubelet/nodestatus/setters.go

use std::fs;
use std::path::Path;

use super::pressure::{self, Signal};
use crate::config::KubeletConfig;

/// Facts about the machine.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// Processors.
    pub cpus: i64,
    /// Memory in bytes.
    pub memory_bytes: i64,
    /// Most processes and threads, where the kernel says so.
    pub pids: Option<i64>,
    /// Size of the file system under the agent's directory.
    pub disk_bytes: i64,
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// Id of the hardware.
    pub system_uuid: String,
    /// Id of this boot.
    pub boot_id: String,
    /// Kernel release.
    pub kernel: String,
    /// Name of the distribution.
    pub os_image: String,
    /// Go's word for the processor's architecture.
    pub architecture: &'static str,
}

impl Machine {
    /// Reads the facts.
    pub fn read(root_dir: &Path) -> std::io::Result<Self> {
        let line =
            |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
        let kernel = nix::sys::utsname::uname()?.release().to_string_lossy().into_owned();
        let machine_id = line("/etc/machine-id");
        let uuid = line("/sys/class/dmi/id/product_uuid");
        Ok(Machine {
            cpus: online_cpus(&line("/sys/devices/system/cpu/online")),
            memory_bytes: total_memory(&line("/proc/meminfo")),
            pids: fewest(&[line("/proc/sys/kernel/pid_max"), line("/proc/sys/kernel/threads-max")]),
            disk_bytes: pressure::room(root_dir)?.capacity,
            system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
            machine_id,
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            kernel,
            os_image: os_image(&line("/etc/os-release")),
            architecture: match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            },
        })
    }

    /// What pods may use: cpu in thousandths, memory in bytes.
    pub fn allocatable(&self, config: &KubeletConfig) -> (i64, i64) {
        let reserved = |name: &str| config.reserved.get(name).copied().unwrap_or(0);
        (
            (self.cpus * 1000 - reserved("cpu")).max(0),
            (self.memory_bytes
                - reserved("memory")
                - config.eviction_hard.amount(Signal::Memory, self.memory_bytes))
            .max(0),
        )
    }

    /// Processes and threads that pods may have together.
    pub fn pids_allocatable(&self, config: &KubeletConfig) -> Option<i64> {
        let reserved = config.reserved.get("pid").copied().unwrap_or(0);
        self.pids.map(|pids| (pids - reserved).max(0))
    }
}

/// The least of the numbers among these texts.
// upstream: kubelet/stats/pidlimit/pidlimit_linux.go Stats
fn fewest(texts: &[String]) -> Option<i64> {
    texts.iter().filter_map(|text| text.parse().ok()).min()
}

/// `0-3,8` is five.
fn online_cpus(text: &str) -> i64 {
    let count = |part: &str| -> Option<i64> {
        match part.split_once('-') {
            Some((first, last)) => {
                Some(last.trim().parse::<i64>().ok()? - first.trim().parse::<i64>().ok()? + 1)
            }
            None => part.trim().parse::<i64>().ok().map(|_| 1),
        }
    };
    text.split(',').filter_map(count).sum::<i64>().max(1)
}

fn total_memory(text: &str) -> i64 {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<i64>().ok()).map_or(0, |kib| kib * 1024)
}

fn os_image(text: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    line.map_or_else(|| "Linux".into(), |name| name.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read() {
        assert_eq!((online_cpus("0-3,8"), online_cpus("0"), online_cpus("")), (5, 1, 1));
        assert_eq!(fewest(&["4194304".into(), "95".into(), String::new()]), Some(95));
        assert_eq!(total_memory("MemTotal:       16 kB\nMemFree: 1 kB"), 16384);
        assert_eq!(os_image("ID=x\nPRETTY_NAME=\"Debian 12\"\n"), "Debian 12");
    }
}
