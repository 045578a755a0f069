"""A training script with TRL, made continual: what was learnt before is replayed, scored and kept.

    python examples/trl_script.py MODEL TASK DATA
    python examples/trl_script.py smollm2-135m may examples/months/may.jsonl
    python examples/trl_script.py models/may june examples/months/june.jsonl

MODEL is a folder, a model on the Hub, or `smollm2-135m`, the small one that `inscl demo` uses.
"""

import sys

import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from inscl import ContinualCallback, Memory, plan
from inscl.models.loading import resolve


def main(model: str, task: str, data: str) -> None:
    """Learn one task, replaying up to 4 examples of each earlier one."""
    model = resolve(model)
    replay = plan(Memory("memory"), task, data, budget_per_task=4)  # what to replay
    continual = ContinualCallback(replay, rows=20)  # remembers the task, scores the earlier ones
    tokenizer = AutoTokenizer.from_pretrained(model)
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(model, dtype="float32"),
        args=SFTConfig(
            f"models/{task}",
            learning_rate=1e-3,
            num_train_epochs=2,
            per_device_train_batch_size=8,
            logging_steps=1,
            bf16=torch.cuda.is_available(),
            report_to="none",  # or a tracker: the scores go where the loss goes
        ),
        train_dataset=replay.mixture(),
        callbacks=[continual],
        processing_class=tokenizer,
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"),
    )
    trainer.train()
    trainer.model.merge_and_unload().save_pretrained(f"models/{task}")  # whole, so that the next month starts from it
    tokenizer.save_pretrained(f"models/{task}")
    for name, score in continual.scores.items():
        print(f"{name}: ROUGE-L {100 * score.rouge_l:.1f} on {score.n} test rows")


if __name__ == "__main__":
    main(*sys.argv[1:])
