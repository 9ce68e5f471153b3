//! The verifier accepts the object, with logging and without, and does not have to work harder than last time.

use anyhow::{Result, ensure};
use aya::EbpfLoader;
use ingress_common::abi::{self, GLOBAL_LOG};
use libtest_mimic::Trial;

use crate::{front::Front, trial};

/// Instructions that the verifier may walk through for `xdp_front`. The kernel's own limit is a million; ours is what it takes
/// today and some room for other compiler versions. Raise it knowingly.
const BUDGET: u32 = 120_000;
/// The same for the programs that the front calls, each.
const CALLED_BUDGET: u32 = 170_000;
/// The same for the program that only answers questions: no packet of a client's goes through it.
const QUESTION_BUDGET: u32 = 220_000;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("verifier::accepts_within_the_budget", accepts_within_the_budget),
        trial("verifier::accepts_with_logging", accepts_with_logging),
    ]
}

fn accepts_within_the_budget() -> Result<()> {
    let instructions = Front::load()?.verified_instructions()?;
    println!("xdp_front: the verifier walked through {instructions} instructions, budget {BUDGET}");
    ensure!(instructions <= BUDGET, "{instructions} instructions verified, {BUDGET} allowed");
    let front = Front::load()?;
    let called = abi::CALLED.into_iter().map(|name| (name, CALLED_BUDGET));
    for (name, budget) in called.chain([(abi::PROGRAM_WHY, QUESTION_BUDGET)]) {
        let instructions = front.verified_instructions_of(name)?;
        println!("{name}: the verifier walked through {instructions} instructions, budget {budget}");
        ensure!(instructions <= budget, "{name}: {instructions} verified, {budget} allowed");
    }
    Ok(())
}

fn accepts_with_logging() -> Result<()> {
    let mut loader = EbpfLoader::new();
    loader.override_global(GLOBAL_LOG, &1_u8, true);
    Front::load_with(&mut loader)?;
    Ok(())
}
