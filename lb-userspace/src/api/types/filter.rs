use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};

use super::{Flow, FlowProtocol, State};

/// Which flows are asked for: those that fit every condition given. Also the query of `/v1/flows`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowFilter {
    /// Name of the virtual service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Address of the real server; its port is the flow's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<IpAddr>,
    /// Prefix the client's address is in; a plain address is its own prefix.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some_prefix")]
    pub client: Option<IpNet>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<FlowProtocol>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// Persistence templates only; otherwise flows and templates.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub templates: bool,
    /// At most this many flows, any of those that fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

impl FlowFilter {
    /// Whether `flow` fits every condition. `limit` is none.
    pub fn fits(&self, flow: &Flow) -> bool {
        fn is<T: PartialEq>(wanted: Option<T>, actual: T) -> bool {
            wanted.is_none_or(|wanted| wanted == actual)
        }
        (flow.template || !self.templates)
            && is(self.state, flow.state)
            && is(self.protocol, flow.protocol)
            && is(self.server, flow.server.ip())
            && self.client.is_none_or(|prefix| prefix.contains(&flow.client.ip()))
            && is(self.service.as_deref(), &*flow.service)
    }
}

/// The text is neither an address nor a prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither an address nor a prefix like 198.51.100.0/24")]
pub struct UnknownPrefix(String);

/// A prefix, or an address as a prefix of its full length.
///
/// # Errors
/// The text is neither.
pub fn prefix(text: &str) -> Result<IpNet, UnknownPrefix> {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse().or_else(|_| address()).map_err(|_| UnknownPrefix(text.to_owned()))
}

fn some_prefix<'de, D: Deserializer<'de>>(from: D) -> Result<Option<IpNet>, D::Error> {
    prefix(&String::deserialize(from)?).map(Some).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn flow() -> Flow {
        Flow {
            protocol: FlowProtocol::Tcp,
            client: "198.51.100.9:49153".parse().unwrap(),
            vip: Some("192.0.2.1:80".parse().unwrap()),
            server: "10.0.0.2:80".parse().unwrap(),
            service: Arc::from("web"),
            state: "ESTABLISHED".parse().unwrap(),
            expires_in_s: 899,
            template: false,
            assured: false,
        }
    }

    #[test]
    fn a_flow_has_to_fit_every_condition() {
        let cases = [
            ("", true),
            ("service=web", true),
            ("service=we", false),
            ("server=10.0.0.2", true),
            ("server=10.0.0.20", false),
            ("client=198.51.100.9", true),
            ("client=198.51.100.0/24", true),
            ("client=198.51.100.10", false),
            ("client=::/0", false),
            ("protocol=tcp", true),
            ("protocol=udp", false),
            ("state=established", true),
            ("state=SYN_RECV", false),
            ("templates=true", false),
            ("limit=0", true),
            ("service=web&client=198.51.100.0/25&state=ESTABLISHED&protocol=tcp&server=10.0.0.2", true),
            ("service=web&client=198.51.100.128/25&state=ESTABLISHED&protocol=tcp", false),
        ];
        for (query, fits) in cases {
            let filter: FlowFilter = serde_urlencoded::from_str(query).unwrap();
            assert_eq!(filter.fits(&flow()), fits, "{query}");
        }
        let templates = FlowFilter { templates: true, ..FlowFilter::default() };
        assert!(templates.fits(&Flow { template: true, ..flow() }));
    }

    #[test]
    fn a_filter_survives_the_query() {
        for query in
            ["", "service=a+b%26c&client=2001%3Adb8%3A%3A%2F32&state=TIME_WAIT&templates=true&limit=7"]
        {
            let filter: FlowFilter = serde_urlencoded::from_str(query).unwrap();
            assert_eq!(serde_urlencoded::to_string(&filter).unwrap(), query);
        }
    }

    #[test]
    fn what_a_query_cannot_mean_is_refused() {
        for query in [
            "client=10.0.0.0/33",
            "client=host",
            "state=OPEN",
            "protocol=icmp",
            "server=10.0.0.0/8",
            "port=80",
        ] {
            assert!(serde_urlencoded::from_str::<FlowFilter>(query).is_err(), "{query} was taken");
        }
    }
}
