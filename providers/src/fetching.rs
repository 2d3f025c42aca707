//! Whether a source fetches what it must, from where it can: one rule for every role.
//!
//! A source that takes unsigned notices and never asks its provider would believe anybody. The gateway,
//! the processor and the check of a configuration all ask here before they go on.

use serde_json::Value;

use crate::error::list;
use crate::{Api, BuildError, Credentials, known_providers, normaliser};

/// Checks a source's `[source.hydrate]`. `keys` are those of its keys that are set, out of `url`,
/// `base_url`, `environment`, `bearer`, `client_id`, `client_secret` and `not_found_for`; `None`: the source has
/// no such section. `test`: its `environment` is `test`.
///
/// Returns the provider's API where it is the one to be asked; `None` where there is nothing to ask or a
/// `url` is asked instead.
///
/// # Errors
/// [`BuildError`] as [`normaliser`]; [`BuildError::BadSetting`] with the key `hydrate` where the source must
/// fetch and does not, its provider has no API, or credentials are missing or of the wrong kind.
pub fn check_fetching(
    source_name: &str,
    provider: &str,
    settings: &Value,
    keys: Option<&[&str]>,
    test: bool,
) -> Result<Option<Api>, BuildError> {
    let reader = normaliser(source_name, provider, settings)?;
    let info = known_providers().iter().find(|info| info.name == provider);
    let api = judge(provider, info.and_then(|info| info.api), reader.must_fetch(), keys);
    let elsewhere = keys.is_some_and(|keys| keys.contains(&"base_url"));
    api.and_then(|api| match api {
        Some(_) if !elsewhere => same_environment(reader.is_test(), test).map(|()| api),
        _ => Ok(api),
    })
    .map_err(|problem| BuildError::BadSetting {
        source_name: source_name.to_owned(),
        key: "hydrate".to_owned(),
        problem,
    })
}

/// Whether the API that is asked is that of the environment the events come from: the other one knows
/// nothing of them, and every event would be asked for in vain. A `base_url` is the operator's own choice.
fn same_environment(source_is_test: Option<bool>, test: bool) -> Result<(), String> {
    match source_is_test {
        Some(true) if !test => Err("asks the provider's live API, but settings.environment says that the events come from its test environment, which the live API does not know: add environment = \"test\" to [source.hydrate]".to_owned()),
        Some(false) if test => Err("asks the API of the provider's test environment (environment = \"test\"), but settings.environment says that the events are live: leave environment out of [source.hydrate], or change settings.environment if this is a test source".to_owned()),
        _ => Ok(()),
    }
}

/// [`check_fetching`], given the provider's API and whether the source must ask it.
fn judge(
    provider: &str,
    api: Option<Api>,
    must_fetch: bool,
    keys: Option<&[&str]>,
) -> Result<Option<Api>, String> {
    let Some(keys) = keys else {
        return match api {
            Some(api) if must_fetch => Err(format!(
                "is missing: these requests are not signed, and prove nothing until the provider is asked ({}). Add [source.hydrate] with {}",
                api.summary,
                credentials(&api)
            )),
            _ => Ok(None),
        };
    };
    let has = |key: &str| keys.contains(&key);
    if has("url") {
        let api_only = ["base_url", "environment", "client_id", "client_secret", "not_found_for"];
        if let Some(key) = api_only.into_iter().find(|key| has(key)) {
            return Err(format!(
                "has {key}, which is for the provider's own API, and url, which is asked instead of it: leave one of them out"
            ));
        }
        if must_fetch {
            return Err("has a url, but these requests are not signed, and only the provider's own API can prove them: leave url out".to_owned());
        }
        return Ok(None);
    }
    let Some(api) = api else {
        let with = known_providers().iter().filter(|info| info.api.is_some());
        return Err(format!(
            "has no url, and provider {provider} has no API that events are completed from (those that have one: {}): add url = \"https://…/{{object_id}}\"",
            list(with.map(|info| info.name))
        ));
    };
    let (bearer, client) = (has("bearer"), has("client_id") && has("client_secret"));
    let right = match api.credentials {
        Credentials::Bearer { .. } => bearer && !client,
        Credentials::ClientCredentials { .. } => client && !bearer,
    };
    if right {
        Ok(Some(api))
    } else {
        Err(format!("needs {} to ask the provider's API, and nothing else", credentials(&api)))
    }
}

/// The keys an API's credentials come in, with what they are.
fn credentials(api: &Api) -> String {
    match api.credentials {
        Credentials::Bearer { token } => format!("bearer = \"env:NAME\" ({token})"),
        Credentials::ClientCredentials { client, .. } => {
            format!("client_id = \"env:NAME\" and client_secret = \"env:NAME\" ({client})")
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const BEARER: Api = Api {
        base_url: "https://api.example.com",
        test_base_url: None,
        credentials: Credentials::Bearer { token: "the access token of the dashboard" },
        headers: &[],
        summary: "GET /things/{id}",
    };
    const CLIENT: Api = Api {
        credentials: Credentials::ClientCredentials { token_path: "/token", client: "the app's" },
        ..BEARER
    };

    #[test]
    fn a_source_that_must_fetch_is_refused_without_its_api() {
        let must = |keys| judge("p", Some(BEARER), true, keys);
        let error = must(None).unwrap_err();
        for words in ["not signed", "GET /things/{id}", "bearer = \"env:NAME\"", "of the dashboard"]
        {
            assert!(error.contains(words), "{error}");
        }
        assert!(must(Some(&["url"])).unwrap_err().contains("leave url out"));
        assert!(must(Some(&["bearer"])).unwrap().is_some());
        assert!(judge("p", Some(BEARER), false, None).unwrap().is_none(), "control: need not");
        assert!(judge("p", Some(BEARER), false, Some(&["url"])).unwrap().is_none());
    }

    #[test]
    fn credentials_are_those_the_api_wants() {
        let check = |api, keys: &[&str]| judge("p", Some(api), false, Some(keys));
        assert!(check(BEARER, &["bearer", "base_url", "environment"]).unwrap().is_some());
        assert!(check(CLIENT, &["client_id", "client_secret"]).unwrap().is_some());
        for (api, keys) in [
            (BEARER, &[][..]),
            (BEARER, &["client_id", "client_secret"]),
            (BEARER, &["bearer", "client_id", "client_secret"]),
            (CLIENT, &["bearer"]),
            (CLIENT, &["client_id"]),
        ] {
            assert!(check(api, keys).unwrap_err().contains("needs "), "{keys:?}");
        }
        assert!(check(BEARER, &["url", "bearer"]).unwrap().is_none(), "control");
        for key in ["base_url", "environment", "client_id", "client_secret", "not_found_for"] {
            assert!(check(BEARER, &["url", key]).unwrap_err().contains(key));
        }
    }

    #[test]
    fn a_provider_without_an_api_needs_a_url() {
        let check = |keys| check_fetching("shop", "svix", &Value::Null, keys, false);
        let error = check(Some(&["bearer"])).unwrap_err().to_string();
        assert!(error.contains("source \"shop\": hydrate has no url"), "{error}");
        assert!(check(Some(&["url", "bearer"])).unwrap().is_none());
        assert!(check(None).unwrap().is_none());
        assert!(check_fetching("shop", "svixx", &Value::Null, None, false).is_err());
    }

    #[test]
    fn the_api_is_that_of_the_environment_the_events_come_from() {
        const KEYS: &[&str] = &["client_id", "client_secret", "environment"];
        let check = |environment: Option<&str>, keys: Option<&[&str]>, test: bool| {
            let mut settings = serde_json::json!({"webhook_id": "1JE4291016473214C"});
            if let Some(environment) = environment {
                settings["environment"] = environment.into();
            }
            check_fetching("shop", "paypal", &settings, keys, test)
        };
        for (environment, test) in [(None, false), (Some("live"), false), (Some("sandbox"), true)] {
            assert!(check(environment, Some(KEYS), test).unwrap().is_some(), "{environment:?}");
            let error = check(environment, Some(KEYS), !test).unwrap_err().to_string();
            let advice = if test { "add environment = \"test\"" } else { "leave environment out" };
            assert!(error.contains("source \"shop\": hydrate asks the"), "{error}");
            assert!(error.contains(advice), "{error}");
            // Whoever names the place knows which it is, and a url or nothing asks no API.
            let named = [KEYS, &["base_url"]].concat();
            assert!(check(environment, Some(&named), !test).unwrap().is_some());
            assert!(check(environment, Some(&["url"]), !test).unwrap().is_none());
            assert!(check(environment, None, false).unwrap().is_none());
        }
    }
}
