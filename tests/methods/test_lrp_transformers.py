"""CP-LRP, AttnLRP and GIM: the rules written out, a second library, conservation, the same network in other words."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import _get_current_function_mode_stack
from torchvision.models import VisionTransformer

from efface.methods.lrp import (
    attention_relevance,
    attn_lrp,
    check_attn_lrp,
    cp_lrp,
    gim,
    lrp,
    transformer_attribution,
)
from efface.methods.lrp.explain import propagated
from efface.methods.lrp.linear import STABILIZER
from efface.methods.lrp.rules import ATTN_LRP, CP_LRP
from small.batches import images_and_classes
from small.elsewhere import autolrp, timm, transformers
from small.messages import words
from small.networks import seeded, state_of

N, SIZE, PATCH, WIDTH, HEADS, CLASSES = 3, 8, 4, 8, 2, 4
TOKENS = 1 + (SIZE // PATCH) ** 2
METHODS = {"cp_lrp": cp_lrp, "attn_lrp": attn_lrp, "gim": gim}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


class Attention(nn.Module):
    """Attention in one of several spellings; the result is the same."""

    def __init__(self, way):
        super().__init__()
        self.qkv, self.proj, self.way = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH), way

    def forward(self, x):
        n, t, c = x.shape
        query, key, value = self.qkv(x).reshape(n, t, 3, HEADS, c // HEADS).permute(2, 0, 3, 1, 4)
        scale = (c // HEADS) ** -0.5
        match self.way:
            case "matmul":
                out = F.softmax(query @ key.transpose(-2, -1) * scale, dim=-1) @ value
            case "fused":
                out = F.scaled_dot_product_attention(query, key, value)
            case "einsum":
                weights = torch.einsum("nhic,nhjc->nhij", query * scale, key).softmax(-1)
                out = torch.einsum("nhij,nhjc->nhic", F.dropout(weights, 0.0, training=False), value)
            case "bmm":
                query, key, value = (each.flatten(0, 1) for each in (query, key, value))
                weights = torch.softmax(torch.bmm(query, key.mT).div(1 / scale), -1)
                out = torch.bmm(weights, value).unflatten(0, (n, HEADS))
            case "transposed":
                weights = nn.Softmax(-1)(torch.matmul(key, query.mT).mT.mul(scale)).contiguous()
                out = (value.mT @ weights.mT).mT
            case "masked":
                mask = torch.ones(t, t, dtype=torch.bool)
                out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
        return self.proj(out.transpose(1, 2).reshape(n, t, c))


class Block(nn.Module):
    def __init__(self, way):
        super().__init__()
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(WIDTH), Attention(way), nn.LayerNorm(WIDTH)
        self.fc1, self.fc2 = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class Transformer(nn.Module):
    """A vision transformer with two blocks and a class token."""

    def __init__(self, way="matmul"):
        super().__init__()
        self.embed = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.token, self.position = nn.Parameter(torch.randn(WIDTH)), nn.Parameter(torch.randn(TOKENS, WIDTH))
        self.blocks = nn.ModuleList([Block(way), Block(way)])
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, images):
        x = self.embed(images).flatten(2).transpose(1, 2)
        x = self.embedded = torch.cat([self.token.expand(len(x), 1, -1), x], 1) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


def drawn(way="matmul", *, biases=True, seed=0):
    """The transformer with all its numbers drawn, in float64."""

    def make():
        model = Transformer(way)
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 and name != "token":
                nn.init.normal_(parameter, 1.0 if "norm" in name and "weight" in name else 0.0, 0.3)
            if name.endswith("bias") and not biases:
                nn.init.zeros_(parameter)
        return model.double().eval()

    return seeded(make, seed)


# The rules, written out


def through_layer(x, layer, relevance):
    """The epsilon rule with epsilon = 0."""
    return x * ((relevance / layer(x)) @ layer.weight)


def through_norm(x, norm, relevance):
    """The standard deviation is a constant: y = w (x - mean) / std + b is linear in x."""
    width = x.shape[-1]
    std = (x.var(-1, correction=0) + norm.eps).sqrt()[..., None, None]
    matrix = norm.weight[:, None] * (torch.eye(width) - 1 / width).double() / std
    return x * torch.einsum("...o,...oi->...i", relevance / norm(x), matrix)


def through_product(a, b, relevance):
    """Half of the relevance of a @ b to each factor."""
    share = relevance / (a @ b) / 2
    return a * (share @ b.mT), b * (a.mT @ share)


def through_attention(x, attn, relevance, method):
    n, t, c = x.shape
    query, key, value = attn.qkv(x).reshape(n, t, 3, HEADS, c // HEADS).permute(2, 0, 3, 1, 4)
    key = key * (c // HEADS) ** -0.5  # a constant factor passes relevance on
    scores = query @ key.mT
    weights = scores.softmax(-1)
    joined = (weights @ value).transpose(1, 2).reshape(n, t, c)
    relevance = through_layer(joined, attn.proj, relevance).reshape(n, t, HEADS, -1).transpose(1, 2)
    of_query = of_key = torch.zeros_like(query)
    if method is cp_lrp:
        of_value = value * (weights.mT @ (relevance / (weights @ value)))
    else:
        of_weights, of_value = through_product(weights, value, relevance)
        if method is attn_lrp:
            of_scores = scores * (of_weights - weights * of_weights.sum(-1, keepdim=True))
        else:
            flat, slope = (scores / 2).softmax(-1), of_weights / weights
            of_scores = scores * flat * (slope - (flat * slope).sum(-1, keepdim=True))
        of_query, of_key = through_product(query, key.mT, of_scores)
        of_key = of_key.mT
    parts = torch.stack([of_query, of_key, of_value]).permute(1, 3, 0, 2, 4).reshape(n, t, 3 * c)
    return x * ((parts / attn.qkv(x)) @ attn.qkv.weight)


def through_block(x, block, relevance, method):
    normed = block.norm1(x)
    added = block.attn(normed)
    middle = x + added
    hidden = block.fc1(block.norm2(middle))
    out = block.fc2(F.gelu(hidden))
    total = relevance / (middle + out)
    within = through_layer(F.gelu(hidden), block.fc2, out * total)
    if method is gim:
        (slope,) = torch.autograd.grad(F.gelu(point := hidden.detach().requires_grad_()).sum(), point)
        within = within * hidden * slope / F.gelu(hidden)
    within = through_layer(block.norm2(middle), block.fc1, within)
    relevance = middle * total + through_norm(middle, block.norm2, within)
    total = relevance / middle
    within = through_attention(normed, block.attn, added * total, method)
    return x * total + through_norm(x, block.norm1, within)


def written_out(model, images, targets, method):
    with torch.no_grad():
        logits = model(images)
        inputs = [model.embedded]
        for block in model.blocks:
            inputs.append(block(inputs[-1]))
        relevance = through_layer(model.norm(inputs[-1])[:, 0], model.head, F.one_hot(targets, CLASSES) * logits)
        of_tokens = torch.zeros_like(inputs[-1])
        of_tokens[:, 0] = relevance
    relevance = through_norm(inputs[-1], model.norm, of_tokens)
    for x, block in zip(inputs[-2::-1], reversed(model.blocks), strict=True):
        relevance = through_block(x, block, relevance, method)
    share = (relevance / inputs[0])[:, 1:].transpose(1, 2).unflatten(2, (SIZE // PATCH, -1))
    return relevance, images * F.conv_transpose2d(share, model.embed.weight, stride=PATCH)


@every_method
def test_maps_are_those_of_the_rules_written_out(method):
    model, (images, targets) = drawn(), images_and_classes(N, SIZE)
    _, expected = written_out(model, images, targets, method)
    torch.testing.assert_close(method(model, images, targets), expected.detach(), rtol=1e-9, atol=1e-12)


# Conservation


def of_embedding(model, images, targets, rules):
    """Relevance of the tokens after the position embedding, and the score."""
    _, logits = propagated("test", model, images, rules)
    scores = logits.gather(1, targets[:, None])
    (changed,) = torch.autograd.grad(scores.sum(), model.embedded)
    return (model.embedded * changed).sum((1, 2)).detach(), scores.squeeze(1).detach()


def test_cp_lrp_conserves_from_the_logit_to_the_embedding():
    model, (images, targets) = drawn(biases=False), images_and_classes(N, SIZE)
    found, scores = of_embedding(model, images, targets, CP_LRP)
    torch.testing.assert_close(found, scores, rtol=1e-10, atol=0)


def test_attn_lrp_conserves_but_for_what_the_softmax_keeps():
    model, (images, targets) = drawn(biases=False), images_and_classes(N, SIZE)
    kept = []

    class Watched(nn.Module):
        """Attention that notes its scores and weights."""

        def __init__(self, inner):
            super().__init__()
            self.inner, self.qkv = inner, inner.qkv

        def forward(self, x):
            n, t, c = x.shape
            query, key, value = self.qkv(x).reshape(n, t, 3, HEADS, c // HEADS).permute(2, 0, 3, 1, 4)
            scores = query @ key.mT * (c // HEADS) ** -0.5
            weights = scores.softmax(-1)
            kept.append((scores, weights))
            return self.inner.proj((weights @ value).transpose(1, 2).reshape(n, t, c))

    for block in model.blocks:
        block.attn = Watched(block.attn)
    _, logits = propagated("test", model, images, ATTN_LRP)
    scores = logits.gather(1, targets[:, None])
    watched = [model.embedded, *(each for pair in kept for each in pair)]
    changed = torch.autograd.grad(scores.sum(), watched)
    of_tokens, *others = [(x * g).flatten(1).sum(1).detach() for x, g in zip(watched, changed, strict=True)]
    lost = sum(of_weights - of_scores for of_scores, of_weights in zip(others[::2], others[1::2], strict=True))
    assert (lost.abs() > 1e-6).all()
    torch.testing.assert_close(of_tokens + lost, scores.squeeze(1).detach(), rtol=1e-10, atol=0)


# A second library


def signed_shares(a, b, relevance, eps, *_, attribute="both"):
    """Sums by signed shares; autolrp's own rule splits by absolute values, place by place."""
    return a / (a + b) * relevance, b / (a + b) * relevance


def frozen_norm(x, y, relevance, eps, *, weight=None, **_):
    """A LayerNorm without bias whose standard deviation is a constant; autolrp's own rule passes all on."""
    centred = x - x.mean(-1, keepdim=True)
    share = relevance / centred
    return x * (share - share.mean(-1, keepdim=True))


@pytest.mark.parametrize("name", ["cp_lrp", "attn_lrp"])
def test_maps_of_torchvisions_transformer_are_those_of_autolrp(name):
    model = seeded(lambda: VisionTransformer(SIZE, PATCH, 2, HEADS, WIDTH, 2 * WIDTH, num_classes=CLASSES), 0)
    model = model.double().eval()
    for key, parameter in model.named_parameters():
        if key.endswith("bias"):
            nn.init.zeros_(parameter)  # autolrp gives a bias another share
        elif parameter.ndim == 3 or key.startswith("heads"):
            nn.init.normal_(parameter, generator=torch.Generator().manual_seed(len(key)))
    images, targets = images_and_classes(N, SIZE)
    nodes = autolrp.on(autolrp.LAYERNORM_NODES, frozen_norm) | {"AddBackward": signed_shares}
    preset = autolrp.CPLRP if name == "cp_lrp" else autolrp.ATTNLRP
    expected = []
    for image, target in zip(images, targets, strict=True):
        point = autolrp.tensor(image[None])
        score = model(point)[0, target]
        score.lrp(config=autolrp.LRPConfig(rule={**autolrp.BASE, **preset, **nodes}))
        expected.append(point.relevance.as_subclass(torch.Tensor) * score.detach().item())
    found = METHODS[name](model, images, targets)
    torch.testing.assert_close(found, torch.cat(expected).detach(), rtol=1e-5, atol=1e-5 * found.abs().max().item())


# The same network in other words


@every_method
@pytest.mark.parametrize("way", ["fused", "einsum", "bmm", "transposed", "masked"])
def test_attention_has_the_same_maps_in_every_spelling(method, way):
    images, targets = images_and_classes(N, SIZE)
    expected = method(drawn(), images, targets)
    torch.testing.assert_close(method(drawn(way), images, targets), expected, rtol=1e-9, atol=1e-14)


class Logits(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network(images).logits


def by_library(library, state):
    """A transformer of a library with the weights of `Transformer`."""
    if library in {"timm", "timm_unfused"}:
        sizes = {"img_size": SIZE, "patch_size": PATCH, "embed_dim": WIDTH, "depth": 2, "num_heads": HEADS}
        network = timm.models.VisionTransformer(**sizes, mlp_ratio=2, num_classes=CLASSES)
        names = {"embed.": "patch_embed.proj.", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
    elif library == "torchvision":
        network = VisionTransformer(SIZE, PATCH, 2, HEADS, WIDTH, 2 * WIDTH, num_classes=CLASSES)
        names = {"embed.": "conv_proj.", "blocks.": "encoder.layers.encoder_layer_", "norm1": "ln_1", "norm2": "ln_2"}
        names |= {"attn.qkv.": "self_attention.in_proj_", "attn.proj": "self_attention.out_proj", "fc1": "mlp.0"}
        names |= {"fc2": "mlp.3", "head.": "heads.head.", "norm.": "encoder.ln."}
    else:
        sizes = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": HEADS, "image_size": SIZE}
        sizes |= {"intermediate_size": 2 * WIDTH, "patch_size": PATCH, "num_labels": CLASSES}
        config = transformers.ViTConfig(**sizes, attn_implementation=library)
        network = Logits(transformers.ViTForImageClassification(config))
        names = {"embed.": "vit.embeddings.patch_embeddings.projection.", "blocks.": "vit.layers."}
        names |= {"norm1": "layernorm_before", "norm2": "layernorm_after", "attn.proj": "attention.o_proj"}
        names |= {"fc1": "mlp.fc1", "fc2": "mlp.fc2", "head.": "classifier.", "norm.": "vit.layernorm."}
    network = network.double().eval()
    for module in network.modules():
        module.eps = 1e-5 if isinstance(module, nn.LayerNorm) else None
        if library == "timm_unfused" and hasattr(module, "fused_attn"):
            module.fused_attn = False
    given = {}
    for name, value in state.items():
        if name in {"token", "position"}:
            continue
        for old, new in names.items():
            name = name.replace(old, new) if old != "norm." or name.startswith("norm.") else name
        if library in {"eager", "sdpa"} and "qkv" in name:
            rest = name.replace("attn.qkv", "attention.{}_proj")
            given |= {f"network.{rest.format(part)}": each for part, each in zip("qkv", value.chunk(3), strict=True)}
        else:
            given[f"network.{name}" if library in {"eager", "sdpa"} else name] = value
    left = network.load_state_dict(given, strict=False)
    assert not left.unexpected_keys
    assert len(left.missing_keys) == 2
    values = dict(network.named_parameters())
    for name in left.missing_keys:
        values[name].data = state["position" if "pos" in name else "token"].reshape(values[name].shape)
    return network


@pytest.mark.parametrize("library", ["timm", "timm_unfused", "torchvision", "sdpa", "eager"])
def test_equal_weights_have_equal_maps_in_every_library(library):
    model, (images, targets) = drawn(), images_and_classes(N, SIZE)
    other = by_library(library, model.state_dict())
    close = 1e-6 if library == "eager" else 1e-9  # its softmax is in float32
    torch.testing.assert_close(other(images), model(images), rtol=close, atol=close)
    smooth = partial(attn_lrp, linear_gamma=0.05, conv_gamma=0.25)
    for method in (*METHODS.values(), smooth, partial(lrp, rules="epsilon_gamma_box")):
        expected = method(model, images, targets)
        most = expected.abs().max().item()
        torch.testing.assert_close(method(other, images, targets), expected, rtol=0, atol=10 * close * most)


@every_method
def test_a_batch_has_the_maps_of_its_images_in_any_blocks(method):
    model, (images, targets) = drawn("fused"), images_and_classes(5, SIZE)
    together = method(model, images, targets)
    torch.testing.assert_close(method(model, images, targets, max_batch=2), together, rtol=1e-9, atol=1e-14)
    alone = torch.cat([method(model, images[[i]], targets[[i]]) for i in range(5)])
    torch.testing.assert_close(alone, together, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@every_method
def test_half_precision_has_nearly_the_same_maps(method, dtype):
    model, (images, targets) = drawn("fused"), images_and_classes(N, SIZE)
    expected = method(model, images, targets)
    found = method(drawn("fused").to(dtype), images.to(dtype), targets)
    assert found.dtype == dtype
    pairs = torch.stack([found.double().flatten(1), expected.flatten(1)], 1)
    assert all(torch.corrcoef(pair)[0, 1] > 0.98 for pair in pairs)


# Activations, gates and norms


class Mixer(nn.Module):
    """Layers around a function of features n c h w."""

    def __init__(self, function):
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 6, 2, 2), nn.Conv2d(6, 6, 1), nn.Linear(6, CLASSES)
        self.function = function

    def forward(self, images):
        x = self.first(images)
        return self.head(self.function(x, self.second(x)).mean((2, 3)))


def mixer(function):
    return seeded(lambda: Mixer(function), 0).double()


GELUS = {
    "function": lambda x, _: F.gelu(x),
    "module": lambda x, _: nn.GELU()(x),
    "by hand": lambda x, _: x * 0.5 * (1 + torch.erf(x / 2**0.5)),
    "constant": lambda x, _: x * (F.gelu(x) / x).detach(),
}


@pytest.mark.parametrize("spelling", GELUS)
def test_an_activation_is_a_constant_factor_in_every_spelling(spelling):
    images, targets = images_and_classes(N, SIZE)
    expected = cp_lrp(mixer(GELUS["constant"]), images, targets)
    torch.testing.assert_close(cp_lrp(mixer(GELUS[spelling]), images, targets), expected, rtol=1e-9, atol=1e-14)


NORMS = {
    "layer_norm": lambda x, _: F.layer_norm(x, x.shape[1:]),
    "group_norm": lambda x, _: F.group_norm(x, 2, weight=torch.arange(1.0, 7).double()),
    "instance_norm": lambda x, _: F.instance_norm(x),
    "rms_norm": lambda x, _: F.rms_norm(x, x.shape[3:], eps=1e-5),
    "normalize": lambda x, _: F.normalize(x, dim=1),
    "by hand": lambda x, _: (x - x.mean(1, keepdim=True)) * torch.rsqrt(x.var(1, keepdim=True) + 1e-5),
    "root": lambda x, _: x / (x.pow(2).mean(1, keepdim=True) + 1e-5).sqrt(),
}


@pytest.mark.parametrize("name", NORMS)
def test_a_normalisation_divides_by_a_constant(name):
    images, targets = images_and_classes(N, SIZE)
    model = mixer(NORMS[name])
    found = cp_lrp(model, images, targets)
    features = model.first(images)
    normed = NORMS[name](features, None)
    centred = features
    if name != "rms_norm" and name not in {"normalize", "root"}:
        axes = {"layer_norm": (1, 2, 3), "instance_norm": (2, 3), "by hand": (1,)}.get(name)
        grouped = features.unflatten(1, (2, 3)) if axes is None else features
        centred = (grouped - grouped.mean(axes or (2, 3, 4), keepdim=True)).reshape(features.shape)
    factor = (normed / centred).detach()

    def frozen(x, _):
        if centred is features:
            return x * factor
        grouped = x.unflatten(1, (2, 3)) if name == "group_norm" else x
        axes = {"layer_norm": (1, 2, 3), "instance_norm": (2, 3), "by hand": (1,), "group_norm": (2, 3, 4)}[name]
        return (grouped - grouped.mean(axes, keepdim=True)).reshape(x.shape) * factor

    expected = cp_lrp(mixer(frozen), images, targets)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-12)


def halved(x, y):
    """The product of two activations, whose factors have half of their gradient."""
    product = x * y
    return product.detach() + (product - product.detach()) / 2


PRODUCTS = {
    "operator": (lambda x, y: x * y, halved),
    "in place": (lambda x, y: y.mul_(x), halved),
    "square": (lambda x, _: x * x, lambda x, _: x * x.detach()),
    "gate": (lambda x, y: x * torch.sigmoid(y), lambda x, y: x * torch.sigmoid(y).detach()),
    "linear unit": (lambda x, y: F.glu(torch.cat([x, y], 1), 1), lambda x, y: x * torch.sigmoid(y).detach()),
    "weights": (lambda x, y: x * torch.softmax(y, 1), lambda x, y: x * torch.softmax(y, 1).detach()),
    "quotient": (lambda x, y: x / (2 + y.abs()), lambda x, y: x / (2 + y.abs()).detach()),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_and_quotients_of_activations(name):
    images, targets = images_and_classes(N, SIZE)
    function, expected = PRODUCTS[name]
    point = images.clone().requires_grad_()
    plain = mixer(expected)
    (changed,) = torch.autograd.grad(plain(point).gather(1, targets[:, None]).sum(), point)
    found = cp_lrp(mixer(function), images, targets)
    torch.testing.assert_close(found, images * changed, rtol=1e-9, atol=1e-14)


def test_gamma_of_attn_lrp_is_the_rule_of_lrp():
    model = seeded(lambda: nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(180, 4)), 0).double()
    images, targets = images_and_classes(N, SIZE)
    found = attn_lrp(model, images, targets, linear_gamma=0.3, conv_gamma=0.3)
    torch.testing.assert_close(found, lrp(model, images, targets, rules="gamma", gamma=0.3), rtol=1e-12, atol=1e-15)
    with pytest.raises(ValueError, match=words("conv_gamma -1 0")):
        check_attn_lrp(conv_gamma=-1.0)


def test_attention_with_masked_keys_is_refused():
    class Padded(nn.Module):
        def __init__(self):
            super().__init__()
            self.attn, self.head = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True), nn.Linear(WIDTH, CLASSES)

        def forward(self, images):
            x = images.reshape(len(images), -1, WIDTH)
            masked = torch.zeros(x.shape[:2], dtype=torch.bool)
            return self.head(self.attn(x, x, x, key_padding_mask=masked)[0].mean(1))

    images, targets = images_and_classes(N, SIZE)
    with pytest.raises(ValueError, match=words("cp_lrp MultiheadAttention key_padding_mask")):
        cp_lrp(seeded(Padded, 0).double().eval(), images, targets)


# Transformer attribution


def positive(x, layer, relevance):
    """The shares of the positive contributions, without the bias."""
    up, down = layer.weight.clamp(min=0), layer.weight.clamp(max=0)
    share = relevance / (x.clamp(min=0) @ up.T + x.clamp(max=0) @ down.T + STABILIZER)
    return x.clamp(min=0) * (share @ up) + x.clamp(max=0) * (share @ down)


def summands(a, b, relevance):
    """Shares by the absolute sums over an image."""
    of_a, of_b = a / (a + b) * relevance, b / (a + b) * relevance
    sum_a, sum_b = (each.sum((1, 2), keepdim=True) for each in (of_a, of_b))
    total = (sum_a + sum_b) / (sum_a.abs() + sum_b.abs())
    return of_a * sum_a.abs() / sum_a * total, of_b * sum_b.abs() / sum_b * total


def attention_written_out(model, images, targets):
    """Relevance of the attention of each block, from 1 at the class on."""
    with torch.no_grad():
        model(images)
        inputs = [model.embedded]
        for block in model.blocks:
            inputs.append(block(inputs[-1]))
        relevance = torch.zeros_like(inputs[-1])
        one = F.one_hot(targets, CLASSES).double()
        relevance[:, 0] = positive(model.norm(inputs[-1])[:, 0], model.head, one)
        found = []
        for x, block in zip(inputs[-2::-1], reversed(model.blocks), strict=True):
            normed = block.norm1(x)
            middle = x + block.attn(normed)
            hidden = block.fc1(block.norm2(middle))
            of_middle, of_out = summands(middle, block.fc2(F.gelu(hidden)), relevance)
            of_out = positive(block.norm2(middle), block.fc1, positive(F.gelu(hidden), block.fc2, of_out))
            of_x, within = summands(x, middle - x, of_middle + of_out)
            n, t, c = x.shape
            query, key, value = block.attn.qkv(normed).reshape(n, t, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
            scores = query @ key.mT * (c // HEADS) ** -0.5
            weights = scores.softmax(-1)
            joined = (weights @ value).transpose(1, 2).reshape(n, t, c)
            within = positive(joined, block.attn.proj, within).reshape(n, t, HEADS, -1).transpose(1, 2)
            of_weights, of_value = through_product(weights, value, within)
            found.insert(0, of_weights)
            of_query, of_key = through_product(query, key.mT, of_weights)
            parts = torch.stack([of_query, of_key.mT, of_value]).permute(1, 3, 0, 2, 4).reshape(n, t, 3 * c)
            relevance = of_x + positive(normed, block.attn.qkv, parts)
    return found


def gradients_written_out(model, images, targets):
    """The attention of each block, and its gradient."""
    kept = []
    softmax = F.softmax

    def kept_softmax(*given, **settings):
        kept.append(softmax(*given, **settings).requires_grad_())
        return kept[-1]

    F.softmax = kept_softmax
    try:
        score = model(images).gather(1, targets[:, None]).sum()
    finally:
        F.softmax = softmax
    return kept, torch.autograd.grad(score, kept)


@pytest.mark.parametrize("way", ["matmul", "fused", "bmm", "transposed", "einsum"])
def test_relevance_of_attention_is_that_of_the_rules_written_out(way):
    images, targets = images_and_classes(N, SIZE)
    found = attention_relevance(drawn(way), images, targets)
    expected = attention_written_out(drawn(), images, targets)
    _, gradients = gradients_written_out(drawn(), images, targets)
    for pairs in (zip(found.relevance, expected, strict=True), zip(found.gradients, gradients, strict=True)):
        for each, right in pairs:
            most = right.abs().max().item()
            torch.testing.assert_close(each, right.detach(), rtol=0, atol=1e-9 * most)


@pytest.mark.parametrize("start", [0, 1])
def test_transformer_attribution_multiplies_the_blocks(start):
    model, (images, targets) = drawn("fused"), images_and_classes(N, SIZE)
    relevance = attention_written_out(drawn(), images, targets)
    _, gradients = gradients_written_out(drawn(), images, targets)
    product = torch.eye(TOKENS).double()
    for of_block, slopes in list(zip(relevance, gradients, strict=True))[start:]:
        product = (torch.eye(TOKENS) + (of_block * slopes).clamp(min=0).mean(1)) @ product
    small = product[:, :1, 1:].unflatten(2, (2, 2))
    expected = F.interpolate(small, size=(SIZE, SIZE), mode="bilinear", align_corners=False)[:, 0].detach()
    found = transformer_attribution(model, images, targets, start=start)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9 * expected.max().item())
    alone = [transformer_attribution(model, images[[i]], targets[[i]], start=start) for i in range(N)]
    torch.testing.assert_close(torch.cat(alone), found, rtol=1e-9, atol=1e-14)
    blocks = transformer_attribution(model, images, targets, start=start, max_batch=2)
    torch.testing.assert_close(blocks, found, rtol=1e-9, atol=1e-14)


def test_transformer_attribution_of_a_network_without_class_token_takes_the_mean_of_the_rows():
    sizes = {"img_size": SIZE, "patch_size": PATCH, "embed_dim": WIDTH, "depth": 2, "num_heads": HEADS}
    settings = {"mlp_ratio": 2, "num_classes": CLASSES, "class_token": False, "global_pool": "avg"}
    model = seeded(lambda: timm.models.VisionTransformer(**sizes, **settings), 0).double().eval()
    images, targets = images_and_classes(N, SIZE)
    found = attention_relevance(model, images, targets)
    rows = torch.full((N, 1, 4), 0.25).double()
    for relevance, slopes in reversed(list(zip(*found, strict=True))):
        rows = rows @ (torch.eye(4) + (relevance * slopes).clamp(min=0).mean(1))
    maps = transformer_attribution(model, images, targets)
    torch.testing.assert_close(maps[:, ::7, ::7].flatten(1), rows[:, 0], rtol=1e-12, atol=0)


def test_transformer_attribution_refuses_what_has_no_such_attention():
    images, targets = images_and_classes(N, SIZE)
    with pytest.raises(ValueError, match=words("start 2 blocks")):
        transformer_attribution(drawn(), images, targets, start=2)
    with pytest.raises(ValueError, match=words("Mixer no attention transformer")):
        attention_relevance(mixer(GELUS["function"]), images, targets)
    swin = timm.create_model("swin_tiny_patch4_window7_224", img_size=32, window_size=4, depths=(1, 1), num_classes=4)
    with pytest.raises(ValueError, match=words("SwinTransformer windows another method")):
        attention_relevance(swin.double().eval(), *images_and_classes(N, 32))


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("method", [*METHODS.values(), transformer_attribution])
def test_network_and_torch_are_as_before(method, fails):
    model, (images, targets) = drawn("fused").train(), images_and_classes(N, SIZE)
    model(images)
    del model.embedded
    handle = model.head.register_forward_hook(lambda *_: 1 / 0 if fails else None)
    before, stack = state_of(model, images), len(_get_current_function_mode_stack())
    try:
        method(model, images, targets)
        assert not fails
    except ZeroDivisionError:
        assert fails
    del model.embedded
    assert state_of(model, images) == before
    assert len(_get_current_function_mode_stack()) == stack
    handle.remove()
