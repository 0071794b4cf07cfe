//! Leave for aya to copy the map types byte by byte.

use crate::{
    bench::{PeerFlow, PeerKey, PeerServer, PeerService, Reset, Witnessed},
    counters::Counters,
    decap::Tunnels,
    flow::{FlowKey, Thresholds},
    fragment::{FragmentKey, FragmentRoute},
    locality::LocalityKey,
    net::Addr,
    path::PathMtu,
    plan::{PlanHead, Slot},
    server::Server,
    service::{MatchSet, Service, ServiceKey},
    settings::Settings,
};

macro_rules! pod {
    ($($t:ty = $size:literal),* $(,)?) => {
        $(
            const _: () = assert!(size_of::<$t>() == $size);
            // SAFETY: `repr(C)` or `repr(transparent)` over integers, without padding (the fields add up to
            // the size asserted above), so every byte is initialised and every bit pattern is a value.
            unsafe impl aya::Pod for $t {}
        )*
    };
}

pod!(
    Addr = 16,
    Counters = 24,
    FlowKey = 40,
    FragmentKey = 40,
    FragmentRoute = 8,
    LocalityKey = 20,
    MatchSet = 388,
    PathMtu = 24,
    PeerFlow = 16,
    PeerKey = 16,
    PeerServer = 12,
    PeerService = 8,
    PlanHead = 8,
    Reset = 120,
    Server = 64,
    Service = 32,
    ServiceKey = 20,
    Settings = 272,
    Slot = 8,
    Thresholds = 8,
    Tunnels = 8,
    Witnessed = 16,
);
