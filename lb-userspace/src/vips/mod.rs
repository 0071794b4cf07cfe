//! `vips: manage`: the director has its VIPs on its first interface, and tells its neighbours so.
//!
//! On the interface rather than on `lo`, because neighbour discovery answers for addresses of the interface asked alone,
//! and ARP does where `arp_ignore` is set. What was there before is left: only what a daemon added is removed. The kernel
//! keeps with an address who added it, so that this is known whatever became of that daemon.

mod announce;

use crate::model::{Model, Selector, VipOwner};
use crate::netlink::{Added, Address, Mac, Netlink, NetlinkError};
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::time::Duration;
use tokio::task::JoinHandle;
use tracing::{info, warn};

pub use announce::frame;

/// Rounds of announcements, one lost on the way being likely, and the pause between them (RFC 4861 §10:
/// MAX_NEIGHBOR_ADVERTISEMENT, RetransTimer).
const ROUNDS: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);

/// Who added a VIP, as the kernel keeps it with the address (`proto` of `ip address`). Of the numbers nobody has
/// claimed, the letter L.
pub const PROTOCOL: u8 = b'L';

/// An address on an interface, by index.
pub type Place = (u32, IpAddr);

/// Why the VIPs are not as they should be. What was done stays; asking again goes on.
#[derive(Debug, thiserror::Error)]
pub enum VipError {
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error("there is no interface {0} to give the VIPs to")]
    NoInterface(String),
    #[error("announcing VIPs on {interface}")]
    Announce {
        interface: String,
        #[source]
        source: io::Error,
    },
}

/// What has to change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    pub add: Vec<Place>,
    pub remove: Vec<Place>,
}

/// What makes `present` hold `wanted`, and nothing any more that is `ours` and not wanted.
pub fn diff(wanted: &BTreeSet<Place>, present: &BTreeSet<Place>, ours: &BTreeSet<Place>) -> Diff {
    Diff {
        add: wanted.difference(present).copied().collect(),
        remove: ours.difference(wanted).filter(|place| present.contains(place)).copied().collect(),
    }
}

/// Addresses the services of a model are for. A wider prefix is no address; it has to be routed to this host.
pub fn addresses(model: &Model) -> BTreeSet<IpAddr> {
    let of = |selector: &Selector| {
        let matches = selector.matches().into_iter().map(|entry| entry.prefix);
        let single = matches.filter(|prefix| prefix.prefix_len() == prefix.max_prefix_len());
        single.map(|prefix| prefix.addr()).collect::<Vec<_>>()
    };
    model.services.iter().flat_map(|service| of(&service.selector)).collect()
}

/// The VIPs on this host, as far as this daemon is to see to them.
#[derive(Debug)]
pub struct Vips {
    netlink: Netlink,
    /// Where VIPs of this director may be: another one's are on other interfaces.
    interfaces: BTreeSet<u32>,
    has_announced: bool,
    announcing: Option<JoinHandle<()>>,
}

impl Vips {
    /// `interfaces`, by index: those an earlier daemon of this director left VIPs on, if it did. To be called within a
    /// tokio runtime.
    pub fn new(netlink: Netlink, interfaces: impl IntoIterator<Item = u32>) -> Self {
        let interfaces = interfaces.into_iter().collect();
        Self { netlink, interfaces, has_announced: false, announcing: None }
    }

    /// Of these addresses the VIPs that this director added and has to remove again. One that somebody removed and gave
    /// back is theirs.
    fn ours(&self, present: &[Address]) -> BTreeSet<Place> {
        let is_ours =
            |address: &&Address| address.protocol == PROTOCOL && self.interfaces.contains(&address.ifindex);
        present.iter().filter(is_ours).map(place).collect()
    }

    /// Gives the first interface the VIPs of `model` that it has not, takes away those of ours it is not to have any
    /// more, and announces what is new; the first time everything, since another director may have been answering.
    /// Repeated announcements go on behind. With `vips: external` nothing is ours for long. To be called at the start,
    /// once packets can be forwarded; after every reload; and when addresses changed.
    ///
    /// # Errors
    /// Something could not be changed or announced. The rest is done by calling it again.
    pub async fn keep(&mut self, model: &Model) -> Result<Diff, VipError> {
        let is_managed = model.vips == VipOwner::Manage;
        let first = model.interfaces.first().filter(|_| is_managed);
        let link = match first {
            Some(interface) => {
                let link = self.netlink.link_named(&interface.name).await?;
                Some(link.ok_or_else(|| VipError::NoInterface(interface.name.clone()))?)
            }
            None => None,
        };
        let ifindex = link.as_ref().map(|link| link.ifindex);
        let wanted = match ifindex {
            Some(ifindex) => addresses(model).into_iter().map(|vip| (ifindex, vip)).collect(),
            None => BTreeSet::new(),
        };
        self.interfaces.extend(ifindex);
        let present = self.netlink.addresses().await?;
        let diff = diff(&wanted, &present.iter().map(place).collect(), &self.ours(&present));
        for place in &diff.remove {
            self.remove(*place).await?;
        }
        for place in &diff.add {
            if self.netlink.add_address(&address(*place)).await? == Added::Added {
                info!(vip = %place.1, interface = link.as_ref().map(|link| &link.name), "VIP added");
            }
        }
        let news = if self.has_announced { diff.add.iter().copied().collect() } else { wanted };
        if let Some(link) = link.filter(|_| !news.is_empty()) {
            match link.mac {
                Some(mac) => {
                    self.announce(&link.name, mac, news.into_iter().map(|(_, vip)| vip).collect())?
                }
                None => warn!(interface = link.name, "no Ethernet there, so VIPs are not announced"),
            }
            self.has_announced = true;
        }
        Ok(diff)
    }

    /// Removes what is ours: for an orderly end after which nobody forwards. Where the datapath goes on, so do the VIPs.
    ///
    /// # Errors
    /// One could not be removed; the others are not tried.
    pub async fn withdraw(&mut self) -> Result<(), VipError> {
        if let Some(announcing) = self.announcing.take() {
            announcing.abort();
        }
        for place in self.ours(&self.netlink.addresses().await?) {
            self.remove(place).await?;
        }
        Ok(())
    }

    async fn remove(&self, place: Place) -> Result<(), VipError> {
        self.netlink.remove_address(&address(place)).await?;
        info!(vip = %place.1, "VIP removed");
        Ok(())
    }

    fn announce(&mut self, interface: &str, mac: Mac, vips: Vec<IpAddr>) -> Result<(), VipError> {
        let failed = |source| VipError::Announce { interface: interface.to_owned(), source };
        let wire = announce::Wire::open(interface).map_err(failed)?;
        let frames: Vec<_> = vips.iter().map(|vip| frame(*vip, mac)).collect();
        wire.send(&frames).map_err(failed)?;
        info!(interface, vips = vips.len(), "VIPs announced");
        let interface = interface.to_owned();
        // The frames under way are let go of: those of now say more.
        if let Some(before) = self.announcing.replace(tokio::spawn(async move {
            for _ in 1..ROUNDS {
                tokio::time::sleep(PAUSE).await;
                if let Err(error) = wire.send(&frames) {
                    warn!(interface, %error, "VIPs not announced again");
                }
            }
        })) {
            before.abort();
        }
        Ok(())
    }
}

impl Drop for Vips {
    fn drop(&mut self) {
        if let Some(announcing) = self.announcing.take() {
            announcing.abort();
        }
    }
}

fn place(address: &Address) -> Place {
    (address.ifindex, address.address)
}

/// A prefix of the whole length: no network comes with it.
fn address((ifindex, address): Place) -> Address {
    let prefix_len = if address.is_ipv4() { 32 } else { 128 };
    Address { ifindex, address, prefix_len, protocol: PROTOCOL }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(all: &[(u32, &str)]) -> BTreeSet<Place> {
        all.iter().map(|(ifindex, address)| (*ifindex, address.parse().unwrap())).collect()
    }

    #[test]
    fn only_what_is_missing_is_added_and_only_what_is_ours_is_removed() {
        type Places = &'static [(u32, &'static str)];
        let cases: [(&str, Places, Places, Places, Places, Places); 7] = [
            ("a new VIP is added", &[(2, "192.0.2.1")], &[], &[], &[(2, "192.0.2.1")], &[]),
            ("one that is there is left", &[(2, "192.0.2.1")], &[(2, "192.0.2.1")], &[], &[], &[]),
            (
                "one on lo is added to the interface as well",
                &[(2, "2001:db8::1")],
                &[(1, "2001:db8::1")],
                &[],
                &[(2, "2001:db8::1")],
                &[],
            ),
            (
                "one of ours that nobody wants any more is removed",
                &[],
                &[(2, "192.0.2.1")],
                &[(2, "192.0.2.1")],
                &[],
                &[(2, "192.0.2.1")],
            ),
            ("one of somebody else is not", &[], &[(2, "192.0.2.1")], &[], &[], &[]),
            ("nor one of ours that is gone", &[], &[], &[(2, "192.0.2.1")], &[], &[]),
            (
                "another first interface takes them over",
                &[(3, "192.0.2.1")],
                &[(2, "192.0.2.1")],
                &[(2, "192.0.2.1")],
                &[(3, "192.0.2.1")],
                &[(2, "192.0.2.1")],
            ),
        ];
        for (sentence, wanted, present, ours, add, remove) in cases {
            let got = diff(&places(wanted), &places(present), &places(ours));
            let expected =
                Diff { add: places(add).into_iter().collect(), remove: places(remove).into_iter().collect() };
            assert_eq!(got, expected, "{sentence}");
        }
    }
}
