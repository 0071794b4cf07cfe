//! Every tunnel outside and inside, as a real server should receive it.

use std::net::IpAddr;

use lb_common::counters::Reason;
use lb_common::hash::stateless;
use lb_common::net::Addr;
use lb_common::server::{NO_VLAN, server_flag};
use lb_common::settings::switch;

use super::forward::{data, data6, one, opened, opened6, quoted};
use super::{CLIENT, CLIENT6, Case, VIP, VIP6, case, complaint, complaint6, towards};
use crate::engine::{Fixture, Server, gre, gue, ipip};
use crate::packet::{Address, Eth, Ip, eth};

#[derive(Clone, Copy)]
pub(super) enum Tunnel {
    Ipip,
    Gre,
    GreWithChecksum,
    Gue,
    GueWithChecksum,
}

use Tunnel::{Gre, GreWithChecksum, Gue, GueWithChecksum, Ipip};

pub(super) const ALL: [(Tunnel, &str); 5] = [
    (Ipip, "IPIP"),
    (Gre, "GRE"),
    (GreWithChecksum, "GRE with a checksum"),
    (Gue, "GUE"),
    (GueWithChecksum, "GUE with a checksum"),
];

impl Tunnel {
    pub(super) fn server(self, rip: &str) -> Server {
        match self {
            Ipip => ipip(rip),
            Gre => gre(rip),
            GreWithChecksum => gre(rip).with(server_flag::CHECKSUM),
            Gue => gue(rip),
            GueWithChecksum => gue(rip).with(server_flag::CHECKSUM),
        }
    }

    /// The tunnel packet's frame, of the flow from port 40001. `outer`: its IP header.
    pub(super) fn wrap(self, outer: Ip, inner: &[u8]) -> Vec<u8> {
        self.wrap_from(40001, outer, inner)
    }

    /// As [`Self::wrap`], from another port.
    pub(super) fn wrap_from(self, port: u16, outer: Ip, inner: &[u8]) -> Vec<u8> {
        let sport = source_port(if inner[0] >> 4 == 4 { CLIENT } else { CLIENT6 }, port);
        match self {
            Ipip => outer.ipip(inner).build(),
            Gre => outer.gre(inner, false).build(),
            GreWithChecksum => outer.gre(inner, true).build(),
            Gue => outer.gue(sport, 6080, inner).no_checksum().build(),
            GueWithChecksum => outer.gue(sport, 6080, inner).build(),
        }
    }

    /// Bytes between the outer IP header and the packet.
    pub(super) fn header(self) -> usize {
        match self {
            Ipip => 0,
            Gre => 4,
            GreWithChecksum => 8,
            Gue | GueWithChecksum => 12,
        }
    }
}

/// The UDP source port of a flow: its hash within the local port range, 32768 to 60999.
fn source_port(client: &str, port: u16) -> u16 {
    let hash = u64::from(stateless(&Addr::from(client.address()), port));
    (32_768 + ((hash * (60_999 - 32_768)) >> 32)) as u16
}

/// The outer header towards a server: one hop less to live, DF as inside.
pub(super) fn outer(rip: &str, id: u32, has_df: bool) -> Ip {
    outer_on(towards(rip), rip, id, has_df)
}

/// As [`outer`], on a link that may have tags.
pub(super) fn outer_on(link: Eth, rip: &str, id: u32, has_df: bool) -> Ip {
    let source = if rip.contains(':') { "fd00::1" } else { "10.0.0.1" };
    link.ip(source, rip).ttl(63).df(has_df).id(id)
}

pub(super) const RIP: &str = "10.0.1.1";
pub(super) const RIP6: &str = "fd00::1:1";

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (tunnel, name) in ALL {
        for (rip, outside) in [(RIP, "IPv4"), (RIP6, "IPv6")] {
            for len in [0, 1001] {
                let inner = data(eth(), 63, len).ip_bytes();
                cases.push(
                    case(
                        format!("{name} over {outside} carries IPv4 of {} bytes", 40 + len),
                        one(tunnel.server(rip)),
                    )
                    .sends_with_id(data(eth(), 64, len).build(), move |id| {
                        tunnel.wrap(outer(rip, id, true), &inner)
                    })
                    .holds(&opened(40 + len, "reason transmitted 1")),
                );
                let inner = data6(eth(), 63, len).ip_bytes();
                cases.push(
                    case(
                        format!("{name} over {outside} carries IPv6 of {} bytes", 60 + len),
                        one(tunnel.server(rip)),
                    )
                    .sends_with_id(data6(eth(), 64, len).build(), move |id| {
                        tunnel.wrap(outer(rip, id, false), &inner)
                    })
                    .holds(&opened6(60 + len, "reason transmitted 1")),
                );
            }
            let header = tunnel.header() + if rip == RIP { 20 } else { 40 };
            let mtu = 1500 - header;
            let inner = data(eth(), 63, mtu - 40).ip_bytes();
            cases.push(
                case(format!("what {name} over {outside} leaves of the MTU fits"), one(tunnel.server(rip)))
                    .sends_with_id(data(eth(), 64, mtu - 40).build(), move |id| {
                        tunnel.wrap(outer(rip, id, true), &inner)
                    })
                    .holds(&opened(mtu, "reason transmitted 1")),
            );
            cases.push(
                case(
                    format!("a byte more than {name} over {outside} leaves is answered"),
                    one(tunnel.server(rip)),
                )
                .replies(data(eth(), 64, mtu - 39).build(), Reason::RepliedTooBig, move |id| {
                    let packet = data(eth(), 63, mtu - 39).ip_bytes();
                    complaint(id, 3, 4, mtu as u32, &quoted(packet))
                })
                .holds(&opened(mtu + 1, "reason replied_too_big 1")),
            );
            cases.push(
                case(
                    format!("an IPv6 byte more than {name} over {outside} leaves is answered"),
                    one(tunnel.server(rip)),
                )
                .replies(data6(eth(), 64, mtu - 59).build(), Reason::RepliedTooBig, move |_| {
                    complaint6(2, 0, mtu as u32, &quoted(data6(eth(), 63, mtu - 59).ip_bytes()))
                })
                .holds(&opened6(mtu + 1, "reason replied_too_big 1")),
            );
        }
    }
    cases.extend(headers());
    cases
}

fn headers() -> Vec<Case> {
    let with_tos = |tos: u8, ttl: u8| eth().ipv4(CLIENT, VIP).ttl(ttl).tos(tos).tcp(40001, 80).syn();
    let ecn = |tos: u8, outer_tos: u8| {
        let inner = with_tos(tos, 63).ip_bytes();
        (with_tos(tos, 64).build(), move |id| outer(RIP, id, true).tos(outer_tos).ipip(&inner).build())
    };
    let (not_capable, congested) = (ecn(0xb8, 0xb8), ecn(0xbb, 0xba));
    let class6 = |ttl| eth().ipv6(CLIENT6, VIP6).ttl(ttl).tos(0x03).flow_label(77).tcp(40001, 80).syn();
    let no_df = |ttl| eth().ipv4(CLIENT, VIP).ttl(ttl).df(false).tcp(40001, 80).syn();
    let no_discovery =
        |fixture: Fixture| Fixture { switches: fixture.switches & !switch::PMTU_DISC, ..fixture };
    let [.., high, low] = stateless(&Addr::from(CLIENT.address()), 40001).to_be_bytes();
    let varied = IpAddr::from([10, 0, high, 1 ^ low]);
    let tagged = one(gue(RIP).vlan([5, NO_VLAN]).behind(7));
    vec![
        case("the DSCP is copied to the outer header", one(ipip(RIP)))
            .sends_with_id(not_capable.0, not_capable.1)
            .holds(&opened(40, "reason transmitted 1")),
        case("congestion met before the tunnel is ECT(0) outside", one(ipip(RIP)))
            .sends_with_id(congested.0, congested.1)
            .holds(&opened(40, "reason transmitted 1")),
        case("congestion met before an IPv6 tunnel is ECT(0) outside, and no flow label", one(ipip(RIP6)))
            .sends_with_id(class6(64).build(), move |id| {
                outer(RIP6, id, false).tos(0x02).ipip(&class6(63).ip_bytes()).build()
            })
            .holds(&opened6(60, "reason transmitted 1")),
        case("a packet that may be fragmented may be so outside", one(ipip(RIP)))
            .sends_with_id(no_df(64).build(), move |id| {
                outer(RIP, id, true).df(false).ipip(&no_df(63).ip_bytes()).build()
            })
            .holds(&opened(40, "reason transmitted 1")),
        case("without pmtu_disc no tunnel packet has DF", no_discovery(one(ipip(RIP))))
            .sends_with_id(data(eth(), 64, 0).build(), move |id| {
                outer(RIP, id, true).df(false).ipip(&data(eth(), 63, 0).ip_bytes()).build()
            })
            .holds(&opened(40, "reason transmitted 1")),
        case("without pmtu_disc what is too big is answered all the same", no_discovery(one(ipip(RIP))))
            .replies(data(eth(), 64, 1441).build(), Reason::RepliedTooBig, |id| {
                complaint(id, 3, 4, 1480, &quoted(data(eth(), 63, 1441).ip_bytes()))
            })
            .holds(&opened(1481, "reason replied_too_big 1")),
        case(
            "with vary the end of the source is the flow's own",
            one(ipip(RIP).with(server_flag::VARY_SOURCE)),
        )
        .sends_with_id(data(eth(), 64, 0).build(), move |id| {
            towards(RIP).ip(varied, RIP).ttl(63).df(true).id(id).ipip(&data(eth(), 63, 0).ip_bytes()).build()
        })
        .holds(&opened(40, "reason transmitted 1")),
        case("a tunnel packet from one tag goes with another by another interface", tagged)
            .redirects(data(eth().vlan(9), 64, 33).build(), 7, {
                let ip = towards(RIP).vlan(5).ip("10.0.0.1", RIP).ttl(63).df(true).id(0);
                Gue.wrap(ip, &data(eth(), 63, 33).ip_bytes())
            })
            .holds(&opened(73, "reason redirected 1")),
        case("time to live is looked at before size, and before the tunnel", one(ipip(RIP)))
            .replies(data(eth(), 1, 1461).build(), Reason::RepliedTtl, |id| {
                complaint(id, 11, 0, 0, &quoted(data(eth(), 1, 1461).ip_bytes()))
            })
            .holds(&opened(1501, "reason replied_ttl_exceeded 1")),
        case("a path too narrow for a tunnel drops", one(ipip(RIP6).mtu(1300)))
            .drops(data(eth(), 64, 0).build(), Reason::DroppedTooBig)
            .holds(&opened(40, "reason dropped_too_big 1")),
    ]
}
