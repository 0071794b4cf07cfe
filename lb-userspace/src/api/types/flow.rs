use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use lb_common::net::proto;
use lb_common::{sctp, tcp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One flow, or one persistence template: a line of `ipvsadm -Lc`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    pub protocol: FlowProtocol,
    /// CIP and port; of a template the masked address and port 0.
    pub client: SocketAddr,
    /// VIP and port. `None` for a template of a service over many addresses, which holds for all of them (ipvsadm
    /// shows the firewall mark there).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vip: Option<SocketAddr>,
    /// RIP and the port packets arrive at.
    pub server: SocketAddr,
    /// Name of the virtual service.
    pub service: Arc<str>,
    pub state: State,
    /// Until the flow is forgotten if no packet comes.
    pub expires_in_s: u32,
    /// A persistence template, not a flow.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub template: bool,
    /// Of a template: one of its flows was established or answered.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub assured: bool,
}

/// How many flows fit a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowCount {
    pub flows: u64,
}

/// Protocol of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum FlowProtocol {
    Tcp,
    Udp,
    Sctp,
    /// Of a template that spans protocols: `IP` to ipvsadm.
    Any,
}

impl FlowProtocol {
    /// From the IP protocol number in a flow's key; 0 is a template that spans protocols. `None` if the director
    /// balances no such protocol.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            proto::TCP => Some(Self::Tcp),
            proto::UDP => Some(Self::Udp),
            proto::SCTP => Some(Self::Sctp),
            0 => Some(Self::Any),
            _ => None,
        }
    }

    /// As `ipvsadm -Lc` prints it.
    pub fn ipvs_name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
            Self::Any => "IP",
        }
    }
}

/// A flow's state under the name `ipvsadm -Lc` prints. Compared by name: SCTP's ESTABLISHED is TCP's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State(&'static str);

impl State {
    const UDP: &str = "UDP";
    const ASSURED: &str = "ASSURED";

    /// State number `state` of a flow of that protocol. A number that is no state is NONE.
    pub fn of_flow(protocol: FlowProtocol, state: u8) -> Self {
        let names: &[&'static str] = match protocol {
            FlowProtocol::Tcp => &tcp::state::NAMES,
            FlowProtocol::Sctp => &sctp::state::NAMES,
            FlowProtocol::Udp => return Self(Self::UDP),
            FlowProtocol::Any => &[],
        };
        Self(names.get(usize::from(state)).copied().unwrap_or(tcp::state::NAMES[0]))
    }

    /// State of a persistence template.
    pub fn of_template(assured: bool) -> Self {
        Self(if assured { Self::ASSURED } else { tcp::state::NAMES[0] })
    }

    pub fn name(self) -> &'static str {
        self.0
    }

    /// Every name there is, once.
    pub fn names() -> impl Iterator<Item = &'static str> {
        let (tcp, sctp) = (tcp::state::NAMES, sctp::state::NAMES);
        let only_sctp = sctp.into_iter().filter(move |name| !tcp.contains(name));
        tcp.into_iter().chain(only_sctp).chain([Self::UDP, Self::ASSURED])
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0)
    }
}

/// No state has that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no state of a flow; there are {list}", list = State::names().collect::<Vec<_>>().join(", "))]
pub struct UnknownState(String);

impl FromStr for State {
    type Err = UnknownState;

    /// By name, upper or lower case.
    fn from_str(text: &str) -> Result<Self, UnknownState> {
        let found = Self::names().find(|name| name.eq_ignore_ascii_case(text));
        found.map(Self).ok_or_else(|| UnknownState(text.to_owned()))
    }
}

impl Serialize for State {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.0)
    }
}

impl<'de> Deserialize<'de> for State {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <Cow<'_, str>>::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_ipvsadms_names() {
        for (protocol, state, name) in [
            (FlowProtocol::Tcp, tcp::state::ESTABLISHED, "ESTABLISHED"),
            (FlowProtocol::Tcp, tcp::state::SYNACK, "SYNACK"),
            (FlowProtocol::Tcp, 15, "NONE"),
            (FlowProtocol::Sctp, sctp::state::INIT1, "INIT1"),
            (FlowProtocol::Sctp, 7, "C-ECHOED"),
            (FlowProtocol::Udp, 0, "UDP"),
        ] {
            assert_eq!(State::of_flow(protocol, state).name(), name);
        }
        assert_eq!(State::of_template(false).name(), "NONE");
        assert_eq!(State::of_template(true).name(), "ASSURED");
    }

    #[test]
    fn every_state_is_found_by_its_name_alone() {
        let names: Vec<_> = State::names().collect();
        assert_eq!(names.len(), 11 + 12 + 2, "{names:?}");
        for name in names {
            assert_eq!(name.to_lowercase().parse(), Ok(State(name)));
        }
        let unknown = "OPEN".parse::<State>().unwrap_err().to_string();
        assert!(
            unknown.starts_with("`OPEN` is no state of a flow; there are NONE, ESTABLISHED,"),
            "{unknown}"
        );
    }
}
