//! From the interface a route names down to the one that sends: through VLAN devices and bonds.

use std::collections::{BTreeMap, BTreeSet};

use super::{Mac, Unresolved, VlanTag};
use crate::netlink::{Link, LinkKind};

/// The most tags the datapath pushes.
const MAX_TAGS: usize = 2;

/// A way out of the director, above the neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path {
    /// The interface with the XDP program.
    pub(super) ifindex: u32,
    /// MAC of the interface the route names.
    pub(super) smac: Mac,
    /// Outermost first.
    pub(super) tags: Vec<VlanTag>,
    /// Of the interface the route names.
    pub(super) mtu: u32,
}

/// Walks down from interface `routed` to one in `attached`. `extra` is a VLAN to tag packets with before the
/// interface sees them.
///
/// A bond is used as such if the program is attached to it. If it is attached to the members instead, a member is
/// chosen that may send; which of several makes no difference to the peer, whose aggregation spans them all.
pub(super) fn egress(
    links: &BTreeMap<u32, Link>,
    attached: &BTreeSet<u32>,
    routed: &Link,
    extra: Option<u16>,
) -> Result<Path, Unresolved> {
    usable(routed)?;
    let smac = routed.mac.ok_or_else(|| Unresolved::NotEthernet { interface: routed.name.clone() })?;
    let mut tags: Vec<VlanTag> = extra.map(|id| VlanTag { id, tpid: VlanTag::DOT1Q }).into_iter().collect();
    let mut at = routed;
    while !attached.contains(&at.ifindex) {
        let below = match at.kind {
            LinkKind::Vlan(tag) => {
                tags.push(tag);
                at.parent.and_then(|parent| links.get(&parent))
            }
            LinkKind::Bond => links.values().find(|member| {
                member.master == Some(at.ifindex)
                    && member.usable()
                    && !member.backup
                    && attached.contains(&member.ifindex)
            }),
            LinkKind::Device | LinkKind::Loopback | LinkKind::Bridge | LinkKind::Other(_) => None,
        };
        // A VLAN on a VLAN on a VLAN is already too much, so this also ends any loop.
        if tags.len() > MAX_TAGS {
            return Err(Unresolved::TooManyTags { interface: routed.name.clone() });
        }
        at = below
            .ok_or_else(|| Unresolved::NoXdp { interface: routed.name.clone(), device: at.name.clone() })?;
        usable(at)?;
    }
    tags.reverse();
    Ok(Path { ifindex: at.ifindex, smac, tags, mtu: routed.mtu })
}

fn usable(link: &Link) -> Result<(), Unresolved> {
    let interface = || link.name.clone();
    match (link.up, link.carrier) {
        (false, _) => Err(Unresolved::InterfaceDown { interface: interface() }),
        (true, false) => Err(Unresolved::NoCarrier { interface: interface() }),
        (true, true) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(ifindex: u32, name: &str, kind: LinkKind, over: Option<u32>) -> Link {
        Link {
            ifindex,
            name: name.into(),
            kind,
            mac: Some([2, 0, 0, 0, 0, ifindex as u8]),
            mtu: 1500,
            up: true,
            carrier: true,
            parent: over,
            master: None,
            backup: false,
        }
    }

    fn vlan(ifindex: u32, name: &str, id: u16, tpid: u16, over: u32) -> Link {
        link(ifindex, name, LinkKind::Vlan(VlanTag { id, tpid }), Some(over))
    }

    /// eth0 with VLANs, stacked up to three high; eth1 switched off and eth2 without cable, each with a VLAN; bond0
    /// of eth3 (backup), eth4 and eth5, with a VLAN; br0; wg0.
    fn host() -> BTreeMap<u32, Link> {
        let mut links = vec![
            link(1, "eth0", LinkKind::Device, None),
            vlan(10, "eth0.100", 100, 0x88a8, 1),
            vlan(11, "eth0.100.5", 5, 0x8100, 10),
            vlan(12, "eth0.100.5.6", 6, 0x8100, 11),
            Link { up: false, carrier: false, ..link(2, "eth1", LinkKind::Device, None) },
            vlan(20, "eth1.7", 7, 0x8100, 2),
            Link { carrier: false, ..link(3, "eth2", LinkKind::Device, None) },
            vlan(30, "eth2.7", 7, 0x8100, 3),
            link(40, "bond0", LinkKind::Bond, None),
            vlan(41, "bond0.8", 8, 0x8100, 40),
            link(50, "br0", LinkKind::Bridge, None),
            Link { mac: None, ..link(60, "wg0", LinkKind::Other("wireguard".into()), None) },
            vlan(70, "far.9", 9, 0x8100, 999),
        ];
        for (ifindex, name, backup) in [(4, "eth3", true), (5, "eth4", false), (6, "eth5", false)] {
            let member = link(ifindex, name, LinkKind::Device, None);
            links.push(Link { master: Some(40), backup, mac: Some([2, 0, 0, 0, 0, 40]), ..member });
        }
        links.into_iter().map(|link| (link.ifindex, link)).collect()
    }

    #[test]
    fn the_way_out_goes_down_to_the_interface_with_the_program() {
        let q = |id| VlanTag { id, tpid: 0x8100 };
        let ad = |id| VlanTag { id, tpid: 0x88a8 };
        let path = |ifindex, routed: u8, tags: &[VlanTag]| {
            Ok(Path { ifindex, smac: [2, 0, 0, 0, 0, routed], tags: tags.to_vec(), mtu: 1500 })
        };
        let why = |sentence: &str| Err(sentence.to_owned());
        #[rustfmt::skip]
        let cases = [
            ("the interface itself", 1, vec![1], None, path(1, 1, &[])),
            ("a VLAN's parent, with its tag", 10, vec![1], None, path(1, 10, &[ad(100)])),
            ("stacked VLANs, outermost tag first", 11, vec![1], None, path(1, 11, &[ad(100), q(5)])),
            ("a VLAN device with a program of its own needs no tag", 10, vec![1, 10], None, path(10, 10, &[])),
            ("a configured VLAN is a tag", 1, vec![1], Some(9), path(1, 1, &[q(9)])),
            ("a configured VLAN is inside that of the device", 10, vec![1], Some(9), path(1, 10, &[ad(100), q(9)])),
            ("three tags are too many", 12, vec![1], None,
             why("interface eth0.100.5.6 puts more than two VLAN tags on a packet")),
            ("no program", 1, vec![], None, why("route goes out of eth0, which has no XDP program")),
            ("a program elsewhere", 1, vec![2], None, why("route goes out of eth0, which has no XDP program")),
            ("no program under a VLAN", 10, vec![], None,
             why("route goes out of eth0.100 over eth0, which has no XDP program")),
            ("switched off", 2, vec![2], None, why("interface eth1 is down")),
            ("no cable", 3, vec![3], None, why("interface eth2 has no carrier")),
            ("a VLAN whose parent is off", 20, vec![2], None, why("interface eth1 is down")),
            ("a VLAN whose parent has no cable", 30, vec![3], None, why("interface eth2 has no carrier")),
            ("a bond with the program", 40, vec![40, 5], None, path(40, 40, &[])),
            ("the first active member with the program", 40, vec![4, 5, 6], None, path(5, 40, &[])),
            ("the only member with the program", 40, vec![6], None, path(6, 40, &[])),
            ("only the backup member has the program", 40, vec![4], None,
             why("route goes out of bond0, which has no XDP program")),
            ("a VLAN on a bond of members", 41, vec![5], None, path(5, 41, &[q(8)])),
            ("a bridge without a program", 50, vec![1], None, why("route goes out of br0, which has no XDP program")),
            ("no Ethernet", 60, vec![60], None, why("interface wg0 has no Ethernet address")),
            ("a VLAN whose parent is not to be seen", 70, vec![1], None,
             why("route goes out of far.9, which has no XDP program")),
        ];
        let links = host();
        for (sentence, routed, attached, extra, expected) in cases {
            let found = egress(&links, &attached.into_iter().collect(), &links[&routed], extra);
            assert_eq!(found.map_err(|why| why.to_string()), expected, "{sentence}");
        }
    }
}
