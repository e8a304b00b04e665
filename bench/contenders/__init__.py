"""One script per contender of bench/hop.py. All read, change and write the same Avro records."""
