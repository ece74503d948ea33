//! Connections that are held: idle ones of one server, and those of clusters.

use sluice_load::{LoadTransport, Pace};

use super::{Course, capital, messages::cores_of};
use crate::{
    bench::{
        Server,
        idle::{IdleReport, idle},
        load::Load,
    },
    cluster::Shape,
};

impl Course {
    pub(super) async fn idle(&mut self) -> anyhow::Result<()> {
        let connections = self.sizes.connections;
        for transport in [LoadTransport::Tcp, LoadTransport::WebSocket] {
            let name = transport.name();
            let what = format!("bytes of an idle connection by {name} in `sluice serve`");
            let load = self.load(transport, connections);
            let command =
                format!("sluice bench idle --transport {name} --connections {connections}");
            if let Some(report) = self
                .hold(&what, load, command, &format!("idle-{name}"))
                .await?
            {
                let bytes = report.process_bytes_per_connection;
                let is_well = bytes <= 500.0 && report.common.errors == 0;
                self.results
                    .goal(what, "≤ 500", format!("{bytes:.0}"), is_well);
            }
        }
        let sessions = self.sizes.sessions;
        let what = format!("bytes of an idle UDP session, {sessions} from 20,000 addresses");
        let load = self.load(LoadTransport::Udp, sessions);
        let command = format!("sluice bench idle --transport udp --connections {sessions}");
        if let Some(report) = self.hold(&what, load, command, "idle-udp").await? {
            let bytes = report.process_bytes_per_connection;
            let is_well = bytes <= 500.0 && report.common.errors == 0;
            self.results
                .goal(what, "≤ 500", format!("{bytes:.0}"), is_well);
            let cores = report.common.server_cpu_s / report.common.duration_s;
            let what = "cores that their heartbeats take";
            self.results
                .goal(what, "< 1", format!("{cores:.2}"), cores < 1.0);
        }
        Ok(())
    }

    pub(super) async fn hold(
        &mut self,
        what: &str,
        mut load: Load,
        command: String,
        name: &str,
    ) -> anyhow::Result<Option<IdleReport>> {
        eprintln!("== {what}");
        load.duration = self.sizes.idle;
        // Its neighbour sends each a message in the end, where there are gateways apart.
        let push_each = matches!(load.server, Server::Cluster(_));
        let live = self.live(&load)?;
        let report = Box::pin(idle(load, push_each, live, self.shutdown.clone())).await;
        let Some(report) = self.came(what, report)? else {
            return Ok(None);
        };
        let drawn = push_each.then_some((&report.common, self.folder.as_path(), name));
        if drawn.is_none() {
            self.results.errors += report.common.errors;
        }
        self.results
            .run(&capital(what), command, &report, report.table(), drawn)?;
        Ok(Some(report))
    }

    pub(super) async fn cluster(&mut self) -> anyhow::Result<()> {
        let connections = self.sizes.connections;
        let what = "bytes of an idle TCP connection in `sluice gateway`";
        let mut load = self.load(LoadTransport::Tcp, connections);
        load.server = Server::Cluster(shape(1));
        let command = format!("sluice bench idle --cluster gateways=1 --connections {connections}");
        if let Some(report) = self.hold(what, load, command, "idle-gateway").await? {
            let bytes = report.process_bytes_per_connection;
            let is_well = bytes <= 250.0 && report.common.errors == 0;
            self.results
                .goal(what, "≤ 250", format!("{bytes:.0}"), is_well);
        }
        let what = "durable messages a second over a cluster";
        let mut load = self.load(LoadTransport::Tcp, self.sizes.chatting);
        load.server = Server::Cluster(shape(1));
        if let Some(report) = self.talk(what, load, Pace::Window, "chat-cluster").await? {
            let seen = format!("{:.0}, {}", report.msgs_per_s, cores_of(&report));
            let is_well = report.msgs_per_s >= 8_000.0 && report.common.errors == 0;
            self.results
                .goal(what, "≥ 8,000, aim 15,000", seen, is_well);
        }
        let Some((gateways, connections)) = self.sizes.spread else {
            return Ok(());
        };
        let what =
            format!("{connections} TCP connections over {gateways} gateways, each pushed to");
        let mut load = self.load(LoadTransport::Tcp, connections);
        load.server = Server::Cluster(shape(gateways));
        let command =
            format!("sluice bench idle --cluster gateways={gateways} --connections {connections}");
        if let Some(report) = self.hold(&what, load, command, "idle-cluster").await? {
            let (pushed, errors) = (report.pushed.unwrap_or_default(), report.common.errors);
            let seen = format!("{pushed} pushed to, {errors} errors");
            let is_well = pushed == connections as u64 && errors == 0;
            self.results.goal(what, "all, no error", seen, is_well);
        }
        Ok(())
    }
}

fn shape(gateways: usize) -> Shape {
    Shape {
        gateways,
        services: 1,
        redis_cluster: false,
        mariadb: 1,
    }
}
