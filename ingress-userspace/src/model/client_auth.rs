//! What a host wants of its clients' certificates: `nginx.ingress.kubernetes.io/auth-tls-*`.

/// Clients show a certificate. Holds for a whole host, as with ingress-nginx.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientAuth {
    /// Those that sign clients (`ca.crt`), DER. Never empty.
    pub ca: Vec<Vec<u8>>,
    /// Lists of revoked certificates (`ca.crl`), DER.
    pub revoked: Vec<Vec<u8>>,
    /// `auth-tls-verify-client`.
    pub verify: VerifyClient,
    /// `auth-tls-verify-depth`: intermediate certificates at most.
    pub depth: u8,
    /// `auth-tls-error-page`: where those go whose certificate is wrong or missing.
    pub error_page: Option<String>,
    /// `auth-tls-pass-certificate-to-upstream`: the certificate as URL-encoded PEM in `ssl-client-cert`.
    pub pass_certificate: bool,
}

/// How strictly clients are asked for their certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VerifyClient {
    /// `on`: 400 without a valid one.
    #[default]
    On,
    /// `optional`: 400 with an invalid one.
    Optional,
    /// `optional_no_ca`: one that nobody whom we know has signed passes, too; the backend is told what it is.
    OptionalNoCa,
}
