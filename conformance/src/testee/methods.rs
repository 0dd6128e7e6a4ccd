//! The methods of the annex, each by its requirement.

use std::{
    collections::VecDeque,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tieline::{
    BoxFuture, CallError, Class, Context, Error, Runtime, ServedItems, ServedSink, Services, Status,
};

use super::{
    arguments::{end, take_varint, unfit, varint_of},
    counts::Counts,
};

/// What stands before the name of each method.
pub const SERVICE: &str = "tieline.testee.v1.Testee/";
/// The method that CallMe calls.
const ECHO: &str = "tieline.testee.v1.Testee/Echo";
/// The longest sleep, R-TST-17.
const MOST_SLEEP: u64 = 60_000;
/// The most items of one Source.
const MOST_ITEMS: u64 = 1 << 20;
/// The keys of which Append keeps lists.
const KEYS: usize = 64;
/// The longest pause of Append, in microseconds.
const MOST_PAUSE: u64 = 5_000;

/// What the methods share.
pub(super) struct Testee<R> {
    runtime: R,
    pub(super) counts: Arc<Counts>,
    lists: Mutex<Lists>,
    pattern: Mutex<Bytes>,
}

/// How a method ended that streams.
enum Ended {
    /// By an answer of its own.
    Answer(Error),
    /// Its call is over: there is nobody to answer.
    Over(CallError),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Self::Answer(error)
    }
}

impl From<CallError> for Ended {
    fn from(error: CallError) -> Self {
        Self::Over(error)
    }
}

type Answer = Result<Bytes, Error>;
type Streamed = Result<Bytes, Ended>;

/// All methods of the annex.
pub(super) fn services<R: Runtime>(testee: &Arc<Testee<R>>) -> Services {
    let name = |method: &str| format!("{SERVICE}{method}");
    let (source, sum, chat) = (Arc::clone(testee), Arc::clone(testee), Arc::clone(testee));
    Services::new()
        .method(ECHO, unary(testee, OneWays::Taken, async |_, _, octets| Ok(octets)))
        .method(&name("Sleep"), unary(testee, OneWays::Dropped, Testee::sleep))
        .method(&name("Stubborn"), unary(testee, OneWays::Dropped, Testee::sleep))
        // R-TST-18
        .keep_running()
        .method(&name("Fail"), unary(testee, OneWays::Dropped, Testee::fail))
        .method(&name("Panic"), unary(testee, OneWays::Dropped, Testee::panic))
        .method(&name("Sink"), unary(testee, OneWays::Taken, Testee::sink))
        .server_stream(&name("Source"), move |cx, octets, sink| {
            streamed(&source, Arc::clone(&source).source(cx, octets, sink))
        })
        .client_stream(&name("Sum"), move |_, _, items| streamed(&sum, Testee::<R>::sum(items)))
        .bidi(&name("Chat"), move |_, _, items, sink| streamed(&chat, Testee::<R>::chat(items, sink)))
        .method(&name("Stats"), stats(testee))
        .method(&name("CallMe"), unary(testee, OneWays::Dropped, Testee::call_me))
        .method(&name("Append"), unary(testee, OneWays::Dropped, Testee::append))
}

/// What becomes of one-ways to a method (R-TST-24).
#[derive(Clone, Copy, PartialEq, Eq)]
enum OneWays {
    Taken,
    Dropped,
}

/// A method with one argument, counted while it runs.
fn unary<R, F, Fut>(
    testee: &Arc<Testee<R>>,
    one_ways: OneWays,
    serve: F,
) -> impl Fn(Context, Bytes) -> BoxFuture<Answer> + Send + Sync + 'static
where
    R: Runtime,
    F: Fn(Arc<Testee<R>>, Context, Bytes) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Answer> + Send + 'static,
{
    let testee = Arc::clone(testee);
    move |cx, octets| {
        if cx.is_one_way() && one_ways == OneWays::Dropped {
            testee.counts.drop_one_way();
            return Box::pin(std::future::ready(Ok(Bytes::new())));
        }
        let running = testee.counts.start();
        let served = serve(Arc::clone(&testee), cx, octets);
        Box::pin(async move {
            let answer = served.await;
            running.done();
            answer
        })
    }
}

/// A method that streams, counted while it runs.
fn streamed<R: Runtime>(
    testee: &Testee<R>,
    served: impl Future<Output = Streamed> + Send + 'static,
) -> BoxFuture<Answer> {
    let running = testee.counts.start();
    Box::pin(async move {
        match served.await {
            Ok(answer) => {
                running.done();
                Ok(answer)
            }
            Err(Ended::Answer(error)) => {
                running.done();
                Err(error)
            }
            // As if it had been dropped a moment earlier.
            Err(Ended::Over(error)) => Err(error.into()),
        }
    })
}

/// Stats itself counts in none of the counters, but a one-way to it is dropped like others.
fn stats<R: Runtime>(
    testee: &Arc<Testee<R>>,
) -> impl Fn(Context, Bytes) -> std::future::Ready<Answer> + Send + Sync + 'static {
    let counts = Arc::clone(&testee.counts);
    move |cx, _| {
        if cx.is_one_way() {
            counts.drop_one_way();
        }
        let json = counts.to_json().map(Bytes::from);
        std::future::ready(json.map_err(|error| Error::new(Status::INTERNAL, error.to_string())))
    }
}

impl<R: Runtime> Testee<R> {
    pub(super) fn new(runtime: R) -> Self {
        Self { runtime, counts: Arc::default(), lists: Mutex::default(), pattern: Mutex::default() }
    }

    /// Sleep and Stubborn: what they differ in is who may stop them.
    async fn sleep(self: Arc<Self>, _: Context, mut octets: Bytes) -> Answer {
        let ms = take_varint(&mut octets)?;
        if ms > MOST_SLEEP {
            return Err(unfit(&format!("{ms} ms is more than {MOST_SLEEP}")));
        }
        self.runtime.sleep(Duration::from_millis(ms)).await;
        Ok(octets)
    }

    async fn fail(self: Arc<Self>, _: Context, octets: Bytes) -> Answer {
        let Some((status, message)) = octets.split_first() else {
            return Err(unfit("the status octet is missing"));
        };
        let status = Status(*status);
        if !matches!(status.class(), Class::Handler | Class::Application) {
            return Err(unfit(&format!("{status} is not of class 0 or 6")));
        }
        match std::str::from_utf8(message) {
            Ok(message) => Err(Error::new(status, message)),
            Err(_) => Err(unfit("the message is not UTF-8")),
        }
    }

    async fn panic(self: Arc<Self>, _: Context, _: Bytes) -> Answer {
        // Unwinds as any panic does, without a report on the standard error for each.
        std::panic::resume_unwind(Box::new("asked to"))
    }

    async fn sink(self: Arc<Self>, _: Context, octets: Bytes) -> Answer {
        self.counts.sink(octets.len());
        Ok(Bytes::new())
    }

    async fn source(self: Arc<Self>, cx: Context, mut octets: Bytes, mut sink: ServedSink) -> Streamed {
        let (count, size) = (take_varint(&mut octets)?, take_varint(&mut octets)?);
        end(&octets)?;
        if count > MOST_ITEMS {
            return Err(unfit(&format!("{count} items are more than {MOST_ITEMS}")).into());
        }
        let most = cx.caller().map_or(0, |caller| caller.max_item);
        let size = match usize::try_from(size) {
            Ok(octets) if size <= most.into() => octets,
            _ => {
                return Err(
                    unfit(&format!("items of {size} octets are larger than the caller's {most}")).into()
                );
            }
        };
        let pattern = self.pattern(size);
        // Octet k of item i is (i + k) mod 256, so every item is a piece of one pattern.
        let items = (0..count).map(|item| {
            let [from, ..] = item.to_le_bytes();
            let from = usize::from(from);
            pattern.slice(from..from + size)
        });
        sink.send_all(items).await?;
        Ok(Bytes::new())
    }

    /// Octet n is n mod 256, and there are at least `size` + 256 of them. There is one for all calls, as long as the largest
    /// item that was asked for: what callers announce costs no more than that.
    fn pattern(&self, size: usize) -> Bytes {
        let mut pattern = self.pattern.lock().unwrap_or_else(PoisonError::into_inner);
        if pattern.len() < size + 256 {
            *pattern = (0..=u8::MAX).cycle().take(size + 256).collect();
        }
        pattern.clone()
    }

    async fn sum(mut items: ServedItems) -> Streamed {
        let mut total = 0;
        while let Some(item) = items.next().await {
            total += item?.len() as u64;
        }
        Ok(varint_of(total))
    }

    async fn chat(mut items: ServedItems, mut sink: ServedSink) -> Streamed {
        while let Some(item) = items.next().await {
            match sink.send(item?).await {
                Err(error) if error.status() == Status::LOCAL_LIMIT => {
                    // The caller reads smaller items than it sends; its call goes on, so it has an answer.
                    return Err(Error::new(Status::OUT_OF_RANGE, error.to_string()).into());
                }
                sent => sent?,
            }
        }
        Ok(Bytes::new())
    }

    async fn call_me(self: Arc<Self>, cx: Context, octets: Bytes) -> Answer {
        // Without a time-out of its own it has the deadline that is left.
        match cx.peer().call(ECHO, octets).no_timeout().await {
            Ok(answer) if answer.message().is_empty() => Ok(answer.payload),
            Ok(answer) => Err(Error::new(Status::OK, answer.message()).detail(answer.payload)),
            Err(error) => Err(error.into()),
        }
    }

    async fn append(self: Arc<Self>, cx: Context, _: Bytes) -> Answer {
        let pause = self.runtime.seed() % (MOST_PAUSE + 1);
        self.runtime.sleep(Duration::from_micros(pause)).await;
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(varint_of(lists.append(cx.ordering_key())))
    }
}

/// The lists of Append. Nobody ever reads what is in them, so there are their lengths alone.
#[derive(Default)]
struct Lists {
    /// The key least recently appended to comes first.
    lengths: VecDeque<(Vec<u8>, u64)>,
}

impl Lists {
    /// Appends to the list of a key; the length before.
    fn append(&mut self, key: &[u8]) -> u64 {
        let at = self.lengths.iter().position(|(known, _)| known == key);
        let (key, length) = at.and_then(|at| self.lengths.remove(at)).unwrap_or_else(|| (key.to_vec(), 0));
        if self.lengths.len() == KEYS {
            self.lengths.pop_front();
        }
        self.lengths.push_back((key, length + 1));
        length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_least_recently_appended_to_is_forgotten_first() {
        let mut lists = Lists::default();
        assert_eq!((lists.append(b""), lists.append(b"")), (0, 1), "no key is a key");
        for key in 1..u8::try_from(KEYS).unwrap_or(0) {
            assert_eq!(lists.append(&[key]), 0);
        }
        assert_eq!(lists.append(b""), 2, "64 keys are kept");
        assert_eq!(lists.append(&[200]), 0, "and for the next one");
        assert_eq!(lists.append(&[1]), 0, "the oldest had to go");
        assert_eq!(lists.append(b""), 3);
        assert_eq!(lists.append(&[200]), 1);
    }
}
