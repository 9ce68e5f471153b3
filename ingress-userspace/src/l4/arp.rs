//! Keeps the kernel from asking for its neighbours in a VIP's name. A node that serves a connection which came by another
//! node has to find out the client's hardware address. By default (`arp_announce` 0, ip-sysctl) its question names the
//! source of the packet that waits, the VIP, as the sender, and whoever hears it takes that for news of where the VIP is
//! (RFC 826): the client would leave the owner. With 2 the question names an address of the link itself. IPv6 does so anyway.
//!
//! Set over rtnetlink (`IFLA_INET_CONF`, Linux 2.6.37), since `/proc/sys` cannot be written in a container. What was set
//! before is kept as a symbolic link beside the pins: a bpffs ends with the node's run, as the setting does. Called by `l4`.

use std::io::{self, ErrorKind};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tracing::{info, warn};

use super::load::Attachment;
use super::netlink::Netlink;

/// "Always use the best local address for this target."
const BEST_LOCAL: u32 = 2;
/// The links that remember are called this and the interface's index.
const REMEMBERED: &str = "arp_announce_";

/// Sees to it on the uplinks. What cannot be set is a warning: everything works, but clients may leave the VIP's owner.
pub(super) async fn ask_in_own_name(netlink: &Netlink, pin_path: &Path, uplinks: &[Attachment]) {
    for Attachment { interface, index, .. } in uplinks {
        if let Err(error) = set(netlink, pin_path, interface, *index).await {
            warn!(
                interface,
                %error,
                "cannot set arp_announce: this node's ARP requests may draw clients away from the owners of VIPs; set \
                 net.ipv4.conf.{interface}.arp_announce to 2"
            );
        }
    }
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
