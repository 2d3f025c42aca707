//! The contract every provider fulfils.
//!
//! Two traits, because two roles need different halves: the gateway holds secrets and needs
//! [`Provider`]; the processor has no secrets and needs its [`Normalise`] alone.
//!
//! The contract is wide enough for the awkward ones. Batches return several events from
//! [`Provider::identify`]; signatures inside the body, form bodies and signed URLs are all in
//! [`Request`]; endpoint challenges are answered by [`Provider::challenge`]; keys that a provider
//! publishes (certificates, key sets) arrive as [`PublishedKeys`].

use std::fmt::Debug;

use http::HeaderMap;

use crate::{
    Acknowledgement, Fact, Fetch, Fetched, Identified, Normalised, Payload, PublishedKeys,
    Rejection, Request, SampleRequest, SampleSpec, Verdict,
};

/// Reads an event's payload in common terms. Needs no secret.
pub trait Normalise: Send + Sync + Debug {
    /// Says what `payload` reports. Never fails: what cannot be read stays `None`, and a type
    /// without a canonical name becomes `provider.<type>`, so that no event is dropped for its shape.
    fn normalise(&self, payload: &Payload<'_>) -> Normalised;

    /// Where the payload tells the object's *present* state and comes again whenever anything of the
    /// object changes, the facts that this state proves, as [`Fetched::facts`]. Several events may tell the
    /// same fact; it is one once. Empty, which costs nothing, where each event is a fact of its own.
    fn facts(&self, _payload: &Payload<'_>) -> Vec<Fact> {
        Vec::new()
    }

    /// Whether the event, by itself or with what is fetched, tells facts that others may tell too: all such
    /// events of one object have to be looked at together.
    fn tells_state(&self, payload: &Payload<'_>) -> bool {
        !self.facts(payload).is_empty()
    }

    /// As [`Normalise::facts`], for events that an earlier release took for facts of their own: it put them on the
    /// partition of their event, where nobody knows what others of the object tell. These facts count only where the
    /// record lies with all others of its object. The gateway puts there what was made after the upgrade, and leaves
    /// where it was what was made before, so that a redelivery finds its original.
    ///
    /// The kind that [`Normalise::normalise`] gives is what the event says where they do not count.
    fn moved_facts(&self, _payload: &Payload<'_>) -> Vec<Fact> {
        Vec::new()
    }

    /// Whether [`Normalise::moved_facts`] or [`Normalise::formerly`] ever has any: then it counts whether an event was made
    /// before the upgrade.
    fn has_moved(&self) -> bool {
        false
    }

    /// Event IDs under which an earlier release knew this delivery, where that was another than
    /// [`Identified::event_id`] now is: who was processed under one of them is a duplicate. They are looked up and
    /// never noted, so that they can be forged only in what was received before the upgrade.
    fn formerly(&self, _payload: &Payload<'_>) -> Vec<String> {
        Vec::new()
    }

    /// Whether the signature covers [`Identified::event_id`]. Where it does not, whoever holds one genuine delivery can
    /// send it under the ID of another, which would then pass for its duplicate. So the facts of such an event count
    /// whatever ID it comes under, and it is a duplicate only where they have been told.
    fn id_is_signed(&self) -> bool {
        true
    }

    /// What to fetch from the provider's API ([`crate::ProviderInfo::api`]) to complete the event, or to
    /// believe it at all; `None` where the payload is enough.
    fn fetch(&self, _payload: &Payload<'_>) -> Option<Fetch> {
        None
    }

    /// The event with the API's answer to [`Normalise::fetch`]. Never fails either: what the answer does
    /// not tell stays as the payload has it.
    fn fetched(&self, payload: &Payload<'_>, _answer: &[u8]) -> Fetched {
        Fetched::alone(self.normalise(payload))
    }

    /// Whether events of this source prove nothing until fetched: a source whose requests are not
    /// signed must not run without its API.
    fn must_fetch(&self) -> bool {
        false
    }

    /// Whether the source's events come from the provider's test environment, whose API lives elsewhere
    /// ([`crate::Api::test_base_url`]); `None` where its settings do not tell.
    fn is_test(&self) -> Option<bool> {
        None
    }
}

/// One configured provider with its key material, parsed once when the source is built.
pub trait Provider: Send + Sync + Debug {
    /// The half that needs no secret.
    fn reader(&self) -> &dyn Normalise;

    /// Checks the signature over the bytes as received, then its age.
    ///
    /// `keys` are the documents of published keys at hand. `now_ms` is the time to judge age by, in
    /// milliseconds since the Unix epoch.
    /// The order is fixed (MAC first, then age, in both directions), so that only a holder of the
    /// secret learns anything about the clock.
    ///
    /// # Errors
    /// A [`Rejection`] that says what is wrong with the request; it never holds a secret or an
    /// expected signature. [`Rejection::NeedsKey`] is no verdict yet.
    fn verify(
        &self,
        request: &Request<'_>,
        keys: &dyn PublishedKeys,
        now_ms: i64,
    ) -> Result<Verdict, Rejection>;

    /// What [`Provider::verify`] would say of any body, where the headers alone tell that: nobody needs to read it then.
    /// `None` where the body decides.
    fn lacking(&self, _headers: &HeaderMap) -> Option<Rejection> {
        None
    }

    /// Lists the events a *verified* request carries, in the order they appear.
    ///
    /// The same delivery must give the same identities every time: nothing random, no clock.
    /// What cannot be identified is returned as [`Identified::new`] without an ID, or left out when it
    /// is the whole request: [`crate::Source::identify`] never returns an empty list.
    fn identify(&self, request: &Request<'_>) -> Vec<Identified>;

    /// At least how many events [`Provider::identify`] would list, counted without reading any: so that a
    /// request of more than a caller takes can be refused before anything is made of each. 1 for providers
    /// whose requests carry one event, or few by their own rules.
    fn batch_size(&self, _request: &Request<'_>) -> usize {
        1
    }

    /// The answer this provider insists on after its events are stored.
    /// `None`: any 2xx will do, and the caller sends its own.
    fn acknowledgement(&self) -> Option<Acknowledgement> {
        None
    }

    /// The answer to an endpoint challenge (a request that asks for proof instead of carrying
    /// events), or `None` when `request` is not one.
    fn challenge(&self, _request: &Request<'_>) -> Option<Acknowledgement> {
        None
    }

    /// Whether events arrive with GET too. Their parameters are then in the query.
    fn accepts_get(&self) -> bool {
        false
    }

    /// A URL that the operator wants opened once when `request`, which is verified and stored, asks for
    /// it (a subscription that must be confirmed). Its host is pinned by the provider's rules.
    fn confirmation(&self, _request: &Request<'_>) -> Option<String> {
        None
    }

    /// Whether the signature covers what [`Identified::object_id`] is taken from. Where it does not, somebody
    /// who holds one genuine delivery can name another object in a copy of it, and whatever must find the
    /// original of that event must not go by the object.
    fn object_is_signed(&self) -> bool {
        true
    }

    /// The URL of the one key document that this source ever needs, where its configuration alone says
    /// which; `None` where requests name theirs, or no document is fetched.
    fn fixed_key_url(&self) -> Option<&str> {
        None
    }

    /// HTTP status of the answer to a rejected request.
    fn rejection_status(&self) -> u16 {
        401
    }

    /// A realistic request, signed with the source's first secret and valid at `spec.now_ms`;
    /// the same `spec` gives the same request. `None` where only the provider itself can sign.
    fn sample(&self, spec: &SampleSpec<'_>) -> Option<SampleRequest>;
}
