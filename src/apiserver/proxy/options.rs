//! What a client asks of a connection, as the object that admission sees.
//!
//! upstream: apiserver/pkg/endpoints/handlers/get.go getRequestOptions, core/v1 zz_generated.conversion.go
//! Convert_url_Values_To_v1_Pod{Exec,Attach,PortForward,Proxy}Options

use copepod_meta::{Status, Value};

use super::Connect;
use crate::exchange::Exchange;
use crate::request_info::query_bool;

/// The options' kind and the options, or the 400. `None`: not a CONNECT; a log is read with GET.
pub fn of(connect: Connect, exchange: &Exchange) -> Result<Option<(&'static str, Value)>, Status> {
    let kind = match connect {
        Connect::Log => return Ok(None),
        Connect::Exec => "PodExecOptions",
        Connect::Attach => "PodAttachOptions",
        Connect::PortForward => "PodPortForwardOptions",
        Connect::Pod => "PodProxyOptions",
        Connect::Service => "ServiceProxyOptions",
        Connect::Node => "NodeProxyOptions",
    };
    let mut options = Value::map();
    match connect {
        Connect::PortForward => ports(exchange, &mut options)?,
        Connect::Exec | Connect::Attach => streams(exchange, connect == Connect::Exec, &mut options),
        Connect::Log | Connect::Pod | Connect::Service | Connect::Node => path(exchange, &mut options),
    }
    Ok(Some((kind, options)))
}

fn streams(exchange: &Exchange, with_command: bool, options: &mut Value) {
    let query = &exchange.query;
    for name in ["stdin", "stdout", "stderr", "tty"] {
        if query.first(name).is_some_and(query_bool) {
            options.set(&[name], true);
        }
    }
    if let Some(container) = query.first("container").filter(|c| !c.is_empty()) {
        options.set(&["container"], container);
    }
    if with_command {
        let words = query.0.iter().filter(|(key, _)| key == "command");
        options.set(&["command"], words.map(|(_, word)| Value::string(word)).collect::<Vec<_>>());
    }
}

fn ports(exchange: &Exchange, options: &mut Value) -> Result<(), Status> {
    let mut ports = Vec::new();
    for (_, text) in exchange.query.0.iter().filter(|(key, _)| key == "ports") {
        let port: u32 = text.parse().map_err(|_| {
            let text = copepod_meta::field::quote(text);
            let why = format!("strconv.ParseUint: parsing {text}: invalid syntax");
            Status::bad_request(format!("cannot convert to []int32: {why}"))
        })?;
        ports.push(Value::from(i64::from(port)));
    }
    options.set(&["ports"], ports);
    Ok(())
}

/// The path behind `proxy`, from its slash on.
fn path(exchange: &Exchange, options: &mut Value) {
    let behind = exchange.info.parts.get(3..).unwrap_or_default();
    options.set(&["path"], format!("/{}", behind.join("/")));
}
