//! The real XDP front, loaded but attached nowhere: maps filled from the same plain world that the host tests use, packets
//! through `BPF_PROG_TEST_RUN`. The kernel takes a test packet for one that came in by `lo` (interface 1).

use anyhow::{Context as _, Result, anyhow};
use aya::{
    Ebpf, EbpfLoader, Pod, TestRun as _, TestRunOptions,
    maps::{Array, HashMap, LpmTrie, MapData, PerCpuArray, PerCpuValues, ProgramArray, lpm_trie::Key},
    programs::Xdp,
    util::nr_cpus,
};
use ingress_common::{
    abi::{
        self, Config, FlowSet, Fragment, FragmentKey, Guard, Heard, NodeIndex, Peer, PeerKey, RuleKey,
        SLOT_PAGE_LEN, SLOT_PAGES, SlotPage, Source, SourceKey, Tunnel, TunnelEnd, TunnelEndKey, VipId,
        WalkBudget,
    },
    steer::{
        Reason,
        memory::{Flows, Memory},
    },
};
use ingress_tests::paths;

/// VIPs of the tables' worlds have lower numbers.
const WORLD_VIPS: u16 = 16;

type FlowWords = [u64; abi::FLOW_WAYS];

/// The loaded program.
pub(crate) struct Front {
    ebpf: Ebpf,
}

/// What a run gave back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    /// `XDP_*`.
    pub(crate) code: u32,
    pub(crate) packet: Vec<u8>,
    /// What was counted, [`Reason::NotOurs`] if nothing was.
    pub(crate) reason: Reason,
}

impl Front {
    /// Through the verifier, with empty maps.
    pub(crate) fn load() -> Result<Self> {
        Self::load_with(&mut EbpfLoader::new())
    }

    /// As [`Self::load`], with settings of the loader's.
    pub(crate) fn load_with(loader: &mut EbpfLoader<'_>) -> Result<Self> {
        let object = paths::bpf_object();
        let mut ebpf =
            loader.load_file(&object).with_context(|| format!("cannot load {}", object.display()))?;
        let program: &mut Xdp = ebpf.program_mut(abi::PROGRAM).context("no such program")?.try_into()?;
        program.load().context("the verifier says no")?;
        let program: &mut Xdp = ebpf.program_mut(abi::PROGRAM_WHY).context("no such program")?.try_into()?;
        program.load().context("the verifier says no to the question")?;
        let mut called = Vec::new();
        for name in abi::CALLED {
            let program: &mut Xdp = ebpf.program_mut(name).context("no such program")?.try_into()?;
            program.load().with_context(|| format!("the verifier says no to {name}"))?;
            called.push(program.fd()?.try_clone()?);
        }
        let mut programs: ProgramArray<_> =
            ebpf.map_mut(abi::PROGRAMS).context("no program map")?.try_into()?;
        for (number, fd) in (0..).zip(&called) {
            programs.set(number, fd, 0)?;
        }
        Ok(Self { ebpf })
    }

    /// Makes the maps say what `world` says (on top of what they say already).
    pub(crate) fn fill(&mut self, world: &Memory) -> Result<()> {
        for (key, value) in &world.vips4 {
            self.put(abi::VIPS4, key, value)?;
        }
        for (key, value) in &world.vips6 {
            self.put(abi::VIPS6, key, value)?;
        }
        for (key, value) in &world.addrs4 {
            self.put(abi::ADDRS4, key, value)?;
        }
        for (key, value) in &world.addrs6 {
            self.put(abi::ADDRS6, key, value)?;
        }
        for (mac, node) in &world.peers {
            let key = PeerKey { mac: *mac, reserved: 0 };
            self.put(abi::PEERS, &key, &Peer { node: *node, reserved: 0 })?;
        }
        for (key, value) in world.fragments.borrow().iter() {
            self.put(abi::FRAGMENTS, key, value)?;
        }
        for (addr, &node) in &world.tunnel_ends {
            self.put(abi::TUNNEL_ENDS, &TunnelEndKey(*addr), &TunnelEnd { node, reserved: 0 })?;
        }
        // Array values are there whether filled or not: also those that an earlier world has filled.
        for index in 0..world.nodes.len() as u16 {
            let tunnel = world.tunnels.get(&NodeIndex(index)).copied().unwrap_or_default();
            self.array::<Tunnel>(abi::TUNNELS)?.set(index.into(), tunnel, 0)?;
            self.array::<Heard>(abi::HEARD)?.set(index.into(), Heard::default(), 0)?;
        }
        for (number, set) in (0..).zip(world.flows.sets()) {
            self.array::<FlowWords>(abi::FLOWS)?.set(number, set.words(), 0)?;
        }
        for (index, node) in (0..).zip(&world.nodes) {
            self.array::<abi::Node>(abi::NODES)?.set(index, node, 0)?;
        }
        for (table, slots) in world.slots.iter().enumerate() {
            let mut pages = self.array::<SlotPage>(abi::SLOTS)?;
            for page_number in 0..SLOT_PAGES {
                // A shorter table of the world's is repeated; its length is a multiple of a page's.
                let start = page_number * SLOT_PAGE_LEN % slots.len();
                let page: SlotPage = slots[start..start + SLOT_PAGE_LEN].try_into()?;
                pages.set((table * SLOT_PAGES + page_number) as u32, page, 0)?;
            }
        }
        for id in 0..WORLD_VIPS {
            let guard = world.guards.get(&VipId(id)).copied().unwrap_or_default();
            self.array::<Guard>(abi::GUARDS)?.set(id.into(), guard, 0)?;
        }
        for ((bits, key), rule) in &world.rules {
            self.rules()?.insert(&Key::new(*bits, *key), rule, 0)?;
        }
        for (key, &paid_until_ns) in &*world.sources.borrow() {
            self.put(abi::SOURCES, key, &Source { paid_until_ns })?;
        }
        self.budget(abi::WALK_BUDGET, world.walk_paid_until_ns.get())?;
        self.budget(abi::ECHO_BUDGET, world.echo_paid_until_ns.get())?;
        self.array::<u64>(abi::HEARTBEAT)?.set(0, world.heartbeat_ns, 0)?;
        self.array::<Config>(abi::CONFIG)?.set(0, world.config, 0)?;
        Ok(())
    }

    /// Empties the maps that are filled key by key.
    pub(crate) fn clear(&mut self) -> Result<()> {
        self.empty::<abi::VipKey4, abi::Vip>(abi::VIPS4)?;
        self.empty::<abi::VipKey6, abi::Vip>(abi::VIPS6)?;
        self.empty::<abi::Ip4, abi::Addr>(abi::ADDRS4)?;
        self.empty::<abi::Ip6, abi::Addr>(abi::ADDRS6)?;
        self.empty::<FragmentKey, Fragment>(abi::FRAGMENTS)?;
        self.empty::<TunnelEndKey, TunnelEnd>(abi::TUNNEL_ENDS)?;
        self.empty::<PeerKey, Peer>(abi::PEERS)?;
        self.empty::<SourceKey, Source>(abi::SOURCES)?;
        let mut rules = self.rules()?;
        let keys = rules.keys().collect::<Result<Vec<_>, _>>()?;
        keys.iter().try_for_each(|key| Ok(rules.remove(key)?))
    }

    fn budget(&mut self, name: &str, paid_until_ns: u64) -> Result<()> {
        let budget = WalkBudget { paid_until_ns };
        let mut budgets: PerCpuArray<_, WalkBudget> =
            self.ebpf.map_mut(name).with_context(|| format!("no map {name}"))?.try_into()?;
        let cpus = nr_cpus().map_err(|(_, error)| error)?;
        Ok(budgets.set(0, PerCpuValues::try_from(vec![budget; cpus])?, 0)?)
    }

    /// What is remembered of packets in pieces.
    pub(crate) fn fragments(&mut self) -> Result<Vec<Fragment>> {
        let map = self.hash::<FragmentKey, Fragment>(abi::FRAGMENTS)?;
        map.iter().map(|entry| Ok(entry?.1)).collect()
    }

    /// What routers said of the tunnels to the first `nodes` nodes.
    pub(crate) fn heard(&mut self, nodes: u32) -> Result<std::collections::HashMap<NodeIndex, Option<u16>>> {
        let (tunnels, mut all) =
            (self.array::<Tunnel>(abi::TUNNELS)?.iter().collect::<Result<Vec<_>, _>>()?, vec![]);
        let map = self.array::<Heard>(abi::HEARD)?;
        for index in 0..nodes {
            let heard = map.get(&index, 0)?;
            let mtu = u16::try_from(heard.mtu)?;
            if heard == Heard::default() {
                continue;
            }
            anyhow::ensure!((heard.mtu == 0) == (heard.too_big_ns == 0), "no time of {heard:?}");
            let known = tunnels.get(index as usize).map_or(0, |tunnel| tunnel.mtu);
            anyhow::ensure!(mtu == 0 || known <= mtu, "the tunnel's MTU is still {known}");
            all.push((NodeIndex(index as u16), (mtu != 0).then_some(mtu)));
        }
        Ok(all.into_iter().collect())
    }

    fn empty<K: Pod, V: Pod>(&mut self, name: &str) -> Result<()> {
        let mut map = self.hash::<K, V>(name)?;
        let keys = map.keys().collect::<Result<Vec<_>, _>>()?;
        keys.iter().try_for_each(|key| Ok(map.remove(key)?))
    }

    /// The first `sets` of the flow table.
    pub(crate) fn flows(&mut self, sets: usize) -> Result<Flows> {
        let map = self.array::<FlowWords>(abi::FLOWS)?;
        (0..sets).map(|number| Ok(FlowSet::from_words(map.get(&(number as u32), 0)?))).collect()
    }

    /// Sends one packet through.
    pub(crate) fn run(&mut self, packet: &[u8]) -> Result<Ran> {
        let before = self.reasons()?;
        let mut out = vec![0; packet.len() + 256];
        let result = self.test_run(TestRunOptions {
            data_in: Some(packet),
            data_out: Some(&mut out),
            ..TestRunOptions::default()
        })?;
        out.truncate(result.data_size_out as usize);
        let after = self.reasons()?;
        let counted = Reason::ALL.into_iter().zip(before.into_iter().zip(after));
        let reason = counted
            .into_iter()
            .find(|(_, (before, after))| before != after)
            .map_or(Reason::NotOurs, |(reason, _)| reason);
        Ok(Ran { code: result.return_value, packet: out, reason })
    }

    /// `BPF_PROG_TEST_RUN` as it is.
    fn test_run(&self, options: TestRunOptions<'_>) -> Result<aya::TestRunResult> {
        Ok(self.program()?.test_run(options)?)
    }

    /// The program, loaded.
    pub(crate) fn program(&self) -> Result<&Xdp> {
        Ok(self.ebpf.program(abi::PROGRAM).context("no such program")?.try_into()?)
    }

    /// Instructions that the verifier walked through.
    pub(crate) fn verified_instructions(&self) -> Result<u32> {
        self.verified_instructions_of(abi::PROGRAM)
    }

    /// The same for any program of the object.
    pub(crate) fn verified_instructions_of(&self, name: &str) -> Result<u32> {
        let program: &Xdp = self.ebpf.program(name).context("no such program")?.try_into()?;
        program.info()?.verified_instruction_count().context("this kernel does not tell")
    }

    /// A hash map of the program, to look at.
    pub(crate) fn hash<K: Pod, V: Pod>(&mut self, name: &str) -> Result<HashMap<&mut MapData, K, V>> {
        Ok(self.ebpf.map_mut(name).ok_or_else(|| anyhow!("no map {name}"))?.try_into()?)
    }

    fn put<K: Pod, V: Pod>(&mut self, name: &str, key: &K, value: &V) -> Result<()> {
        Ok(self.hash::<K, V>(name)?.insert(key, value, 0)?)
    }

    fn rules(&mut self) -> Result<LpmTrie<&mut MapData, RuleKey, u32>> {
        Ok(self.ebpf.map_mut(abi::RULES).context("no rules")?.try_into()?)
    }

    fn array<V: Pod>(&mut self, name: &str) -> Result<Array<&mut MapData, V>> {
        Ok(self.ebpf.map_mut(name).ok_or_else(|| anyhow!("no map {name}"))?.try_into()?)
    }

    /// Packets by reason, summed over the CPUs.
    fn reasons(&self) -> Result<Vec<u64>> {
        let map: PerCpuArray<_, u64> = self.ebpf.map(abi::COUNTERS).context("no counters")?.try_into()?;
        Reason::ALL.into_iter().map(|reason| Ok(map.get(&reason.index(), 0)?.iter().sum())).collect()
    }
}
