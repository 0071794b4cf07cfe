//! One entry of `servers:`.

use crate::config::read::{Item, Located, Place, Reader};
use crate::config::values::{Wrong, boolean, choice, mac, number, port_number, server_address};
use crate::model::{Family, MAX_THRESHOLD, MAX_WEIGHT, Method, Server};

/// The forwarding methods by name; what belongs to a tunnel stands in a mapping of its own.
#[derive(Clone, Copy, Default, PartialEq, Eq, strum::Display, strum::EnumString, strum::VariantNames)]
#[strum(serialize_all = "lowercase")]
enum MethodName {
    #[default]
    Dr,
    Ipip,
    Gre,
    Gue,
}

/// A server with the places later rules speak of.
pub(super) struct Found {
    pub(super) server: Server,
    pub(super) address: Place,
    /// Of the weight, or of the server if it has none.
    pub(super) weight: Place,
}

/// What a server has to fit.
#[derive(Clone, Copy)]
pub(super) struct Around {
    /// `None` if the service's addresses were wrong.
    pub(super) family: Option<Family>,
    pub(super) stateless: bool,
}

pub(super) fn server(item: &Item<'_>, around: Around, r: &mut Reader) -> Option<Found> {
    let mut fields = item.fields(r, "address, weight, method and more")?;
    let address = fields.need(r, "address", "the unicast address of a real server", server_address);
    let weight = fields.get(r, "weight", number(0..=MAX_WEIGHT));
    let method = fields.get(r, "method", choice::<MethodName>);
    let method_wrong = method.is_none() && fields.has("method");
    let name = method.as_ref().map_or(MethodName::Dr, |method| method.value);
    let tunnel = fields.take("tunnel");
    let upper = fields.get(r, "upper_threshold", number(0..=MAX_THRESHOLD));
    let lower = fields.get(r, "lower_threshold", number(0..=MAX_THRESHOLD));
    let mac = fields.get(r, "mac", mac);
    fields.refuse(
        r,
        "port",
        "DR and tunnels cannot map ports: the server gets the packet with the client's destination port",
        "no port here, and a server that listens on the service's port",
    );
    let server_place = fields.place.clone();
    fields.finish(r);

    let method =
        if method_wrong { Some(Method::Dr) } else { tunnel_of(name, tunnel.as_ref(), &server_place, r) };
    if let (Some(address), Some(family)) = (&address, around.family)
        && !method_wrong
    {
        check_family(address, family, name, r);
    }
    check_thresholds(upper.as_ref(), lower.as_ref(), around.stateless, r);

    let address = address?;
    let server = Server {
        address: address.value,
        weight: weight.as_ref().map_or(1, |weight| weight.value),
        method: method?,
        upper_threshold: upper.map_or(0, |upper| upper.value),
        lower_threshold: lower.map_or(0, |lower| lower.value),
        mac: mac.map(|mac| mac.value),
    };
    Some(Found { server, address: address.place, weight: weight.map_or(server_place, |weight| weight.place) })
}

/// The method with its tunnel parameters; `None` if they are wrong.
fn tunnel_of(name: MethodName, tunnel: Option<&Item<'_>>, server: &Place, r: &mut Reader) -> Option<Method> {
    let missing = || Wrong::new("gue needs the UDP port the server decapsulates", "`tunnel: {port: 6080}`");
    let Some(item) = tunnel else {
        return match name {
            MethodName::Dr => Some(Method::Dr),
            MethodName::Ipip => Some(Method::Ipip),
            MethodName::Gre => Some(Method::Gre { checksum: false }),
            MethodName::Gue => {
                r.error(&Place { path: format!("{}.tunnel", server.path), ..server.clone() }, missing());
                None
            }
        };
    };
    if matches!(name, MethodName::Dr | MethodName::Ipip) {
        r.error(
            &item.place,
            Wrong::new(format!("method {name} has nothing to set"), "`tunnel:` with gre or gue only"),
        );
        return None;
    }
    let mut fields = item.fields(r, "port and checksum")?;
    let checksum = fields.get(r, "checksum", boolean).is_some_and(|found| found.value);
    let method = if name == MethodName::Gre {
        fields.refuse(r, "port", "GRE has no ports", "`port` with gue only");
        Some(Method::Gre { checksum })
    } else {
        let port = fields.get(r, "port", port_number);
        if !fields.has("port") {
            r.error(&item.place, missing());
        }
        port.map(|port| Method::Gue { port: port.value, checksum })
    };
    fields.finish(r);
    method
}

fn check_family(address: &Located<std::net::IpAddr>, service: Family, method: MethodName, r: &mut Reader) {
    let family = Family::of(address.value);
    if family != service && method == MethodName::Dr {
        let what = format!(
            "{} is {family} and the service {service}, which direct routing cannot bridge",
            address.value
        );
        r.error(
            &address.place,
            Wrong::new(what, format!("an {service} address, or method ipip, gre or gue")),
        );
    }
}

fn check_thresholds(
    upper: Option<&Located<u32>>,
    lower: Option<&Located<u32>>,
    stateless: bool,
    r: &mut Reader,
) {
    let limit = upper.map_or(0, |upper| upper.value);
    if let Some(lower) = lower.filter(|lower| lower.value > limit) {
        let unset = if limit == 0 { " (no limit)" } else { "" };
        let what = format!("{} is above upper_threshold {limit}{unset}", lower.value);
        r.error(&lower.place, Wrong::new(what, "at most the upper threshold"));
    }
    if let Some(upper) = upper.filter(|upper| stateless && upper.value > 0) {
        let what = "a stateless service does not count connections";
        r.error(&upper.place, Wrong::new(what, "0, or a service that is not stateless"));
    }
}
