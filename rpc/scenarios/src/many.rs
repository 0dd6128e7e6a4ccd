//! As many connections as there can be, and fewer descriptors than there should be.

use crate::{
    Adapter, Client, Server,
    calls::{echo, echoing, works},
    process::{Part, Told, descriptors, part, say},
    task,
    wait::{LONG, Shared, both, either, soon, until},
};

const CONNECTIONS: u64 = 10_000;
/// Those that dial at once.
const AT_ONCE: u64 = 64;

/// A server in one process and its clients in another, because each has a descriptor for every connection. All of them
/// are checked in at once, all of them are served, and nothing is left when they have gone.
pub fn ten_thousand_connections_at_once<A: Adapter>(test: &str) {
    match part() {
        None => A::block_on(async {
            let mut server = Part::start(test, "server", "");
            let address = server.line::<A>().await;
            let mut clients = Part::start(test, "clients", &address);
            clients.expect::<A>("connected").await;
            server.say("all");
            server.expect::<A>("all are here").await;
            clients.say("call");
            clients.expect::<A>("answered").await;
            clients.say("leave");
            clients.expect::<A>("left").await;
            server.say("none");
            server.expect::<A>("all have gone").await;
            both(server.end::<A>(), clients.end::<A>()).await;
        }),
        Some((part, _)) if part == "server" => A::block_on(serve::<A>()),
        Some((_, address)) => A::block_on(dial::<A>(&address)),
    }
}

/// As many as the system lets this process have.
fn enough_descriptors() {
    let most = descriptors(None);
    assert!(
        most.is_none_or(|most| most > CONNECTIONS + 100),
        "raise the hard limit of descriptors: {most:?}"
    );
}

async fn serve<A: Adapter>() {
    enough_descriptors();
    let told = Told::listen();
    let server = echoing::<A>(A::ADDRESS).await;
    say(server.address());
    let there = |count| server.peers().len() as u64 == count;
    assert_eq!(told.line().await.as_deref(), Some("all"));
    until::<A>("every connection", || there(CONNECTIONS)).await;
    say("all are here");
    assert_eq!(told.line().await.as_deref(), Some("none"));
    until::<A>("every end", || there(0)).await;
    works::<A>(&Client::<A>::connect(server.address()).await.unwrap()).await;
    say("all have gone");
    soon::<A, _>("the shutdown", server.shutdown(LONG)).await;
}

async fn dial<A: Adapter>(address: &str) {
    enough_descriptors();
    let told = Told::listen();
    let (next, clients): (Shared<u64>, Shared<Vec<Client<A>>>) = Default::default();
    let dialling = (0..AT_ONCE).map(|_| {
        let (address, next, clients) = (address.to_owned(), next.clone(), clients.clone());
        task::spawn::<A, _>(async move {
            while next.change(|next| std::mem::replace(next, *next + 1)) < CONNECTIONS {
                // A beat now and then is enough: they have other things to do.
                let client = Client::<A>::builder("many").heartbeat_interval(LONG);
                let client = client.connect(&address).await.unwrap();
                clients.change(|clients| clients.push(client));
            }
        })
    });
    task::all(dialling.collect::<Vec<_>>()).await;
    let clients = clients.change(std::mem::take);
    say("connected");
    assert_eq!(told.line().await.as_deref(), Some("call"));
    let calls = clients.chunks(clients.len() / 100).map(|some| {
        let some = some.to_vec();
        task::spawn::<A, _>(async move {
            for client in &some {
                works::<A>(client).await;
            }
        })
    });
    task::all(calls.collect::<Vec<_>>()).await;
    assert!(clients.iter().all(|client| client.attempts() == 1));
    say("answered");
    assert_eq!(told.line().await.as_deref(), Some("leave"));
    for client in clients {
        client.close().await;
    }
    say("left");
}

/// Who waits in the backlog gets in when there are descriptors again; who is in does not notice.
pub fn running_out_of_descriptors_does_not_end_a_server<A: Adapter>(test: &str) {
    if part().is_none() {
        return A::block_on(Part::start(test, "alone", "").end::<A>());
    }
    descriptors(Some(64));
    A::block_on(async {
        let server = Server::<A>::builder("node-2").services(echo());
        let server = server.listen(A::ADDRESS).await.unwrap();
        let neighbour = Client::<A>::builder("b").connect(server.address()).await.unwrap();
        works::<A>(&neighbour).await;
        // Kept: what they give back would come at an uncertain time.
        let mut clients = Vec::new();
        for round in 0..3 {
            let mut files = Vec::new();
            while let Ok(file) = std::fs::File::open("/dev/null") {
                files.push(file);
            }
            files.pop();
            // The last descriptor is the caller's, so there is none for the one who accepts.
            let mut waiting = Box::pin(Client::<A>::connect(server.address()));
            let calls = async {
                for _ in 0..200 {
                    works::<A>(&neighbour).await;
                }
            };
            let early = either(&mut waiting, calls).await;
            assert!(early.is_err(), "there was a descriptor left in round {round}");
            drop(files);
            let client = soon::<A, _>("it gets in after all", waiting).await.unwrap();
            works::<A>(&client).await;
            clients.push(client);
        }
        works::<A>(&neighbour).await;
        assert_eq!(neighbour.attempts(), 1);
    });
}
