"""The books: every run's state in one compacted topic, and its projection in SQL that people query."""
