//! The error of a streamed connection.

/// Why a stream could not start or broke. None is retried: the client has to open a new one.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The connection broke.
    #[error("connection broken")]
    Io(#[from] std::io::Error),
    /// The peer does not keep the protocol.
    #[error("protocol error: {0}")]
    Protocol(String),
    /// The WebSocket layer refused what it read.
    #[error("websocket error")]
    WebSocket(#[from] Box<tokio_tungstenite::tungstenite::Error>),
    /// The connection was closed where more was expected.
    #[error("connection closed")]
    Closed,
}

impl From<tokio_tungstenite::tungstenite::Error> for StreamError {
    fn from(error: tokio_tungstenite::tungstenite::Error) -> Self {
        use tokio_tungstenite::tungstenite::Error;
        match error {
            Error::ConnectionClosed | Error::AlreadyClosed => StreamError::Closed,
            Error::Io(error) => StreamError::Io(error),
            other => StreamError::WebSocket(Box::new(other)),
        }
    }
}
