//! The command `chat`: a user at a terminal, or behind a pipe.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::{
    name::Name,
    print::{self, note, say, shown},
    typed::{HELP, Typed, lines},
    user::{Event, JoinError, User},
    wire::Verdict,
};

/// Logs in, then does what is typed until the end of the input. Whether everything that was sent was delivered.
///
/// # Errors
/// [`JoinError`]: there is no login.
pub async fn run(name: Name, node: &str, timeout: Duration) -> Result<bool, JoinError> {
    let me = name.clone();
    let user = User::join(name, node, timeout, move |event| tell(&me, event)).await?;
    if let Some(node) = user.node() {
        say(&format!("{} is at {node}; {HELP}", user.name()));
    }
    let mut lines = lines();
    let mut sent = JoinSet::new();
    let (mut last, mut good) = (None, true);
    loop {
        let line = tokio::select! {
            line = lines.recv() => line,
            Some(outcome) = sent.join_next() => {
                good &= outcome.unwrap_or(false);
                continue;
            }
            _ = tokio::signal::ctrl_c() => break,
        };
        match line {
            None => break,
            Some(Err(why)) => note(&format!("error: {why}")),
            Some(Ok(line)) => match Typed::parse(&line) {
                Ok(Typed::Quit) => break,
                Ok(typed) => good &= act(&user, typed, &mut last, &mut sent).await,
                Err(why) => {
                    good = false;
                    note(&format!("error: {why}"));
                }
            },
        }
    }
    // Each of them has its outcome within the timeout.
    while let Some(outcome) = sent.join_next().await {
        good &= outcome.unwrap_or(false);
    }
    user.leave().await;
    Ok(good)
}

/// What the user is told without having asked.
pub(crate) fn tell(me: &Name, event: Event<'_>) {
    match event {
        Event::Message(message) => say(&format!("{}: {}", message.from.user, shown(message.text()))),
        Event::Lost(why) => note(&format!("{me}: the connection is lost ({why}); dialling again")),
        Event::Back(node) => note(&format!("{me}: back at {node}")),
        Event::Refused(why) => note(&format!("{me}: not logged in: {why}")),
    }
}

/// Does what was typed. Whether that was possible; of what was sent `sent` knows later.
pub(crate) async fn act(
    user: &User,
    typed: Typed,
    last: &mut Option<Name>,
    sent: &mut JoinSet<bool>,
) -> bool {
    match typed {
        Typed::To(to, text) => {
            *last = Some(to.clone());
            send(user, to, &text, sent)
        }
        Typed::Text(text) => match last.clone() {
            Some(to) => send(user, to, &text, sent),
            None => {
                note("error: to whom? type /to NAME TEXT once; after that the text alone is enough");
                false
            }
        },
        Typed::Where(who) => match user.locate(&who).await {
            Ok(place) => told(&print::place(&who, &place)),
            Err(why) => failed(&why),
        },
        Typed::Who => match user.who().await {
            Ok(rolls) => rolls.iter().all(|roll| told(&print::roll(roll))),
            Err(why) => failed(&why),
        },
        Typed::As(_) => failed("/as is for the demo; start another chat with --as"),
        Typed::Help => told(HELP),
        Typed::Quit | Typed::Nothing => true,
    }
}

fn told(line: &str) -> bool {
    say(line);
    true
}

fn failed(why: &str) -> bool {
    note(&format!("error: {}", shown(why)));
    false
}

/// Sends, and leaves the outcome to a task that prints it: a receiver who is slow holds nobody else up.
fn send(user: &User, to: Name, text: &str, sent: &mut JoinSet<bool>) -> bool {
    let (from, node) = (user.name().clone(), user.node());
    match user.send(&to, text) {
        Ok(outcome) => {
            sent.spawn(async move {
                let report = outcome.await;
                let node = node.unwrap_or_else(|| from.clone());
                say(&print::outcome(&from, &node, &to, &report));
                report.verdict == Verdict::Delivered
            });
            true
        }
        Err(error) => failed(&format!("{to}: not sent: {error}")),
    }
}
