//! Interfaces that are VLANs: what carries them, and with which tags. The kernel tells it of its own VLAN interfaces; of
//! others (a port of Open vSwitch, a bridge that filters VLANs) the user does (`--vlan`). Pure; called by `neighbour`.

use std::fmt;
use std::str::FromStr;

use ingress_common::abi::{Be16, Vlan};

use super::netlink::Link;

/// What the kernel says of a VLAN interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lower {
    /// Index of the interface that carries it.
    pub(crate) link: u32,
    /// VLAN number.
    pub(crate) number: u16,
    /// Its tags are 802.1ad's.
    pub(crate) is_qinq: bool,
}

/// What the user says of an interface: `INTERFACE=UPLINK:VLAN`, or `INTERFACE=UPLINK:OUTER.INNER`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    interface: String,
    uplink: String,
    vlan: Vlan,
}

impl FromStr for Told {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}`: expected INTERFACE=UPLINK:VLAN, as in `br0=eth0:5` or `br0=eth0:100.5`");
        let (interface, way) = text.split_once('=').ok_or_else(wrong)?;
        let (uplink, tags) = way.rsplit_once(':').ok_or_else(wrong)?;
        if interface.is_empty() || uplink.is_empty() {
            return Err(wrong());
        }
        Ok(Self { interface: interface.to_owned(), uplink: uplink.to_owned(), vlan: of_text(tags)? })
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}:{}", self.interface, self.uplink, text(self.vlan))
    }
}

/// The tags as `5` or `100.5`; nothing where there are none.
pub(crate) fn text(vlan: Vlan) -> String {
    let number = |half: u16| half & Vlan::NUMBER;
    match (vlan.outer(), vlan.inner()) {
        (0, 0) => String::new(),
        (0, inner) => number(inner).to_string(),
        (outer, inner) => format!("{}.{}", number(outer), number(inner)),
    }
}

/// What [`text`] has made, with tags of 802.1Q.
pub(crate) fn of_text(text: &str) -> Result<Vlan, String> {
    let numbers: Option<Vec<u16>> = text.split('.').map(|number| number.parse().ok()).collect();
    let numbers = numbers.filter(|numbers| {
        numbers.len() <= Vlan::MAX_TAGS && numbers.iter().all(|number| (1..4095).contains(number))
    });
    let numbers = numbers.ok_or_else(|| {
        format!(
            "`{text}` is no VLAN: numbers are 1 to 4094, and there are two tags at most, as in `5` or `100.5`"
        )
    })?;
    Ok(numbers.iter().fold(Vlan::NONE, |vlan, number| vlan.with(Be16::new(*number), false)))
}

/// Where frames for the interface `link` go on the wire: the interface that carries it, and the tags that they have there.
/// `None`: it is not known, or carries more tags than the program looks behind.
pub(crate) fn wire(link: &Link, links: &[Link], told: &[Told]) -> Option<(u32, Vlan)> {
    if let Some(told) = told.iter().find(|told| told.interface == link.name) {
        return links.iter().find(|link| link.name == told.uplink).map(|uplink| (uplink.index, told.vlan));
    }
    let mut tags = Vec::new();
    let mut link = link;
    while let Some(lower) = link.vlan_on {
        if tags.len() == Vlan::MAX_TAGS {
            return None;
        }
        tags.push(lower);
        link = links.iter().find(|link| link.index == lower.link)?;
    }
    let with = |vlan: Vlan, tag: &Lower| vlan.with(Be16::new(tag.number), tag.is_qinq);
    Some((link.index, tags.iter().rev().fold(Vlan::NONE, with)))
}

#[cfg(test)]
mod tests {
    use ingress_common::abi::{Be16, Vlan};

    use super::{Link, Lower, Told, text, wire};

    fn link(index: u32, name: &str, vlan_on: Option<Lower>) -> Link {
        Link { index, name: name.to_owned(), mac: None, is_up: true, mtu: 1500, xdp: None, vlan_on }
    }

    #[test]
    fn tags_from_the_wire_upwards() {
        let on = |link, number, is_qinq| Some(Lower { link, number, is_qinq });
        let links = [
            link(2, "eth0", None),
            link(3, "eth0.100", on(2, 100, true)),
            link(4, "eth0.100.5", on(3, 5, false)),
            link(5, "deep", on(4, 7, false)),
            link(6, "lost", on(99, 5, false)),
            link(7, "ovs5", None),
        ];
        let told = ["ovs5=eth0:5".parse().unwrap()];
        let vlan = |number| Vlan::NONE.with(Be16::new(number), false);
        let stacked = Vlan::NONE.with(Be16::new(100), true).with(Be16::new(5), false);
        for (at, expected) in [
            (0, Some((2, Vlan::NONE))),
            (1, Some((2, Vlan::NONE.with(Be16::new(100), true)))),
            (2, Some((2, stacked))),
            (3, None),
            (4, None),
            (5, Some((2, vlan(5)))),
        ] {
            assert_eq!(wire(&links[at], &links, &told), expected, "{}", links[at].name);
        }
        assert_eq!(wire(&links[5], &links, &[]), Some((7, Vlan::NONE)));
        assert_eq!(text(stacked), "100.5");
    }

    #[test]
    fn what_users_say() {
        for good in ["br0=eth0:5", "br0.5=bond0:100.5"] {
            assert_eq!(good.parse::<Told>().map(|told| told.to_string()), Ok(good.to_owned()));
        }
        for wrong in [
            "",
            "br0",
            "br0=eth0",
            "=eth0:5",
            "br0=:5",
            "br0=eth0:0",
            "br0=eth0:4095",
            "br0=eth0:1.2.3",
            "a=b:x",
        ] {
            assert!(wrong.parse::<Told>().is_err(), "{wrong}");
        }
    }
}
