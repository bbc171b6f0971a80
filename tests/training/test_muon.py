import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from resnets.training.optimizers import Muon, _orthogonal


def steps(optimizer: torch.optim.Optimizer, parameters: list[Tensor], count: int) -> None:
    """So many steps with gradients that depend on the number of the step alone."""
    for step in range(count):
        generator = torch.Generator().manual_seed(step)
        for parameter in parameters:
            gradient = torch.randn(parameter.flatten(1).shape, generator=generator)
            parameter.grad = gradient.view(parameter.shape).to(parameter.dtype)
        optimizer.step()


def start(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(99)))


@pytest.mark.parametrize("shape", [(16, 40), (40, 16), (24, 24), (1, 9)])
@pytest.mark.parametrize("nesterov", [True, False])
def test_matrices_move_as_with_torchs_muon(shape, nesterov):
    """torch computes in bf16, with a relative error of 2**-8 at every multiplication."""
    settings_of_both = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.2, "nesterov": nesterov}
    ours, theirs = start(*shape), start(*shape)
    steps(Muon([ours], **settings_of_both), [ours], 6)
    torchs = torch.optim.Muon([theirs], **settings_of_both, adjust_lr_fn="match_rms_adamw")
    steps(torchs, [theirs], 6)
    moved = (ours - start(*shape)).square().mean().sqrt()
    assert (ours - theirs).square().mean().sqrt() < 0.02 * moved


def test_a_convolution_moves_as_the_matrix_of_its_filters():
    convolution, matrix = start(16, 8, 3, 3), nn.Parameter(start(16, 8, 3, 3).detach().flatten(1))
    steps(Muon([convolution], lr=0.1), [convolution], 4)
    steps(Muon([matrix], lr=0.1), [matrix], 4)
    assert torch.equal(convolution.flatten(1), matrix)


def test_the_order_of_the_pixels_in_memory_does_not_matter():
    contiguous = start(16, 8, 3, 3)
    last = nn.Parameter(start(16, 8, 3, 3).detach().to(memory_format=torch.channels_last))
    steps(Muon([contiguous], lr=0.1), [contiguous], 4)
    steps(Muon([last], lr=0.1), [last], 4)
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last.detach(), contiguous.detach())


def test_parameters_of_equal_shape_do_not_touch_each_other():
    alone, first, second = start(6, 5, 3, 3), start(6, 5, 3, 3), start(6, 5, 3, 3)
    steps(Muon([alone], lr=0.1), [alone], 3)
    optimizer = Muon([first, second], lr=0.1)
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        first.grad = torch.randn(6, 45, generator=generator).view(6, 5, 3, 3)
        second.grad = torch.randn(6, 5, 3, 3)
        optimizer.step()
    torch.testing.assert_close(first, alone)


def test_what_is_not_orthogonal_moves_as_with_adamw():
    settings_of_both = {"lr": 0.01, "betas": (0.9, 0.95), "weight_decay": 0.1}
    ours, theirs = start(7, 5), start(7, 5)
    steps(Muon([{"params": [ours], "orthogonal": False}], **settings_of_both), [ours], 8)
    steps(torch.optim.AdamW([theirs], **settings_of_both), [theirs], 8)
    torch.testing.assert_close(ours, theirs)


@settings(max_examples=40)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 1000))
def test_orthogonalising_keeps_the_singular_vectors_and_levels_the_values(rows, columns, seed):
    """Against the singular value decomposition."""
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    leveled = left.T @ _orthogonal(matrix) @ right.T
    off_diagonal = leveled - leveled.diag().diag()
    assert off_diagonal.abs().max() < 1e-8
    large = values > 0.02 * values.norm()  # five iterations lift smaller ones only part of the way
    assert ((leveled.diag()[large] > 0.6) & (leveled.diag()[large] < 1.3)).all()


def test_a_matrix_of_zeros_stays_zero():
    assert torch.equal(_orthogonal(torch.zeros(3, 4)), torch.zeros(3, 4))
