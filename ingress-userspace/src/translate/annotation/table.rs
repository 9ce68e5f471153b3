//! Every annotation of ingress-nginx by its name: what becomes of it, and what its owner can do. The reader asks it for hints;
//! `docs/annotations.md` is made of it. What is done is decided in the files of the groups, and a test compares.

/// What becomes of an annotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::translate) enum Status {
    /// It does what it does in ingress-nginx.
    Done,
    /// It tunes nginx inside; nothing has to be done (`no_effect` says why).
    NoEffect,
    /// Not honoured yet. The hint says what to do instead.
    NotYet(&'static str),
    /// Raw configuration of nginx: never executed.
    Never,
}

use Status::{Done, Never, NoEffect, NotYet};

/// The table, by groups.
pub(in crate::translate) const TABLE: &[(&str, &[(&str, Status)])] = &[
    (
        "Routing, rewrite, redirect",
        &[
            ("rewrite-target", Done),
            ("use-regex", Done),
            ("app-root", Done),
            ("server-alias", NotYet("write a rule for each name")),
            ("from-to-www-redirect", Done),
            ("permanent-redirect", Done),
            ("permanent-redirect-code", Done),
            ("temporal-redirect", Done),
            ("temporal-redirect-code", Done),
            ("relative-redirects", NoEffect),
            ("use-port-in-redirects", Done),
            ("preserve-trailing-slash", Done),
            ("proxy-redirect-from", NotYet("let the backend send the Location that clients shall see")),
            ("proxy-redirect-to", NotYet("let the backend send the Location that clients shall see")),
            ("x-forwarded-prefix", Done),
            ("upstream-vhost", Done),
            ("default-backend", NotYet("use spec.defaultBackend, which serves what no path matches")),
            ("custom-http-errors", NotYet("let the backend send its own error pages")),
            ("disable-proxy-intercept-errors", NotYet("delete it: errors of backends are never replaced")),
            ("satisfy", NotYet("all access checks must pass, as with \"all\"")),
        ],
    ),
    (
        "TLS towards the client",
        &[
            ("ssl-redirect", Done),
            ("force-ssl-redirect", Done),
            ("ssl-passthrough", Done),
            ("ssl-ciphers", NotYet("delete it: TLS 1.2 and 1.3 with safe ciphers are spoken")),
            ("ssl-prefer-server-ciphers", NotYet("delete it: all ciphers that are spoken are safe")),
            ("auth-tls-secret", Done),
            ("auth-tls-verify-client", Done),
            ("auth-tls-verify-depth", Done),
            ("auth-tls-error-page", Done),
            ("auth-tls-pass-certificate-to-upstream", Done),
            ("auth-tls-match-cn", NotYet("let the backend check the ssl-client-subject-dn header")),
        ],
    ),
    (
        "TLS and protocol towards the backend",
        &[
            ("backend-protocol", Done),
            ("proxy-ssl-secret", Done),
            ("proxy-ssl-verify", Done),
            ("proxy-ssl-verify-depth", Done),
            ("proxy-ssl-name", Done),
            ("proxy-ssl-server-name", Done),
            ("proxy-ssl-protocols", Done),
            ("proxy-ssl-ciphers", NotYet("delete it: safe ciphers are spoken")),
            ("proxy-http-version", NotYet("delete it: HTTP/1.1 is spoken to backends")),
            ("connection-proxy-header", NotYet("delete it: connections to backends are kept")),
            ("service-upstream", Done),
            ("fastcgi-index", NotYet("put an HTTP server in front of the FastCGI program")),
            ("fastcgi-params-configmap", NotYet("put an HTTP server in front of the FastCGI program")),
            ("http2-push-preload", NoEffect),
        ],
    ),
    (
        "Timeouts, retries, bodies, buffers",
        &[
            ("proxy-connect-timeout", Done),
            ("proxy-read-timeout", Done),
            ("proxy-send-timeout", Done),
            ("proxy-next-upstream", Done),
            ("proxy-next-upstream-tries", Done),
            ("proxy-next-upstream-timeout", Done),
            ("proxy-body-size", Done),
            ("client-body-buffer-size", NoEffect),
            ("proxy-request-buffering", NoEffect),
            ("proxy-buffering", NoEffect),
            ("proxy-buffers-number", NoEffect),
            ("proxy-buffer-size", NoEffect),
            ("proxy-busy-buffers-size", NoEffect),
            ("proxy-max-temp-file-size", NoEffect),
            ("proxy-cookie-domain", NotYet("let the backend set its cookies for the public name")),
            ("proxy-cookie-path", NotYet("let the backend set its cookies for the public path")),
        ],
    ),
    (
        "Access control",
        &[
            ("whitelist-source-range", Done),
            ("allowlist-source-range", Done),
            ("denylist-source-range", Done),
            ("auth-type", NotYet("authenticate in the backend, and delete all auth annotations")),
            ("auth-secret", NotYet("authenticate in the backend, and delete all auth annotations")),
            ("auth-secret-type", NotYet("authenticate in the backend, and delete all auth annotations")),
            ("auth-realm", NotYet("authenticate in the backend, and delete all auth annotations")),
            ("auth-url", NotYet("authenticate in the backend, and delete all auth annotations")),
            ("auth-signin", NotYet("authenticate in the backend, and delete all auth annotations")),
            (
                "auth-signin-redirect-param",
                NotYet("authenticate in the backend, and delete all auth annotations"),
            ),
            ("auth-method", NotYet("authenticate in the backend, and delete all auth annotations")),
            ("auth-response-headers", NotYet("authenticate in the backend, and delete all auth annotations")),
            ("auth-request-redirect", NotYet("authenticate in the backend, and delete all auth annotations")),
            (
                "auth-proxy-set-headers",
                NotYet("authenticate in the backend, and delete all auth annotations"),
            ),
            ("auth-cache-key", NotYet("authenticate in the backend, and delete all auth annotations")),
            ("auth-cache-duration", NotYet("authenticate in the backend, and delete all auth annotations")),
            (
                "auth-always-set-cookie",
                NotYet("authenticate in the backend, and delete all auth annotations"),
            ),
            ("auth-keepalive", NotYet("authenticate in the backend, and delete all auth annotations")),
            (
                "auth-keepalive-requests",
                NotYet("authenticate in the backend, and delete all auth annotations"),
            ),
            (
                "auth-keepalive-timeout",
                NotYet("authenticate in the backend, and delete all auth annotations"),
            ),
            (
                "auth-keepalive-share-vars",
                NotYet("authenticate in the backend, and delete all auth annotations"),
            ),
            ("auth-snippet", Never),
            ("enable-global-auth", NotYet("delete it: there is no global authentication")),
        ],
    ),
    (
        "Limits",
        &[
            ("limit-connections", NotYet("limit in the backend")),
            ("limit-rps", NotYet("limit in the backend")),
            ("limit-rpm", NotYet("limit in the backend")),
            ("limit-burst-multiplier", NotYet("delete it with the limits")),
            ("limit-rate", NotYet("limit in the backend")),
            ("limit-rate-after", NotYet("limit in the backend")),
            ("limit-allowlist", NotYet("delete it with the limits")),
            ("limit-whitelist", NotYet("delete it with the limits")),
        ],
    ),
    (
        "CORS and headers",
        &[
            ("enable-cors", NotYet("let the backend send the CORS headers")),
            ("cors-allow-origin", NotYet("let the backend send the CORS headers")),
            ("cors-allow-methods", NotYet("let the backend send the CORS headers")),
            ("cors-allow-headers", NotYet("let the backend send the CORS headers")),
            ("cors-allow-credentials", NotYet("let the backend send the CORS headers")),
            ("cors-expose-headers", NotYet("let the backend send the CORS headers")),
            ("cors-max-age", NotYet("let the backend send the CORS headers")),
            ("custom-headers", NotYet("let the backend send these headers")),
        ],
    ),
    (
        "Balancing, stickiness, canary",
        &[
            ("affinity", NotYet("use `upstream-hash-by` with a header or cookie of the application")),
            ("affinity-mode", NotYet("use `upstream-hash-by` with a header or cookie of the application")),
            (
                "affinity-canary-behavior",
                NotYet("use `upstream-hash-by` with a header or cookie of the application"),
            ),
            (
                "session-cookie-name",
                NotYet("use `upstream-hash-by` with a header or cookie of the application"),
            ),
            (
                "session-cookie-path",
                NotYet("use `upstream-hash-by` with a header or cookie of the application"),
            ),
            (
                "session-cookie-domain",
                NotYet("use `upstream-hash-by` with a header or cookie of the application"),
            ),
            (
                "session-cookie-samesite",
                NotYet("use `upstream-hash-by` with a header or cookie of the application"),
            ),
            (
                "session-cookie-conditional-samesite-none",
                NotYet("use `upstream-hash-by` with a header or cookie of the application"),
            ),
            (
                "session-cookie-secure",
                NotYet("use `upstream-hash-by` with a header or cookie of the application"),
            ),
            (
                "session-cookie-expires",
                NotYet("use `upstream-hash-by` with a header or cookie of the application"),
            ),
            (
                "session-cookie-max-age",
                NotYet("use `upstream-hash-by` with a header or cookie of the application"),
            ),
            (
                "session-cookie-change-on-failure",
                NotYet("use `upstream-hash-by` with a header or cookie of the application"),
            ),
            ("load-balance", Done),
            ("upstream-hash-by", Done),
            ("upstream-hash-by-subset", Done),
            ("upstream-hash-by-subset-size", Done),
            ("canary", Done),
            ("canary-weight", Done),
            ("canary-weight-total", Done),
            ("canary-by-header", Done),
            ("canary-by-header-value", Done),
            ("canary-by-header-pattern", Done),
            ("canary-by-cookie", Done),
        ],
    ),
    (
        "Mirror, WAF, logs, traces, raw config",
        &[
            ("mirror-target", NotYet("mirror in the application or by a mesh")),
            ("mirror-host", NotYet("mirror in the application or by a mesh")),
            ("mirror-request-body", NotYet("mirror in the application or by a mesh")),
            ("enable-modsecurity", NotYet("put a web application firewall in front, or behind")),
            ("enable-owasp-core-rules", NotYet("put a web application firewall in front, or behind")),
            ("modsecurity-snippet", Never),
            ("modsecurity-transaction-id", NotYet("delete it with the other modsecurity annotations")),
            ("enable-access-log", NotYet("filter the lines of this Ingress by its name")),
            ("enable-rewrite-log", NoEffect),
            ("enable-opentelemetry", NotYet("delete it: the W3C trace headers of the client are passed on")),
            (
                "opentelemetry-trust-incoming-span",
                NotYet("delete it: the W3C trace headers of the client are passed on"),
            ),
            ("opentelemetry-operation-name", NotYet("delete it")),
            ("configuration-snippet", Never),
            ("server-snippet", Never),
            ("stream-snippet", Never),
        ],
    ),
];

/// What the owner of an annotation that is not honoured can do.
pub(super) fn hint(name: &str) -> &'static str {
    let status = TABLE
        .iter()
        .flat_map(|(_, names)| *names)
        .find(|(known, _)| *known == name)
        .map(|(_, status)| status);
    match status {
        Some(NotYet(hint)) => hint,
        Some(Never) => {
            "write what it does as annotations, or do it in the backend: raw nginx configuration is never executed"
        }
        Some(Done | NoEffect) => "look at the other problems of this Ingress",
        None => "ingress-nginx does not know it either; delete it, or correct its name",
    }
}

#[cfg(test)]
mod tests;
