//! The keys of the UDP port and of encrypted TCP: a gateway holds the secret halves, clients pin the
//! public ones.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use sluice_codec::datagram::{ServerKey, ServerKeys, ServerPins};
use sluice_gateway::TcpEncryption;

use crate::{config::Config, engines::make_private_folder, secret_file::warn_if_others_read};

/// Name of the file in the data folder.
pub const DATAGRAM_KEY_FILE: &str = "datagram-key";

/// The keys, the one for new sessions first; made where there are none.
pub fn open(config: &Config) -> anyhow::Result<Vec<ServerKey>> {
    if let Some(keys) = configured(config)? {
        return Ok(keys);
    }
    let path = key_file(config);
    if let Some(keys) = read(&path)? {
        warn_if_others_read(&path);
        return Ok(keys);
    }
    let key = ServerKey::from_secret(rand::random());
    match write(&path, std::slice::from_ref(&key), true) {
        Ok(()) => Ok(vec![key]),
        // Another process of this machine was faster.
        Err(error) if is_there_already(&error) => {
            read(&path)?.with_context(|| format!("{} went away", path.display()))
        }
        Err(error) => Err(error),
    }
}

/// Whether this gateway has a use for keys.
pub fn are_used(gateway: &sluice_gateway::Config) -> bool {
    let encrypts = gateway.tcp_encryption != TcpEncryption::Off;
    gateway.udp_address.is_some() || (encrypts && gateway.tcp_address.is_some())
}

/// What a gateway needs that listens at these ports.
pub fn of_gateway(config: &Config) -> anyhow::Result<Option<ServerKeys>> {
    if !are_used(&config.gateway) {
        return Ok(None);
    }
    let mut node = config.datagrams.node.clone();
    if node.is_empty() {
        let host = rustix::system::uname();
        // Without UDP nothing is bound to the name.
        let port = config.gateway.udp_address.map_or(0, |it| it.port());
        node = format!("{}:{port}", host.nodename().to_string_lossy());
    }
    let keys = ServerKeys::new(open(config)?, &node).context("[datagrams] keys")?;
    Ok(Some(keys))
}

/// What clients are told; nothing where this process knows no keys.
pub fn pins(config: &Config) -> anyhow::Result<Option<ServerPins>> {
    let told = &config.endpoints.pins;
    if !told.is_empty() {
        return Ok(Some(told.parse().context("[endpoints] pins")?));
    }
    let keys = match configured(config)? {
        Some(keys) => Some(keys),
        None => read(&key_file(config))?,
    };
    keys.map(|keys| pins_of(&keys)).transpose()
}

/// The public halves of these keys.
pub fn pins_of(keys: &[ServerKey]) -> anyhow::Result<ServerPins> {
    Ok(ServerPins::new(keys.iter().map(ServerKey::pin).collect())?)
}

/// Puts a fresh key before the others. The oldest goes when there are too many.
pub fn renew(config: &Config) -> anyhow::Result<Vec<ServerKey>> {
    if configured(config)?.is_some() {
        bail!(
            "the keys are in the configuration ([datagrams] keys), not in a file: put a fresh one \
             before them there"
        );
    }
    let path = key_file(config);
    let mut keys = vec![ServerKey::from_secret(rand::random())];
    keys.extend(read(&path)?.unwrap_or_default());
    keys.truncate(ServerKeys::MAX);
    write(&path, &keys, false)?;
    Ok(keys)
}

/// Where the keys are, unless they are given themselves.
pub fn key_file(config: &Config) -> PathBuf {
    match config.datagrams.key_file.as_os_str().is_empty() {
        true => config.data_dir.join(DATAGRAM_KEY_FILE),
        false => config.datagrams.key_file.clone(),
    }
}

fn configured(config: &Config) -> anyhow::Result<Option<Vec<ServerKey>>> {
    let text = &config.datagrams.keys.0;
    let keys = (!text.is_empty()).then(|| parse(text));
    keys.transpose().context("[datagrams] keys")
}

fn read(path: &Path) -> anyhow::Result<Option<Vec<ServerKey>>> {
    match fs::read_to_string(path) {
        Ok(text) => {
            Ok(Some(parse(&text).with_context(|| {
                format!("the UDP keys in {}", path.display())
            })?))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            Err(error).with_context(|| format!("cannot read the UDP keys in {}", path.display()))
        }
    }
}

fn parse(text: &str) -> anyhow::Result<Vec<ServerKey>> {
    let words = text.split([',', '\n']).map(str::trim);
    let keys: Vec<_> = words
        .filter(|word| !word.is_empty())
        .map(ServerKey::from_secret_text)
        .collect::<Result<_, _>>()?;
    if keys.is_empty() {
        bail!("there is no key in it; remove it, and a fresh one is made");
    }
    Ok(keys)
}

/// As a whole or not at all, for this user alone. `new`: fails where there is one.
fn write(path: &Path, keys: &[ServerKey], new: bool) -> anyhow::Result<()> {
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
    if let Some(folder) = folder {
        make_private_folder(folder)
            .with_context(|| format!("cannot create the folder {}", folder.display()))?;
    }
    let cannot = || format!("cannot write the UDP keys to {}", path.display());
    let mut beside = path.to_owned();
    beside.set_extension(format!("new-{}", std::process::id()));
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)
        .with_context(cannot)?;
    for key in keys {
        writeln!(file, "{}", key.secret_text()).with_context(cannot)?;
    }
    file.sync_all().with_context(cannot)?;
    let placed = match new {
        // A link is made only where there is no file.
        true => fs::hard_link(&beside, path).and_then(|()| fs::remove_file(&beside)),
        false => fs::rename(&beside, path),
    };
    if placed.is_err() {
        let _ = fs::remove_file(&beside);
    }
    placed.with_context(cannot)
}

fn is_there_already(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<io::Error>();
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::AlreadyExists)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_once_kept_and_renewed() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            data_dir: folder.path().join("data"),
            ..Config::default()
        };
        assert!(pins(&config).unwrap().is_none());
        let first = open(&config).unwrap();
        let again = open(&config).unwrap();
        assert_eq!(first[0].pin(), again[0].pin());
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &fs::metadata(key_file(&config)).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
        for _ in 0..ServerKeys::MAX {
            renew(&config).unwrap();
        }
        let keys = open(&config).unwrap();
        assert_eq!(keys.len(), ServerKeys::MAX);
        assert!(keys.iter().all(|key| key.pin() != first[0].pin()));
        let told = pins(&config).unwrap().unwrap().to_string();
        assert_eq!(told.split(',').count(), ServerKeys::MAX);
        assert!(told.starts_with(&keys[0].pin().to_string()));
        fs::write(key_file(&config), "no key").unwrap();
        assert!(open(&config).is_err());
    }
}
