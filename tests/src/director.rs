//! A director in a lab: `lb run` with a configuration and places of its own, to be asked, told, killed and started again.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use lb_userspace::api::types::{Flow, FlowFilter, Reload, Server, Stats, Status};
use lb_userspace::client::{Client, ClientError};
use nix::sys::signal::Signal;

use crate::lab::Lab;
use crate::lab::process::{Process, ProcessError};
use crate::netns::{Namespace, NetnsError};

/// How long the director may take for anything it is waited for.
pub const PATIENCE: Duration = Duration::from_secs(20);
const BPFFS: &str = "/sys/fs/bpf";

/// Why a director could not be run or did not do what it was waited for.
#[derive(Debug, thiserror::Error)]
pub enum DirectorError {
    #[error("{} is missing: run `cargo xtask build`", .0.display())]
    NotBuilt(PathBuf),
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("{what} {}", path.display())]
    File { what: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot run lb {arguments}")]
    Run { arguments: String, source: io::Error },
    #[error("the director ended ({status}):\n{printed}")]
    Ended { status: ExitStatus, printed: String },
    #[error("not so after {PATIENCE:?}: {what}\n{state}\n{printed}")]
    Waited { what: String, state: String, printed: String },
}

/// What a finished `lb` subcommand left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Exit status; `None` if a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A director with a configuration file, a socket and a folder for pinned maps that nobody else uses. Dropping it kills
/// the process and removes what is pinned, however the test ends.
#[derive(Debug)]
pub struct Director {
    namespace: Namespace,
    pub configuration: PathBuf,
    pub socket: PathBuf,
    /// bpffs folder of the maps.
    pub pin: PathBuf,
    process: Option<Process>,
    runtime: tokio::runtime::Runtime,
}

impl Director {
    /// A director for the lab, not started: `lb.yaml` and `lb.sock` in `folder`, pins in [`pin`] of the lab's prefix.
    pub fn new(lab: &Lab, folder: &Path) -> Result<Self, DirectorError> {
        Self::named(lab, folder, "lb", pin(lab.prefix()))
    }

    /// Another one in the same namespace, with other places.
    pub fn second(lab: &Lab, folder: &Path) -> Result<Self, DirectorError> {
        Self::named(lab, folder, "second", pin(&format!("{}-second", lab.prefix())))
    }

    /// A director in a namespace that is of no lab, pinned in [`pin`] of `prefix`.
    pub fn alone(namespace: &Namespace, folder: &Path, prefix: &str) -> Result<Self, DirectorError> {
        Self::placed(namespace, folder, "lb", pin(prefix))
    }

    fn named(lab: &Lab, folder: &Path, name: &str, pin: PathBuf) -> Result<Self, DirectorError> {
        Self::placed(&lab.director.namespace, folder, name, pin)
    }

    fn placed(namespace: &Namespace, folder: &Path, name: &str, pin: PathBuf) -> Result<Self, DirectorError> {
        remove_leftovers();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| DirectorError::Run { arguments: "(its client)".into(), source })?;
        Ok(Director {
            namespace: Namespace::open(namespace.name())?,
            configuration: folder.join(format!("{name}.yaml")),
            socket: folder.join(format!("{name}.sock")),
            pin,
            process: None,
            runtime,
        })
    }

    /// Writes the configuration, with this director's places added to `yaml`.
    pub fn configure(&self, yaml: &str) -> Result<(), DirectorError> {
        let places = format!("socket: {}\npin: {}\n", self.socket.display(), self.pin.display());
        // In one step: the director may be reading it.
        let aside = self.configuration.with_extension("new");
        fs::write(&aside, format!("{}\n{places}", yaml.trim_end()))
            .and_then(|()| fs::rename(&aside, &self.configuration))
            .map_err(|source| DirectorError::File {
                what: "writing",
                path: self.configuration.clone(),
                source,
            })
    }

    /// The command that starts it, for tests that start it in some other way.
    pub fn command(&self) -> Result<Command, DirectorError> {
        let mut command = Command::new(lb()?);
        command.arg("run").arg("--config").arg(&self.configuration);
        Ok(command)
    }

    /// Starts `lb run`.
    pub fn start(&mut self) -> Result<(), DirectorError> {
        self.process = Some(Process::spawn(&self.namespace, &mut self.command()?)?);
        Ok(())
    }

    /// Runs it in the expectation that it ends by itself.
    pub fn start_in_vain(&self, command: &mut Command) -> Result<Said, DirectorError> {
        let mut process = Process::spawn(&self.namespace, command)?;
        match process.wait(PATIENCE)? {
            Some(status) => {
                Ok(Said { code: status.code(), stdout: String::new(), stderr: process.printed() })
            }
            None => Err(DirectorError::Waited {
                what: "the director ends".into(),
                state: String::new(),
                printed: process.printed(),
            }),
        }
    }

    /// Starts it and waits until every real server of a weight above 0 gets new flows.
    pub fn start_and_wait(&mut self) -> Result<Status, DirectorError> {
        self.start()?;
        self.wait_until_ready()
    }

    /// Waits until it answers and every real server of a weight above 0 gets new flows.
    pub fn wait_until_ready(&mut self) -> Result<Status, DirectorError> {
        self.wait_for("every server is eligible", |status| {
            servers(status).all(|server| server.eligible || server.weight == 0)
        })
    }

    /// Waits until the director answers with such a status.
    pub fn wait_for(&mut self, what: &str, is_so: impl Fn(&Status) -> bool) -> Result<Status, DirectorError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(process) = &mut self.process
                && let Some(status) = process.wait(Duration::ZERO)?
            {
                return Err(DirectorError::Ended { status, printed: process.printed() });
            }
            let answer = self.status();
            if let Ok(status) = &answer
                && is_so(status)
            {
                return Ok(status.clone());
            }
            if Instant::now() > deadline {
                let state = answer
                    .map_or_else(|error| format!("{error:#}"), |status| format!("{:#?}", status.services));
                return Err(DirectorError::Waited { what: what.to_owned(), state, printed: self.printed() });
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn status(&self) -> Result<Status, ClientError> {
        self.runtime.block_on(Client::new(&self.socket).status())
    }

    pub fn stats(&self) -> Result<Stats, ClientError> {
        self.runtime.block_on(Client::new(&self.socket).stats())
    }

    /// The flows that fit, of those the director lists.
    pub fn flows(&self, filter: &FlowFilter) -> Result<Vec<Flow>, ClientError> {
        self.runtime.block_on(async {
            let mut lines = Client::new(&self.socket).flows(filter).await?;
            let mut flows = Vec::new();
            while let Some(flow) = lines.next().await? {
                flows.push(flow);
            }
            Ok(flows)
        })
    }

    pub fn reload(&self) -> Result<Reload, ClientError> {
        self.runtime.block_on(Client::new(&self.socket).reload())
    }

    /// Runs an `lb` subcommand against this director to its end.
    pub fn lb(&self, arguments: &[&str]) -> Result<Said, DirectorError> {
        let mut command = Command::new(lb()?);
        command.args(arguments).arg("--socket").arg(&self.socket);
        let output = command
            .output()
            .map_err(|source| DirectorError::Run { arguments: arguments.join(" "), source })?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        Ok(Said { code: output.status.code(), stdout, stderr })
    }

    /// Sends a signal to the running director; without one, does nothing.
    pub fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            process.signal(signal);
        }
    }

    /// What the running director has printed so far.
    pub fn printed(&self) -> String {
        self.process.as_ref().map(Process::printed).unwrap_or_default()
    }

    /// Waits until the running director has logged `text`.
    pub fn wait_for_log(&self, text: &str) -> Result<(), DirectorError> {
        match &self.process {
            Some(process) => Ok(process.wait_for(text, PATIENCE)?),
            None => Ok(()),
        }
    }

    /// Kills it as a crash would.
    pub fn kill(&mut self) -> Result<(), DirectorError> {
        if let Some(process) = self.process.take() {
            process.kill()?;
        }
        Ok(())
    }

    /// Stops it in order, and returns what it printed. An exit status other than 0 is an error.
    pub fn stop(&mut self) -> Result<String, DirectorError> {
        let Some(process) = self.process.take() else { return Ok(String::new()) };
        match process.terminate(PATIENCE)? {
            (status, printed) if status.success() => Ok(printed),
            (status, printed) => Err(DirectorError::Ended { status, printed }),
        }
    }
}

impl Drop for Director {
    fn drop(&mut self) {
        // One that did not stop in order leaves its maps.
        drop(self.process.take());
        let _ = fs::remove_dir_all(&self.pin);
    }
}

/// Where the director of a lab pins its maps.
pub fn pin(prefix: &str) -> PathBuf {
    Path::new(BPFFS).join(prefix)
}

/// Removes what directors of dead tests left pinned: folders named by [`crate::netns::unique_prefix`].
fn remove_leftovers() {
    let owner = |name: &str| name.strip_prefix("lb-")?.split('-').next()?.parse::<u32>().ok();
    for entry in fs::read_dir(BPFFS).into_iter().flatten().flatten() {
        if owner(&entry.file_name().to_string_lossy())
            .is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
        {
            // Another test may be removing the same.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Every real server of every service.
pub fn servers(status: &Status) -> impl Iterator<Item = &Server> {
    status.services.iter().flat_map(|service| &service.servers)
}

/// The first real server with this RIP.
///
/// # Panics
/// When there is none.
pub fn server(status: &Status, address: impl Into<IpAddr>) -> &Server {
    let address = address.into();
    let found = servers(status).find(|server| server.address == address);
    found.unwrap_or_else(|| panic!("no server {address} in {:#?}", status.services))
}

/// The program `lb` built with the running one: beside it, or for a test one folder up.
pub fn lb() -> Result<PathBuf, DirectorError> {
    let here = std::env::current_exe().map_err(|source| DirectorError::File {
        what: "finding",
        path: "/proc/self/exe".into(),
        source,
    })?;
    let mut folder = here.parent().unwrap_or(Path::new("."));
    if folder.ends_with("deps") {
        folder = folder.parent().unwrap_or(folder);
    }
    let lb = folder.join("lb");
    if lb.exists() { Ok(lb) } else { Err(DirectorError::NotBuilt(lb)) }
}
