//! Who asks for a name: of those with the same kind of key the oldest Ingress gets it, and its later rivals hear of that. Kept
//! by `tls`.

use jiff::Timestamp;

use super::reference_of;
use crate::model::{HostPattern, Kind, ObjectRef, Reason};
use crate::source::Key;
use crate::translate::host;
use crate::translate::problems::Problems;

/// Who comes first: the oldest Ingress (manifests have no time: they count as oldest), then by namespace and name; in one
/// Ingress what is written first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) created: Option<Timestamp>,
    pub(super) ingress: Key,
    /// Index in `spec.tls`.
    pub(super) section: usize,
    /// Index in its `hosts`, or in the names of the certificate where it names none.
    pub(super) host: usize,
}

/// One Ingress asks for a name by a Secret.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) rank: Rank,
    pub(super) secret: Key,
    /// The Ingress names it; names that only the certificate claims give way in silence.
    pub(super) is_written: bool,
}

/// A name may have one certificate for each kind of key.
#[derive(Debug)]
pub(super) struct Place {
    kind: u8,
    /// By rank.
    claims: Vec<Claim>,
    /// The Secret that had it when all was settled last.
    pub(super) served_by: Option<Key>,
}

impl Place {
    /// That of this kind, among those of a name.
    pub(super) fn of(places: &mut Vec<Self>, kind: u8) -> &mut Self {
        let at = places.iter().position(|place| place.kind == kind).unwrap_or_else(|| {
            // Most names have one.
            places.reserve_exact(1);
            places.push(Self { kind, claims: Vec::with_capacity(1), served_by: None });
            places.len() - 1
        });
        &mut places[at]
    }

    pub(super) fn claim(&mut self, claim: Claim) {
        let at = self.claims.partition_point(|known| known.rank < claim.rank);
        self.claims.insert(at, claim);
    }

    /// Takes out what this Ingress claims.
    pub(super) fn forget(&mut self, ingress: &Key) {
        self.claims.retain(|claim| claim.rank.ingress != *ingress);
    }

    /// The Secret that gets it.
    pub(super) fn first(&self) -> Option<&Key> {
        self.claims.first().map(|claim| &claim.secret)
    }

    /// Says to the others who has it.
    pub(super) fn conflicts(&self, name: &HostPattern, problems: &mut Problems) {
        let Some((first, others)) = self.claims.split_first() else { return };
        let object = |key: &Key| ObjectRef::new(Kind::Ingress, &*key.namespace, &*key.name);
        for claim in others.iter().filter(|claim| claim.is_written && claim.secret != first.secret) {
            let Rank { ingress, section, host, .. } = &claim.rank;
            problems.add(
                &object(ingress),
                format!("spec.tls[{section}].hosts[{host}]"),
                Reason::Conflict,
                format!(
                    "{}, which came first, has {} for {}; that one is served",
                    object(&first.rank.ingress),
                    reference_of(&first.secret),
                    host::show(name)
                ),
                "name the same Secret in both, or take the host out of one",
            );
        }
    }
}
