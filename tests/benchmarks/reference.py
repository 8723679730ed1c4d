"""Times the public PyTorch code's own encoding and aggregation, from a checkout: nanoseconds a parameter, on the tensors of ``bench.py``.

    PYTHON tests/benchmarks/reference.py PATH

PYTHON has torch and einops. Nothing of that code is here: its module ``src/tplr/compress.py`` is imported from PATH, as of version 1.0.20.
"""

import importlib.util
import sys
import time
import types
from pathlib import Path

import torch  # pyright: ignore[reportMissingImports]

PEERS, K = 15, 32
SHAPES = [(512, 512), (512, 1024), (1024, 512)] * 8


def smallest(act, repeats: int = 7) -> float:
    """The smallest time of several, seconds."""
    act()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        act()
        times.append(time.perf_counter() - start)
    return min(times)


@torch.no_grad()
def main(path: str) -> None:
    """Prints both numbers."""
    sys.modules.setdefault("tplr", types.ModuleType("tplr"))
    spec = importlib.util.spec_from_file_location("reference", Path(path) / "src" / "tplr" / "compress.py")
    assert spec is not None and spec.loader is not None
    theirs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(theirs)
    torch.manual_seed(0)
    model = torch.nn.ParameterList([torch.nn.Parameter(torch.randn(*shape)) for shape in SHAPES])
    count = sum(leaf.numel() for leaf in model)
    transform = theirs.ChunkingTransformer(model, 64)
    compressor = theirs.TopKCompressor(use_quantization=True, quantization_bins=256, quantization_range=6)
    gradients = [torch.randn_like(leaf) for leaf in model]

    def encode():
        return [compressor.compress(transform.encode(leaf, use_dct=True), K) for leaf in gradients]

    peers = [encode() for _ in range(PEERS)]

    def aggregate():
        updates = []
        for number, leaf in enumerate(model):
            indices = [peer[number][0] for peer in peers]
            values = compressor.maybe_dequantize_values(
                [peer[number][1] for peer in peers], [peer[number][4] for peer in peers], "cpu"
            )
            norms = torch.stack([torch.norm(value, p=2) for value in values])
            total = compressor.batch_decompress(
                leaf,
                indices,
                values,
                peers[0][number][2],
                peers[0][number][3],
                quantize_params=None,
                block_norms=norms,
                normalise=False,
                clip_norm=True,
            )
            updates.append(transform.decode(total, use_dct=True).sign())
        return updates

    print(1e9 * smallest(encode) / count, 1e9 * smallest(aggregate, 4) / count)


if __name__ == "__main__":
    main(sys.argv[1])
