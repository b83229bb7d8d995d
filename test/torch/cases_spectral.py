"""Fourier transforms, determinants and inverses."""
import torch

from framework import Case, const, draw, values


def dft(name, shape, compute, attributes, axis=-2, length=None):
    return Case(f"DFT, {name}", "DFT",
                lambda: {"x": draw(*shape), "length": None if length is None else const(length), "axis": const(axis)},
                lambda x, *_: torch.view_as_real(compute(torch.view_as_complex(x) if shape[-1] == 2 else x[..., 0])), attributes)


def stft(name, window, step, length, complex_=False, onesided=True):
    def compute(x, w=None):
        signal = torch.view_as_complex(x) if complex_ else x[..., 0]
        w = torch.ones(length, dtype=torch.float64) if w is None else w
        y = torch.stft(signal, length, step, window=w, center=False, onesided=onesided, return_complex=True)
        return torch.view_as_real(y.transpose(1, 2))
    return Case(f"STFT, {name}", "stft", lambda: {"x": draw(2, 12, 2 if complex_ else 1), "window": draw(length, low=0.2) if window else None},
                compute, {"step": step, "length": length, "onesided": onesided})


def half(shape, axis, length):
    return Case(f"real signal of {length} from {shape[axis]} bins", "realFromHalf", lambda: {"x": draw(*shape, 2)},
                lambda x: torch.fft.irfft(torch.view_as_complex(x), length, axis).unsqueeze(-1), {"axis": axis, "length": length})


def turned(angle, *more):
    c, s = torch.cos(torch.tensor(angle)).item(), torch.sin(torch.tensor(angle)).item()
    return [[c, -s, *more[:1]], [s, c, *more[1:2]], [0.2, -0.3, 1.5]]


CASES = [
    dft("real", (2, 3, 6, 1), lambda x: torch.fft.fft(x, dim=2), {}, 2),
    dft("complex", (2, 5, 3, 2), lambda x: torch.fft.fft(x, dim=1), {}, 1),
    dft("half of the spectrum", (2, 6, 1), lambda x: torch.fft.rfft(x), {"onesided": 1}),
    dft("half of the spectrum, an odd length", (2, 7, 1), lambda x: torch.fft.rfft(x), {"onesided": 1}, -2),
    dft("cut", (2, 7, 1), lambda x: torch.fft.rfft(x, n=4), {"onesided": 1}, 1, 4),
    dft("filled", (2, 3, 2), lambda x: torch.fft.fft(x, n=5), {}, 1, 5),
    dft("inverse", (2, 6, 2), lambda x: torch.fft.ifft(x), {"inverse": 1}, 1),
    dft("inverse, cut", (4, 2, 2), lambda x: torch.fft.ifft(x, n=3, dim=0), {"inverse": 1}, 0, 3),
    dft("first dim, a length of 8", (8, 2, 1), lambda x: torch.fft.fft(x, dim=0), {}, 0),
    half((2, 4, 2), 1, 6),
    half((3, 4), 1, 7),
    half((5, 2), 0, 5),
    half((2, 3), 1, 8),
    half((1, 2), 0, 1),
    stft("no window", False, 2, 4),
    stft("window that is learned", True, 3, 5),
    stft("complex", True, 4, 4, True, False),
    stft("whole spectrum", True, 2, 6, False, False),
    *[Case(f"Det, {n}", "Det", lambda n=n: {"x": draw(2, n, n)}, torch.linalg.det) for n in (1, 2, 3)],
    Case("Det, 3, singular", "Det", lambda: {"x": values([[1.0, 2, 3], [2, 4, 6], [0, 1, 5]])},
         lambda x: (x[0] * torch.linalg.cross(x[1], x[2])).sum()),
    Case("Det, 4", "Det", lambda: {"x": draw(2, 4, 4)}, torch.linalg.det, tolerance=1e-4),
    Case("Det, 5, one matrix", "Det", lambda: {"x": draw(5, 5)}, torch.linalg.det, tolerance=1e-4),
    Case("Inverse", "com.microsoft::Inverse", lambda: {"x": values([turned(0.5, 0.1, 0.7), turned(2.0, -0.6, 0.4)])}, torch.linalg.inv, tolerance=1e-4),
]
