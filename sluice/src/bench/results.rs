//! What `sluice bench all` has come to, as one document: the goals and what was seen,
//! then each run with its table and plots.

use std::{fmt::Write as _, path::Path, process::Command};

use anyhow::Context;
use jiff::Timestamp;
use serde::Serialize;

use super::report::{Common, Machine};

/// See the module.
#[derive(Debug, Serialize)]
pub struct Results {
    /// `all`.
    pub workload: &'static str,
    /// That repeats it.
    pub command: String,
    /// Small and short: whether all works, not how fast it is.
    pub quick: bool,
    /// When it began, UTC.
    pub began: String,
    /// Of the sources in the working directory.
    pub commit: String,
    /// Runs that failed, and whatever was lost, refused or cut in the others.
    pub errors: u64,
    /// What was hoped for, and seen.
    pub goals: Vec<Goal>,
    /// In their order.
    pub runs: Vec<Run>,
    /// Where.
    #[serde(flatten)]
    pub machine: Machine,
}

/// A figure that something is expected of.
#[derive(Debug, Serialize)]
pub struct Goal {
    /// What is measured.
    pub what: String,
    /// What it should be.
    pub goal: &'static str,
    /// What it was.
    pub seen: String,
    /// Of the two; `None`: not measured, or nothing was expected.
    pub reached: Option<bool>,
}

/// One run of one workload.
#[derive(Debug, Serialize)]
pub struct Run {
    /// For people.
    pub title: String,
    /// That does this alone.
    pub command: String,
    /// The workload's own report.
    pub report: serde_json::Value,
    /// The same for people.
    #[serde(skip)]
    table: String,
    /// Its plots' file, beside the document.
    pub plot: Option<String>,
}

/// Plots are in there, beside the document.
const PLOTS: &str = "results";

// === impl Results ===

impl Results {
    pub(super) fn begin(command: String, quick: bool) -> Self {
        Self {
            workload: "all",
            command,
            quick,
            began: Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
            commit: commit().unwrap_or_else(|| "unknown".to_owned()),
            errors: 0,
            goals: Vec::new(),
            runs: Vec::new(),
            machine: Machine::this(""),
        }
    }

    /// Adds a goal and what was seen of it.
    pub(super) fn goal(
        &mut self,
        what: impl Into<String>,
        goal: &'static str,
        seen: impl Into<String>,
        reached: bool,
    ) {
        self.goals.push(Goal {
            what: what.into(),
            goal,
            seen: seen.into(),
            reached: Some(reached),
        });
    }

    /// Adds a figure of which nothing is expected.
    pub(super) fn seen(&mut self, what: impl Into<String>, seen: impl Into<String>) {
        self.goals.push(Goal {
            what: what.into(),
            goal: "",
            seen: seen.into(),
            reached: None,
        });
    }

    /// Tells of a run that has failed.
    pub(super) fn failed(&mut self, what: &str, error: &anyhow::Error) {
        self.errors += 1;
        self.goals.push(Goal {
            what: what.to_owned(),
            goal: "",
            seen: format!("not measured: {error:#}").replace('\n', " "),
            reached: None,
        });
    }

    /// Adds a run, and draws its plots into `folder` under `name`.
    ///
    /// # Errors
    /// The file's.
    pub(super) fn run(
        &mut self,
        title: &str,
        command: String,
        report: &impl Serialize,
        table: String,
        drawn: Option<(&Common, &Path, &str)>,
    ) -> anyhow::Result<()> {
        let plot = match drawn {
            Some((common, folder, name)) => {
                self.errors += common.errors;
                let folder = folder.join(PLOTS);
                std::fs::create_dir_all(&folder)
                    .with_context(|| format!("cannot make {}", folder.display()))?;
                let path = folder.join(format!("{name}.svg"));
                common.plots.write(&path, &common.title())?;
                Some(format!("{PLOTS}/{name}.svg"))
            }
            None => None,
        };
        self.runs.push(Run {
            title: title.to_owned(),
            command,
            report: serde_json::to_value(report)?,
            table,
            plot,
        });
        Ok(())
    }

    /// The whole document.
    pub fn markdown(&self) -> String {
        let machine = &self.machine;
        let kind = match self.quick {
            true => {
                "A quick look with few connections and short runs: it shows that all works, and \
                 says little of how fast."
            }
            false => "Generator, server and everything else share the machine's cores.",
        };
        let mut text = format!(
            "# Results\n\n\
             Written by `cargo run --release -- {}` on {}, commit {}: {} × {}, {} MB, \
             Linux {}, {} build. {kind}\n\n\
             | what | goal | seen | reached |\n|---|---|---|---|\n",
            self.command,
            self.began,
            self.commit,
            machine.cores,
            machine.cpu,
            machine.memory_mb,
            machine.kernel,
            machine.build,
        );
        for goal in &self.goals {
            let reached = match goal.reached {
                Some(true) => "yes",
                Some(false) => "**no**",
                None => "",
            };
            // Writing to a string can't fail.
            let _ = writeln!(
                text,
                "| {} | {} | {} | {reached} |",
                goal.what, goal.goal, goal.seen
            );
        }
        for run in &self.runs {
            let _ = write!(text, "\n## {}\n\n`{}`\n\n", run.title, run.command);
            match run.table.starts_with(['┌', '{']) {
                true => {
                    let _ = writeln!(text, "```text\n{}\n```", run.table);
                }
                false => {
                    let _ = writeln!(text, "{}", run.table.trim_end());
                }
            }
            if let Some(plot) = &run.plot {
                let _ = writeln!(text, "\n![{}]({plot})", run.title);
            }
        }
        text
    }
}

/// Where the program's sources are, if git knows them.
fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    match changed.lines().all(|line| line.contains("benches/")) {
        true => Some(commit),
        false => Some(format!("{commit} with changes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_says_what_was_reached_and_what_failed() {
        let mut results = Results::begin("bench all --quick".into(), true);
        results.goal("pings", "≥ 95 %", "97 %", true);
        results.goal("fan-out", "≥ 70 %", "45 %", false);
        results.failed(
            "a cluster",
            &anyhow::anyhow!("no redis-server\nis installed"),
        );
        let report = serde_json::json!({"figure": 1});
        let added = results.run(
            "Pings",
            "sluice bench ping".into(),
            &report,
            "┌─┐".into(),
            None,
        );
        added.unwrap();
        let text = results.markdown();
        assert!(text.contains("| pings | ≥ 95 % | 97 % | yes |"), "{text}");
        assert!(text.contains("| fan-out | ≥ 70 % | 45 % | **no** |"));
        assert!(text.contains("not measured: no redis-server is installed"));
        assert!(text.contains("## Pings\n\n`sluice bench ping`\n\n```text\n┌─┐\n```"));
        assert_eq!(results.errors, 1);
    }
}
