//! Which bpf-linker fits a compiler. It reads the compiler's LLVM bitcode, so its own LLVM must not be older.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{capture, host_cargo, root, run};
use crate::setup::{self, Package};
use crate::toolchain::{Compiler, Origin};
use crate::version::{Version, of_llvm_library};

/// The LLVM whose C interface both bpf-linkers below are built for.
pub(crate) const LLVM_MAJOR: u32 = 22;

/// Loads its LLVM at run time; builds in a minute without any LLVM development package.
const LOADING: &str = "0.10.1";
/// Has its LLVM linked in from Debian's llvm-22-dev.
const LINKED: &str = "0.13.0";
const LINKED_PREFIX: &str = "/usr/lib/llvm-22";

/// A linker ready to use.
#[derive(Debug)]
pub(crate) struct Linker {
    pub(crate) program: PathBuf,
    /// Folder to name in LD_LIBRARY_PATH, holding nothing but the LLVM that the linker shall load.
    pub(crate) llvm_folder: Option<PathBuf>,
    /// What it is, for people.
    pub(crate) described: String,
}

/// How to get LLVM to the linker.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Way {
    Load(PathBuf),
    Link,
}

/// Finds or builds the linker for a compiler.
pub(crate) fn ensure(compiler: &Compiler) -> Result<Linker> {
    let way = choose(compiler.version.llvm, &libraries(compiler))?;
    let tools = root().join("target/tools");
    let (version, described) = match &way {
        Way::Load(library) => (LOADING, format!("bpf-linker {LOADING} loading {}", library.display())),
        Way::Link => (LINKED, format!("bpf-linker {LINKED} with LLVM {LLVM_MAJOR} from {LINKED_PREFIX}")),
    };
    let program = tools.join("bin/bpf-linker");
    if !is_version(&program, version) {
        install(&way, version, &tools)?;
        if !is_version(&program, version) {
            bail!("{} does not run as version {version} after installing it", program.display());
        }
    }
    let llvm_folder = match way {
        Way::Load(library) => Some(folder_with(&library, &tools)?),
        Way::Link => None,
    };
    Ok(Linker { program, llvm_folder, described })
}

/// The first library that the loading linker understands and that is not older than the compiler; without one,
/// a linker with its LLVM linked in.
fn choose(compiler: Version, libraries: &[(PathBuf, Version)]) -> Result<Way> {
    if compiler.major > LLVM_MAJOR {
        bail!("no known bpf-linker reads LLVM {compiler}; the newest LLVM supported here is {LLVM_MAJOR}");
    }
    let fits = |&&(_, version): &&(PathBuf, Version)| version.major == LLVM_MAJOR && version >= compiler;
    Ok(libraries.iter().find(fits).map_or(Way::Link, |(library, _)| Way::Load(library.clone())))
}

/// The LLVM libraries at hand, the compiler's own first: that one fits by construction.
fn libraries(compiler: &Compiler) -> Vec<(PathBuf, Version)> {
    let mut folders = vec![compiler.sysroot.join("lib")];
    if compiler.origin == Origin::Debian {
        // The multiarch folder, whose name depends on the architecture: /usr/lib/x86_64-linux-gnu.
        let is_multiarch = |path: &PathBuf| path.to_str().is_some_and(|path| path.ends_with("-linux-gnu"));
        folders.extend(children(&folders[0]).into_iter().filter(is_multiarch));
    }
    let sysroot = host_sysroot();
    folders.extend(sysroot.map(|sysroot| sysroot.join("lib")));
    let mut found = Vec::new();
    for folder in folders {
        let mut files = children(&folder);
        files.sort();
        for file in files {
            let version = file.file_name().and_then(|name| of_llvm_library(name.to_str()?));
            found.extend(version.map(|version| (file.clone(), version)));
        }
    }
    found
}

/// Where rustup's stable, which builds the host side, keeps its libraries.
fn host_sysroot() -> Option<PathBuf> {
    let mut rustc = Command::new("rustc");
    rustc.current_dir(root()).env_remove("RUSTUP_TOOLCHAIN").args(["--print", "sysroot"]);
    capture(&mut rustc).ok().map(PathBuf::from)
}

fn children(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default()
}

fn is_version(program: &Path, version: &str) -> bool {
    program.is_file()
        && capture(Command::new(program).arg("--version"))
            .is_ok_and(|said| said == format!("bpf-linker {version}"))
}

fn install(way: &Way, version: &str, tools: &Path) -> Result<()> {
    println!("building bpf-linker {version}, once: about a minute");
    let mut cargo = host_cargo();
    cargo.args(["install", "bpf-linker", "--version", version, "--locked", "--force", "--root"]).arg(tools);
    if *way == Way::Link {
        setup::ensure_packages(&[
            Package { name: "llvm-22-dev", proof: "/usr/lib/llvm-22/bin/llvm-config" },
            Package { name: "libpolly-22-dev", proof: "/usr/lib/llvm-22/lib/libPolly.a" },
            Package { name: "zlib1g-dev", proof: "/usr/include/zlib.h" },
            Package { name: "libzstd-dev", proof: "/usr/include/zstd.h" },
        ])?;
        cargo.args(["--no-default-features", "--features", "llvm-22"]).env("LLVM_PREFIX", LINKED_PREFIX);
    }
    run(&mut cargo).context("installing bpf-linker")
}

/// The linker takes the first `libLLVM*` in LD_LIBRARY_PATH, and a system's library folder has several
/// versions of it; so it gets a folder with one link.
fn folder_with(library: &Path, tools: &Path) -> Result<PathBuf> {
    let folder = tools.join("llvm");
    let link = folder.join("libLLVM.so");
    if fs::read_link(&link).is_ok_and(|target| target == library) {
        return Ok(folder);
    }
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    // Made aside and renamed, so that a linker running meanwhile finds the old one or the new one.
    let aside = folder.join(format!("new.{}", std::process::id()));
    symlink(library, &aside)
        .with_context(|| format!("linking {} to {}", aside.display(), library.display()))?;
    fs::rename(&aside, &link).with_context(|| format!("replacing {}", link.display()))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_linkers_llvm_is_never_older_than_the_compilers() {
        let at = |path: &str, major, minor| (PathBuf::from(path), Version::new(major, minor));
        let load = |path: &str| Some(Way::Load(path.into()));
        for (situation, compiler, libraries, expected) in [
            ("the compiler's own", (22, 1), vec![at("own", 22, 1), at("other", 22, 2)], load("own")),
            ("an older one is passed over", (22, 1), vec![at("old", 22, 0), at("good", 22, 1)], load("good")),
            ("another major is another interface", (22, 1), vec![at("next", 23, 1)], Some(Way::Link)),
            ("an older compiler may use a newer library", (21, 1), vec![at("lib", 22, 1)], load("lib")),
            ("none at hand", (22, 1), vec![], Some(Way::Link)),
            ("a compiler too new for any", (23, 1), vec![at("own", 23, 1)], None),
        ] {
            let way = choose(Version::new(compiler.0, compiler.1), &libraries).ok();
            assert_eq!(way, expected, "{situation}");
        }
    }
}
