"""From the start of a process to a goal: the same script for tensorgrad and its peers."""
