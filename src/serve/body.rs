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

/// Reads all of a body, at most `bytes_max`. A body that announces more is refused unread.
pub async fn read<B>(body: B, bytes_max: usize) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes>,
    B::Error: std::fmt::Display,
{
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(BodyError::TooLarge(bytes_max));
    }
    let mut body = std::pin::pin!(body);
    let mut first = Bytes::new();
    let mut rest: Option<BytesMut> = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| BodyError::Broken(e.to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        let so_far = rest.as_ref().map_or(first.len(), BytesMut::len);
        if so_far + data.len() > bytes_max {
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
