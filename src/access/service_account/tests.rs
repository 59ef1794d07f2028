//! Tokens are checked against what they name.

use super::*;
use crate::authn::TokenAuthenticator;
use copepod_meta::testing::{Objects, json as object};
use copepod_meta::time;
use std::sync::Arc;

fn key() -> SigningKey {
    let pem = rcgen::KeyPair::generate().expect("a key").serialize_pem();
    SigningKey::from_pem(pem.as_bytes()).expect("a usable key")
}

fn objects() -> Objects {
    let objects = Objects::default();
    objects.put("", "serviceaccounts", object(r#"{"metadata":{"namespace":"a","name":"sa","uid":"1"}}"#));
    objects.put("", "pods", object(r#"{"metadata":{"namespace":"a","name":"p","uid":"2"}}"#));
    objects
}

fn claims(uid: &str, pod: Option<&str>, seconds: i64) -> Claims {
    let reference = |name: &str, uid: &str| Reference { name: name.into(), uid: uid.into() };
    let bound = Bound { pod: pod.map(|uid| reference("p", uid)), ..Bound::default() };
    Claims::new("a", reference("sa", uid), bound, vec!["api".into()], seconds, 0, time::now())
}

/// One good token, and each way in which it may be bad.
#[tokio::test]
async fn tokens_are_checked_against_what_they_name() {
    let issuer = Issuer { url: "https://issuer".into(), key: key() };
    let stranger = Issuer { url: "https://issuer".into(), key: key() };
    let other = Issuer { url: "https://other".into(), key: key() };
    let mut keys = PublicKeys::default();
    keys.add(&issuer.key);
    let tokens = ServiceAccountTokens {
        issuers: vec!["https://issuer".into()],
        api_audiences: vec!["api".into()],
        keys,
        lister: Arc::new(objects()),
        lookup: true,
    };
    let good = "system:serviceaccount:a:sa in system:serviceaccounts,system:serviceaccounts:a";
    for (case, by, claims, audiences, want) in [
        ("good", &issuer, claims("1", None, 60), vec![], good),
        ("bound", &issuer, claims("1", Some("2"), 60), vec![], good),
        ("expired", &issuer, claims("1", None, -120), vec![], "service account token has expired"),
        (
            "other account",
            &issuer,
            claims("9", None, 60),
            vec![],
            "service account UID (1) does not match claim (9)",
        ),
        (
            "other pod",
            &issuer,
            claims("1", Some("9"), 60),
            vec![],
            "pod UID (2) does not match service account pod ref claim (9)",
        ),
        ("other key", &stranger, claims("1", None, 60), vec![], "InvalidSignature"),
        ("other issuer", &other, claims("1", None, 60), vec![], "not mine"),
        (
            "other audience",
            &issuer,
            claims("1", None, 60),
            vec!["vault".to_string()],
            r#"token audiences ["api"] is invalid for the target audiences ["vault"]"#,
        ),
    ] {
        let token = by.sign(claims).expect("signs");
        let got = match tokens.authenticate(&token, &audiences).await {
            Ok(Some(a)) => format!("{} in {}", a.user.name, a.user.groups.join(",")),
            Ok(None) => "not mine".into(),
            Err(e) => e.0,
        };
        assert_eq!(got, want, "{case}");
    }
}

#[test]
fn key_files_give_the_same_id_from_either_half() {
    let pair = rcgen::KeyPair::generate().expect("a key");
    let (mut private, mut public) = (PublicKeys::default(), PublicKeys::default());
    private.add_pem(pair.serialize_pem().as_bytes()).expect("a private key");
    public.add_pem(pair.public_key_pem().as_bytes()).expect("a public key");
    assert_eq!(private.jwks(), public.jwks());
    assert!(private.jwks().contains("\"crv\":\"P-256\""), "{}", private.jwks());
    assert!(PublicKeys::default().add_pem(b"nothing").is_err());
}
