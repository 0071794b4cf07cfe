//! What happened to packets: one numbered list of reasons, and counters per server.

/// Per server and CPU. Written by the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counters {
    /// Flows scheduled; with one-packet scheduling, packets.
    pub connections: u64,
    /// Packets from clients.
    pub packets: u64,
    /// Their bytes from the IP header on, without Ethernet and tunnel headers.
    pub bytes: u64,
}

/// A numbered list of reasons, each with the verdict that goes with it and the name of its counter.
macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $kind:ident $text:literal,)*) => {
        /// Why a packet ended as it did. Every packet is counted under exactly one; the index of its per-CPU counter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            pub const ALL: &[Reason] = &[$(Reason::$name,)*];

            /// The verdict that goes with the reason.
            #[inline(always)]
            pub const fn verdict(self) -> $crate::counters::Verdict {
                match self {
                    $(Reason::$name => $crate::counters::Verdict::$kind,)*
                }
            }

            /// Name of the counter.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Reason::$name => $text,)*
                }
            }
        }

        /// Number of reasons, and entries of their map.
        pub const REASONS: usize = Reason::ALL.len();
    };
}

pub(crate) use reasons;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// To a real server out of the interface it came in by.
    Transmit,
    /// To a real server out of another interface.
    Redirect,
    /// Turned into an ICMP error for its sender.
    Reply,
    /// To the local stack, untouched.
    Pass,
    Drop,
}

reasons! {
    /// Sent to a real server by the interface it came in by.
    Transmitted = Transmit "transmitted",
    /// Sent to a real server by another interface.
    Redirected = Redirect "redirected",

    /// No server could be chosen: ICMP port unreachable.
    RepliedNoDestination = Reply "replied_no_destination",
    /// Time to live used up: ICMP time exceeded.
    RepliedTtl = Reply "replied_ttl_exceeded",
    /// Larger than the path to the server: fragmentation needed or packet too big.
    RepliedTooBig = Reply "replied_too_big",
    /// An error about one of our own tunnel packets, told on to the client.
    RepliedTunnelError = Reply "replied_tunnel_error",

    /// Neither IPv4 nor IPv6.
    PassedNotIp = Pass "passed_not_ip",
    /// A transport protocol the director does not balance, or ICMP that is no error about a flow.
    PassedProtocol = Pass "passed_protocol",
    /// Not for a virtual service.
    PassedNoService = Pass "passed_no_service",
    /// Headers cut short or not well formed; the stack's to judge.
    PassedMalformed = Pass "passed_malformed",
    /// The first packet of a TCP or SCTP conversation that does not open one.
    PassedNotOpening = Pass "passed_not_opening",
    /// From port 20, FTP data, which IPVS never schedules.
    PassedFtpData = Pass "passed_ftp_data",
    /// An ICMP error that belongs to no flow.
    PassedIcmp = Pass "passed_icmp",
    /// The chosen real server is the director itself.
    PassedLocal = Pass "passed_local_server",
    /// A later fragment of a datagram whose first was not forwarded, for an address that is not a VIP.
    PassedFragment = Pass "passed_fragment",

    /// No server could be chosen, and the service or the ICMP limit says to be silent.
    DroppedNoDestination = Drop "dropped_no_destination",
    /// The flow's real server was removed.
    DroppedServerGone = Drop "dropped_server_gone",
    /// The real server's next hop is not known.
    DroppedUnreachable = Drop "dropped_next_hop_unknown",
    /// Time to live used up, over the ICMP limit or about an ICMP error.
    DroppedTtl = Drop "dropped_ttl_exceeded",
    /// Larger than the path, over the ICMP limit.
    DroppedTooBig = Drop "dropped_too_big",
    /// Its source is on the deny list.
    DroppedDenied = Drop "dropped_denied",
    /// Its source opens more flows than allowed.
    DroppedSourceLimit = Drop "dropped_source_limit",
    /// A later fragment that came before its first, or too late.
    DroppedFragment = Drop "dropped_fragment",
    /// The driver had no room for headers.
    DroppedNoRoom = Drop "dropped_no_room",
    /// A part of the program was missing: it is being replaced.
    DroppedNoStage = Drop "dropped_program_incomplete",
    /// An error about one of our own tunnel packets that was noted or has nobody to go to.
    DroppedTunnelError = Drop "dropped_tunnel_error",
}

/// Things worth counting that are not a packet's end; entries of their per-CPU map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Note {
    /// A flow found both of its buckets full and went to the spill map.
    Spilled = 0,
    /// A flow could not be remembered anywhere: forwarded by plan alone.
    NotRemembered = 1,
    /// A new flow over the limit: forwarded by plan alone.
    OverAdmission = 2,
    /// A half-open flow gave its place to a newer one.
    EvictedHalfOpen = 3,
    /// A flow two CPUs opened at once.
    Twin = 4,
    /// A destination could not be remembered by lblc or lblcr.
    LocalityFull = 5,
}

impl Note {
    pub const ALL: &[Note] = &[
        Note::Spilled,
        Note::NotRemembered,
        Note::OverAdmission,
        Note::EvictedHalfOpen,
        Note::Twin,
        Note::LocalityFull,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Note::Spilled => "flows_spilled",
            Note::NotRemembered => "flows_not_remembered",
            Note::OverAdmission => "flows_over_admission",
            Note::EvictedHalfOpen => "flows_evicted_half_open",
            Note::Twin => "flows_opened_twice",
            Note::LocalityFull => "locality_full",
        }
    }
}

pub const NOTES: usize = Note::ALL.len();
