"""The public PyTorch code's own encoding and aggregation, from a checkout, on tensors of the shapes given; one for each line on its input.

    PYTHON tests/benchmarks/reference.py PATH '[[320, 960], [320]]'

PYTHON has torch and einops. Nothing of that code is here: its module ``src/tplr/compress.py`` is imported from PATH, as of version 1.0.20.
``encode`` and ``aggregate`` are answered with ``done``, so that whoever asks can time them in turn with something else.
"""

import importlib.util
import json
import sys
import types
from pathlib import Path

import torch  # pyright: ignore[reportMissingImports]

PEERS, K = 15, 32


@torch.no_grad()
def main(path: str, shapes: list[list[int]]) -> None:
    """Answers until its input ends."""
    sys.modules.setdefault("tplr", types.ModuleType("tplr"))
    spec = importlib.util.spec_from_file_location("reference", Path(path) / "src" / "tplr" / "compress.py")
    assert spec is not None and spec.loader is not None
    theirs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(theirs)
    torch.manual_seed(0)
    model = torch.nn.ParameterList([torch.nn.Parameter(torch.randn(*shape)) for shape in shapes])
    transform = theirs.ChunkingTransformer(model, 64)
    compressor = theirs.TopKCompressor(use_quantization=True, quantization_bins=256, quantization_range=6)
    gradients = [torch.randn_like(leaf) for leaf in model]

    def encode():
        return [compressor.compress(transform.encode(leaf, use_dct=True), K) for leaf in gradients]

    peers = [encode() for _ in range(PEERS)]

    def aggregate():
        updates = []
        for number, leaf in enumerate(model):
            sent = [peer[number] for peer in peers]
            values = compressor.maybe_dequantize_values(
                [one[1] for one in sent], [one[4] for one in sent], "cpu"
            )
            total = compressor.batch_decompress(
                leaf,
                [one[0] for one in sent],
                values,
                sent[0][2],
                sent[0][3],
                quantize_params=None,
                block_norms=torch.stack([torch.norm(value, p=2) for value in values]),
                normalise=False,
                clip_norm=True,
            )
            updates.append(transform.decode(total, use_dct=True).sign())
        return updates

    acts = {"encode": encode, "aggregate": aggregate}
    print("ready", flush=True)
    for line in sys.stdin:
        acts[line.strip()]()
        print("done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
