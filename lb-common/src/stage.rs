//! The stages of a packet's path: programs behind the first, found in a program array by number.

/// The stages; their numbers are the places of their programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Stage {
    /// An ICMP error: which flow it is about.
    Icmp = 0,
    /// A flow's template is to be marked assured.
    Assure = 1,
    /// An unknown flow: which service it asks for, and whether it may; and on through the stages behind, as far as the
    /// program holds them.
    Open = 2,
    /// The service's scheduler picks a server; the kinds of plan that compare candidates each in a stage of their own.
    Choose = 3,
    Least = 4,
    Twos = 5,
    Locality = 6,
    /// The client is pinned to the choice.
    Pin = 7,
    /// The choice is remembered, and the packet sent on to it; by family, since the tables differ.
    Remember4 = 8,
    Remember6 = 9,
    /// On to the server that one of these found.
    Forward = 10,
    /// The packet is summed up for a tunnel with a checksum.
    Sum = 11,
    /// Into a tunnel.
    Tunnel = 12,
    /// The packet is turned into an ICMP error about itself.
    Reply = 13,
}

impl Stage {
    /// Every stage with the name of its program, in the order of their numbers.
    pub const ALL: [(Stage, &str); 14] = [
        (Stage::Icmp, "icmp"),
        (Stage::Assure, "assure"),
        (Stage::Open, "open"),
        (Stage::Choose, "choose"),
        (Stage::Least, "least"),
        (Stage::Twos, "twos"),
        (Stage::Locality, "locality"),
        (Stage::Pin, "pin"),
        (Stage::Remember4, "remember4"),
        (Stage::Remember6, "remember6"),
        (Stage::Forward, "forward"),
        (Stage::Sum, "sum"),
        (Stage::Tunnel, "tunnel"),
        (Stage::Reply, "reply"),
    ];
}
