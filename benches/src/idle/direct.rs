//! The server on the direct layer of rt-mio, which has no tasks.

use std::convert::Infallible;
use std::net::TcpListener;

use tieline_mio::{Body, Config, ConnId, Handlers, Incoming, Loop, Net, Then};

use super::noted;
use super::server::{BEATS, HEAP, IDLE};
use super::state::{Beats, heap_to_json};
use crate::error::{Context, Result};
use crate::sys;
use crate::targets::tieline::ECHO;

/// Serves until the process ends. `noted`: each turn of the loop is noted as a poll, and whether octets were moved in it.
pub(super) fn serve(listener: TcpListener, noted: bool) -> Result<Infallible> {
    let handlers = Handlers::new()
        .method(ECHO, |net, conn, request| {
            let body = request.payload.clone();
            answer(net, conn, &request, Body::Share(body));
        })
        .method(HEAP, |net, conn, request| {
            // Before anything is made for the answer.
            let heap = sys::heap();
            answer(net, conn, &request, Body::Copy(heap_to_json(&heap).as_bytes()));
        })
        .method(BEATS, |net, conn, request| {
            let beats = beats(net).to_json();
            answer(net, conn, &request, Body::Copy(beats.as_bytes()));
        });
    // The defaults of the product.
    let config = handlers.describe(Config::builder("bench-server")).build().context("configure")?;
    let mut node = Loop::new(handlers)?;
    node.net().listen_on(listener, &config)?;
    let mut before = 0;
    loop {
        node.turn(None)?;
        if noted {
            let octets = octets(node.net());
            noted::turn(octets != before);
            before = octets;
        }
    }
}

fn answer(net: &mut Net<Then>, conn: ConnId, request: &Incoming, body: Body<'_>) {
    // That the caller may have gone meanwhile is of no concern here.
    let _ = net.answer(conn, request.call, body);
}

/// What all connections have read and written.
fn octets(net: &Net<Then>) -> u64 {
    let each = net.connections().filter_map(|conn| net.stats(conn));
    each.map(|stats| stats.octets_in + stats.octets_out).sum()
}

fn beats(net: &Net<Then>) -> Beats {
    let mut beats = noted::so_far();
    for conn in net.connections() {
        let idle = net.peer(conn).is_some_and(|peer| peer.identifier.starts_with(IDLE));
        if let Some(stats) = net.stats(conn).filter(|_| idle) {
            beats.add(&stats);
        }
    }
    beats
}
