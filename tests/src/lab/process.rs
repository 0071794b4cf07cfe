//! Programs run in a namespace, such as the director, with their output captured and an orderly end.

use std::io::{self, BufRead as _, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::netns::{Namespace, NetnsError};

/// Why a program did not do what was waited for. Each carries what it printed until then.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error("{program} did not print {pattern:?} within {after:?}; it printed:\n{output}")]
    Silent { program: String, pattern: String, after: Duration, output: String },
    #[error("{program} ended before printing {pattern:?}; it printed:\n{output}")]
    Ended { program: String, pattern: String, output: String },
    #[error("{program} did not end within {after:?} of {signal}; it printed:\n{output}")]
    Stubborn { program: String, signal: Signal, after: Duration, output: String },
    #[error("cannot wait for {program}")]
    Wait { program: String, source: io::Error },
}

/// A running program; killed (SIGKILL, to its process id alone) when dropped.
#[derive(Debug)]
pub struct Process {
    program: String,
    child: Child,
    output: Arc<Output>,
    readers: Vec<thread::JoinHandle<()>>,
}

/// Standard output and error, interleaved line by line as they arrived.
#[derive(Debug, Default)]
struct Output {
    text: Mutex<Text>,
    grown: Condvar,
}

#[derive(Debug, Default)]
struct Text {
    lines: String,
    /// Of standard output and standard error, how many have reached their end.
    ended: usize,
}

impl Process {
    /// Starts `command` in the namespace with nothing on its standard input.
    pub fn spawn(namespace: &Namespace, command: &mut Command) -> Result<Self, NetnsError> {
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child =
            namespace.spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))?;
        let output = Arc::new(Output::default());
        let mut readers = Vec::new();
        readers.extend(child.stdout.take().map(|pipe| collect(pipe, Arc::clone(&output))));
        readers.extend(child.stderr.take().map(|pipe| collect(pipe, Arc::clone(&output))));
        Ok(Process { program, child, output, readers })
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What the program has printed so far, on standard output and error.
    pub fn printed(&self) -> String {
        self.output.text.lock().unwrap_or_else(PoisonError::into_inner).lines.clone()
    }

    /// Waits until the program has printed `pattern`, at any time since its start.
    pub fn wait_for(&self, pattern: &str, after: Duration) -> Result<(), ProcessError> {
        let deadline = Instant::now() + after;
        let mut text = self.output.text.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let (program, pattern_owned) = (self.program.clone(), pattern.to_owned());
            if text.lines.contains(pattern) {
                return Ok(());
            }
            let output = text.lines.clone();
            if text.ended == self.readers.len() {
                return Err(ProcessError::Ended { program, pattern: pattern_owned, output });
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ProcessError::Silent { program, pattern: pattern_owned, after, output });
            }
            text = self.output.grown.wait_timeout(text, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Sends a signal, SIGHUP for instance. A program that has ended already is not an error.
    pub fn signal(&self, signal: Signal) {
        if let Err(error) = kill(Pid::from_raw(self.child.id().cast_signed()), signal)
            && error != Errno::ESRCH
        {
            tracing::warn!(program = self.program, %signal, %error, "signal not sent");
        }
    }

    /// Waits for the program to end by itself.
    pub fn wait(&mut self, after: Duration) -> Result<Option<ExitStatus>, ProcessError> {
        let deadline = Instant::now() + after;
        loop {
            let wait = |source| ProcessError::Wait { program: self.program.clone(), source };
            let status = self.child.try_wait().map_err(wait)?;
            if status.is_some() {
                // All that was printed is in `printed` now, unless a grandchild holds the pipes open.
                while self.readers.iter().any(|reader| !reader.is_finished()) && Instant::now() < deadline {
                    thread::sleep(Duration::from_millis(1));
                }
            }
            if status.is_some() || Instant::now() >= deadline {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Sends SIGTERM and waits for the end; one that does not come is an error, and the program is killed.
    pub fn terminate(self, after: Duration) -> Result<(ExitStatus, String), ProcessError> {
        self.end(Signal::SIGTERM, after)
    }

    /// Kills the program with SIGKILL, as a crash would, and waits for its end.
    pub fn kill(self) -> Result<(ExitStatus, String), ProcessError> {
        self.end(Signal::SIGKILL, Duration::from_secs(5))
    }

    fn end(mut self, signal: Signal, after: Duration) -> Result<(ExitStatus, String), ProcessError> {
        self.signal(signal);
        match self.wait(after)? {
            Some(status) => Ok((status, self.printed())),
            None => {
                let (program, output) = (self.program.clone(), self.printed());
                Err(ProcessError::Stubborn { program, signal, after, output })
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for a program that has ended and been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(pipe: impl Read + Send + 'static, output: Arc<Output>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while matches!(pipe.read_until(b'\n', &mut line), Ok(length) if length > 0) {
            let mut text = output.text.lock().unwrap_or_else(PoisonError::into_inner);
            text.lines.push_str(&String::from_utf8_lossy(&line));
            output.grown.notify_all();
            line.clear();
        }
        output.text.lock().unwrap_or_else(PoisonError::into_inner).ended += 1;
        output.grown.notify_all();
    })
}
