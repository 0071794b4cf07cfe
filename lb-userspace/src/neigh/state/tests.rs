//! Stories of one director: what it hears, at what second, and what it then does and knows.

use std::time::Duration;

use super::*;
use crate::netlink::{NeighState, VlanTag};

const ETH0: u32 = 2;
const ETH1: u32 = 3;
const ETH0_100: u32 = 4;
const ETH0_200: u32 = 5;
const IN_200: u32 = 6;
const LO: u32 = 1;
const RIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 11));
const MAC0: Mac = [2, 0, 0, 0, 0, 2];
const A: Mac = [0xa, 0, 0, 0, 0, 1];
const B: Mac = [0xb, 0, 0, 0, 0, 1];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn link(ifindex: u32, name: &str, kind: LinkKind) -> Link {
    Link {
        ifindex,
        name: name.into(),
        kind,
        mac: Some(MAC0),
        mtu: 1500,
        up: true,
        carrier: true,
        parent: None,
        master: None,
        backup: false,
    }
}

fn eth0() -> Link {
    link(ETH0, "eth0", LinkKind::Device)
}

fn vlan100() -> Link {
    let tag = VlanTag { id: 100, tpid: VlanTag::DOT1Q };
    Link { parent: Some(ETH0), ..link(ETH0_100, "eth0.100", LinkKind::Vlan(tag)) }
}

/// eth0.200, of a service VLAN, and eth0.200.5 inside it.
fn both() -> Vec<VlanTag> {
    vec![VlanTag { id: 200, tpid: VlanTag::DOT1AD }, VlanTag { id: 5, tpid: VlanTag::DOT1Q }]
}

fn service200() -> Link {
    Link { parent: Some(ETH0), mtu: 1496, ..link(ETH0_200, "eth0.200", LinkKind::Vlan(both()[0])) }
}

fn in200() -> Link {
    Link { parent: Some(ETH0_200), mtu: 1492, ..link(IN_200, "eth0.200.5", LinkKind::Vlan(both()[1])) }
}

fn host() -> Vec<Link> {
    let lo = Link { mac: None, mtu: 65536, ..link(LO, "lo", LinkKind::Loopback) };
    vec![lo, eth0(), link(ETH1, "eth1", LinkKind::Device)]
}

fn via(ifindex: u32) -> Via {
    Via { ifindex, gateway: None, source: Some(ip("10.0.0.1")), mtu: None }
}

fn neighbour(state: NeighState, mac: Option<Mac>) -> Neighbour {
    Neighbour { ifindex: ETH0, address: RIP, mac, state }
}

fn hop() -> NextHop {
    NextHop {
        dmac: A,
        smac: MAC0,
        ifindex: ETH0,
        vlan: vec![],
        mtu: 1500,
        source: ip("10.0.0.1"),
        gateway: None,
        local: false,
    }
}

const LOOK_UP: Action = Action::LookUpRoute { server: RIP, oif: None };
const SOLICIT: Action = Action::Solicit { ifindex: ETH0, address: RIP };
const SOLICIT_ETH1: Action = Action::Solicit { ifindex: ETH1, address: RIP };
const SOLICIT_VLAN: Action = Action::Solicit { ifindex: ETH0_100, address: RIP };
const PROBE: Action = Action::Probe { ifindex: ETH0, address: RIP };

/// A line of a story.
enum Line {
    /// The second at which the following happens.
    At(f64),
    Hears(Event),
    /// Everything is read anew.
    Reads(Vec<Link>, Vec<Neighbour>),
    /// The answer to a route lookup for the first server.
    Routed(Route),
    Attached(&'static [u32]),
    /// All it does now, in this order.
    Does(&'static [Action]),
    /// Nothing is due before this second, and something at it.
    Wakes(f64),
    Has(NextHop),
    /// As `describe` puts it.
    Lacks(&'static str),
}

use Line::*;

fn says(state: NeighState, mac: Mac) -> Line {
    Hears(Event::Neighbour(neighbour(state, Some(mac))))
}

fn says_nothing(state: NeighState) -> Line {
    Hears(Event::Neighbour(neighbour(state, None)))
}

fn gone() -> Line {
    Hears(Event::NeighbourGone { ifindex: ETH0, address: RIP })
}

/// A director with the program on eth0, one wanted server, and no answer to its route lookup yet.
fn tell(sentence: &str, wanted: WantedServer, lines: Vec<Line>) {
    let start = Instant::now();
    let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
    let mut now = start;
    let mut machine = NextHops::new(Timing::default());
    let address = wanted.address;
    machine.attached(&BTreeSet::from([ETH0]));
    machine.snapshot(now, host(), vec![]);
    machine.want(now, &[wanted]);
    for (number, line) in lines.into_iter().enumerate() {
        let place = format!("{sentence}: line {number}, at {:?}", now - start);
        match line {
            At(seconds) => now = at(seconds),
            Hears(event) => machine.event(now, event),
            Reads(links, neighbours) => machine.snapshot(now, links, neighbours),
            Routed(route) => machine.route_found(address, route),
            Attached(ifindexes) => machine.attached(&ifindexes.iter().copied().collect()),
            Does(actions) => assert_eq!(machine.poll(now), actions, "{place}"),
            Wakes(seconds) => {
                let wake = machine.wake_at().map(|wake| (wake - start).as_secs_f64());
                assert_eq!(wake, Some(seconds), "{place}");
            }
            Has(hop) => assert_eq!(machine.table()[&address], Ok(hop), "{place}"),
            Lacks(why) => {
                let told = machine.table()[&address].clone().map_err(|why| why.describe(now));
                assert_eq!(told, Err(why.to_owned()), "{place}");
            }
        }
    }
}

fn unicast(via: Via) -> Line {
    Routed(Route::Unicast(via))
}

/// Up to the moment the server has a next hop.
fn resolved() -> Vec<Line> {
    vec![
        Does(&[LOOK_UP]),
        unicast(via(ETH0)),
        Does(&[SOLICIT]),
        says(NeighState::Reachable, A),
        Does(&[]),
        Has(hop()),
    ]
}

fn then(mut begin: Vec<Line>, rest: Vec<Line>) -> Vec<Line> {
    begin.extend(rest);
    begin
}

#[test]
fn a_neighbour_is_resolved_confirmed_and_given_up() {
    use NeighState::{Failed, Incomplete, Permanent, Probe, Reachable, Stale};
    #[rustfmt::skip]
    let stories = vec![
        ("a new server's route is looked up, then its MAC is asked for", vec![
            Lacks("the route to 10.0.0.11 is being looked up"),
            Does(&[LOOK_UP]), unicast(via(ETH0)), Lacks("no ARP answer from 10.0.0.11 on eth0"), Does(&[SOLICIT]),
            At(3.0), Lacks("no ARP answer from 10.0.0.11 on eth0 (last asked 3 s ago)"),
            says(Reachable, A), Does(&[]), Has(hop()),
        ]),
        ("a server whose MAC the kernel knows is not asked for", vec![
            Reads(host(), vec![neighbour(Reachable, Some(A))]),
            Does(&[LOOK_UP]), unicast(via(ETH0)), Does(&[]), Has(hop()),
        ]),
        ("a MAC of old serves at once, and is confirmed", vec![
            Reads(host(), vec![neighbour(Stale, Some(A))]),
            Does(&[LOOK_UP]), unicast(via(ETH0)), Does(&[PROBE]), Has(hop()),
        ]),
        ("a permanent neighbour is never asked", vec![
            Reads(host(), vec![neighbour(Permanent, Some(A))]),
            Does(&[LOOK_UP]), unicast(via(ETH0)), Does(&[]), Has(hop()), Wakes(30.0),
            At(30.0), Does(&[LOOK_UP]), At(60.0), Does(&[LOOK_UP]), Has(hop()),
        ]),
        ("a confirmed neighbour is confirmed again every half minute", then(resolved(), vec![
            At(29.0), Does(&[]), At(30.0), Does(&[LOOK_UP, PROBE]), says(Probe, A), Has(hop()),
            At(30.1), says(Reachable, A), Does(&[]), At(60.0), Does(&[LOOK_UP]), At(60.1), Does(&[PROBE]),
        ])),
        ("one that the kernel calls stale is confirmed at once", then(resolved(), vec![
            At(20.0), says(Stale, A), Does(&[PROBE]), Has(hop()), says(Probe, A), Does(&[]), Has(hop()),
            says(Reachable, A), Does(&[]), Has(hop()),
        ])),
        ("but not asked twice within a second", then(resolved(), vec![
            At(0.25), says(Stale, A), Does(&[]), Wakes(1.0), At(1.0), Does(&[PROBE]),
        ])),
        ("a probe whose outcome is not told is repeated", then(resolved(), vec![
            At(20.0), says(Stale, A), Does(&[PROBE]), says(Probe, A), At(25.0), Does(&[PROBE]), Has(hop()),
        ])),
        ("a new MAC is used from the moment it is told, and confirmed", then(resolved(), vec![
            At(10.0), says(Stale, B), Has(NextHop { dmac: B, ..hop() }), Does(&[PROBE]),
        ])),
        ("a server that does not answer a probe is lost, and looked for anew", then(resolved(), vec![
            At(20.0), says(Stale, A), Does(&[PROBE]), says(Probe, A), At(23.0), says(Failed, A),
            Lacks("no ARP answer from 10.0.0.11 on eth0 (last asked 3 s ago)"), Does(&[SOLICIT]),
            At(24.0), says(Reachable, B), Does(&[]), Has(NextHop { dmac: B, ..hop() }),
        ])),
        ("a silent server is asked at growing intervals, a quarter of a minute at most", vec![
            Does(&[LOOK_UP]), unicast(via(ETH0)), Does(&[SOLICIT]),
            At(3.0), says_nothing(Failed), Does(&[]), Wakes(4.0), At(4.0), Does(&[SOLICIT]),
            At(7.0), says_nothing(Failed), Wakes(9.0), At(9.0), Does(&[SOLICIT]),
            At(12.0), says_nothing(Failed), Wakes(16.0), At(16.0), Does(&[SOLICIT]),
            At(19.0), says_nothing(Failed), Wakes(27.0), At(27.0), Does(&[SOLICIT]),
            At(30.0), says_nothing(Failed), Does(&[LOOK_UP]), Wakes(45.0), At(45.0), Does(&[SOLICIT]),
            At(48.0), says_nothing(Failed), Wakes(60.0), At(60.0), Does(&[LOOK_UP]), Wakes(63.0),
            At(63.0), Does(&[SOLICIT]),
            Lacks("no ARP answer from 10.0.0.11 on eth0 (last asked 0 s ago)"),
        ]),
        ("a failure told twice does not put the next question off", vec![
            Does(&[LOOK_UP]), unicast(via(ETH0)), Does(&[SOLICIT]),
            At(3.0), says_nothing(Failed), At(3.5), says_nothing(Failed), Wakes(4.0), At(4.0), Does(&[SOLICIT]),
        ]),
        ("a server that speaks up itself is used at once", vec![
            Does(&[LOOK_UP]), unicast(via(ETH0)), Does(&[SOLICIT]),
            At(3.0), says_nothing(Failed), At(3.5), says(Stale, A), Has(hop()), Does(&[PROBE]),
        ]),
        ("an entry the kernel evicted keeps its MAC while it is asked for", then(resolved(), vec![
            At(10.0), gone(), Does(&[SOLICIT]), Has(hop()), says_nothing(Incomplete), Has(hop()),
            At(11.0), says(Reachable, A), At(16.0), Does(&[]), Has(hop()),
        ])),
        ("and loses it when the answer is no", then(resolved(), vec![
            At(10.0), gone(), Does(&[SOLICIT]), At(13.0), says_nothing(Failed), Does(&[SOLICIT]),
            Lacks("no ARP answer from 10.0.0.11 on eth0 (last asked 0 s ago)"),
        ])),
        ("or when none was told for five seconds", then(resolved(), vec![
            At(10.0), gone(), Does(&[SOLICIT]), At(14.9), Does(&[]), Has(hop()), Wakes(15.0),
            At(15.0), Does(&[SOLICIT]), Lacks("no ARP answer from 10.0.0.11 on eth0 (last asked 0 s ago)"),
        ])),
        ("an entry deleted by hand, which the kernel tells as a failure first, neither", then(resolved(), vec![
            At(10.0), says(Failed, A), gone(), Has(hop()), Does(&[SOLICIT]), Has(hop()),
            At(10.1), says(Reachable, A), Does(&[]), At(15.0), Does(&[]), Has(hop()),
        ])),
        ("but it must answer then", then(resolved(), vec![
            At(10.0), says(Failed, A), Does(&[SOLICIT]), At(13.0), says_nothing(Failed), Does(&[SOLICIT]),
            Lacks("no ARP answer from 10.0.0.11 on eth0 (last asked 0 s ago)"),
        ])),
        ("lost notifications are made good by reading everything", then(resolved(), vec![
            At(10.0), Reads(host(), vec![neighbour(Reachable, Some(B))]), Does(&[LOOK_UP]),
            Has(NextHop { dmac: B, ..hop() }),
        ])),
        ("what happens to neighbours on other interfaces is of no concern", then(resolved(), vec![
            Hears(Event::Neighbour(Neighbour { ifindex: ETH1, ..neighbour(Failed, None) })), Does(&[]), Has(hop()),
            Hears(Event::NeighbourGone { ifindex: ETH1, address: RIP }), Does(&[]), Has(hop()),
        ])),
    ];
    for (sentence, lines) in stories {
        tell(sentence, WantedServer::new(RIP), lines);
    }
}

#[test]
fn routes_and_interfaces_are_followed() {
    use super::Route as R;
    let down = Link { up: false, carrier: false, ..eth0() };
    let router = ip("10.0.0.254");
    let gateway = || Via { gateway: Some(router), mtu: Some(1400), ..via(ETH0) };
    let router_is = |mac| {
        Hears(Event::Neighbour(Neighbour { address: router, ..neighbour(NeighState::Reachable, Some(mac)) }))
    };
    const ASK_ROUTER: Action =
        Action::Solicit { ifindex: ETH0, address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 254)) };
    #[rustfmt::skip]
    let stories = vec![
        ("no route", vec![Does(&[LOOK_UP]), Routed(R::None), Does(&[]), Lacks("no route to 10.0.0.11")]),
        ("unreachable", vec![Does(&[LOOK_UP]), Routed(R::Unreachable), Lacks("unreachable route to 10.0.0.11")]),
        ("blackhole", vec![Does(&[LOOK_UP]), Routed(R::Blackhole), Lacks("blackhole route to 10.0.0.11")]),
        ("prohibit", vec![Does(&[LOOK_UP]), Routed(R::Prohibited), Lacks("prohibit route to 10.0.0.11")]),
        ("a route that encapsulates", vec![
            Does(&[LOOK_UP]), Routed(R::Unusable("it encapsulates (mpls)".into())),
            Lacks("the route to 10.0.0.11 cannot be used: it encapsulates (mpls)"),
        ]),
        ("an address of the director", vec![
            Does(&[LOOK_UP]), Routed(R::Local(Via { source: Some(RIP), ..via(LO) })), Does(&[]),
            Has(NextHop { dmac: [0; 6], smac: [0; 6], ifindex: LO, mtu: 65536, source: RIP, local: true, ..hop() }),
        ]),
        ("the neighbour is the gateway, and the route's MTU counts", vec![
            Does(&[LOOK_UP]), unicast(gateway()), Does(&[ASK_ROUTER]),
            Lacks("no ARP answer from 10.0.0.254, the gateway to 10.0.0.11, on eth0 (last asked 0 s ago)"),
            router_is(B), Does(&[]),
            Has(NextHop { dmac: B, gateway: Some(router), mtu: 1400, ..hop() }),
        ]),
        ("a route MTU above the interface's does not", vec![
            Does(&[LOOK_UP]), unicast(Via { mtu: Some(9000), ..via(ETH0) }), Does(&[SOLICIT]),
            says(NeighState::Reachable, A), Has(hop()),
        ]),
        ("a director without address has no source", vec![
            Does(&[LOOK_UP]), unicast(Via { source: None, ..via(ETH0) }), Does(&[SOLICIT]),
            says(NeighState::Reachable, A), Has(NextHop { source: ip("0.0.0.0"), ..hop() }),
        ]),
        ("no program on the interface: nobody is asked", vec![
            Does(&[LOOK_UP]), unicast(via(ETH1)), Does(&[]),
            Lacks("route goes out of eth1, which has no XDP program"),
        ]),
        ("attaching the program helps", vec![
            Does(&[LOOK_UP]), unicast(via(ETH1)), Does(&[]), Attached(&[ETH0, ETH1]),
            Does(&[SOLICIT_ETH1]),
            Lacks("no ARP answer from 10.0.0.11 on eth1 (last asked 0 s ago)"),
        ]),
        ("detaching it is noticed", then(resolved(), vec![
            Attached(&[]), Does(&[]), Lacks("route goes out of eth0, which has no XDP program"),
        ])),
        ("a changed route is looked up and the old one used meanwhile", then(resolved(), vec![
            At(5.0), Hears(Event::Routes), Does(&[LOOK_UP]), Has(hop()), unicast(gateway()), Does(&[ASK_ROUTER]),
            router_is(B), Does(&[]), Has(NextHop { dmac: B, gateway: Some(router), mtu: 1400, ..hop() }),
        ])),
        ("however many routes change, a server's is looked up five times a second", then(resolved(), vec![
            At(5.0), Hears(Event::Routes), Does(&[LOOK_UP]), Hears(Event::Routes), Does(&[]), Wakes(5.2),
            At(5.1), Hears(Event::Routes), Does(&[]), At(5.2), Does(&[LOOK_UP]), Wakes(30.0),
        ])),
        ("a changed address of the director may change the source", then(resolved(), vec![
            At(5.0), Hears(Event::Addresses), Does(&[LOOK_UP]),
            unicast(Via { source: Some(ip("10.0.0.2")), ..via(ETH0) }), Does(&[]),
            Has(NextHop { source: ip("10.0.0.2"), ..hop() }),
        ])),
        ("an interface switched off, seen before its routes go", then(resolved(), vec![
            At(5.0), Hears(Event::Link(down.clone())), Lacks("interface eth0 is down"), Does(&[LOOK_UP]),
            Lacks("interface eth0 is down"),
        ])),
        ("and after they went", then(resolved(), vec![
            At(5.0), Hears(Event::Link(down.clone())), Does(&[LOOK_UP]), Routed(R::None), Does(&[]),
            Lacks("interface eth0 is down"),
        ])),
        ("a MAC known from before the interface was off is not trusted after", then(resolved(), vec![
            At(5.0), Hears(Event::Link(down.clone())), gone(), Does(&[LOOK_UP]), Routed(R::None), Does(&[]),
            At(6.0), Hears(Event::Link(eth0())), Does(&[LOOK_UP]), unicast(via(ETH0)), Does(&[SOLICIT]),
            Lacks("no ARP answer from 10.0.0.11 on eth0 (last asked 0 s ago)"),
        ])),
        ("a cable pulled out", then(resolved(), vec![
            At(5.0), Hears(Event::Link(Link { carrier: false, ..eth0() })), Does(&[LOOK_UP]),
            Lacks("interface eth0 has no carrier"),
        ])),
        ("an interface that vanished", then(resolved(), vec![
            At(5.0), Hears(Event::LinkGone { ifindex: ETH0 }), Does(&[LOOK_UP]),
            Lacks("there is no interface with index 2"), Routed(R::None), Lacks("no route to 10.0.0.11"),
        ])),
        ("a new MTU and MAC of the interface are taken over", then(resolved(), vec![
            At(5.0), Hears(Event::Link(Link { mtu: 9000, mac: Some(B), ..eth0() })), Does(&[LOOK_UP]),
            Has(NextHop { mtu: 9000, smac: B, ..hop() }),
        ])),
        ("a link told again unchanged is no reason to look up routes", then(resolved(), vec![
            At(5.0), Hears(Event::Link(eth0())), Does(&[]), Has(hop()),
        ])),
        ("through a VLAN device: its tag, out of the interface underneath", vec![
            Hears(Event::Link(vlan100())), Does(&[LOOK_UP]), unicast(via(ETH0_100)),
            Does(&[SOLICIT_VLAN]),
            Hears(Event::Neighbour(Neighbour { ifindex: ETH0_100, ..neighbour(NeighState::Reachable, Some(A)) })),
            Has(NextHop { vlan: vec![VlanTag { id: 100, tpid: 0x8100 }], ..hop() }),
        ]),
        ("through a VLAN device on one of a service VLAN: both tags, and the MTU of the upper", vec![
            Hears(Event::Link(service200())), Hears(Event::Link(in200())), Does(&[LOOK_UP]),
            unicast(via(IN_200)), Does(&[Action::Solicit { ifindex: IN_200, address: RIP }]),
            Hears(Event::Neighbour(Neighbour { ifindex: IN_200, ..neighbour(NeighState::Reachable, Some(A)) })),
            Has(NextHop { vlan: both(), mtu: 1492, ..hop() }),
            At(5.0), Hears(Event::LinkGone { ifindex: ETH0_200 }), Does(&[LOOK_UP]),
            Lacks("route goes out of eth0.200.5, which has no XDP program"),
        ]),
        ("through a VLAN device of a service VLAN: its tag", vec![
            Hears(Event::Link(service200())), Does(&[LOOK_UP]), unicast(via(ETH0_200)),
            Does(&[Action::Solicit { ifindex: ETH0_200, address: RIP }]),
            Hears(Event::Neighbour(Neighbour { ifindex: ETH0_200, ..neighbour(NeighState::Reachable, Some(A)) })),
            Has(NextHop { vlan: both()[..1].to_vec(), mtu: 1496, ..hop() }),
        ]),
    ];
    for (sentence, lines) in stories {
        tell(sentence, WantedServer::new(RIP), lines);
    }
}

#[test]
fn the_configuration_overrides_the_kernel() {
    const ON_ETH0: Action = Action::LookUpRoute { server: RIP, oif: Some(ETH0) };
    const ON_VLAN: Action = Action::LookUpRoute { server: RIP, oif: Some(ETH0_100) };
    let plain = || WantedServer::new(RIP);
    let on = |name: &str| WantedServer { interface: Some(name.into()), ..plain() };
    let tagged = || NextHop { vlan: vec![VlanTag { id: 100, tpid: 0x8100 }], ..hop() };
    #[rustfmt::skip]
    let stories = vec![
        ("a configured MAC is used unasked", WantedServer { mac: Some(B), ..plain() }, vec![
            Does(&[LOOK_UP]), unicast(via(ETH0)), Does(&[]), Has(NextHop { dmac: B, ..hop() }),
            says(NeighState::Failed, A), Does(&[]), Has(NextHop { dmac: B, ..hop() }),
        ]),
        ("a configured interface binds the lookup", on("eth0"), vec![
            Does(&[ON_ETH0]), unicast(via(ETH0)), Does(&[SOLICIT]),
        ]),
        ("a configured interface that is not there, until it comes", on("eth0.100"), vec![
            Does(&[]), Lacks("there is no interface eth0.100"), At(1.0), Hears(Event::Link(vlan100())),
            Does(&[ON_VLAN]),
        ]),
        ("a configured VLAN is found by parent and number", WantedServer { vlan: Some(100), ..on("eth0") }, vec![
            Does(&[]), Lacks("no VLAN device for VLAN 100 on eth0, so its MAC cannot be asked for"),
            At(1.0), Hears(Event::Link(vlan100())), Does(&[ON_VLAN]), unicast(via(ETH0_100)),
            Does(&[SOLICIT_VLAN]),
            Hears(Event::Neighbour(Neighbour { ifindex: ETH0_100, ..neighbour(NeighState::Reachable, Some(A)) })),
            Has(tagged()),
        ]),
        ("VLAN and MAC need no device", WantedServer { vlan: Some(100), mac: Some(A), ..on("eth0") }, vec![
            Does(&[ON_ETH0]), unicast(via(ETH0)), Does(&[]), Has(tagged()),
        ]),
        ("nor an interface", WantedServer { vlan: Some(100), mac: Some(A), ..plain() }, vec![
            Does(&[LOOK_UP]), unicast(via(ETH0)), Does(&[]), Has(tagged()),
        ]),
        ("a route that is in the VLAN is not tagged twice", WantedServer { vlan: Some(100), mac: Some(A), ..plain() },
        vec![
            Hears(Event::Link(vlan100())), Does(&[LOOK_UP]), unicast(via(ETH0_100)), Does(&[]), Has(tagged()),
        ]),
        ("a route that is not in the VLAN, and no MAC", WantedServer { vlan: Some(100), ..plain() }, vec![
            Does(&[LOOK_UP]), unicast(via(ETH0)), Does(&[]),
            Lacks("no VLAN device for VLAN 100 on eth0, so its MAC cannot be asked for"),
        ]),
    ];
    for (sentence, wanted, lines) in stories {
        tell(sentence, wanted, lines);
    }
}

#[test]
fn an_ipv6_neighbour_is_asked_by_ndp() {
    let address = ip("fd00::11");
    let none = Via { source: None, ..via(ETH0) };
    let mut machine = NextHops::new(Timing::default());
    let now = Instant::now();
    machine.attached(&BTreeSet::from([ETH0]));
    machine.snapshot(now, host(), vec![]);
    machine.want(now, &[WantedServer::new(address)]);
    assert_eq!(machine.poll(now), [Action::LookUpRoute { server: address, oif: None }]);
    machine.route_found(address, Route::Unicast(none));
    assert_eq!(machine.poll(now), [Action::Solicit { ifindex: ETH0, address }]);
    let why = machine.table()[&address].clone().unwrap_err();
    assert_eq!(why.to_string(), "no NDP answer from fd00::11 on eth0");
    let told = Neighbour { ifindex: ETH0, address, mac: Some(A), state: NeighState::Reachable };
    machine.event(now, Event::Neighbour(told));
    assert_eq!(machine.table()[&address], Ok(NextHop { source: ip("::"), ..hop() }));
}

#[test]
fn servers_come_and_go() {
    let now = Instant::now();
    let mut machine = NextHops::new(Timing::default());
    machine.attached(&BTreeSet::from([ETH0]));
    machine.snapshot(now, host(), vec![]);
    let servers: Vec<_> = (1..=250).map(|n| WantedServer::new(IpAddr::from([10, 0, 0, n]))).collect();
    let router = ip("10.0.0.254");

    machine.want(now, &servers);
    let lookups = machine.poll(now);
    assert_eq!(lookups.len(), 250, "each route is looked up");
    for server in &servers {
        machine.route_found(server.address, Route::Unicast(via(ETH0)));
    }
    let mut asked = vec![];
    let mut then = now;
    for expected in [100, 100, 50] {
        let actions = machine.poll(then);
        assert_eq!(actions.len(), expected, "questions go out in bursts");
        asked.extend(actions);
        then += Duration::from_millis(20);
    }
    asked.dedup();
    assert_eq!(asked.len(), 250, "nobody is asked twice");

    for server in &servers {
        machine.route_found(server.address, Route::Unicast(Via { gateway: Some(router), ..via(ETH0) }));
    }
    let action = Action::Solicit { ifindex: ETH0, address: router };
    assert_eq!(machine.poll(then), [action], "a gateway is asked once for all behind it");

    machine.want(then, &servers[..1]);
    machine.poll(then);
    assert_eq!(machine.table().len(), 1, "servers no longer wanted are forgotten");
    assert!(machine.table()[&servers[0].address].is_err(), "and those that stay keep their route");
    assert_eq!(machine.poll(then), [], "without a new lookup");

    let twice = [
        WantedServer { mac: Some(A), ..servers[0].clone() },
        WantedServer { mac: Some(B), ..servers[0].clone() },
    ];
    machine.want(then, &twice);
    machine.poll(then);
    machine.route_found(servers[0].address, Route::Unicast(via(ETH0)));
    let found = machine.table()[&servers[0].address].clone().map(|hop| hop.dmac);
    assert_eq!(found, Ok(A), "of two with one address the first counts");

    machine.want(then, &[]);
    assert_eq!(
        (machine.poll(then), machine.table().len(), machine.wake_at()),
        (vec![], 0, None),
        "none, nothing"
    );
}

#[test]
fn another_question_is_no_news() {
    let now = Instant::now();
    let why = |asked| Unresolved::NoAnswer {
        neighbour: RIP,
        gateway_to: None,
        interface: "eth0".into(),
        last_asked: Asked(asked),
    };
    assert_eq!(why(None), why(Some(now)));
    assert_ne!(why(None), Unresolved::NoRoute { address: RIP });
}
