//! How well flows spread over more servers than the datapath compares for one flow.
//!
//! Of 1,000 servers a new flow looks at the next 256, in shuffled order. This lets the same flows go through exact wlc,
//! as IPVS does it with every server looked at for every flow, and through the datapath's plan, and prints how far
//! servers are from their fair share.
//!
//!     cargo run --release -p lb-userspace --example least_simulation

use std::collections::VecDeque;
use std::net::IpAddr;

use lb_common::net::Addr;
use lb_userspace::model::{Scheduler, SchedulerFlags};
use lb_userspace::scheduler::execute::{Datapath, Packet, Server, World};
use lb_userspace::scheduler::reference::{Moment, Service};
use lb_userspace::scheduler::{Edit, Entry, Load, Schedule};

const SERVERS: usize = 1_000;
const EVENTS: u32 = 1_000_000;
/// A closed flow is inactive for this many events.
const LINGER: usize = 20_000;
/// Events between two looks at the imbalance.
const SAMPLE: u32 = 500;

/// Who chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Ipvs,
    Datapath,
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
    println!("| weights | live flows | IPVS: max | mean | lb: max | mean |");
    println!("|---|---|---|---|---|---|");
    for (name, weights) in [("equal", equal(SERVERS)), ("1 to 10", mixed(SERVERS))] {
        for flows in [20_000, 100_000] {
            let [ipvs, lb] = [Way::Ipvs, Way::Datapath].map(|way| {
                let Imbalance { max, mean } = simulate(&weights, flows, EVENTS, way);
                format!("{:.2} % | {:.2} %", max * 100.0, mean * 100.0)
            });
            println!("| {name} | {flows} | {ipvs} | {lb} |");
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
fn simulate(weights: &[u32], flows: usize, events: u32, way: Way) -> Imbalance {
    let mut director = Director::new(weights);
    let mut live: Vec<u32> = Vec::new();
    let mut lingering = VecDeque::new();
    let mut random = Random(1);
    let mut measured = Measured::default();
    for event in 0..events {
        if live.len() < flows && (event < flows as u32 || random.below(2) == 0) {
            let server = director.choose(way);
            director.change(server, |load| load.active += 1);
            live.push(server);
        } else {
            let server = live.swap_remove(random.below(live.len() as u64) as usize);
            director.change(server, |load| {
                load.active -= 1;
                load.inactive += 1;
            });
            lingering.push_back(server);
            if lingering.len() > LINGER {
                let gone = lingering.pop_front().expect("just pushed");
                director.change(gone, |load| load.inactive -= 1);
            }
        }
        if event >= events / 2 && event % SAMPLE == SAMPLE - 1 {
            measured.take(&director.loads[1..], weights);
        }
    }
    Imbalance { max: measured.max, mean: measured.sum / measured.count }
}

/// One service, as IPVS has it and as the datapath has it. Server ids begin at 1.
struct Director {
    ipvs: Service,
    datapath: Datapath,
    schedule: Schedule,
    loads: Vec<Load>,
}

impl Director {
    fn new(weights: &[u32]) -> Self {
        let (scheduler, flags) = (Scheduler::Wlc, SchedulerFlags::default());
        let address = IpAddr::from([10, 0, 0, 1]);
        let edits: Vec<Edit> = weights
            .iter()
            .zip(1..)
            .map(|(&weight, id)| Edit::Add(Entry::new(id, address, 80, weight)))
            .collect();
        let mut ipvs = Service::new(scheduler, flags);
        edits.iter().for_each(|edit| ipvs.edit(edit));
        let schedule = Schedule::new(scheduler, flags, Vec::new()).edited(&edits, 0);
        let datapath = Datapath::new(schedule.plan().cursor);
        Self { ipvs, datapath, schedule, loads: vec![Load::default(); weights.len() + 1] }
    }

    fn choose(&mut self, way: Way) -> u32 {
        let address = Addr::from(IpAddr::from([192, 0, 2, 1]));
        let packet = Packet { source: address, source_port: 0, destination: address };
        let chosen = if way == Way::Ipvs {
            self.ipvs.choose(&mut Moment { packet, now: 0, draw: &mut |_| 0 })
        } else {
            let load = |id: u32| self.loads[id as usize];
            let server = |_| Server { weight: 1, available: true };
            let mut world = World { load: &load, server: &server, draw: &mut |_| 0, now: 0 };
            self.datapath.choose(self.schedule.plan(), &packet, &mut world)
        };
        chosen.expect("no server is overloaded")
    }

    fn change(&mut self, server: u32, change: impl Fn(&mut Load)) {
        change(self.ipvs.load_mut(server));
        change(&mut self.loads[server as usize]);
    }
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

    #[test]
    fn a_stretch_of_256_is_as_fair_as_all_servers() {
        for (case, weights) in [("equal weights", equal(400)), ("weights 1 to 10", mixed(400))] {
            let [ipvs, lb] = [Way::Ipvs, Way::Datapath].map(|way| simulate(&weights, 20_000, 60_000, way));
            // One flow, as part of the share of a server of weight 1.
            let flow = f64::from(weights.iter().sum::<u32>()) / 20_000.0;
            assert!(lb.max < ipvs.max + 1.1 * flow, "{case}: {} and {}", lb.max, ipvs.max);
            assert!(lb.mean < ipvs.mean * 1.1, "{case}: {} and {}", lb.mean, ipvs.mean);
        }
    }
}
