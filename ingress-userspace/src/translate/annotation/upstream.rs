//! `backend-protocol`, `proxy-ssl-*`, `load-balance`, `upstream-hash-by*`, and our own `max-requests`,
//! `max-pending-requests` and `slow-start` (seconds): how endpoints are chosen and spoken to. Has no twin among the
//! filters: `l7::upstream` and `l7::balance` act on it. What was to check the backend's certificate and cannot locks the
//! Ingress.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::{NoSecret, Reader};
use crate::model::{BackendTls, Balance, HashPart, Reason, TlsVersions, Upstream, VerifyBackend};
use crate::source::Objects;
use crate::translate::secret;

/// Endpoints of a subset, if nothing else is said.
const SUBSET: NonZeroU32 = NonZeroU32::new(3).unwrap();

const SECRET: &str = "proxy-ssl-secret";

/// Reads the group. `Err`: requests must not be sent; a problem says why.
pub(super) fn read(reader: &mut Reader<'_>, objects: &Objects) -> Result<Option<Arc<Upstream>>, ()> {
    let balance = balance(reader);
    let protocol = reader.values.remove("backend-protocol");
    let tls = tls(reader, objects);
    let (http2, is_tls) = match protocol.map(|text| text.trim().to_ascii_uppercase()).as_deref() {
        // Which one it is has to be known: AUTO_HTTP follows the client's, which plain HTTP/1.1 can do as well.
        None | Some("HTTP" | "AUTO_HTTP") => (false, false),
        Some("HTTPS") => (false, true),
        Some("GRPC") => (true, false),
        Some("GRPCS") => (true, true),
        Some(other) => {
            let (reason, message) = match other {
                "FCGI" => (Reason::Unsupported, "FastCGI is not supported; requests get 503".to_owned()),
                other => (Reason::InvalidValue, format!("`{other}` is not a protocol; requests get 503")),
            };
            reader.problem("backend-protocol", reason, message, "write HTTP, HTTPS, GRPC or GRPCS");
            return Err(());
        }
    };
    let tls = if is_tls { Some(Arc::new(tls?)) } else { None };
    let max_requests = reader.own_number("max-requests").and_then(NonZeroU32::new);
    let max_pending = reader.own_number("max-pending-requests").unwrap_or(0);
    if max_pending > 0 && max_requests.is_none() {
        let message = "nothing is limited, so nothing has to wait; it has no effect";
        reader.own_problem("max-pending-requests", message, "set xdp-ingress.io/max-requests, too");
    }
    let slow_start = reader.own_number("slow-start").filter(|seconds| *seconds > 0);
    let slow_start = slow_start.map(|seconds| Duration::from_secs(u64::from(seconds)));
    let max_pending = if max_requests.is_some() { max_pending } else { 0 };
    let upstream = Upstream { http2, tls, balance, max_requests, max_pending, slow_start };
    Ok((upstream != Upstream::default()).then(|| Arc::new(upstream)))
}

fn balance(reader: &mut Reader<'_>) -> Balance {
    let (algorithm, key) = (reader.values.remove("load-balance"), reader.values.remove("upstream-hash-by"));
    // Without a key they mean nothing, as with ingress-nginx.
    let subset = reader.boolean("upstream-hash-by-subset").unwrap_or(false);
    let size = reader.number("upstream-hash-by-subset-size").and_then(NonZeroU32::new).unwrap_or(SUBSET);
    if let Some(key) = key.filter(|key| !key.trim().is_empty()) {
        match hash_parts(key.trim()) {
            Ok(parts) if subset => return Balance::HashSubset(parts.into(), size),
            Ok(parts) => return Balance::Hash(parts.into()),
            Err(variable) => {
                let message = format!(
                    "`{variable}` is not a variable that we know; requests go to the least loaded endpoint"
                );
                let hint = "write $request_uri, $uri, $args, $remote_addr, $host, $http_NAME, $arg_NAME or $cookie_NAME";
                reader.problem("upstream-hash-by", Reason::Unsupported, message, hint);
            }
        }
    }
    match algorithm.map(|text| text.trim()) {
        None | Some("") => Balance::LeastOfTwo,
        Some("round_robin") => Balance::RoundRobin,
        Some("ewma") => Balance::Ewma,
        Some(other) => {
            let message = format!("`{other}` is not known; requests go to the less loaded of two endpoints");
            reader.problem("load-balance", Reason::InvalidValue, message, "write round_robin or ewma");
            Balance::LeastOfTwo
        }
    }
}

/// The key of a hash; the error is the variable that we don't know.
fn hash_parts(text: &str) -> Result<Vec<HashPart>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        if at > 0 {
            parts.push(HashPart::Text(rest[..at].to_owned()));
        }
        rest = &rest[at + 1..];
        let braced = rest.starts_with('{');
        let body = if braced { &rest[1..] } else { rest };
        let end = body.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(body.len());
        let name = &body[..end];
        if braced && !body[end..].starts_with('}') {
            return Err(format!("${{{name}"));
        }
        parts.push(variable(name).ok_or_else(|| format!("${name}"))?);
        rest = &body[end + usize::from(braced)..];
    }
    if !rest.is_empty() {
        parts.push(HashPart::Text(rest.to_owned()));
    }
    Ok(parts)
}

fn variable(name: &str) -> Option<HashPart> {
    let named = |prefix: &str| name.strip_prefix(prefix).filter(|rest| !rest.is_empty());
    Some(match name {
        "request_uri" => HashPart::RequestUri,
        "uri" => HashPart::Path,
        "args" | "query_string" => HashPart::Query,
        "remote_addr" | "binary_remote_addr" | "the_real_ip" => HashPart::RemoteAddr,
        "host" | "http_host" | "best_http_host" => HashPart::Host,
        _ => {
            if let Some(header) = named("http_") {
                HashPart::Header(header.to_ascii_lowercase().replace('_', "-"))
            } else if let Some(argument) = named("arg_") {
                HashPart::Argument(argument.to_owned())
            } else {
                HashPart::Cookie(named("cookie_")?.to_owned())
            }
        }
    })
}

/// `proxy-ssl-*`. `Err`: the backend cannot be asked as its author wants it.
fn tls(reader: &mut Reader<'_>, objects: &Objects) -> Result<BackendTls, ()> {
    let verify = on(reader, "proxy-ssl-verify");
    let server_name = on(reader, "proxy-ssl-server-name");
    let depth = reader.number("proxy-ssl-verify-depth").unwrap_or(1);
    let depth = u8::try_from(depth).unwrap_or(u8::MAX);
    let versions = versions(reader);
    let name = reader.values.remove("proxy-ssl-name").map(|name| name.trim().to_ascii_lowercase());
    if let Some(name) = &name
        && rustls::pki_types::ServerName::try_from(name.as_str()).is_err()
    {
        let message = format!("`{name}` is not a DNS name or address; requests get 503");
        reader.problem(
            "proxy-ssl-name",
            Reason::InvalidValue,
            message,
            "write the name in the backend's certificate",
        );
        return Err(());
    }
    let Some(secret) = reader.values.remove(SECRET) else {
        if verify {
            let message = "a backend's certificate can only be checked with the ca.crt of a proxy-ssl-secret; requests get 503";
            reader.problem(
                "proxy-ssl-verify",
                Reason::InvalidValue,
                message,
                "name a Secret with ca.crt by proxy-ssl-secret",
            );
            return Err(());
        }
        return Ok(BackendTls { name, server_name, versions, ..BackendTls::default() });
    };
    let found = reader.secret(objects, secret);
    let mut refuse = |reason, message: String, hint: &str| {
        reader.problem(SECRET, reason, format!("{message}; requests get 503"), hint);
        Err(())
    };
    let object = match found {
        Ok(object) => object,
        Err(NoSecret::Elsewhere) => {
            let (message, hint) = NoSecret::ELSEWHERE;
            return refuse(Reason::InvalidValue, message.to_owned(), hint);
        }
        Err(NoSecret::Missing(name)) => {
            let message = format!("Secret {name} does not exist, or is not of type kubernetes.io/tls");
            return refuse(Reason::NotFound, message, "create it with tls.crt, tls.key and ca.crt");
        }
    };
    let pair = match secret::pair(object) {
        Ok(pair) => pair,
        Err(wrong) => {
            return refuse(Reason::InvalidValue, format!("{}: {}", wrong.field, wrong.message), wrong.hint);
        }
    };
    let verify = if verify {
        let pem = object.data.as_ref().and_then(|data| data.get("ca.crt")).map_or(&[][..], |value| &value.0);
        let ca: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().unwrap_or_default();
        if ca.is_empty() || ca.iter().any(|der| webpki::anchor_from_trusted_cert(der).is_err()) {
            let hint = "put the certificates there that sign the backend, in PEM";
            return refuse(Reason::InvalidValue, "has no ca.crt, or one that cannot be read".into(), hint);
        }
        Some(VerifyBackend { ca: ca.iter().map(|der| der.to_vec()).collect(), depth })
    } else {
        None
    };
    Ok(BackendTls {
        client: Some((pair.chain.to_vec(), pair.key.to_vec())),
        verify,
        name,
        server_name,
        versions,
    })
}

/// nginx' booleans.
fn on(reader: &mut Reader<'_>, name: &'static str) -> bool {
    match reader.values.remove(name).map(|text| text.trim()) {
        Some("on") => true,
        None | Some("off") => false,
        Some(other) => {
            let message = format!("`{other}` is neither \"on\" nor \"off\"; it is as if it were absent");
            reader.problem(name, Reason::InvalidValue, message, "write \"on\" or \"off\"");
            false
        }
    }
}

fn versions(reader: &mut Reader<'_>) -> TlsVersions {
    let Some(text) = reader.values.remove("proxy-ssl-protocols") else { return TlsVersions::Both };
    let has = |version: &str| text.split_ascii_whitespace().any(|word| word == version);
    match (has("TLSv1.2"), has("TLSv1.3")) {
        (true, false) => TlsVersions::Tls12,
        (false, true) => TlsVersions::Tls13,
        (true, true) => TlsVersions::Both,
        (false, false) => {
            let message = format!("`{text}` names neither TLSv1.2 nor TLSv1.3; both are spoken");
            reader.problem(
                "proxy-ssl-protocols",
                Reason::InvalidValue,
                message,
                "write TLSv1.2, TLSv1.3 or both",
            );
            TlsVersions::Both
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_hashes() {
        let parts = hash_parts("a${request_uri}-$http_x_user$arg_id").unwrap();
        assert_eq!(
            parts,
            [
                HashPart::Text("a".into()),
                HashPart::RequestUri,
                HashPart::Text("-".into()),
                HashPart::Header("x-user".into()),
                HashPart::Argument("id".into())
            ]
        );
        assert_eq!(hash_parts("$foo").unwrap_err(), "$foo");
        assert_eq!(hash_parts("${host").unwrap_err(), "${host");
    }
}
