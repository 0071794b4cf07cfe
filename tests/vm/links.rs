//! Direct routing where the director's interface, or the way to the real servers, is a device of the kernel's making.

use std::process::Command;

use lb_tests::lab::{Builder, Family, Lab, one_arm};
use lb_tests::netns::Namespace;
use serde_json::Value;

use super::{Scene, Service};

#[test]
fn a_bond_with_a_backup() {
    let scene = bonded(one_arm(2).bond("active-backup"));
    assert_eq!(active(&scene.lab), "eth0");
    scene.every_service_works();
    // The other end of the cable in use: both bonds lose their carrier on it.
    scene.lab.switch.ip(["link set port0 down"]).unwrap();
    scene.every_service_works();
    assert_eq!(active(&scene.lab), "eth1");
}

/// The member the director's bond sends by.
fn active(lab: &Lab) -> String {
    let mut show = Command::new("ip");
    let shown =
        lab.director.namespace.output(show.args(["-j", "-d", "link", "show", "dev", "bond0"])).unwrap();
    let links: Value = serde_json::from_str(&shown).unwrap();
    links[0]["linkinfo"]["info_data"]["active_slave"].as_str().unwrap().to_owned()
}

#[test]
fn a_bond_by_lacp() {
    bonded(one_arm(2).bond("802.3ad")).every_service_works();
}

#[test]
fn a_bond_by_hash() {
    bonded(one_arm(2).bond("balance-xor")).every_service_works();
}

/// The director of such a lab on its bond, which has the program as a driver would.
fn bonded(builder: Builder) -> Scene {
    let lab = builder.build().unwrap();
    assert_eq!(lab.director.front.interface, "bond0");
    let services = Family::BOTH.map(|family| direct(family, addresses(&lab, family)));
    Scene::start(lab, "bond0", services.into())
}

#[test]
fn from_one_vlan_to_another() {
    const CLIENTS: u16 = 10;
    const SERVERS: u16 = 20;
    let lab = one_arm(2).build().unwrap();
    // All of them on the one segment of the lab, whose bridge carries tagged frames like any.
    let director = &lab.director.namespace;
    vlan_device(&lab.router, "servers", CLIENTS, 1);
    vlan_device(director, "eth0", CLIENTS, 2);
    vlan_device(director, "eth0", SERVERS, 2);
    for (server, host) in lab.real_servers.iter().zip(11..) {
        vlan_device(&server.namespace, "eth0", SERVERS, host);
    }
    for family in Family::BOTH {
        let (vip, via) = (lab.vip(family), vlan_address(family, CLIENTS, 2));
        lab.router.ip([format!("route replace {vip} via {via}")]).unwrap();
    }
    let servers = |family| (11..13).map(|host| vlan_address(family, SERVERS, host)).collect();
    let services = Family::BOTH.map(|family| direct(family, servers(family)));
    let scene = Scene::start(lab, "eth0", services.into());
    scene.every_service_works();
}

/// A device `<interface>.<vlan>`, up and with addresses.
fn vlan_device(namespace: &Namespace, interface: &str, vlan: u16, host: u8) {
    let device = format!("{interface}.{vlan}");
    let mut lines = vec![format!("link add link {interface} name {device} type vlan id {vlan}")];
    for family in Family::BOTH {
        let bits = if family == Family::V4 { 24 } else { 64 };
        lines.push(format!("address add {}/{bits} dev {device}", vlan_address(family, vlan, host)));
    }
    lines.push(format!("link set {device} up"));
    namespace.ip(lines).unwrap();
}

fn vlan_address(family: Family, vlan: u16, host: u8) -> String {
    match family {
        Family::V4 => format!("10.{vlan}.0.{host}"),
        Family::V6 => format!("fd00:{vlan}::{host}"),
    }
}

fn addresses(lab: &Lab, family: Family) -> Vec<String> {
    lab.real_servers.iter().map(|server| server.address.of(family).to_string()).collect()
}

fn direct(family: Family, servers: Vec<String>) -> Service {
    let sentence = if family == Family::V4 { "direct routing" } else { "direct routing of IPv6" };
    Service { sentence, family, servers, method: "method: dr" }
}
