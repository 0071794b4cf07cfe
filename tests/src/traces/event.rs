//! What happens in a scenario: packets, commands, pauses, questions.

use std::net::{IpAddr, SocketAddr};

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::read::{Hex, Setting, endpoint, need, nothing_left, parse_endpoint, rest, take};
use super::scenario::{Server, Service, ServiceOptions};

/// One event of a scenario.
#[derive(Clone, Debug)]
pub struct Event {
    /// The operation's name, as the trace repeats it.
    pub op: String,
    /// Whether connections are recorded with this event, whatever the scenario says.
    pub conns: bool,
    pub action: Action,
}

/// What an event does.
#[derive(Clone, Debug)]
pub enum Action {
    /// Frames are sent to the director.
    Packet(Box<PacketEvent>),
    /// Changes a server; what is unsaid returns to its default.
    EditServer(ServerChange),
    AddServer(ServerChange),
    DeleteServer(ServerChange),
    /// Adds a service that the scenario did not start with, with its servers.
    AddService(Box<Service>),
    /// Changes a service; what is unsaid returns to its default.
    EditService {
        svc: Option<String>,
        options: ServiceOptions,
    },
    DeleteService {
        svc: Option<String>,
    },
    /// Runs ipvsadm.
    Ipvsadm {
        args: Vec<String>,
        stdin: Option<String>,
    },
    Sysctl {
        key: String,
        value: Setting,
    },
    /// Runs a shell command in a namespace of the recording: where the driver is, `cli` or `dir`.
    Shell {
        cmd: String,
        ns: Option<String>,
    },
    /// Lets this many milliseconds pass.
    Sleep {
        ms: u64,
    },
    /// Lets time pass until this many milliseconds after the start.
    Until {
        ms: u64,
    },
    /// Asks for services, servers and connections; and for ipvsadm's listings too if `text`.
    Snapshot {
        text: bool,
    },
    /// Measures the director's cost per packet.
    Bench(Box<Bench>),
}

/// A server to add, change or delete, and the service it belongs to: the first unless said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerChange {
    pub svc: Option<String>,
    pub server: Server,
}

/// Frames to send, and how.
#[derive(Clone, Debug)]
pub struct PacketEvent {
    pub body: Body,
    /// The server that sends it; unsaid: the router.
    pub from: Option<IpAddr>,
    /// Cut into fragments: how many bytes of the IP payload each takes. The last takes all that is left.
    pub frag: Vec<usize>,
    /// The order fragments are sent in, by index; some may be missing. Unsaid: all, first to last.
    pub frag_order: Option<Vec<usize>>,
    /// How often each frame is sent.
    pub repeat: u64,
    /// How long an answer is awaited, ms; unsaid: 5.
    pub wait: Option<u64>,
    /// Whether its frames are recorded, whatever the scenario says.
    pub hex: Option<bool>,
}

/// What a packet event sends.
#[derive(Clone, Debug)]
pub enum Body {
    /// A frame given whole.
    Raw(Vec<u8>),
    Packet(Box<Packet>),
}

/// A packet's kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PacketOp {
    Syn,
    Synack,
    #[default]
    Ack,
    /// PSH+ACK, with 10 bytes if `len` is unsaid.
    Data,
    /// FIN+ACK.
    Fin,
    Finonly,
    Rst,
    /// RST+ACK.
    Rstack,
    /// No flags.
    Null,
    /// `flags` says which; ACK if unsaid.
    Tcp,
    /// 10 bytes if `len` is unsaid.
    Udp,
    /// 32 bytes if `len` is unsaid.
    IcmpEcho,
    IcmpEchoReply,
    IcmpErr,
    /// Any protocol, `body` as given.
    Proto,
}

/// A packet, of an event or quoted by an ICMP error. Options a kind has no use for are without effect, as they were
/// when recorded.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Packet {
    #[serde(default)]
    pub op: PacketOp,
    #[serde(deserialize_with = "endpoint")]
    pub src: SocketAddr,
    #[serde(deserialize_with = "endpoint")]
    pub dst: SocketAddr,
    /// Bytes of payload.
    pub len: Option<usize>,
    /// TTL or hop limit; 64 if unsaid.
    pub ttl: Option<u8>,
    /// TOS or traffic class; 0 if unsaid.
    pub tos: Option<u8>,
    /// IPv4 identification; one more than the packet before if unsaid.
    pub id: Option<u16>,
    /// IPv4's DF; set on unfragmented TCP if unsaid.
    pub df: Option<bool>,
    /// IPv4 options.
    #[serde(default)]
    pub ipopts: Hex,
    /// IPv6 flow label; 0 if unsaid.
    #[serde(default)]
    pub flowlabel: u32,
    /// IPv6 extension headers: number and bytes. The first byte (next header) is filled in.
    #[serde(default)]
    pub ext: Vec<(u8, Hex)>,
    /// Letters of the TCP flags: FSRPAUEC.
    pub flags: Option<String>,
    /// TCP sequence number; unsaid: continues what was sent between these endpoints, from 1000.
    pub seq: Option<u32>,
    /// TCP acknowledgement number; 5001 with the ACK flag and 0 without if unsaid.
    pub ack: Option<u32>,
    /// TCP options.
    #[serde(default)]
    pub opts: Hex,
    /// A wrong checksum, of TCP and UDP.
    #[serde(default)]
    pub badcsum: bool,
    /// No checksum, of UDP.
    #[serde(default)]
    pub nocsum: bool,
    /// Identifier of an echo; 7 if unsaid.
    pub ident: Option<u16>,
    /// Sequence number of an echo; 1 if unsaid.
    pub iseq: Option<u16>,
    /// Type of an ICMP error; 3 if unsaid.
    #[serde(rename = "type")]
    pub kind: Option<u8>,
    /// Code of an ICMP error; 4 if unsaid.
    pub code: Option<u8>,
    /// MTU of an ICMP error of any type; 1400 if unsaid.
    pub mtu: Option<u32>,
    /// The packet an ICMP error quotes.
    pub inner: Option<Box<Packet>>,
    /// Quote the packet forwarded last, as it left the director.
    #[serde(default)]
    pub inner_last: bool,
    /// Quote this.
    pub inner_hex: Option<Hex>,
    /// Bytes an ICMP error quotes at most; 28 of IPv4 and 1232 of IPv6 if unsaid.
    pub inner_len: Option<usize>,
    /// Number of an other protocol; 132 if unsaid.
    pub proto: Option<u8>,
    /// Bytes under an other protocol.
    pub body: Option<Hex>,
}

/// A measurement; its result depends on the machine and is not compared.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bench {
    pub label: Option<String>,
    #[serde(deserialize_with = "packet_event")]
    pub packet: PacketEvent,
    pub count: Option<u64>,
    pub rounds: Option<u64>,
    /// XDP program on the director's device: `drop`, `pass`, `tx` or `pin:PATH`.
    pub xdp: Option<String>,
    #[serde(default)]
    pub peer_xdp: bool,
    pub test_run: Option<u64>,
    /// Destination MAC in place of the director's.
    pub dmac: Option<Hex>,
    #[serde(default)]
    pub vary: bool,
}

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let fields = Map::deserialize(input)?;
        let shown = Value::Object(fields.clone());
        read_event(fields).map_err(|error| D::Error::custom(format!("{error} in event {shown}")))
    }
}

fn packet_event<'de, D: Deserializer<'de>>(input: D) -> Result<PacketEvent, D::Error> {
    let mut fields = Map::deserialize(input)?;
    let op: String = need(&mut fields, "op").map_err(D::Error::custom)?;
    read_packet_event(&op, fields).map_err(D::Error::custom)
}

fn read_event(mut fields: Map<String, Value>) -> Result<Event, serde_json::Error> {
    let op: String = need(&mut fields, "op")?;
    let conns = take(&mut fields, "conns")?.unwrap_or(false);
    let action = match op.as_str() {
        "edit" => Action::EditServer(read_server_change(fields)?),
        "add" => Action::AddServer(read_server_change(fields)?),
        "del" => Action::DeleteServer(read_server_change(fields)?),
        "addsvc" => last(fields, |fields| Ok(Action::AddService(need(fields, "service")?)))?,
        "editsvc" => {
            let svc = take(&mut fields, "svc")?;
            Action::EditService { svc, options: rest(fields)? }
        }
        "delsvc" => last(fields, |fields| Ok(Action::DeleteService { svc: take(fields, "svc")? }))?,
        "ipvsadm" => last(fields, |fields| {
            Ok(Action::Ipvsadm { args: need(fields, "args")?, stdin: take(fields, "stdin")? })
        })?,
        "sysctl" => last(fields, |fields| {
            Ok(Action::Sysctl { key: need(fields, "key")?, value: need(fields, "value")? })
        })?,
        "sh" => {
            last(fields, |fields| Ok(Action::Shell { cmd: need(fields, "cmd")?, ns: take(fields, "ns")? }))?
        }
        "sleep" => last(fields, |fields| Ok(Action::Sleep { ms: take(fields, "ms")?.unwrap_or(1000) }))?,
        "until" => last(fields, |fields| Ok(Action::Until { ms: need(fields, "ms")? }))?,
        "snap" => {
            last(fields, |fields| Ok(Action::Snapshot { text: take(fields, "text")?.unwrap_or(false) }))?
        }
        "bench" => Action::Bench(rest(fields)?),
        op => Action::Packet(Box::new(read_packet_event(op, fields)?)),
    };
    Ok(Event { op, conns, action })
}

/// Reads fields and checks that none remains.
fn last(
    mut fields: Map<String, Value>,
    read: impl FnOnce(&mut Map<String, Value>) -> Result<Action, serde_json::Error>,
) -> Result<Action, serde_json::Error> {
    let action = read(&mut fields)?;
    nothing_left(&fields)?;
    Ok(action)
}

fn read_server_change(mut fields: Map<String, Value>) -> Result<ServerChange, serde_json::Error> {
    Ok(ServerChange { svc: take(&mut fields, "svc")?, server: rest(fields)? })
}

fn read_packet_event(op: &str, mut fields: Map<String, Value>) -> Result<PacketEvent, serde_json::Error> {
    let from: Option<String> = take(&mut fields, "from")?;
    let from = from.map(|text| parse_endpoint(&text)).transpose().map_err(serde_json::Error::custom)?;
    let mut event = PacketEvent {
        body: Body::Raw(Vec::new()),
        from: from.map(|endpoint| endpoint.ip()),
        frag: take(&mut fields, "frag")?.unwrap_or_default(),
        frag_order: take(&mut fields, "frag_order")?,
        repeat: take(&mut fields, "repeat")?.unwrap_or(1),
        wait: take(&mut fields, "wait")?,
        hex: take(&mut fields, "hex")?,
    };
    if op == "raw" {
        let frame: Hex = need(&mut fields, "frame")?;
        nothing_left(&fields)?;
        event.body = Body::Raw(frame.0);
    } else {
        fields.insert("op".to_owned(), op.into());
        event.body = Body::Packet(rest(fields)?);
    }
    Ok(event)
}
