//! The API on its Unix socket.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::{Operator, routes};

/// Owner and group may ask and command.
const MODE: u32 = 0o660;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;
/// What an answer under way at shutdown gets to end in.
const GRACE: Duration = Duration::from_secs(1);

/// A listening socket and its path, which goes with it.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

/// Why the director cannot be reached under a path.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("a director already answers on {}", .0.display())]
    InUse(PathBuf),
    #[error("{} exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    #[error("cannot {attempt} {}", path.display())]
    Io {
        /// What was attempted: `listen on`.
        attempt: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Socket {
    /// Listens on `path`: makes its folder, and takes the place of a socket nobody answers on.
    ///
    /// # Errors
    /// Somebody answers there, something else than a socket is there, or the system refuses.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let failed = |attempt| move |source| BindError::Io { attempt, path: path.to_owned(), source };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed("make the folder of"))?;
        }
        remove_stale(path)?;
        // Nobody can connect before `listen`, so nobody gets in under the permissions `bind` leaves.
        let (domain, kind) = (socket2::Domain::UNIX, socket2::Type::STREAM);
        let socket = socket2::Socket::new(domain, kind, None).map_err(failed("make a socket for"))?;
        let address = socket2::SockAddr::unix(path).map_err(failed("make an address of"))?;
        socket.bind(&address).map_err(failed("bind"))?;
        fs::set_permissions(path, Permissions::from_mode(MODE)).map_err(failed("set the permissions of"))?;
        socket.listen(BACKLOG).map_err(failed("listen on"))?;
        socket.set_nonblocking(true).map_err(failed("listen on"))?;
        Ok(Self { listener: UnixListener::from(OwnedFd::from(socket)), path: path.to_owned() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "the socket was gone already");
        }
    }
}

/// Makes room at `path` if what is there is a socket without a listener.
fn remove_stale(path: &Path) -> Result<(), BindError> {
    let failed = |attempt| move |source| BindError::Io { attempt, path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at")(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(BindError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed("remove the stale socket"))
        }
        // Whatever else happens, even a full backlog, somebody holds it.
        _ => Err(BindError::InUse(path.to_owned())),
    }
}

/// Answers on `socket` until `shutdown` is done, then lets answers under way end for a second and removes the socket.
///
/// # Errors
/// The socket cannot be given to tokio. To be called in a tokio runtime.
pub async fn serve<O: Operator>(
    socket: Socket,
    operator: Arc<O>,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let listener = tokio::net::UnixListener::from_std(socket.listener.try_clone()?)?;
    let (tell, told) = oneshot::channel::<()>();
    let serving = axum::serve(listener, routes::router(operator)).with_graceful_shutdown(async {
        // Dropped is as good as told.
        let _ = told.await;
    });
    let serving = serving.into_future();
    tokio::pin!(serving);
    tokio::select! {
        ended = &mut serving => return ended,
        () = shutdown => {}
    }
    drop(tell);
    // A listing nobody reads would never end.
    tokio::time::timeout(GRACE, serving).await.unwrap_or(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_for_owner_and_group_and_goes_with_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/lb/lb.sock");
        let socket = Socket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lb.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let _socket = Socket::bind(&path).unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_living_director_keeps_its_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lb.sock");
        let _socket = Socket::bind(&path).unwrap();
        assert!(matches!(Socket::bind(&path), Err(BindError::InUse(_))));
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn what_is_not_a_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lb.sock");
        fs::write(&path, "precious").unwrap();
        let error = Socket::bind(&path).unwrap_err();
        assert_eq!(error.to_string(), format!("{} exists and is not a socket", path.display()));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
