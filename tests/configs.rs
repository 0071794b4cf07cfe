//! The files in `configs/`: those that are examples parse, and those that are wrong fail as they say.
//!
//! A file in `configs/invalid/` begins with one comment for each problem a reader of it must be told, and no others:
//!
//! ```yaml
//! # expect: LINE:COLUMN: part of what follows the position
//! # expect: LINE:COLUMN: one part ... and another
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lb_userspace::config::{self, Report};
use lb_userspace::model::{Match, Method, Model, Ports, Protocol, Scheduler, Selector, Service};

fn configs(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs").join(folder);
    let entries =
        fs::read_dir(&folder).unwrap_or_else(|error| panic!("reading {}: {error}", folder.display()));
    let mut files: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    files
}

fn parse(text: &str) -> Result<Model, String> {
    config::parse("lb.yaml", text).map(|valid| valid.model).map_err(|report| report.to_string())
}

/// The services of a file with one interface.
fn services(text: &str) -> Vec<Service> {
    parse(&format!("interfaces: [eth0]\nservices:\n{text}"))
        .unwrap_or_else(|report| panic!("{report}"))
        .services
}

/// What differs between the problems a file announces and those it has.
fn differences(text: &str, report: &Report) -> Vec<String> {
    let expected: Vec<_> = text.lines().map_while(|line| line.strip_prefix("# expect: ")).collect();
    let prefix = format!("{}:", report.file());
    let mut found: Vec<_> =
        report.lines().map(|line| line.strip_prefix(&prefix).unwrap_or(&line).to_owned()).collect();
    let mut differences = Vec::new();
    for expectation in expected {
        let (at, part) = expectation.split_once(": ").expect("# expect: LINE:COLUMN: message part");
        let matching = |line: &String| {
            let message = line.strip_prefix(at).and_then(|rest| rest.strip_prefix(": "));
            message.is_some_and(|message| part.split(" ... ").all(|part| message.contains(part)))
        };
        match found.iter().position(matching) {
            Some(index) => drop(found.remove(index)),
            None => differences.push(format!("not reported: {expectation}")),
        }
    }
    differences.extend(found.into_iter().map(|line| format!("not expected: {line}")));
    differences
}

#[test]
fn every_example_is_valid_and_worth_no_warning() {
    let files = configs("");
    assert!(files.len() >= 3, "only {files:?}");
    for file in files {
        let valid = config::load(&file).unwrap_or_else(|report| panic!("{report}"));
        assert!(valid.warnings.is_empty(), "{}", valid.warnings);
    }
}

#[test]
fn every_invalid_file_is_refused_with_all_it_announces_and_nothing_else() {
    let files = configs("invalid");
    assert!(files.len() >= 25, "only {} invalid files", files.len());
    let mut failures = String::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        match config::load(&file) {
            Ok(_) => failures += &format!("{}: accepted\n", file.display()),
            Err(report) => {
                for difference in differences(&text, &report) {
                    failures += &format!("{}: {difference}\n", file.display());
                }
            }
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
}

#[test]
fn the_lab_is_three_servers_by_direct_routing() {
    let lab = config::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/lab.yaml")).unwrap().model;
    let [web] = &lab.services[..] else { panic!("{:?}", lab.services) };
    assert_eq!(web.selector.matches()[0].to_string(), "tcp 192.0.2.1 port 80");
    assert_eq!(web.scheduler, Scheduler::Rr);
    let servers: Vec<_> =
        web.servers.iter().map(|server| (server.address.to_string(), server.method)).collect();
    let expected = ["10.0.0.11", "10.0.0.12", "10.0.0.13"].map(|rip| (rip.to_owned(), Method::Dr));
    assert_eq!(servers, expected, "in the order of the file");
}

#[test]
fn an_unreadable_file_is_a_report_that_names_it() {
    let report = config::load(Path::new("/nonexistent/lb.yaml")).unwrap_err();
    assert_eq!((report.errors(), report.warnings()), (1, 0));
    assert!(
        report.to_string().starts_with("/nonexistent/lb.yaml: cannot read the configuration: "),
        "{report}"
    );
}

#[test]
fn a_report_has_a_line_a_problem_in_the_order_of_the_file_and_counts_them() {
    let text =
        "interfaces: [eth0, eth0]\nservices:\n  - address: 192.0.2.1\n    port: http\ntimeouts: {tpc: 1}\n";
    let report = config::parse("lb.yaml", text).unwrap_err();
    assert_eq!(
        report.to_string(),
        "lb.yaml:1:20: interfaces[1]: interface `eth0` is listed twice; each interface once \
         (the other is at lb.yaml:1:14)\n\
         lb.yaml:4:11: services[0].port: `http` is not a port; a port from 1 to 65535, or any (which needs persistence)\n\
         lb.yaml:5:12: timeouts.tpc: unknown key, did you mean `tcp`?; known here: tcp, tcp_fin, udp\n\
         lb.yaml: 3 errors, 0 warnings"
    );
}

#[test]
fn the_same_configuration_written_differently_is_the_same_model() {
    let long = "interfaces: [{name: eth0, mode: auto}]\nflows: {ipv4: 4096K, ipv6: 524288}\n\
                timeouts: {tcp: 900, udp: 5m}\nservices:\n- {name: tcp-192.0.2.1-80, address: 192.0.2.1, port: '80', \
                protocol: tcp, scheduler: wlc, persistence: 6m, servers: [{address: 10.0.0.1, weight: 1}]}\n";
    let short = "interfaces: [eth0]\nflows: 4M\ntimeouts:\nservices:\n- {address: 192.0.2.1, port: 80, \
                 persistence: {netmask: 255.255.255.255}, servers: [{address: 10.0.0.1}]}\n";
    assert_eq!(parse(long), parse(short));
    assert_eq!(parse(long), parse(&long.replace('\n', "\r\n")), "line ends of Windows");
    assert_eq!(parse(long), parse(&format!("\u{feff}{long}")), "a byte order mark");
    assert_ne!(parse(long), parse(&short.replace("4M", "8M")));
}

#[test]
fn flow_tables_are_powers_of_two_from_1k_to_64m() {
    for (written, ipv4, ipv6) in [
        ("1K", 1 << 10, 1 << 10),
        ("1025", 1 << 11, 1 << 10),
        ("1m", 1 << 20, 1 << 17),
        ("100000", 1 << 17, 1 << 14),
        ("3M", 1 << 22, 1 << 19),
        ("64M", 1 << 26, 1 << 23),
    ] {
        let flows = parse(&format!("interfaces: [eth0]\nflows: {written}\n")).unwrap().flows;
        assert_eq!((flows.ipv4, flows.ipv6), (ipv4, ipv6), "{written}");
    }
    for written in
        ["0", "512", "65M", "1G", "-1", "+5K", "K", "1.5M", "99999999999999999999", "17592186044417M"]
    {
        assert!(parse(&format!("interfaces: [eth0]\nflows: {written}\n")).is_err(), "{written}");
    }
}

#[test]
fn times_are_whole_seconds_up_to_31_days() {
    for (written, seconds) in
        [("1", 1), ("90s", 90), ("15m", 900), ("1h 30m", 5400), ("24h", 86_400), ("31days", 2_678_400)]
    {
        let timeouts =
            parse(&format!("interfaces: [eth0]\ntimeouts: {{udp: {written}}}\n")).unwrap().timeouts;
        assert_eq!(timeouts.udp, Duration::from_secs(seconds), "{written}");
        assert_eq!(timeouts.tcp, Duration::from_secs(900), "the others keep their defaults");
    }
    for written in ["0", "0s", "500ms", "1500ms", "2678401", "32days", "1.5", "-3", "soon", "\"\"", "true"] {
        assert!(parse(&format!("interfaces: [eth0]\ntimeouts: {{udp: {written}}}\n")).is_err(), "{written}");
    }
}

#[test]
fn the_more_specific_of_two_claims_is_not_a_duplicate() {
    let found = services(
        "- {match: [{address: 198.18.0.0/16, port: 80}], servers: &pool [{address: 10.0.0.1}]}\n\
         - {match: [{address: 198.18.0.0/17, port: 80}], servers: *pool}\n\
         - {match: [{address: 198.18.0.0/16, port: any}], servers: *pool}\n\
         - {match: [{address: 198.18.0.0/16, protocol: udp, port: 80}], servers: *pool}\n\
         - {match: [{address: 198.18.0.0/16, port: 81-90}], servers: *pool}\n\
         - {address: 198.18.0.1, port: 80, servers: *pool}\n\
         - {address: 198.18.0.1, port: any, persistence: 360, servers: *pool}\n\
         - {address: 198.18.0.1, port: 80, protocol: sctp, servers: *pool}\n",
    );
    let names: Vec<_> = found.iter().map(|service| service.name.as_str()).collect();
    let expected = [
        "tcp-198.18.0.0_16-80",
        "tcp-198.18.0.0_17-80",
        "tcp-198.18.0.0_16-any",
        "udp-198.18.0.0_16-80",
        "tcp-198.18.0.0_16-81-90",
        "tcp-198.18.0.1-80",
        "tcp-198.18.0.1-any",
        "sctp-198.18.0.1-80",
    ];
    assert_eq!(names, expected);
    assert!(
        found.iter().all(|service| service.servers == found[0].servers),
        "aliases stand for their anchor"
    );
}

#[test]
fn any_protocol_is_all_three() {
    let found = services(
        "- {match: [{address: 0.0.0.0/0, protocol: any, port: any}], servers: [{address: 10.0.0.1}]}\n",
    );
    let prefix = "0.0.0.0/0".parse().unwrap();
    let entry = |protocol| Match { prefix, protocol, ports: Ports::Any };
    let expected = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(entry);
    assert_eq!(found[0].selector, Selector::Matches(expected.to_vec()));
}

#[test]
fn a_tunnel_may_lead_to_the_other_family() {
    let found = services(
        "- address: 2001:db8::1\n  port: 80\n  servers:\n  - {address: 10.0.0.1, method: ipip}\n  \
         - {address: 10.0.0.2, method: gue, tunnel: {port: 6080}}\n  - {address: 10.0.0.3, method: gre}\n",
    );
    let methods: Vec<_> = found[0].servers.iter().map(|server| server.method).collect();
    let port = 6080.try_into().unwrap();
    assert_eq!(
        methods,
        [Method::Ipip, Method::Gue { port, checksum: false }, Method::Gre { checksum: false }]
    );
}

#[test]
fn what_hardly_was_meant_is_warned_about_and_used() {
    for (service, warning) in [
        ("scheduler: rr}", "service `tcp-192.0.2.1-80` has no servers"),
        (
            "servers: [{address: 10.0.0.1, weight: 0}]}",
            "every server of service `tcp-192.0.2.1-80` has weight 0",
        ),
        ("scheduler: lblc, servers: [{address: 10.0.0.1}]}", "lblc decides by the destination"),
        ("scheduler: dh, servers: [{address: 10.0.0.1}]}", "dh decides by the destination"),
        (
            "scheduler: mh, servers: [{address: 10.0.0.1, weight: 0}, {address: 10.0.0.2}]}",
            "mh still hashes clients to",
        ),
        (
            "scheduler: sh, servers: [{address: 10.0.0.1, weight: 0}, {address: 10.0.0.2}]}",
            "sh still hashes clients to",
        ),
        (
            "scheduler: rr, servers: [{address: 10.0.0.1, weight: 2}, {address: 10.0.0.2}]}",
            "rr takes all weights above 0",
        ),
        ("protocol: udp, scheduler: nq, servers: [{address: 10.0.0.1}]}", "UDP never has any"),
        (
            "persistence: {netmask: 255.0.255.0}, servers: [{address: 10.0.0.1}]}",
            "255.0.255.0 has a gap; clients are grouped by scattered bits",
        ),
        (
            "protocol: udp, scheduler: sh, stateless: true, one_packet: true, servers: [{address: 10.0.0.1}]}",
            "`one_packet` changes nothing",
        ),
    ] {
        let text = format!("interfaces: [eth0]\nservices:\n- {{address: 192.0.2.1, port: 80, {service}\n");
        let warnings = config::parse("lb.yaml", &text).unwrap_or_else(|report| panic!("{report}")).warnings;
        assert_eq!((warnings.errors(), warnings.warnings()), (0, 1), "{service}: {warnings}");
        let line = warnings.lines().next().unwrap();
        assert!(line.starts_with("lb.yaml:3:") && line.contains(": warning: services[0]"), "{line}");
        assert!(line.contains(warning), "{line}");
    }
}

#[test]
fn the_fallback_flag_answers_the_warning_about_drained_servers() {
    let text = "interfaces: [eth0]\nservices:\n- {address: 192.0.2.1, port: 80, scheduler: mh, flags: [mh-fallback], \
                servers: [{address: 10.0.0.1, weight: 0}, {address: 10.0.0.2}]}\n";
    assert!(config::parse("lb.yaml", text).unwrap().warnings.is_empty());
}

#[test]
fn a_static_neighbour_on_a_foreign_interface_is_suspicious() {
    let text =
        "interfaces: [eth0]\nneighbours: [{address: 10.0.0.1, mac: 02:00:00:00:00:01, interface: eht0}]\n";
    let valid = config::parse("lb.yaml", text).unwrap();
    assert_eq!(valid.model.neighbours[0].interface, "eht0");
    assert!(valid.warnings.to_string().contains("`eht0` is not one of `interfaces:`, did you mean `eth0`?"));
}

#[test]
fn maglev_takes_no_more_servers_than_it_has_slots() {
    let with = |count: u32| {
        let server = |index: u32| format!("{{address: 10.0.{}.{}}}", index / 256, index % 256);
        let servers: Vec<_> = (1..=count).map(server).collect();
        let text = format!(
            "interfaces: [eth0]\nservices:\n- {{address: 192.0.2.1, port: 80, scheduler: mh, servers: [{}]}}\n",
            servers.join(", ")
        );
        parse(&text)
    };
    assert_eq!(with(4093).unwrap().services[0].servers.len(), 4093);
    assert!(with(4094).unwrap_err().contains("services[0].scheduler: 4094 servers are too many for mh"));
}

#[test]
fn denying_everybody_is_suspicious() {
    let text = "interfaces: [eth0]\nadmission: {deny: [0.0.0.0/0]}\n";
    let warnings = config::parse("lb.yaml", text).unwrap().warnings;
    assert!(warnings.to_string().contains("admission.deny[0]: 0.0.0.0/0 denies every client"), "{warnings}");
}

#[test]
fn more_servers_than_buckets_are_suspicious() {
    let servers: Vec<_> =
        (0..257).map(|index| format!("{{address: 10.0.{}.{}}}", index / 250, index % 250 + 1)).collect();
    let text = format!(
        "interfaces: [eth0]\nservices:\n- {{address: 192.0.2.1, port: 80, scheduler: sh, servers: [{}]}}\n",
        servers.join(", ")
    );
    let warnings = config::parse("lb.yaml", &text).unwrap().warnings;
    assert!(warnings.to_string().contains("sh has 256 buckets for 257 servers"), "{warnings}");
}

/// Every problem of `text` is at a place that exists.
fn report_points_into(text: &str) {
    let report = match config::parse("lb.yaml", text) {
        Ok(valid) => valid.warnings,
        Err(report) => report,
    };
    let lines: Vec<_> = text.lines().collect();
    for problem in report.problems() {
        let at = problem.at.expect("a place");
        // At the end of a file the parser stands behind the last line.
        let width = lines.get(at.line - 1).map_or(0, |line| line.chars().count());
        assert!(at.line <= lines.len() + 1 && at.column <= width + 1, "{at} is not in\n{text}");
    }
}

#[test]
fn a_mangled_file_is_reported_on_and_never_panics() {
    let full = fs::read_to_string(&configs("")[0]).unwrap();
    let lines: Vec<_> = full.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    for index in 0..lines.len() {
        report_points_into(&lines[..index].join("\n"));
        report_points_into(&[&lines[..index], &lines[index + 1..]].concat().join("\n"));
        let (indent, rest) = lines[index].split_at(lines[index].len() - lines[index].trim_start().len());
        let key = rest.split_once(':').map_or(rest, |(key, _)| key);
        for mangled in
            ["[", "{a: b}", "[[1], {2: 3}]", "-1", "\"", "~", "99999999999999999999", "ü: ö", "*x", "<<"]
        {
            let line = format!("{indent}{key}: {mangled}");
            report_points_into(&[&lines[..index], &[line.as_str()], &lines[index + 1..]].concat().join("\n"));
        }
    }
}
