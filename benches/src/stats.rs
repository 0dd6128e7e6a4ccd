//! What is left of several rounds.

/// The middle value, or the mean of the two in the middle. `None` of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *sorted.get(sorted.len() / 2 - 1)?;
    Some(lower.midpoint(upper))
}

/// Half of the distance between the extremes, as a part of the median. `None` of nothing.
pub fn spread(values: &[f64]) -> Option<f64> {
    let least = values.iter().copied().reduce(f64::min)?;
    let most = values.iter().copied().reduce(f64::max)?;
    Some((most - least) / 2.0 / median(values)?)
}

/// The ratio of each round. Both sides of a ratio were measured within seconds, so a machine that slows down
/// between rounds does not move it. Empty if the rounds do not match.
pub fn ratios(values: &[f64], base: &[f64]) -> Vec<f64> {
    if values.len() != base.len() {
        return Vec::new();
    }
    values.iter().zip(base).map(|(value, base)| value / base).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 100.0, 2.0]), Some(3.0));
    }

    #[test]
    fn the_spread_is_half_the_range() {
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[5.0]), Some(0.0));
        assert_eq!(spread(&[90.0, 100.0, 110.0]), Some(0.1));
    }

    #[test]
    fn a_ratio_is_taken_round_by_round() {
        // The second round ran on a machine half as fast: the ratio does not see it.
        assert_eq!(ratios(&[80.0, 40.0, 80.0], &[100.0, 50.0, 100.0]), [0.8, 0.8, 0.8]);
        // Medians of each side apart would say 90 / 80 here, whatever the rounds say.
        let each = ratios(&[100.0, 40.0, 90.0], &[50.0, 80.0, 100.0]);
        assert_eq!((median(&each), each), (Some(0.9), vec![2.0, 0.5, 0.9]));
        assert!(ratios(&[1.0], &[1.0, 2.0]).is_empty());
        assert!(ratios(&[], &[]).is_empty());
    }
}
