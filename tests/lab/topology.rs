//! Who has which address. Pure: the same place gives the same address in every lab, since each lab lives in
//! namespaces of its own. `build` puts them on interfaces, `manifests` writes them into objects.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Prefix lengths of the link that clients and nodes share.
pub const LINK_PREFIX: (u8, u8) = (24, 64);
/// The first VIP, in the range of the link: an owner answers ARP and neighbour discovery for it.
pub const VIP: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(10, 77, 0, 100), Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x100));
/// The uplink's name on every client and node.
pub const UPLINK: &str = "eth0";

/// What the switch's bridge is called.
pub const BRIDGE: &str = "br0";

/// An IPv4 and an IPv6 address of one host.
pub type Pair = (Ipv4Addr, Ipv6Addr);

/// Node `index` (from 0): `10.77.0.11`, `fd77::11`, …
pub fn node(index: usize) -> Pair {
    let last = octet(11 + index);
    (Ipv4Addr::new(10, 77, 0, last), Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, digits(last)))
}

/// Client `index` (from 0): `10.77.0.201`, `fd77::201`, …
pub fn client(index: usize) -> Pair {
    let last = octet(201 + index);
    (Ipv4Addr::new(10, 77, 0, last), Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, digits(last)))
}

/// Node `index` (from 0) of a lab with a router, on a link of its own: `10.78.1.11`, `fd78:1::11`, …
pub fn routed_node(index: usize) -> Pair {
    let net = octet(1 + index);
    (Ipv4Addr::new(10, 78, net, 11), Ipv6Addr::new(0xfd78, digits(net), 0, 0, 0, 0, 0, 0x11))
}

/// Client `index` (from 0) of a lab with a router: `10.79.1.201`, `fd79:1::201`, …
pub fn routed_client(index: usize) -> Pair {
    let net = octet(1 + index);
    (Ipv4Addr::new(10, 79, net, 201), Ipv6Addr::new(0xfd79, digits(net), 0, 0, 0, 0, 0, 0x201))
}

/// The router's addresses on the link of the host `pair`.
pub fn router(pair: Pair) -> Pair {
    let [high, low, net, _] = pair.0.octets();
    let [prefix, link, ..] = pair.1.segments();
    (Ipv4Addr::new(high, low, net, 1), Ipv6Addr::new(prefix, link, 0, 0, 0, 0, 0, 1))
}

/// Pod `pod` of node `node` (both from 0): `10.244.1.2`, `fd77:244:1::2`, …
pub fn pod(node: usize, pod: usize) -> Pair {
    let last = octet(2 + pod);
    let (net, net6) = (octet(1 + node), digits(octet(1 + node)));
    (Ipv4Addr::new(10, 244, net, last), Ipv6Addr::new(0xfd77, 0x244, net6, 0, 0, 0, 0, digits(last)))
}

/// The node's own address towards its pods: their default gateway.
pub fn gateway(node: usize) -> Pair {
    let (net, net6) = (octet(1 + node), digits(octet(1 + node)));
    (Ipv4Addr::new(10, 244, net, 1), Ipv6Addr::new(0xfd77, 0x244, net6, 0, 0, 0, 0, 1))
}

/// The pod range of a node, as its `spec.podCIDRs` has it.
pub fn pod_ranges(node: usize) -> (String, String) {
    let net = 1 + node;
    (format!("10.244.{net}.0/24"), format!("fd77:244:{net}::/64"))
}

/// The MAC address of the uplink of the host with these addresses: its number can be read from it.
pub fn mac(addresses: &[IpAddr]) -> String {
    match addresses {
        [IpAddr::V4(v4), ..] => {
            let [a, b, c, d] = v4.octets();
            format!("02:77:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
        }
        _ => String::new(),
    }
}

/// `pair` as addresses, the IPv6 one only where wanted.
pub fn addresses(pair: Pair, ipv6: bool) -> Vec<IpAddr> {
    let mut all = vec![IpAddr::V4(pair.0)];
    all.extend(ipv6.then_some(IpAddr::V6(pair.1)));
    all
}

fn octet(number: usize) -> u8 {
    u8::try_from(number).expect("a lab has at most some tens of hosts")
}

/// The group that prints as the decimal digits of `octet`: addresses of both versions look alike to a reader.
fn digits(octet: u8) -> u16 {
    let (hundreds, tens, ones) = (octet / 100, octet / 10 % 10, octet % 10);
    u16::from(hundreds) << 8 | u16::from(tens) << 4 | u16::from(ones)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_read_alike() {
        assert_eq!(node(0).0.to_string(), "10.77.0.11");
        assert_eq!(node(0).1.to_string(), "fd77::11");
        assert_eq!(router(routed_node(1)).0.to_string(), "10.78.2.1");
        assert_eq!(router(routed_node(1)).1.to_string(), "fd78:2::1");
        assert_eq!(client(1).1.to_string(), "fd77::202");
        assert_eq!(pod(2, 1).1.to_string(), "fd77:244:3::3");
        assert_eq!(gateway(2).0.to_string(), "10.244.3.1");
        assert_eq!(VIP.1.to_string(), "fd77::100");
    }
}
