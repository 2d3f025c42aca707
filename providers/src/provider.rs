//! The contract every provider fulfils.
//!
//! Two traits, because two roles need different halves: the gateway holds secrets and needs all of
//! [`Provider`]; the processor has no secrets and needs [`Normalise`] alone.
//!
//! The contract is wide enough for the awkward ones. Batches return several events from
//! [`Provider::identify`]; signatures inside the body, form bodies and signed URLs are all in
//! [`Request`]; endpoint challenges are answered by [`Provider::challenge`]; keys that a provider
//! publishes (certificates, key sets) arrive as settings, and a source is built anew when they change.

use std::fmt::Debug;

use crate::{
    Acknowledgement, Identified, Normalised, Payload, Rejection, Request, SampleRequest,
    SampleSpec, Verdict,
};

/// Reads an event's payload in common terms. Needs no secret.
pub trait Normalise: Send + Sync + Debug {
    /// Says what `payload` reports. Never fails: what cannot be read stays `None`, and a type
    /// without a canonical name becomes `provider.<type>`, so that no event is dropped for its shape.
    fn normalise(&self, payload: &Payload<'_>) -> Normalised;
}

/// One configured provider with its key material, parsed once when the source is built.
pub trait Provider: Normalise {
    /// Checks the signature over the bytes as received, then its age.
    ///
    /// `now_ms` is the time to judge age by, in milliseconds since the Unix epoch.
    /// The order is fixed (MAC first, then age, in both directions), so that only a holder of the
    /// secret learns anything about the clock.
    ///
    /// # Errors
    /// A [`Rejection`] that says what is wrong with the request; it never holds a secret or an
    /// expected signature.
    fn verify(&self, request: &Request<'_>, now_ms: i64) -> Result<Verdict, Rejection>;

    /// Lists the events a *verified* request carries, in the order they appear.
    ///
    /// The same delivery must give the same identities every time: nothing random, no clock.
    /// What cannot be identified is returned as [`Identified::new`] without an ID, or left out when it
    /// is the whole request: [`crate::Source::identify`] never returns an empty list.
    fn identify(&self, request: &Request<'_>) -> Vec<Identified>;

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

    /// HTTP status of the answer to a rejected request.
    fn rejection_status(&self) -> u16 {
        401
    }

    /// A realistic request, signed with the source's first secret and valid at `spec.now_ms`;
    /// the same `spec` gives the same request. `None` where only the provider itself can sign.
    fn sample(&self, spec: &SampleSpec<'_>) -> Option<SampleRequest>;
}
