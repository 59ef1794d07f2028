//! The pools: cluster addresses (IPAddress objects within ServiceCIDRs) and node ports (bits of a RangeAllocation).
//!
//! The lower part of each range is kept for those who ask for a certain one; who asks for any gets one of the upper part while
//! there are some.
//!
//! upstream: pkg/registry/core/service/{ipallocator,portallocator,allocator}

use std::net::IpAddr;
use std::ops::RangeInclusive;

use bytes::Bytes;
use copepod_meta::{ErrorList, FieldError, GroupResource, Gvk, Map, Path, Reason, Status, Value};
use copepod_schema::{Media, Universe};
use copepod_store::cache::ReadAt;
use copepod_store::{Op, TxnResult};
use ipnet::IpNet;
use rand::RngExt as _;

use super::families::Family;
use crate::call::Call;
use crate::errors;
use crate::registry::Registry;

const NETWORKING: &str = "networking.k8s.io";
/// Who made an IPAddress. upstream: ipallocator.ControllerName
pub(super) const MANAGED_BY: &str = "ipallocator.k8s.io";
/// Random addresses are tried so often before the range is walked through.
const RANDOM_TRIES: usize = 16;
/// How often the bits of the ports are written anew because another server was faster.
const CONFLICTS_MAX: usize = 64;

/// The pools of one server.
pub(crate) struct Addresses {
    cidrs: Vec<IpNet>,
    families: Vec<Family>,
    ports: RangeInclusive<u16>,
}

/// Why there is no port.
#[derive(Debug, thiserror::Error)]
pub(super) enum PortError {
    #[error("range is full")]
    Full,
    #[error("provided port is already allocated")]
    Taken,
    #[error("provided port is not in the valid range. The range of valid ports is {0}-{1}")]
    OutOfRange(u16, u16),
    #[error("{0}")]
    Failed(#[from] Status),
}

/// Why there is no address.
enum AddressError {
    Full,
    Taken,
    OutOfRange(IpAddr, IpNet),
    NoRange,
    Failed(Status),
}

impl std::fmt::Display for AddressError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AddressError::Full => f.write_str("range is full"),
            AddressError::Taken => f.write_str("provided IP is already allocated"),
            AddressError::OutOfRange(ip, range) => {
                write!(
                    f,
                    "the provided IP ({ip}) is not in the valid range. The range of valid IPs is {range}"
                )
            }
            AddressError::NoRange => f.write_str("the provided network does not match the current range"),
            AddressError::Failed(status) => f.write_str(&status.message),
        }
    }
}

/// The ports that dry runs show come after it. upstream: portallocator/operation.go AllocateNext
const DRY_RUN_PORT: i64 = 32_768;

impl Addresses {
    pub(crate) fn new(cidrs: Vec<IpNet>, ports: RangeInclusive<u16>) -> Addresses {
        let mut families = Vec::new();
        for family in cidrs.iter().map(|c| Family::of(c.addr())) {
            if !families.contains(&family) {
                families.push(family);
            }
        }
        Addresses { cidrs, families, ports }
    }

    /// `--service-node-port-range`
    pub(super) fn ports(&self) -> RangeInclusive<u16> {
        self.ports.clone()
    }

    /// The families of the cluster, its default first.
    pub(super) fn families(&self) -> &[Family] {
        &self.families
    }

    /// Takes an address: `asked`, or any of the family. A dry run takes none.
    pub(super) async fn take(
        &self,
        call: &Call<'_>,
        service: &Value,
        family: Family,
        asked: &str,
        all: &[String],
    ) -> Result<IpAddr, Status> {
        let ranges = self.ranges(call.registry, family).await?;
        let taken = match asked.parse::<IpAddr>() {
            Ok(ip) => self.take_one(call, service, &ranges, ip).await.map(|()| ip),
            Err(_) => self.take_any(call, service, &ranges).await,
        };
        let name = service.str_at(&["metadata", "name"]);
        taken.map_err(|error| match error {
            AddressError::Full if asked.is_empty() => Status::internal(format!(
                "failed to allocate a serviceIP for Service {}: range is full",
                copepod_meta::field::quote(name)
            )),
            error => {
                let what = if asked.is_empty() { "IP".to_string() } else { format!("IP {asked}") };
                let why = format!("failed to allocate {what}: {error}");
                let given: Vec<Value> = all.iter().map(Value::string).collect();
                let spec = Path::new("spec");
                let path = spec.child("clusterIPs");
                let errors: ErrorList = vec![FieldError::invalid(&path, &Value::List(given), why)];
                Status::invalid("", "Service", name, &errors)
            }
        })
    }

    /// The server's own ranges, and those of ServiceCIDRs that are ready.
    pub(super) async fn ranges(&self, registry: &Registry, family: Family) -> Result<Vec<IpNet>, Status> {
        let mut ranges: Vec<IpNet> =
            self.cidrs.iter().copied().filter(|c| Family::of(c.addr()) == family).collect();
        let resource = GroupResource::new(NETWORKING, "servicecidrs");
        for object in registry.list_hub(&resource, "", ReadAt::Any).await? {
            let conditions = object.object.list_at(&["status", "conditions"]);
            let is_ready = |c: &Value| c.str_at(&["type"]) == "Ready" && c.str_at(&["status"]) == "True";
            if crate::metadata::is_deleting(&object.object) || !conditions.iter().any(is_ready) {
                continue;
            }
            let cidrs = object.object.list_at(&["spec", "cidrs"]).iter();
            let parsed = cidrs.filter_map(|c| c.as_str()?.parse::<IpNet>().ok());
            for cidr in parsed.filter(|c| Family::of(c.addr()) == family) {
                if !ranges.contains(&cidr) {
                    ranges.push(cidr);
                }
            }
        }
        Ok(ranges)
    }

    async fn take_one(
        &self,
        call: &Call<'_>,
        service: &Value,
        ranges: &[IpNet],
        ip: IpAddr,
    ) -> Result<(), AddressError> {
        let range = ranges.iter().find(|r| r.contains(&ip)).ok_or(AddressError::NoRange)?;
        let pool = Pool::of(range);
        if !(pool.first..=pool.last).contains(&number(ip)) {
            return Err(AddressError::OutOfRange(ip, range.trunc()));
        }
        if call.dry_run {
            return Ok(());
        }
        self.claim(call, service, ip).await
    }

    async fn take_any(
        &self,
        call: &Call<'_>,
        service: &Value,
        ranges: &[IpNet],
    ) -> Result<IpAddr, AddressError> {
        for range in ranges {
            if call.dry_run {
                // As upstream: the search would prove nothing.
                return Ok(range.network());
            }
            let pool = Pool::of(range);
            for (low, high) in [(pool.upper, pool.last), (pool.first, pool.upper.saturating_sub(1))] {
                match self.take_between(call, service, range, low, high).await {
                    Err(AddressError::Full) => {}
                    done => return done,
                }
            }
        }
        Err(if ranges.is_empty() { AddressError::NoRange } else { AddressError::Full })
    }

    /// Any address between two, both included: a few at random, then all from a random one on.
    async fn take_between(
        &self,
        call: &Call<'_>,
        service: &Value,
        range: &IpNet,
        low: u128,
        high: u128,
    ) -> Result<IpAddr, AddressError> {
        if low > high {
            return Err(AddressError::Full);
        }
        // A walk through more than this many would outlast the request; a range so large is never that full.
        let size = (high - low).saturating_add(1);
        let start = rand::rng().random_range(low..=high);
        let walk = (0..size.min(1 << 20)).map(|i| low + (start - low + i) % size);
        let tries: Vec<u128> = (0..RANDOM_TRIES).map(|_| rand::rng().random_range(low..=high)).collect();
        for n in tries.into_iter().chain(walk) {
            let ip = address(range, n);
            if self.is_taken(call.registry, ip).await.map_err(AddressError::Failed)? {
                continue;
            }
            match self.claim(call, service, ip).await {
                Err(AddressError::Taken) => {}
                done => return done.map(|()| ip),
            }
        }
        Err(AddressError::Full)
    }

    async fn is_taken(&self, registry: &Registry, ip: IpAddr) -> Result<bool, Status> {
        let collection = registry.collection(&addresses())?;
        let key = collection.key("", &ip.to_string())?;
        let got = collection.cache.get(&key, ReadAt::Any).await;
        Ok(got.map_err(|e| errors::cache(e, &addresses(), "get"))?.entry.is_some())
    }

    /// Makes the IPAddress object.
    async fn claim(&self, call: &Call<'_>, service: &Value, ip: IpAddr) -> Result<(), AddressError> {
        match self.claim_for(call.registry, service, ip).await {
            Ok(()) => Ok(()),
            Err(status) if status.reason == Reason::AlreadyExists => Err(AddressError::Taken),
            Err(status) => Err(AddressError::Failed(status)),
        }
    }

    /// Makes the IPAddress object, whoever asks.
    pub(super) async fn claim_for(
        &self,
        registry: &Registry,
        service: &Value,
        ip: IpAddr,
    ) -> Result<(), Status> {
        let mut object = Value::map();
        object.set(&["metadata", "name"], ip.to_string());
        let labels = Map::from_iter([
            ("ipaddress.kubernetes.io/ip-family", Family::of(ip).as_str()),
            ("ipaddress.kubernetes.io/managed-by", MANAGED_BY),
        ]);
        object.set(&["metadata", "labels"], labels);
        object.set(&["spec", "parentRef", "resource"], "services");
        for member in ["namespace", "name"] {
            object.set(&["spec", "parentRef", member], service.str_at(&["metadata", member]));
        }
        Box::pin(registry.create_own(&addresses(), "", object)).await.map(|_| ())
    }

    /// Gives an address back.
    pub(super) async fn release(&self, registry: &Registry, ip: IpAddr) -> Result<(), Status> {
        Box::pin(registry.delete_own(&addresses(), "", &ip.to_string())).await
    }

    /// Takes a port: `asked`, or any. `own`: taken by this write already.
    pub(super) async fn take_port(
        &self,
        call: &Call<'_>,
        asked: Option<i64>,
        own: &[i64],
    ) -> Result<i64, PortError> {
        let (low, high) = (*self.ports.start(), *self.ports.end());
        let asked = match asked {
            None => None,
            Some(port) => match u16::try_from(port).ok().filter(|p| self.ports.contains(p)) {
                Some(port) => Some(port),
                None => return Err(PortError::OutOfRange(low, high)),
            },
        };
        let mut chosen = 0;
        self.change_ports(call.registry, call.dry_run, |bits| {
            let free = |p: u16| !bits.is_set(p - low) && !own.contains(&i64::from(p));
            chosen = match asked {
                Some(port) if free(port) => port,
                Some(_) => return Err(PortError::Taken),
                // As upstream: a dummy, beyond the usual range.
                None if call.dry_run => {
                    let last = own.iter().max().copied().unwrap_or(DRY_RUN_PORT);
                    chosen = u16::try_from(last + 1).unwrap_or(u16::MAX);
                    return Ok(());
                }
                None => {
                    let upper = low + range_offset(high - low + 1, 32, 16, 128);
                    pick(upper, high, free)
                        .or_else(|| pick(low, upper.max(low + 1) - 1, free))
                        .ok_or(PortError::Full)?
                }
            };
            bits.set(chosen - low);
            Ok(())
        })
        .await?;
        Ok(i64::from(chosen))
    }

    /// Gives ports back.
    pub(super) async fn release_ports(&self, registry: &Registry, ports: &[i64]) -> Result<(), Status> {
        if ports.is_empty() {
            return Ok(());
        }
        let low = *self.ports.start();
        let done = self.change_ports(registry, false, |bits| {
            for port in ports.iter().filter_map(|p| u16::try_from(*p).ok()).filter(|p| self.ports.contains(p))
            {
                bits.clear(port - low);
            }
            Ok(())
        });
        done.await.map_err(|e| match e {
            PortError::Failed(status) => status,
            other => Status::internal(other),
        })
    }

    /// Reads, changes and writes the bits of all ports, until nobody came between.
    pub(super) async fn change_ports(
        &self,
        registry: &Registry,
        dry_run: bool,
        mut change: impl FnMut(&mut Bits) -> Result<(), PortError>,
    ) -> Result<(), PortError> {
        let range = format!("{}-{}", self.ports.start(), self.ports.end());
        let resource = GroupResource::new("", "serviceipallocations");
        let failed = |e| PortError::Failed(errors::store(e, &resource, "update"));
        let key = registry.ranges_key();
        for _ in 0..CONFLICTS_MAX {
            let got = registry.store.get(&key).await.map_err(failed)?;
            let (mut object, expect) = match &got.kv {
                Some(kv) => (decode_range(&kv.value)?, kv.mod_revision),
                None => (Value::map(), 0),
            };
            let stored = (object.get("data").clone(), object.str_at(&["range"]) == range);
            let mut bits = match object.get("data") {
                Value::Bytes(data) if object.str_at(&["range"]) == range => Bits::from_bytes(data),
                // Another range than before: every service keeps its ports, which the next repair takes anew.
                _ => Bits::default(),
            };
            change(&mut bits)?;
            if dry_run {
                return Ok(());
            }
            let data = Value::Bytes(bits.to_bytes());
            if stored == (data.clone(), true) {
                return Ok(());
            }
            object.set(&["range"], range.as_str());
            *object.make(&["data"]) = data;
            let op = Op::Put { value: encode_range(&mut object)?, ttl_seconds: None };
            if let TxnResult::Done { .. } = registry.store.txn(&key, expect, op).await.map_err(failed)? {
                return Ok(());
            }
        }
        Err(PortError::Failed(Status::internal(
            "cannot allocate resources of type serviceipallocations at this time",
        )))
    }
}

pub(super) fn addresses() -> GroupResource {
    GroupResource::new(NETWORKING, "ipaddresses")
}

fn range_gvk() -> Gvk {
    Gvk::new("", "v1", "RangeAllocation")
}

fn decode_range(stored: &Bytes) -> Result<Value, PortError> {
    let types = Universe::builtin();
    let ty = types.by_gvk(&range_gvk()).ok_or_else(|| Status::internal("no type for RangeAllocation"))?;
    let decoded = copepod_codec::decode(stored, copepod_codec::Media::Protobuf, types, ty, None);
    Ok(decoded.map_err(errors::corrupt)?.value)
}

fn encode_range(object: &mut Value) -> Result<Bytes, PortError> {
    let types = Universe::builtin();
    let ty = types.by_gvk(&range_gvk()).ok_or_else(|| Status::internal("no type for RangeAllocation"))?;
    let bytes = copepod_codec::encode_stored(object, types, ty, &range_gvk(), Media::Protobuf);
    Ok(bytes.map_err(errors::unencodable)?)
}

/// A free port between two, both included, from a random one on.
fn pick(low: u16, high: u16, free: impl Fn(u16) -> bool) -> Option<u16> {
    if low > high {
        return None;
    }
    let size = u32::from(high - low) + 1;
    let start = rand::rng().random_range(0..size);
    let ports = (0..size).map(|i| low + u16::try_from((start + i) % size).unwrap_or(0));
    ports.into_iter().find(|p| free(*p))
}

/// How much of a range is kept for those who ask. upstream: calculateRangeOffset
fn range_offset(size: u16, step: u16, min: u16, max: u16) -> u16 {
    if size <= min { 0 } else { (size / step).clamp(min, max) }
}

/// A set of small numbers as Go's `big.Int` writes it: big-endian bytes, no leading zeros.
#[derive(Default)]
pub(super) struct Bits(Vec<u8>);

impl Bits {
    pub(super) fn from_bytes(big_endian: &[u8]) -> Bits {
        Bits(big_endian.iter().rev().copied().collect())
    }
    pub(super) fn to_bytes(&self) -> Bytes {
        let used = self.0.iter().rposition(|b| *b != 0).map_or(0, |i| i + 1);
        self.0[..used].iter().rev().copied().collect::<Vec<u8>>().into()
    }
    pub(super) fn is_set(&self, bit: u16) -> bool {
        self.0.get(usize::from(bit / 8)).is_some_and(|b| b & (1 << (bit % 8)) != 0)
    }
    pub(super) fn set(&mut self, bit: u16) {
        let at = usize::from(bit / 8);
        if self.0.len() <= at {
            self.0.resize(at + 1, 0);
        }
        self.0[at] |= 1 << (bit % 8);
    }
    fn clear(&mut self, bit: u16) {
        if let Some(byte) = self.0.get_mut(usize::from(bit / 8)) {
            *byte &= !(1 << (bit % 8));
        }
    }
}

/// The addresses of a range that services may have, as numbers. upstream: NewIPAllocator
struct Pool {
    first: u128,
    last: u128,
    /// Where the upper part begins.
    upper: u128,
}

impl Pool {
    fn of(range: &IpNet) -> Pool {
        let (network, broadcast) = (number(range.network()), number(range.broadcast()));
        let first = network + 1;
        let last = if range.addr().is_ipv4() { broadcast.saturating_sub(1) } else { broadcast };
        let size = (last + 1).saturating_sub(first);
        let offset = if size <= 16 { 0 } else { (size / 16).clamp(16, 256) };
        Pool { first, last, upper: first + offset }
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn address(range: &IpNet, number: u128) -> IpAddr {
    match range {
        IpNet::V4(_) => IpAddr::V4(u32::try_from(number).unwrap_or(u32::MAX).into()),
        IpNet::V6(_) => IpAddr::V6(number.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_written_as_gos_big_int() {
        let mut bits = Bits::default();
        for bit in [0, 9, 2767] {
            bits.set(bit);
        }
        bits.clear(2767);
        assert_eq!(&bits.to_bytes()[..], [2, 1]);
        let back = Bits::from_bytes(&[2, 1]);
        assert!(back.is_set(0) && back.is_set(9) && !back.is_set(8));
    }

    #[test]
    fn pools_keep_a_lower_part() {
        for (range, first, last, upper) in [
            ("10.96.0.0/12", "10.96.0.1", "10.111.255.254", "10.96.1.1"),
            ("10.0.0.0/24", "10.0.0.1", "10.0.0.254", "10.0.0.17"),
            ("10.0.0.0/28", "10.0.0.1", "10.0.0.14", "10.0.0.1"),
            ("fd00::/112", "fd00::1", "fd00::ffff", "fd00::101"),
        ] {
            let net: IpNet = range.parse().expect(range);
            let pool = Pool::of(&net);
            let got = [pool.first, pool.last, pool.upper].map(|n| address(&net, n).to_string());
            assert_eq!(got, [first, last, upper], "{range}");
        }
    }
}
