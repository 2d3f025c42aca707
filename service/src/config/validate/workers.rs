//! Rules of the two worker roles: groups, batches, time-outs, tiers, routes.

use super::{
    Config, DAY, MAX_TOPIC_LENGTH, MILLISECOND, MINUTE, Rules, SECOND, YEAR, is_name_char, nearest,
};

impl Config {
    pub(super) fn workers_values(&self, rules: &mut Rules) {
        let (processor, retry) = (&self.processor, &self.retry);
        for (role, group, instance, workers, max_batch) in [
            (
                "processor",
                &processor.group,
                &processor.instance,
                processor.workers,
                processor.max_batch,
            ),
            ("retry", &retry.group, &retry.instance, retry.workers, retry.max_batch),
        ] {
            rules.kafka_id(&format!("{role}.group"), group);
            if let Some(instance) = instance {
                rules.kafka_id(&format!("{role}.instance"), instance);
            }
            rules.range(format!("{role}.workers"), workers, 1, 256);
            rules.range(format!("{role}.max_batch"), max_batch, 1, 100_000);
        }
        for (role, batch, transaction, session) in [
            (
                "processor",
                processor.max_batch_time,
                processor.transaction_timeout,
                processor.session_timeout,
            ),
            ("retry", retry.max_batch_time, retry.transaction_timeout, retry.session_timeout),
        ] {
            rules.span(format!("{role}.max_batch_time"), batch, MILLISECOND, 10 * SECOND);
            rules.span(format!("{role}.transaction_timeout"), transaction, SECOND, 15 * MINUTE);
            rules.span(format!("{role}.session_timeout"), session, 6 * SECOND, 30 * MINUTE);
        }
        rules.range("processor.index_buffer", processor.index_buffer, 100, 10_000_000);
        rules.span("processor.dedup_window", processor.dedup_window, SECOND, 10 * YEAR);
        rules.range("retry.look_ahead", retry.look_ahead, 1, 1_000_000);
        rules.require(
            (1..=16).contains(&retry.tiers.len()),
            "retry.tiers",
            format!("{} tiers are given; allowed is 1 to 16", retry.tiers.len()),
        );
        rules.require(
            retry.tiers.is_sorted_by(|a, b| a < b),
            "retry.tiers",
            "each tier must be longer than the one before it",
        );
        for tier in &retry.tiers {
            rules.span("retry.tiers", *tier, 10 * MILLISECOND, 30 * DAY);
            rules.require(
                tier.subsec_nanos().is_multiple_of(1_000_000),
                "retry.tiers",
                "a tier is a whole number of milliseconds",
            );
        }
        for (index, route) in processor.routes.iter().enumerate() {
            self.route_values(rules, &format!("processor.route.{index}"), &route.topic);
        }
    }

    fn route_values(&self, rules: &mut Rules, key: &str, topic: &str) {
        let key = format!("{key}.topic");
        let legal = !topic.is_empty()
            && topic.len() <= MAX_TOPIC_LENGTH
            && topic.chars().all(is_name_char)
            && !matches!(topic, "." | "..");
        rules.require(
            legal,
            key.clone(),
            "a topic has 1 to 249 characters of letters, digits, `.`, `_` and `-`",
        );
        let own = topic
            .strip_prefix(self.topics.prefix.as_str())
            .is_some_and(|name| name.starts_with("webhooks."));
        rules.require(
            !own,
            key,
            "this name belongs to sluice's own topics; route to another, such as \"payments.events\"",
        );
    }

    pub(super) fn workers_relations(&self, rules: &mut Rules) {
        let (processor, retry) = (&self.processor, &self.retry);
        for (role, batch, transaction, session) in [
            (
                "processor",
                processor.max_batch_time,
                processor.transaction_timeout,
                processor.session_timeout,
            ),
            ("retry", retry.max_batch_time, retry.transaction_timeout, retry.session_timeout),
        ] {
            rules.require(
                batch < transaction,
                format!("{role}.max_batch_time"),
                format!(
                    "must be below {role}.transaction_timeout, or every transaction is aborted"
                ),
            );
            rules.require(
                transaction < session,
                format!("{role}.transaction_timeout"),
                format!(
                    "must be below {role}.session_timeout, so that a dead worker's transaction ends before its partitions move"
                ),
            );
        }
        rules.require(
            processor.group != retry.group,
            "retry.group",
            "must differ from processor.group: they read different topics",
        );
        for (index, route) in processor.routes.iter().enumerate() {
            for (position, name) in route.sources.iter().enumerate() {
                let names = || self.sources.iter().map(|source| source.name.as_str());
                if names().all(|known| known != name) {
                    let hint = nearest(name, names())
                        .map(|name| format!("; did you mean `{name}`?"))
                        .unwrap_or_default();
                    rules.refuse(
                        format!("processor.route.{index}.sources.{position}"),
                        format!("there is no source `{name}`{hint}"),
                    );
                }
            }
        }
    }
}
