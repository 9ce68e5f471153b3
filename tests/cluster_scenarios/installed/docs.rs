//! The commands in the docs, as a reader types them: every `sh` block of the pages for users, and every command that their
//! text names, is run here against the release on the real cluster, or says why it cannot be.

use std::{collections::BTreeSet, fs};

use anyhow::{Context as _, Result, ensure};
use ingress_tests::paths;
use libtest_mimic::Trial;

use super::{
    scenario,
    world::{Installed, NAME, with},
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
/// The commands in the text of all pages, in alphabetical order.
const IN_TEXT: [(&str, Runs); 21] = [
    ("kubectl -n xdp-ingress exec POD -- xdp-ingress …", Runs::Here),
    ("kubectl -n xdp-ingress get lease xdp-ingress -o yaml", Runs::Here),
    ("kubectl annotate node NAME xdp-ingress.io/weight=3", Runs::Here),
    ("kubectl auth can-i", Runs::Nowhere("it is the name of a table, which scenarios of their own have")),
    ("kubectl cordon NODE", Runs::Here),
    ("kubectl describe addresspool NAME", Runs::Here),
    ("kubectl drain --ignore-daemonsets", Runs::Here),
    ("kubectl get addresspools", Runs::Here),
    ("kubectl get ingress", Runs::Here),
    ("kubectl get ingressclass", Runs::Here),
    ("kubectl label node NODE node.kubernetes.io/exclude-from-external-load-balancers-", Runs::Here),
    ("kubectl label namespace xdp-ingress pod-security.kubernetes.io/enforce=privileged", Runs::Here),
    ("kubectl uncordon NODE", Runs::Here),
    ("kubectl wait --for=condition=Ready addresspool/default", Runs::Here),
    ("xdp-ingress cleanup", Runs::Nowhere("it refuses beside a daemon; scenarios of the lab run it")),
    ("xdp-ingress drain", Runs::Here),
    ("xdp-ingress status", Runs::Here),
    ("xdp-ingress top", Runs::Nowhere("it draws on a terminal until `q`")),
    ("xdp-ingress top --once", Runs::Here),
    ("xdp-ingress undrain", Runs::Here),
    ("xdp-ingress why 198.51.100.7:40000 192.0.2.10:443", Runs::Here),
];
/// What the names and addresses in them are here.
const IN_TEXT_HERE: [(&str, &str); 6] = [
    ("NODE", "node1"),
    ("node NAME", "node node1"),
    ("addresspool NAME", "addresspool default"),
    // Pods of other scenarios may be about to end.
    ("kubectl drain", "kubectl drain node1 --force"),
    ("…", "status"),
    ("192.0.2.10:", "10.77.0.100:"),
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
    vec![
        scenario("docs::every_block_of_commands_is_run_or_says_why_not", all_are_known),
        scenario("installed::commands_in_the_text_of_the_docs_work", in_text),
    ]
}

fn in_text() -> Result<()> {
    let mut found = BTreeSet::new();
    for page in PAGES {
        found.extend(commands_in_text(&read(page)?));
    }
    let known: BTreeSet<_> = IN_TEXT.iter().map(|(command, _)| (*command).to_owned()).collect();
    let (unknown, stale): (Vec<_>, Vec<_>) =
        (found.difference(&known).collect(), known.difference(&found).collect());
    ensure!(
        unknown.is_empty() && stale.is_empty(),
        "not in the list: {unknown:?}; no longer in the docs: {stale:?}"
    );
    with(|installed| {
        let pod = installed.pod_on(0)?;
        for (command, runs) in IN_TEXT {
            if let Runs::Nowhere(why) = runs {
                println!("docs: `{command}` is not run: {why}");
                continue;
            }
            let mut here = command.replace("POD", &pod);
            for (there, instead) in IN_TEXT_HERE {
                here = here.replace(there, instead);
            }
            if command.starts_with("xdp-ingress") {
                here = format!("kubectl -n {NAME} exec {pod} -- {here}");
            }
            installed.kubernetes.shell(&here).with_context(|| format!("the docs say: {command}"))?;
        }
        for undone in ["kubectl uncordon node1", "kubectl annotate node node1 xdp-ingress.io/weight-"] {
            installed.kubernetes.shell(undone)?;
        }
        Ok(())
    })
}

/// What stands between backticks outside of blocks, and begins like a command.
fn commands_in_text(page: &str) -> BTreeSet<String> {
    let mut commands = BTreeSet::new();
    let mut in_block = false;
    for line in page.lines() {
        in_block ^= line.starts_with("```");
        let spans = line.split('`').skip(1).step_by(2).filter(|_| !in_block);
        let begins =
            |span: &&str| ["kubectl ", "helm ", "xdp-ingress "].iter().any(|word| span.starts_with(word));
        commands.extend(spans.filter(begins).map(str::to_owned));
    }
    commands
}

fn read(page: &str) -> Result<String> {
    fs::read_to_string(paths::workspace().join(page)).with_context(|| page.to_owned())
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
    let text = read(page)?;
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
