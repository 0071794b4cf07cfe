//! What a director must offer to be played against recordings.
//!
//! Time is the recording's: an engine never reads a clock. A runner brings it to each event's time, applies the event,
//! and puts what came out in a trace's words with [`super::classify`]; [`super::host`] answers what was passed.

use std::time::Duration;

use super::event::ServerChange;
use super::scenario::{Match, RouteMtu, Scenario, Server, Service, ServiceKey, ServiceOptions};
use super::trace::{Conn, Ran, ServiceRow};

/// What became of a frame given to a director.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// These frames left it, in this order; none when it was dropped.
    Sent(Vec<Vec<u8>>),
    /// It was left to the host's own stack, which [`super::host::answer`]s if the address is local.
    Passed,
}

/// A request a director refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("refused with status {rc}: {message}")]
pub struct Refused {
    /// ipvsadm's exit status for the same refusal.
    pub rc: i32,
    /// ipvsadm's words for it.
    pub message: String,
}

/// A director under test. It starts without services, its clock at 0, as the recordings' director with the
/// interfaces, addresses and neighbours that `tests/oracle/README.md` lists.
pub trait Engine {
    /// What it cannot do at all, so that the runner knows to leave a recording out rather than to fail it: `None` if it
    /// can play this scenario.
    fn cannot_play(&self, scenario: &Scenario) -> Option<String>;

    /// Lets time pass until this long after the start. Timers that run out on the way run out.
    fn advance_to(&mut self, since_start: Duration);

    /// Changes a setting of `/proc/sys`, by its dotted name.
    fn set(&mut self, setting: &str, value: &str) -> Result<(), Refused>;

    /// The way to these servers has this MTU.
    fn route_mtu(&mut self, route: RouteMtu);

    /// Makes an address local, of a service or of what a firewall mark matches.
    fn add_local(&mut self, destination: &Match);

    /// Packets that match belong to the service with this mark.
    fn add_mark(&mut self, key: &ServiceKey, matching: &Match);

    fn add_service(&mut self, key: &ServiceKey, options: &ServiceOptions) -> Result<(), Refused>;

    /// What `options` leaves unsaid returns to its default.
    fn edit_service(&mut self, key: &ServiceKey, options: &ServiceOptions) -> Result<(), Refused>;

    fn delete_service(&mut self, key: &ServiceKey) -> Result<(), Refused>;

    /// [`Server::endpoint`] is where the server is.
    fn add_server(&mut self, key: &ServiceKey, of: &Service, server: &Server) -> Result<(), Refused>;

    /// What `server` leaves unsaid returns to its default.
    fn edit_server(&mut self, key: &ServiceKey, of: &Service, server: &Server) -> Result<(), Refused>;

    fn delete_server(&mut self, key: &ServiceKey, of: &Service, server: &Server) -> Result<(), Refused>;

    /// Runs the director's ipvsadm with these arguments.
    fn ipvsadm(&mut self, args: &[String], stdin: Option<&str>) -> Ran;

    /// Takes in a frame that arrives on the director's interface.
    fn receive(&mut self, frame: &[u8]) -> Verdict;

    /// Every service with its servers in list order and their numbers, as listed by IPVS.
    fn services(&mut self) -> Vec<ServiceRow>;

    /// Every connection and persistence template. Sorted or not.
    fn conns(&mut self) -> Vec<Conn>;
}

/// The service and server an event means: a service of the scenario and its key.
pub fn meant<'a>(
    scenario: &'a Scenario,
    change: &'a ServerChange,
) -> Option<(ServiceKey, &'a Service, &'a Server)> {
    let service = scenario.service(change.svc.as_deref())?;
    Some((service.key()?, service, &change.server))
}
