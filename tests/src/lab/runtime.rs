//! A tokio runtime whose every socket lives in a namespace.

use std::future::Future;
use std::sync::mpsc;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::LabError;
use crate::netns::Namespace;

/// A current-thread runtime on a thread of its own that has entered a namespace. Sockets belong to the namespace of
/// the thread that opens them, and all tasks of such a runtime run on that thread.
/// Dropping it cancels its tasks and waits for the thread.
#[derive(Debug)]
pub struct NsRuntime {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl NsRuntime {
    pub fn start(namespace: &Namespace) -> Result<Self, LabError> {
        let (started, start) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        // `ip netns` names the namespace; the thread opens it again rather than borrowing it for its lifetime.
        let inside = Namespace::open(namespace.name())?;
        let thread = thread::spawn(move || {
            let runtime = inside.enter().map_err(LabError::from).and_then(|()| {
                Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .map_err(|source| LabError::Runtime { namespace: inside.name().to_owned(), source })
            });
            match runtime {
                Ok(runtime) => {
                    let _ = started.send(Ok(runtime.handle().clone()));
                    // Whether stopped or dropped, the end is the same.
                    let _ = runtime.block_on(stopped);
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                }
            }
        });
        let handle = start.recv().expect("the thread answers before it ends")?;
        Ok(NsRuntime { handle, stop: Some(stop), thread: Some(thread) })
    }

    /// Starts a task in the namespace.
    pub fn spawn<F>(&self, future: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.handle.spawn(future)
    }

    /// Runs `future` in the namespace and blocks the calling thread until it is done.
    ///
    /// # Panics
    /// When the future panics.
    pub fn block_on<F>(&self, future: F) -> F::Output
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let (done, result) = mpsc::channel();
        self.spawn(async move {
            let _ = done.send(future.await);
        });
        result.recv().expect("a task of the lab panicked")
    }
}

impl Drop for NsRuntime {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
