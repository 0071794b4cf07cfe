//! Everything outside `services:`.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::read::{Fields, Item, Located, Place, Reader};
use crate::config::values::{
    Wrong, boolean, byte, choice, duration, interface, mac, number, prefix, rate, rate_or_unlimited, suggest,
    switch, tunnel_source, unicast, ways,
};
use crate::model::{
    Admission, AttachMode, FlowTables, Interface, IpvsKnobs, PerSourceLimit, StaticNeighbour, Timeouts,
    TunnelSources,
};

/// `interfaces:` a list of names or of mappings with a name; at least one, each once.
pub(super) fn interfaces(fields: &mut Fields<'_>, r: &mut Reader) -> Vec<Interface> {
    let accepted = "a list of at least one interface to attach to, like [eth0]";
    let Some(list) = fields.take("interfaces") else {
        let path = "interfaces".to_owned();
        let place = fields.key("interfaces").unwrap_or(Place { path, ..fields.place.clone() });
        r.error(&place, Wrong::new("missing", accepted));
        return Vec::new();
    };
    let items = list.list(r, "interfaces, like [eth0]");
    if list.node.is_empty_list() {
        r.error(&list.place, Wrong::new("no interface", accepted));
    }
    let mut seen: HashMap<String, Place> = HashMap::new();
    let mut interfaces = Vec::new();
    for item in items {
        let Some((name, mode)) = one_interface(&item, r) else { continue };
        match seen.get(&name.value) {
            Some(first) => {
                let what = format!("interface `{}` is listed twice", name.value);
                r.clash(&name.place, Wrong::new(what, "each interface once"), first);
            }
            None => {
                seen.insert(name.value.clone(), name.place);
                interfaces.push(Interface { name: name.value, mode });
            }
        }
    }
    interfaces
}

fn one_interface(item: &Item<'_>, r: &mut Reader) -> Option<(Located<String>, AttachMode)> {
    if !item.is_map() {
        let value = item.scalar(r, interface)?;
        return Some((Located { value, place: item.place.clone() }, AttachMode::default()));
    }
    let mut fields = item.fields(r, "name and mode")?;
    let name = fields.need(r, "name", "the name of an interface", interface);
    let mode = fields.get(r, "mode", choice).map(|mode| mode.value).unwrap_or_default();
    fields.finish(r);
    Some((name?, mode))
}

/// `flows:` a number for IPv4 (IPv6 gets an eighth, the ratio of the defaults), or a mapping with both.
pub(super) fn flows(item: &Item<'_>, r: &mut Reader) -> FlowTables {
    let mut flows = FlowTables::default();
    if item.is_map() {
        if let Some(mut fields) = item.fields(r, "ipv4 and ipv6") {
            fields.set(r, "ipv4", &mut flows.ipv4, ways);
            fields.set(r, "ipv6", &mut flows.ipv6, ways);
            fields.finish(r);
        }
    } else if let Some(ipv4) = item.scalar(r, ways) {
        flows = FlowTables { ipv4, ipv6: (ipv4 / 8).max(FlowTables::MIN) };
    }
    flows
}

pub(super) fn timeouts(item: &Item<'_>, r: &mut Reader) -> Timeouts {
    let mut timeouts = Timeouts::default();
    if let Some(mut fields) = item.fields(r, "tcp, tcp_fin and udp") {
        fields.set(r, "tcp", &mut timeouts.tcp, duration);
        fields.set(r, "tcp_fin", &mut timeouts.tcp_fin, duration);
        fields.set(r, "udp", &mut timeouts.udp, duration);
        fields.finish(r);
    }
    timeouts
}

pub(super) fn ipvs(item: &Item<'_>, r: &mut Reader) -> IpvsKnobs {
    let mut knobs = IpvsKnobs::default();
    let Some(mut fields) = item.fields(r, "names of net.ipv4.vs.* sysctls") else { return knobs };
    fields.set(r, "sloppy_tcp", &mut knobs.sloppy_tcp, switch);
    fields.set(r, "sloppy_sctp", &mut knobs.sloppy_sctp, switch);
    fields.set(r, "conn_reuse_mode", &mut knobs.conn_reuse_mode, byte(0..=3));
    fields.set(r, "expire_nodest_conn", &mut knobs.expire_nodest_conn, switch);
    fields.set(r, "expire_quiescent_template", &mut knobs.expire_quiescent_template, switch);
    fields.set(r, "schedule_icmp", &mut knobs.schedule_icmp, switch);
    fields.set(r, "pmtu_disc", &mut knobs.pmtu_disc, switch);
    fields.set(r, "secure_tcp", &mut knobs.secure_tcp, |node| match byte(0..=3)(node) {
        Ok(0) => Ok(false),
        Ok(3) => Ok(true),
        Ok(mode) => Err(Wrong::new(
            format!("mode {mode} follows the host's free memory, which does not exist here"),
            OFF_OR_ON,
        )),
        Err(wrong) => Err(Wrong::new(wrong.what, OFF_OR_ON)),
    });
    fields.set(r, "lblc_expiration", &mut knobs.lblc_expiration, duration);
    fields.set(r, "lblcr_expiration", &mut knobs.lblcr_expiration, duration);
    fields.set(r, "overhead", &mut knobs.overhead, choice);
    fields.finish(r);
    knobs
}

const OFF_OR_ON: &str = "0 (off) or 3 (always on)";

pub(super) fn admission(item: &Item<'_>, r: &mut Reader) -> Admission {
    let mut admission = Admission::default();
    let Some(mut fields) = item.fields(r, "new_flows_per_second, per_source and deny") else {
        return admission;
    };
    fields.set(r, "new_flows_per_second", &mut admission.new_flows_per_second, rate_or_unlimited);
    admission.per_source = fields.take("per_source").and_then(|item| per_source(&item, r));
    if let Some(list) = fields.take("deny") {
        admission.deny = deny(&list, r);
    }
    fields.finish(r);
    admission
}

fn per_source(item: &Item<'_>, r: &mut Reader) -> Option<PerSourceLimit> {
    let (mut prefix4, mut prefix6) = (24, 64);
    let mut fields = item.fields(r, "prefix4, prefix6 and new_flows_per_second")?;
    fields.set(r, "prefix4", &mut prefix4, byte(1..=32));
    fields.set(r, "prefix6", &mut prefix6, byte(1..=128));
    let limit = fields.need(r, "new_flows_per_second", "a number of new flows per second", rate);
    fields.finish(r);
    Some(PerSourceLimit { prefix4, prefix6, new_flows_per_second: limit?.value })
}

fn deny(list: &Item<'_>, r: &mut Reader) -> Vec<IpNet> {
    let mut seen: HashMap<IpNet, Place> = HashMap::new();
    let mut denied = Vec::new();
    for item in list.list(r, "prefixes, like [203.0.113.0/24]") {
        let Some(prefix) = item.scalar(r, prefix) else { continue };
        if let Some(first) = seen.get(&prefix) {
            r.clash(&item.place, Wrong::new(format!("{prefix} is denied twice"), "each prefix once"), first);
            continue;
        }
        if prefix.prefix_len() == 0 {
            r.warning(&item.place, Wrong::new(format!("{prefix} denies every client"), "a longer prefix"));
        }
        seen.insert(prefix, item.place);
        denied.push(prefix);
    }
    denied
}

/// `neighbours:`; the interface may be left out when there is only one.
pub(super) fn neighbours(
    fields: &mut Fields<'_>,
    interfaces: &[Interface],
    r: &mut Reader,
) -> Vec<StaticNeighbour> {
    let Some(list) = fields.take("neighbours") else { return Vec::new() };
    let mut seen: HashMap<(IpAddr, String), Place> = HashMap::new();
    let mut neighbours = Vec::new();
    for item in list.list(r, "mappings with address, mac, interface and vlan") {
        let Some((neighbour, place)) = neighbour(&item, interfaces, r) else { continue };
        let key = (neighbour.address, neighbour.interface.clone());
        if let Some(first) = seen.get(&key) {
            let what = format!("{} on {} is listed twice", neighbour.address, neighbour.interface);
            r.clash(&place, Wrong::new(what, "one MAC address for it"), first);
        } else {
            seen.insert(key, place);
            neighbours.push(neighbour);
        }
    }
    neighbours
}

fn neighbour(item: &Item<'_>, interfaces: &[Interface], r: &mut Reader) -> Option<(StaticNeighbour, Place)> {
    let mut fields = item.fields(r, "address, mac, interface and vlan")?;
    let address = fields.need(r, "address", "the address of a next hop", unicast);
    let mac = fields.need(r, "mac", "the MAC address of the next hop", mac);
    let found = match interfaces {
        [only] if !fields.has("interface") => {
            let place = fields.place.clone();
            fields.take("interface");
            Some(Located { value: only.name.clone(), place })
        }
        _ => fields.need(r, "interface", "the interface the next hop is behind", interface),
    };
    let vlan = fields.get(r, "vlan", |node| {
        let vlan = number(1..=4094)(node)?;
        Ok(u16::try_from(vlan).ok().and_then(std::num::NonZeroU16::new))
    });
    fields.finish(r);
    let interface = found?;
    let names: Vec<&str> = interfaces.iter().map(|interface| interface.name.as_str()).collect();
    if !names.is_empty() && !names.contains(&interface.value.as_str()) {
        let meant = suggest(&interface.value, &names)
            .map_or(String::new(), |name| format!(", did you mean `{name}`?"));
        let what = format!("`{}` is not one of `interfaces:`{meant}", interface.value);
        r.warning(&interface.place, Wrong::new(what, format!("usually one of {}", names.join(", "))));
    }
    let (address, mac, vlan) = (address?, mac?.value, vlan.and_then(|vlan| vlan.value));
    Some((StaticNeighbour { address: address.value, mac, interface: interface.value, vlan }, address.place))
}

pub(super) fn tunnels(item: &Item<'_>, r: &mut Reader) -> TunnelSources {
    let mut sources = TunnelSources::default();
    if let Some(mut fields) = item.fields(r, "ipv4, ipv6 and vary") {
        fields.set(r, "ipv4", &mut sources.ipv4, tunnel_source("IPv4"));
        fields.set(r, "ipv6", &mut sources.ipv6, tunnel_source("IPv6"));
        fields.set(r, "vary", &mut sources.vary, boolean);
        fields.finish(r);
    }
    sources
}
