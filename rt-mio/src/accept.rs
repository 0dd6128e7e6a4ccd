//! Accepting. No error ends it: other protocols' servers died of one connection's.

use std::{io, sync::Arc, time::Duration};

use mio::{Interest, Registry, Token};
use tieline::transport::{ACCEPT_PAUSES, is_of_one_connection};
use tieline_core::conn::Config;

use crate::{
    app::App,
    listener::Listening,
    net::{ListenerId, Net, Place},
    turn::contain,
};

/// Connections that are accepted in one turn.
const AT_ONCE: usize = 64;

/// A listener of the direct layer.
pub(crate) struct Listener {
    socket: Listening,
    config: Arc<Config>,
    pause: Duration,
}

impl Listener {
    pub(crate) fn new(socket: Listening, config: Arc<Config>) -> Self {
        let [shortest, _] = ACCEPT_PAUSES;
        Self { socket, config, pause: shortest }
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.socket, token, Interest::READABLE)
    }

    pub(crate) fn deregister(&mut self, registry: &Registry) {
        // That it cannot be taken out means that it is not in it.
        let _ = registry.deregister(&mut self.socket);
    }

    pub(crate) fn address(&self) -> String {
        self.socket.local_address()
    }
}

/// Takes those who want to connect at the listener of this number.
pub(crate) fn turn<A: App>(app: &mut A, net: &mut Net<A::User>, id: ListenerId) {
    let number = id.0.number;
    for _ in 0..AT_ONCE {
        let Some(Place::Listener(listener)) = net.place(number) else { return };
        let accepted = listener.socket.accept();
        if accepted.is_ok() {
            [listener.pause, _] = ACCEPT_PAUSES;
        }
        let config = Arc::clone(&listener.config);
        match accepted.and_then(|(socket, _)| net.open_accepted(socket, &config)) {
            Ok(conn) => contain(app, net, |app, net| app.accepted(net, id, conn)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) if is_of_one_connection(&error) => net.counters.accept_errors += 1,
            Err(_) => {
                // The process lacks something, descriptors most likely; those who wait stay in the backlog, of which
                // no event tells again.
                net.counters.accept_errors += 1;
                if let Some(Place::Listener(listener)) = net.place(number) {
                    let [_, longest] = ACCEPT_PAUSES;
                    let until = listener.pause;
                    listener.pause = (until * 2).min(longest);
                    let (now, at) = (net.now, net.now.saturating_add(until));
                    net.deadlines.arm(number, at, now);
                }
                return;
            }
        }
    }
    net.ready.insert(number);
}
