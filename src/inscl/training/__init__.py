"""One stage's training: from a mixture file and a model to the next model.

`train` is the entry and `stage` does it; `batches` tokenises and masks, `trainer` is TRL's with our losses, `fields`
says which of its settings are the user's, `adapters` is PEFT, `protect` keeps weights near the stage's start,
`checkpoints` makes a killed stage go on, `ranks` lets several processes act as one, `kernels` picks attention that
fits our batches.
"""
