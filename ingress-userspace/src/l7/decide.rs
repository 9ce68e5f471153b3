//! One request's fate: the route by host and path, the filters of the route, then its cluster. Called by both engines
//! once a request's head is complete. Pure: no IO, no allocation unless a filter edits or answers.

use super::answer::Answer;
use super::balance::Choice;
use super::filter;
use super::head::{HeadEdits, RequestHead, Scheme};
use super::live::{Backend, Live};
use super::router::{Found, RouteEntry};
use super::stats::IngressSlot;
use super::tls::is_misdirected;
use crate::model::Hsts;

/// What to do with a request.
#[derive(Debug)]
pub enum Decision<'l> {
    /// Send it to an endpoint of the backend.
    Forward {
        /// The rule.
        route: &'l RouteEntry,
        /// Where to.
        backend: &'l Backend,
        /// What the filters want changed in the head.
        edits: HeadEdits,
        /// Which of its endpoints.
        choice: Choice,
        /// `Strict-Transport-Security` of the answer.
        hsts: Option<Hsts>,
    },
    /// Answer it ourselves.
    Answer {
        /// With this.
        answer: Answer,
        /// Where it is counted.
        ingress: IngressSlot,
    },
}

/// Decides.
pub fn decide<'l>(live: &'l Live, head: &RequestHead<'_>) -> Decision<'l> {
    if let Some(tls) = &head.connection.tls
        && is_misdirected(live, head.host, head.connection, tls)
    {
        return Decision::Answer { answer: Answer::MISDIRECTED, ingress: IngressSlot::OTHER };
    }
    let router = live.router_at(head.connection.local.ip());
    if let Some(to) = router.www_redirect(head.host) {
        let answer = filter::www_redirect::request(to, head);
        return Decision::Answer { answer, ingress: IngressSlot::OTHER };
    }
    if head.path == "/"
        && let Some(path) = router.app_root(head.host)
        && let Err(answer) = filter::app_root::request(path, head)
    {
        return Decision::Answer { answer, ingress: IngressSlot::OTHER };
    }
    let Found::Route(route) = router.find(head.host, head.path) else {
        return Decision::Answer { answer: Answer::NO_RULE, ingress: IngressSlot::OTHER };
    };
    let hsts = filter::hsts::of(&route.route.filters, head.connection);
    let answer = |answer| Decision::Answer { answer: Answer { hsts, ..answer }, ingress: route.ingress };
    let mut edits = HeadEdits::default();
    let policy = router.client_policy(head.host);
    // By plain HTTP the redirect to HTTPS comes first.
    let (first, last) = if head.origin.scheme == Scheme::Https { (policy, None) } else { (None, policy) };
    if let Some(policy) = first
        && let Err(early) = filter::client_auth::request(&policy.source, head, &mut edits)
    {
        return answer(early);
    }
    if let Err(early) = filter::request(&route.route.filters, head, &mut edits) {
        return answer(early);
    }
    if let (Some(rewrite), Some(regex)) = (&route.route.filters.rewrite, &route.regex)
        && let Err(early) = filter::rewrite::request(rewrite, regex, head, &mut edits)
    {
        return answer(early);
    }
    if let Some(policy) = last
        && let Err(early) = filter::client_auth::request(&policy.source, head, &mut edits)
    {
        return answer(early);
    }
    let route = canary(live, route, head).unwrap_or(route);
    let Some(backend) = route.cluster.and_then(|key| live.backend(key)) else {
        return answer(Answer::NO_SERVICE);
    };
    if backend.cluster.endpoints.is_empty() {
        return answer(Answer::NO_ENDPOINTS);
    }
    let choice = Choice::of(route.route.filters.upstream.as_deref(), head);
    Decision::Forward { route, backend, edits, choice, hsts }
}

/// The route's canary, if it gets this request.
fn canary<'l>(live: &Live, route: &'l RouteEntry, head: &RequestHead<'_>) -> Option<&'l RouteEntry> {
    let (canary, rules) = (route.canary.as_ref()?, route.route.filters.canary.as_ref()?);
    let backend = live.backend(canary.entry.cluster?)?;
    // One without endpoints takes nothing, as with ingress-nginx.
    let takes =
        !backend.cluster.endpoints.is_empty() && filter::canary::takes(rules, canary.pattern.as_ref(), head);
    takes.then_some(&canary.entry)
}

#[cfg(test)]
mod tests;
