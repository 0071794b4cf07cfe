//! Virtual services as the datapath sees them.

use crate::net::{Addr, Be16};

/// A key of the services map. Mostly the place of a virtual service: one address, one protocol, one port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct ServiceKey {
    pub address: Addr,
    /// 0: any port.
    pub port: Be16,
    /// IP protocol number.
    pub protocol: u8,
    /// See [`key_kind`].
    pub kind: u8,
}

/// What a key of the services map stands for.
pub mod key_kind {
    /// A virtual service; the value is its id.
    pub const SERVICE: u8 = 0;
    /// An address of any service, whatever port and protocol (both 0): what has no ports, such as a later fragment, asks
    /// with it whether the address is a VIP at all. The value is not used.
    pub const VIP: u8 = 1;
    /// A real server that is reached through a tunnel: protocol of the tunnel, for GUE with its port. The value is the id of
    /// one such server.
    pub const TUNNEL: u8 = 2;
}

/// One rule of a service over many addresses. The prefixes themselves are keys of an LPM trie over [`Addr`]; IPv4
/// prefixes are those of the mapped address, 96 bits longer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct MatchRule {
    /// First and last port, host order, both included.
    pub from: u16,
    pub to: u16,
    /// IP protocol number; 0: any of TCP, UDP and SCTP.
    pub protocol: u8,
    pub pad: [u8; 3],
    pub service: u32,
}

/// All rules for one prefix, those of the prefixes around it included: the datapath asks for the longest prefix only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct MatchSet {
    /// Rules in use; the first that fits wins.
    pub count: u32,
    pub rules: [MatchRule; crate::limits::MATCH_RULES],
}

/// What the datapath needs to know of a virtual service. Index: the service's id. Written by the control plane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Service {
    /// See [`service_flag`]; 0 in a free entry.
    pub flags: u32,
    /// How long a persistence template lives, in jiffies.
    pub persistence: u32,
    /// Mask of the client's address in a template's key.
    pub persistence_mask: Addr,
    /// The service's port; 0 for any, or for a service over many.
    pub port: Be16,
    /// IP protocol number; 0 for a service over several.
    pub protocol: u8,
    pub pad: [u8; 5],
}

pub mod service_flag {
    pub const IN_USE: u32 = 1;
    pub const PERSISTENT: u32 = 1 << 1;
    /// UDP packets are scheduled one by one and not remembered (`ipvsadm -o`).
    pub const ONE_PACKET: u32 = 1 << 2;
    /// The plan's hash decides for every packet; no flow is remembered.
    pub const STATELESS: u32 = 1 << 3;
    /// Over many addresses or ports, as a firewall mark service in LVS: one template pins all of them.
    pub const MANY: u32 = 1 << 4;
    /// Without a destination drop silently instead of answering port unreachable.
    pub const DROP_NO_DESTINATION: u32 = 1 << 5;
}

/// Port of FTP's control connections. A service there has their data connections, too.
pub const FTP: u16 = 21;

impl Service {
    #[inline(always)]
    pub const fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Key of the persistence template for a client of this service. As in IPVS a service with a port keys its
    /// templates by that port, one for any port and one for FTP, whose data goes to any, by 0, one over many addresses (a
    /// firewall mark service there) by itself and neither address, protocol nor port.
    #[inline(always)]
    pub const fn template_key(&self, id: u32, flow: &crate::flow::FlowKey) -> crate::flow::FlowKey {
        let client = flow.client.masked(&self.persistence_mask);
        if self.has(service_flag::MANY) {
            // Tells the family apart: a mask can turn an IPv6 client into what looks like a mapped IPv4 one.
            let family = if flow.client.is_v4() { 0 } else { 1 };
            let vip = Addr([0, family, 0, id.to_be()]);
            return crate::flow::FlowKey { client, vip, ports: 0, protocol: 0 };
        }
        let port = if self.port.to_host() == FTP { 0 } else { self.port.to_wire() };
        let ports = crate::flow::FlowKey::ports(0, port);
        crate::flow::FlowKey { client, vip: flow.vip, ports, protocol: flow.protocol }
    }
}
