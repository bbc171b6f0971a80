"""The network that a run keeps: its last weights, their mean, or the best by validation."""

import copy
from dataclasses import replace

from torch import nn

from resnets.model_file import Description, Model
from resnets.networks import ResNet, build
from resnets.runs.checkpoint import State
from resnets.runs.prepare import Notify
from resnets.runs.result import Result
from resnets.runs.starting_point import final_weights, from_state
from resnets.runs.supervision import Checkpointer, Stop
from resnets.training.head import HeadTrainer
from resnets.training.parallel import from_first, share_buffers
from resnets.training.trainer import Trainer


def final_network(checkpointer: Checkpointer, notify: Notify) -> nn.Module:
    """What is kept: the last weights, or their mean; with patience, the best by validation."""
    trainer, folder = checkpointer.trainer, checkpointer.folder
    trainer.estimate_statistics()  # again, if it was stopped within an epoch
    network = trainer.evaluation_network
    if trainer.recipe.patience and trainer.best_step:
        notify(f"Kept: epoch {trainer.best_epoch}, the best by validation.")
        if not checkpointer.in_memory:
            state = from_first(folder.checkpoints.at(trainer.best_step) if folder else None)
            assert state is not None
            return _of_state(state, trainer.network).to(trainer.device).eval()
        assert checkpointer.best is not None
        network = checkpointer.best
    elif trainer.epochs > 1 or network is not trainer.network:
        notify(_last_in_words(trainer))
    network = network.eval()
    share_buffers(network)
    return network


def _last_in_words(trainer: Trainer) -> str:
    """What is kept of a run whose network no validation chose, and whether one was better."""
    averaged = trainer.evaluation_network is not trainer.network
    epochs, rest = divmod(trainer.step, trainer.batches.steps_per_epoch)
    end = f"step {trainer.step}" if rest else f"epoch {epochs}"
    what = f"the mean of the weights until {end}" if averaged else f"the weights after {end}"
    last = trainer.last_accuracy  # the best epoch is the first of several that are equal
    if last is None or last >= trainer.best_accuracy:
        return f"Kept: {what}, the last."
    return (
        f"Kept: {what}, the last; the validation accuracy was best after epoch "
        f"{trainer.best_epoch} (--patience keeps the best epoch)."
    )


def _of_state(state: State, network: nn.Module) -> nn.Module:
    """The network of a saved state; of the user's own, which has just been trained, a copy."""
    if isinstance(network, ResNet):
        return from_state(state, "checkpoint").network
    copied = copy.deepcopy(network)
    copied.load_state_dict(final_weights(state))
    return copied


def candidates(trainer: Trainer, stop: Stop | None) -> int:
    """Among how many networks the validation images may have chosen.

    With patience they choose among those of all epochs. Who stops a run, a callback or a user, may
    have done so by what it showed: that is a choice among the epochs until then.
    """
    if trainer.measured.validation is None:
        return 1
    if isinstance(trainer, HeadTrainer):  # one a penalty
        return trainer.candidates
    if trainer.recipe.patience:
        return trainer.epochs
    return 1 if stop is None else max(1, trainer.epoch)


def plain_model(result: Result) -> Model:
    """The network as its file would give it back: on the CPU, neither compiled nor frozen."""
    if not isinstance(result.network, ResNet):
        copied = replace(result, network=copy.deepcopy(result.network).cpu().eval())
        return copied.model
    network = build(result.network.architecture)
    network.load_state_dict(result.network.state_dict())
    described = Description.from_header(result.description.to_header(), "this run")
    return Model(network.eval(), described)
