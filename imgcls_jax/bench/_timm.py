"""timm's model, trained by torch, for `imgcls bench step --beside=timm`: a script, not a module.

It is run by a Python that has torch and timm and need have nothing of ours. Each line of its input
is a request, {"request": "find" | "prepare" | "go", ...}, answered by one line of JSON.
"""

import json
import os
import sys
import time


class Refused(Exception):
    """What is wrong, and how to fix it."""

    def __init__(self, what: str, fix: str):
        super().__init__(what)
        self.reply = {"error": what, "fix": fix}


class Side:
    """A model in training. Each method answers the request of its name."""

    def find(self) -> dict:
        """Versions of what is installed."""
        try:
            import torch

            _declare_operators(torch)
            import timm
        except ImportError as error:
            raise Refused(f"{error.name or error} cannot be imported by this Python",
                          "pip install torch timm, or name a Python that has both: "
                          "--beside_python=PATH") from error
        return {"timm": timm.__version__, "torch": torch.__version__}

    def prepare(self, **spec) -> dict:
        """Builds, compiles and warms up what compare.request describes."""
        import torch

        device = "cuda" if spec["platform"] == "gpu" else "cpu"
        if device == "cuda" and not torch.cuda.is_available():
            raise Refused("torch sees no GPU, but JAX does",
                          "install a torch for this machine's CUDA")
        # What timm's own benchmark.py sets: the faster choice wherever there is one.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
        torch.manual_seed(0)
        module = _build(spec).to(device, memory_format=torch.channels_last).train()
        count = sum(p.numel() for p in module.parameters())
        if count != spec["parameters"]:
            raise Refused(f"timm's {spec['name']} has {count:,} parameters, ours "
                          f"{spec['parameters']:,}", "choose a model that both have")
        dtype = getattr(torch, spec["dtype"])
        shape = (spec["batch_size"], spec["channels"], spec["size"], spec["size"])
        self.images = torch.randn(shape).to(device, dtype, memory_format=torch.channels_last)
        self.labels = torch.randint(spec["classes"], (spec["batch_size"],), device=device)
        self.optimizer = torch.optim.SGD(
            module.parameters(), lr=spec["learning_rate"], momentum=spec["momentum"],
            weight_decay=spec["weight_decay"], fused=True)

        def loss(images, labels):
            with torch.autocast(device, torch.bfloat16, enabled=dtype == torch.bfloat16):
                logits = module(images)
            return torch.nn.functional.cross_entropy(logits.float(), labels)

        mode = spec["compile"]
        self.loss = loss if mode == "off" else torch.compile(loss, mode=mode)
        self.synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
        began = time.perf_counter()
        self.go(3)
        return {"name": spec["name"], "dtype": spec["dtype"], "compile": mode,
                "memory_format": "channels_last",
                "compile_seconds": time.perf_counter() - began, "parameters": count,
                "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
                "threads": torch.get_num_threads()}

    def go(self, steps: int) -> dict:
        self.synchronize()
        began = time.perf_counter()
        for _ in range(steps):
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.loss(self.images, self.labels)
            loss.backward()
            self.optimizer.step()
        self.synchronize()
        return {"seconds": time.perf_counter() - began, "loss": loss.item()}


def _build(spec: dict):
    import timm

    if not timm.is_model(spec["name"]):
        raise Refused(f"timm has no model {spec['name']!r}", "choose a model that both have")
    options = {"num_classes": spec["classes"], "in_chans": spec["channels"]}
    options |= {name: spec[ours] for name, ours in (("drop_rate", "dropout"),
                                                    ("drop_path_rate", "drop_path")) if spec[ours]}
    facts = timm.get_pretrained_cfg(spec["name"])
    if facts and facts.fixed_input_size:
        options["img_size"] = spec["size"]
    return timm.create_model(spec["name"], pretrained=False, **options)


def _declare_operators(torch):
    """Two operators that a CPU build of torch lacks, so that timm can import torchvision."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name, arguments in (("nms", "Tensor dets, Tensor scores, float iou_threshold"),
                            ("qnms", "Tensor dets, Tensor scores, float iou_threshold")):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}({arguments}) -> Tensor")
    torch._imgcls_library = library  # the operators exist as long as it does


def main():
    # What torch and its compilers print goes to the standard error, so that only replies are read.
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    side = Side()
    requests = {"find": side.find, "prepare": side.prepare, "go": side.go}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = requests[request.pop("request")](**request)
        except Refused as refused:
            reply = refused.reply
        except Exception as error:  # of torch: too little memory, no compiler, ...
            first = (str(error).strip() or "no message").splitlines()[0]
            reply = {"error": f"torch fails: {type(error).__name__}: {first[:300]}",
                     "fix": "lower --batch if memory is short; give --beside_compile=off if "
                            "torch.compile fails"}
        replies.write(json.dumps(reply) + "\n")


if __name__ == "__main__":
    main()
