//! `cargo xtask test`: every test there is, and one summary.

use anyhow::Result;
use clap::Args;

use crate::command::{host_cargo, root, run};
use crate::summary::Summary;
use crate::{ebpf, privilege, setup};

#[derive(Args)]
pub(crate) struct Test {
    /// Only the tests that need neither root nor an eBPF compiler
    #[arg(long)]
    host: bool,
    /// Passed to every test program: a name to filter by, --nocapture, …
    #[arg(last = true)]
    args: Vec<String>,
}

impl Test {
    pub(crate) fn run(&self) -> Result<()> {
        let mut summary = Summary::default();
        // Rights are looked at first, so that who lacks them reads so before a long build.
        let privileged = !self.host
            && summary.step("rights and tools for privileged tests", || {
                privilege::check()?;
                privilege::ensure_bpf_fs()?;
                setup::runtime_tools()
            });
        let built = self.host || summary.step("build the eBPF program", ebpf::objects);
        summary.step("tests without privilege", || {
            run(host_cargo().args(["test", "--workspace", "--no-fail-fast", "--"]).args(&self.args))
        });
        summary.step("the flow table under the model checker", || {
            // `--cfg loom` changes every crate that knows of it, so these builds are kept apart from the others.
            let tests = ["test", "--package", "lb-common", "--test", "loom", "--release", "--"];
            let target = root().join("target/loom");
            run(host_cargo()
                .env("RUSTFLAGS", "--cfg loom")
                .env("CARGO_TARGET_DIR", target)
                .args(tests)
                .args(&self.args))
        });
        if privileged && built {
            summary.step("privileged tests", || {
                // They share the kernel's interfaces, pins and time: one after the other, unless --test-threads
                // is among the arguments.
                let tests = ["test", "-p", "lb-tests", "--features", "privileged", "--no-fail-fast", "--"];
                run(host_cargo().env("RUST_TEST_THREADS", "1").args(tests).args(&self.args))
            });
        }
        summary.close()
    }
}
