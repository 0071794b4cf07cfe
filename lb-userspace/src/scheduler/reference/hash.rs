//! sh, dh and mh with their tables of server ids. The hash functions are those both planes share.

use lb_common::hash;
use lb_common::net::Addr;

use super::super::execute::Packet;
use super::Server;
use crate::model::SchedulerFlags;

/// Buckets; empty while there are none.
#[derive(Clone, Debug, Default)]
pub(super) struct Table(Vec<u32>);

const MH_SIZE: u32 = 4093;

impl Table {
    pub(super) fn sh(list: &[Server]) -> Self {
        let mut buckets = Vec::new();
        while buckets.len() < 256 && !list.is_empty() {
            for server in list {
                for _ in 0..server.entry.weight.max(1) {
                    if buckets.len() < 256 {
                        buckets.push(server.entry.id);
                    }
                }
            }
        }
        Self(buckets)
    }

    pub(super) fn dh(list: &[Server]) -> Self {
        if list.is_empty() {
            return Self::default();
        }
        Self((0..256).map(|bucket| list[bucket % list.len()].entry.id).collect())
    }

    pub(super) fn mh(list: &[Server]) -> Self {
        let largest = list.iter().map(|server| server.entry.last_weight).max().unwrap_or(0);
        if largest == 0 {
            return Self::default();
        }
        let divides = |by: &u32| list.iter().all(|server| server.entry.last_weight % by == 0);
        let gcd = (1..=largest).rev().find(divides).expect("1 divides everything");
        let mut shift = 0;
        while (largest / gcd) >> shift >= 64 {
            shift += 1;
        }
        let mut table = vec![0; MH_SIZE as usize];
        let mut positions: Vec<u32> =
            list.iter().map(|server| hash::mh(&address(server), server.entry.port, 0) % MH_SIZE).collect();
        let mut filled = 0;
        loop {
            for (server, position) in list.iter().zip(&mut positions) {
                let skip = hash::mh_skip(&address(server), server.entry.port) % (MH_SIZE - 1) + 1;
                let mut turns = (server.entry.last_weight / gcd) >> shift;
                if turns == 0 && server.entry.last_weight > 0 {
                    turns = 1;
                }
                for _ in 0..turns {
                    while table[*position as usize] != 0 {
                        *position = (*position + skip) % MH_SIZE;
                    }
                    table[*position as usize] = server.entry.id;
                    filled += 1;
                    if filled == MH_SIZE {
                        return Self(table);
                    }
                }
            }
        }
    }

    pub(super) fn sh_choose(&self, list: &[Server], packet: &Packet, flags: SchedulerFlags) -> Option<usize> {
        let port = if flags.port { packet.source_port } else { 0 };
        let bucket = |offset| hash::sh(&packet.source, port, offset);
        self.choose(list, flags, 256, bucket)
    }

    pub(super) fn mh_choose(&self, list: &[Server], packet: &Packet, flags: SchedulerFlags) -> Option<usize> {
        let port = if flags.port { packet.source_port } else { 0 };
        let slot = |offset| hash::mh(&packet.source, port, offset) % MH_SIZE;
        self.choose(list, flags, MH_SIZE, slot)
    }

    pub(super) fn dh_choose(&self, list: &[Server], packet: &Packet) -> Option<usize> {
        self.available(list, hash::dh(&packet.destination))
    }

    fn choose(
        &self,
        list: &[Server],
        flags: SchedulerFlags,
        size: u32,
        bucket: impl Fn(u32) -> u32,
    ) -> Option<usize> {
        let first = bucket(0);
        let found = self.available(list, first);
        if found.is_some() || !flags.fallback {
            return found;
        }
        (0..size).find_map(|o| self.available(list, bucket((o + first) % size)))
    }

    fn available(&self, list: &[Server], bucket: u32) -> Option<usize> {
        let id = *self.0.get(bucket as usize)?;
        list.iter().position(|server| server.entry.id == id && server.is_ok())
    }
}

fn address(server: &Server) -> Addr {
    Addr::from(server.entry.address)
}
