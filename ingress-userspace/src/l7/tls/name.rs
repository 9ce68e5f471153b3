//! A client's certificate as backends read about it: subject and issuer as RFC 2253 writes them (nginx'
//! `$ssl_client_s_dn`, `$ssl_client_i_dn`), and itself as nginx' `$ssl_client_escaped_cert`. Pure.

use std::fmt::Write as _;

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::x509::X509Name;

/// What is passed on about a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// `CN=a,O=b`.
    pub subject: String,
    /// The same of its issuer.
    pub issuer: String,
    der: Vec<u8>,
}

impl Certificate {
    /// `None`: it is not X.509.
    pub fn read(der: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(der).ok()?;
        Some(Self { subject: rfc2253(parsed.subject()), issuer: rfc2253(parsed.issuer()), der: der.to_vec() })
    }

    /// PEM, with everything escaped that has a meaning in URLs.
    pub fn escaped_pem(&self) -> String {
        let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
        let pem = pem::encode_config(&pem::Pem::new("CERTIFICATE", self.der.as_slice()), config);
        let mut escaped = String::with_capacity(pem.len() + pem.len() / 8);
        for byte in pem.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    escaped.push(byte as char);
                }
                _ => {
                    let _ = write!(escaped, "%{byte:02X}");
                }
            }
        }
        escaped
    }
}

/// The short names that OpenSSL uses; others are written by number.
const SHORT: [(&str, &str); 14] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "street"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.42", "GN"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

/// The last part first (RFC 2253 2.1), bytes beyond ASCII escaped, as OpenSSL does by `XN_FLAG_RFC2253`.
fn rfc2253(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = Vec::new();
    for rdn in name.iter_rdn() {
        let mut part = String::new();
        for attribute in rdn.iter() {
            if !part.is_empty() {
                part.push('+');
            }
            let oid = attribute.attr_type().to_id_string();
            let short = SHORT.iter().find(|(known, _)| *known == oid).map(|(_, short)| *short);
            part.push_str(short.unwrap_or(&oid));
            part.push('=');
            if let Ok(text) = attribute.as_str() {
                escape(&mut part, text);
            } else {
                // Not a text that we know.
                part.push('#');
                for byte in attribute.as_slice() {
                    let _ = write!(part, "{byte:02X}");
                }
            }
        }
        parts.push(part);
    }
    parts.reverse();
    parts.join(",")
}

fn escape(out: &mut String, text: &str) {
    let last = text.len().saturating_sub(1);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => {
                out.push('\\');
                out.push(byte as char);
            }
            b' ' if at == 0 || at == last => out.push_str("\\ "),
            b'#' if at == 0 => out.push_str("\\#"),
            0x20..=0x7e => out.push(byte as char),
            _ => {
                let _ = write!(out, "\\{byte:02X}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_as_openssl_does() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in [
            (rcgen::DnType::CountryName, "DE"),
            (rcgen::DnType::OrganizationName, " Müller, Söhne + Co "),
            (rcgen::DnType::CommonName, "#client\n"),
        ] {
            params.distinguished_name.push(kind, value);
        }
        let der = params.self_signed(&key).unwrap().der().clone();
        let certificate = Certificate::read(&der).unwrap();
        // What `openssl x509 -nameopt RFC2253 -subject` says.
        let expected = "CN=\\#client\\0A,O=\\ M\\C3\\BCller\\, S\\C3\\B6hne \\+ Co\\ ,C=DE";
        assert_eq!(certificate.subject, expected);
        assert_eq!(certificate.issuer, expected);
        let escaped = certificate.escaped_pem();
        assert!(escaped.starts_with("-----BEGIN%20CERTIFICATE-----%0A"), "{escaped}");
        assert!(escaped.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte)));
    }
}
