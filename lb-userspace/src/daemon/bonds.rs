//! Whether an interface to attach to is one of several that are meant to be one.

use crate::model::Interface;
use crate::netlink::{Link, LinkKind};
use tracing::warn;

/// Members among the configured interfaces of bonds that have others as well, each with its bond.
fn members<'a>(links: &'a [Link], interfaces: &[Interface]) -> Vec<(&'a str, &'a str)> {
    let is_named = |link: &&Link| interfaces.iter().any(|interface| interface.name == link.name);
    let of_bond = |link: &'a Link| {
        let master = link.master?;
        let bond = links.iter().find(|bond| bond.ifindex == master && bond.kind == LinkKind::Bond)?;
        let mut members = links.iter().filter(|member| member.master == Some(master));
        (!members.all(|member| is_named(&member))).then_some((link.name.as_str(), bond.name.as_str()))
    };
    links.iter().filter(is_named).filter_map(of_bond).collect()
}

/// Warns of members that are named instead of their bond: packets come in by any of them.
pub(super) fn warn_of_members(links: &[Link], interfaces: &[Interface]) {
    for (interface, bond) in members(links, interfaces) {
        warn!(
            interface,
            bond, "a member of a bond: what comes in by the others is not balanced; name the bond instead"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_bonds_are_told_from_ports_of_bridges() {
        let link = |ifindex, name: &str, kind, master| Link {
            ifindex,
            name: name.into(),
            kind,
            mac: None,
            mtu: 1500,
            up: true,
            carrier: true,
            parent: None,
            master,
            backup: false,
        };
        let links = [
            link(1, "eth0", LinkKind::Device, Some(4)),
            link(2, "eth1", LinkKind::Device, Some(4)),
            link(3, "eth2", LinkKind::Device, Some(5)),
            link(6, "eth3", LinkKind::Device, Some(4)),
            link(4, "bond0", LinkKind::Bond, Some(5)),
            link(5, "br0", LinkKind::Bridge, None),
        ];
        let interfaces = |names: &[&str]| -> Vec<Interface> {
            names.iter().map(|name| Interface { name: (*name).into(), mode: Default::default() }).collect()
        };
        for (named, expected) in [
            (&["eth1", "eth2"][..], &[("eth1", "bond0")][..]),
            (&["eth0", "eth1", "eth2"], &[("eth0", "bond0"), ("eth1", "bond0")]),
            (&["eth0", "eth1", "eth3"], &[]),
            (&["bond0", "br0", "none"], &[]),
        ] {
            assert_eq!(members(&links, &interfaces(named)), expected, "{named:?}");
        }
    }
}
