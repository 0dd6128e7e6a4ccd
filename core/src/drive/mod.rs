//! What a loop that owns many connections needs besides them: who has something to do, and who is due next.
//!
//! Both are plain data structures over small numbers, which are whatever the loop files its connections under. They
//! know no connection, no transport and no clock. A loop that keeps to them never walks over connections that are idle:
//! a turn costs what the busy ones cost, however many there are.
//!
//! ```
//! use core::time::Duration;
//! use tieline_core::{Instant, drive::{DeadlineIndex, ReadySet}};
//!
//! let mut ready = ReadySet::new();
//! let mut deadlines = DeadlineIndex::new();
//! let mut now = Instant::from_nanos(1);
//!
//! // The transport of connection 7 has octets, and connection 3 beats in ten seconds.
//! ready.insert(7);
//! deadlines.arm(3, now.saturating_add(Duration::from_secs(10)), now);
//!
//! // One turn: everybody who is ready now once, in turns; who becomes ready meanwhile comes next time.
//! let mut turned = Vec::new();
//! for _ in 0..ready.len() {
//!     turned.extend(ready.pop());
//! }
//! assert_eq!(turned, [7]);
//!
//! // Nobody is ready: sleep until the first deadline, and look who was due.
//! now = deadlines.next().ok_or("nothing is armed")?;
//! deadlines.expire(now, |connection| {
//!     ready.insert(connection);
//! });
//! assert_eq!(ready.pop(), Some(3));
//! # Ok::<(), &'static str>(())
//! ```

mod deadline;
mod ready;

pub use self::{deadline::DeadlineIndex, ready::ReadySet};
