//! What only another kernel than the developer's shows: run by `cargo xtask vm-test` in a virtual machine with Debian's.
//!
//! The program loads there and its packet cases hold; and what that kernel has and minimal ones lack works with it: tunnel
//! devices on the real servers, bonds, VLAN devices.

#[path = "../datapath_kernel.rs"]
mod datapath_kernel;
#[path = "../datapath_load.rs"]
mod datapath_load;
mod links;
mod tunnels;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use lb_tests::director::Director;
use lb_tests::lab::client::{Client, Load, tally};
use lb_tests::lab::http::{HttpServer, sha256};
use lb_tests::lab::{Family, Lab};
use lb_userspace::api::types::Mode;

/// Port of the first service; the others count up from it.
const PORT: u16 = 8000;
/// Requests to each server of a service.
const REQUESTS: usize = 10;
/// Bytes of an upload: some thousand segments.
const LARGE: usize = 5 << 20;

/// A service of the lab's VIP and the real servers' addresses.
struct Service {
    sentence: &'static str,
    family: Family,
    servers: Vec<String>,
    /// More keys of each server.
    method: &'static str,
}

/// A lab with everything running in it.
struct Scene {
    // In the order of their end.
    director: Director,
    client: Client,
    http: Vec<HttpServer>,
    lab: Lab,
    services: Vec<Service>,
    _folder: tempfile::TempDir,
}

impl Scene {
    /// Starts servers, and a director with these services round robin, on successive ports, and waits until every server
    /// is in use.
    fn start(lab: Lab, interface: &str, services: Vec<Service>) -> Self {
        let ports: Vec<u16> = (PORT..).take(services.len()).collect();
        let http = lab.http_servers(&ports).unwrap();
        let client = lab.client().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut director = Director::new(&lab, folder.path()).unwrap();
        let mut yaml = format!("interfaces: [{interface}]\nflows: 64K\nservices:\n");
        for (service, port) in services.iter().zip(ports) {
            let vip = lab.vip(service.family);
            yaml += &format!("  - address: \"{vip}\"\n    port: {port}\n    scheduler: rr\n    servers:\n");
            for server in &service.servers {
                yaml += &format!("      - {{address: \"{server}\", {}}}\n", service.method);
            }
        }
        director.configure(&yaml).unwrap();
        let status = director.start_and_wait().unwrap();
        assert_eq!(status.interfaces[0].mode, Mode::Native, "{:?}", status.interfaces);
        Scene { director, client, http, lab, services, _folder: folder }
    }

    /// Every service answers from each server in its turn, and takes a large upload whole.
    fn every_service_works(&self) {
        let body: Vec<u8> = (0..LARGE as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let hash = sha256(&body);
        for (number, Service { sentence, family, .. }) in self.services.iter().enumerate() {
            // Shown with a failure.
            println!("{sentence}");
            let target = SocketAddr::new(self.lab.vip(*family), PORT + number as u16);
            let outcomes = self.client.http(&Load::new(target, REQUESTS * self.http.len()).concurrency(2));
            let wanted: BTreeMap<String, usize> =
                self.http.iter().map(|server| (server.name().to_owned(), REQUESTS)).collect();
            assert_eq!(tally(&outcomes), wanted, "{sentence}");
            let answer = self.client.upload(target, body.clone());
            let answer = answer.unwrap_or_else(|error| panic!("{error:?}\n{}", self.director.printed()));
            assert_eq!((answer.length, &answer.sha256), (LARGE as u64, &hash), "{sentence}");
        }
    }

    /// Packets counted under a reason.
    fn packets(&self, reason: &str) -> u64 {
        let reasons = self.director.stats().unwrap().reasons;
        reasons.iter().find(|count| count.name == reason).map_or(0, |count| count.packets)
    }
}
