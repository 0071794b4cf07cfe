//! Whole rounds on memory: what the maps hold afterwards, whatever happened on the way.

use super::*;
use crate::config;
use crate::maps::{Contents, Faulty, MapStore, Memory, Place, StoreError, read_contents};
use crate::model::Model;
use crate::neigh::{NextHop, NextHopTable, Unresolved, VlanTag};
use lb_common::hash::Seed;
use lb_common::plan::PlanKind;
use lb_common::server::{NO_VLAN, SERVICE_VLAN, server_flag};
use lb_common::service::key_kind;
use proptest::prelude::*;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

const BASE: Base = Base { seed: Seed([1, 2, 3, 4, 5, 6]), buckets: [10, 5, 5], hz: 250 };

fn model(services: &str) -> Arc<Model> {
    let text = format!("interfaces: [eth0]\n{services}");
    Arc::new(config::parse("test.yaml", &text).unwrap_or_else(|report| panic!("{report}\n{text}")).model)
}

/// `10.0.0.1: 80 rr, servers 11 12(weight)` and so on, as YAML.
fn web(servers: &[(u8, u32)]) -> String {
    let servers: Vec<String> = servers
        .iter()
        .map(|(host, weight)| format!("{{address: 10.0.0.{host}, weight: {weight}}}"))
        .collect();
    format!(
        "services:\n- {{name: web, address: 192.0.2.1, port: 80, scheduler: rr, servers: [{}]}}\n",
        servers.join(", ")
    )
}

fn hop(address: IpAddr) -> NextHop {
    let last = match address {
        IpAddr::V4(v4) => v4.octets()[3],
        IpAddr::V6(v6) => v6.octets()[15],
    };
    NextHop {
        dmac: [2, 0, 0, 0, 0, last],
        smac: [2, 0, 0, 0, 0, 1],
        ifindex: 2,
        vlan: Vec::new(),
        mtu: 1500,
        source: "10.0.0.1".parse().unwrap(),
        gateway: None,
        local: false,
    }
}

/// Next hops of all servers but those whose last byte is in `silent`.
fn hops(model: &Model, silent: &[u8]) -> NextHopTable {
    let servers = model.services.iter().flat_map(|service| &service.servers);
    servers
        .map(|server| {
            let hop = hop(server.address);
            let silent = silent.contains(&hop.dmac[5]);
            let unknown = Unresolved::NoRoute { address: server.address };
            (server.address, if silent { Err(unknown) } else { Ok(hop) })
        })
        .collect()
}

fn start<S: MapStore>(store: S, model: &Arc<Model>) -> Reconciler<S> {
    Reconciler::new(store, BASE, None, model.clone()).unwrap()
}

fn settle<S: MapStore>(reconciler: &mut Reconciler<S>, silent: &[u8]) {
    let hops = hops(&reconciler.model().clone(), silent);
    reconciler.round(&hops, Instant::now()).unwrap();
}

fn ids(contents: &Contents) -> Vec<(u32, IpAddr, bool)> {
    let servers = contents.servers.iter();
    servers.map(|(id, server)| (*id, server.rip.to_ip(), server.has(server_flag::AVAILABLE))).collect()
}

fn slots(contents: &Contents, service: u32) -> Vec<u32> {
    contents.plans.get(&service).map_or(Vec::new(), |plan| plan.slots.iter().map(|s| s.server()).collect())
}

#[test]
fn a_settled_round_has_nothing_to_do() {
    let mut reconciler = start(Memory::default(), &model(&web(&[(11, 1), (12, 2)])));
    settle(&mut reconciler, &[]);
    let hops = hops(&reconciler.model().clone(), &[]);
    assert_eq!(reconciler.round(&hops, Instant::now()).unwrap(), 0);
}

#[test]
fn the_maps_lead_from_the_vip_to_its_servers() {
    let mut reconciler = start(Memory::default(), &model(&web(&[(11, 1), (12, 1)])));
    settle(&mut reconciler, &[]);
    let contents = reconciler.contents();
    let vip: IpAddr = "192.0.2.1".parse().unwrap();
    let place = Place { kind: key_kind::SERVICE, address: vip, protocol: 6, port: 80 };
    assert_eq!(contents.places.get(&place), Some(&0));
    assert!(contents.places.contains_key(&Place { kind: key_kind::VIP, protocol: 0, port: 0, ..place }));
    assert_eq!(slots(contents, 0), [2, 1], "the newest server is the first of the list");
    assert_eq!(contents.settings.timeouts[1], 900 * 250);
}

#[test]
fn a_server_without_next_hop_is_in_the_maps_but_not_in_the_plan() {
    let mut reconciler = start(Memory::default(), &model(&web(&[(11, 1), (12, 1)])));
    settle(&mut reconciler, &[12]);
    let contents = reconciler.contents();
    assert_eq!(slots(contents, 0), [1]);
    assert!(!contents.servers[&2].has(server_flag::REACHABLE));
    assert!(!contents.servers[&2].has(server_flag::DRAINED));
    assert_eq!(reconciler.why_not()[&2], "no route to 10.0.0.12");
    settle(&mut reconciler, &[]);
    assert_eq!(slots(reconciler.contents(), 0), [2, 1]);
    assert!(reconciler.why_not().is_empty());
}

#[test]
fn tags_reach_the_maps_in_their_order_and_are_remembered_from_there() {
    let (q, ad) = (VlanTag::DOT1Q, VlanTag::DOT1AD);
    let tag = |id, tpid| VlanTag { id, tpid };
    for (tags, words) in [
        (vec![], [NO_VLAN; 2]),
        (vec![tag(5, q)], [5, NO_VLAN]),
        (vec![tag(4094, ad)], [4094 | SERVICE_VLAN, NO_VLAN]),
        (vec![tag(200, ad), tag(5, q)], [200 | SERVICE_VLAN, 5]),
        (vec![tag(200, q), tag(5, q)], [200, 5]),
    ] {
        let model = model(&web(&[(11, 1)]));
        let mut reconciler = start(Memory::default(), &model);
        let address: IpAddr = "10.0.0.11".parse().unwrap();
        let hop = NextHop { vlan: tags, ..hop(address) };
        let table = NextHopTable::from([(address, Ok(hop))]);
        reconciler.round(&table, Instant::now()).unwrap();
        assert_eq!(reconciler.contents().servers[&1].vlan, words);
        let remembered = remembered(reconciler.contents());
        assert_eq!(remembered[&address].as_ref().unwrap().vlan, table[&address].as_ref().unwrap().vlan);
    }
}

#[test]
fn a_removed_server_keeps_its_number_until_nothing_refers_to_it() {
    let (both, one) = (model(&web(&[(11, 1), (12, 1)])), model(&web(&[(11, 1)])));
    let mut reconciler = start(Memory::default(), &both);
    settle(&mut reconciler, &[]);
    let address = |host: u8| IpAddr::from([10, 0, 0, host]);

    reconciler.set_model(one.clone()).unwrap();
    settle(&mut reconciler, &[]);
    assert_eq!(ids(reconciler.contents()), [(1, address(11), true), (2, address(12), false)]);

    // Added again it is the same one.
    reconciler.set_model(both).unwrap();
    settle(&mut reconciler, &[]);
    assert_eq!(ids(reconciler.contents()), [(1, address(11), true), (2, address(12), true)]);

    // Removed for good: first it has flows, then none, and 120 s later the number is free.
    reconciler.set_model(one).unwrap();
    settle(&mut reconciler, &[]);
    for (now, referenced, freed) in
        [(1000, true, false), (2000, false, false), (2119, false, false), (2120, false, true)]
    {
        assert_eq!(reconciler.collect(now, |_| referenced), freed, "at {now}");
    }
    settle(&mut reconciler, &[]);
    assert_eq!(ids(reconciler.contents()), [(1, address(11), true)]);

    reconciler.set_model(model(&web(&[(11, 1), (13, 1)]))).unwrap();
    settle(&mut reconciler, &[]);
    assert_eq!(ids(reconciler.contents()), [(1, address(11), true), (2, address(13), true)]);
}

#[test]
fn a_number_given_to_a_new_server_starts_with_no_flows_and_counters() {
    let mut store = Memory::default();
    store.loads.insert(1, [3, 4, 5, 1]);
    let mut reconciler = start(store, &model(&web(&[(11, 1)])));
    settle(&mut reconciler, &[]);
    assert_eq!(reconciler.store_mut().load(1).unwrap(), [0; 4]);
}

#[test]
fn a_restart_keeps_numbers_order_and_cursor() {
    // The order of the list is not that of the file: 12 was added first.
    let mut reconciler = start(Memory::default(), &model(&web(&[(12, 1)])));
    settle(&mut reconciler, &[]);
    let both = model(&web(&[(11, 1), (12, 1), (13, 1)]));
    reconciler.set_model(both.clone()).unwrap();
    settle(&mut reconciler, &[]);
    let before = reconciler.contents().clone();
    assert_eq!(slots(&before, 0), [3, 2, 1]);
    let saved = reconciler.ids().clone();
    let store = std::mem::take(reconciler.store_mut());

    let mut again = Reconciler::new(store.clone(), BASE, Some(saved), both.clone()).unwrap();
    settle(&mut again, &[]);
    assert_eq!(again.contents(), &before);

    // Without the saved state the maps still tell which number is whose; the order is the file's then.
    let mut bare = Reconciler::new(store, BASE, None, both).unwrap();
    settle(&mut bare, &[]);
    assert_eq!(ids(bare.contents()), ids(&before));
    assert_eq!(slots(bare.contents(), 0), [3, 1, 2]);
}

#[test]
fn the_cursor_goes_on_over_a_restart() {
    let wanted = model(&web(&[(11, 1), (12, 1), (13, 1)]));
    let mut reconciler = start(Memory::default(), &wanted);
    settle(&mut reconciler, &[]);
    let saved = reconciler.ids().clone();
    let mut store = std::mem::take(reconciler.store_mut());
    let head = store.plan(0).unwrap();
    // The datapath has scheduled five flows.
    store.put_cells(head.start(), &[5]).unwrap();

    let mut again = Reconciler::new(store, BASE, Some(saved), wanted).unwrap();
    settle(&mut again, &[]);
    let head = again.store_mut().plan(0).unwrap();
    assert_eq!(again.store_mut().cells(head.start(), 1).unwrap(), [5]);
}

#[test]
fn round_robin_goes_on_behind_its_last_server_after_an_edit() {
    let mut reconciler = start(Memory::default(), &model(&web(&[(11, 1), (12, 1), (13, 1)])));
    settle(&mut reconciler, &[]);
    let next = |reconciler: &mut Reconciler<Memory>| {
        let store = reconciler.store_mut();
        let head = store.plan(0).unwrap();
        let cursor = store.cells(head.start(), 1).unwrap()[0];
        store.put_cells(head.start(), &[cursor + 1]).unwrap();
        let slot = store.cells(head.start() + 1 + (cursor % u64::from(head.len())) as u32, 1).unwrap()[0];
        lb_common::plan::Slot(slot).server()
    };
    assert_eq!([next(&mut reconciler), next(&mut reconciler)], [3, 2]);
    reconciler.set_model(model(&web(&[(11, 1), (12, 1), (13, 1), (14, 1)]))).unwrap();
    settle(&mut reconciler, &[]);
    assert_eq!([next(&mut reconciler), next(&mut reconciler), next(&mut reconciler)], [1, 4, 3]);
}

#[test]
fn too_many_rules_at_a_prefix_are_refused_and_nothing_changes() {
    let ports: Vec<String> =
        (0..33).map(|n| format!("{{address: 192.0.2.1, port: {}-{}}}", 10 * n + 1, 10 * n + 5)).collect();
    let crowded = model(&format!(
        "services:\n- {{name: many, match: [{}], servers: [{{address: 10.0.0.11}}]}}\n",
        ports.join(", ")
    ));
    let mut reconciler = start(Memory::default(), &model(&web(&[(11, 1)])));
    settle(&mut reconciler, &[]);
    let error = reconciler.set_model(crowded).unwrap_err().to_string();
    assert!(error.starts_with("33 port ranges and protocols meet at 192.0.2.1/32"), "{error}");
    assert_eq!(reconciler.model().services[0].name, "web");
}

/// Models over small domains, so that they share places, servers and prefixes.
fn any_model() -> impl Strategy<Value = Arc<Model>> {
    let scheduler = prop::sample::select(vec!["rr", "wrr", "wlc", "sh", "mh", "lblc"]);
    let servers = prop::collection::btree_map(11u8..16, (0u32..4, any::<bool>(), 0u32..3), 1..4);
    let service = (scheduler, servers, any::<bool>());
    let selector = prop::collection::btree_map(0u8..6, service, 0..4);
    (selector, any::<bool>(), 0u8..3).prop_map(|(services, sloppy, denied)| {
        let mut text = format!("ipvs: {{sloppy_tcp: {sloppy}}}\nadmission:\n  deny: [");
        text += &(0..denied).map(|n| format!("203.0.{n}.0/24")).collect::<Vec<_>>().join(", ");
        text += "]\nservices:\n";
        for (place, (scheduler, servers, persistent)) in services {
            let selector = match place {
                0 => "address: 192.0.2.1, port: 80",
                1 => "address: 192.0.2.1, port: any",
                2 => "name: a, match: [{address: 192.0.0.0/16, port: 1-100}, {address: 192.0.2.2, port: 90}]",
                3 => "name: b, match: [{address: 192.0.2.0/24, protocol: any, port: any}]",
                4 => "address: '2001:db8::1', port: 80",
                _ => "name: c, match: [{address: 192.0.2.1, port: 1000-2000}]",
            };
            let persistence = if persistent || place == 1 { ", persistence: 60" } else { "" };
            text += &format!("- {{{selector}, scheduler: {scheduler}{persistence}, servers: [");
            for (host, (weight, tunnel, threshold)) in servers {
                let method = if tunnel || place == 4 { ", method: ipip" } else { "" };
                let upper = if threshold > 0 {
                    format!(", upper_threshold: {}", threshold * 10)
                } else {
                    String::new()
                };
                text += &format!("{{address: 10.0.0.{host}, weight: {weight}{method}{upper}}}, ");
            }
            text += "]}\n";
        }
        let text = text.replace(", ]", "]");
        let text = if text.ends_with("services:\n") { text.replace("services:\n", "") } else { text };
        model(&text)
    })
}

/// No range of cells in use overlaps another, and every id a plan names has an available server.
fn is_sound(store: &Memory) -> Result<(), StoreError> {
    let contents = read_contents(store)?;
    let mut ranges = Vec::new();
    for id in contents.plans.keys() {
        let head = store.plan(*id)?;
        ranges.push((head.start(), head.start() + 1 + head.len()));
    }
    ranges.sort_unstable();
    assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0), "plans overlap: {ranges:?}");
    for (service, plan) in &contents.plans {
        for slot in plan.slots.iter().filter(|slot| slot.server() != 0) {
            let server = contents.servers.get(&slot.server());
            assert!(server.is_some(), "plan {service} names server {}, which is not there", slot.server());
        }
    }
    for (place, id) in contents.places.iter().filter(|(place, _)| place.kind == key_kind::SERVICE) {
        assert!(contents.services.contains_key(id), "{place} leads to service {id}, which is not there");
    }
    for rule in contents.prefixes.values().flatten() {
        assert!(contents.services.contains_key(&rule.service), "a rule leads to no service: {rule:?}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn applying_the_difference_leads_from_any_model_to_any_other(
        first in any_model(),
        second in any_model(),
        silent in prop::collection::vec(11u8..16, 0..3),
    ) {
        let mut reconciler = start(Memory::default(), &first);
        settle(&mut reconciler, &silent);
        reconciler.set_model(second.clone()).unwrap();
        settle(&mut reconciler, &[]);
        // What it believes is what is there …
        let store = reconciler.store_mut().clone();
        prop_assert_eq!(reconciler.contents(), &read_contents(&store).unwrap());
        // … nothing is left to do …
        prop_assert_eq!(reconciler.round(&hops(&second, &[]), Instant::now()).unwrap(), 0);
        // … and but for numbers and removed servers it is what a fresh start makes.
        let mut fresh = start(Memory::default(), &second);
        settle(&mut fresh, &[]);
        let (mine, theirs) = (reconciler.contents(), fresh.contents());
        prop_assert!(mine.places.keys().eq(theirs.places.keys()));
        prop_assert!(mine.prefixes.keys().eq(theirs.prefixes.keys()));
        prop_assert_eq!(&mine.denied, &theirs.denied);
        prop_assert_eq!(mine.settings, theirs.settings);
        // mh remembers the weight a drained server had.
        let plans = |contents: &Contents| contents.plans.values().filter(|plan| plan.kind != PlanKind::Hash).count();
        prop_assert_eq!(plans(mine), plans(theirs));
        let available = |contents: &Contents| ids(contents).iter().filter(|(_, _, available)| *available).count();
        prop_assert_eq!(available(mine), available(theirs));
        is_sound(&store).unwrap();
    }

    #[test]
    fn whichever_write_fails_the_maps_stay_sound_and_the_next_rounds_mend_them(
        first in any_model(),
        second in any_model(),
        good in 0u32..60,
    ) {
        let mut reconciler = start(Memory::default(), &first);
        settle(&mut reconciler, &[]);
        let saved = reconciler.ids().clone();
        let store = Faulty::after(std::mem::take(reconciler.store_mut()), good);
        let mut reconciler = Reconciler::new(store, BASE, Some(saved), first).unwrap();
        reconciler.set_model(second.clone()).unwrap();
        let hops = hops(&second, &[]);
        let now = Instant::now();
        let outcome = reconciler.round(&hops, now);
        prop_assert_eq!(outcome.is_err(), reconciler.store_mut().has_failed());
        let between = reconciler.store_mut().inner.clone();
        is_sound(&between).unwrap();
        prop_assert_eq!(reconciler.contents(), &read_contents(&between).unwrap());
        reconciler.round(&hops, now + Duration::from_secs(2)).unwrap();
        let after = reconciler.store_mut().inner.clone();
        is_sound(&after).unwrap();
        prop_assert_eq!(reconciler.contents(), &read_contents(&after).unwrap());
        prop_assert_eq!(reconciler.round(&hops, now + Duration::from_secs(4)).unwrap(), 0);
    }

    #[test]
    fn numbers_never_move_while_a_server_is_configured(models in prop::collection::vec(any_model(), 1..5)) {
        let mut reconciler = start(Memory::default(), &models[0]);
        settle(&mut reconciler, &[]);
        for next in &models {
            let before = reconciler.contents().servers.clone();
            reconciler.set_model(next.clone()).unwrap();
            settle(&mut reconciler, &[]);
            let after = &reconciler.contents().servers;
            // Nothing was freed, so every number still is who it was.
            for (id, server) in &before {
                prop_assert_eq!(after[id].rip, server.rip);
                prop_assert_eq!(after[id].service, server.service);
            }
            let saved = reconciler.ids().clone();
            let store = std::mem::take(reconciler.store_mut());
            reconciler = Reconciler::new(store, BASE, Some(saved), next.clone()).unwrap();
            prop_assert_eq!(reconciler.round(&hops(next, &[]), Instant::now()).unwrap(), 0);
        }
    }
}
