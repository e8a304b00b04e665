"""Everything that speaks to Kafka and to the schema registry; the only room that imports confluent_kafka."""
