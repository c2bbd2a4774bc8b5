"""What scripts/million is made of: the processes, what they cost, who holds and who publishes, and the table at the end."""
