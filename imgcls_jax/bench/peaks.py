"""What devices can do at most, and how much of it a step uses."""

# By a part of the device's name, the first that fits: (dense bf16 TFLOP/s with f32 sums, GB/s), as
# the makers' data sheets have them (NVIDIA's give the sparse figure, twice the dense one; Google's
# stand in the TPU pages of its cloud documentation). V100 has no bf16: its figure is that of f16.
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


def shares(device: str, dtype: str, *, flops: float, moved: float, seconds: float) -> dict:
    """How much of a device's peaks a program used that took `seconds`; None where unknown.

    flops, moved: FLOPs and bytes of one device. The roofline is the larger of the two shares: no
    program of these FLOPs and bytes is faster than 1.
    """
    peak, bandwidth = of(device)
    if dtype != "bfloat16":  # the peak of another dtype is another one
        peak = None
    found = {"share_of_peak": peak and flops / seconds / peak,
             "share_of_bandwidth": bandwidth and moved / seconds / bandwidth}
    both = None not in found.values()
    return {**found, "share_of_roofline": max(found.values()) if both else None}
