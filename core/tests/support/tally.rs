//! Faults that were injected and checks that were executed, by name: a fault that never fired proves nothing.

use std::collections::BTreeMap;

#[derive(Default, Clone)]
pub struct Tally {
    faults: BTreeMap<&'static str, u64>,
    checks: BTreeMap<&'static str, u64>,
}

impl Tally {
    pub fn fault(&mut self, name: &'static str) {
        *self.faults.entry(name).or_default() += 1;
    }

    pub fn check(&mut self, name: &'static str) {
        *self.checks.entry(name).or_default() += 1;
    }

    pub fn add(&mut self, other: &Self) {
        for (name, count) in &other.faults {
            *self.faults.entry(name).or_default() += count;
        }
        for (name, count) in &other.checks {
            *self.checks.entry(name).or_default() += count;
        }
    }

    /// Prints both lists, and fails if one of those that are expected never happened.
    pub fn report(&self, title: &str, expected: &[&str]) {
        println!("{title}");
        for (kind, counts) in [("fault", &self.faults), ("check", &self.checks)] {
            for (name, count) in counts {
                println!("  {kind} {name}: {count}");
            }
        }
        let missing: Vec<_> = expected
            .iter()
            .filter(|name| !self.faults.contains_key(*name) && !self.checks.contains_key(*name))
            .collect();
        assert!(missing.is_empty(), "never happened: {missing:?}");
    }
}
