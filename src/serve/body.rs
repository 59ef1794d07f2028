//! Reading a request's body within a bound.

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt as _;

/// Why a body was not read. `TooLarge` is the client's to mend (413); after `Broken` there is nobody left to answer.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// More than the bound.
    #[error("the body is larger than {0} bytes")]
    TooLarge(usize),
    /// The connection broke or the framing is wrong.
    #[error("the body could not be read: {0}")]
    Broken(String),
}

/// A client that is still sending does not read the refusal: its body is thrown away up to here ...
const DRAIN_BYTES_MAX: usize = 16 * 1024 * 1024;
/// ... and for so long.
const DRAIN_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(5);

async fn drain<B>(mut body: std::pin::Pin<&mut B>)
where
    B: Body<Data = Bytes>,
{
    let all = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > DRAIN_BYTES_MAX {
                break;
            }
        }
    };
    // Whether all of it came does not matter.
    let _ended = tokio::time::timeout(DRAIN_TIME_MAX, all).await;
}

/// Reads all of a body, at most `bytes_max`. Of a larger one a part is thrown away, so that its client comes to
/// read the refusal.
pub async fn read<B>(body: B, bytes_max: usize) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes>,
    B::Error: std::fmt::Display,
{
    let announced = body.size_hint().lower();
    let mut body = std::pin::pin!(body);
    if announced > bytes_max as u64 {
        drain(body).await;
        return Err(BodyError::TooLarge(bytes_max));
    }
    let mut first = Bytes::new();
    let mut rest: Option<BytesMut> = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| BodyError::Broken(e.to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        let so_far = rest.as_ref().map_or(first.len(), BytesMut::len);
        if so_far + data.len() > bytes_max {
            drain(body).await;
            return Err(BodyError::TooLarge(bytes_max));
        }
        // Most bodies come in one frame, which is then handed on without a copy.
        match &mut rest {
            Some(rest) => rest.extend_from_slice(&data),
            None if first.is_empty() => first = data,
            None => {
                let mut joined = BytesMut::with_capacity(2 * (first.len() + data.len()));
                joined.extend_from_slice(&first);
                joined.extend_from_slice(&data);
                rest = Some(joined);
            }
        }
    }
    Ok(rest.map_or(first, BytesMut::freeze))
}
