//! The keys and certificates of a cluster that `copepod up` makes: authorities, leaves, the service account key,
//! kubeconfigs.
//!
//! | module | what |
//! |---|---|
//! | [`files`] | private files, written whole or not at all |
//! | [`authority`] | authorities and the certificates that they sign |
//! | [`cluster`] | which certificates a cluster has, in kubeadm's layout |
//! | [`kubeconfig`] | kubeconfig files as text |
//!
//! Keys are ECDSA P-256. Whatever holds a key is 0600. A leaf is made anew when it is missing, was signed by another
//! authority, lacks a name that it should have, or has less than [`authority::RENEW_DAYS`] days left; an authority is never
//! replaced behind somebody's back.
//!
//! Signing what others ask for (certificate signing requests) is not here: rcgen would trust extensions of a request.

pub mod authority;
pub mod cluster;
pub mod files;
pub mod kubeconfig;

pub use authority::{Authority, Leaf, Usage, days_left};
pub use cluster::{ClusterPki, ClusterSpec};

/// Why keys or certificates could not be had. All of them need a person: a full disk, a wrong owner, a damaged file.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// Reading or writing failed.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// What went wrong.
        #[source]
        source: std::io::Error,
    },
    /// A file is there but is no usable key or certificate.
    #[error("{path}: {source}; move it away to have a new one made")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong with it.
        #[source]
        source: rcgen::Error,
    },
    /// A certificate file does not parse.
    #[error("{path} does not hold a certificate")]
    NoCertificate {
        /// The file.
        path: String,
    },
    /// Signing failed.
    #[error("could not make a certificate")]
    Sign(#[from] rcgen::Error),
}
