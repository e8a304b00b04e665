"""The demo: real data of 2013, landed hour by hour, and the answer that the chain must come to."""
