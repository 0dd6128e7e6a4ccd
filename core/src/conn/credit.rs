//! Credit of one direction of a stream, at either end (protocol §5, "Streams"). Pure numbers: no frames, no items.
//!
//! Credit is signed: an item may begin while it is above 0, and then costs its payload as sent and 256 more, whole at
//! its first frame. So every item can be sent, empty ones are not free, and a receiver holds at most its window and
//! one item. L11 is about these two types: what the sender has plus what the receiver owes plus what is on its way is
//! the initial credit plus what was granted beyond it.

use super::config::MOST_CREDIT;

/// What an item of a stream costs of its credit besides its payload, in octets: about what holding a small one does
/// (protocol, R-STR-05).
pub const ITEM_COST: u32 = 256;

/// What an item of so many octets, as sent, costs.
pub(crate) const fn cost(octets: u32) -> u32 {
    octets.saturating_add(ITEM_COST)
}

/// The end that sends items.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Purse {
    credit: i64,
}

impl Purse {
    pub(crate) const fn new(initial: u32) -> Self {
        let most = if initial > MOST_CREDIT { MOST_CREDIT } else { initial };
        Self { credit: most as i64 }
    }

    /// Whether an item may begin.
    #[inline]
    pub(crate) const fn may_begin(self) -> bool {
        self.credit > 0
    }

    /// An item of so many octets begins.
    #[inline]
    pub(crate) fn spend(&mut self, octets: u32) {
        self.credit = self.credit.saturating_sub(cost(octets).into());
    }

    /// CREDIT came. `false` if it was 0, or lifts the credit too high: PE.
    #[must_use]
    pub(crate) fn granted(&mut self, octets: u32) -> bool {
        self.credit = self.credit.saturating_add(octets.into());
        octets > 0 && self.credit <= MOST_CREDIT.into()
    }
}

/// The end that receives items.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Till {
    /// What the sender has left, as far as is known here.
    credit: i64,
    /// A quarter of the initial credit: what is gathered before it is returned.
    gather: u32,
    /// The cost of items that were taken, not returned yet.
    owed: u32,
    /// The initial credit and all grants: what the sender has once every item is taken and returned.
    allowed: u32,
}

impl Till {
    pub(crate) const fn new(initial: u32) -> Self {
        let initial = if initial > MOST_CREDIT { MOST_CREDIT } else { initial };
        Self { credit: initial as i64, gather: initial / 4, owed: 0, allowed: initial }
    }

    /// An item of so many octets begins. `false` if there was no credit for it: PE.
    #[inline]
    #[must_use]
    pub(crate) fn charge(&mut self, octets: u32) -> bool {
        let covered = self.credit > 0;
        self.credit = self.credit.saturating_sub(cost(octets).into());
        covered
    }

    /// An item was abandoned of which so many octets never came.
    pub(crate) fn take_back(&mut self, octets: u32) {
        self.credit = self.credit.saturating_add(octets.into());
    }

    /// The application took an item of so many octets as sent; whether CREDIT is due.
    #[inline]
    pub(crate) fn taken(&mut self, octets: u32) -> bool {
        self.owed = self.owed.saturating_add(cost(octets));
        self.is_due()
    }

    /// Whether what is owed is to be returned: a quarter of the initial credit, or anything if the sender can begin
    /// nothing.
    #[inline]
    pub(crate) const fn is_due(&self) -> bool {
        self.owed > 0 && (self.owed >= self.gather || self.credit <= 0)
    }

    /// Whether anything is to be returned, due or not.
    pub(crate) const fn owes(&self) -> bool {
        self.owed > 0
    }

    /// What CREDIT returns now.
    pub(crate) fn pay(&mut self) -> u32 {
        let octets = core::mem::take(&mut self.owed);
        self.credit = self.credit.saturating_add(octets.into());
        octets
    }

    /// The application lets more come than it returns; what fits below the most that there may be, also when the items
    /// that were not taken yet are returned.
    pub(crate) fn grant(&mut self, octets: u32) {
        let granted = octets.min(MOST_CREDIT.saturating_sub(self.allowed));
        self.allowed += granted;
        self.owed = self.owed.saturating_add(granted);
    }

    /// What the sender may still spend, and an item: late items of an ended call are free up to this.
    pub(crate) fn allowance(&self, max_item: u32) -> u64 {
        let credit = u64::try_from(self.credit).unwrap_or(0);
        credit.saturating_add(max_item.into()).saturating_add(ITEM_COST.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_may_overdraw_once() {
        let mut purse = Purse::new(600);
        let mut till = Till::new(600);
        for octets in [4, 4, 4] {
            assert!(purse.may_begin() && till.charge(octets));
            purse.spend(octets);
        }
        assert!(!purse.may_begin(), "600 - 3 x 260 is below 0");
        assert!(till.taken(4), "at once, because nothing can begin");
        assert!(purse.granted(till.pay()) && purse.may_begin());
        assert!(till.charge(4));
        assert!(!till.charge(0), "no credit is left for this one");
    }

    #[test]
    fn credit_is_gathered_up_to_a_quarter() {
        let mut till = Till::new(4 * 1024);
        assert!(till.charge(256) && till.charge(256));
        assert!(!till.taken(256));
        assert!(till.taken(256));
        assert_eq!(till.pay(), 1024);
        assert!(!till.is_due());
    }

    #[test]
    fn nothing_and_too_much_are_no_credit() {
        let mut purse = Purse::new(u32::MAX);
        assert!(!purse.granted(1), "2^31 - 1 is the most");
        let mut purse = Purse::new(0);
        assert!(!purse.may_begin() && !purse.granted(0));
        assert!(purse.granted(MOST_CREDIT) && !purse.granted(1));
    }

    #[test]
    fn of_what_was_abandoned_the_difference_is_given_back() {
        let mut till = Till::new(1000);
        assert!(till.charge(5000));
        till.take_back(4000);
        assert_eq!(till.credit, 1000 - 1256);
    }

    #[test]
    fn a_grant_never_lifts_credit_too_high() {
        let mut till = Till::new(MOST_CREDIT - 10);
        till.grant(100);
        assert_eq!(till.pay(), 10);
        till.grant(100);
        assert_eq!(till.pay(), 0);
        assert!(till.charge(744));
        till.grant(100);
        assert_eq!(till.pay(), 0, "what came will be returned");
        till.taken(744);
        assert_eq!((till.pay(), till.credit), (1000, i64::from(MOST_CREDIT)));
    }

    #[test]
    fn a_grant_leaves_room_for_what_was_not_taken() {
        let mut till = Till::new(MOST_CREDIT - 10);
        assert!(till.charge(1000));
        till.grant(1000);
        assert_eq!(till.pay(), 10);
        till.taken(1000);
        till.pay();
        assert_eq!(till.credit, i64::from(MOST_CREDIT));
    }
}
