//! The program as its user starts it.

use crate::harness::{ANY_PORT, read_to_any_end, receive};
use std::process::{Output, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::process::Command;

fn program() -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_sluice-relay"));
    program.env_remove("RUST_LOG").kill_on_drop(true);
    program
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    program
}

async fn output_of(arguments: &[&str]) -> Output {
    program().args(arguments).output().await.unwrap()
}

#[tokio::test]
async fn it_says_where_it_listens_relays_and_stops_on_either_signal() {
    for signal in ["-TERM", "-INT"] {
        let upstream = TcpListener::bind(ANY_PORT).await.unwrap();
        let address = upstream.local_addr().unwrap().to_string();
        let mut child = program()
            .args([
                "--upstream",
                &address,
                "--faults",
                "delay_ms=1",
                "--seed",
                "7",
            ])
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .await
            .unwrap();
        let listen = line
            .strip_prefix("{\"listen\":\"")
            .and_then(|rest| rest.strip_suffix("\",\"seed\":7}\n"))
            .unwrap_or_else(|| panic!("first line {line:?}"));

        let mut client = TcpStream::connect(listen).await.unwrap();
        let (mut server, _) = upstream.accept().await.unwrap();
        client.write_all(b"through").await.unwrap();
        let mut word = [0; 7];
        server.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"through");

        let pid = child.id().unwrap().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &pid])
                .status()
                .await
                .unwrap()
                .success()
        );
        let output = child.wait_with_output().await.unwrap();
        assert!(output.status.success(), "{output:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains("connections=1 open=0"), "{stderr}");
        assert!(stderr.contains("bytes_up=7 bytes_down=0"), "{stderr}");
        assert_eq!(read_to_any_end(&mut client).await.0, b"");
    }
}

#[tokio::test]
async fn bad_arguments_fail_before_anything_listens_and_name_the_key() {
    for (faults, named) in [
        ("delay=40", "unknown fault `delay`"),
        (
            "delay_ms=soon",
            "fault `delay_ms` must be a whole number from 1 to 60000",
        ),
        ("loss=0.2", "fault `loss` is not for streams"),
    ] {
        let output = output_of(&["--upstream", "127.0.0.1:1", "--faults", faults]).await;
        assert!(!output.status.success());
        assert!(output.stdout.is_empty());
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains(named), "{stderr}");
    }
    let faults = [
        "--udp",
        "--upstream",
        "127.0.0.1:1",
        "--faults",
        "reset_s=5",
    ];
    let output = output_of(&faults).await;
    assert!(!output.status.success());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("fault `reset_s` is not for datagrams"));

    let output = output_of(&["--upstream", "nowhere"]).await;
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("--upstream")
    );
}

#[tokio::test]
async fn help_teaches_every_fault() {
    let output = output_of(&["--help"]).await;
    let help = String::from_utf8(output.stdout).unwrap();
    for key in [
        "delay_ms=N",
        "jitter_ms=N",
        "bandwidth_kbps=N",
        "stall_s=N",
        "blackout_s=N",
        "reset_s=N",
        "cut_after_bytes=N",
        "loss=P",
        "dup=P",
        "reorder=P",
        "corrupt=P",
        "rebind_s=N",
        "nat_idle_s=N",
        "mtu_bytes=N",
    ] {
        assert!(help.contains(&format!("  {key} ")), "{key}: {help}");
    }
    assert!(help.contains("Examples:"));
}

#[tokio::test]
async fn with_udp_it_relays_datagrams_and_counts_them() {
    let upstream = UdpSocket::bind(ANY_PORT).await.unwrap();
    let address = upstream.local_addr().unwrap().to_string();
    let mut child = program()
        .args(["--udp", "--upstream", &address, "--faults", "dup=1"])
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .await
        .unwrap();
    let listen = line.split('"').nth(3).unwrap();

    let client = UdpSocket::bind(ANY_PORT).await.unwrap();
    client.send_to(b"through", listen).await.unwrap();
    for _ in 0..2 {
        let (datagram, from) = receive(&upstream, Duration::from_secs(5)).await.unwrap();
        assert_eq!(datagram, b"through");
        assert_ne!(from, client.local_addr().unwrap());
    }

    let pid = child.id().unwrap().to_string();
    let told = Command::new("kill").args(["-TERM", &pid]).status().await;
    assert!(told.unwrap().success());
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("flows=1"), "{stderr}");
    assert!(stderr.contains("up=2 down=0"), "{stderr}");
    assert!(stderr.contains("doubled=1"), "{stderr}");
}
