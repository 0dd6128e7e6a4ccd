//! Handles of streams, as other crates see them.
#![allow(clippy::unwrap_used)]

use std::{
    future::{Future, poll_fn},
    pin::Pin,
};

use tieline_tokio::{Client, Server};

#[tokio::test]
async fn handles_are_streams() {
    fn next<S: futures_core::Stream + Unpin>(stream: &mut S) -> impl Future<Output = Option<S::Item>> {
        poll_fn(|cx| Pin::new(&mut *stream).poll_next(cx))
    }
    let server = Server::builder("node-2")
        .server_stream("t.S/Two", |_cx, _body, mut sink| async move {
            sink.send_all(["one", "two"]).await?;
            Ok("")
        })
        .bidi("t.S/Echo", |_cx, _body, mut items, mut sink| async move {
            while let Some(item) = next(&mut items).await {
                sink.send(item?).await?;
            }
            Ok("")
        })
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    let client = Client::connect(server.address()).await.unwrap();
    let mut items = client.server_stream("t.S/Two", "").await.unwrap();
    assert_eq!(next(&mut items).await.unwrap().unwrap(), "one");
    let mut talk = client.bidi("t.S/Echo", "").await.unwrap();
    talk.send("x").await.unwrap();
    assert_eq!(next(&mut talk).await.unwrap().unwrap(), "x");
}
