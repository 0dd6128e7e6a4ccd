//! Calls that failed, in words for people and in what the router has to know.

use tieline_core::wire::Escaped;
use tieline_tokio::{CallError, Class, Error, Ran, Status};

use crate::{
    router::{Broken, Refusal},
    wire::Malformed,
};

/// Why `who` was asked in vain.
pub(crate) fn reason(who: &str, error: &CallError) -> String {
    let (status, message) = (error.status(), Escaped(error.message().as_bytes()));
    match status {
        Status::CONNECTION_LOST | Status::NOT_SENT | Status::NO_ENDPOINT => {
            format!("{who} cannot be reached ({message})")
        }
        Status::TIMEOUT | Status::EXPIRED_RUNNING | Status::EXPIRED_IN_QUEUE => {
            format!("{who} has not answered in time")
        }
        _ if error.message().is_empty() => format!("{who} answered {status}"),
        _ if status.class() == Class::Handler => format!("{who} says: {message}"),
        _ => format!("{who} answered {status}: {message}"),
    }
}

/// What a failed attempt to hand a message on means.
pub(crate) fn broken(who: &str, error: &CallError) -> Broken {
    let (maybe, last) = match error.status() {
        // The nodes' own contract: a node that is full or stops has not taken the message.
        Status::UNAVAILABLE | Status::RESOURCE_EXHAUSTED => (false, false),
        Status::INVALID_ARGUMENT
        | Status::UNIMPLEMENTED
        | Status::FAILED_PRECONDITION
        | Status::PERMISSION_DENIED
        | Status::UNAUTHENTICATED => (false, true),
        Status::EXPIRED_IN_QUEUE | Status::CANCELLED_IN_QUEUE => (false, false),
        Status::LOCAL_LIMIT | Status::WRONG_SIGNATURE => (error.ran() != Ran::No, true),
        status => match status.class() {
            Class::RefusedRequest => (false, true),
            Class::Handler | Class::Application => (true, true),
            _ => (error.ran() != Ran::No, false),
        },
    };
    Broken { maybe, last, why: reason(who, error) }
}

/// A refusal as a method's answer.
pub(crate) fn refuse(refusal: &Refusal) -> Error {
    let status = match refusal {
        Refusal::Taken(_) => Status::ALREADY_EXISTS,
        Refusal::LoggedInAlready => Status::FAILED_PRECONDITION,
        Refusal::NotLoggedIn => Status::UNAUTHENTICATED,
        Refusal::NotYou => Status::PERMISSION_DENIED,
        Refusal::Full => Status::RESOURCE_EXHAUSTED,
        Refusal::Stopping => Status::UNAVAILABLE,
        Refusal::SentAgain => Status::ABORTED,
    };
    Error::new(status, refusal.to_string())
}

/// An argument that does not decode.
pub(crate) fn malformed(error: &Malformed) -> Error {
    Error::new(Status::INVALID_ARGUMENT, error.to_string())
}
