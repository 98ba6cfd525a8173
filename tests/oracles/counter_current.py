"""Independent oracle for counter-current learning (Kao & Hariharan, NeurIPS 2024), from the paper note alone.

Levels 0..L; forward rates a_l = act(a_{l-1} U_l), logits a_L; feedback rates b_l = act(b_{l+1} V_{l+1}), b_0 linear, b_L the label. Rates are
rows, a drive is r W; V_l goes from level l to level l-1. Convolutions: W (c_in*3*3, c_out), rows (c_in, ky, kx), biases (1, c_out), maps stored
flat as (maps, height, width). Three independent roads to the changes of weights:

    gradients   torch autograd of the losses, the input of every layer detached (note 2.2, 2.3, 3.2-3.4)
    explicit    the local rules of 2.4 in NumPy, convolutions by loops over the kernel
    in_time     Euler integration of 6.3 in NumPy, windows one after another, instantaneous matching number

With C = A B^T, T the class indicator and M = 1 (all labels shown) or how many labels a shown label stands for (else 0), level by level:

    raw            kappa/d 1/(N K) sum M (C - T)^2
    normalised     s_C/(N K) sum M (Ah Bh^T - T)^2 + s_ssl/N^2 |Ah Ah^T - 1|^2 + s_ssl/K^2 |Bh Bh^T - 1|^2,   Ah = A/(|A| + 1e-8)
    own_class      kappa/(N d) |A - T B|^2                                   elementwise mean-squared error (8.4: collapses)
    autoencoder    s_C H mean (A - B)^2 + s_D H mean (At - Bt)^2             At: centred over the map, then divided by its norm + 1e-8
                   level 0 and level L: the first term alone
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

EPS = 1e-8
BATCH_NORM_EPS = 1e-5

ACTIVATIONS = {
    "elu": F.elu,
    "relu": torch.relu,
    "tanh": torch.tanh,
    "softplus": lambda z: torch.logaddexp(z, torch.zeros_like(z)),
    "sigmoid": torch.sigmoid,
    "softplus - ln 2": lambda z: torch.logaddexp(z, torch.zeros_like(z)) - np.log(2.0),
    "2*sigmoid - 1": lambda z: 2 * torch.sigmoid(z) - 1,
}


def logistic(z):
    return 0.5 * (1 + np.tanh(z / 2))


#: rate and slope in NumPy
RATES = {
    "elu": (lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0))), lambda z: np.exp(np.minimum(z, 0))),
    "relu": (lambda z: np.maximum(z, 0), lambda z: (z > 0) * 1.0),
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "softplus": (lambda z: np.logaddexp(0, z), logistic),
    "sigmoid": (logistic, lambda z: logistic(z) * (1 - logistic(z))),
    "softplus - ln 2": (lambda z: np.logaddexp(0, z) - np.log(2), logistic),
    "2*sigmoid - 1": (lambda z: 2 * logistic(z) - 1, lambda z: 2 * logistic(z) * (1 - logistic(z))),
}


@dataclass(frozen=True)
class Net:
    """The two nets and their loss. `up[l-1]` is the kind of U_l, `down[l-1]` that of V_l: dense, pool, stride, upsample."""

    shapes: tuple
    up: tuple
    down: tuple
    activation: str = "elu"
    loss: str = "raw"
    kappa: float = 128.0
    contrast: float = 1.0
    decorrelation: float = 0.5
    detail: float = 1.0
    threshold: float = 0.0  # of the sample filter; 0: none
    batch_norm: bool = False

    @property
    def top(self) -> int:
        return len(self.shapes) - 1

    @property
    def sizes(self) -> tuple:
        return tuple(int(np.prod(shape)) for shape in self.shapes)

    @property
    def classes(self) -> int:
        return self.sizes[-1]

    @property
    def labelled(self) -> bool:
        """Whether the target is a class, not an image."""
        return self.loss != "autoencoder"


def mlp(sizes, **settings) -> Net:
    dense = ("dense",) * (len(sizes) - 1)
    return Net(tuple((n,) for n in sizes), dense, dense, **settings)


def cnn(sizes, pixels: int, kind: str, **settings) -> Net:
    """`sizes`: channels of the image, maps of each level, classes; `kind`: pool or stride."""
    blocks = len(sizes) - 2
    shapes = tuple((maps, pixels // 2**l, pixels // 2**l) for l, maps in enumerate(sizes[:-1]))
    return Net((*shapes, (sizes[-1],)), (kind,) * blocks + ("dense",), ("upsample",) * blocks + ("dense",), **settings)


def autoencoder(channels, pixels: int, **settings) -> Net:
    depth = len(channels) - 1
    encoder = tuple((maps, pixels // 2**l, pixels // 2**l) for l, maps in enumerate(channels))
    up = ("stride",) * depth + ("upsample",) * depth
    down = ("upsample",) * depth + ("stride",) * depth
    return Net(encoder + encoder[-2::-1], up, down, **({"activation": "relu", "loss": "autoencoder"} | settings))


def weight_shapes(net: Net, biases: bool = False) -> dict:
    """By name; `biases`: one per map of every convolution."""
    found = {}
    for l in range(1, net.top + 1):
        ends = {"U": (l - 1, l, net.up[l - 1]), "V": (l, l - 1, net.down[l - 1])}
        for letter, (pre, post, kind) in ends.items():
            if kind == "dense":
                found[f"{letter}{l}"] = (net.sizes[pre], net.sizes[post])
            else:
                found[f"{letter}{l}"] = (9 * net.shapes[pre][0], net.shapes[post][0])
                if biases:
                    found[f"b{letter}{l}"] = (1, net.shapes[post][0])
    return found


def random_weights(net: Net, seed: int, gain: float = 1.5, biases: bool = False) -> dict:
    """Uniform, of the standard deviation gain/sqrt(fan in)."""
    rng = np.random.default_rng(seed)
    limit = {name: gain * np.sqrt(3 / max(shape[0], 3)) for name, shape in weight_shapes(net, biases).items()}
    return {n: rng.uniform(-limit[n], limit[n], shape) for n, shape in weight_shapes(net, biases).items()}


def indicator(net: Net, labels) -> np.ndarray:
    return np.eye(net.classes)[np.asarray(labels)]


def multiplicities(net: Net, labels, schedule: str = "all", wrong=None) -> np.ndarray:
    """(samples, classes): for how many windows each shown label stands."""
    T = indicator(net, labels)
    if schedule == "all":
        return np.ones_like(T)
    if schedule == "true":
        return T
    assert schedule == "true_and_random" and not np.any(np.equal(wrong, labels))
    return T + (net.classes - 1) * indicator(net, wrong)


# ---------------------------------------------------------------- autograd


def layer(net: Net, kind: str, r, W, bias, pre, post, linear: bool):
    """Rates (samples, cells) that one layer makes of the detached rates `r`."""
    r = r.detach()
    if kind == "dense":
        z = r @ W
    else:
        maps = r.reshape(len(r), *pre)
        if kind == "upsample":
            maps = F.interpolate(maps, scale_factor=2, mode="nearest")
        kernel = W.T.reshape(post[0], pre[0], 3, 3)
        offset = None if bias is None else bias.reshape(-1)
        z = F.conv2d(maps, kernel, offset, stride=2 if kind == "stride" else 1, padding=1)
    if linear:
        return z.flatten(1)
    if net.batch_norm:
        mean = z.mean(dim=(0, 2, 3), keepdim=True)
        variance = ((z - mean) ** 2).mean(dim=(0, 2, 3), keepdim=True)
        z = (z - mean) / torch.sqrt(variance + BATCH_NORM_EPS)
    a = ACTIVATIONS[net.activation](z)
    return (F.max_pool2d(a, 2) if kind == "pool" else a).flatten(1)


def streams(net: Net, weights, x, target) -> tuple[list, list]:
    """Rates of all levels, of the forward net from `x` and of the feedback net from `target`."""
    a, b = [x], [target]
    for l in range(1, net.top + 1):
        U, bias = weights[f"U{l}"], weights.get(f"bU{l}")
        a.append(layer(net, net.up[l - 1], a[-1], U, bias, net.shapes[l - 1], net.shapes[l], l == net.top))
    for l in range(net.top, 0, -1):
        V, bias = weights[f"V{l}"], weights.get(f"bV{l}")
        b.insert(0, layer(net, net.down[l - 1], b[0], V, bias, net.shapes[l], net.shapes[l - 1], l == 1))
    return a, b


def unit(A):
    return A / (A.norm(dim=1, keepdim=True) + EPS)


def pair_loss(net: Net, l: int, A, B, T, M):
    """Loss of level l < L; of the autoencoder also of level L."""
    N = len(A)
    if net.loss == "raw":
        return net.kappa / net.sizes[l] / M.numel() * (M * (A @ B.T - T) ** 2).sum()
    if net.loss == "own_class":
        return net.kappa * ((A - T @ B) ** 2).sum() / A.numel()
    if net.loss == "normalised":
        A, B = unit(A), unit(B)
        loss = net.contrast / M.numel() * (M * (A @ B.T - T) ** 2).sum()
        for C in (A, B):
            loss = loss + net.decorrelation / len(C) ** 2 * ((C @ C.T - torch.eye(len(C), dtype=C.dtype)) ** 2).sum()
        return loss
    maps, height, width = net.shapes[l]
    loss = net.contrast * height * ((A - B) ** 2).mean()
    if 0 < l < net.top:
        details = []
        for C in (A, B):
            C = C.reshape(N, maps, height * width)
            C = C - C.mean(dim=2, keepdim=True)
            details.append(C / (C.norm(dim=2, keepdim=True) + EPS))
        loss = loss + net.detail * height * ((details[0] - details[1]) ** 2).mean()
    return loss


def losses(net: Net, weights, x, labels=None, M=None) -> list:
    """Losses of the levels 0..L. `weights` and `x` are tensors; the autoencoder's target is `x`."""
    if not net.labelled:
        a, b = streams(net, weights, x, x)
        return [pair_loss(net, l, a[l], b[l], None, None) for l in range(net.top + 1)]
    T = torch.as_tensor(indicator(net, labels), dtype=x.dtype)
    M = torch.ones_like(T) if M is None else torch.as_tensor(M, dtype=x.dtype)
    a, b = streams(net, weights, x, torch.eye(net.classes, dtype=x.dtype))
    taught = torch.ones(len(x), 1, dtype=x.dtype)
    if net.threshold:
        p_true = (torch.softmax(a[-1].detach(), dim=1) * T).sum(dim=1, keepdim=True)
        taught = (p_true <= net.threshold).to(x.dtype)
    found = [pair_loss(net, l, a[l] * taught, b[l], T, M) for l in range(net.top)]
    return [*found, -(T * torch.log_softmax(a[-1], dim=1)).sum() / len(x)]


def gradients(net: Net, weights: dict, x, labels=None, M=None) -> dict:
    """Of the sum of all losses, by the name of the weight."""
    tensors = {n: torch.tensor(value, dtype=torch.float64, requires_grad=True) for n, value in weights.items()}
    total = sum(losses(net, tensors, torch.as_tensor(x, dtype=torch.float64), labels, M))
    found = torch.autograd.grad(total, list(tensors.values()))
    return {name: value.numpy() for name, value in zip(tensors, found, strict=True)}


def rates(net: Net, weights: dict, x) -> tuple[list, list]:
    """NumPy rates of both streams; the feedback net on all labels, the autoencoder's on the images."""
    x = torch.as_tensor(x, dtype=torch.float64)
    tensors = {name: torch.as_tensor(value, dtype=torch.float64) for name, value in weights.items()}
    target = torch.eye(net.classes, dtype=torch.float64) if net.labelled else x
    return tuple([value.numpy() for value in stream] for stream in streams(net, tensors, x, target))


def total_loss(net: Net, weights: dict, x, labels=None, M=None) -> float:
    tensors = {name: torch.as_tensor(value, dtype=torch.float64) for name, value in weights.items()}
    return float(sum(losses(net, tensors, torch.as_tensor(x, dtype=torch.float64), labels, M)))


# ---------------------------------------------------------------- the local rules of 2.4, in NumPy


def patches(r, pre, kind) -> np.ndarray:
    """(samples, rows, columns, c_in*3*3): what each position of a convolution reads."""
    maps = np.reshape(r, (len(r), *pre))
    if kind == "upsample":
        maps = maps.repeat(2, axis=2).repeat(2, axis=3)
    padded = np.pad(maps, ((0, 0), (0, 0), (1, 1), (1, 1)))
    height, width = maps.shape[2:]
    step = 2 if kind == "stride" else 1
    taken = [padded[:, :, y : y + height : step, x : x + width : step] for y in range(3) for x in range(3)]
    return np.moveaxis(np.stack(taken, axis=2), (1, 2), (3, 4)).reshape(len(r), *taken[0].shape[2:], -1)


def winners(conv) -> np.ndarray:
    """1 at the position of each 2x2 window (samples, rows, columns, maps) that is the largest, 0 elsewhere."""
    N, height, width, maps = conv.shape
    blocks = conv.reshape(N, height // 2, 2, width // 2, 2, maps).transpose(0, 1, 3, 5, 2, 4).reshape(-1, 4)
    first = np.eye(4)[blocks.argmax(axis=1)].reshape(N, height // 2, width // 2, maps, 2, 2)
    return first.transpose(0, 1, 4, 2, 5, 3).reshape(conv.shape)


def drive(kind, r, W, bias, pre):
    """Drive (samples, cells) of a layer, a pooled one after pooling; and what `outer` needs."""
    if kind == "dense":
        return r @ W, None
    read = patches(r, pre, kind)
    conv = read @ W + (0.0 if bias is None else bias.reshape(-1))
    gate = None
    if kind == "pool":
        gate = winners(conv)
        N, height, width, maps = conv.shape
        conv = conv.reshape(N, height // 2, 2, width // 2, 2, maps).max(axis=(2, 4))
    return np.moveaxis(conv, 3, 1).reshape(len(r), -1), (read, gate)


def outer(kind, r, delta, kept, post):
    """Sum over samples and positions of pre times post factor; and that of a bias."""
    if kind == "dense":
        return r.T @ delta, None
    read, gate = kept
    delta = np.moveaxis(delta.reshape(len(r), *post), 1, 3)
    if gate is not None:
        delta = gate * delta.repeat(2, axis=1).repeat(2, axis=2)
    return np.einsum("nyxk,nyxo->ko", read, delta), delta.sum(axis=(0, 1, 2))[None]


def through_norm(g, A, n, eps=EPS):
    """The gradient at A of a function of A/(n + eps), n = |A| (last axis), whose gradient at that is `g`; at n = 0 without the second term."""
    return g / (n + eps) - A * (A * g).sum(-1, keepdims=True) / (np.where(n > 0, n, 1.0) * (n + eps) ** 2)


def raw_pulls(A, B, T, M, c):
    """G_A, G_B of loss R; `c` = 2 kappa/(d N K)."""
    E = M * (A @ B.T - T)
    return c * E @ B, c * E.T @ A


def normalised_pulls(A, B, T, M, s_C, s_ssl):
    N, K = T.shape
    n_A, n_B = (np.linalg.norm(C, axis=1, keepdims=True) for C in (A, B))
    Ah, Bh = A / (n_A + EPS), B / (n_B + EPS)
    E = M * (Ah @ Bh.T - T)
    g_A = s_C * 2 / (N * K) * E @ Bh + s_ssl * 4 / N**2 * (Ah @ Ah.T - np.eye(N)) @ Ah
    g_B = s_C * 2 / (N * K) * E.T @ Ah + s_ssl * 4 / K**2 * (Bh @ Bh.T - np.eye(K)) @ Bh
    return through_norm(g_A, A, n_A), through_norm(g_B, B, n_B)


def detail(A, shape):
    """Centred maps, their norms, and both divided."""
    maps = A.reshape(len(A), shape[0], -1)
    c = maps - maps.mean(axis=2, keepdims=True)
    n = np.linalg.norm(c, axis=2, keepdims=True)
    return c, n, c / (n + EPS)


def autoencoder_pull(A, B, shape, s_C, s_D, samples):
    """G_A; exchange A and B for G_B. The mean is over `samples` times the cells."""
    scale = 2 * shape[1] / (samples * A.shape[1])
    G = s_C * scale * (A - B)
    if s_D:
        (c, n, hat), (_, _, other) = detail(A, shape), detail(B, shape)
        t = through_norm(s_D * scale * (hat - other), c, n)
        G = G + (t - t.mean(axis=2, keepdims=True)).reshape(A.shape)
    return G


def pulls(net: Net, l, A, B, T, M):
    N = len(A)
    if net.loss == "raw":
        return raw_pulls(A, B, T, M, 2 * net.kappa / (net.sizes[l] * N * net.classes))
    if net.loss == "normalised":
        return normalised_pulls(A, B, T, M, net.contrast, net.decorrelation)
    if net.loss == "own_class":
        G = 2 * net.kappa / (N * net.sizes[l]) * (A - T @ B)
        return G, -T.T @ G
    s_D = net.detail if 0 < l < net.top else 0.0
    shape = net.shapes[l]
    return tuple(autoencoder_pull(C, D, shape, net.contrast, s_D, N) for C, D in ((A, B), (B, A)))


def explicit(net: Net, weights: dict, x, labels=None, M=None) -> dict:
    """Gradients of all weights by the rules of 2.4: no autograd. Without batch norm."""
    assert not net.batch_norm
    sigma, slope = RATES[net.activation]
    top = net.top
    T = indicator(net, labels) if net.labelled else None
    M = np.ones_like(T) if net.labelled and M is None else M
    a, b, z, q, kept = {0: x}, {top: np.eye(net.classes) if net.labelled else x}, {}, {}, {}
    for l in range(1, top + 1):
        z[l], kept["U", l] = drive(net.up[l - 1], a[l - 1], weights[f"U{l}"], weights.get(f"bU{l}"), net.shapes[l - 1])
        a[l] = sigma(z[l]) if l < top else z[l]
    for l in range(top, 0, -1):
        q[l - 1], kept["V", l] = drive(net.down[l - 1], b[l], weights[f"V{l}"], weights.get(f"bV{l}"), net.shapes[l])
        b[l - 1] = sigma(q[l - 1]) if l > 1 else q[l - 1]
    taught = np.ones((len(x), 1))
    if net.threshold:
        taught = 1.0 - ((softmax(a[top]) * T).sum(axis=1, keepdims=True) > net.threshold)
    found = {}

    def add(letter, l, kind, r, delta, post):
        found[f"{letter}{l}"], bias = outer(kind, r, delta, kept[letter, l], post)
        if f"b{letter}{l}" in weights:
            found[f"b{letter}{l}"] = bias

    for l in range(top + (0 if net.labelled else 1)):
        seen = a[l] * taught
        G_A, G_B = pulls(net, l, seen, b[l], T, M)
        if l > 0:
            gain = slope(z[l]) if l < top else 1.0
            add("U", l, net.up[l - 1], a[l - 1], taught * G_A * gain, net.shapes[l])
        if l < top:
            gain = slope(q[l]) if l > 0 else 1.0
            add("V", l + 1, net.down[l], b[l + 1], G_B * gain, net.shapes[l])
    if net.labelled:
        add("U", top, net.up[top - 1], a[top - 1], (softmax(a[top]) - T) / len(x), net.shapes[top])
    return found


def softmax(u):
    e = np.exp(u - u.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


# ---------------------------------------------------------------- 6.3 in time


def shown(net: Net, labels, schedule: str = "all", wrong=None) -> list:
    """``[(labels of the window by sample, multiplicity)]``."""
    labels = np.asarray(labels)
    if schedule == "all":
        return [(np.full(len(labels), k), 1) for k in range(net.classes)]
    return [(labels, 1)] + ([(np.asarray(wrong), net.classes - 1)] if schedule == "true_and_random" else [])


def plastic_pull(net: Net, l, r, v_a, R):
    """What the cells of level l multiply their slope and their presynaptic rates by: rates, apical potentials, third factor (samples, 1).

    The gradient at r of the sample's own loss in this window.
    """
    d, K = net.sizes[l], net.classes
    if net.loss == "raw":
        match = (r * v_a).sum(axis=1, keepdims=True)
        return 2 * net.kappa / (d * K) * (match - R) * v_a
    if net.loss == "own_class":
        return 2 * net.kappa / d * R * (r - v_a)
    if net.loss == "normalised":
        assert net.decorrelation == 0, "the decorrelation couples samples: not in time"
        n = np.linalg.norm(r, axis=1, keepdims=True)
        partner = v_a / (np.linalg.norm(v_a, axis=1, keepdims=True) + EPS)
        match = (r * partner).sum(axis=1, keepdims=True) / (n + EPS)
        return through_norm(net.contrast * 2 / K * (match - R) * partner, r, n)
    s_D = net.detail if 0 < l < net.top else 0.0
    return autoencoder_pull(r, v_a, net.shapes[l], net.contrast, s_D, 1)


def in_time(
    net: Net, weights: dict, x, labels=None, windows=None, *, dt: float, settle: int, learn: int, tau=0.01, tau_a=0.01, eta=1.0,
) -> tuple[dict, dict]:  # fmt: skip
    """One trial from rest with weights held: ``{phase: {"F1.u": ..}}`` as read in the last step of each phase, and the collected changes.

    `windows` as `shown` gives them (the autoencoder has none: phases settle, learn). `settle` and `learn` count Euler steps of `dt`; in the
    gate, the `learn` steps of each window, g(t) dt = 1/learn. Everything in a step reads what stands at its start. Each cell forms the
    matching number from its own rate and apical potential. Changes are the mean over the samples.
    """
    sigma, slope = RATES[net.activation]
    top, N = net.top, len(x)
    uF = {l: np.zeros((N, net.sizes[l])) for l in range(1, top + 1)}
    uD = {l: np.zeros((N, net.sizes[l])) for l in range(top)}
    aF = {l: np.zeros((N, net.sizes[l])) for l in range(1, top + (0 if net.labelled else 1))}
    aD = {l: np.zeros((N, net.sizes[l])) for l in range(top)}
    changes = {name: np.zeros_like(value) for name, value in weights.items()}
    ends = {}
    for k, (label, multiplicity) in enumerate(windows if net.labelled else [(None, 1)]):
        suffix = f"[{k}]" if net.labelled else ""
        clamp = indicator(net, label) if net.labelled else x
        R = np.equal(label, labels)[:, None] * 1.0 if net.labelled else None
        for phase, steps in (("settle", settle), ("learn", learn)):
            for _ in range(steps):
                rF = {0: x} | {l: sigma(u) if l < top else u for l, u in uF.items()}
                rD = {l: sigma(u) if l > 0 else u for l, u in uD.items()} | {top: clamp}
                ends[phase + suffix] = (
                    {f"F{l}.u": u for l, u in uF.items()} | {f"D{l}.u": u for l, u in uD.items()}
                    | {f"F{l}.v_a": v for l, v in aF.items()} | {f"D{l}.v_a": v for l, v in aD.items()}
                    | {f"F{l}.r": r for l, r in rF.items() if l < top} | {f"D{l}.r": r for l, r in rD.items()}
                )  # fmt: skip
                drives, kept = {}, {}
                for l in range(1, top + 1):
                    U, bias = weights[f"U{l}"], weights.get(f"bU{l}")
                    drives["U", l], kept["U", l] = drive(net.up[l - 1], rF[l - 1], U, bias, net.shapes[l - 1])
                    V, bias = weights[f"V{l}"], weights.get(f"bV{l}")
                    drives["V", l], kept["V", l] = drive(net.down[l - 1], rD[l], V, bias, net.shapes[l])
                if phase == "learn":
                    taught = 1.0
                    if net.threshold:
                        p_true = (softmax(uF[top]) * indicator(net, labels)).sum(axis=1, keepdims=True)
                        taught = 1.0 - (p_true > net.threshold)
                    deltas = {}
                    for l in aF:
                        gain = slope(uF[l]) if l < top else 1.0
                        deltas["U", l] = -multiplicity * taught * plastic_pull(net, l, rF[l], aF[l], R) * gain
                    for l in aD:
                        gain = slope(uD[l]) if l > 0 else 1.0
                        deltas["V", l + 1] = -multiplicity * taught * plastic_pull(net, l, rD[l], aD[l], R) * gain
                    if net.labelled:
                        deltas["U", top] = R * (clamp - softmax(uF[top]))
                    for (letter, l), delta in deltas.items():
                        forward = letter == "U"
                        kind, post = (net.up[l - 1], net.shapes[l]) if forward else (net.down[l - 1], net.shapes[l - 1])
                        change, bias = outer(kind, rF[l - 1] if forward else rD[l], delta, kept[letter, l], post)
                        changes[f"{letter}{l}"] = changes[f"{letter}{l}"] + eta / learn / N * change
                        if f"b{letter}{l}" in weights:
                            changes[f"b{letter}{l}"] = changes[f"b{letter}{l}"] + eta / learn / N * bias
                uF = {l: u + dt / tau * (drives["U", l] - u) for l, u in uF.items()}
                uD = {l: u + dt / tau * (drives["V", l + 1] - u) for l, u in uD.items()}
                aF = {l: v + dt / tau_a * (rD[l] - v) for l, v in aF.items()}
                aD = {l: v + dt / tau_a * (rF[l] - v) for l, v in aD.items()}
    return ends, changes


# ---------------------------------------------------------------- multiplications and additions, counted


class Counter:
    """Counts two operations for each product of two numbers in a matrix product."""

    def __init__(self):
        self.operations = 0

    def product(self, A, B):
        self.operations += 2 * A.shape[0] * A.shape[1] * B.shape[1]
        return A @ B


def counted_step(weights: dict, x, T, kappa: float = 128.0) -> tuple[dict, int]:
    """One step of loss R for the dense net (ELU), every matrix product counted; gradients and operations of the batch."""
    count, (sigma, slope) = Counter(), RATES["elu"]
    top, (N, K) = sum(name.startswith("U") for name in weights), T.shape
    a, b, z, q = {0: x}, {top: np.eye(K)}, {}, {}
    for l in range(1, top + 1):
        z[l] = count.product(a[l - 1], weights[f"U{l}"])
        a[l] = sigma(z[l]) if l < top else z[l]
    for l in range(top, 0, -1):
        q[l - 1] = count.product(b[l], weights[f"V{l}"])
        b[l - 1] = sigma(q[l - 1]) if l > 1 else q[l - 1]
    found = {f"U{top}": count.product(a[top - 1].T, (softmax(a[top]) - T) / N)}
    for l in range(top):
        E = 2 * kappa / (a[l].shape[1] * N * K) * (count.product(a[l], b[l].T) - T)
        if l > 0:
            found[f"U{l}"] = count.product(a[l - 1].T, count.product(E, b[l]) * slope(z[l]))
        G_B = count.product(E.T, a[l])
        found[f"V{l + 1}"] = count.product(b[l + 1].T, G_B * slope(q[l]) if l > 0 else G_B)
    return found, count.operations


def counted_backprop(weights: dict, x, T) -> tuple[dict, int]:
    """One step of backprop of the forward net alone, counted likewise."""
    count, (sigma, slope) = Counter(), RATES["elu"]
    top = sum(name.startswith("U") for name in weights)
    a, z = {0: x}, {}
    for l in range(1, top + 1):
        z[l] = count.product(a[l - 1], weights[f"U{l}"])
        a[l] = sigma(z[l]) if l < top else z[l]
    delta, found = (softmax(a[top]) - T) / len(x), {}
    for l in range(top, 0, -1):
        found[f"U{l}"] = count.product(a[l - 1].T, delta)
        if l > 1:
            delta = count.product(delta, weights[f"U{l}"].T) * slope(z[l - 1])
    return found, count.operations


# ---------------------------------------------------------------- training


def sgd_step(net: Net, weights: dict, x, labels, rate: float, clip: float | None = 1.0) -> dict:
    """The step of 2.5: gradients of each of the two nets clipped together, then subtracted."""
    found = explicit(net, weights, x, labels)
    moved = {}
    for letters in (("U", "bU"), ("V", "bV")):
        names = [name for name in found if name.startswith(letters)]
        norm = np.sqrt(sum((found[name] ** 2).sum() for name in names))
        scale = 1.0 if clip is None else min(1.0, clip / norm)
        moved |= {name: weights[name] - rate * scale * found[name] for name in names}
    return moved
