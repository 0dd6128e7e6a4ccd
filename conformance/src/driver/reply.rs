//! Lines that go out: one for each command.

use serde::Serialize;
use tieline::{Answer, CallError, Ran, Status};

use super::command::{Token, base64_of};

/// An answer, without the token that it is for. In a box, so that results that may be one stay small.
#[derive(Debug, Serialize)]
pub(super) struct Reply(Box<Said>);

#[derive(Debug, Default, Serialize)]
struct Said {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    ready: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_b64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    item_b64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ran: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connections: Option<Vec<Connection>>,
}

/// A connection, in the answer to `state`.
#[derive(Debug, Serialize)]
pub(super) struct Connection {
    pub(super) addr: String,
    pub(super) state: &'static str,
    pub(super) interval_ms: u64,
    pub(super) attempts: u64,
    pub(super) last_close: u8,
}

/// The line itself.
#[derive(Serialize)]
struct Line<'a> {
    t: &'a Token,
    #[serde(flatten)]
    reply: &'a Reply,
}

impl Said {
    fn ok() -> Self {
        Self { ok: true, ..Self::default() }
    }

    fn failed(status: Status, ran: Ran, message: String) -> Self {
        Self { status: Some(status.0), message: Some(message), ran: Some(name(ran)), ..Self::default() }
    }
}

impl From<Said> for Reply {
    fn from(said: Said) -> Self {
        Self(Box::new(said))
    }
}

impl Reply {
    pub(super) fn ok() -> Self {
        Said::ok().into()
    }

    /// A command that was not carried out, and of which nothing left.
    pub(super) fn refused(message: impl Into<String>) -> Self {
        Self::failed(Status::LOCAL_LIMIT, Ran::No, message)
    }

    pub(super) fn failed(status: Status, ran: Ran, message: impl Into<String>) -> Self {
        Said::failed(status, ran, message.into()).into()
    }

    pub(super) fn ready(connections: usize) -> Self {
        Said { ready: Some(connections), ..Said::ok() }.into()
    }

    pub(super) fn state(connections: Vec<Connection>) -> Self {
        Said { connections: Some(connections), ..Said::ok() }.into()
    }

    pub(super) fn item(octets: &[u8]) -> Self {
        Said { item_b64: Some(base64_of(octets)), ..Said::ok() }.into()
    }

    /// How a call ended, or the answer behind the items of a stream.
    pub(super) fn outcome(outcome: &Result<Answer, CallError>) -> Self {
        let said = match outcome {
            Ok(answer) => Said {
                status: Some(Status::OK.0),
                message: Some(answer.message().to_owned()),
                payload_b64: Some(base64_of(&answer.payload)),
                ran: Some(name(Ran::Yes)),
                ..Said::ok()
            },
            Err(error) => Said {
                payload_b64: Some(base64_of(error.detail())),
                ..Said::failed(error.status(), error.ran(), error.message().to_owned())
            },
        };
        said.into()
    }

    /// It is the end of a stream.
    pub(super) fn end(mut self) -> Self {
        self.0.end = Some(true);
        self
    }

    /// It took so long.
    pub(super) fn took(mut self, ms: u64) -> Self {
        self.0.ms = Some(ms);
        self
    }

    /// The line for the command of this token, with its end.
    pub(super) fn line(&self, t: &Token) -> String {
        // There is nothing in it that has no JSON.
        let mut line = serde_json::to_string(&Line { t, reply: self }).unwrap_or_default();
        line.push('\n');
        line
    }
}

const fn name(ran: Ran) -> &'static str {
    match ran {
        Ran::No => "No",
        Ran::Maybe => "Maybe",
        Ran::Yes => "Yes",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_what_there_is_to_say_and_its_token_as_it_was() {
        let text = Token::Text("a \"b\"\n".to_owned());
        assert_eq!(Reply::ok().line(&text), "{\"t\":\"a \\\"b\\\"\\n\",\"ok\":true}\n");
        assert_eq!(Reply::ready(1).line(&Token::Number(7.into())), "{\"t\":7,\"ok\":true,\"ready\":1}\n");
        let failed = Reply::failed(Status::TIMEOUT, Ran::Maybe, "late");
        assert_eq!(
            failed.line(&Token::Number(8.into())),
            "{\"t\":8,\"ok\":false,\"status\":229,\"message\":\"late\",\"ran\":\"Maybe\"}\n"
        );
    }
}
