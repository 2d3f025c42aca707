//! Confirming a subscription: opening the link of a verified, stored request once, in the background.
//!
//! A provider asks for it only where the operator has allowed it, and pins the link's host. Nothing waits for
//! it: the request is answered by then, and what is lost is a convenience, for the link is stored with the
//! event and can be opened by hand. It holds a token, so no log line shows it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::metrics::{Confirmation, Metrics};
use crate::outbound::{Origin, Outbound, Target, with_causes};

/// Longest wait for the answer.
const TIME_OUT: Duration = Duration::from_secs(10);

/// Most links opened at a time; further ones are left to the operator.
const MAX_IN_FLIGHT: u32 = 8;

/// Longest name of a topic that is logged, in characters.
const MAX_TOPIC: usize = 256;

/// Opens confirmation links.
#[derive(Debug)]
pub(crate) struct Confirmations {
    outbound: Outbound,
    slots: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

impl Confirmations {
    /// None under way.
    pub(crate) fn new(outbound: Outbound, metrics: Arc<Metrics>) -> Self {
        Self { outbound, slots: Arc::new(Semaphore::new(MAX_IN_FLIGHT as usize)), metrics }
    }

    /// Opens `url`, at `origin` if there is one, and reports how that ended. Never waits.
    pub(crate) fn open(&self, source: &Arc<str>, url: &str, origin: Option<&Origin>) {
        let Some(target) = Target::new(url, origin) else {
            return report(source, "", "", &self.metrics, Err("it is no https link".to_owned()));
        };
        let topic = topic(&target);
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
            let busy = format!("{MAX_IN_FLIGHT} others are being confirmed");
            return report(source, target.host(), &topic, &self.metrics, Err(busy));
        };
        let (source, metrics) = (Arc::clone(source), Arc::clone(&self.metrics));
        let outbound = self.outbound.clone();
        tokio::spawn(async move {
            let outcome = get(&outbound, &target).await;
            report(&source, target.host(), &topic, &metrics, outcome);
            drop(slot);
        });
    }

    /// Waits until none is under way, at most so long.
    pub(crate) async fn finish(&self, at_most: Duration) {
        // Whether they ended or not, the process does.
        let _ = tokio::time::timeout(at_most, self.slots.acquire_many(MAX_IN_FLIGHT)).await;
    }
}

async fn get(outbound: &Outbound, target: &Target) -> Result<(), String> {
    let answer = tokio::time::timeout(TIME_OUT, outbound.get(target)).await;
    let answer = answer.map_err(|_| format!("no answer within {TIME_OUT:?}"))?;
    let status = answer.map_err(|error| with_causes(&error))?.status();
    if status.is_success() { Ok(()) } else { Err(format!("the answer is {}", status.as_u16())) }
}

fn report(
    source: &Arc<str>,
    host: &str,
    topic: &str,
    metrics: &Metrics,
    outcome: Result<(), String>,
) {
    match outcome {
        Ok(()) => {
            metrics.confirmation(Confirmation::Confirmed);
            tracing::info!(%source, host, topic, "subscription confirmed");
        }
        Err(reason) => {
            metrics.confirmation(Confirmation::Failed);
            tracing::error!(
                %source,
                host,
                topic,
                "subscription not confirmed: {reason}; open the link in the stored event (`sluice tail raw`) in a browser, or have the provider send the request again"
            );
        }
    }
}

/// What is subscribed to, where the link says so, in characters that cannot spoil a log.
fn topic(target: &Target) -> String {
    let topic = target.parameter("TopicArn").unwrap_or_default();
    topic.chars().filter(char::is_ascii_graphic).take(MAX_TOPIC).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::sync::Mutex;

    use axum::Router;
    use axum::extract::Request;
    use http::StatusCode;
    use tokio::net::TcpListener;

    use super::*;

    const LINK: &str = "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription\
                        &TopicArn=arn:aws:sns:eu-west-1:1:t&Token=topsecret";

    /// A server that notes what it is asked and answers once it may.
    async fn server(status: StatusCode, gate: Arc<Semaphore>) -> (Origin, Arc<Mutex<Vec<String>>>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&asked);
        let router = Router::new().fallback(move |request: Request| {
            noted.lock().unwrap().push(format!("{} {}", request.method(), request.uri()));
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await.unwrap().forget();
                status
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = Origin::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        // Ends with the test's runtime.
        tokio::spawn(async move { axum::serve(listener, router).await });
        (origin, asked)
    }

    fn confirmations() -> Confirmations {
        Confirmations::new(Outbound::new().unwrap(), Arc::new(Metrics::new()))
    }

    #[tokio::test]
    async fn a_link_is_opened_once_with_get_and_waited_for_at_the_end() {
        let gate = Arc::new(Semaphore::new(1));
        let (origin, asked) = server(StatusCode::OK, gate).await;
        let confirmations = confirmations();
        confirmations.open(&Arc::from("sns"), LINK, Some(&origin));
        confirmations.finish(TIME_OUT).await;
        let wanted = LINK.replace("https://sns.eu-west-1.amazonaws.com", "GET ");
        assert_eq!(*asked.lock().unwrap(), [wanted]);
    }

    #[tokio::test]
    async fn what_is_no_https_link_is_not_opened() {
        let gate = Arc::new(Semaphore::new(1));
        let (origin, asked) = server(StatusCode::OK, gate).await;
        let confirmations = confirmations();
        confirmations.open(&Arc::from("sns"), &LINK.replace("https", "http"), Some(&origin));
        confirmations.finish(TIME_OUT).await;
        assert_eq!(asked.lock().unwrap().len(), 0);
        assert_eq!(confirmations.slots.available_permits(), MAX_IN_FLIGHT as usize);
    }

    #[tokio::test]
    async fn no_more_than_the_bound_are_opened_at_a_time() {
        let gate = Arc::new(Semaphore::new(0));
        let (origin, asked) = server(StatusCode::OK, Arc::clone(&gate)).await;
        let confirmations = confirmations();
        for _ in 0..MAX_IN_FLIGHT + 5 {
            confirmations.open(&Arc::from("sns"), LINK, Some(&origin));
        }
        gate.add_permits(MAX_IN_FLIGHT as usize);
        confirmations.finish(TIME_OUT).await;
        assert_eq!(asked.lock().unwrap().len(), MAX_IN_FLIGHT as usize);
        // The slots are free again.
        gate.add_permits(1);
        confirmations.open(&Arc::from("sns"), LINK, Some(&origin));
        confirmations.finish(TIME_OUT).await;
        assert_eq!(asked.lock().unwrap().len(), MAX_IN_FLIGHT as usize + 1);
    }

    #[tokio::test]
    async fn a_refusal_or_silence_is_a_failure_that_hides_the_token() {
        let gate = Arc::new(Semaphore::new(2));
        let outbound = Outbound::new().unwrap();
        for (status, good) in [(StatusCode::OK, true), (StatusCode::FORBIDDEN, false)] {
            let (origin, _) = server(status, Arc::clone(&gate)).await;
            let target = Target::new(LINK, Some(&origin)).unwrap();
            assert_eq!(get(&outbound, &target).await.is_ok(), good, "{status}");
        }
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", closed.local_addr().unwrap());
        drop(closed);
        let target = Target::new(LINK, Some(&Origin::parse(&origin).unwrap())).unwrap();
        let error = get(&outbound, &target).await.unwrap_err();
        assert!(!error.contains("topsecret") && !error.is_empty(), "{error}");
        assert_eq!(topic(&target), "arn:aws:sns:eu-west-1:1:t");
    }
}
