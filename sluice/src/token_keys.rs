//! The keys of login tokens: services sign with a private one, gateways hold
//! public ones.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, bail};
use sluice_gateway::TokenVerifier;
use sluice_services::TokenSigner;

use crate::{
    config::{Config, Tokens},
    engines::make_private_folder,
    secret_file::warn_if_others_read,
};

/// Name of the signing key's file in the data folder.
pub const TOKEN_KEY_FILE: &str = "token-key.pem";

/// What to do where there is no key yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// Make one.
    Make,
    /// Fail: the other nodes of a cluster would have another.
    Fail,
}

/// The key that signs.
pub fn signer(config: &Config, absent: Absent) -> anyhow::Result<Arc<TokenSigner>> {
    if !config.tokens.key.0.is_empty() {
        let signer = TokenSigner::from_pem(&config.tokens.key.0);
        return Ok(Arc::new(signer.context("[tokens] key")?));
    }
    let path = key_file(config);
    if absent == Absent::Fail && !path.exists() {
        bail!(
            "there is no token key at {}: make one by `sluice keys`, and give every service the \
             same by [tokens] key_file or SLUICE__TOKENS__KEY",
            path.display()
        );
    }
    open_signer_at(&path)
}

/// The key that signs, from a data folder, made at the first start.
pub fn open_signer(data_dir: &Path) -> anyhow::Result<Arc<TokenSigner>> {
    open_signer_at(&data_dir.join(TOKEN_KEY_FILE))
}

/// The keys whose tokens gateways take: the signer's, and those of the configuration.
pub fn verifier(tokens: &Tokens, signer: Option<&TokenSigner>) -> anyhow::Result<TokenVerifier> {
    let mut keys: Vec<String> = signer
        .map(TokenSigner::public_key_pem)
        .into_iter()
        .collect();
    for key in &tokens.public_keys {
        keys.push(match key.contains("-----BEGIN") {
            true => key.clone(),
            false => std::fs::read_to_string(key)
                .with_context(|| format!("[tokens] public_keys: cannot read {key}"))?,
        });
    }
    TokenVerifier::from_pem(keys).context(
        "[tokens] public_keys: a gateway needs what `sluice keys` prints where the services are",
    )
}

/// Where the signing key is, unless it is given itself.
pub fn key_file(config: &Config) -> PathBuf {
    match config.tokens.key_file.as_os_str().is_empty() {
        true => config.data_dir.join(TOKEN_KEY_FILE),
        false => config.tokens.key_file.clone(),
    }
}

fn open_signer_at(path: &Path) -> anyhow::Result<Arc<TokenSigner>> {
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        make_private_folder(folder)
            .with_context(|| format!("cannot create the folder {}", folder.display()))?;
    }
    let signer = TokenSigner::open_or_create(path)
        .with_context(|| format!("the token key {}", path.display()))?;
    warn_if_others_read(path);
    Ok(Arc::new(signer))
}
