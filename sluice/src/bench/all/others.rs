//! Other systems under the same load.

use std::time::Duration;

use sluice_load::LoadTransport;

use super::{Course, capital};
use crate::bench::{
    peer::Durability,
    peers::{Entrant, PeersOptions, PeersReport, peers},
};

impl Course {
    pub(super) async fn peers(&mut self) -> anyhow::Result<()> {
        let what = "other systems under the same load";
        eprintln!("== {what}");
        let mut load = self.load(LoadTransport::Tcp, self.sizes.peer_connections);
        load.depth = 32;
        let entrants = Entrant::ALL.into_iter().filter(|it| it.is_installed());
        let options = PeersOptions {
            entrants: entrants.collect(),
            load: load.clone(),
            idle_connections: self.sizes.connections.min(5_000),
            idle: self.sizes.idle.min(Duration::from_secs(5)),
        };
        let missing = Entrant::ALL.len() - options.entrants.len();
        if missing > 0 {
            let text = format!("{missing} are not installed: tools/peers --install-only");
            self.results.seen("systems left out", text);
        }
        let report = Box::pin(peers(options, self.shutdown.clone())).await;
        let Some(report) = self.came(what, report)? else {
            return Ok(());
        };
        self.results.errors += report.errors;
        let command = format!("tools/peers --connections {}", load.connections);
        self.results
            .run(&capital(what), command, &report, report.markdown(), None)?;
        let what = "Sluice's rate by that of the best peer whose acks are synced, too";
        if let Some((name, ratio)) = least_ratio(&report, &[Durability::Synced]) {
            self.results
                .goal(what, "≥ 3", format!("{ratio:.1} ({name})"), ratio >= 3.0);
        }
        let what = "the same of the best whose acks promise less";
        let less = [Durability::Written, Durability::Memory, Durability::None];
        if let Some((name, ratio)) = least_ratio(&report, &less) {
            self.results.seen(what, format!("{ratio:.2} ({name})"));
        }
        Ok(())
    }
}

/// Of Sluice's rate by that of the fastest peer with one of these durabilities.
fn least_ratio(report: &PeersReport, among: &[Durability]) -> Option<(&'static str, f64)> {
    let peers = report.systems.iter().filter(|it| it.system != "sluice");
    let alike = peers.filter(|it| among.contains(&it.durability));
    let ratios = alike.filter_map(|it| Some((it.system, it.sluice_ratio?)));
    ratios.min_by(|a, b| a.1.total_cmp(&b.1))
}
