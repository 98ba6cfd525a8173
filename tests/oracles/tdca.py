"""Independent oracle for the TDCA-network (Chen, Liu & Wang, arXiv 2208.01416), from the paper note alone.

All in NumPy float64, rows are samples, a dense drive is a = h @ W + b with W (n_pre, n_post). Learners are a `Net`, a chain of blocks 1..L:

    Dense(pre, post)                tanh(h W + b)                                            Wl (pre, post), bl (post,)
    Residual(size)                  tanh(s Wb + bb + h), s = tanh(h Wa + ba)                 Wal, bal (fc1), Wbl, bbl (fc2)
    Residual(size, strict=True)     the same forward; s gets credits of its own              the same
    Conv(maps_in, maps, h, w, pool) tanh([2x2 max-pool] conv 3x3, pad 1, stride 1)           Wl (maps_in*9, maps), rows (map, ky, kx); bl (maps,)
    Output(pre, classes)            softmax(h W + b)                                         Wl, bl; always the last one and only there

Maps stand flat, row-major, as (map, row, column). An odd last row or column is not pooled. Weights are a dict by the names above (l = 1..L).

Credits are one (B, N) array: the *credited layers* one after another in forward order, the inner layer of a strict residual block right before
that block's output (`credit_sizes`). A pooled map has one credit per pooled unit; its local slope goes to the winner (the first of equal ones).
A credit stands for d loss/d h of its own sample, without the 1/B; every update is a mean over the batch and has the sign of a gradient (descend it).

Diffusion. Layer of n neurons on the line r_i = i, i = 0..n-1; K = ceil(n/ratio) sites (at least 1), each the centre of one of K equal stretches
of [-1/2, n - 1/2]: s_k = (k + 1/2) n/K - 1/2. So K = n gives s_k = k; the ends are half a spacing from the ends of the line. Sheet: n = side^2,
neuron i = row*side + column; the sites are the product of two such lines of `side` neurons at the ratio sqrt(ratio), K = ceil(side/sqrt(ratio))^2,
site k = row*K_side + column, d Euclidean. Kernel D (K, n), c = k @ D, columns sum to 1:

    gauss   exp(-d^2/(2 w^2))       w: ratio/2 on a line, sqrt(ratio)/2 on a sheet, unless given
    exp     exp(-d/w)               the same default width
    block   1 at the nearest site   of equally near ones the first (ties="lower") or equal shares (ties="share")

ratio = 1 is "no diffusion", D = I, whatever the kernel.
"""

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from scipy.integrate import solve_ivp

# ---------------------------------------------------------------- the learner


@dataclass(frozen=True)
class Dense:
    pre: int
    post: int


@dataclass(frozen=True)
class Output:
    pre: int
    post: int


@dataclass(frozen=True)
class Residual:
    post: int
    strict: bool = False


@dataclass(frozen=True)
class Conv:
    maps_in: int
    maps: int
    height: int
    width: int
    pool: bool = False

    @property
    def out_height(self) -> int:
        return self.height // 2 if self.pool else self.height

    @property
    def out_width(self) -> int:
        return self.width // 2 if self.pool else self.width

    @property
    def post(self) -> int:
        return self.maps * self.out_height * self.out_width


@dataclass(frozen=True)
class Net:
    blocks: tuple

    @property
    def classes(self) -> int:
        return self.blocks[-1].post


def mlp(sizes) -> Net:
    """`sizes` = (n_0, n_1, ..., C)."""
    hidden = [Dense(a, b) for a, b in pairwise(sizes[:-1])]
    return Net((*hidden, Output(sizes[-2], sizes[-1])))


def resnet(inputs: int, width: int, num_blocks: int, classes: int, strict: bool = False) -> Net:
    return Net((Dense(inputs, width), *(Residual(width, strict) for _ in range(num_blocks)), Output(width, classes)))


def convnet(maps_in: int, height: int, width: int, maps: int, classes: int, pool: bool = False) -> Net:
    conv = Conv(maps_in, maps, height, width, pool)
    return Net((conv, Output(conv.post, classes)))


def weight_shapes(net: Net) -> dict:
    """Name -> shape."""
    found = {}
    for l, block in enumerate(net.blocks, 1):
        if isinstance(block, Residual):
            for half in "ab":
                found[f"W{half}{l}"] = (block.post, block.post)
                found[f"b{half}{l}"] = (block.post,)
        elif isinstance(block, Conv):
            found[f"W{l}"] = (9 * block.maps_in, block.maps)
            found[f"b{l}"] = (block.maps,)
        else:
            found[f"W{l}"] = (block.pre, block.post)
            found[f"b{l}"] = (block.post,)
    return found


def parameter_count(net: Net) -> int:
    return sum(int(np.prod(shape)) for shape in weight_shapes(net).values())


def credit_sizes(net: Net) -> tuple:
    """Sizes of the credited layers in forward order."""
    sizes = []
    for block in net.blocks:
        if isinstance(block, Residual) and block.strict:
            sizes.append(block.post)
        sizes.append(block.post)
    return tuple(sizes)


def random_weights(net: Net, seed: int, bias_scale: float = 0.0) -> dict:
    """2.1: U(-1/sqrt(fan in), +1/sqrt(fan in)), biases 0 (or normal of `bias_scale`, to make a test see them)."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in weight_shapes(net).items():
        if len(shape) == 2:
            limit = 1 / np.sqrt(shape[0])
            weights[name] = rng.uniform(-limit, limit, shape)
        else:
            weights[name] = bias_scale * rng.standard_normal(shape)
    return weights


def softmax(a):
    e = np.exp(a - a.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def log_softmax(a):
    a = a - a.max(axis=-1, keepdims=True)
    return a - np.log(np.exp(a).sum(axis=-1, keepdims=True))


def patches(block: Conv, h):
    """(B, maps_in*h*w) -> (B, h, w, maps_in*9), what every position of the layer sees."""
    B = len(h)
    image = np.zeros((B, block.maps_in, block.height + 2, block.width + 2))
    image[:, :, 1:-1, 1:-1] = h.reshape(B, block.maps_in, block.height, block.width)
    seen = np.zeros((B, block.height, block.width, block.maps_in * 9))
    for m in range(block.maps_in):
        for ky in range(3):
            for kx in range(3):
                seen[..., m * 9 + ky * 3 + kx] = image[:, m, ky : ky + block.height, kx : kx + block.width]
    return seen


def conv_drive(block: Conv, W, b, h):
    """(B, h, w, maps), before pooling."""
    return patches(block, h) @ W + b


def pool_winners(block: Conv, a):
    """(B, h, w, maps) -> (drive of the winner, its row, its column), each (B, h//2, w//2, maps)."""
    B = len(a)
    shape = (B, block.out_height, block.out_width, block.maps)
    drive, row, column = np.zeros(shape), np.zeros(shape, int), np.zeros(shape, int)
    for s in range(B):
        for i in range(block.out_height):
            for j in range(block.out_width):
                for m in range(block.maps):
                    window = a[s, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, m]
                    best = int(np.argmax(window))
                    row[s, i, j, m], column[s, i, j, m] = 2 * i + best // 2, 2 * j + best % 2
                    drive[s, i, j, m] = window.flat[best]
    return drive, row, column


@dataclass
class Acts:
    """h[0..L] ((B, n_l), h[L] = p), inner[l] (B, n): s_1 of the residual block l, logits (B, C)."""

    h: list
    inner: dict = field(default_factory=dict)
    logits: np.ndarray | None = None


def forward(net: Net, weights: dict, x) -> Acts:
    acts = Acts([np.asarray(x, float)])
    for l, block in enumerate(net.blocks, 1):
        h = acts.h[-1]
        if isinstance(block, Dense):
            acts.h.append(np.tanh(h @ weights[f"W{l}"] + weights[f"b{l}"]))
        elif isinstance(block, Residual):
            s = np.tanh(h @ weights[f"Wa{l}"] + weights[f"ba{l}"])
            acts.inner[l] = s
            acts.h.append(np.tanh(s @ weights[f"Wb{l}"] + weights[f"bb{l}"] + h))
        elif isinstance(block, Conv):
            a = conv_drive(block, weights[f"W{l}"], weights[f"b{l}"], h)
            if block.pool:
                a, _, _ = pool_winners(block, a)
            acts.h.append(np.tanh(a).transpose(0, 3, 1, 2).reshape(len(h), -1))
        else:
            acts.logits = h @ weights[f"W{l}"] + weights[f"b{l}"]
            acts.h.append(softmax(acts.logits))
    return acts


def nll(acts: Acts, y) -> float:
    """Mean over the batch of -log p of the target; y one-hot (B, C)."""
    return float(-(y * log_softmax(acts.logits)).sum(axis=1).mean())


def accuracy(acts: Acts, y) -> float:
    return float((acts.logits.argmax(axis=1) == y.argmax(axis=1)).mean())


def one_hot(labels, classes: int):
    return np.eye(classes)[np.asarray(labels)]


# ---------------------------------------------------------------- the TDCA-network


def tdca_parameter_count(classes: int, hidden: int, sources: int) -> int:
    return body_parameter_count(2 * classes, hidden, sources)


def body_parameter_count(inputs: int, hidden: int, outputs: int) -> int:
    return inputs * hidden + hidden + hidden**2 + hidden + (hidden + 1) * outputs


def theta_shapes(inputs: int, hidden: int, outputs: int) -> dict:
    """In the order of `flatten`; matrices (n_pre, n_post)."""
    return {
        "V1": (inputs, hidden),
        "e1": (hidden,),
        "V2": (hidden, hidden),
        "e2": (hidden,),
        "V3": (hidden, outputs),
        "e3": (outputs,),
    }


def tdca_init(inputs: int, hidden: int, outputs: int, seed: int, bias_scale: float = 0.0) -> dict:
    """Xavier-uniform, biases 0 (or normal of `bias_scale`). For a classifier inputs = 2 C, outputs = K."""
    rng = np.random.default_rng(seed)
    theta = {}
    for name, shape in theta_shapes(inputs, hidden, outputs).items():
        if len(shape) == 2:
            limit = np.sqrt(6 / (shape[0] + shape[1]))
            theta[name] = rng.uniform(-limit, limit, shape)
        else:
            theta[name] = bias_scale * rng.standard_normal(shape)
    return theta


def flatten(theta: dict):
    return np.concatenate([theta[name].ravel() for name in ("V1", "e1", "V2", "e2", "V3", "e3")])


def unflatten(vector, inputs: int, hidden: int, outputs: int) -> dict:
    """`vector` (..., d): leading axes stay."""
    theta, at = {}, 0
    for name, shape in theta_shapes(inputs, hidden, outputs).items():
        size = int(np.prod(shape))
        theta[name] = vector[..., at : at + size].reshape(*vector.shape[:-1], *shape)
        at += size
    assert at == vector.shape[-1]
    return theta


def tdca_body(theta: dict, z):
    """z (M, inputs) -> (M, K). A leading population axis of theta carries over: (P, M, K)."""
    u1 = np.tanh(z @ theta["V1"] + theta["e1"][..., None, :])
    u2 = np.tanh(u1 @ theta["V2"] + theta["e2"][..., None, :])
    return u2 @ theta["V3"] + theta["e3"][..., None, :]


def tdca_credits(theta: dict, p, y, D=None):
    """p, y (B, C), D (K, N) or None (K = N, D = I) -> credits (B, N)."""
    k = tdca_body(theta, np.concatenate([p, y], axis=1))
    return k if D is None else k @ D


def folded(theta: dict, D) -> dict:
    """The same credits without an explicit kernel."""
    return {**theta, "V3": theta["V3"] @ D, "e3": theta["e3"] @ D}


# ---------------------------------------------------------------- credit diffusion


def site_count(n: int, ratio: float) -> int:
    return max(1, int(np.ceil(n / ratio - 1e-9)))


def line_sites(n: int, count: int):
    return np.array([(k + 0.5) * n / count - 0.5 for k in range(count)])


def weights_of_distance(d, kind: str, width: float, ties: str = "lower"):
    """d (K, n) -> D (K, n), columns sum to 1."""
    K, n = d.shape
    D = np.zeros((K, n))
    for i in range(n):
        nearest = d[:, i].min()
        if kind == "block":
            near = np.flatnonzero(d[:, i] < nearest + 1e-9)
            D[near[:1] if ties == "lower" else near, i] = 1
        elif K == 1:
            D[:, i] = 1
        elif kind == "gauss":
            D[:, i] = np.exp(-(d[:, i] ** 2 - nearest**2) / (2 * width**2))
        elif kind == "exp":
            D[:, i] = np.exp(-(d[:, i] - nearest) / width)
        else:
            raise ValueError(kind)
        D[:, i] /= D[:, i].sum()
    return D


def line_kernel(n: int, ratio: float, kind: str = "gauss", width: float | None = None, ties: str = "lower"):
    """D (K, n)."""
    if ratio == 1:
        return np.eye(n)
    sites = line_sites(n, site_count(n, ratio))
    d = np.array([[abs(i - s) for i in range(n)] for s in sites])
    return weights_of_distance(d, kind, ratio / 2 if width is None else width, ties)


def sheet_distances(side: int, count: int, product: bool = False):
    """(count^2, side^2), Euclidean; `product`: |dx| + |dy|."""
    sites = line_sites(side, count)
    d = np.zeros((count**2, side**2))
    for k in range(count**2):
        for i in range(side**2):
            dy, dx = i // side - sites[k // count], i % side - sites[k % count]
            d[k, i] = abs(dx) + abs(dy) if product else np.hypot(dx, dy)
    return d


def sheet_kernel(n: int, ratio: float, kind: str = "gauss", width: float | None = None, ties="lower", product=False):
    """D (K, n), n a square. `product` (only for kind exp): the kernel is the product of two line kernels."""
    side = round(np.sqrt(n))
    assert side**2 == n, "a sheet is square"
    if ratio == 1:
        return np.eye(n)
    count = site_count(side, np.sqrt(ratio))
    d = sheet_distances(side, count, product)
    return weights_of_distance(d, kind, np.sqrt(ratio) / 2 if width is None else width, ties)


def regridded_line(n: int, new: int, ratio: float, kind="gauss", width=None, scale_width=True, ties="lower"):
    """D (K, new): the K sites of a line of n at the same relative positions of a line of `new`, the width stretched with the line."""
    count = n if ratio == 1 else site_count(n, ratio)
    if new == n:
        return line_kernel(n, ratio, kind, width, ties)
    width = ratio / 2 if width is None else width
    d = np.array([[abs(i - s) for i in range(new)] for s in line_sites(new, count)])
    return weights_of_distance(d, kind, width * new / n if scale_width else width, ties)


def regridded_sheet(n: int, new: int, ratio: float, kind="gauss", width=None, scale_width=True, ties="lower"):
    """D (K, new); n and new are squares, lengths stretch with the side."""
    side, new_side = round(np.sqrt(n)), round(np.sqrt(new))
    assert side**2 == n and new_side**2 == new
    if new == n:
        return sheet_kernel(n, ratio, kind, width, ties)
    count = side if ratio == 1 else site_count(side, np.sqrt(ratio))
    width = np.sqrt(ratio) / 2 if width is None else width
    d = sheet_distances(new_side, count)
    return weights_of_distance(d, kind, width * new_side / side if scale_width else width, ties)


def block_diagonal(kernels):
    """The kernels of the credited layers, one after another."""
    D = np.zeros((sum(len(d) for d in kernels), sum(d.shape[1] for d in kernels)))
    row = column = 0
    for d in kernels:
        D[row : row + d.shape[0], column : column + d.shape[1]] = d
        row, column = row + d.shape[0], column + d.shape[1]
    return D


def net_kernel(net: Net, ratio: float, kind="gauss", width=None, lattice="line", ties="lower"):
    """D (K, N) of all credited layers, the output layer 1:1. A convolutional layer counts as one line of its flat units."""
    make = {"line": line_kernel, "sheet": sheet_kernel}[lattice]
    sizes = credit_sizes(net)
    return block_diagonal([make(n, ratio, kind, width, ties) for n in sizes[:-1]] + [np.eye(sizes[-1])])


def path_laplacian(n: int):
    """Reflecting ends."""
    laplacian = np.zeros((n, n))
    for i in range(n - 1):
        laplacian[i, i] += 1
        laplacian[i + 1, i + 1] += 1
        laplacian[i, i + 1] = laplacian[i + 1, i] = -1
    return laplacian


def lattice_sites(n: int, count: int):
    """The cells at which sites sit: s_k to the nearest whole number, halves down."""
    return np.array([int(np.ceil(s - 0.5 - 1e-9)) for s in line_sites(n, count)])


def chain_kernel(n: int, sites, diffusion: float, decay: float):
    """Rows s of (D_m Lap + k_dec I)^-1, (K, n): every row sums to 1/decay. Not normalised per neuron."""
    return np.linalg.inv(diffusion * path_laplacian(n) + decay * np.eye(n))[np.asarray(sites)]


# ---------------------------------------------------------------- local updates (2.3)


def split_credits(net: Net, c) -> tuple:
    """(B, N) -> (credits of the blocks' outputs by l, credits of inner layers by l)."""
    outer, inner, at = {}, {}, 0
    for l, block in enumerate(net.blocks, 1):
        if isinstance(block, Residual) and block.strict:
            inner[l] = c[:, at : at + block.post]
            at += block.post
        outer[l] = c[:, at : at + block.post]
        at += block.post
    assert at == c.shape[1]
    return outer, inner


def conv_delta(block: Conv, weights: dict, l: int, h_pre, h_post, c):
    """delta of every position before pooling, (B, h, w, maps)."""
    B = len(c)
    slope = (c * (1 - h_post**2)).reshape(B, block.maps, block.out_height, block.out_width).transpose(0, 2, 3, 1)
    if not block.pool:
        return slope
    _, row, column = pool_winners(block, conv_drive(block, weights[f"W{l}"], weights[f"b{l}"], h_pre))
    delta = np.zeros((B, block.height, block.width, block.maps))
    for s in range(B):
        for i in range(block.out_height):
            for j in range(block.out_width):
                for m in range(block.maps):
                    delta[s, row[s, i, j, m], column[s, i, j, m], m] += slope[s, i, j, m]
    return delta


def deltas(net: Net, weights: dict, acts: Acts, c) -> dict:
    """By the name of the weights they change: "W2" or "Wa2", "Wb2"; dense (B, n), convolution (B, h, w, maps)."""
    outer, inner = split_credits(net, c)
    found = {}
    for l, block in enumerate(net.blocks, 1):
        h = acts.h[l]
        if isinstance(block, Output):
            found[f"W{l}"] = h * (outer[l] - (h * outer[l]).sum(axis=1, keepdims=True))
        elif isinstance(block, Residual):
            s = acts.inner[l]
            found[f"Wb{l}"] = outer[l] * (1 - h**2)
            credit = inner[l] if block.strict else found[f"Wb{l}"] @ weights[f"Wb{l}"].T
            found[f"Wa{l}"] = credit * (1 - s**2)
        elif isinstance(block, Conv):
            found[f"W{l}"] = conv_delta(block, weights, l, acts.h[l - 1], h, outer[l])
        else:
            found[f"W{l}"] = outer[l] * (1 - h**2)
    return found


def local_update(net: Net, weights: dict, x, c) -> dict:
    """Closed form, mean over the batch, sum over the positions of a map; keys and shapes of `weights`."""
    acts = forward(net, weights, x)
    B = len(x)
    update = {}
    for name, delta in deltas(net, weights, acts, c).items():
        l = int(name.strip("Wab"))
        block = net.blocks[l - 1]
        pre = acts.inner[l] if name.startswith("Wb") else acts.h[l - 1]
        if isinstance(block, Conv):
            pre = patches(block, pre)
        W, b = np.zeros(weights[name].shape), np.zeros(weights[name].shape[1])
        for s in range(B):
            rows, post = pre[s].reshape(-1, W.shape[0]), delta[s].reshape(-1, W.shape[1])
            W += rows.T @ post / B
            b += post.sum(axis=0) / B
        update[name] = W
        update["b" + name[1:]] = b
    return {name: update[name] for name in weights}


# ---------------------------------------------------------------- the same by autograd


def torch_block(block, part: str, w: dict, l: int, h):
    """part "whole" | "a" (inner layer) | "b" (needs w["skip"]: h_{l-1}) of a block, torch double."""
    if isinstance(block, Residual):
        if part == "a":
            return torch.tanh(h @ w[f"Wa{l}"] + w[f"ba{l}"])
        if part == "b":
            return torch.tanh(h @ w[f"Wb{l}"] + w[f"bb{l}"] + w["skip"])
        s = torch.tanh(h @ w[f"Wa{l}"] + w[f"ba{l}"])
        return torch.tanh(s @ w[f"Wb{l}"] + w[f"bb{l}"] + h)
    if isinstance(block, Conv):
        kernel = w[f"W{l}"].T.reshape(block.maps, block.maps_in, 3, 3)
        image = h.reshape(len(h), block.maps_in, block.height, block.width)
        a = F.conv2d(image, kernel, w[f"b{l}"], padding=1)
        return torch.tanh(F.max_pool2d(a, 2) if block.pool else a).flatten(1)
    a = h @ w[f"W{l}"] + w[f"b{l}"]
    return torch.softmax(a, dim=1) if isinstance(block, Output) else torch.tanh(a)


def leaves(weights: dict) -> dict:
    return {name: torch.tensor(value, dtype=torch.float64, requires_grad=True) for name, value in weights.items()}


def vjp_update(net: Net, weights: dict, x, c) -> dict:
    """2.3 as the authors' code does it: every block's output, its input detached, credit/B as cotangent."""
    outer, inner = split_credits(net, np.asarray(c) / len(x))
    w = leaves(weights)
    h = torch.tensor(np.asarray(x), dtype=torch.float64)
    update = {}

    def pull(out, names, cotangent):
        got = torch.autograd.grad(out, [w[name] for name in names], grad_outputs=torch.tensor(cotangent))
        update.update({name: g.numpy() for name, g in zip(names, got, strict=True)})

    for l, block in enumerate(net.blocks, 1):
        h = h.detach()
        if isinstance(block, Residual) and block.strict:
            s = torch_block(block, "a", w, l, h)
            pull(s, (f"Wa{l}", f"ba{l}"), inner[l])
            out = torch_block(block, "b", {**w, "skip": h}, l, s.detach())
            pull(out, (f"Wb{l}", f"bb{l}"), outer[l])
        else:
            out = torch_block(block, "whole", w, l, h)
            names = [f"W{l}", f"b{l}"] if not isinstance(block, Residual) else [f"Wa{l}", f"ba{l}", f"Wb{l}", f"bb{l}"]
            pull(out, names, outer[l])
        h = out
    return {name: update[name] for name in weights}


def bp_update(net: Net, weights: dict, x, y) -> dict:
    """Gradient of the mean NLL by one backward pass through the whole learner."""
    w = leaves(weights)
    h = torch.tensor(np.asarray(x), dtype=torch.float64)
    for l, block in enumerate(net.blocks[:-1], 1):
        h = torch_block(block, "whole", w, l, h)
    top = len(net.blocks)
    logits = h @ w[f"W{top}"] + w[f"b{top}"]
    loss = -(torch.tensor(np.asarray(y, float)) * torch.log_softmax(logits, dim=1)).sum(dim=1).mean()
    got = torch.autograd.grad(loss, list(w.values()))
    return {name: g.numpy() for name, g in zip(w, got, strict=True)}


# ---------------------------------------------------------------- credits of the controls


def bp_credits(net: Net, weights: dict, acts: Acts, y):
    """(B, N): c_L = -y/p, below it d NLL/d h of the sample; fed to the local rule they give BP, for every kind of block."""
    B = len(y)
    found = []
    c = -y / acts.h[-1]
    for l in range(len(net.blocks), 0, -1):
        block, h, pre = net.blocks[l - 1], acts.h[l], acts.h[l - 1]
        found.insert(0, c)
        if isinstance(block, Output):
            c = (h * (c - (h * c).sum(axis=1, keepdims=True))) @ weights[f"W{l}"].T
        elif isinstance(block, Residual):
            delta = c * (1 - h**2)
            credit = delta @ weights[f"Wb{l}"].T
            if block.strict:
                found.insert(0, credit)
            c = (credit * (1 - acts.inner[l] ** 2)) @ weights[f"Wa{l}"].T + delta
        elif isinstance(block, Conv):
            delta = conv_delta(block, weights, l, pre, h, c)
            seen = delta @ weights[f"W{l}"].T
            image = np.zeros((B, block.maps_in, block.height + 2, block.width + 2))
            for m in range(block.maps_in):
                for ky in range(3):
                    for kx in range(3):
                        image[:, m, ky : ky + block.height, kx : kx + block.width] += seen[..., m * 9 + ky * 3 + kx]
            c = image[:, :, 1:-1, 1:-1].reshape(B, -1)
        else:
            c = (c * (1 - h**2)) @ weights[f"W{l}"].T
    return np.concatenate(found, axis=1)


def dfa_credits(net: Net, acts: Acts, y, feedback):
    """`feedback`: one fixed B (C, n) for every credited layer but the output; c = (p - y) @ B. Output: -y/p, so that delta_L = p - y."""
    p = acts.h[-1]
    assert [B.shape[1] for B in feedback] == list(credit_sizes(net)[:-1])
    return np.concatenate([*((p - y) @ B for B in feedback), -y / p], axis=1)


def tdca_source(theta: dict, D=None):
    return lambda net, weights, acts, y: tdca_credits(theta, acts.h[-1], y, D)


def bp_source():
    return bp_credits


def dfa_source(feedback):
    return lambda net, weights, acts, y: dfa_credits(net, acts, y, feedback)


# ---------------------------------------------------------------- inner optimiser and lifetime


def global_norm(update: dict) -> float:
    return float(np.sqrt(sum((g**2).sum() for g in update.values())))


def clipped(update: dict, limit: float | None = 1.0) -> dict:
    """min(1, limit/(norm + 1e-6)) of the norm over all parameters together; None: as it is."""
    factor = 1.0 if limit is None else min(1.0, limit / (global_norm(update) + 1e-6))
    return {name: g * factor for name, g in update.items()}


class SGD:
    def __init__(self, rate: float):
        self.rate = rate

    def step(self, weights: dict, update: dict) -> dict:
        return {name: weights[name] - self.rate * update[name] for name in weights}


class Adam:
    def __init__(self, rate: float, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8):
        self.rate, self.beta1, self.beta2, self.eps = rate, beta1, beta2, eps
        self.t, self.m, self.v = 0, {}, {}

    def step(self, weights: dict, update: dict) -> dict:
        self.t += 1
        new = {}
        for name, g in update.items():
            self.m[name] = self.beta1 * self.m.get(name, 0.0) + (1 - self.beta1) * g
            self.v[name] = self.beta2 * self.v.get(name, 0.0) + (1 - self.beta2) * g**2
            m = self.m[name] / (1 - self.beta1**self.t)
            v = self.v[name] / (1 - self.beta2**self.t)
            new[name] = weights[name] - self.rate * m / (np.sqrt(v) + self.eps)
        return new


@dataclass
class Life:
    """`fitness` = -losses[-1]; `losses` (T,): NLL of the forward pass of step t, before its update; `weights` after all T updates."""

    fitness: float
    weights: dict
    losses: np.ndarray


def lifetime(net: Net, weights: dict, x, y, steps: int, source, optimiser="adam", rate=0.03, clip=1.0) -> Life:
    """T full-batch steps. `source(net, weights, acts, y)` -> credits (B, N); `clip` None: no clipping."""
    assert steps >= 1
    inner = {"adam": Adam, "sgd": SGD}[optimiser](rate)
    losses = []
    for _ in range(steps):
        acts = forward(net, weights, x)
        losses.append(nll(acts, y))
        update = local_update(net, weights, x, source(net, weights, acts, y))
        weights = inner.step(weights, clipped(update, clip))
    return Life(-losses[-1], weights, np.array(losses))


# ---------------------------------------------------------------- PEPG (2.5)


def centred_ranks(fitness):
    """(P,) -> rank/(P - 1) - 1/2, best +1/2; not finite is below all finite ones; of equal ones the later candidate ranks higher."""
    fitness = np.array(fitness, float)
    fitness[~np.isfinite(fitness)] = -np.inf
    ranks = np.zeros(len(fitness))
    for rank, who in enumerate(np.argsort(fitness, kind="stable")):
        ranks[who] = rank / (len(fitness) - 1) - 0.5
    return ranks


class PEPG:
    """Candidates in the order mu, mu + eps_1.., mu - eps_1.. ."""

    def __init__(
        self,
        mu,
        population: int,
        rate: float = 0.3,
        momentum: float = 0.9,
        sigma: float = 0.1,
        sigma_rate: float = 0.1,
        sigma_decay: float = 0.999,
        sigma_limit: float = 1e-4,
        max_change: float = 0.2,
        weight_decay: float = 0.0,
        seed: int = 0,
    ):
        assert population % 2 == 1 and population >= 3
        self.mu = np.array(mu, float)
        self.pairs = (population - 1) // 2
        self.sigma = np.full(self.mu.shape, float(sigma))
        self.velocity = np.zeros(self.mu.shape)
        self.rate, self.momentum = rate, momentum
        self.sigma_rate, self.sigma_decay, self.sigma_limit = sigma_rate, sigma_decay, sigma_limit
        self.max_change, self.weight_decay = max_change, weight_decay
        self.rng = np.random.default_rng(seed)
        self.eps = None

    def ask(self, noise=None):
        """(P, d). `noise` (n, d): standard normal numbers of one's own."""
        if noise is None:
            noise = self.rng.standard_normal((self.pairs, len(self.mu)))
        self.eps = self.sigma * noise
        self.candidates = np.concatenate([self.mu[None], self.mu + self.eps, self.mu - self.eps])
        return self.candidates

    def tell(self, fitness):
        n = self.pairs
        R = centred_ranks(fitness) - self.weight_decay * (self.candidates**2).mean(axis=1)
        baseline, plus, minus = R[0], R[1 : n + 1], R[n + 1 :]
        g = np.zeros(self.mu.shape)
        change = np.zeros(self.mu.shape)
        for j in range(n):
            g += (plus[j] - minus[j]) * self.eps[j]
            S = (self.eps[j] ** 2 - self.sigma**2) / self.sigma
            change += ((plus[j] + minus[j]) / 2 - baseline) * S / (2 * n)
        self.velocity = self.momentum * self.velocity + (1 - self.momentum) * g
        self.mu = self.mu + self.rate * self.velocity
        bound = self.max_change * self.sigma
        self.sigma = self.sigma + np.clip(self.sigma_rate * change, -bound, bound)
        self.sigma = np.where(self.sigma > self.sigma_limit, self.sigma_decay * self.sigma, self.sigma)


# ---------------------------------------------------------------- function optimisation (3.1)


def egg_box(h, s):
    """h, s (..., 2) -> (...): tilted egg-box, minimum 0 at s."""
    d = h - s
    waves = np.cos(2 * np.pi * d[..., 0] / 1.5) + np.cos(2 * np.pi * d[..., 1] / 1.5)
    return 0.1 * (d**2).sum(axis=-1) + 1 - 0.5 * waves


@dataclass
class Descent:
    """`path` (..., T+1, M, 2) from the start on, `values` (..., T+1, M) = f of it, `inputs` (T, ..., M, 6)."""

    path: np.ndarray
    values: np.ndarray
    inputs: np.ndarray


def function_lifetime(theta: dict, start, s=0.0, steps: int = 50, rate: float = 0.5, f=egg_box) -> Descent:
    """M tasks at once: start (M, 2), s (M, 2) or 0; theta of 6 inputs and 2 outputs, or with a leading axis P.

    z_t = [h_t/4, tanh f_t, tanh f_{t-1}, dh_{t-1}], dh_{t-1} = h_t - h_{t-1} the last move made; at t = 0 f_{t-1} = f_t and dh = 0.
    w <- w - rate c (h = w, no slope). `values[-1]` is f after the T-th update: what success f < 0.1 looks at.
    """
    leading = theta["V1"].shape[:-2]
    h = np.broadcast_to(np.asarray(start, float), (*leading, *np.shape(start))).copy()
    value = f(h, s)
    last_value, move = value, np.zeros(h.shape)
    path, values, inputs = [h], [value], []
    for _ in range(steps):
        z = np.concatenate([h / 4, np.tanh(value)[..., None], np.tanh(last_value)[..., None], move], axis=-1)
        inputs.append(z)
        new = h - rate * tdca_body(theta, z)
        move, last_value = new - h, value
        h, value = new, f(new, s)
        path.append(h)
        values.append(value)
    return Descent(np.stack(path, axis=-3), np.stack(values, axis=-2), np.stack(inputs))


# ---------------------------------------------------------------- RL (3.2)


def rl_input(state, next_state, pi, action: int, terminal, scale=1.0):
    """[s_t*scale, s_{t+1}*scale, pi, one-hot action, terminal], (13,) for cart-pole."""
    chosen = np.eye(len(pi))[action]
    return np.concatenate([np.asarray(state) * scale, np.asarray(next_state) * scale, pi, chosen, [float(terminal)]])


def rl_lifetime(theta: dict, weights: dict, transitions, scale=1.0, policy_scale=1.0, rate=0.1, limit=5.0):
    """Plastic policy mlp((4, 16, 2)) along given transitions (s_t, action, s_{t+1}, terminal), one update after each.

    The policy reads s_t*policy_scale. dW = -rate delta h^T, no norm clip, no optimiser; weights and biases cut to +-limit after each step.
    -> (weights, policy pi_t (T, 2) before the update of step t, credits (T, 18))
    """
    net = mlp((len(weights["W1"]), len(weights["b1"]), len(weights["b2"])))
    policies, credits = [], []
    for state, action, next_state, terminal in transitions:
        x = (np.asarray(state, float) * policy_scale)[None]
        acts = forward(net, weights, x)
        pi = acts.h[-1][0]
        z = rl_input(state, next_state, pi, action, terminal, scale)
        c = tdca_body(theta, z[None])
        update = local_update(net, weights, x, c)
        weights = {name: np.clip(weights[name] - rate * update[name], -limit, limit) for name in weights}
        policies.append(pi)
        credits.append(c[0])
    return weights, np.array(policies), np.array(credits)


# ---------------------------------------------------------------- the circuit in time (6.2)


@dataclass
class Settled:
    """At the end: rates r[0..L], drives u[1..L] and apical ua[1..L] as dicts by l, messenger m (empty without chain), k (K,), credits (N,),
    delta by l, update (dict: delta_l h_{l-1}^T, so dw/dt = -eta update), residual: largest |du/dt|*tau of all state variables."""

    rates: list
    drives: dict
    apical: dict
    messenger: dict
    sources: np.ndarray
    credits: np.ndarray
    delta: dict
    update: dict
    residual: float


def settle(
    net: Net,
    weights: dict,
    theta: dict,
    x,
    y,
    D=None,
    chain: dict | None = None,
    kappa: float = 0.0,
    kappa_output: float | None = None,
    tau_soma: float = 10e-3,
    tau_apical: float = 5e-3,
    tau_messenger: float = 20e-3,
    tau_td: float = 5e-3,
    duration: float = 0.3,
) -> Settled:
    """One sample (x (n_0,), y (C,)) shown from zero state on, weights fixed, learner of dense layers.

    Either D (K, N) straight into u^a (None: K = N, I), without messenger, or chain = {"diffusion": D_m, "decay": k_dec, "sites": [cells of
    layer 1, cells of layer 2, ...]}: a chain of its own for every hidden layer, sources k in the order of layers and sites, the output
    layer's credits 1:1 into u^a. `kappa_output`: leak of u^a into output cells, the same as `kappa` unless given. The linear layer of the
    TDCA-network is a population with tau_td too. Times in seconds; the slowest constant is tau_messenger/decay, not tau_messenger.
    """
    top = len(net.blocks)
    assert all(isinstance(block, Dense | Output) for block in net.blocks)
    size = {l: block.post for l, block in enumerate(net.blocks, 1)}
    kappa_output = kappa if kappa_output is None else kappa_output
    K = theta["V3"].shape[1]
    hidden = theta["V1"].shape[1]
    x, y = np.asarray(x, float), np.asarray(y, float)

    parts = [(("u", l), size[l]) for l in size] + [(("ua", l), size[l]) for l in size]
    if chain is not None:
        parts += [(("m", l), size[l]) for l in range(1, top)]
        assert sum(len(sites) for sites in chain["sites"]) + size[top] == K
    parts += [(("td", 1), hidden), (("td", 2), hidden), (("td", 3), K)]
    taus = {"u": tau_soma, "ua": tau_apical, "m": tau_messenger, "td": tau_td}
    tau = np.concatenate([np.full(n, taus[key[0]]) for key, n in parts])

    def named(state):
        got, at = {}, 0
        for key, n in parts:
            got[key] = state[at : at + n]
            at += n
        return got

    def rates_of(v):
        r = [x] + [np.tanh(v["u", l]) for l in range(1, top)]
        return [*r, softmax(v["u", top])]

    def slope(_, state):
        v = named(state)
        r = rates_of(v)
        d = {}
        k = v["td", 3]
        d["td", 1] = -v["td", 1] + np.concatenate([r[top], y]) @ theta["V1"] + theta["e1"]
        d["td", 2] = -v["td", 2] + np.tanh(v["td", 1]) @ theta["V2"] + theta["e2"]
        d["td", 3] = -k + np.tanh(v["td", 2]) @ theta["V3"] + theta["e3"]
        spread = k if D is None else k @ D  # (N,), used without a chain
        at = source = 0
        for l in range(1, top + 1):
            leak = kappa if l < top else kappa_output
            d["u", l] = -v["u", l] + r[l - 1] @ weights[f"W{l}"] + weights[f"b{l}"] + leak * v["ua", l]
            if chain is None:
                drive = spread[at : at + size[l]]
            elif l == top:
                drive = k[source:]
            else:
                drive = v["m", l]
                S = np.zeros(size[l])
                for site in chain["sites"][l - 1]:
                    S[site] += k[source]
                    source += 1
                m = v["m", l]
                flow = np.zeros(size[l])
                for i in range(size[l]):
                    for neighbour in (i - 1, i + 1):
                        if 0 <= neighbour < size[l]:
                            flow[i] += m[neighbour] - m[i]
                d["m", l] = chain["diffusion"] * flow - chain["decay"] * m + S
            d["ua", l] = -v["ua", l] + drive
            at += size[l]
        return np.concatenate([d[key] for key, _ in parts]) / tau

    start = np.zeros(len(tau))
    end = solve_ivp(slope, (0, duration), start, method="LSODA", rtol=1e-11, atol=1e-13)
    assert end.success
    state = end.y[:, -1]
    v, r = named(state), rates_of(named(state))
    ua = {l: v["ua", l] for l in size}
    delta = {l: ua[l] * (1 - r[l] ** 2) for l in range(1, top)}
    delta[top] = r[top] * (ua[top] - r[top] @ ua[top])
    update = {}
    for l in size:
        update[f"W{l}"] = np.outer(r[l - 1], delta[l])
        update[f"b{l}"] = delta[l]
    return Settled(
        rates=r,
        drives={l: v["u", l] for l in size},
        apical=ua,
        messenger={key[1]: v[key] for key, _ in parts if key[0] == "m"},
        sources=v["td", 3],
        credits=np.concatenate([ua[l] for l in size]),
        delta=delta,
        update=update,
        residual=float(np.abs(slope(0, state) * tau).max()),
    )


# ---------------------------------------------------------------- self-check


def largest(one: dict, other: dict) -> float:
    assert one.keys() == other.keys()
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


def self_check():
    rng = np.random.default_rng(0)
    nets = {
        "mlp": mlp((7, 6, 5, 4)),
        "resnet": resnet(7, 6, 2, 4),
        "strict resnet": resnet(7, 6, 2, 4, strict=True),
        "conv": convnet(2, 6, 4, 3, 4),
        "conv + pool": convnet(2, 6, 5, 3, 4, pool=True),
    }
    print("closed form - VJP, BP credits - BP")
    for name, net in nets.items():
        first = net.blocks[0]
        inputs = first.pre if isinstance(first, Dense) else first.maps_in * first.height * first.width
        w = random_weights(net, 1, bias_scale=0.3)
        x, y = rng.standard_normal((9, inputs)), one_hot(rng.integers(4, size=9), 4)
        c = rng.standard_normal((9, sum(credit_sizes(net))))
        rule = largest(local_update(net, w, x, c), vjp_update(net, w, x, c))
        bp = largest(local_update(net, w, x, bp_credits(net, w, forward(net, w, x), y)), bp_update(net, w, x, y))
        print(f"  {name:14s} {rule:.1e} {bp:.1e}")
        assert rule < 1e-12 and bp < 1e-12

    released, plain = resnet(784, 100, 2, 10), mlp((784, 100, 100, 100, 10))
    digits = mlp((64, 32, 32, 10))
    counts = [parameter_count(released), parameter_count(plain)]
    counts += [sum(credit_sizes(released)), sum(credit_sizes(resnet(784, 100, 2, 10, strict=True)))]
    for net, ratio in ((released, 1), (digits, 1), (digits, 4)):
        counts.append(tdca_parameter_count(10, 30, len(net_kernel(net, ratio))))
    counts += [body_parameter_count(6, 20, 2), body_parameter_count(13, 16, 18)]
    print("counts", counts)
    assert counts == [119910, 99710, 310, 510, 11170, 3854, 2366, 602, 802]
    for sizes in ((100,) * 3, (256,) * 2, (1024,) * 3):
        row = [sum(site_count(n, ratio) for n in sizes) + 10 for ratio in (1, 2, 4, 10, 25, 1e9)]
        print("  table 2.4", sizes, [tdca_parameter_count(10, 30, K) for K in row])

    worst = 0.0
    for kind in ("gauss", "exp", "block"):
        for ratio in (1, 2, 3, 4, 10, 1e9):
            for D in (
                line_kernel(37, ratio, kind),
                sheet_kernel(36, ratio, kind),
                regridded_line(37, 64, ratio, kind),
                regridded_sheet(36, 64, ratio, kind),
            ):
                worst = max(worst, float(np.abs(D.sum(axis=0) - 1).max()))
    lines = np.kron(line_kernel(6, 2), line_kernel(6, 2))
    print(f"columns - 1 {worst:.1e}, gauss sheet - product of lines {np.abs(sheet_kernel(36, 4) - lines).max():.1e}")
    chain = chain_kernel(12, lattice_sites(12, 4), 1.5, 0.4)
    print(f"chain rows - 1/k_dec {np.abs(chain.sum(axis=1) - 1 / 0.4).max():.1e}")
    D = net_kernel(digits, 4)
    theta = tdca_init(20, 30, len(D), 3, bias_scale=0.2)
    p, y = softmax(rng.standard_normal((5, 10))), one_hot(rng.integers(10, size=5), 10)
    fold = np.abs(tdca_credits(theta, p, y, D) - tdca_credits(folded(theta, D), p, y)).max()
    print(f"folded - explicit {fold:.1e}")

    for name, source in (
        ("bp", bp_source()),
        ("dfa", dfa_source([rng.uniform(-1, 1, (10, 32)) for _ in range(2)])),
        ("tdca, not evolved", tdca_source(theta, D)),
    ):
        centres = np.random.default_rng(5).standard_normal((10, 64))
        labels = np.arange(60) % 10
        x = centres[labels] + 0.5 * np.random.default_rng(6).standard_normal((60, 64))
        life = lifetime(digits, random_weights(digits, 2), x, one_hot(labels, 10), 30, source)
        reached = accuracy(forward(digits, life.weights, x), one_hot(labels, 10))
        print(f"lifetime {name}: NLL {life.losses[0]:.3f} -> {-life.fitness:.3f}, accuracy {reached:.2f}")

    ours = torch.nn.Parameter(torch.tensor([3.0, -4.0, 0.5], dtype=torch.float64))
    theirs, w = torch.optim.Adam([ours], lr=0.03), {"W1": np.array([3.0, -4.0, 0.5])}
    adam = Adam(0.03)
    for _ in range(30):
        ours.grad = 3 * ours.detach() ** 3 + 1
        w = adam.step(w, clipped({"W1": 3 * w["W1"] ** 3 + 1}))
        torch.nn.utils.clip_grad_norm_([ours], 1.0)
        theirs.step()
    print(f"Adam and clip - torch's {np.abs(ours.detach().numpy() - w['W1']).max():.1e}")

    goal = np.full(10, 1.5)
    es = PEPG(np.zeros(10), 65, rate=0.3)
    for generation in range(151):
        if generation in (0, 50, 150):
            print(
                f"PEPG generation {generation}: f(mu) {-((es.mu - goal) ** 2).sum():.2e}, sigma {es.sigma.mean():.3f}"
            )
        es.tell([-((c - goal) ** 2).sum() for c in es.ask()])

    net, theta = mlp((8, 12, 6, 4)), tdca_init(8, 10, 10, 4, bias_scale=0.2)
    w = random_weights(net, 7, bias_scale=0.2)
    x, y = rng.standard_normal(8), one_hot(1, 4)
    D = net_kernel(net, 3)
    chain = {"diffusion": 1.5, "decay": 0.6, "sites": [lattice_sites(12, 4), lattice_sites(6, 2)]}
    kernels = [chain_kernel(n, s, 1.5, 0.6) for n, s in zip((12, 6), chain["sites"], strict=True)] + [np.eye(4)]
    for name, kernel, options in (
        ("kernel", D, {"D": D}),
        ("chain", block_diagonal(kernels), {"chain": chain}),
    ):
        end = settle(net, w, theta, x, y, duration=1.0, **options)
        acts = forward(net, w, x[None])
        c = tdca_credits(theta, acts.h[-1], y[None], kernel)
        rates = max(np.abs(a[0] - b).max() for a, b in zip(acts.h, end.rates, strict=True))
        change = largest(local_update(net, w, x[None], c), end.update)
        print(
            f"settled, {name}: rates {rates:.1e}, credits {np.abs(c[0] - end.credits).max():.1e}, update {change:.1e}"
        )
        leaky = settle(net, w, theta, x, y, kappa=0.1, duration=1.0, **options)
        again = tdca_credits(theta, leaky.rates[-1][None], y[None], kernel)[0]
        shift = max(np.abs(a - b).max() for a, b in zip(leaky.rates, end.rates, strict=True))
        fixed = np.abs(again - leaky.credits).max()
        print(
            f"  kappa 0.1: residual {leaky.residual:.1e}, credits = TDCA(rates) {fixed:.1e}, rates moved by {shift:.2f}"
        )

    theta = tdca_init(13, 16, 18, 8, bias_scale=0.1)
    steps = [(rng.standard_normal(4), int(rng.integers(2)), rng.standard_normal(4), i % 7 == 6) for i in range(300)]
    end, pi, _ = rl_lifetime(theta, random_weights(mlp((4, 16, 2)), 9), steps)
    print(
        f"RL: largest weight {max(np.abs(v).max() for v in end.values()):.2f}, policy sums to {pi.sum(axis=1).mean():.3f}"
    )


def self_check_function(generations: int = 200):
    """Function (i) of 3.1: P = 129, 64 tasks per generation, alpha 0.2; fitness -f after the T-th update."""
    es = PEPG(flatten(tdca_init(6, 20, 2, 0)), 129, rate=0.2)
    rng = np.random.default_rng(1)
    tests = rng.uniform(-4, 4, (2000, 2))
    for generation in range(1, generations + 1):
        thetas = unflatten(es.ask(), 6, 20, 2)
        es.tell(-function_lifetime(thetas, rng.uniform(-4, 4, (64, 2))).values[:, -1].mean(axis=1))
        if generation % 50 == 0:
            last = function_lifetime(unflatten(es.mu, 6, 20, 2), tests).values[-1]
            print(f"function (i), generation {generation}: success {(last < 0.1).mean():.3f}, mean f {last.mean():.4f}")


if __name__ == "__main__":
    self_check()
    self_check_function()
