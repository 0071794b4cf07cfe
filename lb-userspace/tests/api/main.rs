//! The API over a real socket, and the `lb` command as a process, against a director that is made up.

mod cli;
mod director;
mod http;
