//! The command line: upstream's flags with upstream's names and defaults, and `--storage`.
//!
//! A flag of upstream's that is not here stands in [`crate::unsupported`] and is refused by name.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser};
use copepod_serve::flags::{GoDuration, KeyValues, go_bool};

/// Flags of `copepod-apiserver`.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "copepod-apiserver",
    about = "Serves the Kubernetes API.",
    disable_version_flag = true,
    args_override_self = true
)]
pub struct Options {
    /// How requests are treated.
    #[command(flatten)]
    pub generic: Generic,
    /// Where objects are kept.
    #[command(flatten)]
    pub storage: Storage,
    /// How clients reach us.
    #[command(flatten)]
    pub serving: Serving,
    /// Who asks.
    #[command(flatten)]
    pub authentication: Authentication,
    /// Whether they may.
    #[command(flatten)]
    pub authorization: Authorization,
    /// The rest.
    #[command(flatten)]
    pub misc: Misc,
}

/// How requests are treated.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Generic flags")]
pub struct Generic {
    /// The address that other members of the cluster reach this server at; default: that of the default route.
    #[arg(long)]
    pub advertise_address: Option<IpAddr>,
    /// Regular expressions of origins that browsers may call from.
    #[arg(long, value_delimiter = ',')]
    pub cors_allowed_origins: Vec<String>,
    /// The host name in documents about this server.
    #[arg(long, default_value = "")]
    pub external_hostname: String,
    /// key=true|false pairs, comma-separated; may be repeated.
    #[arg(long, value_delimiter = ',')]
    pub feature_gates: Vec<String>,
    /// The chance that a request makes its client open another connection, at most 0.02.
    #[arg(long, default_value_t = 0.0)]
    pub goaway_chance: f64,
    /// For so long after the start /livez does not fail because the start is not finished.
    #[arg(long, default_value = "0s")]
    pub livez_grace_period: GoDuration,
    /// Writing requests at a time; 0: no limit.
    #[arg(long, default_value_t = 200)]
    pub max_mutating_requests_inflight: usize,
    /// Reading requests at a time; 0: no limit.
    #[arg(long, default_value_t = 400)]
    pub max_requests_inflight: usize,
    /// Seconds that a watch without a timeout of its own stays open at least.
    #[arg(long, default_value_t = 1800)]
    pub min_request_timeout: u64,
    /// How long a request may take.
    #[arg(long, default_value = "60s")]
    pub request_timeout: GoDuration,
    /// Time between the signal to end and the end: /readyz fails, requests are served.
    #[arg(long, default_value = "0s")]
    pub shutdown_delay_duration: GoDuration,
    /// group/version=true|false, api/all, api/ga, api/beta, api/alpha.
    #[arg(long, default_value = "")]
    pub runtime_config: KeyValues,
}

/// Where objects are kept.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Storage flags")]
pub struct Storage {
    /// `embedded:DIR` keeps objects in a directory, `memory` forgets them; without it, etcd.
    #[arg(long)]
    pub storage: Option<String>,
    /// etcd servers, scheme://ip:port, comma-separated.
    #[arg(long, value_delimiter = ',')]
    pub etcd_servers: Vec<String>,
    /// Authorities that etcd's certificate is checked against.
    #[arg(long)]
    pub etcd_cafile: Option<PathBuf>,
    /// Our certificate for etcd.
    #[arg(long)]
    pub etcd_certfile: Option<PathBuf>,
    /// Its key.
    #[arg(long)]
    pub etcd_keyfile: Option<PathBuf>,
    /// The prefix of all keys.
    #[arg(long, default_value = "/registry")]
    pub etcd_prefix: String,
    /// How often history is compacted; 0: never.
    #[arg(long, default_value = "5m")]
    pub etcd_compaction_interval: GoDuration,
    /// How long events are kept.
    #[arg(long, default_value = "1h")]
    pub event_ttl: GoDuration,
}

/// How clients reach us.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Secure serving flags")]
pub struct Serving {
    /// Where to listen.
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: IpAddr,
    /// Where the certificate is made if none is given.
    #[arg(long, default_value = "/var/run/kubernetes")]
    pub cert_dir: PathBuf,
    /// Serve HTTP/1.1 only.
    #[arg(long, value_parser = go_bool, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = ArgAction::Set)]
    pub disable_http2_serving: bool,
    /// Streams of an HTTP/2 connection; 0: 100.
    #[arg(long, default_value_t = 0)]
    pub http2_max_streams_per_connection: u32,
    /// Where to listen; 0: anywhere.
    #[arg(long, default_value_t = 6443)]
    pub secure_port: u16,
    /// Our certificate chain.
    #[arg(long)]
    pub tls_cert_file: Option<PathBuf>,
    /// Its key.
    #[arg(long)]
    pub tls_private_key_file: Option<PathBuf>,
    /// Cipher suites of TLS 1.2, by their IANA names.
    #[arg(long, value_delimiter = ',')]
    pub tls_cipher_suites: Vec<String>,
    /// VersionTLS12 or VersionTLS13.
    #[arg(long, default_value = "")]
    pub tls_min_version: String,
    /// certificate,key:name,name for a name of its own; may be repeated.
    #[arg(long)]
    pub tls_sni_cert_key: Vec<String>,
}

/// Who asks.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Authentication flags")]
pub struct Authentication {
    /// Requests without a credential are from system:anonymous.
    #[arg(long, value_parser = go_bool, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", action = ArgAction::Set)]
    pub anonymous_auth: bool,
    /// Paths that anonymous requests are confined to; none: all. (Copepod's own.)
    #[arg(long, value_delimiter = ',')]
    pub anonymous_paths: Vec<String>,
    /// What tokens for this server are addressed to; default: the issuer.
    #[arg(long, value_delimiter = ',')]
    pub api_audiences: Vec<String>,
    /// Authorities of client certificates.
    #[arg(long)]
    pub client_ca_file: Option<PathBuf>,
    /// Believe bootstrap tokens.
    #[arg(long, value_parser = go_bool, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = ArgAction::Set)]
    pub enable_bootstrap_token_auth: bool,
    /// Common names that may speak for others.
    #[arg(long, value_delimiter = ',')]
    pub requestheader_allowed_names: Vec<String>,
    /// Authorities of those who may speak for others.
    #[arg(long)]
    pub requestheader_client_ca_file: Option<PathBuf>,
    /// Prefixes of headers with extra information.
    #[arg(long, value_delimiter = ',')]
    pub requestheader_extra_headers_prefix: Vec<String>,
    /// Headers with groups.
    #[arg(long, value_delimiter = ',')]
    pub requestheader_group_headers: Vec<String>,
    /// Headers with the uid.
    #[arg(long, value_delimiter = ',')]
    pub requestheader_uid_headers: Vec<String>,
    /// Headers with the user's name.
    #[arg(long, value_delimiter = ',')]
    pub requestheader_username_headers: Vec<String>,
    /// Give pods tokens that last a year instead of an hour, and warn of those who use them so long.
    #[arg(long, value_parser = go_bool, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", action = ArgAction::Set)]
    pub service_account_extend_token_expiration: bool,
    /// Who signs service account tokens; the first one signs, all are believed.
    #[arg(long)]
    pub service_account_issuer: Vec<String>,
    /// Where the keys are published, if not here.
    #[arg(long, default_value = "")]
    pub service_account_jwks_uri: String,
    /// Keys that service account tokens may be signed with; default: the signing key.
    #[arg(long)]
    pub service_account_key_file: Vec<PathBuf>,
    /// Check that the Secrets of legacy tokens exist.
    #[arg(long, value_parser = go_bool, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", action = ArgAction::Set)]
    pub service_account_lookup: bool,
    /// The longest life of a token; 0: no limit.
    #[arg(long, default_value = "0s")]
    pub service_account_max_token_expiration: GoDuration,
    /// The key that service account tokens are signed with.
    #[arg(long)]
    pub service_account_signing_key_file: Option<PathBuf>,
    /// A file of tokens and users.
    #[arg(long)]
    pub token_auth_file: Option<PathBuf>,
}

/// Whether they may.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Authorization flags")]
pub struct Authorization {
    /// Ordered: AlwaysAllow, AlwaysDeny, Node, RBAC. Default: AlwaysAllow.
    #[arg(long, value_delimiter = ',')]
    pub authorization_mode: Vec<String>,
    /// Admission plugins beyond the default ones.
    #[arg(long, value_delimiter = ',')]
    pub enable_admission_plugins: Vec<String>,
    /// Default admission plugins that are not wanted.
    #[arg(long, value_delimiter = ',')]
    pub disable_admission_plugins: Vec<String>,
}

/// The rest.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Misc flags")]
pub struct Misc {
    /// Allow privileged containers.
    #[arg(long, value_parser = go_bool, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = ArgAction::Set)]
    pub allow_privileged: bool,
    /// `lease`: keep the endpoints of the service "kubernetes"; `none`: leave them alone.
    #[arg(long, default_value = "lease", value_parser = ["lease", "none"])]
    pub endpoint_reconciler_type: String,
    /// Authorities of kubelets' certificates; without it they are not checked.
    #[arg(long)]
    pub kubelet_certificate_authority: Option<PathBuf>,
    /// Our certificate for kubelets.
    #[arg(long)]
    pub kubelet_client_certificate: Option<PathBuf>,
    /// Its key.
    #[arg(long)]
    pub kubelet_client_key: Option<PathBuf>,
    /// Which of a node's addresses to use, in order.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "Hostname,InternalDNS,InternalIP,ExternalDNS,ExternalIP"
    )]
    pub kubelet_preferred_address_types: Vec<String>,
    /// How long a kubelet may take to answer.
    #[arg(long, default_value = "5s")]
    pub kubelet_timeout: GoDuration,
    /// The certificate that aggregated API servers would see. Not used yet: nothing is aggregated.
    #[arg(long)]
    pub proxy_client_cert_file: Option<PathBuf>,
    /// Its key.
    #[arg(long)]
    pub proxy_client_key_file: Option<PathBuf>,
    /// One or two ranges of addresses for services.
    #[arg(long, value_delimiter = ',', default_value = "10.0.0.0/24")]
    pub service_cluster_ip_range: Vec<ipnet::IpNet>,
    /// Ports for services of type NodePort.
    #[arg(long, default_value = "30000-32767")]
    pub service_node_port_range: PortRange,
    /// How much is logged.
    #[arg(short = 'v', long = "v", default_value_t = 0)]
    pub verbosity: u32,
    /// Print the version and end.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "version[=true]")]
    pub version: Option<String>,
}

/// `30000-32767`, `30000+2767` or one port. upstream: apimachinery/pkg/util/net/port_range.go
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRange(pub std::ops::RangeInclusive<u16>);

impl std::str::FromStr for PortRange {
    type Err = String;
    fn from_str(text: &str) -> Result<PortRange, String> {
        let port = |t: &str| t.trim().parse::<u16>().map_err(|e| format!("unable to parse port: {t}: {e}"));
        let (low, high) = match (text.split_once('-'), text.split_once('+')) {
            (Some((low, high)), _) => (port(low)?, port(high)?),
            (None, Some((low, size))) => (port(low)?, port(low)?.saturating_add(port(size)?)),
            (None, None) => (port(text)?, port(text)?),
        };
        if high < low {
            return Err(format!("end port cannot be less than start port: {text}"));
        }
        Ok(PortRange(low..=high))
    }
}

impl Options {
    /// Parses a command line, program name first.
    pub fn parse_arguments(arguments: impl IntoIterator<Item = String>) -> Result<Options, OptionsError> {
        let screened = copepod_serve::flags::screen(arguments, crate::unsupported::FLAGS)?;
        Ok(Options::try_parse_from(screened)?)
    }
}

impl Default for Options {
    fn default() -> Options {
        Options::parse_from(["copepod-apiserver"])
    }
}

/// A command line that was refused. Nothing to retry.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// Upstream's, not ours.
    #[error(transparent)]
    Unsupported(#[from] copepod_serve::flags::FlagError),
    /// Malformed or unknown; also the help text.
    #[error(transparent)]
    Clap(#[from] clap::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_of_upstream_is_supported_or_refused_by_name() {
        use clap::CommandFactory as _;
        let own: Vec<String> =
            Options::command().get_arguments().filter_map(|a| a.get_long().map(str::to_string)).collect();
        let upstream = include_str!("testdata/upstream-flags.txt");
        let missing: Vec<&str> = upstream
            .lines()
            .filter(|flag| {
                !own.iter().any(|o| o == flag) && !crate::unsupported::FLAGS.iter().any(|u| u.name == *flag)
            })
            .collect();
        assert_eq!(missing, ["help"], "help is clap's own");
        let both: Vec<&str> = crate::unsupported::FLAGS
            .iter()
            .map(|u| u.name)
            .filter(|n| own.iter().any(|o| o == n) || !upstream.lines().any(|l| l == *n))
            .collect();
        assert_eq!(both, Vec::<&str>::new(), "either supported or not, and upstream's");
    }

    #[test]
    fn upstream_syntax_is_taken() {
        let parse = |line: &str| {
            let arguments = std::iter::once("apiserver").chain(line.split_whitespace());
            Options::parse_arguments(arguments.map(str::to_string))
        };
        let options = parse(
            "--etcd_servers=http://a:1,http://b:2 --anonymous-auth=false --allow-privileged --secure-port 0 \
             --secure-port=1 --authorization-mode=Node,RBAC --service-node-port-range=100-200 -v=2",
        )
        .expect("taken");
        assert_eq!(options.storage.etcd_servers, ["http://a:1", "http://b:2"]);
        assert!(!options.authentication.anonymous_auth && options.misc.allow_privileged);
        assert_eq!(options.serving.secure_port, 1, "the last one counts");
        assert_eq!(options.misc.service_node_port_range, PortRange(100..=200));
        assert_eq!(options.misc.verbosity, 2);
        assert!(parse("--audit-log-path=/x").is_err());
        assert!(parse("--no-such-flag").is_err());
    }
}
