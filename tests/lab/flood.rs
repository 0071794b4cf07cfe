//! A flood of SYNs from everywhere beside established flows. What it costs is for `cargo xtask bench --live --flood`.

use std::time::Duration;

use lb_tests::flood::{Flood, Options, Rig, cpus};

/// More SYNs than the table has places, in an instant.
fn options(more: &str) -> Options {
    Options {
        flows: 1000,
        lasts: Duration::from_secs(2),
        every: 16,
        cpus: cpus().unwrap(),
        rounds: 1,
        table: "8K".to_owned(),
        more: more.to_owned(),
    }
}

/// What must be so in any flood.
fn check(flood: &Flood) {
    let Flood { sent, established, .. } = flood;
    assert_eq!((established.flows, established.lost, established.elsewhere), (1000, 0, 0), "{flood:?}");
    assert_eq!(flood.verdicts, flood.received, "every packet has one verdict");
    assert_eq!(flood.transmitted, flood.verdicts, "whatever is not remembered is sent on all the same");
    // The link may be short of time on a busy machine; the director loses nothing.
    let by_link = (sent.packets - flood.received) + (flood.transmitted - sent.arrived);
    assert!(established.packets > 1000 && established.missing <= by_link, "{flood:?}");
}

fn noted(flood: &Flood, name: &str) -> u64 {
    flood.noted.iter().find(|(known, _)| *known == name).map_or(0, |(_, times)| *times)
}

#[test]
fn a_flood_takes_no_established_flow_from_its_server() {
    let mut rig = Rig::set_up(&options("")).unwrap();
    let flood = rig.flood().unwrap();
    check(&flood);
    assert!(flood.sent.packets > 100_000, "{flood:?}");
    assert!(noted(&flood, "flows_evicted_half_open") > 10_000, "{flood:?}");
    assert_eq!(noted(&flood, "flows_over_admission") + flood.status.flow_tables.over_admission, 0);
}

#[test]
fn over_the_limit_of_new_flows_they_are_sent_on_unremembered_and_the_operator_is_told() {
    const LIMIT: u64 = 1500;
    let mut rig = Rig::set_up(&options(&format!("admission: {{new_flows_per_second: {LIMIT}}}"))).unwrap();
    let flood = rig.flood().unwrap();
    check(&flood);
    let over = noted(&flood, "flows_over_admission");
    assert!(over > 50_000, "{flood:?}");
    // Each CPU may remember so many in each of the seconds the flood touched.
    let seconds = flood.sent.seconds as u64 + 2;
    let cpus = cpus().unwrap().len() as u64;
    let remembered = flood.sent.packets - flood.sent.established - over;
    assert!(remembered <= LIMIT * cpus * seconds, "{remembered} remembered in {seconds} s: {flood:?}");

    assert_eq!(flood.status.flow_tables.over_admission, over);
    let status = rig.director.lb(&["status"]).unwrap();
    let told = "new flows sent on without being remembered: over admission.new_flows_per_second";
    assert!(status.stdout.contains(told), "{}", status.stdout);
    let stats = rig.director.lb(&["stats"]).unwrap();
    assert!(stats.stdout.contains("flows_over_admission"), "{}", stats.stdout);
}
