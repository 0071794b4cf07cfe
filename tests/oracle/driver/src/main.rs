//! Plays scenarios against the kernel's IPVS and writes one JSON line per event.
//! Usage (in the VM): ipvs-oracle LIST OUTPUT
//!   LIST    file with one scenario path per line
//!   OUTPUT  file or block device that gets the traces
mod bench;
mod pkt;
mod stream;
use pkt::{decode, hex, parse_ep, server_mac, Builder, DIR_MAC, RTR_MAC};
use serde_json::{json, Map, Value};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::CString;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Instant;

fn now_ns() -> u64 {
    let mut ts: libc::timespec = unsafe { std::mem::zeroed() };
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut ts) };
    ts.tv_sec as u64 * 1_000_000_000 + ts.tv_nsec as u64
}

pub fn setns(name: &str) {
    let p = CString::new(format!("/var/run/netns/{name}")).unwrap();
    unsafe {
        let fd = libc::open(p.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        assert!(fd >= 0, "netns {name}");
        assert_eq!(libc::setns(fd, libc::CLONE_NEWNET), 0);
        libc::close(fd);
    }
}

pub struct Ran {
    pub rc: i32,
    pub out: String,
    pub err: String,
}

/// Runs a program; `ns` is the namespace it runs in (None: where we are).
pub fn exec(argv: &[&str], ns: Option<&str>) -> Ran {
    let mut c = Command::new(argv[0]);
    c.args(&argv[1..]);
    if let Some(n) = ns {
        let n = n.to_string();
        unsafe {
            c.pre_exec(move || {
                setns(&n);
                Ok(())
            })
        };
    }
    match c.output() {
        Ok(o) => Ran {
            rc: o.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&o.stdout).into_owned(),
            err: String::from_utf8_lossy(&o.stderr).into_owned(),
        },
        Err(e) => Ran { rc: -1, out: String::new(), err: e.to_string() },
    }
}

pub fn sh(cmd: &str, ns: Option<&str>) -> Ran {
    // busybox sh prefers its own ip applet to the one in PATH
    let c = format!("ip() {{ /sbin/ip \"$@\"; }}; tc() {{ /sbin/tc \"$@\"; }}; {cmd}");
    exec(&["/bin/sh", "-c", &c], ns)
}

fn must(cmd: &str, ns: Option<&str>) {
    let r = sh(cmd, ns);
    if r.rc != 0 {
        println!("setup failed ({}): {} {}", cmd, r.out, r.err);
    }
}

fn st<'a>(e: &'a Value, k: &str) -> Option<&'a str> {
    e.get(k).and_then(Value::as_str)
}
fn num(e: &Value, k: &str) -> Option<u64> {
    e.get(k).and_then(Value::as_u64)
}
fn arr<'a>(e: &'a Value, k: &str) -> &'a [Value] {
    e.get(k).and_then(Value::as_array).map(|v| v.as_slice()).unwrap_or(&[])
}

pub struct Sock {
    pub fd: i32,
}

impl Sock {
    /// A raw packet socket on an interface of the current namespace.
    pub fn open(dev: &str) -> Sock {
        Sock::open_proto(dev, libc::ETH_P_ALL as u16)
    }
    pub fn open_proto(dev: &str, proto: u16) -> Sock {
        unsafe {
            let proto = proto.to_be();
            let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, i32::from(proto));
            assert!(fd >= 0);
            let n = CString::new(dev).unwrap();
            let mut sa: libc::sockaddr_ll = std::mem::zeroed();
            sa.sll_family = libc::AF_PACKET as u16;
            sa.sll_protocol = proto;
            sa.sll_ifindex = libc::if_nametoindex(n.as_ptr()) as i32;
            assert!(sa.sll_ifindex > 0, "no device {dev}");
            let rc = libc::bind(fd, &sa as *const _ as *const libc::sockaddr, std::mem::size_of_val(&sa) as u32);
            assert_eq!(rc, 0);
            let one: i32 = 1;
            libc::setsockopt(fd, libc::SOL_PACKET, 23 /* PACKET_IGNORE_OUTGOING */, &one as *const _ as *const libc::c_void, 4);
            let big: i32 = 8 << 20;
            libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &big as *const _ as *const libc::c_void, 4);
            Sock { fd }
        }
    }
    pub fn send(&self, f: &[u8]) -> bool {
        unsafe { libc::send(self.fd, f.as_ptr() as *const libc::c_void, f.len(), 0) == f.len() as isize }
    }
    pub fn recv(&self, wait_ms: i32) -> Option<Vec<u8>> {
        unsafe {
            let mut buf: Vec<u8> = Vec::with_capacity(70000);
            if wait_ms > 0 {
                let mut p = libc::pollfd { fd: self.fd, events: libc::POLLIN, revents: 0 };
                libc::poll(&mut p, 1, wait_ms);
            }
            let n = libc::recv(self.fd, buf.as_mut_ptr() as *mut libc::c_void, buf.capacity(), libc::MSG_DONTWAIT);
            if n < 0 {
                return None;
            }
            buf.set_len(n as usize);
            Some(buf)
        }
    }
}
impl Drop for Sock {
    fn drop(&mut self) {
        unsafe { libc::close(self.fd) };
    }
}

/// Turns an offload of a device off, so that frames carry full checksums.
fn ethtool_off(dev: &str, cmds: &[u32]) {
    #[repr(C)]
    struct EthtoolValue {
        cmd: u32,
        data: u32,
    }
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
        for &cmd in cmds {
            let mut v = EthtoolValue { cmd, data: 0 };
            let mut ifr: libc::ifreq = std::mem::zeroed();
            for (i, b) in dev.bytes().enumerate() {
                ifr.ifr_name[i] = b as libc::c_char;
            }
            ifr.ifr_ifru.ifru_data = &mut v as *mut _ as *mut libc::c_char;
            libc::ioctl(fd, 0x8946 /* SIOCETHTOOL */, &ifr);
        }
        libc::close(fd);
    }
}

fn hex_ip(s: &str) -> String {
    if let Some(t) = s.strip_prefix('[') {
        return t.trim_end_matches(']').parse::<IpAddr>().map(|a| a.to_string()).unwrap_or_else(|_| t.to_string());
    }
    if s.len() == 8 {
        if let Ok(n) = u32::from_str_radix(s, 16) {
            return std::net::Ipv4Addr::from(n).to_string();
        }
    }
    s.parse::<IpAddr>().map(|a| a.to_string()).unwrap_or_else(|_| s.to_string())
}
fn ep(ip: &str, port: &str) -> String {
    let ip = hex_ip(ip);
    let p = u16::from_str_radix(port, 16).unwrap_or(0);
    if ip.contains(':') {
        format!("[{ip}]:{p}")
    } else {
        format!("{ip}:{p}")
    }
}

#[derive(Clone, Debug)]
struct Dst {
    svc: String,
    ep: String,
    fwd: String,
    nums: [i64; 3],
}

/// /proc/net/ip_vs: services in table order, servers in list order.
fn read_services() -> Vec<(String, String, Vec<Dst>)> {
    let t = std::fs::read_to_string("/proc/self/net/ip_vs").unwrap_or_default();
    let mut v: Vec<(String, String, Vec<Dst>)> = Vec::new();
    for l in t.lines().skip(3) {
        let w: Vec<&str> = l.split_whitespace().collect();
        if w.is_empty() {
            continue;
        }
        if w[0] == "->" {
            if w.len() < 6 {
                continue;
            }
            let c = w[1].rfind(':').unwrap();
            let svc = v.last().map(|s| s.0.clone()).unwrap_or_default();
            v.last_mut().unwrap().2.push(Dst {
                svc,
                ep: ep(&w[1][..c], &w[1][c + 1..]),
                fwd: w[2].to_string(),
                nums: [w[3].parse().unwrap_or(-1), w[4].parse().unwrap_or(-1), w[5].parse().unwrap_or(-1)],
            });
        } else {
            let name = if w[0] == "FWM" {
                format!("FWM {}", u32::from_str_radix(w[1], 16).unwrap_or(0))
            } else {
                let c = w[1].rfind(':').unwrap();
                format!("{} {}", w[0], ep(&w[1][..c], &w[1][c + 1..]))
            };
            v.push((name, w[2..].join(" "), Vec::new()));
        }
    }
    v
}

/// /proc/net/ip_vs_conn, sorted (the table's own order is random).
fn read_conns() -> Vec<Value> {
    let t = std::fs::read_to_string("/proc/self/net/ip_vs_conn").unwrap_or_default();
    let mut v: Vec<Vec<String>> = Vec::new();
    for l in t.lines().skip(1) {
        let w: Vec<&str> = l.split_whitespace().collect();
        if w.len() < 9 {
            continue;
        }
        let mut r = vec![
            w[0].to_string(),
            ep(w[1], w[2]),
            ep(w[3], w[4]),
            ep(w[5], w[6]),
            w[7].to_string(),
            w[8].to_string(),
        ];
        for x in &w[9..] {
            r.push(x.to_string());
        }
        v.push(r);
    }
    v.sort();
    v.into_iter().map(|r| json!(r)).collect()
}

fn svc_args(s: &Value) -> Vec<String> {
    let mut a = Vec::new();
    if let Some(m) = num(s, "fwmark") {
        a.push("-f".into());
        a.push(m.to_string());
        if st(s, "family") == Some("ipv6") {
            a.push("-6".into());
        }
        return a;
    }
    let vip = st(s, "vip").expect("vip");
    let port = num(s, "port").unwrap_or(0);
    a.push(
        match st(s, "proto").unwrap_or("tcp") {
            "tcp" => "-t",
            "udp" => "-u",
            "sctp" => "--sctp-service",
            p => panic!("proto {p}"),
        }
        .into(),
    );
    a.push(if vip.contains(':') { format!("[{vip}]:{port}") } else { format!("{vip}:{port}") });
    a
}

fn svc_opts(s: &Value) -> Vec<String> {
    let mut a: Vec<String> = Vec::new();
    if let Some(x) = st(s, "sched") {
        a.extend(["-s".into(), x.into()]);
    }
    if let Some(x) = num(s, "persistent") {
        a.extend(["-p".into(), x.to_string()]);
    }
    if let Some(x) = st(s, "netmask") {
        a.extend(["-M".into(), x.into()]);
    }
    if let Some(x) = st(s, "flags") {
        a.extend(["-b".into(), x.into()]);
    }
    if s.get("ops").and_then(Value::as_bool) == Some(true) {
        a.push("-o".into());
    }
    for x in arr(s, "args") {
        a.push(x.as_str().unwrap().into());
    }
    a
}

fn rip_ep(d: &Value, svc: &Value) -> String {
    let rip = st(d, "rip").expect("rip");
    let port = num(d, "port").or(num(svc, "port")).unwrap_or(0);
    match (rip.contains(':'), port) {
        (true, 0) => rip.to_string(),
        (true, p) => format!("[{rip}]:{p}"),
        (false, 0) => rip.to_string(),
        (false, p) => format!("{rip}:{p}"),
    }
}

fn dest_opts(d: &Value) -> Vec<String> {
    let mut a: Vec<String> = Vec::new();
    if let Some(w) = d.get("weight").and_then(Value::as_i64) {
        a.extend(["-w".into(), w.to_string()]);
    }
    match st(d, "method") {
        None => {}
        Some("dr") | Some("route") => a.push("-g".into()),
        Some("ipip") => a.push("-i".into()),
        Some("gre") => a.extend(["-i".into(), "--tun-type".into(), "gre".into()]),
        Some("gue") => a.extend([
            "-i".into(),
            "--tun-type".into(),
            "gue".into(),
            "--tun-port".into(),
            num(d, "tun_port").unwrap_or(6080).to_string(),
        ]),
        Some("masq") | Some("nat") => a.push("-m".into()),
        Some(m) => panic!("method {m}"),
    }
    if let Some(x) = num(d, "uthresh") {
        a.extend(["-x".into(), x.to_string()]);
    }
    if let Some(x) = num(d, "lthresh") {
        a.extend(["-y".into(), x.to_string()]);
    }
    for x in arr(d, "args") {
        a.push(x.as_str().unwrap().into());
    }
    a
}

/// Settings of `oracle/run --adm/--start/--stop`: another director in IPVS's place.
fn setting(k: &str) -> Option<String> {
    let t = std::fs::read_to_string("/oracle/env").ok()?;
    t.lines().find_map(|l| l.strip_prefix(&format!("{k}=")).map(str::to_string))
}

fn ipvsadm(args: &[String]) -> Ran {
    let adm = setting("ADM").unwrap_or_else(|| "/sbin/ipvsadm".into());
    let mut v = vec![adm.as_str()];
    v.extend(args.iter().map(String::as_str));
    exec(&v, None)
}

fn ran_into(o: &mut Map<String, Value>, r: &Ran) {
    o.insert("rc".into(), json!(r.rc));
    if !r.out.is_empty() {
        o.insert("stdout".into(), json!(r.out));
    }
    if !r.err.is_empty() {
        o.insert("stderr".into(), json!(r.err));
    }
}

struct World {
    sock: Sock,
    macs: HashMap<[u8; 6], String>,
    gue: Vec<String>,
    known: HashSet<String>,
    t0: u64,
    b: Builder,
    last: BTreeMap<String, [i64; 3]>,
    one_svc: bool,
    seen_kinds: HashSet<String>,
    last_out: Vec<u8>,
}

impl World {
    fn t(&self) -> f64 {
        ((now_ns() - self.t0) / 100_000) as f64 / 10.0
    }
    fn know(&mut self, d: &Value) {
        let Some(rip) = st(d, "rip") else { return };
        let a: IpAddr = rip.parse().unwrap();
        let name = a.to_string();
        if st(d, "method") == Some("gue") && !self.gue.contains(&name) {
            self.gue.push(name.clone());
        }
        if !self.known.insert(name.clone()) {
            return;
        }
        let m = server_mac(a);
        self.macs.insert(m, name.clone());
        let ms = m.iter().map(|b| format!("{:02x}", b)).collect::<Vec<_>>().join(":");
        let r = exec(&["/sbin/ip", "neigh", "replace", &name, "lladdr", &ms, "dev", "eth0", "nud", "permanent"], None);
        if r.rc != 0 {
            println!("neigh {name}: {}", r.err);
        }
    }
    fn counts(&self) -> BTreeMap<String, [i64; 3]> {
        let mut m = BTreeMap::new();
        for (svc, _, ds) in read_services() {
            for d in ds {
                let k = if self.one_svc { d.ep.clone() } else { format!("{svc}|{}", d.ep) };
                m.insert(k, d.nums);
            }
        }
        m
    }
    /// What changed of weight/active/inactive since the last event.
    fn delta(&mut self, o: &mut Map<String, Value>) {
        let c = self.counts();
        let mut d = Map::new();
        for (k, v) in &c {
            if self.last.get(k) != Some(v) {
                d.insert(k.clone(), json!(v));
            }
        }
        for k in self.last.keys() {
            if !c.contains_key(k) {
                d.insert(k.clone(), Value::Null);
            }
        }
        if !d.is_empty() {
            o.insert("st".into(), Value::Object(d));
        }
        self.last = c;
    }
}

fn setup_world(sc: &Value, n: usize) -> World {
    let (cli, dir) = (format!("cli{n}"), format!("dir{n}"));
    must(&format!("ip netns add {cli} && ip netns add {dir}"), None);
    must(
        "for i in all default; do echo 1 > /proc/sys/net/ipv6/conf/$i/disable_ipv6; done; ip link set lo up",
        Some(&cli),
    );
    let v6 = sc.get("ipv6").and_then(Value::as_bool).unwrap_or(false);
    let xdp = setting("XDP").is_some();
    must(
        &format!(
            "for i in all default; do echo {} > /proc/sys/net/ipv6/conf/$i/disable_ipv6; echo 0 > /proc/sys/net/ipv4/conf/$i/rp_filter; echo 0 > /proc/sys/net/ipv6/conf/$i/accept_ra; done
             echo 1 > /proc/sys/net/ipv6/conf/default/addr_gen_mode; echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad
             for i in all default; do echo 0 > /proc/sys/net/ipv4/conf/$i/send_redirects; done
             echo 0 > /proc/sys/net/ipv4/icmp_ratelimit; echo 0 > /proc/sys/net/ipv6/icmp/ratelimit
             echo 1 > /proc/sys/net/ipv4/ip_forward; ip link set lo up",
            if v6 { 0 } else { 1 }
        ),
        Some(&dir),
    );
    must(&format!("ip link add eth0 netns {dir} type veth peer name drv0 netns {cli}"), None);
    let mac = |m: [u8; 6]| m.iter().map(|b| format!("{:02x}", b)).collect::<Vec<_>>().join(":");
    must(&format!("ip link set drv0 address {} mtu {} up", mac(RTR_MAC), num(sc, "drv_mtu").unwrap_or(if xdp { 1500 } else { 9000 })), Some(&cli));
    let mtu = num(sc, "mtu").unwrap_or(1500);
    must(
        &format!(
            "ip link set eth0 address {} mtu {mtu}; echo 0 > /proc/sys/net/ipv4/conf/eth0/rp_filter; ip link set eth0 up
             ip addr add 10.0.0.1/16 dev eth0; ip route add default via 10.0.0.254
             ip neigh replace 10.0.0.254 lladdr {} dev eth0 nud permanent",
            mac(DIR_MAC),
            mac(RTR_MAC)
        ),
        Some(&dir),
    );
    if v6 {
        must(
            &format!(
                "ip -6 addr add fd00::1/64 dev eth0 nodad; ip -6 route add default via fd00::fe
                 ip -6 neigh replace fd00::fe lladdr {} dev eth0 nud permanent
                 echo 1 > /proc/sys/net/ipv6/conf/all/forwarding",
                mac(RTR_MAC)
            ),
            Some(&dir),
        );
    }
    setns(&cli);
    // drv0 must not aggregate or fix up anything; eth0 must fill in checksums.
    ethtool_off("drv0", &[0x17, 0x19, 0x1f, 0x25, 0x2c]);
    if xdp {
        // what eth0 sends with XDP_TX arrives only where the peer runs XDP too
        if let Err(e) = bench::pass_on("drv0") {
            println!("setup failed (xdp on drv0): {e}");
        }
    }
    let sock = Sock::open("drv0");
    setns(&dir);
    ethtool_off("eth0", &[0x17, 0x19, 0x1f, 0x25, 0x2c]);
    World {
        sock,
        macs: HashMap::new(),
        gue: Vec::new(),
        known: HashSet::new(),
        t0: 0,
        b: Builder::new(),
        last: BTreeMap::new(),
        one_svc: true,
        seen_kinds: HashSet::new(),
        last_out: Vec::new(),
    }
}

fn add_vip(w: &mut World, s: &Value) {
    let _ = w;
    if let Some(v) = st(s, "vip") {
        if s.get("local").and_then(Value::as_bool) == Some(false) {
            return;
        }
        if v.contains(':') {
            sh(&format!("ip -6 addr add {v}/128 dev lo nodad 2>/dev/null"), None);
        } else {
            sh(&format!("ip addr add {v}/32 dev lo 2>/dev/null"), None);
        }
    }
    for m in arr(s, "match") {
        let d = st(m, "dst").unwrap();
        let fam = if d.contains(':') { "ip6" } else { "ip" };
        let mut rule = format!("{fam} daddr {d}");
        match (st(m, "proto"), num(m, "port")) {
            (Some(p), Some(port)) => rule.push_str(&format!(" {p} dport {port}")),
            (Some(p), None) => rule.push_str(&format!(" meta l4proto {p}")),
            _ => {}
        }
        rule.push_str(&format!(" meta mark set {}", num(s, "fwmark").unwrap_or(1)));
        must(
            &format!(
                "nft 'add table inet mg; add chain inet mg pre {{ type filter hook prerouting priority mangle ; }}; add rule inet mg pre {rule}'"
            ),
            None,
        );
        if s.get("local").and_then(Value::as_bool) != Some(false) {
            let six = if fam == "ip6" { "-6 " } else { "" };
            sh(&format!("ip {six}route add local {d} dev lo 2>/dev/null"), None);
        }
    }
}

fn add_service(w: &mut World, s: &Value, log: &mut Vec<Value>) {
    add_vip(w, s);
    let mut a = vec!["-A".to_string()];
    a.extend(svc_args(s));
    a.extend(svc_opts(s));
    let r = ipvsadm(&a);
    if r.rc != 0 {
        log.push(json!({"cmd": a.join(" "), "rc": r.rc, "stderr": r.err}));
    }
    for d in arr(s, "servers") {
        add_dest(w, s, d, log);
    }
}

fn add_dest(w: &mut World, s: &Value, d: &Value, log: &mut Vec<Value>) {
    w.know(d);
    let mut a = vec!["-a".to_string()];
    a.extend(svc_args(s));
    a.push("-r".into());
    a.push(rip_ep(d, s));
    a.extend(dest_opts(d));
    let r = ipvsadm(&a);
    if r.rc != 0 {
        log.push(json!({"cmd": a.join(" "), "rc": r.rc, "stderr": r.err}));
    }
}

fn find_svc<'a>(sc: &'a Value, e: &Value) -> &'a Value {
    let svcs = arr(sc, "services");
    match st(e, "svc") {
        Some(id) => svcs.iter().find(|s| st(s, "id") == Some(id)).unwrap_or_else(|| panic!("no service {id}")),
        None => &svcs[0],
    }
}

fn snapshot(o: &mut Map<String, Value>, text: bool) {
    let svcs: Vec<Value> = read_services()
        .into_iter()
        .map(|(n, s, ds)| {
            let rows: Vec<Value> = ds.iter().map(|d| json!([d.ep, d.fwd, d.nums[0], d.nums[1], d.nums[2]])).collect();
            let _ = ds.first().map(|d| &d.svc);
            json!({"svc": n, "sched": s, "dests": rows})
        })
        .collect();
    o.insert("services".into(), json!(svcs));
    o.insert("conns".into(), json!(read_conns()));
    let stats = ipvsadm(&["-Ln".into(), "--stats".into(), "--exact".into()]);
    let rows: Vec<Value> = stats
        .out
        .lines()
        .skip(3)
        .map(|l| {
            let w: Vec<Value> = l
                .split_whitespace()
                .filter(|x| *x != "->")
                .map(|x| x.parse::<u64>().map(|n| json!(n)).unwrap_or(json!(x)))
                .collect();
            json!(w)
        })
        .collect();
    o.insert("stats".into(), json!(rows));
    if text {
        for (k, a) in [("text", "-Ln"), ("text_conns", "-Lnc")] {
            o.insert(k.into(), json!(ipvsadm(&[a.to_string()]).out));
        }
    }
}

fn is_packet(op: &str) -> bool {
    matches!(
        op,
        "syn" | "synack" | "ack" | "data" | "fin" | "finonly" | "rst" | "rstack" | "null" | "tcp" | "udp" | "icmp_echo"
            | "icmp_echo_reply" | "icmp_err" | "raw" | "proto"
    )
}

fn run(sc: &Value, n: usize, out: &mut Vec<u8>) {
    let mut w = setup_world(sc, n);
    if let Some(c) = setting("START") {
        let r = sh(&c, None);
        println!("start: rc {} {}{}", r.rc, r.out, r.err);
    }
    if let Some(m) = sc.get("sysctl").and_then(Value::as_object) {
        for (k, v) in m {
            let p = format!("/proc/sys/{}", k.replace('.', "/"));
            let v = v.as_str().map(str::to_string).unwrap_or_else(|| v.to_string());
            if let Err(e) = std::fs::write(&p, &v) {
                println!("sysctl {k}: {e}");
            }
        }
    }
    let mut log = Vec::new();
    for c in arr(sc, "setup") {
        let r = sh(c.as_str().unwrap(), None);
        if r.rc != 0 {
            log.push(json!({"cmd": c, "rc": r.rc, "stderr": r.err}));
        }
    }
    // addresses of servers that come later, and extra neighbours
    for d in arr(sc, "neighbours") {
        w.know(&json!({"rip": d}));
    }
    w.one_svc = arr(sc, "services").len() <= 1;
    for s in arr(sc, "services") {
        add_service(&mut w, s, &mut log);
    }
    for e in arr(sc, "events") {
        if st(e, "op") == Some("add") {
            w.know(e);
        }
    }
    w.last = w.counts();
    while w.sock.recv(0).is_some() {}
    w.t0 = now_ns();
    let order: Vec<Value> = read_services()
        .into_iter()
        .map(|(n, s, ds)| json!({"svc": n, "sched": s, "list": ds.iter().map(|d| json!([d.ep, d.fwd, d.nums[0]])).collect::<Vec<_>>()}))
        .collect();
    let mut h = json!({"begin": sc.get("name"), "order": order});
    if !log.is_empty() {
        h["setup_errors"] = json!(log);
    }
    writeln!(out, "{h}").unwrap();

    let hexmode = st(sc, "hex").unwrap_or("auto").to_string();
    let conns_each = st(sc, "conns") == Some("each");
    let track = sc.get("track").and_then(Value::as_bool).unwrap_or(true);
    for (i, e) in arr(sc, "events").iter().enumerate() {
        let op = st(e, "op").expect("op").to_string();
        let mut o = Map::new();
        o.insert("i".into(), json!(i));
        o.insert("op".into(), json!(op));
        o.insert("t".into(), json!(w.t()));
        if let Some(late) = w.sock.recv(0) {
            if let Some(s) = decode(&late, &w.macs, &w.gue, &[]) {
                o.insert("late".into(), json!([s.to, s.kind, hex(&late)]));
            }
        }
        if is_packet(&op) {
            let mut ev = e.clone();
            if e.get("inner_last").and_then(Value::as_bool) == Some(true) {
                ev["inner_hex"] = json!(w.last_out.get(14..).map(hex).unwrap_or_default());
            }
            let frames = w.b.frames(&ev);
            let many = frames.len() > 1;
            let reps = num(e, "repeat").unwrap_or(1);
            let mut res = Vec::new();
            let (mut hin, mut hout) = (Vec::new(), Vec::new());
            for f in &frames {
                for _ in 0..reps {
                    let ok = w.sock.send(f);
                    let mut got = Vec::new();
                    while let Some(r) = w.sock.recv(0) {
                        got.push(r);
                    }
                    if got.is_empty() {
                        if let Some(r) = w.sock.recv(num(e, "wait").unwrap_or(5) as i32) {
                            got.push(r);
                            while let Some(r) = w.sock.recv(0) {
                                got.push(r);
                            }
                        }
                    }
                    hin.push(json!(hex(f)));
                    let mut rs = Vec::new();
                    for g in &got {
                        if let Some(s) = decode(g, &w.macs, &w.gue, f) {
                            if s.to != "router" {
                                w.last_out = g.clone();
                            }
                            rs.push((s.to, s.kind));
                            hout.push(json!(hex(g)));
                        }
                    }
                    if !ok {
                        rs.push(("send-failed".into(), String::new()));
                    }
                    res.push(rs);
                }
            }
            let flat: Vec<&(String, String)> = res.iter().flatten().collect();
            if !many && reps == 1 {
                match flat.first() {
                    Some((to, via)) => {
                        o.insert("to".into(), json!(to));
                        o.insert("via".into(), json!(via));
                    }
                    None => {
                        o.insert("to".into(), Value::Null);
                    }
                }
                if flat.len() > 1 {
                    o.insert("also".into(), json!(flat[1..].iter().map(|(a, b)| json!([a, b])).collect::<Vec<_>>()));
                }
            } else {
                let l: Vec<Value> =
                    res.iter().map(|rs| json!(rs.iter().map(|(a, b)| json!([a, b])).collect::<Vec<_>>())).collect();
                o.insert("each".into(), json!(l));
            }
            let kind = format!(
                "{} {} {}",
                op,
                flat.first().map(|x| x.1.split(' ').next().unwrap_or("")).unwrap_or("none"),
                frames[0].get(12).copied().unwrap_or(0)
            );
            let show = match e.get("hex").and_then(Value::as_bool) {
                Some(b) => b,
                None => match hexmode.as_str() {
                    "all" => true,
                    "none" => false,
                    _ => w.seen_kinds.insert(kind),
                },
            };
            if show {
                o.insert("in".into(), json!(hin));
                o.insert("out".into(), json!(hout));
            }
        } else {
            match op.as_str() {
                "sleep" => {
                    std::thread::sleep(std::time::Duration::from_millis(num(e, "ms").unwrap_or(1000)));
                    o.insert("ms".into(), json!(num(e, "ms").unwrap_or(1000)));
                }
                "until" => {
                    // sleeps until this many ms of scenario time
                    let t = num(e, "ms").unwrap() * 1_000_000 + w.t0;
                    let n = now_ns();
                    if t > n {
                        std::thread::sleep(std::time::Duration::from_nanos(t - n));
                    } else {
                        o.insert("overrun_ms".into(), json!((n - t) as f64 / 1e6));
                    }
                }
                "edit" | "add" | "del" => {
                    let s = find_svc(sc, e);
                    w.know(e);
                    let mut a = vec![match op.as_str() {
                        "edit" => "-e",
                        "add" => "-a",
                        _ => "-d",
                    }
                    .to_string()];
                    a.extend(svc_args(s));
                    a.push("-r".into());
                    a.push(rip_ep(e, s));
                    if op != "del" {
                        a.extend(dest_opts(e));
                    }
                    let r = ipvsadm(&a);
                    o.insert("cmd".into(), json!(a.join(" ")));
                    ran_into(&mut o, &r);
                }
                "addsvc" => {
                    let mut l = Vec::new();
                    add_service(&mut w, &e["service"], &mut l);
                    if !l.is_empty() {
                        o.insert("errors".into(), json!(l));
                    }
                }
                "editsvc" => {
                    let s = find_svc(sc, e);
                    let mut a = vec!["-E".to_string()];
                    a.extend(svc_args(s));
                    a.extend(svc_opts(e));
                    let r = ipvsadm(&a);
                    o.insert("cmd".into(), json!(a.join(" ")));
                    ran_into(&mut o, &r);
                }
                "delsvc" => {
                    let s = find_svc(sc, e);
                    let mut a = vec!["-D".to_string()];
                    a.extend(svc_args(s));
                    let r = ipvsadm(&a);
                    o.insert("cmd".into(), json!(a.join(" ")));
                    ran_into(&mut o, &r);
                }
                "ipvsadm" => {
                    let a: Vec<String> = arr(e, "args").iter().map(|x| x.as_str().unwrap().to_string()).collect();
                    let r = match st(e, "stdin") {
                        Some(t) => {
                            std::fs::write("/tmp/stdin", t).unwrap();
                            let adm = setting("ADM").unwrap_or_else(|| "/sbin/ipvsadm".into());
                            sh(&format!("{adm} {} < /tmp/stdin", a.join(" ")), None)
                        }
                        None => ipvsadm(&a),
                    };
                    o.insert("args".into(), e["args"].clone());
                    ran_into(&mut o, &r);
                }
                "sysctl" => {
                    let k = st(e, "key").unwrap();
                    let v = e["value"].as_str().map(str::to_string).unwrap_or_else(|| e["value"].to_string());
                    let r = std::fs::write(format!("/proc/sys/{}", k.replace('.', "/")), &v);
                    o.insert("key".into(), json!(k));
                    o.insert("value".into(), json!(v));
                    o.insert("ok".into(), json!(r.is_ok()));
                }
                "sh" => {
                    let ns = st(e, "ns").map(|x| format!("{x}{n}"));
                    let r = sh(st(e, "cmd").unwrap(), ns.as_deref());
                    o.insert("cmd".into(), e["cmd"].clone());
                    ran_into(&mut o, &r);
                }
                "snap" => snapshot(&mut o, e.get("text").and_then(Value::as_bool).unwrap_or(false)),
                "bench" => {
                    let frames = w.b.frames(&e["packet"]);
                    let (cli, dir) = (format!("cli{n}"), format!("dir{n}"));
                    setns(&cli);
                    w.sock = Sock::open_proto("drv0", 0);
                    setns(&dir);
                    bench::run(&mut o, e, &frames[0], &cli, &dir);
                    setns(&cli);
                    w.sock = Sock::open("drv0");
                    setns(&dir);
                }
                x => {
                    o.insert("error".into(), json!(format!("unknown op {x}")));
                }
            }
        }
        if track {
            w.delta(&mut o);
        }
        if conns_each || e.get("conns").and_then(Value::as_bool) == Some(true) {
            if op != "snap" {
                o.insert("conns".into(), json!(read_conns()));
            }
        }
        writeln!(out, "{}", Value::Object(o)).unwrap();
    }
    let mut o = Map::new();
    o.insert("end".into(), sc.get("name").cloned().unwrap_or(Value::Null));
    o.insert("t".into(), json!(w.t()));
    writeln!(out, "{}", Value::Object(o)).unwrap();
    drop(w);
    ipvsadm(&["-C".into()]);
    if let Some(c) = setting("STOP") {
        sh(&c, None);
    }
    sh(&format!("ip netns del cli{n}; ip netns del dir{n}"), None);
}

fn main() {
    let a: Vec<String> = std::env::args().collect();
    if a.get(1).map(String::as_str) == Some("offload-off") {
        // checksums and segmentation in software on this device
        ethtool_off(&a[2], &[0x17, 0x19, 0x1f, 0x25, 0x2c]);
        return;
    }
    match a.get(1).map(String::as_str) {
        Some("serve") => return stream::serve(&a[2], &a[3]),
        Some("talk") => std::process::exit(stream::talk(&a[2], a[3].parse().unwrap(), a[4].parse().unwrap())),
        _ => {}
    }
    let list = std::fs::read_to_string(&a[1]).unwrap();
    let mut dev = std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(&a[2]).unwrap();
    let root = CString::new("/proc/self/ns/net").unwrap();
    let rootfd = unsafe { libc::open(root.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    let _ = parse_ep;
    for (n, path) in list.lines().enumerate() {
        if path.trim().is_empty() {
            continue;
        }
        let t = Instant::now();
        let mut out = Vec::new();
        writeln!(out, "#BEGIN {path}").unwrap();
        let sc: Value = match std::fs::read_to_string(path).map_err(|e| e.to_string()).and_then(|s| serde_json::from_str(&s).map_err(|e| e.to_string())) {
            Ok(v) => v,
            Err(e) => {
                println!("{path}: {e}");
                continue;
            }
        };
        run(&sc, n, &mut out);
        writeln!(out, "#END {path}").unwrap();
        unsafe { libc::setns(rootfd, libc::CLONE_NEWNET) };
        dev.write_all(&out).unwrap();
        println!("done {path} {} bytes {:.2}s", out.len(), t.elapsed().as_secs_f64());
    }
    dev.write_all(b"#EOF\n").unwrap();
    dev.write_all(&[0u8; 4096]).unwrap();
    dev.sync_all().unwrap();
}
