//! A VLAN interface on a host of the lab, on kernels that have none (`CONFIG_VLAN_8021Q`): a veth pair, and two TC programs that
//! do what the kernel's does: frames with the tag come up at the interface without it, what leaves by the interface goes out of
//! the uplink with it. On the wire it is 802.1Q; only netlink does not call it a VLAN, so the daemon is told (`--vlan`).

use anyhow::{Context as _, Result};

use super::{Host, Lab, netns, port, topology::UPLINK};

/// Name of the interface.
pub const INTERFACE: &str = "vlan5";
/// Number of the VLAN.
pub const NUMBER: u16 = 5;

/// `r1 = value`, and so on: instructions of eBPF (operation, registers, offset, value).
type Instruction = (u8, u8, i16, i32);

const MOV: u8 = 0xb7;
const CALL: u8 = 0x85;
const EXIT: Instruction = (0x95, 0, 0, 0);
/// Helpers' numbers in `linux/bpf.h`.
const VLAN_PUSH: i32 = 18;
const VLAN_POP: i32 = 19;
const REDIRECT: i32 = 23;

/// Frames of the VLAN to the interface `to`, as if they had come in there; all others go on.
fn inwards(to: i32) -> Vec<Instruction> {
    vec![
        (0x61, 0x12, 20, 0),                // r2 = skb->vlan_present
        (0x15, 0x02, 8, 0),                 // if it is 0, go on
        (0x61, 0x12, 24, 0),                // r2 = skb->vlan_tci
        (0x57, 0x02, 0, 0xfff),             // its number
        (0x55, 0x02, 5, i32::from(NUMBER)), // if it is another, go on
        (CALL, 0, 0, VLAN_POP),
        (MOV, 1, 0, to),
        (MOV, 2, 0, 1), // BPF_F_INGRESS
        (CALL, 0, 0, REDIRECT),
        EXIT,
        (MOV, 0, 0, 0), // TC_ACT_OK
        EXIT,
    ]
}

/// Everything out of the interface `to`, with the tag.
fn outwards(to: i32) -> Vec<Instruction> {
    vec![
        (MOV, 2, 0, 0x0081), // 0x8100 in network byte order
        (MOV, 3, 0, i32::from(NUMBER)),
        (CALL, 0, 0, VLAN_PUSH),
        (MOV, 1, 0, to),
        (MOV, 2, 0, 0),
        (CALL, 0, 0, REDIRECT),
        EXIT,
    ]
}

fn bytes(code: &[Instruction]) -> Vec<u8> {
    let one = |(operation, registers, offset, value): &Instruction| {
        let mut bytes = vec![*operation, *registers];
        bytes.extend(offset.to_le_bytes());
        bytes.extend(value.to_le_bytes());
        bytes
    };
    code.iter().flat_map(one).collect()
}

impl Lab {
    /// Gives `host` the interface [`INTERFACE`] with `addresses` (with their prefix lengths), on its uplink.
    pub fn add_vlan(&self, host: &Host, addresses: &[&str]) -> Result<()> {
        let shown = host.output("ip", &["-o", "link", "show", "dev", UPLINK])?;
        let mac = shown
            .split_whitespace()
            .skip_while(|word| *word != "link/ether")
            .nth(1)
            .context("no MAC address")?;
        host.ip(&format!(
            "link add {INTERFACE} address {mac} type veth peer name {INTERFACE}x\n\
             link set {INTERFACE}x up\nlink set {INTERFACE} up\n"
        ))?;
        for address in addresses {
            let nodad = if address.contains(':') { " nodad" } else { "" };
            host.ip(&format!("addr add {address} dev {INTERFACE}{nodad}\n"))?;
        }
        // The tag shall be in the frame, where XDP programs see it, at both ends of the wire.
        self.tags_in_frames(host)?;
        self.filter(host, UPLINK, "ingress", &inwards(index(host, INTERFACE)?))?;
        self.filter(host, INTERFACE, "egress", &outwards(index(host, UPLINK)?))
    }

    fn tags_in_frames(&self, host: &Host) -> Result<()> {
        let off = ["txvlan", "off"];
        netns::offloads(host.namespace(), UPLINK, &off)?;
        netns::offloads(self.switch().namespace(), host.name(), &off)
    }

    fn filter(&self, host: &Host, interface: &str, direction: &str, code: &[Instruction]) -> Result<()> {
        let file = self.dir().join(format!("{}-{direction}.bpf.o", host.name()));
        port::write_object(&file, &bytes(code))?;
        host.output("tc", &["qdisc", "add", "dev", interface, "clsact"])?;
        let program = ["bpf", "direct-action", "object-file", &file.to_string_lossy(), "section", "xdp"];
        host.output("tc", &[&["filter", "add", "dev", interface, direction][..], &program].concat()).map(drop)
    }
}

fn index(host: &Host, interface: &str) -> Result<i32> {
    let shown = host.output("ip", &["-o", "link", "show", "dev", interface])?;
    let number = shown.split(':').next().context("no index")?;
    Ok(number.trim().parse()?)
}
