//! What goes over the socket, byte for byte where it matters.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;

use lb_userspace::api::types::{ErrorCode, FlowFilter, Version};
use lb_userspace::client::{Client, ClientError};
use serde_json::{Value, json};

use crate::director::{Director, Mood};

/// Sends a request as it stands; status line, head and body of the answer.
fn raw(director: &Director, request: &str) -> (String, String, String) {
    let mut stream = UnixStream::connect(&director.socket).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nHost: lb\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let (status, head) = head.split_once("\r\n").unwrap();
    (status.to_owned(), head.to_owned(), body.to_owned())
}

fn block_on<T>(answer: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(answer)
}

#[test]
fn everything_that_is_no_answer_is_a_failure_in_json() {
    let cases = [
        (Mood::Well, "GET /v1/nothing", 404, "not_found", "there is no /v1/nothing"),
        (Mood::Well, "GET /v2/status", 404, "not_found", "there is no /v2/status"),
        (Mood::Well, "GET /v1/reload", 405, "method_not_allowed", "/v1/reload does not take GET"),
        (Mood::Well, "DELETE /v1/flows", 405, "method_not_allowed", "/v1/flows does not take DELETE"),
        (
            Mood::Well,
            "GET /v1/flows?port=80",
            400,
            "invalid_request",
            "Failed to deserialize query string: port: unknown field `port`, expected one of `service`, `server`, \
             `client`, `protocol`, `state`, `templates`, `limit`",
        ),
        (
            Mood::Well,
            "GET /v1/flows/count?client=10.0.0.0/40",
            400,
            "invalid_request",
            "Failed to deserialize query string: client: `10.0.0.0/40` is neither an address nor a prefix like \
             198.51.100.0/24",
        ),
        (
            Mood::Well,
            "GET /v1/flows?service=mail",
            404,
            "unknown_service",
            "there is no virtual service `mail`; there are: web, cache, dns6",
        ),
        (Mood::Starting, "GET /v1/services", 503, "not_ready", "the director is starting"),
        (
            Mood::BrokenMap,
            "GET /v1/flows/count",
            500,
            "internal",
            "cannot read the spill map: Bad file descriptor (os error 9)",
        ),
        (
            Mood::OtherTables,
            "POST /v1/reload",
            409,
            "needs_restart",
            "flows.ipv4 (1048576 → 2097152) cannot change while the director runs; nothing was changed",
        ),
    ];
    for (mood, request, status, error, detail) in cases {
        let director = Director::start(mood);
        let (line, head, body) = raw(&director, request);
        assert!(line.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {line}");
        assert!(head.to_lowercase().contains("content-type: application/json"), "{request}: {head}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body, json!({"error": error, "detail": detail}), "{request}");
    }
}

#[test]
fn a_failure_of_the_configuration_names_every_finding() {
    let director = Director::start(Mood::InvalidFile);
    let (line, _, body) = raw(&director, "POST /v1/reload");
    assert!(line.starts_with("HTTP/1.1 422 "), "{line}");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["error"], "invalid_configuration");
    assert_eq!(body["detail"], "/etc/lb/lb.yaml is not valid; nothing was changed");
    assert_eq!(
        body["findings"][0],
        json!({
            "severity": "error",
            "text": "/etc/lb/lb.yaml:3:5: services[0].scheduler: no scheduler `wwlc`",
            "line": 3,
            "column": 5,
            "path": "services[0].scheduler",
        })
    );
    assert_eq!(body["findings"].as_array().unwrap().len(), 2);
}

#[test]
fn a_bug_in_one_answer_does_not_end_the_director() {
    let director = Director::start(Mood::Bug);
    let client = Client::new(&director.socket);
    let error = block_on(client.services()).unwrap_err();
    let ClientError::Refused(failure) = error else { panic!("{error:?}") };
    assert_eq!(failure.error, ErrorCode::Internal);
    assert_eq!(block_on(client.version()).unwrap(), Version::own());
}

#[test]
fn flows_are_one_json_object_a_line() {
    let director = Director::start(Mood::Well);
    let (line, head, body) = raw(&director, "GET /v1/flows?client=198.51.100.9");
    assert!(line.starts_with("HTTP/1.1 200 "), "{line}");
    assert!(head.to_lowercase().contains("content-type: application/x-ndjson"), "{head}");
    let object = body.lines().find(|line| line.starts_with('{')).unwrap();
    assert_eq!(
        object,
        r#"{"protocol":"tcp","client":"198.51.100.9:49153","vip":"192.0.2.1:80","server":"10.0.0.2:80","service":"web","state":"ESTABLISHED","expires_in_s":899}"#
    );
}

#[test]
fn a_listing_of_many_chunks_arrives_whole() {
    const FLOWS: u32 = 20_000;
    let director = Director::start(Mood::Crowded(FLOWS));
    let client = Client::new(&director.socket);
    let listed = block_on(async {
        let mut flows = client.flows(&FlowFilter::default()).await.unwrap();
        let mut clients = Vec::new();
        while let Some(flow) = flows.next().await.unwrap() {
            clients.push(flow.client.ip());
        }
        clients
    });
    let wanted: Vec<_> = (0..FLOWS).map(|i| std::net::Ipv4Addr::from_bits(0x0b00_0000 | i)).collect();
    assert_eq!(listed, wanted);
    assert_eq!(block_on(client.count_flows(&FlowFilter::default())).unwrap(), u64::from(FLOWS));
    let few = FlowFilter { limit: Some(7), ..FlowFilter::default() };
    assert_eq!(block_on(client.count_flows(&few)).unwrap(), 7);
}

#[test]
fn a_listing_that_breaks_off_is_an_error_after_what_came_before() {
    let director = Director::start(Mood::BrokenMap);
    let client = Client::new(&director.socket);
    block_on(async {
        let mut flows = client.flows(&FlowFilter::default()).await.unwrap();
        for _ in 0..3 {
            assert!(flows.next().await.unwrap().is_some());
        }
        let error = flows.next().await.unwrap_err();
        assert_eq!(error.to_string(), "cannot read the spill map: Bad file descriptor (os error 9)");
    });
}

#[test]
fn a_reload_is_done_once_and_only_when_asked() {
    let director = Director::start(Mood::Well);
    let client = Client::new(&director.socket);
    block_on(client.status()).unwrap();
    assert_eq!(director.fake.reloads.load(Ordering::Relaxed), 0);
    assert_eq!(block_on(client.reload()).unwrap().changes.len(), 2);
    assert_eq!(director.fake.reloads.load(Ordering::Relaxed), 1);
}

#[test]
fn a_listing_nobody_reads_does_not_keep_the_director_from_stopping() {
    let mut director = Director::start(Mood::Crowded(10_000_000));
    let mut stream = UnixStream::connect(&director.socket).unwrap();
    write!(stream, "GET /v1/flows HTTP/1.1\r\nHost: lb\r\n\r\n").unwrap();
    let mut start = [0; 1];
    stream.read_exact(&mut start).unwrap();
    director.stop();
    assert!(!director.socket.exists());
    let error = block_on(Client::new(&director.socket).version()).unwrap_err();
    assert!(matches!(error, ClientError::NoDirector { .. }), "{error:?}");
}
