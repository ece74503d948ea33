//! `examples/chat.c`: compiled by the system's compilers without a warning, linked with the static
//! library, run against a node of this process. Without a C compiler nothing is tested.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use sluice::{
    config::Config,
    endpoints::Addresses,
    node::{Node, Role},
};
use sluice_client::{HttpApi, UserId};
use sluice_relay::DatagramRelay;

const FOLDER: &str = env!("CARGO_MANIFEST_DIR");
/// What Rust's standard library needs of the system (`rustc --print native-static-libs`).
const SYSTEM: [&str; 5] = ["-lgcc_s", "-lpthread", "-lm", "-ldl", "-lc"];
const STRICT: [&str; 4] = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"];
const CONFIG: &str = r#"
[gateway]
tcp_address = "127.0.0.1:0"
ws_address = "127.0.0.1:0"
udp_address = "127.0.0.1:0"
admin_address = "127.0.0.1:0"
[services]
argon2_memory_kib = 64
argon2_iterations = 1
"#;

pub(crate) fn is_there(program: &str) -> bool {
    let mut command = Command::new(program);
    let command = command.arg("--version").stdout(Stdio::null());
    command.stderr(Stdio::null()).status().is_ok()
}

pub(crate) fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let (said, complained) = (&output.stdout, &output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(said),
        String::from_utf8_lossy(complained)
    );
    output
}

/// Beside this program, where cargo has put it: the newest, if several were made.
fn library() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let found = fs::read_dir(program.parent().unwrap()).unwrap();
    let found = found.map(|entry| entry.unwrap().path()).filter(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with("libsluice_ffi") && name.ends_with(".a")
    });
    let made = |path: &PathBuf| fs::metadata(path).unwrap().modified().unwrap();
    found.max_by_key(made).unwrap()
}

fn compiler(name: &str) -> Command {
    let mut command = Command::new(name);
    command
        .args(STRICT)
        .arg("-I")
        .arg(format!("{FOLDER}/include"));
    command
}

fn chat_program(folder: &Path) -> PathBuf {
    let program = folder.join("chat");
    succeed(
        compiler("cc")
            .args(["-std=c99", "-O1", "-o"])
            .arg(&program)
            .arg(format!("{FOLDER}/examples/chat.c"))
            .arg(library())
            .arg("-Wl,--gc-sections")
            .args(SYSTEM),
    );
    program
}

async fn token(api: &HttpApi, user: &str) -> String {
    let user = UserId::parse(user).unwrap();
    api.register(&user, "a good password", None).await.unwrap();
    api.login(&user, "a good password").await.unwrap().token
}

async fn chat(program: Command, server: &Addresses, api: &HttpApi, names: [&str; 2]) -> String {
    let mut program = program;
    let (address, port) = server.udp.as_ref().unwrap().rsplit_once(':').unwrap();
    program.args([address, port, server.pins.as_ref().unwrap()]);
    for name in names {
        program.arg(name).arg(token(api, name).await);
    }
    let run = tokio::task::spawn_blocking(move || succeed(&mut program));
    let output = tokio::time::timeout(Duration::from_secs(120), run).await;
    String::from_utf8(output.unwrap().unwrap().stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_talk_from_c() {
    if !is_there("cc") {
        eprintln!("there is no C compiler: not tested");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let config_file = folder.path().join("sluice.toml");
    fs::write(&config_file, CONFIG).unwrap();
    let mut config = Config::read(Some(&config_file)).unwrap();
    config.data_dir = folder.path().join("data");
    let http = Some("127.0.0.1:0".parse().unwrap());
    let node = Node::start(Role::All, config, http).await.unwrap();
    let http = node.addresses.http.unwrap().to_string();
    let server = Addresses::of(&http).await.unwrap();
    let api = HttpApi::new(&http).unwrap();

    let program = chat_program(folder.path());
    let said = chat(Command::new(&program), &server, &api, ["alice", "bob"]).await;
    assert!(said.contains("bob: reads hello from C\n"), "{said}");
    assert!(said.contains("alice: reads hello from C too\n"), "{said}");
    assert!(said.ends_with("done\n"), "{said}");

    if is_there("valgrind") {
        let mut watched = Command::new("valgrind");
        watched
            .args(["--quiet", "--error-exitcode=9", "--leak-check=full"])
            .arg(&program);
        let said = chat(watched, &server, &api, ["carol", "dave"]).await;
        assert!(said.ends_with("done\n"), "{said}");
    } else {
        eprintln!("there is no valgrind: memory not watched");
    }
    // Through a network that loses a fifth, and forgets where the clients are.
    let plan = "loss=0.2,delay_ms=15,jitter_ms=10,dup=0.05,reorder=0.1,corrupt=0.02,rebind_s=2";
    let udp = server.udp.as_ref().unwrap().parse().unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let relay = DatagramRelay::start(any, udp, plan.parse().unwrap(), 3);
    let relay = relay.await.unwrap();
    let behind = Addresses {
        udp: Some(relay.local_addr().to_string()),
        ..server.clone()
    };
    let said = chat(Command::new(&program), &behind, &api, ["erin", "frank"]).await;
    assert!(said.ends_with("done\n"), "{said}");
    node.stop().await.unwrap();
}

#[test]
fn the_header_and_the_example_are_cpp_too() {
    if !is_there("g++") {
        eprintln!("there is no C++ compiler: not tested");
        return;
    }
    let example = format!("{FOLDER}/examples/chat.c");
    succeed(
        compiler("g++")
            .args(["-std=c++11", "-Wno-missing-field-initializers"])
            .args(["-fsyntax-only", "-x", "c++", &example]),
    );
}
