//! The configuration maps behind one trait: the kernel's pinned ones, or memory for tests.
//!
//! [`MapStore`] is what the datapath sees, entry by entry. [`Contents`] is the same read as a whole: what the
//! reconciler compares, and what tests print.

mod contents;
mod faulty;
pub mod kernel;
mod memory;
mod mmap;
mod readers;

pub use contents::{Contents, Place, Plan, read_contents};
pub use faulty::Faulty;
pub use memory::Memory;
pub use mmap::{MapArrayError, Mapped};
pub use readers::{CounterMaps, KernelLocality, KernelSpill};

use ipnet::IpNet;
use lb_common::flow::{LOAD_WORDS, Thresholds};
use lb_common::net::Addr;
use lb_common::plan::PlanHead;
use lb_common::server::Server;
use lb_common::service::{MatchSet, Service, ServiceKey};
use lb_common::settings::Settings;
use std::error::Error;

/// One operation on a map failed.
#[derive(Debug, thiserror::Error)]
#[error("{action} map {map} at {key}")]
pub struct StoreError {
    /// "reading", "writing" …
    pub action: &'static str,
    pub map: &'static str,
    pub key: String,
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
}

/// The maps the control plane writes. Every method is one step the datapath may see by itself, so their order is the
/// caller's care; a step is seen whole, but for [`MapStore::put_cells`], whose cells must not be part of a plan in
/// use, and entries of more than eight bytes, of which a packet on its way may see half.
pub trait MapStore: Send {
    fn settings(&self) -> Result<Settings, StoreError>;
    fn put_settings(&mut self, settings: &Settings) -> Result<(), StoreError>;

    /// All of `SERVICES`, in no particular order.
    fn places(&self) -> Result<Vec<(ServiceKey, u32)>, StoreError>;
    fn put_place(&mut self, place: &ServiceKey, service: u32) -> Result<(), StoreError>;
    /// Removing what is not there is no error, here and below: the end is the same.
    fn remove_place(&mut self, place: &ServiceKey) -> Result<(), StoreError>;

    /// All of `PREFIXES`.
    fn prefixes(&self) -> Result<Vec<(IpNet, u32)>, StoreError>;
    fn put_prefix(&mut self, prefix: IpNet, match_set: u32) -> Result<(), StoreError>;
    fn remove_prefix(&mut self, prefix: IpNet) -> Result<(), StoreError>;

    fn match_set(&self, id: u32) -> Result<MatchSet, StoreError>;
    fn put_match_set(&mut self, id: u32, set: &MatchSet) -> Result<(), StoreError>;

    fn service(&self, id: u32) -> Result<Service, StoreError>;
    fn put_service(&mut self, id: u32, service: &Service) -> Result<(), StoreError>;

    fn plan(&self, service: u32) -> Result<PlanHead, StoreError>;
    fn put_plan(&mut self, service: u32, head: PlanHead) -> Result<(), StoreError>;

    /// `count` cells of `SLOTS` from `start` on.
    fn cells(&self, start: u32, count: u32) -> Result<Vec<u64>, StoreError>;
    fn put_cells(&mut self, start: u32, cells: &[u64]) -> Result<(), StoreError>;

    fn server(&self, id: u32) -> Result<Server, StoreError>;
    fn put_server(&mut self, id: u32, server: &Server) -> Result<(), StoreError>;

    fn thresholds(&self, id: u32) -> Result<Thresholds, StoreError>;
    fn put_thresholds(&mut self, id: u32, thresholds: &Thresholds) -> Result<(), StoreError>;

    /// Words of the server's load, see [`lb_common::flow::load_word`].
    fn load(&self, id: u32) -> Result<[u32; LOAD_WORDS as usize], StoreError>;
    fn put_overloaded(&mut self, id: u32, overloaded: bool) -> Result<(), StoreError>;
    /// Clears counters and load, for a server that takes over an id.
    fn forget_server(&mut self, id: u32) -> Result<(), StoreError>;

    /// All of `DENIED`.
    fn denied(&self) -> Result<Vec<IpNet>, StoreError>;
    fn deny(&mut self, prefix: IpNet) -> Result<(), StoreError>;
    fn allow(&mut self, prefix: IpNet) -> Result<(), StoreError>;
}

/// The leading bits and the address under which a prefix stands in a trie: IPv4 as mapped IPv6.
pub(crate) fn trie_key(prefix: IpNet) -> (u32, Addr) {
    let bits = match prefix {
        IpNet::V4(v4) => u32::from(v4.prefix_len()) + 96,
        IpNet::V6(v6) => u32::from(v6.prefix_len()),
    };
    (bits, Addr::from(prefix.addr()))
}

/// The prefix that stands in a trie under this key. An IPv6 prefix around the mapped addresses stays IPv6.
pub(crate) fn prefix_of(bits: u32, address: Addr) -> IpNet {
    let bits = bits.min(128) as u8;
    let prefix = match address.to_ip() {
        std::net::IpAddr::V4(v4) if bits >= 96 => IpNet::new(v4.into(), bits - 96),
        std::net::IpAddr::V4(v4) => IpNet::new(v4.to_ipv6_mapped().into(), bits),
        v6 => IpNet::new(v6, bits),
    };
    prefix.expect("the length was bounded to the family's")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_survive_the_trie() {
        for text in
            ["198.18.0.0/16", "192.0.2.1/32", "0.0.0.0/0", "2001:db8::/48", "::/0", "::ffff:0.0.0.0/80"]
        {
            let prefix: IpNet = text.parse().unwrap();
            let (bits, address) = trie_key(prefix);
            assert_eq!(prefix_of(bits, address), prefix, "{text}");
        }
        assert_eq!(trie_key("198.18.0.0/16".parse().unwrap()).0, 112);
    }
}
