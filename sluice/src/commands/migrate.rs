//! `sluice migrate`.

use std::{io::Write, process::ExitCode};

use anyhow::Context;
use sluice_store::{Migrated, MysqlStore, SqliteStore};
use tokio_util::sync::CancellationToken;

use super::serve::Place;
use crate::{cli::Stopped, engines::make_private_folder};

/// Bring the databases of the store to this program's schema
///
/// On every MySQL server of the configuration, or in the data folder. Says what
/// it did; does nothing where nothing is to be done, and may run several times
/// at once. Every role does the same when it starts: this is for those who want
/// it done before. Ctrl-C stops it between two steps; what was done stays done.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: Place,
}

/// Runs the command.
pub async fn run(args: Args, shutdown: CancellationToken) -> anyhow::Result<ExitCode> {
    let config = args.place.read()?;
    let all = match &config.store.mysql {
        Some(mysql) => MysqlStore::migrate(mysql, &|| shutdown.is_cancelled()).await?,
        None => {
            let folder = &config.data_dir;
            make_private_folder(folder)
                .with_context(|| format!("cannot create the data folder {}", folder.display()))?;
            vec![SqliteStore::migrate(folder, &config.store.sqlite)?]
        }
    };
    let mut stdout = std::io::stdout();
    for migrated in &all {
        writeln!(stdout, "{}", describe(migrated))?;
    }
    if all.iter().any(|migrated| migrated.is_stopped) {
        return Err(Stopped("all was done; run it again to go on").into());
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(migrated: &Migrated) -> String {
    let Migrated {
        database, from, to, ..
    } = migrated;
    let mut line = match from {
        0 if *to == 0 => format!("{database}: nothing done"),
        0 => format!("{database}: made, schema version {to}"),
        from if from == to => format!("{database}: has schema version {to}"),
        from => format!("{database}: schema version {from} → {to}"),
    };
    if migrated.is_stopped {
        line += "; stopped";
    }
    if let (Some(first), Some(last)) = (migrated.months.first(), migrated.months.last()) {
        line += &match first == last {
            true => format!("; month {first} added"),
            false => format!("; months {first} to {last} added"),
        };
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_said() {
        let migrated = |from, months: &[&str]| {
            describe(&Migrated {
                database: "db:3306/sluice".to_owned(),
                from,
                to: 2,
                is_stopped: false,
                months: months.iter().map(ToString::to_string).collect(),
            })
        };
        assert_eq!(
            migrated(0, &["2026-10", "2026-11", "2026-12"]),
            "db:3306/sluice: made, schema version 2; months 2026-10 to 2026-12 added"
        );
        assert_eq!(migrated(2, &[]), "db:3306/sluice: has schema version 2");
        assert_eq!(
            migrated(1, &["2027-05"]),
            "db:3306/sluice: schema version 1 → 2; month 2027-05 added"
        );
    }
}
