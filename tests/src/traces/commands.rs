//! ipvsadm's arguments for what a scenario asks: how the recordings configured IPVS, and how to configure any
//! director that speaks ipvsadm.

use super::scenario::{Family, Method, Proto, Server, Service, ServiceKey, ServiceOptions};

/// `-A` and what follows. The service must have a [`ServiceKey`].
pub fn add_service(key: &ServiceKey, options: &ServiceOptions) -> Vec<String> {
    [vec!["-A".to_owned()], service(key), service_options(options)].concat()
}

/// `-E` and what follows.
pub fn edit_service(key: &ServiceKey, options: &ServiceOptions) -> Vec<String> {
    [vec!["-E".to_owned()], service(key), service_options(options)].concat()
}

/// `-D` and what follows.
pub fn delete_service(key: &ServiceKey) -> Vec<String> {
    [vec!["-D".to_owned()], service(key)].concat()
}

/// `-a` and what follows.
pub fn add_server(key: &ServiceKey, of: &Service, server: &Server) -> Vec<String> {
    [vec!["-a".to_owned()], service(key), real_server(of, server), server_options(server)].concat()
}

/// `-e` and what follows.
pub fn edit_server(key: &ServiceKey, of: &Service, server: &Server) -> Vec<String> {
    [vec!["-e".to_owned()], service(key), real_server(of, server), server_options(server)].concat()
}

/// `-d` and what follows.
pub fn delete_server(key: &ServiceKey, of: &Service, server: &Server) -> Vec<String> {
    [vec!["-d".to_owned()], service(key), real_server(of, server)].concat()
}

fn service(key: &ServiceKey) -> Vec<String> {
    match *key {
        ServiceKey::Mark { mark, family } => {
            let mut args = vec!["-f".to_owned(), mark.to_string()];
            if family == Family::Ipv6 {
                args.push("-6".to_owned());
            }
            args
        }
        ServiceKey::Address { proto, vip, port } => {
            let option = match proto {
                Proto::Tcp => "-t",
                Proto::Udp => "-u",
                Proto::Sctp => "--sctp-service",
            };
            vec![option.to_owned(), std::net::SocketAddr::new(vip, port).to_string()]
        }
    }
}

fn service_options(options: &ServiceOptions) -> Vec<String> {
    let mut args = Vec::new();
    let mut option = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            args.extend([name.to_owned(), value]);
        }
    };
    option("-s", options.sched.clone());
    option("-p", options.persistent.map(|seconds| seconds.to_string()));
    option("-M", options.netmask.clone());
    option("-b", options.flags.clone());
    if options.ops {
        args.push("-o".to_owned());
    }
    args.extend(options.args.iter().cloned());
    args
}

/// Port 0, said or inherited, is left out: ipvsadm then takes the service's.
fn real_server(of: &Service, server: &Server) -> Vec<String> {
    let endpoint = match server.port.or(of.port).unwrap_or(0) {
        0 => server.rip.to_string(),
        port => std::net::SocketAddr::new(server.rip, port).to_string(),
    };
    vec!["-r".to_owned(), endpoint]
}

fn server_options(server: &Server) -> Vec<String> {
    let mut args = Vec::new();
    let mut option = |words: &[&str]| args.extend(words.iter().map(|&word| word.to_owned()));
    if let Some(weight) = server.weight {
        option(&["-w", &weight.to_string()]);
    }
    match server.method {
        None => {}
        Some(Method::Dr) => option(&["-g"]),
        Some(Method::Ipip) => option(&["-i"]),
        Some(Method::Gre) => option(&["-i", "--tun-type", "gre"]),
        Some(Method::Gue) => {
            let port = server.tun_port.unwrap_or(6080).to_string();
            option(&["-i", "--tun-type", "gue", "--tun-port", &port]);
        }
        Some(Method::Masq) => option(&["-m"]),
    }
    if let Some(upper) = server.uthresh {
        option(&["-x", &upper.to_string()]);
    }
    if let Some(lower) = server.lthresh {
        option(&["-y", &lower.to_string()]);
    }
    args.extend(server.args.iter().cloned());
    args
}
