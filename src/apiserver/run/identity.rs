//! Who asks and whether they may: authenticators, authorizers, admission and the signer, from flags and files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use copepod_access::authn::Anonymous;
use copepod_access::bootstrap_token::BootstrapTokens;
use copepod_access::rbac::Rbac;
use copepod_access::service_account::{Issuer, PublicKeys, ServiceAccountTokens, SigningKey};
use copepod_access::token_file::TokenFile;
use copepod_access::x509::{ClientCertificates, FrontProxy};
use copepod_access::{AuthenticatorChain, AuthorizerChain, TokenAuthenticator};
use copepod_admission::AdmissionChain;
use copepod_meta::{Lister, Writer};
use copepod_registry::Deciders;

use super::{StartError, flag, read};
use crate::options::Options;
use crate::tokens::{Reviewer, Rules, Signer};

/// Keys and files that say who is who.
pub(super) struct Identity {
    pub(super) keys: Option<PublicKeys>,
    client_ca: Option<Vec<u8>>,
    front_proxy_ca: Option<Vec<u8>>,
}

impl Identity {
    pub(super) fn load(options: &Options) -> Result<Identity, StartError> {
        let authentication = &options.authentication;
        let key_file = authentication.service_account_signing_key_file.as_deref();
        if key_file.is_none() || authentication.service_account_issuer.is_empty() {
            return Err(flag(
                "service-account-issuer and service-account-signing-key-file are required flags",
            ));
        }
        let mut keys = PublicKeys::default();
        let mut files: Vec<&Path> =
            authentication.service_account_key_file.iter().map(PathBuf::as_path).collect();
        if files.is_empty() {
            files.extend(key_file);
        }
        for path in files {
            keys.add_pem(&read(path)?).map_err(|e| flag(format!("{}: {e}", path.display())))?;
        }
        Ok(Identity {
            keys: Some(keys),
            client_ca: authentication.client_ca_file.as_deref().map(read).transpose()?,
            front_proxy_ca: authentication.requestheader_client_ca_file.as_deref().map(read).transpose()?,
        })
    }
}

pub(super) type Decided = (Deciders, Arc<AuthenticatorChain>, Arc<AuthorizerChain>);

pub(super) fn decide(
    options: &Options,
    identity: &Identity,
    lister: Arc<dyn Lister>,
    writer: Arc<dyn Writer>,
) -> Result<Decided, StartError> {
    let authenticator = Arc::new(authenticator(options, identity, &lister)?);
    let modes = match options.authorization.authorization_mode.as_slice() {
        [] => vec!["AlwaysAllow".to_string()],
        modes => modes.to_vec(),
    };
    let authorizer = Arc::new(AuthorizerChain::from_modes(&modes, lister.clone()).map_err(flag)?);
    let admission = AdmissionChain::new(&copepod_admission::Config {
        lister: lister.clone(),
        writer,
        enable: options.authorization.enable_admission_plugins.clone(),
        disable: options.authorization.disable_admission_plugins.clone(),
    });
    let deciders = Deciders {
        admission: Arc::new(admission.map_err(flag)?),
        authorizer: authorizer.clone(),
        rules: Arc::new(Rules(Rbac::new(lister))),
        tokens: Arc::new(Reviewer(authenticator.clone())),
        issuer: Some(Arc::new(signer(options)?)),
    };
    Ok((deciders, authenticator, authorizer))
}

/// For a registry that is never used because its deciders could not be made.
pub(super) fn refuse_all(lister: Arc<dyn Lister>) -> Deciders {
    struct Nothing;
    impl copepod_meta::Admission for Nothing {
        fn handles(&self, _operation: copepod_meta::Operation) -> bool {
            false
        }
        fn admit<'a>(
            &'a self,
            _request: &'a mut copepod_meta::AdmissionRequest<'_>,
        ) -> copepod_meta::BoxFuture<'a, Result<(), copepod_meta::Status>> {
            Box::pin(std::future::ready(Err(copepod_meta::Status::service_unavailable("not started"))))
        }
        fn validate<'a>(
            &'a self,
            request: &'a mut copepod_meta::AdmissionRequest<'_>,
        ) -> copepod_meta::BoxFuture<'a, Result<(), copepod_meta::Status>> {
            self.admit(request)
        }
    }
    let rbac = || Arc::new(Rbac::new(lister.clone()));
    Deciders {
        admission: Arc::new(Nothing),
        authorizer: rbac(),
        rules: Arc::new(Rules(Rbac::new(lister.clone()))),
        tokens: Arc::new(Reviewer(Arc::new(AuthenticatorChain::new(Anonymous::Disabled)))),
        issuer: None,
    }
}

fn api_audiences(options: &Options) -> Vec<String> {
    match options.authentication.api_audiences.as_slice() {
        [] => options.authentication.service_account_issuer.first().cloned().into_iter().collect(),
        audiences => audiences.to_vec(),
    }
}

fn authenticator(
    options: &Options,
    identity: &Identity,
    lister: &Arc<dyn Lister>,
) -> Result<AuthenticatorChain, StartError> {
    let flags = &options.authentication;
    let anonymous = match (flags.anonymous_auth, flags.anonymous_paths.as_slice()) {
        (false, _) => Anonymous::Disabled,
        (true, []) => Anonymous::Everywhere,
        (true, paths) => Anonymous::Paths(paths.to_vec()),
    };
    let mut chain = AuthenticatorChain::new(anonymous);
    if let Some(pem) = &identity.front_proxy_ca {
        chain.front_proxy = Some(FrontProxy {
            certificates: ClientCertificates::from_pem(pem).map_err(flag)?,
            allowed_names: flags.requestheader_allowed_names.clone(),
            username_headers: flags.requestheader_username_headers.clone(),
            uid_headers: flags.requestheader_uid_headers.clone(),
            group_headers: flags.requestheader_group_headers.clone(),
            extra_headers_prefix: flags.requestheader_extra_headers_prefix.clone(),
        });
    }
    if let Some(pem) = &identity.client_ca {
        chain.client_certificates = Some(Arc::new(ClientCertificates::from_pem(pem).map_err(flag)?));
    }
    let mut tokens: Vec<Arc<dyn TokenAuthenticator>> = Vec::new();
    if let Some(path) = &flags.token_auth_file {
        let text = String::from_utf8_lossy(&read(path)?).into_owned();
        tokens.push(Arc::new(TokenFile::parse(&path.display().to_string(), &text).map_err(flag)?));
    }
    if let Some(keys) = &identity.keys {
        tokens.push(Arc::new(ServiceAccountTokens {
            issuers: flags.service_account_issuer.clone(),
            api_audiences: api_audiences(options),
            keys: keys.clone(),
            lister: lister.clone(),
            lookup: flags.service_account_lookup,
        }));
    }
    if flags.enable_bootstrap_token_auth {
        tokens.push(Arc::new(BootstrapTokens { lister: lister.clone() }));
    }
    chain.tokens = tokens;
    Ok(chain)
}

fn signer(options: &Options) -> Result<Signer, StartError> {
    let flags = &options.authentication;
    let path = flags.service_account_signing_key_file.as_deref();
    let path = path.ok_or_else(|| flag("service-account-signing-key-file is a required flag"))?;
    let key = SigningKey::from_pem(&read(path)?).map_err(|e| flag(format!("{}: {e}", path.display())))?;
    Ok(Signer {
        issuer: Issuer { url: flags.service_account_issuer.first().cloned().unwrap_or_default(), key },
        audiences: api_audiences(options),
        extend: flags.service_account_extend_token_expiration,
        expiration_seconds_max: i64::try_from(flags.service_account_max_token_expiration.0.as_secs())
            .unwrap_or(0),
    })
}
