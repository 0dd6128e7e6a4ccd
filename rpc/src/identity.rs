//! Who may check in: what the application's verifier says, and then one identifier, one process (protocol §4).
//!
//! A check-in of a lower instance than a live one is most likely a ghost: an old process that was cut off and comes
//! back. It is refused while the newer process answers, and comes in if that one does not: its clock may have gone
//! back, and a dead process must not lock it out.

use std::{
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use tieline_core::{Instant, conn::PeerInfo, wire::Status};

use crate::{
    link::{Link, State, watch},
    registry::{Applicant, Decision, Registry},
    runtime::BoxFuture,
};

/// How long a newer process may take to show life, if its heartbeat interval is not shorter.
const MOST: Duration = Duration::from_secs(2);

/// A question to a peer whether it lives.
pub(crate) struct Probe {
    /// When it was asked.
    asked: Instant,
    /// When it answered.
    pub(crate) answered: Option<Instant>,
}

/// Why a check-in is refused.
struct Refusal {
    status: Status,
    message: String,
    retry_after: Option<Duration>,
}

/// Decides about a check-in, in a task of its own. The core bounds how long that may take.
pub(crate) fn verify(registry: &Arc<Registry>, link: &Arc<Link>, check_in: Applicant) {
    let Some(verifier) = &registry.verifier else { return };
    let who = Arc::clone(&check_in.peer);
    let decision = catch_unwind(AssertUnwindSafe(|| verifier(check_in)));
    let (registry, link, common) = (Arc::clone(registry), Arc::clone(link), Arc::clone(&link.common));
    common.spawn(Box::pin(async move {
        let decision = match decision {
            Ok(decision) => decided(&link, decision).await,
            Err(_) => Some(failed()),
        };
        let verdict = match decision {
            None => return,
            Some(Decision::Accept) => contest(&registry, &who).await,
            Some(Decision::Refuse(message)) => Err(refused(message, None)),
            Some(Decision::RefuseFor(message, time)) => Err(refused(message, Some(time))),
        };
        tell(&link, verdict);
    }));
}

fn failed() -> Decision {
    Decision::Refuse("the verifier failed".to_owned())
}

fn refused(message: String, retry_after: Option<Duration>) -> Refusal {
    Refusal { status: Status::CHECK_IN_REFUSED, message, retry_after }
}

/// Waits for the decision. `None`: the connection is over, and nothing that was begun for it is kept.
async fn decided(link: &Link, mut decision: BoxFuture<Decision>) -> Option<Decision> {
    poll_fn(|cx| {
        match catch_unwind(AssertUnwindSafe(|| decision.as_mut().poll(cx))) {
            Ok(Poll::Ready(decision)) => return Poll::Ready(Some(decision)),
            Ok(Poll::Pending) => {}
            Err(_) => return Poll::Ready(Some(failed())),
        }
        let mut state = link.lock();
        if state.closed.is_some() {
            return Poll::Ready(None);
        }
        watch(&mut state.watchers, cx);
        Poll::Pending
    })
    .await
}

/// Whether a check-in stands against those of its identifier that are there.
async fn contest(registry: &Registry, who: &PeerInfo) -> Result<(), Refusal> {
    loop {
        let rivals = registry.higher(&who.identifier, who.instance);
        let Some((rival, interval, asked)) = ask(&rivals) else { return Ok(()) };
        let patience = interval.min(MOST);
        // Counted from the question, which may have been another's.
        let left = patience.saturating_sub(rival.common.clock.now().saturating_since(asked));
        match answer(rival, (registry.sleep)(left)).await {
            Some(true) => {
                return Err(Refusal {
                    status: Status::IDENTITY_CONFLICT,
                    message: "a newer process of this identifier is here and answers".to_owned(),
                    // By then it is known whether that process is still there.
                    retry_after: Some((interval * 3).max(Duration::from_secs(1))),
                });
            }
            // It stays suspect; its silence decides about it.
            Some(false) => return Ok(()),
            None => {}
        }
    }
}

/// Asks the rival that was last heard whether it lives, unless one of them is being asked or has just answered: at most
/// one question at a time, however many check in.
fn ask(rivals: &[Arc<Link>]) -> Option<(&Link, Duration, Instant)> {
    let mut latest: Option<(&Link, Instant)> = None;
    for link in rivals {
        let state = link.lock();
        if state.closed.is_some() {
            continue;
        }
        if let Some(asked) = present(link, &state) {
            return Some((link, interval(&state), asked));
        }
        let heard = state.conn.last_read();
        if latest.is_none_or(|(_, before)| heard > before) {
            latest = Some((link, heard));
        }
    }
    let (link, _) = latest?;
    let mut entered = link.enter();
    let state = &mut *entered.state;
    let interval = interval(state);
    let asked = present(link, state).unwrap_or_else(|| {
        let now = link.common.clock.now();
        // A connection that is about to end cannot be asked; that is told as its end.
        state.conn.probe(now);
        state.probe = Some(Probe { asked: now, answered: None });
        now
    });
    entered.leave();
    Some((link, interval, asked))
}

/// The question that is open, or whose answer still holds; when it was asked.
fn present(link: &Link, state: &State) -> Option<Instant> {
    let probe = state.probe.as_ref()?;
    let since = link.common.clock.now().saturating_since(probe.answered.unwrap_or(probe.asked));
    (since < interval(state).min(MOST)).then_some(probe.asked)
}

fn interval(state: &State) -> Duration {
    state.conn.peer().map_or(MOST, |peer| peer.heartbeat_interval)
}

/// Waits for the answer: whether it came in time, or nothing if the connection ended.
async fn answer(rival: &Link, time: BoxFuture<()>) -> Option<bool> {
    let mut time = pin!(time);
    poll_fn(|cx| {
        let mut state = rival.lock();
        if state.closed.is_some() {
            return Poll::Ready(None);
        }
        if state.probe.as_ref().is_some_and(|probe| probe.answered.is_some()) {
            return Poll::Ready(Some(true));
        }
        watch(&mut state.watchers, cx);
        drop(state);
        time.as_mut().poll(cx).map(|()| Some(false))
    })
    .await
}

fn tell(link: &Link, verdict: Result<(), Refusal>) {
    let mut entered = link.enter();
    let state = &mut *entered.state;
    let (now, conn) = (state.now, &mut state.conn);
    match verdict {
        Ok(()) => conn.accept_check_in(now),
        Err(refusal) => conn.refuse_check_in(now, refusal.status, &refusal.message, refusal.retry_after),
    }
    entered.leave();
}
