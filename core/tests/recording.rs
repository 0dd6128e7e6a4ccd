//! Recordings: over random runs of two connections a replay is the same, whatever is cut and whatever is lost.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod support;

use support::{
    frames,
    hostile::{self, all_kinds},
    pair,
    raw::{MS, Raw, config, secs},
};
use tieline_core::{
    conn::{Body, CallHead, Config, Event, Reply, Side},
    record::{Record, Recording, RecordingError, Verdict},
    wire::{CheckIn, CheckInAck, Ran, Request, Status},
};

/// Through a file and back, and done again: the verdict, and what was told.
fn replay(recording: &Recording) -> (Verdict, String) {
    let octets = recording.to_octets();
    let read = Recording::parse(&octets).unwrap();
    assert_eq!(read.to_octets(), octets, "a file that is read and written is the same");
    let mut told = String::new();
    let verdict = read.replay(&mut told).unwrap();
    (verdict, told)
}

/// The last lines before the first difference.
fn about(told: &str) -> String {
    let lines: Vec<&str> = told.lines().collect();
    let at = lines.iter().position(|line| line.contains("DIFFERS")).unwrap_or(lines.len() - 1);
    lines[at.saturating_sub(30)..(at + 3).min(lines.len())].join("\n")
}

/// Recording is invisible (so says the trace of the run), and what is recorded does itself again: in every verb, with every
/// fault, whether payloads are kept, cut or left out.
#[test]
fn a_recorded_run_is_the_same_run_and_replays_octet_for_octet() {
    let (mut steps, mut folds) = (0, 0);
    for seed in 0..400 {
        let payload = [usize::MAX, 64, 0, 1000][seed as usize % 4];
        let record = Record::new().octets(1 << 30).payload(payload);
        let (run, recordings) = pair::recorded(seed, record);
        assert_eq!(run.trace, pair::run(seed, false).trace, "seed {seed}: recording changes what happens");
        for recording in recordings {
            assert!(recording.is_complete());
            let (verdict, told) = replay(&recording);
            assert!(verdict.is_same(), "seed {seed}, payload {payload}: {verdict}\n{}", about(&told));
            assert_eq!(verdict.same, verdict.steps);
            steps += verdict.steps;
            folds += told.matches("-> Ready, folded up").count();
        }
    }
    assert!(steps > 1_000_000 && folds > 50, "{steps} steps, {folds} folds: too few to say anything");
}

/// A peer that does anything: what is cut of it, and what is masked of a check-in that is none, makes no difference.
#[test]
fn what_a_hostile_peer_does_replays_octet_for_octet() {
    let mut ends = 0;
    for seed in 0..1_000 {
        let payload = [usize::MAX, 64, 0][seed as usize % 3];
        let recording = hostile::recorded(seed, Record::new().octets(1 << 30).payload(payload));
        let (verdict, told) = replay(&recording);
        assert!(verdict.is_same(), "seed {seed}, payload {payload}: {verdict}\n{}", about(&told));
        ends += usize::from(told.contains("it is over, closed by this side: PROTOCOL_ERROR"));
    }
    assert!(ends > 100, "only {ends} runs ended by a mistake");
}

/// The ring is full: the beginning and the end are there, the gap is said, and the frames behind it are read from where one
/// begins.
#[test]
fn a_ring_that_is_full_says_what_is_missing() {
    let (mut gaps, mut frames) = (0, 0);
    for seed in 0..100 {
        let (_, recordings) = pair::recorded(seed, Record::new().octets(16 << 10).payload(16));
        for recording in recordings {
            let (verdict, told) = replay(&recording);
            assert_eq!(verdict.differs, None, "seed {seed}: {}", about(&told));
            assert!(
                !told.contains("no frame that is allowed"),
                "seed {seed}: frames are read from the middle"
            );
            assert_eq!(verdict.lost > 0, !verdict.is_same());
            let Some((before, after)) = told.split_once(" entries, of ") else { continue };
            assert!(before.contains("CHECK_IN"), "the beginning is kept: {before}");
            let (gap, rest) = after.split_once('\n').unwrap();
            assert!(gap.contains("are missing here"), "{gap}");
            assert!(rest.starts_with("-- ") && rest.contains("it stood in state "), "{rest}");
            assert!(!recording.is_complete() && recording.to_octets().len() < 100 << 10);
            gaps += 1;
            frames += rest.lines().filter(|line| line.contains(" -> ") || line.contains(" <- ")).count();
        }
    }
    assert!(gaps > 50 && frames > 1_000, "{gaps} gaps and {frames} frames are too few to say anything");
}

/// Neither at the client that shows it nor at the server that it is shown to, in whatever pieces it comes.
#[test]
fn a_credential_is_in_no_recording() {
    const SECRET: &[u8] = b"open sesame";
    let absent = |recording: &Recording| {
        let octets = recording.to_octets();
        assert!(!octets.windows(4).any(|four| SECRET.windows(4).any(|secret| four == secret)));
        let (verdict, told) = replay(recording);
        assert!(verdict.is_same(), "{told}");
        assert!(told.contains("a credential of 11 octets, which is not recorded"), "{told}");
    };
    let client = Raw::client_for(
        config().credential(SECRET).record(Record::new().payload(usize::MAX)),
        CheckInAck { identifier: "peer", max_concurrent: 100, ..CheckInAck::default() },
    );
    absent(&client.conn.recording().unwrap());
    let said = CheckIn { identifier: "peer", credential: SECRET, max_concurrent: 1, ..CheckIn::default() };
    for piece in [1, 7, 1000] {
        let config = config().verify(true).record(Record::new().payload(usize::MAX)).build().unwrap();
        let mut server = Raw::new(config, Side::Server);
        for octets in frames::check_in(said).chunks(piece) {
            server.feed(octets);
            for event in server.events() {
                let Event::CheckIn(check_in) = event else { panic!("{event:?}") };
                assert_eq!(&check_in.credential[..], SECRET, "the application still sees it");
            }
        }
        server.conn.accept_check_in(server.at());
        server.frames();
        absent(&server.conn.recording().unwrap());
    }
}

/// Folding up is in a recording, where it happens, and happens where it would have otherwise.
#[test]
fn an_idle_connection_folds_itself_up_and_so_does_its_replay() {
    let [mut raw, mut other] = [config().record(Record::new()), config()].map(Raw::server);
    for round in 0..3 {
        for raw in [&mut raw, &mut other] {
            assert!(raw.live(secs(60)).is_empty());
            raw.is_quiet();
            assert!(raw.conn.is_folded(), "round {round}");
            // What does nothing does not unfold it.
            raw.is_quiet();
            assert!(raw.conn.is_folded(), "round {round}");
        }
        let [call, same] = [&mut raw, &mut other].map(|raw| raw.call(round));
        assert_eq!(call, same, "calls have the same names whether it is recorded or not");
        let [frames, same] = [&mut raw, &mut other].map(Raw::frames);
        assert_eq!(frames[0].octets, same[0].octets);
        for raw in [&mut raw, &mut other] {
            raw.feed(&frames::response(frames[0].id(), Status::OK, b"back"));
            assert_eq!(raw.outcomes(), [(round, Ok("back".into()))]);
        }
    }
    let (verdict, told) = replay(&raw.conn.recording().unwrap());
    assert!(verdict.is_same(), "{verdict}\n{}", about(&told));
    assert!(told.matches("state: Ready -> Ready, folded up").count() >= 3, "{told}");
    assert_eq!(raw.conn.stats(), other.conn.stats());
    // It can also be asked while it is folded up.
    raw.live(secs(60));
    raw.is_quiet();
    assert!(raw.conn.is_folded());
    let (verdict, told) = replay(&raw.conn.recording().unwrap());
    assert!(verdict.is_same(), "{verdict}\n{}", about(&told));
}

/// An outbox has a mark for large messages that nothing small goes beside.
#[test]
fn what_goes_out_in_bulk_replays() {
    let mut raw = Raw::client(config().record(Record::new()));
    raw.now += 200 * MS;
    let at = raw.at();
    raw.conn.call(at, &CallHead::new("t.S/Echo"), Body::Copy(&[1; 500_000]), 1).unwrap();
    raw.frames();
    let (verdict, told) = replay(&raw.conn.recording().unwrap());
    assert!(verdict.is_same(), "{verdict}\n{}", about(&told));
    assert!(told.contains("octets, where there was room for 65536, or 262144 of large messages"), "{told}");
}

/// What this side offers at check-in follows from its configuration.
#[test]
fn snappy_that_was_not_offered_is_not_offered_in_a_replay() {
    let mut commits = Vec::new();
    for snappy in [true, false] {
        let raw = Raw::client(config().snappy(snappy).record(Record::new()));
        let (verdict, told) = replay(&raw.conn.recording().unwrap());
        assert!(verdict.is_same(), "{verdict}\n{}", about(&told));
        commits.push(told.lines().find(|line| line.contains("commit: ")).unwrap().to_owned());
    }
    assert_eq!(commits[0] == commits[1], !cfg!(feature = "snappy"), "{commits:?}");
}

#[test]
fn whether_a_call_that_was_given_up_has_run_is_recorded() {
    let mut raw = Raw::client(config().record(Record::new()));
    let (withdrawn, sent) = (raw.call(1), raw.call(2));
    assert_eq!(raw.conn.cancel_and_tell(raw.at(), withdrawn), Some((1, Ran::No)));
    raw.frames();
    assert_eq!(raw.conn.cancel_and_tell(raw.at(), sent), Some((2, Ran::Maybe)));
    assert_eq!(raw.conn.cancel(raw.at(), sent), None);
    let (verdict, told) = replay(&raw.conn.recording().unwrap());
    assert!(verdict.is_same(), "{told}");
    for what in ["which has not run", "which may have run", "whose outcome was fetched before"] {
        assert!(
            told.lines().any(|line| line.contains("cancel call ") && line.contains(what)),
            "{what}: {told}"
        );
    }
}

#[test]
fn a_mistake_is_told_with_the_frame_that_made_it() {
    let mut server = Raw::server(config().record(Record::new()));
    let request = frames::request(2, Request { method: 1, ..Request::default() }, b"\x1b[31mred");
    server.feed(&request);
    server.events();
    let (verdict, told) = replay(&server.conn.recording().unwrap());
    assert!(verdict.is_same(), "{told}");
    for line in [
        "the server's side of a connection",
        "-> CHECK_IN of \"peer\"",
        "state: AwaitCheckIn -> Acking",
        "<- TABLE of 1 methods, 1 is t.S/Echo",
        "-> REQUEST id 2 of method id 1, 8 octets \"\\u{1b}[31mred\"",
        "state: Ready -> Closing",
        "event: it is over, closed by this side: PROTOCOL_ERROR",
    ] {
        assert!(told.contains(line), "{line} is not told:\n{told}");
    }
    assert!(!told.contains('\x1b'));
}

#[test]
fn only_who_asks_for_it_records_and_within_bounds() {
    assert!(Raw::server(config()).conn.recording().is_none());
    for octets in [0, 16 << 10, (16 << 10) - 1, 1 << 30, (1 << 30) + 1] {
        let built = Config::builder("a").record(Record::new().octets(octets)).build();
        assert_eq!(built.is_ok(), (16 << 10..=1 << 30).contains(&octets));
    }
}

/// However long it lives, a connection holds no more than it was told, and an eighth of that.
#[test]
fn what_is_held_is_bounded() {
    let most = 64 << 10;
    let mut server = Raw::server(all_kinds().record(Record::new().octets(most).payload(100)));
    for id in 0..20_000_u64 {
        server.feed(&frames::request(2 * id + 3, Request { method: 1, ..Request::default() }, &[7; 1000]));
        for event in server.events() {
            if let Event::Request(call) = event {
                server.conn.reply(server.at(), call.call, &Reply::ok(Body::Copy(&[8; 1000]))).unwrap();
            }
        }
        server.frames();
    }
    let recording = server.conn.recording().unwrap();
    let octets = recording.to_octets().len();
    // Besides the ring there is the beginning: check-in.
    assert!((most / 2..most + (most >> 3) + 4096).contains(&octets), "{octets}");
    assert!(replay(&recording).1.contains("REQUEST id 40001"), "the last call is there");
}

#[test]
fn what_is_no_recording_is_refused_with_the_place() {
    let octets = Raw::server(config().record(Record::new()))
        .conn
        .recording()
        .unwrap()
        .note("why", "a test")
        .to_octets();
    let refused = |octets: &[u8]| Recording::parse(octets).unwrap_err().to_string();
    assert_eq!(Recording::parse(b"").unwrap_err(), RecordingError::Foreign);
    assert!(refused(b"{\"json\": 1}").contains("no recording"));
    let mut other = octets.clone();
    other[8] = 9;
    assert_eq!(Recording::parse(&other).unwrap_err(), RecordingError::Version(9));
    let half = refused(&octets[..octets.len() / 2]);
    assert!(
        half.starts_with("the recording is damaged in ") && half.contains("it ends in the middle"),
        "{half}"
    );
    let mut longer = octets.clone();
    longer.push(0);
    assert!(refused(&longer).contains("more octets follow the end"));
    for at in 0..octets.len() {
        let mut changed = octets.clone();
        changed[at] ^= 0x10;
        assert!(Recording::parse(&changed).is_err(), "octet {at} was changed and nobody saw it");
        let cut = refused(&octets[..at]);
        assert!(!cut.is_empty());
    }
}
