import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from resnets.training.optimizers import Lamb


def gradients(step: int, shapes: list[tuple[int, ...]]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def run(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], steps: int) -> None:
    shapes = [tuple(parameter.shape) for parameter in parameters]
    for step in range(steps):
        for parameter, gradient in zip(parameters, gradients(step, shapes), strict=True):
            parameter.grad = gradient
        optimizer.step()


def by_the_paper(start: Tensor, steps: int, rate: float, decay: float) -> Tensor:
    """Algorithm 2 of arXiv:1904.00962, one number after another in 64 bits, with phi(z) = z."""
    beta1, beta2, epsilon = 0.9, 0.999, 1e-6
    x = start.double()
    m, v = torch.zeros_like(x), torch.zeros_like(x)
    for t in range(1, steps + 1):
        (g,) = gradients(t - 1, [tuple(start.shape)])
        g = g.double()
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        r = (m / (1 - beta1**t)) / ((v / (1 - beta2**t)).sqrt() + epsilon)
        update = r + decay * x
        x = x - rate * x.norm() / update.norm() * update
    return x


def test_parameters_move_by_the_papers_algorithm():
    start = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(5))
    parameter = nn.Parameter(start.clone())
    run(Lamb([parameter], lr=0.02, weight_decay=0.1), [parameter], 10)
    expected = by_the_paper(start, 10, rate=0.02, decay=0.1)
    torch.testing.assert_close(parameter.detach().double(), expected, rtol=1e-5, atol=1e-6)


def test_without_weight_decay_it_is_adam():
    ours, theirs = (nn.Parameter(torch.ones(5, 3)) for _ in range(2))
    run(Lamb([ours], lr=0.01, weight_decay=0.0, eps=1e-8), [ours], 10)
    run(torch.optim.Adam([theirs], lr=0.01), [theirs], 10)
    torch.testing.assert_close(ours, theirs)


@settings(max_examples=50)
@given(st.floats(1e-3, 1e3), st.floats(1e-6, 1e6), st.floats(1e-4, 0.5))
def test_a_step_is_the_rate_times_as_long_as_the_parameter(size, steepness, rate):
    """Whatever the scale of the parameter and of its gradient."""
    start = torch.randn(8, 8, generator=torch.Generator().manual_seed(1)) * size
    parameter = nn.Parameter(start.clone())
    parameter.grad = torch.randn(8, 8, generator=torch.Generator().manual_seed(2)) * steepness
    Lamb([parameter], lr=rate, weight_decay=0.01).step()
    moved = (parameter - start).norm() / start.norm()
    torch.testing.assert_close(moved.item(), rate, rtol=1e-3, atol=0)


def test_parameters_of_zero_length_move_as_with_adam():
    parameter = nn.Parameter(torch.zeros(4, 4))
    run(Lamb([parameter], lr=0.01, weight_decay=0.1), [parameter], 1)
    assert torch.isfinite(parameter).all()
    torch.testing.assert_close(parameter.detach().abs(), torch.full((4, 4), 0.01))
