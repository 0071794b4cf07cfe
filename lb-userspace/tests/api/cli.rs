//! What `lb` prints and how it exits.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use lb_common::counters::{Note, Reason};
use lb_userspace::api::types::{Reload, Service, Stats, Status};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::director::{Director, Mood};

/// What a command printed, and its exit status.
#[derive(Debug, PartialEq, Eq)]
struct Ran {
    status: i32,
    out: String,
    err: String,
}

fn command(socket: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lb"));
    command.args(line.split_whitespace()).env("LB_SOCKET", socket);
    for colours in ["CLICOLOR", "CLICOLOR_FORCE", "NO_COLOR", "LB_LOG"] {
        command.env_remove(colours);
    }
    command
}

fn lb(socket: &Path, line: &str) -> Ran {
    let ran = command(socket, line).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { status: ran.status.code().unwrap(), out: text(ran.stdout), err: text(ran.stderr) }
}

#[test]
fn people_get_aligned_text() {
    let director = Director::start(Mood::Well);
    for (line, text) in [
        ("status", include_str!("golden/status.txt")),
        ("services", include_str!("golden/services.txt")),
        ("services dns6", include_str!("golden/services-dns6.txt")),
        ("servers", include_str!("golden/servers.txt")),
        ("servers --service cache --service dns6", include_str!("golden/servers-two.txt")),
        ("flows", include_str!("golden/flows.txt")),
        ("flows --count", "5\n"),
        ("stats", include_str!("golden/stats.txt")),
        ("reload", include_str!("golden/reload.txt")),
    ] {
        let wanted = Ran { status: 0, out: text.to_owned(), err: String::new() };
        assert_eq!(lb(&director.socket, line), wanted, "lb {line}");
    }
}

#[test]
fn counters_that_are_zero_are_shown_on_request() {
    let director = Director::start(Mood::Well);
    let all = lb(&director.socket, "stats --all").out;
    let names = || all.lines().filter_map(|line| line.split_whitespace().next());
    for reason in Reason::ALL.iter().map(|reason| reason.name()) {
        assert_eq!(names().filter(|name| *name == reason).count(), 1, "{reason} in {all}");
    }
    for note in Note::ALL.iter().map(|note| note.name()) {
        assert_eq!(names().filter(|name| *name == note).count(), 1, "{note} in {all}");
    }
}

fn parsed<T: DeserializeOwned>(director: &Director, line: &str) -> T {
    let ran = lb(&director.socket, line);
    assert_eq!((ran.status, ran.err.as_str()), (0, ""), "lb {line}");
    serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("lb {line}: {error}: {}", ran.out))
}

#[test]
fn programs_get_what_the_director_said() {
    use lb_userspace::api::Operator;
    let director = Director::start(Mood::Well);
    let fake = &*director.fake;
    assert_eq!(parsed::<Status>(&director, "status --json"), fake.status().unwrap());
    assert_eq!(parsed::<Vec<Service>>(&director, "services --json"), fake.services().unwrap());
    assert_eq!(parsed::<Stats>(&director, "stats --json"), fake.stats().unwrap());
    assert_eq!(parsed::<Reload>(&director, "reload --json").changes.len(), 2);
    assert_eq!(parsed::<Value>(&director, "flows --count --json"), json!({"flows": 5}));
    let servers: Vec<Value> = parsed(&director, "servers --json");
    let belonging: Vec<_> = servers.iter().map(|server| (&server["service"], &server["address"])).collect();
    assert_eq!(belonging.len(), 6);
    assert_eq!(belonging[4], (&json!("cache"), &json!("10.0.0.20")));
    let flows = lb(&director.socket, "flows --json").out;
    let states: Vec<_> = flows
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["state"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(states, ["ESTABLISHED", "FIN_WAIT", "ASSURED", "NONE", "UDP"]);
}

#[test]
fn flows_are_chosen_by_every_option() {
    let director = Director::start(Mood::Well);
    for (options, count) in [
        ("--service web", 3),
        ("--server 10.0.0.20", 1),
        ("--client 198.51.100.0/24", 3),
        ("--client 198.51.100.9", 1),
        ("--client 2001:db8::/32", 1),
        ("--protocol tcp", 3),
        ("--protocol any", 1),
        ("--state fin_wait", 1),
        ("--templates", 2),
        ("--templates --state ASSURED", 1),
        ("--limit 4", 4),
        ("--service web --limit 2 --protocol tcp", 2),
        ("--service dns6 --protocol tcp", 0),
    ] {
        let listed = lb(&director.socket, &format!("flows {options}"));
        assert_eq!((listed.status, listed.out.lines().count()), (0, count + 1), "lb flows {options}");
        let counted = lb(&director.socket, &format!("flows --count {options}"));
        assert_eq!(counted.out, format!("{count}\n"), "lb flows --count {options}");
    }
}

#[test]
fn no_is_exit_status_1() {
    let unknown = "there is no virtual service `mail`; there are: web, cache, dns6";
    let invalid = "/etc/lb/lb.yaml:3:5: services[0].scheduler: no scheduler `wwlc`\n\
                   /etc/lb/lb.yaml:7:5: warning: services[0].scheduler: hm\n\
                   lb: /etc/lb/lb.yaml is not valid; nothing was changed\n";
    let restart =
        "lb: flows.ipv4 (1048576 → 2097152) cannot change while the director runs; nothing was changed\n";
    for (mood, line, err) in [
        (Mood::Well, "flows --service mail", &*format!("lb: {unknown}\n")),
        (Mood::Well, "flows --count --service mail", &format!("lb: {unknown}\n")),
        (Mood::Well, "services web mail", &format!("lb: {unknown}\n")),
        (Mood::Well, "servers --service mail", &format!("lb: {unknown}\n")),
        (Mood::InvalidFile, "reload", invalid),
        (Mood::OtherTables, "reload", restart),
    ] {
        let director = Director::start(mood);
        let wanted = Ran { status: 1, out: String::new(), err: err.to_owned() };
        assert_eq!(lb(&director.socket, line), wanted, "lb {line}");
        let ran = lb(&director.socket, &format!("{line} --json"));
        assert_eq!((ran.status, ran.err.as_str()), (1, ""), "lb {line} --json");
        let failure: Value = serde_json::from_str(&ran.out).unwrap();
        assert!(failure["detail"].is_string(), "lb {line} --json: {failure}");
    }
}

#[test]
fn a_director_that_does_not_answer_is_one_line_and_exit_status_2() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("lb.sock");
    let err = format!("lb: no director answers on {}: is `lb run` running?\n", socket.display());
    for line in
        ["status", "services", "servers", "flows", "flows --count", "stats", "reload", "status --json"]
    {
        let wanted = Ran { status: 2, out: String::new(), err: err.clone() };
        assert_eq!(lb(&socket, line), wanted, "lb {line}");
    }
    // A socket somebody left behind.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert_eq!(lb(&socket, "status").err, err);

    let director = Director::start(Mood::Starting);
    let starting = Ran { status: 2, out: String::new(), err: "lb: the director is starting\n".to_owned() };
    assert_eq!(lb(&director.socket, "services"), starting);
}

#[test]
fn a_listing_that_breaks_off_is_exit_status_2() {
    let director = Director::start(Mood::BrokenMap);
    for (line, lines) in [("flows", 4), ("flows --json", 3)] {
        let ran = lb(&director.socket, line);
        assert_eq!(ran.status, 2, "lb {line}");
        assert_eq!(ran.err, "lb: cannot read the spill map: Bad file descriptor (os error 9)\n", "lb {line}");
        assert_eq!(ran.out.lines().count(), lines, "lb {line}");
    }
}

#[test]
fn wrong_usage_is_exit_status_64() {
    let nowhere = Path::new("/nonexistent");
    for line in [
        "",
        "nonsense",
        "--json status",
        "status extra",
        "flows --state OPEN",
        "flows --client 10.0.0.0/33",
        "flows --server host",
        "flows --protocol icmp",
        "flows --limit -1",
        "stats --all --json",
        "check",
        "check --socket /run/x file",
        "run",
    ] {
        let ran = lb(nowhere, line);
        assert_eq!((ran.status, ran.out.as_str()), (64, ""), "lb {line}");
        assert!(ran.err.contains("Usage: lb") || ran.err.contains("--help"), "lb {line}: {}", ran.err);
    }
    for line in ["--help", "--version", "flows --help"] {
        let ran = lb(nowhere, line);
        assert_eq!((ran.status, ran.err.as_str()), (0, ""), "lb {line}");
    }
}

#[test]
fn the_option_for_the_socket_comes_before_the_environment() {
    let director = Director::start(Mood::Well);
    let line = format!("flows --count --socket {}", director.socket.display());
    assert_eq!(lb(Path::new("/nonexistent"), &line).out, "5\n");
}

#[test]
fn check_says_all_that_is_wrong_with_every_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let good = file(
        "good.yaml",
        "interfaces: [eth0]\n\
         services:\n\
         - {address: 192.0.2.1, port: 80, servers: [{address: 10.0.0.11}]}\n",
    );
    let bad = file("bad.yaml", "interfaces: [eth0]\non_exit: stay\nvips: lost\nservices: []\n");
    let nowhere = Path::new("/nonexistent");

    let ran = lb(nowhere, &format!("check {good}"));
    assert_eq!(ran, Ran { status: 0, out: format!("{good}: valid\n"), err: String::new() });

    let ran = lb(nowhere, &format!("check {bad} {good}"));
    assert_eq!((ran.status, ran.err.as_str()), (1, ""));
    let lines: Vec<_> = ran.out.lines().collect();
    assert!(lines[0].starts_with(&format!("{bad}:2:10: on_exit: ")), "{}", ran.out);
    assert!(lines[1].starts_with(&format!("{bad}:3:7: vips: ")), "{}", ran.out);
    assert_eq!(lines.last(), Some(&&*format!("{good}: valid")));
    assert!(ran.out.contains(&format!("\n{bad}: not valid, 2 errors")), "{}", ran.out);

    let ran = lb(nowhere, &format!("check --json {bad} {good}"));
    assert_eq!((ran.status, ran.err.as_str()), (1, ""));
    let files: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&files[0]["file"], &files[0]["valid"]), (&json!(bad), &json!(false)));
    let finding = &files[0]["findings"][0];
    assert_eq!((&finding["line"], &finding["column"]), (&json!(2), &json!(10)));
    assert_eq!((&finding["path"], &finding["severity"]), (&json!("on_exit"), &json!("error")));
    assert_eq!(files[1], json!({"file": good, "valid": true, "findings": []}));
}

#[test]
fn colours_are_for_terminals() {
    let director = Director::start(Mood::Well);
    let plain = command(&director.socket, "services").output().unwrap().stdout;
    assert!(!plain.contains(&b'\x1b'));
    let coloured = command(&director.socket, "services").env("CLICOLOR_FORCE", "1").output().unwrap().stdout;
    assert!(coloured.contains(&b'\x1b'));
    assert_eq!(anstream::adapter::strip_bytes(&coloured).into_vec(), plain);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let director = Director::start(Mood::Crowded(200_000));
    let mut listing =
        command(&director.socket, "flows").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(listing.stdout.take());
    let ran = listing.wait_with_output().unwrap();
    assert_eq!((ran.status.code(), ran.stderr.len()), (Some(0), 0), "{ran:?}");
}
