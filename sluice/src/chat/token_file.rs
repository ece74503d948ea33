//! A login token between runs: one file a server and user, for its owner's eyes
//! only. It is used with the password only that it was got by, so that a wrong
//! password stays wrong; the file holds a slow, salted hash of it.
//!
//! Cost: some 30 ms a run, for the hash.

use std::{
    io::Write,
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use aws_lc_rs::{constant_time::verify_slices_are_equal, pbkdf2};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use sluice_client::Login;

/// Of PBKDF2-HMAC-SHA256.
const ROUNDS: NonZeroU32 = NonZeroU32::MIN.saturating_add(99_999);
const SALT_BYTES: usize = 16;
/// A token has 2 KiB at most; a larger file is none of ours.
const FILE_MAX_BYTES: u64 = 8 * 1024;

/// Where the newest token of a user is kept.
pub(crate) struct TokenFile {
    path: PathBuf,
    salt: String,
    password_hash: String,
    kept: Option<Login>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    token: String,
    expires_ms: u64,
    salt: String,
    password_hash: String,
}

// === impl TokenFile ===

impl TokenFile {
    /// Reads what there is; a file that can't be used counts as none.
    pub(crate) fn open(folder: &Path, password: &str) -> Self {
        let path = folder.join("token.json");
        let content = read(&path);
        let salt = match &content {
            Some(content) => content.salt.clone(),
            None => BASE64_STANDARD.encode(rand::random::<[u8; SALT_BYTES]>()),
        };
        let password_hash = hash(password, &salt);
        let fits = |content: &Content| {
            let (one, other) = (&content.password_hash, &password_hash);
            verify_slices_are_equal(one.as_bytes(), other.as_bytes()).is_ok()
        };
        let kept = content.filter(fits).map(|content| Login {
            token: content.token,
            expires_ms: content.expires_ms,
        });
        Self {
            path,
            salt,
            password_hash,
            kept,
        }
    }

    /// The token of an earlier run with this password.
    pub(crate) fn kept(&self) -> Option<&Login> {
        self.kept.as_ref()
    }

    /// Keeps this one instead.
    pub(crate) fn keep(&self, login: &Login) {
        let content = Content {
            token: login.token.clone(),
            expires_ms: login.expires_ms,
            salt: self.salt.clone(),
            password_hash: self.password_hash.clone(),
        };
        if let Err(error) = write(&self.path, &content) {
            // The next run logs in by the password then.
            tracing::warn!(path = %self.path.display(), %error, "the token is not kept");
        }
    }
}

fn read(path: &Path) -> Option<Content> {
    let size = std::fs::metadata(path).ok()?.len();
    if size > FILE_MAX_BYTES {
        return None;
    }
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// Whole or not at all: two runs may write at once. Such a file has mode 0600
/// from its first byte on.
fn write(path: &Path, content: &Content) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(&serde_json::to_vec(content)?)?;
    file.persist(path)?;
    Ok(())
}

fn hash(password: &str, salt: &str) -> String {
    let mut hash = [0; 32];
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        ROUNDS,
        salt.as_bytes(),
        password.as_bytes(),
        &mut hash,
    );
    BASE64_STANDARD.encode(hash)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_token_is_kept_for_its_password_and_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let file = TokenFile::open(folder.path(), "correct horse");
        assert!(file.kept().is_none());
        let login = Login {
            token: "a.b.c".to_owned(),
            expires_ms: 5,
        };
        file.keep(&login);
        let mode = std::fs::metadata(&file.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{mode:o}");
        let text = std::fs::read_to_string(&file.path).unwrap();
        assert!(!text.contains("correct horse"), "{text}");

        let again = TokenFile::open(folder.path(), "correct horse");
        assert_eq!(again.kept(), Some(&login));
        let other = TokenFile::open(folder.path(), "battery staple");
        assert!(other.kept().is_none());
        std::fs::write(&file.path, "{\"token\":").unwrap();
        let torn = TokenFile::open(folder.path(), "correct horse");
        assert!(torn.kept().is_none());
    }
}
