"""Giving a memory, a plan, a run or a stage to others: as a folder with a card, or as a dataset of the Hub."""
