"""What to replay: strategies, plans, and how a plan is made."""
