//! What the demo counts and checks.

use std::{collections::VecDeque, pin::Pin, time::Duration};

use hdrhistogram::Histogram;

use super::{Actor, lock, outcome};
use crate::{
    print::{micros, note, say, shown},
    wire::{Report, Verdict},
};

/// Messages under way each way at most. The node takes more, but then they only wait there.
const IN_FLIGHT: usize = 128;
/// Mistakes that are told in full.
const TOLD: usize = 5;

type Sending = Pin<Box<dyn Future<Output = Report> + Send>>;

/// Everything that was sent, and what became of it.
#[derive(Debug, Default)]
pub(super) struct Tally {
    sent: u64,
    delivered: u64,
    shown: u64,
    hops: Vec<u64>,
    mistakes: Vec<String>,
}

impl Tally {
    /// Sends one message and shows its way.
    pub(super) async fn say(&mut self, from: &Actor, to: &Actor, text: &str) {
        let before = lock(&to.inbox).read.len();
        let report = match from.user.send(to.user.name(), text) {
            Ok(sending) => sending.await,
            Err(error) => Report::new(false, Verdict::NotDelivered(error.to_string())),
        };
        say(&outcome(from, to, &report));
        self.count(from, to, &report);
        self.check(from, to, before, &[text.to_owned()]);
    }

    /// Sends so many messages each way at the same time.
    pub(super) async fn exchange(&mut self, alice: &Actor, bob: &Actor, messages: u32) {
        say(&format!("\n{messages} more each way …"));
        let before = [alice, bob].map(|actor| lock(&actor.inbox).read.len());
        let (there, back) = tokio::join!(stream(alice, bob, messages), stream(bob, alice, messages));
        for (from, to, reports, before) in [(bob, alice, back, before[0]), (alice, bob, there, before[1])] {
            reports.iter().for_each(|report| self.count(from, to, report));
            let texts: Vec<String> = (1..=messages).map(|number| text(from, number)).collect();
            self.check(from, to, before, &texts);
        }
    }

    fn count(&mut self, from: &Actor, to: &Actor, report: &Report) {
        self.sent += 1;
        if report.verdict == Verdict::Delivered {
            self.delivered += 1;
            if report.via.is_some() {
                self.hops.push(report.hop_us);
            }
        } else {
            self.mistakes.push(outcome(from, to, report));
        }
    }

    /// What the receiver has read since then must be these texts, each once and in this order.
    fn check(&mut self, from: &Actor, to: &Actor, before: usize, texts: &[String]) {
        let inbox = lock(&to.inbox);
        let read = inbox.read.get(before..).unwrap_or_default();
        self.shown += read.len() as u64;
        let wrong = mistakes(read.iter().map(|(sender, text)| (sender == from.user.name(), &**text)), texts);
        self.mistakes.extend(wrong.into_iter().map(|wrong| format!("{}: {wrong}", to.user.name())));
    }

    /// Whether every message was delivered, once and in order.
    pub(super) fn is_good(&self) -> bool {
        self.mistakes.is_empty() && self.sent == self.delivered && self.delivered == self.shown
    }

    /// Prints the figures. Whether they are good.
    pub(super) fn summary(&self, took: Duration) -> bool {
        let Self { sent, delivered, shown, .. } = self;
        let good = self.is_good();
        let mark = if good { "each once and in order  ✓" } else { "not as it should be  ✗" };
        say(&format!("  messages  {sent} sent, {delivered} delivered, {shown} read: {mark}"));
        if let Some((p50, p99)) = quantiles(&self.hops) {
            let (p50, p99) = (micros(p50), micros(p99));
            say(&format!(
                "  the hop   p50 {p50}, p99 {p99}: a call from node to node, on to the reader, and back"
            ));
        }
        say(&format!("  in all    {:.2} s\n", took.as_secs_f64()));
        for mistake in self.mistakes.iter().take(TOLD) {
            note(&format!("error: {mistake}"));
        }
        if self.mistakes.len() > TOLD {
            note(&format!("error: and {} more like these", self.mistakes.len() - TOLD));
        }
        good
    }
}

fn text(from: &Actor, number: u32) -> String {
    format!("{} says {number}", from.user.name())
}

/// Sends message after message, without waiting for one before the next. Once so many have failed that the rest would
/// tell nothing new it stops; the check misses what was not sent.
async fn stream(from: &Actor, to: &Actor, messages: u32) -> Vec<Report> {
    let mut reports = Vec::new();
    let mut under_way: VecDeque<Sending> = VecDeque::new();
    for number in 1..=messages {
        if under_way.len() >= IN_FLIGHT
            && let Some(oldest) = under_way.pop_front()
        {
            reports.push(oldest.await);
            if reports.iter().filter(|report| report.verdict != Verdict::Delivered).count() > TOLD {
                break;
            }
        }
        match from.user.send(to.user.name(), &text(from, number)) {
            Ok(sending) => under_way.push_back(Box::pin(sending)),
            Err(error) => reports.push(Report::new(false, Verdict::NotDelivered(error.to_string()))),
        }
    }
    for sending in under_way {
        reports.push(sending.await);
    }
    reports
}

/// What is wrong with what was read, if these texts were sent.
fn mistakes<'a>(read: impl Iterator<Item = (bool, &'a str)>, sent: &[String]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut expected = sent.iter();
    for (from_sender, text) in read {
        match expected.next() {
            Some(due) if from_sender && due == text => {}
            Some(due) => wrong.push(format!("read \"{}\" where \"{due}\" was due", shown(text))),
            None => wrong.push(format!("read \"{}\" after the last", shown(text))),
        }
    }
    wrong.extend(expected.map(|due| format!("never read \"{due}\"")));
    wrong
}

/// p50 and p99.
fn quantiles(values: &[u64]) -> Option<(u64, u64)> {
    let mut histogram = Histogram::<u64>::new(3).ok()?;
    for value in values {
        histogram.record(*value).ok()?;
    }
    (!values.is_empty()).then(|| (histogram.value_at_quantile(0.5), histogram.value_at_quantile(0.99)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(read: &[&str]) -> usize {
        let sent = ["1", "2", "3"].map(str::to_owned);
        mistakes(read.iter().map(|text| (true, *text)), &sent).len()
    }

    #[test]
    fn what_is_missing_doubled_or_out_of_order_is_found() {
        assert_eq!(wrong(&["1", "2", "3"]), 0);
        assert_eq!(wrong(&["1", "2"]), 1);
        assert_eq!(wrong(&["1", "2", "3", "3"]), 1);
        assert_eq!(wrong(&["2", "1", "3"]), 2);
        assert_eq!(wrong(&[]), 3);
        assert_eq!(mistakes([(false, "1")].into_iter(), &["1".to_owned()]).len(), 1, "from somebody else");
    }

    #[test]
    fn a_tally_is_good_only_if_every_message_was_read() {
        let mut tally = Tally { sent: 2, delivered: 2, shown: 2, ..Tally::default() };
        assert!(tally.is_good());
        tally.shown = 3;
        assert!(!tally.is_good());
        tally.shown = 2;
        tally.mistakes.push("x".to_owned());
        assert!(!tally.is_good());
    }

    #[test]
    fn quantiles_are_of_what_was_measured() {
        assert_eq!(quantiles(&[]), None);
        let values: Vec<u64> = (1..=1000).collect();
        let Some((p50, p99)) = quantiles(&values) else { unreachable!() };
        assert!((499..=501).contains(&p50) && (989..=991).contains(&p99), "{p50} {p99}");
    }
}
