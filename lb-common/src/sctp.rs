//! SCTP states and chunk events, IPVS's INPUT-ONLY table.

/// Association states under IPVS's numbers.
pub mod state {
    pub const NONE: u8 = 0;
    pub const INIT1: u8 = 1;
    pub const INIT: u8 = 2;
    pub const ESTABLISHED: u8 = 8;
    pub const CLOSED: u8 = 13;

    pub const NAMES: [&str; 14] = [
        "NONE",
        "INIT1",
        "INIT",
        "C-SENT",
        "C-REPLIED",
        "C-WAIT",
        "COOKIE",
        "C-ECHOED",
        "ESTABLISHED",
        "S-SENT",
        "S-RECEIVED",
        "S-ACK-SENT",
        "REJECTED",
        "CLOSED",
    ];
}

/// Chunk types (RFC 9260 §3.2) that move an association.
pub mod chunk {
    pub const INIT: u8 = 1;
    pub const INIT_ACK: u8 = 2;
    pub const ABORT: u8 = 6;
    pub const SHUTDOWN: u8 = 7;
    pub const SHUTDOWN_ACK: u8 = 8;
    pub const ERROR: u8 = 9;
    pub const COOKIE_ECHO: u8 = 10;
    pub const COOKIE_ACK: u8 = 11;
    pub const SHUTDOWN_COMPLETE: u8 = 14;
}

const fn pack(next: [u8; 14]) -> u64 {
    let mut word = 0;
    let mut i = 0;
    while i < 14 {
        word |= (next[i] as u64) << (4 * i);
        i += 1;
    }
    word
}

const NO: u8 = 0;
const I1: u8 = 1;
const IN: u8 = 2;
const CS: u8 = 3;
const CR: u8 = 4;
const CW: u8 = 5;
const CO: u8 = 6;
const CE: u8 = 7;
const ES: u8 = 8;
const SS: u8 = 9;
const SR: u8 = 10;
const SA: u8 = 11;
const RJ: u8 = 12;
const CL: u8 = 13;

//                                 NO  I1  IN  CS  CR  CW  CO  CE  ES  SS  SR  SA  RJ  CL
const DATA: u64 = pack([ES, I1, IN, CS, CR, ES, CO, CE, ES, SS, SR, SA, RJ, CL]);
const INIT: u64 = pack([I1, IN, IN, IN, IN, IN, CO, CE, ES, SS, SR, SA, IN, IN]);
const INIT_ACK: u64 = pack([CE, CE, CE, CE, CE, CE, CO, CE, ES, SS, SR, SA, RJ, CL]);
const COOKIE_ECHO: u64 = pack([ES, ES, ES, ES, ES, ES, CO, CE, ES, SS, SR, SA, RJ, CL]);
const COOKIE_ACK: u64 = pack([ES, I1, IN, ES, ES, CW, ES, ES, ES, SS, SR, SA, RJ, CL]);
const SHUTDOWN: u64 = pack([SR, I1, IN, CS, CR, CW, CO, CE, SR, SS, SR, SA, RJ, CL]);
const SHUTDOWN_ACK: u64 = pack([CL, IN, IN, CS, CR, CW, CO, CE, CL, CL, SR, CL, RJ, CL]);
const SHUTDOWN_COMPLETE: u64 = pack([CL, CL, CL, CL, CL, CW, CO, CE, ES, SS, CL, CL, RJ, CL]);
const ERROR: u64 = pack([CL, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL]);
const ABORT: u64 = pack([CL, CL, CL, CL, CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL]);

/// The state after a client's packet whose first chunk (or, after COOKIE-ECHO and COOKIE-ACK, a bundled ABORT) is
/// `chunk`.
#[inline(always)]
pub const fn next(current: u8, chunk: u8) -> u8 {
    let table = match chunk {
        chunk::INIT => INIT,
        chunk::INIT_ACK => INIT_ACK,
        chunk::COOKIE_ECHO => COOKIE_ECHO,
        chunk::COOKIE_ACK => COOKIE_ACK,
        chunk::SHUTDOWN => SHUTDOWN,
        chunk::SHUTDOWN_ACK => SHUTDOWN_ACK,
        chunk::SHUTDOWN_COMPLETE => SHUTDOWN_COMPLETE,
        chunk::ERROR => ERROR,
        chunk::ABORT => ABORT,
        _ => DATA,
    };
    ((table >> (4 * (current & 15))) & 15) as u8
}

/// Only an established association counts as active.
#[inline(always)]
pub const fn is_active(state: u8) -> bool {
    state == state::ESTABLISHED
}

/// Default idle timeouts, in seconds, by state.
pub const TIMEOUTS: [u32; 14] = [2, 4, 61, 61, 61, 61, 61, 61, 900, 61, 61, 61, 4, 61];

const _: () = assert!(NO == state::NONE && I1 == state::INIT1 && IN == state::INIT && CL == state::CLOSED);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_association_is_established_by_the_cookie_echo() {
        let s = next(state::NONE, chunk::INIT);
        assert_eq!(s, state::INIT1);
        let s = next(s, chunk::COOKIE_ECHO);
        assert_eq!(s, state::ESTABLISHED);
        assert_eq!(next(s, chunk::ABORT), state::CLOSED);
    }
}
