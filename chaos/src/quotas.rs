//! How much has to have happened before a run may end by itself, and what a run that ended without it lacks.

use sluice_service::faults::CrashPoint;

use crate::report::Report;

/// The least counts of a run. Every crash point has to have been reached too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    /// Different events acknowledged.
    pub events: u64,
    /// SIGKILLs of roles.
    pub kills: u64,
    /// Pauses past the session's time-out.
    pub zombies: u64,
    /// SIGKILLs of brokers.
    pub broker_kills: u64,
    /// Faults that the proxy caused.
    pub proxied: u64,
}

impl Quotas {
    /// What a short run asks for.
    pub const SHORT: Quotas =
        Quotas { events: 200_000, kills: 60, zombies: 20, broker_kills: 10, proxied: 200 };

    /// What a long run asks for.
    pub const LONG: Quotas =
        Quotas { events: 5_000_000, kills: 1_000, zombies: 100, broker_kills: 100, proxied: 1_000 };

    /// What a run lacks, for people; empty when it has had enough.
    pub fn unmet(&self, report: &Report) -> Vec<String> {
        let counts = [
            ("events acknowledged", self.events, report.acknowledged),
            ("SIGKILLs", self.kills, report.kills),
            ("zombie pauses", self.zombies, report.times("zombie pause")),
            ("broker kills", self.broker_kills, report.times("broker kill")),
            ("proxied faults", self.proxied, report.proxied),
        ];
        let few = counts.into_iter().filter(|(_, wanted, found)| found < wanted);
        let few = few.map(|(what, wanted, found)| format!("{found} {what} of {wanted}"));
        let kinds = CrashPoint::ALL.into_iter().map(|point| format!("crash {}", point.name()));
        let never = kinds.filter(|kind| report.times(kind) == 0);
        few.chain(never.map(|kind| format!("{kind} never happened"))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_short_of_a_count_is_named() {
        let quotas = Quotas::SHORT;
        let mut report = Report {
            acknowledged: quotas.events,
            kills: quotas.kills,
            proxied: quotas.proxied,
            ..Report::default()
        };
        for role in ["zombie pause processor", "zombie pause retry-router"] {
            report.faults.insert(role.to_owned(), quotas.zombies / 2);
        }
        report.faults.insert("broker kill".to_owned(), quotas.broker_kills);
        report.faults.extend(CrashPoint::ALL.map(|point| (format!("crash {}", point.name()), 1)));
        assert_eq!(quotas.unmet(&report), Vec::<String>::new());

        report.kills -= 1;
        report.faults.remove("zombie pause processor");
        report.faults.remove("crash after-produce");
        let missing =
            ["59 SIGKILLs of 60", "10 zombie pauses of 20", "crash after-produce never happened"];
        assert_eq!(quotas.unmet(&report), missing);
    }
}
