//! What the front of a daemon leaves to the next one of its node when that takes over, besides the pinned maps. Made by
//! `engine`, goes over the control socket as JSON, and `L4::start` of the other daemon goes on with it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::membership::{self, Announced};
use super::owner::Handover;

/// What the front of a daemon leaves to the next one of its node, besides the pinned maps.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Legacy {
    /// Nothing if it had none that could be taken over.
    pub(crate) membership: Option<membership::Legacy>,
    pub(crate) owners: BTreeMap<IpAddr, String>,
}

impl Legacy {
    /// For the membership, as what the peers know this node, and who owns which VIP. Whoever had not yet joined leaves nothing.
    pub(crate) fn split(legacy: Option<Self>) -> (Option<membership::Legacy>, Option<Announced>, Handover) {
        let legacy = legacy.and_then(|legacy| Some((legacy.membership?, legacy.owners)));
        match legacy {
            Some((membership, owners)) if membership.members.announced != Announced::Joining => {
                let announced = membership.members.announced;
                (Some(membership), Some(announced), Handover::inherit(owners))
            }
            _ => (None, None, Handover::default()),
        }
    }
}
