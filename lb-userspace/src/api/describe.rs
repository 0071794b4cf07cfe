//! The configuration in the API's words.

use crate::config::{self, Report};
use crate::model;

use super::types::{Address, Finding, Method, Persistence, Ports, Protocol, Server, Service, Severity};

/// What the configuration says of a service, with the servers it has.
pub fn service(id: u32, service: &model::Service, servers: Vec<Server>) -> Service {
    Service {
        id,
        name: service.name.clone(),
        addresses: service.selector.matches().iter().map(Address::from).collect(),
        scheduler: service.scheduler.to_string(),
        flags: flags(service),
        persistence: service.persistence.map(Persistence::from),
        one_packet: service.one_packet,
        stateless: service.stateless,
        servers,
    }
}

/// Scheduler flags under ipvsadm's names, in its order.
pub(super) fn flags(service: &model::Service) -> Vec<String> {
    let flags = [(service.flags.fallback, "fallback"), (service.flags.port, "port")];
    flags.iter().filter(|(set, _)| *set).map(|(_, name)| format!("{}-{name}", service.scheduler)).collect()
}

/// What validation found, line for line.
pub fn findings(report: &Report) -> Vec<Finding> {
    let finding = |(problem, text): (&config::Problem, String)| Finding {
        severity: match problem.severity {
            config::Severity::Error => Severity::Error,
            config::Severity::Warning => Severity::Warning,
        },
        text,
        line: problem.at.map(|at| at.line),
        column: problem.at.map(|at| at.column),
        path: problem.path.clone(),
    };
    report.problems().iter().zip(report.lines()).map(finding).collect()
}

impl From<&model::Match> for Address {
    fn from(entry: &model::Match) -> Self {
        let ports = match entry.ports {
            model::Ports::Any => Ports::Any,
            model::Ports::Range(range) => Ports::Range(range.first.get(), range.last.get()),
        };
        Self { protocol: entry.protocol.into(), prefix: entry.prefix, ports }
    }
}

impl From<model::Protocol> for Protocol {
    fn from(protocol: model::Protocol) -> Self {
        match protocol {
            model::Protocol::Tcp => Self::Tcp,
            model::Protocol::Udp => Self::Udp,
            model::Protocol::Sctp => Self::Sctp,
        }
    }
}

impl From<model::Method> for Method {
    fn from(method: model::Method) -> Self {
        match method {
            model::Method::Dr => Self::Dr,
            model::Method::Ipip => Self::Ipip,
            model::Method::Gre { checksum } => Self::Gre { checksum },
            model::Method::Gue { port, checksum } => Self::Gue { port: port.get(), checksum },
        }
    }
}

impl From<model::Persistence> for Persistence {
    fn from(persistence: model::Persistence) -> Self {
        let mask = match persistence.mask {
            model::ClientMask::V4(mask) => (!mask.is_broadcast()).then(|| mask.to_string()),
            model::ClientMask::V6(length) => (length != 128).then(|| length.to_string()),
        };
        // At most 31 days.
        let timeout_s = u32::try_from(persistence.timeout.as_secs()).unwrap_or(u32::MAX);
        Self { timeout_s, mask }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The API's words for the one service of a configuration.
    fn described(yaml: &str) -> Service {
        let text = format!("interfaces: [eth0]\nservices:\n- {yaml}\n");
        let valid = config::parse("test.yaml", &text).unwrap_or_else(|report| panic!("{report}"));
        service(7, &valid.model.services[0], Vec::new())
    }

    #[test]
    fn a_service_is_described_as_ipvsadm_would() {
        let web = described(
            "{name: web, address: 192.0.2.1, port: 80, scheduler: sh, flags: [sh-port, sh-fallback],
              persistence: {timeout: 360, netmask: 255.255.255.0}, servers: [{address: 10.0.0.11}]}",
        );
        assert_eq!((web.id, web.name.as_str(), web.scheduler.as_str()), (7, "web", "sh"));
        assert_eq!(web.flags, ["sh-fallback", "sh-port"]);
        let mask = Some("255.255.255.0".to_owned());
        assert_eq!(web.persistence, Some(Persistence { timeout_s: 360, mask }));
        let addresses: Vec<_> = web.addresses.iter().map(Address::to_string).collect();
        assert_eq!(addresses, ["192.0.2.1:80"]);
        assert_eq!(web.addresses[0].protocol, Protocol::Tcp);
    }

    #[test]
    fn a_mask_that_tells_every_client_apart_is_not_mentioned() {
        for address in ["192.0.2.1", "'2001:db8::1'"] {
            let all = described(&format!(
                "{{address: {address}, port: 80, persistence: 60, servers: [{{address: 10.0.0.11, method: ipip}}]}}"
            ));
            assert_eq!(all.persistence, Some(Persistence { timeout_s: 60, mask: None }), "{address}");
        }
    }

    #[test]
    fn methods_keep_their_options() {
        let gue = model::Method::Gue { port: 6080.try_into().unwrap(), checksum: true };
        assert_eq!(Method::from(gue), Method::Gue { port: 6080, checksum: true });
        assert_eq!(Method::from(model::Method::Gre { checksum: true }), Method::Gre { checksum: true });
        assert_eq!(Method::from(model::Method::Ipip), Method::Ipip);
        assert_eq!(Method::from(model::Method::Dr), Method::Dr);
    }
}
