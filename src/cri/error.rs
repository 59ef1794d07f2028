//! Errors of a runtime, sorted by what the caller can do about them.

use tonic::{Code, Status};

/// Why a call to the runtime failed.
///
/// `NotFound`: observe again, the object is gone. `Unavailable`: the runtime is down, retry with back-off.
/// `DeadlineExceeded`: outcome unknown, observe again. `Unimplemented`: use another way. `Failed`: the runtime refused
/// or could not; its text goes to the user.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CriError {
    /// No such sandbox, container or image.
    #[error("{0}")]
    NotFound(String),
    /// The socket does not answer.
    #[error("{0}")]
    Unavailable(String),
    /// The call took longer than its limit.
    #[error("{0}")]
    DeadlineExceeded(String),
    /// The runtime does not know this call.
    #[error("{0}")]
    Unimplemented(String),
    /// Anything else the runtime said. The text is the runtime's own message without the gRPC dress.
    #[error("{message}")]
    Failed {
        /// gRPC code, by name (`Unknown`, `InvalidArgument`, ...).
        code: &'static str,
        /// The runtime's words.
        message: String,
    },
}

impl CriError {
    /// Whether the object asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, CriError::NotFound(_))
    }

    /// The text as a Go gRPC client prints it, which is what events of upstream's kubelet contain.
    pub fn grpc_text(&self) -> String {
        let (code, message) = match self {
            CriError::NotFound(message) => ("NotFound", message),
            CriError::Unavailable(message) => ("Unavailable", message),
            CriError::DeadlineExceeded(message) => ("DeadlineExceeded", message),
            CriError::Unimplemented(message) => ("Unimplemented", message),
            CriError::Failed { code, message } => (*code, message),
        };
        format!("rpc error: code = {code} desc = {message}")
    }
}

impl From<Status> for CriError {
    fn from(status: Status) -> Self {
        let message = status.message().to_owned();
        match status.code() {
            Code::NotFound => CriError::NotFound(message),
            Code::Unavailable => CriError::Unavailable(message),
            Code::DeadlineExceeded | Code::Cancelled => CriError::DeadlineExceeded(message),
            Code::Unimplemented => CriError::Unimplemented(message),
            code => CriError::Failed { code: code_name(code), message },
        }
    }
}

/// Go's spelling of gRPC codes.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::InvalidArgument => "InvalidArgument",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Internal => "Internal",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
        _ => "Unknown",
    }
}
