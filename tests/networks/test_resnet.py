import copy
import json
import pickle
from pathlib import Path

import pytest
import torch
import torch.fx
from torch import nn

from resnets.errors import UsageError
from resnets.networks import (
    CATALOG,
    Architecture,
    ResidualBlock,
    ResNet,
    ResNetBottleneck,
    build,
)
from resnets.networks.layers import Blur
from resnets.networks.norms import BatchNorm2d
from resnets.networks.stems import _STEMS


def small() -> ResNet:
    return build("resnet14", width=4)


def test_every_kind_gives_logits_and_learns(kind: Architecture, side: int) -> None:
    network = build(kind).train()
    logits = network(torch.randn(2, kind.in_channels, side, side))
    assert logits.shape == (2, kind.num_classes)
    logits.sum().backward()
    missing = [name for name, p in network.named_parameters() if p.grad is None]
    assert not missing


def test_the_stages_halve_the_image_and_have_the_channels_they_say(
    kind: Architecture, side: int
) -> None:
    network = build(kind).eval()
    images = torch.randn(2, kind.in_channels, side, 2 * side)
    with torch.no_grad():
        features = network.features(images)
    reached = kind.stem_stride
    for stage, (feature, channels) in enumerate(zip(features, kind.channels, strict=True)):
        reached = min(kind.stride, kind.stem_stride * 2**stage)
        assert feature.shape == (2, channels, side // reached, 2 * side // reached)


def test_logits_are_the_classifier_of_the_embedding_of_the_last_stage(
    kind: Architecture, side: int
) -> None:
    network = build(kind).eval()
    images = torch.randn(2, kind.in_channels, side, side)
    with torch.no_grad():
        embedding = network.embed(images)
        last = network.features(images)[-1]
        torch.testing.assert_close(network(images), network.fc(embedding))
    if kind.is_preact:
        last = torch.relu(network.bn(last))
    assert embedding.shape == (2, kind.channels[-1])
    torch.testing.assert_close(embedding, last.mean((2, 3)))


def test_features_come_in_the_order_asked_for_and_stop_when_all_are_there() -> None:
    network, images = small().eval(), torch.randn(1, 3, 32, 32)
    every = network.features(images)
    assert len(every) == 3
    second, first = network.features(images, stages=(2, 1))
    assert torch.equal(first, every[0])
    assert torch.equal(second, every[1])
    network.layer3.register_forward_hook(lambda *_: pytest.fail("layer3 is not needed"))
    network.features(images, stages=(1, 2))


def test_features_stay_as_they_were_when_the_next_stage_runs() -> None:
    """ReLUs work in place; none of them may change what was handed out."""
    for name in ("resnet20", "preact_resnet110"):
        network, images = build(name, depths=(1, 1, 1)).eval(), torch.randn(1, 3, 32, 32)
        alone = network.features(images, stages=(1,))[0].clone()
        assert torch.equal(network.features(images)[0], alone)


@pytest.mark.parametrize("stage", [0, 4, -1, 1.5, "1"])
def test_a_stage_that_is_not_there_is_refused(stage: object) -> None:
    with pytest.raises(UsageError, match="count from 1 to 3"):
        small().features(torch.zeros(1, 3, 32, 32), stages=(stage,))


def test_a_new_head_replaces_the_classifier_and_nothing_else() -> None:
    network = small().to(torch.float64).eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    assert network.replace_head(3) is network
    after = network.state_dict()
    assert network(torch.zeros(2, 3, 32, 32, dtype=torch.float64)).shape == (2, 3)
    assert network.architecture.num_classes == 3
    assert all(torch.equal(after[key], before[key]) for key in before if not key.startswith("fc"))
    with pytest.raises(UsageError, match="num_classes is 0"):
        network.replace_head(0)


def test_features_in_timms_words_are_the_same_network_in_two_steps(
    kind: Architecture, side: int
) -> None:
    network = build(kind).eval()
    images = torch.randn(2, kind.in_channels, side, side)
    with torch.no_grad():
        features = network.forward_features(images)
        assert features.shape == (2, network.num_features, side // kind.stride, side // kind.stride)
        assert torch.equal(network.forward_head(features), network(images))
        assert torch.equal(network.forward_head(features, pre_logits=True), network.embed(images))


def test_feature_info_describes_what_its_modules_put_out(kind: Architecture, side: int) -> None:
    network, outputs = build(kind).eval(), []
    for info in network.feature_info:
        module = network.get_submodule(info["module"])
        module.register_forward_hook(lambda _m, _i, output: outputs.append(output.clone()))
    with torch.no_grad():
        features, maps = network.forward_intermediates(
            torch.randn(2, kind.in_channels, side, 2 * side)
        )
    assert len(maps) == len(kind.depths) + 1
    for info, feature_map, output in zip(network.feature_info, maps, outputs, strict=True):
        small = side // info["reduction"]
        assert feature_map.shape == (2, info["num_chs"], small, 2 * small)
        assert torch.equal(feature_map, output), "a later part changed it in place"
    assert features.shape == maps[-1].shape


@pytest.mark.parametrize("name", ["resnet50", "resnet50d", "resnetv2_50"])
def test_feature_info_has_the_channels_and_reductions_of_timm(name: str) -> None:
    """timm 1.0's feature_info of these three; it calls resnet50's stem act1, here relu."""
    with torch.device("meta"):
        info = build(name).feature_info
    assert [each["num_chs"] for each in info] == [64, 256, 512, 1024, 2048]
    assert [each["reduction"] for each in info] == [2, 4, 8, 16, 32]
    assert [each["module"] for each in info[1:]] == ["layer1", "layer2", "layer3", "layer4"]


@pytest.mark.parametrize(
    ("indices", "channels"),
    [(2, [8, 16]), ([0, 1], [4, 4]), ((-1, 0), [4, 16]), ([3, 3], [16]), ([], [])],
)
def test_intermediates_are_chosen_as_in_timm(
    indices: int | tuple[int, ...], channels: list[int]
) -> None:
    maps = small().forward_intermediates(
        torch.zeros(1, 3, 32, 32), indices, intermediates_only=True
    )
    assert [feature_map.shape[1] for feature_map in maps] == channels


def test_intermediates_alone_stop_after_the_last_of_them() -> None:
    network = small()
    network.layer2.register_forward_hook(lambda *_: pytest.fail("layer2 is not needed"))
    network.forward_intermediates(torch.zeros(1, 3, 32, 32), [1], intermediates_only=True)


@pytest.mark.parametrize("indices", [5, [4], [-5], [0.5]])
def test_an_intermediate_that_is_not_there_is_refused(indices: object) -> None:
    with pytest.raises(UsageError, match=r"0 \(the stem\) to 3"):
        small().forward_intermediates(torch.zeros(1, 3, 32, 32), indices)


def test_the_classifier_is_reset_or_taken_away_in_timms_words() -> None:
    network, images = small().eval(), torch.randn(2, 3, 32, 32)
    network.reset_classifier(3)
    assert network.get_classifier().out_features == 3
    assert network.architecture.num_classes == 3
    network.reset_classifier(0)
    assert torch.equal(network(images), network.embed(images))
    network.reset_classifier(5)
    assert network(images).shape == (2, 5)


def test_torch_fx_traces_every_kind_into_a_graph_that_trains_and_evaluates(
    kind: Architecture, side: int
) -> None:
    network = build(kind)
    graph = copy.deepcopy(torch.fx.symbolic_trace(network))
    images = torch.randn(2, kind.in_channels, side, side)
    for mode in (True, False):  # a graph may not stay in the mode in which it was traced
        results = []
        for module in (network, graph):
            torch.manual_seed(0)
            results.append(module.train(mode)(images))
        assert torch.equal(*results)
    statistics = graph.state_dict()
    assert all(torch.equal(statistics[key], value) for key, value in network.state_dict().items())


def test_a_symbolic_graph_has_norms_as_nodes_so_that_tools_can_fold_them() -> None:
    graph = torch.fx.symbolic_trace(small())
    norms = [node.target for node in graph.graph.nodes if str(node.target).endswith("bn1")]
    assert norms == [f"layer{stage}.{block}.bn1" for stage in (1, 2, 3) for block in (0, 1)]


def feature_extractor(network: nn.Module, wanted: list[str]) -> torch.fx.GraphModule:
    """What torchvision's `create_feature_extractor` makes: a graph that ends at inner modules.

    As there, a module stands for its last node, and what is not needed for these is taken out.
    """
    graph_module = torch.fx.symbolic_trace(network)
    graph, last = graph_module.graph, dict[str, torch.fx.Node]()
    for node in graph.nodes:
        for path, _ in node.meta.get("nn_module_stack", {}).values():
            last[path] = node
        if node.op == "output":
            graph.erase_node(node)
    graph.output({name: last[name] for name in wanted})
    graph.eliminate_dead_code()
    graph_module.recompile()
    graph_module.delete_all_unused_submodules()
    return graph_module


@pytest.mark.parametrize("training", [False, True])
def test_features_of_inner_stages_are_taken_as_torchvision_does(
    kind: Architecture, side: int, training: bool
) -> None:
    """The witness are hooks on the network itself."""
    network, wanted = build(kind).train(training), ["layer1", "layer2"]
    extractor = feature_extractor(copy.deepcopy(network), wanted)
    assert not any(name.startswith("fc") for name, _ in extractor.named_modules())
    images = torch.randn(2, kind.in_channels, side, side)
    expected: dict[str, torch.Tensor] = {}
    for name in wanted:

        def keep(_: nn.Module, __: object, output: torch.Tensor, name: str = name) -> None:
            expected[name] = output.clone()

        network.get_submodule(name).register_forward_hook(keep)
    torch.manual_seed(0)
    network(images)
    torch.manual_seed(0)
    features = extractor(images)
    assert list(features) == wanted
    assert all(torch.equal(features[name], expected[name]) for name in wanted)


@pytest.mark.parametrize("name", ["resnet20", "preact_resnet110", "seresnet50"])
def test_networks_are_copied_and_pickled(name: str) -> None:
    network = build(name, depths=(1, 1), width=16).eval()
    images = torch.randn(1, 3, 32, 32)
    for again in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):  # noqa: S301
        assert again.architecture == network.architecture
        assert torch.equal(again(images), network(images))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("how", ["export", "compile", "trace"])
def test_torch_exports_compiles_and_traces_networks(how: str) -> None:
    network, images = build("resnet20", depths=(1, 1)).eval(), torch.randn(2, 3, 32, 32)
    ways = {
        "export": lambda: torch.export.export(network, (images,)).module(),
        "compile": lambda: torch.compile(network, backend="aot_eager", fullgraph=True),
        "trace": lambda: torch.jit.trace(network, images),
    }
    torch.testing.assert_close(ways[how]()(images), network(images))


@pytest.mark.parametrize(
    ("stage", "trains"),
    [
        (0, {"layer1", "layer2", "layer3", "fc"}),
        (2, {"layer3", "fc"}),
        (3, {"fc"}),
        (None, {"conv", "bn", "layer1", "layer2", "layer3", "fc"}),
    ],
)
def test_freezing_stops_the_stem_and_the_stages(stage: int | None, trains: set[str]) -> None:
    network = small().freeze(1).freeze(stage).train()
    assert {n.split(".")[0] for n, p in network.named_parameters() if p.requires_grad} == trains
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    network(torch.randn(4, 3, 32, 32)).square().sum().backward()
    optimizer.step()
    changed = {
        key.split(".")[0]
        for key, value in network.state_dict().items()
        if not torch.equal(value, before[key])
    }
    assert changed == trains


def test_freezing_a_preactivation_network_leaves_the_norm_after_its_stages_free() -> None:
    network = build("preact_resnet110", depths=(1, 1, 1)).freeze(3)
    free = {name for name, p in network.named_parameters() if p.requires_grad}
    assert free == {"bn.weight", "bn.bias", "fc.weight", "fc.bias"}


@pytest.mark.parametrize("stage", [4, -1, "1", 0.5])
def test_freezing_a_stage_that_is_not_there_is_refused(stage: object) -> None:
    with pytest.raises(UsageError, match=r"a stage from 0 .*to 3"):
        small().freeze(stage)


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (torch.zeros(3, 32, 32), ValueError, r"\(3, 32, 32\); it must be \(N, 3, H, W\)"),
        (torch.zeros(1, 1, 32, 32), ValueError, r"\(1, 1, 32, 32\); it must be \(N, 3, H, W\)"),
        (torch.zeros(1, 3, 32, 3), ValueError, "32 x 3 pixels.* at least 4 x 4"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), TypeError, "uint8.*floating point"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.float64), TypeError, r"images.to\(torch.float32\)"),
        ([[0.0]], TypeError, "images is list; it is a tensor"),
    ],
)
def test_images_that_do_not_fit_are_refused_before_any_maths(images, error, message) -> None:
    network = small()
    network.conv.register_forward_hook(lambda *_: pytest.fail("the maths has begun"))
    for use in (network, network.embed, network.features):
        with pytest.raises(error, match=message):
            use(images)


def test_images_smaller_than_the_strides_of_a_large_network_are_refused_with_advice() -> None:
    with pytest.raises(ValueError, match=r"28 x 28 .* at least 32 x 32 .*cifar stem"):
        build("resnet18", width=8)(torch.zeros(1, 3, 28, 28))
    build("resnet18", width=8, stem="cifar")(torch.zeros(1, 3, 28, 28))


def test_images_of_another_type_pass_under_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = small()(torch.zeros(1, 3, 32, 32, dtype=torch.bfloat16))
    assert logits.dtype == torch.bfloat16


def test_an_unknown_choice_is_refused_with_the_ones_there_are() -> None:
    with pytest.raises(UsageError, match=r"no choice 'classes'; there are .*num_classes"):
        ResNet(ResidualBlock, (1, 1), classes=3)
    with pytest.raises(UsageError, match="block is <class"):
        ResNet(nn.Linear, (1, 1))


def test_the_block_may_be_left_out() -> None:
    assert ResNet([2, 2, 2]).architecture == ResNet(ResidualBlock, (2, 2, 2)).architecture
    with torch.device("meta"):
        deep = ResNetBottleneck([3, 4, 6, 3], num_classes=1000).architecture
    assert deep == CATALOG["resnet50"].architecture


def test_convolutions_begin_with_the_variance_that_keeps_the_gradients_size() -> None:
    """He et al. 2015, arXiv:1502.01852, equation 14: 2 / (k² · output channels)."""
    torch.manual_seed(0)
    weight = build("resnet18").layer3[0].conv1.weight  # 128 channels in
    assert float(weight.detach().var()) == pytest.approx(2 / (9 * 256), rel=0.02)


def test_the_same_seed_builds_the_same_network() -> None:
    first, second = (torch.manual_seed(3) and small().state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_stochastic_depth_grows_linearly_to_the_last_block() -> None:
    """Huang et al. 2016, equation 4: p_l = 1 - l / L (1 - p_L)."""
    network = build("resnet20", stochastic_depth=0.5)
    rates = [block.drop_path.p for name, block in blocks(network)]
    assert rates == pytest.approx([0.5 * block / 9 for block in range(1, 10)])
    assert rates[-1] == 0.5


def blocks(network: ResNet) -> list[tuple[str, nn.Module]]:
    return [(n, m) for n, m in network.named_modules() if type(m).__name__.endswith("Block")]


def test_norms_are_batch_norms_that_sync_across_processes() -> None:
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(small())
    kinds = {type(module) for module in converted.modules()}
    assert nn.SyncBatchNorm in kinds
    assert BatchNorm2d not in kinds


def stem_of(architecture: Architecture) -> dict[str, nn.Module]:
    """The parts before the first stage."""
    parts = list(build(architecture).named_children())
    return dict(parts[: [name for name, _ in parts].index("layer1")])


@pytest.mark.parametrize(
    ("name", "widths"),
    [  # He et al. 2019, figure 2b, and what timm says of -S and -T
        ("resnet50c", (32, 32, 64)),
        ("resnet50d", (32, 32, 64)),
        ("resnet50s", (64, 64, 128)),
        ("resnet50t", (24, 32, 64)),
    ],
)
def test_deep_stems_have_three_convolutions_of_these_widths(
    name: str, widths: tuple[int, ...]
) -> None:
    with torch.device("meta"):
        convolutions = [part for part in build(name).conv1 if hasattr(part, "weight")][::2]
    assert tuple(part.out_channels for part in convolutions) == widths
    assert [part.kernel_size for part in convolutions] == [(3, 3)] * 3


@pytest.mark.parametrize("name", _STEMS)
@pytest.mark.parametrize("blur", [False, True])
@pytest.mark.parametrize("block", ["residual", "preact_residual"])
def test_every_stem_has_the_stride_and_the_channels_it_says(
    name: str, blur: bool, block: str
) -> None:
    network = Architecture(block, (1,), width=16, stem=name, stem_width=24, blur=blur)
    x = torch.randn(2, 3, 32, 64)
    for part in stem_of(network).values():
        x = part(x)
    assert x.shape == (2, 24, 32 // network.stem_stride, 64 // network.stem_stride)


def test_blurred_stems_take_the_maximum_at_every_pixel_before_they_subsample() -> None:
    """Zhang 2019, section 3.2: max pooling is dense maxima, then subsampling."""
    parts = stem_of(Architecture("residual", (1,), width=8, blur=True))
    maximum, blur = parts["maxpool"]
    assert maximum.stride == 1
    assert isinstance(blur, Blur)
    assert blur.stride == 2


def test_preactivation_stems_leave_the_norm_and_the_relu_to_the_first_block() -> None:
    assert list(stem_of(Architecture("preact_residual", (1,), stem="cifar"))) == ["conv"]
    assert list(stem_of(Architecture("preact_bottleneck", (1,)))) == ["conv1", "maxpool"]


def test_other_channels_get_the_weights_that_timm_gives_them() -> None:
    """And a grey image is to the network what it was as RGB."""
    file = Path(__file__).parents[1] / "fixtures" / "input_channels" / "timm.json"
    facts = json.loads(file.read_text(encoding="utf-8"))
    for channels, adapted in facts["adapted"].items():
        network = ResNet("residual", (1,), width=2)
        network.conv.weight = nn.Parameter(torch.tensor(facts["weight"]))
        network.adapt_channels(int(channels))
        torch.testing.assert_close(network.conv.weight.data, torch.tensor(adapted))
        assert build(network.architecture).conv.weight.shape[1] == int(channels)
    grey = torch.randn(2, 1, 8, 8)
    network = small().eval()
    logits = network(grey.expand(2, 3, 8, 8))
    torch.testing.assert_close(network.adapt_channels(1)(grey), logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        network.adapt_channels(3)(grey.expand(2, 3, 8, 8)), logits, atol=1e-5, rtol=1e-5
    )
