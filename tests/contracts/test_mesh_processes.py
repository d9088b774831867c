"""The same mathematics in two processes of two devices each as on one device of one process."""

import jax
import numpy as np
import pytest

from tests.commands import two_processes
from tests.contracts import test_mesh as mesh

PROCESS = """
import sys
import jax
from imgcls_jax.parallel import processes, transfer
number, port, out, model, optimizer = sys.argv[1:]
processes.start(coordinator=f"127.0.0.1:{port}", processes=2, process_id=int(number), cache="off")
jax.config.update("jax_enable_x64", True)
import numpy as np
from imgcls_jax import assembly, tree
from imgcls_jax.models import resnet
from tests.contracts import test_mesh as mesh
network = resnet.ResNet
resnet.ResNet = lambda classes, blocks, **options: network(classes, (1, 1), **options)
run = assembly.build(mesh.config(model, optimizer, "f64", dict(data=2, fsdp=2)))
rows = transfer.rows(mesh.BATCH, run.mesh)
assert rows.stop - rows.start == mesh.BATCH // 2
state = run.init()
where = jax.tree.map(lambda leaf: leaf.sharding, run.abstract_state)
step = jax.jit(run.step, donate_argnums=0, out_shardings=(where, None), compiler_options=mesh.FAST)
for batch in mesh.batches():
    own = {key: value[rows] for key, value in batch.items()}
    state, sums = step(state, transfer.to_device(own, mesh.BATCH, run.mesh))
whole = jax.sharding.NamedSharding(run.mesh, jax.sharding.PartitionSpec())
state = jax.jit(lambda x: x, out_shardings=whole)(state)
leaves = {path: np.asarray(leaf) for path, leaf in tree.flatten(state).items()}
if number == "0":
    np.savez(out, **leaves)
"""


@pytest.mark.nightly
@pytest.mark.parametrize("model, optimizer", [
    ("batch norm", "sgd"), ("dropout", "adamw"), ("batch norm", "adamw"), ("dropout", "sgd")])
def test_three_f64_steps_agree(tmp_path, monkeypatch, free_port, model, optimizer):
    out = tmp_path / "state.npz"
    two_processes("off", PROCESS, free_port, out, model, optimizer)
    mesh.shorten(monkeypatch)
    with jax.enable_x64(True):
        one, _ = mesh.trained(model, optimizer, "f64", "1")
    with np.load(out) as two:
        assert set(two) == set(one)
        for path, leaf in one.items():
            error = np.linalg.norm(np.subtract(two[path], leaf, dtype=np.float64))
            assert error <= 1e-10 * np.linalg.norm(leaf), path
