//! gRPC's health protocol (`grpc.health.v1.Health/Check`).
//!
//! upstream: pkg/probe/grpc/grpc.go

use std::time::Duration;

use prost::Message;
use tonic::transport::Endpoint;

use super::{Outcome, host_port};

#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

const SERVING: i32 = 1;

/// Asks once.
pub async fn probe(host: &str, port: u16, service: &str, timeout: Duration) -> Outcome {
    let address = host_port(host, port);
    match tokio::time::timeout(timeout, check(&address, service)).await {
        Ok(outcome) => outcome,
        Err(_) => Outcome::Failure(format!(
            "timeout: failed to connect service {address:?} within {}: context deadline exceeded",
            crate::text::go_duration(timeout)
        )),
    }
}

async fn check(address: &str, service: &str) -> Outcome {
    let refused =
        |error: String| Outcome::Failure(format!("error: failed to connect service at {address:?}: {error}"));
    let endpoint = match Endpoint::from_shared(format!("http://{address}")) {
        Ok(endpoint) => endpoint,
        Err(error) => return refused(error.to_string()),
    };
    let endpoint = match endpoint.user_agent("kube-probe/1.36") {
        Ok(endpoint) => endpoint,
        Err(error) => return refused(error.to_string()),
    };
    let channel = match endpoint.connect().await {
        Ok(channel) => channel,
        Err(error) => return refused(error.to_string()),
    };
    let mut grpc = tonic::client::Grpc::new(channel);
    if let Err(error) = grpc.ready().await {
        return refused(error.to_string());
    }
    let path = http::uri::PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let request = tonic::Request::new(HealthCheckRequest { service: service.to_owned() });
    match grpc.unary(request, path, codec).await {
        Ok(answer) if answer.get_ref().status == SERVING => Outcome::Success,
        Ok(answer) => {
            let name = match answer.get_ref().status {
                0 => "UNKNOWN",
                2 => "NOT_SERVING",
                3 => "SERVICE_UNKNOWN",
                _ => "?",
            };
            Outcome::Failure(format!("service unhealthy (responded with {name:?})"))
        }
        Err(status) if status.code() == tonic::Code::Unimplemented => Outcome::Failure(format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {}",
            status.message()
        )),
        Err(status) => Outcome::Failure(format!(
            "error: health rpc probe failed: rpc error: code = {:?} desc = {}",
            status.code(),
            status.message()
        )),
    }
}
