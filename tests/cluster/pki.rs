//! The cluster's authority: the API server's certificate and those by which its clients say who they are
//! (`CN` is the user, `O` the group). Made on the spot, for one run.

use std::{fs, net::IpAddr, path::Path};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// Issues certificates.
#[derive(Debug)]
pub(super) struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, both PEM.
type Identity = (String, String);

impl Authority {
    pub(super) fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "lab cluster");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { certificate, issuer: Issuer::new(params, key) })
    }

    /// Writes what the API server reads: `ca.crt`, `server.crt` and `.key`, `service-accounts.key` and `.pub`.
    pub(super) fn write_server_files(&self, dir: &Path, address: IpAddr) -> Result<()> {
        let names = vec![
            "kubernetes".to_owned(),
            "localhost".to_owned(),
            "127.0.0.1".to_owned(),
            // What pods know it by: the first address of the Services' range.
            super::SERVICE_ADDRESS.to_owned(),
            address.to_string(),
        ];
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        let (certificate, key) = self.issue(params, ExtendedKeyUsagePurpose::ServerAuth)?;
        let tokens = KeyPair::generate()?;
        let (tokens_key, tokens_public) = (tokens.serialize_pem(), tokens.public_key_pem());
        let files = [
            ("ca.crt", &self.certificate),
            ("server.crt", &certificate),
            ("server.key", &key),
            ("service-accounts.key", &tokens_key),
            ("service-accounts.pub", &tokens_public),
        ];
        for (name, text) in files {
            fs::write(dir.join(name), text).with_context(|| format!("writing {name}"))?;
        }
        Ok(())
    }

    /// Who is `user` in `group`.
    pub(super) fn client(&self, user: &str, group: &str) -> Result<Identity> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, user);
        params.distinguished_name.push(DnType::OrganizationName, group);
        self.issue(params, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn issue(&self, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Result<Identity> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok((certificate, key.serialize_pem()))
    }
}
