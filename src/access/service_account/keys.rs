//! Keys of service account tokens: PEM files with RSA or P-256/P-384 keys, private or public.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::{PemObject, SectionKind};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey as ParsedKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// A key file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Nothing in it is a key.
    #[error("data does not contain a valid RSA or ECDSA key")]
    None,
    /// A key of a kind that is not served.
    #[error("unknown private key type, must be *rsa.PrivateKey or *ecdsa.PrivateKey")]
    Unsupported,
}

/// One public key, with the id that tokens name it by.
#[derive(Clone)]
pub(super) struct PublicKey {
    pub(super) id: String,
    pub(super) algorithm: Algorithm,
    pub(super) decoding: Arc<DecodingKey>,
    jwk: serde_json::Value,
}

/// A private key, ready to sign.
pub struct SigningKey {
    encoding: EncodingKey,
    public: PublicKey,
}

impl SigningKey {
    /// The first private key of a PEM file.
    pub fn from_pem(pem: &[u8]) -> Result<SigningKey, KeyError> {
        let der = PrivateKeyDer::from_pem_slice(pem).map_err(|_| KeyError::None)?;
        if let Some((encoding, public)) = rsa(&der) {
            return Ok(SigningKey { encoding, public: public? });
        }
        let pair = ecdsa(&der).ok_or(KeyError::Unsupported)?;
        let pkcs8 = pair.to_pkcs8v1().map_err(|_| KeyError::Unsupported)?;
        Ok(SigningKey {
            encoding: EncodingKey::from_ec_der(pkcs8.as_ref()),
            public: spki_of(pair.public_key())?,
        })
    }
    pub(super) fn encoding(&self) -> &EncodingKey {
        &self.encoding
    }
    pub(super) fn algorithm(&self) -> Algorithm {
        self.public.algorithm
    }
    /// The id that tokens carry as `kid`.
    pub fn id(&self) -> &str {
        &self.public.id
    }
}

fn rsa(der: &PrivateKeyDer<'_>) -> Option<(EncodingKey, Result<PublicKey, KeyError>)> {
    let pair = match der {
        PrivateKeyDer::Pkcs1(key) => aws_lc_rs::rsa::KeyPair::from_der(key.secret_pkcs1_der()),
        PrivateKeyDer::Pkcs8(key) => aws_lc_rs::rsa::KeyPair::from_pkcs8(key.secret_pkcs8_der()),
        _ => return None,
    };
    let pair = pair.ok()?;
    let encoding = match der {
        // `from_rsa_der` takes PKCS#1 only and fails when it signs; the PEM way unwraps PKCS#8.
        PrivateKeyDer::Pkcs8(key) => EncodingKey::from_rsa_pem(&pem(key.secret_pkcs8_der())).ok()?,
        _ => EncodingKey::from_rsa_der(der.secret_der()),
    };
    Some((encoding, spki_of(pair.public_key())))
}

/// A PKCS#8 key as PEM.
fn pem(der: &[u8]) -> Vec<u8> {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut out = b"-----BEGIN PRIVATE KEY-----\n".to_vec();
    for line in text.as_bytes().chunks(64) {
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.extend_from_slice(b"-----END PRIVATE KEY-----\n");
    out
}

fn ecdsa(der: &PrivateKeyDer<'_>) -> Option<EcdsaKeyPair> {
    [&ECDSA_P256_SHA256_FIXED_SIGNING, &ECDSA_P384_SHA384_FIXED_SIGNING].into_iter().find_map(|alg| match der
    {
        PrivateKeyDer::Sec1(key) => EcdsaKeyPair::from_private_key_der(alg, key.secret_sec1_der()).ok(),
        PrivateKeyDer::Pkcs8(key) => EcdsaKeyPair::from_pkcs8(alg, key.secret_pkcs8_der()).ok(),
        _ => None,
    })
}

fn spki_of(key: &impl AsDer<PublicKeyX509Der<'static>>) -> Result<PublicKey, KeyError> {
    PublicKey::from_spki(
        AsDer::<PublicKeyX509Der<'_>>::as_der(key).map_err(|_| KeyError::Unsupported)?.as_ref(),
    )
}

impl PublicKey {
    fn from_spki(der: &[u8]) -> Result<PublicKey, KeyError> {
        let (_, info) = SubjectPublicKeyInfo::from_der(der).map_err(|_| KeyError::None)?;
        let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let id = b64(&Sha256::digest(der));
        let strip = |bytes: &[u8]| bytes.iter().skip_while(|b| **b == 0).copied().collect::<Vec<u8>>();
        match info.parsed().map_err(|_| KeyError::Unsupported)? {
            ParsedKey::RSA(key) => {
                let (n, e) = (strip(key.modulus), strip(key.exponent));
                let jwk = serde_json::json!({"use": "sig", "kty": "RSA", "kid": id, "alg": "RS256", "n": b64(&n), "e": b64(&e)});
                let decoding = Arc::new(DecodingKey::from_rsa_raw_components(&n, &e));
                Ok(PublicKey { id, algorithm: Algorithm::RS256, decoding, jwk })
            }
            ParsedKey::EC(point) => {
                // An uncompressed point: 4, x, y.
                let data = point.data();
                let (algorithm, name, curve) = match data.len() {
                    65 => (Algorithm::ES256, "ES256", "P-256"),
                    97 => (Algorithm::ES384, "ES384", "P-384"),
                    _ => return Err(KeyError::Unsupported),
                };
                let (x, y) = data[1..].split_at(data.len() / 2);
                let jwk = serde_json::json!({"use": "sig", "kty": "EC", "kid": id, "crv": curve, "alg": name, "x": b64(x), "y": b64(y)});
                let decoding = Arc::new(DecodingKey::from_ec_der(data));
                Ok(PublicKey { id, algorithm, decoding, jwk })
            }
            _ => Err(KeyError::Unsupported),
        }
    }
}

/// The keys that tokens may be signed with (`--service-account-key-file`).
#[derive(Clone, Default)]
pub struct PublicKeys {
    keys: Vec<PublicKey>,
}

impl PublicKeys {
    /// Adds all keys of a PEM file; private ones count as their public halves.
    pub fn add_pem(&mut self, pem: &[u8]) -> Result<(), KeyError> {
        let before = self.keys.len();
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
            let (kind, der) = section.map_err(|_| KeyError::None)?;
            match kind {
                SectionKind::PublicKey => self.keys.push(PublicKey::from_spki(&der)?),
                SectionKind::Certificate => {
                    let (_, certificate) =
                        x509_parser::parse_x509_certificate(&der).map_err(|_| KeyError::None)?;
                    self.keys.push(PublicKey::from_spki(certificate.public_key().raw)?);
                }
                SectionKind::RsaPrivateKey | SectionKind::PrivateKey | SectionKind::EcPrivateKey => {
                    self.add_private(kind, der)?;
                }
                _ => {}
            }
        }
        if self.keys.len() == before { Err(KeyError::None) } else { Ok(()) }
    }

    fn add_private(&mut self, kind: SectionKind, der: Vec<u8>) -> Result<(), KeyError> {
        let der = match kind {
            SectionKind::RsaPrivateKey => PrivateKeyDer::Pkcs1(der.into()),
            SectionKind::EcPrivateKey => PrivateKeyDer::Sec1(der.into()),
            _ => PrivateKeyDer::Pkcs8(der.into()),
        };
        let key = match rsa(&der) {
            Some((_, public)) => public?,
            None => spki_of(ecdsa(&der).ok_or(KeyError::Unsupported)?.public_key())?,
        };
        self.keys.push(key);
        Ok(())
    }

    /// Adds the public half of a signing key.
    pub fn add(&mut self, key: &SigningKey) {
        self.keys.push(key.public.clone());
    }

    /// The keys that may have signed a token with this `kid` ("" = any).
    pub(super) fn candidates<'a>(&'a self, id: &'a str) -> impl Iterator<Item = &'a PublicKey> {
        // A key id that is not ours falls back to all keys, as upstream's: the token's header is not trusted.
        let known = self.keys.iter().any(|k| k.id == id);
        self.keys.iter().filter(move |k| !known || k.id == id)
    }

    /// The JSON Web Key Set served at `/openid/v1/jwks`.
    pub fn jwks(&self) -> String {
        let mut seen: Vec<&str> = Vec::new();
        let mut keys = Vec::new();
        for key in &self.keys {
            if !seen.contains(&key.id.as_str()) {
                seen.push(&key.id);
                keys.push(&key.jwk);
            }
        }
        serde_json::json!({ "keys": keys }).to_string()
    }

    /// The signing algorithms, for the discovery document.
    pub fn algorithms(&self) -> Vec<String> {
        let mut out: Vec<String> = self.keys.iter().map(|k| format!("{:?}", k.algorithm)).collect();
        out.sort();
        out.dedup();
        out
    }
}
