//! Canaries: Ingresses that take some requests from the rules of others. Put in after all others, whatever their age.

use std::sync::Arc;

use super::super::annotation::Annotations;
use super::super::annotation::canary::Rules;
use super::super::class::Owned;
use super::super::{host, path};
use super::{Rank, Table};
use crate::model::{Canary, Filters, HostPattern, Reason, Route};

impl Table<'_, '_> {
    pub(super) fn canary(
        &mut self,
        Owned { ingress, reference, .. }: &Owned,
        annotations: &Annotations,
        canary: &Rules,
    ) {
        let rules = ingress.spec.as_ref().and_then(|spec| spec.rules.as_deref()).unwrap_or_default();
        if rules.is_empty() {
            self.problems.add(
                reference,
                "spec.rules",
                Reason::InvalidValue,
                "a canary takes requests from the rules of another Ingress, and this one has none",
                "write the rules of the Ingress that it belongs to",
            );
        }
        for (index, rule) in rules.iter().enumerate() {
            let field = format!("spec.rules[{index}]");
            let pattern = host::parse(rule.host.as_deref().unwrap_or_default());
            let paths = rule.http.as_ref().map(|http| http.paths.as_slice()).unwrap_or_default();
            for (index, entry) in paths.iter().enumerate() {
                let field = format!("{field}.http.paths[{index}]");
                let matched = path::parse(entry.path.as_deref(), &entry.path_type);
                let (Ok(pattern), Ok(matched)) = (&pattern, matched) else {
                    let message = "the host or the path is not valid; the canary takes no requests there";
                    self.problems.add(reference, field, Reason::InvalidValue, message, AS_THE_OTHER);
                    continue;
                };
                let backend = format!("{field}.backend");
                let by_service = annotations.by_service;
                let target =
                    self.backends.target(reference, &backend, &entry.backend, by_service, self.problems);
                let canary = canary.to(annotations.admit(target));
                if let Err((reason, message, hint)) = self.take_requests(pattern, &Rank::of(&matched), canary)
                {
                    self.problems.add(reference, format!("{field}.path"), reason, message, hint);
                }
            }
        }
    }

    /// Puts the canary beside the rule of that host and path. `Err`: reason, message and hint of a problem.
    fn take_requests(
        &mut self,
        pattern: &HostPattern,
        rank: &Rank,
        canary: Canary,
    ) -> Result<(), (Reason, &'static str, &'static str)> {
        let written = self.hosts.get_mut(pattern).and_then(|host| host.paths.get_mut(rank)).ok_or((
            Reason::NotFound,
            "no other Ingress has this host and path; the canary takes no requests there",
            AS_THE_OTHER,
        ))?;
        let route = &written.rule.route;
        if route.filters.canary.is_some() {
            return Err((
                Reason::Conflict,
                "an older canary takes requests there already; this one takes none",
                "keep one of the two",
            ));
        }
        let filters = Filters { canary: Some(Arc::new(canary)), ..route.filters.clone() };
        written.rule.route = Arc::new(Route { filters, ..Route::clone(route) });
        Ok(())
    }
}

const AS_THE_OTHER: &str =
    "write host, path and pathType as the Ingress has them from which the requests come";
