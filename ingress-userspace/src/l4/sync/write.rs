//! Brings a `Desired` into the maps: only what changed, in an order in which no packet sees a half. Slots are built
//! into the table that is not in use, then `CONFIG` switches. Remembers what it wrote; the maps are the truth only
//! once, when they are adopted.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use aya::Pod;
use aya::maps::lpm_trie::Key;
use aya::maps::{HashMap, MapData, MapError};
use ingress_common::abi::{
    Addr, Config, Guard, Heard, Ip4, Ip6, Node, NodeIndex, Peer, PeerKey, RuleKey, SLOT_PAGE_LEN, SLOTS_LEN,
    Slot, SlotPage, Tunnel, TunnelEnd, TunnelEndKey, Vip, VipId, VipKey4, VipKey6,
};
use ingress_common::rank::{Candidate, build_table};

use super::{Desired, Places};
use crate::l4::maps::{self, Maps};

/// A packet may still use a table this long after the switch.
const GRACE: Duration = Duration::from_millis(1);

/// What is in the maps.
#[derive(Default)]
struct Written {
    config: Option<Config>,
    nodes: BTreeMap<NodeIndex, Node>,
    peers: BTreeMap<PeerKey, Peer>,
    tunnels: BTreeMap<NodeIndex, Tunnel>,
    tunnel_ends: BTreeMap<TunnelEndKey, TunnelEnd>,
    vips4: BTreeMap<VipKey4, Vip>,
    vips6: BTreeMap<VipKey6, Vip>,
    addrs4: BTreeMap<Ip4, Addr>,
    addrs6: BTreeMap<Ip6, Addr>,
    guards: BTreeMap<VipId, Guard>,
    rules: BTreeMap<(u32, RuleKey), u32>,
    /// The two tables, as far as we know them.
    tables: [Option<Vec<Slot>>; 2],
    /// What the table in use was built from.
    candidates: Option<Vec<Candidate>>,
    switched: Option<Instant>,
}

/// The maps, and what is in them.
pub(crate) struct Writer {
    maps: Maps,
    written: Written,
}

impl Writer {
    /// Takes the maps as they are: empty, or an earlier daemon's, whose numbers go into `places`.
    pub(crate) fn adopt(maps: Maps, places: &mut Places) -> Result<Self, MapError> {
        let mut written = Written {
            config: Some(maps.config.get(&0, 0)?),
            nodes: maps::nodes(&maps.nodes)?,
            peers: maps::entries(&maps.peers)?,
            tunnel_ends: maps::entries(&maps.tunnel_ends)?,
            vips4: maps::entries(&maps.vips4)?,
            vips6: maps::entries(&maps.vips6)?,
            addrs4: maps::entries(&maps.addrs4)?,
            addrs6: maps::entries(&maps.addrs6)?,
            rules: maps::rules(&maps.rules)?,
            ..Written::default()
        };
        places.nodes.restore(
            written
                .nodes
                .iter()
                .map(|(index, node)| (u64::from(node.key[1]) << 32 | u64::from(node.key[0]), index.0)),
        );
        let sockets4 = written
            .vips4
            .iter()
            .map(|(key, vip)| (SocketAddr::from((Ipv4Addr::from(key.addr), key.port.get())), vip.id.0));
        let sockets6 = written
            .vips6
            .iter()
            .map(|(key, vip)| (SocketAddr::from((Ipv6Addr::from(key.addr), key.port.get())), vip.id.0));
        places.vips.restore(sockets4.chain(sockets6));
        // Which of the two tables an interrupted daemon was writing to is in CONFIG; their content is written anew.
        written.candidates = None;
        Ok(Self { maps, written })
    }

    /// What routers said of the tunnels in the maps, an earlier daemon's too, by the node at the other end. Those that cannot be
    /// read are left out.
    pub(crate) fn heard(&self) -> BTreeMap<NodeIndex, Heard> {
        let heard = |index: &NodeIndex| Some((*index, self.maps.heard.get(&index.0.into(), 0).ok()?));
        let tunnels = self.written.nodes.iter().filter(|(_, node)| node.flags & Node::GUE != 0);
        tunnels.map(|(index, _)| index).filter_map(heard).collect()
    }

    /// Whether [`Writer::write_before_addresses`] needs a new table for `desired`.
    pub(crate) fn needs_table(&self, desired: &Desired) -> bool {
        self.written.candidates.as_ref() != Some(&desired.candidates)
    }

    /// The first thing to do when a node died: nothing goes there any more, whatever the slots say.
    pub(crate) fn write_nodes(&mut self, desired: &Desired) -> Result<(), MapError> {
        // Before the node that is reached through it. One that is not needed any more stays; nobody asks for it.
        for (index, tunnel) in &desired.tunnels {
            if self.written.tunnels.get(index) != Some(tunnel) {
                self.maps.tunnels.set(index.0.into(), tunnel, 0)?;
                self.written.tunnels.insert(*index, *tunnel);
            }
        }
        for (index, node) in &desired.nodes {
            if self.written.nodes.get(index) != Some(node) {
                self.maps.nodes.set(index.0.into(), node, 0)?;
                self.written.nodes.insert(*index, *node);
            }
        }
        Ok(())
    }

    /// Everything that must be in place before the kernel owns a new VIP: in particular that its questions for
    /// hardware addresses are answered or dropped by the program. `table`: what [`build`] made, if it was needed.
    pub(crate) fn write_before_addresses(
        &mut self,
        desired: &Desired,
        table: Option<Vec<Slot>>,
    ) -> Result<(), MapError> {
        self.write_nodes(desired)?;
        insert(&mut self.maps.peers, &mut self.written.peers, &desired.peers)?;
        insert(&mut self.maps.tunnel_ends, &mut self.written.tunnel_ends, &desired.tunnel_ends)?;
        let mut config = desired.config;
        config.active_slots = self.written.config.map_or(0, |config| config.active_slots & 1);
        if let Some(table) = table {
            config.active_slots ^= 1;
            self.write_table(config.active_slots as usize, table)?;
        }
        insert(&mut self.maps.addrs4, &mut self.written.addrs4, &desired.addrs4)?;
        insert(&mut self.maps.addrs6, &mut self.written.addrs6, &desired.addrs6)?;
        // Before the VIPs whose flags refer to them. Guards that are not needed any more stay; nobody asks for them.
        for (id, guard) in &desired.guards {
            if self.written.guards.get(id) != Some(guard) {
                self.maps.guards.set(id.0.into(), guard, 0)?;
                self.written.guards.insert(*id, *guard);
            }
        }
        for (&(bits, key), rule) in &desired.rules {
            if self.written.rules.get(&(bits, key)) != Some(rule) {
                self.maps.rules.insert(&Key::new(bits, key), rule, 0)?;
                self.written.rules.insert((bits, key), *rule);
            }
        }
        if self.written.config != Some(config) {
            self.maps.config.set(0, config, 0)?;
            self.written.config = Some(config);
            self.written.switched = Some(Instant::now());
        }
        self.written.candidates = Some(desired.candidates.clone());
        remove(&mut self.maps.vips4, &mut self.written.vips4, &desired.vips4)?;
        remove(&mut self.maps.vips6, &mut self.written.vips6, &desired.vips6)
    }

    /// The rest, when `lo` carries the VIPs.
    pub(crate) fn write_after_addresses(&mut self, desired: &Desired) -> Result<(), MapError> {
        insert(&mut self.maps.vips4, &mut self.written.vips4, &desired.vips4)?;
        insert(&mut self.maps.vips6, &mut self.written.vips6, &desired.vips6)?;
        self.remove_rules(desired)?;
        remove(&mut self.maps.addrs4, &mut self.written.addrs4, &desired.addrs4)?;
        remove(&mut self.maps.addrs6, &mut self.written.addrs6, &desired.addrs6)?;
        remove(&mut self.maps.peers, &mut self.written.peers, &desired.peers)?;
        remove(&mut self.maps.tunnel_ends, &mut self.written.tunnel_ends, &desired.tunnel_ends)?;
        let gone: Vec<NodeIndex> =
            self.written.nodes.keys().filter(|index| !desired.nodes.contains_key(index)).copied().collect();
        for index in gone {
            self.maps.nodes.set(index.0.into(), Node::default(), 0)?;
            self.written.nodes.remove(&index);
        }
        Ok(())
    }

    fn remove_rules(&mut self, desired: &Desired) -> Result<(), MapError> {
        let is_gone = |rule: &&(u32, RuleKey)| !desired.rules.contains_key(rule);
        let gone: Vec<_> = self.written.rules.keys().filter(is_gone).copied().collect();
        for (bits, key) in gone {
            match self.maps.rules.remove(&Key::new(bits, key)) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(error),
            }
            self.written.rules.remove(&(bits, key));
        }
        Ok(())
    }

    fn write_table(&mut self, number: usize, table: Vec<Slot>) -> Result<(), MapError> {
        if let Some(left) = self.written.switched.and_then(|at| GRACE.checked_sub(at.elapsed())) {
            std::thread::sleep(left);
        }
        let old = self.written.tables[number].take();
        for (page, slots) in table.chunks_exact(SLOT_PAGE_LEN).enumerate() {
            let place = page * SLOT_PAGE_LEN;
            if old.as_ref().is_some_and(|old| old[place..place + SLOT_PAGE_LEN] == *slots) {
                continue;
            }
            let Ok(slots): Result<&SlotPage, _> = slots.try_into() else { continue };
            self.maps.slots.set((number * (SLOTS_LEN / SLOT_PAGE_LEN) + page) as u32, slots, 0)?;
        }
        self.written.tables[number] = Some(table);
        Ok(())
    }
}

/// A table for these nodes with `count` candidates in each slot: some milliseconds of work per node, so do it where nothing waits.
pub(crate) fn build(candidates: &[Candidate], count: usize) -> Vec<Slot> {
    let mut table = vec![Slot::EMPTY; SLOTS_LEN];
    build_table(candidates, count, &mut table);
    table
}

fn insert<K: Pod + Ord + Hash, V: Pod + PartialEq>(
    map: &mut HashMap<MapData, K, V>,
    written: &mut BTreeMap<K, V>,
    desired: &BTreeMap<K, V>,
) -> Result<(), MapError> {
    for (key, value) in desired {
        if written.get(key) != Some(value) {
            map.insert(key, value, 0)?;
            written.insert(*key, *value);
        }
    }
    Ok(())
}

fn remove<K: Pod + Ord + Hash, V: Pod>(
    map: &mut HashMap<MapData, K, V>,
    written: &mut BTreeMap<K, V>,
    desired: &BTreeMap<K, V>,
) -> Result<(), MapError> {
    let gone: Vec<K> = written.keys().filter(|key| !desired.contains_key(key)).copied().collect();
    for key in gone {
        match map.remove(&key) {
            Ok(()) | Err(MapError::KeyNotFound) => {}
            Err(error) => return Err(error),
        }
        written.remove(&key);
    }
    Ok(())
}
