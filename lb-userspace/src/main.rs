//! The `lb` command: arguments, logging, exit status.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use lb_userspace::cli::{Answer, Arguments, Ask, Command, Run};
use lb_userspace::daemon::{self, Overrides};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

/// Exit status of wrong usage: `EX_USAGE` of sysexits.h.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nobody is left to tell if the terminal is gone.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let outcome = match arguments.command {
        Command::Run(run) => direct(run),
        Command::Ask(ask) => answer(ask),
    };
    match outcome {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        // `lb flows | head`: the reader has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lb: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn answer(ask: Ask) -> anyhow::Result<Answer> {
    // It may stay, as the director does, and has things to tell meanwhile.
    if let Ask::RealServer(_) = ask {
        log_to_stderr()?;
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start tokio")?;
    // The buffer outside: what is no terminal has styles stripped a block at a time.
    let mut out = BufWriter::with_capacity(64 << 10, anstream::stdout());
    let answer = runtime.block_on(ask.execute(&mut out, &mut anstream::stderr()))?;
    out.flush()?;
    Ok(answer)
}

fn direct(run: Run) -> anyhow::Result<Answer> {
    log_to_stderr()?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start tokio")?;
    let overrides = Overrides { interfaces: run.interfaces };
    runtime.block_on(daemon::run(run.config, overrides))?;
    Ok(Answer::Yes)
}

fn log_to_stderr() -> anyhow::Result<()> {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).with_env_var("LB_LOG");
    let mut filter = filter.from_env().context("LB_LOG")?;
    if !filter.to_string().contains("aya") {
        // Kernels refuse the type information of the program's log (rustc names types in ways BTF does not allow) and
        // load the program without it; aya would warn about that with the kernel's whole protocol.
        filter = filter.add_directive("aya::bpf=error".parse().context("a filter of our own")?);
    }
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
    Ok(())
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
