//! `sluice-netlab compare`, in short runs: that it measures, not what.

use crate::output_of;
use serde_json::Value;

fn cells(arguments: &[&str]) -> Option<Vec<Value>> {
    let output = output_of(arguments)?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let object: Value = serde_json::from_slice(&output.stdout).unwrap();
    Some(object["cells"].as_array().unwrap().clone())
}

#[test]
fn every_transport_delivers_everything_at_the_delay_of_the_wire() {
    let arguments = "compare --loss 0 --seconds 1 --seeds 1 --json";
    let Some(cells) = cells(&arguments.split(' ').collect::<Vec<_>>()) else {
        return;
    };
    assert!(cells.len() >= 3);
    for cell in cells {
        assert_eq!(cell["messages"], 100, "{cell}");
        assert_eq!(
            (&cell["missing"], &cell["repeated"]),
            (&0.into(), &0.into())
        );
        let p50_ms = cell["latency_p50_ms"].as_f64().unwrap();
        assert!((40.0..150.0).contains(&p50_ms), "{cell}");
        let bytes = cell["wire_bytes_per_message"].as_f64().unwrap();
        assert!((228.0..500.0).contains(&bytes), "{cell}");
        assert!(cell["cpu_us_per_message"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn under_loss_everything_is_delivered_later() {
    let arguments = "compare --loss 20 --seconds 2 --seeds 1 --json --delay-ms 10";
    let Some(cells) = cells(&arguments.split(' ').collect::<Vec<_>>()) else {
        return;
    };
    for cell in cells {
        assert_eq!(cell["missing"], 0, "{cell}");
        // Some message was lost at first, and so came a round trip late at least.
        assert!(cell["latency_max_ms"].as_f64().unwrap() > 30.0, "{cell}");
    }
}

#[test]
fn the_table_has_a_column_a_transport() {
    let arguments = "compare --transports tcp --loss 0 --seconds 1 --seeds 1 --rate 5";
    let Some(output) = output_of(&arguments.split(' ').collect::<Vec<_>>()) else {
        return;
    };
    let table = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines[0], "| loss | | TCP |");
    assert_eq!(lines.len(), 5, "{table}");
    assert!(lines[2].starts_with("| 0 % | latency p50 / p99, ms | "));
}

#[test]
fn on_loopback_no_lab_is_needed() {
    let arguments = "compare --loopback --seconds 1 --seeds 1 --rate 100 --json";
    let cells = cells(&arguments.split(' ').collect::<Vec<_>>()).unwrap();
    for cell in cells {
        assert_eq!(
            (&cell["messages"], &cell["missing"]),
            (&200.into(), &0.into())
        );
        assert!(cell["cpu_us_per_message"].as_f64().unwrap() > 0.0);
    }
}
