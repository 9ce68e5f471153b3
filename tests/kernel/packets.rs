//! The packet tables of `ingress_tests::packets` through the real program: same packets, same verdicts, same bytes.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, bail, ensure};
use ingress_common::steer::Action;
use ingress_tests::packets::{self, Case};
use libtest_mimic::Trial;

use crate::{connections::Connection, front::Front, trial};

/// Verdict codes of the kernel (`enum xdp_action`).
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;

pub(crate) fn trials() -> Vec<Trial> {
    let front = Arc::new(Mutex::new(None));
    let case = |case: Case| {
        let front = Arc::clone(&front);
        trial(&format!("packets::{}", case.name), move || {
            let mut front = front.lock().unwrap_or_else(PoisonError::into_inner);
            if front.is_none() {
                *front = Some(Front::load()?);
            }
            run(front.as_mut().context("just loaded")?, &case)
        })
    };
    packets::cases().into_iter().map(case).collect()
}

fn run(front: &mut Front, case: &Case) -> Result<()> {
    front.clear()?;
    front.fill(&case.world)?;
    let tuples4 = case.world.sockets4.iter().map(Connection::open);
    let tuples6 = case.world.sockets6.iter().map(Connection::open);
    let connections = tuples4.chain(tuples6).collect::<Result<Vec<_>>>()?;
    let ran = front.run(&case.packet)?;
    drop(connections);

    ensure!(ran.reason == case.reason, "reason {:?}, not {:?}", ran.reason, case.reason);
    let code = match case.action {
        Action::Pass => XDP_PASS,
        Action::Drop => XDP_DROP,
        Action::Transmit => XDP_TX,
        Action::Redirect => XDP_REDIRECT,
        Action::Encapsulate
        | Action::Detour
        | Action::Icmp
        | Action::Fragment
        | Action::TooBig
        | Action::Cookie => {
            bail!("no case ends half way")
        }
    };
    ensure!(ran.code == code, "verdict {}, not {code}", ran.code);
    if case.action != Action::Drop {
        ensure!(ran.packet == case.out, "packet\n{:02x?}\nnot\n{:02x?}", ran.packet, case.out);
    }
    let remembers = case.remembered(&front.flows(packets::FLOW_SETS)?);
    let pieces = packets::pieces(&front.fragments()?);
    let expected = case.expected_pieces();
    ensure!(pieces == expected, "pieces go to {pieces:?}, not {expected:?}");
    let heard = front.heard(case.world.nodes.len() as u32)?;
    ensure!(heard == case.hears, "heard {heard:?}, not {:?}", case.hears);
    ensure!(remembers == case.remembers, "remembers {remembers:?}, not {:?}", case.remembers);
    Ok(())
}
