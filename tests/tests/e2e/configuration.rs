//! Mistakes in the configuration: one clear error each, before anything is touched.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Output};

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
        what: "everybody as a trusted proxy",
        replace: ("[gateway]", "[gateway]\ntrusted_proxies = [\"0.0.0.0/0\"]"),
        says: &["gateway.trusted_proxies", "trusts everybody"],
        ..NONE
    },
    Mistake {
        what: "a network that matches nothing",
        replace: (
            "provider = \"stripe\"",
            "provider = \"stripe\"\nallow_ips = [\"::ffff:10.0.0.0/104\"]",
        ),
        says: &["source.0.allow_ips", "write it as IPv4"],
        ..NONE
    },
    Mistake {
        what: "a secret file with a byte order mark",
        replace: ("file:secret", "file:marked"),
        says: &["shop", "byte order mark"],
        ..NONE
    },
    Mistake {
        what: "a secret that is a pipe",
        replace: ("file:secret", "file:pipe"),
        says: &["shop", "no regular file"],
        ..NONE
    },
    Mistake {
        what: "an ID that nobody signs",
        replace: (
            "provider = \"stripe\"\nsecrets = [\"file:secret\"]",
            "provider = \"hmac\"\nsecrets = [\"file:secret\"]\n[source.settings]\nheader = \"x-s\"\nid_header = \"x-id\"",
        ),
        says: &["shop", "settings.id_header", "does not sign {id}"],
        ..NONE
    },
    Mistake {
        what: "a type that nobody signs",
        replace: (
            "provider = \"stripe\"\nsecrets = [\"file:secret\"]",
            "provider = \"hmac\"\nsecrets = [\"file:secret\"]\n[source.settings]\nheader = \"x-s\"\ntype_header = \"x-type\"",
        ),
        says: &["shop", "settings.type_header", "does not sign it"],
        ..NONE
    },
    Mistake {
        what: "a template whose parts can shift",
        replace: (
            "provider = \"stripe\"\nsecrets = [\"file:secret\"]",
            "provider = \"hmac\"\nsecrets = [\"file:secret\"]\n[source.settings]\nheader = \"x-s\"\nid_header = \"x-id\"\ntemplate = \"{id}{body}\"",
        ),
        says: &["shop", "settings.template", "side by side"],
        ..NONE
    },
    Mistake {
        what: "a separator that IDs contain",
        replace: (
            "provider = \"stripe\"\nsecrets = [\"file:secret\"]",
            "provider = \"hmac\"\nsecrets = [\"file:secret\"]\n[source.settings]\nheader = \"x-s\"\nid_header = \"x-id\"\ntemplate = \"{id}-{body}\"",
        ),
        says: &["shop", "settings.template", "separator"],
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
    secret(folder, "secret", "whsec_the_right_one_for_this_test", 0o600);
    secret(folder, "marked", "\u{feff}whsec_the_right_one_for_this_test", 0o600);
    nix::unistd::mkfifo(&folder.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let file = folder.join("sluice.toml");
    fs::write(&file, BASE).unwrap();
    let control = run(folder, &["config", "check"], None);
    assert!(control.status.success(), "control: {}", stderr(&control));
    assert!(!stderr(&control).contains("warning"), "control: {}", stderr(&control));

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

fn secret(folder: &Path, name: &str, text: &str, mode: u32) {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn what_works_but_should_not_be_so_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    secret(folder, "secret", "whsec_the_right_one_for_this_test", 0o600);
    secret(folder, "open", "whsec_another_one_for_this_test", 0o644);
    secret(folder, "short", "whsec_1", 0o600);
    secret(folder, "lines", "demo-secret-of-one-source\ndemo-secret-of-another\n", 0o600);
    let file = folder.join("sluice.toml");
    for (secrets, says) in [
        ("file:open", "chmod 600"),
        ("file:short", "fewer than 16 characters"),
        ("file:lines", "more than one line"),
        ("file:secret", "is also the secret of `shop`"),
    ] {
        let other = format!(
            "[[source]]\nname = \"other\"\nprovider = \"github\"\nsecrets = [\"{secrets}\"]\n"
        );
        fs::write(&file, format!("{BASE}{other}")).unwrap();
        let check = run(folder, &["config", "check"], None);
        let text = stderr(&check);
        assert!(check.status.success(), "{text}");
        assert!(text.contains("warning: source.1.secrets.0") && text.contains(says), "{text}");
        assert!(!text.contains("whsec_") && !text.contains("demo-secret"), "{text}");
        let machine = run(folder, &["config", "check", "--output", "json"], None);
        let told: serde_json::Value = serde_json::from_slice(&machine.stdout).unwrap();
        assert_eq!((&told["ok"], told["warnings"].as_array().unwrap().len()), (&true.into(), 1));
    }
    // A token in the clear is more than a warning.
    let hydrate = |url: &str| {
        format!(
            "{BASE}[source.hydrate]\nurl = \"{url}/x/{{object_id}}\"\nbearer = \"file:secret\"\n"
        )
    };
    fs::write(&file, hydrate("http://erp.example.com")).unwrap();
    let check = run(folder, &["config", "check"], None);
    assert_eq!(check.status.code(), Some(2));
    assert!(stderr(&check).contains("plain http"), "{}", stderr(&check));
    for url in ["https://erp.example.com", "http://127.0.0.1:8080", "http://[::1]:8080"] {
        fs::write(&file, hydrate(url)).unwrap();
        let check = run(folder, &["config", "check"], None);
        assert!(check.status.success(), "{url}: {}", stderr(&check));
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
