//! How each peer node is reached: on the link or through a tunnel, own and next hop's hardware address, from the kernel's
//! routes and neighbour table, followed over netlink. `engine` reads the result. It never resolves an address itself: the heartbeats of
//! `membership` go to the same addresses ten times a second, so the kernel keeps their entries fresh.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ingress_common::abi::{Mac, Vlan};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::warn;

use super::announce::Place;
use super::membership::{Declared, Liveness, Road};
use super::netlink::{Changes, LOOPBACK, Link, Neighbour, Netlink, Route};
use super::vlan::{Told, text, wire};

/// Changes come in bursts; this long after the first one we look.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// Safety net for changes that nobody told us about.
const RESCAN: Duration = Duration::from_secs(2);
/// How soon to look again while a peer's hardware address is unknown.
const RETRY: Duration = Duration::from_millis(200);

/// The way to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// On a common link: frames go to its hardware address.
    Link {
        /// Interface index; of a VLAN, the interface that carries it.
        link: u32,
        /// Tags of the frames there.
        #[serde(with = "vlan_text", default, skip_serializing_if = "is_untagged")]
        vlan: Vlan,
        /// Our hardware address there.
        #[serde(with = "mac_text")]
        from: Mac,
        /// The peer's.
        #[serde(with = "mac_text")]
        to: Mac,
    },
    /// On a common link, but its hardware address is not known (yet).
    Unresolved,
    /// Behind a router: packets go through a tunnel.
    Tunnel {
        /// Interface index; of a VLAN, the interface that carries it.
        link: u32,
        /// Tags of the frames there.
        #[serde(with = "vlan_text", default, skip_serializing_if = "is_untagged")]
        vlan: Vlan,
        /// Our hardware address there.
        #[serde(with = "mac_text")]
        from: Mac,
        /// The router's.
        #[serde(with = "mac_text")]
        to: Mac,
        /// The router.
        gateway: IpAddr,
        /// The peer's address at the other end.
        remote: IpAddr,
        /// Bytes that a packet may have on the way there, the tunnel's headers included.
        mtu: u16,
    },
    /// Behind a router whose hardware address is not known (yet).
    Routed {
        /// The router.
        gateway: IpAddr,
    },
    /// There is no route.
    NoRoute,
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Link { to, vlan, .. } => write!(f, "link, {to}{}", by(*vlan)),
            Self::Unresolved => f.write_str("link, address not known yet"),
            Self::Tunnel { gateway, remote, mtu, vlan, .. } => {
                write!(f, "gue to {remote} through {gateway}, MTU {mtu}{}", by(*vlan))
            }
            Self::Routed { gateway } => write!(f, "behind {gateway}, address not known yet"),
            Self::NoRoute => f.write_str("no route"),
        }
    }
}

impl Way {
    /// The VLAN that leads to it, if one does.
    pub(crate) fn vlan(&self) -> Option<Place> {
        match *self {
            Self::Link { link, vlan, from, .. } | Self::Tunnel { link, vlan, from, .. }
                if vlan != Vlan::NONE =>
            {
                Some(Place { link, vlan: vlan.0, mac: from })
            }
            _ => None,
        }
    }

    /// There may be a way, but a hardware address is missing.
    pub(crate) const fn is_unresolved(&self) -> bool {
        matches!(self, Self::Unresolved | Self::Routed { .. })
    }
}

/// The VLAN of a way, to be said behind it.
fn by(vlan: Vlan) -> String {
    if is_untagged(&vlan) { String::new() } else { format!(", VLAN {}", text(vlan)) }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants this signature")]
fn is_untagged(vlan: &Vlan) -> bool {
    *vlan == Vlan::NONE
}

/// Tags as text: `5`, `100.5`.
mod vlan_text {
    use ingress_common::abi::Vlan;
    use serde::de::{Deserialize as _, Deserializer, Error as _};
    use serde::ser::Serializer;

    use crate::l4::vlan::{of_text, text};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants this signature")]
    pub(super) fn serialize<S: Serializer>(vlan: &Vlan, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&text(*vlan))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vlan, D::Error> {
        of_text(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// A hardware address as text: `02:00:00:00:00:01`.
mod mac_text {
    use ingress_common::abi::Mac;
    use serde::de::{Deserialize as _, Deserializer, Error as _};
    use serde::ser::Serializer;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants this signature")]
    pub(super) fn serialize<S: Serializer>(mac: &Mac, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(mac)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Mac, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes: Option<Vec<u8>> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
        let bytes: Option<[u8; 6]> = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes.map(Mac::new).ok_or_else(|| D::Error::custom(format!("`{text}` is no hardware address")))
    }
}

/// What the kernel says at a moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Surroundings {
    pub(crate) links: Vec<Link>,
    /// By node name.
    pub(crate) ways: BTreeMap<String, Way>,
}

impl Surroundings {
    /// How frames get to the peers on common links.
    pub(crate) fn roads(&self) -> BTreeMap<String, Road> {
        let road = |(name, way): (&String, &Way)| match *way {
            Way::Link { link, vlan, from, to } => Some((name.clone(), Road { link, vlan, from, to })),
            _ => None,
        };
        self.ways.iter().filter_map(road).collect()
    }

    /// Whether a peer is up whose hardware address is not known yet.
    pub(crate) fn lack_a_way(&self, peers: &BTreeMap<String, Liveness>) -> bool {
        let is_unresolved = |name: &String| self.ways.get(name).is_none_or(Way::is_unresolved);
        peers.iter().any(|(name, liveness)| *liveness != Liveness::Down && is_unresolved(name))
    }
}

/// The best way over all addresses of a node: on a common link, else through a tunnel. A hardware address that was known
/// stays in use while only the neighbour entry is being renewed.
fn way(
    addresses: &[IpAddr],
    routes: &BTreeMap<IpAddr, Route>,
    links: &[Link],
    neighbours: &[Neighbour],
    told: &[Told],
    before: Option<Way>,
) -> Way {
    let one = |address: &IpAddr| -> Option<Way> {
        let route = routes.get(address).filter(|route| route.link != LOOPBACK)?;
        let link = links.iter().find(|link| link.index == route.link && link.is_up)?;
        let from = link.mac?;
        let (on, vlan) = wire(link, links, told)?;
        let next_hop = route.gateway.unwrap_or(*address);
        let entry = neighbours.iter().find(|entry| entry.link == route.link && entry.address == next_hop);
        let renewed = match (before, route.gateway) {
            (Some(Way::Link { link, vlan, from, to }), None) => Some(((link, vlan, from), to)),
            (Some(Way::Tunnel { link, vlan, from, to, gateway, .. }), Some(now)) if gateway == now => {
                Some(((link, vlan, from), to))
            }
            _ => None,
        };
        let renewed = renewed.filter(|(own, _)| *own == (on, vlan, from));
        let to = entry.map(|entry| entry.mac).or(renewed.map(|(_, to)| to));
        Some(match (to, route.gateway) {
            (Some(to), None) => Way::Link { link: on, vlan, from, to },
            (None, None) => Way::Unresolved,
            (Some(to), Some(gateway)) => {
                let mtu = route.mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu));
                let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
                Way::Tunnel { link: on, vlan, from, to, gateway, remote: *address, mtu }
            }
            (None, Some(gateway)) => Way::Routed { gateway },
        })
    };
    let rank = |way: &Way| match way {
        Way::Link { .. } => 0,
        // It will be resolved in a moment, and needs no tunnel.
        Way::Unresolved => 1,
        // The outer header of IPv4 is the shorter one.
        Way::Tunnel { remote, .. } => {
            if remote.is_ipv4() {
                2
            } else {
                3
            }
        }
        Way::Routed { .. } => 4,
        Way::NoRoute => 5,
    };
    addresses.iter().filter_map(one).min_by_key(rank).unwrap_or(Way::NoRoute)
}

async fn look(
    netlink: &Netlink,
    nodes: &[Declared],
    told: &[Told],
    before: &Surroundings,
) -> Result<Surroundings, rtnetlink::Error> {
    let links = netlink.links().await?;
    let neighbours = netlink.neighbours().await?;
    let mut ways = BTreeMap::new();
    for node in nodes {
        let mut routes = BTreeMap::new();
        for &address in &node.addresses {
            if let Some(route) = netlink.route_to(address).await? {
                routes.insert(address, route);
            }
        }
        let known = before.ways.get(&node.name).copied();
        ways.insert(node.name.clone(), way(&node.addresses, &routes, &links, &neighbours, told, known));
    }
    Ok(Surroundings { links, ways })
}

/// Follows the kernel until the receivers are gone. `nodes` holds the peers, without the own node; `told` is what the user
/// said of VLANs.
pub(crate) async fn follow(
    netlink: Netlink,
    mut changes: Changes,
    mut nodes: watch::Receiver<Vec<Declared>>,
    told: Vec<Told>,
    publish: watch::Sender<Surroundings>,
) {
    loop {
        let peers = nodes.borrow_and_update().clone();
        let before = publish.borrow().clone();
        let found = match look(&netlink, &peers, &told, &before).await {
            Ok(found) => found,
            Err(error) => {
                warn!(%error, "cannot read routes and neighbours; trying again");
                before
            }
        };
        let is_complete = found.ways.values().all(|way| !way.is_unresolved());
        publish.send_if_modified(|old| {
            let is_new = *old != found;
            *old = found;
            is_new
        });
        let pause = if is_complete { RESCAN } else { RETRY };
        let wake_at = Instant::now() + DEBOUNCE;
        tokio::select! {
            _ = timeout(pause, changes.next()) => {}
            declared = nodes.changed() => if declared.is_err() { return },
            () = publish.closed() => return,
        }
        sleep_until(wake_at).await;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::IpAddr;

    use ingress_common::abi::{Be16, Mac, Vlan};

    use super::{Link, Neighbour, Route, Way, way};
    use crate::l4::vlan::Lower;

    const OWN: Mac = Mac::new([2, 0, 0, 0, 0, 1]);
    const PEER: Mac = Mac::new([2, 0, 0, 0, 0, 2]);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn links() -> Vec<Link> {
        let link = |index, name: &str, mac| Link {
            index,
            name: name.into(),
            mac,
            is_up: true,
            mtu: 1500,
            xdp: None,
            vlan_on: None,
        };
        let vlan = Link {
            vlan_on: Some(Lower { link: 2, number: 5, is_qinq: false }),
            ..link(4, "eth0.5", Some(OWN))
        };
        vec![link(1, "lo", None), link(2, "eth0", Some(OWN)), vlan]
    }

    fn routes(routes: &[(&str, u32, Option<&str>)]) -> BTreeMap<IpAddr, Route> {
        routes
            .iter()
            .map(|(to, link, via)| (ip(to), Route { link: *link, gateway: via.map(ip), mtu: None }))
            .collect()
    }

    #[test]
    fn ways() {
        let entry = [Neighbour { link: 2, address: ip("10.0.0.2"), mac: PEER }];
        let found = Way::Link { link: 2, vlan: Vlan::NONE, from: OWN, to: PEER };
        let vlan = Vlan::NONE.with(Be16::new(5), false);
        let in_vlan = Way::Link { link: 2, vlan, from: OWN, to: PEER };
        let vlan_entry = [Neighbour { link: 4, address: ip("10.0.0.2"), mac: PEER }];
        let by_vlan = routes(&[("10.0.0.2", 4, None)]);
        let gateway = Way::Routed { gateway: ip("10.0.0.254") };
        let on_link = routes(&[("10.0.0.2", 2, None)]);
        let behind = routes(&[("10.0.0.2", 2, Some("10.0.0.254"))]);
        let router = Neighbour { link: 2, address: ip("10.0.0.254"), mac: PEER };
        let tunnel = |mtu| Way::Tunnel {
            link: 2,
            vlan: Vlan::NONE,
            from: OWN,
            to: PEER,
            gateway: ip("10.0.0.254"),
            remote: ip("10.0.0.2"),
            mtu,
        };
        let mut narrow = behind.clone();
        for route in narrow.values_mut() {
            route.mtu = Some(1400);
        }
        let one = [ip("10.0.0.2")];
        let two = [ip("2001:db8::2"), ip("10.0.0.2")];
        let both = routes(&[("2001:db8::2", 2, Some("2001:db8::ff")), ("10.0.0.2", 2, None)]);
        let own = routes(&[("10.0.0.2", 1, None)]);
        for (what, addresses, routes, neighbours, before, expected) in [
            ("neighbour", &one[..], &on_link, &entry[..], None, found),
            ("no entry", &one, &on_link, &[], None, Way::Unresolved),
            ("entry being renewed", &one, &on_link, &[], Some(found), found),
            (
                "link changed meanwhile",
                &one,
                &on_link,
                &[],
                Some(Way::Link { link: 3, vlan: Vlan::NONE, from: OWN, to: PEER }),
                Way::Unresolved,
            ),
            ("behind a router that is not known", &one, &behind, &entry, Some(found), gateway),
            ("behind a router", &one, &behind, &[router], Some(found), tunnel(1500)),
            ("the route allows less than the link", &one, &narrow, &[router], None, tunnel(1400)),
            ("the router's entry being renewed", &one, &narrow, &[], Some(tunnel(1500)), tunnel(1400)),
            ("no route", &one, &BTreeMap::new(), &entry, Some(found), Way::NoRoute),
            ("one of two addresses on the link", &two, &both, &entry, None, found),
            ("an address of our own", &one, &own, &[], None, Way::NoRoute),
            ("by a VLAN", &one, &by_vlan, &vlan_entry, None, in_vlan),
            ("by a VLAN, entry being renewed", &one, &by_vlan, &[], Some(in_vlan), in_vlan),
            ("into a VLAN meanwhile", &one, &by_vlan, &[], Some(found), Way::Unresolved),
        ] {
            assert_eq!(way(addresses, routes, &links(), neighbours, &[], before), expected, "{what}");
        }
        let mut down = links();
        down[1].is_up = false;
        assert_eq!(way(&one, &on_link, &down, &entry, &[], None), Way::NoRoute, "link down");
    }
}
