//! One interface: replace the program of its pinned link, or attach anew and pin the link. Native first; with `auto`
//! generic where the driver cannot, and the reason is kept. Called by `load`.

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::{XdpLink, XdpMode};
use aya::programs::{ProgramError, Xdp};
use rustix::io::Errno;
use tracing::{info, warn};

use super::error::{chain, errno};
use super::{Options, StartError, bpffs};
use crate::l4::netlink::{Link, Netlink, XdpState};

/// Pins of links are called this and the interface's name.
pub(super) const PIN_PREFIX: &str = "link_";

/// How the program is, or shall be, attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Native where the driver can, generic otherwise. Never the mode of an attachment.
    Auto,
    /// In the driver.
    Native,
    /// In the network core.
    Generic,
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

/// The program on one interface.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Attachment {
    /// Name of the interface.
    pub interface: String,
    /// Its index.
    pub index: u32,
    /// Native or generic.
    pub mode: Mode,
    /// Why it is not native, where it could not be.
    pub reason: Option<String>,
    /// The link was there before: no packet went without a program.
    pub is_adopted: bool,
}

pub(super) fn pin_name(interface: &str) -> String {
    format!("{PIN_PREFIX}{interface}")
}

/// A pinned link whose program is still an earlier daemon's.
pub(crate) struct Waiting {
    pub(super) interface: String,
    pub(super) link: FdLink,
}

/// Attaches `program` to `link`. `is_filled`: its maps are those that the pinned link's program works with, so that it
/// can take that one's place at once.
pub(super) async fn attach(
    program: &mut Xdp,
    link: &Link,
    options: &Options<'_>,
    is_filled: bool,
    netlink: &Netlink,
) -> Result<(Attachment, Option<Waiting>), StartError> {
    if let Some(adopted) = adopt(program, link, options, is_filled, netlink).await? {
        return Ok(adopted);
    }
    Ok((attach_anew(program, link, options, netlink).await?, None))
}

async fn attach_anew(
    program: &mut Xdp,
    link: &Link,
    options: &Options<'_>,
    netlink: &Netlink,
) -> Result<Attachment, StartError> {
    let done = |mode, reason| Attachment {
        interface: link.name.clone(),
        index: link.index,
        mode,
        reason,
        is_adopted: false,
    };
    if options.mode != Mode::Generic {
        match attach_new(program, link, XdpMode::Driver, options) {
            Ok(()) => {
                info!(interface = link.name, "XDP program attached in native mode");
                return Ok(done(Mode::Native, None));
            }
            Err(failure) => {
                let reason = verdict(failure, link, netlink).await?;
                if options.mode == Mode::Native {
                    return Err(StartError::NotNative { interface: link.name.clone(), error: reason });
                }
                warn!(
                    interface = link.name,
                    reason, "no native XDP here; using generic mode, which is slower"
                );
                attach_generic(program, link, options, netlink).await?;
                return Ok(done(Mode::Generic, Some(reason)));
            }
        }
    }
    attach_generic(program, link, options, netlink).await?;
    Ok(done(Mode::Generic, None))
}

async fn attach_generic(
    program: &mut Xdp,
    link: &Link,
    options: &Options<'_>,
    netlink: &Netlink,
) -> Result<(), StartError> {
    match attach_new(program, link, XdpMode::Skb, options) {
        Ok(()) => {
            info!(interface = link.name, "XDP program attached in generic mode");
            Ok(())
        }
        Err(failure) => {
            let error = verdict(failure, link, netlink).await?;
            Err(StartError::System { action: "attach the XDP program in generic mode", error })
        }
    }
}

/// Why attaching failed.
enum Failure {
    Attach(ProgramError),
    /// The kernel attached it without a link: nothing that could be pinned. It is detached again.
    NoLink,
    Pin(String),
}

fn attach_new(program: &mut Xdp, link: &Link, mode: XdpMode, options: &Options<'_>) -> Result<(), Failure> {
    let id = program.attach_to_if_index(link.index, mode).map_err(Failure::Attach)?;
    let owned = program.take_link(id).map_err(Failure::Attach)?;
    let link_fd = FdLink::try_from(owned).map_err(|_| Failure::NoLink)?;
    link_fd
        .pin(options.pin_path.join(pin_name(&link.name)))
        .map(drop)
        .map_err(|error| Failure::Pin(chain(&error)))
}

/// Ends the start where another mode would not help either; else says why this one did not work.
async fn verdict(failure: Failure, link: &Link, netlink: &Netlink) -> Result<String, StartError> {
    let error = match failure {
        Failure::Attach(error) => error,
        Failure::NoLink => return Ok("the kernel has no BPF links for XDP".to_owned()),
        Failure::Pin(error) => return Err(StartError::System { action: "pin the XDP link", error }),
    };
    match errno(&error) {
        Some(Errno::PERM | Errno::ACCESS) => {
            Err(StartError::NotPermitted { action: "attach the XDP program to the interface" })
        }
        Some(Errno::BUSY | Errno::EXIST) => {
            let program = current(link, netlink).await?.map_or(0, |xdp| xdp.program);
            Err(StartError::Occupied { interface: link.name.clone(), program })
        }
        _ => Ok(chain(&error)),
    }
}

async fn current(link: &Link, netlink: &Netlink) -> Result<Option<XdpState>, StartError> {
    let links = netlink.links().await.map_err(|error| StartError::Netlink(error.to_string()))?;
    Ok(links.into_iter().find(|l| l.index == link.index).and_then(|l| l.xdp))
}

/// Replaces the program of the pinned link, if there is one that still holds this interface in the right mode.
async fn adopt(
    program: &mut Xdp,
    link: &Link,
    options: &Options<'_>,
    is_filled: bool,
    netlink: &Netlink,
) -> Result<Option<(Attachment, Option<Waiting>)>, StartError> {
    let name = pin_name(&link.name);
    let Ok(pinned) = PinnedLink::from_pin(options.pin_path.join(&name)) else { return Ok(None) };
    let is_wanted = match link.xdp {
        Some(xdp) => match options.mode {
            Mode::Auto => true,
            Mode::Native => xdp.is_native,
            Mode::Generic => !xdp.is_native,
        },
        // The interface was made anew under its old name: the link holds nothing any more.
        None => false,
    };
    let adopted = |is_native| Attachment {
        interface: link.name.clone(),
        index: link.index,
        mode: if is_native { Mode::Native } else { Mode::Generic },
        reason: None,
        is_adopted: true,
    };
    if let Some(xdp) = link.xdp.filter(|_| is_wanted && !is_filled) {
        info!(interface = link.name, "the earlier daemon's program stays until the new maps are filled");
        let waiting = Waiting { interface: link.name.clone(), link: pinned.into() };
        return Ok(Some((adopted(xdp.is_native), Some(waiting))));
    }
    if is_wanted && replace(program, pinned.into()) {
        let ours = program.info().map(|info| info.id()).ok();
        if let Some(xdp) = current(link, netlink).await?
            && Some(xdp.program) == ours
        {
            info!(interface = link.name, "XDP program replaced through its pinned link");
            return Ok(Some((adopted(xdp.is_native), None)));
        }
    }
    info!(interface = link.name, "the pinned link is not usable: attaching anew");
    bpffs::unpin(options.pin_path, &name).map_err(|error| StartError::System {
        action: "remove an outdated pinned link",
        error: error.to_string(),
    })?;
    Ok(None)
}

/// Puts `program` in the place of the link's. The link stays pinned; only our handle of it is closed again.
pub(super) fn replace(program: &mut Xdp, link: FdLink) -> bool {
    XdpLink::try_from(link)
        .ok()
        .and_then(|link| program.attach_to_link(link).ok())
        .is_some_and(|id| program.take_link(id).is_ok())
}
