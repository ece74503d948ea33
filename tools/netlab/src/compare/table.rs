//! What was measured, for people and for programs.

use crate::compare::{Arguments, Cell};
use crate::transport::Transport;
use anyhow::Result;
use serde::Serialize;
use std::fmt::Write;

#[derive(Debug, Serialize)]
struct Object {
    loopback: bool,
    delay_ms: u32,
    rate: u32,
    message_bytes: usize,
    seconds: u32,
    seeds: u64,
    cells: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    transport: Transport,
    loss_percent: u32,
    messages: usize,
    missing: u32,
    repeated: u32,
    latency_p50_ms: f64,
    latency_p90_ms: f64,
    latency_p99_ms: f64,
    latency_p999_ms: f64,
    latency_max_ms: f64,
    wire_bytes_per_message: f64,
    wire_packets_per_message: f64,
    cpu_us_per_message: f64,
    wire_cpu_us_per_message: f64,
    first_answer_p50_ms: f64,
}

/// One object with a row a transport and loss.
pub(crate) fn json(cells: &[Cell], arguments: &Arguments) -> Result<String> {
    let object = Object {
        loopback: arguments.loopback,
        delay_ms: arguments.delay_ms,
        rate: arguments.rate,
        message_bytes: arguments.bytes,
        seconds: arguments.seconds,
        seeds: arguments.seeds,
        cells: cells.iter().map(row).collect(),
    };
    Ok(serde_json::to_string(&object)?)
}

/// A table with a column a transport and four lines a loss.
pub(crate) fn markdown(cells: &[Cell], arguments: &Arguments) -> String {
    let (mut head, mut rule) = (String::from("| loss | |"), String::from("|---|---|"));
    for transport in &arguments.transports {
        // Writing into a string doesn't fail.
        let _ = write!(head, " {} |", transport.title());
        rule.push_str("---|");
    }
    let mut text = format!("{head}\n{rule}");
    for loss in arguments.losses() {
        let rows: Vec<Row> = cells
            .iter()
            .filter(|cell| cell.loss_percent == loss)
            .map(row)
            .collect();
        let mut line = |first: &str, what: &str, figure: &dyn Fn(&Row) -> String| {
            let figures: Vec<_> = rows.iter().map(figure).collect();
            let _ = write!(text, "\n| {first} | {what} | {} |", figures.join(" | "));
        };
        line(
            &format!("{loss} %"),
            "latency p50 / p99, ms",
            &|row| match row.missing {
                0 => format!("{:.0} / {:.0}", row.latency_p50_ms, row.latency_p99_ms),
                missing => format!(
                    "{:.0} / {:.0} ({missing} missing)",
                    row.latency_p50_ms, row.latency_p99_ms
                ),
            },
        );
        if !arguments.loopback {
            line("", "bytes on the wire a message", &|row| {
                format!("{:.0}", row.wire_bytes_per_message)
            });
        }
        line("", "CPU of both ends a message, µs", &|row| {
            format!("{:.0}", row.cpu_us_per_message)
        });
    }
    text
}

fn row(cell: &Cell) -> Row {
    let measured = &cell.measured;
    let median = measured
        .first_answer_us
        .get(measured.first_answer_us.len() / 2);
    // Tenths: the timers on the way are no finer.
    let tenths = |figure: f64| (figure * 10.0).round() / 10.0;
    Row {
        transport: cell.transport,
        loss_percent: cell.loss_percent,
        messages: measured.latencies_us.len(),
        missing: measured.missing,
        repeated: measured.repeated,
        latency_p50_ms: tenths(measured.latency_ms(0.5)),
        latency_p90_ms: tenths(measured.latency_ms(0.9)),
        latency_p99_ms: tenths(measured.latency_ms(0.99)),
        latency_p999_ms: tenths(measured.latency_ms(0.999)),
        latency_max_ms: tenths(measured.latency_ms(1.0)),
        wire_bytes_per_message: tenths(measured.a_message(measured.wire_bytes)),
        wire_packets_per_message: tenths(measured.a_message(measured.wire_packets)),
        cpu_us_per_message: tenths(measured.a_message(measured.cpu_us)),
        wire_cpu_us_per_message: tenths(measured.a_message(measured.wire_cpu_us)),
        first_answer_p50_ms: tenths(median.copied().unwrap_or_default() as f64 / 1000.0),
    }
}
