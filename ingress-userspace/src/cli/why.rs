//! `xdp-ingress why`: what this node's XDP front would do with a packet, and why.

use std::fmt::Write as _;
use std::net::SocketAddr;

use anyhow::Context as _;
use clap::Args;
use http::Method;

use super::Output;
use super::client::{self, DaemonArgs};
use super::table::Table;
use crate::l4::{Answer, Question};

/// `xdp-ingress why`.
#[derive(Debug, Clone, Args)]
pub struct WhyArgs {
    #[command(flatten)]
    daemon: DaemonArgs,
    /// The client's address and port.
    #[arg(value_name = "SRC:PORT")]
    source: SocketAddr,
    /// The VIP and its port.
    #[arg(value_name = "VIP:PORT")]
    vip: SocketAddr,
    /// The first packet of a connection (default).
    #[arg(long, conflicts_with = "ack")]
    syn: bool,
    /// A later packet of a connection.
    #[arg(long)]
    ack: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// Asks the daemon and prints its answer.
pub fn why(arguments: &WhyArgs) -> anyhow::Result<()> {
    let packet = if arguments.ack { "ack" } else { "syn" };
    let path = format!("/why?{},{},{packet}", arguments.source, arguments.vip);
    let body = client::ask(&arguments.daemon, Method::GET, &path)?;
    match arguments.output {
        Output::Json => super::say(&body),
        Output::Table => {
            let answer = serde_json::from_str(&body).context(
                "the daemon's answer is not what this version expects; `-o json` shows it as it is",
            )?;
            super::say(render(&answer).trim_end());
        }
    }
    Ok(())
}

/// The other end of [`why`]'s question: what stands behind `?`.
pub(crate) fn parse(query: &str) -> Option<Question> {
    let mut parts = query.split(',');
    let (source, vip) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let is_syn = match parts.next()? {
        "syn" => true,
        "ack" => false,
        _ => return None,
    };
    parts.next().is_none().then_some(Question { source, vip, is_syn })
}

fn render(answer: &Answer) -> String {
    let mut text = String::new();
    let Question { source, vip, is_syn } = answer.question;
    let packet = if is_syn { "a SYN" } else { "an ACK" };
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{packet} from {source} to {vip}, as it would arrive at node {}:", answer.node);
    if !answer.is_vip {
        let _ = writeln!(text, "{vip} is no VIP of this node; `xdp-ingress status` lists them");
    }
    if let Some(owner) = &answer.owner {
        let _ =
            writeln!(text, "packets to the VIP arrive at its owner, node {owner}, where no router chooses");
    }
    let _ = writeln!(text, "slot {}", answer.slot);
    let mut table = Table::new(["RANK", "CANDIDATE", "STATE"]);
    for (rank, candidate) in (1..).zip(&answer.candidates) {
        let name = if candidate.is_self {
            format!("{} (this node)", candidate.name)
        } else {
            candidate.name.clone()
        };
        table.row([rank.to_string(), name, candidate.state.to_string()]);
    }
    table.print(&mut text);
    let remembered = answer.remembered.as_deref().unwrap_or("nothing");
    let _ = writeln!(text, "\nflow table: {remembered}");
    let decision = match (&answer.to, answer.is_drop) {
        (_, true) => "dropped".to_owned(),
        (Some(to), _) if *to == answer.node => "to this node's own TCP stack".to_owned(),
        (Some(to), _) => format!("to node {to}"),
        (None, _) => "to this node's own kernel, untouched".to_owned(),
    };
    let _ = writeln!(text, "decision: {decision}");
    let _ = writeln!(text, "reason: {} ({})", answer.reason, sentence(&answer.reason));
    if answer.is_cookie {
        text.push_str(
            "many SYNs arrive: if the listener's queue is full, it is answered with a cookie in XDP\n",
        );
    }
    text
}

/// What a reason means, for those that a TCP packet to a VIP can have.
fn sentence(reason: &str) -> &'static str {
    match reason {
        "not_ours" => "it is for no VIP, so it passes",
        "forward_flow" => "the flow table knows its node",
        "forward_new" => "the first candidate that takes new connections gets it",
        "forward_walk" => {
            "no socket for it here, and nothing is remembered: the candidates are asked one after the other"
        }
        "local_new" => "this node is the first candidate that takes new connections",
        "local_socket" => "its connection is here",
        "local_alone" => "no other node can take it",
        "local_unknown" => "no candidate has its connection, so it is answered with a RST",
        "pass_not_ready" => "the maps are not filled by this version yet",
        "drop_hop_limit" => "its hop limit allows no hand-over",
        "drop_denied" => "the source is in the VIP's deny list",
        "drop_not_allowed" => "the VIP has an allow list, and the source is not in it",
        "drop_source_rate" => "the source opens more connections than the VIP allows",
        _ => "see the list of verdicts in docs/operations.md",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::l4::{CandidateStatus, Standing};

    #[test]
    fn renders_for_people() {
        let candidate =
            |name: &str, state, is_self| CandidateStatus { name: name.to_owned(), state, is_self };
        let answer = Answer {
            question: parse("[2001:db8::7]:40000,[2001:db8::1]:443,syn").unwrap(),
            node: "a".to_owned(),
            is_vip: true,
            owner: Some("a".to_owned()),
            slot: 513,
            candidates: vec![
                candidate("b", Standing::Draining, false),
                candidate("a", Standing::Serving, true),
                candidate("c", Standing::Serving, false),
            ],
            remembered: None,
            reason: "local_new".to_owned(),
            is_drop: false,
            to: Some("a".to_owned()),
            is_cookie: false,
        };
        let text = render(&answer);
        for line in [
            "a SYN from [2001:db8::7]:40000 to [2001:db8::1]:443, as it would arrive at node a:",
            "slot 513",
            "2     a (this node)  serving",
            "flow table: nothing",
            "decision: to this node's own TCP stack",
            "reason: local_new (this node is the first candidate that takes new connections)",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n---\n{text}");
        }
    }

    #[test]
    fn broken_questions() {
        for query in [
            "",
            "1.2.3.4:1",
            "1.2.3.4:1,1.2.3.5:80",
            "1.2.3.4:1,1.2.3.5:80,fin",
            "x,y,syn",
            "1.2.3.4:1,1.2.3.5:80,syn,",
        ] {
            assert_eq!(parse(query), None, "{query}");
        }
        let question = parse("1.2.3.4:1,1.2.3.5:80,ack").unwrap();
        assert!(!question.is_syn);
    }
}
