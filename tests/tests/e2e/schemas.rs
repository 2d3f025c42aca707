//! Schemas in the registry: registered by an operator, checked, and never broken.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use serde_json::{Value, json};
use sluice_schemas::{RecordKind, Registry, RegistryError, SchemaStore, registry::RegistryOptions};
use sluice_tests::{
    account::{Account, drained},
    send::{Samples, Sender},
    sluice::{Pipeline, Setup},
    stack::shared,
    wait::{secs, until},
};

async fn states(pipeline: &Pipeline, wanted_status: i32) -> Vec<(String, String)> {
    let output = pipeline.try_run(&["schemas", "check", "--output", "json"]).await;
    assert_eq!(output.status.code(), Some(wanted_status), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = report["subjects"].as_array().unwrap();
    let text = |row: &Value, field: &str| row[field].as_str().unwrap().to_owned();
    rows.iter().map(|row| (text(row, "subject"), text(row, "state"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_that_holds_something_incompatible_is_refused() {
    let cluster = shared().await;
    let pipeline = Setup::new().write(&cluster);
    let before = states(&pipeline, 3).await;
    assert!(before.iter().all(|(_, state)| state == "not registered"), "{before:?}");

    // What another team, or a later version, could have put there: a field that every reader needs.
    let mut changed: Value =
        serde_json::from_str(RecordKind::ProcessedEvent.schema_text()).unwrap();
    changed["fields"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "needed_by_others", "type": "string"}));
    let subject = format!("{}-value", pipeline.topic("processed"));
    let url = format!("{}/subjects/{subject}/versions", cluster.registry);
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let body = json!({"schema": changed.to_string(), "schemaType": "AVRO"}).to_string();
    let json_type = "application/vnd.schemaregistry.v1+json";
    let put = http.post(&url).header("content-type", json_type).body(body).send().await.unwrap();
    assert!(put.status().is_success(), "{put:?}");
    let level = json!({"compatibility": "FULL_TRANSITIVE"}).to_string();
    let config = format!("{}/config/{subject}", cluster.registry);
    let put = http.put(config).header("content-type", json_type).body(level).send().await.unwrap();
    assert!(put.status().is_success(), "{put:?}");

    let found = states(&pipeline, 3).await;
    let incompatible: Vec<_> = found.iter().filter(|(_, state)| state == "incompatible").collect();
    assert_eq!(incompatible.iter().map(|(name, _)| name).collect::<Vec<_>>(), [&subject]);
    let table = pipeline.try_run(&["schemas", "check"]).await;
    assert!(String::from_utf8_lossy(&table.stdout).contains("incompatible"), "{table:?}");

    let refused = pipeline.try_run(&["schemas", "register"]).await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("refuses ProcessedEvent") && said.contains(&subject), "{said}");

    // Control: without the foreign schema the same command does its work, and twice is no mistake.
    for path in [format!("subjects/{subject}"), format!("subjects/{subject}?permanent=true")] {
        let gone = http.delete(format!("{}/{path}", cluster.registry)).send().await.unwrap();
        assert!(gone.status().is_success(), "{gone:?}");
    }
    for _ in 0..2 {
        pipeline.run(&["schemas", "register"]).await;
    }
    assert!(states(&pipeline, 0).await.iter().all(|(_, state)| state == "registered"));
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_wait_for_their_schemas_and_never_register_them() {
    let cluster = shared().await;
    let pipeline = Setup::new().write(&cluster);
    pipeline.run(&["topics", "create"]).await;
    let mut role = pipeline.all("a");
    until("every role to say what it waits for", secs(60), async || {
        let (status, body) = role.management("/readyz").await?;
        assert_eq!(status, 503, "{body}");
        (body.matches("run `sluice schemas register`").count() == 3).then_some(())
    })
    .await;
    let (sender, samples) = (Sender::new(), Samples::stripe());
    let early = sender.post(&role.url(), &samples.event(1)).await;
    assert_eq!(early.status, Some(503), "{early:?}");
    assert!(early.retry_after.is_some());
    let still = states(&pipeline, 3).await;
    assert!(still.iter().all(|(_, state)| state == "not registered"), "{still:?}");

    pipeline.run(&["schemas", "register"]).await;
    role.ready().await;
    sender.store(&[role.url()], vec![samples.event(1)]).await;
    drained(&pipeline, secs(30)).await;
    assert_eq!(Account::read(&pipeline).await.processed.len(), 1);
    role.terminate().await;
}

/// A registry whose answers are too long, lead elsewhere or never end is one that does not answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_registry_is_trusted_with_no_more_than_its_answers() {
    use axum::{Router, extract::Path, response::Redirect, routing::get};
    let led = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&led);
    let schema = |padding: usize| {
        let text = RecordKind::Rejected.schema_text();
        serde_json::json!({ "schema": text, "padding": "x".repeat(padding) }).to_string()
    };
    let answer = move |Path(id): Path<u32>| async move {
        match id {
            1 => Ok(schema(0)),
            2 => Ok(schema(2 << 20)),
            3 => Err(Redirect::temporary("/elsewhere")),
            _ => std::future::pending().await,
        }
    };
    let elsewhere = move || async move {
        counted.fetch_add(1, Ordering::SeqCst);
        RecordKind::Rejected.schema_text()
    };
    let router =
        Router::new().route("/schemas/ids/{id}", get(answer)).route("/elsewhere", get(elsewhere));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let registry =
        Registry::new(RegistryOptions { url, basic_auth: None, timeout: secs(2), cache_dir: None })
            .unwrap();
    let store = SchemaStore::new();
    registry.fetch(&store, 1).await.expect("control: a schema is fetched");
    for (id, says) in [(2, "more than a mebibyte"), (3, "307"), (4, "")] {
        let error = registry.fetch(&store, id).await.unwrap_err();
        assert!(matches!(error, RegistryError::Unavailable { .. }), "{id}: {error}");
        assert!(error.to_string().contains(says), "{id}: {error}");
    }
    assert_eq!(led.load(Ordering::SeqCst), 0, "nobody was asked elsewhere");
    server.abort();
}
