"""Makes the files in operators/: small modules of operators that few models have, exported by PyTorch, and what PyTorch makes of them in five steps.

Run by hand, with PyTorch and torchvision:  OMP_NUM_THREADS=1 python3 test/onnx/make_operators.py
NAME-new.onnx is by the exporter of torch.export, NAME-old.onnx by the one of TorchScript; NAME.json has inputs, a target, the losses (mean of
squares) of five steps of SGD, and the weights and the output after them.
"""
import io
import json
import pathlib
import warnings

import onnx
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from without_paths import without_paths

FOLDER = pathlib.Path(__file__).resolve().parent / "operators"
RATE = 0.05
warnings.filterwarnings("ignore")


class Product(nn.Module):
    """A linear layer over the last of several dims whose weight exporters do not transpose, and so keep the name of."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs) * 0.3)
        self.bias = nn.Parameter(torch.randn(outputs) * 0.3)

    def forward(self, x):
        return x @ self.weight + self.bias


class Transformer(nn.Module):
    """A spatial transformer (Jaderberg et al. 2015)."""

    def __init__(self):
        super().__init__()
        self.place = nn.Linear(2 * 6 * 6, 6)
        self.head = nn.Linear(2 * 4 * 5, 3)

    def forward(self, x):
        theta = self.place(x.flatten(1)).view(-1, 2, 3) + torch.tensor([[1.0, 0, 0], [0, 1, 0]])
        grid = F.affine_grid(theta, (x.shape[0], 2, 4, 5), align_corners=False)
        return self.head(F.grid_sample(x, grid, padding_mode="border", align_corners=False).flatten(1))


class Fourier(nn.Module):
    """The mixing of FNet (Lee-Thorp et al. 2021)."""

    def __init__(self):
        super().__init__()
        self.inner = Product(6, 6)
        self.head = Product(6, 3)

    def forward(self, x):
        return self.head(self.inner(x) + torch.fft.fft2(self.inner(x)).real * 0.2)


class Spectral(nn.Module):
    """A layer of a Fourier neural operator: a filter over half of the spectrum."""

    def __init__(self):
        super().__init__()
        self.filter = nn.Parameter(torch.randn(5, 1) * 0.5)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        spectrum = torch.view_as_real(torch.fft.rfft(x)) * self.filter
        return self.head(torch.fft.irfft(torch.view_as_complex(spectrum), n=8))


class Audio(nn.Module):
    """A spectrogram in front of a classifier."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Linear(24, 24)
        self.head = nn.Linear(5, 3)
        self.register_buffer("window", torch.hann_window(8))

    def forward(self, x):
        spectrum = torch.stft(self.gain(x), 8, 4, window=self.window, center=False, return_complex=True)
        power = torch.view_as_real(spectrum).square().sum(-1)
        return self.head(torch.log(power + 0.1).mean(2))


class Fold(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Product(2 * 9, 2 * 9)

    def forward(self, x):
        patches = F.unfold(x, 3, padding=1, stride=2)
        return F.fold(self.inner(patches.transpose(1, 2)).transpose(1, 2), (6, 6), 3, padding=1, stride=2)


class Regions(nn.Module):
    def __init__(self, ratio):
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3)
        self.head = nn.Linear(3 * 4, 2)
        self.ratio = ratio
        self.register_buffer("boxes", torch.tensor([[1, 0.5, 0.2, 5.1, 4.4], [0, 1.5, -0.5, 3.5, 2.9]]))

    def forward(self, x):
        regions = torchvision.ops.roi_align(self.conv(x), self.boxes, (2, 2), 0.8, self.ratio, aligned=True)
        return self.head(regions.flatten(1))


class Deformable(nn.Module):
    def __init__(self):
        super().__init__()
        self.offsets = nn.Conv2d(2, 18, 3, padding=1)
        self.factors = nn.Conv2d(2, 9, 3, padding=1)
        self.conv = torchvision.ops.DeformConv2d(2, 3, 3, padding=1)

    def forward(self, x):
        return self.conv(x, self.offsets(x), torch.sigmoid(self.factors(x)))


class Bag(nn.Module):
    def __init__(self, mode):
        super().__init__()
        self.bag = nn.EmbeddingBag(12, 4, mode=mode)
        self.head = nn.Linear(4, 3)

    def forward(self, ids):
        return self.head(self.bag(ids))


class Smooth(nn.Module):
    def __init__(self, mode):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.mode = mode

    def forward(self, x):
        return F.interpolate(self.conv(x), size=(4, 8), mode=self.mode, antialias=True)


class Products(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 5)
        self.register_buffer("groups", torch.tensor([0, 1, 0, 2, 1]))

    def forward(self, x):
        y = self.inner(x)
        return torch.ones(y.shape[0], 3).scatter_reduce(1, self.groups.expand(y.shape[0], 5), y, "prod")


class Determinants(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.inner = nn.Linear(6, size * size)
        self.size = size

    def forward(self, x):
        y = self.inner(x).view(-1, self.size, self.size)
        return torch.linalg.det(y @ y.transpose(1, 2) + torch.eye(self.size)).log().unsqueeze(1)


MODULES = {
    # name: the module, its input, and the operator sets of both exporters (None: it cannot)
    "transformer": (Transformer, lambda: torch.randn(2, 2, 6, 6), 20, 20),
    "fourier": (Fourier, lambda: torch.randn(2, 5, 6), 20, None),
    "spectral": (Spectral, lambda: torch.randn(3, 8), 18, None),
    "audio": (Audio, lambda: torch.randn(2, 24), 18, None),
    "fold": (Fold, lambda: torch.randn(2, 2, 6, 6), 18, 18),
    "regions": (lambda: Regions(2), lambda: torch.randn(2, 2, 7, 7), 18, 16),
    "regions-adaptive": (lambda: Regions(-1), lambda: torch.randn(2, 2, 7, 7), 20, 16),
    "deformable": (Deformable, lambda: torch.randn(2, 2, 5, 5), 20, None),
    "bag": (lambda: Bag("mean"), lambda: torch.randint(0, 12, (4, 5)), 20, 17),
    "bag-sum": (lambda: Bag("sum"), lambda: torch.randint(0, 12, (4, 5)), None, 17),
    "smooth": (lambda: Smooth("bilinear"), lambda: torch.randn(2, 2, 6, 6), 18, None),
    "products": (Products, lambda: torch.randn(4, 6), 18, 17),
    "determinants-3": (lambda: Determinants(3), lambda: torch.randn(4, 6), 18, 17),
    "determinants-4": (lambda: Determinants(4), lambda: torch.randn(4, 6), 18, 17),
}


def numbers(tensor):
    flat = tensor.detach().flatten().tolist()
    data = [float(f"{v:.8g}") for v in flat] if tensor.is_floating_point() else flat
    return {"shape": list(tensor.shape), "data": data}


def export(model, x, opset, new):
    if new:
        proto = torch.onnx.export(model, (x,), input_names=["x"], output_names=["y"], dynamo=True, opset_version=opset, verbose=False).model_proto
    else:
        file = io.BytesIO()
        torch.onnx.export(model, (x,), file, input_names=["x"], output_names=["y"], dynamo=False, opset_version=opset)
        proto = onnx.load_from_string(file.getvalue())
    for node in proto.graph.node:
        node.ClearField("doc_string")
        del node.metadata_props[:]
    del proto.graph.value_info[:]
    return proto


def main():
    torch.set_num_threads(1)
    FOLDER.mkdir(exist_ok=True)
    for name, (make, draw, new, old) in MODULES.items():
        torch.manual_seed(sum(map(ord, name)))
        model = make().train()
        x = draw()
        target = torch.randn(model(x).shape)
        for kind, opset in (("new", new), ("old", old)):
            if opset is not None:
                onnx.save(export(model, x, opset, kind == "new"), FOLDER / f"{name}-{kind}.onnx")
        optimizer = torch.optim.SGD(model.parameters(), RATE)
        losses = []
        for _ in range(5):
            optimizer.zero_grad()
            loss = F.mse_loss(model(x), target)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        record = {
            "x": numbers(x), "target": numbers(target), "losses": losses,
            "weights": {n: numbers(p) for n, p in model.named_parameters()}, "output": numbers(model(x)),
        }
        (FOLDER / f"{name}.json").write_text(json.dumps(record, separators=(",", ":")) + "\n")


main()
without_paths(FOLDER)
