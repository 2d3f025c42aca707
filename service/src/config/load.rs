//! Layering (defaults, then file, then environment) and the search for every mistake in one go.
//!
//! Reading stops at the first error, so it is repeated: an offending value is noted, taken out of its layer, and
//! the rest is read again, until nothing offends. Each round takes out one value, so the rounds are bounded by
//! the number of values; [`MAX_PROBLEMS`] bounds them for absurd input.

use std::collections::BTreeMap;
use std::path::Path;

use figment::error::{Actual, Kind};
use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::Config;
use super::error::{ConfigErrors, Problem, suggestion};
use super::locate::{Lines, line_at};

/// Most mistakes reported at once.
const MAX_PROBLEMS: usize = 50;

/// Forms in which an environment value is tried before it counts as a mistake.
const ENV_FORMS: u8 = 3;

/// What sluice's environment variables begin with.
const ENV_PREFIX: &str = "SLUICE__";

/// See [`Config::load`].
pub(super) fn load(
    path: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
) -> Result<Config, ConfigErrors> {
    let mut loader = Loader::default();
    if let Some(path) = path {
        loader.read_file(path);
    }
    loader.read_env(env);
    loader.run()
}

#[derive(Default)]
struct Loader {
    file_name: String,
    lines: Lines,
    file: Dict,
    env: Vec<EnvValue>,
    problems: Vec<Problem>,
    /// Keys whose value was taken out; what is said about them later is a consequence, not a mistake.
    broken: Vec<Vec<String>>,
}

/// One `SLUICE__…` variable. Its text may mean a TOML value, plain text, or a list with commas: tried in this order.
struct EnvValue {
    name: String,
    path: Vec<String>,
    text: String,
    attempt: u8,
    first_problem: Option<Problem>,
}

impl EnvValue {
    fn value(&self) -> Value {
        match self.attempt {
            0 => self.text.parse().unwrap_or_else(|never: std::convert::Infallible| match never {}),
            1 => Value::from(self.text.clone()),
            _ => Value::from(
                self.text
                    .split(',')
                    .map(|item| Value::from(item.trim().to_owned()))
                    .collect::<Vec<_>>(),
            ),
        }
    }

    fn exhausted(&self) -> bool {
        self.attempt >= ENV_FORMS
    }
}

/// One layer, as figment wants it.
struct Layer(Dict);

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named("sluice")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.0.clone()))
    }
}

impl Loader {
    fn read_file(&mut self, path: &Path) {
        self.file_name = path.display().to_string();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                return self.whole_file(
                    self.file_name.clone(),
                    format!("the configuration file cannot be read: {error}"),
                );
            }
        };
        // Parsed here first: this error knows its position, and its full form would quote the line, secrets included.
        if let Err(error) = toml::from_str::<toml::Table>(&text) {
            let line = error.span().map_or(1, |span| line_at(&text, span.start));
            return self.whole_file(
                format!("{}:{line}", self.file_name),
                format!("this is not valid TOML: {}", error.message().trim()),
            );
        }
        self.lines = Lines::of(&text);
        let data = Toml::string(&text).data().unwrap_or_default();
        self.file = data.into_values().next().unwrap_or_default();
        flatten_properties(&mut self.file);
    }

    fn whole_file(&mut self, place: String, message: String) {
        self.problems.push(Problem { place: Some(place), key: String::new(), message });
    }

    fn read_env(&mut self, env: impl Iterator<Item = (String, String)>) {
        for (name, text) in env {
            let Some(rest) = name.strip_prefix(ENV_PREFIX) else {
                continue;
            };
            let path = env_path(rest);
            let attempt =
                u8::from(path.starts_with(&["kafka".to_owned(), "properties".to_owned()]));
            self.env.push(EnvValue { path, name, text, attempt, first_problem: None });
        }
        self.env.sort_by(|a, b| a.name.cmp(&b.name));
    }

    fn run(mut self) -> Result<Config, ConfigErrors> {
        let rounds = usize::from(ENV_FORMS) * self.env.len() + 2 * MAX_PROBLEMS;
        for _ in 0..rounds {
            if self.problems.len() >= MAX_PROBLEMS {
                break;
            }
            let figment = Figment::from(Layer(self.file.clone())).merge(Layer(self.env_dict()));
            match figment.extract::<Config>() {
                Ok(config) => return self.check(config),
                Err(error) => {
                    // One error per round; figment chains only provider errors, which these layers never give.
                    let path = error.path.clone();
                    self.note(path, &error.kind);
                }
            }
        }
        if self.problems.is_empty() {
            self.push(&[], "the configuration has too many mistakes to list".to_owned());
        }
        Err(ConfigErrors { problems: self.problems })
    }

    /// Rules on the values that could be read.
    fn check(mut self, config: Config) -> Result<Config, ConfigErrors> {
        let found =
            if self.problems.is_empty() { config.validate() } else { config.validate_values() };
        for mut problem in found {
            let key = problem.key.as_str();
            if self.broken.iter().any(|path| path.join(".") == key) {
                continue;
            }
            problem.place = self.place(key);
            self.problems.push(problem);
        }
        if self.problems.is_empty() {
            return Ok(config);
        }
        Err(ConfigErrors { problems: self.problems })
    }

    fn env_dict(&self) -> Dict {
        let mut root = Dict::new();
        for entry in self.env.iter().filter(|entry| !entry.exhausted()) {
            insert(&mut root, &entry.path, entry.value());
        }
        root
    }

    /// Where the value of a dotted key was written.
    fn place(&self, key: &str) -> Option<String> {
        match self.env_owner(key, false) {
            Some(index) => Some(format!("environment variable {}", self.env[index].name)),
            None => {
                let line = self.lines.line(key)?;
                Some(format!("{}:{line}", self.file_name))
            }
        }
    }

    /// The environment value that is at, or around, or within the dotted key. One within is the culprit only where
    /// a table was found that should not be one, or where the file has no such key.
    fn env_owner(&self, key: &str, found_table: bool) -> Option<usize> {
        let within = |outer: &str, inner: &str| {
            inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let find = |test: &dyn Fn(&str) -> bool| {
            self.env.iter().position(|entry| !entry.exhausted() && test(&entry.path.join(".")))
        };
        find(&|path| within(path, key)).or_else(|| {
            if !found_table && self.lines.contains(key) {
                return None;
            }
            find(&|path| within(key, path))
        })
    }

    /// Notes one reading error and takes its cause out of the layers.
    fn note(&mut self, mut path: Vec<String>, kind: &Kind) {
        let found_table = matches!(kind, Kind::InvalidType(Actual::Map, _));
        if let Kind::MissingField(field) = kind {
            path.push(field.to_string());
        }
        let message = describe(&path, kind);
        let key = path.join(".");
        if let Some(index) = self.env_owner(&key, found_table) {
            let entry = &mut self.env[index];
            let problem = Problem {
                place: Some(format!("environment variable {}", entry.name)),
                key,
                message,
            };
            let first = entry.first_problem.get_or_insert(problem).clone();
            let hopeless = matches!(kind, Kind::UnknownField(..));
            entry.attempt = if hopeless { ENV_FORMS } else { entry.attempt + 1 };
            if entry.exhausted() {
                self.broken.push(entry.path.clone());
                self.problems.push(first);
            }
            return;
        }
        if matches!(kind, Kind::MissingField(_)) {
            if !self.broken.contains(&path) {
                self.push(&path, message);
            }
            // Any text will do: what is said about a broken key later is dropped.
            insert(&mut self.file, &path, Value::from(String::new()));
            self.broken.push(path);
            return;
        }
        self.push(&path, message);
        // Taking one item out of a list would renumber the others: the list goes as a whole.
        while path.len() > 1 && path.last().is_some_and(|last| last.parse::<usize>().is_ok()) {
            path.pop();
        }
        remove(&mut self.file, &path);
        self.broken.push(path);
    }

    fn push(&mut self, path: &[String], message: String) {
        let key = path.join(".");
        self.problems.push(Problem { place: self.place(&key), key, message });
    }
}

/// `PROCESSOR__WORKERS` → `processor.workers`; librdkafka's names have dots where the variable has underscores.
fn env_path(rest: &str) -> Vec<String> {
    let mut path: Vec<String> = rest.split("__").map(str::to_ascii_lowercase).collect();
    if path.len() > 2 && path[0] == "kafka" && path[1] == "properties" {
        let name = path.split_off(2).join(".").replace('_', ".");
        path.push(name);
    }
    path
}

/// `properties.security.protocol = …` is three nested tables to TOML and one name to librdkafka.
fn flatten_properties(file: &mut Dict) {
    let Some(Value::Dict(_, kafka)) = file.get_mut("kafka") else {
        return;
    };
    let Some(Value::Dict(_, properties)) = kafka.get_mut("properties") else {
        return;
    };
    let mut flat = Dict::new();
    let mut pending: Vec<(String, Value)> = std::mem::take(properties).into_iter().collect();
    while let Some((name, value)) = pending.pop() {
        match value {
            Value::Dict(_, inner) => {
                pending
                    .extend(inner.into_iter().map(|(key, value)| (format!("{name}.{key}"), value)));
            }
            value => {
                flat.insert(name, value);
            }
        }
    }
    *properties = flat;
}

/// Puts a value at a path, through lists as through tables. A scalar in the way is replaced: the deeper key wins.
fn insert(root: &mut Dict, path: &[String], value: Value) {
    let Some((first, rest)) = path.split_first() else {
        return;
    };
    if rest.is_empty() {
        root.insert(first.clone(), value);
        return;
    }
    let node = root.entry(first.clone()).or_insert_with(|| Value::from(Dict::new()));
    match node {
        Value::Dict(_, inner) => insert(inner, rest, value),
        Value::Array(_, items) => {
            let index = rest[0].parse::<usize>().ok();
            if let Some(Value::Dict(_, inner)) = index.and_then(|index| items.get_mut(index)) {
                insert(inner, &rest[1..], value);
            }
        }
        scalar => {
            let mut inner = Dict::new();
            insert(&mut inner, rest, value);
            *scalar = Value::from(inner);
        }
    }
}

/// Takes the value at a path out.
fn remove(root: &mut Dict, path: &[String]) {
    let Some((last, parents)) = path.split_last() else {
        return;
    };
    let mut dict = root;
    let mut parents = parents.iter();
    while let Some(segment) = parents.next() {
        let next = match dict.get_mut(segment) {
            Some(Value::Array(_, items)) => parents
                .next()
                .and_then(|index| index.parse::<usize>().ok())
                .and_then(|index| items.get_mut(index)),
            other => other,
        };
        match next {
            Some(Value::Dict(_, inner)) => dict = inner,
            _ => return,
        }
    }
    dict.remove(last);
}

/// What is wrong, in words; values are left out, for any of them may be a secret.
fn describe(path: &[String], kind: &Kind) -> String {
    match kind {
        Kind::MissingField(_) => "this key is required".to_owned(),
        Kind::UnknownField(name, known) => {
            format!("unknown key `{name}`{}", suggestion(name, known.iter().copied()))
        }
        Kind::UnknownVariant(name, known) => {
            format!("unknown value `{name}`{}", suggestion(name, known.iter().copied()))
        }
        Kind::InvalidType(actual, expected) | Kind::InvalidValue(actual, expected) => {
            let mut message = format!("expected {}, found {}", form(expected), found(actual));
            if path == ["source"] || path.ends_with(&["route".to_owned()]) {
                message.push_str(
                    "; in the environment a list is set as a whole: '[{name=\"a\",provider=\"stripe\"}]'",
                );
            }
            message
        }
        Kind::InvalidLength(length, expected) => {
            format!("expected {}, found {length} items", form(expected))
        }
        Kind::DuplicateField(name) => format!("`{name}` is given twice"),
        Kind::Message(message) => message.clone(),
        other => other.to_string(),
    }
}

/// serde's word for a type in a person's words.
fn form(expected: &str) -> String {
    let range = |max: u64| format!("a whole number from 0 to {max}");
    match expected {
        "u8" => range(u8::MAX.into()),
        "u16" => range(u16::MAX.into()),
        "u32" => range(u32::MAX.into()),
        "u64" | "usize" => "a whole number, not negative".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a string" | "path string" => "a text in quotes".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a map" => "a table".to_owned(),
        other if other.starts_with("struct ") => "a table".to_owned(),
        other if other.starts_with("enum ") => "a text in quotes".to_owned(),
        other => other.to_owned(),
    }
}

fn found(actual: &Actual) -> &'static str {
    match actual {
        Actual::Bool(_) => "a boolean",
        Actual::Unsigned(_) | Actual::Signed(_) => "a number",
        Actual::Float(_) => "a number with a fraction",
        Actual::Char(_) | Actual::Str(_) => "a text",
        Actual::Seq => "a list",
        Actual::Map => "a table",
        _ => "something else",
    }
}

/// This process's environment; variables that are not UTF-8 are left out (sluice has none such).
pub fn process_env() -> impl Iterator<Item = (String, String)> {
    let variables: BTreeMap<_, _> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    variables.into_iter()
}
