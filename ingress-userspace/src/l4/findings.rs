//! What this node alone can see of the VIPs: another host answers for one of ours, nobody may answer who lives, none of the
//! selected interfaces is here. Told as problems of the objects that the VIPs come from, so that they show up where all other
//! problems do. `engine` keeps it; pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::sync::Desired;
use crate::model::{ObjectRef, Problem, Reason, Snapshot};

/// Nodes that start or are replaced come back in this time.
const PATIENCE: Duration = Duration::from_secs(5);
/// Addresses that are named in a message.
const NAMED: usize = 3;

/// Another host answers for a VIP that this node owns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// The VIP.
    pub vip: IpAddr,
    /// The other's hardware address.
    pub mac: String,
    /// Where it was heard.
    pub interface: String,
    /// The node that has this hardware address, if it is one of ours: its daemon hangs, or does not hear the others.
    pub node: Option<String>,
}

/// What is found, and counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// Who else answers for which VIP now.
    pub conflicts: Vec<Conflict>,
    /// Claims of VIPs of ours that were heard.
    pub claims: u64,
    /// VIPs that this node got from another one.
    pub takeovers: u64,
    /// How long the last of these took, in microseconds: from when this node knew until its program answered.
    pub last_takeover_us: u64,
    /// What to tell.
    #[serde(skip)]
    pub problems: Vec<Problem>,
}

/// VIPs for which nobody answers, by where they come from.
#[derive(Debug, Default)]
pub(crate) struct Unanswered {
    sources: BTreeMap<IpAddr, ObjectRef>,
    /// None of the nodes that may own them lives, since then.
    unowned: BTreeMap<ObjectRef, (Instant, Vec<IpAddr>)>,
    /// This node owns them, and has none of the interfaces.
    mute: BTreeMap<ObjectRef, Vec<IpAddr>>,
}

impl Unanswered {
    /// Takes in what is in the kernel now. `uplinks`: how many this node has.
    pub(crate) fn update(
        &mut self,
        now: Instant,
        snapshot: &Snapshot,
        desired: &Desired,
        own_name: &str,
        uplinks: usize,
    ) {
        let before = std::mem::take(&mut self.unowned);
        self.mute.clear();
        self.sources = snapshot.vips.iter().map(|vip| (vip.address, vip.source.clone())).collect();
        for vip in &snapshot.vips {
            // A pool that selects nobody at all is a problem of the objects.
            let selects = vip.announcement.nodes.as_ref().is_some_and(|nodes| !nodes.is_empty());
            let owner = desired.owners.get(&vip.address);
            let silent = desired.silent.get(&vip.address).map_or(0, BTreeSet::len);
            if owner.is_none() && selects {
                let since = before.get(&vip.source).map_or(now, |(since, _)| *since);
                let (_, vips) = self.unowned.entry(vip.source.clone()).or_insert_with(|| (since, Vec::new()));
                vips.push(vip.address);
            } else if owner.is_some_and(|owner| owner == own_name) && silent >= uplinks.max(1) {
                self.mute.entry(vip.source.clone()).or_default().push(vip.address);
            }
        }
    }

    /// Everything as problems, with the conflicts.
    pub(crate) fn problems(&self, now: Instant, own_name: &str, conflicts: &[Conflict]) -> Vec<Problem> {
        let problem = |object: &ObjectRef, field: &str, reason, message, hint: &str| Problem {
            object: object.clone(),
            field: field.to_owned(),
            reason,
            message,
            hint: hint.to_owned(),
        };
        let lasting = self
            .unowned
            .iter()
            .filter(|(_, (since, _))| now.saturating_duration_since(*since) >= PATIENCE)
            .map(|(source, (_, vips))| {
                let message = format!(
                    "nobody answers for {}: none of the nodes that the pool selects is alive and takes part",
                    named(vips)
                );
                problem(
                    source,
                    "spec.nodeSelectors",
                    Reason::Unannounced,
                    message,
                    "bring one of them back, or select others",
                )
            });
        let mute = self.mute.iter().map(|(source, vips)| {
            let message = format!(
                "node {own_name} shall answer for {}, but none of these interfaces is an uplink of its",
                named(vips)
            );
            problem(
                source,
                "spec.interfaces",
                Reason::Unannounced,
                message,
                "leave the node out by spec.nodeSelectors, or name the interface in its --interface",
            )
        });
        let conflicts = conflicts.iter().filter_map(|Conflict { vip, mac, interface, node }| {
            let (who, hint) = match node {
                Some(node) => (
                    format!("node {node} ({mac})"),
                    "see what its daemon does: it hangs, or does not hear the other nodes",
                ),
                None => (
                    format!("another host ({mac})"),
                    "find that host on the link and take the address away from it, or take it out of the pool",
                ),
            };
            let message = format!(
                "{who} answers for {vip} on {interface}, and so does node {own_name}, which has it: clients may reach \
                 either"
            );
            let source = self.sources.get(vip)?;
            let field = if source.namespace.is_empty() {
                "spec.addresses"
            } else {
                "metadata.annotations[xdp-ingress.io/address]"
            };
            Some(problem(source, field, Reason::AddressConflict, message, hint))
        });
        lasting.chain(mute).chain(conflicts).collect()
    }
}

fn named(vips: &[IpAddr]) -> String {
    let some: Vec<String> = vips.iter().take(NAMED).map(ToString::to_string).collect();
    let more = vips.len().saturating_sub(NAMED);
    if more == 0 { some.join(", ") } else { format!("{} and {more} more", some.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Announcement, Kind, Vip};

    fn vip(last: u8, nodes: &[&str]) -> Vip {
        let nodes = nodes.iter().map(|name| (*name).to_owned()).collect();
        Vip {
            announcement: Announcement { nodes: Some(nodes), ..Announcement::default() }.into(),
            ..Vip::new(IpAddr::from([192, 0, 2, last]), ObjectRef::new(Kind::AddressPool, "", "edge"))
        }
    }

    #[test]
    fn a_pool_without_a_living_node_is_told_after_a_while_and_once() {
        let now = Instant::now();
        let snapshot =
            Snapshot { vips: (1..=5).map(|last| vip(last, &["b"])).collect(), ..Snapshot::default() };
        let mut unanswered = Unanswered::default();
        let desired = Desired::default();
        unanswered.update(now, &snapshot, &desired, "a", 1);
        assert!(unanswered.problems(now + PATIENCE / 2, "a", &[]).is_empty());
        // Another turn meanwhile.
        unanswered.update(now + PATIENCE / 2, &snapshot, &desired, "a", 1);
        let problems = unanswered.problems(now + PATIENCE, "a", &[]);
        let [problem] = &problems[..] else { panic!("{problems:?}") };
        assert_eq!((problem.reason, &*problem.object.name), (Reason::Unannounced, "edge"));
        assert!(problem.message.contains("192.0.2.1, 192.0.2.2, 192.0.2.3 and 2 more"), "{problem}");
        // It has an owner again.
        let owners = snapshot.vips.iter().map(|vip| (vip.address, "b".to_owned())).collect();
        unanswered.update(now + PATIENCE, &snapshot, &Desired { owners, ..desired }, "a", 1);
        assert!(unanswered.problems(now + PATIENCE * 9, "a", &[]).is_empty());
    }

    #[test]
    fn an_owner_without_the_interface_says_so() {
        let now = Instant::now();
        let snapshot = Snapshot { vips: vec![vip(1, &["a"])], ..Snapshot::default() };
        let address = snapshot.vips[0].address;
        let desired = |silent: &[u32]| Desired {
            owners: [(address, "a".to_owned())].into(),
            silent: [(address, silent.iter().copied().collect())].into(),
            ..Desired::default()
        };
        let mut unanswered = Unanswered::default();
        unanswered.update(now, &snapshot, &desired(&[1]), "a", 2);
        assert!(unanswered.problems(now, "a", &[]).is_empty(), "it answers on the other one");
        unanswered.update(now, &snapshot, &desired(&[1, 2]), "a", 2);
        assert_eq!(unanswered.problems(now, "a", &[])[0].field, "spec.interfaces");
    }

    #[test]
    fn a_conflict_names_the_pool_and_who_it_is() {
        let now = Instant::now();
        let snapshot = Snapshot { vips: vec![vip(1, &["a"])], ..Snapshot::default() };
        let mut unanswered = Unanswered::default();
        unanswered.update(now, &snapshot, &Desired::default(), "a", 1);
        let conflict = |node: Option<&str>| Conflict {
            vip: snapshot.vips[0].address,
            mac: "02:00:00:00:00:09".to_owned(),
            interface: "eth0".to_owned(),
            node: node.map(ToOwned::to_owned),
        };
        for (node, who) in [(None, "another host (02:00:00:00:00:09)"), (Some("b"), "node b")] {
            let problems = unanswered.problems(now, "a", &[conflict(node)]);
            let [problem] = &problems[..] else { panic!("{problems:?}") };
            assert_eq!((problem.reason, &*problem.object.name), (Reason::AddressConflict, "edge"));
            assert!(problem.message.starts_with(who), "{problem}");
        }
    }
}
