//! What came of playing a recording.

use std::collections::BTreeMap;

/// Why something is not held against a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, strum::Display)]
pub enum LeftOut {
    /// An idle entry ends late in the kernel, by up to an eighth of its timeout's power of two.
    #[strum(to_string = "when an idle entry goes")]
    IdleEnd,
    /// A SYN reused a closed flow, which the kernel still counts until its next tick.
    #[strum(to_string = "a SYN that reuses a closed flow")]
    Reused,
    /// The host's own stack answered what recordings show of no host: not the director's doing.
    #[strum(to_string = "how the host's stack answers odd packets")]
    Stack,
    /// The frame did not get to the recorded director.
    #[strum(to_string = "frames that could not be sent")]
    NotSent,
    /// IPVS gives a template that cannot be used any more a key nobody asks for and lets it run out; here it is forgotten.
    #[strum(to_string = "templates that cannot be used any more")]
    UnusableTemplate,
    /// twos draws by lot; how often each server was chosen is compared instead.
    #[strum(to_string = "choices by lot, whose shares are compared")]
    Lot,
    /// Fragments: the kernel reassembles, an XDP director forwards them one by one.
    #[strum(to_string = "fragments, which IPVS reassembles first")]
    Fragments,
    /// A packet without DF that does not fit: the kernel fragments it, an XDP director tells its sender.
    #[strum(to_string = "packets too big, without DF, which IPVS fragments")]
    Fragmenting,
    /// The kernel's IP input drops what asks for a source route, before IPVS and with it the local stack see it.
    #[strum(to_string = "packets with a source route, which the recorded host drops on its own")]
    SourceRoute,
    /// Replies of a server on the director itself pass IPVS on their way out, and no XDP program.
    #[strum(to_string = "connections of a server on the director itself")]
    LocalReplies,
    /// An error about a tunnel packet that reports the path's MTU: believed at once and however little it quotes. IPVS
    /// tells the first client the MTU it had before, and of IPIP needs 48 bytes quoted.
    #[strum(to_string = "how soon an MTU told by a tunnel error counts")]
    TunnelMtu,
    /// Commands of the kernel's own tools, and measurements.
    #[strum(to_string = "shell commands and measurements")]
    Foreign,
    #[strum(to_string = "NAT, left for later")]
    Nat,
}

/// How many comparisons of one kind were made, and how they ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    pub all: u64,
    pub equal: u64,
    pub left_out: BTreeMap<LeftOut, u64>,
}

impl Compared {
    pub(super) fn count(&mut self, result: &Result<(), Wrong>) {
        self.all += 1;
        match result {
            Ok(()) => self.equal += 1,
            Err(Wrong::LeftOut(why)) => *self.left_out.entry(*why).or_default() += 1,
            Err(Wrong::Different(_)) => {}
        }
    }

    pub fn different(&self) -> u64 {
        self.all - self.equal - self.left_out.values().sum::<u64>()
    }

    pub fn add(&mut self, other: &Self) {
        self.all += other.all;
        self.equal += other.equal;
        for (why, count) in &other.left_out {
            *self.left_out.entry(*why).or_default() += count;
        }
    }
}

/// What came of a comparison that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    LeftOut(LeftOut),
    Different(String),
}

/// An event at which the director did something else.
#[derive(Clone, Debug)]
pub struct Difference {
    /// Index of the event; none for how things stood at the start.
    pub event: Option<usize>,
    pub op: String,
    pub what: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.event {
            Some(event) => write!(f, "#{event} {}: {}", self.op, self.what),
            None => write!(f, "{}: {}", self.op, self.what),
        }
    }
}

/// What came of playing a recording.
#[derive(Clone, Debug)]
pub struct Played {
    pub label: String,
    /// Where packets went and how, frame by frame sent.
    pub decisions: Compared,
    /// Frames that came out, byte for byte but for what the kernel draws at random.
    pub frames: Compared,
    /// Active and inactive connections of all servers after an event.
    pub counts: Compared,
    /// The connection table after an event that recorded it.
    pub conns: Compared,
    /// Exit statuses and texts of commands, lists of services.
    pub commands: Compared,
    pub differences: Vec<Difference>,
}

impl Played {
    pub(super) fn new(label: String) -> Self {
        Self {
            label,
            decisions: Compared::default(),
            frames: Compared::default(),
            counts: Compared::default(),
            conns: Compared::default(),
            commands: Compared::default(),
            differences: Vec::new(),
        }
    }
}
