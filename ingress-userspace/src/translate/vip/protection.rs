//! `spec.protection` of a class's parameters: who may connect to its VIPs, and how often. An entry that cannot be read is
//! left out and named; an allow list stays one, so that nobody gets in whom it would keep out.

use ipnet::IpNet;

use super::Request;
use crate::model::{ObjectRef, Protection, Rate, Reason, Vip};
use crate::translate::network;
use crate::translate::problems::Problems;

/// What the class says, if it says anything.
pub(super) fn read(request: &Request<'_>, problems: &mut Problems) -> Option<Protection> {
    let (reference, spec) = request.parameters.as_ref()?;
    let spec = spec.protection.as_ref()?;
    let allow = spec.allow.as_ref().map(|list| networks(list, "allow", reference, problems));
    let new_connections = spec
        .new_connections_per_source
        .map(|rate| Rate { per_second: rate.per_second, burst: rate.burst.unwrap_or(rate.per_second) });
    let is_usable = new_connections.is_none_or(|rate| rate.per_second > 0 && rate.burst > 0);
    if !is_usable {
        problems.add(
            reference,
            "spec.protection.newConnectionsPerSource",
            Reason::InvalidValue,
            "a rate or burst of 0 would let nobody connect; there is no limit now",
            "write 1 or more; to keep sources out, list them in `deny`",
        );
    }
    Some(Protection {
        deny: networks(&spec.deny, "deny", reference, problems),
        allow,
        new_connections: new_connections.filter(|_| is_usable),
        syn_cookies_above: spec.syn_cookies_above,
    })
}

/// Gives it to a VIP. Of two classes with one VIP the first that says anything is heard.
pub(super) fn add(vip: &mut Vip, request: &Request<'_>, protection: &Protection, problems: &mut Problems) {
    if vip.protection == Protection::default() {
        vip.protection = protection.clone();
    } else if vip.protection != *protection
        && let Some((reference, _)) = &request.parameters
    {
        problems.add(
            reference,
            "spec.protection",
            Reason::Conflict,
            format!(
                "{} has another protection already, from another class; this one is left out",
                vip.address
            ),
            "give both classes the same protection, or each its own VIP",
        );
    }
}

fn networks(list: &[String], name: &str, reference: &ObjectRef, problems: &mut Problems) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for (index, text) in list.iter().enumerate() {
        let text = text.trim();
        match network(text) {
            Some(network) => networks.push(network),
            None => problems.add(
                reference,
                format!("spec.protection.{name}[{index}]"),
                Reason::InvalidValue,
                format!("`{text}` is neither an address nor a network; it is left out"),
                "write an address or NETWORK/BITS, such as 192.0.2.0/24",
            ),
        }
    }
    networks
}
