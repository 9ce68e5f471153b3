//! Pages for users that are made from the code's own tables (`docs/annotations.md`, `docs/options.md`).

use std::path::Path;

/// The page `docs/NAME` is `wanted`. `XDP_INGRESS_WRITE_DOCS=1` writes it anew.
#[track_caller]
pub(super) fn assert_page(name: &str, wanted: &str) {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    if std::env::var_os("XDP_INGRESS_WRITE_DOCS").is_some() {
        std::fs::write(&page, wanted).unwrap();
    }
    let is = std::fs::read_to_string(&page).unwrap_or_default();
    assert!(
        is == wanted,
        "docs/{name} is not what the code says; set XDP_INGRESS_WRITE_DOCS=1 and run this test"
    );
}
