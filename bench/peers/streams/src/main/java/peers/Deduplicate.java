package peers;

import java.nio.ByteBuffer;
import java.time.Duration;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;

/**
 * Forwards the first record of each key within the window and drops the others.
 *
 * <p>The store holds, per key, the time of the record that was forwarded, 8 bytes. An entry that is
 * older than the window counts as absent and is overwritten. Nothing is ever removed, which makes
 * this cheaper than a window store and than what a service would need after a month.
 */
final class Deduplicate implements Processor<byte[], byte[], byte[], byte[]> {
  static final String STORE = "seen";
  static final long WINDOW_MS = Duration.ofDays(30).toMillis();

  private ProcessorContext<byte[], byte[]> context;
  private KeyValueStore<byte[], byte[]> seen;

  @Override
  public void init(ProcessorContext<byte[], byte[]> context) {
    this.context = context;
    seen = context.getStateStore(STORE);
  }

  @Override
  public void process(Record<byte[], byte[]> record) {
    byte[] key = record.key();
    if (key == null) {
      throw new IllegalArgumentException("a record without a key: there is nothing to know it by");
    }
    long time = record.timestamp();
    byte[] before = seen.get(key);
    if (before != null && ByteBuffer.wrap(before).getLong() >= time - WINDOW_MS) {
      return;
    }
    seen.put(key, ByteBuffer.allocate(Long.BYTES).putLong(time).array());
    context.forward(record);
  }
}
