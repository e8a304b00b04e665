"""The event types of this repository: one Avro schema each, and the Python classes made from them."""
