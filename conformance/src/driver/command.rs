//! Lines that come in: what they may say, and whom the answer is for.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Number, Value};

use crate::testee::SERVICE;

/// What names a command: whatever the harness chose, repeated in the answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Token {
    Text(String),
    Number(Number),
}

/// A line that has a token.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) token: Token,
    /// What to do, or why that is not understood.
    pub(super) command: Result<Command, String>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "cmd", rename_all = "snake_case")]
pub(super) enum Command {
    Serve(Serve),
    Connect(Box<Connect>),
    Call(Call),
    OneWay(Call),
    Cancel { call: Token },
    StreamOpen(Open),
    StreamSend(Item),
    StreamEnd { stream: Token },
    StreamRecv(Receive),
    State,
    Close,
}

#[derive(Debug, Deserialize)]
pub(super) struct Serve {
    pub(super) methods: Vec<String>,
    #[serde(default = "sixteen")]
    pub(super) max_concurrent: u32,
    #[serde(default)]
    pub(super) delay_ms: u64,
}

/// Numbers of 0 are the protocol's defaults.
#[derive(Debug, Deserialize)]
pub(super) struct Connect {
    pub(super) addrs: Vec<String>,
    pub(super) identifier: String,
    #[serde(default = "ten_seconds")]
    pub(super) heartbeat_ms: u64,
    #[serde(default = "one")]
    pub(super) connections: u32,
    #[serde(default)]
    pub(super) features: Vec<u32>,
    #[serde(default)]
    pub(super) max_frame: u32,
    #[serde(default)]
    pub(super) max_message: u32,
    #[serde(default)]
    pub(super) max_item: u32,
    #[serde(default)]
    pub(super) stream_window: u32,
    #[serde(default, rename = "credential_b64")]
    pub(super) credential: Octets,
    #[serde(default = "twelve_seconds")]
    pub(super) check_in_timeout_ms: u64,
    #[serde(default = "a_tenth")]
    pub(super) backoff_ms: u64,
    #[serde(default)]
    pub(super) wait_ms: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Call {
    pub(super) method: String,
    #[serde(default, rename = "payload_b64")]
    pub(super) payload: Octets,
    /// 0 is none.
    #[serde(default)]
    pub(super) timeout_ms: u64,
    #[serde(default, rename = "key_b64")]
    pub(super) key: Octets,
    #[serde(default)]
    pub(super) priority: i64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Open {
    #[serde(flatten)]
    pub(super) call: Call,
    pub(super) kind: u32,
    pub(super) credit: Option<u32>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Item {
    pub(super) stream: Token,
    #[serde(default, rename = "payload_b64")]
    pub(super) payload: Octets,
}

#[derive(Debug, Deserialize)]
pub(super) struct Receive {
    pub(super) stream: Token,
    #[serde(default = "three_seconds")]
    pub(super) timeout_ms: u64,
}

/// Octets that come as base64.
#[derive(Debug, Clone, Default)]
pub(super) struct Octets(pub(super) Bytes);

impl<'de> Deserialize<'de> for Octets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match STANDARD.decode(text) {
            Ok(octets) => Ok(Self(octets.into())),
            Err(error) => Err(de::Error::custom(format!("no base64: {error}"))),
        }
    }
}

pub(super) fn base64_of(octets: &[u8]) -> String {
    STANDARD.encode(octets)
}

const fn sixteen() -> u32 {
    16
}

const fn one() -> u32 {
    1
}

const fn ten_seconds() -> u64 {
    10_000
}

const fn twelve_seconds() -> u64 {
    12_000
}

const fn three_seconds() -> u64 {
    3_000
}

const fn a_tenth() -> u64 {
    100
}

impl Call {
    /// The full name of the method: one without a service is the testee's.
    pub(super) fn name(&self) -> String {
        if self.method.contains('/') { self.method.clone() } else { format!("{SERVICE}{}", self.method) }
    }

    /// The priority as the protocol clamps it (R-ORD-07).
    pub(super) fn priority(&self) -> i8 {
        match self.priority {
            ..0 => -1,
            0 => 0,
            1.. => 1,
        }
    }
}

/// Understands a line.
///
/// # Errors
/// Why there is nobody whom an answer could be for.
pub(super) fn parse(line: &[u8]) -> Result<Told, String> {
    let value = serde_json::from_slice(line).map_err(|error| format!("no JSON: {error}"))?;
    let Value::Object(mut object) = value else { return Err("not an object".to_owned()) };
    let token = match object.remove("t") {
        None => return Err("no token `t`".to_owned()),
        Some(Value::String(text)) => Token::Text(text),
        Some(Value::Number(number)) => Token::Number(number),
        Some(_) => return Err("the token `t` is neither a string nor a number".to_owned()),
    };
    let command = Command::deserialize(Value::Object(object)).map_err(|error| error.to_string());
    Ok(Told { token, command })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_left_out_is_as_documented() {
        let told = parse(br#"{"t":1,"cmd":"connect","addrs":["h:1"],"identifier":"x","later":[]}"#).unwrap();
        assert_eq!(told.token, Token::Number(1.into()));
        let Ok(Command::Connect(connect)) = told.command else { unreachable!("no connect") };
        assert_eq!(
            (connect.heartbeat_ms, connect.connections, connect.check_in_timeout_ms),
            (10_000, 1, 12_000)
        );
        assert_eq!((connect.backoff_ms, connect.wait_ms, connect.max_frame), (100, 0, 0));
        let told = parse(br#"{"t":"a","cmd":"call","method":"Echo","retry":true,"priority":7}"#).unwrap();
        let Ok(Command::Call(call)) = told.command else { unreachable!("no call") };
        assert_eq!((call.name(), call.priority()), ("tieline.testee.v1.Testee/Echo".to_owned(), 1));
        let told =
            parse(br#"{"t":2,"cmd":"stream_open","method":"a.B/C","kind":3,"payload_b64":"AQI="}"#).unwrap();
        let Ok(Command::StreamOpen(open)) = told.command else { unreachable!("no stream") };
        assert_eq!(
            (open.call.name(), &open.call.payload.0[..], open.credit),
            ("a.B/C".to_owned(), &[1, 2][..], None)
        );
    }

    #[test]
    fn a_mistake_is_told_to_whoever_made_it_if_that_is_known() {
        for (line, part) in [
            ("", "no JSON"),
            ("{", "no JSON"),
            ("[1]", "not an object"),
            (r#"{"cmd":"state"}"#, "no token"),
            (r#"{"t":null,"cmd":"state"}"#, "neither a string nor a number"),
        ] {
            let error = parse(line.as_bytes()).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
        for (line, part) in [
            (r#"{"t":1}"#, "cmd"),
            (r#"{"t":1,"cmd":"fly"}"#, "unknown variant `fly`"),
            (r#"{"t":1,"cmd":"call"}"#, "missing field `method`"),
            (r#"{"t":1,"cmd":"call","method":"Echo","payload_b64":"?"}"#, "no base64"),
            (r#"{"t":1,"cmd":"call","method":"Echo","timeout_ms":-1}"#, "-1"),
            (r#"{"t":1,"cmd":"stream_end","stream":[]}"#, "Token"),
        ] {
            let told = parse(line.as_bytes()).unwrap();
            assert_eq!(told.token, Token::Number(1.into()));
            let error = told.command.unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
