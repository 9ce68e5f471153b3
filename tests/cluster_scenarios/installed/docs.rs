//! The commands in the docs, as a reader types them: every `sh` block of the pages for users is run here against the release
//! on the real cluster, or says why it cannot be.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use ingress_tests::paths;
use libtest_mimic::Trial;

use super::{
    scenario,
    world::{Installed, NAME},
};

/// The pages whose commands are meant.
const PAGES: [&str; 6] = [
    "docs/install.md",
    "docs/operations.md",
    "docs/address-pools.md",
    "docs/security.md",
    "docs/troubleshooting.md",
    "deploy/manifests/README.md",
];
/// Their blocks by page and heading, in the order of the page, and who runs them.
const BLOCKS: [(&str, &str, Runs); 9] = [
    ("docs/install.md", "With Helm", Runs::Here),
    ("docs/install.md", "k3s", Runs::Nowhere("it downloads k3s")),
    ("docs/install.md", "Talos", Runs::Here),
    ("docs/install.md", UPGRADE, Runs::Here),
    ("docs/install.md", UPGRADE, Runs::Here),
    ("docs/troubleshooting.md", "Troubleshooting", Runs::Here),
    ("docs/troubleshooting.md", "Problems, for machines", Runs::Here),
    ("docs/troubleshooting.md", "A node is to be taken out", Runs::Here),
    ("deploy/manifests/README.md", "Plain manifests", Runs::Here),
];
pub(super) const UPGRADE: &str = "Upgrade and uninstall";
/// What is not the same here: the release is there already, and names stand for something.
const HERE: [(&str, &str); 5] = [
    ("helm install ", "helm install --dry-run=server "),
    ("kubectl create namespace ", "kubectl create namespace --dry-run=client "),
    ("rollout status ", "rollout status --timeout=120s "),
    (" NAME", " web"),
    ("my-pool.yaml", "$HOME/my-pool.yaml"),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Runs {
    /// By a scenario of `installed`.
    Here,
    /// For this reason.
    Nowhere(&'static str),
}

pub(super) fn trials() -> Vec<Trial> {
    vec![scenario("docs::every_block_of_commands_is_run_or_says_why_not", all_are_known)]
}

fn all_are_known() -> Result<()> {
    let mut found = Vec::new();
    for page in PAGES {
        found.extend(blocks(page)?.into_iter().map(|(heading, _)| (page.to_owned(), heading)));
    }
    let known: Vec<_> =
        BLOCKS.iter().map(|(page, heading, _)| ((*page).to_owned(), (*heading).to_owned())).collect();
    ensure!(found == known, "the blocks of commands in the docs are {found:#?}, known are {known:#?}");
    for (page, heading, runs) in BLOCKS {
        if let Runs::Nowhere(why) = runs {
            println!("docs: {page}, `{heading}` is not run: {why}");
        }
    }
    Ok(())
}

/// Runs the `nth` block below that heading, each command with `more` for those that begin with the given word; what they print.
pub(super) fn run(
    installed: &Installed,
    (page, heading, nth): (&str, &str, usize),
    more: &[(&str, &str)],
) -> Result<String> {
    let is_known =
        |block: &&(&str, &str, Runs)| block.0 == page && block.1 == heading && block.2 == Runs::Here;
    ensure!(BLOCKS.iter().any(|block| is_known(&block)), "{page}, `{heading}` is not in the list");
    let mut blocks = blocks(page)?.into_iter().filter(|(at, _)| at == heading).map(|(_, commands)| commands);
    let commands = blocks.nth(nth).with_context(|| format!("{page} has no block {nth} at `{heading}`"))?;
    let pod = installed.pod_on(0).unwrap_or_default();
    let mut printed = String::new();
    for command in commands {
        let mut here = command.replace(" POD", &format!(" {pod}"));
        for (there, instead) in HERE {
            here = here.replace(there, instead);
        }
        for (_, words) in more.iter().filter(|(begin, _)| command.starts_with(begin)) {
            here = format!("{here} {words}");
        }
        let said = installed.kubernetes.shell(&here).with_context(|| format!("{page} says: {command}"))?;
        printed.push_str(&said);
    }
    Ok(printed)
}

/// Headings and the commands of the blocks below them; a command may go over several lines.
fn blocks(page: &str) -> Result<Vec<(String, Vec<String>)>> {
    let text = fs::read_to_string(paths::workspace().join(page)).with_context(|| page.to_owned())?;
    let (mut blocks, mut heading, mut block) = (Vec::new(), String::new(), None::<Vec<String>>);
    let mut begun = String::new();
    for line in text.lines() {
        match &mut block {
            None if line == "```sh" => block = Some(Vec::new()),
            None => {
                if let Some(title) = line.strip_prefix('#') {
                    title.trim_start_matches('#').trim().clone_into(&mut heading);
                }
            }
            Some(_) if line == "```" => blocks.extend(block.take().map(|block| (heading.clone(), block))),
            Some(commands) => {
                begun.push_str(line.trim());
                if let Some(part) = begun.strip_suffix('\\') {
                    begun = part.to_owned();
                } else if !begun.is_empty() && !begun.starts_with('#') {
                    commands.push(std::mem::take(&mut begun));
                } else {
                    begun.clear();
                }
            }
        }
    }
    Ok(blocks)
}

/// The pool of `deploy/manifests/examples` with addresses of the lab, where the docs' reader has put it.
pub(super) fn write_pool(installed: &Installed) -> Result<()> {
    let pool = fs::read_to_string(paths::workspace().join("deploy/manifests/examples/address-pool.yaml"))?;
    let (before, _) = pool.split_once("addresses:").context("the pool has addresses")?;
    let file = installed.kubernetes.home().join("my-pool.yaml");
    fs::write(&file, format!("{before}addresses: [10.77.0.100-10.77.0.103]\n"))
        .with_context(|| format!("writing {} for {NAME}", file.display()))
}
