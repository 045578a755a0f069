"""A researcher's experiment: orders x strategies x budgets x seeds, each model trained once, resumable.

`run` walks the grid of `jobs` over the `data` in the given `orders`; a `worker` does one stage into its `stage_folder`;
`results` is the tidy table and `summary` what it says.
"""
