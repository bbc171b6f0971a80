"""The batch that fits into a GPU's memory, found by steps that are tried: `--batch-size auto`."""

from dataclasses import replace

import torch

from resnets.format import plural
from resnets.runs.prepare import Notify
from resnets.runs.setup import Setup
from resnets.training.devices import is_out_of_memory, synchronise
from resnets.training.optimisation import make_loss, make_optimizer
from resnets.training.parallel import any_process
from resnets.training.recipe import Recipe
from resnets.training.trainer import AUTOCAST, copied

_LEAST = 2  # images of a process in a batch: batch norm needs more than one


def with_fitting_batch(setup: Setup, asked: Recipe, notify: Notify) -> Setup:
    """The same with a batch of which a step fits into the memory of every process's GPU.

    The batch that the recipe chose for the images is halved until it fits; the learning rate
    follows it, unless it was asked for. On a CPU, whose memory is the machine's, it stays.

    Args:
        setup: with the recipe's own batch.
        asked: the recipe before anything was chosen.
        notify: takes a line for the user, where the batch has changed.
    """
    if not _has_own_memory(setup.device) or setup.job.recipe.freeze == "all":
        return setup
    usual = setup.job.recipe.batch
    while any(any_process(not _fits(setup))):
        recipe = setup.job.recipe
        half = recipe.batch // 2 // asked.repeats * asked.repeats
        if half < _LEAST * setup.process.world_size * recipe.accumulate:
            break  # the run itself then says what to try
        rate = asked.learning_rate or replace(recipe, batch_size=half, learning_rate=None).rate
        recipe = replace(recipe, batch_size=half, learning_rate=rate)
        setup = replace(setup, job=replace(setup.job, recipe=recipe))
    if setup.job.recipe.batch != usual:
        notify(
            f"--batch-size auto: {plural(setup.job.recipe.batch, 'image')} a step, as {usual} do "
            f"not fit into the memory of {setup.device} (learning rate {setup.job.recipe.rate:g})"
        )
    return setup


def _has_own_memory(device: torch.device) -> bool:
    """Whether a device's memory is not the machine's."""
    return device.type != "cpu"


def _fits(setup: Setup) -> bool:
    """Whether this process's part of a step fits, tried with a copy of the network."""
    try:
        _try_step(setup)
        synchronise(setup.device)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        if setup.device.type != "cpu":
            torch.accelerator.empty_cache()
    return True


def _try_step(setup: Setup) -> None:
    """A step on black images, an eighth more of them, for what else a run keeps in memory."""
    recipe, device = setup.job.recipe, setup.device
    share = -(-recipe.batch // setup.process.world_size)
    piece = -(-share // recipe.accumulate)
    size, channels = recipe.training_size or setup.preprocessing.size, setup.preprocessing.channels
    network = copied(setup.network, recipe).train()
    optimizer = make_optimizer(network, recipe)
    images = torch.zeros(piece + -(-piece // 8), channels, size, size, device=device)
    labels = torch.zeros(len(images), dtype=torch.int64, device=device)
    classes = len(setup.splits.class_names)
    loss = make_loss(recipe, setup.splits.train.labels, classes).to(device)
    dtype = AUTOCAST.get(recipe.precision)
    with torch.autocast(device.type, dtype, enabled=dtype is not None):
        logits = network(images.contiguous(memory_format=torch.channels_last))
    loss(logits.float(), labels).backward()
    optimizer.step()
