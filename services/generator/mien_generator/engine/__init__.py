"""A worker's engine: its sessions, and the threads that make their frames."""
