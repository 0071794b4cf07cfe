//! The schedulers that compare all servers and keep no state.

use super::Server;

/// Overhead, 32 bits as in IPVS.
pub(super) fn ovh(server: &Server, since_2026: bool) -> u32 {
    let (active, inactive) = (server.load.active, server.load.inactive);
    let second = if since_2026 { active.wrapping_add(inactive) } else { inactive };
    active.wrapping_mul(256).wrapping_add(second)
}

/// Index of the first server of which no later one is `better`.
fn best(
    list: &[Server],
    admit: impl Fn(&Server) -> bool,
    better: impl Fn(&Server, &Server) -> bool,
) -> Option<usize> {
    let mut best: Option<usize> = None;
    for (at, server) in list.iter().enumerate() {
        if admit(server) && best.is_none_or(|held| better(server, &list[held])) {
            best = Some(at);
        }
    }
    best
}

pub(super) fn lc(list: &[Server], since_2026: bool) -> Option<usize> {
    best(list, Server::is_ok, |d, least| ovh(d, since_2026) < ovh(least, since_2026))
}

pub(super) fn wlc(list: &[Server], since_2026: bool) -> Option<usize> {
    best(list, Server::is_ok, |d, least| cheaper(d, least, |server| ovh(server, since_2026)))
}

/// True if `cost(d) / weight(d)` is below `cost(least) / weight(least)`.
pub(super) fn cheaper(d: &Server, least: &Server, cost: impl Fn(&Server) -> u32) -> bool {
    u64::from(cost(least)) * u64::from(d.weight()) > u64::from(cost(d)) * u64::from(least.weight())
}

pub(super) fn sed(list: &[Server]) -> Option<usize> {
    best(list, Server::is_ok, |d, least| cheaper(d, least, |server| server.load.active + 1))
}

pub(super) fn nq(list: &[Server]) -> Option<usize> {
    list.iter().position(|server| server.is_ok() && server.load.active == 0).or_else(|| sed(list))
}

pub(super) fn fo(list: &[Server]) -> Option<usize> {
    best(list, Server::is_ok, |d, heaviest| d.weight() > heaviest.weight())
}

pub(super) fn ovf(list: &[Server]) -> Option<usize> {
    let has_room = |server: &Server| server.is_ok() && server.load.active <= server.weight();
    best(list, has_room, |d, heaviest| d.weight() > heaviest.weight())
}

pub(super) fn twos(list: &[Server], since_2026: bool, draw: &mut dyn FnMut(u64) -> u64) -> Option<usize> {
    let total = list.iter().filter(|server| server.is_ok()).map(|server| u64::from(server.weight())).sum();
    let choice = |mut r: i64| {
        list.iter().position(|server| {
            if server.is_ok() {
                r -= i64::from(server.weight());
            }
            server.is_ok() && r <= 0
        })
    };
    let (r1, r2) = (draw(total) as i64, draw(total) as i64);
    let (c1, c2) = (choice(r1)?, choice(r2)?);
    let product = |weight: usize, cost: usize| {
        (list[weight].weight() as i32).wrapping_mul(ovh(&list[cost], since_2026) as i32)
    };
    Some(if product(c2, c1) > product(c1, c2) { c2 } else { c1 })
}
