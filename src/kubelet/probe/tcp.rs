//! A TCP connection: that it opens is well.
//!
//! upstream: pkg/probe/tcp/tcp.go

use std::time::Duration;

use tokio::net::TcpStream;

use super::{Outcome, dial_error, host_port};

/// Opens and closes a connection.
pub async fn probe(host: &str, port: u16, timeout: Duration) -> Outcome {
    let address = host_port(host, port);
    match tokio::time::timeout(timeout, TcpStream::connect(&address)).await {
        Ok(Ok(stream)) => {
            // A reset instead of a lingering close, so that frequent probes leave no sockets behind.
            // upstream: pkg/probe/dialer_others.go
            if let Err(error) = stream.set_zero_linger() {
                tracing::debug!(%error, "SO_LINGER");
            }
            Outcome::Success
        }
        Ok(Err(error)) => Outcome::Failure(dial_error(&address, &error)),
        Err(_) => Outcome::Failure(format!("dial tcp {address}: i/o timeout")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn open_and_closed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        let limit = Duration::from_secs(1);
        assert_eq!(probe("127.0.0.1", port, limit).await, Outcome::Success);
        drop(listener);
        let want = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
        assert_eq!(probe("127.0.0.1", port, limit).await, Outcome::Failure(want));
    }
}
