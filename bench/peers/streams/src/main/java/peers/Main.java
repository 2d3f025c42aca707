package peers;

import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.PrintStream;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KafkaStreams.State;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.state.Stores;

/** Deduplicates a topic into another with Kafka Streams, exactly once. */
public final class Main {
  private static final String USAGE =
      """
      run --bootstrap HOST:PORT --input TOPIC --output TOPIC --threads N --state DIR
          [--commit-interval-ms N]  100, the default of exactly_once_v2
          [--compression CODEC]     lz4; or none, snappy, zstd
          [--application-id ID]     peer-streams-INPUT
      """;
  private static final Duration CLOSE_LIMIT = Duration.ofSeconds(30);
  /** Confluent's guide to throughput: "batch.size: increase to 100000-200000". */
  private static final int BATCH_BYTES = 200_000;

  private Main() {}

  public static void main(String[] args) throws InterruptedException {
    Map<String, String> options = options(args);
    String input = required(options, "input");
    String output = required(options, "output");
    Properties config = config(options, input);
    if (!options.isEmpty()) {
      fail("unknown option --" + options.keySet().iterator().next());
    }

    PrintStream out = new PrintStream(new FileOutputStream(FileDescriptor.out), true);
    CountDownLatch stopped = new CountDownLatch(1);
    KafkaStreams streams = new KafkaStreams(topology(input, output), config);
    streams.setUncaughtExceptionHandler(
        problem -> {
          System.err.println("streams: " + problem);
          return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
    boolean[] told = new boolean[1];
    streams.setStateListener(
        (now, before) -> {
          if (now == State.RUNNING && !told[0]) {
            told[0] = true;
            out.println("ready");
          } else if (now == State.ERROR) {
            stopped.countDown();
          }
        });
    Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(CLOSE_LIMIT), "shutdown"));
    streams.start();
    stopped.await(); // SIGTERM ends the process through the hook; only an error gets past this.
    System.exit(1);
  }

  static Topology topology(String input, String output) {
    Serde<byte[]> bytes = Serdes.ByteArray();
    return new Topology()
        .addSource("raw", bytes.deserializer(), bytes.deserializer(), input)
        .addProcessor("deduplicate", Deduplicate::new, "raw")
        .addStateStore(
            Stores.keyValueStoreBuilder(
                Stores.persistentKeyValueStore(Deduplicate.STORE), bytes, bytes),
            "deduplicate")
        .addSink("processed", output, bytes.serializer(), bytes.serializer(), "deduplicate");
  }

  private static Properties config(Map<String, String> options, String input) {
    Properties config = new Properties();
    String id = options.getOrDefault("application-id", "peer-streams-" + input);
    options.remove("application-id");
    config.put(StreamsConfig.APPLICATION_ID_CONFIG, id);
    config.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, required(options, "bootstrap"));
    config.put(StreamsConfig.STATE_DIR_CONFIG, required(options, "state"));
    config.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, required(options, "threads"));
    config.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
    String interval = options.remove("commit-interval-ms");
    if (interval != null) {
      config.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, interval);
    }
    // Start from the beginning; the default for the main consumer, said all the same.
    config.put(StreamsConfig.mainConsumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
    // A static member that was killed comes back at once; else its place is held for the session.
    config.put(StreamsConfig.mainConsumerPrefix(ConsumerConfig.GROUP_INSTANCE_ID_CONFIG), "peer");
    config.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), BATCH_BYTES);
    String codec = options.remove("compression");
    config.put(
        StreamsConfig.producerPrefix(ProducerConfig.COMPRESSION_TYPE_CONFIG),
        codec == null ? "lz4" : codec);
    return config;
  }

  private static Map<String, String> options(String[] args) {
    Map<String, String> options = new HashMap<>();
    for (int i = 0; i < args.length; i += 2) {
      if (!args[i].startsWith("--") || i + 1 == args.length) {
        fail("not an option with a value: " + args[i]);
      }
      options.put(args[i].substring(2), args[i + 1]);
    }
    return options;
  }

  private static String required(Map<String, String> options, String name) {
    String value = options.remove(name);
    if (value == null) {
      fail("--" + name + " is missing");
    }
    return value;
  }

  private static void fail(String problem) {
    System.err.println("streams: " + problem);
    System.err.print(USAGE);
    System.exit(2);
  }
}
