//! The client that `connect` and `serve` ask for.

use std::time::Duration;

use bytes::Bytes;
use tieline::{BoxFuture, Client, ClientBuilder, Context, Error, Limits, Runtime, Services};

use super::command::{Connect, Serve};

/// The number of the feature Snappy (protocol, R-CHK-23).
pub(super) const SNAPPY: u32 = 1;

/// Describes it.
pub(super) fn describe<R: Runtime>(
    connect: &Connect,
    serve: Option<&Serve>,
    runtime: &R,
) -> ClientBuilder<R> {
    let mut limits = Limits::default();
    for (said, kept) in [
        (connect.max_frame, &mut limits.max_frame),
        (connect.max_message, &mut limits.max_message),
        (connect.max_item, &mut limits.max_item),
        (connect.stream_window, &mut limits.stream_window),
    ] {
        if said > 0 {
            *kept = said;
        }
    }
    // One message must fit, whatever its size.
    let message = usize::try_from(limits.max_message).unwrap_or(usize::MAX);
    limits.memory = limits.memory.max(message);
    limits.server_memory = limits.server_memory.max(message);
    let mut services = Services::new();
    if let Some(serve) = serve {
        limits.max_concurrent = serve.max_concurrent;
        let delay = Duration::from_millis(serve.delay_ms);
        for method in &serve.methods {
            services = services.method(method, echo(runtime, delay));
        }
    }
    let features = connect.features.contains(&SNAPPY);
    // What a server makes of a proposal of 0.
    let heartbeat = if connect.heartbeat_ms == 0 { 10_000 } else { connect.heartbeat_ms };
    Client::builder(&connect.identifier)
        .services(services)
        .limits(limits)
        .heartbeat_interval(Duration::from_millis(heartbeat))
        .credential(&connect.credential.0)
        .backoff(Duration::from_millis(connect.backoff_ms))
        .configure(|config| {
            let timeout = Duration::from_millis(connect.check_in_timeout_ms);
            // Who offers a feature uses it.
            config.ack_timeout(timeout).snappy(features).compress(features)
        })
}

/// A method that answers with its argument, after a while.
fn echo<R: Runtime>(
    runtime: &R,
    delay: Duration,
) -> impl Fn(Context, Bytes) -> BoxFuture<Result<Bytes, Error>> + Send + Sync + 'static {
    let runtime = runtime.clone();
    move |_, octets| {
        let runtime = runtime.clone();
        Box::pin(async move {
            if !delay.is_zero() {
                runtime.sleep(delay).await;
            }
            Ok(octets)
        })
    }
}
