"""The peak FLOP/s and bandwidth of devices, and what share of them a step reaches."""

# Part of the device's name, of which the first that fits counts: (dense bf16 TFLOP/s with f32 sums,
# GB/s), from the makers' data sheets (NVIDIA's give the sparse figure, twice the dense one;
# Google's are on the TPU pages of its cloud documentation). V100 has no bf16: its figure is of f16.
PEAKS = {
    "B200": (2250, 8000), "GH200": (989, None), "H200": (989, 4800),
    "H100 PCIe": (756, 2000), "H100 NVL": (835, 3900), "H100": (989, 3350),
    "A100 80GB PCIe": (312, 1935), "A100-SXM4-80GB": (312, 2039), "A100": (312, 1555),
    "A10G": (70, 600), "A10": (125, 600), "L40S": (362, 864), "L40": (181, 864), "L4": (121, 300),
    "V100": (125, 900), "RTX 4090": (165, 1008), "RTX 3090": (71, 936),
    "TPU v4": (275, 1228), "TPU v5 lite": (197, 819), "TPU v5": (459, 2765),
    "TPU v6 lite": (918, 1640),
}


def of(device: str) -> tuple[float | None, float | None]:
    """(FLOP/s of bf16 products, bytes/s of the memory) of a device kind; None where unknown."""
    flops, moved = next((peak for name, peak in PEAKS.items() if name in device), (None, None))
    return flops and flops * 1e12, moved and moved * 1e9


def shares(device: str, dtype: str, *, flops: float | None, moved: float, seconds: float) -> dict:
    """The shares of a device's peaks that a program reached in `seconds`; None where unknown.

    flops, moved: FLOPs and bytes of one device; flops None: not counted. The share of the roofline
    is the larger of the two: with these FLOPs and bytes no program exceeds 1.
    """
    peak, bandwidth = of(device)
    if dtype != "bfloat16" or flops is None:  # another dtype has another peak
        peak = None
    found = {"share_of_peak": peak and flops / seconds / peak,
             "share_of_bandwidth": bandwidth and moved / seconds / bandwidth}
    both = None not in found.values()
    return {**found, "share_of_roofline": max(found.values()) if both else None}
