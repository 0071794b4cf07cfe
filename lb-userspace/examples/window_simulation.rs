//! How well a `Least` window spreads flows over more servers than a plan has candidates.
//!
//! A plan holds 256 candidates; of 1,000 servers the control plane keeps the cheapest in it, chosen anew every so
//! many flow events. This lets the same flows go through exact wlc (every server looked at for every flow), through
//! windows of several refresh intervals, and through a window that slides over all servers instead of being
//! refreshed, and prints how far servers are from their fair share.
//!
//!     cargo run --release -p lb-userspace --example window_simulation

use std::collections::VecDeque;
use std::net::IpAddr;

use lb_common::limits::LEAST_CANDIDATES;
use lb_common::net::Addr;
use lb_common::plan::{PlanKind, Slot, cost};
use lb_userspace::model::Scheduler;
use lb_userspace::scheduler::execute::{Datapath, Packet, Server, World};
use lb_userspace::scheduler::{Entry, Load, Plan, window};

const SERVERS: usize = 1_000;
const EVENTS: u32 = 1_000_000;
/// A closed flow is inactive for this many events.
const LINGER: usize = 20_000;
/// Events between two looks at the imbalance.
const SAMPLE: u32 = 500;

/// Which servers a new flow can go to.
#[derive(Clone, Copy, Debug)]
enum Candidates {
    /// All: exact wlc, as IPVS does it.
    Every,
    /// The cheapest, chosen again every this many flow events.
    Window(u32),
    /// The next of a list in random order, further on for every flow.
    Sliding,
}

/// Distance of servers from their fair share of the active flows, which goes by weight; 0.1 is 10 %.
struct Imbalance {
    /// Of the busiest server, at the worst moment.
    max: f64,
    /// Over all servers and moments.
    mean: f64,
}

fn main() {
    println!("{SERVERS} servers, {EVENTS} flow events, wlc; distance from the fair share of active flows\n");
    println!("{:8} {:>8}  {:26} {:>9} {:>9}", "weights", "flows", "candidates", "max", "mean");
    for (name, weights) in [("equal", equal(SERVERS)), ("1 to 10", mixed(SERVERS))] {
        for flows in [20_000, 100_000] {
            let ways = [
                Candidates::Every,
                Candidates::Window(1_000),
                Candidates::Window(10_000),
                Candidates::Window(100_000),
                Candidates::Sliding,
            ];
            for way in ways {
                let Imbalance { max, mean } = simulate(&weights, flows, EVENTS, way);
                let way = match way {
                    Candidates::Every => "all (exact wlc)".to_owned(),
                    Candidates::Window(every) => format!("window, every {every} events"),
                    Candidates::Sliding => "sliding window".to_owned(),
                };
                println!("{name:8} {flows:8}  {way:26} {:8.2}% {:8.2}%", max * 100.0, mean * 100.0);
            }
        }
    }
}

fn equal(servers: usize) -> Vec<u32> {
    vec![1; servers]
}

fn mixed(servers: usize) -> Vec<u32> {
    let mut random = Random(7);
    (0..servers).map(|_| 1 + random.below(10) as u32).collect()
}

/// Flows open until there are `flows`; then they open and close by the toss of a coin. Measured in the second half.
fn simulate(weights: &[u32], flows: usize, events: u32, candidates: Candidates) -> Imbalance {
    let address = IpAddr::from([10, 0, 0, 1]);
    let list: Vec<Entry> = weights
        .iter()
        .enumerate()
        .map(|(at, &weight)| Entry::new(at as u32 + 1, address, 80, weight))
        .collect();
    let every: Vec<Slot> = list.iter().map(|entry| Slot::new(entry.id, entry.weight)).collect();
    let shuffled = shuffled(&every);
    // Server ids begin at 1.
    let mut loads = vec![Load::default(); list.len() + 1];
    let mut live: Vec<u32> = Vec::new();
    let mut lingering = VecDeque::new();
    let mut random = Random(1);
    let mut datapath = Datapath::new(0);
    let mut plan = Plan { kind: PlanKind::Least, detail: cost::WLC, slots: every, cursor: 0 };
    let packet = Packet { source: Addr::from(address), source_port: 0, destination: Addr::from(address) };
    let mut measured = Measured::default();
    for event in 0..events {
        match candidates {
            Candidates::Window(every) if event % every == 0 => {
                plan.slots = window(Scheduler::Wlc, &list, &|id| loads[id as usize]);
            }
            Candidates::Sliding => slide(&mut plan.slots, &shuffled, event),
            Candidates::Every | Candidates::Window(_) => {}
        }
        if live.len() < flows && (event < flows as u32 || random.below(2) == 0) {
            let load = |id: u32| loads[id as usize];
            let always = |_| Server { weight: 1, available: true };
            let mut world = World { load: &load, server: &always, draw: &mut |_| 0, now: 0 };
            let server = datapath.choose(&plan, &packet, &mut world).expect("no server is overloaded");
            loads[server as usize].active += 1;
            live.push(server);
        } else {
            let server = live.swap_remove(random.below(live.len() as u64) as usize);
            loads[server as usize].active -= 1;
            loads[server as usize].inactive += 1;
            lingering.push_back(server);
            if lingering.len() > LINGER {
                let gone = lingering.pop_front().expect("just pushed");
                loads[gone as usize].inactive -= 1;
            }
        }
        if event >= events / 2 && event % SAMPLE == SAMPLE - 1 {
            measured.take(&loads[1..], weights);
        }
    }
    Imbalance { max: measured.max, mean: measured.sum / measured.count }
}

/// The 256 behind a place that moves on by a stride that is prime to most lengths.
fn slide(slots: &mut Vec<Slot>, every: &[Slot], event: u32) {
    let start = event as usize * 127 % every.len();
    slots.clear();
    slots.extend(every.iter().cycle().skip(start).take(LEAST_CANDIDATES as usize));
}

fn shuffled(slots: &[Slot]) -> Vec<Slot> {
    let mut random = Random(3);
    let mut slots = slots.to_vec();
    for at in (1..slots.len()).rev() {
        slots.swap(at, random.below(at as u64 + 1) as usize);
    }
    slots
}

#[derive(Default)]
struct Measured {
    max: f64,
    sum: f64,
    count: f64,
}

impl Measured {
    fn take(&mut self, loads: &[Load], weights: &[u32]) {
        let flows: u32 = loads.iter().map(|load| load.active).sum();
        let share = f64::from(flows) / f64::from(weights.iter().sum::<u32>());
        for (load, &weight) in loads.iter().zip(weights) {
            let off = f64::from(load.active) / (f64::from(weight) * share) - 1.0;
            self.max = self.max.max(off);
            self.sum += off.abs();
            self.count += 1.0;
        }
    }
}

/// SplitMix64: the same flows every time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOWS: usize = 20_000;

    fn run(weights: &[u32], way: Candidates) -> Imbalance {
        simulate(weights, FLOWS, 60_000, way)
    }

    #[test]
    fn a_window_is_off_by_no_more_than_the_flows_of_one_interval() {
        let weights = equal(400);
        let exact = run(&weights, Candidates::Every);
        for every in [1_000, 5_000] {
            let window = run(&weights, Candidates::Window(every));
            // The window's servers share what opens until the next refresh; a fair share is 50 flows.
            let bound = f64::from(every) / f64::from(LEAST_CANDIDATES) / (FLOWS as f64 / 400.0);
            assert!(window.max < exact.max + bound, "{every}: {} against {}", window.max, exact.max);
            assert!(
                window.mean < exact.mean + bound / 2.0,
                "{every}: {} against {}",
                window.mean,
                exact.mean
            );
        }
    }

    #[test]
    fn a_window_that_is_hardly_refreshed_is_far_off() {
        let weights = equal(400);
        assert!(run(&weights, Candidates::Window(30_000)).max > 2.0 * run(&weights, Candidates::Every).max);
    }

    #[test]
    fn a_sliding_window_is_as_fair_as_looking_at_every_server() {
        let weights = mixed(400);
        let (exact, sliding) = (run(&weights, Candidates::Every), run(&weights, Candidates::Sliding));
        assert!(sliding.max < exact.max * 1.1 && sliding.mean < exact.mean * 1.1);
    }
}
