//! The ordered list of plugins and the chain that calls them.

use crate::default_toleration_seconds::DefaultTolerationSeconds;
use crate::limit_ranger::LimitRanger;
use crate::namespace_lifecycle::NamespaceLifecycle;
use crate::node_restriction::NodeRestriction;
use crate::priority::Priority;
use crate::resource_quota::ResourceQuota;
use crate::runtime_class::RuntimeClass;
use crate::service_account::ServiceAccount;
use crate::taint_nodes::TaintNodesByCondition;
use copepod_meta::{Admission, AdmissionRequest, BoxFuture, Lister, Operation, Status, Writer};
use std::sync::Arc;

/// What plugins are made from.
#[derive(Clone)]
pub struct Config {
    /// Reads.
    pub lister: Arc<dyn Lister>,
    /// Writes quota usage.
    pub writer: Arc<dyn Writer>,
    /// `--enable-admission-plugins`
    pub enable: Vec<String>,
    /// `--disable-admission-plugins`
    pub disable: Vec<String>,
}

type Make = fn(&Config) -> Arc<dyn Admission>;

/// Every plugin: its name, whether it is on by default, how it is made; in the order of calling.
/// upstream: pkg/kubeapiserver/options/plugins.go AllOrderedPlugins
pub const PLUGINS: &[(&str, bool, Make)] = &[
    ("NamespaceLifecycle", true, |c| Arc::new(NamespaceLifecycle::new(c.lister.clone()))),
    ("LimitRanger", true, |c| Arc::new(LimitRanger::new(c.lister.clone()))),
    ("ServiceAccount", true, |c| Arc::new(ServiceAccount::new(c.lister.clone()))),
    ("NodeRestriction", false, |c| Arc::new(NodeRestriction::new(c.lister.clone()))),
    ("TaintNodesByCondition", true, |_| Arc::new(TaintNodesByCondition)),
    ("Priority", true, |c| Arc::new(Priority::new(c.lister.clone()))),
    ("DefaultTolerationSeconds", true, |_| Arc::new(DefaultTolerationSeconds)),
    ("RuntimeClass", true, |c| Arc::new(RuntimeClass::new(c.lister.clone()))),
    ("ResourceQuota", true, |c| Arc::new(ResourceQuota::new(c.lister.clone(), c.writer.clone()))),
];

/// A plugin that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// Neither known nor supported.
    #[error("admission plugin {0:?} is not supported by this server")]
    Unknown(String),
    /// Asked for and against.
    #[error("[{0}] in enable-admission-plugins and disable-admission-plugins overlapped")]
    Both(String),
}

/// All plugins that are on.
pub struct AdmissionChain {
    plugins: Vec<Arc<dyn Admission>>,
}

impl AdmissionChain {
    /// The default plugins, more those enabled, less those disabled.
    pub fn new(config: &Config) -> Result<AdmissionChain, AdmissionError> {
        for name in config.enable.iter().chain(&config.disable) {
            if !PLUGINS.iter().any(|(n, ..)| n == name) {
                return Err(AdmissionError::Unknown(name.clone()));
            }
        }
        if let Some(both) = config.enable.iter().find(|n| config.disable.contains(n)) {
            return Err(AdmissionError::Both(both.clone()));
        }
        let on = |name: &str, default: bool| {
            (default || config.enable.iter().any(|e| e == name)) && !config.disable.iter().any(|d| d == name)
        };
        let plugins =
            PLUGINS.iter().filter(|(name, default, _)| on(name, *default)).map(|(_, _, make)| make(config));
        Ok(AdmissionChain { plugins: plugins.collect() })
    }
}

impl Admission for AdmissionChain {
    fn handles(&self, operation: Operation) -> bool {
        self.plugins.iter().any(|p| p.handles(operation))
    }
    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            let operation = request.operation;
            for plugin in self.plugins.iter().filter(|p| p.handles(operation)) {
                plugin.admit(request).await?;
            }
            Ok(())
        })
    }
    fn validate<'a>(&'a self, request: &'a mut AdmissionRequest<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            let operation = request.operation;
            for plugin in self.plugins.iter().filter(|p| p.handles(operation)) {
                plugin.validate(request).await?;
            }
            Ok(())
        })
    }
}
