//! What README.md says about building, done as it says, but without optimizing; and what the
//! library must not be built with.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::from_c::{is_there, succeed};

const README: &str = include_str!("../../README.md");
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The first block of commands, one a line.
fn commands() -> Vec<String> {
    let (_, block) = README.split_once("```sh\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let joined = block.replace("\\\n", " ");
    let lines = joined.lines();
    let lines = lines.map(|line| line.split('#').next().unwrap().trim());
    lines.map(str::to_owned).collect()
}

/// Where cargo has put this program.
fn target_folder() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    program.ancestors().nth(3).unwrap().to_owned()
}

fn cargo() -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(ROOT).arg("--offline");
    cargo
}

#[test]
fn the_commands_of_the_readme_work() {
    let [build, compile] = commands().try_into().unwrap();
    assert_eq!(build, "cargo build --release -p sluice-ffi");
    let target = target_folder();
    succeed(
        cargo()
            .args(["build", "-p", "sluice-ffi"])
            .env("CARGO_TARGET_DIR", &target),
    );
    if !is_there("cc") {
        eprintln!("there is no C compiler: not tested");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("chat");
    let library = target.join("debug/libsluice_ffi.a");
    let compile = compile
        .replace("-o chat", &format!("-o {}", program.display()))
        .replace(
            "target/release/libsluice_ffi.a",
            &library.display().to_string(),
        );
    assert!(Path::new(&library).exists());
    succeed(Command::new("sh").current_dir(ROOT).args(["-c", &compile]));
    // It says how it is used.
    let usage = Command::new(program).output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&usage.stderr).starts_with("usage: chat"));
}

#[test]
fn the_library_is_built_without_a_runtime() {
    let tree = succeed(cargo().args(["tree", "-p", "sluice-ffi", "-e", "no-dev,no-build"]));
    let tree = String::from_utf8(tree.stdout).unwrap();
    assert!(tree.contains("sluice-client"), "{tree}");
    for absent in ["tokio", "reqwest", "redb", "rustls", "hyper", "tungstenite"] {
        assert!(!tree.contains(absent), "{absent}:\n{tree}");
    }
}
