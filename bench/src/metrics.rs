//! What a role says of itself on its management port, in the text format of Prometheus.

/// The sum of a counter over all its label sets that hold `label`; 0 when there is none.
pub fn sum(text: &str, name: &str, label: &str) -> f64 {
    samples(text, name).filter(|(labels, _)| labels.contains(label)).map(|(_, value)| value).sum()
}

/// A quantile (0 to 1) of a histogram over all its label sets, interpolated within its bucket as Prometheus does it, in
/// the histogram's unit; `None` when nothing was observed.
pub fn quantile(text: &str, name: &str, share: f64) -> Option<f64> {
    let mut buckets: Vec<(f64, f64)> = Vec::new();
    for (labels, count) in samples(text, &format!("{name}_bucket")) {
        let bound = labels.split_once("le=\"")?.1.split('"').next()?;
        let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
        match buckets.iter_mut().find(|(other, _)| *other == bound) {
            Some((_, sum)) => *sum += count,
            None => buckets.push((bound, count)),
        }
    }
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    let all = buckets.last().map(|(_, count)| *count).filter(|count| *count > 0.0)?;
    let wanted = share * all;
    let at = buckets.iter().position(|(_, count)| *count >= wanted)?;
    let (bound, count) = buckets[at];
    let (lower, below) = at.checked_sub(1).map_or((0.0, 0.0), |before| buckets[before]);
    if bound.is_infinite() {
        return Some(lower);
    }
    Some(lower + (bound - lower) * (wanted - below) / (count - below).max(1.0))
}

/// Labels and value of each sample of a name.
fn samples<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
    text.lines().filter_map(move |line| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = match rest.strip_prefix('{') {
            Some(rest) => rest.rsplit_once('}')?,
            None => ("", rest.strip_prefix(' ')?),
        };
        Some((labels, value.trim().parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const TEXT: &str = "# HELP a b\n\
        records_total{outcome=\"processed\",worker=\"0\"} 5\n\
        records_total{outcome=\"processed\",worker=\"1\"} 7\n\
        records_total{outcome=\"duplicate\",worker=\"1\"} 1\n\
        took_bucket{worker=\"0\",le=\"1\"} 2\n\
        took_bucket{worker=\"0\",le=\"2\"} 4\n\
        took_bucket{worker=\"0\",le=\"+Inf\"} 4\n\
        took_bucket{worker=\"1\",le=\"1\"} 2\n\
        took_bucket{worker=\"1\",le=\"2\"} 5\n\
        took_bucket{worker=\"1\",le=\"+Inf\"} 6\n";

    #[test]
    fn counters_are_summed_over_their_labels() {
        assert_eq!(sum(TEXT, "records_total", "outcome=\"processed\""), 12.0);
        assert_eq!(sum(TEXT, "records_total", ""), 13.0);
        assert_eq!(sum(TEXT, "records", ""), 0.0, "control: another name");
    }

    #[test]
    fn quantiles_are_interpolated_and_stop_at_the_last_bound() {
        // Of 10: 4 up to 1, 9 up to 2, one above.
        assert_eq!(quantile(TEXT, "took", 0.4), Some(1.0));
        assert_eq!(quantile(TEXT, "took", 0.9), Some(2.0));
        assert!((quantile(TEXT, "took", 0.65).unwrap() - 1.5).abs() < 1e-9);
        assert_eq!(quantile(TEXT, "took", 1.0), Some(2.0));
        assert_eq!(quantile(TEXT, "other", 0.5), None);
    }
}
