//! Whether the host has the VIPs it balances.
//!
//! The program takes packets to a VIP whether the host has the address or not; but without it nobody answers ARP or
//! neighbour discovery for it here, so that such packets come only if a router sends them.

use crate::model::{Model, Selector};
use crate::netlink::{Netlink, NetlinkError, Route};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// More are counted, not named.
const NAMED: usize = 8;

/// Addresses of services of one VIP.
fn vips(model: &Model) -> BTreeSet<IpAddr> {
    let vip = |selector: &Selector| match selector {
        Selector::Vip { address, .. } => Some(*address),
        // Of a prefix, nobody says which addresses are in use.
        Selector::Matches(_) => None,
    };
    model.services.iter().filter_map(|service| vip(&service.selector)).collect()
}

/// The VIPs that are not addresses of this host, in words; `None` if all are.
///
/// # Errors
/// The kernel does not say.
pub(super) async fn missing(netlink: &Netlink, model: &Model) -> Result<Option<String>, NetlinkError> {
    let mut missing = Vec::new();
    for vip in vips(model) {
        if !matches!(netlink.route(vip, None).await?, Route::Local(_)) {
            missing.push(vip);
        }
    }
    Ok(named(&missing))
}

fn named(addresses: &[IpAddr]) -> Option<String> {
    let names: Vec<String> = addresses.iter().take(NAMED).map(ToString::to_string).collect();
    match addresses.len().saturating_sub(NAMED) {
        0 if names.is_empty() => None,
        0 => Some(names.join(", ")),
        more => Some(format!("{} and {more} more", names.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_are_named_and_the_rest_is_counted() {
        let addresses: Vec<IpAddr> = (1..=10).map(|n| IpAddr::from([192, 0, 2, n])).collect();
        assert_eq!(named(&[]), None);
        assert_eq!(named(&addresses[..2]).unwrap(), "192.0.2.1, 192.0.2.2");
        assert!(named(&addresses).unwrap().ends_with(", 192.0.2.8 and 2 more"));
    }
}
