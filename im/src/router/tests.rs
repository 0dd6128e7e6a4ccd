#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;

const START: Instant = Instant::from_nanos(1);
const TOOK: Duration = Duration::from_micros(84);

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn alice() -> Origin {
    Origin { user: name("alice"), instance: 1 }
}

fn bob() -> Origin {
    Origin { user: name("bob"), instance: 2 }
}

fn message(number: u64) -> Message {
    Message::new(alice(), name("bob"), number, &format!("text {number}")).unwrap()
}

fn after(ms: u64) -> Instant {
    START.saturating_add(Duration::from_millis(ms))
}

/// Node one, with alice logged in over session 1.
struct Node {
    router: Router,
    tickets: u64,
}

impl Node {
    fn new(peers: &[&str]) -> Self {
        let mut node = Self { router: Router::new(name("one")), tickets: 0 };
        peers.iter().for_each(|peer| node.input(Input::Node(name(peer))));
        node.input(Input::Login(Ticket(900), SessionId(1), alice()));
        assert!(matches!(node.router.poll_output(), Some(Output::Answer(Ticket(900), Ok(Answer::LoggedIn)))));
        node
    }

    fn input(&mut self, input: Input) {
        self.router.handle(START, input);
    }

    fn login_bob(&mut self, session: u64) {
        self.input(Input::Login(Ticket(901), SessionId(session), bob()));
        let Some(Output::Answer(_, Ok(Answer::LoggedIn))) = self.router.poll_output() else { panic!() };
    }

    /// Alice sends; the deadline is a second away.
    fn send(&mut self, number: u64) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.input(Input::Send(ticket, SessionId(1), message(number), after(1000)));
        ticket
    }

    fn deliver(&mut self) -> (Attempt, SessionId, u64) {
        match self.router.poll_output() {
            Some(Output::Deliver(attempt, session, message, _)) => (attempt, session, message.number),
            other => panic!("{other:?}"),
        }
    }

    fn relay(&mut self) -> (Attempt, Name, u64) {
        match self.router.poll_output() {
            Some(Output::Relay(attempt, node, message, _)) => (attempt, node, message.number),
            other => panic!("{other:?}"),
        }
    }

    fn ask(&mut self) -> (Query, Name) {
        match self.router.poll_output() {
            Some(Output::Ask { query, node, user }) => {
                assert_eq!(user, name("bob"));
                (query, node)
            }
            other => panic!("{other:?}"),
        }
    }

    fn report(&mut self, ticket: Ticket) -> Report {
        match self.router.poll_output() {
            Some(Output::Answer(to, Ok(Answer::Report(report)))) if to == ticket => report,
            other => panic!("{other:?}"),
        }
    }

    fn refusal(&mut self, ticket: Ticket) -> Refusal {
        match self.router.poll_output() {
            Some(Output::Answer(to, Err(refusal))) if to == ticket => refusal,
            other => panic!("{other:?}"),
        }
    }

    fn quiet(&mut self) {
        let output = self.router.poll_output();
        assert!(output.is_none(), "{output:?}");
    }

    /// Bob is found at node two, and the message goes there.
    fn send_to_two(&mut self, number: u64) -> (Ticket, Attempt) {
        let ticket = self.send(number);
        let (query, node) = self.ask();
        self.input(Input::Asked(query, node, Ok(true)));
        (ticket, self.relay().0)
    }
}

fn delivered() -> Result<Report, Broken> {
    Ok(Report::new(true, Verdict::Delivered))
}

fn broken(maybe: bool) -> Result<Report, Broken> {
    Err(Broken { maybe, last: false, why: "node two cannot be reached".to_owned() })
}

#[test]
fn two_users_of_one_node() {
    let mut node = Node::new(&[]);
    node.login_bob(2);
    let ticket = node.send(1);
    let (attempt, session, number) = node.deliver();
    assert_eq!((session, number), (SessionId(2), 1));
    node.quiet();
    node.input(Input::Attempted(attempt, delivered(), TOOK));
    assert_eq!(node.report(ticket), Report::new(true, Verdict::Delivered));
    assert_eq!((node.router.under_way(), node.router.poll_timeout()), (0, None));
}

#[test]
fn a_user_of_another_node_is_asked_for_once_and_then_known() {
    let mut node = Node::new(&["two"]);
    let (ticket, attempt) = node.send_to_two(1);
    node.input(Input::Attempted(attempt, delivered(), TOOK));
    let report = node.report(ticket);
    assert_eq!((report.verdict, report.via, report.hop_us), (Verdict::Delivered, Some(name("two")), 84));
    node.send(2);
    assert_eq!(node.relay().1, name("two"));
}

#[test]
fn one_flight_at_a_time_in_a_conversation() {
    let mut node = Node::new(&[]);
    node.login_bob(2);
    let tickets = [1, 2, 3].map(|number| node.send(number));
    for (ticket, number) in tickets.into_iter().zip(1..) {
        let (attempt, _, sent) = node.deliver();
        assert_eq!(sent, number);
        node.quiet();
        node.input(Input::Attempted(attempt, delivered(), TOOK));
        assert_eq!(node.report(ticket).verdict, Verdict::Delivered);
    }
    // Another receiver does not wait.
    node.send(4);
    node.deliver();
    let to_herself = Message::new(alice(), name("alice"), 5, "note").unwrap();
    node.input(Input::Send(Ticket(50), SessionId(1), to_herself, after(1000)));
    assert_eq!(node.deliver().1, SessionId(1));
}

#[test]
fn offline_and_unknown_are_told_apart_and_not_accepted() {
    let mut node = Node::new(&["two"]);
    let ticket = node.send(1);
    let (query, two) = node.ask();
    node.input(Input::Asked(query, two.clone(), Ok(false)));
    assert_eq!(node.report(ticket), Report::new(false, Verdict::Offline));
    let ticket = node.send(2);
    let (query, _) = node.ask();
    node.input(Input::Asked(query, two, Err("node two is down".to_owned())));
    assert_eq!(node.report(ticket), Report::new(false, Verdict::Unknown("node two is down".to_owned())));
}

#[test]
fn a_user_who_has_moved_is_looked_for_again_at_once() {
    let mut node = Node::new(&["two"]);
    let (_, attempt) = node.send_to_two(1);
    node.input(Input::Attempted(attempt, delivered(), TOOK));
    node.router.poll_output();
    let ticket = node.send(2);
    let (attempt, ..) = node.relay();
    node.input(Input::Attempted(attempt, Ok(Report::new(false, Verdict::Offline)), TOOK));
    let (query, two) = node.ask();
    node.input(Input::Asked(query, two, Ok(false)));
    assert_eq!(node.report(ticket).verdict, Verdict::Offline);
}

#[test]
fn a_broken_route_is_tried_again_until_the_deadline() {
    for maybe in [false, true] {
        let mut node = Node::new(&["two"]);
        let (ticket, attempt) = node.send_to_two(1);
        node.input(Input::Attempted(attempt, broken(maybe), TOOK));
        node.quiet();
        node.router.handle_timeout(after(50));
        node.quiet();
        node.router.handle_timeout(after(100));
        let (query, two) = node.ask();
        node.input(Input::Asked(query, two, Err("still down".to_owned())));
        node.quiet();
        node.router.handle_timeout(after(1000));
        let report = node.report(ticket);
        let why = "node two cannot be reached".to_owned();
        let verdict = if maybe { Verdict::Unconfirmed(why) } else { Verdict::NotDelivered(why) };
        assert_eq!((report.verdict, report.accepted, report.via), (verdict, true, Some(name("two"))));
        assert_eq!(node.router.under_way(), 0);
    }
}

#[test]
fn a_node_that_comes_back_in_time_is_not_waited_for() {
    let mut node = Node::new(&["two"]);
    let (ticket, attempt) = node.send_to_two(1);
    node.input(Input::Attempted(attempt, broken(true), TOOK));
    node.input(Input::Node(name("two")));
    let (query, two) = node.ask();
    node.input(Input::Asked(query, two, Ok(true)));
    let (attempt, _, number) = node.relay();
    assert_eq!(number, 1);
    node.input(Input::Attempted(attempt, delivered(), TOOK));
    assert_eq!(node.report(ticket).verdict, Verdict::Delivered);
    node.router.handle_timeout(after(5000));
    node.quiet();
}

#[test]
fn a_receiver_who_comes_back_gets_the_message_over_the_new_connection() {
    let mut node = Node::new(&[]);
    node.login_bob(2);
    let ticket = node.send(1);
    let (first, ..) = node.deliver();
    // The old connection hangs; bob's process is here again already.
    node.login_bob(3);
    let (second, session, _) = node.deliver();
    assert_eq!(session, SessionId(3));
    node.input(Input::Logout(SessionId(2)));
    node.input(Input::Attempted(first, broken(true), TOOK));
    node.quiet();
    node.input(Input::Attempted(second, delivered(), TOOK));
    assert_eq!(node.report(ticket).verdict, Verdict::Delivered);
}

#[test]
fn a_copy_is_acknowledged_and_not_delivered_again() {
    let mut node = Node::new(&[]);
    node.login_bob(2);
    node.input(Input::Relayed(Ticket(10), message(1), after(1000)));
    let (attempt, ..) = node.deliver();
    // The other node lost its connection and asks again while the message is with bob …
    node.input(Input::Relayed(Ticket(11), message(1), after(1000)));
    assert_eq!(node.refusal(Ticket(10)), Refusal::SentAgain);
    node.quiet();
    node.input(Input::Attempted(attempt, delivered(), TOOK));
    assert_eq!(node.report(Ticket(11)).verdict, Verdict::Delivered);
    // … and again when it is over.
    node.input(Input::Relayed(Ticket(12), message(1), after(1000)));
    assert_eq!(node.report(Ticket(12)).verdict, Verdict::Delivered);
    node.quiet();
}

#[test]
fn an_acknowledgement_after_the_deadline_still_keeps_copies_away() {
    let mut node = Node::new(&[]);
    node.login_bob(2);
    let ticket = node.send(1);
    let (attempt, ..) = node.deliver();
    node.router.handle_timeout(after(1000));
    let verdict = node.report(ticket).verdict;
    assert_eq!(verdict, Verdict::Unconfirmed("bob has not acknowledged in time".to_owned()));
    node.input(Input::Attempted(attempt, delivered(), TOOK));
    node.quiet();
    let ticket = node.send(1);
    assert_eq!(node.report(ticket).verdict, Verdict::Delivered);
}

#[test]
fn a_relayed_message_goes_no_further() {
    let mut node = Node::new(&["two", "three"]);
    node.input(Input::Relayed(Ticket(10), message(1), after(1000)));
    assert_eq!(node.report(Ticket(10)).verdict, Verdict::Offline);
    node.quiet();
}

#[test]
fn who_is_not_logged_in_sends_nothing() {
    let mut node = Node::new(&[]);
    node.input(Input::Send(Ticket(10), SessionId(9), message(1), after(1000)));
    assert_eq!(node.refusal(Ticket(10)), Refusal::NotLoggedIn);
    let of_bob = Message::new(bob(), name("alice"), 1, "forged").unwrap();
    node.input(Input::Send(Ticket(11), SessionId(1), of_bob, after(1000)));
    assert_eq!(node.refusal(Ticket(11)), Refusal::NotYou);
}

#[test]
fn a_conversation_has_room_for_1024() {
    let mut node = Node::new(&[]);
    node.login_bob(2);
    for number in 1..=1024 {
        node.send(number);
    }
    node.deliver();
    let ticket = node.send(1025);
    assert_eq!(node.refusal(ticket), Refusal::Full);
}

#[test]
fn a_node_that_stops_takes_nothing_and_waits_for_what_is_with_somebody() {
    let mut node = Node::new(&[]);
    node.login_bob(2);
    let (first, second) = (node.send(1), node.send(2));
    let (attempt, ..) = node.deliver();
    node.input(Input::Stop);
    let report = node.report(second);
    assert_eq!(report, Report::new(false, Verdict::NotDelivered("the node is stopping".to_owned())));
    let third = node.send(3);
    assert_eq!(node.refusal(third), Refusal::Stopping);
    node.input(Input::Attempted(attempt, delivered(), TOOK));
    assert_eq!(node.report(first).verdict, Verdict::Delivered);
    node.quiet();
    assert_eq!(node.router.under_way(), 0);
}

#[test]
fn where_is_answered_from_here_or_by_the_others() {
    let mut node = Node::new(&["two"]);
    node.input(Input::Where(Ticket(10), name("alice")));
    let here = |node: &str| Ok(Answer::Place(Place::Here(name(node))));
    assert!(matches!(node.router.poll_output(), Some(Output::Answer(Ticket(10), got)) if got == here("one")));
    node.input(Input::Where(Ticket(11), name("bob")));
    let (query, two) = node.ask();
    node.input(Input::Asked(query, two, Ok(true)));
    assert!(matches!(node.router.poll_output(), Some(Output::Answer(Ticket(11), got)) if got == here("two")));
}

#[test]
fn what_may_have_arrived_once_is_never_said_to_be_lost() {
    // Over the old connection of a receiver who came again …
    let mut node = Node::new(&[]);
    node.login_bob(2);
    let ticket = node.send(1);
    node.deliver();
    node.login_bob(3);
    let (second, ..) = node.deliver();
    node.input(Input::Attempted(second, broken(false), TOOK));
    node.router.handle_timeout(after(1000));
    assert!(matches!(node.report(ticket).verdict, Verdict::Unconfirmed(_)));

    // … or to a node whose answer was lost, whatever another answers later.
    let mut node = Node::new(&["two"]);
    let (ticket, attempt) = node.send_to_two(1);
    node.input(Input::Attempted(attempt, broken(true), TOOK));
    node.input(Input::Node(name("two")));
    let (query, two) = node.ask();
    node.input(Input::Asked(query, two, Ok(true)));
    let (attempt, ..) = node.relay();
    let lost = Report::new(true, Verdict::NotDelivered("bob has gone".to_owned()));
    node.input(Input::Attempted(attempt, Ok(lost), TOOK));
    assert_eq!(node.report(ticket).verdict, Verdict::Unconfirmed("bob has gone".to_owned()));
}
