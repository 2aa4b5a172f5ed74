"""What things are: robots, episodes, shards, recipes, reports. Imports nothing of ours, no torch, no ray."""
