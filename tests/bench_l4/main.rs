//! `cargo xtask bench l4`: nanoseconds per packet of the real XDP program, in units of a reference program measured in the same
//! run. Prints rows as JSON on stdout, `{name, ours, reference, unit, target}`; xtask makes the table.
//!
//! Each figure is the time per run inside the restoring wrapper minus the same wrapper around `return XDP_TX` (see
//! `ingress-ebpf/src/bench.rs`); rounds are interleaved and the median is taken.

#[path = "../kernel/front.rs"]
#[expect(dead_code, reason = "the kernel tests use the rest")]
mod front;
mod table;

use std::fs;

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, TestRun as _, TestRunOptions,
    maps::{Array, ProgramArray},
    programs::Xdp,
};
use ingress_common::{
    abi::{self, Be16, Ip4, VipId, VipKey4},
    steer::memory::Memory,
};
use ingress_tests::{
    packets::{
        self, PORT,
        build::{ACK, SYN, Segment, v4, v6},
    },
    paths,
};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::{Value, json};

use front::Front;

const ROUNDS: usize = 15;
const RUNS: u32 = 200_000;
/// More flows than the flow table holds: each one is new.
const NEW_FLOWS: u64 = 1 << 22;
const MANY_FLOWS: u64 = 100_000;

fn main() -> Result<()> {
    if std::env::args().any(|argument| argument == "--list" || argument == "--test") {
        return Ok(());
    }
    // One CPU: counters, LRU lists and caches are per CPU.
    let mut cpu = CpuSet::new();
    cpu.set(0);
    sched_setaffinity(None, &cpu).context("cannot stay on one CPU")?;

    let mut bench = Bench::load(&packets::world())?;
    let unit = bench.unit()?;
    eprintln!("reference program: {unit:.1} ns per packet, on a kernel that {}", jit());
    let mut rows = Vec::new();
    let mut row = |name: &str, ns: f64, target: f64| {
        eprintln!("{name}: {ns:.1} ns");
        rows.push(
            json!({"name": name, "ours": ns, "reference": unit, "unit": "ns per packet", "target": target}),
        );
    };
    bench.remember(1)?;
    let hit = bench.net(&v4(ACK), 1)?;
    row("flow hit, forwarded, IPv4", hit, 3.2);
    row("flow hit, forwarded, IPv6", bench.net(&v6(ACK), 1)?, 3.2);
    row("not a VIP", bench.net(&v4(ACK).with(|segment| segment.dst_port = PORT + 1), 1)?, 1.25);
    row("new flow (SYN)", bench.net(&v4(SYN), NEW_FLOWS)?, 20.0);
    row("unknown flow, learnt", bench.net(&v4(ACK), NEW_FLOWS)?, 33.0);
    let mut bench = Bench::load(&packets::world())?;
    bench.remember(MANY_FLOWS)?;
    row("100,000 flows in rotation", bench.net(&v4(ACK), MANY_FLOWS)?, 8.8);

    let mut bench = Bench::load(&crowded())?;
    bench.remember(1)?;
    let (crowded, single) = bench.net_beside(&mut Bench::load(&packets::world())?)?;
    rows.push(json!({
        "name": "flow hit with 1,000 VIPs and 100 nodes, beside 1 VIP", "ours": crowded, "reference": single,
        "unit": "ns per packet", "target": 1.1,
    }));
    rows.push(table::row());
    println!("{}", Value::from(rows));
    Ok(())
}

/// Says how programs run: compiled or interpreted makes all the difference.
fn jit() -> &'static str {
    match fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").as_deref().map(str::trim) {
        Ok("0") => "interprets BPF (bpf_jit_enable is 0)",
        _ => "compiles BPF",
    }
}

/// The usual world with many VIPs and nodes around it.
fn crowded() -> Memory {
    let mut world = packets::world();
    let vip = world.vips4.values().next().copied().unwrap_or_default();
    for number in 0..1000 {
        let key = VipKey4 { addr: Ip4::new(0x0a00_0000 + number), port: Be16::new(443), proto: 6 };
        world.vips4.insert(key, abi::Vip { id: VipId(number as u16 + 10), ..vip });
    }
    for place in 5..100 {
        world.nodes[place] = world.nodes[0];
    }
    world
}

/// The program under test and what runs around it.
struct Bench {
    front: Front,
    around: Ebpf,
}

impl Bench {
    fn load(world: &Memory) -> Result<Self> {
        let mut world = world.clone();
        world.config.flow_sets = abi::DEFAULT_MAX_FLOWS / abi::FLOW_WAYS as u32;
        let mut front = Front::load()?;
        front.fill(&world)?;
        let object = paths::bpf_bench_object();
        let mut around =
            Ebpf::load_file(&object).with_context(|| format!("cannot load {}", object.display()))?;
        for name in ["reference", "transmit", "restore"] {
            let program: &mut Xdp = around.program_mut(name).context("no such program")?.try_into()?;
            program.load().with_context(|| format!("the verifier refuses {name}"))?;
        }
        Ok(Self { front, around })
    }

    /// Nanoseconds per run of the reference program.
    fn unit(&mut self) -> Result<f64> {
        let packet = v4(ACK).bytes();
        let times = (0..ROUNDS).map(|_| self.time("reference", &packet)).collect::<Result<Vec<_>>>()?;
        Ok(median(times))
    }

    /// Sends a packet of each flow, of either IP version, so that the flow table knows them.
    fn remember(&mut self, flows: u64) -> Result<()> {
        for segment in [v4(ACK), v6(ACK)] {
            self.plan(&segment, flows)?;
            self.put_under_test(true)?;
            self.run("restore", &segment.bytes(), flows as u32)?;
        }
        Ok(())
    }

    /// Nanoseconds per packet that the program costs over `return XDP_TX`.
    fn net(&mut self, segment: &Segment, flows: u64) -> Result<f64> {
        let packet = segment.bytes();
        let (mut wrapped, mut bare) = (Vec::new(), Vec::new());
        self.plan(segment, flows)?;
        for _ in 0..ROUNDS {
            self.put_under_test(false)?;
            bare.push(self.time("restore", &packet)?);
            self.put_under_test(true)?;
            wrapped.push(self.time("restore", &packet)?);
        }
        Ok(median(wrapped) - median(bare))
    }

    /// The same flow hit here and in another world, rounds interleaved.
    fn net_beside(&mut self, other: &mut Self) -> Result<(f64, f64)> {
        other.remember(1)?;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            ours.push(self.net(&v4(ACK), 1)?);
            theirs.push(other.net(&v4(ACK), 1)?);
        }
        Ok((median(ours), median(theirs)))
    }

    fn plan(&mut self, segment: &Segment, flows: u64) -> Result<()> {
        let packet = segment.bytes();
        let mut plan = [0_u64; 12];
        for (word, bytes) in plan.iter_mut().zip(packet[..56].chunks_exact(8)) {
            *word = u64::from_ne_bytes(bytes.try_into()?);
        }
        plan[8] = if packet[12] == 8 { 4 } else { 6 };
        plan[9] = flows;
        let mut map: Array<_, [u64; 12]> = self.around.map_mut("PLAN").context("no PLAN")?.try_into()?;
        Ok(map.set(0, plan, 0)?)
    }

    /// What `restore` calls: the real program, or `return XDP_TX`.
    fn put_under_test(&mut self, real: bool) -> Result<()> {
        let transmit: &Xdp = self.around.program("transmit").context("no such program")?.try_into()?;
        let fd = if real { self.front.program()?.fd()?.try_clone()? } else { transmit.fd()?.try_clone()? };
        let mut map: ProgramArray<_> =
            self.around.map_mut("UNDER_TEST").context("no UNDER_TEST")?.try_into()?;
        Ok(map.set(0, &fd, 0)?)
    }

    fn time(&mut self, program: &str, packet: &[u8]) -> Result<f64> {
        self.run(program, packet, RUNS)
    }

    /// Nanoseconds per run.
    fn run(&mut self, program: &str, packet: &[u8], runs: u32) -> Result<f64> {
        const XDP_PASS: u32 = 2;
        const XDP_TX: u32 = 3;
        let program: &Xdp = self.around.program(program).context("no such program")?.try_into()?;
        let result = program.test_run(TestRunOptions {
            data_in: Some(packet),
            repeat: runs,
            ..TestRunOptions::default()
        })?;
        ensure!(
            matches!(result.return_value, XDP_PASS | XDP_TX),
            "the program under test returned {}",
            result.return_value
        );
        // The kernel's own figure, which leaves out the time in which others had the CPU, in whole nanoseconds rounded down.
        Ok(result.duration.as_nanos() as f64 + 0.5)
    }
}

fn median(times: impl IntoIterator<Item = f64>) -> f64 {
    let mut times: Vec<_> = times.into_iter().collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
