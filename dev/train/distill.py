"""Distils the writer: a student with half the blocks learns the writer's whole distribution, not only the next token."""

import torch
import torch.nn.functional as F
from transformers import GPT2LMHeadModel

import writer

KEPT = (0, 2, 5)
"""The writer's blocks that the student starts from: every second one, with the first and the last among them."""
TEMPERATURE = 2.0
ALPHA = 0.7
"""The share of the teacher's distribution in the loss; the rest is the text's own next token."""


def student_of(teacher: GPT2LMHeadModel) -> GPT2LMHeadModel:
    """A model with the teacher's embeddings, last norm and blocks `KEPT`."""
    student = GPT2LMHeadModel(writer.config(teacher.config.vocab_size, layers=len(KEPT)))
    theirs = teacher.transformer
    student.transformer.wte.load_state_dict(theirs.wte.state_dict())
    student.transformer.wpe.load_state_dict(theirs.wpe.state_dict())
    student.transformer.ln_f.load_state_dict(theirs.ln_f.state_dict())
    for block, kept in zip(student.transformer.h, KEPT):
        block.load_state_dict(theirs.h[kept].state_dict())
    return student


def loss_against(teacher: GPT2LMHeadModel):
    """The distillation loss of a batch: KL to the teacher at `TEMPERATURE`, and the text's cross-entropy.

    Source: Hinton, Vinyals, Dean 2015, section 2; the factor `TEMPERATURE**2` keeps the two gradients in scale.
    """

    def loss(student: GPT2LMHeadModel, ids: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            goal = teacher(ids[:, :-1]).logits.float().flatten(0, 1) / TEMPERATURE
        logits = student(ids[:, :-1]).logits.float()
        guess = logits.flatten(0, 1) / TEMPERATURE
        divergence = F.kl_div(F.log_softmax(guess, -1), F.log_softmax(goal, -1), reduction="batchmean", log_target=True)
        return ALPHA * TEMPERATURE**2 * divergence + (1 - ALPHA) * writer.cross_entropy(logits, ids)

    return loss
