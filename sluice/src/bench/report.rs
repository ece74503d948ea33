//! What every report says: the workload, the costs, what went wrong, and where and by
//! what all this was measured.

use comfy_table::{Cell, CellAlignment, Table, presets::UTF8_BORDERS_ONLY};
use serde::Serialize;

use sluice_load::ProcessMemory;

use super::{generator::Findings, load::Load, plot::Plots, subject::Subject};

/// The figures that all workloads have in common.
#[derive(Debug, Clone, Serialize)]
pub struct Common {
    /// What was done.
    pub workload: &'static str,
    /// `tcp`, `ws` or `udp`.
    pub transport: &'static str,
    /// Connections held.
    pub connections: usize,
    /// What was measured took so long; where a floor is measured in rounds between,
    /// without these.
    pub duration_s: f64,
    /// And the floor's rounds so long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor_duration_s: Option<f64>,
    /// CPU of Sluice's own processes in that time: the server, or gateways and services.
    pub server_cpu_s: f64,
    /// CPU of the generators in that time.
    pub generator_cpu_s: f64,
    /// The generators were short of CPU or late, so that the figures are their own.
    pub generator_bound: bool,
    /// Whatever was lost, refused or cut; 0 in a run that is worth anything.
    pub errors: u64,
    /// Messages sent, each once.
    pub sent: u64,
    /// Sent and never answered.
    pub unacked: u64,
    /// Acked and never received by somebody who should have.
    pub unreceived: u64,
    /// Due, and never sent as there was no room in the sender's window.
    pub unsent: u64,
    /// Sends that the server put off, and that were sent again.
    pub put_off: u64,
    /// Received or answered more than once.
    pub repeats: u64,
    /// Connections lost.
    pub disconnects: u64,
    /// Times that a client's pushes were dropped, which it then pulled.
    pub overflows: u64,
    /// Messages that the generators took from their schedule over 10 ms late.
    pub late: u64,
    /// Processes that made the load, a thread each.
    pub generators: usize,
    /// Their priority: below 0 they go before the server, where that was allowed.
    pub generator_nice: i32,
    /// Each process of the system, so that a reader sees what is short.
    pub processes: Vec<ProcessFigures>,
    /// What an SVG shows.
    #[serde(skip)]
    pub plots: Plots,
    /// The first thing that went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Where.
    #[serde(flatten)]
    pub machine: Machine,
}

/// What one process of the system took.
#[derive(Debug, Clone, Serialize)]
pub struct ProcessFigures {
    /// `server`, `gateway`, `service`, `redis`, `mariadb` or `backend`.
    pub role: &'static str,
    /// Its process id.
    pub pid: u32,
    /// CPU in the time that was measured.
    pub cpu_s: f64,
    /// Memory (PSS) at the end; 0 where it may not be looked at.
    pub process_bytes: u64,
}

/// Where and by what something was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Its processor's name.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Its memory.
    pub memory_mb: u64,
    /// The kernel's release.
    pub kernel: String,
    /// Of the program.
    pub version: &'static str,
    /// `release` or `debug`, which is no measure of anything.
    pub build: &'static str,
    /// What the server's configuration says beside the defaults.
    pub settings: String,
}

/// A generator is bound when it uses more of its core than this,
const BUSY_SHARE: f64 = 0.9;
/// or when more of its messages than this left late.
const LATE_SHARE: f64 = 0.01;

// === impl Common ===

impl Common {
    pub(super) fn new(
        workload: &'static str,
        load: &Load,
        subject: &Subject,
        findings: &Findings,
    ) -> Self {
        let counts = &findings.counts;
        let measured_s = findings.measured_s();
        let unacked = findings.total(|it| it.unacked);
        let unreceived = findings.total(|it| it.unreceived);
        let is_busy = |cpu_s: f64| cpu_s > BUSY_SHARE * measured_s;
        let is_late = counts.late as f64 > LATE_SHARE * counts.sent as f64;
        Self {
            workload,
            transport: load.transport.name(),
            connections: load.connections,
            duration_s: measured_s,
            floor_duration_s: Some(findings.sum(|it| it.floor_measured_s)).filter(|it| *it > 0.0),
            server_cpu_s: ProcessFigures::sluice_cpu_s(subject, findings),
            generator_cpu_s: findings.sum(|it| it.generator_cpu_s),
            generator_bound: is_late
                || (findings.outcomes.iter()).any(|it| is_busy(it.generator_cpu_s)),
            errors: unacked + unreceived + counts.failed + counts.disconnects,
            sent: counts.sent,
            unacked,
            unreceived,
            unsent: findings.total(|it| it.unsent),
            put_off: counts.put_off,
            repeats: counts.repeats,
            disconnects: counts.disconnects,
            overflows: counts.overflows,
            late: counts.late,
            generators: findings.outcomes.len(),
            generator_nice: findings.outcomes.first().map_or(0, |it| it.nice),
            processes: ProcessFigures::all(subject, findings),
            plots: Plots::of(findings),
            trouble: findings.outcomes.iter().find_map(|it| it.trouble.clone()),
            machine: Machine::this(&subject.settings),
        }
    }

    /// What was measured, in a line.
    pub fn title(&self) -> String {
        format!(
            "sluice bench {}: {} connections by {}, {:.0} s, {} × {}",
            self.workload,
            self.connections,
            self.transport,
            self.duration_s,
            self.machine.cores,
            self.machine.cpu
        )
    }

    /// For people: the workload's own figures first.
    pub(super) fn table(&self, figures: &[(&str, String)]) -> String {
        let mut table = Table::new();
        table.load_style(UTF8_BORDERS_ONLY);
        let mut row = |name: &str, value: String| {
            let value = Cell::new(value).set_alignment(CellAlignment::Right);
            table.add_row(vec![Cell::new(name), value]);
        };
        for (name, value) in figures {
            row(name, value.clone());
        }
        let share = |cpu_s: f64| format!("{cpu_s:.2} s ({:.2} cores)", cpu_s / self.duration_s);
        row(
            "connections",
            format!("{} {}", self.connections, self.transport),
        );
        let floor = self
            .floor_duration_s
            .map(|floor_s| format!(", and the bare server {floor_s:.1} s"));
        let measured = format!("{:.1} s{}", self.duration_s, floor.unwrap_or_default());
        row("measured", measured);
        row("CPU of the server", share(self.server_cpu_s));
        if self.processes.len() > 1 {
            for (role, count, cpu_s, bytes) in ProcessFigures::by_role(&self.processes) {
                let memory = format!("{:.1} MB", bytes as f64 / 1_048_576.0);
                row(
                    &format!("{role} × {count}"),
                    format!("{}, {memory}", share(cpu_s)),
                );
            }
        }
        row("CPU of the generator", share(self.generator_cpu_s));
        if self.generator_bound {
            let late = match self.late {
                0 => String::new(),
                late => format!(": {late} of {} messages left late", self.sent),
            };
            row("bound by", format!("the generator{late}"));
        }
        row("errors", self.errors.to_string());
        for (name, count) in [
            ("never answered", self.unacked),
            ("never received", self.unreceived),
            ("due, but no room to send", self.unsent),
            ("put off by the server", self.put_off),
            ("repeated", self.repeats),
            ("connections lost", self.disconnects),
            ("overflows, pulled", self.overflows),
        ] {
            if count > 0 {
                row(name, count.to_string());
            }
        }
        if let Some(trouble) = &self.trouble {
            row("first trouble", trouble.clone());
        }
        let machine = &self.machine;
        row("machine", format!("{} × {}", machine.cores, machine.cpu));
        row("memory", format!("{} MB", machine.memory_mb));
        row("kernel", machine.kernel.clone());
        row(
            "version",
            format!("{} ({})", machine.version, machine.build),
        );
        table.to_string()
    }
}

// === impl ProcessFigures ===

impl ProcessFigures {
    /// As they are now.
    fn all(subject: &Subject, findings: &Findings) -> Vec<Self> {
        let parts = subject.parts.iter().enumerate();
        let figures = parts.map(|(at, part)| Self {
            role: part.role,
            pid: part.pid,
            cpu_s: findings.server_cpu_s(at),
            process_bytes: ProcessMemory::of(part.pid).map_or(0, |memory| memory.pss_bytes),
        });
        figures.collect()
    }

    fn sluice_cpu_s(subject: &Subject, findings: &Findings) -> f64 {
        let parts = subject.parts.iter().enumerate();
        let of_sluice = parts.filter(|(_, part)| part.is_sluice());
        of_sluice.map(|(at, _)| findings.server_cpu_s(at)).sum()
    }

    /// Role, processes, CPU and memory of all, in their order.
    fn by_role(all: &[Self]) -> Vec<(&'static str, usize, f64, u64)> {
        let same_role = all.chunk_by(|one, next| one.role == next.role);
        let sums = same_role.map(|some| {
            let cpu_s = some.iter().map(|it| it.cpu_s).sum();
            let bytes = some.iter().map(|it| it.process_bytes).sum();
            (
                some.first().map_or("", |it| it.role),
                some.len(),
                cpu_s,
                bytes,
            )
        });
        sums.collect()
    }
}

// === impl Machine ===

impl Machine {
    /// This one.
    pub(super) fn this(settings: &str) -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let line = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            let value = line.and_then(|line| line.split_once(':'));
            value.map_or_else(
                || "unknown".to_owned(),
                |(_, value)| value.trim().to_owned(),
            )
        };
        let memory = line(&read("/proc/meminfo"), "MemTotal");
        let memory_kib = memory.split_whitespace().next().map(str::parse::<u64>);
        Self {
            cpu: line(&read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mb: memory_kib.and_then(Result::ok).unwrap_or_default() / 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            version: env!("CARGO_PKG_VERSION"),
            build: if cfg!(debug_assertions) {
                "debug"
            } else {
                "release"
            },
            settings: settings.trim().replace('\n', "; "),
        }
    }
}
