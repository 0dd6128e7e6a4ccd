//! The files of golden vectors as they are, by `conformance/vectors/README.md`. A key that it
//! does not name is an error.

use std::{fs, path::PathBuf};

use serde::{Deserialize, de::DeserializeOwned};
use tieline_core::wire::{
    CheckIn, CheckInAck, Close, Credit, Drain, Envelope, FrameType, Item, Label, Metadata, Method, Repeated,
    Request, Response, Table,
};

fn folder() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "conformance", "vectors"].iter().collect()
}

/// The names of the files that hold frames.
pub(crate) fn frame_files() -> Vec<String> {
    let entries = fs::read_dir(folder()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| is_frames(name)).collect();
    names.sort();
    names
}

fn is_frames(name: &str) -> bool {
    name.strip_prefix("frames-").is_some_and(|rest| rest.ends_with(".json"))
}

/// Reads one file.
pub(crate) fn read<T: DeserializeOwned>(name: &str) -> T {
    let text = fs::read(folder().join(name)).unwrap();
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The number of the format, which must be 1.
#[derive(Debug, Deserialize)]
#[serde(try_from = "u32")]
pub(crate) struct Format;

impl TryFrom<u32> for Format {
    type Error = String;

    fn try_from(number: u32) -> Result<Self, String> {
        if number == 1 { Ok(Self) } else { Err(format!("format {number}")) }
    }
}

/// Octets in lower-case hex.
#[derive(Debug, Default, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Hex(pub(crate) Vec<u8>);

impl TryFrom<String> for Hex {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digit = |octet: u8| match octet {
            b'0'..=b'9' => Ok(octet - b'0'),
            b'a'..=b'f' => Ok(octet - b'a' + 10),
            _ => Err(format!("no hex digit: {octet:#04x}")),
        };
        let (pairs, rest) = text.as_bytes().as_chunks();
        if !rest.is_empty() {
            return Err("half an octet".to_owned());
        }
        pairs
            .iter()
            .map(|[high, low]| Ok(digit(*high)? << 4 | digit(*low)?))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// A number of 64 bits as a decimal string.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Decimal(pub(crate) u64);

impl TryFrom<String> for Decimal {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

macro_rules! json {
    ($($(#[$attribute:meta])* $name:ident { $($(#[$on:meta])* $field:ident: $type:ty,)* })*) => {$(
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(dead_code, reason = "a key that is not used must still be known")]
        $(#[$attribute])*
        pub(crate) struct $name {
            $($(#[$on])* pub(crate) $field: $type,)*
        }
    )*};
}

json! {
    FrameFile { format: Format, about: String, vectors: Vec<FrameVector>, }
    FrameVector {
        id: String,
        why: String,
        hex: Hex,
        frame: Option<JsonFrame>,
        canonical: Option<bool>,
        max_body: Option<u32>,
        error: Option<String>,
        offset: Option<u32>,
        decided_after: Option<usize>,
    }
    JsonFrame {
        #[serde(rename = "type")]
        frame_type: String,
        flags: Vec<String>,
        status: u8,
        context_id: Decimal,
        envelope: serde_json::Value,
        payload_hex: Hex,
    }
    VarintFile { format: Format, about: String, vectors: Vec<VarintVector>, zigzag: Vec<Zigzag>, }
    VarintVector {
        id: String,
        value: Option<Decimal>,
        hex: Hex,
        canonical: Option<bool>,
        error: Option<String>,
    }
    Zigzag { id: String, bits: u32, signed: String, unsigned: Decimal, }
    StatusFile { format: Format, about: String, statuses: Vec<StatusRow>, }
    StatusRow { octet: u8, hex: Hex, class: u8, name: Option<String>, retry: Option<String>, }
    FnvFile { format: Format, about: String, vectors: Vec<FnvVector>, }
    FnvVector { id: String, text: String, hash: Hex, fingerprint: Decimal, }

    #[derive(Default)] #[serde(default)]
    JsonCheckIn {
        identifier: String,
        heartbeat_interval_ms: u32,
        instance: Decimal,
        features: Vec<u32>,
        max_frame: u32,
        max_message: u32,
        max_item: u32,
        max_concurrent: u32,
        max_streams: u32,
        stream_window: u32,
        credential: Hex,
        labels: Vec<JsonLabel>,
    }
    #[derive(Default)] #[serde(default)]
    JsonCheckInAck {
        identifier: String,
        heartbeat_interval_ms: u32,
        instance: Decimal,
        features: Vec<u32>,
        max_frame: u32,
        max_message: u32,
        max_item: u32,
        max_concurrent: u32,
        max_streams: u32,
        stream_window: u32,
        labels: Vec<JsonLabel>,
        message: String,
        retry_after_ms: u32,
    }
    #[derive(Default)] #[serde(default)]
    JsonLabel { key: String, value: String, }
    #[derive(Default)] #[serde(default)]
    JsonTable { methods: Vec<JsonMethod>, }
    #[derive(Default)] #[serde(default)]
    JsonMethod { id: u32, name: String, fingerprint: Decimal, }
    #[derive(Default)] #[serde(default)]
    JsonRequest {
        method: u32,
        method_name: String,
        timeout_us: Option<Decimal>,
        ordering_key: Hex,
        priority: i32,
        metadata: Vec<JsonMetadata>,
        codec: u32,
        kind: i32,
        credit: Option<u32>,
        trace: Hex,
        total: Decimal,
    }
    #[derive(Default)] #[serde(default)]
    JsonResponse {
        message: String,
        retry_after_ms: u32,
        metadata: Vec<JsonMetadata>,
        owner: String,
        code: u32,
        total: Decimal,
    }
    #[derive(Default)] #[serde(default)]
    JsonMetadata { key: String, value: Hex, }
    #[derive(Default)] #[serde(default)]
    JsonItem { total: Decimal, }
    #[derive(Default)] #[serde(default)]
    JsonCredit { octets: u32, }
    #[derive(Default)] #[serde(default)]
    JsonDrain { grace_ms: u32, message: String, }
    #[derive(Default)] #[serde(default)]
    JsonClose { message: String, }
}

/// Envelopes borrow; what they borrow here lives as long as the test does.
fn keep<T>(owned: impl IntoIterator<Item = T>) -> &'static [T] {
    Vec::leak(owned.into_iter().collect())
}

fn labels(json: &'static [JsonLabel]) -> Repeated<'static, Label<'static>> {
    keep(json.iter().map(|label| Label { key: &label.key, value: &label.value })).into()
}

fn metadata(json: &'static [JsonMetadata]) -> Repeated<'static, Metadata<'static>> {
    keep(json.iter().map(|one| Metadata { key: &one.key, value: &one.value.0 })).into()
}

fn method(json: &'static JsonMethod) -> Method<'static> {
    Method { id: json.id, name: &json.name, fingerprint: json.fingerprint.0 }
}

impl JsonFrame {
    fn fields<T: DeserializeOwned>(&self) -> &'static T {
        Box::leak(Box::new(T::deserialize(&self.envelope).unwrap()))
    }

    /// The envelope that the vector tells, for a frame of this type.
    pub(crate) fn envelope(&self, frame_type: FrameType) -> Envelope<'static> {
        match frame_type {
            FrameType::CHECK_IN => Envelope::CheckIn(check_in(self.fields())),
            FrameType::CHECK_IN_ACK => Envelope::CheckInAck(check_in_ack(self.fields())),
            FrameType::REQUEST | FrameType::ONE_WAY => Envelope::Request(request(self.fields())),
            FrameType::RESPONSE => Envelope::Response(response(self.fields())),
            FrameType::STREAM_ITEM => Envelope::Item(Item { total: self.fields::<JsonItem>().total.0 }),
            FrameType::CREDIT => Envelope::Credit(Credit { octets: self.fields::<JsonCredit>().octets }),
            FrameType::DRAIN => {
                let it = self.fields::<JsonDrain>();
                Envelope::Drain(Drain { grace_ms: it.grace_ms, message: &it.message })
            }
            FrameType::CLOSE => Envelope::Close(Close { message: &self.fields::<JsonClose>().message }),
            FrameType::TABLE => {
                let methods = self.fields::<JsonTable>().methods.iter().map(method);
                Envelope::Table(Table { methods: keep(methods).into() })
            }
            _ => {
                assert!(self.envelope.is_null());
                Envelope::None
            }
        }
    }
}

fn check_in(it: &'static JsonCheckIn) -> CheckIn<'static> {
    CheckIn {
        identifier: &it.identifier,
        heartbeat_interval_ms: it.heartbeat_interval_ms,
        instance: it.instance.0,
        features: Repeated::from(&it.features[..]),
        max_frame: it.max_frame,
        max_message: it.max_message,
        max_item: it.max_item,
        max_concurrent: it.max_concurrent,
        max_streams: it.max_streams,
        stream_window: it.stream_window,
        credential: &it.credential.0,
        labels: labels(&it.labels),
    }
}

fn check_in_ack(it: &'static JsonCheckInAck) -> CheckInAck<'static> {
    CheckInAck {
        identifier: &it.identifier,
        heartbeat_interval_ms: it.heartbeat_interval_ms,
        instance: it.instance.0,
        features: Repeated::from(&it.features[..]),
        max_frame: it.max_frame,
        max_message: it.max_message,
        max_item: it.max_item,
        max_concurrent: it.max_concurrent,
        max_streams: it.max_streams,
        stream_window: it.stream_window,
        labels: labels(&it.labels),
        message: &it.message,
        retry_after_ms: it.retry_after_ms,
    }
}

fn request(it: &'static JsonRequest) -> Request<'static> {
    Request {
        method: it.method,
        method_name: &it.method_name,
        timeout_us: it.timeout_us.map(|us| us.0),
        ordering_key: &it.ordering_key.0,
        priority: it.priority,
        metadata: metadata(&it.metadata),
        codec: it.codec,
        kind: it.kind.cast_unsigned(),
        credit: it.credit,
        trace: &it.trace.0,
        total: it.total.0,
    }
}

fn response(it: &'static JsonResponse) -> Response<'static> {
    Response {
        message: &it.message,
        retry_after_ms: it.retry_after_ms,
        metadata: metadata(&it.metadata),
        owner: &it.owner,
        code: it.code,
        total: it.total.0,
    }
}
