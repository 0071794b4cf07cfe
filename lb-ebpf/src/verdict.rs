//! How a packet's journey ends.

use lb_common::counters::Reason;

/// On its way: which interface it leaves by. The one it came in by means TX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarded {
    pub ifindex: u32,
}

/// The journey ends here, for this reason; what becomes of the packet is the reason's verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    pub reason: Reason,
    /// For a reason whose verdict is a reply: what its sender is told.
    pub error: IcmpError,
}

/// An ICMP error's type and code, and the four bytes behind its checksum as on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IcmpError {
    pub kind: u8,
    pub code: u8,
    pub rest: u32,
}

impl Stop {
    #[inline(always)]
    pub const fn new(reason: Reason) -> Self {
        Self { reason, error: IcmpError { kind: 0, code: 0, rest: 0 } }
    }

    #[inline(always)]
    pub const fn reply(reason: Reason, error: IcmpError) -> Self {
        Self { reason, error }
    }
}

impl From<Reason> for Stop {
    #[inline(always)]
    fn from(reason: Reason) -> Self {
        Self::new(reason)
    }
}

/// For `ok_or`: the packet is cut short or contradicts itself before anybody knows that it is for a VIP.
pub const MALFORMED: Stop = Stop::new(Reason::PassedMalformed);
