//! The schema and its rules: tree → [`Model`]. Pure; one file for each part of the document.

mod advice;
mod claims;
mod general;
mod server;
mod service;

use std::collections::HashMap;

use super::read::{Item, Located, Place, Reader};
use super::report::Position;
use super::values::{Wrong, choice, number, path, socket_path};
use crate::model::{Model, Service};
use claims::Claims;

/// The model in the document `root`; `None` only if it is not even a mapping. Worth something only if `r` has no
/// errors.
pub(super) fn model(root: &Item<'_>, r: &mut Reader) -> Option<Model> {
    let mut fields = root.fields(r, "interfaces, services and more")?;
    let interfaces = general::interfaces(&mut fields, r);
    let model = Model {
        on_exit: fields.get(r, "on_exit", choice).map(|found| found.value).unwrap_or_default(),
        socket: fields
            .get(r, "socket", socket_path)
            .map_or_else(|| "/run/lb/lb.sock".into(), |found| found.value),
        pin: fields.get(r, "pin", path).map_or_else(|| "/sys/fs/bpf/lb".into(), |found| found.value),
        vips: fields.get(r, "vips", choice).map(|found| found.value).unwrap_or_default(),
        flows: fields.take("flows").map(|item| general::flows(&item, r)).unwrap_or_default(),
        timeouts: fields.take("timeouts").map(|item| general::timeouts(&item, r)).unwrap_or_default(),
        ipvs: fields.take("ipvs").map(|item| general::ipvs(&item, r)).unwrap_or_default(),
        admission: fields.take("admission").map(|item| general::admission(&item, r)).unwrap_or_default(),
        icmp_errors_per_second: fields
            .get(r, "icmp_errors_per_second", number(0..=1_000_000))
            .map_or(1000, |found| found.value),
        neighbours: general::neighbours(&mut fields, &interfaces, r),
        tunnel_source: fields
            .take("tunnel_source")
            .map(|item| general::tunnels(&item, r))
            .unwrap_or_default(),
        services: fields.take("services").map(|item| services(&item, r)).unwrap_or_default(),
        interfaces,
    };
    fields.finish(r);
    Some(model)
}

/// Complains about a document with nothing in it.
pub(super) fn empty(r: &mut Reader) {
    let place = Place { at: Position { line: 1, column: 1 }, path: String::new() };
    r.error(&place, Wrong::new("the file is empty", "a mapping with interfaces, services and more"));
}

fn services(item: &Item<'_>, r: &mut Reader) -> Vec<Service> {
    let mut names: HashMap<String, Place> = HashMap::new();
    let mut claims = Claims::default();
    let mut services = Vec::new();
    for item in item.list(r, "services") {
        let Some((Located { value: service, place: name }, entries)) = service::service(&item, r) else {
            continue;
        };
        if let Some(first) = names.get(&service.name) {
            let what = format!("there is another service named `{}`", service.name);
            r.clash(&name, Wrong::new(what, "a `name:` that no other service has"), first);
        } else {
            names.insert(service.name.clone(), name);
        }
        claims.add(&service.name, entries);
        services.push(service);
    }
    claims.check(r);
    services
}
