//! Sample GitHub events, shaped as GitHub renders them.

use serde_json::{Value, json};

use crate::SampleSpec;
use crate::seeded::{sample_amount, sample_id, sample_number, sample_uuid};

/// The delivery's ID, its type and its body; `None` where `now_ms` is no time.
pub(super) fn event(spec: &SampleSpec<'_>) -> Option<(String, String, String)> {
    let event_type = spec.event_type.unwrap_or("sponsorship");
    let now = jiff::Timestamp::from_millisecond(spec.now_ms).ok()?.to_string();
    let seed = spec.seed;
    let body = match event_type {
        "sponsorship" => sponsorship(seed, &now),
        "marketplace_purchase" => marketplace_purchase(seed, &now),
        "ping" => ping(seed, &now),
        "push" => push(seed, &now),
        "pull_request" => pull_request(seed, &now),
        _ => {
            json!({"action": "created", "repository": repository(seed), "sender": user("monalisa", 2)})
        }
    };
    Some((sample_uuid(seed), event_type.to_owned(), body.to_string()))
}

fn user(login: &str, id: u64) -> Value {
    json!({
        "login": login,
        "id": id,
        "url": format!("https://api.github.com/users/{login}"),
        "type": "User",
        "site_admin": false,
    })
}

fn repository(seed: u64) -> Value {
    json!({
        "id": sample_number(seed),
        "name": "Hello-World",
        "full_name": "octocat/Hello-World",
        "private": false,
        "owner": user("octocat", 5),
        "default_branch": "main",
    })
}

fn sponsorship(seed: u64, now: &str) -> Value {
    let cents = sample_amount(seed) / 100 * 100;
    json!({
        "action": "created",
        "sponsorship": {
            "node_id": sample_id("S_", seed),
            "created_at": now,
            "sponsorable": user("octocat", 5),
            "sponsor": user("monalisa", 2),
            "privacy_level": "public",
            "tier": {
                "node_id": sample_id("ST_", seed),
                "created_at": "2019-12-20T19:17:05Z",
                "description": "foo",
                "monthly_price_in_cents": cents,
                "monthly_price_in_dollars": cents / 100,
                "name": format!("${} a month", cents / 100),
                "is_one_time": false,
                "is_custom_amount": false,
            },
        },
        "sender": user("monalisa", 2),
    })
}

fn marketplace_purchase(seed: u64, now: &str) -> Value {
    json!({
        "action": "purchased",
        "effective_date": now,
        "sender": user("monalisa", 2),
        "marketplace_purchase": {
            "account": {
                "type": "Organization",
                "id": sample_number(seed),
                "login": "github",
                "organization_billing_email": "billing@example.com",
            },
            "billing_cycle": "monthly",
            "unit_count": 1,
            "on_free_trial": false,
            "free_trial_ends_on": null,
            "next_billing_date": now,
            "plan": {
                "id": 435,
                "name": "Basic Plan",
                "description": "Basic Plan",
                "monthly_price_in_cents": sample_amount(seed),
                "yearly_price_in_cents": sample_amount(seed) * 10,
                "price_model": "FLAT_RATE",
                "has_free_trial": true,
                "unit_name": null,
                "bullets": ["Is Basic"],
            },
        },
    })
}

fn ping(seed: u64, now: &str) -> Value {
    json!({
        "zen": "Keep it logically awesome.",
        "hook_id": sample_number(seed),
        "hook": {
            "type": "Repository",
            "id": sample_number(seed),
            "name": "web",
            "active": true,
            "events": ["push"],
            "config": {"content_type": "json", "insecure_ssl": "0"},
            "created_at": now,
        },
        "repository": repository(seed),
        "sender": user("octocat", 5),
    })
}

fn push(seed: u64, now: &str) -> Value {
    json!({
        "ref": "refs/heads/main",
        "before": format!("{:040x}", seed),
        "after": format!("{:040x}", !seed),
        "repository": repository(seed),
        "pusher": {"name": "octocat", "email": "octocat@example.com"},
        "sender": user("octocat", 5),
        "created": false,
        "deleted": false,
        "forced": false,
        "commits": [{
            "id": format!("{:040x}", !seed),
            "message": "Update README",
            "timestamp": now,
            "author": {"name": "octocat", "email": "octocat@example.com"},
        }],
    })
}

fn pull_request(seed: u64, now: &str) -> Value {
    json!({
        "action": "opened",
        "number": 1,
        "pull_request": {
            "id": sample_number(!seed),
            "number": 1,
            "state": "open",
            "title": "Update the README",
            "user": user("octocat", 5),
            "created_at": now,
            "merged": false,
        },
        "repository": repository(seed),
        "sender": user("octocat", 5),
    })
}
