//! The messages exchanged with a server, as its `streams.proto`, `shared.proto` and `gossip.proto` define them, reduced
//! to what a journal needs. The needed alternatives of a `oneof` are optional fields, which are the same on the wire.

use std::collections::HashMap;

use prost::Message;

pub(super) const APPEND: &str = "/event_store.client.streams.Streams/Append";
pub(super) const READ: &str = "/event_store.client.streams.Streams/Read";
pub(super) const GOSSIP: &str = "/event_store.client.gossip.Gossip/Read";

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct Empty {}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct StreamIdentifier {
    #[prost(bytes = "vec", tag = "3")]
    pub(super) name: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Uuid {
    #[prost(message, optional, tag = "1")]
    pub(super) structured: Option<Structured>,
    #[prost(string, optional, tag = "2")]
    pub(super) text: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct Structured {
    #[prost(int64, tag = "1")]
    pub(super) most: i64,
    #[prost(int64, tag = "2")]
    pub(super) least: i64,
}

impl Uuid {
    pub(super) fn new(id: uuid::Uuid) -> Self {
        let (most, least) = id.as_u64_pair();
        let structured = Structured { most: most.cast_signed(), least: least.cast_signed() };
        Self { structured: Some(structured), text: None }
    }

    pub(super) fn read(&self) -> Option<uuid::Uuid> {
        match (&self.structured, &self.text) {
            (Some(Structured { most, least }), _) => {
                Some(uuid::Uuid::from_u64_pair(most.cast_unsigned(), least.cast_unsigned()))
            }
            (None, Some(text)) => text.parse().ok(),
            (None, None) => None,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct AppendReq {
    #[prost(message, optional, tag = "1")]
    pub(super) options: Option<AppendOptions>,
    #[prost(message, optional, tag = "2")]
    pub(super) proposed: Option<Proposed>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct AppendOptions {
    #[prost(message, optional, tag = "1")]
    pub(super) stream: Option<StreamIdentifier>,
    #[prost(uint64, optional, tag = "2")]
    pub(super) revision: Option<u64>,
    #[prost(message, optional, tag = "3")]
    pub(super) no_stream: Option<Empty>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Proposed {
    #[prost(message, optional, tag = "1")]
    pub(super) id: Option<Uuid>,
    #[prost(map = "string, string", tag = "2")]
    pub(super) metadata: HashMap<String, String>,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) custom_metadata: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) data: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct AppendResp {
    #[prost(message, optional, tag = "1")]
    pub(super) success: Option<Success>,
    #[prost(message, optional, tag = "2")]
    pub(super) wrong_expected_version: Option<Empty>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct Success {
    #[prost(uint64, optional, tag = "1")]
    pub(super) revision: Option<u64>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct ReadReq {
    #[prost(message, optional, tag = "1")]
    pub(super) options: Option<ReadOptions>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct ReadOptions {
    #[prost(message, optional, tag = "1")]
    pub(super) stream: Option<StreamOptions>,
    /// 1: backwards.
    #[prost(int32, tag = "3")]
    pub(super) direction: i32,
    #[prost(bool, tag = "4")]
    pub(super) resolve_links: bool,
    #[prost(uint64, optional, tag = "5")]
    pub(super) count: Option<u64>,
    /// Instead of a count: existing events, then new ones as they come.
    #[prost(message, optional, tag = "6")]
    pub(super) subscription: Option<Empty>,
    #[prost(message, optional, tag = "8")]
    pub(super) no_filter: Option<Empty>,
    #[prost(message, optional, tag = "9")]
    pub(super) uuids: Option<UuidOption>,
    #[prost(message, optional, tag = "10")]
    pub(super) control: Option<ControlOption>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct StreamOptions {
    #[prost(message, optional, tag = "1")]
    pub(super) stream: Option<StreamIdentifier>,
    #[prost(uint64, optional, tag = "2")]
    pub(super) revision: Option<u64>,
    #[prost(message, optional, tag = "3")]
    pub(super) start: Option<Empty>,
    #[prost(message, optional, tag = "4")]
    pub(super) end: Option<Empty>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct UuidOption {
    #[prost(message, optional, tag = "2")]
    pub(super) as_text: Option<Empty>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct ControlOption {
    #[prost(uint32, tag = "1")]
    pub(super) compatibility: u32,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct ReadResp {
    #[prost(message, optional, tag = "1")]
    pub(super) event: Option<ReadEvent>,
    #[prost(message, optional, tag = "4")]
    pub(super) stream_not_found: Option<Empty>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct ReadEvent {
    #[prost(message, optional, tag = "1")]
    pub(super) event: Option<Recorded>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Recorded {
    #[prost(message, optional, tag = "1")]
    pub(super) id: Option<Uuid>,
    #[prost(uint64, tag = "3")]
    pub(super) revision: u64,
    #[prost(map = "string, string", tag = "6")]
    pub(super) metadata: HashMap<String, String>,
    #[prost(bytes = "vec", tag = "7")]
    pub(super) custom_metadata: Vec<u8>,
    #[prost(bytes = "vec", tag = "8")]
    pub(super) data: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct ClusterInfo {
    #[prost(message, repeated, tag = "1")]
    pub(super) members: Vec<Member>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Member {
    #[prost(int32, tag = "3")]
    pub(super) state: i32,
    #[prost(bool, tag = "4")]
    pub(super) is_alive: bool,
    #[prost(message, optional, tag = "5")]
    pub(super) endpoint: Option<MemberEndpoint>,
}

impl Member {
    /// The number of this state.
    pub(super) const LEADER: i32 = 8;
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct MemberEndpoint {
    #[prost(string, tag = "1")]
    pub(super) address: String,
    #[prost(uint32, tag = "2")]
    pub(super) port: u32,
}
