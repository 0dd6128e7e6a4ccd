//! Handlers that fail otherwise than by an error.

use bytes::Bytes;
use tieline::{Limits, Services, Status};

use crate::{
    Adapter, Client,
    calls::echo,
    calls::works,
    pair, task,
    wait::{Shared, both, either, soon, turn},
};

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("a destructor panics, as it is to");
    }
}

/// At once, before its future is there, after an await, in its destructor: the caller is told, and that is all.
pub async fn a_handler_that_panics_harms_nobody_else<A: Adapter>() {
    let begun: Shared<u64> = Shared::default();
    let begin = begun.clone();
    let services = echo()
        .method("s.S/Now", |_cx, body: Bytes| async move {
            assert!(body.is_empty(), "it panics, as it is to");
            Ok("")
        })
        .method("s.S/Before", |_cx, body: Bytes| {
            assert!(body.is_empty(), "it panics, as it is to");
            async { Ok("") }
        })
        .method("s.S/Awaited", |_cx, body: Bytes| async move {
            turn().await;
            assert!(body.is_empty(), "it panics, as it is to");
            Ok("")
        })
        .method("s.S/Dropped", move |_cx, _body| {
            let begin = begin.clone();
            async move {
                let _guard = PanicsWhenDropped;
                begin.add();
                std::future::pending::<()>().await;
                Ok("")
            }
        });
    let mut limits = Limits::default();
    limits.max_concurrent = 20;
    let (server, client) = pair::<A>(services, Services::new(), limits).await;
    let neighbour = Client::<A>::builder("neighbour").connect(server.address()).await.unwrap();
    for _ in 0..10 {
        for method in ["s.S/Now", "s.S/Before", "s.S/Awaited"] {
            let others = both(client.call("s.S/Echo", "y"), neighbour.call("s.S/Echo", "z"));
            let (bad, (good, next)) =
                soon::<A, _>("three outcomes", both(client.call(method, "x"), others)).await;
            let error = bad.unwrap_err();
            assert_eq!(error.status(), Status::HANDLER_PANIC, "{method}");
            assert!(!error.to_string().contains("as it is to"), "no word of the panic goes out: {error}");
            assert_eq!((good.unwrap().payload, next.unwrap().payload), ("y".into(), "z".into()));
        }
        let dropped = either(client.call("s.S/Dropped", "").no_timeout(), begun.one()).await;
        assert!(dropped.is_err(), "it never ends");
    }
    // Its place is given back each time: not when the call is answered, but when its handler has stopped (R-CAN-04).
    soon::<A, _>("every place is free", async {
        loop {
            let places = (0..20).map(|_| {
                let client = client.clone();
                task::spawn::<A, _>(async move { client.call("s.S/Awaited", "").await })
            });
            let outcomes = task::all(places.collect::<Vec<_>>()).await;
            match outcomes.iter().find_map(|outcome| outcome.as_ref().err()) {
                None => break,
                Some(error) => assert_eq!(error.status(), Status::TOO_MANY_CALLS, "{error}"),
            }
        }
    })
    .await;
    works::<A>(&neighbour).await;
    assert_eq!((client.attempts(), neighbour.attempts()), (1, 1), "the connections lived through all of it");
}
