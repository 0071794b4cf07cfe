use crate::net::Addr;

/// What names a flow: the client's packet, as on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FlowKey {
    /// CIP; for a persistence template masked with the service's granularity.
    pub client: Addr,
    /// VIP; for a template of a service over many addresses the service's id instead.
    pub vip: Addr,
    /// Client's port in the first two bytes, the VIP's in the last two, both in network order.
    pub ports: u32,
    /// IP protocol number; 0 in templates that span protocols.
    pub protocol: u32,
}

impl FlowKey {
    /// Ports in network byte order to the key's word, client's first in memory.
    #[inline(always)]
    pub const fn ports(client_wire: u16, vip_wire: u16) -> u32 {
        if cfg!(target_endian = "little") {
            client_wire as u32 | (vip_wire as u32) << 16
        } else {
            (client_wire as u32) << 16 | vip_wire as u32
        }
    }

    /// Client's port in host order.
    #[inline(always)]
    pub const fn client_port(&self) -> u16 {
        u16::from_be(if cfg!(target_endian = "little") {
            self.ports as u16
        } else {
            (self.ports >> 16) as u16
        })
    }

    /// The VIP's port in host order.
    #[inline(always)]
    pub const fn vip_port(&self) -> u16 {
        u16::from_be(if cfg!(target_endian = "little") {
            (self.ports >> 16) as u16
        } else {
            self.ports as u16
        })
    }
}

/// The last word of an entry's fixed part.
pub mod meta {
    /// The flow belongs to a persistence template (IPVS: the connection has a `control`).
    pub const PARENT: u32 = 1 << 24;
    /// A template one of whose flows was established or answered (IPVS: ASSURED).
    pub const ASSURED: u32 = 1 << 25;
    /// The flow was opened while its server was behind a tunnel. A flow keeps to its way (DR or tunnel) when the server's
    /// method is changed, as in IPVS.
    pub const TUNNEL: u32 = 1 << 26;

    #[inline(always)]
    pub const fn pack(server: u32, protocol: u32, flags: u32) -> u32 {
        (server & 0xffff) | (protocol & 0xff) << 16 | flags
    }

    #[inline(always)]
    pub const fn server(meta: u32) -> u32 {
        meta & 0xffff
    }

    #[inline(always)]
    pub const fn protocol(meta: u32) -> u8 {
        (meta >> 16) as u8
    }
}
