"""Training policy, windows and the trainer that fits an adapter to one stock."""
