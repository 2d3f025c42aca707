//! Liveness and readiness, told by the parts that know them.
//!
//! A role registers a [`Component`] for each thing it depends on (`kafka`, `restore`, `schemas`) and says when that
//! is ready and why it is not. The process is ready when every component is, and there is one. It is alive until a
//! fatal condition is reported. [`serve_management`] answers for both, and serves the metrics, on the management port.

mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

pub use server::serve_management;

/// The health of one process. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Health {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    components: BTreeMap<&'static str, Option<String>>,
    /// Those that have been ready before: what is under way for the first time is no trouble yet.
    were_ready: BTreeSet<&'static str>,
    fatal: Option<String>,
}

/// One thing that must be ready before the process is. Clones speak of the same thing.
#[derive(Clone, Debug)]
pub struct Component {
    name: &'static str,
    state: Arc<Mutex<State>>,
}

/// Whether the process is ready, and each component's part in it; the JSON of `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Whether every component is ready, and there is at least one.
    pub ready: bool,
    /// Each component by name.
    pub components: BTreeMap<&'static str, ComponentReadiness>,
}

/// Whether one component is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ComponentReadiness {
    /// Whether it is ready.
    pub ready: bool,
    /// Why it is not; absent when it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Health {
    /// A process without components: alive, not ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a component, not ready for the reason `starting`; one that exists already keeps its state.
    pub fn component(&self, name: &'static str) -> Component {
        let mut state = lock(&self.state);
        state.components.entry(name).or_insert_with(|| Some("starting".to_owned()));
        Component { name, state: Arc::clone(&self.state) }
    }

    /// Reports a condition that only a restart can mend: from now on the process counts as dead. The first reason stays.
    pub fn fatal(&self, reason: impl Into<String>) {
        let reason = reason.into();
        tracing::error!(reason, "fatal condition");
        lock(&self.state).fatal.get_or_insert(reason);
    }

    /// The fatal condition reported, if any.
    pub fn fatal_reason(&self) -> Option<String> {
        lock(&self.state).fatal.clone()
    }

    /// Whether the process is ready now, with the reasons.
    pub fn readiness(&self) -> Readiness {
        let state = lock(&self.state);
        let components: BTreeMap<_, _> = state
            .components
            .iter()
            .map(|(name, reason)| {
                let component =
                    ComponentReadiness { ready: reason.is_none(), reason: reason.clone() };
                (*name, component)
            })
            .collect();
        Readiness {
            ready: state.fatal.is_none()
                && !components.is_empty()
                && components.values().all(|component| component.ready),
            components,
        }
    }
}

impl Component {
    /// The component is ready. Cheap when it was already.
    pub fn ready(&self) {
        let mut state = lock(&self.state);
        let Some(was) = state.components.insert(self.name, None).flatten() else { return };
        state.were_ready.insert(self.name);
        drop(state);
        tracing::info!(component = self.name, was, "ready");
    }

    /// The component is not ready, for this reason. Keep it short and free of secrets: it is served on the management port.
    pub fn not_ready(&self, reason: &str) {
        let mut state = lock(&self.state);
        let current = state.components.entry(self.name).or_default();
        if current.as_deref() == Some(reason) {
            return;
        }
        *current = Some(reason.to_owned());
        let was_ready = state.were_ready.contains(self.name);
        drop(state);
        if was_ready {
            tracing::warn!(component = self.name, reason, "not ready");
        } else {
            tracing::info!(component = self.name, reason, "not ready yet");
        }
    }
}

/// A panic while the lock was held leaves whole values behind, so a poisoned lock may be used.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_every_component_is() {
        let health = Health::new();
        assert!(!health.readiness().ready, "nothing registered yet");
        let kafka = health.component("kafka");
        let restore = health.component("restore");
        let starting = health.readiness();
        assert!(!starting.ready);
        let reason = starting.components["kafka"].reason.as_deref();
        assert_eq!(reason, Some("starting"));
        kafka.ready();
        assert!(!health.readiness().ready);
        restore.ready();
        assert!(health.readiness().ready);
        let again = health.component("kafka");
        assert!(health.readiness().ready, "registering again keeps the state");
        again.not_ready("broker away");
        let away = health.readiness();
        assert!(!away.ready);
        let reason = away.components["kafka"].reason.as_deref();
        assert_eq!(reason, Some("broker away"));
        kafka.ready();
        assert!(health.readiness().ready);
    }

    #[test]
    fn a_fatal_condition_ends_readiness_and_its_first_reason_stays() {
        let health = Health::new();
        health.component("kafka").ready();
        assert!(health.readiness().ready);
        health.fatal("fenced");
        health.fatal("later");
        assert_eq!(health.fatal_reason().as_deref(), Some("fenced"));
        assert!(!health.readiness().ready);
    }
}
