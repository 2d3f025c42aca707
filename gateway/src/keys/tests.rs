//! Fetching from a server on this machine, with a clock that the tests turn.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::VecDeque;
use std::sync::atomic::AtomicUsize;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use futures::future::join_all;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::*;

pub(super) const HOUR: Duration = Duration::from_secs(3600);

/// A public key of 2048 bits, made for this test; nobody has kept its private half.
const PEM: &str = "\
-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA+XNVBovk6Lfq/YceZNyB
Lm2Q8ARce5df4gfdfhhD3BPsTbzxIWmKFKfkmog1BjU9HAwwcQ7oc7cWxk0Y31OU
oknapTXWkBxsl61vAFxALFG8qWd6d2qRCh5DOLkBzhxU3Q2JeHhGpd3nbNRUvokL
VBpI5lm3vF7526hUOH7BG7y78cumLSLZZbPQ9fP8p4kdE8tTmXHDLVJSW8C4T71q
NTQ5sG5JzA02x88bUVb9KBdy2saTo5PmZM+VC2cmPYDij+DTNrsyT1OVm/xdE6lV
1O0k658kLQocYxfOrkbVyKQVMaIdgq1XkU8isaEvXjNZFoM8xQfaaOQMVqwTQcuU
gwIDAQAB
-----END PUBLIC KEY-----
";

const URL: &str = "https://keys.example/certs/A-1";

pub(super) fn document() -> KeyDocument {
    KeyDocument::parse(PEM.as_bytes()).unwrap()
}

/// What the server answers.
enum Reply {
    Body(Vec<u8>),
    Status(u16),
    Redirect(String),
    /// Answers with the key once the test allows it.
    Held,
}

struct Script {
    replies: Mutex<VecDeque<Reply>>,
    asked: AtomicUsize,
    paths: Mutex<Vec<String>>,
    gate: Semaphore,
}

/// A store whose documents come from a scripted server. Without a script left it answers with the key.
struct World {
    store: KeyStore,
    budget: Budget,
    origin: Origin,
    script: Arc<Script>,
    shift: Arc<Mutex<Duration>>,
}

async fn answer(State(script): State<Arc<Script>>, request: Request) -> Response {
    script.asked.fetch_add(1, Ordering::SeqCst);
    script.paths.lock().unwrap().push(request.uri().to_string());
    let reply = script.replies.lock().unwrap().pop_front();
    match reply.unwrap_or_else(|| Reply::Body(PEM.into())) {
        Reply::Body(body) => body.into_response(),
        Reply::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Reply::Redirect(to) => (StatusCode::FOUND, [(header::LOCATION, to)]).into_response(),
        Reply::Held => {
            script.gate.acquire().await.unwrap().forget();
            PEM.into_response()
        }
    }
}

impl World {
    async fn new(replies: impl IntoIterator<Item = Reply>) -> Self {
        Self::with_time_out(replies, TIME_OUT).await
    }

    async fn with_time_out(replies: impl IntoIterator<Item = Reply>, time_out: Duration) -> Self {
        let script = Arc::new(Script {
            replies: Mutex::new(replies.into_iter().collect()),
            asked: AtomicUsize::new(0),
            paths: Mutex::default(),
            gate: Semaphore::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(Arc::clone(&script));
        // Ends with the test's runtime.
        tokio::spawn(async move { axum::serve(listener, router).await });
        let shift = Arc::new(Mutex::new(Duration::ZERO));
        let (start, shifted) = (Instant::now(), Arc::clone(&shift));
        let clock = Box::new(move || start + *shifted.lock().unwrap());
        let metrics = Arc::new(Metrics::new());
        Self {
            store: KeyStore::with(Outbound::new().unwrap(), metrics, time_out, clock),
            budget: Budget::new(),
            origin: Origin::parse(&origin).unwrap(),
            script,
            shift,
        }
    }

    fn later(&self, by: Duration) {
        *self.shift.lock().unwrap() += by;
    }

    /// A verification that needs the document at `url`, and nothing else.
    async fn verify(&self, url: &str) -> Result<(), Refusal> {
        self.verify_wanting(url, |_| true).await
    }

    /// The same, where the document must have the key as `has` says by its number of looks.
    async fn verify_wanting(&self, url: &str, has: impl Fn(usize) -> bool) -> Result<(), Refusal> {
        self.verify_for(self.asker(&self.budget), url, has).await
    }

    fn asker<'a>(&'a self, budget: &'a Budget) -> Asker<'a> {
        Asker { origin: Some(&self.origin), budget, fixed_url: None }
    }

    async fn verify_for(
        &self,
        asker: Asker<'_>,
        url: &str,
        has: impl Fn(usize) -> bool,
    ) -> Result<(), Refusal> {
        let looks = AtomicUsize::new(0);
        let verify = |keys: &dyn PublishedKeys| {
            let look = looks.fetch_add(1, Ordering::SeqCst);
            assert!(look < 2, "verified more than twice");
            let needs = |outdated| Rejection::NeedsKey { url: url.to_owned(), outdated };
            keys.get(url).ok_or_else(|| needs(false))?;
            if has(look) { Ok(()) } else { Err(needs(true)) }
        };
        self.store.verify(asker, verify).await
    }

    fn asked(&self) -> usize {
        self.script.asked.load(Ordering::SeqCst)
    }
}

fn rejected(outdated: bool) -> Result<(), Refusal> {
    Err(Refusal::Rejected(Rejection::NeedsKey { url: URL.to_owned(), outdated }))
}

#[tokio::test]
async fn a_document_is_fetched_once_for_all_who_wait() {
    let world = World::new([Reply::Held]).await;
    let waiting = join_all((0..50).map(|_| world.verify(URL)));
    let release = async {
        // One is being answered; the gate opens for it alone.
        while world.asked() == 0 {
            tokio::task::yield_now().await;
        }
        world.script.gate.add_permits(1);
    };
    let (answers, ()) = tokio::join!(waiting, release);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(world.verify(URL).await, Ok(()));
    assert_eq!(world.asked(), 1);
    assert_eq!(*world.script.paths.lock().unwrap(), ["/certs/A-1"]);
    // Another URL is another document.
    assert_eq!(world.verify("https://keys.example/certs/B?x=1").await, Ok(()));
    assert_eq!(world.script.paths.lock().unwrap()[1], "/certs/B?x=1");
}

#[tokio::test]
async fn a_fetch_goes_on_without_the_request_that_began_it() {
    let world = World::new([Reply::Held]).await;
    let begun = async {
        while world.asked() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        answer = world.verify(URL) => panic!("{answer:?}"),
        () = begun => {}
    }
    world.script.gate.add_permits(1);
    assert_eq!(world.verify(URL).await, Ok(()));
    assert_eq!(world.asked(), 1);
}

#[tokio::test]
async fn what_the_provider_does_not_have_is_refused_and_not_asked_again_for_a_while() {
    for status in [404, 410] {
        let world = World::new([Reply::Status(status)]).await;
        for _ in 0..3 {
            assert_eq!(world.verify(URL).await, rejected(false), "{status}");
        }
        assert_eq!(world.asked(), 1);
        world.later(cache::AFTER_ABSENCE);
        assert_eq!(world.verify(URL).await, Ok(()));
    }
}

#[tokio::test]
async fn every_other_failure_is_for_the_sender_to_try_again() {
    let elsewhere = World::new([]).await;
    let to = format!("http://{}/x", Target::new(URL, Some(&elsewhere.origin)).unwrap().host());
    let large = [PEM.as_bytes(), &vec![b'\n'; MAX_KEY_DOCUMENT_BYTES]].concat();
    let replies: Vec<fn(&str, &[u8]) -> Reply> = vec![
        |_, _| Reply::Status(500),
        |_, _| Reply::Status(403),
        |_, _| Reply::Status(204),
        |to, _| Reply::Redirect(to.to_owned()),
        |_, large| Reply::Body(large.to_owned()),
        |_, _| Reply::Body(b"<html>".to_vec()),
        |_, _| Reply::Body(Vec::new()),
    ];
    for (case, reply) in replies.into_iter().enumerate() {
        let world = World::new([reply(&to, &large)]).await;
        for _ in 0..3 {
            assert_eq!(world.verify(URL).await, Err(Refusal::NoKey), "{case}");
        }
        assert_eq!(world.asked(), 1, "{case}: a failure is not repeated at once");
        world.later(cache::AFTER_FAILURE);
        assert_eq!(world.verify(URL).await, Ok(()), "{case}");
    }
    assert_eq!(elsewhere.asked(), 0, "redirects are not followed");
}

#[tokio::test]
async fn a_document_just_small_enough_is_taken() {
    let padding = vec![b'\n'; MAX_KEY_DOCUMENT_BYTES - PEM.len()];
    let world = World::new([Reply::Body([PEM.as_bytes(), &padding].concat())]).await;
    assert_eq!(world.verify(URL).await, Ok(()));
}

#[tokio::test]
async fn a_slow_or_absent_server_costs_the_time_out_and_no_more() {
    let world = World::with_time_out([Reply::Held], Duration::from_millis(200)).await;
    let started = Instant::now();
    assert_eq!(world.verify(URL).await, Err(Refusal::NoKey));
    assert!(started.elapsed() < TIME_OUT, "{:?}", started.elapsed());
    world.later(cache::AFTER_FAILURE);
    assert_eq!(world.verify(URL).await, Ok(()));

    let mut world = World::new([]).await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.origin = Origin::parse(&format!("http://{}", closed.local_addr().unwrap())).unwrap();
    drop(closed);
    assert_eq!(world.verify(URL).await, Err(Refusal::NoKey));
}

#[tokio::test]
async fn a_rotated_key_is_fetched_at_most_once_a_minute() {
    let world = World::new([]).await;
    assert_eq!(world.verify(URL).await, Ok(()));
    // Somebody names a key that is not in the document that has just come.
    assert_eq!(world.verify_wanting(URL, |_| false).await, rejected(true));
    assert_eq!(world.asked(), 1);
    world.later(cache::BETWEEN_RENEWALS);
    assert_eq!(world.verify_wanting(URL, |look| look == 1).await, Ok(()));
    assert_eq!(world.asked(), 2);
    assert_eq!(world.verify_wanting(URL, |_| false).await, rejected(true));
    assert_eq!(world.asked(), 2);
    // Fetched, and it still is not there.
    world.later(cache::BETWEEN_RENEWALS);
    assert_eq!(world.verify_wanting(URL, |_| false).await, rejected(true));
    assert_eq!(world.asked(), 3);
    // While the provider fails nobody knows.
    world.later(cache::BETWEEN_RENEWALS);
    world.script.replies.lock().unwrap().push_back(Reply::Status(500));
    assert_eq!(world.verify_wanting(URL, |_| false).await, Err(Refusal::NoKey));
    assert_eq!(world.verify(URL).await, Ok(()), "those whose key is there are served");
    assert_eq!(world.asked(), 4);
}

#[tokio::test]
async fn a_stale_document_serves_while_its_renewal_fails_but_not_for_ever() {
    let world = World::new([]).await;
    assert_eq!(world.verify(URL).await, Ok(()));
    world.later(CERTIFICATE_FRESH);
    world.script.replies.lock().unwrap().extend([Reply::Status(500), Reply::Status(404)]);
    for _ in 0..3 {
        assert_eq!(world.verify(URL).await, Ok(()));
    }
    assert_eq!(world.asked(), 2, "renewal is tried once and then left alone");
    world.later(cache::BETWEEN_RENEWALS);
    assert_eq!(world.verify(URL).await, Ok(()));
    assert_eq!(world.asked(), 3);
    // A key that the stale document does not have may be a new one.
    assert_eq!(world.verify_wanting(URL, |_| false).await, Err(Refusal::NoKey));
    world.later(cache::SERVED_STALE);
    world.script.replies.lock().unwrap().push_back(Reply::Status(500));
    assert_eq!(world.verify(URL).await, Err(Refusal::NoKey));
    world.later(cache::AFTER_FAILURE);
    assert_eq!(world.verify(URL).await, Ok(()));
}

#[tokio::test]
async fn what_is_no_fetchable_url_and_what_needs_no_key_is_not_fetched() {
    let world = World::new([]).await;
    for url in ["http://keys.example/x", "https://u@keys.example/x", "junk"] {
        let wanted = Rejection::NeedsKey { url: url.to_owned(), outdated: false };
        assert_eq!(world.verify(url).await, Err(Refusal::Rejected(wanted)));
    }
    let refused = |_: &dyn PublishedKeys| Err::<(), _>(Rejection::NoMatch { secrets: 1 });
    let answer = world.store.verify(world.asker(&world.budget), refused).await;
    assert_eq!(answer, Err(Refusal::Rejected(Rejection::NoMatch { secrets: 1 })));
    assert_eq!(world.asked(), 0);
}

#[tokio::test]
async fn forged_urls_cannot_make_us_hammer_the_provider() {
    let world = World::new((0..200).map(|_| Reply::Status(404))).await;
    assert_eq!(world.verify_many("x", 1).await, 1);
    let forged = world.verify_many("y", 150).await;
    assert!(forged < 100, "{forged}");
    assert!(world.asked() < 100, "{}", world.asked());
    // Another source, and a URL that the configuration fixes, are not held up.
    let (before, other) = (world.asked(), Budget::new());
    world.script.replies.lock().unwrap().clear();
    assert_eq!(world.verify(URL).await, Err(Refusal::NoKey), "control: the allowance is spent");
    let fixed = Asker { fixed_url: Some(URL), ..world.asker(&world.budget) };
    let elsewhere = "https://keys.example/certs/A-2";
    assert_eq!(world.verify_for(fixed, elsewhere, |_| true).await, Err(Refusal::NoKey));
    assert_eq!(world.asked(), before);
    assert_eq!(world.verify_for(fixed, URL, |_| true).await, Ok(()));
    assert_eq!(world.verify_for(world.asker(&other), elsewhere, |_| true).await, Ok(()));
    assert_eq!(world.asked(), before + 2);
}

#[tokio::test]
async fn fetches_that_hang_hold_up_their_source_alone() {
    let world = World::new((0..MAX_FLIGHTS).map(|_| Reply::Held)).await;
    let hanging = join_all((0..MAX_FLIGHTS).map(|i| {
        let url = format!("https://keys.example/certs/hangs-{i}");
        let world = &world;
        async move { world.verify(&url).await }
    }));
    let meanwhile = async {
        while world.asked() < MAX_FLIGHTS {
            tokio::task::yield_now().await;
        }
        assert_eq!(world.verify(URL).await, Err(Refusal::NoKey), "its slots are taken");
        let other = Budget::new();
        assert_eq!(world.verify_for(world.asker(&other), URL, |_| true).await, Ok(()));
        let url = "https://keys.example/jwks";
        let fixed = Asker { fixed_url: Some(url), ..world.asker(&world.budget) };
        assert_eq!(world.verify_for(fixed, url, |_| true).await, Ok(()));
        assert_eq!(world.asked(), MAX_FLIGHTS + 2);
        world.script.gate.add_permits(MAX_FLIGHTS);
    };
    let (answers, ()) = tokio::join!(hanging, meanwhile);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let next = world.verify("https://keys.example/certs/next").await;
    assert_eq!(next, Ok(()), "slots are free again");
}

#[tokio::test]
async fn renewals_have_slots_of_their_own() {
    let world = World::new([]).await;
    let url = |i: usize| format!("https://keys.example/certs/known-{i}");
    for i in 0..=MAX_FLIGHTS {
        assert_eq!(world.verify(&url(i)).await, Ok(()));
    }
    let fixed_url = url(MAX_FLIGHTS);
    let known = world.asked();
    world.later(CERTIFICATE_FRESH);
    world.script.replies.lock().unwrap().extend((0..MAX_FLIGHTS).map(|_| Reply::Held));
    let renewing = join_all((0..MAX_FLIGHTS).map(|i| {
        let (world, url) = (&world, url(i));
        async move { world.verify(&url).await }
    }));
    let meanwhile = async {
        while world.asked() < known + MAX_FLIGHTS {
            tokio::task::yield_now().await;
        }
        // No slot: the stale document serves.
        assert_eq!(world.verify(&fixed_url).await, Ok(()));
        assert_eq!(world.asked(), known + MAX_FLIGHTS);
        assert_eq!(world.verify(URL).await, Ok(()), "new ones are not held up");
        let fixed = Asker { fixed_url: Some(&fixed_url), ..world.asker(&world.budget) };
        assert_eq!(world.verify_for(fixed, &fixed_url, |_| true).await, Ok(()));
        assert_eq!(world.asked(), known + MAX_FLIGHTS + 2, "nor is one that is fixed");
        world.script.gate.add_permits(MAX_FLIGHTS);
    };
    let (answers, ()) = tokio::join!(renewing, meanwhile);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
}

impl World {
    /// Asks for `count` URLs one after another; how many of them were refused for good.
    async fn verify_many(&self, name: &str, count: usize) -> usize {
        let mut refused = 0;
        for i in 0..count {
            let answer = self.verify(&format!("https://keys.example/certs/{name}{i}")).await;
            refused += usize::from(matches!(answer, Err(Refusal::Rejected(_))));
        }
        refused
    }
}

#[test]
fn freshness_is_what_the_publisher_says_within_bounds() {
    let said = |lines: &[(&str, &str)]| {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(http::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        fresh_for(true, max_age(&headers)).as_secs()
    };
    let control = "cache-control";
    assert_eq!(said(&[(control, "public, max-age=19800, must-revalidate")]), 19_800);
    assert_eq!(said(&[(control, "public, Max-Age=19800"), ("age", "9800")]), 10_000);
    assert_eq!(said(&[(control, "public"), (control, "max-age=\"600\"")]), 600);
    assert_eq!(said(&[(control, "max-age=0")]), 300);
    assert_eq!(said(&[(control, "max-age=600"), ("age", "900")]), 300);
    assert_eq!(said(&[(control, "max-age=31536000")]), 86_400);
    assert_eq!(said(&[(control, "max-age=soon")]), 3600);
    assert_eq!(said(&[(control, "s-maxage=7200")]), 3600);
    assert_eq!(said(&[]), 3600);
    assert_eq!(fresh_for(false, Some(Duration::ZERO)), CERTIFICATE_FRESH);
}
