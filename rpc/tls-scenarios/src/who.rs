//! Who is who, and who is nobody.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tieline::{
    ClientTls, ConnectError, Identity, ServerBuilder, ServerTls, Status, TlsError, by_certificate,
};

use crate::{
    ADDRESS, Adapter, Client, Server,
    certificates::Authority,
    line::Line,
    node, to_node,
    wait::{MS, soon, until},
};

/// A node that requires certificates of its clients, and tells them for whom theirs is.
fn strict<A: Adapter>(authority: &Authority) -> ServerBuilder<A::Runtime> {
    let tls = ServerTls::new(&authority.identity("node-2")).require_client(&authority.authorities());
    Server::<A>::builder("node-2").tls(tls).method("t.T/Echo", |_cx, body| async move { Ok(body) }).method(
        "t.T/WhoAmI",
        |cx, body| async move {
            let name = std::str::from_utf8(&body).unwrap_or_default();
            let known = cx.peer().certificate().is_some_and(|certificate| certificate.is_for(name));
            Ok(if known { "yes" } else { "no" })
        },
    )
}

/// How a client without luck ends.
async fn failure<A: Adapter>(tls: ClientTls, address: &str) -> (TlsError, String) {
    let client = Client::<A>::builder("node-1").tls(tls).connect(address);
    let error = soon::<A, _>("an error", client).await.map(drop).unwrap_err();
    let message = error.to_string();
    assert!(message.contains(address), "where: {message}");
    match error {
        ConnectError::Tls { source, .. } => (source, message),
        other => panic!("{other:?}"),
    }
}

/// The node still serves those whom it accepts.
async fn serves<A: Adapter>(server: &tieline::Server<A::Runtime>, tls: ClientTls) {
    let client = Client::<A>::builder("node-1").tls(tls).connect(server.address());
    let client = soon::<A, _>("check-in", client).await.unwrap();
    assert_eq!(soon::<A, _>("an echo", client.call("t.T/Echo", "x")).await.unwrap().payload, "x");
}

/// With certificates at both ends both know whom they talk to, handlers too.
pub async fn each_end_knows_whom_it_talks_to<A: Adapter>() {
    let authority = Authority::new();
    let server = strict::<A>(&authority).listen(ADDRESS).await.unwrap();
    let tls = to_node(&authority).identity(&authority.identity("node-1"));
    let client = Client::<A>::builder("node-1").tls(tls).connect(server.address()).await.unwrap();
    let peer = client.peer().unwrap();
    let shown = peer.certificate().unwrap();
    assert!(shown.is_for("node-2") && !shown.is_for("node-1") && !shown.is_for("not a name"));
    for (name, known) in [("node-1", "yes"), ("node-2", "no")] {
        assert_eq!(soon::<A, _>("an answer", client.call("t.T/WhoAmI", name)).await.unwrap().payload, known);
    }
    // A node that asks for none knows none.
    let open = node::<A>(&authority).listen(ADDRESS).await.unwrap();
    let tls = to_node(&authority).identity(&authority.identity("node-1"));
    let _client = Client::<A>::builder("node-1").tls(tls).connect(open.address()).await.unwrap();
    until::<A>("it is there", || !open.peers().is_empty()).await;
    assert!(open.peers().remove(0).certificate().is_none());
}

/// The second connection of a client takes up the first one's session, and is not less known for it.
pub async fn a_client_that_comes_back_is_still_known<A: Adapter>() {
    let authority = Authority::new();
    let server = strict::<A>(&authority).listen(ADDRESS).await.unwrap();
    let line = Line::to(server.address());
    let tls = to_node(&authority).identity(&authority.identity("node-1"));
    let client = Client::<A>::builder("node-1").tls(tls).backoff(MS).connect(line.address()).await.unwrap();
    for round in 0..3 {
        let peer = client.peer().unwrap();
        let answer = soon::<A, _>("an answer", client.call("t.T/WhoAmI", "node-1")).await.unwrap();
        assert_eq!(answer.payload, "yes", "round {round}");
        assert!(peer.certificate().unwrap().is_for("node-2"));
        line.cut();
        soon::<A, _>("the end", peer.closed()).await;
        soon::<A, _>("another connection", async {
            while client.ready().await.unwrap().is_same(&peer) {
                crate::wait::pass::<A>(MS).await;
            }
        })
        .await;
    }
}

/// The verifier that is at hand lets nobody take another one's identifier.
pub async fn an_identifier_belongs_to_whom_the_certificate_says<A: Adapter>() {
    let authority = Authority::new();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let server = strict::<A>(&authority)
        .verify(move |check_in| {
            count.fetch_add(1, Ordering::SeqCst);
            assert!(check_in.address.starts_with("127.0.0.1:"), "{check_in:?}");
            by_certificate(check_in)
        })
        .listen(ADDRESS)
        .await
        .unwrap();
    let identity = authority.identity("node-1");
    let dial = async |identifier: &str| {
        let client = Client::<A>::builder(identifier).tls(to_node(&authority).identity(&identity));
        soon::<A, _>("an answer", client.connect(server.address())).await
    };
    assert_eq!(dial("node-1").await.unwrap().call("t.T/Echo", "x").await.unwrap().payload, "x");
    let refused = [
        ("node-9", "another identifier"),
        ("two/words", "another identifier"),
        ("NODE-1", "spelled otherwise"),
        ("node-1.", "spelled otherwise"),
    ];
    for (identifier, why) in refused {
        match dial(identifier).await.map(drop).unwrap_err() {
            ConnectError::CheckIn { closed, .. } => {
                assert_eq!(closed.status, Status::CHECK_IN_REFUSED, "{closed}");
                assert!(closed.message.contains(why), "{closed}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(asked.load(Ordering::SeqCst), 5);
}

/// Whoever shows nothing where something is required.
pub async fn a_client_without_a_certificate_is_refused<A: Adapter>() {
    let authority = Authority::new();
    let server = strict::<A>(&authority).listen(ADDRESS).await.unwrap();
    let (error, message) = failure::<A>(to_node(&authority), server.address()).await;
    assert_eq!(error, TlsError::CertificateRequired);
    assert!(message.contains("give ClientTls an identity"), "what to do: {message}");
    assert!(server.peers().is_empty());
    serves::<A>(&server, to_node(&authority).identity(&authority.identity("node-1"))).await;
}

async fn refused<A: Adapter>(
    authority: impl FnOnce() -> Authority,
    identity: impl FnOnce(&Authority) -> Identity,
    alert: &str,
) {
    let authority = authority();
    let server = strict::<A>(&authority).listen(ADDRESS).await.unwrap();
    let tls = to_node(&authority).identity(&identity(&authority));
    let (error, message) = failure::<A>(tls, server.address()).await;
    assert_eq!(error, TlsError::Refused(alert.to_owned()));
    assert!(message.contains("the certificate of this end"), "{message}");
    assert!(server.peers().is_empty());
    serves::<A>(&server, to_node(&authority).identity(&authority.identity("node-1"))).await;
}

/// Whoever shows a certificate that somebody else has signed.
pub async fn a_client_of_another_authority_is_refused<A: Adapter>() {
    refused::<A>(Authority::new, |_| Authority::new().identity("node-1"), "UnknownCA").await;
    // One that only calls itself as the right one does.
    let named = || Authority::named("the authority");
    refused::<A>(named, |_| named().identity("node-1"), "DecryptError").await;
}

/// Whoever shows one that was valid once.
pub async fn a_client_whose_certificate_has_expired_is_refused<A: Adapter>() {
    refused::<A>(Authority::new, |authority| authority.expired("node-1"), "CertificateExpired").await;
}

/// A node by another name may be another node.
pub async fn a_node_of_another_name_is_not_spoken_to<A: Adapter>() {
    let authority = Authority::new();
    let server = node::<A>(&authority).listen(ADDRESS).await.unwrap();
    let tls = ClientTls::new(&authority.authorities());
    let (error, message) = failure::<A>(tls.clone().server_name("node-3"), server.address()).await;
    let presented = vec!["node-2".to_owned()];
    assert_eq!(error, TlsError::Name { wanted: "node-3".to_owned(), presented: presented.clone() });
    assert!(message.contains("its certificate is for node-2, not for node-3"), "{message}");
    // By default it is the host that is dialled.
    let (error, _) = failure::<A>(tls.clone(), server.address()).await;
    assert_eq!(error, TlsError::Name { wanted: "127.0.0.1".to_owned(), presented });
    assert!(server.peers().is_empty());
    let by_number = Server::<A>::builder("node-2")
        .tls(ServerTls::new(&authority.identity("127.0.0.1")))
        .method("t.T/Echo", |_cx, body| async move { Ok(body) });
    serves::<A>(&by_number.listen(ADDRESS).await.unwrap(), tls).await;
}

/// A node that anybody could have made.
pub async fn a_node_of_another_authority_is_not_spoken_to<A: Adapter>() {
    let named = || Authority::named("the authority");
    for (authority, other) in [(Authority::new(), Authority::new()), (named(), named())] {
        let server = node::<A>(&other).listen(ADDRESS).await.unwrap();
        let (error, message) = failure::<A>(to_node(&authority), server.address()).await;
        assert_eq!(error, TlsError::Issuer);
        assert!(message.contains("add that issuer"), "what to do: {message}");
        serves::<A>(&server, to_node(&other)).await;
    }
}

/// A certificate has its time.
pub async fn a_node_whose_certificate_is_out_of_date_is_not_spoken_to<A: Adapter>() {
    let authority = Authority::new();
    let dial = async |identity: Identity| {
        let server =
            Server::<A>::builder("node-2").tls(ServerTls::new(&identity)).listen(ADDRESS).await.unwrap();
        let (error, message) = failure::<A>(to_node(&authority), server.address()).await;
        assert!(matches!(error, TlsError::Validity(_)), "{error:?}");
        assert!(message.contains("clocks"), "what to do: {message}");
        message
    };
    let message = dial(authority.expired("node-2")).await;
    assert!(message.contains("its certificate expired"), "{message}");
    let message = dial(authority.of_the_future("node-2")).await;
    assert!(message.contains("its certificate is not valid before"), "{message}");
}

/// Some addresses have no name in them.
pub async fn a_name_that_is_none_is_said<A: Adapter>() {
    let authority = Authority::new();
    let tls = ClientTls::new(&authority.authorities());
    let (error, message) = failure::<A>(tls.clone(), "unix:/run/node.sock").await;
    assert_eq!(error, TlsError::ServerName(String::new()));
    assert!(message.contains("ClientTls::server_name"), "what to do: {message}");
    let lazy = Client::<A>::builder("a").tls(tls.server_name("two words")).connect_lazily("127.0.0.1:1");
    assert!(matches!(lazy, Err(ConnectError::Tls { source: TlsError::ServerName(_), .. })));
}
