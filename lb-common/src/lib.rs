//! What crosses between the kernel and userspace, and the arithmetic both must agree on.
//!
//! | map | kind | key | value | written by | read by |
//! |---|---|---|---|---|---|
//! | `SETTINGS` | array, 1 | | [`settings::Settings`] | control plane | datapath |
//! | `SERVICES` | hash | [`service::ServiceKey`] | service or server id | control plane | datapath |
//! | `PREFIXES` | LPM trie | address | match set id | control plane | datapath |
//! | `MATCHES` | array | match set id | [`service::MatchSet`] | control plane | datapath |
//! | `SERVICE` | array | service id | [`service::Service`] | control plane | datapath |
//! | `PLANS` | array | service id | [`plan::PlanHead`] | control plane | datapath |
//! | `SLOTS` | array, mapped | cell | cursor or [`plan::Slot`] | control plane; cursors: datapath | both |
//! | `SERVERS` | array | server id | [`server::Server`] | control plane | datapath |
//! | `THRESHOLDS` | array | server id | [`flow::Thresholds`] | control plane | datapath |
//! | `LOADS` | array, mapped | server id | [`flow::LOAD_WORDS`] words | datapath, sweeper | both |
//! | `FLOWS4`, `FLOWS6` | array, mapped | bucket | [`flow`] | datapath; sweeper removes | both |
//! | `TEMPLATES` | array, mapped | bucket | [`flow`] | datapath; sweeper removes | both |
//! | `SPILL` | hash | [`flow::FlowKey`] | control, expires, meta | datapath; sweeper removes | both |
//! | `SPILLED` | array, 1, mapped | | flows in `SPILL` | datapath, sweeper | datapath |
//! | `LOCALITY` | hash | [`locality::LocalityKey`] | [`locality::word`] | datapath; sweeper removes | both |
//! | `FRAGMENTS` | LRU hash | [`fragment::FragmentKey`] | [`fragment::FragmentRoute`] | datapath | datapath |
//! | `PATHS` | array | [`path::index`] | [`path::PathMtu`] | datapath | datapath |
//! | `DENIED` | LPM trie | address | 1 | control plane | datapath |
//! | `SOURCES` | LRU hash | masked address | window and count | datapath | datapath |
//! | `STAGES` | program array | [`stage::Stage`] | program | control plane | datapath |
//! | `COUNTERS` | per-CPU array | server id | [`counters::Counters`] | datapath | control plane |
//! | `REASONS` | per-CPU array | [`counters::Reason`] | packets | datapath | control plane |
//! | `NOTES` | per-CPU array | [`counters::Note`] | times | datapath | control plane |
//! | `TUNNELS` | array, 1 | | [`decap::Tunnels`] | `lb real-server decap` | decapsulator |
//! | `TUNNEL_ADDRESSES` | hash | address | [`decap::role`] bits | `lb real-server decap` | decapsulator |
//! | `DECAPSULATED` | per-CPU array | [`decap::Reason`] | packets | decapsulator | `lb real-server decap` |
//!
//! Addresses and ports are in network byte order everywhere, times in jiffies (low 32 bits).
#![no_std]

pub mod bench;
pub mod counters;
pub mod decap;
pub mod flow;
pub mod fragment;
pub mod hash;
pub mod limits;
pub mod locality;
pub mod net;
pub mod path;
pub mod plan;
pub mod sctp;
pub mod server;
pub mod service;
pub mod settings;
pub mod stage;
pub mod tcp;

#[cfg(feature = "user")]
mod pod;

/// Version of everything in this crate that crosses. Pinned maps of another version are not taken over.
pub const ABI_VERSION: u32 = 3;
