//! Streams: every kind both ways, ends of each half, and what waits when one side does not keep up.

use bytes::Bytes;
use tieline::{CallError, Error, Limits, Peer, Ran, Services, Status};

use crate::{
    Adapter,
    calls::echo,
    calls::works,
    only_peer, pair, task,
    wait::{Guard, Shared, both, soon, until},
};

fn number(octets: &[u8]) -> u32 {
    u32::from_be_bytes(octets[..4].try_into().unwrap())
}

fn item(number: u32) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

/// One method of each kind.
fn services() -> Services {
    echo()
        .server_stream("s.S/Count", |_cx, body, mut sink| async move {
            let count = number(&body);
            for number in 0..count {
                sink.send(item(number)).await?;
            }
            Ok(item(count))
        })
        .server_stream("s.S/CountAll", |_cx, body, mut sink| async move {
            sink.send_all((0..number(&body)).map(item)).await?;
            Ok(body)
        })
        .client_stream("s.S/Sum", |_cx, body, mut items| async move {
            let mut sum = number(&body);
            while let Some(item) = items.next().await {
                sum = sum.wrapping_add(number(&item?));
            }
            Ok(item(sum))
        })
        .bidi("s.S/Talk", |_cx, body, mut items, mut sink| async move {
            while let Some(item) = items.next().await {
                sink.send(item?).await?;
            }
            Ok(body)
        })
}

/// Every kind once, with so many items.
async fn every_kind<A: Adapter>(peer: &Peer, count: u32) {
    for method in ["s.S/Count", "s.S/CountAll"] {
        let mut items = peer.server_stream(method, item(count)).await.unwrap();
        for expected in 0..count {
            assert_eq!(number(&items.next().await.unwrap().unwrap()), expected);
        }
        assert!(items.next().await.is_none());
        assert!(items.next().await.is_none(), "and so it stays");
        assert_eq!(items.finish().await.unwrap().payload, item(count));
    }

    let mut upload = peer.client_stream("s.S/Sum", item(1)).await.unwrap();
    for number in 0..count {
        upload.send(item(number)).await.unwrap();
    }
    upload.send_all((0..count).map(item)).await.unwrap();
    let sum = (0..count).fold(0u32, u32::wrapping_add).wrapping_mul(2).wrapping_add(1);
    assert_eq!(number(&upload.finish().await.unwrap().payload), sum);

    let mut talk = peer.bidi("s.S/Talk", "bye").await.unwrap();
    talk.send("one").await.unwrap();
    assert_eq!(talk.next().await.unwrap().unwrap(), "one", "an item goes out though no other follows");
    let (mut sink, mut items) = talk.split();
    let sender = task::spawn::<A, _>(async move {
        for number in 0..count {
            sink.send(item(number)).await.unwrap();
        }
        sink.end().unwrap();
    });
    for expected in 0..count {
        assert_eq!(number(&items.next().await.unwrap().unwrap()), expected);
    }
    sender.join().await;
    assert_eq!(items.finish().await.unwrap().payload, "bye");
}

/// None, one, and far more items than a window holds.
pub async fn every_kind_works_in_both_directions<A: Adapter>() {
    let (server, client) = pair::<A>(services(), services(), Limits::default()).await;
    let (there, here) = (client.peer().unwrap(), only_peer::<A>(&server).await);
    for count in [0, 1, 5000] {
        soon::<A, _>("every kind", both(every_kind::<A>(&there, count), every_kind::<A>(&here, count))).await;
    }
}

/// More streams than the node serves at once: the others wait for their turn.
pub async fn many_streams_keep_their_items_apart<A: Adapter>() {
    let (_server, client) = pair::<A>(services(), Services::new(), Limits::default()).await;
    let streams: Vec<_> = (0..300u32)
        .map(|stream| {
            let client = client.clone();
            task::spawn::<A, _>(async move {
                let mut talk = client.bidi("s.S/Talk", item(stream)).await.unwrap();
                for number in 0..20 {
                    talk.send(item(stream * 100 + number)).await.unwrap();
                }
                for expected in 0..20 {
                    assert_eq!(number(&talk.next().await.unwrap().unwrap()), stream * 100 + expected);
                }
                assert_eq!(talk.finish().await.unwrap().payload, item(stream));
            })
        })
        .collect();
    soon::<A, _>("all of them", task::all(streams)).await;
}

/// The caller has said all; the node goes on for as long as it likes. And the other way round.
pub async fn either_direction_ends_for_itself<A: Adapter>() {
    let services = services().bidi("s.S/After", |_cx, _body, mut items, mut sink| async move {
        let mut count = 0;
        while let Some(item) = items.next().await {
            item?;
            count += 1;
        }
        // Only now.
        sink.send_all((0..count * 100).map(item)).await?;
        Ok(item(count))
    });
    let (_server, client) = pair::<A>(services, Services::new(), Limits::default()).await;
    let (mut sink, mut items) = client.bidi("s.S/After", "").await.unwrap().split();
    for number in 0..7 {
        sink.send(item(number)).await.unwrap();
    }
    sink.end().unwrap();
    sink.end().unwrap();
    let error = sink.send("more").await.unwrap_err();
    assert_eq!(error.status(), Status::INTERRUPTED, "{error}");
    drop(sink);
    for expected in 0..700 {
        assert_eq!(number(&soon::<A, _>("an item", items.next()).await.unwrap().unwrap()), expected);
    }
    assert_eq!(soon::<A, _>("the answer", items.finish()).await.unwrap().payload, item(7));
}

/// The node answers before its caller has ended; the answer is good, and what was on its way is dropped.
pub async fn an_early_answer_ends_the_items<A: Adapter>() {
    let services = services()
        .client_stream("s.S/First", |_cx, _body, mut items| async move {
            items.next().await.unwrap().map_err(Error::from)
        })
        .bidi("s.S/Early", |_cx, _body, _items, _sink| async move { Ok("early") });
    let (_server, client) = pair::<A>(services, Services::new(), Limits::default()).await;
    for _ in 0..50 {
        let mut upload = client.client_stream("s.S/First", "").await.unwrap();
        let mut over: Option<CallError> = None;
        for number in 0..2000 {
            if let Err(error) = soon::<A, _>("room, or the end", upload.send(item(number))).await {
                over = Some(error);
                break;
            }
        }
        if let Some(error) = over {
            assert_eq!((error.status(), error.ran()), (Status::INTERRUPTED, Ran::Yes), "{error}");
        }
        assert_eq!(soon::<A, _>("the answer", upload.finish()).await.unwrap().payload, item(0));
    }
    let (mut sink, mut items) = client.bidi("s.S/Early", "").await.unwrap().split();
    assert!(soon::<A, _>("the end", items.next()).await.is_none());
    let error = sink.send("late").await.unwrap_err();
    assert_eq!(error.status(), Status::INTERRUPTED, "{error}");
    assert_eq!(soon::<A, _>("the answer", items.finish()).await.unwrap().payload, "early");
}

/// Handles of each kind, and either half of one that was split.
pub async fn dropping_a_handle_stops_its_handler<A: Adapter>() {
    let (begun, stopped) = (Shared::default(), Shared::default());
    let guard = || {
        let (begun, stopped) = (begun.clone(), stopped.clone());
        move || {
            begun.add();
            Guard(stopped.clone())
        }
    };
    let (down, up, talk) = (guard(), guard(), guard());
    let services = echo()
        .server_stream("s.S/Down", move |_cx, _body, mut sink| {
            let guard = down();
            async move {
                let _guard = guard;
                sink.send("first").await?;
                std::future::pending::<Result<&str, Error>>().await
            }
        })
        .client_stream("s.S/Up", move |_cx, _body, mut items| {
            let guard = up();
            async move {
                let _guard = guard;
                while items.next().await.is_some() {}
                std::future::pending::<Result<&str, Error>>().await
            }
        })
        .bidi("s.S/Both", move |_cx, _body, mut items, mut sink| {
            let guard = talk();
            async move {
                let _guard = guard;
                sink.send("first").await?;
                while items.next().await.is_some() {}
                std::future::pending::<Result<&str, Error>>().await
            }
        });
    let (_server, client) = pair::<A>(services, Services::new(), Limits::default()).await;
    let runs = || soon::<A, _>("it runs", begun.one());
    let stops = || soon::<A, _>("it is stopped", stopped.one());

    let items = client.server_stream("s.S/Down", "").await.unwrap();
    runs().await;
    drop(items);
    stops().await;

    let mut upload = client.client_stream("s.S/Up", "").await.unwrap();
    upload.send("x").await.unwrap();
    runs().await;
    drop(upload);
    stops().await;

    let talk = client.bidi("s.S/Both", "").await.unwrap();
    runs().await;
    drop(talk);
    stops().await;

    let (mut sink, items) = client.bidi("s.S/Both", "").await.unwrap().split();
    runs().await;
    drop(items);
    stops().await;
    let error = soon::<A, _>("the other half hears of it", async {
        loop {
            if let Err(error) = sink.send("x").await {
                return error;
            }
        }
    });
    assert_eq!(error.await.status(), Status::INTERRUPTED);

    let (sink, mut items) = client.bidi("s.S/Both", "").await.unwrap().split();
    assert_eq!(soon::<A, _>("an item", items.next()).await.unwrap().unwrap(), "first");
    runs().await;
    drop(sink);
    stops().await;
    let error = soon::<A, _>("the other half hears of it", items.next()).await.unwrap().unwrap_err();
    assert_eq!(error.status(), Status::CANCELLED, "{error}");
    assert!(items.next().await.is_none(), "an error is told once");

    let upload = client.client_stream("s.S/Up", "").await.unwrap();
    runs().await;
    task::spawn::<A, _>(upload.finish()).stop().await;
    stops().await;
    works::<A>(&client).await;
    assert_eq!(client.attempts(), 1);
}

/// As much as a stream of small items may have on its way, with default limits: what waits at the sender, a window, a
/// batch at the receiver, and what the lines between them hold.
const ON_ITS_WAY: u64 = 2 * 256 + 128 + 2 * 300;

/// A handler waits for its caller, nobody else does, and in the end the caller has everything.
pub async fn a_reader_that_stops_holds_the_handler<A: Adapter>() {
    const ITEMS: u64 = 20_000;
    let sent = Shared::default();
    let count = sent.clone();
    let services = echo().server_stream("s.S/Endless", move |_cx, _body, mut sink| {
        let count = count.clone();
        async move {
            for _ in 0..ITEMS {
                sink.send("x").await?;
                count.add();
            }
            Ok("")
        }
    });
    let (_server, client) = pair::<A>(services, Services::new(), Limits::default()).await;
    let mut items = client.server_stream("s.S/Endless", "").await.unwrap();
    items.next().await.unwrap().unwrap();
    soon::<A, _>("the handler fills what there is", sent.at_least(256)).await;
    for _ in 0..100 {
        works::<A>(&client).await;
    }
    let most = sent.count();
    assert!(most <= ON_ITS_WAY, "{most} items were sent that nobody took");
    let mut taken = 1;
    soon::<A, _>("the others", async {
        while let Some(item) = items.next().await {
            item.unwrap();
            taken += 1;
        }
    })
    .await;
    assert_eq!(taken, ITEMS);
}

/// The same in the other direction.
pub async fn a_handler_that_stops_reading_holds_its_caller<A: Adapter>() {
    const ITEMS: u32 = 20_000;
    let release: Shared<u64> = Shared::default();
    let wait = release.clone();
    let services = echo().client_stream("s.S/Late", move |_cx, _body, mut items| {
        let wait = wait.clone();
        async move {
            wait.one().await;
            let mut count = 0;
            while let Some(item) = items.next().await {
                item?;
                count += 1;
            }
            Ok(item(count))
        }
    });
    let (server, client) = pair::<A>(services, Services::new(), Limits::default()).await;
    let mut upload = client.client_stream("s.S/Late", "").await.unwrap();
    let sent: Shared<u64> = Shared::default();
    let count = sent.clone();
    let sender = task::spawn::<A, _>(async move {
        for _ in 0..ITEMS {
            upload.send("x").await.unwrap();
            count.add();
        }
        upload.finish().await.unwrap().payload
    });
    soon::<A, _>("the caller fills what there is", sent.at_least(256)).await;
    for _ in 0..100 {
        works::<A>(&client).await;
    }
    let most = sent.count();
    assert!(most <= ON_ITS_WAY, "{most} items were sent that nobody took");
    release.add();
    assert_eq!(number(&soon::<A, _>("the answer", sender.join()).await), ITEMS);
    let there = only_peer::<A>(&server).await;
    until::<A>("all of them are counted", || there.stats().items_in == u64::from(ITEMS)).await;
}
