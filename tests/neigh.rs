//! Next hops followed in a real kernel: two network namespaces, the director's and the real server's, with a veth pair
//! between them. The interface counts as having the XDP program because the test says so.

use std::{
    collections::BTreeSet,
    fs::File,
    net::IpAddr,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use lb_userspace::{
    neigh::{NextHop, NextHopTable, Timing, Unresolved, WantedServer, task},
    netlink::{Added, Address, Event, LinkKind, Mac, NeighState, Netlink, Removed, Route, Subscription},
};
use nix::sched::{CloneFlags, setns};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

const DIRECTOR_MAC: Mac = [2, 0, 0, 0, 0, 1];
const SERVER_MAC: Mac = [2, 0, 0, 0, 0, 0x11];
/// How long anything may take that is going to happen.
const SOON: Duration = Duration::from_secs(15);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Runs a command and panics with its errors if it fails.
fn run(command: &str) -> String {
    let words: Vec<&str> = command.split_whitespace().collect();
    let output = Command::new(words[0]).args(&words[1..]).output().expect(command);
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// `v0` in the director's namespace, 10.77.0.1 and fd77::1; `v1` in the real server's, 10.77.0.11 and fd77::11.
struct Lab {
    director: String,
    server: String,
}

impl Lab {
    fn new() -> Self {
        static LABS: AtomicU32 = AtomicU32::new(0);
        let name = format!("lbneigh{}x{}", std::process::id(), LABS.fetch_add(1, Ordering::Relaxed));
        let lab = Self { director: format!("{name}d"), server: format!("{name}r") };
        let (d, r) = (&lab.director, &lab.server);
        run(&format!("ip netns add {d}"));
        run(&format!("ip netns add {r}"));
        run(&format!("ip -n {d} link add v0 address 02:00:00:00:00:01 type veth peer name v1 netns {r}"));
        for (namespace, end) in [(d, "v0"), (r, "v1")] {
            for setting in [
                format!("ipv6.conf.{end}.accept_dad=0"),
                // A third of a second to find out that nobody answers, instead of three.
                format!("ipv4.neigh.{end}.retrans_time_ms=100"),
                format!("ipv6.neigh.{end}.retrans_time_ms=100"),
            ] {
                run(&format!("ip netns exec {namespace} sysctl -q -w net.{setting}"));
            }
        }
        lab.server("link set v1 address 02:00:00:00:00:11");
        lab.director("link set lo up");
        lab.director("link set v0 up");
        lab.server("link set v1 up");
        lab.director("address add 10.77.0.1/24 dev v0");
        lab.director("address add fd77::1/64 dev v0 nodad");
        lab.server("address add 10.77.0.11/24 dev v1");
        lab.server("address add fd77::11/64 dev v1 nodad");
        lab
    }

    fn director(&self, command: &str) -> String {
        run(&format!("ip -n {} {command}", self.director))
    }

    fn server(&self, command: &str) -> String {
        run(&format!("ip -n {} {command}", self.server))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in [&self.director, &self.server] {
            let _ = Command::new("ip").args(["netns", "delete", namespace]).status();
        }
    }
}

/// Runs a test on a thread of its own in the director's namespace.
fn in_lab(test: impl AsyncFnOnce(&Lab) + Send + 'static) {
    let director = thread::spawn(move || {
        let lab = Lab::new();
        let namespace = File::open(format!("/run/netns/{}", lab.director)).unwrap();
        setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test(&lab));
    });
    if let Err(panic) = director.join() {
        std::panic::resume_unwind(panic);
    }
}

/// The task under test, and what it says.
struct Director {
    wanted: watch::Sender<Vec<WantedServer>>,
    attached: watch::Sender<BTreeSet<u32>>,
    table: watch::Receiver<NextHopTable>,
    netlink: Netlink,
    v0: u32,
}

impl Director {
    async fn start(timing: Timing, wanted: Vec<WantedServer>) -> Self {
        let netlink = Netlink::open().unwrap();
        let v0 = netlink.link_named("v0").await.unwrap().unwrap().ifindex;
        let (wanted, wanted_seen) = watch::channel(wanted);
        let (attached, attached_seen) = watch::channel(BTreeSet::from([v0]));
        let (sender, table) = watch::channel(NextHopTable::new());
        tokio::spawn(async move { task::run(timing, wanted_seen, attached_seen, sender).await.unwrap() });
        Self { wanted, attached, table, netlink, v0 }
    }

    async fn of(addresses: &[&str]) -> Self {
        Self::start(brisk(), addresses.iter().map(|a| WantedServer::new(ip(a))).collect()).await
    }

    /// Waits until what is known of a server is as said.
    async fn until(
        &mut self,
        address: &str,
        said: impl Fn(&Result<NextHop, Unresolved>) -> bool,
    ) -> Result<NextHop, Unresolved> {
        let address = ip(address);
        let wait = self.table.wait_for(|table| table.get(&address).is_some_and(&said));
        if let Ok(table) = timeout(SOON, wait).await {
            return table.unwrap()[&address].clone();
        }
        panic!("still {:?}", self.table.borrow().get(&address));
    }

    async fn found(&mut self, address: &str) -> NextHop {
        self.until(address, Result::is_ok).await.unwrap()
    }

    async fn explained(&mut self, address: &str, why: &str) {
        self.until(address, |known| matches!(known, Err(reason) if reason.to_string() == why))
            .await
            .unwrap_err();
    }
}

/// Defaults, with a neighbour confirmed every second rather than every thirty.
fn brisk() -> Timing {
    Timing { confirm_every: Duration::from_secs(1), ..Timing::default() }
}

fn hop(v0: u32, source: &str) -> NextHop {
    NextHop {
        dmac: SERVER_MAC,
        smac: DIRECTOR_MAC,
        ifindex: v0,
        vlan: vec![],
        mtu: 1500,
        source: ip(source),
        gateway: None,
        local: false,
    }
}

#[test]
fn neighbours_are_resolved_and_a_new_mac_is_followed() {
    in_lab(async |lab| {
        let mut director = Director::of(&["10.77.0.11", "fd77::11"]).await;
        let v0 = director.v0;
        for (server, source) in [("10.77.0.11", "10.77.0.1"), ("fd77::11", "fd77::1")] {
            assert_eq!(director.found(server).await, hop(v0, source));
        }

        // The server gets another card, and does not say so. Its addresses stay.
        lab.server("link set v1 address 02:00:00:00:00:22");
        let moved =
            |known: &Result<NextHop, _>| matches!(known, Ok(hop) if hop.dmac == [2, 0, 0, 0, 0, 0x22]);
        for server in ["10.77.0.11", "fd77::11"] {
            director.until(server, moved).await.unwrap();
        }

        // The director gets another, too.
        lab.director("link set v0 address 02:00:00:00:00:33");
        let moved =
            |known: &Result<NextHop, _>| matches!(known, Ok(hop) if hop.smac == [2, 0, 0, 0, 0, 0x33]);
        for server in ["10.77.0.11", "fd77::11"] {
            director.until(server, moved).await.unwrap();
        }
    });
}

#[test]
fn a_silent_server_is_explained_and_used_once_it_answers() {
    in_lab(async |lab| {
        let mut director = Director::of(&["10.77.0.99", "fd77::99"]).await;
        let v4 =
            director.until("10.77.0.99", |known| matches!(known, Err(Unresolved::NoAnswer { .. }))).await;
        director.explained("10.77.0.99", "no ARP answer from 10.77.0.99 on v0").await;
        director.explained("fd77::99", "no NDP answer from fd77::99 on v0").await;
        let why = v4.unwrap_err().describe(Instant::now() + Duration::from_secs(3));
        assert_eq!(why, "no ARP answer from 10.77.0.99 on v0 (last asked 3 s ago)");

        // The kernel has given up for good by now; only we ask again.
        sleep(Duration::from_secs(1)).await;
        let state = director.netlink.neighbour(director.v0, ip("10.77.0.99")).await.unwrap().unwrap().state;
        assert_eq!(state, NeighState::Failed);
        lab.server("address add 10.77.0.99/24 dev v1");
        lab.server("address add fd77::99/64 dev v1 nodad");
        for server in ["10.77.0.99", "fd77::99"] {
            assert_eq!(director.found(server).await.dmac, SERVER_MAC);
        }

        lab.server("address del 10.77.0.99/24 dev v1");
        director.explained("10.77.0.99", "no ARP answer from 10.77.0.99 on v0").await;
    });
}

#[test]
fn neighbours_the_kernel_has_no_use_for_are_kept_confirmed() {
    in_lab(async |lab| {
        for family in ["ipv4", "ipv6"] {
            // Stale after half a second, and not probed by the kernel of its own accord for having been asked once.
            for setting in ["base_reachable_time_ms=500", "delay_first_probe_time=0"] {
                let setting = format!("net.{family}.neigh.v0.{setting}");
                run(&format!("ip netns exec {} sysctl -q -w {setting}", lab.director));
            }
        }
        // Left to themselves: only the kernel's word that they are stale has them confirmed.
        let wanted = ["10.77.0.11", "fd77::11"].map(|a| WantedServer::new(ip(a))).to_vec();
        let mut director = Director::start(Timing::default(), wanted).await;
        let mut events = Subscription::open().unwrap();
        for server in ["10.77.0.11", "fd77::11"] {
            director.found(server).await;
        }
        director.table.mark_unchanged();
        let (mut stale, mut confirmed) = (0, 0);
        let _ = timeout(Duration::from_secs(6), async {
            while let Some(event) = events.next().await {
                if let Event::Neighbour(neighbour) = event
                    && ["10.77.0.11", "fd77::11"].map(ip).contains(&neighbour.address)
                {
                    stale += u32::from(neighbour.state == NeighState::Stale);
                    confirmed += u32::from(neighbour.state == NeighState::Reachable);
                    assert_ne!(neighbour.state, NeighState::Failed);
                }
            }
        })
        .await;
        assert!(stale >= 4 && confirmed >= 4, "stale {stale} times, confirmed {confirmed} times");
        assert!(!director.table.has_changed().unwrap(), "nobody was told of what did not change");

        // Even an entry that was thrown out costs no next hop.
        lab.director("neighbour flush dev v0");
        let back = timeout(SOON, async {
            while director
                .netlink
                .neighbour(director.v0, ip("10.77.0.11"))
                .await
                .unwrap()
                .is_none_or(|n| n.mac.is_none())
            {
                sleep(Duration::from_millis(20)).await;
            }
        });
        back.await.expect("the entry comes back");
        assert!(!director.table.has_changed().unwrap(), "the MAC stayed in use");
    });
}

#[test]
fn interfaces_that_are_down_are_reported() {
    in_lab(async |lab| {
        let mut director = Director::of(&["10.77.0.11", "fd77::11"]).await;
        for server in ["10.77.0.11", "fd77::11"] {
            director.found(server).await;
        }

        lab.server("link set v1 down");
        for server in ["10.77.0.11", "fd77::11"] {
            director.explained(server, "interface v0 has no carrier").await;
        }
        lab.server("link set v1 up");
        lab.server("address replace fd77::11/64 dev v1 nodad");
        for server in ["10.77.0.11", "fd77::11"] {
            director.found(server).await;
        }

        lab.director("link set v0 down");
        for server in ["10.77.0.11", "fd77::11"] {
            director.explained(server, "interface v0 is down").await;
        }
        sleep(Duration::from_millis(500)).await;
        director.explained("10.77.0.11", "interface v0 is down").await;
        lab.director("link set v0 up");
        lab.director("address replace fd77::1/64 dev v0 nodad");
        for server in ["10.77.0.11", "fd77::11"] {
            director.found(server).await;
        }

        lab.director("link delete v0");
        director.until("10.77.0.11", Result::is_err).await.unwrap_err();
        director.explained("10.77.0.11", "no route to 10.77.0.11").await;
    });
}

#[test]
fn routes_are_followed() {
    in_lab(async |lab| {
        lab.director("route add 10.88.0.0/16 via 10.77.0.11 mtu 1400");
        lab.director("route add 10.89.0.0/16 via inet6 fd77::11");
        lab.director("route add fd88::/16 via fd77::11 mtu 1380");
        let servers = ["10.88.0.1", "10.89.0.1", "fd88::1", "10.90.0.1", "fd90::1"];
        let mut director = Director::of(&servers).await;
        let v0 = director.v0;
        let gateway = |address| Some(ip(address));
        let v4 = hop(v0, "10.77.0.1");
        let v6 = hop(v0, "fd77::1");
        let expected = [
            ("10.88.0.1", NextHop { gateway: gateway("10.77.0.11"), mtu: 1400, ..v4.clone() }),
            ("10.89.0.1", NextHop { gateway: gateway("fd77::11"), ..v4.clone() }),
            ("fd88::1", NextHop { gateway: gateway("fd77::11"), mtu: 1380, ..v6 }),
        ];
        for (server, expected) in expected {
            assert_eq!(director.found(server).await, expected);
        }
        director.explained("10.90.0.1", "no route to 10.90.0.1").await;
        director.explained("fd90::1", "no route to fd90::1").await;

        for (family, server) in [("-4", "10.90.0.1"), ("-6", "fd90::1")] {
            for kind in ["blackhole", "unreachable", "prohibit"] {
                lab.director(&format!("{family} route replace {kind} {server}"));
                director.explained(server, &format!("{kind} route to {server}")).await;
                lab.director(&format!("{family} route del {kind} {server}"));
                director.explained(server, &format!("no route to {server}")).await;
            }
        }

        lab.server("address add 10.77.0.12/24 dev v1");
        lab.director("route replace 10.88.0.0/16 via 10.77.0.12");
        let now = NextHop { gateway: gateway("10.77.0.12"), ..v4.clone() };
        assert_eq!(director.until("10.88.0.1", |known| known.as_ref() == Ok(&now)).await, Ok(now.clone()));
        lab.director("address add 10.77.0.2/24 dev v0");
        lab.director("route replace 10.88.0.0/16 via 10.77.0.12 src 10.77.0.2");
        let now = NextHop { source: ip("10.77.0.2"), ..now };
        assert_eq!(director.until("10.88.0.1", |known| known.as_ref() == Ok(&now)).await, Ok(now.clone()));
        lab.director("route replace 10.88.0.0/16 via 10.77.0.98");
        director
            .explained("10.88.0.1", "no ARP answer from 10.77.0.98, the gateway to 10.88.0.1, on v0")
            .await;
        lab.director("rule add to 10.88.0.0/16 blackhole");
        director.explained("10.88.0.1", "blackhole route to 10.88.0.1").await;
    });
}

#[test]
fn the_director_s_own_addresses_are_local() {
    in_lab(async |lab| {
        let mut director = Director::of(&["10.77.0.1", "fd77::1", "10.77.0.5"]).await;
        for server in ["10.77.0.1", "fd77::1"] {
            let hop = director.found(server).await;
            assert_eq!((hop.local, hop.dmac, hop.source), (true, [0; 6], ip(server)));
        }
        director.explained("10.77.0.5", "no ARP answer from 10.77.0.5 on v0").await;
        lab.director("address add 10.77.0.5/24 dev v0");
        assert!(director.found("10.77.0.5").await.local);
        lab.director("address del 10.77.0.5/24 dev v0");
        director.explained("10.77.0.5", "no ARP answer from 10.77.0.5 on v0").await;
    });
}

#[test]
fn wishes_and_programs_change() {
    in_lab(async |lab| {
        let mut director = Director::of(&["10.77.0.11"]).await;
        director.found("10.77.0.11").await;

        let none = BTreeSet::new();
        let v0 = director.attached.send_replace(none);
        director.explained("10.77.0.11", "route goes out of v0, which has no XDP program").await;
        director.attached.send_replace(v0);
        director.found("10.77.0.11").await;

        // A VLAN the kernel has no device for, with the MAC configured: nothing has to be asked.
        let tagged = WantedServer {
            mac: Some([2, 0, 0, 0, 0, 0x44]),
            interface: Some("v0".into()),
            vlan: Some(100),
            ..WantedServer::new(ip("172.30.0.1"))
        };
        director.wanted.send_replace(vec![tagged.clone()]);
        let hop = director.found("172.30.0.1").await;
        let tags: Vec<u16> = hop.vlan.iter().map(|tag| tag.id).collect();
        assert_eq!((hop.dmac, hop.smac, tags), ([2, 0, 0, 0, 0, 0x44], DIRECTOR_MAC, vec![100]));
        assert_eq!((hop.source, hop.gateway), (ip("10.77.0.1"), None));
        assert!(!director.table.borrow().contains_key(&ip("10.77.0.11")), "no longer wanted");

        director.wanted.send_replace(vec![WantedServer { mac: None, ..tagged }]);
        let why = "no VLAN device for VLAN 100 on v0, so its MAC cannot be asked for";
        director.explained("172.30.0.1", why).await;

        let elsewhere = WantedServer { interface: Some("v7".into()), ..WantedServer::new(ip("10.77.0.11")) };
        director.wanted.send_replace(vec![elsewhere]);
        director.explained("10.77.0.11", "there is no interface v7").await;
        lab.director("link add v7 link v0 type macvlan");
        director.explained("10.77.0.11", "interface v7 is down").await;
    });
}

#[test]
fn lost_notifications_are_made_good() {
    in_lab(async |lab| {
        let mut director =
            Director::start(Timing::default(), vec![WantedServer::new(ip("10.77.0.11"))]).await;
        let mut witness = Subscription::open().unwrap();
        director.found("10.77.0.11").await;

        // Nobody listens meanwhile: this blocks the only thread there is. The news is in the end, among the lost.
        let batch = std::env::temp_dir().join(format!("{}.batch", lab.director));
        let routes: String =
            (0..30000).map(|n| format!("route add 10.200.{}.{}/32 dev v0\n", n / 250, n % 250)).collect();
        std::fs::write(&batch, routes).unwrap();
        lab.director(&format!("-batch {}", batch.display()));
        std::fs::remove_file(&batch).unwrap();
        lab.director("neighbour replace 10.77.0.11 lladdr 02:00:00:00:00:55 nud permanent dev v0");

        director
            .until("10.77.0.11", |known| matches!(known, Ok(hop) if hop.dmac == [2, 0, 0, 0, 0, 0x55]))
            .await
            .unwrap();
        let mut told = false;
        let _ = timeout(Duration::from_millis(200), async {
            while let Some(event) = witness.next().await {
                told |= event == Event::Overrun;
                if let Event::Neighbour(neighbour) = event {
                    assert_ne!(
                        neighbour.state,
                        NeighState::Permanent,
                        "the news was not lost: no test of anything"
                    );
                }
            }
        })
        .await;
        assert!(told, "notifications were lost");
    });
}

#[test]
fn the_task_ends_with_its_channels() {
    in_lab(async |_| {
        let (wanted, wanted_seen) = watch::channel(vec![]);
        let (_attached, attached_seen) = watch::channel(BTreeSet::new());
        let (sender, _table) = watch::channel(NextHopTable::new());
        let running = tokio::spawn(task::run(Timing::default(), wanted_seen, attached_seen, sender));
        sleep(Duration::from_millis(50)).await;
        assert!(!running.is_finished());
        drop(wanted);
        timeout(SOON, running).await.expect("it ends").unwrap().unwrap();
    });
}

#[test]
fn addresses_are_managed() {
    in_lab(async |lab| {
        let netlink = Netlink::open().unwrap();
        let lo = netlink.link_named("lo").await.unwrap().unwrap();
        assert_eq!((lo.kind.clone(), lo.mac), (LinkKind::Loopback, None));
        assert_eq!(netlink.link(lo.ifindex).await.unwrap().unwrap(), lo);
        assert_eq!(netlink.link_named("nothing").await.unwrap(), None);
        assert_eq!(netlink.link(9999).await.unwrap(), None);
        let v0 = netlink.link_named("v0").await.unwrap().unwrap();
        assert!(netlink.links().await.unwrap().contains(&v0));
        assert_eq!(v0.parent, None, "the other end of a veth in another namespace is no parent");

        for (vip, prefix_len, protocol) in [
            ("192.0.2.80", 32, 0),
            ("192.0.2.81", 32, 76),
            ("2001:db8::80", 128, 0),
            ("2001:db8::81", 128, 76),
        ] {
            let vip = Address { ifindex: v0.ifindex, address: ip(vip), prefix_len, protocol };
            assert_eq!(netlink.add_address(&vip).await.unwrap(), Added::Added);
            assert_eq!(netlink.add_address(&vip).await.unwrap(), Added::AlreadyThere);
            assert!(netlink.addresses().await.unwrap().contains(&vip));
            if vip.address.is_ipv6() {
                let shown = lab.director("-6 address show dev v0");
                assert!(shown.contains(&format!("{}/128 scope global nodad", vip.address)), "{shown}");
            }
            // IPv6 addresses get their route a moment later, from a work queue.
            let routed = timeout(SOON, async {
                while !matches!(netlink.route(vip.address, None).await.unwrap(), Route::Local(_)) {
                    sleep(Duration::from_millis(5)).await;
                }
            });
            routed.await.expect("the address is local");
            assert_eq!(netlink.remove_address(&vip).await.unwrap(), Removed::Removed);
            assert_eq!(netlink.remove_address(&vip).await.unwrap(), Removed::NotThere);
            assert!(!netlink.addresses().await.unwrap().contains(&vip));
            let error = netlink.add_address(&Address { ifindex: 9999, ..vip }).await.unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("cannot add address {}/{prefix_len} to interface 9999", vip.address)
            );
        }
    });
}
