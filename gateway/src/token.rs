//! Verifies login tokens: EdDSA (Ed25519) JWTs, RFC 7519 and RFC 8037. Holds
//! public keys only; whoever signs is a service.

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hashbrown::HashMap;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, errors::ErrorKind};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use sluice_protocol::{Refusal, UserId, limits::TOKEN_MAX_BYTES, packet::ErrorCode};

const ISSUER: &str = "sluice";
/// SubjectPublicKeyInfo of an Ed25519 key up to its 32 bytes (RFC 8410, section 4).
const SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// A public key that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not PEM, or not an Ed25519 key.
    #[error("a token key must be an Ed25519 public key in PEM (SubjectPublicKeyInfo)")]
    NotEd25519,
    /// Nobody could log in.
    #[error("at least one token key is needed")]
    None,
}

/// What a verified token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedToken {
    /// Whose it is.
    pub user: UserId,
    /// The user's token epoch when it was signed; the service compares it.
    pub token_epoch: u64,
    /// When it ends, Unix milliseconds.
    pub expires_ms: u64,
}

/// The public keys whose tokens are taken, by key id.
pub struct TokenVerifier {
    keys: HashMap<String, DecodingKey>,
    validation: Validation,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    ep: u64,
    exp: u64,
}

// === impl TokenVerifier ===

impl TokenVerifier {
    /// Takes public keys in PEM (`BEGIN PUBLIC KEY`), several while they rotate.
    /// A key's id is the first 16 hex digits of SHA-256 over its DER.
    ///
    /// # Errors
    /// [`KeyError`] when one is no Ed25519 key or there is none.
    pub fn from_pem<S: AsRef<str>>(pems: impl IntoIterator<Item = S>) -> Result<Self, KeyError> {
        let mut keys = HashMap::new();
        for pem in pems {
            let der = spki_of(pem.as_ref())?;
            let key = der
                .strip_prefix(&SPKI_PREFIX)
                .filter(|key| key.len() == 32)
                .ok_or(KeyError::NotEd25519)?;
            keys.insert(kid_of(&der), DecodingKey::from_ed_der(key));
        }
        if keys.is_empty() {
            return Err(KeyError::None);
        }
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[ISSUER]);
        validation.set_required_spec_claims(&["iss", "sub", "exp"]);
        validation.validate_aud = false;
        // Held against the caller's clock instead of the machine's, below.
        validation.validate_exp = false;
        Ok(Self { keys, validation })
    }

    /// Checks signature, issuer and expiry. Costs one Ed25519 verification.
    ///
    /// # Errors
    /// `bad_token` or `token_expired`.
    pub fn verify(&self, token: &str, now_unix_ms: u64) -> Result<VerifiedToken, Refusal> {
        if token.len() > TOKEN_MAX_BYTES {
            return Err(bad_token("the token is too long"));
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| {
            bad_token("no token that can be read: it must be a JWT, signed by EdDSA")
        })?;
        let key = header
            .kid
            .and_then(|kid| self.keys.get(kid.as_str()))
            .ok_or_else(|| bad_token("the token's kid names no key that is known here"))?;
        let claims = jsonwebtoken::decode::<Claims>(token, key, &self.validation)
            .map_err(|error| match error.kind() {
                ErrorKind::InvalidIssuer => bad_token("the token is of another issuer"),
                ErrorKind::InvalidSignature => bad_token("the token's signature is wrong"),
                _ => bad_token("the token or its claims are malformed"),
            })?
            .claims;
        let expires_ms = claims.exp.saturating_mul(1000);
        if expires_ms <= now_unix_ms {
            return Err(Refusal::new(
                ErrorCode::TokenExpired,
                "the token has expired; log in again",
            ));
        }
        Ok(VerifiedToken {
            user: UserId::parse(&claims.sub)
                .map_err(|_| bad_token("the token's subject is no user id"))?,
            token_epoch: claims.ep,
            expires_ms,
        })
    }
}

impl std::fmt::Debug for TokenVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenVerifier")
            .field("kids", &self.keys.keys().collect::<Vec<_>>())
            .finish()
    }
}

fn bad_token(reason: &'static str) -> Refusal {
    Refusal::new(ErrorCode::BadToken, reason)
}

fn spki_of(pem: &str) -> Result<Vec<u8>, KeyError> {
    let body: String = pem
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with("-----"))
        .collect();
    STANDARD.decode(body).map_err(|_| KeyError::NotEd25519)
}

fn kid_of(spki: &[u8]) -> String {
    let digest = Sha256::digest(spki);
    digest.iter().take(8).fold(String::new(), |mut kid, byte| {
        // Writing to a String cannot fail.
        let _ = write!(kid, "{byte:02x}");
        kid
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonwebtoken::{EncodingKey, Header};
    use serde_json::json;

    // Made with `openssl genpkey -algorithm ed25519`; for tests only.
    const PRIVATE: &str = include_str!("../tests/keys/private.pem");
    const PUBLIC: &str = include_str!("../tests/keys/public.pem");
    const NOW_MS: u64 = 1_790_000_000_000;

    fn verifier() -> TokenVerifier {
        TokenVerifier::from_pem([PUBLIC]).unwrap()
    }

    fn signed(claims: serde_json::Value, kid: Option<&str>) -> String {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = kid.map(str::to_owned);
        let key = EncodingKey::from_ed_pem(PRIVATE.as_bytes()).unwrap();
        jsonwebtoken::encode(&header, &claims, &key).unwrap()
    }

    fn kid() -> String {
        kid_of(&spki_of(PUBLIC).unwrap())
    }

    fn code(token: &str) -> ErrorCode {
        verifier().verify(token, NOW_MS).unwrap_err().code
    }

    #[test]
    fn takes_its_own_and_no_other() {
        let good = json!({"iss": "sluice", "sub": "alice", "ep": 3, "exp": NOW_MS / 1000 + 60});
        let token = signed(good.clone(), Some(&kid()));
        assert_eq!(
            verifier().verify(&token, NOW_MS),
            Ok(VerifiedToken {
                user: UserId::parse("alice").unwrap(),
                token_epoch: 3,
                expires_ms: NOW_MS + 60_000,
            })
        );
        assert_eq!(code(&signed(good.clone(), None)), ErrorCode::BadToken);
        assert_eq!(code(&signed(good, Some("other"))), ErrorCode::BadToken);
        let issuer = json!({"iss": "x", "sub": "alice", "ep": 3, "exp": NOW_MS / 1000 + 60});
        assert_eq!(code(&signed(issuer, Some(&kid()))), ErrorCode::BadToken);
        let expired = json!({"iss": "sluice", "sub": "alice", "ep": 3, "exp": NOW_MS / 1000});
        assert_eq!(
            code(&signed(expired, Some(&kid()))),
            ErrorCode::TokenExpired
        );
        assert_eq!(code(&"x".repeat(5000)), ErrorCode::BadToken);
        assert_eq!(code(""), ErrorCode::BadToken);
    }

    #[test]
    fn the_algorithm_is_pinned() {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(kid());
        let claims = json!({"iss": "sluice", "sub": "alice", "ep": 3, "exp": NOW_MS / 1000 + 60});
        // The old trick: the public key taken for a shared secret.
        let key = EncodingKey::from_secret(PUBLIC.as_bytes());
        let token = jsonwebtoken::encode(&header, &claims, &key).unwrap();
        assert_eq!(code(&token), ErrorCode::BadToken);
    }

    #[test]
    fn only_ed25519_keys_are_taken() {
        assert!(TokenVerifier::from_pem(["nonsense"]).is_err());
        assert_eq!(
            TokenVerifier::from_pem(Vec::<String>::new()).err(),
            Some(KeyError::None)
        );
    }
}
