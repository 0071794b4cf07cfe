use std::net::IpAddr;

use lb_common::counters::{self, Note, Reason};
use serde::{Deserialize, Serialize};

/// What happened to packets, since the maps were made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Every packet is counted under exactly one.
    pub reasons: Vec<ReasonCount>,
    /// What is worth counting besides.
    pub notes: Vec<NoteCount>,
    /// In the order of the configuration.
    pub servers: Vec<ServerCount>,
}

/// Packets that ended for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonCount {
    /// Reads as a sentence: `dropped_server_gone`.
    pub name: String,
    pub verdict: Verdict,
    pub packets: u64,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// To a real server out of the interface it came in by.
    Transmit,
    /// To a real server out of another interface.
    Redirect,
    /// Turned into an ICMP error for its sender.
    Reply,
    /// To the local stack.
    Pass,
    Drop,
}

impl From<counters::Verdict> for Verdict {
    fn from(verdict: counters::Verdict) -> Self {
        match verdict {
            counters::Verdict::Transmit => Self::Transmit,
            counters::Verdict::Redirect => Self::Redirect,
            counters::Verdict::Reply => Self::Reply,
            counters::Verdict::Pass => Self::Pass,
            counters::Verdict::Drop => Self::Drop,
        }
    }
}

/// How often something happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoteCount {
    pub name: String,
    pub times: u64,
}

/// Traffic of one real server of one virtual service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerCount {
    /// Name of the virtual service.
    pub service: String,
    /// RIP.
    pub server: IpAddr,
    /// Flows scheduled to it; with one-packet scheduling, packets.
    pub connections: u64,
    /// Packets from clients.
    pub packets: u64,
    /// Their bytes from the IP header on.
    pub bytes: u64,
}

/// Every reason with the packets `packets` gives it, in the datapath's order.
pub fn reason_counts(packets: impl Fn(Reason) -> u64) -> Vec<ReasonCount> {
    let count = |&reason: &Reason| ReasonCount {
        name: reason.name().to_owned(),
        verdict: reason.verdict().into(),
        packets: packets(reason),
    };
    Reason::ALL.iter().map(count).collect()
}

/// Every note with the times `times` gives it.
pub fn note_counts(times: impl Fn(Note) -> u64) -> Vec<NoteCount> {
    Note::ALL.iter().map(|&note| NoteCount { name: note.name().to_owned(), times: times(note) }).collect()
}
