//! Pings, messages, groups and requests.

use sluice_load::{LoadTransport, Pace};

use super::{Course, DEPTH, capital};
use crate::bench::{
    Server,
    chat::{ChatReport, chat},
    fanout::fanout,
    load::Load,
    ping::ping,
    request::request,
};

const REQUESTS_PER_S: f64 = 2_000.0;

impl Course {
    pub(super) async fn ping(&mut self) -> anyhow::Result<()> {
        for (depth, goal, bound) in [(1, "≥ 95 %", 0.95), (DEPTH, "≥ 70 %", 0.70)] {
            let what = format!("pings of the epoll floor's, {depth} under way");
            eprintln!("== {what}");
            let mut load = self.load(LoadTransport::Tcp, 100);
            load.depth = depth;
            load.body_bytes = 0;
            let live = self.live(&load)?;
            let report = Box::pin(ping(load, live, self.shutdown.clone())).await;
            let Some(report) = self.came(&what, report)? else {
                continue;
            };
            let seen = format!("{:.1} % ({:.0}/s)", report.ratio * 100.0, report.msgs_per_s);
            let command = format!("sluice bench ping --depth {depth}");
            let name = format!("ping-{depth}");
            let drawn = Some((&report.common, self.folder.as_path(), name.as_str()));
            self.results
                .run(&capital(&what), command, &report, report.table(), drawn)?;
            self.results.goal(what, goal, seen, report.ratio >= bound);
        }
        Ok(())
    }

    pub(super) async fn chat(&mut self) -> anyhow::Result<()> {
        let connections = self.sizes.chatting;
        let load = self.load(LoadTransport::Tcp, connections);
        let what = "durable messages a second";
        let Some(max) = self
            .talk(what, load.clone(), Pace::Window, "chat-max")
            .await?
        else {
            return Ok(());
        };
        let seen = format!("{:.0}, {}", max.msgs_per_s, cores_of(&max));
        self.results.goal(
            what,
            "≥ 20,000, aim 40,000",
            seen,
            max.msgs_per_s >= 20_000.0,
        );
        let half = (max.msgs_per_s / 2.0).round();
        let what = format!("p99 of acks at half of that, {half:.0}/s");
        let Some(report) = self
            .talk(&what, load, Pace::PerSecond(half), "chat-half")
            .await?
        else {
            return Ok(());
        };
        let p99_ms = report.ack.ack_p99_ms;
        let seen = format!("{p99_ms:.1} ms (p50 {:.1} ms)", report.ack.ack_p50_ms);
        self.results.goal(what, "< 20 ms", seen, p99_ms < 20.0);
        Ok(())
    }

    pub(super) async fn growth(&mut self) -> anyhow::Result<()> {
        let per_s = self.sizes.growth_per_s;
        let sizes = [self.sizes.chatting, self.sizes.connections];
        let mut seen = Vec::new();
        for connections in sizes {
            let what = format!("{per_s:.0} messages a second of {connections} connections");
            let load = self.load(LoadTransport::Tcp, connections);
            let name = format!("chat-of-{connections}");
            let Some(report) = self
                .talk(&what, load, Pace::PerSecond(per_s), &name)
                .await?
            else {
                return Ok(());
            };
            let sent = report.common.sent.max(1) as f64;
            let cpu_us = report.common.server_cpu_s * 1e6 / sent;
            seen.push((report.ack.ack_p99_ms, cpu_us));
        }
        if let [(few_ms, few_us), (many_ms, many_us)] = seen[..] {
            let [few, many] = sizes;
            let is_flat = |few: f64, many: f64| many <= few * 1.1;
            let what = format!("p99 of acks at {per_s:.0}/s, {few} → {many} connections");
            let text = format!("{few_ms:.1} → {many_ms:.1} ms");
            self.results
                .goal(what, "± 10 %", text, is_flat(few_ms, many_ms));
            let what = format!("CPU of a message at {per_s:.0}/s, {few} → {many} connections");
            let text = format!("{few_us:.0} → {many_us:.0} µs");
            self.results
                .goal(what, "± 10 %", text, is_flat(few_us, many_us));
        }
        Ok(())
    }

    pub(super) async fn talk(
        &mut self,
        what: &str,
        load: Load,
        pace: Pace,
        name: &str,
    ) -> anyhow::Result<Option<ChatReport>> {
        eprintln!("== {what}");
        let rate = pace
            .per_s()
            .map_or("max".to_owned(), |per_s| format!("{per_s:.0}"));
        let cluster = match &load.server {
            Server::Cluster(_) => " --cluster gateways=1,services=1",
            Server::Start | Server::Running(_) | Server::Peer(_) => "",
        };
        let command = format!(
            "sluice bench chat --connections {} --depth {} --rate {rate}{cluster}",
            load.connections, load.depth
        );
        let live = self.live(&load)?;
        let report = Box::pin(chat(load, pace, live, self.shutdown.clone())).await;
        let Some(report) = self.came(what, report)? else {
            return Ok(None);
        };
        let drawn = Some((&report.common, self.folder.as_path(), name));
        self.results
            .run(&capital(what), command, &report, report.table(), drawn)?;
        Ok(Some(report))
    }

    pub(super) async fn fanout(&mut self) -> anyhow::Result<()> {
        let members = self.sizes.members;
        for (depth, goal) in [(8, "≥ 70 %"), (1, "")] {
            let what = format!("fan-out to {members} of raw writes', {depth} under way");
            eprintln!("== {what}");
            let mut load = self.load(LoadTransport::Tcp, members);
            load.depth = depth;
            let live = self.live(&load)?;
            let report = Box::pin(fanout(load, Pace::Window, live, self.shutdown.clone())).await;
            let Some(report) = self.came(&what, report)? else {
                continue;
            };
            let per_s = report.deliveries_per_s;
            let seen = format!("{:.0} % ({per_s:.0}/s)", report.ratio * 100.0);
            let command = format!("sluice bench fanout --connections {members} --depth {depth}");
            let name = format!("fanout-{depth}");
            let drawn = Some((&report.common, self.folder.as_path(), name.as_str()));
            self.results
                .run(&capital(&what), command, &report, report.table(), drawn)?;
            match goal {
                "" => self.results.seen(what, seen),
                goal => self.results.goal(what, goal, seen, report.ratio >= 0.70),
            }
        }
        Ok(())
    }

    pub(super) async fn request(&mut self) -> anyhow::Result<()> {
        let what = format!("p99 of {REQUESTS_PER_S:.0} requests a second to a backend by Redis");
        eprintln!("== {what}");
        let load = self.load(LoadTransport::Tcp, self.sizes.chatting);
        let live = self.live(&load)?;
        let pace = Pace::PerSecond(REQUESTS_PER_S);
        let report = Box::pin(request(load, pace, live, self.shutdown.clone())).await;
        let Some(report) = self.came(&what, report)? else {
            return Ok(());
        };
        let command = format!("sluice bench request --rate {REQUESTS_PER_S:.0}");
        let drawn = Some((&report.common, self.folder.as_path(), "request"));
        self.results
            .run(&capital(&what), command, &report, report.table(), drawn)?;
        self.results
            .seen(what, format!("{:.1} ms", report.ack.ack_p99_ms));
        Ok(())
    }
}

/// CPU by role.
pub(super) fn cores_of(report: &ChatReport) -> String {
    let common = &report.common;
    let mut by_role: Vec<(&str, f64)> = Vec::new();
    for process in &common.processes {
        match by_role.iter_mut().find(|(role, _)| *role == process.role) {
            Some((_, cpu_s)) => *cpu_s += process.cpu_s,
            None => by_role.push((process.role, process.cpu_s)),
        }
    }
    by_role.push(("generator", common.generator_cpu_s));
    let cores = by_role.iter().map(|(role, cpu_s)| {
        let cores = cpu_s / common.duration_s.max(f64::MIN_POSITIVE);
        format!("{role} {cores:.2}")
    });
    format!("cores: {}", cores.collect::<Vec<_>>().join(", "))
}
