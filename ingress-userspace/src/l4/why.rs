//! Asks the kernel's half what it would do with a packet: a program of the same object that decides by the same code over
//! the same maps as the front, but counts nothing and remembers nothing (`xdp_why`). It is loaded for the question and gone after
//! it. For `xdp-ingress why`.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use aya::maps::{Array, Map, MapData};
use aya::programs::Xdp;
use aya::{TestRun as _, TestRunOptions};
use ingress_common::abi::{self, Config, FlowSet, NodeIndex, SLOT_PAGE_LEN, SLOT_PAGES, SlotPage, Told};
use ingress_common::hash::FlowHash;
use ingress_common::packet::eth::{EthHdr, ethertype};
use ingress_common::packet::ipv4::Ipv4Hdr;
use ingress_common::packet::ipv6::Ipv6Hdr;
use ingress_common::packet::tcp::{PROTO, TcpFlags, TcpHdr};
use ingress_common::steer::Reason;
use serde::{Deserialize, Serialize};
use zerocopy::IntoBytes as _;

use super::load;
use super::status::Picture;
use super::sync::Standing;

/// The packet in question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The client.
    pub source: SocketAddr,
    /// The VIP.
    pub vip: SocketAddr,
    /// The first packet of a connection, or one of its later ones.
    pub is_syn: bool,
}

/// What would become of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// What was asked.
    pub question: Question,
    /// Node that was asked.
    pub node: String,
    /// The address and port are a VIP here.
    pub is_vip: bool,
    /// Node that answers ARP or neighbour discovery for the VIP.
    pub owner: Option<String>,
    /// Slot of the flow.
    pub slot: u32,
    /// The slot's nodes by rank.
    pub candidates: Vec<CandidateStatus>,
    /// Node that the flow table remembers.
    pub remembered: Option<String>,
    /// `ingress_common::steer::Reason`.
    pub reason: String,
    /// The packet would be dropped.
    pub is_drop: bool,
    /// Node that would get it.
    pub to: Option<String>,
    /// More SYNs arrive than the VIP takes: it would be answered with a cookie, if the listener's queue is full.
    pub is_cookie: bool,
}

/// One of a slot's nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CandidateStatus {
    /// `metadata.name`.
    pub name: String,
    /// What it does for new flows.
    pub state: Standing,
    /// It is the node that was asked.
    pub is_self: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum WhyError {
    /// Two IP versions.
    #[error("the client's address and the VIP are of two IP versions")]
    Versions,
    /// The daemon has not filled the maps yet.
    #[error("the XDP front is not filled yet; try again when `xdp-ingress status` shows VIPs")]
    NotReady,
    /// The program cannot be loaded.
    #[error(transparent)]
    Load(#[from] load::StartError),
    /// The kernel refuses.
    #[error("cannot {action}: {error}")]
    Kernel {
        /// What was tried.
        action: &'static str,
        /// What the kernel says.
        error: String,
    },
}

/// Asks. Takes some tenths of a second, most of it the verifier's.
pub(super) fn ask(
    question: Question,
    pin_path: &Path,
    node: &str,
    picture: &Picture,
) -> Result<Answer, WhyError> {
    let config: Config =
        pinned::<Config>(pin_path, abi::CONFIG)?.get(&0, 0).map_err(failed("read the configuration"))?;
    if config.abi_version != abi::ABI_VERSION || config.uplinks[0].ifindex == 0 {
        return Err(WhyError::NotReady);
    }
    let (frame, hash) = frame(&question, &config).ok_or(WhyError::Versions)?;
    let told = run(pin_path, &frame)?;
    let name =
        |index: NodeIndex| picture.placed.iter().find(|node| node.index == index).map(|n| n.name.clone());
    let reason = Reason::from_index(told.reason).unwrap_or(Reason::NotOurs);
    let vip = picture.vips.iter().find(|(socket, ..)| *socket == question.vip);
    let slot = hash.slot() & 0xffff;
    Ok(Answer {
        question,
        node: node.to_owned(),
        is_vip: vip.is_some(),
        owner: vip.and_then(|(.., owner)| owner.clone()),
        slot,
        candidates: candidates(pin_path, &config, slot)?
            .into_iter()
            .filter_map(|index| picture.placed.iter().find(|node| node.index == index))
            .map(|placed| CandidateStatus {
                name: placed.name.clone(),
                state: placed.standing,
                is_self: placed.name == node,
            })
            .collect(),
        remembered: remembered(pin_path, &config, hash)?.and_then(name),
        reason: reason.name().to_owned(),
        is_drop: reason.is_drop(),
        to: name(told.node),
        is_cookie: told.is_cookie,
    })
}

fn failed<E: std::fmt::Display>(action: &'static str) -> impl FnOnce(E) -> WhyError {
    move |error| WhyError::Kernel { action, error: error.to_string() }
}

fn pinned<V: aya::Pod>(pin_path: &Path, name: &str) -> Result<Array<MapData, V>, WhyError> {
    let open = || -> Result<_, aya::maps::MapError> {
        Map::from_map_data(MapData::from_pin(pin_path.join(name))?)?.try_into()
    };
    open().map_err(failed("open a pinned map"))
}

fn candidates(pin_path: &Path, config: &Config, slot: u32) -> Result<Vec<NodeIndex>, WhyError> {
    let pages = pinned::<SlotPage>(pin_path, abi::SLOTS)?;
    let page = (config.active_slots & 1) * SLOT_PAGES as u32 + slot / SLOT_PAGE_LEN as u32;
    let page = pages.get(&page, 0).map_err(failed("read the slot table"))?;
    let order = page[slot as usize % SLOT_PAGE_LEN].order;
    Ok(order.into_iter().take_while(|index| *index != NodeIndex::NONE).collect())
}

fn remembered(pin_path: &Path, config: &Config, hash: FlowHash) -> Result<Option<NodeIndex>, WhyError> {
    let flows = pinned::<[u64; abi::FLOW_WAYS]>(pin_path, abi::FLOWS)?;
    let set =
        flows.get(&FlowSet::number(hash.0, config.flow_sets), 0).map_err(failed("read the flow table"))?;
    Ok(FlowSet::from_words(set).find(hash.0, false, false))
}

fn run(pin_path: &Path, frame: &[u8]) -> Result<Told, WhyError> {
    let mut ebpf = load::open_question(pin_path)?;
    let program: &mut Xdp = ebpf
        .program_mut(abi::PROGRAM_WHY)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| failed("find the program")("it is not in this build's BPF object"))?;
    program.load().map_err(|error| load::StartError::from_aya("load the program that answers", &error))?;
    let ran = program
        .test_run(TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() })
        .map_err(failed("run the program"))?;
    Ok(Told::unpack(ran.return_value))
}

/// The packet as a router would bring it to this node, and its flow's hash.
fn frame(question: &Question, config: &Config) -> Option<(Vec<u8>, FlowHash)> {
    use ingress_common::abi::{Be16, Be32, Mac};
    const HOPS: u8 = 64;
    let (src_port, dst_port) = (Be16::new(question.source.port()), Be16::new(question.vip.port()));
    let tcp = TcpHdr {
        src: src_port,
        dst: dst_port,
        seq: Be32::new(1),
        ack: Be32::new(0),
        offset: 0x50,
        flags: TcpFlags(if question.is_syn { TcpFlags::SYN } else { TcpFlags::ACK }),
        window: Be16::new(1024),
        checksum: Be16::new(0),
        urgent: Be16::new(0),
    };
    let link =
        |ethertype| EthHdr { dst: config.uplinks[0].mac, src: Mac::new([2, 0, 0, 0, 0, 0]), ethertype };
    match (question.source.ip(), question.vip.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let (src, dst) = (src.into(), dst.into());
            let mut ip = Ipv4Hdr {
                version_ihl: 0x45,
                tos: 0,
                total_len: Be16::new(40),
                id: Be16::new(0),
                fragment: Be16::new(0),
                ttl: HOPS,
                proto: PROTO,
                checksum: Be16::new(0),
                src,
                dst,
            };
            ip.set_checksum();
            let frame = [link(ethertype::IPV4).as_bytes(), ip.as_bytes(), tcp.as_bytes()].concat();
            Some((frame, config.flow_key.flow4(src, dst, src_port, dst_port)))
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let (src, dst) = (src.into(), dst.into());
            let ip = Ipv6Hdr {
                version_class_flow: Be32::new(0x6000_0000),
                payload_len: Be16::new(20),
                next: PROTO,
                hop_limit: HOPS,
                src,
                dst,
            };
            let frame = [link(ethertype::IPV6).as_bytes(), ip.as_bytes(), tcp.as_bytes()].concat();
            Some((frame, config.flow_key.flow6(&src, &dst, src_port, dst_port)))
        }
        _ => None,
    }
}
