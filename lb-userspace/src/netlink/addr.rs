//! Addresses of the director's interfaces.

use std::net::IpAddr;

use libc::{EADDRNOTAVAIL, EEXIST};
use rtnetlink::{
    packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::{AddressAttribute, AddressHeaderFlags, AddressMessage},
    },
};

use super::{Netlink, NetlinkError, collect};

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub ifindex: u32,
    pub address: IpAddr,
    pub prefix_len: u8,
    /// Who added it, by a number the kernel keeps with it (`IFA_PROTO`, Linux 5.18); 0 if nobody said.
    pub protocol: u8,
}

/// What [`Netlink::add_address`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It was not there.
    Added,
    /// The interface had it already, with this prefix length (IPv6: with any).
    AlreadyThere,
}

/// What [`Netlink::remove_address`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    Removed,
    /// The interface did not have it.
    NotThere,
}

impl Address {
    fn from_message(message: &AddressMessage) -> Option<Self> {
        let (mut local, mut address, mut protocol) = (None, None, 0);
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(a) => local = Some(*a),
                AddressAttribute::Address(a) => address = Some(*a),
                AddressAttribute::Protocol(number) => protocol = (*number).into(),
                _ => {}
            }
        }
        // On a point-to-point link IFA_ADDRESS is the peer's.
        let address = local.or(address)?;
        Some(Self { ifindex: message.header.index, address, prefix_len: message.header.prefix_len, protocol })
    }

    fn to_message(&self) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.index = self.ifindex;
        message.header.prefix_len = self.prefix_len;
        message.header.family = match self.address {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        message.attributes =
            vec![AddressAttribute::Local(self.address), AddressAttribute::Address(self.address)];
        if self.protocol != 0 {
            message.attributes.push(AddressAttribute::Protocol(self.protocol.into()));
        }
        message
    }
}

impl Netlink {
    /// All addresses of all interfaces, both families.
    pub async fn addresses(&self) -> Result<Vec<Address>, NetlinkError> {
        let messages = collect(self.handle.address().get().execute(), "list addresses").await?;
        Ok(messages.iter().filter_map(Address::from_message).collect())
    }

    /// Gives an interface an address. An IPv6 address is usable at once: duplicate address detection is left out,
    /// for a VIP may still be on the director it is taken over from. Needs `CAP_NET_ADMIN`.
    pub async fn add_address(&self, address: &Address) -> Result<Added, NetlinkError> {
        let what = format!(
            "add address {}/{} to interface {}",
            address.address, address.prefix_len, address.ifindex
        );
        let mut message = address.to_message();
        if address.address.is_ipv6() {
            message.header.flags = AddressHeaderFlags::Nodad;
        }
        let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        match self.request(RouteNetlinkMessage::NewAddress(message), flags, &what).await {
            Ok(_) => Ok(Added::Added),
            Err(error) if error.errno() == Some(EEXIST) => Ok(Added::AlreadyThere),
            Err(error) => Err(error),
        }
    }

    /// Takes an address from an interface. Needs `CAP_NET_ADMIN`.
    pub async fn remove_address(&self, address: &Address) -> Result<Removed, NetlinkError> {
        let what = format!(
            "remove address {}/{} from interface {}",
            address.address, address.prefix_len, address.ifindex
        );
        let message = RouteNetlinkMessage::DelAddress(address.to_message());
        match self.request(message, NLM_F_REQUEST | NLM_F_ACK, &what).await {
            Ok(_) => Ok(Removed::Removed),
            Err(error) if error.errno() == Some(EADDRNOTAVAIL) => Ok(Removed::NotThere),
            Err(error) => Err(error),
        }
    }
}
