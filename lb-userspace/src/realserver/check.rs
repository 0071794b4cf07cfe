//! What is wrong with a real server: every mistake that makes it answer for the director, drop what it is sent, or reply
//! by a way that does not work. Pure: facts in, findings out.

use super::commands::{Method, Wanted, whole};
use super::decap::PROGRAM;
use super::host::{Host, Interface};
use crate::model::Family;
use serde::Serialize;
use std::net::IpAddr;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It does not work, or will not for some clients, or the VIP is stolen from the director.
    Error,
    /// It works, worse than it could.
    Warning,
}

/// A kind of mistake, under the name it has in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    VipMissing,
    /// The VIP is on an interface others can ask.
    VipAnswersArp,
    VipPrefix,
    VipRoute,
    ArpIgnore,
    ArpAnnounce,
    RpFilter,
    GatewayIsDirector,
    NoWayBack,
    Mtu,
    SegmentSize,
    NoInterface,
    NoTunnel,
    TunnelDown,
    /// The reverse path filter needs it to have an address.
    TunnelAddress,
    GuePort,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub problem: Problem,
    pub severity: Severity,
    /// A sentence about it.
    pub text: String,
    /// A command that mends it, or what to do.
    pub remedy: String,
}

fn finding(problem: Problem, text: String, remedy: String) -> Finding {
    let severity = match problem {
        Problem::SegmentSize | Problem::ArpAnnounce => Severity::Warning,
        _ => Severity::Error,
    };
    Finding { problem, severity, text, remedy }
}

/// Everything that is wrong.
pub fn check(wanted: &Wanted, host: &Host) -> Vec<Finding> {
    let mut found = Vec::new();
    for vip in &wanted.vips {
        address(*vip, host, &mut found);
    }
    if wanted.has_v4() {
        arp(host, &mut found);
    }
    way_back(wanted, host, &mut found);
    if wanted.method != Method::Dr {
        tunnel(wanted, host, &mut found);
    }
    size(wanted, host, &mut found);
    found
}

fn address(vip: IpAddr, host: &Host, found: &mut Vec<Finding>) {
    let mut is_here = false;
    let bits = whole(vip);
    for interface in &host.interfaces {
        for (_, prefix) in interface.addresses.iter().filter(|(address, _)| *address == vip) {
            is_here = true;
            let name = &interface.name;
            if interface.is_ethernet && !interface.is_loopback {
                let how = if vip.is_ipv4() { "ARP" } else { "neighbour discovery" };
                found.push(finding(
                    Problem::VipAnswersArp,
                    format!(
                        "{vip} is on {name}, so this host answers {how} for it and takes it from the director"
                    ),
                    format!("ip address del {vip}/{prefix} dev {name} && ip address add {vip}/{bits} dev lo"),
                ));
            } else if *prefix != bits {
                found.push(finding(
                    Problem::VipPrefix,
                    format!(
                        "{vip} is on {name} with a prefix of {prefix}, so this host takes all of that network for its \
                         own"
                    ),
                    format!("ip address del {vip}/{prefix} dev {name} && ip address add {vip}/{bits} dev lo"),
                ));
            }
        }
    }
    if !is_here {
        found.push(finding(
            Problem::VipMissing,
            format!("no interface has {vip}, so its packets are not taken"),
            format!("ip address add {vip}/{bits} dev lo"),
        ));
    } else if !host.local.contains(&vip) {
        found.push(finding(
            Problem::VipRoute,
            format!("the host route to {vip} is missing, so its packets are not taken although it is here"),
            format!("ip route add local {vip}/{bits} dev lo table local"),
        ));
    }
}

/// Values of `arp_ignore` with which an address on `lo` is not answered for: of the interface asked alone (1, 2), or none
/// (8). 3 answers for global addresses wherever they are.
pub(super) fn is_silent(arp_ignore: u32) -> bool {
    matches!(arp_ignore, 1 | 2 | 8)
}

/// Whether its own `arp_ignore` is no good whatever `all` says: the greater of the two counts.
pub(super) fn is_spoilt(interface: &Interface) -> bool {
    interface.conf.arp_ignore != 0 && !is_silent(interface.conf.arp_ignore)
}

fn arp(host: &Host, found: &mut Vec<Finding>) {
    let asked = |interface: &&Interface| interface.is_ethernet && !interface.is_loopback && interface.up;
    for interface in host.interfaces.iter().filter(asked) {
        let name = &interface.name;
        let of = |value: fn(&super::host::Conf) -> u32| value(&host.all).max(value(&interface.conf));
        let ignore = of(|conf| conf.arp_ignore);
        if !is_silent(ignore) {
            let scope = if is_spoilt(interface) { name.as_str() } else { "all" };
            found.push(finding(
                Problem::ArpIgnore,
                format!("arp_ignore is {ignore} on {name}, so this host answers ARP for VIPs on lo"),
                format!("sysctl -w net/ipv4/conf/{scope}/arp_ignore=1"),
            ));
        }
        let announce = of(|conf| conf.arp_announce);
        if announce != 2 {
            found.push(finding(
                Problem::ArpAnnounce,
                format!(
                    "arp_announce is {announce} on {name}, so ARP requests of this host may carry a VIP as sender, and \
                     neighbours learn it"
                ),
                "sysctl -w net/ipv4/conf/all/arp_announce=2".to_owned(),
            ));
        }
    }
}

const STRICT: u32 = 1;

fn way_back(wanted: &Wanted, host: &Host, found: &mut Vec<Finding>) {
    for family in [Family::V4, Family::V6] {
        if !wanted.vips.iter().any(|vip| Family::of(*vip) == family) {
            continue;
        }
        let Some(way) = host.ways_back.get(&family) else {
            let client = wanted.clients.iter().find(|client| Family::of(**client) == family);
            let client = client.map_or("clients".to_owned(), ToString::to_string);
            found.push(finding(
                Problem::NoWayBack,
                format!("there is no route to {client}, so no reply to {family} clients leaves"),
                "ip route add default via ROUTER".to_owned(),
            ));
            continue;
        };
        if let Some(gateway) =
            way.gateway.filter(|gateway| wanted.directors.contains(gateway) || wanted.vips.contains(gateway))
        {
            found.push(finding(
                Problem::GatewayIsDirector,
                format!(
                    "replies to {family} clients go to {gateway}, the director, which does not forward them: with {} \
                     they go to the router",
                    wanted.method
                ),
                format!("ip route replace default via ROUTER dev {}", way.interface),
            ));
        }
    }
    if let Some((ingress, egress)) = filtered(wanted, host) {
        found.push(rp_filter(ingress, egress));
    }
}

/// Where the reverse path filter would drop what comes in for VIPs, and where replies leave. Of IPv4 alone; behind a
/// tunnel device the device's own filter counts.
pub(super) fn filtered<'a>(wanted: &'a Wanted, host: &'a Host) -> Option<(&'a str, &'a str)> {
    let ingress = host.interface(host.ingress(wanted)?)?;
    let way = host.ways_back.get(&Family::V4)?;
    let is_strict = host.all.rp_filter.max(ingress.conf.rp_filter) == STRICT;
    let plain = wanted.method == Method::Dr || ingress.xdp.as_deref() == Some(PROGRAM);
    (wanted.has_v4() && plain && is_strict && ingress.name != way.interface)
        .then_some((ingress.name.as_str(), way.interface.as_str()))
}

fn rp_filter(ingress: &str, egress: &str) -> Finding {
    finding(
        Problem::RpFilter,
        format!(
            "rp_filter is strict (1) on {ingress}, and replies leave by {egress}: what comes in for VIPs is dropped"
        ),
        format!("sysctl -w net/ipv4/conf/{ingress}/rp_filter=2"),
    )
}

fn tunnel(wanted: &Wanted, host: &Host, found: &mut Vec<Finding>) {
    let Some(ingress) = host.ingress(wanted) else {
        found.push(finding(
            Problem::NoInterface,
            "it is not known by which interface tunnel packets come in".to_owned(),
            "name it: --interface IF".to_owned(),
        ));
        return;
    };
    let Some(interface) = host.interface(ingress) else {
        let names: Vec<_> = host.interfaces.iter().map(|interface| interface.name.as_str()).collect();
        found.push(finding(
            Problem::NoInterface,
            format!("there is no interface {ingress}"),
            format!("--interface with one of {}", names.join(", ")),
        ));
        return;
    };
    if interface.xdp.as_deref() == Some(PROGRAM) {
        return;
    }
    let Some(devices) = wanted.devices() else {
        found.push(finding(
            Problem::NoTunnel,
            format!("nothing takes packets out of {} tunnels over {}", wanted.method, wanted.outer),
            wanted.decapsulator(ingress),
        ));
        return;
    };
    let way = host.ways_back.get(&Family::V4).map_or(ingress, |way| way.interface.as_str());
    let mut are_all_here = true;
    for device in devices {
        match host.interface(device.name) {
            None => {
                are_all_here = false;
                found.push(finding(
                    Problem::NoTunnel,
                    format!(
                        "there is no tunnel device {}, so packets are not taken out of their tunnel",
                        device.name
                    ),
                    format!(
                        "modprobe {}; without such a module: {}",
                        device.module,
                        wanted.decapsulator(ingress)
                    ),
                ));
            }
            Some(present) => {
                if !present.up {
                    found.push(finding(
                        Problem::TunnelDown,
                        format!("the tunnel device {} is down", device.name),
                        format!("ip link set {} up", device.name),
                    ));
                }
                let filter = host.all.rp_filter.max(present.conf.rp_filter);
                let vip = wanted.vips.iter().find(|vip| vip.is_ipv4()).filter(|_| device.takes_v4());
                if let Some(vip) = vip {
                    if filter == STRICT {
                        found.push(rp_filter(device.name, way));
                    }
                    if filter != 0 && !present.addresses.iter().any(|(address, _)| address.is_ipv4()) {
                        found.push(finding(
                            Problem::TunnelAddress,
                            format!(
                                "rp_filter is {filter} on {name}, which has no IPv4 address: what comes in is dropped, \
                                 however loose the filter",
                                name = device.name
                            ),
                            format!("ip address add {vip}/{} dev {}", whole(*vip), device.name),
                        ));
                    }
                }
            }
        }
    }
    if let (Method::Gue(port), Some(ports), true) = (wanted.method, &host.gue_ports, are_all_here)
        && !ports.contains(&port)
    {
        found.push(finding(
            Problem::GuePort,
            format!("GUE is not received on UDP port {port}"),
            format!("modprobe fou; ip fou add port {port} gue"),
        ));
    }
}

/// Headers of IP and TCP: what a segment is smaller by than its packet.
fn headers(family: Family) -> u32 {
    match family {
        Family::V4 => 40,
        Family::V6 => 60,
    }
}

fn size(wanted: &Wanted, host: &Host, found: &mut Vec<Finding>) {
    let Some(ingress) = host.ingress(wanted).and_then(|name| host.interface(name)) else { return };
    let overhead = wanted.method.overhead(wanted.outer);
    let Interface { name, mtu, .. } = ingress;
    if overhead == 0 {
        if *mtu < wanted.client_mtu {
            found.push(finding(
                Problem::Mtu,
                format!(
                    "{name} takes packets of {mtu} bytes, and the director forwards those of {} as they are",
                    wanted.client_mtu
                ),
                format!("ip link set {name} mtu {}", wanted.client_mtu),
            ));
        }
        return;
    }
    for (family, way) in &host.ways_back {
        if !wanted.vips.iter().any(|vip| Family::of(*vip) == *family) {
            continue;
        }
        let link = host.interface(&way.interface).map_or(*mtu, |interface| interface.mtu);
        let announced = way.advmss.map_or(way.mtu.unwrap_or(link), |segment| segment + headers(*family));
        let inside = announced.min(wanted.client_mtu);
        if inside + overhead > *mtu {
            let fits = mtu.saturating_sub(overhead);
            let segment = fits.saturating_sub(headers(*family));
            let flag = if *family == Family::V6 { " -6" } else { "" };
            let via = way.gateway.map_or(String::new(), |gateway| format!(" via {gateway}"));
            found.push(finding(
                Problem::SegmentSize,
                format!(
                    "{family} clients are told to send packets of {inside} bytes, which with {overhead} bytes of tunnel \
                     headers do not fit into the {mtu} of {name}; the director has to tell each to send smaller ones"
                ),
                format!(
                    "ip{flag} route change default{via} dev {} advmss {segment}, or an MTU of {} between director and \
                     real servers",
                    way.interface,
                    inside + overhead
                ),
            ));
        }
    }
}

#[cfg(test)]
mod tests;
