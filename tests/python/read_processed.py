"""Reads records of a topic with confluent-kafka, read_committed, and prints one JSON object a line.

Arguments: bootstrap servers, registry URL, topic, number of records.
"""

import json
import sys
import time
from datetime import datetime, timedelta, timezone

from confluent_kafka import Consumer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
LIMIT_S = 30


def plain(value):
    """The JSON form: bytes as hex, instants as milliseconds since the epoch."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, datetime):
        return (value - EPOCH) // timedelta(milliseconds=1)
    return value


def main():
    bootstrap, registry, topic, wanted = sys.argv[1:]
    deserialize = AvroDeserializer(SchemaRegistryClient({"url": registry}))
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "python-reader-" + topic,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([topic])
    left = int(wanted)
    deadline = time.monotonic() + LIMIT_S
    while left > 0:
        if time.monotonic() > deadline:
            sys.exit(f"{left} of {wanted} records did not come")
        message = consumer.poll(1.0)
        if message is None:
            continue
        if message.error():
            sys.exit(str(message.error()))
        context = SerializationContext(topic, MessageField.VALUE)
        value = deserialize(message.value(), context)
        record = {
            "partition": message.partition(),
            "offset": message.offset(),
            "key": message.key().decode(),
            "headers": {name: data.decode() for name, data in message.headers()},
            "value": {name: plain(field) for name, field in value.items()},
        }
        print(json.dumps(record))
        left -= 1
    consumer.close()


main()
