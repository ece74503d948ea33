//! Plots of a run as SVG: latency by percentile, and rate and latency over time.

use std::path::Path;

use anyhow::anyhow;
use plotters::{
    coord::Shift,
    prelude::{
        BLUE, ChartBuilder, Color, DrawingArea, GREEN, IntoDrawingArea, IntoFont, LineSeries,
        MAGENTA, PathElement, RED, RGBColor, SVGBackend, SeriesLabelPosition, WHITE,
    },
};
use sluice_load::Latencies;

use super::generator::Findings;

/// What a run's plots show.
#[derive(Debug, Clone, Default)]
pub struct Plots(Vec<Plot>);

#[derive(Debug, Clone)]
struct Plot {
    title: &'static str,
    x: &'static str,
    y: &'static str,
    /// Percentiles, spread so that each nine has as much room.
    is_by_percentile: bool,
    lines: Vec<Line>,
}

#[derive(Debug, Clone)]
struct Line {
    name: &'static str,
    points: Vec<(f64, f64)>,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const WIDTH: u32 = 900;
const HEIGHT_EACH: u32 = 320;
const COLOURS: [RGBColor; 4] = [BLUE, RED, GREEN, MAGENTA];
/// Up to 99.99 %, in steps of a twentieth of a nine.
const NINES_MAX: u32 = 4;
const STEPS_PER_NINE: u32 = 20;

// === impl Plots ===

impl Plots {
    /// What there is to show of a run.
    pub(super) fn of(findings: &Findings) -> Self {
        let rounds: Vec<_> = findings.outcomes.iter().flat_map(|it| &it.rounds).collect();
        let by_round = |figure: fn(&(f64, f64)) -> f64| {
            let figures = rounds.iter().map(|round| figure(round));
            figures
                .enumerate()
                .map(|(at, it)| (at as f64, it))
                .collect()
        };
        let by_second = |figure: &dyn Fn(&super::generator::Second) -> f64| {
            let seconds = findings.seconds.iter();
            seconds.map(|(at, it)| (*at as f64, figure(it))).collect()
        };
        let plots = [
            Plot {
                title: "Latency by percentile, from when a message was due",
                x: "percentile",
                y: "ms",
                is_by_percentile: true,
                lines: vec![
                    Line::new("ack", percentiles(&findings.ack)),
                    Line::new("receive", percentiles(&findings.recv)),
                ],
            },
            Plot {
                title: "Rounds",
                x: "round",
                y: "a second",
                is_by_percentile: false,
                lines: vec![
                    Line::new("gateway", by_round(|(server, _)| *server)),
                    Line::new("bare server", by_round(|(_, floor)| *floor)),
                ],
            },
            Plot {
                title: "Rate over time",
                x: "second",
                y: "a second",
                is_by_percentile: false,
                // Rounds tell it better.
                lines: match rounds.is_empty() {
                    true => vec![
                        Line::new("acked", by_second(&|it| it.counts.acked as f64)),
                        Line::new("received", by_second(&|it| it.counts.received as f64)),
                    ],
                    false => Vec::new(),
                },
            },
            Plot {
                title: "Latency over time",
                x: "second",
                y: "ms",
                is_by_percentile: false,
                lines: vec![
                    Line::new("ack p50", by_second(&|it| it.ack.percentile_ms(50.0))),
                    Line::new("ack p99", by_second(&|it| it.ack.percentile_ms(99.0))),
                    Line::new("receive p50", by_second(&|it| it.recv.percentile_ms(50.0))),
                    Line::new("receive p99", by_second(&|it| it.recv.percentile_ms(99.0))),
                ],
            },
        ];
        Self(plots.into_iter().filter_map(Plot::unless_empty).collect())
    }

    /// Writes them below each other into one file.
    pub fn write(&self, path: &Path, title: &str) -> anyhow::Result<()> {
        let drawn = self.draw(path, title);
        drawn.map_err(|error| anyhow!("cannot draw {}: {error}", path.display()))
    }

    fn draw(&self, path: &Path, title: &str) -> Result<(), Box<dyn std::error::Error>> {
        let count = self.0.len().max(1);
        let size = (WIDTH, HEIGHT_EACH * count as u32);
        let root = SVGBackend::new(path, size).into_drawing_area();
        root.fill(&WHITE)?;
        let root = root.titled(title, ("sans-serif", 16).into_font())?;
        for (plot, area) in self.0.iter().zip(root.split_evenly((count, 1))) {
            plot.draw(&area)?;
        }
        root.present()?;
        Ok(())
    }
}

// === impl Plot ===

impl Plot {
    fn unless_empty(mut self) -> Option<Self> {
        self.lines
            .retain(|line| line.points.iter().any(|(_, y)| *y > 0.0));
        (!self.lines.is_empty()).then_some(self)
    }

    fn draw(&self, area: &Area<'_>) -> Result<(), Box<dyn std::error::Error>> {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let x_max = points().map(|(x, _)| *x).fold(1.0, f64::max);
        let y_max = points().map(|(_, y)| *y).fold(0.001, f64::max);
        let mut chart = ChartBuilder::on(area)
            .caption(self.title, ("sans-serif", 15))
            .margin(12)
            .margin_right(36)
            .x_label_area_size(36)
            .y_label_area_size(70)
            .build_cartesian_2d(0.0..x_max, 0.0..y_max * 1.05)?;
        let is_by_percentile = self.is_by_percentile;
        chart
            .configure_mesh()
            .max_light_lines(0)
            // One a nine, where it is by percentile.
            .x_labels(NINES_MAX as usize + 1)
            .x_desc(self.x)
            .y_desc(self.y)
            .x_label_formatter(&move |x| match is_by_percentile {
                true => percentile_label(*x),
                false => format!("{x}"),
            })
            .draw()?;
        for (line, colour) in self.lines.iter().zip(COLOURS) {
            chart
                .draw_series(LineSeries::new(line.points.iter().copied(), &colour))?
                .label(line.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .draw()?;
        Ok(())
    }
}

// === impl Line ===

impl Line {
    fn new(name: &'static str, points: Vec<(f64, f64)>) -> Self {
        Self { name, points }
    }
}

/// By how many nines a percentile has: 1 is 90 %, 2 is 99 %.
fn percentiles(latencies: &Latencies) -> Vec<(f64, f64)> {
    let steps = 0..=NINES_MAX * STEPS_PER_NINE;
    let nines = steps.map(|step| f64::from(step) / f64::from(STEPS_PER_NINE));
    nines
        .map(|nines| (nines, latencies.percentile_ms(percentile(nines))))
        .collect()
}

fn percentile(nines: f64) -> f64 {
    100.0 * (1.0 - 10_f64.powf(-nines))
}

fn percentile_label(nines: f64) -> String {
    let rounded = format!("{:.3}", percentile(nines));
    let short = rounded.trim_end_matches('0').trim_end_matches('.');
    format!("{short} %")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nines_are_percentiles() {
        assert_eq!(percentile_label(0.0), "0 %");
        assert_eq!(percentile_label(1.0), "90 %");
        assert_eq!(percentile_label(3.0), "99.9 %");
    }

    #[test]
    fn a_plot_is_an_svg() {
        let mut findings = Findings::default();
        findings.ack.add(&[(1_000, 90), (5_000, 10)]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plot.svg");
        let plots = Plots::of(&findings);
        assert_eq!(plots.0.len(), 1, "what has no figures has no plot");
        plots.write(&path, "a title").unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("a title"), "{svg}");
        let nowhere = plots.write(&folder.path().join("no/plot.svg"), "");
        assert!(nowhere.unwrap_err().to_string().contains("no/plot.svg"));
    }
}
