//! What we ask of the kernel's network configuration: links, routes, neighbours, addresses on `lo`. A thin client of
//! rtnetlink that turns messages into plain data; it decides nothing. Used by `neighbour` and `address`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::{StreamExt as _, TryStreamExt as _};
use ingress_common::abi::Mac;
use rtnetlink::packet_core::{DefaultNla, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage, AddressProtocol};
use rtnetlink::packet_route::link::{
    AfSpecUnspec, InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp, VlanProtocol,
    XdpAttached,
};
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourState};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMetric, RouteVia};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder};

use super::vlan::Lower;

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// Hardware address, of links that have an Ethernet one.
    pub(crate) mac: Option<Mac>,
    pub(crate) is_up: bool,
    /// Bytes that a packet may have there.
    pub(crate) mtu: u32,
    pub(crate) xdp: Option<XdpState>,
    /// Where it is a VLAN interface.
    pub(crate) vlan_on: Option<Lower>,
}

/// The XDP program on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct XdpState {
    /// Its id.
    pub(crate) program: u32,
    pub(crate) is_native: bool,
}

/// Where packets to an address go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) link: u32,
    /// `None`: the address is on the link itself.
    pub(crate) gateway: Option<IpAddr>,
    /// Bytes that a packet may have on this route, where it is less than the link allows.
    pub(crate) mtu: Option<u32>,
}

/// A usable entry of the neighbour table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Neighbour {
    pub(crate) link: u32,
    pub(crate) address: IpAddr,
    pub(crate) mac: Mac,
}

/// An address of `lo`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LoopbackAddress {
    pub(crate) address: IpAddr,
    /// Who put it there (`IFA_PROTO`, kernel 5.18), where known.
    pub(crate) origin: Option<u8>,
}

/// Index of `lo` in every network namespace (`LOOPBACK_IFINDEX` of the kernel).
pub(crate) const LOOPBACK: u32 = 1;

/// A connection to the kernel; its work is done by a task of the current runtime.
#[derive(Debug, Clone)]
pub(crate) struct Netlink {
    handle: Handle,
}

impl Netlink {
    pub(crate) fn connect() -> std::io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    pub(crate) async fn links(&self) -> Result<Vec<Link>, rtnetlink::Error> {
        self.handle.link().get().execute().map_ok(|message| link(&message)).try_collect().await
    }

    /// `None`: there is no route.
    pub(crate) async fn route_to(&self, address: IpAddr) -> Result<Option<Route>, rtnetlink::Error> {
        let message = match address {
            IpAddr::V4(v4) => RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(v4, 32).build(),
            IpAddr::V6(v6) => RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(v6, 128).build(),
        };
        let mut routes = std::pin::pin!(self.handle.route().get(message).execute());
        let message = match routes.next().await {
            Some(Ok(message)) => message,
            // "Network is unreachable", "no route to host": an answer, not a failure.
            Some(Err(rtnetlink::Error::NetlinkError(_))) | None => return Ok(None),
            Some(Err(error)) => return Err(error),
        };
        let mut route = Route { link: 0, gateway: None, mtu: None };
        for attribute in message.attributes {
            match attribute {
                RouteAttribute::Oif(index) => route.link = index,
                RouteAttribute::Metrics(metrics) => {
                    route.mtu = metrics.iter().find_map(|metric| match metric {
                        RouteMetric::Mtu(mtu) => Some(*mtu),
                        _ => None,
                    });
                }
                RouteAttribute::Gateway(RouteAddress::Inet(v4)) | RouteAttribute::Via(RouteVia::Inet(v4)) => {
                    route.gateway = Some(v4.into());
                }
                RouteAttribute::Gateway(RouteAddress::Inet6(v6))
                | RouteAttribute::Via(RouteVia::Inet6(v6)) => {
                    route.gateway = Some(v6.into());
                }
                _ => {}
            }
        }
        Ok((route.link != 0).then_some(route))
    }

    /// The neighbours whose hardware address is known.
    pub(crate) async fn neighbours(&self) -> Result<Vec<Neighbour>, rtnetlink::Error> {
        let messages: Vec<_> = self.handle.neighbours().get().execute().try_collect().await?;
        Ok(messages
            .into_iter()
            .filter(|message| {
                !matches!(
                    message.header.state,
                    NeighbourState::Failed | NeighbourState::Incomplete | NeighbourState::None
                )
            })
            .filter_map(|message| {
                let (mut address, mut mac) = (None, None);
                for attribute in message.attributes {
                    match attribute {
                        NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                            address = Some(v4.into());
                        }
                        NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                            address = Some(v6.into());
                        }
                        NeighbourAttribute::LinkLayerAddress(bytes) => mac = ethernet(&bytes),
                        _ => {}
                    }
                }
                Some(Neighbour { link: message.header.ifindex, address: address?, mac: mac? })
            })
            .collect())
    }

    /// The link-local IPv6 address of an interface; `None`: it has none that can be used.
    pub(crate) async fn link_local(&self, link: u32) -> Result<Option<Ipv6Addr>, rtnetlink::Error> {
        let request = self.handle.address().get().set_link_index_filter(link);
        let messages: Vec<_> = request.execute().try_collect().await?;
        Ok(messages.iter().find_map(|message| {
            message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Address(IpAddr::V6(v6)) if v6.is_unicast_link_local() => Some(*v6),
                _ => None,
            })
        }))
    }

    pub(crate) async fn loopback_addresses(&self) -> Result<Vec<LoopbackAddress>, rtnetlink::Error> {
        let request = self.handle.address().get().set_link_index_filter(LOOPBACK);
        let messages: Vec<_> = request.execute().try_collect().await?;
        Ok(messages.iter().filter_map(loopback_address).collect())
    }

    /// Puts `message` (which names `lo`) into the kernel. True if it is new.
    pub(crate) async fn add_address(&self, message: AddressMessage) -> Result<bool, rtnetlink::Error> {
        let address = loopback_address(&message).map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |a| a.address);
        let mut request = self.handle.address().add(LOOPBACK, address, message.header.prefix_len);
        *request.message_mut() = message;
        match request.execute().await {
            Ok(()) => Ok(true),
            Err(rtnetlink::Error::NetlinkError(error))
                if error.raw_code() == -rustix::io::Errno::EXIST.raw_os_error() =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Sets the IPv4 setting `arp_announce` of an interface.
    pub(crate) async fn set_arp_announce(&self, link: u32, value: u32) -> Result<(), rtnetlink::Error> {
        // Of linux/if_link.h and linux/ip.h. A setting travels by its number, as an attribute inside an attribute.
        const IFLA_INET_CONF: u16 = 1;
        const IPV4_DEVCONF_ARP_ANNOUNCE: u16 = 18;
        let attribute = |kind: u16, value: &[u8]| {
            let length = 4 + value.len() as u16;
            [&length.to_ne_bytes(), &kind.to_ne_bytes(), value].concat()
        };
        let setting = attribute(IPV4_DEVCONF_ARP_ANNOUNCE, &value.to_ne_bytes());
        let conf = attribute(IFLA_INET_CONF, &setting);
        let inet = DefaultNla::new(u8::from(AddressFamily::Inet).into(), conf);
        let mut message = LinkMessage::default();
        message.header.index = link;
        message.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Other(inet)]));
        self.handle.link().set(message).execute().await
    }

    pub(crate) async fn remove_address(&self, message: AddressMessage) -> Result<(), rtnetlink::Error> {
        match self.handle.address().del(message).execute().await {
            // Somebody was quicker.
            Err(rtnetlink::Error::NetlinkError(error))
                if error.raw_code() == -rustix::io::Errno::ADDRNOTAVAIL.raw_os_error() =>
            {
                Ok(())
            }
            done => done,
        }
    }
}

/// Wakes whoever waits on it when links, routes, addresses or neighbours change.
pub(crate) struct Changes {
    messages: Box<dyn futures_util::Stream<Item = bool> + Send + Unpin>,
}

impl Changes {
    pub(crate) fn subscribe() -> std::io::Result<Self> {
        let (connection, _, messages) = rtnetlink::new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ])?;
        tokio::spawn(connection);
        let messages = messages.map(|(message, _)| is_change(&message));
        Ok(Self { messages: Box::new(messages) })
    }

    /// Returns at the next change; never, if the kernel closed the connection.
    pub(crate) async fn next(&mut self) {
        loop {
            match self.messages.next().await {
                Some(true) => return,
                Some(false) => {}
                None => std::future::pending().await,
            }
        }
    }
}

fn is_change(message: &NetlinkMessage<RouteNetlinkMessage>) -> bool {
    matches!(
        message.payload,
        NetlinkPayload::Overrun(_)
            | NetlinkPayload::InnerMessage(
                RouteNetlinkMessage::NewLink(_)
                    | RouteNetlinkMessage::DelLink(_)
                    | RouteNetlinkMessage::NewNeighbour(_)
                    | RouteNetlinkMessage::DelNeighbour(_)
                    | RouteNetlinkMessage::NewRoute(_)
                    | RouteNetlinkMessage::DelRoute(_)
            )
    )
}

fn ethernet(bytes: &[u8]) -> Option<Mac> {
    let bytes: [u8; 6] = bytes.try_into().ok()?;
    (bytes != [0; 6]).then(|| Mac::new(bytes))
}

fn link(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: None,
        is_up: message.header.flags.contains(LinkFlags::Up),
        mtu: 0,
        xdp: None,
        vlan_on: None,
    };
    let (mut lower, mut vlan) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(bytes) => link.mac = ethernet(bytes),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Xdp(xdp) => link.xdp = xdp_state(xdp),
            LinkAttribute::Link(index) => lower = Some(*index),
            LinkAttribute::LinkInfo(infos) => vlan = infos.iter().find_map(vlan_of),
            _ => {}
        }
    }
    link.vlan_on = lower.zip(vlan).map(|(link, (number, is_qinq))| Lower { link, number, is_qinq });
    link
}

/// Number of a VLAN interface, and whether its tags are 802.1ad's.
fn vlan_of(info: &LinkInfo) -> Option<(u16, bool)> {
    let LinkInfo::Data(InfoData::Vlan(attributes)) = info else { return None };
    let (mut number, mut is_qinq) = (None, false);
    for attribute in attributes {
        match attribute {
            InfoVlan::Id(id) => number = Some(*id),
            InfoVlan::Protocol(protocol) => is_qinq = *protocol == VlanProtocol::Ieee8021Ad,
            _ => {}
        }
    }
    Some((number?, is_qinq))
}

fn xdp_state(attributes: &[LinkXdp]) -> Option<XdpState> {
    let program = attributes.iter().find_map(|attribute| match attribute {
        LinkXdp::ProgId(id) if *id != 0 => Some(*id),
        _ => None,
    })?;
    let is_native =
        attributes.iter().any(|attribute| matches!(attribute, LinkXdp::Attached(XdpAttached::Driver)));
    Some(XdpState { program, is_native })
}

fn loopback_address(message: &AddressMessage) -> Option<LoopbackAddress> {
    // IFA_LOCAL where there is one (IPv4), else IFA_ADDRESS.
    let (mut local, mut plain, mut origin) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => plain = Some(*address),
            AddressAttribute::Protocol(protocol) => origin = Some(u8::from(*protocol)),
            _ => {}
        }
    }
    Some(LoopbackAddress { address: local.or(plain)?, origin })
}

/// The `IFA_PROTO` attribute with a number of our own.
pub(crate) fn origin_attribute(number: u8) -> AddressAttribute {
    AddressAttribute::Protocol(AddressProtocol::Other(number))
}
