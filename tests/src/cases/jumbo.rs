//! Frames of several buffers: longer than what `BPF_PROG_TEST_RUN`, as a veth, puts into the first, about 3500 bytes.

use lb_common::counters::Reason;
use lb_common::server::SERVICE_VLAN;

use super::forward::{data, data6, one, opened, opened6, quoted};
use super::tunnels::Tunnel::GreWithChecksum;
use super::tunnels::{ALL, RIP, RIP6, outer};
use super::{CLIENT, CLIENT6, Case, VIP, VIP6, case, complaint, complaint6, towards};
use crate::engine::{dr, ipip};
use crate::packet::{Eth, eth};

/// What the servers' links take.
const MTU: u16 = 9100;

/// An IPv6 packet whose transport begins behind so many bytes of destination options, of up to 2048 bytes each.
fn behind_options(link: Eth, ttl: u8, options: &[usize]) -> Vec<u8> {
    let ip = options.iter().fold(link.ipv6(CLIENT6, VIP6).ttl(ttl), |ip, bytes| {
        let mut header = vec![0; *bytes];
        header[1] = (bytes / 8 - 1) as u8;
        ip.extension(60, &header)
    });
    ip.tcp(40001, 80).syn().payload_len(1000).build()
}

pub(super) fn cases() -> Vec<Case> {
    let last_hop = |len| quoted(data(eth(), 1, len).ip_bytes());
    let error = |len| {
        let mut answer = eth().ipv4(VIP, CLIENT).tcp(80, 40001).syn().ack(1001).ip_bytes();
        answer.resize(len, 0);
        eth().ipv4("198.18.0.1", VIP).icmp_error(3, 1, 0, &answer).build()
    };
    let cut = |mut frame: Vec<u8>| {
        frame.pop();
        frame
    };
    let fragments = |link: Eth, ttl| {
        let ip = link.ipv4(CLIENT, VIP).ttl(ttl).id(7);
        ip.tcp(40001, 80).syn().payload_len(20_000).fragments(&[8000, 8000])
    };
    let (sent, expected) = (fragments(eth(), 64), fragments(towards(RIP), 63));
    let mut cases = vec![
        case("a jumbo frame is routed directly", one(dr(RIP).mtu(MTU)))
            .routes(RIP, |eth, ttl| data(eth, ttl, 8960).build())
            .holds(&opened(9000, "reason transmitted 1")),
        case("a jumbo frame of IPv6 is routed directly", one(dr(RIP6).mtu(MTU)))
            .routes(RIP6, |eth, ttl| data6(eth, ttl, 8941).build())
            .holds(&opened6(9001, "reason transmitted 1")),
        case("a packet as large as IP has them is routed directly", one(dr(RIP).mtu(u16::MAX)))
            .routes(RIP, |eth, ttl| data(eth, ttl, 65_495).build())
            .holds(&opened(65_535, "reason transmitted 1")),
        case(
            "a jumbo frame goes with other tags than it came with",
            one(dr(RIP).mtu(MTU).vlan([200 | SERVICE_VLAN, 5])),
        )
        .sends(
            data(eth().vlan(9), 64, 8000).build(),
            data(towards(RIP).service_vlan(200).vlan(5), 63, 8000).build(),
        )
        .holds(&opened(8040, "reason transmitted 1")),
        case("fragments as large as jumbo frames follow their first", one(dr(RIP).mtu(MTU)))
            .sends(sent[0].clone(), expected[0].clone())
            .sends(sent[1].clone(), expected[1].clone())
            .sends(sent[2].clone(), expected[2].clone())
            .holds(
                "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 1, SYN_RECV, 60 s, active, half-open
                 load 1: 1 active
                 fragment 203.0.113.1 > 192.0.2.1 id 7 protocol 6: to 1, 30 s
                 reason transmitted 3
                 server 1: 1 connections, 3 packets, 20080 bytes",
            ),
        case("a jumbo frame larger than the path is cut down to the answer", one(dr(RIP)))
            .replies(data(eth(), 64, 8960).build(), Reason::RepliedTooBig, |id| {
                complaint(id, 3, 4, 1500, &quoted(data(eth(), 63, 8960).ip_bytes()))
            })
            .holds(&opened(9000, "reason replied_too_big 1")),
        case("a jumbo frame of IPv6 larger than the path is cut down to the answer", one(dr(RIP6)))
            .replies(data6(eth(), 64, 8940).build(), Reason::RepliedTooBig, |_| {
                complaint6(2, 0, 1500, &quoted(data6(eth(), 63, 8940).ip_bytes()))
            })
            .holds(&opened6(9000, "reason replied_too_big 1")),
        case("what no tunnel holds is answered before it is summed up", one(GreWithChecksum.server(RIP)))
            .replies(data(eth(), 64, 65_495).build(), Reason::RepliedTooBig, |id| {
                complaint(id, 3, 4, 1472, &quoted(data(eth(), 63, 65_495).ip_bytes()))
            })
            .holds(&opened(65_535, "reason replied_too_big 1")),
        case("an IPv6 packet larger than any MTU is answered", one(dr(RIP6).mtu(u16::MAX)))
            .replies(data6(eth(), 64, 65_480).build(), Reason::RepliedTooBig, |_| {
                complaint6(2, 0, 65_535, &quoted(data6(eth(), 63, 65_480).ip_bytes()))
            })
            .holds(&opened6(65_540, "reason replied_too_big 1")),
        case("an ICMP error that no tunnel holds is dropped", one(ipip(RIP).mtu(u16::MAX)))
            .sends_with_id(data(eth(), 64, 0).build(), |id| {
                outer(RIP, id, true).ipip(&data(eth(), 63, 0).ip_bytes()).build()
            })
            .drops(error(65_516 - 28), Reason::DroppedTooBig)
            .holds(
                "flow tcp 203.0.113.1:40001 > 192.0.2.1:80: to 1, SYN_RECV, 60 s, active, half-open
                 load 1: 1 active
                 reason dropped_too_big 1
                 reason transmitted 1
                 server 1: 1 connections, 2 packets, 65556 bytes",
            ),
        case("a jumbo frame with its last hop behind it is answered", one(dr(RIP).mtu(MTU)))
            .replies(data(eth(), 1, 8960).build(), Reason::RepliedTtl, move |id| {
                complaint(id, 11, 0, 0, &last_hop(8960))
            })
            .holds(&opened(9000, "reason replied_ttl_exceeded 1")),
        case("a jumbo frame that ends before its packet does is the stack's", one(dr(RIP).mtu(MTU)))
            .passes(cut(data(eth(), 64, 8960).build()), Reason::PassedMalformed)
            .passes(cut(data6(eth(), 64, 8940).build()), Reason::PassedMalformed)
            .holds("reason passed_malformed 2"),
        case("headers are read up to the first buffer's end", one(dr(RIP6).mtu(MTU)))
            .routes(RIP6, |eth, ttl| behind_options(eth, ttl, &[2048, 1400]))
            .holds(&opened6(4508, "reason transmitted 1")),
        case("a packet whose headers reach into the next buffer is the stack's", one(dr(RIP6).mtu(MTU)))
            .passes(behind_options(eth(), 64, &[2048, 1424]), Reason::PassedMalformed)
            .passes(behind_options(eth(), 64, &[2048, 2048]), Reason::PassedMalformed)
            .holds("reason passed_malformed 2"),
    ];
    for (tunnel, name) in ALL {
        for (rip, outside) in [(RIP, "IPv4"), (RIP6, "IPv6")] {
            // Odd, and up to the largest a tunnel can hold.
            let most = usize::from(u16::MAX) - tunnel.header() - if rip == RIP { 20 } else { 40 };
            for len in [8901, most - 40] {
                let inner = data(eth(), 63, len).ip_bytes();
                cases.push(
                    case(
                        format!("{name} over {outside} carries {} bytes of IPv4", 40 + len),
                        one(tunnel.server(rip).mtu(u16::MAX)),
                    )
                    .sends_with_id(data(eth(), 64, len).build(), move |id| {
                        tunnel.wrap(outer(rip, id, true), &inner)
                    })
                    .holds(&opened(40 + len, "reason transmitted 1")),
                );
            }
            let inner = data6(eth(), 63, 8902).ip_bytes();
            cases.push(
                case(
                    format!("{name} over {outside} carries 8962 bytes of IPv6"),
                    one(tunnel.server(rip).mtu(MTU)),
                )
                .sends_with_id(data6(eth(), 64, 8902).build(), move |id| {
                    tunnel.wrap(outer(rip, id, false), &inner)
                })
                .holds(&opened6(8962, "reason transmitted 1")),
            );
        }
    }
    cases
}
