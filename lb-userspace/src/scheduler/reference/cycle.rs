//! rr and wrr.

use super::Server;

/// The pointer: the server chosen last, None for the head of the list.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rr(Option<u32>);

fn place(list: &[Server], id: Option<u32>) -> Option<usize> {
    id.and_then(|id| list.iter().position(|server| server.entry.id == id))
}

impl Rr {
    pub(super) fn choose(&mut self, list: &[Server]) -> Option<usize> {
        let pointer = place(list, self.0);
        let rest = pointer.map_or(0, |at| at + 1)..list.len();
        let again = 0..pointer.map_or(0, |at| at + 1);
        let at = rest.chain(again).find(|&at| list[at].is_ok())?;
        self.0 = Some(list[at].entry.id);
        Some(at)
    }

    /// `at` is about to be removed.
    pub(super) fn removed(&mut self, list: &[Server], at: usize) {
        if place(list, self.0) == Some(at) {
            self.0 = if at == 0 { None } else { Some(list[at - 1].entry.id) };
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wrr {
    /// The server chosen last, None for the head of the list.
    cl: Option<u32>,
    cw: i64,
    mw: i64,
    di: i64,
}

impl Wrr {
    /// After any edit.
    pub(super) fn edited(&mut self, list: &[Server]) {
        let weights = || list.iter().map(|server| i64::from(server.weight())).filter(|&weight| weight > 0);
        self.cl = None;
        // The greatest number that divides all of them, found the slow way.
        let largest = weights().max().unwrap_or(0);
        let smallest = weights().min().unwrap_or(1);
        self.di = (1..=smallest).rev().find(|di| weights().all(|weight| weight % di == 0)).unwrap_or(1);
        self.mw = if largest == 0 { 0 } else { largest - (self.di - 1) };
        if self.cw > self.mw || self.cw == 0 {
            self.cw = self.mw;
        } else if self.di > 1 {
            self.cw = self.cw / self.di * self.di + 1;
        }
    }

    pub(super) fn choose(&mut self, list: &[Server]) -> Option<usize> {
        if self.mw == 0 {
            return None;
        }
        let start = place(list, self.cl);
        let mut stop = None;
        let (mut last_pass, mut restarted) = (false, false);
        let mut from = start.map_or(0, |at| at + 1);
        loop {
            for (at, server) in list.iter().enumerate().skip(from) {
                if !server.load.overloaded && i64::from(server.weight()) >= self.cw {
                    self.cl = Some(server.entry.id);
                    return Some(at);
                }
                if stop == Some(at) {
                    return None;
                }
            }
            from = 0;
            self.cw -= self.di;
            if self.cw <= 0 {
                self.cw = self.mw;
                if last_pass || start.is_none() {
                    self.cl = None;
                    return None;
                }
                restarted = true;
            }
            last_pass = self.cw <= self.di;
            if last_pass && restarted {
                stop = start;
            }
        }
    }
}
