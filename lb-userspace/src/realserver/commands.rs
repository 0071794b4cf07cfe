//! What has to be so on a real server, as steps in the order in which they are to be taken, each with the command that
//! takes it.

use crate::model::Family;
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

/// How packets reach this real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Dr,
    Ipip,
    Gre,
    /// With its UDP port, host order.
    Gue(u16),
}

impl Method {
    /// Bytes of the largest header in front of a packet, without optional checksums (GRE: with).
    pub fn overhead(self, outer: Family) -> u32 {
        let header = match outer {
            Family::V4 => 20,
            Family::V6 => 40,
        };
        match self {
            Self::Dr => 0,
            Self::Ipip => header,
            Self::Gre => header + 8,
            Self::Gue(_) => header + 12,
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dr => "dr",
            Self::Ipip => "ipip",
            Self::Gre => "gre",
            Self::Gue(_) => "gue",
        })
    }
}

/// What this machine is to be a real server for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// In order, each once.
    pub vips: Vec<IpAddr>,
    pub method: Method,
    /// Family of the tunnel's outer header, that is of the RIP.
    pub outer: Family,
    /// Where packets from the director come in; `None`: where replies go out.
    pub interface: Option<String>,
    /// The director's addresses, which must not be the gateway.
    pub directors: BTreeSet<IpAddr>,
    /// Bytes of the largest packet a client sends.
    pub client_mtu: u32,
    /// Addresses replies go to, one of each family; only their routes are looked up.
    pub clients: [IpAddr; 2],
}

impl Wanted {
    pub fn has_v4(&self) -> bool {
        self.vips.iter().any(IpAddr::is_ipv4)
    }

    /// The tunnel devices of the kernel that take all VIPs' packets out; `None` if it has no ready-made ones for them.
    pub fn devices(&self) -> Option<Vec<Device>> {
        let v6 = || self.vips.iter().any(IpAddr::is_ipv6);
        let (tunl, sit) = (Device { name: "tunl0", module: "ipip" }, Device { name: "sit0", module: "sit" });
        match (self.method, self.outer) {
            (Method::Dr, _) => Some(Vec::new()),
            // GUE leaves the packet inside to the same devices.
            (Method::Ipip | Method::Gue(_), Family::V4) => {
                let wanted = [(self.has_v4(), tunl), (v6(), sit)];
                Some(wanted.into_iter().filter_map(|(wanted, device)| wanted.then_some(device)).collect())
            }
            (Method::Gre, Family::V4) => Some(vec![Device { name: "gre0", module: "ip_gre" }]),
            (Method::Gre, Family::V6) => Some(vec![Device { name: "ip6gre0", module: "ip6_gre" }]),
            // Takes IPv6 out, and nothing else.
            (Method::Ipip, Family::V6) if !self.has_v4() => {
                Some(vec![Device { name: "ip6tnl0", module: "ip6_tunnel" }])
            }
            (Method::Ipip | Method::Gue(_), Family::V6) => None,
        }
    }

    /// The command that stands in for tunnel devices.
    pub fn decapsulator(&self, interface: &str) -> String {
        let vips: String = self.vips.iter().map(|vip| format!(" --vip {vip}")).collect();
        let port = match self.method {
            Method::Gue(port) => format!(" --gue-port {port}"),
            _ => String::new(),
        };
        format!("lb real-server decap --interface {interface}{vips} --method {}{port}", self.method)
    }
}

/// A tunnel device that is there once its module is, for tunnels from anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    pub name: &'static str,
    pub module: &'static str,
}

impl Device {
    /// Whether IPv4 packets come out of it, for which the reverse path filter is.
    pub(super) fn takes_v4(self) -> bool {
        self.name != "sit0" && self.name != "ip6tnl0"
    }
}

/// Something that has to be so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// `net.ipv4.conf.<interface>.<name>`; `all` is one of the interfaces.
    Sysctl { interface: String, name: &'static str, value: u32 },
    /// The VIP, on `lo` and where else it has to be, with a prefix of the whole length: the route to it comes with it, and
    /// replies carry it as source.
    Address { vip: IpAddr, on: &'static str },
    /// A module that brings its tunnel device.
    Module(Device),
    /// The device is up.
    Up(&'static str),
    /// GUE is received on this UDP port.
    Gue(u16),
}

/// Bits of a prefix that is one address.
pub fn whole(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl Step {
    /// The shell command that makes it so; run twice it does no harm.
    pub fn command(&self) -> String {
        match self {
            // `/` where a name may hold dots.
            Self::Sysctl { interface, name, value } => {
                format!("sysctl -w net/ipv4/conf/{interface}/{name}={value}")
            }
            Self::Address { vip, on } => format!("ip address replace {vip}/{} dev {on}", whole(*vip)),
            Self::Module(device) => format!("modprobe {}", device.module),
            Self::Up(device) => format!("ip link set {device} up"),
            Self::Gue(port) => format!("modprobe fou; ip fou add port {port} gue"),
        }
    }

    /// The shell command that takes it back; `None` where nothing is to be taken back, or others may rely on it.
    pub fn undo(&self) -> Option<String> {
        match self {
            Self::Sysctl { .. } | Self::Module(_) => None,
            Self::Address { vip, on } => Some(format!("ip address del {vip}/{} dev {on}", whole(*vip))),
            Self::Up(device) => Some(format!("ip link set {device} down")),
            Self::Gue(port) => Some(format!("ip fou del port {port}")),
        }
    }

    fn sysctl(interface: &str, name: &'static str, value: u32) -> Self {
        Self::Sysctl { interface: interface.to_owned(), name, value }
    }
}

/// Everything that has to be so, in order: ARP is silenced before there is a VIP to answer for, and tunnels are opened
/// when it is there to take what comes out.
pub fn steps(wanted: &Wanted) -> Vec<Step> {
    let mut steps = Vec::new();
    if wanted.has_v4() {
        // The greater of `all` and the interface's own counts. IPv6 needs neither: neighbour discovery answers for
        // addresses of the interface alone.
        steps.push(Step::sysctl("all", "arp_ignore", 1));
        steps.push(Step::sysctl("all", "arp_announce", 2));
    }
    steps.extend(wanted.vips.iter().map(|vip| Step::Address { vip: *vip, on: "lo" }));
    steps.extend(tunnel_steps(wanted));
    steps
}

/// The part that needs tunnel devices; none for direct routing and where the kernel has none.
pub fn tunnel_steps(wanted: &Wanted) -> Vec<Step> {
    let mut steps = Vec::new();
    for device in wanted.devices().unwrap_or_default() {
        steps.push(Step::Module(device));
        if device.takes_v4() && wanted.has_v4() {
            // Replies do not leave by the tunnel, so the strict filter (1) would drop what comes in by it. Loose (2) counts
            // even where `all` is strict.
            steps.push(Step::sysctl(device.name, "rp_filter", 2));
            // But where a device has no IPv4 address at all, either filter drops everything. Nobody asks for addresses of
            // a tunnel device by ARP.
            let vips = wanted.vips.iter().filter(|vip| vip.is_ipv4());
            steps.extend(vips.map(|vip| Step::Address { vip: *vip, on: device.name }));
        }
        steps.push(Step::Up(device.name));
    }
    if let (Method::Gue(port), false) = (wanted.method, steps.is_empty()) {
        steps.push(Step::Gue(port));
    }
    steps
}

/// The steps to take back, in order: addresses first, for while there is a VIP, ARP stays silenced.
pub fn steps_back(wanted: &Wanted) -> Vec<Step> {
    let is_address = |step: &Step| matches!(step, Step::Address { .. });
    let (mut back, others): (Vec<_>, Vec<_>) = steps(wanted).into_iter().partition(is_address);
    back.extend(others.into_iter().rev());
    back
}

/// The commands that take everything back; the ARP settings only on `reset`.
pub fn undoing(wanted: &Wanted, reset: bool) -> Vec<String> {
    let mut commands: Vec<_> = steps_back(wanted).iter().filter_map(Step::undo).collect();
    if reset && wanted.has_v4() {
        commands.extend(["arp_announce", "arp_ignore"].map(|name| Step::sysctl("all", name, 0).command()));
    }
    commands
}

#[cfg(test)]
pub(in crate::realserver) use tests::wanted;

#[cfg(test)]
mod tests {
    use super::*;

    pub(in crate::realserver) fn wanted(vips: &[&str], method: Method, outer: Family) -> Wanted {
        Wanted {
            vips: vips.iter().map(|vip| vip.parse().unwrap()).collect(),
            method,
            outer,
            interface: None,
            directors: BTreeSet::new(),
            client_mtu: 1500,
            clients: ["198.51.100.10".parse().unwrap(), "2001:db8:100::10".parse().unwrap()],
        }
    }

    #[test]
    fn the_commands_are_those_of_the_manuals_in_their_order() {
        let silence =
            ["sysctl -w net/ipv4/conf/all/arp_ignore=1", "sysctl -w net/ipv4/conf/all/arp_announce=2"];
        let v4 = "ip address replace 192.0.2.1/32 dev lo";
        let v6 = "ip address replace 2001:db8::1/128 dev lo";
        let tunl = [
            "modprobe ipip",
            "sysctl -w net/ipv4/conf/tunl0/rp_filter=2",
            "ip address replace 192.0.2.1/32 dev tunl0",
            "ip link set tunl0 up",
        ]
        .as_slice();
        let sit = ["modprobe sit", "ip link set sit0 up"].as_slice();
        let both = ["192.0.2.1", "2001:db8::1"];
        for (sentence, wanted, commands) in [
            (
                "direct routing",
                wanted(&["192.0.2.1"], Method::Dr, Family::V4),
                [silence.as_slice(), &[v4]].concat(),
            ),
            ("IPv6 needs no ARP silenced", wanted(&["2001:db8::1"], Method::Dr, Family::V4), vec![v6]),
            (
                "IPIP for both families",
                wanted(&both, Method::Ipip, Family::V4),
                [&silence, [v4, v6].as_slice(), tunl, sit].concat(),
            ),
            (
                "GUE opens its port after the devices",
                wanted(&["192.0.2.1"], Method::Gue(6080), Family::V4),
                [&silence, [v4].as_slice(), tunl, &["modprobe fou; ip fou add port 6080 gue"]].concat(),
            ),
            (
                "IPv6 needs no filter loosened",
                wanted(&["2001:db8::1"], Method::Gre, Family::V4),
                vec![v6, "modprobe ip_gre", "ip link set gre0 up"],
            ),
            (
                "IPv4 in IPv6 has no ready-made device",
                wanted(&["192.0.2.1"], Method::Ipip, Family::V6),
                [silence.as_slice(), &[v4]].concat(),
            ),
        ] {
            let got: Vec<_> = steps(&wanted).iter().map(Step::command).collect();
            assert_eq!(got, commands, "{sentence}");
        }
    }
}
