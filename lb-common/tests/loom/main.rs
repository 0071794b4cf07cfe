//! The flow table under every interleaving of a few CPUs, as far as loom's memory model and a bound on preemptions
//! go. `cargo xtask test` runs it; by hand: `RUSTFLAGS="--cfg loom" cargo test -p lb-common --test loom --release`.
#![cfg(loom)]

mod model;

use loom::sync::Arc;
use loom::thread;
use model::{Became, Cpu, ESTABLISHED, HALF_OPEN, Image, Memory, NOW, Table, at};

/// What a CPU does in a model.
type Act = fn(&mut Cpu, &Table);

/// Runs the acts, a CPU each, from `image` in every order. What becomes of it is held against what the CPUs counted,
/// and then `check` sees which flows are live.
fn every_order(preemptions: usize, image: Image, acts: &'static [Act], check: fn(&[u32], &[Cpu])) {
    for memory in [Memory::Weak, Memory::InOrder] {
        in_memory(memory, preemptions, image.clone(), acts, check);
    }
}

fn in_memory(
    memory: Memory,
    preemptions: usize,
    image: Image,
    acts: &'static [Act],
    check: fn(&[u32], &[Cpu]),
) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    builder.max_branches = 10_000;
    builder.check(move || {
        let table = Arc::new(image.table(memory));
        let act = |(number, act): (u32, &Act)| {
            let mut cpu = Cpu::new(number);
            act(&mut cpu, &table);
            cpu
        };
        let spawn = |(number, act): (u32, &'static Act)| {
            let table = table.clone();
            thread::spawn(move || {
                let mut cpu = Cpu::new(number);
                act(&mut cpu, &table);
                cpu
            })
        };
        let others: Vec<_> = (2..).zip(&acts[1..]).map(spawn).collect();
        let mut cpus = vec![act((1, &acts[0]))];
        cpus.extend(others.into_iter().map(|cpu| cpu.join().unwrap()));
        let live = image.settle(&table, &cpus);
        check(&live, &cpus);
    });
}

#[test]
fn two_cpus_open_one_flow_into_one_bucket_and_it_is_there_once() {
    const OPEN: Act = |cpu, table| cpu.open(table, at(0, 0, 7), 1);
    every_order(5, Image::new(&[6]), &[OPEN; 2], |live, _| assert_eq!(live, [1]));
}

#[test]
fn two_cpus_open_one_flow_into_both_its_buckets_and_it_is_there_once() {
    const OPEN: Act = |cpu, table| cpu.open(table, at(0, 1, 7), 1);
    every_order(5, Image::new(&[7, 7]), &[OPEN; 2], |live, _| assert_eq!(live, [1]));
}

#[test]
fn three_cpus_open_one_flow_and_every_copy_that_stays_is_counted() {
    // A CPU looks for one twin, so of three copies two may stay: the second is never found, and goes when it expires.
    const OPEN: Act = |cpu, table| cpu.open(table, at(0, 1, 7), 1);
    every_order(3, Image::new(&[7, 6]), &[OPEN; 3], |live, _| assert!(live == [1] || live == [1, 1]));
}

#[test]
fn a_flow_opened_twice_and_established_meanwhile_is_there_once() {
    every_order(
        3,
        Image::new(&[6]),
        &[
            |cpu, table| cpu.open(table, at(0, 0, 7), 1),
            |cpu, table| cpu.open(table, at(0, 0, 7), 1),
            |cpu, table| {
                cpu.establish(table, at(0, 0, 7), 1);
            },
        ],
        |live, _| assert_eq!(live, [1]),
    );
}

#[test]
fn a_way_that_is_lost_between_publishing_and_looking_for_a_twin_is_left_alone() {
    every_order(
        3,
        Image::new(&[7, 7]),
        &[
            |cpu, table| cpu.open(table, at(0, 1, 7), 1),
            |cpu, table| cpu.open(table, at(0, 1, 7), 1),
            |cpu, table| cpu.open(table, at(1, 1, 8), 2),
        ],
        |live, cpus| {
            let kept = cpus[2].became == [Became::New] && cpus[0].evictions + cpus[1].evictions == 0;
            assert!(live.contains(&2) || !kept, "a flow was lost");
            assert!(!live.starts_with(&[1, 1]));
        },
    );
}

#[test]
fn a_flow_whose_two_buckets_are_one_is_not_taken_for_its_own_twin() {
    every_order(
        3,
        Image::new(&[6]).with(0, 1, 7, false, NOW + HALF_OPEN),
        &[
            |cpu, table| cpu.open(table, at(0, 0, 8), 2),
            |cpu, table| {
                cpu.end(table, at(0, 0, 7), 1);
            },
        ],
        |live, cpus| {
            assert_ne!(cpus[0].became, [Became::Known], "nobody else opened it");
            assert_eq!(live.contains(&2), cpus[0].became == [Became::New]);
        },
    );
}

#[test]
fn a_half_open_flow_is_evicted_or_established_but_not_both() {
    every_order(
        2,
        Image::new(&[7]).with(0, 1, 7, false, NOW + HALF_OPEN),
        &[
            |cpu, table| cpu.open(table, at(0, 0, 8), 2),
            |cpu, table| {
                cpu.establish(table, at(0, 0, 7), 1);
            },
            |cpu, table| cpu.open(table, at(0, 0, 9), 3),
        ],
        |live, cpus| {
            assert_eq!(live.len(), 1);
            if cpus[1].established == 1 {
                assert_eq!(live, [1], "an established flow was evicted");
            } else {
                assert_ne!(live, [1], "nobody took a half-open flow's place");
            }
        },
    );
}

#[test]
fn an_expired_flow_is_taken_out_once_and_its_next_packet_opens_it_anew() {
    every_order(
        2,
        Image::new(&[7]).with(0, 1, 7, true, NOW),
        &[
            |cpu, table| cpu.packet(table, at(0, 0, 7), 1),
            |cpu, table| cpu.sweep(table, 0),
            |cpu, table| cpu.open(table, at(0, 0, 8), 2),
        ],
        |live, cpus| {
            assert_eq!(live.len(), 1);
            assert_eq!(live.contains(&2), cpus[2].became == [Became::New] && cpus[0].evictions == 0);
        },
    );
}

#[test]
fn nobody_sees_a_mixture_of_a_flow_and_the_one_that_takes_its_way() {
    every_order(
        2,
        Image::new(&[7]).with(0, 1, 7, true, NOW + ESTABLISHED),
        &[
            |cpu, table| {
                // The same tag, so that only the key tells them apart.
                assert!(cpu.end(table, at(0, 0, 7), 1));
                cpu.open(table, at(0, 0, 7), 2);
            },
            |cpu, table| {
                cpu.look(table, at(0, 0, 7), 1);
                cpu.look(table, at(0, 0, 7), 2);
            },
            |cpu, table| cpu.sweep(table, 0),
        ],
        |live, _| assert_eq!(live, [2]),
    );
}

#[test]
fn flags_for_a_flow_that_is_gone_do_not_change_the_server_of_its_successor() {
    // Not in weak memory: loom lets another CPU's store come between the two halves of a swap of the same word.
    in_memory(
        Memory::InOrder,
        3,
        Image::new(&[7]).with(0, 1, 7, true, NOW + ESTABLISHED),
        &[
            |cpu, table| {
                assert!(cpu.end(table, at(0, 0, 7), 1));
                cpu.open(table, at(0, 0, 8), 2);
            },
            |cpu, table| {
                if let Some(entry) = cpu.look(table, at(0, 0, 7), 1) {
                    entry.set_flags(lb_common::flow::meta::ASSURED);
                }
            },
        ],
        |live, _| assert_eq!(live, [2]),
    );
}

#[test]
fn a_flow_that_another_cpu_moves_meanwhile_is_still_found() {
    every_order(
        3,
        Image::new(&[6]).with(0, 1, 7, false, NOW + HALF_OPEN),
        &[|cpu, table| cpu.packet(table, at(0, 0, 7), 1), |cpu, table| cpu.packet(table, at(0, 0, 7), 1)],
        |live, cpus| {
            assert_eq!(live, [1]);
            assert!(cpus.iter().all(|cpu| cpu.became.is_empty()), "a known flow was opened");
        },
    );
}
