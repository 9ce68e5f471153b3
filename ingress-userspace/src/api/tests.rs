//! `deploy/crds` says what the types say.

use std::path::Path;

use super::*;

/// `XDP_INGRESS_UPDATE=1 cargo test` writes the files anew.
#[test]
fn deploy_crds_are_up_to_date() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/crds");
    let update = std::env::var_os("XDP_INGRESS_UPDATE").is_some();
    for (name, definition) in definitions() {
        let file = folder.join(name);
        let yaml = serde_saphyr::to_string(&definition).unwrap();
        let wanted = format!(
            "# Generated from the types in ingress-userspace/src/api by\n# `XDP_INGRESS_UPDATE=1 cargo test -p ingress-userspace deploy_crds`.\n{yaml}"
        );
        if update {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&file, &wanted).unwrap();
        }
        let found = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(found == wanted, "{} is out of date: set XDP_INGRESS_UPDATE=1", file.display());
    }
}
