//! Every option of ingress-nginx's ConfigMap that people set, by its name: what becomes of it here. `docs/options.md` is
//! made of it.

/// What becomes of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::translate) enum Status {
    /// It does what it does in ingress-nginx.
    Done,
    /// There is nothing of the kind in ingress-nginx: what it does.
    Ours(&'static str),
    /// It is the annotation of the same name, on all Ingresses of the class.
    Annotation,
    /// Nothing has to be done, for this reason.
    NoEffect(&'static str),
    /// Only this value is what we do, for this reason.
    Only(&'static str, &'static str),
    /// Not honoured yet. The hint says what to do instead.
    NotYet(&'static str),
}

use Status::{Annotation, Done, NoEffect, NotYet, Only, Ours};

const INSIDE: &str = "it tunes nginx inside; there is nothing of the kind here";
const LUA: &str = "there is no Lua here";
const SNIPPET: &str = "do it by annotations or in the backend: raw nginx configuration is never executed";
const CIPHERS: &str = "delete it: TLS 1.2 and 1.3 with safe ciphers are spoken";
const FLAGS: &str = "use the daemon's flags --access-log and --access-log-format";
const WAF: &str = "put a web application firewall in front, or behind";
const TRACES: &str = "delete it: the W3C trace headers of clients are passed on";
const AUTH: &str = "authenticate in the backend";
const FIXED: &str = "delete it: ingress-nginx's default is what is done";

/// The table, by groups.
pub(in crate::translate) const TABLE: &[(&str, &[(&str, Status)])] = &[
    (
        "Clients behind proxies, header fields",
        &[
            ("use-forwarded-headers", Done),
            ("forwarded-for-header", Done),
            ("compute-full-forwarded-for", Done),
            (
                "generate-forwarded",
                Ours("`true`: backends get `Forwarded` (RFC 7239), which says what `X-Forwarded-*` say"),
            ),
            ("proxy-real-ip-cidr", Done),
            ("use-proxy-protocol", Done),
            ("proxy-protocol-header-timeout", Only("5s", "the header has as long as the request's head")),
            ("enable-real-ip", NotYet("use use-forwarded-headers with proxy-real-ip-cidr")),
            ("enable-underscores-in-headers", Done),
            (
                "ignore-invalid-headers",
                Only(
                    "true",
                    "names that RFC 9110 does not allow are refused, those with underscores dropped",
                ),
            ),
            ("generate-request-id", Done),
            ("proxy-set-headers", NotYet("set these headers in the application or by a mesh")),
            ("add-headers", NotYet("let the backend send these headers")),
            ("hide-headers", NotYet("let the backend not send these headers")),
            ("global-allowed-response-headers", NotYet("delete it: `custom-headers` is not honoured yet")),
            ("server-tokens", NoEffect("no version is ever told, and the backend's `Server` is passed on")),
            ("proxy-add-original-uri-header", NotYet("use X-Forwarded-Prefix (`x-forwarded-prefix`)")),
        ],
    ),
    (
        "TLS, HSTS, redirects",
        &[
            ("hsts", Done),
            ("hsts-max-age", Done),
            ("hsts-include-subdomains", Done),
            ("hsts-preload", Done),
            ("ssl-redirect", Annotation),
            ("force-ssl-redirect", Annotation),
            ("preserve-trailing-slash", Annotation),
            ("use-port-in-redirects", Annotation),
            ("relative-redirects", Annotation),
            ("http-redirect-code", Done),
            (
                "no-tls-redirect-locations",
                Only(
                    "/.well-known/acme-challenge",
                    "ACME challenges are never redirected, everything else is",
                ),
            ),
            ("ssl-protocols", Only("TLSv1.2 TLSv1.3", "TLS 1.2 and 1.3 are spoken, nothing older")),
            ("ssl-ciphers", NotYet(CIPHERS)),
            ("ssl-ecdh-curve", NotYet(CIPHERS)),
            ("ssl-dh-param", NotYet(CIPHERS)),
            ("ssl-early-data", Only("false", "0-RTT data can be played again by anybody")),
            (
                "ssl-session-tickets",
                NoEffect("sessions are resumed on every node; the keys of tickets are rotated"),
            ),
            ("ssl-session-ticket-key", NotYet("use the daemon's flag --ticket-key-file")),
            ("ssl-session-cache", NoEffect("sessions are resumed by tickets")),
            ("ssl-session-cache-size", NoEffect("sessions are resumed by tickets")),
            ("ssl-session-timeout", NotYet("delete it: tickets are good for as long as their keys")),
            ("ssl-buffer-size", NoEffect(INSIDE)),
            ("ssl-reject-handshake", Only("false", "unknown names get the default certificate")),
            ("use-http2", Only("true", "HTTP/2 is always offered")),
        ],
    ),
    (
        "Backends: timeouts, retries, bodies, balance",
        &[
            ("proxy-body-size", Annotation),
            ("proxy-connect-timeout", Annotation),
            ("proxy-read-timeout", Annotation),
            ("proxy-send-timeout", Annotation),
            ("proxy-next-upstream", Annotation),
            ("proxy-next-upstream-tries", Annotation),
            ("proxy-next-upstream-timeout", Annotation),
            ("proxy-buffering", Annotation),
            ("proxy-buffer-size", Annotation),
            ("proxy-buffers-number", Annotation),
            ("proxy-busy-buffers-size", Annotation),
            ("proxy-request-buffering", Annotation),
            ("proxy-max-temp-file-size", Annotation),
            ("client-body-buffer-size", Annotation),
            ("load-balance", Annotation),
            ("service-upstream", Annotation),
            ("retry-non-idempotent", NotYet("write `proxy-next-upstream: error timeout non_idempotent`")),
            (
                "proxy-http-version",
                Only("1.1", "HTTP/1.1 is spoken to backends, HTTP/2 where `backend-protocol` says so"),
            ),
            ("proxy-cookie-domain", NotYet("let the backend set its cookies for the public name")),
            ("proxy-cookie-path", NotYet("let the backend set its cookies for the public path")),
            ("proxy-redirect-from", NotYet("let the backend send the Location that clients shall see")),
            ("proxy-redirect-to", NotYet("let the backend send the Location that clients shall see")),
            ("upstream-keepalive-connections", NotYet(FIXED)),
            ("upstream-keepalive-time", NotYet(FIXED)),
            ("upstream-keepalive-timeout", NotYet(FIXED)),
            ("upstream-keepalive-requests", NotYet(FIXED)),
            ("proxy-stream-timeout", NotYet("delete it: there are no TCP services yet")),
            ("proxy-stream-next-upstream", NotYet("delete it: there are no TCP services yet")),
        ],
    ),
    (
        "Clients: limits and timeouts",
        &[
            ("whitelist-source-range", Annotation),
            ("denylist-source-range", Annotation),
            (
                "block-cidrs",
                NotYet("use denylist-source-range, or spec.protection.deny for whole connections"),
            ),
            ("block-user-agents", NotYet("refuse them in the backend")),
            ("block-referers", NotYet("refuse them in the backend")),
            ("keep-alive", NotYet(FIXED)),
            ("keep-alive-requests", NotYet("delete it: a connection has as many requests as it wants")),
            ("client-header-timeout", NotYet(FIXED)),
            ("client-body-timeout", NotYet(FIXED)),
            ("client-header-buffer-size", NoEffect("heads of up to 32 KiB are taken in any case")),
            ("large-client-header-buffers", Only("4 8k", "heads have 32 KiB, their first line 8 KiB")),
            ("http2-max-concurrent-streams", Only("128", "that many streams are open at once")),
            ("http2-max-field-size", NoEffect("header lists of up to 32 KiB are taken in any case")),
            ("http2-max-header-size", NoEffect("header lists of up to 32 KiB are taken in any case")),
            ("http2-max-requests", NoEffect("a connection has as many requests as it wants")),
            ("limit-conn-status-code", NotYet("limit in the backend")),
            ("limit-conn-zone-variable", NotYet("limit in the backend")),
            ("limit-req-status-code", NotYet("limit in the backend")),
            ("limit-rate", NotYet("limit in the backend")),
            ("limit-rate-after", NotYet("limit in the backend")),
            ("custom-http-errors", NotYet("let the backend send its own error pages")),
            ("use-gzip", Only("false", "answers are passed on as they come")),
            ("gzip-level", NoEffect("answers are passed on as they come")),
            ("gzip-min-length", NoEffect("answers are passed on as they come")),
            ("gzip-types", NoEffect("answers are passed on as they come")),
            ("enable-brotli", Only("false", "answers are passed on as they come")),
            ("brotli-level", NoEffect("answers are passed on as they come")),
            ("brotli-min-length", NoEffect("answers are passed on as they come")),
            ("brotli-types", NoEffect("answers are passed on as they come")),
        ],
    ),
    (
        "Access control",
        &[
            ("global-auth-url", NotYet(AUTH)),
            ("global-auth-method", NotYet(AUTH)),
            ("global-auth-signin", NotYet(AUTH)),
            ("global-auth-signin-redirect-param", NotYet(AUTH)),
            ("global-auth-response-headers", NotYet(AUTH)),
            ("global-auth-request-redirect", NotYet(AUTH)),
            ("global-auth-snippet", NotYet(SNIPPET)),
            ("global-auth-cache-key", NotYet(AUTH)),
            ("global-auth-cache-duration", NotYet(AUTH)),
            ("global-auth-always-set-cookie", NotYet(AUTH)),
            ("no-auth-locations", NoEffect("there is no global authentication")),
            ("enable-modsecurity", Only("false", WAF)),
            ("enable-owasp-modsecurity-crs", Only("false", WAF)),
            ("modsecurity-snippet", NotYet(SNIPPET)),
            ("allow-snippet-annotations", Only("false", SNIPPET)),
            ("allow-cross-namespace-resources", Only("false", "Secrets of other namespaces are never used")),
            ("annotations-risk-level", NoEffect("no annotation can inject anything")),
            ("annotation-value-word-blocklist", NoEffect("no annotation can inject anything")),
            ("strict-validate-path-type", NoEffect("a path cannot inject anything")),
        ],
    ),
    (
        "Logs, traces",
        &[
            ("access-log-path", NotYet(FLAGS)),
            ("http-access-log-path", NotYet(FLAGS)),
            ("stream-access-log-path", NotYet(FLAGS)),
            ("access-log-params", NoEffect("lines are written in batches, off the hot path")),
            ("disable-access-log", NotYet(FLAGS)),
            ("enable-access-log-for-default-backend", NoEffect("all requests are logged, if any are")),
            ("skip-access-log-urls", NotYet("filter the lines")),
            ("log-format-upstream", NotYet(FLAGS)),
            ("log-format-stream", NotYet(FLAGS)),
            ("log-format-escape-json", NotYet("use the daemon's flag --access-log-format json")),
            ("log-format-escape-none", NotYet(FLAGS)),
            ("error-log-path", NoEffect("errors go to standard error")),
            ("error-log-level", NotYet("use the environment variable RUST_LOG")),
            ("enable-syslog", NotYet(FLAGS)),
            ("enable-opentelemetry", Only("false", TRACES)),
            ("opentelemetry-trust-incoming-span", NoEffect("the W3C trace headers of clients are passed on")),
            ("opentelemetry-operation-name", NoEffect("no spans are made")),
            ("otlp-collector-host", NotYet(TRACES)),
            ("otlp-collector-port", NotYet(TRACES)),
            ("otel-sampler", NotYet(TRACES)),
            ("otel-sampler-ratio", NotYet(TRACES)),
            ("otel-service-name", NotYet(TRACES)),
        ],
    ),
    (
        "nginx inside",
        &[
            ("worker-processes", NotYet("use the daemon's flag --workers")),
            ("worker-cpu-affinity", NoEffect(INSIDE)),
            ("worker-shutdown-timeout", NotYet("use the daemon's flag --grace-period")),
            ("max-worker-connections", NoEffect(INSIDE)),
            ("max-worker-open-files", NoEffect(INSIDE)),
            ("enable-multi-accept", NoEffect(INSIDE)),
            ("reuse-port", NoEffect("each core has listeners of its own")),
            ("bind-address", NotYet("use spec.vips")),
            ("disable-ipv6", NotYet("give the class addresses of one version only")),
            ("disable-ipv6-dns", NoEffect("no names are resolved")),
            ("map-hash-bucket-size", NoEffect(INSIDE)),
            ("nginx-status-ipv4-whitelist", NoEffect("there is no status page; see /metrics")),
            ("nginx-status-ipv6-whitelist", NoEffect("there is no status page; see /metrics")),
            ("proxy-headers-hash-max-size", NoEffect(INSIDE)),
            ("proxy-headers-hash-bucket-size", NoEffect(INSIDE)),
            ("server-name-hash-max-size", NoEffect(INSIDE)),
            ("server-name-hash-bucket-size", NoEffect(INSIDE)),
            ("variables-hash-bucket-size", NoEffect(INSIDE)),
            ("variables-hash-max-size", NoEffect(INSIDE)),
            ("lua-shared-dicts", NoEffect(LUA)),
            ("plugins", NotYet(LUA)),
            ("enable-serial-reloads", NoEffect("there are no reloads")),
            ("main-snippet", NotYet(SNIPPET)),
            ("http-snippet", NotYet(SNIPPET)),
            ("server-snippet", NotYet(SNIPPET)),
            ("stream-snippet", NotYet(SNIPPET)),
            ("location-snippet", NotYet(SNIPPET)),
        ],
    ),
];

/// What becomes of an option; `None`: there is none of that name.
pub(super) fn status(name: &str) -> Option<Status> {
    let mut all = TABLE.iter().flat_map(|(_, names)| *names);
    all.find(|(known, _)| *known == name).map(|(_, status)| *status)
}

#[cfg(test)]
mod tests;
