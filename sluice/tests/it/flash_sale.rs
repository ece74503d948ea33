//! The README's flash sale, smaller, with its backend killed in the midst.

use std::{path::Path, process::Stdio, time::Duration};

use serde_json::Value;

use crate::server::SLUICE;

#[tokio::test]
async fn nothing_is_sold_twice_and_everybody_hears_an_answer() {
    let program = Path::new(SLUICE)
        .with_file_name("examples")
        .join("flash_sale");
    let run = tokio::process::Command::new(program)
        .args(["--buyers", "300", "--stock", "40", "--kill"])
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output();
    let limit = Duration::from_secs(300);
    let output = tokio::time::timeout(limit, run).await.unwrap().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success(), "{report}");
    for (field, expected) in [
        ("sold", 40),
        ("sold_out", 260),
        ("oversold", 0),
        ("doubled", 0),
        ("unanswered", 0),
    ] {
        assert_eq!(report[field], expected, "{report}");
    }
    assert!(report["asked_again"].as_u64().unwrap() >= 75, "{report}");
}
