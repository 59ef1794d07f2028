//! Why bytes could not become a tree, or a tree bytes. The texts are upstream's; the HTTP edge puts them into
//! a `Status`.

/// Bytes that are no object. All variants are the sender's fault and end as 400, except that
/// `UnsupportedMediaType` is 415's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// `apiVersion` and `kind` could not be read: no JSON at all, no object, or one of the two is no text.
    #[error("couldn't get version/kind; json parse error: {0}")]
    TypeMeta(String),
    /// An `apiVersion` with more than one slash.
    #[error("unexpected GroupVersion string: {0}")]
    GroupVersion(String),
    /// No `kind`, neither in the bytes nor implied. Holds the bytes.
    #[error("Object 'Kind' is missing in '{0}'")]
    MissingKind(String),
    /// No `apiVersion`, neither in the bytes nor implied. Holds the bytes.
    #[error("Object 'apiVersion' is missing in '{0}'")]
    MissingVersion(String),
    /// JSON whose values do not fit the type.
    #[error("{0}")]
    Json(String),
    /// Text that is no YAML, or YAML that is no JSON.
    #[error("{0}")]
    Yaml(String),
    /// Bytes that do not begin as a protobuf envelope.
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    NoEnvelope,
    /// No bytes where a protobuf message is expected.
    #[error("empty data")]
    EmptyData,
    /// An envelope without content.
    #[error("empty body")]
    EmptyBody,
    /// Malformed protobuf.
    #[error(transparent)]
    Protobuf(#[from] crate::proto::ProtoError),
}

/// A tree that has no such form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The type has no protobuf form (Table, custom resources). Ends as 406.
    #[error(
        "object {0} does not implement the protobuf marshalling interface and cannot be encoded to a protobuf message"
    )]
    NotMarshalable(String),
}

/// Bytes of our own making (stored or cached) that are not as expected: a corrupt store. Ends as 500.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CorruptError {
    /// Malformed protobuf.
    #[error("stored object is no protobuf message")]
    Protobuf(#[from] crate::proto::ProtoError),
    /// Malformed JSON.
    #[error("stored object is no JSON")]
    Json(#[from] crate::json::SyntaxError),
    /// No `metadata` in the JSON form.
    #[error("stored object has no metadata")]
    NoMetadata,
    /// Neither JSON nor in the protobuf envelope.
    #[error("stored object is neither JSON nor protobuf")]
    Unrecognised,
}
