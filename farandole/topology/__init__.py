"""What the repository says should stand on the cluster, what stands there, and the way from one to the other."""
