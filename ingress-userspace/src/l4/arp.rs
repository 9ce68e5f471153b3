//! Keeps the kernel from asking for its neighbours in a VIP's name. A node that serves a connection which came by another
//! node has to find out the client's hardware address. By default (`arp_announce` 0, ip-sysctl) its question names the
//! source of the packet that waits, the VIP, as the sender, and whoever hears it takes that for news of where the VIP is
//! (RFC 826): the client would leave the owner. With 2 the question names an address of the link itself. IPv6 does so anyway.
//!
//! Set over rtnetlink (`IFLA_INET_CONF`, Linux 2.6.37), since `/proc/sys` cannot be written in a container: on the uplinks and
//! on the VLANs that they carry, those that come later too. What was set before is kept as a symbolic link beside the pins: a
//! bpffs ends with the node's run, as the setting does. A task of its own, started by `l4`.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tokio::sync::watch;
use tracing::{info, warn};

use super::neighbour::Surroundings;
use super::netlink::{Link, Netlink};
use super::vlan::{Told, wire};

/// "Always use the best local address for this target."
const BEST_LOCAL: u32 = 2;
/// The links that remember are called this and the interface's index.
const REMEMBERED: &str = "arp_announce_";

/// Sees to it on the interfaces that send by `uplinks` (their indices). What cannot be set is a warning: everything works, but
/// clients may leave the VIP's owner.
pub(super) async fn ask_in_own_name(
    netlink: Netlink,
    pin_path: PathBuf,
    uplinks: Vec<u32>,
    told: Vec<Told>,
    mut surroundings: watch::Receiver<Surroundings>,
) {
    let mut seen = BTreeSet::new();
    loop {
        let links = surroundings.borrow_and_update().links.clone();
        let here = sending_by(&uplinks, &links, &told);
        // The index of an interface that goes may come again.
        seen.retain(|index| here.iter().any(|link| link.index == *index));
        for Link { name, index, .. } in here {
            if seen.insert(*index)
                && let Err(error) = set(&netlink, &pin_path, name, *index).await
            {
                warn!(
                    interface = name,
                    %error,
                    "cannot set arp_announce: this node's ARP requests may draw clients away from the owners of VIPs; set \
                     net.ipv4.conf.{name}.arp_announce to 2"
                );
            }
        }
        if surroundings.changed().await.is_err() {
            return;
        }
    }
}

/// The interfaces whose frames leave by one of `uplinks`, with VLAN tags or without.
fn sending_by<'a>(uplinks: &[u32], links: &'a [Link], told: &[Told]) -> Vec<&'a Link> {
    let leaves = |link: &&Link| wire(link, links, told).is_some_and(|(by, _)| uplinks.contains(&by));
    links.iter().filter(leaves).collect()
}

async fn set(netlink: &Netlink, pin_path: &Path, interface: &str, index: u32) -> io::Result<()> {
    // The greater one counts.
    let (own, all) = (value(interface)?, value("all")?);
    if own.max(all) >= BEST_LOCAL {
        return Ok(());
    }
    // Before the change, so that it is never forgotten. It may be there already, if the interface was reset meanwhile.
    match symlink(own.to_string(), remembered(pin_path, index)) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    netlink.set_arp_announce(index, BEST_LOCAL).await.map_err(io::Error::other)?;
    info!(interface, before = own, now = BEST_LOCAL, "arp_announce: ARP requests do not name VIPs any more");
    Ok(())
}

/// Puts back what was set before.
pub(super) async fn restore(netlink: &Netlink, pin_path: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(pin_path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some(index) = name.to_str().and_then(|name| name.strip_prefix(REMEMBERED)) else { continue };
        let before = std::fs::read_link(entry.path())?;
        if let (Ok(index), Some(Ok(before))) = (index.parse(), before.to_str().map(str::parse)) {
            // The interface may be gone.
            let _ = netlink.set_arp_announce(index, before).await;
        }
        std::fs::remove_file(entry.path())?;
    }
    Ok(())
}

/// `conf`: an interface's name, or `all`.
fn value(conf: &str) -> io::Result<u32> {
    let path = Path::new("/proc/sys/net/ipv4/conf").join(conf).join("arp_announce");
    std::fs::read_to_string(path)?.trim().parse().map_err(io::Error::other)
}

fn remembered(pin_path: &Path, index: u32) -> PathBuf {
    pin_path.join(format!("{REMEMBERED}{index}"))
}

#[cfg(test)]
mod tests {
    use super::super::vlan::Lower;
    use super::{Link, sending_by};

    #[test]
    fn uplinks_and_their_vlans_ask_in_their_own_name() {
        let link = |index, name: &str, on| Link {
            index,
            name: name.to_owned(),
            mac: None,
            is_up: true,
            mtu: 1500,
            xdp: None,
            vlan_on: Option::map(on, |link| Lower { link, number: 5, is_qinq: false }),
        };
        let links = [
            link(1, "lo", None),
            link(2, "eth0", None),
            link(3, "eth1", None),
            link(4, "eth0.5", Some(2)),
            link(5, "eth0.5.5", Some(4)),
            link(6, "eth1.5", Some(3)),
            link(7, "ovs5", None),
        ];
        let told = ["ovs5=eth0:5".parse().expect("well formed")];
        let names: Vec<_> = sending_by(&[2], &links, &told).iter().map(|link| link.name.as_str()).collect();
        assert_eq!(names, ["eth0", "eth0.5", "eth0.5.5", "ovs5"]);
    }
}
