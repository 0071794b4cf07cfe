//! Network namespaces: made under unique names, entered by threads and commands, removed when dropped.
//!
//! Namespaces are made and wired with `ip`(8), so that a failure names a command the reader can repeat by hand.
//! Threads enter them with setns(2). A command is started from a thread that has entered the namespace rather
//! than through `ip netns exec`, because the latter mounts a fresh /sys over the command's and hides a mounted
//! /sys/fs/bpf from it.

use std::fs;
use std::io::{self, Write as _};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Where iproute2 keeps the names of namespaces.
const NAMES: &str = "/run/netns";

/// Why a namespace could not be made, changed or entered.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    #[error("cannot start `{command}` (is it installed?)")]
    Start { command: String, source: io::Error },
    #[error("`{command}` failed ({status}): {stderr}")]
    Command { command: String, status: ExitStatus, stderr: String },
    #[error("cannot enter network namespace {namespace}")]
    Enter { namespace: String, source: io::Error },
    #[error("cannot set {key} to {value:?} in network namespace {namespace}")]
    Sysctl { namespace: String, key: String, value: String, source: io::Error },
    #[error("cannot list {NAMES}")]
    List { source: io::Error },
}

/// A prefix no other lab uses: `lb-<pid>-<n>`. [`remove_leftovers`] knows it by this form.
pub fn unique_prefix() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("lb-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A named network namespace with its loopback interface up.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    on_drop: OnDrop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnDrop {
    Remove,
    Keep,
}

impl Namespace {
    /// Makes the namespace; it is removed when this value is dropped.
    /// The first call of a process also removes what dead processes left behind.
    pub fn create(name: &str) -> Result<Self, NetnsError> {
        static LEFTOVERS: Once = Once::new();
        LEFTOVERS.call_once(|| {
            if let Err(error) = remove_leftovers() {
                tracing::warn!(%error, "namespaces of dead processes remain");
            }
        });
        run(Command::new("ip").args(["netns", "add", name]))?;
        let namespace = Namespace { name: name.to_owned(), on_drop: OnDrop::Remove };
        namespace.ip(["link set lo up"])?;
        Ok(namespace)
    }

    /// A namespace that exists already; dropping this value leaves it in place.
    pub fn open(name: &str) -> Result<Self, NetnsError> {
        let namespace = Namespace { name: name.to_owned(), on_drop: OnDrop::Keep };
        namespace.run(|| ())?;
        Ok(namespace)
    }

    /// Name as `ip netns` lists it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Leaves the namespace in place when this value is dropped; [`remove_prefixed`] removes it later.
    pub fn keep(&mut self) {
        self.on_drop = OnDrop::Keep;
    }

    /// Runs `f` on a thread of its own inside the namespace and waits for it. A panic in `f` goes on here.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| self.enter().map(|()| f()));
            inside.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Moves the calling thread into the namespace, for good: for threads that exist for nothing else.
    pub(crate) fn enter(&self) -> Result<(), NetnsError> {
        fs::File::open(self.path())
            .and_then(|file| setns(file, CloneFlags::CLONE_NEWNET).map_err(io::Error::from))
            .map_err(|source| NetnsError::Enter { namespace: self.name.clone(), source })
    }

    /// Starts a command in the namespace.
    pub fn spawn(&self, command: &mut Command) -> Result<Child, NetnsError> {
        let shown = show(command);
        self.run(|| command.spawn())?.map_err(|source| NetnsError::Start { command: shown, source })
    }

    /// Runs a command in the namespace to its end and returns its standard output; a non-zero exit is an error.
    pub fn output(&self, command: &mut Command) -> Result<String, NetnsError> {
        self.run(|| run(command))?
    }

    /// Runs `ip` commands (without the word `ip`) in the namespace, in order, in one process.
    pub fn ip(&self, lines: impl IntoIterator<Item = impl AsRef<str>>) -> Result<(), NetnsError> {
        let script: String =
            lines.into_iter().flat_map(|line| [line.as_ref().to_owned(), "\n".into()]).collect();
        let mut command = Command::new("ip");
        command.args(["-n", &self.name, "-batch", "-"]);
        let shown = format!("{} <<< '{}'", show(&command), script.trim_end().replace('\n', "; "));
        let start = |source| NetnsError::Start { command: shown.clone(), source };
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(start)?;
        // A failed write means that `ip` gave up early; its exit status and words say why.
        let _ = child.stdin.take().map(|mut stdin| stdin.write_all(script.as_bytes()));
        let output = child.wait_with_output().map_err(start)?;
        succeeded(shown, output).map(drop)
    }

    /// Sets kernel parameters of the namespace, in order: `("net.ipv4.ip_forward", "1")`. Interface names in the
    /// key must not contain dots.
    pub fn sysctl(&self, settings: &[(&str, &str)]) -> Result<(), NetnsError> {
        self.run(|| {
            for (key, value) in settings {
                let path = Path::new("/proc/sys").join(key.replace('.', "/"));
                fs::write(path, value).map_err(|source| NetnsError::Sysctl {
                    namespace: self.name.clone(),
                    key: (*key).into(),
                    value: (*value).into(),
                    source,
                })?;
            }
            Ok(())
        })?
    }

    fn path(&self) -> PathBuf {
        Path::new(NAMES).join(&self.name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if self.on_drop == OnDrop::Remove
            && let Err(error) = run(Command::new("ip").args(["netns", "del", &self.name]))
        {
            tracing::warn!(namespace = self.name, %error, "network namespace not removed");
        }
    }
}

/// Names of the namespaces that start with `prefix`.
pub fn names(prefix: &str) -> Result<Vec<String>, NetnsError> {
    let list = |source| NetnsError::List { source };
    let entries = match fs::read_dir(NAMES) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(list(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(list)?.file_name().to_string_lossy().into_owned();
        if name.starts_with(prefix) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Removes the namespaces whose name starts with `prefix`, and kills the processes in them (their main thread
/// decides where a process is), this one excepted. Returns the names removed.
pub fn remove_prefixed(prefix: &str) -> Result<Vec<String>, NetnsError> {
    let names = names(prefix)?;
    for name in &names {
        remove(name)?;
    }
    Ok(names)
}

/// Removes the namespaces named by [`unique_prefix`] whose process is gone, and the processes in them.
/// Returns the names removed.
pub fn remove_leftovers() -> Result<Vec<String>, NetnsError> {
    let mut removed = Vec::new();
    for name in names("lb-")? {
        if owner(&name).is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            remove(&name)?;
            removed.push(name);
        }
    }
    Ok(removed)
}

/// The process that made a namespace, from its name `lb-<pid>-<n>-<role>`.
fn owner(name: &str) -> Option<u32> {
    let mut parts = name.strip_prefix("lb-")?.splitn(3, '-');
    let pid = parts.next()?.parse().ok()?;
    let _lab: u32 = parts.next()?.parse().ok()?;
    parts.next().map(|_role| pid)
}

fn remove(name: &str) -> Result<(), NetnsError> {
    let removed = run(Command::new("ip").args(["netns", "pids", name])).and_then(|pids| {
        for pid in pids.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()) {
            if pid != std::process::id() {
                // ESRCH: it ended by itself.
                let _: Result<(), Errno> = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
            }
        }
        run(Command::new("ip").args(["netns", "del", name]))
    });
    match removed {
        // Another process may be removing the same leftovers.
        Err(_) if !Path::new(NAMES).join(name).exists() => Ok(()),
        other => other.map(drop),
    }
}

fn run(command: &mut Command) -> Result<String, NetnsError> {
    let shown = show(command);
    match command.stdin(Stdio::null()).output() {
        Ok(output) => succeeded(shown, output),
        Err(source) => Err(NetnsError::Start { command: shown, source }),
    }
}

fn succeeded(command: String, output: Output) -> Result<String, NetnsError> {
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(NetnsError::Command { command, status: output.status, stderr })
    }
}

fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::owner;

    #[test]
    fn only_names_of_this_form_have_an_owner() {
        for (name, pid) in [
            ("lb-4711-0-client", Some(4711)),
            ("lb-4711-12-rs-1", Some(4711)),
            ("lb-4711-client", None),
            ("lb-4711-0", None),
            ("lb-lab-client", None),
            ("lb-lab-0-client", None),
            ("lab-4711-0-client", None),
        ] {
            assert_eq!(owner(name), pid, "{name}");
        }
    }
}
