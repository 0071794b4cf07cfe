//! What a reload changed, in the operator's words.

use std::collections::HashMap;
use std::fmt::Display;
use std::net::IpAddr;

use crate::model::{Model, Server, Service};

use super::describe;
use super::types::{Action, Address, Change, Method, Persistence};

/// Differences from `old` to `new`: the director's own settings, then services in the order of `new`, each with its
/// servers, then what is gone. Services are known by name, servers by address.
pub fn between(old: &Model, new: &Model) -> Vec<Change> {
    let mut changes = settings(old, new);
    for service in &new.services {
        match old.services.iter().find(|known| known.name == service.name) {
            Some(known) => changed_service(known, service, &mut changes),
            None => {
                let details = vec![counted_servers(service)];
                changes.push(Change { action: Action::Added, what: named(service), details });
            }
        }
    }
    let gone = old.services.iter().filter(|known| new.services.iter().all(|kept| kept.name != known.name));
    changes.extend(gone.map(|service| Change {
        action: Action::Removed,
        what: named(service),
        details: Vec::new(),
    }));
    changes
}

fn named(service: &Service) -> String {
    format!("service {}", service.name)
}

fn counted_servers(service: &Service) -> String {
    let count = service.servers.len();
    format!("{count} server{}", if count == 1 { "" } else { "s" })
}

/// The part of the file outside `services:`, by its keys.
fn settings(old: &Model, new: &Model) -> Vec<Change> {
    // By value, so that a new part of the model has to be given a place here.
    let Model {
        interfaces,
        on_exit,
        socket,
        pin,
        vips,
        flows,
        timeouts,
        ipvs,
        admission,
        icmp_errors_per_second,
        neighbours,
        tunnel_source,
        services: _,
    } = new;
    let mut details = Details::default();
    details.compare("on_exit", old.on_exit, on_exit);
    details.compare("socket", old.socket.display(), socket.display());
    details.compare("pin", old.pin.display(), pin.display());
    details.compare("vips", old.vips, vips);
    details.compare("flows.ipv4", old.flows.ipv4, flows.ipv4);
    details.compare("flows.ipv6", old.flows.ipv6, flows.ipv6);
    let seconds = |duration: std::time::Duration| format!("{} s", duration.as_secs());
    details.compare("timeouts.tcp", seconds(old.timeouts.tcp), seconds(timeouts.tcp));
    details.compare("timeouts.tcp_fin", seconds(old.timeouts.tcp_fin), seconds(timeouts.tcp_fin));
    details.compare("timeouts.udp", seconds(old.timeouts.udp), seconds(timeouts.udp));
    details.compare("icmp_errors_per_second", old.icmp_errors_per_second, icmp_errors_per_second);
    let mut changes = Vec::new();
    if !details.0.is_empty() {
        changes.push(setting("settings".to_owned(), details.0));
    }
    // Lists and large groups: that they changed, not how.
    for (key, same) in [
        ("interfaces", old.interfaces == *interfaces),
        ("ipvs", old.ipvs == *ipvs),
        ("admission", old.admission == *admission),
        ("neighbours", old.neighbours == *neighbours),
        ("tunnel_source", old.tunnel_source == *tunnel_source),
    ] {
        if !same {
            changes.push(setting(key.to_owned(), Vec::new()));
        }
    }
    changes
}

fn setting(what: String, details: Vec<String>) -> Change {
    Change { action: Action::Changed, what, details }
}

fn changed_service(old: &Service, new: &Service, changes: &mut Vec<Change>) {
    let mut details = Details::default();
    details.compare("addresses", addresses(old), addresses(new));
    details.compare("scheduler", old.scheduler, new.scheduler);
    details.compare("flags", flags(old), flags(new));
    details.compare("persistence", persistence(old), persistence(new));
    details.compare("one_packet", old.one_packet, new.one_packet);
    details.compare("stateless", old.stateless, new.stateless);
    details.compare("no_destination", old.no_destination, new.no_destination);
    let (before, after) = (by_address(old), by_address(new));
    if !in_both(old, &after).eq(in_both(new, &before)) {
        // Ties between servers go by it.
        details.0.push("order of the servers".to_owned());
    }
    if !details.0.is_empty() {
        changes.push(setting(named(new), details.0));
    }
    let what = |server: &Server| format!("server {} of {}", server.address, new.name);
    for server in &new.servers {
        match before.get(&server.address) {
            Some(known) => {
                let details = changed_server(known, server);
                if !details.is_empty() {
                    changes.push(setting(what(server), details));
                }
            }
            None => {
                let details = vec![format!("weight {}", server.weight)];
                changes.push(Change { action: Action::Added, what: what(server), details });
            }
        }
    }
    let gone =
        old.servers.iter().filter(|known| new.servers.iter().all(|kept| kept.address != known.address));
    changes.extend(gone.map(|server| Change {
        action: Action::Removed,
        what: what(server),
        details: Vec::new(),
    }));
}

fn by_address(service: &Service) -> HashMap<IpAddr, &Server> {
    service.servers.iter().map(|server| (server.address, server)).collect()
}

/// Addresses of the servers that are among `others`, in order.
fn in_both<'a>(
    service: &'a Service,
    others: &'a HashMap<IpAddr, &Server>,
) -> impl Iterator<Item = IpAddr> + 'a {
    service.servers.iter().map(|server| server.address).filter(|address| others.contains_key(address))
}

fn changed_server(old: &Server, new: &Server) -> Vec<String> {
    let mut details = Details::default();
    details.compare("weight", old.weight, new.weight);
    details.compare("method", Method::from(old.method), Method::from(new.method));
    details.compare("upper_threshold", old.upper_threshold, new.upper_threshold);
    details.compare("lower_threshold", old.lower_threshold, new.lower_threshold);
    let mac = |server: &Server| server.mac.map_or_else(|| "resolved".to_owned(), |mac| mac.to_string());
    details.compare("mac", mac(old), mac(new));
    details.0
}

fn addresses(service: &Service) -> String {
    let of = |entry| {
        let address = Address::from(entry);
        format!("{} {address}", address.protocol.ipvs_name())
    };
    service.selector.matches().iter().map(of).collect::<Vec<_>>().join(", ")
}

fn flags(service: &Service) -> String {
    let flags = describe::flags(service);
    if flags.is_empty() { "none".to_owned() } else { flags.join(",") }
}

fn persistence(service: &Service) -> String {
    match service.persistence.map(Persistence::from) {
        None => "off".to_owned(),
        Some(Persistence { timeout_s, mask: None }) => format!("{timeout_s} s"),
        Some(Persistence { timeout_s, mask: Some(mask) }) => format!("{timeout_s} s mask {mask}"),
    }
}

/// Keys whose values differ.
#[derive(Default)]
struct Details(Vec<String>);

impl Details {
    fn compare(&mut self, key: &str, old: impl Display, new: impl Display) {
        let (old, new) = (old.to_string(), new.to_string());
        if old != new {
            self.0.push(format!("{key} {old} → {new}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    const FILE: &str = "
interfaces: [eth0]
timeouts: {tcp: 900}
services:
- {name: web, address: 192.0.2.1, port: 80, servers: [{address: 10.0.0.11}, {address: 10.0.0.12, weight: 3}]}
- {name: dns, address: 192.0.2.1, port: 53, protocol: udp, servers: [{address: 10.0.0.11}]}
";

    fn model(text: &str) -> Model {
        config::parse("test.yaml", text).unwrap_or_else(|report| panic!("{report}")).model
    }

    /// Lines like `lb reload` prints.
    fn lines(edits: &[(&str, &str)]) -> Vec<String> {
        let mut text = FILE.to_owned();
        for (from, to) in edits {
            assert!(text.contains(from), "{from} is not in the file");
            text = text.replace(from, to);
        }
        let line = |change: Change| {
            format!("{} {}: {}", change.action.name(), change.what, change.details.join(", "))
        };
        between(&model(FILE), &model(&text)).into_iter().map(line).collect()
    }

    /// Edits of the file, and the lines they lead to.
    type Case = (&'static [(&'static str, &'static str)], &'static [&'static str]);

    #[test]
    fn every_edit_is_told_once_and_in_the_operators_words() {
        let cases: [Case; 12] = [
            (&[], &[]),
            (&[("weight: 3", "weight: 0")], &["changed server 10.0.0.12 of web: weight 3 → 0"]),
            (&[("{tcp: 900}", "{tcp: 60}")], &["changed settings: timeouts.tcp 900 s → 60 s"]),
            (&[("[eth0]", "[eth0, eth1]")], &["changed interfaces: "]),
            (
                &[("weight: 3", "method: gre, upper_threshold: 10")],
                &[
                    "changed server 10.0.0.12 of web: weight 3 → 1, method Route → Tunnel gre:-c, upper_threshold 0 → 10",
                ],
            ),
            (
                &[("10.0.0.12", "10.0.0.13")],
                &["added server 10.0.0.13 of web: weight 3", "removed server 10.0.0.12 of web: "],
            ),
            (
                &[("port: 80", "port: 80, scheduler: mh, flags: [mh-port], persistence: 60")],
                &["changed service web: scheduler wlc → mh, flags none → mh-port, persistence off → 60 s"],
            ),
            (
                &[("port: 80", "port: 81")],
                &["changed service web: addresses TCP 192.0.2.1:80 → TCP 192.0.2.1:81"],
            ),
            (&[("name: dns", "name: names")], &["added service names: 1 server", "removed service dns: "]),
            (
                &[(
                    "{address: 10.0.0.11}, {address: 10.0.0.12, weight: 3}",
                    "{address: 10.0.0.12, weight: 3}, {address: 10.0.0.11}",
                )],
                &["changed service web: order of the servers"],
            ),
            (
                &[("weight: 3", "weight: 3, mac: '02:00:00:00:00:0b'")],
                &["changed server 10.0.0.12 of web: mac resolved → 02:00:00:00:00:0b"],
            ),
            (
                &[("[{address: 10.0.0.11}, ", "["), ("protocol: udp", "protocol: udp, one_packet: true")],
                &["removed server 10.0.0.11 of web: ", "changed service dns: one_packet false → true"],
            ),
        ];
        for (edits, wanted) in cases {
            assert_eq!(lines(edits), wanted, "{edits:?}");
        }
    }
}
