//! Holds the table "Rooms and who may enter them" of ARCHITECTURE.md against
//! `cargo metadata`: which package may depend on which, and which room alone may
//! know Redis, SQL or client sockets.

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use cargo_metadata::{DependencyKind, MetadataCommand, Package};

    /// Package, and the packages of this workspace that it may use.
    const MAY_USE: &[(&str, &[&str])] = &[
        ("sluice-protocol", &[]),
        ("sluice-codec", &["sluice-protocol"]),
        ("sluice-timer", &[]),
        ("sluice-trace", &["sluice-protocol"]),
        ("sluice-bus", &["sluice-protocol"]),
        ("sluice-store", &["sluice-protocol"]),
        (
            "sluice-gateway",
            &[
                "sluice-codec",
                "sluice-timer",
                "sluice-trace",
                "sluice-bus",
                "sluice-protocol",
            ],
        ),
        (
            "sluice-services",
            &[
                "sluice-bus",
                "sluice-store",
                "sluice-trace",
                "sluice-protocol",
            ],
        ),
        (
            "sluice-client",
            &["sluice-codec", "sluice-timer", "sluice-protocol"],
        ),
        ("sluice-ffi", &["sluice-client"]),
        ("sluice-header", &[]),
        ("sluice-relay", TOOLS_MAY_USE),
        ("sluice-netlab", &["sluice-codec", "sluice-relay"]),
        ("sluice-load", TOOLS_MAY_USE),
        ("sluice-engines", &[]),
        ("sluice-fuzz", &["sluice-codec"]),
        ("sluice-layering", &[]),
    ];
    const TOOLS_MAY_USE: &[&str] = &[
        "sluice-codec",
        "sluice-timer",
        "sluice-protocol",
        "sluice-client",
    ];

    /// These may use everything above: the one binary, and the benches.
    const MAY_USE_ALL: &[&str] = &["sluice", "sluice-benches"];

    /// A crate that only this package may depend on.
    const ALONE: &[(&str, &str)] = &[
        ("redis", "sluice-bus"),
        ("rusqlite", "sluice-store"),
        ("sqlx", "sluice-store"),
        ("mysql_async", "sluice-store"),
    ];

    fn packages() -> BTreeMap<String, Package> {
        let metadata = MetadataCommand::new()
            .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml"))
            .no_deps()
            .exec()
            .unwrap();
        metadata
            .packages
            .into_iter()
            .map(|package| (package.name.to_string(), package))
            .collect()
    }

    /// Names of what a package builds with; tests and benches may use more.
    fn uses(package: &Package) -> Vec<&str> {
        let built_in = package
            .dependencies
            .iter()
            .filter(|d| d.kind != DependencyKind::Development);
        built_in
            .map(|dependency| dependency.name.as_str())
            .collect()
    }

    #[test]
    fn every_package_keeps_to_its_row() {
        let mut packages = packages();
        for name in MAY_USE_ALL {
            assert!(
                packages.remove(*name).is_some(),
                "{name} is in the table, not in the workspace"
            );
        }
        for (name, may_use) in MAY_USE {
            let package = packages.remove(*name);
            let package = package.unwrap_or_else(|| panic!("{name} is not in the workspace"));
            for used in uses(&package)
                .into_iter()
                .filter(|used| used.starts_with("sluice"))
            {
                assert!(may_use.contains(&used), "{name} must not use {used}");
            }
        }
        assert!(
            packages.is_empty(),
            "not in the table: {:?}",
            packages.keys()
        );
    }

    #[test]
    fn engines_are_known_to_one_room_each() {
        for (name, package) in packages() {
            for used in uses(&package) {
                let owner = ALONE
                    .iter()
                    .find(|(engine, _)| *engine == used)
                    .map(|(_, owner)| *owner);
                assert!(
                    owner.is_none_or(|owner| owner == name),
                    "{name} must not use {used}"
                );
            }
        }
    }

    #[test]
    fn only_the_gateway_accepts_on_mio() {
        // The load driver opens connections with mio and accepts none.
        let users: Vec<String> = packages()
            .into_iter()
            .filter(|(_, package)| uses(package).contains(&"mio"))
            .map(|(name, _)| name)
            .collect();
        assert_eq!(users, ["sluice-gateway", "sluice-load"]);
    }
}
