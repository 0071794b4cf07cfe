use super::super::commands::wanted;
use super::super::host::{Conf, WayBack};
use super::Problem::*;
use super::*;
use std::collections::{BTreeMap, BTreeSet};

const VIP: &str = "192.0.2.1";
const VIP6: &str = "2001:db8::1";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn interface(name: &str, addresses: &[(&str, u8)]) -> Interface {
    Interface {
        name: name.into(),
        mtu: 1500,
        up: true,
        is_loopback: name == "lo",
        is_ethernet: name.starts_with("eth"),
        conf: Conf::default(),
        addresses: addresses.iter().map(|(address, prefix)| (ip(address), *prefix)).collect(),
        xdp: None,
    }
}

/// One that is set up as it should be, for direct routing.
fn good() -> Host {
    let way = |gateway: &str| WayBack {
        interface: "eth0".into(),
        gateway: Some(ip(gateway)),
        mtu: None,
        advmss: None,
    };
    Host {
        interfaces: vec![
            interface("lo", &[("127.0.0.1", 8), (VIP, 32), ("::1", 128), (VIP6, 128)]),
            interface("eth0", &[("10.0.0.11", 24), ("fd00::11", 64)]),
            interface("eth1", &[]),
        ],
        all: Conf { arp_ignore: 1, arp_announce: 2, rp_filter: 0 },
        ways_back: BTreeMap::from([(Family::V4, way("10.0.0.1")), (Family::V6, way("fd00::1"))]),
        local: BTreeSet::from([ip(VIP), ip(VIP6)]),
        gue_ports: Some(BTreeSet::new()),
    }
}

/// The same with the tunnel devices in order.
fn tunnelled() -> Host {
    let mut host = good();
    host.interfaces.extend([interface("tunl0", &[]), interface("sit0", &[]), interface("gre0", &[])]);
    host.gue_ports = Some(BTreeSet::from([6080]));
    for interface in &mut host.interfaces {
        interface.mtu = 1600;
    }
    host
}

fn change(mut host: Host, change: impl FnOnce(&mut Host)) -> Host {
    change(&mut host);
    host
}

fn of<'a>(host: &'a mut Host, name: &str) -> &'a mut Interface {
    host.interfaces.iter_mut().find(|interface| interface.name == name).unwrap()
}

fn dr() -> Wanted {
    Wanted { directors: BTreeSet::from([ip("10.0.0.2")]), ..wanted(&[VIP, VIP6], Method::Dr, Family::V4) }
}

fn through(method: Method) -> Wanted {
    wanted(&[VIP, VIP6], method, Family::V4)
}

#[test]
fn every_mistake_is_named_and_no_other() {
    let cases = [
        ("all is well with direct routing", dr(), good(), vec![]),
        ("all is well with tunnel devices", through(Method::Gue(6080)), tunnelled(), vec![]),
        (
            "the VIPs are missing",
            dr(),
            change(good(), |host| of(host, "lo").addresses.clear()),
            vec![VipMissing, VipMissing],
        ),
        (
            "the VIP is on the network card",
            dr(),
            change(good(), |host| of(host, "eth0").addresses.push((ip(VIP), 24))),
            vec![VipAnswersArp],
        ),
        (
            "an IPv6 VIP is on a network card",
            dr(),
            change(good(), |host| of(host, "eth1").addresses.push((ip(VIP6), 128))),
            vec![VipAnswersArp],
        ),
        (
            "the VIP takes its whole network with it",
            dr(),
            change(good(), |host| of(host, "lo").addresses[1].1 = 24),
            vec![VipPrefix],
        ),
        (
            "the host route is gone",
            dr(),
            change(good(), |host| {
                host.local.remove(&ip(VIP));
            }),
            vec![VipRoute],
        ),
        (
            "ARP is answered on both network cards",
            dr(),
            change(good(), |host| host.all.arp_ignore = 0),
            vec![ArpIgnore, ArpIgnore],
        ),
        (
            "arp_ignore 3 answers for global addresses, and the greater value counts",
            dr(),
            change(good(), |host| of(host, "eth0").conf.arp_ignore = 3),
            vec![ArpIgnore],
        ),
        (
            "arp_ignore of the interfaces is enough",
            dr(),
            change(good(), |host| {
                host.all.arp_ignore = 0;
                of(host, "eth0").conf.arp_ignore = 2;
                of(host, "eth1").conf.arp_ignore = 8;
            }),
            vec![],
        ),
        (
            "a card that is down is asked by nobody",
            dr(),
            change(good(), |host| {
                host.all.arp_ignore = 0;
                of(host, "eth0").conf.arp_ignore = 1;
                of(host, "eth1").up = false;
            }),
            vec![],
        ),
        (
            "the VIP is announced as the sender of requests",
            dr(),
            change(good(), |host| {
                host.all.arp_announce = 1;
                of(host, "eth1").conf.arp_announce = 2;
            }),
            vec![ArpAnnounce],
        ),
        (
            "for IPv6 alone nobody asks about ARP",
            wanted(&[VIP6], Method::Dr, Family::V6),
            change(good(), |host| host.all = Conf::default()),
            vec![],
        ),
        (
            "the gateway is the director",
            dr(),
            change(good(), |host| {
                host.ways_back.get_mut(&Family::V4).unwrap().gateway = Some(ip("10.0.0.2"));
            }),
            vec![GatewayIsDirector],
        ),
        (
            "the gateway is the VIP, which is the director even if nobody said which that is",
            through(Method::Gre),
            change(tunnelled(), |host| {
                host.ways_back.get_mut(&Family::V6).unwrap().gateway = Some(ip(VIP6));
            }),
            vec![GatewayIsDirector],
        ),
        (
            "there is no way back for IPv6",
            dr(),
            change(good(), |host| {
                host.ways_back.remove(&Family::V6);
            }),
            vec![NoWayBack],
        ),
        (
            "replies leave by another card than packets come in by, and the filter is strict",
            Wanted { interface: Some("eth1".into()), ..dr() },
            change(good(), |host| of(host, "eth1").conf.rp_filter = 1),
            vec![RpFilter],
        ),
        (
            "a loose filter lets them in, as the greater value",
            Wanted { interface: Some("eth1".into()), ..dr() },
            change(good(), |host| {
                host.all.rp_filter = 1;
                of(host, "eth1").conf.rp_filter = 2;
            }),
            vec![],
        ),
        (
            "a strict filter on the way replies take drops nothing",
            dr(),
            change(good(), |host| host.all.rp_filter = 1),
            vec![],
        ),
        (
            "a strict filter on the tunnel device",
            through(Method::Ipip),
            change(tunnelled(), |host| {
                host.all.rp_filter = 1;
                of(host, "tunl0").addresses.push((ip(VIP), 32));
            }),
            vec![RpFilter],
        ),
        (
            "a loose filter on a tunnel device without address",
            through(Method::Gre),
            change(tunnelled(), |host| of(host, "gre0").conf.rp_filter = 2),
            vec![TunnelAddress],
        ),
        (
            "a loose filter on a tunnel device with the VIP",
            through(Method::Gre),
            change(tunnelled(), |host| {
                host.all.rp_filter = 2;
                of(host, "gre0").addresses.push((ip(VIP), 32));
            }),
            vec![],
        ),
        (
            "no filter is for IPv6",
            wanted(&[VIP6], Method::Gre, Family::V4),
            change(tunnelled(), |host| host.all.rp_filter = 2),
            vec![],
        ),
        (
            "packets of direct routing are larger than the card takes",
            dr(),
            change(good(), |host| of(host, "eth0").mtu = 1400),
            vec![Mtu],
        ),
        (
            "clients of both families are told of segments too large for the tunnel",
            through(Method::Ipip),
            change(tunnelled(), |host| of(host, "eth0").mtu = 1500),
            vec![SegmentSize, SegmentSize],
        ),
        (
            "a segment size that fits is announced",
            wanted(&[VIP], Method::Ipip, Family::V4),
            change(tunnelled(), |host| {
                of(host, "eth0").mtu = 1500;
                host.ways_back.get_mut(&Family::V4).unwrap().advmss = Some(1440);
            }),
            vec![],
        ),
        (
            "one byte too many is announced",
            wanted(&[VIP], Method::Ipip, Family::V4),
            change(tunnelled(), |host| {
                of(host, "eth0").mtu = 1500;
                host.ways_back.get_mut(&Family::V4).unwrap().advmss = Some(1441);
            }),
            vec![SegmentSize],
        ),
        (
            "the route's MTU leaves room for the tunnel",
            wanted(&[VIP], Method::Gue(6080), Family::V4),
            change(tunnelled(), |host| {
                of(host, "eth0").mtu = 1500;
                host.ways_back.get_mut(&Family::V4).unwrap().mtu = Some(1468);
            }),
            vec![],
        ),
        (
            "there are no tunnel devices",
            through(Method::Ipip),
            change(tunnelled(), |host| host.interfaces.truncate(3)),
            vec![NoTunnel, NoTunnel],
        ),
        (
            "there are no tunnel devices but the decapsulator",
            through(Method::Ipip),
            change(tunnelled(), |host| {
                host.interfaces.truncate(3);
                of(host, "eth0").xdp = Some("decap".into());
            }),
            vec![],
        ),
        (
            "another XDP program is no decapsulator",
            through(Method::Gre),
            change(tunnelled(), |host| {
                host.interfaces.truncate(3);
                of(host, "eth0").xdp = Some("lb".into());
            }),
            vec![NoTunnel],
        ),
        (
            "no device of the kernel takes IPv4 out of IPv6",
            wanted(&[VIP], Method::Ipip, Family::V6),
            tunnelled(),
            vec![NoTunnel],
        ),
        (
            "the tunnel device is down",
            through(Method::Gre),
            change(tunnelled(), |host| of(host, "gre0").up = false),
            vec![TunnelDown],
        ),
        ("GUE's port is another", through(Method::Gue(6081)), tunnelled(), vec![GuePort]),
        (
            "the interface that was named is not there",
            Wanted { interface: Some("eth7".into()), ..through(Method::Gre) },
            tunnelled(),
            vec![NoInterface],
        ),
    ];
    for (sentence, wanted, host, expected) in cases {
        let found = check(&wanted, &host);
        let problems: Vec<_> = found.iter().map(|finding| finding.problem).collect();
        assert_eq!(problems, expected, "{sentence}: {found:#?}");
    }
}

#[test]
fn a_remedy_is_the_command_for_this_machine() {
    let host = change(good(), |host| {
        of(host, "eth0").conf.arp_ignore = 3;
        host.ways_back.get_mut(&Family::V4).unwrap().gateway = Some(ip("10.0.0.2"));
    });
    let remedies: Vec<_> = check(&dr(), &host).into_iter().map(|finding| finding.remedy).collect();
    assert_eq!(
        remedies,
        ["sysctl -w net/ipv4/conf/eth0/arp_ignore=1", "ip route replace default via ROUTER dev eth0"]
    );
    let host = change(tunnelled(), |host| of(host, "eth0").mtu = 1500);
    let remedies = check(&through(Method::Ipip), &host).into_iter().map(|finding| finding.remedy);
    assert_eq!(
        remedies.collect::<Vec<_>>(),
        [
            "ip route change default via 10.0.0.1 dev eth0 advmss 1440, or an MTU of 1520 between director and real \
             servers",
            "ip -6 route change default via fd00::1 dev eth0 advmss 1420, or an MTU of 1520 between director and real \
             servers",
        ]
    );
}
