"""What `scripts/bench` is made of: the machine, processes on it, the systems, the load, and a file for each part."""
