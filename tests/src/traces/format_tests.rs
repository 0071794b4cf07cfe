//! The formats read strictly and in full, whatever today's recordings use of them.

use super::compare::masked;
use super::event::Action;
use super::frames::Driver;
use super::outcome::Via;
use super::scenario::{HexMode, Scenario};
use super::trace::Trace;

#[test]
fn an_unknown_field_or_operation_anywhere_is_an_error_that_names_it() {
    let scenario = |events: &str| {
        serde_json::from_str::<Scenario>(&format!(r#"{{"name": "x", "services": [], "events": [{events}]}}"#))
    };
    for (event, named) in [
        (r#"{"op": "leap"}"#, "leap"),
        (r#"{"op": "syn", "src": "192.0.2.1:1"}"#, "dst"),
        (r#"{"op": "leap", "src": "192.0.2.1:1", "dst": "192.0.2.2:2"}"#, "leap"),
        (r#"{"op": "syn", "src": "192.0.2.1:1", "dst": "192.0.2.2:2", "color": 1}"#, "color"),
        (r#"{"op": "syn", "src": "192.0.2.1:1", "dst": "192.0.2.2:2", "ttl": 300}"#, "300"),
        (r#"{"op": "icmp_err", "src": "192.0.2.1", "dst": "192.0.2.2", "inner": {"oop": 1}}"#, "oop"),
        (r#"{"op": "raw", "frame": "00", "src": "192.0.2.1:1"}"#, "src"),
        (r#"{"op": "raw", "frame": "0"}"#, "odd"),
        (r#"{"op": "sleep", "ms": 1, "s": 2}"#, "`s`"),
        (r#"{"op": "snap", "text": true, "all": true}"#, "all"),
        (r#"{"op": "edit", "rip": "10.0.0.1", "wieght": 2}"#, "wieght"),
        (r#"{"op": "edit", "rip": "10.0.0.1", "method": "teleport"}"#, "teleport"),
        (r#"{"op": "editsvc", "scheduler": "rr"}"#, "scheduler"),
        (r#"{"op": "addsvc", "service": {"vip": "192.0.2.1", "prot": "tcp"}}"#, "prot"),
        (
            r#"{"op": "addsvc", "service": {"fwmark": 1, "match": [{"dst": "192.0.2.1", "sport": 1}]}}"#,
            "sport",
        ),
        (
            r#"{"op": "bench", "packet": {"op": "syn", "src": "192.0.2.1", "dst": "192.0.2.2", "x": 1}}"#,
            "`x`",
        ),
    ] {
        let error = scenario(event).expect_err(event).to_string();
        assert!(error.contains(named), "{event}: {error}");
    }
    let error = serde_json::from_str::<Scenario>(r#"{"name": "x", "services": [], "events": [], "arp": 1}"#);
    assert!(error.expect_err("arp").to_string().contains("arp"));

    let trace = |line: &str| {
        Trace::parse(&format!("{{\"begin\":\"x\",\"order\":[]}}\n{line}\n{{\"end\":\"x\",\"t\":1.0}}\n"))
    };
    for (line, named) in [
        (r#"{"i":0,"op":"syn","t":0.1}"#, "`to`"),
        (r#"{"i":0,"op":"syn","t":0.1,"to":"router"}"#, "`via`"),
        (r#"{"i":0,"op":"syn","t":0.1,"to":null,"tos":1}"#, "tos"),
        (r#"{"i":0,"op":"syn","t":0.1,"to":"router","via":"pigeon"}"#, "pigeon"),
        (r#"{"i":0,"op":"syn","t":0.1,"to":"nobody","via":"dr"}"#, "nobody"),
        (r#"{"i":0,"op":"sleep","t":0.1,"ms":1,"slept":1}"#, "slept"),
        (r#"{"i":1,"op":"sleep","t":0.1,"ms":1}"#, "event 1 where 0"),
        (r#"{"i":0,"op":"snap","t":0.1,"services":[],"conns":[],"stats":[],"text":"","more":1}"#, "more"),
        (r#"{"i":0,"op":"syn","t":0.1,"to":null,"conns":[["TCP","a:1"]]}"#, "six"),
        (r#"{"i":0,"op":"edit","t":0.1,"cmd":"-e","rc":0,"out":""}"#, "out"),
    ] {
        let error = trace(line).expect_err(line).to_string();
        assert!(error.contains(named), "{line}: {error}");
    }
}

#[test]
fn all_of_the_format_is_read_not_only_what_recordings_use() {
    let scenario: Scenario = serde_json::from_str(
        r#"{"name": "all", "ipv6": true, "mtu": 1400, "drv_mtu": 1500, "hex": "none", "conns": "each", "track": false,
            "sysctl": {"net.ipv4.vs.sloppy_tcp": 1, "net.ipv4.vs.am_droprate": "10"},
            "setup": ["ip -6 route replace fd00::1:0/112 dev eth0 mtu 1300"], "neighbours": ["10.0.9.9"],
            "services": [
              {"id": "s", "vip": "192.0.2.1", "port": 2905, "proto": "sctp", "sched": "lc", "local": false,
               "args": ["--pe", "sip"], "ops": true, "persistent": 9, "netmask": "255.255.0.0",
               "servers": [{"rip": "10.0.1.1", "port": 1, "weight": 2, "method": "nat", "uthresh": 5, "lthresh": 1,
                            "args": ["--tun-csum"], "tun_port": 7}]},
              {"fwmark": 9, "family": "ipv6", "match": [{"dst": "2001:db8::/32", "proto": "udp"}, {"dst": "::1"}],
               "servers": [{"rip": "fd00::1:1", "method": "route"}]}],
            "events": [
              {"op": "tcp", "src": "192.0.2.7:1", "dst": "192.0.2.1:80", "flags": "FPU", "seq": 5, "ack": 6, "wait": 50,
               "opts": "01010101", "repeat": 2, "hex": true, "conns": true, "from": "10.0.1.1"},
              {"op": "icmp_echo", "src": "192.0.2.7", "dst": "192.0.2.1", "ident": 1, "iseq": 2, "frag": [8, 8, 0],
               "frag_order": [2, 0]},
              {"op": "icmp_err", "src": "[2001:db8::7]", "dst": "2001:db8::1", "inner_hex": "6000"},
              {"op": "icmp_err", "src": "192.0.2.7", "dst": "192.0.2.1", "inner_last": true},
              {"op": "proto", "src": "192.0.2.7", "dst": "192.0.2.1"},
              {"op": "raw", "frame": "ffffffffffff0200000000fe0806"},
              {"op": "until", "ms": 70000}, {"op": "sleep"}, {"op": "sh", "cmd": "true", "ns": "cli"},
              {"op": "bench", "label": "l", "packet": {"op": "udp", "src": "192.0.2.7:1", "dst": "192.0.2.1:2"},
               "count": 5, "rounds": 1, "xdp": "tx", "peer_xdp": true, "test_run": 3, "dmac": "020000000099",
               "vary": true}]}"#,
    )
    .unwrap();
    assert_eq!(scenario.hex, HexMode::None);
    assert_eq!(scenario.sysctl["net.ipv4.vs.sloppy_tcp"].0, "1");
    assert_eq!(scenario.route_mtus().unwrap()[0].mtu, 1300);
    let keys = scenario.services.iter().map(|service| service.key().unwrap().to_string());
    assert_eq!(keys.collect::<Vec<_>>(), ["SCTP 192.0.2.1:2905", "FWM 9"]);
    let mut driver = Driver::new();
    let frames: Vec<usize> = scenario
        .events
        .iter()
        .filter_map(|event| match &event.action {
            Action::Packet(packet) => Some(driver.frames(packet).unwrap().len()),
            _ => None,
        })
        .collect();
    assert_eq!(frames, [2, 2, 1, 1, 1, 1]);

    let line = concat!(
        "{\"begin\":\"all\",\"order\":[]}\n",
        r#"{"i":0,"op":"bench","t":0.1,"ns_per_packet":1.5,"rounds":[1.5],"returned":5,"ns_per_insn":1,"label":"l","test_run":{}}"#,
        "\n",
        r#"{"i":1,"op":"until","t":0.1,"overrun_ms":2.5,"late":["router","udp 192.0.2.1:1>192.0.2.7:1","00"]}"#,
        "\n",
        r#"{"i":2,"op":"syn","t":0.1,"to":"send-failed","via":""}"#,
        "\n",
        r#"{"i":3,"op":"addsvc","t":0.1,"errors":[{"cmd":"-A","rc":2,"stderr":"no"}]}"#,
        "\n",
        r#"{"i":4,"op":"syn","t":0.1,"to":"020304050607","via":"ethertype 88cc","conns":[["UDP","192.0.2.1:1","192.0.2.2:2","10.0.1.1:3","UDP","9","sip","x"]]}"#,
        "\n{\"end\":\"all\",\"t\":1}\n",
    );
    let trace = Trace::parse(line).unwrap();
    assert_eq!(trace.events[4].conns.as_ref().unwrap()[0].more, ["sip", "x"]);
}

#[test]
fn every_kind_of_outcome_is_read_and_written_alike() {
    for via in [
        "dr",
        "ipip",
        "gre",
        "gue",
        "frag",
        "",
        "nat 10.0.1.1:1080",
        "nat fd00::1:1:1080",
        "icmp 3/4 to 10.0.1.1",
        "icmp 2/0 to fd00::1:1",
        "icmp 3/3 from 192.0.2.1",
        "icmp6 1/4 from 2001:db8::1",
        "tcp RA 192.0.2.1:80>203.0.113.1:20001",
        "tcp  192.0.2.1:80>203.0.113.1:20001",
        "tcp R 2001:db8::1:80>2001:db8::2:20001",
        "udp 192.0.2.1:80>203.0.113.1:20001",
        "ip proto 132",
        "ethertype 88cc",
    ] {
        let parsed: Via = via.parse().unwrap();
        assert_eq!(parsed.to_string(), via, "{parsed:?}");
    }
}

#[test]
fn masking_hides_only_what_a_kernel_draws_at_random() {
    let outer = crate::packet::eth().ipv4("10.0.0.1", "10.0.1.1");
    let inner = crate::packet::eth().ipv4("203.0.113.1", "192.0.2.1").udp(5, 6).ip_bytes();
    let gue = |id, sport, ttl| outer.clone().id(id).ttl(ttl).gue(sport, 6080, &inner).build();
    assert_ne!(gue(1, 40000, 63), gue(2, 50000, 63));
    assert_eq!(masked(&gue(1, 40000, 63), &Via::Gue), masked(&gue(2, 50000, 63), &Via::Gue));
    assert_ne!(masked(&gue(1, 40000, 63), &Via::Gue), masked(&gue(1, 40000, 62), &Via::Gue));
    assert_ne!(masked(&gue(1, 40000, 63), &Via::Ipip), masked(&gue(2, 50000, 63), &Via::Ipip), "ports count");
    let dr = |id| crate::packet::eth().ipv4("203.0.113.1", "192.0.2.1").id(id).udp(5, 6).build();
    assert_ne!(masked(&dr(1), &Via::Dr), masked(&dr(2), &Via::Dr), "the client's identification counts");
    let v6 = |label, ttl| {
        crate::packet::eth().ipv6("fd00::1", "fd00::1:1").flow_label(label).ttl(ttl).ipip(&inner).build()
    };
    assert_eq!(masked(&v6(1, 63), &Via::Ipip), masked(&v6(0xfffff, 63), &Via::Ipip));
    assert_ne!(masked(&v6(1, 63), &Via::Ipip), masked(&v6(1, 62), &Via::Ipip));
    assert_eq!(masked(&[0; 20], &Via::Gue), [0; 20], "a stump of a frame is left alone");
}
