//! Mistakes in the configuration: one clear error each, before anything is touched.

use std::{fs, path::Path, process::Output};

use sluice_tests::sluice::bare_command;

const BASE: &str = r#"
[kafka]
bootstrap_servers = "127.0.0.1:1"
[gateway]
listen = "127.0.0.1:0"
[management]
listen = "127.0.0.1:0"
[[source]]
name = "shop"
provider = "stripe"
secrets = ["file:secret"]
"#;

struct Mistake {
    what: &'static str,
    /// Put before, or behind, the configuration.
    head: &'static str,
    tail: &'static str,
    /// In the configuration, replaced.
    replace: (&'static str, &'static str),
    env: Option<(&'static str, &'static str)>,
    /// What the one error says: the place, and what to do.
    says: &'static [&'static str],
}

const NONE: Mistake =
    Mistake { what: "", head: "", tail: "", replace: ("", ""), env: None, says: &[] };

const MISTAKES: &[Mistake] = &[
    Mistake {
        what: "a key written wrong",
        replace: ("bootstrap_servers", "bootstrap_server"),
        says: &["sluice.toml:3", "bootstrap_server", "did you mean `bootstrap_servers`?"],
        ..NONE
    },
    Mistake {
        what: "a section written wrong",
        head: "[procesor]\nworkers = 2\n",
        says: &["procesor", "did you mean `processor`?"],
        ..NONE
    },
    Mistake {
        what: "an environment variable written wrong",
        env: Some(("SLUICE__PROCESSOR__WORKRES", "2")),
        says: &["SLUICE__PROCESSOR__WORKRES", "did you mean `workers`?"],
        ..NONE
    },
    Mistake {
        what: "an environment variable of a wrong type",
        env: Some(("SLUICE__PROCESSOR__WORKERS", "many")),
        says: &["SLUICE__PROCESSOR__WORKERS", "processor.workers"],
        ..NONE
    },
    Mistake {
        what: "no TOML",
        head: "[kafka\n",
        says: &["sluice.toml:1", "not valid TOML"],
        ..NONE
    },
    Mistake {
        what: "a secret in the clear",
        replace: ("file:secret", "whsec_do_not_show_me"),
        says: &["source.0.secrets", "env:NAME"],
        ..NONE
    },
    Mistake {
        what: "a secret that is not there",
        replace: ("file:secret", "file:absent"),
        says: &["shop", "file:absent"],
        ..NONE
    },
    Mistake {
        what: "a secret's variable that is not set",
        replace: ("file:secret", "env:SLUICE_TEST_NOT_SET"),
        says: &["shop", "env:SLUICE_TEST_NOT_SET"],
        ..NONE
    },
    Mistake {
        what: "a provider nobody knows",
        replace: ("\"stripe\"", "\"strype\""),
        says: &["shop", "strype", "stripe"],
        ..NONE
    },
    Mistake {
        what: "two sources of one name",
        tail: "[[source]]\nname = \"shop\"\nprovider = \"stripe\"\nsecrets = [\"file:secret\"]\n",
        says: &["source.1.name", "names are unique"],
        ..NONE
    },
    Mistake {
        what: "tiers out of order",
        head: "[retry]\ntiers = [\"2s\", \"1s\"]\n",
        says: &["retry.tiers", "longer than the one before it"],
        ..NONE
    },
    Mistake {
        what: "a tier a source cannot climb",
        replace: ("provider = \"stripe\"", "provider = \"stripe\"\nretry = [\"7s\"]"),
        says: &["source.0.retry", "there is no tier 7s"],
        ..NONE
    },
    Mistake {
        what: "a transaction longer than the session",
        head: "[processor]\ntransaction_timeout = \"30s\"\nsession_timeout = \"20s\"\n",
        says: &["processor.transaction_timeout", "below processor.session_timeout"],
        ..NONE
    },
    Mistake {
        what: "a duration without a unit",
        head: "[processor]\nmax_batch_time = \"soon\"\n",
        says: &["sluice.toml:2", "processor.max_batch_time"],
        ..NONE
    },
    Mistake {
        what: "a Kafka setting that would break the promise",
        head: "[kafka.properties]\n\"enable.auto.commit\" = true\n",
        replace: ("[kafka]\nbootstrap_servers = \"127.0.0.1:1\"\n", ""),
        says: &["enable.auto.commit", "sluice sets"],
        ..NONE
    },
    Mistake {
        what: "a hydration that fetches the same for every event",
        tail: "[source.hydrate]\nurl = \"http://127.0.0.1:1/objects\"\n",
        says: &["source.0.hydrate.url", "{object_id}"],
        ..NONE
    },
    Mistake {
        what: "a route into sluice's own topics",
        head: "[[processor.route]]\ntopic = \"webhooks.dlq\"\n",
        says: &["processor.route.0.topic", "belongs to sluice"],
        ..NONE
    },
    Mistake {
        what: "a route for a source that is not there",
        head: "[[processor.route]]\ntopic = \"team.x\"\nsources = [\"shpo\"]\n",
        says: &["processor.route.0.sources.0", "did you mean `shop`?"],
        ..NONE
    },
    Mistake {
        what: "health for the public",
        replace: (
            "[management]\nlisten = \"127.0.0.1:0\"",
            "[management]\nlisten = \"127.0.0.1:4711\"",
        ),
        env: Some(("SLUICE__GATEWAY__LISTEN", "127.0.0.1:4711")),
        says: &["management.listen", "another port"],
        ..NONE
    },
];

fn run(folder: &Path, arguments: &[&str], env: Option<(&str, &str)>) -> Output {
    let mut command = bare_command(folder);
    command.args(arguments).envs(env);
    command.output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn each_mistake_is_one_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("secret"), "whsec_the_right_one_for_this_test").unwrap();
    let file = folder.join("sluice.toml");
    fs::write(&file, BASE).unwrap();
    let control = run(folder, &["config", "check"], None);
    assert!(control.status.success(), "control: {}", stderr(&control));

    for Mistake { what, head, tail, replace, env, says } in MISTAKES {
        assert!(BASE.contains(replace.0), "{what}: nothing is replaced");
        fs::write(&file, format!("{head}{}{tail}", BASE.replacen(replace.0, replace.1, 1)))
            .unwrap();
        let check = run(folder, &["config", "check"], *env);
        let text = stderr(&check);
        assert_eq!(check.status.code(), Some(2), "{what}: {text}");
        for part in *says {
            assert!(text.contains(part), "{what}: no {part:?} in {text}");
        }
        assert!(text.contains("1 mistake"), "{what} is one mistake: {text}");
        assert!(!text.contains("do_not_show_me") && !text.contains("panicked"), "{what}: {text}");

        // A role that would be started with it ends at once, with the same reason and nothing else.
        let role = run(folder, &["all"], *env);
        let text = stderr(&role);
        assert_eq!(role.status.code(), Some(2), "{what}, a role: {text}");
        assert_eq!(text.matches("error:").count(), 1, "{what}, a role: {text}");
        for part in *says {
            assert!(text.contains(part), "{what}, a role: no {part:?} in {text}");
        }
        assert!(!text.contains("do_not_show_me"), "{what}, a role: {text}");
    }
}

#[test]
fn an_address_in_use_is_said_with_the_key_that_sets_it() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("secret"), "whsec_the_right_one_for_this_test").unwrap();
    fs::write(folder.join("sluice.toml"), BASE).unwrap();
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap().to_string();
    for (variable, key) in [
        ("SLUICE__GATEWAY__LISTEN", "gateway.listen"),
        ("SLUICE__MANAGEMENT__LISTEN", "management.listen"),
    ] {
        let taken = run(folder, &["gateway"], Some((variable, &address)));
        let text = stderr(&taken);
        assert!(!taken.status.success(), "{key}: {text}");
        assert!(text.contains(key) && text.contains(&address), "{key}: {text}");
    }
}
