//! Three routers and three users in virtual time, with connections that break at any moment.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const NODES: usize = 3;
const USERS: [&str; 3] = ["alice", "bob", "carol"];
const START: Instant = Instant::from_nanos(1);
/// Connections break until here; then all is well.
const HEALED: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_millis(1500);

/// What is on its way.
enum Event {
    Login(usize),
    Logout(usize),
    Send {
        from: usize,
        to: usize,
    },
    Input(usize, Input),
    /// A call from one node to another, or its answer.
    Relay {
        at: usize,
        back: (usize, Attempt),
        message: Message,
        deadline: Instant,
    },
    Ask {
        at: usize,
        back: (usize, Query),
        user: Name,
    },
    Show {
        user: usize,
        session: SessionId,
        back: (usize, Attempt),
        message: Message,
    },
}

#[derive(Default)]
struct User {
    session: Option<(usize, SessionId)>,
    sent: u64,
    seen: Seen,
    screen: Vec<(Name, u64)>,
}

struct World {
    now: Instant,
    seed: u64,
    faults: u64,
    routers: Vec<Router>,
    users: Vec<User>,
    events: BTreeMap<(Instant, u64), Event>,
    count: u64,
    /// Whose tickets they are: the user's message, or another node's attempt.
    sends: BTreeMap<Ticket, (Message, Instant)>,
    relays: BTreeMap<Ticket, (usize, Attempt, usize)>,
    outcomes: Vec<(Message, Report)>,
    open: BTreeSet<(usize, Attempt)>,
    injected: BTreeMap<&'static str, u64>,
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn node_name(index: usize) -> Name {
    name(["one", "two", "three"][index])
}

fn origin(user: usize) -> Origin {
    Origin { user: name(USERS[user]), instance: 7 }
}

impl World {
    fn new(seed: u64, faults: u64) -> Self {
        let mut world = Self {
            now: START,
            seed,
            faults,
            routers: (0..NODES).map(|index| Router::new(node_name(index))).collect(),
            users: Vec::new(),
            events: BTreeMap::new(),
            count: 0,
            sends: BTreeMap::new(),
            relays: BTreeMap::new(),
            outcomes: Vec::new(),
            open: BTreeSet::new(),
            injected: BTreeMap::new(),
        };
        for at in 0..NODES {
            for other in (0..NODES).filter(|other| *other != at) {
                world.routers[at].handle(START, Input::Node(node_name(other)));
            }
        }
        for user in 0..USERS.len() {
            world.users.push(User::default());
            world.after(0, Event::Login(user));
        }
        world
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % below
    }

    /// Whether this goes wrong.
    fn fault(&mut self, what: &'static str) -> bool {
        let healed = self.now >= START.saturating_add(HEALED);
        let wrong = !healed && self.draw(1000) < self.faults;
        *self.injected.entry(what).or_default() += u64::from(wrong);
        wrong
    }

    fn after(&mut self, us: u64, event: Event) {
        self.count += 1;
        let at = self.now.saturating_add(Duration::from_micros(us));
        self.events.insert((at, self.count), event);
    }

    fn latency(&mut self) -> u64 {
        if self.fault("slow") { 50_000 + self.draw(2_000_000) } else { 20 + self.draw(200) }
    }

    fn ticket(&mut self) -> Ticket {
        self.count += 1;
        Ticket(self.count)
    }

    /// Ends an attempt, once; whoever comes later says nothing.
    fn end(&mut self, (at, attempt): (usize, Attempt), result: Result<Report, Broken>) {
        if self.open.remove(&(at, attempt)) {
            self.after(0, Event::Input(at, Input::Attempted(attempt, result, Duration::from_micros(80))));
        }
    }

    fn lose(&mut self, back: (usize, Attempt), maybe: bool) {
        let why = "the connection was lost".to_owned();
        self.end(back, Err(Broken { maybe, last: false, why }));
    }

    /// A call begins. Whether it arrives; if it ends at its deadline, that is told by then.
    fn departs(&mut self, back: (usize, Attempt), deadline: Instant) -> bool {
        self.open.insert(back);
        if self.fault("call never left") {
            self.lose(back, false);
            return false;
        }
        self.count += 1;
        let late = Broken { maybe: true, last: false, why: "no answer in time".to_owned() };
        let input = Input::Attempted(back.1, Err(late), PATIENCE);
        self.events.insert((deadline.max(self.now), self.count), Event::Input(back.0, input));
        if self.fault("call lost under way") {
            self.lose(back, true);
            return false;
        }
        true
    }

    fn perform(&mut self, at: usize) {
        while let Some(output) = self.routers[at].poll_output() {
            match output {
                Output::Deliver(attempt, session, message, deadline) => {
                    let user = USERS.iter().position(|user| *user == message.to.as_str()).unwrap();
                    if self.departs((at, attempt), deadline) {
                        let us = self.latency();
                        self.after(us, Event::Show { user, session, back: (at, attempt), message });
                    }
                }
                Output::Relay(attempt, node, message, deadline) => {
                    if self.departs((at, attempt), deadline) {
                        let to = (0..NODES).find(|index| node_name(*index) == node).unwrap();
                        let us = self.latency();
                        self.after(us, Event::Relay { at: to, back: (at, attempt), message, deadline });
                    }
                }
                Output::Ask { query, node, user } => {
                    let to = (0..NODES).find(|index| node_name(*index) == node).unwrap();
                    if self.fault("question lost") {
                        self.after(
                            10,
                            Event::Input(at, Input::Asked(query, node, Err("unreachable".to_owned()))),
                        );
                    } else {
                        let us = self.latency();
                        self.after(us, Event::Ask { at: to, back: (at, query), user });
                    }
                }
                Output::Answer(ticket, answer) => self.answered(at, ticket, answer),
            }
        }
    }

    fn answered(&mut self, at: usize, ticket: Ticket, answer: Result<Answer, Refusal>) {
        if let Some((message, deadline)) = self.sends.remove(&ticket) {
            assert!(self.now <= deadline, "answered too late");
            match answer {
                Ok(Answer::Report(report)) => self.outcomes.push((message, report)),
                Err(refusal) => panic!("{refusal}"),
                Ok(other) => panic!("{other:?}"),
            }
        } else if let Some((origin, attempt, _)) = self.relays.remove(&ticket) {
            let back = (origin, attempt);
            match answer {
                _ if self.fault("answer lost") => self.lose(back, true),
                Ok(Answer::Report(report)) => self.end(back, Ok(report)),
                Ok(other) => panic!("{other:?}"),
                Err(_) => self.lose(back, true),
            }
        } else {
            assert!(matches!(answer, Ok(Answer::LoggedIn)), "{answer:?} at {at}: a ticket is answered once");
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Input(at, input) => {
                if let Input::Attempted(attempt, ..) = &input {
                    self.open.remove(&(at, *attempt));
                }
                self.input(at, input);
            }
            Event::Login(user) => {
                if self.users[user].session.is_none() {
                    let at = usize::try_from(self.draw(NODES as u64)).unwrap();
                    let (ticket, session) = (self.ticket(), SessionId(self.count));
                    self.users[user].session = Some((at, session));
                    self.input(at, Input::Login(ticket, session, origin(user)));
                }
            }
            Event::Logout(user) => {
                if let Some((at, session)) = self.users[user].session.take() {
                    // The node may notice late; the user is elsewhere meanwhile.
                    let us = self.latency();
                    self.after(us, Event::Input(at, Input::Logout(session)));
                    let us = self.draw(400_000);
                    self.after(us, Event::Login(user));
                }
            }
            Event::Send { from, to } => {
                let Some((at, session)) = self.users[from].session else { return };
                self.users[from].sent += 1;
                let number = self.users[from].sent;
                let message = Message::new(origin(from), name(USERS[to]), number, "text").unwrap();
                let (ticket, deadline) = (self.ticket(), self.now.saturating_add(PATIENCE));
                self.sends.insert(ticket, (message.clone(), deadline));
                self.input(at, Input::Send(ticket, session, message, deadline));
            }
            Event::Relay { at, back, message, deadline } => {
                let ticket = self.ticket();
                self.relays.insert(ticket, (back.0, back.1, at));
                self.input(at, Input::Relayed(ticket, message, deadline));
            }
            Event::Ask { at, back: (origin, query), user } => {
                let has = self.routers[at].has(&user);
                let us = self.latency();
                self.after(us, Event::Input(origin, Input::Asked(query, node_name(at), Ok(has))));
            }
            Event::Show { user, session, back, message } => {
                let here = &mut self.users[user];
                if here.session != Some((back.0, session)) {
                    self.lose(back, true);
                    return;
                }
                match here.seen.standing(&message.from, &message.to, message.number) {
                    Standing::Fresh => {
                        here.seen.mark(&message.from, &message.to, message.number);
                        here.screen.push((message.from.user.clone(), message.number));
                    }
                    Standing::Delivered => *self.injected.entry("copy at the user").or_default() += 1,
                    Standing::Passed => {
                        let why = "passed".to_owned();
                        return self.end(back, Err(Broken { maybe: true, last: true, why }));
                    }
                }
                if self.fault("acknowledgement lost") {
                    self.lose(back, true);
                } else {
                    self.end(back, Ok(Report::new(true, Verdict::Delivered)));
                }
            }
        }
    }

    fn input(&mut self, at: usize, input: Input) {
        self.routers[at].handle(self.now, input);
        self.perform(at);
    }

    /// Until nothing is left to do.
    fn run(&mut self) {
        for step in 0.. {
            assert!(step < 200_000, "it never ends");
            let timer = (0..NODES).filter_map(|at| Some((self.routers[at].poll_timeout()?, at))).min();
            let event = self.events.keys().next().copied();
            match (timer, event) {
                (Some((when, at)), event) if event.is_none_or(|(first, _)| when < first) => {
                    self.now = self.now.max(when);
                    self.routers[at].handle_timeout(self.now);
                    assert!(
                        self.routers[at].poll_timeout().is_none_or(|next| next > self.now),
                        "a timer that has come is done with"
                    );
                    self.perform(at);
                }
                (_, Some(key)) => {
                    self.now = key.0;
                    let event = self.events.remove(&key).unwrap();
                    self.happen(event);
                }
                (None, None) => return,
                (Some(_), None) => unreachable!(),
            }
        }
    }

    fn check(&self) {
        assert!(self.sends.is_empty(), "every message has its outcome");
        for router in &self.routers {
            assert_eq!((router.under_way(), router.attempts.len(), router.ready.len()), (0, 0, 0));
        }
        for (user, name) in self.users.iter().zip(USERS) {
            let mut last = BTreeMap::new();
            for (sender, number) in &user.screen {
                let before = last.insert(sender, *number);
                assert!(before < Some(*number), "{name}: {sender}'s {number} after {before:?}");
            }
        }
        for (message, report) in &self.outcomes {
            let receiver = USERS.iter().position(|user| *user == message.to.as_str()).unwrap();
            let shown = self.users[receiver].screen.contains(&(message.from.user.clone(), message.number));
            match &report.verdict {
                Verdict::Delivered => assert!(shown, "{message:?} is said to be delivered: {report:?}"),
                Verdict::Unconfirmed(_) => {}
                other => assert!(!shown, "{message:?} is said not to be delivered: {other:?}"),
            }
        }
    }
}

fn play(seed: u64, faults: u64, messages: u64, moves: u64) -> World {
    let mut world = World::new(seed, faults);
    for _ in 0..messages {
        let (from, to) = (world.draw(3), world.draw(3));
        let (from, to) = (usize::try_from(from).unwrap(), usize::try_from(to).unwrap());
        let us = 1000 + world.draw(4_000_000);
        world.after(us, Event::Send { from, to });
    }
    for _ in 0..moves {
        let user = usize::try_from(world.draw(3)).unwrap();
        let us = 1000 + world.draw(4_000_000);
        world.after(us, Event::Logout(user));
    }
    world.run();
    world.check();
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever breaks: one outcome each, in time; once, in order; and what is said of a message is true.
    #[test]
    fn whatever_breaks_what_is_said_is_true(
        seed: u64, faults in 0..150_u64, messages in 1..150_u64, moves in 0..12_u64,
    ) {
        let mut world = play(seed, faults, messages, moves);
        // All is well again: whoever sends now reaches everybody.
        world.now = world.now.max(START.saturating_add(HEALED + PATIENCE + PATIENCE));
        let before = world.outcomes.len();
        for from in 0..3 {
            for to in 0..3 {
                world.after(10, Event::Send { from, to });
            }
        }
        world.run();
        world.check();
        let late = &world.outcomes[before..];
        prop_assert_eq!(late.len(), 9);
        for (message, report) in late {
            prop_assert_eq!(&report.verdict, &Verdict::Delivered, "{:?}", message);
        }
    }
}

#[test]
fn the_faults_do_happen() {
    let mut injected: BTreeMap<&str, u64> = BTreeMap::new();
    let mut verdicts: BTreeMap<u8, u64> = BTreeMap::new();
    for seed in 0..40 {
        let world = play(seed, 100, 120, 8);
        for (what, count) in world.injected {
            *injected.entry(what).or_default() += count;
        }
        for (_, report) in world.outcomes {
            let kind = match report.verdict {
                Verdict::Delivered => 0,
                Verdict::NotDelivered(_) => 1,
                Verdict::Unconfirmed(_) => 2,
                Verdict::Offline => 3,
                Verdict::Unknown(_) => 4,
            };
            *verdicts.entry(kind).or_default() += 1;
        }
    }
    assert!(injected.len() == 7 && injected.values().all(|count| *count > 10), "{injected:?}");
    assert!(verdicts.get(&0).is_some_and(|count| *count > 1000), "{verdicts:?}");
    assert!((1..=4).all(|kind| verdicts.contains_key(&kind)), "{verdicts:?}");
}

#[test]
fn the_same_seed_plays_the_same_world() {
    let (one, two) = (play(42, 100, 100, 6), play(42, 100, 100, 6));
    assert_eq!(one.outcomes, two.outcomes);
    assert_eq!(one.now, two.now);
}
