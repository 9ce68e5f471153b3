//! SYN cookies, with the kernel's own: the answer in XDP, the ACK to it, and what the kernel thinks of both. In this
//! process's namespace the kernel sends cookies whether or not its queue is full (`tcp_syncookies=2`).

use std::{fs, sync::PoisonError};

use anyhow::{Context as _, Result, ensure};
use aya::util::nr_cpus;
use ingress_common::{
    abi::{Guard, Vip, VipId},
    steer::{Reason, memory::Memory},
};
use ingress_tests::packets::{
    self, OWN,
    build::{ACK, SYN},
};
use libtest_mimic::Trial;

use crate::{
    front::Front,
    sockets::{Ends, FRONT, SYNCOOKIES},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("cookies::v4: a SYN is answered, its ACK is known, another is not", || answered(false)),
        trial("cookies::v6: a SYN is answered, its ACK is known, another is not", || answered(true)),
    ]
}

/// A node whose VIPs have been flooded: the first SYN is one too many already.
fn flooded() -> Memory {
    let mut world = packets::world();
    packets::rank(&mut world, &[OWN]);
    world.config.segment_size = 1460;
    for vip in world.vips4.values_mut().chain(world.vips6.values_mut()) {
        vip.flags |= Vip::COOKIES;
    }
    for id in 3..=6 {
        // The first SYN is paid for until the end of all days.
        world.guards.insert(VipId(id), Guard { syn_cost_ns: 1 << 62, ..Guard::default() });
    }
    world
}

fn answered(is_v6: bool) -> Result<()> {
    // Theirs are the same VIP's port and the same sysctl.
    let _alone = FRONT.lock().unwrap_or_else(PoisonError::into_inner);
    let usual = fs::read_to_string(SYNCOOKIES).context("reading the sysctl")?;
    fs::write(SYNCOOKIES, "2").context("writing the sysctl")?;
    let result = exchange(&if is_v6 { Ends::v6(41_008) } else { Ends::v4(41_007) }, is_v6);
    fs::write(SYNCOOKIES, usual.trim())?;
    result
}

fn exchange(ends: &Ends, is_v6: bool) -> Result<()> {
    let l4 = ends.l4();
    let segment = |flags| ends.segment(flags);
    let _listener = ends.listen()?;
    let mut front = Front::load()?;
    front.fill(&flooded())?;
    let syn: Vec<u8> = segment(SYN).into();
    let mut answer = front.run(&syn)?;
    ensure!(
        answer.reason == Reason::LocalNew && answer.packet == syn,
        "within the budget: {:?}",
        answer.reason
    );
    // Each CPU has a budget of its own, and this thread may move.
    for _cpu in 0..nr_cpus().map_err(|(_, error)| error)? {
        if answer.reason == Reason::LocalNew {
            answer = front.run(&syn)?;
        }
    }
    ensure!(answer.reason == Reason::CookieSent && answer.code == 3, "{:?} {}", answer.reason, answer.code);
    let headers = etherparse::PacketHeaders::from_ethernet_slice(&answer.packet)?;
    let Some(etherparse::TransportHeader::Tcp(tcp)) = headers.transport else {
        anyhow::bail!("no TCP header")
    };
    let sent = etherparse::PacketHeaders::from_ethernet_slice(&syn)?;
    let Some(etherparse::TransportHeader::Tcp(asked)) = sent.transport else {
        anyhow::bail!("no TCP header")
    };
    ensure!(tcp.syn && tcp.ack && !tcp.rst && !tcp.fin);
    ensure!((tcp.source_port, tcp.destination_port) == (asked.destination_port, asked.source_port));
    ensure!(tcp.acknowledgment_number == asked.sequence_number.wrapping_add(1));
    ensure!(answer.packet[..6] == syn[6..12] && answer.packet[6..12] == syn[..6], "back the way it came");
    match (&headers.net, &sent.net) {
        (Some(etherparse::NetHeaders::Ipv4(ip, _)), Some(etherparse::NetHeaders::Ipv4(was, _))) => {
            ensure!((ip.source, ip.destination) == (was.destination, was.source));
            ensure!(ip.header_checksum == ip.calc_header_checksum(), "IPv4 checksum");
            ensure!(tcp.checksum == tcp.calc_checksum_ipv4(ip, &[])?, "TCP checksum");
        }
        (Some(etherparse::NetHeaders::Ipv6(ip, _)), Some(etherparse::NetHeaders::Ipv6(was, _))) => {
            ensure!((ip.source, ip.destination) == (was.destination, was.source));
            ensure!(tcp.checksum == tcp.calc_checksum_ipv6(ip, &[])?, "TCP checksum");
        }
        other => anyhow::bail!("{other:?}"),
    }

    let ack = |number: u32| -> Vec<u8> {
        let mut ack: Vec<u8> = segment(ACK).into();
        ack[l4 + 4..l4 + 8].copy_from_slice(&asked.sequence_number.wrapping_add(1).to_be_bytes());
        ack[l4 + 8..l4 + 12].copy_from_slice(&number.to_be_bytes());
        ack
    };
    let good = front.run(&ack(tcp.sequence_number.wrapping_add(1)))?;
    ensure!(good.reason == Reason::LocalSocket, "the ACK of the cookie: {:?}", good.reason);
    let guessed = front.run(&ack(tcp.sequence_number.wrapping_add(1) ^ 0x00ff_ff00))?;
    ensure!(guessed.reason == Reason::LocalUnknown, "the ACK of no cookie: {:?}", guessed.reason);
    println!("cookie {:08x} for {}", tcp.sequence_number, if is_v6 { "IPv6" } else { "IPv4" });
    Ok(())
}
