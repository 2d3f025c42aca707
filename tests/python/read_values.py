"""Reads Avro data with fastavro, as readers in Python do, and prints how many there were.

Standard input: one datum a line, `SCHEMA_FILE HEX`.
"""

import io
import json
import sys

from fastavro import parse_schema, schemaless_reader


def main():
    schemas = {}
    count = 0
    for line in sys.stdin:
        path, datum = line.split()
        if path not in schemas:
            with open(path, encoding="utf-8") as file:
                schemas[path] = parse_schema(json.load(file))
        stream = io.BytesIO(bytes.fromhex(datum))
        schemaless_reader(stream, schemas[path], None)
        assert not stream.read(), f"{datum} goes on"
        count += 1
    print(count)


main()
