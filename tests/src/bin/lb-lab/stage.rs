//! The lab with everything in it running: real servers that answer HTTP, and `lb run` on the director.

use anyhow::{Context, Result, bail};
use lb_tests::lab::{Family, Lab, http::HttpServer, one_arm, process::Process};
use lb_tests::netns;
use lb_userspace::api::types::Status;
use lb_userspace::client::Client;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The configuration the lab runs, as it stands in the repository.
const CONFIGURATION: &str = include_str!("../../../../configs/lab.yaml");
const REAL_SERVERS: usize = 3;
const PORT: u16 = 80;
/// How long the director may take until every real server can be used.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Stage {
    pub lab: Lab,
    pub socket: PathBuf,
    pub configuration: PathBuf,
    /// `None` once it was stopped.
    director: Option<Process>,
    servers: Vec<HttpServer>,
    /// bpffs folder of the director's maps.
    pin: PathBuf,
}

impl Stage {
    /// Builds the lab and starts the director in it. `prefix` names the namespaces, `folder` takes configuration and
    /// socket.
    pub(crate) fn set(prefix: &str, folder: &Path) -> Result<Self> {
        netns::remove_leftovers().context("removing what earlier labs left")?;
        let lab = one_arm(REAL_SERVERS).named(prefix).build().context("building the lab")?;
        let servers = lab.http_servers(&[PORT]).context("starting the real servers")?;
        let socket = folder.join("lb.sock");
        let configuration = folder.join("lab.yaml");
        let pin = PathBuf::from(format!("/sys/fs/bpf/{prefix}"));
        let places = format!("socket: {}\npin: {}\n", socket.display(), pin.display());
        fs::write(&configuration, format!("{CONFIGURATION}{places}"))
            .with_context(|| format!("writing {}", configuration.display()))?;
        let mut command = Command::new(lb()?);
        command.arg("run").arg("--config").arg(&configuration);
        let director =
            Process::spawn(&lab.director.namespace, &mut command).context("starting the director")?;
        Ok(Self { lab, socket, configuration, director: Some(director), servers, pin })
    }

    /// Waits until every real server is eligible.
    pub(crate) fn wait_until_ready(&mut self) -> Result<Status> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = Client::new(&self.socket);
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.director().wait(Duration::ZERO).ok().flatten() {
                bail!("the director ended ({status}):\n{}", self.director().printed());
            }
            let answer = runtime.block_on(client.status());
            if let Ok(status) = &answer
                && status.services.iter().flat_map(|service| &service.servers).all(|server| server.eligible)
            {
                return answer.map_err(Into::into);
            }
            if Instant::now() > deadline {
                bail!(
                    "the director is not ready after {} s: {}\n{}",
                    PATIENCE.as_secs(),
                    answer.map_or_else(
                        |error| format!("{error:#}"),
                        |status| format!("{:#?}", status.services)
                    ),
                    self.director().printed()
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn director(&mut self) -> &mut Process {
        self.director.as_mut().expect("only `strike` takes it")
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
        let output = Command::new(lb()?).args(arguments).arg("--socket").arg(&self.socket).output()?;
        if !output.status.success() {
            bail!("lb {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Stops the director and takes the lab down.
    pub(crate) fn strike(mut self) -> Result<()> {
        let director = self.director.take().expect("only `strike` takes it");
        let (status, printed) = director.terminate(Duration::from_secs(10))?;
        if !status.success() {
            bail!("the director ended badly ({status}):\n{printed}");
        }
        if self.pin.exists() {
            bail!("the director left {} behind:\n{printed}", self.pin.display());
        }
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // A director that did not stop in order leaves its maps.
        drop(self.director.take());
        let _ = fs::remove_dir_all(&self.pin);
    }
}

/// The program built beside this one.
pub(crate) fn lb() -> Result<PathBuf> {
    let lb = std::env::current_exe()?.with_file_name("lb");
    if !lb.exists() {
        bail!("{} is missing: run `cargo xtask build`", lb.display());
    }
    Ok(lb)
}
