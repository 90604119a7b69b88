//! The messages of the protocol that the stand-in speaks, as the client's `streams.proto` defines them. The needed
//! alternatives of a `oneof` are optional fields, which are the same on the wire.

use std::collections::HashMap;

use prost::Message;

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct Empty {}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct StreamIdentifier {
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) name: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Uuid {
    #[prost(message, optional, tag = "1")]
    pub(crate) structured: Option<Structured>,
    #[prost(string, optional, tag = "2")]
    pub(crate) text: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct Structured {
    #[prost(int64, tag = "1")]
    pub(crate) most: i64,
    #[prost(int64, tag = "2")]
    pub(crate) least: i64,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct AppendReq {
    #[prost(message, optional, tag = "1")]
    pub(crate) options: Option<AppendOptions>,
    #[prost(message, optional, tag = "2")]
    pub(crate) proposed: Option<Proposed>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct AppendOptions {
    #[prost(message, optional, tag = "1")]
    pub(crate) stream: Option<StreamIdentifier>,
    #[prost(uint64, optional, tag = "2")]
    pub(crate) revision: Option<u64>,
    #[prost(message, optional, tag = "3")]
    pub(crate) no_stream: Option<Empty>,
    /// At whatever revision the stream has.
    #[prost(message, optional, tag = "4")]
    pub(crate) any: Option<Empty>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Proposed {
    #[prost(message, optional, tag = "1")]
    pub(crate) id: Option<Uuid>,
    #[prost(map = "string, string", tag = "2")]
    pub(crate) metadata: HashMap<String, String>,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) custom_metadata: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) data: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct AppendResp {
    #[prost(message, optional, tag = "1")]
    pub(crate) success: Option<Success>,
    #[prost(message, optional, tag = "2")]
    pub(crate) wrong: Option<WrongExpectedVersion>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Success {
    #[prost(uint64, optional, tag = "1")]
    pub(crate) revision: Option<u64>,
    #[prost(message, optional, tag = "4")]
    pub(crate) no_position: Option<Empty>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct WrongExpectedVersion {
    #[prost(uint64, optional, tag = "6")]
    pub(crate) revision: Option<u64>,
    #[prost(message, optional, tag = "7")]
    pub(crate) no_stream: Option<Empty>,
    #[prost(uint64, optional, tag = "8")]
    pub(crate) expected_revision: Option<u64>,
    #[prost(message, optional, tag = "11")]
    pub(crate) expected_no_stream: Option<Empty>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct ReadReq {
    #[prost(message, optional, tag = "1")]
    pub(crate) options: Option<ReadOptions>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct ReadOptions {
    #[prost(message, optional, tag = "1")]
    pub(crate) stream: Option<StreamOptions>,
    /// 1: backwards.
    #[prost(int32, tag = "3")]
    pub(crate) direction: i32,
    #[prost(uint64, optional, tag = "5")]
    pub(crate) count: Option<u64>,
    #[prost(message, optional, tag = "6")]
    pub(crate) subscription: Option<Empty>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct StreamOptions {
    #[prost(message, optional, tag = "1")]
    pub(crate) stream: Option<StreamIdentifier>,
    #[prost(uint64, optional, tag = "2")]
    pub(crate) revision: Option<u64>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct ReadResp {
    #[prost(message, optional, tag = "1")]
    pub(crate) event: Option<ReadEvent>,
    #[prost(message, optional, tag = "4")]
    pub(crate) stream_not_found: Option<StreamNotFound>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct StreamNotFound {
    #[prost(message, optional, tag = "1")]
    pub(crate) stream: Option<StreamIdentifier>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct ReadEvent {
    #[prost(message, optional, tag = "1")]
    pub(crate) event: Option<Recorded>,
    #[prost(message, optional, tag = "4")]
    pub(crate) no_position: Option<Empty>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Recorded {
    #[prost(message, optional, tag = "1")]
    pub(crate) id: Option<Uuid>,
    #[prost(message, optional, tag = "2")]
    pub(crate) stream: Option<StreamIdentifier>,
    #[prost(uint64, tag = "3")]
    pub(crate) revision: u64,
    #[prost(map = "string, string", tag = "6")]
    pub(crate) metadata: HashMap<String, String>,
    #[prost(bytes = "vec", tag = "7")]
    pub(crate) custom_metadata: Vec<u8>,
    #[prost(bytes = "vec", tag = "8")]
    pub(crate) data: Vec<u8>,
}
