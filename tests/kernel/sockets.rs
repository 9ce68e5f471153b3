//! The kinds of sockets that the look-up must find beside established ones: half open (a request), just closed (time-wait), and
//! none at all where the listener has sent a SYN cookie, which the client's ACK gives back.

use std::{
    fs,
    io::Read as _,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd as _, OwnedFd},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use ingress_common::{
    abi::{Be16, Ip4, Ip6},
    packet::tcp::TcpFlags,
    steer::Reason,
};
use ingress_tests::packets::{
    self, CLIENT, CLIENT6, OTHERS_VIP, OTHERS_VIP6, PORT,
    build::{ACK, SYN, Segment, v4, v6},
    ip6,
};
use libtest_mimic::Trial;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketType, bind, connect, ipproto, recv, sendto, socket, sockopt,
};

use crate::{
    connections::{Address, bound_socket},
    front::Front,
    trial,
};

/// The program, for one at a time: they share a VIP's port, and one of them changes a sysctl.
pub(crate) static FRONT: Mutex<Option<Front>> = Mutex::new(None);
/// The kernel does what we wait for in well under a millisecond; a starved machine may take longer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Where the kernel says whether it sends SYN cookies: 1 when it must, 2 always.
pub(crate) const SYNCOOKIES: &str = "/proc/sys/net/ipv4/tcp_syncookies";

/// States of sockets (`tcp_states.h`), as `/proc/net/tcp` has them.
const TIME_WAIT: &str = "06";
const SYN_RECV: &str = "03";

pub(crate) fn trials() -> Vec<Trial> {
    fn one(name: &str, test: fn(&mut Front) -> Result<()>) -> Trial {
        trial(name, move || {
            let mut front = FRONT.lock().unwrap_or_else(PoisonError::into_inner);
            if front.is_none() {
                let mut fresh = Front::load()?;
                fresh.fill(&packets::world())?;
                *front = Some(fresh);
            }
            test(front.as_mut().context("just loaded")?)
        })
    }
    vec![
        one("sockets::v4: a half open connection is found", |front| half_open(front, &Ends::v4(41_001))),
        one("sockets::v6: a half open connection is found", |front| half_open(front, &Ends::v6(41_002))),
        one("sockets::v4: a connection in time-wait is found", |front| time_wait(front, &Ends::v4(41_003))),
        one("sockets::v6: a connection in time-wait is found", |front| time_wait(front, &Ends::v6(41_004))),
        one("sockets::v4: the ACK of a SYN cookie is ours", |front| cookie(front, &Ends::v4(41_005))),
        one("sockets::v6: the ACK of a SYN cookie is ours", |front| cookie(front, &Ends::v6(41_006))),
    ]
}

/// A client's address and port, and a VIP with the port that it serves.
pub(crate) struct Ends {
    client: SocketAddr,
    vip: SocketAddr,
}

impl Ends {
    pub(crate) fn v4(port: u16) -> Self {
        let of = |addr: [u8; 4], port| Ip4::from(std::net::Ipv4Addr::from(addr)).socket_addr(port);
        Self { client: of(CLIENT, port), vip: of(OTHERS_VIP, PORT) }
    }

    pub(crate) fn v6(port: u16) -> Self {
        let of = |addr: &str, port| Ip6::socket_addr(ip6(addr), port);
        Self { client: of(CLIENT6, port), vip: of(OTHERS_VIP6, PORT) }
    }

    pub(crate) fn listen(&self) -> Result<TcpListener> {
        let listener = bound_socket(&self.vip)?;
        rustix::net::listen(&listener, 8)?;
        Ok(listener.into())
    }

    fn connect(&self) -> Result<TcpStream> {
        let client = bound_socket(&self.client)?;
        connect(&client, &self.vip).context("connect")?;
        Ok(client.into())
    }

    /// A segment from the client to the VIP.
    pub(crate) fn segment(&self, flags: u8) -> Segment {
        let segment = if self.vip.is_ipv4() { v4(flags) } else { v6(flags) };
        segment.with(|segment| {
            segment.src_port = self.client.port();
            (segment.dst, segment.dst6) = (OTHERS_VIP, ip6(OTHERS_VIP6));
        })
    }

    /// Where the TCP header of [`Self::segment`] begins.
    pub(crate) fn l4(&self) -> usize {
        14 + if self.vip.is_ipv4() { 20 } else { 40 }
    }

    /// The state of the VIP's socket for the client.
    fn state(&self) -> Result<Option<String>> {
        let file =
            if self.vip.is_ipv4() { "/proc/thread-self/net/tcp" } else { "/proc/thread-self/net/tcp6" };
        let ports = (format!(":{:04X}", self.vip.port()), format!(":{:04X}", self.client.port()));
        Ok(fs::read_to_string(file)?.lines().find_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [_, local, remote, state, ..] = words[..] else { return None };
            (local.ends_with(&ports.0) && remote.ends_with(&ports.1)).then(|| state.to_owned())
        }))
    }

    fn wait_for(&self, state: &str) -> Result<()> {
        let started = Instant::now();
        while self.state()?.as_deref() != Some(state) {
            ensure!(started.elapsed() < PATIENCE, "the socket is in state {:?}, not {state}", self.state()?);
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

/// With `TCP_DEFER_ACCEPT`, as the router's listeners have it, a connection stays a request until data comes.
fn half_open(front: &mut Front, ends: &Ends) -> Result<()> {
    let before = front.run(&ends.segment(ACK).bytes())?.reason;
    ensure!(before == Reason::ForwardWalk, "without a socket: {before:?}");
    // It remembers where the walk began.
    front.fill(&packets::world())?;
    let listener = ends.listen()?;
    set_defer_accept(&listener)?;
    let client = ends.connect()?;
    ends.wait_for(SYN_RECV)?;
    let reason = front.run(&ends.segment(ACK).bytes())?.reason;
    ensure!(reason == Reason::LocalSocket, "half open: {reason:?}");
    sockopt::set_socket_linger(&client, Some(Duration::ZERO))?;
    Ok(())
}

fn set_defer_accept(listener: &TcpListener) -> Result<()> {
    let seconds: libc::c_int = 30;
    // SAFETY: the descriptor is open, and the kernel reads one `int`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            size_of_val(&seconds) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error().into()) }
}

fn time_wait(front: &mut Front, ends: &Ends) -> Result<()> {
    let listener = ends.listen()?;
    let mut client = ends.connect()?;
    let (server, _) = listener.accept()?;
    // Who closes first keeps the time-wait socket. The listener goes too: it is not what must be found.
    drop((server, listener));
    client.set_read_timeout(Some(PATIENCE))?;
    ensure!(client.read(&mut [0])? == 0, "the server sent something");
    client.shutdown(Shutdown::Both)?;
    drop(client);
    ends.wait_for(TIME_WAIT)?;
    let reason = front.run(&ends.segment(ACK | TcpFlags::FIN).bytes())?.reason;
    ensure!(reason == Reason::LocalSocket, "in time-wait: {reason:?}");
    // A client that uses its port again may have got another node: this one must not keep the new connection's packets.
    let reason = front.run(&ends.segment(ACK).bytes())?.reason;
    ensure!(reason != Reason::LocalSocket, "what is closed has kept a new connection's packet");
    Ok(())
}

/// The listener answers with cookies only; the client never finishes the handshake but in our packet.
fn cookie(front: &mut Front, ends: &Ends) -> Result<()> {
    let usual = fs::read_to_string(SYNCOOKIES).context("reading the sysctl")?;
    fs::write(SYNCOOKIES, "2").context("writing the sysctl")?;
    let result = acknowledged(front, ends);
    fs::write(SYNCOOKIES, usual.trim())?;
    result
}

fn acknowledged(front: &mut Front, ends: &Ends) -> Result<()> {
    let _listener = ends.listen()?;
    let cookie = cookie_for_syn(ends)?;
    let ack = |number: u32| {
        let mut frame = ends.segment(ACK).bytes();
        let l4 = ends.l4();
        // The SYN's sequence number was 1000; the builder's segments all begin there.
        frame[l4 + 4..l4 + 8].copy_from_slice(&1001_u32.to_be_bytes());
        frame[l4 + 8..l4 + 12].copy_from_slice(&number.to_be_bytes());
        frame
    };
    ensure!(ends.state()?.is_none(), "the kernel keeps a socket: it sent no cookie");
    let reason = front.run(&ack(cookie.wrapping_add(1)))?.reason;
    ensure!(reason == Reason::LocalSocket, "the cookie given back: {reason:?}");
    let reason = front.run(&ack(cookie.wrapping_add(0x1000_0000)))?.reason;
    ensure!(reason == Reason::ForwardWalk, "a number that is no cookie: {reason:?}");
    Ok(())
}

/// Sends a SYN of a client that has no socket, and reads the listener's answer off the wire: its sequence number.
fn cookie_for_syn(ends: &Ends) -> Result<u32> {
    let family = if ends.vip.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let wire: OwnedFd = socket(family, SocketType::RAW, Some(ipproto::TCP))?;
    let without_port = |addr: SocketAddr| SocketAddr::new(addr.ip(), 0);
    bind(&wire, &without_port(ends.client))?;
    sockopt::set_socket_timeout(&wire, sockopt::Timeout::Recv, Some(PATIENCE))?;
    let syn = ends.segment(SYN).bytes();
    sendto(&wire, &syn[ends.l4()..], SendFlags::empty(), &without_port(ends.vip)).context("sending a SYN")?;
    // A raw socket of IPv4 gets the IP header too. Others' packets to the client come by as well.
    let header = if ends.vip.is_ipv4() { 20 } else { 0 };
    let mut packet = [0; 256];
    for _ in 0..1000 {
        let (_, len) = recv(&wire, &mut packet, RecvFlags::empty()).context("no answer to the SYN")?;
        let Some(tcp) = packet[..len].get(header..).filter(|tcp| tcp.len() >= 20) else { continue };
        let word = |at: usize| Be16::from_raw(u16::from_ne_bytes([tcp[at], tcp[at + 1]])).get();
        let is_ours = (word(0), word(2)) == (ends.vip.port(), ends.client.port());
        if is_ours && tcp[13] == SYN | ACK {
            return Ok(u32::from(word(4)) << 16 | u32::from(word(6)));
        }
    }
    bail!("no answer to the SYN among many packets")
}
