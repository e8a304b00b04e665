"""Ways in: what a source is (metadata only), and the events that say that something of it arrived."""
