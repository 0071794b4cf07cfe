//! Making a machine a real server, step by step and only where something is missing; and taking it back.

use super::check::{filtered, is_silent, is_spoilt};
use super::commands::{Step, Wanted, steps, steps_back, tunnel_steps, whole};
use super::decap::PROGRAM;
use super::host::{Host, HostError};
use crate::netlink::{Added, Address, Netlink, NetlinkError, Removed, Route};
use serde::Serialize;
use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;
use std::{fs, io};

/// What was done about one step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Did {
    /// The command that would have done the same.
    pub command: String,
    #[serde(flatten)]
    pub outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", content = "why", rename_all = "snake_case")]
pub enum Outcome {
    Changed,
    /// It was so before.
    Unchanged,
    /// Not done, for this reason; the check that follows says what is missing.
    Skipped(String),
}

/// Why setup or teardown stopped in the middle. What was done stays; running it again goes on.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error("writing {value} to {path}")]
    Sysctl {
        path: String,
        value: u32,
        #[source]
        source: io::Error,
    },
    #[error("`{command}`: {said}")]
    Command { command: String, said: String },
}

/// Makes everything so that has to be, in order.
///
/// # Errors
/// A step that should have been possible was not. Missing modules and devices are no errors: what needs them is skipped.
pub async fn setup(wanted: &Wanted) -> Result<Vec<Did>, SetupError> {
    let netlink = Netlink::open()?;
    let mut host = Host::read(wanted).await?;
    let mut all = steps(wanted);
    // The tunnels' part is last: with a decapsulator on the interface it is not needed.
    let is_decapsulated = host
        .ingress(wanted)
        .and_then(|name| host.interface(name))
        .is_some_and(|ingress| ingress.xdp.as_deref() == Some(PROGRAM));
    if is_decapsulated {
        all.truncate(all.len() - tunnel_steps(wanted).len());
    }
    if wanted.has_v4() {
        let spoilt = host.interfaces.iter().filter(|interface| interface.is_ethernet && is_spoilt(interface));
        let steps = spoilt.map(|interface| sysctl(&interface.name, "arp_ignore", 1));
        // Before the addresses, as the others.
        all.splice(0..0, steps);
        all.extend(filtered(wanted, &host).map(|(ingress, _)| sysctl(ingress, "rp_filter", 2)));
    }
    let mut done = Vec::new();
    for step in all {
        let outcome = take(&step, &netlink, &host).await?;
        if let (Step::Module(_), Outcome::Changed) = (&step, &outcome) {
            host = Host::read(wanted).await?;
        }
        done.push(Did { command: step.command(), outcome });
    }
    settle(wanted, &netlink).await?;
    Ok(done)
}

/// The kernel makes the route to a new IPv6 address a moment after the address.
const SETTLED_WITHIN: Duration = Duration::from_secs(1);

/// Waits until the VIPs are taken, so that what is looked at next is what will be.
async fn settle(wanted: &Wanted, netlink: &Netlink) -> Result<(), SetupError> {
    let deadline = tokio::time::Instant::now() + SETTLED_WITHIN;
    for vip in &wanted.vips {
        while !matches!(netlink.route(*vip, None).await?, Route::Local(_)) {
            if tokio::time::Instant::now() > deadline {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    Ok(())
}

fn sysctl(interface: &str, name: &'static str, value: u32) -> Step {
    Step::Sysctl { interface: interface.to_owned(), name, value }
}

async fn index(netlink: &Netlink, interface: &str) -> Result<Option<u32>, NetlinkError> {
    Ok(netlink.link_named(interface).await?.map(|link| link.ifindex))
}

async fn take(step: &Step, netlink: &Netlink, host: &Host) -> Result<Outcome, SetupError> {
    let no_device = |name: &str| Outcome::Skipped(format!("there is no device {name}"));
    match step {
        Step::Sysctl { interface, name, value } => {
            let own = match (interface.as_str(), host.interface(interface)) {
                ("all", _) => host.all,
                (_, Some(interface)) => interface.conf,
                (_, None) => return Ok(no_device(interface)),
            };
            let is_so = match *name {
                "arp_ignore" => is_silent(own.arp_ignore),
                "rp_filter" => own.rp_filter.max(host.all.rp_filter) != 1,
                _ => own.arp_announce == *value,
            };
            if is_so {
                return Ok(Outcome::Unchanged);
            }
            write(interface, name, *value)?;
            Ok(Outcome::Changed)
        }
        Step::Address { vip, on } => {
            let Some(ifindex) = index(netlink, on).await? else { return Ok(no_device(on)) };
            let address = Address { ifindex, address: *vip, prefix_len: whole(*vip), protocol: 0 };
            Ok(match netlink.add_address(&address).await? {
                Added::Added => Outcome::Changed,
                Added::AlreadyThere => Outcome::Unchanged,
            })
        }
        Step::Module(device) => {
            if host.interface(device.name).is_some() {
                return Ok(Outcome::Unchanged);
            }
            Ok(match run("modprobe", &[device.module]) {
                Ok(()) => Outcome::Changed,
                Err(said) => Outcome::Skipped(said),
            })
        }
        Step::Up(device) => match host.interface(device) {
            None => Ok(no_device(device)),
            Some(present) if present.up => Ok(Outcome::Unchanged),
            Some(_) => {
                run("ip", &["link", "set", device, "up"]).map_err(|said| failed(step, said))?;
                Ok(Outcome::Changed)
            }
        },
        Step::Gue(port) => match &host.gue_ports {
            Some(ports) if ports.contains(port) => Ok(Outcome::Unchanged),
            _ => {
                // It may be built in, or there under another name: what counts is the next command.
                let _ = run("modprobe", &["fou"]);
                Ok(match run("ip", &["fou", "add", "port", &port.to_string(), "gue"]) {
                    Ok(()) => Outcome::Changed,
                    Err(said) => Outcome::Skipped(said),
                })
            }
        },
    }
}

fn failed(step: &Step, said: String) -> SetupError {
    SetupError::Command { command: step.command(), said }
}

fn write(interface: &str, name: &str, value: u32) -> Result<(), SetupError> {
    let path = format!("/proc/sys/net/ipv4/conf/{interface}/{name}");
    fs::write(&path, value.to_string()).map_err(|source| SetupError::Sysctl { path, value, source })
}

/// What it said if it did not succeed.
fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    match Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(if said.is_empty() { format!("{program} ended with {}", output.status) } else { said })
        }
        Err(error) => Err(format!("{program} cannot be started: {error}")),
    }
}

/// Takes the VIPs away and, if they were the last on `lo`, the tunnels with them. The ARP settings stay, since they do
/// no harm and may be somebody else's, unless `reset` asks for the kernel's defaults.
///
/// # Errors
/// As for [`setup`].
pub async fn teardown(wanted: &Wanted, reset: bool) -> Result<Vec<Did>, SetupError> {
    let netlink = Netlink::open()?;
    let mut done = Vec::new();
    let (addresses, tunnels): (Vec<_>, Vec<_>) =
        steps_back(wanted).into_iter().partition(|step| matches!(step, Step::Address { .. }));
    for step in addresses {
        let (Step::Address { vip, on }, Some(command)) = (&step, step.undo()) else { continue };
        let outcome = withdraw(*vip, on, &netlink).await?;
        done.push(Did { command, outcome });
    }
    let host = Host::read(wanted).await?;
    let others: Vec<IpAddr> = host
        .interface("lo")
        .into_iter()
        .flat_map(|lo| lo.addresses.iter().map(|(address, _)| *address))
        .filter(|address| !address.is_loopback())
        .collect();
    let others = others.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    for step in tunnels {
        let Some(command) = step.undo() else { continue };
        let outcome = if others.is_empty() {
            close(&step, &host)?
        } else {
            Outcome::Skipped(format!("others may need it: {others}"))
        };
        done.push(Did { command, outcome });
    }
    if reset && wanted.has_v4() {
        for (name, value) in [("arp_announce", host.all.arp_announce), ("arp_ignore", host.all.arp_ignore)] {
            let command = sysctl("all", name, 0).command();
            let outcome = if !others.is_empty() {
                Outcome::Skipped(format!("others may need it: {others}"))
            } else if value == 0 {
                Outcome::Unchanged
            } else {
                write("all", name, 0)?;
                Outcome::Changed
            };
            done.push(Did { command, outcome });
        }
    }
    Ok(done)
}

async fn withdraw(vip: IpAddr, on: &str, netlink: &Netlink) -> Result<Outcome, SetupError> {
    let Some(ifindex) = index(netlink, on).await? else { return Ok(Outcome::Unchanged) };
    let address = Address { ifindex, address: vip, prefix_len: whole(vip), protocol: 0 };
    Ok(match netlink.remove_address(&address).await? {
        Removed::Removed => Outcome::Changed,
        Removed::NotThere => Outcome::Unchanged,
    })
}

fn close(step: &Step, host: &Host) -> Result<Outcome, SetupError> {
    match step {
        Step::Up(device) => match host.interface(device) {
            Some(present) if present.up => {
                run("ip", &["link", "set", device, "down"]).map_err(|said| failed(step, said))?;
                Ok(Outcome::Changed)
            }
            _ => Ok(Outcome::Unchanged),
        },
        Step::Gue(port) if host.gue_ports.as_ref().is_some_and(|ports| ports.contains(port)) => {
            run("ip", &["fou", "del", "port", &port.to_string()]).map_err(|said| failed(step, said))?;
            Ok(Outcome::Changed)
        }
        Step::Gue(_) | Step::Sysctl { .. } | Step::Address { .. } | Step::Module(_) => Ok(Outcome::Unchanged),
    }
}
