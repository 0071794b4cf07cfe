//! Network interfaces.

use rtnetlink::packet_route::{
    AddressFamily,
    link::{
        BondPortState, InfoBondPort, InfoData, InfoKind, InfoPortData, InfoVlan, LinkAttribute, LinkFlags,
        LinkInfo, LinkMessage,
    },
};

use super::{Mac, Netlink, NetlinkError, collect};

/// A VLAN tag an interface puts on what it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VlanTag {
    /// VLAN identifier, 1–4094, host order.
    pub id: u16,
    /// Tag protocol identifier, host order: 0x8100 (802.1Q) or 0x88a8 (802.1ad).
    pub tpid: u16,
}

impl VlanTag {
    /// 802.1Q, the ordinary tag.
    pub const DOT1Q: u16 = 0x8100;
    /// 802.1ad, the service tag of stacked VLANs.
    pub const DOT1AD: u16 = 0x88a8;
}

/// What sort of interface it is, as far as forwarding is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// A network card, or what a driver presents as one.
    Device,
    Loopback,
    /// 802.1Q or 802.1ad on top of [`Link::parent`].
    Vlan(VlanTag),
    /// Several interfaces as one; its members have it as [`Link::master`].
    Bond,
    Bridge,
    /// Anything else, under the kernel's name: `veth`, `macvlan`, `wireguard`, `vxlan` …
    Other(String),
}

/// A network interface as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub ifindex: u32,
    pub name: String,
    pub kind: LinkKind,
    /// `None` for an interface without Ethernet addresses, such as a tunnel.
    pub mac: Option<Mac>,
    /// Bytes of IP packet, without Ethernet header and VLAN tags.
    pub mtu: u32,
    /// Switched on by the administrator (`ip link set … up`).
    pub up: bool,
    /// The driver sees its peer.
    pub carrier: bool,
    /// Interface underneath, for VLAN, macvlan and the like; `None` if it is in another network namespace.
    pub parent: Option<u32>,
    /// Bond or bridge this interface is a member of.
    pub master: Option<u32>,
    /// Member of a bond that is not to send now (active-backup's backup).
    pub backup: bool,
}

impl Link {
    /// Whether packets can leave through it.
    pub fn usable(&self) -> bool {
        self.up && self.carrier
    }

    pub(super) fn from_message(message: &LinkMessage) -> Option<Self> {
        // Bridges and the IPv6 code send their own view of a link in the same messages.
        if message.header.interface_family != AddressFamily::Unspec {
            return None;
        }
        let flags = message.header.flags;
        let mut link = Self {
            ifindex: message.header.index,
            name: String::new(),
            kind: if flags.contains(LinkFlags::Loopback) { LinkKind::Loopback } else { LinkKind::Device },
            mac: None,
            mtu: 0,
            up: flags.contains(LinkFlags::Up),
            carrier: flags.contains(LinkFlags::LowerUp),
            parent: None,
            master: None,
            backup: false,
        };
        let mut parent_elsewhere = false;
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Address(bytes) => link.mac = Mac::try_from(bytes.as_slice()).ok(),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Link(parent) if *parent != 0 => link.parent = Some(*parent),
                LinkAttribute::LinkNetNsId(_) => parent_elsewhere = true,
                LinkAttribute::Controller(master) if *master != 0 => link.master = Some(*master),
                LinkAttribute::LinkInfo(infos) => infos.iter().for_each(|info| link.learn(info)),
                _ => {}
            }
        }
        if parent_elsewhere {
            link.parent = None;
        }
        if link.kind == LinkKind::Loopback {
            link.mac = None;
        }
        Some(link)
    }

    fn learn(&mut self, info: &LinkInfo) {
        match info {
            LinkInfo::Kind(InfoKind::Vlan) => {}
            LinkInfo::Kind(InfoKind::Bond) => self.kind = LinkKind::Bond,
            LinkInfo::Kind(InfoKind::Bridge) => self.kind = LinkKind::Bridge,
            LinkInfo::Kind(kind) => self.kind = LinkKind::Other(kind.to_string()),
            LinkInfo::Data(InfoData::Vlan(attributes)) => {
                let mut tag = VlanTag { id: 0, tpid: VlanTag::DOT1Q };
                for attribute in attributes {
                    match attribute {
                        InfoVlan::Id(id) => tag.id = *id,
                        InfoVlan::Protocol(protocol) => tag.tpid = (*protocol).into(),
                        _ => {}
                    }
                }
                self.kind = LinkKind::Vlan(tag);
            }
            LinkInfo::PortData(InfoPortData::BondPort(attributes)) => {
                self.backup = attributes
                    .iter()
                    .any(|a| matches!(a, InfoBondPort::BondPortState(BondPortState::Backup)));
            }
            _ => {}
        }
    }
}

impl Netlink {
    /// Every interface of the network namespace.
    pub async fn links(&self) -> Result<Vec<Link>, NetlinkError> {
        let messages = collect(self.handle.link().get().execute(), "list network interfaces").await?;
        Ok(messages.iter().filter_map(Link::from_message).collect())
    }

    /// The interface with this index; `None` if there is none.
    pub async fn link(&self, ifindex: u32) -> Result<Option<Link>, NetlinkError> {
        let request = self.handle.link().get().match_index(ifindex).execute();
        one(collect(request, format!("look up network interface {ifindex}")).await)
    }

    /// The interface with this name; `None` if there is none.
    pub async fn link_named(&self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let request = self.handle.link().get().match_name(name.to_owned()).execute();
        one(collect(request, format!("look up network interface {name}")).await)
    }
}

fn one(answer: Result<Vec<LinkMessage>, NetlinkError>) -> Result<Option<Link>, NetlinkError> {
    match answer {
        Ok(messages) => Ok(messages.iter().find_map(Link::from_message)),
        Err(error) if error.errno() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::link::{InfoPortKind, VlanProtocol};

    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 1];

    fn message(flags: LinkFlags, attributes: Vec<LinkAttribute>) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = 7;
        message.header.flags = flags;
        message.attributes = vec![
            LinkAttribute::IfName("x0".into()),
            LinkAttribute::Mtu(1500),
            LinkAttribute::Address(MAC.into()),
        ];
        message.attributes.extend(attributes);
        message
    }

    fn plain() -> Link {
        Link {
            ifindex: 7,
            name: "x0".into(),
            kind: LinkKind::Device,
            mac: Some(MAC),
            mtu: 1500,
            up: true,
            carrier: true,
            parent: None,
            master: None,
            backup: false,
        }
    }

    #[test]
    fn links_are_read_as_the_kernel_describes_them() {
        let up = LinkFlags::Up | LinkFlags::LowerUp;
        let vlan = |id, protocol| {
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Vlan),
                LinkInfo::Data(InfoData::Vlan(vec![InfoVlan::Protocol(protocol), InfoVlan::Id(id)])),
            ])
        };
        let bond_port = |state| {
            LinkAttribute::LinkInfo(vec![
                LinkInfo::PortKind(InfoPortKind::Bond),
                LinkInfo::PortData(InfoPortData::BondPort(vec![InfoBondPort::BondPortState(state)])),
            ])
        };
        let tag = |id, tpid| LinkKind::Vlan(VlanTag { id, tpid });
        let cases = [
            ("a network card", up, vec![], plain()),
            (
                "a VLAN on interface 3",
                up,
                vec![LinkAttribute::Link(3), vlan(100, VlanProtocol::Ieee8021Q)],
                Link { kind: tag(100, 0x8100), parent: Some(3), ..plain() },
            ),
            (
                "a service VLAN",
                up,
                vec![LinkAttribute::Link(3), vlan(9, VlanProtocol::Ieee8021Ad)],
                Link { kind: tag(9, 0x88a8), parent: Some(3), ..plain() },
            ),
            (
                "a VLAN whose parent is in another namespace",
                up,
                vec![LinkAttribute::Link(3), vlan(9, VlanProtocol::Ieee8021Q), LinkAttribute::LinkNetNsId(0)],
                Link { kind: tag(9, 0x8100), ..plain() },
            ),
            (
                "a bond",
                up,
                vec![LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bond)])],
                Link { kind: LinkKind::Bond, ..plain() },
            ),
            (
                "an active member of bond 4",
                up,
                vec![LinkAttribute::Controller(4), bond_port(BondPortState::Active)],
                Link { master: Some(4), ..plain() },
            ),
            (
                "a backup member of bond 4",
                up,
                vec![LinkAttribute::Controller(4), bond_port(BondPortState::Backup)],
                Link { master: Some(4), backup: true, ..plain() },
            ),
            (
                "a veth",
                up,
                vec![LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)])],
                Link { kind: LinkKind::Other("veth".into()), ..plain() },
            ),
            (
                "the loopback, whose address of zeros is no MAC",
                up | LinkFlags::Loopback,
                vec![],
                Link { kind: LinkKind::Loopback, mac: None, ..plain() },
            ),
            ("a card without cable", LinkFlags::Up, vec![], Link { carrier: false, ..plain() }),
            (
                "a card switched off",
                LinkFlags::empty(),
                vec![],
                Link { up: false, carrier: false, ..plain() },
            ),
        ];
        for (sentence, flags, attributes, expected) in cases {
            assert_eq!(Link::from_message(&message(flags, attributes)), Some(expected), "{sentence}");
        }
    }

    #[test]
    fn a_bridge_s_view_of_its_port_is_not_a_link() {
        let mut message = message(LinkFlags::Up, vec![]);
        message.header.interface_family = AddressFamily::Bridge;
        assert_eq!(Link::from_message(&message), None);
    }
}
