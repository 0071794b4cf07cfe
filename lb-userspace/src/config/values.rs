//! The scalars of the file, one function a kind: what is written → what it means, or what is wrong with it.

use std::net::{IpAddr, Ipv4Addr};
use std::num::{NonZeroU16, NonZeroU32};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

use super::locate::{Node, Value};
use crate::model::{FlowTables, Mac, Port, PortRange, Ports, TunnelSource};

/// What is wrong with a value, and what would be accepted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) what: String,
    pub(super) accepted: Option<String>,
}

impl Wrong {
    pub(super) fn new(what: impl Into<String>, accepted: impl Into<String>) -> Self {
        Self { what: what.into(), accepted: Some(accepted.into()) }
    }
}

type Decoded<T> = Result<T, Wrong>;

/// Longest path of a Unix socket: `sun_path` is 108 bytes with its final zero.
const MAX_SOCKET_PATH: usize = 107;
/// Longest timeout, as ipvsadm bounds it.
const MAX_TIMEOUT: Duration = Duration::from_secs(31 * 86_400);

/// The word of `known` that `word` is probably meant to be.
pub(super) fn suggest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let distance = |candidate: &&str| strsim::damerau_levenshtein(&word.to_lowercase(), candidate);
    known.iter().copied().min_by_key(distance).filter(|best| distance(best) <= 1.max(best.len() / 3))
}

/// The scalar as it is written, whatever its YAML type.
pub(super) fn text<'a>(node: &'a Node, accepted: &str) -> Decoded<&'a str> {
    match &node.value {
        Value::Scalar(_) if node.is_null() => Err(Wrong::new("empty", accepted)),
        Value::Scalar(scalar) => Ok(&scalar.text),
        Value::List(_) => Err(Wrong::new("a list", accepted)),
        Value::Map(_) => Err(Wrong::new("a mapping", accepted)),
    }
}

fn typed(node: &Node) -> serde_yaml::Value {
    match &node.value {
        Value::Scalar(scalar) => scalar.typed(),
        Value::List(_) | Value::Map(_) => serde_yaml::Value::Null,
    }
}

/// One of a closed list of words.
pub(super) fn choice<T: FromStr + strum::VariantNames>(node: &Node) -> Decoded<T> {
    let accepted = || format!("one of {}", T::VARIANTS.join(", "));
    let word = text(node, &accepted())?;
    word.parse().map_err(|_| match suggest(word, T::VARIANTS) {
        Some(meant) => Wrong::new(format!("unknown value `{word}`, did you mean `{meant}`?"), accepted()),
        None => Wrong::new(format!("unknown value `{word}`"), accepted()),
    })
}

pub(super) fn boolean(node: &Node) -> Decoded<bool> {
    let accepted = "true or false";
    let word = text(node, accepted)?;
    let wrong = || match word {
        "true" | "false" => format!("\"{word}\" is text because of the quotes"),
        _ => format!("`{word}` is not a boolean"),
    };
    typed(node).as_bool().ok_or_else(|| Wrong::new(wrong(), accepted))
}

/// A boolean that may also be written 0 or 1, as sysctls are.
pub(super) fn switch(node: &Node) -> Decoded<bool> {
    match typed(node).as_u64() {
        Some(0) => Ok(false),
        Some(1) => Ok(true),
        _ => boolean(node).map_err(|wrong| Wrong::new(wrong.what, "true or false (or 1, 0)")),
    }
}

/// A whole number within `range`.
pub(super) fn number(range: RangeInclusive<u32>) -> impl Fn(&Node) -> Decoded<u32> {
    move |node| {
        let accepted = format!("a number from {} to {}", range.start(), range.end());
        let word = text(node, &accepted)?;
        let value = typed(node);
        match value.as_u64().and_then(|number| u32::try_from(number).ok()) {
            Some(number) if range.contains(&number) => Ok(number),
            _ if value.is_i64() || value.is_u64() => {
                Err(Wrong::new(format!("{word} is out of range"), accepted))
            }
            _ if word.parse::<u32>().is_ok() => {
                Err(Wrong::new(format!("\"{word}\" is text because of the quotes"), accepted))
            }
            _ => Err(Wrong::new(format!("`{word}` is not a whole number"), accepted)),
        }
    }
}

/// As [`number`], for what fits a byte.
pub(super) fn byte(range: RangeInclusive<u8>) -> impl Fn(&Node) -> Decoded<u8> {
    let decode = number(u32::from(*range.start())..=u32::from(*range.end()));
    move |node| decode(node).map(|number| u8::try_from(number).unwrap_or(u8::MAX))
}

/// Events per second, at least one.
pub(super) fn rate(node: &Node) -> Decoded<NonZeroU32> {
    let number = number(1..=u32::MAX)(node)?;
    NonZeroU32::new(number).ok_or_else(|| Wrong::new("0", "1 or more"))
}

/// A rate, or `unlimited`.
pub(super) fn rate_or_unlimited(node: &Node) -> Decoded<Option<NonZeroU32>> {
    let accepted = format!("a number from 1 to {}, or unlimited", u32::MAX);
    if text(node, &accepted)? == "unlimited" {
        return Ok(None);
    }
    rate(node).map(Some).map_err(|wrong| Wrong::new(wrong.what, accepted))
}

/// A time from 1 second to 31 days: plain seconds, or with units.
pub(super) fn duration(node: &Node) -> Decoded<Duration> {
    let accepted = "1s to 31days in whole seconds: a plain number is seconds, or 90s, 15m, 1h 30m, 2days";
    let word = text(node, accepted)?;
    let parsed = match typed(node).as_u64() {
        Some(seconds) => Duration::from_secs(seconds),
        None => humantime::parse_duration(word)
            .map_err(|error| Wrong::new(format!("`{word}` is not a time ({error})"), accepted))?,
    };
    if parsed.subsec_nanos() != 0 {
        return Err(Wrong::new(format!("{word} is not a whole number of seconds"), accepted));
    }
    if parsed < Duration::from_secs(1) || parsed > MAX_TIMEOUT {
        return Err(Wrong::new(format!("{word} is out of range"), accepted));
    }
    Ok(parsed)
}

/// Ways of a flow table: a number, or one with K or M; rounded up to a power of two.
pub(super) fn ways(node: &Node) -> Decoded<u32> {
    let accepted = "1K to 64M: a number, or one with K (1024) or M (1048576), rounded up to a power of two";
    let word = text(node, accepted)?;
    let (digits, unit) = match word.strip_suffix(['K', 'k']) {
        Some(digits) => (digits, 1_u64 << 10),
        None => word.strip_suffix(['M', 'm']).map_or((word, 1), |digits| (digits, 1 << 20)),
    };
    // Not `parse` alone: it takes a plus sign.
    let count = Some(digits).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()));
    let count = count.and_then(|digits| digits.parse::<u64>().ok());
    let count = count.ok_or_else(|| Wrong::new(format!("`{word}` is not a number of flows"), accepted))?;
    let ways = count.checked_mul(unit).and_then(u64::checked_next_power_of_two);
    ways.and_then(|ways| u32::try_from(ways).ok())
        .filter(|ways| (FlowTables::MIN..=FlowTables::MAX).contains(ways) && count > 0)
        .ok_or_else(|| Wrong::new(format!("{word} is out of range"), accepted))
}

/// A port number.
pub(super) fn port_number(node: &Node) -> Decoded<NonZeroU16> {
    let accepted = "a port from 1 to 65535";
    let word = text(node, accepted)?;
    parse_port(word).ok_or_else(|| Wrong::new(format!("`{word}` is not a port"), accepted))
}

/// A port number, or `any`.
pub(super) fn port(node: &Node) -> Decoded<Port> {
    let accepted = "a port from 1 to 65535, or any (which needs persistence)";
    match text(node, accepted)? {
        "any" => Ok(Port::Any),
        word if word.split_once('-').is_some_and(|(first, _)| parse_port(first).is_some()) => {
            Err(Wrong::new(
                format!("`{word}`: a service on one address has one port"),
                "a port from 1 to 65535; for a range use `match:`",
            ))
        }
        word => parse_port(word)
            .map(Port::Number)
            .ok_or_else(|| Wrong::new(format!("`{word}` is not a port"), accepted)),
    }
}

/// A port number, a range of them, or `any`.
pub(super) fn ports(node: &Node) -> Decoded<Ports> {
    let accepted = "a port from 1 to 65535, a range like 1000-2000, or any";
    let word = text(node, accepted)?;
    if word == "any" {
        return Ok(Ports::Any);
    }
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    match (parse_port(first.trim()), parse_port(last.trim())) {
        (Some(first), Some(last)) if first <= last => Ok(Ports::Range(PortRange { first, last })),
        (Some(_), Some(_)) => Err(Wrong::new(format!("the range {word} ends before it starts"), accepted)),
        _ => Err(Wrong::new(format!("`{word}` is not a port or a range of ports"), accepted)),
    }
}

fn parse_port(word: &str) -> Option<NonZeroU16> {
    word.bytes().all(|digit| digit.is_ascii_digit()).then(|| word.parse().ok()).flatten()
}

/// The address of a real server: unicast, and of more than one link.
pub(super) fn server_address(node: &Node) -> Decoded<IpAddr> {
    match unicast(node)? {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Err(Wrong::new(
            format!("{v6} is a link-local address, which does not say on which link"),
            "a unicast IPv4 or IPv6 address",
        )),
        address => Ok(address),
    }
}

/// An address a single host can have on the network: VIP, RIP or next hop.
pub(super) fn unicast(node: &Node) -> Decoded<IpAddr> {
    let accepted = "a unicast IPv4 or IPv6 address";
    let word = text(node, accepted)?;
    let address = word.parse::<IpAddr>().map_err(|_| {
        if word.parse::<IpNet>().is_ok() {
            Wrong::new(format!("`{word}` is a prefix"), "one address; prefixes go into `match:`")
        } else {
            Wrong::new(format!("`{word}` is not an address"), accepted)
        }
    })?;
    check_unicast(address).map_err(|kind| Wrong::new(format!("{word} is {kind}"), accepted))?;
    Ok(address)
}

/// Why `address` cannot be one host's on the network.
fn check_unicast(address: IpAddr) -> Result<(), &'static str> {
    match address {
        _ if address.is_unspecified() => Err("the unspecified address"),
        _ if address.is_loopback() => Err("a loopback address"),
        _ if address.is_multicast() => Err("a multicast address"),
        IpAddr::V4(v4) if v4.is_broadcast() => Err("the broadcast address"),
        IpAddr::V4(v4) if v4.octets()[0] == 0 => Err("in 0.0.0.0/8, which is not for hosts"),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Err("an IPv4-mapped address; write it as IPv4"),
        IpAddr::V4(_) | IpAddr::V6(_) => Ok(()),
    }
}

/// A prefix without host bits, or an address, which is a prefix of full length.
pub(super) fn prefix(node: &Node) -> Decoded<IpNet> {
    let accepted = "an address like 192.0.2.1 or a prefix like 198.51.100.0/24";
    let word = text(node, accepted)?;
    if let Ok(address) = word.parse::<IpAddr>() {
        return Ok(address.into());
    }
    let prefix = word
        .parse::<IpNet>()
        .map_err(|_| Wrong::new(format!("`{word}` is not an address or prefix"), accepted))?;
    if prefix.trunc() != prefix {
        let (net, host) = (prefix.trunc(), prefix.addr());
        return Err(Wrong::new(format!("{word} has host bits set"), format!("{net}, or {host} alone")));
    }
    Ok(prefix)
}

/// A prefix whose addresses can be VIPs. The default route, every address there is, is allowed.
pub(super) fn vip_prefix(node: &Node) -> Decoded<IpNet> {
    let prefix = prefix(node)?;
    if prefix.prefix_len() > 0 {
        check_unicast(prefix.addr()).map_err(|kind| {
            Wrong::new(format!("{} is {kind}", prefix.addr()), "a unicast address or a prefix of them")
        })?;
    }
    Ok(prefix)
}

/// A dotted IPv4 netmask, any pattern of bits.
pub(super) fn netmask(node: &Node) -> Decoded<Ipv4Addr> {
    let accepted = "a dotted mask like 255.255.255.0, or `prefix: 24` instead";
    let word = text(node, accepted)?;
    word.parse().map_err(|_| Wrong::new(format!("`{word}` is not a dotted netmask"), accepted))
}

/// A unicast MAC address.
pub(super) fn mac(node: &Node) -> Decoded<Mac> {
    let accepted = "the MAC address of one station, like \"02:00:00:00:00:0b\"";
    let word = text(node, accepted)?;
    let mac: Mac =
        word.parse().map_err(|_| Wrong::new(format!("`{word}` is not a MAC address"), accepted))?;
    if mac.is_unicast() { Ok(mac) } else { Err(Wrong::new(format!("{mac} is not unicast"), accepted)) }
}

/// `auto`, or a source address of the family `A`.
pub(super) fn tunnel_source<A: FromStr + Into<IpAddr> + Copy>(
    family: &'static str,
) -> impl Fn(&Node) -> Decoded<TunnelSource<A>> {
    move |node| {
        let accepted = format!("auto, or a unicast {family} address of the director");
        let word = text(node, &accepted)?;
        if word == "auto" {
            return Ok(TunnelSource::Auto);
        }
        let address: A = word
            .parse()
            .map_err(|_| Wrong::new(format!("`{word}` is not an {family} address"), accepted.clone()))?;
        check_unicast(address.into()).map_err(|kind| Wrong::new(format!("{word} is {kind}"), accepted))?;
        Ok(TunnelSource::Address(address))
    }
}

/// A name the kernel accepts for an interface.
pub(super) fn interface(node: &Node) -> Decoded<String> {
    let accepted = "a name of 1 to 15 bytes without blanks, `/` and `:`";
    let word = text(node, accepted)?;
    let forbidden = |c: char| c.is_whitespace() || c.is_control() || c == '/' || c == ':';
    if word.is_empty() || word.len() > 15 || word.contains(forbidden) || word == "." || word == ".." {
        return Err(Wrong::new(format!("`{word}` is not the name of an interface"), accepted));
    }
    Ok(word.to_owned())
}

/// An absolute path.
pub(super) fn path(node: &Node) -> Decoded<PathBuf> {
    let accepted = "an absolute path";
    let word = text(node, accepted)?;
    if !word.starts_with('/') || word.contains('\0') {
        return Err(Wrong::new(format!("`{word}` is not an absolute path"), accepted));
    }
    Ok(word.into())
}

/// An absolute path short enough for a Unix socket.
pub(super) fn socket_path(node: &Node) -> Decoded<PathBuf> {
    let path = path(node)?;
    match path.as_os_str().len() {
        0..=MAX_SOCKET_PATH => Ok(path),
        length => Err(Wrong::new(
            format!("a path of {length} bytes is too long for a Unix socket"),
            format!("an absolute path of at most {MAX_SOCKET_PATH} bytes"),
        )),
    }
}

/// The name of a service.
pub(super) fn service_name(node: &Node) -> Decoded<String> {
    let accepted = "1 to 63 of the characters A-Z a-z 0-9 . _ : -";
    let word = text(node, accepted)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._:-".contains(c);
    if word.is_empty() || word.len() > 63 || !word.chars().all(allowed) {
        return Err(Wrong::new(format!("`{word}` is not a name"), accepted));
    }
    Ok(word.to_owned())
}
