//! Tokens: EdDSA (Ed25519) JWTs, signed here and verified by gateways, which
//! hold public keys only (RFC 7519, RFC 8037).
//!
//! The key is a PKCS#8 file of mode 0600, made at the first start. Its `kid` is
//! the first 16 hex digits of SHA-256 over the public key's SPKI (RFC 8410).

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sluice_protocol::{UserId, limits::TOKEN_MAX_BYTES};

const ISSUER: &str = "sluice";
/// What the secret of [`TokenSigner::resume_secret`] is for.
const RESUME_PURPOSE: &[u8] = b"sluice resume tokens 1";
/// SubjectPublicKeyInfo of an Ed25519 key up to its 32 bytes (RFC 8410, section 4).
const SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Always `sluice`.
    pub iss: String,
    /// The user's id.
    pub sub: String,
    /// The user's token epoch at login; a token of an older one is void.
    pub ep: u64,
    /// When it was issued, Unix seconds.
    pub iat: u64,
    /// When it ends, Unix seconds.
    pub exp: u64,
}

/// Why a key can't be used or a token isn't taken.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The key file can't be read or written.
    #[error("token key {path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds no Ed25519 key in PKCS#8.
    #[error("token key is no Ed25519 key in PKCS#8 PEM")]
    BadKey,
    /// The token could not be signed.
    #[error("token can't be signed: {0}")]
    Sign(jsonwebtoken::errors::Error),
    /// The token is malformed, of another issuer or key, or its signature is wrong.
    #[error("token is not valid")]
    Invalid,
    /// The token has ended.
    #[error("token has expired")]
    Expired,
}

/// Signs tokens, and checks those that HTTP calls bring back.
pub struct TokenSigner {
    kid: String,
    signing: EncodingKey,
    verifying: DecodingKey,
    public_key: [u8; 32],
    resume_secret: hmac::Key,
}

// === impl TokenSigner ===

impl TokenSigner {
    /// Takes the key from the file, which is made if there is none.
    ///
    /// # Errors
    /// [`TokenError::File`], [`TokenError::BadKey`].
    pub fn open_or_create(path: &Path) -> Result<Self, TokenError> {
        let of_file = |source| TokenError::File {
            path: path.to_owned(),
            source,
        };
        match fs::read_to_string(path) {
            Ok(pem) => Self::from_pem(&pem),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let pem = fresh_key_pem()?;
                write_private(path, pem.as_bytes()).map_err(of_file)?;
                Self::from_pem(&pem)
            }
            Err(error) => Err(of_file(error)),
        }
    }

    /// Takes a PKCS#8 key in PEM.
    ///
    /// # Errors
    /// [`TokenError::BadKey`].
    pub fn from_pem(pem: &str) -> Result<Self, TokenError> {
        let body: String = pem
            .lines()
            .map(str::trim)
            .filter(|line| !line.starts_with("-----"))
            .collect();
        let der = STANDARD.decode(body).map_err(|_| TokenError::BadKey)?;
        let pair = Ed25519KeyPair::from_pkcs8(&der).map_err(|_| TokenError::BadKey)?;
        let public_key: [u8; 32] = pair
            .public_key()
            .as_ref()
            .try_into()
            .map_err(|_| TokenError::BadKey)?;
        let root = hmac::Key::new(hmac::HMAC_SHA256, &der);
        let resume_secret = hmac::sign(&root, RESUME_PURPOSE);
        Ok(Self {
            resume_secret: hmac::Key::new(hmac::HMAC_SHA256, resume_secret.as_ref()),
            kid: kid_of(&public_key),
            signing: EncodingKey::from_ed_der(&der),
            verifying: DecodingKey::from_ed_der(&public_key),
            public_key,
        })
    }

    /// Names the key in tokens' headers.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The public key, 32 bytes.
    pub fn public_key(&self) -> [u8; 32] {
        self.public_key
    }

    /// What resume tokens are drawn from: the same in all processes that sign with
    /// this key.
    pub(crate) fn resume_secret(&self) -> hmac::Key {
        self.resume_secret.clone()
    }

    /// The public key as SPKI in PEM, for gateways' configs.
    pub fn public_key_pem(&self) -> String {
        to_pem("PUBLIC KEY", &spki(&self.public_key))
    }

    /// Signs a token for `lifetime_ms` from now. Returns it and when it ends, in
    /// whole seconds.
    ///
    /// # Errors
    /// [`TokenError::Sign`].
    pub fn sign(
        &self,
        user: &UserId,
        token_epoch: u64,
        now_ms: u64,
        lifetime_ms: u64,
    ) -> Result<(String, u64), TokenError> {
        let expires_s = now_ms.saturating_add(lifetime_ms) / 1000;
        let claims = Claims {
            iss: ISSUER.to_owned(),
            sub: user.as_str().to_owned(),
            ep: token_epoch,
            iat: now_ms / 1000,
            exp: expires_s,
        };
        let header = Header {
            kid: Some(self.kid.clone()),
            ..Header::new(Algorithm::EdDSA)
        };
        let token =
            jsonwebtoken::encode(&header, &claims, &self.signing).map_err(TokenError::Sign)?;
        Ok((token, expires_s.saturating_mul(1000)))
    }

    /// Checks signature, issuer and time; the epoch is the caller's to check.
    ///
    /// # Errors
    /// [`TokenError::Invalid`], [`TokenError::Expired`].
    pub fn verify(&self, token: &str, now_ms: u64) -> Result<Claims, TokenError> {
        if token.len() > TOKEN_MAX_BYTES {
            return Err(TokenError::Invalid);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Invalid)?;
        if header.kid.as_deref() != Some(self.kid.as_str()) {
            return Err(TokenError::Invalid);
        }
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[ISSUER]);
        // Time is held against the caller's clock, below.
        validation.validate_exp = false;
        let claims: Claims = jsonwebtoken::decode(token, &self.verifying, &validation)
            .map_err(|_| TokenError::Invalid)?
            .claims;
        if claims.exp.saturating_mul(1000) <= now_ms {
            return Err(TokenError::Expired);
        }
        Ok(claims)
    }
}

impl std::fmt::Debug for TokenSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenSigner")
            .field("kid", &self.kid)
            .finish()
    }
}

fn spki(public_key: &[u8; 32]) -> Vec<u8> {
    [SPKI_PREFIX.as_slice(), public_key.as_slice()].concat()
}

fn kid_of(public_key: &[u8; 32]) -> String {
    let digest = Sha256::digest(spki(public_key));
    digest
        .iter()
        .take(8)
        .fold(String::with_capacity(16), |mut kid, byte| {
            // Writing to a String can't fail.
            let _ = write!(kid, "{byte:02x}");
            kid
        })
}

fn fresh_key_pem() -> Result<String, TokenError> {
    let document =
        Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| TokenError::BadKey)?;
    Ok(to_pem("PRIVATE KEY", document.as_ref()))
}

fn to_pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = tail;
    }
    let _ = writeln!(pem, "-----END {label}-----");
    pem
}

/// Whole or not at all, and never readable by others, not even for a moment.
fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    let half_written = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&half_written)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&half_written, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_790_000_000_000;

    #[test]
    fn a_token_is_signed_and_taken_back_until_it_ends() {
        let signer = TokenSigner::from_pem(&fresh_key_pem().unwrap()).unwrap();
        let alice = UserId::parse("alice").unwrap();
        let (token, expires_ms) = signer.sign(&alice, 3, NOW_MS, 60_000).unwrap();
        assert_eq!(expires_ms, NOW_MS + 60_000);
        let claims = signer.verify(&token, NOW_MS).unwrap();
        assert_eq!((claims.sub.as_str(), claims.ep), ("alice", 3));
        assert!(matches!(
            signer.verify(&token, expires_ms),
            Err(TokenError::Expired)
        ));

        let other = TokenSigner::from_pem(&fresh_key_pem().unwrap()).unwrap();
        assert!(matches!(
            other.verify(&token, NOW_MS),
            Err(TokenError::Invalid)
        ));
        let forged = token.replace('.', "A.");
        assert!(matches!(
            signer.verify(&forged, NOW_MS),
            Err(TokenError::Invalid)
        ));
    }

    #[test]
    fn another_algorithm_is_not_taken() {
        let signer = TokenSigner::from_pem(&fresh_key_pem().unwrap()).unwrap();
        let header = Header {
            kid: Some(signer.kid().to_owned()),
            ..Header::new(Algorithm::HS256)
        };
        let claims = Claims {
            iss: ISSUER.into(),
            sub: "alice".into(),
            ep: 0,
            iat: 0,
            exp: u64::MAX / 1000,
        };
        // The old trick: the public key as an HMAC secret.
        let key = EncodingKey::from_secret(&signer.public_key());
        let token = jsonwebtoken::encode(&header, &claims, &key).unwrap();
        assert!(signer.verify(&token, NOW_MS).is_err());
    }

    #[test]
    fn the_key_file_is_made_once_and_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token-key.pem");
        let first = TokenSigner::open_or_create(&path).unwrap();
        assert_eq!(first.kid().len(), 16);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let second = TokenSigner::open_or_create(&path).unwrap();
        assert_eq!(first.kid(), second.kid());
        assert!(
            first
                .public_key_pem()
                .starts_with("-----BEGIN PUBLIC KEY-----\n")
        );
        fs::write(&path, "nonsense").unwrap();
        assert!(matches!(
            TokenSigner::open_or_create(&path),
            Err(TokenError::BadKey)
        ));
    }
}
