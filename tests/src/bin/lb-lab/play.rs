//! A lab that stays: `up`, `shell`, `down`.

use crate::stage::Stage;
use anyhow::{Context, Result, bail};
use clap::Args;
use lb_tests::director::{self, lb};
use lb_tests::netns;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Prefix of the namespaces, and name of the folders.
const NAME: &str = "lblab";
const FOLDER: &str = "/run/lblab";

fn folder() -> PathBuf {
    FOLDER.into()
}

/// Process id of the background process, while it runs.
fn running() -> Option<u32> {
    let id: u32 = fs::read_to_string(folder().join("pid")).ok()?.trim().parse().ok()?;
    let name = fs::read_to_string(format!("/proc/{id}/comm")).ok()?;
    (name.trim() == "lb-lab").then_some(id)
}

pub(crate) fn up() -> Result<ExitCode> {
    if running().is_some() {
        bail!("the lab is up; `cargo xtask lab down` removes it");
    }
    fs::create_dir_all(folder())?;
    let _ = fs::remove_file(folder().join("ready"));
    let log = folder().join("log");
    let output = File::create(&log)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("serve").stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    // Its own group: the shell's Ctrl-C is not meant for it.
    let mut child = command.process_group(0).spawn()?;
    let deadline = Instant::now() + Duration::from_secs(30);
    while !folder().join("ready").exists() {
        if child.try_wait()?.is_some() || Instant::now() > deadline {
            bail!("the lab did not come up:\n{}", fs::read_to_string(&log)?);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    println!("{}", fs::read_to_string(folder().join("ready"))?);
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn serve() -> Result<ExitCode> {
    let ends = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&ends))?;
    fs::write(folder().join("pid"), std::process::id().to_string())?;
    let stage = Stage::set(NAME, &folder())?;
    let hint = format!(
        "The lab is up: namespaces {NAME}-client, -router, -director, -rs1, -rs2, -rs3.\n\
         \n  cargo xtask lab shell client      then: curl http://{}/\n  \
         cargo xtask lab shell director    then: lb status; lb services; lb flows\n\n\
         The director runs {}; after an edit, `lb reload`. `cargo xtask lab down` removes everything.",
        stage.vip().ip(),
        stage.director.configuration.display()
    );
    fs::write(folder().join("ready"), hint)?;
    while !ends.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(100));
    }
    stage.strike()?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn down() -> Result<ExitCode> {
    if let Some(id) = running() {
        let id = nix::unistd::Pid::from_raw(id as i32);
        nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM)?;
        let deadline = Instant::now() + Duration::from_secs(15);
        while running().is_some() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    // Whatever a killed lab left.
    netns::remove_prefixed(&format!("{NAME}-"))?;
    for left in [folder(), director::pin(NAME)] {
        match fs::remove_dir_all(&left) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {}", left.display()));
            }
            _ => {}
        }
    }
    println!("the lab is removed");
    Ok(ExitCode::SUCCESS)
}

#[derive(Args)]
pub(crate) struct Shell {
    /// client, router, director, rs1, rs2 or rs3
    #[arg(default_value = "client")]
    host: String,
    /// A command instead of a shell
    #[arg(last = true)]
    command: Vec<String>,
}

impl Shell {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let name = format!("{NAME}-{}", self.host);
        let names = netns::names(&format!("{NAME}-"))?;
        if !names.contains(&name) {
            let hosts: Vec<_> =
                names.iter().filter_map(|name| name.split_once('-')).map(|(_, host)| host).collect();
            bail!(
                "there is no host {}; {}",
                self.host,
                if hosts.is_empty() {
                    "`cargo xtask lab up` first".into()
                } else {
                    format!("there are {}", hosts.join(", "))
                }
            );
        }
        let shell = std::env::var("SHELL").unwrap_or_else(|_| "/bin/sh".into());
        let mut command = Command::new("nsenter");
        // Not `ip netns exec`, which hides the bpffs.
        command.arg(format!("--net=/run/netns/{name}"));
        if self.command.is_empty() {
            command.arg(shell)
        } else {
            command.args(&self.command)
        };
        let path = lb()?;
        let path = path.parent().unwrap_or(Path::new("."));
        let old = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{old}", path.display()));
        command.env("LB_SOCKET", folder().join("lb.sock"));
        Err(command.exec()).context("starting nsenter (Debian package util-linux)")
    }
}
