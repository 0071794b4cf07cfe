//! TCP and SCTP as a director sees them that forwards by DR or TUN: only the client's packets.
//! The tables are IPVS's INPUT-ONLY ones, packed four bits a state.

/// TCP connection states under IPVS's numbers, as `ipvsadm -Lc` prints them.
pub mod state {
    pub const NONE: u8 = 0;
    pub const ESTABLISHED: u8 = 1;
    pub const SYN_SENT: u8 = 2;
    pub const SYN_RECV: u8 = 3;
    pub const FIN_WAIT: u8 = 4;
    pub const TIME_WAIT: u8 = 5;
    pub const CLOSE: u8 = 6;
    pub const CLOSE_WAIT: u8 = 7;
    pub const LAST_ACK: u8 = 8;
    pub const LISTEN: u8 = 9;
    pub const SYNACK: u8 = 10;

    pub const NAMES: [&str; 11] = [
        "NONE",
        "ESTABLISHED",
        "SYN_SENT",
        "SYN_RECV",
        "FIN_WAIT",
        "TIME_WAIT",
        "CLOSE",
        "CLOSE_WAIT",
        "LAST_ACK",
        "LISTEN",
        "SYNACK",
    ];
}

/// TCP header flags, byte 13 of the header (RFC 9293 §3.1).
pub mod flag {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const ACK: u8 = 0x10;
}

/// Packs next states, one per current state, lowest first.
const fn pack(next: [u8; 11]) -> u64 {
    let mut word = 0;
    let mut i = 0;
    while i < 11 {
        word |= (next[i] as u64) << (4 * i);
        i += 1;
    }
    word
}

use state::{
    CLOSE as CL, CLOSE_WAIT as CW, ESTABLISHED as ES, FIN_WAIT as FW, LAST_ACK as LA, LISTEN as LI,
    SYN_RECV as SR, SYN_SENT as SS, SYNACK as SA, TIME_WAIT as TW,
};

//                          NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA
const SYN: u64 = pack([SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR]);
const FIN: u64 = pack([CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW]);
const ACK: u64 = pack([ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES]);
const RST: u64 = pack([CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL]);
/// With `secure_tcp` on, a SYN leads to SYNACK from every state but SYN_RECV, ESTABLISHED and SYN_SENT.
const SYN_SECURE: u64 = pack([SA, ES, ES, SR, SA, SA, SA, SA, SA, SA, SA]);

/// The state after a client's packet with these TCP flags. RST counts before SYN, SYN before FIN, FIN before ACK; a
/// packet with none of them closes.
#[inline(always)]
pub const fn next(current: u8, flags: u8, secure: bool) -> u8 {
    let table = if flags & flag::RST != 0 {
        RST
    } else if flags & flag::SYN != 0 {
        if secure { SYN_SECURE } else { SYN }
    } else if flags & flag::FIN != 0 {
        FIN
    } else if flags & flag::ACK != 0 {
        ACK
    } else {
        return CL;
    };
    ((table >> (4 * (current & 15))) & 15) as u8
}

/// States whose connections count as active: ESTABLISHED, SYN_SENT, SYN_RECV, SYNACK.
#[inline(always)]
pub const fn is_active(state: u8) -> bool {
    const ACTIVE: u32 = 1 << ES | 1 << SS | 1 << SR | 1 << SA;
    ACTIVE >> (state & 15) & 1 != 0
}

/// Default idle timeouts, in seconds, by state.
pub const TIMEOUTS: [u32; 11] = [2, 900, 120, 60, 120, 120, 10, 60, 30, 120, 120];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_direct_routed_connection_is_seen_from_one_side() {
        let mut s = state::NONE;
        for (flags, want) in [
            (flag::SYN, state::SYN_RECV),
            (flag::RST, state::SYN_RECV),
            (flag::ACK, state::ESTABLISHED),
            (flag::FIN | flag::ACK, state::FIN_WAIT),
            (flag::ACK, state::FIN_WAIT),
            (flag::RST, state::CLOSE),
            (flag::ACK, state::CLOSE),
            (flag::SYN | flag::ACK, state::SYN_RECV),
        ] {
            s = next(s, flags, false);
            assert_eq!(s, want, "after flags {flags:#x}");
        }
        assert_eq!(next(state::ESTABLISHED, 0, false), state::CLOSE);
    }

    #[test]
    fn secure_tcp_only_changes_where_a_syn_leads() {
        for current in 0..11 {
            for flags in [flag::FIN, flag::ACK, flag::RST, 0] {
                assert_eq!(next(current, flags, true), next(current, flags, false));
            }
        }
        assert_eq!(next(state::NONE, flag::SYN, true), state::SYNACK);
        assert_eq!(next(state::SYN_RECV, flag::SYN, true), state::SYN_RECV);
    }
}
