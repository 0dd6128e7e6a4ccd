//! The command `demo`: two nodes, two users, messages both ways; then a person types, or a thousand messages are checked.

mod cluster;
mod script;

use std::{
    io::{self, IsTerminal},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use thiserror::Error;
use tieline_commands::runtimes::Flavour;
use tokio::{task::JoinSet, time};

pub use self::cluster::ClusterError;
use self::{cluster::NodeProcess, script::Tally};
use crate::{
    chat,
    name::Name,
    print::{self, note, say, shown},
    typed::{HELP, Typed, lines},
    user::{Event, JoinError, User},
};

const PICTURE: &str = "
   alice ──────► node one ─────────────► node two ──────► bob
         1 send           2 rpc: relay            3 deliver
         ◄────────────────── acknowledged ────────────────

   Each arrow is a Tieline call. Between two nodes there is one connection, and both ends call on it.
";

/// How long a node has to answer, and a message to arrive.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long everything may take, without the messages of the script, and for each of those.
const LIMIT: (Duration, Duration) = (Duration::from_secs(30), Duration::from_millis(10));

/// Why a demo does not come about.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DemoError {
    /// The nodes do not start.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A user cannot log in.
    #[error("{0} cannot log in: {1}")]
    Join(&'static str, JoinError),
    /// It hangs.
    #[error("the demo was not done within {0:?}; is the machine very busy? Try --messages 10")]
    TooSlow(Duration),
}

/// What a user has read.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    /// Whether what comes is shown on the terminal.
    quiet: bool,
    read: Vec<(Name, String)>,
}

pub(super) type Shared<T> = Arc<Mutex<T>>;

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A user of the demo, and what it has read.
pub(super) struct Actor {
    pub(super) user: User,
    pub(super) inbox: Shared<Inbox>,
}

impl Actor {
    async fn join(name: &'static str, node: &NodeProcess) -> Result<Self, DemoError> {
        let inbox = Shared::<Inbox>::default();
        let written = Arc::clone(&inbox);
        let who: Name = name
            .parse()
            .map_err(|error: crate::BadName| DemoError::Join(name, JoinError::Refused(error.to_string())))?;
        let me = who.clone();
        let joined = User::join(who, &node.address, PATIENCE, move |event| match event {
            Event::Message(message) => {
                let mut inbox = lock(&written);
                let from = message.from.user.clone();
                if !inbox.quiet {
                    say(&format!("  {me} reads  {from}: {}", shown(message.text())));
                }
                inbox.read.push((from, message.text().to_owned()));
            }
            other => chat::tell(&me, other),
        });
        let user = joined.await.map_err(|error| DemoError::Join(name, error))?;
        Ok(Self { user, inbox })
    }
}

/// Runs the demo, node one and node two on these runtimes. With `script`, or without a terminal, by itself, with so many `messages` each way after the first two.
/// Whether every message arrived once and in order.
///
/// # Errors
/// [`DemoError`]: it did not get that far.
pub async fn run(script: bool, messages: u32, runtimes: [Flavour; 2]) -> Result<bool, DemoError> {
    let interactive = !script && io::stdin().is_terminal() && io::stdout().is_terminal();
    say(PICTURE);
    let [of_one, of_two] = runtimes;
    // What runs on tokio, as nodes usually do, need not be told from anything.
    let on = |flavour| if runtimes == [Flavour::Tokio; 2] { String::new() } else { format!(" on {flavour}") };
    let two = NodeProcess::start("two", of_two, &[]).await?;
    say(&format!("node two listens{} on {} (process {})", on(of_two), two.address, two.id));
    let one = NodeProcess::start("one", of_one, &[&two]).await?;
    say(&format!(
        "node one listens{} on {} (process {}) and dials node two",
        on(of_one),
        one.address,
        one.id
    ));
    let done = tokio::select! {
        done = play(&one, &two, interactive, messages) => done,
        _ = tokio::signal::ctrl_c() => {
            note("stopped by ctrl-c");
            Ok(interactive)
        }
    };
    // The one that dials first, or it would see the other go.
    let mut stopped = true;
    for node in [one, two] {
        let name = node.name;
        let (goodbye, status) = node.stop().await;
        match status {
            Some(status) if status.success() => say(&goodbye),
            Some(status) => {
                note(&format!("error: node {name} ended with {status}; look at what it said above"));
            }
            None => note(&format!("error: node {name} did not stop and was killed")),
        }
        stopped &= status.is_some_and(|status| status.success());
    }
    done.map(|good| good && stopped)
}

async fn play(
    one: &NodeProcess,
    two: &NodeProcess,
    interactive: bool,
    messages: u32,
) -> Result<bool, DemoError> {
    let (patience, each) = LIMIT;
    let limit = patience + each * messages;
    let started = Instant::now();
    let show = async {
        let alice = Actor::join("alice", one).await?;
        say("alice is logged in at one");
        let bob = Actor::join("bob", two).await?;
        say("bob is logged in at two\n");
        let mut tally = Tally::default();
        tally.say(&alice, &bob, "hello bob, are you there?").await;
        tally.say(&bob, &alice, "hello alice, I am at node two").await;
        Ok::<_, DemoError>((alice, bob, tally))
    };
    let slow = || DemoError::TooSlow(limit);
    let (alice, bob, mut tally) = time::timeout(limit, show).await.map_err(|_| slow())??;
    let good = if interactive {
        converse([&alice, &bob]).await;
        tally.is_good()
    } else {
        [&alice, &bob].iter().for_each(|actor| lock(&actor.inbox).quiet = true);
        let script = tally.exchange(&alice, &bob, messages);
        time::timeout(limit.saturating_sub(started.elapsed()), script).await.map_err(|_| slow())?;
        tally.summary(started.elapsed())
    };
    alice.user.leave().await;
    bob.user.leave().await;
    Ok(good)
}

/// A person types, as one of the two.
async fn converse(actors: [&Actor; 2]) {
    say(&format!("\nYou are alice. {HELP} · /as bob makes you bob. Try: /to bob hi"));
    let mut lines = lines();
    let mut sent = JoinSet::new();
    let [mut me, _] = actors;
    let mut last = None;
    loop {
        let line = tokio::select! {
            line = lines.recv() => line,
            Some(_) = sent.join_next() => continue,
        };
        let typed = match line {
            None => break,
            Some(Ok(line)) => Typed::parse(&line),
            Some(Err(why)) => Err(why),
        };
        match typed {
            Ok(Typed::Quit) => break,
            Ok(Typed::As(name)) => match actors.iter().find(|actor| *actor.user.name() == name) {
                Some(actor) => {
                    me = actor;
                    last = None;
                    say(&format!("You are {name}."));
                }
                None => note(&format!("error: {name} is not in this demo; be alice or bob")),
            },
            Ok(typed) => {
                chat::act(&me.user, typed, &mut last, &mut sent).await;
            }
            Err(why) => note(&format!("error: {why}")),
        }
    }
    while sent.join_next().await.is_some() {}
}

/// One line about a message of `from` to `to`.
pub(super) fn outcome(from: &Actor, to: &Actor, report: &crate::wire::Report) -> String {
    let node = from.user.node().unwrap_or_else(|| from.user.name().clone());
    print::outcome(from.user.name(), &node, to.user.name(), report)
}
