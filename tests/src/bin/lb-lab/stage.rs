//! The lab with everything in it running: real servers that answer HTTP, and `lb run` on the director.

use anyhow::{Context, Result, bail};
use lb_tests::director::Director;
use lb_tests::lab::{Family, Lab, http::HttpServer, one_arm};
use lb_tests::netns;
use std::net::SocketAddr;
use std::path::Path;

/// The configuration the lab runs, as it stands in the repository.
const CONFIGURATION: &str = include_str!("../../../../configs/lab.yaml");
const REAL_SERVERS: usize = 3;
const PORT: u16 = 80;

pub(crate) struct Stage {
    // First, so that it ends before its interfaces do.
    pub director: Director,
    pub lab: Lab,
    servers: Vec<HttpServer>,
}

impl Stage {
    /// Builds the lab, starts the director in it and waits until every real server gets new flows. `prefix` names the
    /// namespaces, `folder` takes configuration and socket.
    pub(crate) fn set(prefix: &str, folder: &Path) -> Result<Self> {
        netns::remove_leftovers().context("removing what earlier labs left")?;
        let lab = one_arm(REAL_SERVERS).named(prefix).build().context("building the lab")?;
        let servers = lab.http_servers(&[PORT]).context("starting the real servers")?;
        let mut director = Director::new(&lab, folder)?;
        director.configure(CONFIGURATION)?;
        director.start_and_wait().context("starting the director")?;
        Ok(Self { director, lab, servers })
    }

    /// Where the virtual service listens.
    pub(crate) fn vip(&self) -> SocketAddr {
        SocketAddr::new(self.lab.vip(Family::V4), PORT)
    }

    /// Names of the real servers.
    pub(crate) fn names(&self) -> Vec<String> {
        self.servers.iter().map(|server| server.name().to_owned()).collect()
    }

    /// Runs an `lb` subcommand against this director and returns what it printed.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Result<String> {
        let said = self.director.lb(arguments)?;
        if said.code != Some(0) {
            bail!("lb {}: {}", arguments.join(" "), said.stderr);
        }
        Ok(said.stdout)
    }

    /// Stops the director and takes the lab down.
    pub(crate) fn strike(mut self) -> Result<()> {
        let printed = self.director.stop()?;
        if self.director.pin.exists() {
            bail!("the director left {} behind:\n{printed}", self.director.pin.display());
        }
        Ok(())
    }
}
