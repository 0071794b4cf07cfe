//! Plans of known services: IPVS's examples and test vectors, and what happens at the bounds.

use std::net::IpAddr;

use lb_common::hash;
use lb_common::limits::LEAST_CANDIDATES;
use lb_common::net::Addr;
use lb_common::plan::PlanKind;
use lb_userspace::model::{Scheduler, SchedulerFlags};
use lb_userspace::scheduler::execute::{Datapath, Packet, Server, World};
use lb_userspace::scheduler::{CYCLE_SLOTS, Edit, Entry, Load, Plan, Schedule, Warning};

fn idle(_: u32) -> Load {
    Load::default()
}

fn always(_: u32) -> Server {
    Server { weight: 1, available: true }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn entry(id: u32, weight: u32) -> Entry {
    Entry::new(id, IpAddr::from([10, 0, (id >> 8) as u8, id as u8]), 80, weight)
}

/// In list order, ids counting down to 1 as if added in the order of the ids.
fn list(weights: &[u32]) -> Vec<Entry> {
    let newest = weights.len() as u32;
    weights.iter().zip(0..).map(|(&weight, at)| entry(newest - at, weight)).collect()
}

fn bound(scheduler: Scheduler, list: Vec<Entry>) -> Schedule {
    Schedule::new(scheduler, SchedulerFlags::default(), list)
}

/// A service as an operator makes one: empty, then a server at a time, ids from 1.
fn added(scheduler: Scheduler, weights: &[u32]) -> Schedule {
    let edits: Vec<Edit> =
        weights.iter().zip(1..).map(|(&weight, id)| Edit::Add(entry(id, weight))).collect();
    bound(scheduler, Vec::new()).edited(&edits, 0)
}

fn servers(plan: &Plan) -> Vec<u32> {
    plan.slots.iter().map(|slot| slot.server()).collect()
}

fn choose(datapath: &mut Datapath, plan: &Plan, packet: &Packet, load: &dyn Fn(u32) -> Load) -> Option<u32> {
    let mut world = World { load, server: &always, draw: &mut |_| 0, now: 0 };
    datapath.choose(plan, packet, &mut world)
}

fn packet(source: &str, port: u16, destination: &str) -> Packet {
    Packet { source: Addr::from(ip(source)), source_port: port, destination: Addr::from(ip(destination)) }
}

fn picks(schedule: &Schedule, cursor: &mut u64, count: usize) -> Vec<u32> {
    let mut datapath = Datapath::new(*cursor);
    let packet = packet("192.0.2.1", 1, "192.0.2.2");
    let picks = (0..count).filter_map(|_| choose(&mut datapath, schedule.plan(), &packet, &idle)).collect();
    *cursor = datapath.cursor;
    picks
}

#[test]
fn wrr_repeats_ipvs_s_examples() {
    for (case, weights, period) in [
        (
            "C(2) B(3) A(4), as the list is: A B A C B A C B A",
            &[2, 3, 4][..],
            &[1, 2, 1, 3, 2, 1, 3, 2, 1][..],
        ),
        ("B(2) A(4), two levels: A B A", &[2, 4], &[1, 2, 1]),
        ("equal weights: once each", &[7, 7], &[2, 1]),
        ("weight 0 is left out", &[0, 1, 0, 2], &[1, 3, 1]),
    ] {
        assert_eq!(servers(bound(Scheduler::Wrr, list(weights)).plan()), period, "{case}");
    }
}

#[test]
fn wrr_begins_at_the_level_its_servers_were_added_at() {
    // Recorded from a kernel: weights 4, 3, 2, 1 added in this order begin with the lowest level.
    let schedule = added(Scheduler::Wrr, &[4, 3, 2, 1]);
    let mut cursor = schedule.plan().cursor;
    assert_eq!(picks(&schedule, &mut cursor, 14), [4, 3, 2, 1, 1, 2, 1, 3, 2, 1, 4, 3, 2, 1]);
}

#[test]
fn a_plan_continues_where_ipvs_would() {
    let same = Edit::Change(entry(2, 1));
    for (case, scheduler, weights, before, edit, after) in [
        (
            "rr: a server added is reached after the wrap",
            Scheduler::Rr,
            &[1, 1, 1][..],
            1,
            Edit::Add(entry(4, 1)),
            [2, 1, 4, 3],
        ),
        (
            "rr: removing the last picked goes on behind it",
            Scheduler::Rr,
            &[1, 1, 1],
            2,
            Edit::Remove(2),
            [1, 3, 1, 3],
        ),
        (
            "rr: draining the next one skips it",
            Scheduler::Rr,
            &[1, 1, 1],
            1,
            Edit::Change(entry(2, 0)),
            [1, 3, 1, 3],
        ),
        ("rr: a change of nothing changes nothing", Scheduler::Rr, &[1, 1, 1], 2, same, [1, 3, 2, 1]),
        ("wrr: a change of nothing repeats the level", Scheduler::Wrr, &[1, 1, 1], 2, same, [3, 2, 1, 3]),
        ("wrr: and so does one before the first flow", Scheduler::Wrr, &[1, 1, 1], 0, same, [3, 2, 1, 3]),
    ] {
        let schedule = added(scheduler, weights);
        let mut cursor = schedule.plan().cursor;
        picks(&schedule, &mut cursor, before);
        let schedule = schedule.edited(&[edit], cursor);
        cursor = schedule.plan().cursor;
        assert_eq!(picks(&schedule, &mut cursor, 4), after, "{case}");
    }
}

#[test]
fn a_service_drained_and_filled_again_goes_on_after_the_server_picked_last() {
    let schedule = added(Scheduler::Rr, &[1, 1]);
    let mut cursor = schedule.plan().cursor;
    assert_eq!(picks(&schedule, &mut cursor, 1), [2]);
    let drained = schedule.edited(&[Edit::Change(entry(1, 0)), Edit::Change(entry(2, 0))], cursor);
    assert_eq!(*drained.plan(), Plan::NONE);
    let filled = drained.edited(&[Edit::Change(entry(2, 1)), Edit::Change(entry(1, 1))], 0);
    cursor = filled.plan().cursor;
    assert_eq!(picks(&filled, &mut cursor, 2), [1, 2]);
}

#[test]
fn a_restarted_control_plane_goes_on_at_the_cursor_it_finds() {
    let schedule = added(Scheduler::Wrr, &[3, 1, 2]);
    let mut cursor = schedule.plan().cursor;
    picks(&schedule, &mut cursor, 4);
    let flags = SchedulerFlags::default();
    let resumed = Schedule::resumed(Scheduler::Wrr, flags, schedule.entries().to_vec(), cursor);
    assert_eq!((resumed.plan().cursor, &resumed.plan().slots), (cursor, &schedule.plan().slots));
    let edit = [Edit::Change(entry(3, 5))];
    assert_eq!(resumed.edited(&edit, cursor).plan(), schedule.edited(&edit, cursor).plan());
}

#[test]
fn weights_too_large_for_a_plan_are_scaled_and_said_to_be() {
    for (weights, worst) in
        [(&[70_000, 1][..], 6.9), (&[i32::MAX as u32, 1_000_000_007, 3], f64::MAX), (&[65_537, 65_536], 0.01)]
    {
        let schedule = added(Scheduler::Wrr, weights);
        let slots = &schedule.plan().slots;
        assert!(slots.len() <= CYCLE_SLOTS, "{weights:?}");
        let Some(Warning::WeightsScaled { needed, slots: got, worst_percent }) = schedule.warning() else {
            panic!("{weights:?}: {:?}", schedule.warning());
        };
        assert_eq!((*needed, *got), (weights.iter().map(|&w| u64::from(w)).sum(), slots.len()));
        assert!(*worst_percent <= worst, "{weights:?}: {worst_percent}");
        for (&weight, id) in weights.iter().zip(1..) {
            let turns = slots.iter().filter(|slot| slot.server() == id).count();
            let fair = f64::from(weight) / *needed as f64 * slots.len() as f64;
            assert!((turns as f64 - fair).abs() <= 1.0, "{weights:?}: {turns} turns for {fair}");
        }
    }
    assert_eq!(added(Scheduler::Wrr, &[32_768, 32_767]).warning(), None);
    assert_eq!(added(Scheduler::Wrr, &[1 << 30, 1 << 29]).warning(), None, "a common divisor is no loss");
}

#[test]
fn a_scaled_plan_continues_at_its_level() {
    let schedule = added(Scheduler::Wrr, &[100_000, 70_001, 7]);
    let period = schedule.plan().slots.len() as u64;
    for cursor in (1..=period).step_by(997) {
        let again = schedule.edited(&[Edit::Change(entry(3, 7))], cursor).plan().cursor % period;
        // Back to the beginning of the level, which is less than all three servers away.
        assert!(again <= cursor && cursor - again <= 3, "{cursor} became {again}");
    }
}

#[test]
fn sh_and_dh_find_the_buckets_of_ipvs() {
    // With 256 servers of weight 1, bucket `n` is the n-th server of the list.
    let list = list(&[1; 256]);
    let position = |id: u32| list.iter().position(|entry| entry.id == id).unwrap();
    for (address, bucket, with_port) in [
        ("192.0.2.1", 50, 249),
        ("198.51.100.9", 110, 53),
        ("10.0.0.1", 39, 238),
        ("255.255.255.255", 158, 100),
        ("2001:db8::1", 63, 5),
    ] {
        for (scheduler, port, expected) in
            [(Scheduler::Sh, false, bucket), (Scheduler::Sh, true, with_port), (Scheduler::Dh, false, bucket)]
        {
            let flags = SchedulerFlags { port, fallback: false };
            let schedule = Schedule::new(scheduler, flags, list.clone());
            let packet = packet(address, 49_153, address);
            let server = choose(&mut Datapath::new(0), schedule.plan(), &packet, &idle).unwrap();
            assert_eq!(position(server), expected, "{scheduler:?} {address}");
        }
    }
}

#[test]
fn sh_fills_its_buckets_round_the_list() {
    for (case, weights, first) in [
        ("as the weights say", &[2, 1, 1][..], [3, 3, 2, 1, 3, 3, 2, 1]),
        ("weight 0 gets one, too", &[0, 2], [2, 1, 1, 2, 1, 1, 2, 1]),
    ] {
        let schedule = bound(Scheduler::Sh, list(weights));
        assert_eq!(servers(schedule.plan())[..8], first, "{case}");
        assert_eq!(schedule.plan().slots.len(), 256);
    }
    let count = |id| {
        servers(bound(Scheduler::Sh, list(&[2, 1, 1])).plan()).iter().filter(|&&server| server == id).count()
    };
    assert_eq!([3, 2, 1].map(count), [128, 64, 64]);
}

#[test]
fn an_unreachable_server_keeps_its_buckets_and_moves_nobody_else() {
    for scheduler in [Scheduler::Sh, Scheduler::Dh, Scheduler::Mh] {
        let up = list(&[3, 2, 1]);
        let mut down = up.clone();
        down[1].reachable = false;
        let (up, down) = (bound(scheduler, up), bound(scheduler, down));
        assert_eq!(servers(up.plan()), servers(down.plan()), "{scheduler:?}");
        let refused = down.plan().slots.iter().filter(|slot| slot.number() == 0);
        assert!(
            refused.clone().count() > 0 && refused.clone().all(|slot| slot.server() == 2),
            "{scheduler:?}"
        );
    }
}

#[test]
fn mh_sends_clients_where_ipvs_does() {
    let entry = |id, address, weight| Entry::new(id, ip(address), 80, weight);
    let list = vec![entry(3, "10.0.0.3", 2), entry(2, "10.0.0.2", 1), entry(1, "10.0.0.1", 1)];
    let schedule = bound(Scheduler::Mh, list);
    for (client, slot, server) in [("198.51.100.9", 667, 3), ("192.0.2.1", 2891, 3), ("2001:db8::1", 3457, 2)]
    {
        assert_eq!(hash::mh(&Addr::from(ip(client)), 0, 0) % hash::MH_TABLE, slot, "{client}");
        let packet = packet(client, 49_153, "192.0.2.2");
        let chosen = choose(&mut Datapath::new(0), schedule.plan(), &packet, &idle);
        assert_eq!(chosen, Some(server), "{client}");
    }
    assert_eq!(hash::mh(&Addr::from(ip("198.51.100.9")), 49_153, 0) % hash::MH_TABLE, 3025);
}

#[test]
fn mh_has_room_for_as_many_servers_as_slots() {
    let full = bound(Scheduler::Mh, list(&[1; 4093]));
    assert_eq!((full.plan().slots.len(), full.warning()), (4093, None));
    let over = bound(Scheduler::Mh, list(&[1; 4095]));
    assert_eq!(over.warning(), Some(&Warning::TableFull { servers: 4095, slots: 4093, left_out: 2 }));
    assert!(servers(over.plan()).iter().all(|&id| id <= 4093), "the newest are the ones left out");
}

#[test]
fn a_service_without_a_usable_server_has_no_plan() {
    use Scheduler::*;
    for scheduler in [Rr, Wrr, Lc, Wlc, Sed, Nq, Fo, Ovf, Twos] {
        for weights in [&[][..], &[0, 0]] {
            assert_eq!(*bound(scheduler, list(weights)).plan(), Plan::NONE, "{scheduler:?} {weights:?}");
        }
    }
    for scheduler in [Lblc, Lblcr] {
        let plan = bound(scheduler, list(&[0, 0]));
        assert_eq!((plan.plan().kind, servers(plan.plan())), (PlanKind::Locality, vec![]), "{scheduler:?}");
    }
    for scheduler in [Sh, Dh, Mh] {
        assert_eq!(*bound(scheduler, Vec::new()).plan(), Plan::NONE, "{scheduler:?}");
    }
    assert_eq!(*bound(Mh, list(&[0, 0])).plan(), Plan::NONE, "mh of servers that never had a weight");
    assert_eq!(bound(Sh, list(&[0, 0])).plan().kind, PlanKind::Hash, "sh refuses by its buckets");
}

#[test]
fn fo_prefers_weight_then_list_order_and_falls_over_when_overloaded() {
    let schedule = bound(Scheduler::Fo, list(&[1, 5, 0, 5]));
    assert_eq!(servers(schedule.plan()), [3, 1, 4]);
    for (overloaded, chosen) in [(&[][..], Some(3)), (&[3], Some(1)), (&[1, 3], Some(4)), (&[1, 3, 4], None)]
    {
        let load = |id| Load { overloaded: overloaded.contains(&id), ..Load::default() };
        let packet = packet("192.0.2.1", 1, "192.0.2.2");
        assert_eq!(choose(&mut Datapath::new(0), schedule.plan(), &packet, &load), chosen, "{overloaded:?}");
    }
}

#[test]
fn twos_draws_by_weight_with_ipvs_s_bias_to_the_head() {
    // Weights 2 and 1: lots 0, 1 and 2 are the first server's, 3 the second's. Idle servers: the first draw stands.
    let schedule = bound(Scheduler::Twos, list(&[2, 1]));
    let mut chosen = [0; 3];
    for (one, two) in (0..=3).flat_map(|one| (0..=3).map(move |two| (one, two))) {
        let mut lots = [two, one];
        let mut left = 2;
        let mut draw = |most| {
            assert_eq!(most, 3);
            left -= 1;
            std::mem::take(&mut lots[left])
        };
        let mut world = World { load: &idle, server: &always, draw: &mut draw, now: 0 };
        let packet = packet("192.0.2.1", 1, "192.0.2.2");
        let server = Datapath::new(0).choose(schedule.plan(), &packet, &mut world).unwrap();
        chosen[server as usize] += 1;
    }
    assert_eq!(chosen, [0, 4, 12]);
}

#[test]
fn up_to_256_servers_are_compared_in_list_order() {
    for scheduler in [Scheduler::Wlc, Scheduler::Lblc] {
        let few = bound(scheduler, list(&[1; 256]));
        assert!(servers(few.plan()).is_sorted_by(|a, b| a > b), "{scheduler:?}");
        assert_eq!(few.edited(&[Edit::Change(entry(9, 2))], 5).plan().cursor, 0, "{scheduler:?}");
    }
}

#[test]
fn more_servers_are_all_in_the_plan_and_hardly_move_when_one_comes_or_goes() {
    for scheduler in [Scheduler::Wlc, Scheduler::Twos, Scheduler::Lblcr] {
        let many = bound(scheduler, list(&[1; 300]));
        let order = servers(many.plan());
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (1..=300).collect::<Vec<u32>>(), "{scheduler:?}");
        let ascents = order.windows(2).filter(|pair| pair[0] < pair[1]).count();
        assert!((100..200).contains(&ascents), "{scheduler:?}: {ascents} of 299 in order");

        let more = many.edited(&[Edit::Add(entry(301, 1))], 40);
        let others: Vec<u32> = servers(more.plan()).into_iter().filter(|&id| id != 301).collect();
        assert_eq!(others, order, "{scheduler:?}");
        assert_eq!(
            bound(scheduler, more.entries().to_vec()).plan().slots,
            more.plan().slots,
            "{scheduler:?}"
        );
    }
}

#[test]
fn the_turn_goes_on_over_edits_and_restarts_while_there_are_more_servers_than_are_compared() {
    let many = bound(Scheduler::Wlc, list(&[1; 258]));
    assert_eq!(many.plan().cursor, 0);
    let edit = |schedule: &Schedule, id, weight| schedule.edited(&[Edit::Change(entry(id, weight))], 40);
    let fewer = edit(&many, 258, 0);
    assert_eq!((fewer.plan().slots.len(), fewer.plan().cursor), (257, 40));
    let few = edit(&fewer, 257, 0);
    assert_eq!((few.plan().slots.len(), few.plan().cursor), (256, 0));
    assert_eq!(edit(&few, 257, 1).plan().cursor, 0);
    let flags = SchedulerFlags::default();
    let resumed = Schedule::resumed(Scheduler::Wlc, flags, many.entries().to_vec(), 40);
    assert_eq!(resumed.plan(), &Plan { cursor: 40, ..many.plan().clone() });
}

#[test]
fn each_flow_compares_the_next_256() {
    let most = LEAST_CANDIDATES as usize;
    let schedule = bound(Scheduler::Wlc, list(&[1; 1000]));
    let order = servers(schedule.plan());
    let packet = packet("192.0.2.1", 1, "192.0.2.2");
    for turn in [0, 1, 2, 7, 999, 1000, 1_000_000] {
        let begin = turn as usize * 127 % 1000;
        for (case, idlest, is_seen) in [
            ("the first of the stretch", begin, true),
            ("the last of the stretch", begin + most - 1, true),
            ("the one behind it", begin + most, false),
            ("the one before it", begin + 999, false),
        ] {
            let idlest = order[idlest % 1000];
            let load = |id| Load { active: u32::from(id != idlest), ..Load::default() };
            let mut datapath = Datapath::new(turn);
            let chosen = choose(&mut datapath, schedule.plan(), &packet, &load);
            assert_eq!(chosen == Some(idlest), is_seen, "{case}, turn {turn}");
            assert_eq!(datapath.cursor, turn + 1, "{case}, turn {turn}");
        }
    }
}

#[test]
fn a_kept_server_is_crowded_by_an_idle_one_in_the_stretch() {
    let schedule = bound(Scheduler::Lblc, list(&[1; 1000]));
    let order = servers(schedule.plan());
    let packet = packet("192.0.2.1", 1, "192.0.2.2");
    for (case, idle_at, moves) in [
        ("an idle server in the stretch of the second flow takes it", 127 + 255, true),
        ("one behind it is not looked at", 127 + 256, false),
    ] {
        let mut datapath = Datapath::new(0);
        let kept = choose(&mut datapath, schedule.plan(), &packet, &idle).unwrap();
        let load = |id| Load { active: if id == order[idle_at] { 0 } else { 2 }, ..Load::default() };
        let next = choose(&mut datapath, schedule.plan(), &packet, &load).unwrap();
        assert_eq!(next, if moves { order[idle_at] } else { kept }, "{case}");
        assert_eq!(datapath.cursor, 2, "{case}");
    }
}
