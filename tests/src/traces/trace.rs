//! What a trace says happened: the services as they stood at the start, one record per event.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::outcome::{Sighting, UnknownOutcome};
use super::read::{Hex, need, nothing_left, parse_endpoint, rest, take};

/// One trace file.
#[derive(Clone, Debug)]
pub struct Trace {
    pub begin: Begin,
    /// One per event of the scenario, in its order.
    pub events: Vec<TraceEvent>,
    pub end: End,
}

/// The first line: how things stood before the first event.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Begin {
    /// The scenario's name.
    pub begin: String,
    /// Services in the kernel's table order.
    pub order: Vec<ServiceOrder>,
    /// Commands of the scenario's setup that failed.
    #[serde(default)]
    pub setup_errors: Vec<FailedCommand>,
}

/// A service with its servers in list order: newest first.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceOrder {
    /// `TCP 192.0.2.1:80`, `FWM 7`.
    pub svc: String,
    /// Scheduler and flags.
    pub sched: String,
    /// Endpoint, forwarding method, weight.
    pub list: Vec<(Endpoint, String, i64)>,
}

/// A command that failed while services were added.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailedCommand {
    /// ipvsadm's arguments, or a shell command.
    pub cmd: String,
    pub rc: i32,
    pub stderr: String,
}

/// The last line.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// The scenario's name.
    pub end: String,
    /// Milliseconds since the start.
    pub t: f64,
}

/// What happened at one event.
#[derive(Clone, Debug)]
pub struct TraceEvent {
    /// The event's index in the scenario.
    pub i: usize,
    /// The event's operation.
    pub op: String,
    /// When it began: milliseconds since the start, of the recording's clock.
    pub t: f64,
    /// A frame that came out between this event and the one before.
    pub late: Option<(Sighting, Vec<u8>)>,
    /// Servers whose numbers changed with this event. Keys are [`Endpoint`]s if the scenario starts with one service
    /// at most, else `SERVICE|ENDPOINT`; none: the server is gone.
    pub st: BTreeMap<String, Option<Counts>>,
    /// All connections after this event, sorted as texts.
    pub conns: Option<Vec<Conn>>,
    pub record: Record,
}

/// What one kind of event leaves behind.
#[derive(Clone, Debug)]
pub enum Record {
    Packet {
        outcome: Outcome,
        frames: Option<Frames>,
    },
    /// `edit add del editsvc delsvc sh`: the command, or ipvsadm's arguments joined by spaces.
    Command {
        cmd: String,
        ran: Ran,
    },
    Ipvsadm {
        args: Vec<String>,
        ran: Ran,
    },
    AddService {
        errors: Vec<FailedCommand>,
    },
    Sysctl {
        key: String,
        value: String,
        ok: bool,
    },
    Slept {
        ms: u64,
    },
    Until {
        /// How much too late it already was.
        overrun_ms: Option<f64>,
    },
    Snapshot(Snapshot),
    Bench(BenchResult),
}

/// Where the frames of a packet event went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// One frame was sent, and these came out.
    One(Vec<Sighting>),
    /// Several frames were sent; what came out after each.
    Each(Vec<Vec<Sighting>>),
}

impl Outcome {
    /// All that came out, in order.
    pub fn sightings(&self) -> impl Iterator<Item = &Sighting> {
        match self {
            Self::One(all) => std::slice::from_ref(all),
            Self::Each(each) => each.as_slice(),
        }
        .iter()
        .flatten()
    }
}

/// The frames of a packet event: all that were sent and all that came out, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frames {
    pub sent: Vec<Vec<u8>>,
    pub out: Vec<Vec<u8>>,
}

/// What a command said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ran {
    pub rc: i32,
    #[serde(default)]
    pub stdout: String,
    #[serde(default)]
    pub stderr: String,
}

/// A server's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "[i64; 3]")]
pub struct Counts {
    pub weight: i64,
    pub active: i64,
    pub inactive: i64,
}

impl From<[i64; 3]> for Counts {
    fn from([weight, active, inactive]: [i64; 3]) -> Self {
        Self { weight, active, inactive }
    }
}

/// An address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint(pub SocketAddr);

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        parse_endpoint(&String::deserialize(input)?).map(Self).map_err(D::Error::custom)
    }
}

/// An entry of the connection table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct Conn {
    /// `TCP`, `UDP`, or `IP` of a template of a firewall mark.
    pub proto: String,
    pub client: SocketAddr,
    /// Of a template of a firewall mark the address is the mark's number.
    pub vip: SocketAddr,
    pub server: SocketAddr,
    pub state: String,
    /// Seconds left.
    pub expires: u64,
    /// What a persistence engine adds.
    pub more: Vec<String>,
}

impl TryFrom<Vec<String>> for Conn {
    type Error = String;

    fn try_from(row: Vec<String>) -> Result<Self, String> {
        let [proto, client, vip, server, state, expires, more @ ..] = row.as_slice() else {
            return Err(format!("a connection has at least six columns, this {}", row.len()));
        };
        Ok(Self {
            proto: proto.clone(),
            client: parse_endpoint(client)?,
            vip: parse_endpoint(vip)?,
            server: parse_endpoint(server)?,
            state: state.clone(),
            expires: expires.parse().map_err(|_| format!("{expires:?} is not a number of seconds"))?,
            more: more.to_vec(),
        })
    }
}

/// Services and counters at one moment.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// In the kernel's table order.
    pub services: Vec<ServiceRow>,
    /// Columns of `ipvsadm -Ln --stats --exact`, row by row. They lag.
    pub stats: Vec<Vec<Cell>>,
    /// `ipvsadm -Ln`.
    pub text: Option<String>,
    /// `ipvsadm -Lnc`.
    pub text_conns: Option<String>,
}

/// A service of a snapshot.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceRow {
    pub svc: String,
    pub sched: String,
    /// Endpoint, forwarding method, weight, active, inactive; in list order.
    pub dests: Vec<(Endpoint, String, i64, i64, i64)>,
}

/// A column of statistics.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Cell {
    Number(u64),
    Text(String),
}

/// A measurement of the recording machine.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BenchResult {
    pub label: Option<String>,
    pub ns_per_packet: Option<f64>,
    #[serde(default)]
    pub rounds: Vec<f64>,
    pub returned: Option<u64>,
    pub ns_per_insn: Option<f64>,
    /// A result, or why there is none.
    pub test_run: Option<Value>,
    pub peer_error: Option<String>,
    pub error: Option<String>,
}

/// A trace that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {source}")]
pub struct TraceError {
    /// Counted from 1.
    pub line: usize,
    pub source: serde_json::Error,
}

impl Trace {
    /// Reads a trace file.
    pub fn parse(text: &str) -> Result<Self, TraceError> {
        let lines: Vec<&str> = text.lines().collect();
        let at = |index: usize| move |source| TraceError { line: index + 1, source };
        let missing = |what: &str| serde_json::Error::custom(format!("the trace ends without {what}"));
        let [first, events @ .., last] = lines.as_slice() else {
            return Err(at(lines.len())(missing("a first and a last line")));
        };
        let begin = serde_json::from_str(first).map_err(at(0))?;
        let end = serde_json::from_str(last).map_err(at(lines.len() - 1))?;
        let events = events
            .iter()
            .enumerate()
            .map(|(i, line)| {
                let event: TraceEvent = serde_json::from_str(line)?;
                if event.i != i {
                    return Err(serde_json::Error::custom(format!("event {} where {i} was due", event.i)));
                }
                Ok(event)
            })
            .enumerate()
            .map(|(i, event)| event.map_err(at(i + 1)))
            .collect::<Result<_, _>>()?;
        Ok(Self { begin, events, end })
    }
}

impl<'de> Deserialize<'de> for TraceEvent {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        read_event(Map::deserialize(input)?).map_err(D::Error::custom)
    }
}

fn read_event(mut fields: Map<String, Value>) -> Result<TraceEvent, serde_json::Error> {
    let late: Option<(String, String, Hex)> = take(&mut fields, "late")?;
    let late = match late {
        Some((to, via, frame)) => Some((sighting(&to, &via)?, frame.0)),
        None => None,
    };
    let op: String = need(&mut fields, "op")?;
    Ok(TraceEvent {
        i: need(&mut fields, "i")?,
        t: need(&mut fields, "t")?,
        late,
        st: take(&mut fields, "st")?.unwrap_or_default(),
        conns: take(&mut fields, "conns")?,
        record: read_record(&op, fields)?,
        op,
    })
}

fn read_record(op: &str, mut fields: Map<String, Value>) -> Result<Record, serde_json::Error> {
    let record = match op {
        "edit" | "add" | "del" | "editsvc" | "delsvc" | "sh" => {
            let cmd = need(&mut fields, "cmd")?;
            return Ok(Record::Command { cmd, ran: rest(fields)? });
        }
        "ipvsadm" => {
            let args = need(&mut fields, "args")?;
            return Ok(Record::Ipvsadm { args, ran: rest(fields)? });
        }
        "snap" => return Ok(Record::Snapshot(rest(fields)?)),
        "bench" => return Ok(Record::Bench(rest(fields)?)),
        "addsvc" => Record::AddService { errors: take(&mut fields, "errors")?.unwrap_or_default() },
        "sysctl" => Record::Sysctl {
            key: need(&mut fields, "key")?,
            value: need(&mut fields, "value")?,
            ok: need(&mut fields, "ok")?,
        },
        "sleep" => Record::Slept { ms: need(&mut fields, "ms")? },
        "until" => Record::Until { overrun_ms: take(&mut fields, "overrun_ms")? },
        _ => Record::Packet { outcome: read_outcome(&mut fields)?, frames: read_frames(&mut fields)? },
    };
    nothing_left(&fields)?;
    Ok(record)
}

fn read_outcome(fields: &mut Map<String, Value>) -> Result<Outcome, serde_json::Error> {
    let pair = |(to, via): (String, String)| sighting(&to, &via);
    if let Some(each) = take::<Vec<Vec<(String, String)>>>(fields, "each")? {
        let each = each.into_iter().map(|seen| seen.into_iter().map(pair).collect());
        return each.collect::<Result<_, _>>().map(Outcome::Each);
    }
    // Null says that nothing came out; absent, the line is not one of a packet.
    if !fields.contains_key("to") {
        return Err(serde_json::Error::custom("missing field `to` or `each`"));
    }
    let Some(to) = take::<String>(fields, "to")? else { return Ok(Outcome::One(Vec::new())) };
    let first = sighting(&to, &need::<String>(fields, "via")?)?;
    let also = take::<Vec<(String, String)>>(fields, "also")?.unwrap_or_default();
    [Ok(first)].into_iter().chain(also.into_iter().map(pair)).collect::<Result<_, _>>().map(Outcome::One)
}

fn read_frames(fields: &mut Map<String, Value>) -> Result<Option<Frames>, serde_json::Error> {
    let bytes = |frames: Vec<Hex>| frames.into_iter().map(|frame| frame.0).collect();
    let Some(sent) = take(fields, "in")? else { return Ok(None) };
    Ok(Some(Frames { sent: bytes(sent), out: bytes(need(fields, "out")?) }))
}

fn sighting(to: &str, via: &str) -> Result<Sighting, serde_json::Error> {
    let wrong = |error: UnknownOutcome| serde_json::Error::custom(error);
    Ok(Sighting { to: to.parse().map_err(wrong)?, via: via.parse().map_err(wrong)? })
}
