//! Brings the XDP program onto the uplinks: adopts pinned maps, or makes new ones; replaces the program of pinned
//! links, so that not a packet is lost, or attaches it anew. Called once by `L4::start`; after it, program, links and
//! maps live in the kernel without us. It never reads maps of another ABI version: those are made anew, and the program
//! on the uplinks stays the old one, with its old maps, until the new ones are filled (`takeover`).

mod attach;
mod bpffs;
mod error;
mod takeover;

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use aya::maps::{Array, HashMap, Map, MapData, MapInfo, ProgramArray};
use aya::programs::{ProgramError, Xdp};
use aya::{Ebpf, EbpfLoader};
use ingress_common::abi::{self, ABI_VERSION, Addr, Config as ConfigValue, Ip4, Ip6};
use tracing::{info, warn};

use super::maps::{self, Counters, Heartbeat, Maps};
use super::netlink::{Link, Netlink};
pub use attach::{Attachment, Mode};
pub use error::StartError;
use error::chain;
pub(crate) use takeover::Takeover;

/// `bpf_link` for XDP came with 5.9, the socket look-ups that XDP programs may do with 5.8 or before; 5.10 is the
/// oldest long-term kernel that has all of it.
const MIN_KERNEL: (u32, u32) = (5, 10);
const MIN_KERNEL_TEXT: &str = "5.10";

/// The BPF object; empty when the build had none (see `build.rs`).
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/xdp-ingress.bpf.o"));

/// How to load.
#[derive(Debug, Clone)]
pub(crate) struct Options<'a> {
    pub(crate) interfaces: &'a [String],
    pub(crate) mode: Mode,
    pub(crate) pin_path: &'a Path,
    pub(crate) max_flows: u32,
    pub(crate) log: bool,
}

/// What was loaded.
pub(crate) struct Loaded {
    pub(crate) maps: Maps,
    pub(crate) counters: Counters,
    pub(crate) heartbeat: Heartbeat,
    pub(crate) attachments: Vec<Attachment>,
    /// The maps were there before, with what an earlier daemon wrote.
    pub(crate) is_adopted: bool,
    /// The rest of the object: the log buffer is taken from it.
    pub(crate) ebpf: Ebpf,
    /// Interfaces on which an earlier daemon's program still runs with maps that are not these. See
    /// [`Takeover`].
    pub(crate) waiting: Vec<attach::Waiting>,
}

/// Loads and attaches, or says in one sentence why not and leaves nothing new behind.
pub(crate) async fn load(options: &Options<'_>, netlink: &Netlink) -> Result<Loaded, StartError> {
    if OBJECT.is_empty() {
        return Err(StartError::NoPrograms);
    }
    check_kernel()?;
    let links = find_links(options.interfaces, netlink).await?;
    bpffs::prepare(options.pin_path)?;
    let was_there = !pins(options.pin_path)?.is_empty();
    let result = match load_object(options) {
        Ok((mut ebpf, is_adopted)) => {
            match attach_all(options, &mut ebpf, &links, is_adopted, netlink).await {
                Ok((attachments, waiting)) => finish(ebpf, attachments, waiting, is_adopted),
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(error),
    };
    if result.is_err()
        && !was_there
        && let Err(error) = bpffs::remove_all(options.pin_path)
    {
        warn!(path = %options.pin_path.display(), %error, "cannot clean up after the failed start");
    }
    result
}

/// The VIPs in pinned maps of our version.
pub(crate) fn pinned_vips(pin_path: &Path) -> BTreeSet<IpAddr> {
    fn keys<K: aya::Pod>(path: &Path, name: &str) -> Vec<K> {
        let map = MapData::from_pin(path.join(name)).ok().and_then(|data| Map::from_map_data(data).ok());
        let map: Option<HashMap<MapData, K, Addr>> = map.and_then(|map| map.try_into().ok());
        map.map(|map| map.keys().flatten().collect()).unwrap_or_default()
    }
    if pinned_version(&pin_path.join(abi::CONFIG)) != Some(ABI_VERSION) {
        return BTreeSet::new();
    }
    let v4 = keys::<Ip4>(pin_path, abi::ADDRS4).into_iter().map(|key| IpAddr::V4(key.into()));
    let v6 = keys::<Ip6>(pin_path, abi::ADDRS6).into_iter().map(|key| IpAddr::V6(key.into()));
    v4.chain(v6).collect()
}

/// Detaches the program everywhere and removes all pins under `pin_path`.
pub(crate) fn unload(pin_path: &Path) -> io::Result<()> {
    bpffs::remove_all(pin_path)
}

fn finish(
    mut ebpf: Ebpf,
    attachments: Vec<Attachment>,
    waiting: Vec<attach::Waiting>,
    is_adopted: bool,
) -> Result<Loaded, StartError> {
    let (maps, counters, heartbeat) =
        maps::take(&mut ebpf).map_err(|error| StartError::Rejected(chain(&error)))?;
    Ok(Loaded { maps, counters, heartbeat, attachments, is_adopted, ebpf, waiting })
}

fn check_kernel() -> Result<(), StartError> {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    match kernel_version(&release) {
        Some(version) if version < MIN_KERNEL => {
            Err(StartError::KernelTooOld { found: release.into_owned(), needed: MIN_KERNEL_TEXT })
        }
        _ => Ok(()),
    }
}

/// `6.18.4-generic` → (6, 18).
fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The configured interfaces, in that order.
async fn find_links(interfaces: &[String], netlink: &Netlink) -> Result<Vec<Link>, StartError> {
    if interfaces.is_empty() {
        return Err(StartError::NoInterface);
    }
    if interfaces.len() > abi::MAX_UPLINKS {
        return Err(StartError::TooManyInterfaces(interfaces.len()));
    }
    let links = netlink.links().await.map_err(|error| StartError::Netlink(error.to_string()))?;
    interfaces
        .iter()
        .map(|name| {
            let link =
                links.iter().find(|link| link.name == *name).ok_or_else(|| StartError::UnknownInterface {
                    name: name.clone(),
                    present: links.iter().map(|link| link.name.as_str()).collect::<Vec<_>>().join(", "),
                })?;
            link.mac.ok_or_else(|| StartError::NotEthernet(name.clone()))?;
            Ok(link.clone())
        })
        .collect()
}

fn pins(pin_path: &Path) -> Result<Vec<String>, StartError> {
    bpffs::pinned(pin_path)
        .map_err(|error| StartError::System { action: "read the pin directory", error: error.to_string() })
}

/// Sets of the flow table that have room for so many flows: a power of two, as `Config::flow_sets` says.
pub(crate) const fn flow_sets(max_flows: u32) -> u32 {
    let sets = max_flows / abi::FLOW_WAYS as u32;
    if sets > MAX_FLOW_SETS { MAX_FLOW_SETS } else { sets.next_power_of_two() }
}

/// 16 GiB: more than that is a mistake.
const MAX_FLOW_SETS: u32 = 1 << 28;

/// What to do with a pinned map.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Adopt,
    Replace,
}

/// Whether a map with these sizes is the one that we know.
fn judge(known: (usize, usize, u32), found: (u32, u32, u32)) -> Verdict {
    let (key, value, entries) = known;
    let is_same =
        found.0 as usize == key && found.1 as usize == value && (entries == 0 || found.2 == entries);
    if is_same { Verdict::Adopt } else { Verdict::Replace }
}

/// Removes the pins of maps that must not be adopted. True if what remains holds an earlier daemon's state.
fn sort_out_pinned_maps(options: &Options<'_>) -> Result<bool, StartError> {
    let path = options.pin_path;
    let unpin = |name: &str| {
        bpffs::unpin(path, name).map_err(|error| StartError::System {
            action: "remove an outdated pinned map",
            error: error.to_string(),
        })
    };
    let pinned = pins(path)?;
    let is_pinned = |name: &str| pinned.iter().any(|pin| pin == name);
    if !maps::LAYOUT.iter().any(|(name, ..)| is_pinned(name)) {
        return Ok(false);
    }
    let version = pinned_version(&path.join(abi::CONFIG));
    // A daemon that ended in the middle of a takeover left maps that no packet uses yet, filled or not.
    let mut is_ours = version == Some(ABI_VERSION) && !bpffs::is_rebuilding(path);
    for &(name, key, value, entries) in maps::LAYOUT {
        let is_cache = name == abi::FLOWS;
        let entries = if is_cache { flow_sets(options.max_flows) } else { entries };
        let found =
            MapInfo::from_pin(path.join(name)).ok().map(|i| (i.key_size(), i.value_size(), i.max_entries()));
        let verdict = found.map_or(Verdict::Replace, |found| judge((key, value, entries), found));
        if verdict == Verdict::Replace {
            if is_cache {
                unpin(name)?;
            } else {
                is_ours = false;
            }
        }
    }
    if !is_ours {
        info!(?version, ours = ABI_VERSION, "the pinned maps are another version's: making new ones");
        bpffs::begin_rebuilding(path).map_err(|error| StartError::System {
            action: "mark the pinned maps as being made anew",
            error: error.to_string(),
        })?;
        for (name, ..) in maps::LAYOUT {
            unpin(name)?;
        }
    }
    Ok(is_ours)
}

/// The ABI version in a pinned `CONFIG`; `None` if it is none of ours or was never written.
fn pinned_version(path: &Path) -> Option<u32> {
    let info = MapInfo::from_pin(path).ok()?;
    if judge(
        (size_of::<u32>(), size_of::<ConfigValue>(), 1),
        (info.key_size(), info.value_size(), info.max_entries()),
    ) == Verdict::Replace
    {
        return None;
    }
    let map = Map::from_map_data(MapData::from_pin(path).ok()?).ok()?;
    let config: Array<MapData, ConfigValue> = map.try_into().ok()?;
    config.get(&0, 0).ok().map(|value| value.abi_version)
}

fn load_object(options: &Options<'_>) -> Result<(Ebpf, bool), StartError> {
    let is_adopted = sort_out_pinned_maps(options)?;
    let mut loader = EbpfLoader::new();
    for (name, ..) in maps::LAYOUT {
        loader.map_pin_path(name, options.pin_path.join(name));
    }
    let log = u8::from(options.log);
    loader.map_max_entries(abi::FLOWS, flow_sets(options.max_flows)).override_global(
        abi::GLOBAL_LOG,
        &log,
        true,
    );
    let mut ebpf =
        loader.load(OBJECT).map_err(|error| StartError::from_aya("create the BPF maps", &error))?;
    load_called(&mut ebpf)?;
    xdp(&mut ebpf)?.load().map_err(|error| StartError::from_aya("load the XDP program", &error))?;
    Ok((ebpf, is_adopted))
}

/// The object with the pinned maps in it, no program loaded yet: for a question about the front, while it runs.
pub(crate) fn open_question(pin_path: &Path) -> Result<Ebpf, StartError> {
    let mut loader = EbpfLoader::new();
    for (name, ..) in maps::LAYOUT {
        loader.map_pin_path(name, pin_path.join(name));
    }
    loader.load(OBJECT).map_err(|error| StartError::from_aya("open the BPF maps", &error))
}

/// The programs that the front calls go into their map first: with adopted maps, the front of an earlier daemon calls these
/// from now on, and its decisions and theirs are of the same ABI version.
fn load_called(ebpf: &mut Ebpf) -> Result<(), StartError> {
    let missing = || StartError::Rejected("the BPF object is not complete".to_owned());
    let rejected = |error: ProgramError| StartError::from_aya("load an XDP program", &error);
    let mut called = Vec::new();
    for name in abi::CALLED {
        let program: &mut Xdp =
            ebpf.program_mut(name).and_then(|program| program.try_into().ok()).ok_or_else(missing)?;
        program.load().map_err(rejected)?;
        called.push(program.fd().and_then(|fd| Ok(fd.try_clone()?)).map_err(rejected)?);
    }
    // The map stays with `ebpf`: the front, which is loaded next, refers to it by its descriptor.
    let mut map: ProgramArray<&mut MapData> =
        ebpf.map_mut(abi::PROGRAMS).and_then(|map| map.try_into().ok()).ok_or_else(missing)?;
    for (number, fd) in (0..).zip(&called) {
        map.set(number, fd, 0).map_err(|error| StartError::from_aya("fill the program map", &error))?;
    }
    Ok(())
}

fn xdp(ebpf: &mut Ebpf) -> Result<&mut Xdp, StartError> {
    ebpf.program_mut(abi::PROGRAM)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| StartError::Rejected(format!("the BPF object has no XDP program `{}`", abi::PROGRAM)))
}

async fn attach_all(
    options: &Options<'_>,
    ebpf: &mut Ebpf,
    links: &[Link],
    is_adopted: bool,
    netlink: &Netlink,
) -> Result<(Vec<Attachment>, Vec<attach::Waiting>), StartError> {
    let program = xdp(ebpf)?;
    let mut attachments: Vec<Attachment> = Vec::new();
    let mut waiting = Vec::new();
    for link in links {
        match attach::attach(program, link, options, is_adopted, netlink).await {
            Ok((attachment, wait)) => {
                attachments.push(attachment);
                waiting.extend(wait);
            }
            Err(error) => {
                for attachment in attachments.iter().filter(|a| !a.is_adopted) {
                    let _ = bpffs::unpin(options.pin_path, attach::pin_name(&attachment.interface));
                }
                return Err(error);
            }
        }
    }
    // Interfaces that are not configured any more.
    for pin in pins(options.pin_path)?.iter().filter(|pin| pin.starts_with(attach::PIN_PREFIX)) {
        if !options.interfaces.iter().any(|name| attach::pin_name(name) == *pin) {
            info!(pin, "detaching from an interface that is not configured any more");
            if let Err(error) = bpffs::unpin(options.pin_path, pin) {
                warn!(pin, %error, "cannot detach");
            }
        }
    }
    if waiting.is_empty() {
        bpffs::end_rebuilding(options.pin_path).map_err(|error| StartError::System {
            action: "tidy up the pin directory",
            error: error.to_string(),
        })?;
    }
    Ok((attachments, waiting))
}

#[cfg(test)]
mod tests {
    use super::{Verdict, judge, kernel_version};

    #[test]
    fn kernel_versions() {
        assert_eq!(kernel_version("6.18.44-fc-v657"), Some((6, 18)));
        assert_eq!(kernel_version("5.4.0"), Some((5, 4)));
        assert_eq!(kernel_version("5.10-rc1"), Some((5, 10)));
        assert_eq!(kernel_version("weird"), None);
    }

    #[test]
    fn only_maps_of_the_same_shape_are_adopted() {
        assert_eq!(judge((4, 8, 16), (4, 8, 16)), Verdict::Adopt);
        assert_eq!(judge((4, 8, 0), (4, 8, 99)), Verdict::Adopt);
        for other in [(8, 8, 16), (4, 4, 16), (4, 8, 32)] {
            assert_eq!(judge((4, 8, 16), other), Verdict::Replace, "{other:?}");
        }
    }
}
