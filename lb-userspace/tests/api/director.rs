//! A director with made-up answers, on a socket of its own.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use lb_userspace::api::types::{
    Action, Change, Finding, Flow, FlowProtocol, FlowTables, Interface, Method, Mode, NextHop, Persistence,
    Protocol, Reload, Server, ServerCount, Service, Severity, State, Stats, Status, Sweep, Table,
    note_counts, reason_counts,
};
use lb_userspace::api::{Flows, Operator, OperatorError, ReloadError, Socket, serve, types};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use lb_common::counters::{Note, Reason};

/// How a made-up director behaves where it can behave in several ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    #[default]
    Well,
    /// Its file is wrong.
    InvalidFile,
    /// Its file asks for another size of the flow tables.
    OtherTables,
    /// It has not started yet.
    Starting,
    /// Listing flows breaks off after the first three.
    BrokenMap,
    /// It panics when asked for services.
    Bug,
    /// This many flows.
    Crowded(u32),
}

#[derive(Debug, Default)]
pub(crate) struct Fake {
    pub(crate) mood: Mood,
    pub(crate) reloads: AtomicU32,
}

/// A director that answers until it is dropped.
pub(crate) struct Director {
    pub(crate) socket: PathBuf,
    pub(crate) fake: Arc<Fake>,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<tokio::task::JoinHandle<io::Result<()>>>,
    runtime: Runtime,
    _folder: TempDir,
}

impl Director {
    pub(crate) fn start(mood: Mood) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("lb.sock");
        let fake = Arc::new(Fake { mood, ..Fake::default() });
        let runtime = Runtime::new().unwrap();
        let listening = Socket::bind(&socket).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async {
            let _ = stopped.await;
        };
        let serving = runtime.spawn(serve(listening, fake.clone(), shutdown));
        Self { socket, fake, stop: Some(stop), serving: Some(serving), runtime, _folder: folder }
    }

    /// Tells it to stop and waits until it has.
    pub(crate) fn stop(&mut self) {
        self.stop.take();
        self.runtime.block_on(self.serving.take().unwrap()).unwrap().unwrap();
    }
}

fn server(id: u32, last: u8) -> Server {
    Server {
        id,
        address: [10, 0, 0, last].into(),
        weight: 1,
        method: Method::Dr,
        local: false,
        eligible: true,
        why_not: None,
        next_hop: Some(NextHop {
            mac: format!("02:00:00:00:00:{last:02x}"),
            interface: "eth1".to_owned(),
            vlan: Vec::new(),
            mtu: 1500,
            gateway: None,
        }),
        active: 0,
        inactive: 0,
        persistent: 0,
        connections: 0,
        packets: 0,
        bytes: 0,
        overloaded: false,
        upper_threshold: 0,
        lower_threshold: 0,
    }
}

fn address(protocol: Protocol, prefix: &str, ports: &str) -> types::Address {
    types::Address { protocol, prefix: prefix.parse().unwrap(), ports: ports.parse().unwrap() }
}

fn services() -> Vec<Service> {
    let base = Service {
        id: 0,
        name: "web".to_owned(),
        addresses: vec![address(Protocol::Tcp, "192.0.2.1/32", "80")],
        scheduler: "wlc".to_owned(),
        flags: Vec::new(),
        persistence: Some(Persistence { timeout_s: 360, mask: Some("255.255.255.0".to_owned()) }),
        one_packet: false,
        stateless: false,
        servers: vec![
            Server {
                weight: 100,
                active: 1234,
                inactive: 567_890,
                persistent: 22,
                connections: 12_345_678,
                packets: 98_765_432,
                bytes: 12_345_678_901,
                ..server(1, 2)
            },
            Server {
                eligible: false,
                why_not: Some("10.0.0.3 does not answer on eth1".to_owned()),
                next_hop: None,
                ..server(2, 3)
            },
            Server {
                weight: 0,
                eligible: false,
                why_not: Some("drained: weight 0".to_owned()),
                active: 7,
                ..server(3, 4)
            },
            Server {
                overloaded: true,
                upper_threshold: 1000,
                lower_threshold: 750,
                active: 1000,
                ..server(4, 12)
            },
        ],
    };
    let many = Service {
        id: 1,
        name: "cache".to_owned(),
        addresses: vec![
            address(Protocol::Tcp, "198.18.0.0/16", "80"),
            address(Protocol::Udp, "198.18.0.0/16", "8000-8999"),
        ],
        scheduler: "sh".to_owned(),
        flags: vec!["sh-fallback".to_owned(), "sh-port".to_owned()],
        persistence: None,
        stateless: true,
        servers: vec![Server {
            method: Method::Gue { port: 6080, checksum: true },
            next_hop: Some(NextHop {
                mac: "02:00:00:00:00:fe".to_owned(),
                interface: "eth1".to_owned(),
                vlan: vec![100, 7],
                mtu: 1400,
                gateway: Some([10, 0, 0, 254].into()),
            }),
            ..server(5, 20)
        }],
        ..base.clone()
    };
    let dns = Service {
        id: 2,
        name: "dns6".to_owned(),
        addresses: vec![address(Protocol::Udp, "2001:db8::1/128", "53")],
        scheduler: "rr".to_owned(),
        persistence: None,
        one_packet: true,
        servers: vec![Server {
            address: "fd00::1".parse().unwrap(),
            local: true,
            next_hop: None,
            ..server(6, 0)
        }],
        ..base.clone()
    };
    vec![base, many, dns]
}

fn flow(client: u8, state: State) -> Flow {
    Flow {
        protocol: FlowProtocol::Tcp,
        client: ([198, 51, 100, client], 49_153).into(),
        vip: Some(([192, 0, 2, 1], 80).into()),
        server: ([10, 0, 0, 2], 80).into(),
        service: "web".into(),
        state,
        expires_in_s: 899,
        template: false,
        assured: false,
    }
}

fn flows() -> Vec<Flow> {
    let tcp = |state| State::of_flow(FlowProtocol::Tcp, state);
    vec![
        flow(9, tcp(1)),
        Flow { expires_in_s: 119, ..flow(10, tcp(4)) },
        Flow {
            client: ([198, 51, 100, 0], 0).into(),
            state: State::of_template(true),
            expires_in_s: 6005,
            template: true,
            assured: true,
            ..flow(0, tcp(0))
        },
        Flow {
            protocol: FlowProtocol::Any,
            client: ([203, 0, 113, 7], 0).into(),
            vip: None,
            server: ([10, 0, 0, 20], 0).into(),
            service: "cache".into(),
            state: State::of_template(false),
            expires_in_s: 60,
            template: true,
            ..flow(0, tcp(0))
        },
        Flow {
            protocol: FlowProtocol::Udp,
            client: "[2001:db8::99]:4660".parse().unwrap(),
            vip: Some("[2001:db8::1]:53".parse().unwrap()),
            server: "[fd00::1]:53".parse().unwrap(),
            service: "dns6".into(),
            state: State::of_flow(FlowProtocol::Udp, 0),
            expires_in_s: 299,
            ..flow(0, tcp(0))
        },
    ]
}

impl Operator for Fake {
    fn status(&self) -> Result<Status, OperatorError> {
        let started = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let interface = |name: &str, ifindex| Interface {
            name: name.to_owned(),
            ifindex,
            mode: Mode::Native,
            why_generic: None,
            mac: format!("02:00:00:00:01:{ifindex:02x}"),
            mtu: 1500,
        };
        Ok(Status {
            version: "1.2.3".to_owned(),
            abi: 1,
            pid: 4711,
            started,
            uptime_s: 266_700,
            config: PathBuf::from("/etc/lb/lb.yaml"),
            config_loaded: started + Duration::from_secs(60),
            interfaces: vec![
                interface("eth0", 2),
                Interface {
                    mode: Mode::Generic,
                    why_generic: Some("the driver has no XDP".to_owned()),
                    ..interface("eth1", 10)
                },
            ],
            flow_tables: FlowTables {
                ipv4: Table::new(1 << 20, 524_288),
                ipv6: Table::new(1 << 17, 0),
                templates: Table::new(1 << 16, 61_000),
                spilled: 12,
                over_admission: 3_210_000,
                without_place: 0,
            },
            sweep: Sweep { last_full_duration_ms: Some(1234), last_full_work_us: Some(11_180), corrected: 1 },
            services: self.services()?,
            counters: self.stats()?.reasons,
        })
    }

    fn services(&self) -> Result<Vec<Service>, OperatorError> {
        match self.mood {
            Mood::Starting => Err(OperatorError::NotReady("starting")),
            Mood::Bug => panic!("made up"),
            _ => Ok(services()),
        }
    }

    fn stats(&self) -> Result<Stats, OperatorError> {
        let traffic = |service: &Service| {
            let name = service.name.clone();
            service.servers.clone().into_iter().map(move |server| ServerCount {
                service: name.clone(),
                server: server.address,
                connections: server.connections,
                packets: server.packets,
                bytes: server.bytes,
            })
        };
        Ok(Stats {
            reasons: reason_counts(|reason| match reason {
                Reason::Transmitted => 98_765_000,
                Reason::Redirected => 432,
                Reason::PassedNoService => 34_567,
                Reason::DroppedServerGone => 1,
                _ => 0,
            }),
            notes: note_counts(|note| if note == Note::EvictedHalfOpen { 5 } else { 0 }),
            servers: services().iter().flat_map(traffic).collect(),
        })
    }

    fn flows(&self) -> Result<Flows, OperatorError> {
        let all = flows().into_iter().map(Ok);
        Ok(match self.mood {
            Mood::BrokenMap => Box::new(all.take(3).chain(std::iter::once_with(|| {
                let source = io::Error::from_raw_os_error(9).into();
                Err(OperatorError::Read { what: "the spill map".to_owned(), source })
            }))),
            Mood::Crowded(count) => Box::new((0..count).map(|i| {
                let client = std::net::Ipv4Addr::from_bits(0x0b00_0000 | i);
                Ok(Flow { client: (client, 1024).into(), ..flow(0, State::of_flow(FlowProtocol::Tcp, 1)) })
            })),
            _ => Box::new(all),
        })
    }

    async fn reload(&self) -> Result<Reload, ReloadError> {
        self.reloads.fetch_add(1, Ordering::Relaxed);
        let file = "/etc/lb/lb.yaml".to_owned();
        let finding = |severity, line, text: &str| Finding {
            severity,
            text: format!("{file}:{line}:5: {text}"),
            line: Some(line),
            column: Some(5),
            path: "services[0].scheduler".to_owned(),
        };
        let warning = finding(Severity::Warning, 7, "warning: services[0].scheduler: hm");
        match self.mood {
            Mood::InvalidFile => {
                let error = finding(Severity::Error, 3, "services[0].scheduler: no scheduler `wwlc`");
                Err(ReloadError::Invalid { findings: vec![error, warning], file })
            }
            Mood::OtherTables => {
                Err(ReloadError::NeedsRestart { what: "flows.ipv4 (1048576 → 2097152)".to_owned() })
            }
            _ => {
                let change = |action, what: &str, details: &[&str]| Change {
                    action,
                    what: what.to_owned(),
                    details: details.iter().map(|&detail| detail.to_owned()).collect(),
                };
                let changes = vec![
                    change(
                        Action::Changed,
                        "server 10.0.0.2 of web",
                        &["weight 1 → 100", "method dr → ipip"],
                    ),
                    change(Action::Removed, "service mail", &[]),
                ];
                Ok(Reload { file, changes, findings: vec![warning] })
            }
        }
    }
}
