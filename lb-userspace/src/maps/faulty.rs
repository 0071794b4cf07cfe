//! A store that fails on demand, to try out what a failed map operation leaves behind.

use super::{MapStore, StoreError};
use ipnet::IpNet;
use lb_common::flow::{LOAD_WORDS, Thresholds};
use lb_common::plan::PlanHead;
use lb_common::server::Server;
use lb_common::service::{MatchSet, Service, ServiceKey};
use lb_common::settings::Settings;

/// Passes everything on to another store, but fails one write.
#[derive(Debug)]
pub struct Faulty<S> {
    pub inner: S,
    left: Option<u32>,
}

#[derive(Debug, thiserror::Error)]
#[error("this write was told to fail")]
struct ToldTo;

impl<S> Faulty<S> {
    /// The write after `good` ones fails, once.
    pub fn after(inner: S, good: u32) -> Self {
        Self { inner, left: Some(good) }
    }

    /// True once the write failed.
    pub fn has_failed(&self) -> bool {
        self.left.is_none()
    }

    fn write(&mut self, map: &'static str, key: &dyn std::fmt::Debug) -> Result<&mut S, StoreError> {
        match self.left {
            Some(0) => {
                self.left = None;
                Err(StoreError { action: "writing", map, key: format!("{key:?}"), source: Box::new(ToldTo) })
            }
            Some(left) => {
                self.left = Some(left - 1);
                Ok(&mut self.inner)
            }
            None => Ok(&mut self.inner),
        }
    }
}

macro_rules! pass_on {
    (
        read { $(fn $read:ident($($arg:ident: $argty:ty),*) -> $out:ty;)* }
        write { $($map:literal fn $write:ident($key:ident: $keyty:ty $(, $warg:ident: $wargty:ty)*);)* }
    ) => {
        impl<S: MapStore> MapStore for Faulty<S> {
            $(fn $read(&self, $($arg: $argty),*) -> Result<$out, StoreError> {
                self.inner.$read($($arg),*)
            })*
            $(fn $write(&mut self, $key: $keyty $(, $warg: $wargty)*) -> Result<(), StoreError> {
                self.write($map, &$key)?.$write($key $(, $warg)*)
            })*
        }
    };
}

pass_on! {
    read {
        fn settings() -> Settings;
        fn places() -> Vec<(ServiceKey, u32)>;
        fn prefixes() -> Vec<(IpNet, u32)>;
        fn match_set(id: u32) -> MatchSet;
        fn service(id: u32) -> Service;
        fn plan(service: u32) -> PlanHead;
        fn cells(start: u32, count: u32) -> Vec<u64>;
        fn server(id: u32) -> Server;
        fn thresholds(id: u32) -> Thresholds;
        fn load(id: u32) -> [u32; LOAD_WORDS as usize];
        fn denied() -> Vec<IpNet>;
    }
    write {
        "SETTINGS" fn put_settings(settings: &Settings);
        "SERVICES" fn put_place(place: &ServiceKey, service: u32);
        "SERVICES" fn remove_place(place: &ServiceKey);
        "PREFIXES" fn put_prefix(prefix: IpNet, match_set: u32);
        "PREFIXES" fn remove_prefix(prefix: IpNet);
        "MATCHES" fn put_match_set(id: u32, set: &MatchSet);
        "SERVICE" fn put_service(id: u32, service: &Service);
        "PLANS" fn put_plan(service: u32, head: PlanHead);
        "SLOTS" fn put_cells(start: u32, cells: &[u64]);
        "SERVERS" fn put_server(id: u32, server: &Server);
        "THRESHOLDS" fn put_thresholds(id: u32, thresholds: &Thresholds);
        "LOADS" fn put_overloaded(id: u32, overloaded: bool);
        "LOADS" fn forget_server(id: u32);
        "DENIED" fn deny(prefix: IpNet);
        "DENIED" fn allow(prefix: IpNet);
    }
}
