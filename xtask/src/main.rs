//! `cargo xtask VERB`: what a developer or CI runs. A table of contents: one file per verb, each of which says what
//! it does, calls what it needs of `setup`, and leaves its work in `target/xtask/`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod build;
mod build_ebpf;
mod ci;
mod cluster;
mod demo;
mod deny;
mod fuzz;
mod image;
mod lab;
mod process;
mod report;
mod setup;
mod test;
mod toolchain;

/// Everything that isn't `cargo build`: prerequisites, the BPF object, the lab, the demo, tests, benches, images.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what is missing: Debian packages, the sources of `core`, bpf-linker, Go, the Kubernetes binaries.
    Setup(setup::Args),
    /// Build the BPF object (target/xtask/xdp-ingress.bpf.o).
    BuildEbpf,
    /// Build the release binary with the BPF object inside (target/release/xdp-ingress).
    Build,
    /// Show it working: a client, a switch, three nodes and pods in network namespaces of this machine.
    Demo(demo::Args),
    /// The demo's lab for your own experiments: up, exec, down.
    Lab(lab::Args),
    /// A real Kubernetes with three nodes for your own experiments: up, kubectl, helm, down.
    Cluster(cluster::Args),
    /// Run the tests: all levels, or one; ends with `N passed, N failed`.
    Test(test::Args),
    /// The scenarios of ingress-controller-conformance on the real cluster; writes docs/conformance.md.
    Conformance(test::ConformanceArgs),
    /// Fuzz parsers, router, translation and steering, each for a bounded time.
    Fuzz(fuzz::Args),
    /// Measure: ns per packet, CPU per request, beside nginx and HAProxy.
    Bench(bench::Args),
    /// Pack the daemon as an OCI archive (target/xtask/images/xdp-ingress.tar), with its bill of materials beside it.
    Image(image::Args),
    /// What is checked before the tests: format, clippy, licences, bans, sources.
    Ci,
}

fn main() -> ExitCode {
    // The pods of a lab are this program, started again.
    ingress_tests::lab::run_if_asked();
    let result = match Cli::parse().verb {
        Verb::Setup(args) => setup::run(&args),
        Verb::BuildEbpf => build_ebpf::run(),
        Verb::Build => build::run(),
        Verb::Demo(args) => demo::run(&args),
        Verb::Lab(args) => lab::run(&args),
        Verb::Cluster(args) => cluster::run(&args),
        Verb::Test(args) => return test::run(&args),
        Verb::Conformance(args) => return test::conformance(&args),
        Verb::Fuzz(args) => fuzz::run(&args),
        Verb::Bench(args) => bench::run(&args),
        Verb::Image(args) => image::run(&args),
        Verb::Ci => ci::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not anyhow's own report: with RUST_BACKTRACE set it buries the sentence under a stack.
            eprintln!("cargo xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
