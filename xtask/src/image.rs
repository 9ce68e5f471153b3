//! `cargo xtask image`: the daemon and the shared libraries it loads, as an OCI archive at
//! `target/xtask/images/xdp-ingress.tar`; no container engine takes part. The same inputs give the same bytes. Load it
//! with `ctr image import`, `podman load`, or `skopeo copy oci-archive:…`. The tests' images go through the same code:
//! the quickly built daemon, and the lab's backend.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use ingress_tests::{cluster::POD_IMAGE, paths};

use crate::{build, process, report, setup};

mod layer;
mod oci;
mod sbom;

/// The name under which the chart asks for the image, without the tag.
const REPOSITORY: &str = "ghcr.io/xdp-ingress/xdp-ingress";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The images of the tests instead: the daemon as `cargo xtask build` makes it, and the lab's backend.
    #[arg(long)]
    test: bool,
}

/// What an image is made of.
struct Image<'a> {
    /// Of its archive.
    file: &'a str,
    /// Repository and tag.
    name: &'a str,
    /// The program and where it lies in the image.
    program: (&'a Path, &'a str),
    /// Its arguments where a container says none.
    arguments: &'a [&'a str],
    /// More files: path in the image → file here.
    more: BTreeMap<String, PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if args.test {
        return for_tests();
    }
    build::dist()?;
    daemon(&paths::target_dir().join("dist/xdp-ingress"))
}

/// The images that the cluster level imports.
pub(crate) fn for_tests() -> Result<()> {
    // A binary that was named is taken as it is, as everywhere in the tests.
    if std::env::var_os("XDP_INGRESS_BIN").is_none() {
        build::run()?;
    }
    daemon(&paths::daemon())?;
    // The selection of packages that the tests have, so that nothing is built twice.
    let selection = ["build", "--workspace", "--exclude", "ingress-ebpf", "--bin", "lab-pod"];
    process::streamed(process::cargo().args(selection)).context("the backend does not build")?;
    let pod = paths::target_dir().join("debug/lab-pod");
    let program = (pod.as_path(), "usr/bin/lab-pod");
    pack(&Image { file: "pod", name: POD_IMAGE, program, arguments: &[], more: BTreeMap::new() })
}

/// What the cluster level imports for Kubernetes' own tests.
pub(crate) fn for_kubernetes_tests() -> Result<()> {
    agnhost()?;
    let (name, coredns) = ("xdp-ingress.test/coredns:1", paths::go_bin().join("coredns"));
    let program = (coredns.as_path(), "usr/bin/coredns");
    pack(&Image { file: "coredns", name, program, arguments: &[], more: BTreeMap::new() })
}

/// What Kubernetes' own tests run in their pods: agnhost, and beside it what they call by a shell. Upstream's image takes
/// the latter from Alpine; here they are this machine's.
fn agnhost() -> Result<()> {
    let mut more = BTreeMap::new();
    for program in [
        "cat", "curl", "date", "dd", "grep", "head", "ls", "nc", "nslookup", "seq", "sh", "sleep", "ss",
        "tail", "timeout", "wget",
    ] {
        let path = paths::program(program).with_context(|| format!("there is no `{program}` here"))?;
        let folder = if program == "sh" { "bin" } else { "usr/bin" };
        more.extend(files((&path, &format!("{folder}/{program}")))?);
    }
    let (name, agnhost) = (setup::go_programs::agnhost_image()?, paths::go_bin().join("agnhost"));
    pack(&Image { file: "agnhost", name: &name, program: (&agnhost, "agnhost"), arguments: &["pause"], more })
}

fn daemon(binary: &Path) -> Result<()> {
    let bill = paths::image("xdp-ingress").with_file_name("xdp-ingress.cdx.json");
    sbom::write(&bill)?;
    let name = format!("{REPOSITORY}:{}", env!("CARGO_PKG_VERSION"));
    let more = BTreeMap::from([("usr/share/sbom/xdp-ingress.cdx.json".to_owned(), bill)]);
    let program = (binary, "usr/bin/xdp-ingress");
    pack(&Image { file: "xdp-ingress", name: &name, program, arguments: &[], more })
}

fn pack(image: &Image) -> Result<()> {
    report::heading(&format!("image {}", image.name));
    let out = paths::image(image.file);
    if let Some(dir) = out.parent() {
        fs::create_dir_all(dir)?;
    }
    let (program, path) = image.program;
    let mut files = files((&without_lines(program, &out.with_extension("stripped"))?, path))?;
    files.extend(image.more.clone());
    for path in files.keys() {
        report::note(&format!("/{path}"));
    }
    let layer = layer::Layer::build(&files)?;
    let runs = (&*format!("/{}", image.program.1), image.arguments);
    let archive = oci::archive(&layer, runs, image.name)?;
    fs::write(&out, &archive.bytes).with_context(|| format!("cannot write {}", out.display()))?;
    report::note(&format!(
        "{} ({} bytes, manifest {})",
        out.display(),
        archive.bytes.len(),
        archive.manifest
    ));
    Ok(())
}

/// Puts `program` to `out` without its line tables, which are most of it; the names of functions stay, for backtraces and
/// profilers. `strip` comes with the linker.
fn without_lines(program: &Path, out: &Path) -> Result<PathBuf> {
    process::output(Command::new("strip").args(["--strip-debug", "-o"]).args([out, program]))
        .context("taking the line tables out of the program")?;
    Ok(out.to_owned())
}

/// Path in the image → file on this machine: the program and what it loads.
fn files((binary, path): (&Path, &str)) -> Result<BTreeMap<String, PathBuf>> {
    let libraries = match process::output(Command::new("ldd").arg(binary)) {
        // So it says of Go's, with an exit status of 1.
        Err(error) if error.to_string().contains("not a dynamic executable") => String::new(),
        libraries => libraries.context("asking for the binary's libraries")?,
    };
    let mut files = BTreeMap::from([(path.to_owned(), binary.to_owned())]);
    for library in libraries_in(&libraries)? {
        let path = PathBuf::from(&library);
        files.insert(library.trim_start_matches('/').to_owned(), path);
    }
    Ok(files)
}

/// The files that `ldd` names, the loader included; a static binary has none.
fn libraries_in(ldd: &str) -> Result<Vec<String>> {
    if let Some(line) = ldd.lines().find(|line| line.contains("not found")) {
        bail!("a library of the binary is missing: {}", line.trim());
    }
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(str::to_owned);
    Ok(ldd.lines().filter_map(path).collect())
}

#[cfg(test)]
mod tests {
    use super::libraries_in;

    #[test]
    fn libraries_and_the_loader_are_read_from_ldd() {
        let ldd = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x00007f)\n\t/lib64/ld.so.2 (0x7)\n";
        assert_eq!(libraries_in(ldd).expect("complete"), ["/lib/x/libc.so.6", "/lib64/ld.so.2"]);
        assert_eq!(libraries_in("\tstatically linked\n").expect("static"), Vec::<String>::new());
        assert!(libraries_in("\tlibz.so => not found\n").is_err());
    }
}
