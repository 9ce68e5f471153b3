//! AddressPools: their entries as ranges without overlaps, and the first free addresses of a pool.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::Ingress;

use super::super::order::by_age;
use super::super::problems::Problems;
use super::admission::Admission;
use crate::model::Reason;
use crate::source::{Objects, Stored as _};

/// Addresses from `first` to `last`, of one IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: IpAddr,
    last: IpAddr,
}

/// What a pool has, and for whom.
#[derive(Debug)]
struct Pool {
    ranges: Vec<Range>,
    admission: Admission,
}

/// All pools.
#[derive(Debug, Default)]
pub(super) struct Pools(HashMap<String, Pool>);

impl Pools {
    pub(super) fn new(objects: &Objects, problems: &mut Problems) -> Self {
        let mut pools = Self::default();
        // All ranges taken so far, by their first address: they do not overlap, so the neighbour below and the one
        // above are the only ones that can touch a new one.
        let mut taken: BTreeMap<IpAddr, (IpAddr, String)> = BTreeMap::new();
        for pool in by_age(&objects.address_pools) {
            let reference = pool.reference();
            let mut ranges = Vec::new();
            for (index, text) in pool.spec.addresses.iter().enumerate() {
                let field = format!("spec.addresses[{index}]");
                let range = match parse(text) {
                    Ok(range) => range,
                    Err(what) => {
                        problems.add(
                            &reference,
                            field,
                            Reason::InvalidValue,
                            format!("`{text}` is not usable: {what}; it is left out"),
                            "write an address, `FIRST-LAST` or `NETWORK/BITS`",
                        );
                        continue;
                    }
                };
                // The last range that begins at or before our end is the only candidate, since `IpAddr` orders IPv4
                // before IPv6.
                let other =
                    taken.range(..=range.last).next_back().filter(|(_, (last, _))| *last >= range.first);
                if let Some((first, (last, owner))) = other {
                    let both = show(Range { first: range.first.max(*first), last: range.last.min(*last) });
                    let whose = if *owner == reference.name {
                        "another entry of this pool".to_owned()
                    } else {
                        format!("AddressPool {owner}, which came first,")
                    };
                    problems.add(
                        &reference,
                        field,
                        Reason::Conflict,
                        format!("{whose} has {both} too; `{text}` is left out"),
                        "let each address be in one entry of one pool",
                    );
                    continue;
                }
                taken.insert(range.first, (range.last, reference.name.clone()));
                ranges.push(range);
            }
            let admission = Admission::read(pool, objects, problems);
            pools.0.insert(reference.name, Pool { ranges, admission });
        }
        pools
    }

    /// The first address of that IP version that is not in `taken`.
    pub(super) fn first_free(&self, pool: &str, is_v4: bool, taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
        let mut of_version = self.ranges(pool).iter().filter(|range| range.first.is_ipv4() == is_v4);
        of_version.find_map(|range| range.addresses().find(|address| !taken.contains(address)))
    }

    /// The pool that has the address.
    pub(super) fn of(&self, address: IpAddr) -> Option<&str> {
        self.0.keys().map(String::as_str).find(|pool| self.has(pool, address))
    }

    /// For each IP version the address in `had`, or else the first free one.
    pub(super) fn keep_or_choose(
        &self,
        pool: &str,
        had: &[IpAddr],
        taken: &BTreeSet<IpAddr>,
    ) -> [Option<IpAddr>; 2] {
        let of = |v4: bool| had.iter().copied().find(|address| address.is_ipv4() == v4);
        [true, false].map(|v4| of(v4).or_else(|| self.first_free(pool, v4, taken)))
    }

    /// Whether the Ingress may have addresses of the pool; no if there is no such pool.
    pub(super) fn admits(&self, objects: &Objects, pool: &str, ingress: &Ingress) -> bool {
        self.0.get(pool).is_some_and(|pool| pool.admission.admits(objects, ingress))
    }

    /// Whether the address is one of the pool's.
    pub(super) fn has(&self, pool: &str, address: IpAddr) -> bool {
        self.ranges(pool).iter().any(|range| range.first <= address && address <= range.last)
    }

    /// How many addresses it has, as far as JSON can count.
    pub(super) fn size(&self, pool: &str) -> u64 {
        const MOST: u128 = (1 << 53) - 1;
        let of = |range: &Range| (bits(range.last) - bits(range.first)).saturating_add(1);
        let size = self.ranges(pool).iter().map(of).fold(0_u128, u128::saturating_add);
        size.min(MOST) as u64
    }

    fn ranges(&self, pool: &str) -> &[Range] {
        self.0.get(pool).map(|pool| pool.ranges.as_slice()).unwrap_or_default()
    }
}

impl Range {
    fn addresses(self) -> impl Iterator<Item = IpAddr> {
        let v4 = self.first.is_ipv4();
        (bits(self.first)..=bits(self.last)).map(move |bits| match u32::try_from(bits) {
            Ok(bits) if v4 => Ipv4Addr::from_bits(bits).into(),
            _ => Ipv6Addr::from_bits(bits).into(),
        })
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// Parses an address, a range or a network.
fn parse(text: &str) -> Result<Range, &'static str> {
    let text = text.trim();
    if let Some((first, last)) = text.split_once('-') {
        let address =
            |text: &str| text.trim().parse::<IpAddr>().map_err(|_| "one of its ends is not an IP address");
        let (first, last) = (usable(address(first)?)?, usable(address(last)?)?);
        return match (first.is_ipv4() == last.is_ipv4(), first <= last) {
            (false, _) => Err("its ends are of different IP versions"),
            (true, false) => Err("its first address is behind its last one"),
            (true, true) => Ok(Range { first, last }),
        };
    }
    if text.contains('/') {
        return network(text.parse().map_err(|_| "it is not a network")?);
    }
    let address = usable(text.parse().map_err(|_| "it is not an IP address, a range or a network")?)?;
    Ok(Range { first: address, last: address })
}

/// The addresses of a network that hosts can have: not its own, its broadcast and its router anycast address.
fn network(network: IpNet) -> Result<Range, &'static str> {
    let (first, last) = match network {
        IpNet::V4(v4) if v4.prefix_len() <= 30 => {
            let (first, last) = (v4.network().to_bits() + 1, v4.broadcast().to_bits() - 1);
            (Ipv4Addr::from_bits(first).into(), Ipv4Addr::from_bits(last).into())
        }
        IpNet::V6(v6) if v6.prefix_len() <= 126 => {
            (Ipv6Addr::from_bits(v6.network().to_bits() + 1).into(), IpAddr::V6(v6.broadcast()))
        }
        other => (other.network(), other.broadcast()),
    };
    Ok(Range { first: usable(first)?, last: usable(last)? })
}

/// Refuses what no client could connect to.
pub(super) fn usable(address: IpAddr) -> Result<IpAddr, &'static str> {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
    };
    if address.is_unspecified() || address.is_multicast() || address.is_loopback() || link_local {
        return Err("it is an unspecified, loopback, link-local, multicast or broadcast address");
    }
    Ok(address)
}

fn show(range: Range) -> String {
    if range.first == range.last {
        range.first.to_string()
    } else {
        format!("{}-{}", range.first, range.last)
    }
}
